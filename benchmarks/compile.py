"""Seconds that compilation takes: of every operation of every row of laws, and of a compiled optimizer step.

    python benchmarks/compile.py              # writes results/compile.json
    python benchmarks/compile.py --quick      # a look at the first rows' dearest operations, writes nothing
    python benchmarks/compile.py --steps      # the optimizers alone

Operations are traced forward and compiled with `aot_eager`, one by one, each from an empty cache: what a test pays. The
step is compiled with Inductor, caches empty, and its first two calls are counted; then eager and compiled steps are
timed in turn. Seconds are of the processor (all threads and children), which other work on the machine inflates less.
"""

import common

common.fix_allocator()

import argparse  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # in this process, whose seconds are counted

import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.laws.table import TABLE  # noqa: E402
from torchriemann import ManifoldParameter, Sphere, Stiefel  # noqa: E402
from torchriemann.manifolds import Manifold  # noqa: E402
from torchriemann.optim import RiemannianAdam  # noqa: E402
from torchriemann.testing import Case, Trial  # noqa: E402
from torchriemann.testing.operations import call, operations_of  # noqa: E402

POINTS = {
    "Stiefel, polar": (Stiefel(), (16, 4)),
    "Stiefel, QR": (Stiefel(retraction="qr"), (16, 4)),
    "Sphere": (Sphere(), (64,)),
}


def processor_seconds() -> float:
    """Of this process and of its children, finished ones."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def operations(case: Case) -> dict[str, float]:
    """Seconds to compile each operation of a row."""
    trial, seconds = Trial(case, case.shapes[0]), {}
    arguments = trial.arguments((2,))
    for name in operations_of(case):

        def run(arguments: dict[str, torch.Tensor], name: str = name) -> tuple[torch.Tensor, ...]:
            return call(trial, name, arguments)

        torch.compiler.reset()
        start = processor_seconds()
        torch.compile(run, fullgraph=True, backend="aot_eager", dynamic=False)(arguments)
        seconds[name] = processor_seconds() - start
    torch.compiler.reset()
    return seconds


def step(manifold: Manifold, shape: tuple[int, ...], *, rounds: int = 20, block: int = 10) -> dict[str, float]:
    """Seconds of the first two calls of a compiled step, and milliseconds of a later one beside the eager step."""

    def optimizer() -> RiemannianAdam:
        generator = torch.Generator().manual_seed(0)
        points = [ManifoldParameter(manifold.random(*shape, generator=generator), manifold) for _ in range(10)]
        for p in points:
            p.grad = torch.randn(p.shape, generator=generator)
        return RiemannianAdam(points, lr=torch.tensor(1e-3))

    torch.compiler.reset()
    eager, compiled = optimizer().step, torch.compile(optimizer().step)
    clock, start = time.perf_counter(), processor_seconds()
    for _ in range(2):
        compiled()
    seconds, clock = processor_seconds() - start, time.perf_counter() - clock
    contenders = [common.Contender("compiled", compiled), common.Contender("eager", eager)]
    samples = common.interleaved(contenders, rounds=rounds, block=block)
    return {
        "compilation_s": seconds,
        "compilation_by_the_clock_s": clock,
        "compiled_ms": statistics.median(samples["compiled"]),
        "eager_ms": statistics.median(samples["eager"]),
    }


def warm_up() -> None:
    """The first compilation of a process imports the compiler."""
    torch.compile(lambda x: x.sin().cos(), backend="aot_eager")(torch.ones(3))
    torch.compile(lambda x: x.sin().cos())(torch.ones(3))


def main(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        warm_up()
        steps = {} if arguments.quick else {name: step(*row) for name, row in tqdm(POINTS.items(), desc="steps")}
    for name, figures in steps.items():
        print(f"step of {name:16s} " + "  ".join(f"{k} {v:.3g}" for k, v in figures.items()))
    rows = {}
    for case in tqdm([] if arguments.steps else TABLE[:: 6 if arguments.quick else 1], desc="rows"):
        rows[repr(case.manifold)] = seconds = operations(case)
        dearest = sorted(seconds.items(), key=lambda item: -item[1])[:4]
        tqdm.write(f"{case.manifold!r}: " + ", ".join(f"{name} {value:.2f} s" for name, value in dearest))
    if not (arguments.quick or arguments.steps):
        lines = [{"name": f"step of {name}", **figures} for name, figures in steps.items()]
        lines += [{"name": name, "seconds": seconds} for name, seconds in rows.items()]
        common.publish("compile", lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--steps", action="store_true")
    main(parser.parse_args())
