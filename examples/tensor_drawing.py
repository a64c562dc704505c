"""How tensors are drawn: geodesics as ellipses and as curves, a field of ellipsoids seen from above."""

import math
from typing import Any

import torch
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm
from tensor_fields import fractional_anisotropy, principal_axis
from torch import Tensor

from torchriemann.manifolds import Manifold

TURN = math.radians(75)


def ends() -> tuple[Tensor, Tensor]:
    """Two ellipses of one shape, turned by 75 degrees."""
    shape = torch.diag(torch.tensor([1.0, 0.06], dtype=torch.float64))
    c, s = math.cos(TURN), math.sin(TURN)
    turn = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    return shape, turn @ shape @ turn.mT


def outlines(x: Tensor, scale: float) -> Tensor:
    """The ellipses of one standard deviation: any root of x carries the circle there. ``*B,2,2 -> *B,72,2``."""
    a = torch.linspace(0, 2 * math.pi, 72, dtype=x.dtype)
    return scale * (torch.linalg.cholesky(x) @ torch.stack([a.cos(), a.sin()])).mT


def show_strips(axes, metrics: dict[str, Manifold], colours: dict[str, str], count: int = 9) -> PolyCollection:
    """A row a metric: the geodesic between the ends, coloured by determinant."""
    x, y = ends()
    t = torch.linspace(0, 1, count, dtype=torch.float64)
    paths = torch.stack([m.geodesic(x, y, t) for m in metrics.values()])
    rows, columns = torch.meshgrid(torch.arange(len(metrics)), torch.arange(count), indexing="ij")
    shapes = outlines(paths, 0.47) + torch.stack([columns, -rows], -1).unsqueeze(-2)
    ratio = paths.det() / x.det()
    drawn = PolyCollection(list(shapes.flatten(0, 1).numpy()), cmap="YlOrRd", norm=LogNorm(1, 4.6), edgecolors="0.2")
    drawn.set_array(ratio.flatten().numpy())
    axes.add_collection(drawn)
    axes.set(xlim=(-0.6, count - 0.4), ylim=(0.45 - len(metrics), 0.6), aspect="equal", xticks=[])
    axes.set_yticks([-i for i in range(len(metrics))], list(metrics))
    axes.tick_params(length=0, labelsize=13)
    for label, colour in zip(axes.get_yticklabels(), colours.values(), strict=True):
        label.set(color=colour, fontweight="bold")
    axes.spines[:].set_visible(False)
    axes.set_title("Geodesics between an ellipse and itself, turned by 75 degrees")
    return drawn


def show_curves(panels, metrics: dict[str, Manifold], colours: dict[str, str]) -> None:
    """Determinant, anisotropy and axis along the same geodesics."""
    x, y = ends()
    t = torch.linspace(0, 1, 201, dtype=torch.float64)
    for i, (name, m) in enumerate(metrics.items()):
        path = m.geodesic(x, y, t)
        axis = principal_axis(path)
        turned = torch.atan2(axis[:, 1], axis[:, 0]).rad2deg() % 180
        # One over another: the later are thinner, so that those below show.
        style = {"color": colours[name], "lw": 5.5 - 0.7 * i, "label": name}
        for axes, values in zip(panels, (path.det() / x.det(), fractional_anisotropy(path), turned), strict=True):
            axes.plot(t, values, **style)
    panels[0].set(yscale="log", title="determinant / that of the ends")
    panels[0].set_yticks([1, 2, 4], ["1", "2", "4"])
    panels[0].minorticks_off()
    panels[1].set(title="anisotropy", ylim=(0, 1))
    panels[2].set(title="turned by, degrees", xlabel="t", yticks=[0, 25, 50, 75])
    for axes in panels:
        axes.set_xlim(0, 1)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)


def show_field(axes, x: Tensor, shown: Tensor, colours: Any) -> None:
    """Ellipsoids as they are seen from above, their axes as long as the eigenvalues."""
    i, j = shown.nonzero().T
    seen = (x @ x)[i, j, :2, :2]
    shapes = outlines(seen, 0.33) + torch.stack([j, -i], -1).unsqueeze(-2)
    side = len(x)
    axes.add_collection(PolyCollection(list(shapes.numpy()), facecolors=colours[i, j], edgecolors="0.25", lw=0.4))
    axes.set(xlim=(-0.8, side - 0.2), ylim=(0.8 - side, 0.8), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_color("0.8")


def direction_colours(x: Tensor) -> Any:
    """Red, green and blue for the parts of the principal axis, as bright as it is anisotropic."""
    a = fractional_anisotropy(x).unsqueeze(-1).clamp(max=1)
    return (0.82 * (1 - a) + a * principal_axis(x).abs()).clamp(0, 1).numpy()
