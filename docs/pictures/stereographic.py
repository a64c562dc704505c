"""Left: heptagons, three at a corner, all of one size. Right: geodesics and circles for curvature -1, 0 and 1."""

import math

import torch
from common import BLUE, GREY, ORANGE, RED, panels, save
from matplotlib.collections import PolyCollection
from matplotlib.patches import Circle
from torch import Tensor

from torchriemann.manifolds import ConstantCurvature, PoincareBall, Stereographic, convert

SIDES, AT_A_CORNER = 7, 3
TILES = ("#e8eef5", "#a9c6e3", "#5b93c4", "#2f6ea6")


def heptagons(reach: float) -> tuple[Tensor, list[int]]:
    """Corners ``N,7,2`` in the Poincare disk of all tiles with centres within `reach`, and their steps from the middle.

    The neighbour across an edge is the tile reflected in the middle of that edge: every corner goes to twice its way.
    """
    m = PoincareBall()
    radius = math.acosh(1 / (math.tan(math.pi / SIDES) * math.tan(math.pi / AT_A_CORNER)))
    a = 2 * math.pi * torch.arange(SIDES) / SIDES
    first = torch.cat([m.from_normal(radius * torch.stack([a.cos(), a.sin()], -1)), torch.zeros(1, 2)])  # and centre
    tiles, steps, ring = [first], [0], [first]
    seen = {(0.0, 0.0)}
    while ring:
        found = []
        for tile in ring:
            middles = m.midpoint(tile[:-1], tile[:-1].roll(-1, 0))
            for neighbour in m.geodesic(tile[None], middles[:, None], 2.0):
                place = m.to_normal(neighbour[-1])
                key = round(float(place[0]), 3) + 0.0, round(float(place[1]), 3) + 0.0
                if key not in seen and place.norm() < reach:
                    seen.add(key)
                    found.append(neighbour)
        tiles, steps, ring = tiles + found, steps + [steps[-1] + 1] * len(found), found
    return torch.stack(tiles)[:, :-1], steps


def draw_tiles(axes, target: ConstantCurvature, points: int, reach: float = 5.3) -> None:
    """The tiles in a model of curvature -1, every edge by `points` of its geodesic."""
    corners, steps = heptagons(reach)
    t = torch.linspace(0, 1, points + 1)[:-1]
    edges = PoincareBall().geodesic(corners[:, :, None], corners.roll(-1, 1)[:, :, None], t)
    outlines = convert(edges, PoincareBall(), target).flatten(1, 2)
    colours = [TILES[s % len(TILES)] for s in steps]
    axes.add_collection(PolyCollection(list(outlines.numpy()), facecolors=colours, edgecolors="white", linewidths=0.6))
    axes.add_patch(Circle((0, 0), 1, fill=False, color="black", lw=1.2))
    axes.set(xlim=(-1.03, 1.03), ylim=(-1.03, 1.08), aspect="equal")
    axes.set_axis_off()


def grid(axes, K: float) -> None:
    """Geodesics of length 3 across one of length 3, 3/8 apart, and circles of radius 3/8, 3/4, 9/8, 3/2."""
    m = Stereographic(K)
    feet = m.from_normal(torch.stack([torch.linspace(-1.5, 1.5, 9), torch.zeros(9)], -1))
    up = torch.tensor([0.0, 1.0]).expand(9, 2)
    up = up / m.norm(feet, up, keepdim=True)
    t = torch.linspace(-1.5, 1.5, 121)[:, None, None]
    for line in m.expmap(feet, t * up).transpose(0, 1):
        axes.plot(*line.mT, color=BLUE, lw=1.3)
    axis = m.from_normal(torch.stack([torch.linspace(-1.5, 1.5, 121), torch.zeros(121)], -1))
    axes.plot(*axis.mT, color=RED, lw=1.6)
    a = torch.linspace(0, 2 * math.pi, 721)
    for r in (0.375, 0.75, 1.125, 1.5):
        circle = m.from_normal(r * torch.stack([a.cos(), a.sin()], -1))
        axes.plot(*circle.mT, color=ORANGE, lw=1.0, zorder=1)
        length = float(m.dist(circle[1:], circle[:-1]).sum())
    if K < 0:
        axes.add_patch(Circle((0, 0), 1 / math.sqrt(-K), fill=False, color=GREY, lw=1.0, ls=":"))
    axes.set(xlim=(-1.03, 1.03), ylim=(-1.03, 1.08), aspect="equal")
    axes.set_title(f"K = {K:g}, outer circle {length:.1f} long")
    axes.set_axis_off()


def main() -> None:
    figure, (tiling, *grids) = panels(4, width=13.5, height=3.8)
    draw_tiles(tiling, PoincareBall(), 12)
    tiling.set_title("Tiles of one size and shape")
    for axes, K in zip(grids, (-1.0, 0.0, 1.0), strict=True):
        grid(axes, K)
    save(figure, "stereographic", "png")


if __name__ == "__main__":
    main()
