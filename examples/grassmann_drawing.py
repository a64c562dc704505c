"""How networks on subspaces are drawn: what cameras see, subspaces before and after, scores by arm."""

from statistics import mean
from typing import Any

import torch
from example_data import digits
from grassmann_training import by_camera
from subspace_sets import CLASSES, IMAGES, Subspaces, photographs

COLOURS = {"none": "#777777", "GyroBN": "#0072B2", "GyroBN, tangent": "#56B4E9", "cameras": "#D55E00"}
NAMES = {"cameras": "GyroBN of cameras"}
CLASS_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
MARKERS = ("o", "s", "^", "D", "v", "P")
CAMERAS, SHOWN, CLASS, CLASSES_SHOWN = 5, 6, 0, 4


def show_cameras(axes) -> None:
    """A row a camera: images of a set of the same class, and the first two singular vectors of all images of it."""
    x, y, *_ = digits(0)
    taken, label = photographs((x, y), CAMERAS, CLASSES["digits"], torch.Generator().manual_seed(3))
    photos = taken[:, int((label == CLASS).nonzero()[0])]
    left = torch.linalg.svd(photos.mT, full_matrices=False).U[..., :2].mT
    left = left * torch.where(left.sum(-1, keepdim=True) < 0, -1, 1)
    canvas = torch.full((CAMERAS * 9 - 1, (SHOWN + 2) * 9 + 2), torch.nan)
    for row in range(CAMERAS):
        bright = photos[row].quantile(0.97)  # each camera at its own exposure
        tiles = [*(photos[row, :SHOWN] / bright), *(0.5 + left[row] / left[row].abs().max() / 2)]
        for place, tile in enumerate(tiles):
            at = place * 9 + 3 * (place >= SHOWN)
            canvas[row * 9 : row * 9 + 8, at : at + 8] = tile.view(8, 8)
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([SHOWN * 4.5, SHOWN * 9 + 11], [f"{SHOWN} of the {IMAGES} images of a set", "a basis of the span"])
    axes.set(yticks=[], ylabel="a row a camera", title="Image sets of one class")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def show_subspaces(panels, test: Subspaces) -> None:
    """Projectors of one draw in the plane in which four of the classes differ most, before and after."""
    one = Subspaces(test.x[:, :, :1], test.label)
    titles = {"as they are": one, "GyroBN, a mean for each camera": by_camera({"test": one})["test"]}
    for axes, (title, data) in zip(panels, titles.items(), strict=True):
        frames = data.x[:, :, 0]
        z = (frames @ frames.mT).flatten(2)
        centres = torch.stack([z[data.label == k].mean(0) for k in range(CLASSES_SHOWN)])
        plane = (z - centres.mean(0)) @ torch.linalg.svd(centres - centres.mean(0), full_matrices=False).Vh[:2].mT
        for camera, marker in enumerate(MARKERS):
            for k, colour in enumerate(CLASS_COLOURS):
                at = plane[camera, data.label[camera] == k]
                axes.scatter(at[:, 0], at[:, 1], color=colour, marker=marker, s=24, alpha=0.75, linewidths=0)
        axes.set(title=f"Generated subspaces, {title}", xticks=[], yticks=[])
        axes.spines[:].set_color("0.8")
    panels[0].set_xlabel("projectors; colour: class, marker: unseen camera")


def show_bars(axes, networks: dict[str, dict[str, dict[str, Any]]], title: str, chance: float) -> None:
    """A bar at the mean, a dot a seed, networks below each other."""
    lowest = min(min(found["right"]) for arms in networks.values() for found in arms.values())
    left, row, rows, names = max(0.0, 10 * (lowest // 10) - 5), 0.0, [], []
    for kind, arms in networks.items():
        for norm, found in arms.items():
            values = found["right"]
            axes.barh(row, mean(values) - left, left=left, color=COLOURS[norm], height=0.78, alpha=0.85)
            axes.scatter(values, [row] * len(values), s=12, color="white", edgecolors="black", linewidths=0.5, zorder=3)
            axes.text(101, row, f"{mean(values):.1f}", va="center", fontsize=9)
            rows.append(row)
            names.append(f"{kind}: {NAMES.get(norm, norm)}" if norm == "none" else NAMES.get(norm, norm))
            row += 1
        row += 0.7
    axes.set(
        title=title,
        xlim=(left, 100),
        yticks=rows,
        xlabel=f"unseen cameras, right, %: a dot a seed; chance is {chance:g}",
    )
    axes.set_yticklabels(names)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def draw(results: dict[str, dict[str, dict[str, dict[str, Any]]]], test: Subspaces):
    """The figure of the page."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(17, 11.5), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(1, 1.25))
    first, *others = parts[0].subplots(1, 3)
    show_cameras(first)
    show_subspaces(others, test)
    titles = {"digits": "Image sets of digits", "generated": "Generated subspaces"}
    for axes, (name, title) in zip(parts[1].subplots(1, 2), titles.items(), strict=True):
        show_bars(axes, results[name], title, 100 / CLASSES[name])
    return figure
