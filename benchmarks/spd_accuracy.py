"""Errors of distances and logarithms of positive definite matrices in float32, ours and those of the peers.

    python benchmarks/spd_accuracy.py

24 pairs 8 x 8 of the stated condition numbers, independent of each other where not said to be near; the truth is
computed from the stored numbers with 40 digits. Errors are the largest relative ones, of logarithms in the Frobenius
norm; infinite where a result is NaN. "Gradients" are the largest relative errors of the gradients of the distance in
both arguments against ours in float64, which the tests hold against difference quotients.
"""

from __future__ import annotations

from common import fix_allocator, publish

fix_allocator(GEOMSTATS_BACKEND="pytorch")

import math  # noqa: E402
from collections.abc import Callable, Iterable  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from _spd_peers import POWER, Operation, peers, versions  # noqa: E402
from _spd_truth import TRUTH, exact, frobenius  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.linalg import LinAlgError  # noqa: E402  # pyright: ignore[reportAttributeAccessIssue]

from torchriemann.manifolds import (  # noqa: E402
    SPDAffineInvariant,
    SPDBuresWasserstein,
    SPDLogCholesky,
    SPDLogEuclidean,
    SPDPowerCholesky,
    SPDPowerEuclidean,
)

torch.set_default_dtype(torch.float32)  # geomstats makes float64 the default while it is imported

N, PAIRS = 8, 24
METRICS = (
    SPDAffineInvariant(),
    SPDLogEuclidean(),
    SPDLogCholesky(),
    SPDPowerCholesky(POWER),
    SPDBuresWasserstein(),
    SPDPowerEuclidean(POWER),
)
BARS = {("SPDAffineInvariant", "dist", "condition 1e+06"): 1e-3, ("SPDBuresWasserstein", "dist", "near"): 0.1}


def far(condition: float, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Independent pairs."""
    g = torch.Generator().manual_seed(0)
    m = SPDAffineInvariant()
    x, y = (m.random_spectrum(PAIRS, N, N, condition=condition, generator=g, dtype=torch.float64) for _ in range(2))
    return (scale * x).float(), (scale * y).float()


def near() -> tuple[Tensor, Tensor]:
    """Pairs 2e-5 sqrt(tr x) apart in the Bures-Wasserstein metric."""
    m, (x, _) = SPDBuresWasserstein(), far(1e2)
    x = x.double()
    u = m.random_tangent(x, generator=torch.Generator().manual_seed(1))
    length = 2e-5 * x.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt()
    return x.float(), m.expmap(x, u * (length / m.norm(x, u))[:, None, None]).float()


def worst(errors: Iterable[Any]) -> float:
    """The largest; infinite if one is NaN."""
    return max(math.inf if math.isnan(e) else e for e in map(float, errors))


def attempt(operation: Operation, x: Tensor, y: Tensor) -> Tensor | None:
    """The result; None where LAPACK gives up on an item, which then leaves none of the batch."""
    try:
        return operation(x, y)
    except LinAlgError:
        return None


def values(operation: Operation, truth: list, x: Tensor, y: Tensor) -> float:
    """Of numbers or matrices."""
    got = attempt(operation, x, y)
    if got is None:
        return math.inf
    if got.dim() == 1:
        return worst(abs(g - t) / t for g, t in zip(got.double().tolist(), truth, strict=True))
    return worst(frobenius(exact(g) - t) / frobenius(t) for g, t in zip(got, truth, strict=True))


def gradients(operation: Operation, truth: tuple[Tensor, ...], x: Tensor, y: Tensor) -> float:
    """In both arguments, as matrices that are symmetric."""
    x, y = (z.clone().requires_grad_() for z in (x, y))
    d = attempt(operation, x, y)
    if d is None:
        return math.inf
    found = torch.autograd.grad(d.sum(), (x, y))
    return worst(
        error
        for g, t in zip(found, truth, strict=True)
        for error in ((g + g.mT).double() / 2 - t).flatten(-2).norm(dim=-1) / t.flatten(-2).norm(dim=-1)
    )


def lines() -> Iterable[dict[str, Any]]:
    """Every metric on every kind of pair."""
    kinds: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
        f"condition {c:.0e}": (lambda c=c: far(c)) for c in (1e2, 1e4, 1e6)
    }
    kinds |= {"condition 1e+02, times 1e-10": lambda: far(1e2, 1e-10), "near": near}
    libraries = peers(N)
    for metric in METRICS:
        name = type(metric).__name__
        for kind, draw in kinds.items():
            x, y = draw()
            truth = [TRUTH[name](exact(a), exact(b)) for a, b in zip(x, y, strict=True)]
            leaves = [z.double().requires_grad_() for z in (x, y)]
            slopes = torch.autograd.grad(metric.dist(*leaves).sum(), leaves)
            for operation in ("dist", "log", "gradients"):
                wanted = "log" if operation == "log" else "dist"
                ours = {"torchriemann": {"dist": metric.dist, "log": metric.logmap}}
                theirs = {library: metrics.get(name, {}) for library, metrics in libraries.items()}
                line: dict[str, Any] = {
                    "name": f"{name}, {operation}, {kind}",
                    "bar": BARS.get((name, operation, kind)),
                }
                for library, operations in {**ours, **theirs}.items():
                    line[library] = ""
                    if wanted in operations:
                        judge = operations[wanted]
                        line[library] = (
                            gradients(judge, slopes, x, y)
                            if operation == "gradients"
                            else values(judge, [t[operation == "log"] for t in truth], x, y)
                        )
                yield line


def main() -> None:
    """Print every line, write the JSON."""
    torch.set_num_threads(1)
    results = []
    for line in lines():
        results.append(line)
        shown = "  ".join(f"{k} {v:.1e}" for k, v in line.items() if isinstance(v, float))
        print(f"{line['name']:62s} {shown}", flush=True)
    publish("spd_accuracy", results, **versions())


if __name__ == "__main__":
    main()
