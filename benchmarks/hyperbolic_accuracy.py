"""Errors of the hyperbolic operations against exact arithmetic on the stored numbers, beside geoopt's.

    python benchmarks/hyperbolic_accuracy.py

Prints a table and writes results/hyperbolic_accuracy.json. Errors are in eps = torch.finfo(dtype).eps where the
name says so; "hyperbolic error" is the distance of the result from the exact one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable

import _hyperbolic_truth as truth
import torch
from common import publish
from mpmath import mpf
from torch import Tensor
from tqdm import tqdm

from torchriemann.manifolds import Klein, Lorentz, PoincareBall, Stereographic

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import geoopt

DIMENSION, PAIRS = 5, 40
GENERATOR = torch.Generator().manual_seed(0)


def normal(radius: float, count: int = PAIRS, n: int = DIMENSION) -> Tensor:
    """Normal coordinates of that length in random directions, float64."""
    z = torch.randn(count, n, generator=GENERATOR, dtype=torch.float64)
    return radius * z / z.norm(dim=-1, keepdim=True)


def pairs(radius: float, angle: float = 0.05) -> tuple[Tensor, Tensor]:
    """Normal coordinates of pairs at that radius whose directions differ by `angle` at least."""
    x, y = normal(radius, 4 * PAIRS), normal(radius, 4 * PAIRS)
    wide = torch.nn.functional.cosine_similarity(x, y).clamp(-1, 1).acos() > angle
    return x[wide][:PAIRS], y[wide][:PAIRS]


def worst(errors: Iterable[float]) -> float:
    """The largest; infinite if one is NaN."""
    return max(math.inf if math.isnan(e) else e for e in map(float, errors))


def rows(*tensors: Tensor) -> Iterable[tuple[list, ...]]:
    """The stored numbers of each row, exactly."""
    return zip(*(map(truth.exact, t) for t in tensors), strict=True)


def space(x: Tensor) -> Tensor:
    """The space part of Lorentz points."""
    return x[..., 1:]


def relative(got: Tensor, want: list) -> float:
    """Largest relative error of numbers."""
    return worst(abs((mpf(g) - w) / w) if w else abs(mpf(g)) for g, w in zip(got.double().tolist(), want, strict=True))


# ---- distances ------------------------------------------------------------------------------------------------


def distance(m, x: Tensor, y: Tensor, to_space: Callable, c: float) -> float:
    """Relative error of `m.dist` on stored points."""
    sx, sy = (space(p) if isinstance(m, (Lorentz, geoopt.Lorentz)) else p for p in (x, y))
    want = [truth.dist(to_space(a, c), to_space(b, c), mpf(c)) for a, b in rows(sx, sy)]
    return relative(m.dist(x, y), want)


def as_is(s: list, c: float) -> list:
    """The space part of a Lorentz point is its own."""
    return s


def generic_distance(dtype: torch.dtype, c: float, peer: bool = False) -> float:
    """Generic and origin pairs of the hyperboloid, radius 1e-8 to 40."""
    m, errors = Lorentz(-c), []
    judged = geoopt.Lorentz() if peer else m
    for radius in (1e-8, 1e-4, 1e-2, 1.0, 4.0, 8.0, 12.0, 20.0, 30.0, 40.0):
        x, y = (m.from_normal((z / math.sqrt(c)).to(dtype)) for z in pairs(radius))
        errors += [distance(judged, x, y, as_is, c), distance(judged, x, m.origin(*x.shape, dtype=dtype), as_is, c)]
    return worst(errors)


def near_distance(radius: float, peer: bool = False) -> float:
    """Pairs 1e-3 apart, float64."""
    m = Lorentz()
    x = m.from_normal(normal(radius))
    y = m.expmap_frame(x, normal(1e-3))
    return distance(geoopt.Lorentz() if peer else m, x, y, as_is, 1.0)


def distance_gradient(radius: float, peer: bool = False) -> float:
    """Error of the gradient in the cotangent norm, generic and 1e-2 apart, float64."""
    m, errors = Lorentz(), []
    judged = geoopt.Lorentz() if peer else m
    x, far = (m.from_normal(z) for z in pairs(radius))
    for y in (far, m.expmap_frame(x, normal(1e-2))):
        leaf = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(judged.dist(leaf, y).sum(), leaf)
        # A gradient in the stored time is worth its share of the space part.
        g = space(g) + g[..., :1] * space(x) / x[..., :1]
        for got, a, b in rows(g, space(x), space(y)):
            off = truth.add(got, truth.dist_gradient(a, b, mpf(1)), -1)
            errors.append(float(truth.dot(off, off) + truth.dot(a, off) ** 2) ** 0.5)
    return worst(errors)


def ball_distance(dtype: torch.dtype, radii: tuple[float, ...], peer: bool = False) -> float:
    """Generic and near pairs of the ball."""
    m, errors = PoincareBall(), []
    for radius in radii:
        x, y = (m.from_normal(z.to(dtype)) for z in pairs(radius))
        errors.append(distance(geoopt.PoincareBall() if peer else m, x, y, truth.space_of_ball, 1.0))
    return worst(errors)


def klein_distance(radius: float) -> float:
    """Generic pairs and pairs 1e-3 apart, float64."""
    m = Klein()
    x, y = (m.from_normal(z) for z in pairs(radius))
    near = m.expmap_frame(x, normal(1e-3, len(x)))
    return max(distance(m, x, y, truth.space_of_klein, 1.0), distance(m, x, near, truth.space_of_klein, 1.0))


# ---- maps -----------------------------------------------------------------------------------------------------


def exponential(dtype: torch.dtype, radius: float, peer: bool = False) -> float:
    """Hyperbolic error of exp_x(u), |u| = 1, in units of eps cosh(rho + 1)."""
    m = Lorentz()
    x = m.from_normal(normal(radius).to(dtype))
    u = m.tangent_from_frame(x, normal(1.0).to(dtype))
    got = (geoopt.Lorentz() if peer else m).expmap(x, u)
    errors = [truth.dist(g, truth.exp(a, v, mpf(1)), mpf(1)) for g, a, v in rows(space(got), space(x), space(u))]
    return worst(errors) / (torch.finfo(dtype).eps * math.cosh(radius + 1))


def gyro_sum(dtype: torch.dtype, radius: float) -> float:
    """Hyperbolic error of x (+) y, y at radius 1, in units of eps cosh(rho + 1)."""
    m = Lorentz()
    x, y = m.from_normal(normal(radius).to(dtype)), m.from_normal(normal(1.0).to(dtype))
    got = m.gyroadd(x, y)
    errors = [truth.dist(g, truth.gyroadd(a, b, mpf(1)), mpf(1)) for g, a, b in rows(*map(space, (got, x, y)))]
    return worst(errors) / (torch.finfo(dtype).eps * math.cosh(radius + 1))


def logarithm(radius: float, peer: bool = False) -> float:
    """Error of log_x(y), y at the distance 1, in the metric norm, float64."""
    m = Lorentz()
    x = m.from_normal(normal(radius))
    y = m.expmap_frame(x, normal(1.0))
    got = (geoopt.Lorentz() if peer else m).logmap(x, y)
    errors = []
    for g, a, b in rows(*map(space, (got, x, y))):
        errors.append(truth.norm(a, truth.add(g, truth.log(a, b, mpf(1)), -1), mpf(1)))
    return worst(errors)


def transport(radius: float) -> float:
    """Error of the parallel transport of normal coordinates between separated points, float64."""
    m = Lorentz()
    x, y = (m.from_normal(z) for z in pairs(radius))
    z = normal(1.0, len(x))
    errors = []
    for got, a, b, v in rows(m.transport_frame(x, y, z), space(x), space(y), z):
        off = truth.add(got, truth.transport_frame(a, b, v, mpf(1)), -1)
        errors.append(float(truth.dot(off, off)) ** 0.5)
    return worst(errors)


def round_trip(dtype: torch.dtype, radius: float) -> float:
    """Relative error of to_normal(from_normal(z)) in units of eps radius, the condition of exp."""
    m, z = Lorentz(), normal(radius).to(dtype)
    back = m.to_normal(m.from_normal(z))
    return float(((back - z).norm(dim=-1) / z.norm(dim=-1)).max()) / (torch.finfo(dtype).eps * max(1.0, radius))


def centroid(radius: float) -> float:
    """Hyperbolic error of the centroid of 5 points within .5 of a centre, in units of eps cosh(rho)."""
    m, errors = Lorentz(), []
    for _ in range(8):
        centre = m.from_normal(normal(radius, 1))
        x = m.expmap_frame(centre, normal(0.5, 5))
        got = truth.exact(space(m.centroid(x)))
        want = truth.centroid([truth.exact(p) for p in space(x)], mpf(1))
        errors.append(truth.dist(got, want, mpf(1)))
    return worst(errors) / (torch.finfo(torch.float64).eps * math.cosh(radius))


# ---- membership and curvature ---------------------------------------------------------------------------------


def moved_by_projx(dtype: torch.dtype) -> float:
    """How many of the points next to the rim, all inside, `projx` moves."""
    m, eps = PoincareBall(), torch.finfo(dtype).eps
    gaps = eps * torch.arange(1, 200, dtype=dtype) / 2
    x = torch.zeros(len(gaps), DIMENSION, dtype=dtype)
    x[:, 0] = 1 - gaps
    return float((m.projx(x) != x).any(-1).sum())


def curvature_derivative() -> float:
    """Largest error of d/dK at K = 0 of distance, exp, log and gyroadd, against fourth-order central differences of
    step 1e-3."""
    x, y, u = (0.3 * normal(1.0) for _ in range(3))
    errors = []
    for f in (lambda m: m.dist(x, y), lambda m: m.expmap(x, u), lambda m: m.logmap(x, y), lambda m: m.gyroadd(x, y)):
        k = torch.zeros((), dtype=torch.float64)
        slope = torch.func.jvp(lambda t, f=f: f(Stereographic(t)), (k,), (torch.ones_like(k),))[1]
        h = 1e-3  # the truncation is 1e-12, the rounding 1e-13
        values = [f(Stereographic(torch.tensor(i * h, dtype=torch.float64))) for i in (-2, -1, 1, 2)]
        difference = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
        errors.append((slope - difference).abs().max())
    return worst(errors)


def lines() -> Iterable[tuple[str, float | None, Callable[[], float], Callable[[], float] | None]]:
    """name, bar, ours, geoopt's where it has the operation."""
    for dtype, short in ((torch.float64, "float64"), (torch.float32, "float32")):
        eps = torch.finfo(dtype).eps
        for c in (1.0, 0.3, 4.0):
            peer = (lambda d=dtype, e=eps: generic_distance(d, 1.0, True) / e) if c == 1 else None
            name = f"distance, radius 1e-8..40, K = {-c:g}, {short}, eps"
            yield name, 8, lambda d=dtype, e=eps, c=c: generic_distance(d, c) / e, peer
        for radius in (1.0, 4.0, 8.0, 12.0):
            yield (
                f"exp, radius {radius:g}, {short}, eps cosh(rho + 1)",
                4,
                lambda d=dtype, r=radius: exponential(d, r),
                lambda d=dtype, r=radius: exponential(d, r, True),
            )
            yield (
                f"gyro-sum, radius {radius:g}, {short}, eps cosh(rho + 1)",
                4,
                lambda d=dtype, r=radius: gyro_sum(d, r),
                None,
            )
        limit = 300.0 if dtype == torch.float64 else 40.0
        yield (
            f"normal coordinates there and back, radius {limit:g}, {short}, eps rho",
            4,
            lambda d=dtype, r=limit: round_trip(d, r),
            None,
        )
        radii = (
            (1e-6, 0.1, 1.0, 4.0, 8.0, 12.0, 17.0)
            if dtype == torch.float32
            else (1e-6, 0.1, 1.0, 8.0, 17.0, 30.0, 37.0)
        )
        yield (
            f"distance in the ball, radius to {radii[-1]:g}, {short}, eps",
            6,
            lambda d=dtype, r=radii, e=eps: ball_distance(d, r) / e,
            lambda d=dtype, r=radii, e=eps: ball_distance(d, r, True) / e,
        )
        yield f"points next to the rim moved by projx, {short}", 0, lambda d=dtype: moved_by_projx(d), None
    for radius, bar in ((8.0, 3e-13), (12.0, 2e-11)):
        yield (
            f"distance, 1e-3 apart, radius {radius:g}",
            bar,
            lambda r=radius: near_distance(r),
            lambda r=radius: near_distance(r, True),
        )
    for radius, bar in ((1.0, None), (8.0, 1e-12), (12.0, None)):
        yield (
            f"gradient of the distance, radius {radius:g}",
            bar,
            lambda r=radius: distance_gradient(r),
            lambda r=radius: distance_gradient(r, True),
        )
    for radius, bar in ((4.0, None), (8.0, None), (12.0, None), (18.0, None)):
        yield f"log, radius {radius:g}", bar, lambda r=radius: logarithm(r), lambda r=radius: logarithm(r, True)
    for radius in (0.1, 1.0, 8.0, 20.0, 40.0):
        yield f"transport of normal coordinates, radius {radius:g}", 1e-14, lambda r=radius: transport(r), None
    for radius in (5.0, 10.0, 20.0, 30.0):
        yield f"centroid, radius {radius:g}, eps cosh(rho)", None, lambda r=radius: centroid(r), None
    yield "Klein distance, radius 6", 1e-13, lambda: klein_distance(6.0), None
    yield "d/dK at K = 0", 1e-8, curvature_derivative, None


def main() -> None:
    """Print every line, write the JSON."""
    results = []
    for name, bar, ours, theirs in tqdm(list(lines()), leave=False):
        line = {"name": name, "bar": bar, "torchriemann": ours(), "geoopt": None if theirs is None else theirs()}
        results.append(line)
        shown = "" if line["geoopt"] is None else f"   geoopt {line['geoopt']:.2g}"
        tqdm.write(f"{name:70s} {line['torchriemann']:.2g}" + ("" if bar is None else f" (bar {bar:g})") + shown)
    publish("hyperbolic_accuracy", results)


if __name__ == "__main__":
    main()
