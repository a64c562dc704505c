"""Left: geodesics of eight kernels. Right: geodesics of matrices of determinant one, for two squared means."""

import math

import torch
from common import BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, panels, save
from matplotlib.collections import PolyCollection
from spd import ends, outlines
from torch import Tensor

from torchriemann.manifolds import (
    ArithmeticMean,
    BogoliubovKuboMori,
    GeometricMean,
    HarmonicMean,
    KernelFunction,
    LogarithmicMean,
    SPDKernel,
    matrix_log,
)

FAMILY: dict[str, tuple[KernelFunction, str]] = {
    "power 0: Euclidean": (LogarithmicMean(power=0.0), "black"),
    "power 1/2": (LogarithmicMean(power=0.5), ORANGE),
    "power 1:\nBogoliubov-Kubo-Mori": (BogoliubovKuboMori(), RED),
    "power 3/2": (LogarithmicMean(power=1.5), PINK),
    "power 2: log-Euclidean": (LogarithmicMean(power=2.0), GREEN),
    "geometric, power 2:\naffine-invariant": (GeometricMean(power=2.0), BLUE),
    "arithmetic, power 2": (ArithmeticMean(power=2.0), GREY),
    "harmonic, power 2": (HarmonicMean(power=2.0), SKY),
}


def strips(axes, count: int = 9) -> None:
    """A row a kernel, with the largest determinant over that of the ends."""
    x, y = ends()
    t = torch.linspace(0, 1, count)
    for row, (name, (phi, colour)) in enumerate(FAMILY.items()):
        path = SPDKernel(phi).geodesic(x, y, t)
        shapes = outlines(path, 0.36) + torch.stack([torch.arange(count), torch.full((count,), -row)], -1).unsqueeze(-2)
        for style in ({"facecolors": colour, "alpha": 0.35}, {"facecolors": "none", "edgecolors": colour, "lw": 1.2}):
            axes.add_collection(PolyCollection(list(shapes.numpy()), **style))
        axes.text(count - 0.3, -row, f"{float((path.det() / x.det()).max()):.2f}", color=colour, va="center")
        axes.text(-0.75, -row, name, color=colour, va="center", ha="right")
    axes.set(xlim=(-0.6, count + 0.3), ylim=(0.4 - len(FAMILY), 0.6), aspect="equal")
    axes.set_axis_off()
    axes.set_title("Powers of the logarithmic mean, and of others")


def plane(x: Tensor) -> Tensor:
    """Of log x: half the difference of the diagonal, and the entry off it. ``*B,2,2 -> *B,2``."""
    X = matrix_log(x)
    return torch.stack([(X[..., 0, 0] - X[..., 1, 1]) / 2, X[..., 0, 1]], -1)


def fan(axes, phi: KernelFunction, title: str, count: int = 40) -> None:
    """Geodesics from one matrix of determinant one, and circles about it."""
    m = SPDKernel(phi)
    x = torch.diag(torch.tensor([0.9, -0.9]).exp())
    frame = torch.stack([x @ torch.diag(torch.tensor([1.0, -1.0])), torch.tensor([[0.0, 1.0], [1.0, 0.0]])])
    frame = frame / m.norm(x, frame)[:, None, None]

    def directions(number: int) -> Tensor:
        a = 2 * math.pi * torch.arange(number) / (number - number % 2)
        return a.cos()[:, None, None] * frame[0] + a.sin()[:, None, None] * frame[1]

    t = torch.linspace(0, 3.6, 61)[:, None, None, None]
    for path in plane(m.expmap(x, t * directions(count))).transpose(0, 1):
        axes.plot(*path.mT, color=BLUE, lw=0.9, alpha=0.8)
    for radius in (0.6, 1.2, 1.8, 2.4, 3.0, 3.6):
        axes.plot(*plane(m.expmap(x, radius * directions(241))).mT, color=GREY, lw=0.9)
    axes.plot(*plane(x), "o", color="black", ms=5, zorder=6)
    axes.plot(0, 0, "+", color=RED, ms=9, zorder=6)
    axes.set(xlim=(-2.2, 2.8), ylim=(-2.5, 2.5), aspect="equal", title=title)


def main() -> None:
    figure, (left, middle, right) = panels(3, width=13.0, height=4.4)
    strips(left)
    fan(middle, GeometricMean(power=2.0), "geometric mean, power 2")
    fan(right, ArithmeticMean(power=2.0), "arithmetic mean, power 2")
    for a in (middle, right):
        a.set(xlabel="$(X_{11} - X_{22})/2$", ylabel="$X_{12}$")
    save(figure, "spd_kernel", "png")


if __name__ == "__main__":
    main()
