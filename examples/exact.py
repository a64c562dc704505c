"""Hyperbolic geometry in 80 decimal digits, by the textbook formulas: the truth that floating point is held against.

Arrays hold numbers of mpmath. A point of curvature -1 is a row (time, space) of the hyperboloid, a tangent vector at it
a row orthogonal to it; with so many digits the cancellations of these formulas do no harm to radius 40. Coordinates of
the other models are carried over exactly, so that an error is an error of what was computed from the numbers given.
"""

import mpmath
import numpy as np
import torch
from torch import Tensor

CONTEXT = mpmath.mp.clone()
CONTEXT.dps = 80
_number = np.frompyfunc(CONTEXT.mpf, 1, 1)
_sqrt, _cosh, _sinh, _acosh = (
    np.frompyfunc(getattr(CONTEXT, name), 1, 1) for name in ("sqrt", "cosh", "sinh", "acosh")
)


def exactly(x: Tensor) -> np.ndarray:
    """The numbers of a tensor."""
    return _number(x.double().numpy())


def rounded(a: np.ndarray, dtype: torch.dtype) -> Tensor:
    """The nearest tensor."""
    return torch.from_numpy(a.astype(np.float64)).to(dtype)


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean, over the last dimension, which stays."""
    return (a * b).sum(-1, keepdims=True)


def inner(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Minkowski's."""
    return dot(a[..., 1:], b[..., 1:]) - a[..., :1] * b[..., :1]


def point(s: np.ndarray) -> np.ndarray:
    """The point with this space part."""
    return np.concatenate([_sqrt(1 + dot(s, s)), s], -1)


def polar(radius: float, direction: Tensor) -> np.ndarray:
    """Points at a distance from the origin; `direction` need not be a unit vector."""
    d = exactly(direction)
    return point(CONTEXT.sinh(radius) * d / _sqrt(dot(d, d)))


def tangent(x: np.ndarray, direction: Tensor, length: float) -> np.ndarray:
    """Tangent vectors of a length, transported along the ray from the origin to `x`: isotropic if `direction` is."""
    d = exactly(direction)
    d = CONTEXT.mpf(length) * d / _sqrt(dot(d, d))
    along = dot(x[..., 1:], d)
    return np.concatenate([along, d + x[..., 1:] * along / (1 + x[..., :1])], -1)


def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Geodesic distance."""
    cosh = -inner(x, y)
    return _acosh(np.where(cosh < 1, _number(1), cosh))[..., 0]


def length(u: np.ndarray) -> np.ndarray:
    """Of tangent vectors; the last dimension stays."""
    square = inner(u, u)
    return _sqrt(np.where(square < 0, _number(0), square))


def exponential(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Along the geodesic."""
    r = length(u)
    return _cosh(r) * x + _sinh(r) / r * u


def logarithm(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Inverse of `exponential`."""
    u = y + inner(x, y) * x
    return distance(x, y)[..., None] / length(u) * u


def transport(x: np.ndarray, y: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Parallel, along the geodesic from x to y."""
    return v + inner(y, v) / (1 - inner(x, y)) * (x + y)


# ---- models: rows of the hyperboloid <-> coordinates -------------------------------------------------------------


class Hyperboloid:
    """The rows themselves; time entries are not read, which spares a peer the blame for those that it is given."""

    @staticmethod
    def point(c):
        return point(c[..., 1:])

    @staticmethod
    def tangent(x, c):
        return np.concatenate([dot(x[..., 1:], c[..., 1:]) / x[..., :1], c[..., 1:]], -1)

    @staticmethod
    def coordinates(x):
        return x

    @staticmethod
    def components(x, u):
        return u


class Ball:
    """Poincare's ball, p = s/(1 + t)."""

    @staticmethod
    def point(c):
        return point(2 * c / (1 - dot(c, c)))

    @staticmethod
    def tangent(x, c):
        p, gap = Ball.coordinates(x), 2 / (1 + x[..., :1])  # 1 - |p|^2
        along = 4 * dot(p, c) / gap**2
        return np.concatenate([along, 2 * c / gap + p * along], -1)

    @staticmethod
    def coordinates(x):
        return x[..., 1:] / (1 + x[..., :1])

    @staticmethod
    def components(x, u):
        return (u[..., 1:] - Ball.coordinates(x) * u[..., :1]) / (1 + x[..., :1])


class KleinBall:
    """Klein's ball, k = s/t."""

    @staticmethod
    def point(c):
        return point(c / _sqrt(1 - dot(c, c)))

    @staticmethod
    def tangent(x, c):
        t, k = x[..., :1], KleinBall.coordinates(x)
        along = t**3 * dot(k, c)
        return np.concatenate([along, t * c + k * along], -1)

    @staticmethod
    def coordinates(x):
        return x[..., 1:] / x[..., :1]

    @staticmethod
    def components(x, u):
        return (u[..., 1:] - KleinBall.coordinates(x) * u[..., :1]) / x[..., :1]


def inside(model, c: Tensor) -> Tensor:
    """Which coordinates are those of a point: finite, and within the ball."""
    within = torch.from_numpy((dot(exactly(c.nan_to_num()), exactly(c.nan_to_num())) < 1)[..., 0].astype(bool))
    return c.isfinite().all(-1) & (within | (model is Hyperboloid))
