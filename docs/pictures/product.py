"""The flat torus, a product of two circles: a geodesic, and the distances from a point."""

import math

import torch
from common import ORANGE, RED, bare_space, panels, save
from torch import Tensor

from torchriemann.manifolds import Power, Sphere

M = Power(Sphere(), 2)
EYE = torch.tensor([0.426, -0.426, 0.799])  # the direction of elevation 53, azimuth -45


def from_angles(a: Tensor) -> Tensor:
    """The point of the torus with these two angles. ``*B,2 -> *B,2,2``."""
    return torch.stack([a.cos(), a.sin()], -1)


def in_space(x: Tensor, lift: float = 0.0) -> Tensor:
    """The torus of radii 1 and 0.42 in space. ``*B,2,2 -> 3,*B``."""
    (c, s), (d, t) = x[..., 0, :].unbind(-1), x[..., 1, :].unbind(-1)
    width = 0.72 + (0.34 + lift) * d
    return torch.stack([width * c, width * s, (0.34 + lift) * t])


def visible(x: Tensor) -> Tensor:
    """A curve on the torus in space, NaN where the surface faces away from the eye. ``N,2,2 -> 3,N``."""
    outward = in_space(x, 1.0) - in_space(x)
    return torch.where((outward * EYE[:, None]).sum(0) > 0, in_space(x, 0.005), torch.nan)


def winding(axes) -> None:
    """A geodesic that goes round with slopes 1 and the golden ratio."""
    a = torch.linspace(0, 2 * math.pi, 121)
    grid = torch.stack(torch.meshgrid(a, a, indexing="ij"), -1)
    axes.plot_surface(
        *in_space(from_angles(grid)),
        color="#dbe6f2",
        rstride=2,
        cstride=2,
        linewidth=0,
        shade=False,
        antialiased=False,
        zorder=1,
    )
    for curve in (grid[::10], grid.transpose(0, 1)[::10]):
        for circle in curve:
            axes.plot(*visible(from_angles(circle)), color="white", lw=0.7, zorder=2)
    x = from_angles(torch.zeros(2))
    u = M.proju(x, torch.tensor([[0.0, 1.0], [0.0, (1 + 5**0.5) / 2]]))
    t = torch.linspace(0, 34, 3000)[:, None, None]
    path = M.expmap(x, t * u / M.norm(x, u))
    axes.plot(*visible(path), color=RED, lw=1.6, zorder=5)
    axes.scatter(*in_space(x, 0.03), color="white", edgecolor="black", s=40, zorder=9)
    axes.set_title("A geodesic of length 34")
    bare_space(axes, 53, -45, low=-0.4, zoom=1.25)


def distances(axes) -> None:
    """dist from the point with angles (0, 0)."""
    a = torch.linspace(-math.pi, 2 * math.pi, 241)
    grid = torch.stack(torch.meshgrid(a, a, indexing="xy"), -1)
    d = M.dist(from_angles(torch.zeros(2)), from_angles(grid))
    image = axes.contourf(a, a, d, levels=24, cmap="cividis")
    axes.contour(a, a, d, levels=[math.pi / 2, math.pi], colors="white", linewidths=0.8)
    for place in (-math.pi, math.pi):
        axes.axvline(place, color=ORANGE, ls="--", lw=1.4)
        axes.axhline(place, color=ORANGE, ls="--", lw=1.4)
    ticks = [-math.pi, 0, math.pi, 2 * math.pi]
    axes.set_xticks(ticks, ["-π", "0", "π", "2π"])
    axes.set_yticks(ticks, ["-π", "0", "π", "2π"])
    axes.set(xlabel="first angle", ylabel="second angle", aspect="equal")
    bar = axes.figure.colorbar(image, ax=axes, label="distance")
    bar.set_ticks([0, math.pi / 2, math.pi, math.pi * 2**0.5], labels=["0", "π/2", "π", "√2 π"])
    axes.set_title("Distance from the point (0, 0), and its cut locus")
    axes.grid(False)


def main() -> None:
    figure, (left, right) = panels(2, three_d=(0,))
    winding(left)
    distances(right)
    save(figure, "product", "png")


if __name__ == "__main__":
    main()
