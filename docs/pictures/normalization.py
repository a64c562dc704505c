"""Batch normalisation in the Poincare disk: a batch, centred, scaled, and moved to the bias, for two domains."""

import torch
from common import BLUE, GREY, ORANGE, RED, panels, save
from matplotlib.patches import Circle
from torch import Tensor

from torchriemann.layers import GyroBatchNorm
from torchriemann.manifolds import PoincareBall

M = PoincareBall()


def circle(axes, centre: Tensor, radius: float, color: str) -> None:
    """The points at one distance from `centre`."""
    a = torch.linspace(0, 2 * torch.pi, 200)
    points = M.expmap_frame(centre, radius * torch.stack([a.cos(), a.sin()], -1))
    axes.plot(*points.mT, color=color, lw=1.2)


def draw(axes, title: str, batches: list[Tensor]) -> None:
    """The domains, and of each the mean and the circle of its dispersion."""
    axes.add_patch(Circle((0, 0), 1, fill=False, color="black", lw=1.2))
    axes.plot(0, 0, "+", color=GREY, ms=9)
    for x, color in zip(batches, (BLUE, ORANGE), strict=True):
        mean = M.frechet_mean(x)
        axes.scatter(*x.mT, s=9, color=color, alpha=0.55, linewidths=0)
        circle(axes, mean, float(M.dist2(mean, x).mean().sqrt()), color)
        axes.plot(*mean, "o", color=RED, ms=4, zorder=3)
    axes.set(xlim=(-1.03, 1.03), ylim=(-1.03, 1.03), aspect="equal", title=title)
    axes.set_axis_off()


def main() -> None:
    g = torch.Generator().manual_seed(1)
    centres = M.from_normal(torch.tensor([[2.0, 0.9], [-1.0, -0.6]]))
    spread = torch.tensor([[0.35, 0.15], [0.5, 1.1]])
    batches = [M.expmap_frame(c, s * torch.randn(150, 2, generator=g)) for c, s in zip(centres, spread, strict=True)]
    norm = GyroBatchNorm(M, (2,), karcher_steps=None, num_domains=2, dtype=torch.float64)
    with torch.no_grad():
        centred = [M.gyroadd(M.gyroinv(M.frechet_mean(x)), x) for x in batches]
        scaled = [norm(x, i) for i, x in enumerate(batches)]
        assert norm.scale is not None
        norm.scale.fill_(-0.4)
        norm.set_point("bias", M.from_normal(torch.tensor([-0.6, 1.2])))
        moved = [norm(x, i) for i, x in enumerate(batches)]
    figure, axes = panels(4, width=13.2, height=3.6)
    titles = "two domains", "each centred", "and scaled to dispersion 1", "moved to the bias, s = 0.67"
    for a, title, points in zip(axes, titles, (batches, centred, scaled, moved), strict=True):
        draw(a, title, points)
    save(figure, "normalization", "png")


if __name__ == "__main__":
    main()
