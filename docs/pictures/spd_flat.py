"""Left: the determinant along geodesics of power-Euclidean metrics. Right: the same as ellipses."""

import torch
from common import panels, plt, save
from matplotlib.collections import PolyCollection
from spd import ends, outlines

from torchriemann.manifolds import Manifold, SPDLogEuclidean, SPDPowerEuclidean

POWERS = (2.0, 1.0, 0.5, 0.2, 0.0, -0.2, -0.5, -1.0, -2.0)


def metric(power: float) -> Manifold:
    """Log-Euclidean is the limit for the power zero."""
    return SPDPowerEuclidean(power) if power else SPDLogEuclidean()


def colour(power: float):
    """From red for large powers to blue."""
    return plt.get_cmap("coolwarm")(0.5 + 0.5 * POWERS.index(0.0) ** -1 * (POWERS.index(0.0) - POWERS.index(power)))


def name(power: float) -> str:
    """What a row is called."""
    return f"power {power:g}" if power else "log-Euclidean"


def swelling(axes) -> None:
    """Over the determinant of the ends."""
    x, y = ends()
    t = torch.linspace(0, 1, 201)
    for power in POWERS:
        ratio = metric(power).geodesic(x, y, t).det() / x.det()
        style = {"color": "0.2", "lw": 2.6} if power == 0 else {"color": colour(power)}
        axes.semilogy(t, ratio, label=name(power), **style)
    axes.set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
    axes.minorticks_off()
    axes.set(xlabel="t", xlim=(0, 1))
    axes.set_title("Determinant along geodesics, over that of the ends")


def strips(axes, count: int = 9) -> None:
    """A row a power."""
    x, y = ends()
    t = torch.linspace(0, 1, count)
    for row, power in enumerate(POWERS):
        path = metric(power).geodesic(x, y, t)
        shapes = outlines(path, 0.36) + torch.stack([torch.arange(count), torch.full((count,), -row)], -1).unsqueeze(-2)
        face = "0.85" if power == 0 else colour(power)
        axes.add_collection(PolyCollection(list(shapes.numpy()), facecolors=face, edgecolors="0.25", lw=0.8))
        axes.text(-0.75, -row, name(power), va="center", ha="right")
    axes.set(xlim=(-0.6, count - 0.4), ylim=(0.4 - len(POWERS), 0.6), aspect="equal")
    axes.set_axis_off()
    axes.set_title("The geodesics as ellipses")


def main() -> None:
    figure, (left, right) = panels(2, height=4.8)
    swelling(left)
    strips(right)
    save(figure, "spd_flat", "png")


if __name__ == "__main__":
    main()
