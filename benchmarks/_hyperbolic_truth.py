"""The hyperboloid, the ball and the Klein model of K < 0 in exact arithmetic (mpmath), from the stored numbers.

A point is the list of its space coordinates, a hyperboloid's time is derived. Vectors are space parts too.
"""

from __future__ import annotations

from collections.abc import Sequence

import mpmath
from mpmath import mpf
from torch import Tensor

mpmath.mp.dps = 120  # cancellation at radius 40 costs 35 digits twice

Vector = list  # of mpf


def exact(x: Tensor) -> Vector:
    """The stored numbers, as they are."""
    return [mpf(v) for v in x.double().tolist()]


def dot(a: Sequence, b: Sequence):
    """The sum of products."""
    return mpmath.fsum(p * q for p, q in zip(a, b, strict=True))


def add(a: Sequence, b: Sequence, scale=1) -> Vector:
    """a + scale b."""
    return [p + scale * q for p, q in zip(a, b, strict=True)]


def time(s: Sequence, c):
    """The time coordinate, cosh of the radius over sqrt c."""
    return mpmath.sqrt(1 / c + dot(s, s))


def dist(x: Sequence, y: Sequence, c):
    """The distance of two space parts."""
    return mpmath.acosh(max(mpf(1), c * (time(x, c) * time(y, c) - dot(x, y)))) / mpmath.sqrt(c)


def norm(x: Sequence, u: Sequence, c):
    """The length of the tangent vector with space part u."""
    return mpmath.sqrt(abs(dot(u, u) - (dot(x, u) / time(x, c)) ** 2))


def exp(x: Sequence, u: Sequence, c) -> Vector:
    """cosh(r) x + sinh(r)/r u."""
    r = mpmath.sqrt(c) * norm(x, u, c)
    return add([mpmath.cosh(r) * a for a in x], u, mpmath.sinh(r) / r if r else 1)


def log(x: Sequence, y: Sequence, c) -> Vector:
    """d/sinh(d) (y - cosh(d) x)."""
    r = mpmath.sqrt(c) * dist(x, y, c)
    return [r / mpmath.sinh(r) * v for v in add(y, x, -mpmath.cosh(r))]


def gyroadd(x: Sequence, y: Sequence, c) -> Vector:
    """The boost that sends the origin to x, applied to y."""
    q = mpmath.sqrt(c)
    return add(y, x, q * (time(y, c) + q * dot(x, y) / (1 + q * time(x, c))))


def negative(x: Sequence) -> Vector:
    """Minus x."""
    return [-v for v in x]


def transport_frame(x: Sequence, y: Sequence, z: Sequence, c) -> Vector:
    """Parallel transport along the geodesic in frame coordinates, by the ambient formula between the two boosts."""
    q, tx, ty = mpmath.sqrt(c), time(x, c), time(y, c)
    v, vt = add(z, x, c * dot(x, z) / (1 + q * tx)), q * dot(x, z)
    along = c * (dot(y, v) - ty * vt) / (1 + c * (tx * ty - dot(x, y)))
    w = add(v, add(x, y), along)
    return add(w, y, -c * dot(y, w) / (q * ty * (1 + q * ty)))


def dist_gradient(x: Sequence, y: Sequence, c) -> Vector:
    """The derivative of the distance in the space part of x."""
    tx, ty = time(x, c), time(y, c)
    sinh = mpmath.sinh(mpmath.sqrt(c) * dist(x, y, c))
    return [mpmath.sqrt(c) * (ty / tx * a - b) / sinh for a, b in zip(x, y, strict=True)]


def centroid(points: Sequence[Sequence], c) -> Vector:
    """The weighted sum, brought back to the hyperboloid; equal weights."""
    total = [mpmath.fsum(column) for column in zip(*points, strict=True)]
    t = mpmath.fsum(time(p, c) for p in points)
    scale = mpmath.sqrt(c * (t * t - dot(total, total)))
    return [v / scale for v in total]


def space_of_ball(p: Sequence, c) -> Vector:
    """The hyperboloid's space part of a point of the ball."""
    return [2 * v / (1 - c * dot(p, p)) for v in p]


def space_of_klein(p: Sequence, c) -> Vector:
    """The hyperboloid's space part of a point of the Klein model."""
    return [v / mpmath.sqrt(1 - c * dot(p, p)) for v in p]
