"""The metrics of symmetric positive definite matrices: exp, log and distance with their gradients, and means.

    python benchmarks/spd.py [--quick]

256 matrices n x n, float32, one thread, whose time on the processor is taken. Times are in units E of one
`torch.linalg.eigh` of the same batch in the same rounds, first of the forward pass, then with the gradients in both
arguments; beside a peer stands our speed as a multiple of its, in the same two, below 1 where we are slower. Means are
of 50 matrices in float64, beside pyriemann's on numpy; residuals are norms of the mean logarithm at the result. A bar
is a time in E that was aimed at.
"""

from common import Contender, environment, fix_allocator, interleaved, publish

fix_allocator(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", GEOMSTATS_BACKEND="pytorch")

import argparse  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterable  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from _spd_peers import POWER, Operation, peers, pyriemann_means, versions  # noqa: E402
from torch import Tensor  # noqa: E402

from torchriemann.manifolds import (  # noqa: E402
    SPDAffineInvariant,
    SPDBuresWasserstein,
    SPDLogCholesky,
    SPDLogEuclidean,
    SPDPowerCholesky,
    SPDPowerEuclidean,
)

torch.set_default_dtype(torch.float32)  # geomstats makes float64 the default while it is imported

BATCH, SIZES = 256, (8, 16, 32, 64)
METRICS = (
    SPDAffineInvariant(),
    SPDLogEuclidean(),
    SPDLogCholesky(),
    SPDPowerCholesky(POWER),
    SPDBuresWasserstein(),
    SPDPowerEuclidean(POWER),
)
CHOLESKY = ("SPDLogCholesky", "SPDPowerCholesky")
Passes = tuple[float | None, float | None]  # forward, and with the gradients


def bar(metric: str, operation: str, n: int) -> Passes:
    """What was aimed at, in E."""
    if metric == "SPDAffineInvariant":
        if operation == "dist":
            return (1.3, 2.3) if n == 64 else (0.95, 1.8)
        return (2.0, 3.6) if n == 64 else (1.6, 2.4)
    if metric in CHOLESKY and n < 64:
        return (0.35 if operation == "dist" else 0.5, 1.4 if n == 8 else 1.2)
    return None, None


def wishart(generator: torch.Generator, count: int, n: int) -> Tensor:
    """Sample covariances of 2n standard normal vectors: `count` matrices n x n in float64."""
    noise = torch.randn(count, n, 2 * n, generator=generator, dtype=torch.float64)
    return noise @ noise.mT / (2 * n)


def with_gradients(operation: Operation, x: Tensor, other: Tensor) -> Callable[[], Any]:
    """A call that computes the operation and both gradients of its product with a fixed cotangent."""
    x, other = (z.clone().requires_grad_() for z in (x, other))
    cotangent = torch.randn(operation(x, other).shape, generator=torch.Generator().manual_seed(1))
    return lambda: torch.autograd.grad(operation(x, other), (x, other), cotangent)


def timed(contenders: list[Contender], **count: int) -> dict[str, list[float]]:
    """Everything here is one thread's: its time on the processor, in which other programs take no part."""
    return interleaved(contenders, clock=time.thread_time, **count)


def samples(ours: Operation, theirs: dict[str, Operation], x: Tensor, other: Tensor, **count: int):
    """Milliseconds of E and of all contenders in the forward pass, and again with gradients."""
    every = {"torchriemann": ours, **theirs}
    eigh = Contender("E", lambda: torch.linalg.eigh(x))
    forward = [Contender(name, lambda f=f: f(x, other)) for name, f in every.items()]
    backward = [Contender(name, with_gradients(f, x, other)) for name, f in every.items()]
    with torch.no_grad():
        first = timed([eigh, *forward], **count)
    return first, timed([eigh, *backward], **count)


def ratio(over: list[float], under: list[float]) -> float:
    """The median of the ratios of one round."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def line(metric: Any, operation: str, n: int, theirs: dict[str, Operation], **count: int) -> dict[str, Any]:
    """One operation of one metric at one size."""
    name = type(metric).__name__
    generator = torch.Generator().manual_seed(n)
    x, y = (wishart(generator, BATCH, n) for _ in range(2))
    other = metric.logmap(x, y) if operation == "exp" else y
    ours = {"exp": metric.expmap, "log": metric.logmap, "dist": metric.dist}[operation]
    passes = samples(ours, theirs, x.float(), other.float(), **count)
    units = [ratio(p["torchriemann"], p["E"]) for p in passes]
    bars = bar(name, operation, n)
    result: dict[str, Any] = {"name": f"{name}, {operation}, n = {n}", "E, ms": statistics.median(passes[0]["E"])}
    result |= {"forward": units[0], "bar": bars[0], "with gradients": units[1], "its bar": bars[1]}
    ratios = {peer: [ratio(p[peer], p["torchriemann"]) for p in passes] for peer in theirs}
    result |= {f"x {peer}": " / ".join(f"{r:.2g}" for r in both) for peer, both in ratios.items()}
    if name == "SPDAffineInvariant" and n < 64:
        result["with gradients at least"] = "2.5 x geoopt" if operation == "exp" else "1.4 x the best"
    result["ratios"] = ratios
    result["milliseconds"] = {peer: [statistics.median(p[peer]) for p in passes] for peer in passes[0]}
    return result


def operations(sizes: Iterable[int], quick: bool) -> Iterable[dict[str, Any]]:
    """Every operation of every metric at every size."""
    for metric in METRICS:
        for n in sizes:
            libraries = peers(n)
            for operation in ("exp", "log", "dist"):
                theirs = {
                    library: metrics[type(metric).__name__][operation]
                    for library, metrics in libraries.items()
                    if operation in metrics.get(type(metric).__name__, {})
                }
                few = {"rounds": 3 if quick else 9 if n < 64 else 5, "block": 3 if n < 32 else 1}
                yield line(metric, operation, n, theirs, **few, warmup=3 if n < 32 else 1)


def means(sizes: Iterable[int], quick: bool) -> Iterable[dict[str, Any]]:
    """Means of 50 matrices in float64, beside pyriemann's."""
    for metric in METRICS:
        mean = pyriemann_means().get(type(metric).__name__)
        if mean is None:
            continue
        for n in (n for n in sizes if n < 64):
            x = wishart(torch.Generator().manual_seed(n), 50, n)
            numbers = x.numpy()
            runs = [
                Contender("torchriemann", lambda x=x, metric=metric: metric.frechet_mean(x)),
                Contender("pyriemann", lambda numbers=numbers, mean=mean: mean(numbers)),
            ]
            times = timed(runs, rounds=3 if quick else 11, block=1)
            ours, theirs = runs[0].run(), torch.as_tensor(runs[1].run())
            yield {
                "name": f"{type(metric).__name__}, mean of 50, n = {n}",
                "ms": statistics.median(times["torchriemann"]),
                "pyriemann, ms": statistics.median(times["pyriemann"]),
                "x pyriemann": f"{ratio(times['pyriemann'], times['torchriemann']):.2g}",
                "residual": float(metric.karcher_residual(x, ours)),
                "its residual": float(metric.karcher_residual(x, theirs)),
            }


def show(result: dict[str, Any]) -> None:
    """Print a line: times in E with their bars, then the peers."""
    entries = [f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in list(result.items())[1:] if v]
    print(f"{result['name']:38s}" + "  ".join(e for e in entries if "{" not in e), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="n = 8 and 16, few rounds, nothing written")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    print({**environment(), **versions()})
    sizes = SIZES[:2] if quick else SIZES
    results, start = [], time.perf_counter()
    for source in (operations, means):
        for result in source(sizes, quick):
            results.append(result)
            show(result)
    print(f"{time.perf_counter() - start:.0f} s")
    if not quick:
        publish("spd", results, **versions())


if __name__ == "__main__":
    main()
