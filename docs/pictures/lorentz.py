"""Left: a vector carried round a triangle comes back turned by minus the area. Right: distances far out, float64."""

import math
import warnings
from typing import Any

import mpmath
import torch
from common import BLUE, GREEN, GREY, ORANGE, RED, bare_space, panels, save
from torch import Tensor

from torchriemann.manifolds import Lorentz

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import geoopt

M = Lorentz()
SCALE = 0.58  # of the drawing in space


def in_space(x: Tensor) -> tuple[Tensor, ...]:
    """Coordinates for drawing: the time upwards, the top of the sheet at the middle."""
    return SCALE * x[..., 1], SCALE * x[..., 2], SCALE * x[..., 0] - 1


def sheet(axes) -> None:
    """The hyperboloid with its circles and meridians."""
    a, r = torch.meshgrid(torch.linspace(0, 2 * math.pi, 97), torch.linspace(0, 1.3, 49), indexing="ij")
    x = M.from_normal(torch.stack([r * a.cos(), r * a.sin()], -1))
    axes.plot_surface(*in_space(x), color="#dbe6f2", linewidth=0, shade=False, antialiased=False, rstride=1, cstride=1)
    axes.plot_wireframe(*in_space(x), color="white", linewidth=0.8, rstride=8, cstride=8, zorder=2)


def carried(corners: list[Tensor], v: Tensor) -> tuple[Tensor, Tensor]:
    """Points along the triangle, and v transported in parallel to each."""
    points, vectors = [], []
    for x, y in zip(corners, [*corners[1:], corners[0]], strict=True):
        u = M.logmap(x, y)
        for t in torch.linspace(0, 1, 7)[:-1]:
            p, w = M.expmap_transp(x, t * u, v)
            points.append(p)
            vectors.append(w)
        v = M.expmap_transp(x, u, v)[1]
    return torch.stack([*points, corners[0]]), torch.stack([*vectors, v])


def angle(x: Tensor, u: Tensor, v: Tensor) -> float:
    """Between two tangent vectors."""
    return float(torch.acos(M.inner(x, u, v) / (M.norm(x, u) * M.norm(x, v))))


def holonomy(axes) -> None:
    """The triangle, the vector on its way, and the angle by which it is turned."""
    sheet(axes)
    places = [[0.8, -0.75], [0.75, 0.8], [-1.05, 0.1]]
    corners = list(M.from_normal(torch.tensor(places)))
    start = M.logmap(corners[0], corners[1])
    points, vectors = carried(corners, 0.36 * start / M.norm(corners[0], start))
    for x, y in zip(corners, [*corners[1:], corners[0]], strict=True):
        axes.plot(*in_space(M.geodesic(x, y, torch.linspace(0, 1, 60))), color=BLUE, lw=2.4, zorder=5)
    arrow = {"arrow_length_ratio": 0.25, "linewidth": 1.6}
    for i, (p, w) in enumerate(zip(points, vectors, strict=True)):
        colour = RED if i in (0, len(points) - 1) else ORANGE
        step = [float(b - a) for a, b in zip(in_space(p), in_space(p + w), strict=True)]
        axes.quiver(*in_space(p), *step, color=colour, zorder=8 if colour == RED else 6, **arrow)
    turned = angle(corners[0], vectors[0], vectors[-1])
    ahead, behind = [*corners[1:], *corners[:1]], [*corners[-1:], *corners[:-1]]
    triangle = zip(corners, ahead, behind, strict=True)
    area = math.pi - sum(angle(x, M.logmap(x, y), M.logmap(x, z)) for x, y, z in triangle)
    axes.set_title(f"Carried round: turned back by {turned:.4f}, the area is {area:.4f}")
    bare_space(axes, 52, -66, low=-0.55, zoom=1.5)


def true_distance(x: Tensor, y: Tensor) -> Any:
    """From the stored space parts, an mpf of 60 digits."""
    a, b = ([mpmath.mpf(float(c)) for c in p[1:]] for p in (x, y))
    products = [mpmath.fdot(p, q) for p, q in ((a, a), (b, b), (a, b))]
    return mpmath.acosh(mpmath.sqrt(1 + products[0]) * mpmath.sqrt(1 + products[1]) - products[2])


def naive(x: Tensor, y: Tensor) -> Tensor:
    """arcosh of minus the Minkowski product."""
    return (x[..., 0] * y[..., 0] - (x[..., 1:] * y[..., 1:]).sum(-1)).clamp(min=1).acosh()


def pairs(radius: float, gap: float | None) -> tuple[Tensor, Tensor]:
    """20 pairs in dimension 5 at a radius, in independent directions or at the distance `gap`."""
    torch.manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(3, 20, 5), dim=-1)
    x = M.from_normal(radius * directions[0])
    return x, M.from_normal(radius * directions[1]) if gap is None else M.expmap_frame(x, gap * directions[2])


def errors(axes) -> None:
    """Largest relative error of the distance."""
    mpmath.mp.dps = 60
    radii = torch.linspace(0.25, 18, 36).tolist()
    forms = [
        ("arcosh of the product", naive, 1e-3, ORANGE, "--"),
        ("geoopt", geoopt.Lorentz().dist, 1e-3, GREY, "-."),
        ("torchriemann", M.dist, 1e-3, BLUE, "-"),
        ("torchriemann, independent points", M.dist, None, GREEN, "-"),
    ]
    for label, form, gap, colour, style in forms:
        worst = []
        for radius in radii:
            x, y = pairs(radius, gap)
            true = [true_distance(p, q) for p, q in zip(x, y, strict=True)]
            got = form(x, y).tolist()
            worst.append(
                max(float(abs(g - t) / t) if math.isfinite(g) else math.inf for g, t in zip(got, true, strict=True))
            )
        axes.semilogy(radii, worst, color=colour, ls=style, label=label)
    axes.set(xlabel="distance of the points from the origin", ylabel="largest relative error", ylim=(1e-17, 1e3))
    axes.set_title("Distance of points 1e-3 apart, float64")
    axes.legend(loc="upper left", fontsize=9)


def main() -> None:
    figure, (left, right) = panels(2, three_d=(0,))
    holonomy(left)
    errors(right)
    save(figure, "lorentz", "png")


if __name__ == "__main__":
    main()
