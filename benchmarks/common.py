"""How every benchmark here measures: the method is in README.md, this is its code."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

# glibc maps blocks of 128 KiB and more afresh for every allocation, and gives them back: the page faults then cost more
# than a kernel, by chance of the size. Read only when a process starts.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 33)}


def fix_allocator(**variables: str) -> None:
    """Start this script again with `ALLOCATOR` and those variables of the environment, unless that has been done. Call
    it before importing torch."""
    wanted = {**ALLOCATOR, **variables}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})


@dataclasses.dataclass
class Contender:
    """Something to time. `run` is called with no argument; `facts` are published beside its time."""

    name: str
    run: Callable[[], Any]
    facts: Callable[[], dict[str, float]] = dict


@dataclasses.dataclass
class Line:
    """One claim: the first contender is ours, those in `peers` are compared with it; `bar` is the ratio aimed at."""

    name: str
    contenders: list[Contender]
    peers: dict[str, float | None]


def interleaved(
    contenders: list[Contender],
    *,
    rounds: int,
    block: int,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Milliseconds a call, `rounds` samples each. In every round each contender makes `block` calls in turn, so that
    a change of load or clock meets all of them; the sample is the median call, which a preemption does not move.
    `clock` counts seconds: of the wall, or with `time.thread_time` those of this thread on the processor."""
    samples: dict[str, list[float]] = {c.name: [] for c in contenders}
    for c in contenders:
        for _ in range(warmup):
            c.run()
    for _ in range(rounds):
        for c in contenders:
            samples[c.name].append(statistics.median(_timed(c.run, clock) for _ in range(block)))
    return samples


def _timed(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return (clock() - start) * 1e3


def summary(samples: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(samples, n=4)
    return {"median_ms": median, "q1_ms": low, "q3_ms": high}


def measure(line: Line, *, rounds: int, block: int, clock: Callable[[], float] = time.perf_counter) -> dict[str, Any]:
    """Time a line; ratios are medians of the ratios of one round, which are quieter than ratios of medians."""
    samples = interleaved(line.contenders, rounds=rounds, block=block, clock=clock)
    ours = samples[line.contenders[0].name]
    result: dict[str, Any] = {"name": line.name, "rounds": rounds, "block": block, "contenders": {}, "ratios": {}}
    for c in line.contenders:
        result["contenders"][c.name] = {**summary(samples[c.name]), **c.facts()}
    for peer, bar in line.peers.items():
        ratio = statistics.median(b / a for a, b in zip(ours, samples[peer], strict=True))
        result["ratios"][peer] = {"ratio": ratio, "bar": bar}
    return result


def environment() -> dict[str, Any]:
    """Versions, threads and the processor: what a figure depends on."""
    import geoopt
    import torch

    import torchriemann

    return {
        "cpu": cpu_model(),
        "threads": torch.get_num_threads(),
        "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "allocator": {name: os.environ.get(name) for name in ALLOCATOR},
        "python": platform.python_version(),
        "torch": torch.__version__,
        "geoopt": geoopt.__version__,
        "torchriemann": torchriemann.__version__,
    }


def table(name: str) -> str:
    """``results/NAME.json`` as a Markdown table: median milliseconds, then our speed as a multiple of each peer's."""
    lines = json.loads((RESULTS / f"{name}.json").read_text())["lines"]
    peers = list(lines[0]["ratios"])
    rows = [["line", "torchriemann, ms", *[f"{p}, ms" for p in peers], *[f"x {p}" for p in peers], "drift"]]
    for line in lines:
        ours, *theirs = line["contenders"].values()
        times = [f"{c['median_ms']:.2f}" for c in (ours, *theirs)]
        ratios = [f"{r['ratio']:.1f}" for r in line["ratios"].values()]
        rows.append([line["name"], *times, *ratios, f"{ours['drift']:.0e}"])
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def cpu_model() -> str:
    """The name of the processor, as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def publish(name: str, lines: list[dict[str, Any]], **versions: str) -> None:
    """Write ``results/NAME.json``; `versions` are those of further peers."""
    RESULTS.mkdir(exist_ok=True)
    result = {"environment": {**environment(), **versions}, "lines": lines}
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def show(result: dict[str, Any]) -> None:
    """Print a line: every contender, then our speed as a multiple of each peer's."""
    print(f"\n{result['name']}")
    for name, values in result["contenders"].items():
        facts = "  ".join(f"{k} {v:.2g}" for k, v in values.items() if not k.endswith("_ms"))
        print(f"  {name:38s} {values['median_ms']:8.3f} ms  [{values['q1_ms']:.3f}, {values['q3_ms']:.3f}]  {facts}")
    for peer, values in result["ratios"].items():
        bar = "" if values["bar"] is None else f"   (bar {values['bar']:g}x)"
        print(f"  {values['ratio']:6.2f}x the speed of {peer}{bar}", flush=True)
