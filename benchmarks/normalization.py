"""Batch normalisation of positive definite matrices, forward and backward, beside spd_learn's; and what the derivative
of the statistics costs.

    python benchmarks/normalization.py [--quick]

30 matrices n x n in float64, one thread, whose time on the processor is taken; calls in turn. spd_learn's layer has the
affine-invariant metric and a mean of one Karcher step without a derivative: that is "detach" here. The peer of every
line is spd_learn's layer, whatever our metric.
"""

from common import Contender, fix_allocator, interleaved, publish, show, summary

fix_allocator(OMP_NUM_THREADS="1")

import importlib  # noqa: E402
import importlib.metadata  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from torch import nn  # noqa: E402

from torchriemann.layers import GyroBatchNorm  # noqa: E402
from torchriemann.manifolds import SPDAffineInvariant, SPDLogCholesky, SPDLogEuclidean  # noqa: E402

COUNT, PEER = 30, "spd_learn"
SPDBatchNormMeanVar = importlib.import_module("spd_learn.modules").SPDBatchNormMeanVar
OURS: dict[str, tuple[Any, dict[str, Any]]] = {
    "affine-invariant, detach": (SPDAffineInvariant(), {"stats_grad": "detach"}),
    "affine-invariant, last_step": (SPDAffineInvariant(), {}),
    "affine-invariant, converged and implicit": (
        SPDAffineInvariant(),
        {"stats_grad": "implicit", "karcher_steps": None},
    ),
    "affine-invariant, tangent form": (SPDAffineInvariant(), {"form": "tangent"}),
    "log-Euclidean": (SPDLogEuclidean(), {}),
    "log-Cholesky": (SPDLogCholesky(), {}),
}


def step(layer: nn.Module, n: int) -> Callable[[], Any]:
    """A forward and a backward pass, with gradients of the input and of the parameters."""
    generator = torch.Generator().manual_seed(0)
    x = SPDAffineInvariant().random_normal(COUNT, n, n, std=0.1, generator=generator, dtype=torch.float64)
    w = torch.randn(COUNT, n, n, generator=generator, dtype=torch.float64)
    leaves = [x.requires_grad_(), *layer.parameters()]
    return lambda: torch.autograd.grad((w * layer(x)).sum(), leaves)


def lines(n: int, rounds: int) -> list[dict[str, Any]]:
    """All layers at one size, in the same rounds."""
    layers: dict[str, nn.Module] = {PEER: SPDBatchNormMeanVar(n, n_iter=1, dtype=torch.float64)}
    for name, (manifold, options) in OURS.items():
        layers[name] = GyroBatchNorm(manifold, (n, n), dtype=torch.float64, **options)
    contenders = [Contender(name, step(layer, n)) for name, layer in layers.items()]
    samples = interleaved(contenders, rounds=rounds, block=3, clock=time.thread_time)
    found = []
    for name in OURS:
        ratio = statistics.median(b / a for a, b in zip(samples[name], samples[PEER], strict=True))
        found.append(
            {
                "name": f"{name}, n = {n}",
                "rounds": rounds,
                "block": 3,
                "contenders": {c: summary(samples[c]) for c in (name, PEER)},
                "ratios": {PEER: {"ratio": ratio, "bar": 1.0 if name.endswith("detach") else None}},
            }
        )
    return found


def main(quick: bool) -> None:
    torch.set_num_threads(1)
    results = []
    for n in (16, 32):
        for result in lines(n, 4 if quick else 20):
            show(result)
            results.append(result)
    if not quick:
        publish("normalization", results, spd_learn=importlib.metadata.version("spd_learn"))


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
