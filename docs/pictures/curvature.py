"""Left: the distance of two points whose normal coordinates stay, while K moves. Right: two ways to change K."""

import math

import torch
from common import BLUE, GREEN, GREY, ORANGE, PINK, RED, panels, save

from torchriemann.manifolds import PoincareBall, Stereographic, change_curvature


def through_zero(axes) -> None:
    """Stereographic(K) against the law of cosines."""
    K = torch.linspace(-6, 4, 201)
    for degrees, colour in ((180, BLUE), (90, GREEN), (30, ORANGE)):
        a = math.radians(degrees)
        z = torch.tensor([[1.0, 0.0], [math.cos(a), math.sin(a)]])
        d = []
        for k in K:
            m = Stereographic(k)
            d.append(float(m.dist(*m.from_normal(z))))
        axes.plot(K, d, color=colour, label=f"directions {degrees}° apart")
        for k in (-5.0, -3.0, -1.0, 1.0, 3.0):
            q = math.sqrt(abs(k))
            if k < 0:
                exact = math.acosh(math.cosh(q) ** 2 - math.sinh(q) ** 2 * math.cos(a)) / q
            else:
                exact = math.acos(math.cos(q) ** 2 + math.sin(q) ** 2 * math.cos(a)) / q
            axes.plot(k, exact, "o", color=colour, ms=4, mfc="white")
    axes.plot([], [], "o", color=PINK, ms=4, mfc="white", label="law of cosines")
    axes.axvline(0, color=GREY, lw=0.8, ls=":")
    axes.set(xlabel="curvature K", ylabel="distance", ylim=(0, 2.1))
    axes.set_title("Two points at distance 1 from the origin, while K moves")
    axes.legend(fontsize=9, loc="lower left")


def two_ways(axes) -> None:
    """A geodesic between two points of curvature -1, carried to other curvatures and read in normal coordinates."""
    source = PoincareBall()
    z = torch.tensor([[1.8, -0.3], [-0.2, 1.6]])
    t = torch.linspace(0, 1, 80)
    first, last = source.from_normal(z)
    line = source.geodesic(first, last, t)
    axes.plot(*source.to_normal(line).mT, color=GREY, lw=3.2, label="K = -1, and radial to any K")
    for K, colour in ((-4.0, RED), (-0.5, BLUE)):
        target = PoincareBall(K)
        moved = target.to_normal(change_curvature(line, source, target, how="homothety"))
        axes.plot(*moved.mT, color=colour, label=f"homothety to K = {K:g}")
        first, last = change_curvature(line[[0, -1]], source, target, how="radial")
        straight = target.geodesic(first, last, t)
        axes.plot(*target.to_normal(straight).mT, color=colour, ls="--", label=f"geodesic of K = {K:g}")
    axes.plot(0, 0, "+", color="black", ms=10)
    axes.set(aspect="equal", xlabel="normal coordinates", xlim=(-0.6, 2.9), ylim=(-0.6, 2.5))
    axes.set_title("One geodesic, two ways to another curvature")
    axes.legend(fontsize=8, loc="upper right")


def main() -> None:
    figure, (left, right) = panels(2)
    through_zero(left)
    two_ways(right)
    save(figure, "curvature")


if __name__ == "__main__":
    main()
