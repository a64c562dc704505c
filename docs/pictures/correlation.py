"""Balls of one radius under the five metrics and that of the entries, in the body of all 3 x 3 correlation matrices."""

import math
from typing import Any

import torch
from common import BLUE, GREEN, GREY, ORANGE, PINK, RED, plt, save
from torch import Tensor

from torchriemann.manifolds import (
    CorrelationEuclideanCholesky,
    CorrelationLogEuclideanCholesky,
    CorrelationLogScaled,
    CorrelationOffLog,
    CorrelationPolyHyperbolic,
)
from torchriemann.manifolds.correlation.space import Correlation

METRICS: dict[str, tuple[Correlation | None, str]] = {
    "the entries": (None, GREY),
    "CorrelationEuclideanCholesky": (CorrelationEuclideanCholesky(), PINK),
    "CorrelationLogEuclideanCholesky": (CorrelationLogEuclideanCholesky(), ORANGE),
    "CorrelationOffLog": (CorrelationOffLog(), GREEN),
    "CorrelationLogScaled": (CorrelationLogScaled(), BLUE),
    "CorrelationPolyHyperbolic": (CorrelationPolyHyperbolic(), RED),
}
RADIUS = 0.4
# The middle, and towards the four vertices.
CENTRES = 0.8 * torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])


def matrices(entries: Tensor) -> Tensor:
    """With x_12, x_13, x_23. ``*B,3 -> *B,3,3``."""
    x = torch.zeros(*entries.shape[:-1], 3, 3)
    i, j = torch.triu_indices(3, 3, 1)
    x[..., i, j] = entries
    return x + x.mT + torch.eye(3)


def entries(x: Tensor) -> Tensor:
    """x_12, x_13, x_23. ``*B,3,3 -> *B,3``."""
    i, j = torch.triu_indices(3, 3, 1)
    return x[..., i, j]


def sphere(count: int = 49) -> Tensor:
    """Unit vectors. ``count,2 count,3``."""
    a, b = torch.meshgrid(torch.linspace(0, math.pi, count), torch.linspace(0, 2 * math.pi, 2 * count), indexing="ij")
    return torch.stack([a.sin() * b.cos(), a.sin() * b.sin(), a.cos()], -1)


def ball(m: Correlation | None, centre: Tensor) -> Tensor:
    """The boundary of the ball, as entries."""
    if m is None:
        return centre + RADIUS / math.sqrt(2) * sphere()
    x = matrices(centre)
    u = torch.einsum("abk,kij->abij", RADIUS * sphere(), m.basis(x))
    return entries(m.expmap(x, u))


def body(axes) -> None:
    """The singular matrices."""
    a, b = torch.meshgrid(torch.linspace(0, math.pi, 61), torch.linspace(0, math.pi, 61), indexing="ij")
    for sign in (-1, 1):
        z = (a + sign * b).cos()
        axes.plot_surface(a.cos(), b.cos(), z, color="#7FA8C9", alpha=0.1, linewidth=0, shade=False)
        axes.plot_wireframe(a.cos(), b.cos(), z, color="#2F5573", alpha=0.22, lw=0.4, rstride=6, cstride=6)


def main() -> None:
    figure = plt.figure(figsize=(12, 8.2), layout="constrained")
    for i, (name, (m, colour)) in enumerate(METRICS.items()):
        axes: Any = figure.add_subplot(2, 3, i + 1, projection="3d")
        body(axes)
        for centre in CENTRES:
            x, y, z = ball(m, centre).unbind(-1)
            axes.plot_surface(x, y, z, color=colour, alpha=0.85, linewidth=0, antialiased=False, rstride=1, cstride=1)
        axes.set_axis_off()
        axes.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
        axes.set_box_aspect((1, 1, 1), zoom=1.16)
        axes.view_init(elev=17, azim=-64)
        axes.set_title(name, color="black" if m is None else colour)
    save(figure, "correlation", "png")


if __name__ == "__main__":
    main()
