"""Models of constant curvature: their points and distances by mpmath, from exact normal coordinates."""

import mpmath
import torch
from mpmath import mpf
from torch import Tensor

from torchriemann.manifolds import Klein, Lorentz, PoincareBall, ProjectedSphere, Sphere, Stereographic

HYPERBOLIC = (Lorentz, PoincareBall, Klein, Stereographic)
SPHERICAL = (Sphere, ProjectedSphere, Stereographic)
AMBIENT = (Lorentz, Sphere)  # one coordinate more than the dimension

mpmath.mp.dps = 60


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def directions(count: int, d: int, seed: int = 0) -> Tensor:
    z = torch.randn(count, d, dtype=torch.float64, generator=generator(seed))
    return z / z.norm(dim=-1, keepdim=True)


def cosine(K, r):
    """cos(sqrt(K) r), cosh for K < 0."""
    return mpmath.re(mpmath.cos(mpmath.sqrt(mpf(K)) * r))


def sine(K, r):
    """sin(sqrt(K) r)/sqrt(K), sinh for K < 0, r for K = 0."""
    root = mpmath.sqrt(mpf(K))
    return mpf(r) if K == 0 else mpmath.re(mpmath.sin(root * r) / root)


def arcsine(K, s):
    root = mpmath.sqrt(mpf(K))
    return mpf(s) if K == 0 else mpmath.re(mpmath.asin(root * s) / root)


def norm(z):
    return mpmath.sqrt(sum(a * a for a in z))


def exact(z: Tensor) -> list:
    return [[mpf(a) for a in row] for row in z.double().tolist()]


def coordinates(model: type, K: float, z: list) -> list:
    """The coordinates of the point with normal coordinates z (mpf) in a model."""
    r = norm(z)
    t, s = cosine(K, r), [sine(K, r) * a / r if r else mpf(0) for a in z]
    if model in AMBIENT:
        return [t / mpmath.sqrt(abs(mpf(K))), *s]
    return [a / t if model is Klein else a / (1 + t) for a in s]


def points(model: type, K: float, z: Tensor, dtype: torch.dtype) -> Tensor:
    """Those of all rows of z, rounded to `dtype`."""
    rows = [[float(a) for a in coordinates(model, K, row)] for row in exact(z)]
    return torch.tensor(rows, dtype=torch.float64).to(dtype)


def distance(K: float, z: list, w: list):
    """By the law of cosines in half angles, in 60 digits."""
    if K == 0:
        return norm([a - b for a, b in zip(z, w, strict=True)])
    a, b = norm(z), norm(w)
    gap = norm([x / a - y / b for x, y in zip(z, w, strict=True)]) ** 2 / 4  # sin^2 of half the angle
    return 2 * arcsine(K, mpmath.sqrt(sine(K, (a - b) / 2) ** 2 + sine(K, a) * sine(K, b) * gap))


def relative_error(value: Tensor, truth: list) -> float:
    return max(float(abs(mpf(v) - t) / abs(t)) for v, t in zip(value.double().tolist(), truth, strict=True))
