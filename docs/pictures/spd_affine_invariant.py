"""Left: matrices of one determinant are a hyperbolic plane. Right: distances in float32."""

import math

import torch
from common import BLUE, GREEN, GREY, ORANGE, RED, panels, save
from matplotlib.collections import PolyCollection
from matplotlib.patches import Circle
from spd import outlines
from torch import Tensor

from torchriemann.manifolds import SPDAffineInvariant, SPDBuresWasserstein, SPDLogEuclidean

M = SPDAffineInvariant()


def places(x: Tensor) -> Tensor:
    """(x_11 - x_22, 2 x_12)/tr x: the section of the cone by one trace, a disk."""
    a, b, c = x[..., 0, 0], x[..., 0, 1], x[..., 1, 1]
    return torch.stack([a - c, 2 * b], -1) / (a + c).unsqueeze(-1)


def in_direction(angle: Tensor, distance: float) -> Tensor:
    """Matrices of determinant one at this distance from the identity. ``*B,2,2``."""
    c, s = angle.cos(), angle.sin()
    u = torch.stack([torch.stack([c, s], -1), torch.stack([s, -c], -1)], -2)
    return M.expmap(torch.eye(2), distance / math.sqrt(2) * u)


def plane(axes) -> None:
    """Circles round the identity with the ellipses on them, and geodesics of three metrics."""
    axes.add_patch(Circle((0, 0), 1, color=GREY, alpha=0.1, lw=0))
    axes.add_patch(Circle((0, 0), 1, fill=False, color=GREY))
    around = torch.linspace(0, 2 * math.pi, 181)
    for distance in (1.0, 2.0, 3.0):
        axes.plot(*places(in_direction(around, distance)).mT, color=GREY, lw=0.7)
    for distance, count in ((0.0, 1), (1.0, 8), (2.0, 16)):
        x = in_direction(2 * math.pi * torch.arange(count) / count, distance)
        shapes = outlines(x / x.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None], 0.075) + places(x).unsqueeze(-2)
        axes.add_collection(
            PolyCollection(list(shapes.numpy()), facecolors="white", edgecolors="0.35", lw=0.8, zorder=3)
        )
    corners = in_direction(torch.tensor([0.35, 2.3, 4.6]), 2.8)
    t = torch.linspace(0, 1, 121)
    metrics = ((SPDBuresWasserstein(), RED, "--"), (SPDLogEuclidean(), GREEN, "-."), (M, BLUE, "-"))
    for x, y in zip(corners, corners.roll(1, 0), strict=True):
        for m, colour, line in metrics:
            axes.plot(*places(m.geodesic(x, y, t)).mT, color=colour, ls=line, lw=2.2, zorder=4)
    axes.plot(*places(corners).mT, "o", color="black", ms=5, zorder=5)
    for (_, colour, line), name in zip(
        metrics, ("Bures-Wasserstein", "log-Euclidean", "affine-invariant"), strict=True
    ):
        axes.plot([], [], color=colour, ls=line, label=name)
    axes.set(xlim=(-1.06, 1.06), ylim=(-1.06, 1.06), aspect="equal")
    axes.set_axis_off()
    axes.legend(loc="lower left", fontsize=9, bbox_to_anchor=(-0.2, -0.06))
    axes.set_title("Matrices up to a factor: geodesics are straight")


def exact(x: Tensor, y: Tensor) -> Tensor:
    """In float64, where conditions of 1e7 leave nine digits."""
    return M.dist(x.double(), y.double())


def by_root(x: Tensor, y: Tensor) -> Tensor:
    """Eigenvalues of x^(-1/2) y x^(-1/2), as it is written."""
    values, vectors = torch.linalg.eigh(x)
    root = (vectors * values.rsqrt().unsqueeze(-2)) @ vectors.mT
    return torch.linalg.eigvalsh((root @ y @ root).nan_to_num(0, 0, 0)).log().norm(dim=-1)


def by_factor(x: Tensor, y: Tensor) -> Tensor:
    """Eigenvalues of L^-1 y L^-T."""
    L = torch.linalg.cholesky_ex(x)[0]
    half = torch.linalg.solve_triangular(L, y, upper=False)
    whitened = torch.linalg.solve_triangular(L, half.mT, upper=False)
    return torch.linalg.eigvalsh(whitened).log().norm(dim=-1)


def errors(axes) -> None:
    """Largest relative error over 200 pairs of 16 x 16 matrices, against the same numbers in float64."""
    conditions = torch.logspace(0.5, 7, 14)
    forms = {
        "roots of x": (by_root, GREY, ":"),
        "Cholesky factors": (by_factor, ORANGE, "--"),
        "torchriemann": (M.dist, BLUE, "-"),
    }
    draw = torch.Generator().manual_seed(0)
    pairs = [M.random_spectrum(2, 200, 16, 16, condition=float(c), generator=draw).float() for c in conditions]
    for i, (name, (form, colour, line)) in enumerate(forms.items()):
        worst = [float(((form(x, y).double() - exact(x, y)) / exact(x, y)).abs().max()) for x, y in pairs]
        axes.loglog(conditions, worst, color=colour, ls=line, label=name)
        lost = [c for c, error in zip(conditions, worst, strict=True) if not error < 10]
        if lost:
            axes.plot(lost[0], 1.0, "x", color=colour, ms=15 - 6 * i, mew=2.5, clip_on=False)
    axes.set(xlabel="condition number of both", ylabel="largest relative error", ylim=(1e-8, 1.0))
    axes.set_title("Distances of float32 matrices; x: not a number", pad=12)
    axes.legend(loc="center right")


def main() -> None:
    figure, (left, right) = panels(2, height=4.6)
    plane(left)
    errors(right)
    save(figure, "spd_affine_invariant", "png")


if __name__ == "__main__":
    main()
