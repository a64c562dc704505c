"""How correlation matrices are drawn: the body of all 3 x 3 ones, curves along geodesics, means as maps, scores."""

import math
from collections.abc import Callable
from typing import Any

import torch
from correlation_data import CHANNELS, GESTURES, Windows
from torch import Tensor

Path = Callable[[Tensor, Tensor, Tensor], Tensor]
Mean = Callable[[Tensor], Tensor]
COLOURS: dict[str, str] = {
    "entries": "#000000",
    "covariances, normalised": "#999999",
    "log-Euclid., normalised": "#8C564B",
    "affine-inv., normalised": "#56B4E9",
    "Euclidean-Cholesky": "#CC79A7",
    "log-Euclidean-Cholesky": "#E69F00",
    "off-log": "#009E73",
    "log-scaled": "#0072B2",
    "poly-hyperbolic": "#D55E00",
}
BODY = ("entries", "Euclidean-Cholesky", "log-Euclidean-Cholesky", "off-log", "log-scaled", "poly-hyperbolic")


def three(x12: float, x13: float, x23: float) -> Tensor:
    """The 3 x 3 matrix with these entries."""
    return torch.tensor([[1.0, x12, x13], [x12, 1.0, x23], [x13, x23, 1.0]], dtype=torch.float64)


PAIRS = (
    (three(0.97, 0.97, 0.97), three(-0.97, 0.30, -0.30)),
    (three(-0.10, -0.985, 0.15), three(-0.75, 0.60, -0.975)),
)


def show_body(axes, paths: dict[str, Path]) -> None:
    """The elliptope, whose boundary are the singular matrices, with the geodesics of both pairs."""
    a, b = torch.meshgrid(torch.linspace(0, math.pi, 61), torch.linspace(0, math.pi, 61), indexing="ij")
    for sign in (-1, 1):
        z = (a + sign * b).cos()
        axes.plot_surface(a.cos(), b.cos(), z, color="#7FA8C9", alpha=0.13, linewidth=0, shade=False)
        axes.plot_wireframe(a.cos(), b.cos(), z, color="#2F5573", alpha=0.3, lw=0.5, rstride=5, cstride=5)
    t = torch.linspace(0, 1, 121, dtype=torch.float64)
    for x, y in PAIRS:
        for name in BODY:
            path = paths[name](x, y, t)
            style = {"lw": 1.6, "ls": (0, (4, 2))} if name == "entries" else {"lw": 2.6}
            axes.plot(path[:, 0, 1], path[:, 0, 2], path[:, 1, 2], color=COLOURS[name], label=name, **style)
        for end in (x, y):
            axes.plot(end[:1, 1], end[:1, 2], end[1:2, 2], "o", color="black", ms=6)
    axes.set_axis_off()
    axes.computed_zorder = False
    axes.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
    axes.set_box_aspect((1, 1, 1), zoom=1.12)
    axes.view_init(elev=17, azim=-64)
    axes.set_title("All 3 x 3 correlation matrices, and geodesics between two pairs of them")


def show_curves(panels, paths: dict[str, Path]) -> None:
    """Determinant and least eigenvalue along the geodesics of both pairs."""
    t = torch.linspace(0, 1, 201, dtype=torch.float64)
    for column, (x, y) in zip(panels.T, PAIRS, strict=True):
        for name, path in paths.items():
            points = path(x, y, t)
            style = {"color": COLOURS[name], "lw": 2, "label": name, "ls": "-" if name in BODY[1:] else (0, (4, 1.5))}
            column[0].plot(t, points.det(), **style)
            column[1].plot(t, torch.linalg.eigvalsh(points)[:, 0], **style)
        column[1].set_xlabel("t")
        for axes in column:
            axes.set(yscale="log", xlim=(0, 1))
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
    panels[0, 0].set_title("determinant, pair at the vertices")
    panels[0, 1].set_title("determinant, pair at the faces")
    panels[1, 0].set_title("least eigenvalue")
    panels[1, 1].set_title("least eigenvalue")
    handles, names = panels[0, 0].get_legend_handles_labels()
    panels[0, 0].figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)


def show_means(figure, means: dict[str, Mean], data: Windows) -> None:
    """The mean of each gesture, and how far that under the metrics is from the average of entries."""
    rows = ("entries", "off-log", "poly-hyperbolic")
    panels = figure.subplots(len(rows), len(GESTURES))
    images: list[Any] = [None] * 2
    for j, gesture in enumerate(GESTURES):
        x = data.covariance[data.gesture == j]
        plain = means["entries"](x)
        for i, name in enumerate(rows):
            axes = panels[i, j]
            shown = plain if i == 0 else means[name](x) - plain
            shown = shown - torch.eye(CHANNELS, dtype=shown.dtype) if i == 0 else shown
            limit = 0.5 if i == 0 else 0.05
            images[min(i, 1)] = axes.imshow(shown, cmap="RdBu_r", vmin=-limit, vmax=limit)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if i == 0:
                axes.set_title(gesture)
            if j == 0:
                axes.set_ylabel(name if i == 0 else f"{name}\nminus entries", color=COLOURS[name])
    figure.colorbar(images[0], ax=panels[0], shrink=0.9)
    figure.colorbar(images[1], ax=panels[1:], shrink=0.6)
    figure.suptitle("Mean correlations of eight electrodes around a forearm")


TASKS = {"other": "another recording", "half": "the other half", "gains": "the other half, other gains"}


def show_scores(panels, scores: dict[str, dict[str, list[float]]]) -> None:
    """A dot a fold, a bar at the mean: nearest mean hollow, linear classifier full."""
    names = list(scores)
    for axes, (task, title) in zip(panels, TASKS.items(), strict=True):
        for row, name in enumerate(names):
            colour = COLOURS.get(name, "#444444")
            for shift, kind in ((-0.17, "nearest"), (0.17, "linear")):
                values = scores[name][f"{task}, {kind}"]
                face = colour if kind == "linear" else "none"
                axes.scatter(values, [row + shift] * len(values), s=16, facecolors=face, edgecolors=colour, lw=0.9)
                mean = sum(values) / len(values)
                axes.plot([mean, mean], [row + shift - 0.17, row + shift + 0.17], color=colour, lw=3)
        axes.axvline(100 / len(GESTURES), color="0.6", lw=1, ls=":")
        axes.axhline(len(names) - 3.5, color="0.8", lw=1)
        axes.set(title=title, xlim=(0, 100), ylim=(len(names) - 0.4, -0.6), yticks=range(len(names)))
        axes.set_yticklabels(names if task == "other" else [])
        axes.grid(axis="x", alpha=0.3)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[1].set_xlabel("gestures right, %: nearest mean (hollow), linear classifier (full); a bar is the mean")


def draw(paths: dict[str, Path], means: dict[str, Mean], data: Windows, scores: dict[str, dict[str, list[float]]]):
    """The figure of the page."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(17, 13), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    left, right = parts[0].subfigures(1, 2, width_ratios=(1.1, 1))
    show_body(left.add_subplot(projection="3d"), paths)
    show_curves(right.subplots(2, 2, sharex=True), paths)
    left, right = parts[1].subfigures(1, 2, width_ratios=(1, 1.25))
    show_means(left, means, data)
    show_scores(right.subplots(1, 3), scores)
    return figure
