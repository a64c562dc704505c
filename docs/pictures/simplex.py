"""Left: great circles, and circles of one radius. Middle: ways between two points, and means. Right: retractions."""

import math

import torch
from common import BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, panels, save
from matplotlib.patches import Polygon
from torch import Tensor

from torchriemann.manifolds import Simplex

M = Simplex()
CORNERS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])


def plane(x: Tensor) -> Tensor:
    """Points of the triangle. ``*B,3 -> *B,2``."""
    return x @ CORNERS


def draw(axes, path: Tensor, **style) -> None:
    axes.plot(*plane(path).mT, **style)


def stage(axes, title: str) -> None:
    axes.add_patch(Polygon(CORNERS.numpy(), facecolor="#eef3f9", edgecolor="black", lw=1.2, zorder=0))
    for corner, name, (dx, dy) in zip(CORNERS, "ABC", ((-0.04, -0.03), (0.04, -0.03), (0, 0.04)), strict=True):
        axes.text(corner[0] + dx, corner[1] + dy, name, ha="center", va="center")
    axes.set(xlim=(-0.08, 1.08), ylim=(-0.08, 0.95), aspect="equal", title=title)
    axes.set_axis_off()


def units(x: Tensor, count: int) -> Tensor:
    """Unit tangent vectors at x all around. ``count,3``."""
    t = torch.linspace(0, 2 * math.pi, count).unsqueeze(-1)
    first, second = M.basis(x)
    return t.cos() * first + t.sin() * second


def net(axes) -> None:
    """Great circles between points of two sides that are equally far from their common corner, and equal circles."""
    t = torch.linspace(0, 1, 80)
    for i in range(3):
        for share in torch.linspace(0, math.pi / 2, 10)[1:-1]:
            ends = torch.zeros(2, 3)
            ends[:, i] = share.cos().square()
            ends[0, (i + 1) % 3] = ends[1, (i + 2) % 3] = share.sin().square()
            start, end = M.restore(ends)
            draw(axes, M.geodesic(start, end, t), color=SKY, lw=0.8, zorder=1)
    radius = 0.17
    for a in range(1, 8):
        for b in range(1, 8 - a):
            angles = torch.tensor([a, b, 8.0 - a - b]) * math.pi / 16
            x = angles.sin().square() / angles.sin().square().sum()
            circle = M.expmap(x, radius * units(x, 90))
            axes.add_patch(Polygon(plane(circle).numpy(), facecolor=BLUE, alpha=0.75, lw=0, zorder=2))
    stage(axes, "Great circles, and circles of one radius")


def between(axes) -> None:
    """The geodesic between the straight line of mixtures and that of logarithms; and of many points three means."""
    x, y = torch.tensor([0.90, 0.09, 0.01]), torch.tensor([0.004, 0.096, 0.90])
    t = torch.linspace(0, 1, 200).unsqueeze(-1)
    logs = x.log() * (1 - t) + y.log() * t
    for path, colour, name in (
        ((1 - t) * x + t * y, GREY, "mixtures"),
        (M.geodesic(x, y, t.squeeze(-1)), BLUE, "geodesic"),
        (logs.softmax(-1), ORANGE, "mixtures of logarithms"),
    ):
        draw(axes, path, color=colour, lw=2.4 if colour == BLUE else 1.6, label=name)
    points = M.random_dirichlet(
        60, 3, concentration=torch.tensor([0.3, 1.1, 0.25]), generator=torch.Generator().manual_seed(3)
    )
    axes.scatter(*plane(points).mT, s=9, color="black", alpha=0.45, lw=0, zorder=3)
    for mean, colour in (
        (points.mean(0), GREY),
        (M.frechet_mean(points), BLUE),
        (points.log().mean(0).softmax(-1), ORANGE),
    ):
        axes.scatter(*plane(mean), s=110, marker="*", color=colour, edgecolor="black", lw=0.6, zorder=5)
    axes.legend(
        loc="upper left",
        fontsize=8.5,
        bbox_to_anchor=(-0.1, 1.02),
        title="lines, and means (stars)",
        title_fontsize=8.5,
    )
    stage(axes, "Between mixtures and logarithms")


def moves(axes) -> None:
    """Where the same vectors lead: the exponential map ends at a side, the retraction never gets there."""
    x = torch.tensor([0.5, 0.3, 0.2])
    t = torch.linspace(0, 12, 1500).unsqueeze(-1)
    for i, u in enumerate(units(x, 13)[:-1]):
        arc, bent = M.expmap(x, t * u), M.retr(x, t * u)
        draw(axes, bent, color=RED, lw=1.5, label="retr" if i == 0 else None, zorder=3)
        draw(axes, arc, color=BLUE, lw=2.2, label="expmap, which ends" if i == 0 else None, zorder=2)
    for radius, colour in ((0.5, GREEN), (1.0, PINK)):
        u = radius * units(x, 240)
        draw(axes, M.expmap(x, u), color=BLUE, lw=1, ls="--")
        draw(axes, M.retr(x, u), color=colour, lw=1.2, label=f"retr of length {radius:g}")
    axes.scatter(*plane(x), s=26, color="black", zorder=6)
    axes.legend(loc="upper left", fontsize=8.5, bbox_to_anchor=(-0.1, 1.02))
    stage(axes, "Where vectors lead")


def main() -> None:
    figure, axes = panels(3, width=13.5, height=4.4)
    for part, a in zip((net, between, moves), axes, strict=True):
        part(a)
    save(figure, "simplex", "png")


if __name__ == "__main__":
    main()
