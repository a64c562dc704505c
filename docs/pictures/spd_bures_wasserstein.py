"""Where geodesics end: diagonal matrices of two entries in three metrics, one of them complete."""

import math

import torch
from common import BLUE, GREY, RED, panels, save
from torch import Tensor

from torchriemann.manifolds import Manifold, SPDAffineInvariant, SPDBuresWasserstein, SPDPowerEuclidean

START = torch.diag(torch.tensor([1.0, 0.6]))
COLOURS = "viridis"


def unit_vectors(m: Manifold, count: int) -> Tensor:
    """Diagonal tangent vectors of length one, turning once. ``count,2,2``."""
    a = 2 * math.pi * torch.arange(count) / count
    first = torch.diag(torch.tensor([1.0, 0.0]))
    second = torch.diag(torch.tensor([0.0, 1.0]))
    first, second = first / m.norm(START, first), second / m.norm(START, second)
    return a.cos()[:, None, None] * first + a.sin()[:, None, None] * second


def reach(m: Manifold, u: Tensor, far: float) -> Tensor:
    """How far along u the exponential map is defined, to `far`: by halving. ``*B``."""
    low, high = torch.zeros(len(u)), torch.full((len(u),), far)
    inside = m.exp_is_defined(START, far * u)
    for _ in range(50):
        middle = (low + high) / 2
        defined = m.exp_is_defined(START, middle[:, None, None] * u)
        low, high = torch.where(defined, middle, low), torch.where(defined, high, middle)
    return torch.where(inside, torch.inf, low)


def fan(axes, m: Manifold, title: str, far: float, step: float) -> None:
    """Geodesics from one matrix, where they end, and circles about it."""
    u = unit_vectors(m, 48)
    ends = reach(m, u, far)
    for direction, end in zip(u, ends, strict=True):
        s = torch.linspace(0, min(float(end), far) * (1 - 1e-9), 200)
        path = m.expmap(START, s[:, None, None] * direction).diagonal(dim1=-2, dim2=-1)
        axes.plot(*path.mT, color=BLUE, lw=0.9, alpha=0.8)
        if end < torch.inf:
            axes.plot(*path[-1], "o", color=RED, ms=3.5, clip_on=False, zorder=5)
    around = unit_vectors(m, 721)
    for i in range(1, int(far / step) + 1):
        circle = m.expmap(START, i * step * around).diagonal(dim1=-2, dim2=-1)
        axes.plot(*circle.mT, color=GREY, lw=1.0)
    radius = m.injectivity_radius(START)
    if float(radius) < torch.inf:
        last = m.expmap(START, float(radius) * (1 - 1e-9) * around).diagonal(dim1=-2, dim2=-1)
        axes.plot(*last.mT, color=RED, lw=2.2)
    axes.plot(*START.diagonal(), "o", color="black", ms=6, zorder=6)
    axes.set(xlim=(0, 3), ylim=(0, 3), aspect="equal", xlabel="first entry", ylabel="second entry")
    axes.set_title(title)


def main() -> None:
    figure, axes = panels(3, width=12.0, height=4.4)
    fan(axes[0], SPDBuresWasserstein(), "Bures-Wasserstein", 3.0, 0.25)
    fan(axes[1], SPDPowerEuclidean(1), "Euclidean (power 1)", 4.5, 0.5)
    fan(axes[2], SPDAffineInvariant(), "affine-invariant: none ends", 6.0, 0.5)
    save(figure, "spd_bures_wasserstein")


if __name__ == "__main__":
    main()
