"""Left: a vector carried round a triangle comes back turned by the area. Right: distances in float32."""

import math

import torch
from common import BLUE, GREY, ORANGE, RED, bare_space, panels, save
from torch import Tensor

from torchriemann.manifolds import Sphere

M = Sphere()


def globe(axes) -> None:
    """A pale unit sphere with its circles of latitude and longitude."""
    a, b = torch.meshgrid(torch.linspace(0, 2 * math.pi, 73), torch.linspace(0, math.pi, 37), indexing="ij")
    x, y, z = a.cos() * b.sin(), a.sin() * b.sin(), b.cos()
    axes.plot_surface(x, y, z, color="#dbe6f2", linewidth=0, shade=False, antialiased=False, rstride=1, cstride=1)
    front = (x * 0.70 + y * 0.54 + z * 0.47) > 0  # towards the eye
    seen = [torch.where(front, part, torch.nan) for part in (x, y, z)]
    axes.plot_wireframe(*seen, color="white", linewidth=0.8, rstride=6, cstride=6, zorder=2)


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


def holonomy(axes) -> None:
    """The triangle, the vector on its way, and the angle by which it is turned."""
    globe(axes)
    places = [[1.0, 0.05, 0.1], [0.12, 1.0, 0.2], [0.25, 0.3, 1.0]]
    corners = [M.projx(torch.tensor(p)) for p in places]
    start = M.logmap(corners[0], corners[1])
    points, vectors = carried(corners, 0.34 * start / start.norm())
    for x, y in zip(corners, [*corners[1:], corners[0]], strict=True):
        side = M.geodesic(x, y, torch.linspace(0, 1, 60))
        axes.plot(*side.mT, color=BLUE, lw=2.4, zorder=5)
    arrow = {"arrow_length_ratio": 0.22, "linewidth": 1.6}
    for i, (p, w) in enumerate(zip(points, vectors, strict=True)):
        colour = RED if i in (0, len(points) - 1) else ORANGE
        axes.quiver(*p, *w, color=colour, zorder=8 if colour == RED else 6, **arrow)
    turned = float(torch.acos((vectors[0] * vectors[-1]).sum() / vectors[0].square().sum()))
    ahead, behind = [*corners[1:], *corners[:1]], [*corners[-1:], *corners[:-1]]
    sides = [(M.logmap(x, y), M.logmap(x, z)) for x, y, z in zip(corners, ahead, behind, strict=True)]
    area = sum(float(torch.acos((u * w).sum() / (u.norm() * w.norm()))) for u, w in sides) - math.pi
    axes.set_title(f"Carried round: turned by {turned:.4f}, the area is {area:.4f}")
    bare_space(axes, 28, 38)


def pair(gap: float, far: bool) -> tuple[Tensor, Tensor]:
    """2,000 pairs of float32 points in R^64, at angles from `gap` to 1.3 `gap`, or that far from the antipode."""
    torch.manual_seed(0)
    x = M.random(2000, 64)
    u = M.random_tangent(x)
    theta = gap * (1 + 0.3 * torch.rand(2000, 1))
    y = M.expmap(x, (math.pi - theta if far else theta) * u / M.norm(x, u, keepdim=True))
    return x.float(), y.float()


def errors(axes) -> None:
    """Largest relative error against the rounded points in double precision."""
    gaps = torch.logspace(-6.5, -0.5, 25).tolist()
    places = [*((gap, False) for gap in gaps), *((gap, True) for gap in reversed(gaps))]
    forms = {
        "arccos<x, y>": lambda x, y: (x * y).sum(-1).clamp(-1, 1).acos(),
        "2 arcsin(|x - y|/2)": lambda x, y: 2 * (0.5 * (x - y).norm(dim=-1)).clamp(max=1).asin(),
        "torchriemann": M.dist,
    }
    styles = {"arccos<x, y>": (GREY, ":"), "2 arcsin(|x - y|/2)": (ORANGE, "--"), "torchriemann": (BLUE, "-")}
    for name, form in forms.items():
        worst = []
        for gap, far in places:
            x, y = pair(gap, far)
            true = M.dist(M.projx(x.double()), M.projx(y.double()))
            worst.append(float(((form(x, y).double() - true).abs() / true).max()))
        axes.plot([*range(25), *range(26, 51)], worst, color=styles[name][0], ls=styles[name][1], label=name)
    ticks = {0: "3e-7", 10: "1e-4", 22: "0.1", 28: "π - 0.1", 40: "π - 1e-4", 50: "π - 3e-7"}
    axes.set_xticks(list(ticks), list(ticks.values()), rotation=30)
    axes.set(yscale="log", xlabel="angle", ylabel="largest relative error", ylim=(1e-8, 3e1))
    axes.set_title("Distances of float32 points in R^64")
    axes.legend(loc="upper right")


def main() -> None:
    figure, (left, right) = panels(2, three_d=(0,))
    holonomy(left)
    errors(right)
    save(figure, "sphere", "png")


if __name__ == "__main__":
    main()
