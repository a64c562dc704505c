"""What the pictures share: colours that every eye can tell apart, one way to save."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

HERE = Path(__file__).parent
# Okabe and Ito's colours
BLUE, ORANGE, GREEN, PINK, SKY, RED = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
GREY = "#7F7F7F"

torch.set_default_dtype(torch.float64)
plt.rcParams.update(
    {
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 11,
        "figure.dpi": 100,
        "font.size": 10,
        "grid.alpha": 0.25,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "svg.fonttype": "path",
        "svg.hashsalt": "torchriemann",  # the same picture is the same file
    }
)


def panels(columns: int, width: float = 10.5, height: float = 4.2, three_d: tuple[int, ...] = ()):
    """A figure and its axes, those listed in `three_d` in space."""
    figure = plt.figure(figsize=(width, height), layout="constrained")
    axes = [figure.add_subplot(1, columns, i + 1, projection="3d" if i in three_d else None) for i in range(columns)]
    return figure, axes


def bare_space(axes, elevation: float, azimuth: float, low: float = -1.0, zoom: float = 1.5) -> None:
    """A 3D axis as a stage for the unit ball above z = `low`: no ticks, equal units, layers drawn in our order."""
    axes.set_axis_off()
    axes.computed_zorder = False
    axes.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(low, 1))
    axes.set_box_aspect((1, 1, (1 - low) / 2), zoom=zoom)
    axes.view_init(elev=elevation, azim=azimuth)


def save(figure, name: str, kind: str = "svg") -> None:
    """Write ``docs/pictures/NAME.svg``, or a PNG where a surface would make a large file."""
    options = {"metadata": {"Date": None}} if kind == "svg" else {"dpi": 150}
    figure.savefig(HERE / f"{name}.{kind}", **options)
    plt.close(figure)
