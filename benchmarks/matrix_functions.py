"""Roots, logarithm and powers of symmetric matrices: errors at each condition number, times in units of one eigh.

    python benchmarks/matrix_functions.py [--quick]

Errors are the largest relative ones, in the Frobenius norm, over 4 matrices of n = 16 with logarithmically uniform
eigenvalues, of the value and of the gradient of ``sum(W * f(X))`` with a random symmetric W, against 60 digits from
the same stored numbers. Times are of 256 matrices in float32 with eigenvalues of a Wishart law of 2 n degrees of
freedom, as multiples of one ``torch.linalg.eigh`` of the same batch, which runs in turn with them: time of the
processor, one thread.
"""

from common import Contender, fix_allocator, interleaved, publish, summary

fix_allocator()

import argparse  # noqa: E402
import functools  # noqa: E402
import math  # noqa: E402
import time  # noqa: E402

import mpmath  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from torchriemann.manifolds import matrix_inverse_sqrt, matrix_log, matrix_power, matrix_sqrt  # noqa: E402

SIZE, ITEMS, BATCH = 16, 4, 256
CONDITIONS = (1e2, 1e4, 1e6, 1e8)
METHODS = ("eigh", "newton_schulz", "pade", "taylor")
EXACT = {
    "matrix_sqrt": lambda a: (mpmath.sqrt(a), 1 / (2 * mpmath.sqrt(a))),
    "matrix_inverse_sqrt": lambda a: (1 / mpmath.sqrt(a), -1 / (2 * mpmath.sqrt(a) ** 3)),
    "matrix_log": lambda a: (mpmath.log(a), 1 / a),
    "matrix_power, p = 0.3": lambda a: (a ** mpmath.mpf(0.3), mpmath.mpf(0.3) * a ** (mpmath.mpf(0.3) - 1)),
}


def contenders():
    """Name in the tables, function, name of the exact one."""
    for name, function in (("matrix_sqrt", matrix_sqrt), ("matrix_inverse_sqrt", matrix_inverse_sqrt)):
        for method in METHODS:
            yield f"{name}, {method}", functools.partial(function, method=method), name
    yield "matrix_log", matrix_log, "matrix_log"
    yield "matrix_power, p = 0.3", lambda x: matrix_power(x, 0.3), "matrix_power, p = 0.3"


# ---- errors -------------------------------------------------------------------------------------------------------


def spread(condition: float, dtype: torch.dtype) -> Tensor:
    """Matrices with logarithmically uniform eigenvalues from 1/condition to 1."""
    g = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(ITEMS, SIZE, SIZE, generator=g, dtype=torch.float64))[0]
    places = torch.rand(ITEMS, SIZE, generator=g, dtype=torch.float64)
    places[:, 0], places[:, 1] = 0.0, 1.0
    x = (q * (condition**-places).unsqueeze(-2)) @ q.mT
    return (0.5 * (x + x.mT)).to(dtype)


def weight() -> Tensor:
    """A symmetric matrix."""
    w = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return 0.5 * (w + w.mT)


@functools.cache
def decomposition(condition: float, dtype: torch.dtype):
    """The eigenvalues and the eigenvectors of the matrices to 60 digits."""
    return [mpmath.eigsy(mpmath.matrix(x)) for x in spread(condition, dtype).double().tolist()]


@functools.cache
def truth(name: str, condition: float, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """Values and gradients, by divided differences; None where rounding has made a matrix indefinite."""
    values, gradients = [], []
    for a, q in decomposition(condition, dtype):
        if min(a) <= 0:
            return None
        f = [EXACT[name](e) for e in a]
        inner = q.T * mpmath.matrix(weight().tolist()) * q
        slopes = mpmath.matrix(SIZE, SIZE)
        for i in range(SIZE):
            for j in range(SIZE):
                slope = f[i][1] if i == j else (f[i][0] - f[j][0]) / (a[i] - a[j])
                slopes[i, j] = slope * inner[i, j]
        values.append(q * mpmath.diag([v for v, _ in f]) * q.T)
        gradients.append(q * slopes * q.T)
    return to_tensor(values), to_tensor(gradients)


def to_tensor(matrices) -> Tensor:
    """In float64."""
    return torch.tensor(
        [[[float(m[i, j]) for j in range(m.cols)] for i in range(m.rows)] for m in matrices], dtype=torch.float64
    )


def errors(function, name: str, condition: float, dtype: torch.dtype) -> tuple[float, float]:
    """Of the value and of the gradient."""
    exact = truth(name, condition, dtype)
    if exact is None:
        return float("nan"), float("nan")
    x = spread(condition, dtype).requires_grad_()
    value = function(x)
    (gradient,) = torch.autograd.grad((value * weight().to(dtype)).sum(), x)
    return relative(value.detach(), exact[0]), relative(gradient, exact[1])


def relative(got: Tensor, want: Tensor) -> float:
    """The largest error of an item."""
    return float(((got.double() - want).norm(dim=(1, 2)) / want.norm(dim=(1, 2))).max())


def shown(error: float) -> float | str:
    """NaN is no JSON: where rounding has made a matrix indefinite there is no error."""
    return error if math.isfinite(error) else "indefinite"


def accuracy(conditions) -> list[dict]:
    """A line a function and dtype, a column a condition number."""
    lines = []
    for dtype in (torch.float32, torch.float64):
        for title, function, name in contenders():
            line: dict[str, float | str] = {"name": f"{title}, {str(dtype).removeprefix('torch.')}"}
            for condition in conditions:
                pair = errors(function, name, condition, dtype)
                line[f"value {condition:.0e}"], line[f"gradient {condition:.0e}"] = map(shown, pair)
            lines.append(line)
            figures = [v if isinstance(v, str) else f"{v:.0e}" for k, v in line.items() if k != "name"]
            pairs = [f"{a} {b}" for a, b in zip(figures[::2], figures[1::2], strict=True)]
            print("| " + " | ".join([str(line["name"]), *pairs]) + " |", flush=True)
    return lines


# ---- times --------------------------------------------------------------------------------------------------------


def times(n: int, *, rounds: int) -> list[dict]:
    """Forward, and forward with backward, of one size."""
    half = torch.randn(BATCH, n, 2 * n, generator=torch.Generator().manual_seed(n))
    x, g = half @ half.mT / (2 * n), torch.randn(BATCH, n, n)
    leaf = x.clone().requires_grad_()
    lines = []
    for passes in ("forward", "forward and backward"):
        made = [Contender("torch.linalg.eigh", lambda: torch.linalg.eigh(x))]
        for title, function, _ in contenders():
            if passes == "forward":
                made.append(Contender(title, functools.partial(function, x)))
            else:
                made.append(Contender(title, lambda f=function: torch.autograd.grad(f(leaf), leaf, g)))
        samples = interleaved(made, rounds=rounds, block=1, clock=time.process_time)
        table = {name: summary(found) for name, found in samples.items()}
        for c in table.values():
            c["in_eigh"] = c["median_ms"] / table["torch.linalg.eigh"]["median_ms"]
        lines.append({"name": f"n = {n}, {passes}", "rounds": rounds, "contenders": table})
        print(f"n = {n}, {passes:22s}", {name: round(c["in_eigh"], 2) for name, c in table.items()}, flush=True)
    return lines


def main() -> None:
    """Print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="a look: one condition number, small sizes, writes nothing"
    )
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    with mpmath.workdps(60):
        lines = accuracy(CONDITIONS[:1] if quick else CONDITIONS)
    for n in (8,) if quick else (8, 16, 32, 64):
        lines += times(n, rounds=5 if quick else 30 if n <= 16 else 10 if n == 32 else 6)
    if not quick:
        publish("matrix_functions", lines)


if __name__ == "__main__":
    main()
