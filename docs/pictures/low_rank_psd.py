"""Flat ellipses in space: a geodesic of matrices of rank two beside a straight line. Right: their eigenvalues."""

import math

import torch
from common import BLUE, GREY, ORANGE, RED, panels, save
from matplotlib.collections import PolyCollection
from torch import Tensor

from torchriemann.manifolds import LowRankPSD

STEPS = 6


def view(x: Tensor, elevation: float = 38.0, azimuth: float = -115.0) -> Tensor:
    """Space as seen from far away. ``*B,3 -> *B,2``."""
    e, a = math.radians(elevation), math.radians(azimuth)
    right = torch.tensor([-math.sin(a), math.cos(a), 0.0])
    up = torch.tensor([-math.sin(e) * math.cos(a), -math.sin(e) * math.sin(a), math.cos(e)])
    return x @ torch.stack([right, up], -1)


def strip(axes, m: LowRankPSD, x: Tensor, colour: str, height: float, name: str) -> None:
    """The ellipses of one standard deviation along a path, side by side, each with the normal of its plane."""
    U, S = m.split(x)
    a = torch.linspace(0, 2 * math.pi, 73)
    root = torch.linalg.cholesky(S)
    discs = view((U @ root @ torch.stack([a.cos(), a.sin()])).mT)
    normals = torch.linalg.cross(U[..., 0], U[..., 1])
    centres = torch.stack([3.0 * torch.arange(len(x)), torch.full((len(x),), height)], -1)
    shapes = list((discs + centres.unsqueeze(-2)).numpy())
    axes.add_collection(PolyCollection(shapes, facecolors=colour, alpha=0.35))
    axes.add_collection(PolyCollection(shapes, facecolors="none", edgecolors=colour, lw=1.4))
    ends = centres + 1.1 * view(normals)
    for centre, end in zip(centres, ends, strict=True):
        axes.annotate("", end, centre, arrowprops={"arrowstyle": "->", "color": GREY, "lw": 1.1})
    axes.text(-1.2, height + 1.9, name, color=colour)


def sizes(axes, x: Tensor, straight: Tensor, t: Tensor) -> None:
    """The eigenvalues along both."""
    for matrices, colour in ((x, BLUE), (straight, ORANGE)):
        low, middle, high = torch.linalg.eigvalsh(matrices).unbind(-1)
        axes.plot(t, high, color=colour)
        axes.plot(t, middle, color=colour, ls="--")
        axes.plot(t, low, color=RED if colour == ORANGE else colour, ls=":")
    for colour, style, name in ((GREY, "-", "first"), (GREY, "--", "second"), (GREY, ":", "third")):
        axes.plot([], [], color=colour, ls=style, label=f"{name} eigenvalue")
    axes.text(0.52, 0.17, "the straight line gains rank", color=RED)
    axes.set(title="Eigenvalues along both", xlabel="t")
    axes.legend(loc="upper center")


def main() -> None:
    m = LowRankPSD(3, 2)
    U, V = (
        torch.linalg.qr(torch.tensor(a))[0]
        for a in ([[1.0, 0.1], [0.0, 1.0], [0.1, -0.5]], [[0.8, 0.2], [0.1, 1.0], [1.1, 0.8]])
    )
    x = m.join(U, torch.tensor([[1.5, 0.4], [0.4, 0.35]]))
    y = m.join(V, torch.tensor([[0.3, -0.35], [-0.35, 1.6]]))
    t = torch.linspace(0, 1, 121)
    path = m.geodesic(x, y, t)
    straight = torch.lerp(m.to_matrix(x), m.to_matrix(y), t[:, None, None])
    few = torch.arange(STEPS) * 24
    figure, axes = panels(2, width=12.0, height=3.7)
    strip(axes[0], m, path[few], BLUE, 4.6, "geodesic")
    strip(axes[0], m, m.from_matrix(straight[few]), ORANGE, 0.0, "straight line, its part of rank two")
    axes[0].set(xlim=(-1.6, 3.0 * STEPS - 1.4), ylim=(-1.8, 6.8), aspect="equal")
    axes[0].set_axis_off()
    sizes(axes[1], m.to_matrix(path), straight, t)
    save(figure, "low_rank_psd", "png")


if __name__ == "__main__":
    main()
