"""Left: one point in four models, and the rays that join them. Right: the tiles of the Poincare disk, here straight."""

import torch
from common import BLUE, GREEN, GREY, ORANGE, PINK, RED, panels, save
from stereographic import draw_tiles

from torchriemann.manifolds import Klein, Lorentz, PoincareBall, convert


def models(axes) -> None:
    """Hyperboloid, hemisphere and the two disks in the plane of one direction and time."""
    s = torch.linspace(-1.75, 1.75, 201)
    a = torch.linspace(0, torch.pi, 201)
    axes.plot(s, (1 + s.square()).sqrt(), color=BLUE, label="Lorentz")
    axes.plot(a.cos(), a.sin(), color=GREY, ls="--", label="hemisphere")
    axes.plot([-1, 1], [1, 1], color=GREEN, lw=2.6, label="Klein")
    axes.plot([-1, 1], [0, 0], color=ORANGE, lw=2.6, label="Poincaré")
    for z, colour in ((1.15, RED), (-0.7, PINK)):
        x = Lorentz().from_normal(torch.tensor([z]))
        (ball,), (klein,) = (convert(x, Lorentz(), m).tolist() for m in (PoincareBall(), Klein()))
        t, place = x.tolist()
        axes.plot([0, place], [-1, t], color=colour, lw=1.1)  # through the ball's point and the hemisphere's
        axes.plot([0, place], [0, t], color=colour, lw=1.1)  # through the Klein model's
        up = (1 - klein**2) ** 0.5
        axes.plot([klein, klein], [up, 1], color=colour, lw=1.1, ls=":")
        axes.plot([place, klein, ball, klein], [t, 1, 0, up], "o", color=colour, ms=6, mec="white", zorder=6)
    axes.plot([0, 0], [0, -1], "+", color="black", ms=8)
    axes.set(aspect="equal", xlabel="space", ylabel="time", ylim=(-1.15, 2.1))
    axes.set_title("One space: two points, seen from (0, -1) and from (0, 0)")
    axes.legend(loc="lower right", fontsize=9)


def main() -> None:
    figure, (left, right) = panels(2)
    models(left)
    draw_tiles(right, Klein(), 1, reach=6.4)
    right.set_title("Geodesics of the Klein model are straight")
    save(figure, "klein", "png")


if __name__ == "__main__":
    main()
