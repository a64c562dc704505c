"""The metrics of correlation matrices: exp, log, distance and mean, beside geomstats on numpy and on torch.

    python benchmarks/correlation.py [--quick]

64 matrices n x n, float64, one thread, whose time on the processor is taken; means are of 50 matrices. Times are in
units E of one `torch.linalg.eigh` of the same batch in the same rounds; beside the peer stands our speed as a multiple
of its, below 1 where we are slower. The backend of geomstats is chosen before its import: all is measured twice, in a
process each, ours beside it in both. Errors are those of exp(log) and, of means, the norm of the mean logarithm at the
result over the spread.
"""

from common import Contender, environment, fix_allocator, interleaved, publish

fix_allocator(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import argparse  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Callable, Iterable  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from _correlation_peers import METRICS, TOO_SLOW, operations, to_peer, versions  # noqa: E402
from torch import Tensor  # noqa: E402

from torchriemann import manifolds  # noqa: E402

BATCH, MEANS, SIZES = 64, 50, (8, 16, 32)
BACKENDS = ("numpy", "pytorch")


def draw(generator: torch.Generator, count: int, n: int) -> Tensor:
    """Sample correlations of 2n standard normal vectors: of condition 100 or so."""
    noise = torch.randn(count, n, 2 * n, generator=generator, dtype=torch.float64)
    return manifolds.CorrelationEuclideanCholesky().correlation(noise @ noise.mT)


def ratio(over: list[float], under: list[float]) -> float:
    """The median of the ratios of one round."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def given(metric: Any, operation: str, n: int) -> tuple[list[Tensor], Callable[..., Tensor]]:
    """The arguments of an operation, and ours."""
    generator = torch.Generator().manual_seed(n)
    if operation == "mean":
        return [draw(generator, MEANS, n)], metric.frechet_mean
    x, y = (draw(generator, BATCH, n) for _ in range(2))
    call = {"exp": metric.expmap, "log": metric.logmap, "dist": metric.dist}[operation]
    return [x, 0.5 * metric.logmap(x, y) if operation == "exp" else y], call


def error(metric: Any, operation: str, arguments: list[Tensor], found: Any) -> float | None:
    """Of a result: how far exp of a logarithm ends from y, and how far a mean is from one."""
    found = torch.as_tensor(found)
    if operation == "log":
        return float((metric.expmap(arguments[0], found) - arguments[1]).abs().max())
    if operation == "mean":
        logs = metric.logmap(found, arguments[0])
        return float(metric.norm(found, logs.mean(0)) / metric.norm(found, logs).square().mean().sqrt())
    return None


def line(name: str, operation: str, n: int, quick: bool) -> dict[str, Any]:
    """One operation of one metric at one size, in the backend of this process."""
    metric = getattr(manifolds, name)()
    arguments, call = given(metric, operation, n)
    contenders = [
        Contender("E", lambda: torch.linalg.eigh(arguments[0])),
        Contender("torchriemann", lambda: call(*arguments)),
    ]
    theirs = operations(name, n)[operation]
    converted = [to_peer(z) for z in arguments]
    result: dict[str, Any] = {"error": error(metric, operation, arguments, call(*arguments))}
    slow = False
    if (name, operation, n) not in TOO_SLOW:
        start = time.perf_counter()
        result["its error"] = error(metric, operation, arguments, theirs(*converted))
        slow = time.perf_counter() - start > 0.2
        contenders.append(Contender("geomstats", lambda: theirs(*converted)))
    count = {"rounds": 3 if quick or slow else 9, "block": 1, "warmup": 0 if slow else 2}
    with torch.no_grad():
        times = interleaved(contenders, clock=time.thread_time, **count)
    result["E"] = ratio(times["torchriemann"], times["E"])
    result["ms"] = statistics.median(times["torchriemann"])
    if "geomstats" in times:
        result["ratio"] = ratio(times["geomstats"], times["torchriemann"])
        result["its ms"] = statistics.median(times["geomstats"])
    return result


def measured(quick: bool) -> dict[str, dict[str, Any]]:
    """All lines in the backend of this process."""
    sizes = SIZES[:1] if quick else SIZES
    keys = [(name, operation, n) for name in METRICS for operation in ("exp", "log", "dist", "mean") for n in sizes]
    return {f"{name}, {operation}, n = {n}": line(name, operation, n, quick) for name, operation, n in keys}


def in_backend(backend: str, quick: bool) -> dict[str, dict[str, Any]]:
    """`measured` in a process whose geomstats has that backend."""
    command = [sys.executable, __file__, "--lines", *(["--quick"] if quick else [])]
    environment = {**os.environ, "GEOMSTATS_BACKEND": backend}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def joined(found: dict[str, dict[str, dict[str, Any]]]) -> Iterable[dict[str, Any]]:
    """A line an operation, of both processes."""
    for name in found[BACKENDS[0]]:
        parts = {backend: lines[name] for backend, lines in found.items()}
        first = parts[BACKENDS[0]]
        result: dict[str, Any] = {"name": name, "E": first["E"], "ms": first["ms"], "error": first["error"]}
        for backend, part in parts.items():
            result[f"geomstats ({backend}), ms"] = part.get("its ms")
            result[f"x geomstats ({backend})"] = part.get("ratio")
            result[f"error ({backend})"] = part.get("its error")
        yield {k: v for k, v in result.items() if v is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="n = 8, few rounds, nothing written")
    parser.add_argument(
        "--lines", action="store_true", help="those of one backend, as JSON: what the script asks itself"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # as geomstats makes it while it is imported, and needs it
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)  # where its fixed point stops before it has converged, which the errors show
    if options.lines:
        print(json.dumps(measured(options.quick)))
        return
    print({**environment(), **versions()})
    start = time.perf_counter()
    results = list(joined({backend: in_backend(backend, options.quick) for backend in BACKENDS}))
    for result in results:
        shown = "  ".join(f"{k} {v:.3g}" for k, v in result.items() if k != "name")
        print(f"{result['name']:46s}{shown}")
    print(f"{time.perf_counter() - start:.0f} s")
    if not options.quick:
        publish("correlation", results, **versions())


if __name__ == "__main__":
    main()
