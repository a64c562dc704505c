"""Normalisation of points: where the domain shifts, and where networks are deep.

Three studies. A learning rate is chosen for every arm, in validation, from a grid that is continued while the best is
at its end. Numbers are percent right, mean and standard deviation over seeds.

Covariance matrices of four classes, from domains that each mix them in their own way: by a square root, by a Cholesky
factor, by a general matrix, or by a root after a power of their own. Eight domains to train with, eight others to test,
whose statistics need no labels. Linear classifiers, ten seeds. Recordings of four gestures by eight electrodes, which
ship with geomstats: one of the four is left out, a network with a hidden layer is trained on the others; ten seeds. And
networks of 2, 5 and 8 layers on a hyperboloid that tell the subtrees of a ternary tree from noisy features of its
nodes, with a quarter of the labels; beside none, with torch's initialisation and that of He, and torch's batch
normalisation of logarithms. Here ten seeds and more arms take `--full`; the default has three seeds.

On unseen domains GyroBN with a mean for each adds 27, 38 and 38 points (affine-invariant: from 73, 58 and 53 to 100, 96
and 90); one mean for all domains adds nothing. The geometry follows the mixing: log-Cholesky is best where a Cholesky
factor mixes (98) and last otherwise (72 for general matrices), log-Euclidean equals affine-invariant within a point.
Equal dispersions add nothing to centring, not even to domains with their own power. Recordings go from 62 to 71, but
all of that comes from three of the four: the first stays, and under log-Cholesky it falls from 55 to 37.

With 2 layers GyroBN does not help: 78, where none has 83 and batch normalisation of logarithms 85. With 5 it is level
with He's initialisation (81), with 8 ahead: 81, against 77 (He), 73 (of logarithms) and 65 (none). Three seeds,
standard deviations of 2 to 8. No output was NaN.

    python examples/09_gyrobn.py [--quick | --full] [--bf16]
"""

# %%
import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib.pyplot as plt
import torch
from correlation_data import RECORDINGS, load, recordings
from correlation_tables import table
from gyrobn_data import SHIFTS, Shifted, by_recording
from gyrobn_drawing import draw
from gyrobn_studies import (
    ARMS,
    DEEP_ARMS,
    FULL,
    MORE_DEEP_ARMS,
    QUICK,
    RECORDED_ARMS,
    Setting,
    depth_study,
    recordings_study,
    shift_study,
)
from joblib import Parallel, delayed
from tqdm import tqdm

FIGURE = Path(__file__).parent / "figures" / "09_gyrobn.png"
Results = dict[str, dict[str, dict[str, Any]]]


# %% All arms of all studies


def jobs(recorded: Shifted, setting: Setting, full: bool) -> Iterator[tuple[tuple[str, str, str], Any]]:
    """Study, column and arm, and the function with its arguments; the longest first, that two cores end together."""
    for layers in sorted(setting.layers, reverse=True):
        for arm in reversed((*DEEP_ARMS, *(MORE_DEEP_ARMS if full else ()))):
            yield ("depth", f"{layers} layers", arm), (depth_study, arm, layers, setting)
    for left_out in range(RECORDINGS):
        for arm in RECORDED_ARMS:
            yield ("recordings", f"recording {left_out + 1}", arm), (recordings_study, arm, left_out, recorded, setting)
    for kind in SHIFTS:
        for arm in ARMS:
            yield ("shift", kind, arm), (shift_study, kind, arm, setting)


def measure(function: Any, *arguments: Any) -> dict[str, Any]:
    """In a process of its own."""
    torch.set_num_threads(1)
    return function(*arguments)


def studied(recorded: Shifted, setting: Setting, full: bool, processes: int) -> dict[str, Results]:
    """Study -> column -> arm -> rate, percent right of each seed, and models lost to NaN."""
    names, calls = zip(*jobs(recorded, setting, full), strict=True)
    done: Any = Parallel(n_jobs=processes, return_as="generator")(delayed(measure)(*call) for call in calls)
    results: dict[str, Results] = {}
    for (study, column, arm), found in zip(names, tqdm(done, total=len(names), unit="arm"), strict=True):
        results.setdefault(study, {}).setdefault(column, {})[arm] = found
    recorded_results = results["recordings"]
    for arm in RECORDED_ARMS:
        folds = [found[arm] for name, found in recorded_results.items() if name != "mean"]
        each = zip(*(f["right"] for f in folds), strict=True)
        all_folds = {"right": [mean(seed) for seed in each], "rate": None, "lost": sum(f["lost"] for f in folds)}
        recorded_results.setdefault("mean", {})[arm] = all_folds
    return results


# %% Tables


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{mean(values):.1f} ± {stdev(values):.1f}"


def beside(found: dict[str, dict[str, Any]], arm: str, base: str = "none") -> str:
    """What an arm adds to `base`, seed by seed."""
    pairs = zip(found[arm]["right"], found[base]["right"], strict=True)
    differences = [a - b for a, b in pairs]
    return f"{mean(differences):+.1f} ± {stdev(differences):.1f}"


def tables(results: dict[str, Results], setting: Setting, source: str) -> str:
    """Scores, paired differences and rates of every study."""
    seeds = {"shift": setting.seeds, "recordings": setting.seeds, "depth": setting.deep_seeds}
    heads = {
        "shift": "unseen domains, right, %",
        "recordings": "left-out recording, %",
        "depth": "nodes of a tree, right, %",
    }
    parts = []
    for study, columns in results.items():
        arms = next(iter(columns.values()))
        parts.append(f"{heads[study]}: mean and standard deviation of {seeds[study]} seeds")
        if study == "recordings":
            parts[-1] += f" ({source})"
        scores = {arm: {name: spread(found[arm]["right"]) for name, found in columns.items()} for arm in arms}
        more = {arm: {name: beside(found, arm) for name, found in columns.items()} for arm in arms if arm != "none"}
        rates = {
            arm: {name: f"{found[arm]['rate']:.1e}" for name, found in columns.items() if found[arm]["rate"]}
            for arm in arms
        }
        parts += [table("right", scores, 16), table("more than none", more, 16), table("rate", rates, 16)]
    lost = sum(found["lost"] for columns in results.values() for arms in columns.values() for found in arms.values())
    return "\n\n".join([*parts, f"models with an output that is not finite, at any rate that was tried: {lost}"])


# %%


def main(quick: bool = False, full: bool = False, bf16: bool = False) -> dict[str, Any]:
    """Run, print the tables, save the figure; returns what was measured. `quick` takes little and proves nothing."""
    start = time.perf_counter()
    setting = replace(FULL if full else QUICK if quick else Setting(), bf16=bf16)
    torch.set_num_threads(1)
    data = load(None if quick else recordings())
    recorded = by_recording(data)
    recorded = Shifted(recorded.x[:, :, :: setting.thin], recorded.label[:, :, :: setting.thin])
    results = studied(recorded, setting, full, 1 if quick else 2)
    ordered: dict[str, Results] = {}
    for study, order in (("shift", (*ARMS,)), ("recordings", RECORDED_ARMS), ("depth", (*DEEP_ARMS, *MORE_DEEP_ARMS))):
        columns = sorted(results[study].items()) if study == "depth" else results[study].items()
        ordered[study] = {name: {arm: found[arm] for arm in order if arm in found} for name, found in columns}
    print(tables(ordered, setting, data.source))
    figure = draw(ordered)
    if quick:
        figure.canvas.draw()
    else:
        FIGURE.parent.mkdir(exist_ok=True)
        figure.savefig(FIGURE, dpi=110)
    plt.close(figure)
    kind = "full" if full else "quick (it shows that all runs; its figures mean nothing)" if quick else "default"
    print(f"{kind} run, {time.perf_counter() - start:.0f} s" + ("" if quick else f"; figure: {FIGURE.name}"))
    return ordered


# %%
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="few items and epochs, no file written")
    size.add_argument("--full", action="store_true", help="ten seeds and more arms in the depth study, some minutes")
    parser.add_argument("--bf16", action="store_true", help="under autocast")
    main(**vars(parser.parse_args()))
