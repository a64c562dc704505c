"""Left: geodesics of each metric in the cone of 2 x 2 matrices. Right: the same as ellipses."""

import math

import torch
from common import BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, bare_space, panels, save
from matplotlib.collections import PolyCollection
from torch import Tensor

from torchriemann.manifolds import (
    Manifold,
    SPDAffineInvariant,
    SPDBuresWasserstein,
    SPDLogCholesky,
    SPDLogEuclidean,
    SPDPowerCholesky,
    SPDPowerEuclidean,
)

METRICS: dict[str, tuple[Manifold, str]] = {
    "Euclidean": (SPDPowerEuclidean(1), "black"),
    "power-Euclidean, 1/2": (SPDPowerEuclidean(0.5), ORANGE),
    "Bures-Wasserstein": (SPDBuresWasserstein(), RED),
    "power-Cholesky, 1/2": (SPDPowerCholesky(0.5), PINK),
    "log-Cholesky": (SPDLogCholesky(), SKY),
    "log-Euclidean": (SPDLogEuclidean(), GREEN),
    "affine-invariant": (SPDAffineInvariant(), BLUE),
}


def ends(large: float = 1.7, small: float = 0.1, degrees: float = 75.0) -> tuple[Tensor, Tensor]:
    """An ellipse, and itself turned."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn, shape = torch.tensor([[c, -s], [s, c]]), torch.diag(torch.tensor([large, small]))
    return shape, turn @ shape @ turn.mT


def places(x: Tensor) -> Tensor:
    """(x_11 - x_22)/2, x_12 and half the trace: the cone is round, its axis the multiples of the identity."""
    a, b, c = x[..., 0, 0], x[..., 0, 1], x[..., 1, 1]
    return torch.stack([(a - c) / 2, b, (a + c) / 2], -1)


def outlines(x: Tensor, scale: float) -> Tensor:
    """The ellipses of one standard deviation. ``*B,2,2 -> *B,72,2``."""
    a = torch.linspace(0, 2 * math.pi, 72)
    return scale * (torch.linalg.cholesky(x) @ torch.stack([a.cos(), a.sin()])).mT


def cone(axes) -> None:
    """The singular matrices, the matrices of the ends' determinant, and the geodesics."""
    x, y = ends()
    r, a = torch.meshgrid(torch.linspace(0, 1, 13), torch.linspace(0, 2 * math.pi, 73), indexing="ij")
    axes.plot_surface(r * a.cos(), r * a.sin(), r, color=GREY, alpha=0.13, linewidth=0, shade=False)
    axes.plot(a[0].cos(), a[0].sin(), torch.ones(73), color=GREY, lw=1)
    level = (r.square() + x.det()).sqrt()
    inside = (level <= 1.0) & (r < 0.92)
    sheet = [torch.where(inside, part, torch.nan) for part in (r * a.cos(), r * a.sin(), level)]
    axes.plot_wireframe(*sheet, color=BLUE, alpha=0.25, linewidth=0.6, rstride=1, cstride=6)
    t = torch.linspace(0, 1, 101)
    for name, (m, colour) in METRICS.items():
        axes.plot(*places(m.geodesic(x, y, t)).mT, color=colour, lw=2.4, label=name)
    axes.plot(*places(torch.stack([x, y])).mT, "o", color="black", ms=5)
    bare_space(axes, 22, -60, low=0.0, zoom=1.33)
    axes.set_title("Geodesics in the cone; the net has one determinant")


def strips(axes, count: int = 9) -> None:
    """A row a metric, coloured by the determinant over that of the ends."""
    x, y = ends()
    t = torch.linspace(0, 1, count)
    for row, (name, (m, colour)) in enumerate(METRICS.items()):
        path = m.geodesic(x, y, t)
        shapes = outlines(path, 0.36) + torch.stack([torch.arange(count), torch.full((count,), -row)], -1).unsqueeze(-2)
        drawn = PolyCollection(list(shapes.numpy()), facecolors=colour, alpha=0.35, edgecolors="none")
        axes.add_collection(drawn)
        axes.add_collection(PolyCollection(list(shapes.numpy()), facecolors="none", edgecolors=colour, lw=1.2))
        axes.text(count - 0.3, -row, f"{float((path.det() / x.det()).max()):.2f}", color=colour, va="center")
        axes.text(-0.75, -row, name, color=colour, va="center", ha="right")
    axes.set(xlim=(-0.6, count + 0.3), ylim=(0.4 - len(METRICS), 0.6), aspect="equal")
    axes.set_axis_off()
    axes.set_title("As ellipses; at the right the largest determinant over the ends'")


def main() -> None:
    figure, (left, right) = panels(2, width=12.0, height=4.8, three_d=(0,))
    cone(left)
    strips(right)
    save(figure, "spd", "png")


if __name__ == "__main__":
    main()
