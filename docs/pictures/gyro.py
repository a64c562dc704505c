"""Left: addition as translation along geodesics. Middle: distances to a hyperplane. Right: a wrapped normal law."""

import math

import torch
from common import BLUE, GREEN, GREY, ORANGE, RED, panels, save
from matplotlib.patches import Circle
from torch import Tensor

from torchriemann.manifolds import PoincareBall, WrappedNormal

M = PoincareBall()


def disk(axes, title: str) -> None:
    axes.add_patch(Circle((0, 0), 1, fill=False, color="black", lw=1.2))
    axes.set(xlim=(-1.03, 1.03), ylim=(-1.03, 1.08), aspect="equal")
    axes.set_axis_off()
    axes.set_title(title)


def way(x: Tensor, y: Tensor) -> Tensor:
    return M.geodesic(x, y, torch.linspace(0, 1, 60))


def addition(axes) -> None:
    """x, y, their two sums, and a ring of points moved by x."""
    o, x, y = torch.zeros(2), M.from_normal(torch.tensor([1.5, 0.3])), M.from_normal(torch.tensor([0.4, 1.4]))
    a = 2 * math.pi * torch.arange(13) / 12
    for r in (0.35, 0.7):
        ring = M.from_normal(r * torch.stack([a.cos(), a.sin()], -1))
        axes.plot(*ring.mT, "o-", color=GREY, ms=3, lw=0.8)
        axes.plot(*M.gyroadd(x, ring).mT, "o-", color=BLUE, ms=3, lw=0.8)
    for start, end, colour in ((o, x, BLUE), (o, y, ORANGE)):
        axes.plot(*way(start, end).mT, color=colour, lw=2.2)
    for first, second, colour, label in ((x, y, BLUE, "x ⊕ y"), (y, x, ORANGE, "y ⊕ x")):
        total = M.gyroadd(first, second)
        axes.plot(*way(first, total).mT, color=ORANGE if colour == BLUE else BLUE, lw=2.2)
        axes.plot(*total, "o", color=RED, ms=7, zorder=6)
        axes.annotate(label, total.tolist(), (-18, 9), textcoords="offset points", fontsize=11)
    axes.annotate("x", x.tolist(), (1, -24), textcoords="offset points", fontsize=11)
    axes.annotate("y", y.tolist(), (-13, 2), textcoords="offset points", fontsize=11)
    disk(axes, "x ⊕ y and y ⊕ x: equally far, rotated")


def plane_grid() -> tuple[Tensor, Tensor]:
    """Points of the disk, and which of a square's they are."""
    c = torch.linspace(-1, 1, 401)
    grid = torch.stack(torch.meshgrid(c, c, indexing="xy"), -1)
    return grid, grid.norm(dim=-1) < 0.999


def hyperplane(axes) -> None:
    """Signed distances to a geodesic."""
    grid, inside = plane_grid()
    d = M.hyperplane_dist(torch.where(inside[..., None], grid, 0.0), torch.tensor([2.0, 1.0]), torch.tensor(0.7))
    d = torch.where(inside, d, torch.nan)
    x, y = grid.movedim(-1, 0)
    axes.contourf(x, y, d, levels=torch.linspace(-4, 4, 17).tolist(), cmap="RdBu_r", extend="both")
    axes.contour(x, y, d, levels=[0.0], colors="black", linewidths=2.0)
    foot = M.from_normal(0.7 * torch.tensor([2.0, 1.0]) / 5**0.5)
    axes.plot(*way(torch.zeros(2), foot).mT, color=GREEN, lw=2.2)
    axes.plot(*foot, "o", color=GREEN, ms=6)
    disk(axes, "Signed distance to a hyperplane")


def density(axes) -> None:
    """Draws of a wrapped normal law, and the quantiles of its density."""
    torch.manual_seed(0)
    law = WrappedNormal(M, M.from_normal(torch.tensor([0.9, 0.5])), torch.tensor([0.35, 0.9]))
    draws = law.sample((700,))
    heights = law.log_prob(draws).sort().values
    grid, inside = plane_grid()
    log_p = torch.where(inside, law.log_prob(torch.where(inside[..., None], grid, 0.0)), torch.nan)
    levels = [float(heights[int(700 * (1 - q))]) for q in (0.95, 0.8, 0.5, 0.2)]
    axes.plot(*draws.mT, ".", color=GREY, ms=3)
    axes.contour(*grid.movedim(-1, 0), log_p, levels=levels, colors=[BLUE], linestyles="solid", linewidths=1.4)
    axes.plot(*law.loc, "o", color=RED, ms=6)
    disk(axes, "Wrapped normal: 20, 50, 80 and 95 %")


def main() -> None:
    figure, (left, middle, right) = panels(3, width=12, height=4.5)
    addition(left)
    hyperplane(middle)
    density(right)
    save(figure, "gyro", "png")


if __name__ == "__main__":
    main()
