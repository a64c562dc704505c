"""Operations at the sizes of small layers, where launches cost more than arithmetic, beside geoopt's.

    python benchmarks/small.py [--quick] [NAME ...]

64 points of dimension 5 and 1024 of dimension 16, 32 frames 16x4 and 32 positive definite matrices 8x8; float32, one
thread, whose time on the processor is taken; forward without derivatives, and forward with the backward pass to all
arguments; calls in turn. NAME: lines that contain it.
"""

from common import Contender, fix_allocator, interleaved, publish, show, summary

fix_allocator(OMP_NUM_THREADS="1")

import argparse  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from _small_calls import MATRIX_SIZES, SIZES, Call, calls, matrix_calls  # noqa: E402
from torch import Tensor  # noqa: E402

PEER = "geoopt"
# Times over geoopt's that are aimed at: forward, and with the backward pass.
AIMS = {
    "Sphere, dist": (4.0, 2.2),
    "Lorentz, dist": (3.6, 2.2),
    "Sphere, logmap": (3.2, 1.6),
    "Lorentz, logmap": (2.4, 1.3),
}
OTHER_AIMS = (1.6, 1.3)
AIMED = ("Sphere, ", "Lorentz, ", "PoincareBall, ")


def with_backward(function: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> Callable[[], Any]:
    """A forward and a backward pass, the cotangent given."""
    leaves = [t.clone().requires_grad_() for t in tensors]
    cotangent = torch.ones_like(function(*tensors))
    return lambda: torch.autograd.grad(function(*leaves), leaves, cotangent, allow_unused=True)


def aim(name: str, part: int) -> float | None:
    """Our speed as a multiple of geoopt's that is aimed at."""
    if name.endswith(", retr") or name in ("Sphere, transp", "Lorentz, parallel_transport"):
        return None
    return 1 / AIMS.get(name, OTHER_AIMS)[part] if name.startswith(AIMED) else None


def line(call: Call, size: tuple[int, ...], part: int, rounds: int, block: int) -> dict[str, Any]:
    """One operation at one size, with the backward pass if `part`."""
    runs: dict[str, Callable[[], Any]] = {}
    for name, function in (("torchriemann", call.ours), (PEER, call.geoopt)):
        if function is not None:
            alone = lambda function=function: function(*call.tensors)  # noqa: E731
            runs[name] = with_backward(function, call.tensors) if part else alone
    contenders = [Contender(name, run) for name, run in runs.items()]
    with torch.set_grad_enabled(bool(part)):
        samples = interleaved(contenders, rounds=rounds, block=block, clock=time.thread_time)
    found: dict[str, Any] = {
        "name": f"{call.name}, {size}, {'forward and backward' if part else 'forward'}",
        "rounds": rounds,
        "block": block,
        "contenders": {name: summary(s) for name, s in samples.items()},
        "ratios": {},
    }
    if PEER in samples:
        ratio = statistics.median(b / a for a, b in zip(samples["torchriemann"], samples[PEER], strict=True))
        found["ratios"][PEER] = {"ratio": ratio, "bar": aim(call.name, part)}
    return found


def main() -> None:
    """Time every operation at both sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, write nothing")
    parser.add_argument("names", nargs="*", help="parts of the names of lines; nothing is written")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rounds, block = (5, 11) if arguments.quick else (15, 31)
    lines = []
    timed = [(size, call) for size in SIZES for call in calls(*size)]
    timed += [(size, call) for size in MATRIX_SIZES for call in matrix_calls(size)]
    for size, call in timed:
        if arguments.names and not any(name in call.name for name in arguments.names):
            continue
        for part in (0, 1):
            lines.append(line(call, size, part, rounds, block))
            show(lines[-1])
    if not (arguments.quick or arguments.names):
        publish("small", lines)


if __name__ == "__main__":
    main()
