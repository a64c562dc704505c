"""Errors against exact constructions, beside the peers' where they have the operation. Prints a table, writes JSON."""

from __future__ import annotations

import argparse
import math
import warnings

import torch
from common import RESULTS, publish
from torch import Tensor

from torchriemann.manifolds import Grassmann, ManifoldParameter, Sphere, Stiefel
from torchriemann.optim import RiemannianAdam

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import geoopt

BETAS = (0.3, 0.5, 0.75, 1.0, 1.5)


def scaled(m, x: Tensor, u: Tensor, length: float) -> Tensor:
    """u at the given length in the metric."""
    return u * (length / m.norm(x, u, keepdim=True))


def grassmann_round_trip(length: float) -> float:
    """Largest relative error of log(exp u) over 200 tangents in Gr(64, 8), the end point in a random other basis."""
    m = Grassmann()
    x = m.random(200, 64, 8, dtype=torch.float64)
    u = scaled(m, x, m.random_tangent(x), length)
    y = m.expmap(x, u) @ torch.linalg.qr(torch.randn(200, 8, 8, dtype=torch.float64))[0]
    return float(m.norm(x, m.logmap(x, y) - u).max()) / length


def grassmann_near_the_cut(gap: float) -> tuple[float, float]:
    """One angle at pi/2 - gap: relative error of our log, and of the form through (x^T y)^-1 that peers use."""
    m = Grassmann()
    x = m.origin(64, 4, dtype=torch.float64)
    turn, right = (torch.linalg.qr(torch.randn(n, 4, dtype=torch.float64))[0] for n in (60, 4))
    angles = torch.tensor([math.pi / 2 - gap, 1.1, 0.6, 0.2], dtype=torch.float64)
    u = torch.cat([torch.zeros(4, 4, dtype=torch.float64), turn * angles @ right.mT])
    # Built from the angles: the exponential map is not to be trusted with its own test.
    y = x @ (right * angles.cos() @ right.mT) + torch.cat([torch.zeros_like(x[:4]), turn * angles.sin() @ right.mT])
    overlap = x.mT @ y
    left, tangent, back = torch.linalg.svd((y - x @ overlap) @ torch.linalg.inv(overlap), full_matrices=False)
    peer = left * tangent.atan() @ back
    return float((m.logmap(x, y) - u).norm() / u.norm()), float((peer - u).norm() / u.norm())


def stiefel_round_trip(beta: float) -> float:
    """Largest relative error of log(exp u) at 0.8 of the injectivity radius: generic, rank one, H = 0 and A = 0."""
    m, worst = Stiefel(beta), 0.0
    for n, p in ((60, 6), (8, 3), (5, 2), (6, 1)):
        x = m.random(50, n, p, dtype=torch.float64)
        generic = m.random_tangent(x)
        rotation = x @ (x.mT @ generic)
        rank_one = m.proju(x, generic[..., :1] @ torch.randn(50, 1, p, dtype=torch.float64))
        for u in (generic, generic - rotation, rotation, rank_one):
            if p == 1 and u is rotation:
                continue  # zero
            length = 0.8 * float(m.injectivity_radius(x))
            u = scaled(m, x, u, length)
            worst = max(worst, float(m.norm(x, m.logmap(x, m.expmap(x, u)) - u).max()) / length)
    return worst


def transport_isometry(m, n: int, p: int) -> float:
    """Largest relative change of the norm under parallel transport over 0.8 of the injectivity radius."""
    x = m.random(200, n, p, dtype=torch.float64)
    u = scaled(m, x, m.random_tangent(x), 0.8 * float(m.injectivity_radius(x)))
    v = m.random_tangent(x)
    y, w = m.expmap_transp(x, u, v)
    return float((m.norm(y, w) / m.norm(x, v) - 1).abs().max())


def retraction_slope(m) -> float:
    """Order of |R(hu) - exp(hu)| in h, smallest over 20 draws; between subspaces on the Grassmann manifold."""
    x = m.random(20, 9, 3, dtype=torch.float64)
    u = scaled(m, x, m.random_tangent(x), 1.0)

    def gap(h: float) -> Tensor:
        a, b = m.retr(x, h * u), m.expmap(x, h * u)
        difference = a @ a.mT - b @ b.mT if m.name == "Grassmann" else a - b
        return difference.norm(dim=(-2, -1))

    return float(torch.log2(gap(2e-2) / gap(1e-2)).min())


def sphere_small_angles() -> tuple[float, float, float, float]:
    """float32, angle 1e-6: largest relative error against the rounded inputs in float64, ours and geoopt's, and the
    range of our gradient's norm."""
    m = Sphere()
    x = m.random(2000, 64, dtype=torch.float64)
    y = m.expmap(x, scaled(m, x, m.random_tangent(x), 1e-6)).float()
    x = x.float().requires_grad_()
    true = m.dist(m.projx(x.detach().double()), m.projx(y.double()))
    ours, theirs = m.dist(x, y), geoopt.Sphere().dist(x.detach(), y)
    slope = torch.autograd.grad(ours.sum(), x)[0].norm(dim=-1)
    error, peer = ((d.detach().double() - true).abs().div(true).max() for d in (ours, theirs))
    return float(error), float(peer), float(slope.min()), float(slope.max())


def drift(m, n: int, p: int) -> float:
    """max|x^T x - I| after 1,000 float32 steps of Adam."""
    x = ManifoldParameter(m.random(n, p), m)
    optimizer, target = RiemannianAdam([x], lr=1e-2), torch.randn(n, p)
    for _ in range(1000):
        x.grad = target + 0.3 * torch.randn(n, p)
        optimizer.step()
    wide = x.detach().double()
    return float((wide.mT @ wide - torch.eye(p)).abs().max())


def rows() -> dict[str, float]:
    """All figures by name."""
    table: dict[str, float] = {}
    for length in (1e-3, 0.1, 1.0, 1.5):
        table[f"Grassmann (64, 8), log(exp u) - u, |u| = {length:g}, relative"] = grassmann_round_trip(length)
    ours, peer = grassmann_near_the_cut(1e-6)
    table["Grassmann (64, 4), log, one angle pi/2 - 1e-6, relative"] = ours
    table["  the same by (x^T y)^-1, the peers' form"] = peer
    for beta in BETAS:
        table[f"Stiefel, beta {beta:g}, log(exp u) - u at 0.8 inj, relative"] = stiefel_round_trip(beta)
    table["Grassmann, transport, norm"] = transport_isometry(Grassmann(), 20, 4)
    for beta in BETAS:
        table[f"Stiefel, beta {beta:g}, transport, norm"] = transport_isometry(Stiefel(beta), 20, 4)
    for retraction in ("polar", "qr"):
        table[f"Grassmann, {retraction}, slope of the retraction"] = retraction_slope(Grassmann(retraction))
    for beta in (1.0, 0.5):
        for retraction in ("polar", "qr", "cayley"):
            name = f"Stiefel, beta {beta:g}, {retraction}, slope of the retraction"
            table[name] = retraction_slope(Stiefel(beta, retraction))
    error, peer, low, high = sphere_small_angles()
    table["Sphere, float32, distance at angle 1e-6, relative"] = error
    table["  geoopt"] = peer
    table["Sphere, float32, norm of its gradient, least"] = low
    table["Sphere, float32, norm of its gradient, greatest"] = high
    for m in (Stiefel(), Stiefel(1.0, "qr"), Stiefel(0.5, "cayley"), Stiefel(1.0, "exp"), Grassmann()):
        for n, p in ((64, 16), (512, 64)):
            table[f"{m.name}, {m.retraction}, {n}x{p}, float32, drift of 1,000 steps"] = drift(m, n, p)
    return table


def main() -> None:
    """Print and save."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    table = rows()
    for name, value in table.items():
        print(f"{name:75} {value:9.2g}" if abs(value) < 1e-2 or abs(value) > 10 else f"{name:75} {value:9.6g}")
    publish("accuracy", [{"name": name.strip(), "error": value} for name, value in table.items()])
    print(f"written: {RESULTS.name}/accuracy.json")


if __name__ == "__main__":
    main()
