"""Left and middle: geodesics of both metrics in a plane of Cholesky factors. Right: the order of coordinates."""

import torch
from common import GREEN, GREY, ORANGE, SKY, panels, save
from matplotlib.collections import PolyCollection
from spd import ends, outlines
from spd_bures_wasserstein import Slice, fan
from torch import Tensor

from torchriemann.manifolds import Manifold, SPDLogCholesky, SPDLogEuclidean, SPDPowerCholesky


def second_row(x: Tensor) -> Tensor:
    """Of the Cholesky factor. ``*B,2,2 -> *B,2``; NaN of what has none."""
    L, info = torch.linalg.cholesky_ex(x)
    return torch.where((info == 0).unsqueeze(-1), L[..., 1, :], torch.nan)


def strip(axes, row: int, path: Tensor, colour: str, name: str) -> None:
    """Ellipses side by side."""
    count = len(path)
    shapes = outlines(path, 0.36) + torch.stack([torch.arange(count), torch.full((count,), -1.3 * row)], -1).unsqueeze(
        -2
    )
    for style in ({"facecolors": colour, "alpha": 0.35}, {"facecolors": "none", "edgecolors": colour, "lw": 1.2}):
        axes.add_collection(PolyCollection(list(shapes.numpy()), **style))
    axes.text((count - 1) / 2, -1.3 * row + 0.58, name, color=colour, ha="center", va="center")


def orders(axes, count: int = 5) -> None:
    """One pair of ellipses, with both orders of its coordinates, and in a metric that does not know of them."""
    swap = torch.eye(2).flip(0)
    x, y = ends(degrees=60.0)
    t = torch.linspace(0, 1, count)
    m: Manifold = SPDLogCholesky()
    strip(axes, 0, m.geodesic(x, y, t), SKY, "log-Cholesky, first coordinate first")
    other = m.geodesic(swap @ x @ swap, swap @ y @ swap, t)
    strip(axes, 1, swap @ other @ swap, ORANGE, "log-Cholesky, second coordinate first")
    strip(axes, 2, SPDLogEuclidean().geodesic(x, y, t), GREEN, "log-Euclidean, either")
    axes.set(xlim=(-0.6, count - 0.4), ylim=(-3.2, 0.8), aspect="equal")
    axes.set_axis_off()
    axes.set_title("The order of coordinates matters")


def main() -> None:
    L = torch.tensor([[1.0, 0.0], [0.3, 0.8]])
    steps = torch.tensor([[[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]])
    first, second = L @ steps.mT + steps @ L.mT
    plane = Slice(L @ L.mT, first, second, second_row)
    figure, axes = panels(3, width=12.5, height=4.9)
    spaces = ((SPDLogCholesky(), "log-Cholesky: no geodesic ends"), (SPDPowerCholesky(0.5), "power-Cholesky, 1/2"))
    for a, (m, title) in zip(axes, spaces, strict=False):
        fan(a, plane, m, 4.0, 0.4, (-1.2, 1.8, 0.0, 3.0))
        a.axhline(0, color=GREY, lw=1)
        a.set(title=title, xlabel="$L_{21}$", ylabel="$L_{22}$")
    orders(axes[2])
    save(figure, "spd_cholesky", "png")


if __name__ == "__main__":
    main()
