"""Where geodesics end: diagonal matrices of two entries in three metrics, one of them complete."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from common import BLUE, GREY, RED, panels, save
from torch import Tensor

from torchriemann.manifolds import Manifold, SPDAffineInvariant, SPDBuresWasserstein, SPDPowerEuclidean


@dataclass
class Slice:
    """A plane of matrices that geodesics do not leave: a point, two tangent vectors, and coordinates of the plane."""

    start: Tensor
    first: Tensor
    second: Tensor
    coordinates: Callable[[Tensor], Tensor]

    def directions(self, m: Manifold, count: int) -> Tensor:
        """Tangent vectors of length one, turning once. ``count,2,2``."""
        a = 2 * math.pi * torch.arange(count) / count
        u, v = self.first / m.norm(self.start, self.first), self.second / m.norm(self.start, self.second)
        return a.cos()[:, None, None] * u + a.sin()[:, None, None] * v

    def path(self, m: Manifold, u: Tensor, lengths: Tensor) -> Tensor:
        """Coordinates along the geodesic. ``*B,2``."""
        return self.coordinates(m.expmap(self.start, lengths[..., None, None] * u))

    def reach(self, m: Manifold, u: Tensor, far: float) -> Tensor:
        """How far along u the exponential map is defined, by halving; infinite beyond `far`. ``*B``."""
        low, high = torch.zeros(len(u)), torch.full((len(u),), far)
        inside = m.exp_is_defined(self.start, far * u)
        for _ in range(50):
            middle = (low + high) / 2
            defined = m.exp_is_defined(self.start, middle[:, None, None] * u)
            low, high = torch.where(defined, middle, low), torch.where(defined, high, middle)
        return torch.where(inside, torch.inf, low)


def fan(axes, plane: Slice, m: Manifold, far: float, step: float, limits: tuple[float, float, float, float]) -> None:
    """Geodesics from one matrix, circles about it, and in red where they end and the injectivity radius."""
    left, right, low, high = limits
    u = plane.directions(m, 48)
    for direction, end in zip(u, plane.reach(m, u, far), strict=True):
        path = plane.path(m, direction, torch.linspace(0, min(float(end), far) * (1 - 1e-3), 200))
        axes.plot(*path.mT, color=BLUE, lw=0.9, alpha=0.8)
        x, y = path[-1].tolist()
        if end < torch.inf and left <= x <= right and low <= y + 1e-6 and y <= high:
            axes.plot(x, y, "o", color=RED, ms=3.5, clip_on=False, zorder=5)
    around = plane.directions(m, 721)
    for i in range(1, 7):
        axes.plot(*plane.path(m, around, torch.tensor(i * step)).mT, color=GREY, lw=0.9)
    radius = float(m.injectivity_radius(plane.start))
    if radius < torch.inf:
        axes.plot(*plane.path(m, around, torch.tensor(radius * (1 - 1e-3))).mT, color=RED, lw=2.2)
    axes.plot(*plane.coordinates(plane.start), "o", color="black", ms=6, zorder=6)
    axes.set(xlim=(left, right), ylim=(low, high), aspect="equal")


def main() -> None:
    first, second = (torch.diag(torch.tensor(d)) for d in ([1.0, 0.0], [0.0, 1.0]))
    plane = Slice(torch.diag(torch.tensor([1.0, 0.6])), first, second, lambda x: x.diagonal(dim1=-2, dim2=-1))
    figure, axes = panels(3, width=12.0, height=4.4)
    spaces = (
        (SPDBuresWasserstein(), "Bures-Wasserstein", 3.0, 0.25),
        (SPDPowerEuclidean(1), "Euclidean (power 1)", 4.5, 0.5),
        (SPDAffineInvariant(), "affine-invariant: no geodesic ends", 6.0, 0.5),
    )
    for a, (m, title, far, step) in zip(axes, spaces, strict=True):
        fan(a, plane, m, far, step, (0.0, 3.0, 0.0, 3.0))
        a.set(title=title, xlabel="first entry", ylabel="second entry")
    save(figure, "spd_bures_wasserstein", "png")


if __name__ == "__main__":
    main()
