"""Two geodesics that leave one point at a small angle: how far apart they are is what curvature means."""

import math

import torch
from common import BLUE, GREEN, GREY, ORANGE, PINK, RED, panels, save
from torch import Tensor

from torchriemann.manifolds import Euclidean, Grassmann, Manifold, Sphere

ANGLE = 1e-3


def spread(m: Manifold, x: Tensor, u: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """Distance after the times t of the geodesics with velocities u and u turned by `ANGLE` towards v, per angle."""
    shape = (-1,) + (1,) * m.ndim
    turned = math.cos(ANGLE) * u + math.sin(ANGLE) * v
    return m.dist(m.expmap(x, t.reshape(shape) * u), m.expmap(x, t.reshape(shape) * turned)) / ANGLE


def plane(m: Manifold, x: Tensor, u: Tensor, v: Tensor) -> tuple[Manifold, Tensor, Tensor, Tensor]:
    """u and v made orthonormal at x."""
    u = u / m.norm(x, u)
    v = v - m.inner(x, u, v) * u
    return m, x, u, v / m.norm(x, v)


def cases() -> list[tuple[str, str, float, tuple]]:
    """(label, colour, end of the curve, arguments of `spread`); the curve ends where the logarithm does."""
    axes = torch.eye(3)
    flat, round_, large, subspaces = Euclidean(), Sphere(), Sphere(0.25), Grassmann()
    x = subspaces.origin(4, 2)
    below = torch.zeros(2, 2)
    identity = torch.eye(2)
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    first, last = identity * torch.tensor([1.0, 0.0]), identity * torch.tensor([0.0, 1.0])
    u0, v0, u2, v2 = (torch.cat([below, block]) for block in (first, last, identity, turn))
    return [
        ("Euclidean, K = 0", GREY, 3.0, plane(flat, axes[0], axes[1], axes[2])),
        ("Sphere(curvature=0.25)", ORANGE, 3.0, plane(large, 2 * axes[0], axes[1], axes[2])),
        ("Sphere(), K = 1", BLUE, 3.0, plane(round_, axes[0], axes[1], axes[2])),
        ("Grassmann, a plane with K = 0", GREEN, 1.55, plane(subspaces, x, u0, v0)),
        ("Grassmann, a plane with K = 2", RED, 2.2, plane(subspaces, x, u2, v2)),
    ]


def main() -> None:
    figure, (left,) = panels(1, width=7.5, height=4.4)
    for label, colour, end, (m, x, u, v) in cases():
        t = torch.linspace(0, end, 121)
        curvature = float(m.sectional_curvature(x, u, v))
        dashed = label.startswith("Grassmann")
        left.plot(t, spread(m, x, u, v, t), color=colour, label=label, ls="--" if dashed else "-")
        root = math.sqrt(curvature)
        exact = [math.sin(root * s) / root if root else s for s in t[::15].tolist()]
        left.plot(t[::15], exact, "o", color=colour, ms=4, mfc="white")
    left.plot([], [], "o", color=PINK, ms=4, mfc="white", label=r"circles: $\sin(\sqrt{K}\,t)/\sqrt{K}$")
    left.set(xlabel="length t of both geodesics", ylabel="distance between their ends / angle")
    left.set_title("Geodesics that start together: flat space is where they part evenly")
    left.legend()
    save(figure, "euclidean")


if __name__ == "__main__":
    main()
