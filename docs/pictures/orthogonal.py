"""Left: the logarithm next to a half turn. Right: what random rotations look like, and what they do not."""

import math
from collections.abc import Callable

import torch
from common import BLUE, GREY, ORANGE, SKY, panels, save
from torch import Tensor

from torchriemann.manifolds import SpecialOrthogonal, axis_angle_from_rotation

M = SpecialOrthogonal()


def turn(planes: Tensor, angles: Tensor, entries) -> Tensor:
    """The matrix with the 2 x 2 blocks `entries(angle)` in the given planes."""
    return planes @ torch.block_diag(*(entries(float(a)) for a in angles)) @ planes.mT


def rotation(a: float) -> Tensor:
    return torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])


def generator(a: float) -> Tensor:
    return torch.tensor([[0.0, -a], [a, 0.0]])


def by_the_cosine(v: Tensor) -> Tensor:
    """skew(V) f(sym V), f(c) = arccos(c)/sqrt(1 - c^2): the plain formula."""
    c, q = torch.linalg.eigh(0.5 * (v + v.mT))
    c = c.clamp(-1 + 1e-16, 1 - 1e-16)
    f = torch.where(c > 1 - 1e-8, 1.0, c.arccos() / (1 - c.square()).clamp(min=1e-300).sqrt())
    return 0.5 * (v - v.mT) @ (q * f @ q.mT)


def largest_error(log: Callable[[Tensor], Tensor], angles: list[float]) -> float:
    """Relative error of `log` on 20 rotations with these angles, built from them."""
    torch.manual_seed(0)
    errors = []
    for planes in M.random(20, 6, 6):
        exact = turn(planes, torch.tensor(angles), generator)
        errors.append(float((log(turn(planes, torch.tensor(angles), rotation)) - exact).norm() / exact.norm()))
    return max(errors)


def half_turn(axes) -> None:
    """Error of log V with one angle at pi - gap, and with another at pi - 2 gap; largest of 20 draws."""
    gaps = torch.logspace(-7, -0.5, 27).tolist()
    identity = torch.eye(6)

    def ours(v: Tensor) -> Tensor:
        return M.logmap(identity, v)

    for log, second, colour, style, label in (
        (by_the_cosine, None, ORANGE, "--", "skew(V) f(sym V), one angle near π"),
        (ours, None, BLUE, "-", "torchriemann, one angle near π"),
        (ours, 2.0, SKY, "-.", "torchriemann, two angles near π"),
    ):
        errors = [largest_error(log, [math.pi - g, 1.3 if second is None else math.pi - second * g, 0.4]) for g in gaps]
        axes.loglog(gaps, errors, color=colour, ls=style, label=label)
    axes.loglog(gaps, [2.2e-16 / g for g in gaps], color=GREY, ls=":", lw=1, label="eps / gap")
    axes.set(xlabel="gap: π - largest angle", ylabel="relative error of the logarithm", ylim=(1e-16, 1))
    axes.set_title("Rotations of R^6, float64")
    axes.legend()


def random_angles(axes) -> None:
    """Histograms of the angle of 200,000 rotations of space."""
    torch.manual_seed(0)
    q = torch.linalg.qr(torch.randn(200_000, 3, 3))[0]
    q = q * torch.linalg.det(q).sign()[:, None, None]  # a rotation: for odd n the sign of the whole matrix is free
    options = {"bins": 60, "range": (0, math.pi), "density": True, "histtype": "step", "linewidth": 1.8}
    for x, colour, label in ((q, ORANGE, "LAPACK's Q, as it is"), (M.random(200_000, 3, 3), BLUE, "random_uniform")):
        axes.hist(axis_angle_from_rotation(x).norm(dim=-1).numpy(), color=colour, label=label, **options)
    t = torch.linspace(0, math.pi, 200)
    axes.plot(t, (1 - t.cos()) / math.pi, color="black", ls=":", lw=1.4, label="Haar measure: (1 - cos t)/π")
    axes.set(xlabel="angle t of the rotation", ylabel="density")
    axes.set_xticks([0, math.pi / 2, math.pi], ["0", "π/2", "π"])
    axes.set_title("Random rotations of space")
    axes.legend(loc="upper left")


def main() -> None:
    figure, (left, right) = panels(2)
    half_turn(left)
    random_angles(right)
    save(figure, "orthogonal")


if __name__ == "__main__":
    main()
