"""Left: lines through the origin, coloured by their distance from one. Right: the logarithm next to the cut locus."""

import math

import torch
from common import BLUE, GREY, RED, bare_space, panels, save
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from torchriemann.manifolds import Grassmann

M = Grassmann()


def colormaps_of_angles() -> ScalarMappable:
    """Distances from 0 to pi/2 as colours."""
    return ScalarMappable(Normalize(0, math.pi / 2), "cividis")


def lines(axes) -> None:
    """The hemisphere of directions; a geodesic that leaves it at the rim comes back opposite."""
    a, b = torch.meshgrid(torch.linspace(0, 2 * math.pi, 181), torch.linspace(0, math.pi / 2, 61), indexing="ij")
    surface = torch.stack([a.cos() * b.sin(), a.sin() * b.sin(), b.cos()], -1)
    x = M.projx(torch.tensor([[0.55], [-0.35], [0.76]]))
    d = M.dist(x, surface.unsqueeze(-1))
    colours = colormaps_of_angles().to_rgba(d.numpy())
    axes.plot_surface(
        *surface.movedim(-1, 0), facecolors=colours, rstride=1, cstride=1, shade=False, linewidth=0, antialiased=False
    )
    u = M.proju(x, torch.tensor([[0.3], [1.0], [0.1]]))
    t = torch.linspace(0, math.pi, 400)[:, None, None]
    path = M.expmap(x, t * u / M.norm(x, u)).squeeze(-1)
    path = 1.01 * path * torch.where(path[:, 2:] < 0, -1.0, 1.0)
    jump = int((path[1:] - path[:-1]).norm(dim=-1).argmax()) + 1
    for part in (path[:jump], path[jump:]):
        axes.plot(*part.mT, color=RED, lw=2.2, zorder=10)
    axes.scatter(*(1.02 * x.squeeze(-1)), color="white", edgecolor="black", s=45, zorder=20)
    bar = axes.figure.colorbar(colormaps_of_angles(), ax=axes, shrink=0.6, label="distance")
    bar.set_ticks([0, math.pi / 4, math.pi / 2], labels=["0", "π/4", "π/2"])
    axes.set_title("Lines in R^3: distance from one, and a geodesic")
    bare_space(axes, 38, -35, low=-0.3, zoom=1.3)


def near_the_cut(axes) -> None:
    """Relative error of the logarithm with one principal angle at pi/2 - gap."""
    torch.manual_seed(0)
    turn, right = (torch.linalg.qr(torch.randn(n, 4))[0] for n in (60, 4))
    x, zero = M.origin(64, 4), torch.zeros(4, 4)
    gaps = torch.logspace(-9, -0.5, 35)
    ours, theirs = [], []
    for gap in gaps:
        angles = torch.tensor([math.pi / 2 - float(gap), 1.1, 0.6, 0.2])
        u = torch.cat([zero, turn * angles @ right.mT])
        y = x @ (right * angles.cos() @ right.mT) + torch.cat([zero, turn * angles.sin() @ right.mT])
        overlap = x.mT @ y
        left, tangent, back = torch.linalg.svd((y - x @ overlap) @ torch.linalg.inv(overlap), full_matrices=False)
        for errors, log in ((ours, M.logmap(x, y)), (theirs, left * tangent.atan() @ back)):
            errors.append(max(float((log - u).norm() / u.norm()), 1e-17))
    axes.loglog(gaps, theirs, color=GREY, ls="--", label="arctan of (I - x x^T) y (x^T y)^-1")
    axes.loglog(gaps, ours, color=BLUE, label="torchriemann")
    axes.set(xlabel="π/2 - largest principal angle", ylabel="relative error of the logarithm", ylim=(3e-17, 1e-4))
    axes.set_title("Subspaces of dimension 4 in R^64, float64")
    axes.legend()


def main() -> None:
    figure, (left, right) = panels(2, three_d=(0,))
    lines(left)
    near_the_cut(right)
    save(figure, "grassmann", "png")


if __name__ == "__main__":
    main()
