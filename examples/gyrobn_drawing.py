"""How normalisation of points is drawn: domains before and after, scores by arm, scores against depth."""

from statistics import mean, stdev
from typing import Any

import torch
from gyrobn_data import CLASSES, stacked
from gyrobn_studies import ARMS, features

COLOURS: dict[str, str] = {
    "none": "#777777",
    "none, He init": "#000000",
    "shared, affine-invariant": "#B8B8B8",
    "domain, affine, centred": "#56B4E9",
    "domain, affine-invariant": "#0072B2",
    "domain, log-Eucl., centred": "#7FD1B9",
    "domain, log-Euclidean": "#009E73",
    "domain, log-Ch., centred": "#F0C27B",
    "domain, log-Cholesky": "#D55E00",
    "BatchNorm of logs": "#CC79A7",
    "GyroBN": "#0072B2",
    "BatchNorm of logs, He init": "#CC79A7",
    "GyroBN, He init": "#0072B2",
}
CLASS_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
MARKERS = ("o", "s", "^", "D", "v", "P")
Columns = dict[str, dict[str, dict[str, Any]]]


def show_domains(panels) -> None:
    """Six domains of one draw, in the two directions in which the normalised classes differ most; the same data as it
    is, with a mean in common, and with a mean a domain."""
    data = stacked("neutral", 1, domains=len(MARKERS))
    titles = {
        "none": "logarithms, as they are",
        "shared, affine-invariant": "one mean for all domains",
        "domain, affine-invariant": "GyroBN, a mean for each domain",
    }
    for axes, (arm, title) in zip(panels, titles.items(), strict=True):
        z = features(ARMS[arm], data.x, len(MARKERS))[0]
        label = data.label[0]
        centres = torch.stack([z[label == k].mean(0) for k in range(CLASSES)])
        directions = torch.linalg.svd(centres - centres.mean(0), full_matrices=False).Vh[:2]
        plane = (z - z.mean((0, 1))) @ directions.mT
        for domain, marker in enumerate(MARKERS):
            for k in range(CLASSES):
                at = plane[domain, label[domain] == k]
                style = {"color": CLASS_COLOURS[k], "marker": marker, "s": 22, "alpha": 0.75, "linewidths": 0}
                axes.scatter(at[:, 0], at[:, 1], **style)
        axes.set_title(title)
        axes.set(xticks=[], yticks=[])
        axes.set_aspect("equal", adjustable="datalim")
        axes.spines[:].set_color("0.8")
    panels[0].set_xlabel("colour: class; marker: domain")


def show_bars(axes, found: dict[str, dict[str, Any]], title: str, labels: bool, limits: tuple[float, float]) -> None:
    """A bar at the mean, a dot a seed."""
    for row, (arm, outcome) in enumerate(found.items()):
        values = outcome["right"]
        axes.barh(row, mean(values), color=COLOURS[arm], height=0.72, alpha=0.85)
        axes.scatter(values, [row] * len(values), s=11, color="white", edgecolors="black", linewidths=0.5, zorder=3)
        axes.text(limits[1] + 1.5, row, f"{mean(values):.0f}", va="center", fontsize=9)
    axes.axvline(100 / CLASSES, color="0.5", lw=1, ls=":")
    axes.set(title=title, xlim=limits, yticks=range(len(found)))
    axes.set_yticklabels(list(found) if labels else [])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def show_depth(axes, columns: Columns) -> None:
    """Mean and one standard deviation of the seeds against the number of layers."""
    layers = [int(name.split()[0]) for name in columns]
    arms = list(next(iter(columns.values())))
    for place, arm in enumerate(arms):
        values = [found[arm]["right"] for found in columns.values()]
        at = [n + 0.12 * (place - (len(arms) - 1) / 2) for n in layers]
        style = {"color": COLOURS[arm], "ls": (0, (4, 2)) if arm.endswith("He init") else "-", "label": arm}
        heights, errors = [mean(v) for v in values], [stdev(v) for v in values]
        axes.errorbar(at, heights, errors, lw=2.2, elinewidth=1.1, capsize=3, marker="o", ms=5, **style)
    axes.set(title="Nodes of a tree, networks on a hyperboloid", xlabel="layers", ylabel="right, %", xticks=layers)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower center")


def draw(results: dict[str, Columns]):
    """The figure of the page."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(17, 14), layout="constrained")
    parts: Any = figure.subfigures(3, 1, height_ratios=(1.15, 1, 1.25))
    top, middle, bottom = parts
    show_domains(top.subplots(1, 3))
    top.suptitle("Covariance matrices of six domains, each mixed in its own way")
    shift = results["shift"]
    for place, (axes, (kind, found)) in enumerate(zip(middle.subplots(1, len(shift)), shift.items(), strict=True)):
        show_bars(axes, found, f"shift: {kind}", place == 0, (20, 100))
    middle.supxlabel("unseen domains, right, %: a dot a seed, dotted is chance", fontsize=10)
    left, right = bottom.subplots(1, 2, width_ratios=(1, 1.15))
    show_bars(left, results["recordings"]["mean"], "Gestures in a recording left out, right, %", True, (20, 75))
    show_depth(right, results["depth"])
    return figure
