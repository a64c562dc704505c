"""The fused kernels on a GPU, beside copies of the fewest bytes that they must move, and the plain formulas.

    python benchmarks/kernels.py [--quick]

Float32, curvature a tensor that wants a gradient. The fewest bytes: every input read once and every output written
once, forward; backward, the gradient and the inputs read again and a gradient written for each input. Every contender
is replayed as a CUDA graph, so that launches are timed and Python is not. Writes results/kernels.json; without a GPU it
says so and does nothing.
"""

import sys

import torch
from common import publish

import torchriemann
from torchriemann.manifolds import Lorentz, PoincareBall, kernels

ROWS = (100_000, 1_000_000)
DIMENSIONS = (16, 32, 64, 128, 256, 512, 1024)
OPERATIONS = ("exp", "log", "dist", "transport")
BARS = {"forward": 1.3, "forward and backward": 1.5}  # times the copy


def arguments(space: str, operation: str, rows: int, dimension: int) -> list[torch.Tensor]:
    """Points at radius about 1.5 and tangent vectors of about that length, made in pieces to spare memory."""
    manifold = (Lorentz if space == "lorentz" else PoincareBall)()
    generator = torch.Generator("cuda").manual_seed(0)
    scale = 1.5 / dimension**0.5

    def normal() -> torch.Tensor:
        return scale * torch.randn(rows, dimension, device="cuda", generator=generator)

    with torch.no_grad():
        x = manifold.from_normal(normal())
        if operation == "exp":
            return [x, manifold.tangent_from_frame(x, normal())]
        y = manifold.from_normal(normal())
        return [x, y] if operation != "transport" else [x, y, manifold.tangent_from_frame(x, normal())]


def fewest(tensors: list[torch.Tensor], value: torch.Tensor) -> dict[str, int]:
    """Bytes by pass. The gradient of the curvature is one number a row."""
    inputs = sum(t.nbytes for t in tensors)
    forward = inputs + value.nbytes
    return {"forward": forward, "forward and backward": forward + value.nbytes + 2 * inputs + 4 * len(value)}


def milliseconds(run) -> float:
    """The median replay of a CUDA graph of `run`."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    repeats = 50
    starts, ends = ([torch.cuda.Event(enable_timing=True) for _ in range(repeats)] for _ in range(2))
    for start, end in zip(starts, ends, strict=True):
        start.record()
        graph.replay()
        end.record()
    torch.cuda.synchronize()
    return sorted(start.elapsed_time(end) for start, end in zip(starts, ends, strict=True))[repeats // 2]


def copy_of(size: int) -> float:
    """Milliseconds of a copy that reads and writes `size` bytes together."""
    source, target = (torch.randn(size // 8, device="cuda") for _ in range(2))
    return milliseconds(lambda: target.copy_(source))


def passes(run, tensors: list[torch.Tensor]):
    """name -> what to time."""
    curvature = torch.tensor(-1.0, device="cuda", requires_grad=True)
    leaves = [*[t.detach().requires_grad_() for t in tensors], curvature]
    fixed = [*tensors, curvature.detach()]
    g = torch.randn_like(run(*fixed))
    return {
        "forward": lambda: run(*fixed),
        "forward and backward": lambda: torch.autograd.grad(run(*leaves), leaves, g),
    }


def line(space: str, operation: str, rows: int, dimension: int) -> dict:
    """One operation at one size: milliseconds of each pass, and their ratios to the copy."""
    run = getattr(kernels, f"{space}_{operation}")
    tensors = arguments(space, operation, rows, dimension)
    needed = fewest(tensors, run(*tensors, -1.0))
    result: dict = {"name": f"{space}_{operation}, {rows} x {dimension}", "contenders": {}, "ratios": {}}
    fused = {name: milliseconds(call) for name, call in passes(run, tensors).items()}
    with torchriemann.use_kernels(False):
        plain = {name: milliseconds(call) for name, call in passes(run, tensors).items()}
    for name, size in needed.items():
        floor = copy_of(size)
        result["contenders"][name] = {"bytes": size, "fused_ms": fused[name], "plain_ms": plain[name], "copy_ms": floor}
        result["ratios"][name] = {
            "to copy": fused[name] / floor,
            "bar": BARS[name],
            "to plain": fused[name] / plain[name],
        }
    return result


def report(result: dict) -> None:
    """Print a line."""
    print(f"\n{result['name']}")
    for name, times in result["contenders"].items():
        ratios = result["ratios"][name]
        print(
            f"  {name:22s} {times['fused_ms']:8.3f} ms, plain {times['plain_ms']:8.3f}, copy {times['copy_ms']:8.3f}: "
            f"{ratios['to copy']:.2f} times the copy (bar {ratios['bar']:g})",
            flush=True,
        )


def main(quick: bool) -> None:
    if not torch.cuda.is_available():
        print("no GPU here: nothing was run")
        return
    card = torch.cuda.get_device_properties(0)
    print(card.name)
    lines = []
    for rows in ROWS[:1] if quick else ROWS:
        for dimension in (64,) if quick else DIMENSIONS:
            if 40 * 4 * rows * dimension > card.total_memory:  # the plain backward pass keeps some forty such tensors
                print(f"{rows} x {dimension}: too large for the plain formulas on this card, left out")
                continue
            for space in ("lorentz", "poincare"):
                for operation in OPERATIONS:
                    result = line(space, operation, rows, dimension)
                    report(result)
                    lines.append({"card": card.name, **result})
                    torch.cuda.empty_cache()
    if not quick:
        publish("kernels", lines)


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
