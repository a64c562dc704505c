r"""The sphere of curvature K > 0, of points as rows ``*B,n`` of length R = 1/sqrt(K).

What lies between two points is read off their sum M = x + y and from ``off``, the part of y - x across it: with o and m
the unit vectors along off and M, and l the part of y - x along m,

    2x = (|M| - l) m - |off| o,    2y = (|M| + l) m + |off| o.

So their angle is ``theta = atan2(|off|, |M| - l) + atan2(|off|, |M| + l)`` whatever their lengths are: the rounding of
|x| and |y|, which enters |y - x| by far more than the angle does when the points are close, and |M| when they are
nearly opposite, is all in l. Every formula depends on the directions of points alone, besides R.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .rows import dot, times
from .series import atan_ratio, safe_norm
from .signed_trigonometry import LARGEST_INVERSE, cos_k, sin_ratio_derivative_k, sin_ratio_k, turn, without_turns
from .tracing import eager_without_derivative


def radius(K: float | Tensor) -> float | Tensor:
    """R."""
    return K**-0.5


def is_fast(K: float | Tensor, *rows: Tensor) -> bool:
    """Whether forms without a derivative at zero will do."""
    return all(eager_without_derivative(a) for a in (*rows, K) if isinstance(a, Tensor))


# ---- the exponential --------------------------------------------------------------------------------------------


class Turn(NamedTuple):
    """The way along a vector u, of the angle t = sqrt(K) |u|; scalars with a trailing one."""

    cosine: Tensor
    ratio: Tensor  # sin(t)/t
    bend: Tensor  # (cosine - ratio)/t^2, twice the derivative of the ratio in t^2


def _turn(u: Tensor, K: float | Tensor, bend: bool = False) -> list[Tensor]:
    """The cosine and the ratio of a `Turn`, and the bend if that is wanted, without derivatives."""
    cosine, sine, inverse = turn(u, K)
    found = [cosine, sine * inverse]
    if bend:
        found.append((cosine - found[1]) * inverse.clamp_max(LARGEST_INVERSE).square())
    return [a.to(u.dtype) for a in found]


def sphere_exp(x: Tensor, u: Tensor, K: float | Tensor) -> Tensor:
    """``cos(t) x + sin(t)/t u`` with t = sqrt(K) |u|. ``*B,n; *B,n -> *B,n``."""
    if is_fast(K, x, u):
        cosine, ratio = _turn(u, K)
    else:
        u = without_turns(u, K)
        z = K * dot(u, u)
        cosine, ratio = cos_k(z, 1), sin_ratio_k(z, 1)
    return torch.addcmul(cosine * x, ratio, u)


def sphere_exp_saving(x: Tensor, u: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """`sphere_exp`, and the `Turn`, without derivatives."""
    found = Turn(*_turn(u, K, bend=True))
    if isinstance(K, Tensor):  # whose derivative asks for a bend that is right also where it does not count in u
        z = K * dot(u, u)
        found = found._replace(bend=torch.where(z < 1, 2 * sin_ratio_derivative_k(z.clamp_max(1), 1), found.bend))
    return torch.addcmul(found.cosine * x, found.ratio, u), *found


def sphere_exp_transport(x: Tensor, u: Tensor, v: Tensor, K: float | Tensor) -> tuple[Tensor, Tensor]:
    """`sphere_exp`, and v, which loses its part along u and regains it along the turned velocity:
    ``v + K <u,v> ((cos(t) - 1)/t^2 u - sin(t)/t x)``. ``*B,n; *B,n; *B,n -> *B,n; *B,n``."""
    u = without_turns(u, K)
    z = K * dot(u, u)
    along, ratio = K * dot(u, v), sin_ratio_k(z, 1)
    w = v - along * (0.5 * sin_ratio_k(z / 4, 1).square() * u + ratio * x)
    return torch.addcmul(cos_k(z, 1) * x, ratio, u), w


def sphere_translated(x: Tensor, z: Tensor, K: float | Tensor) -> Tensor:
    """[a; s] turned by t = sqrt(K) |z| in the plane of the first axis and ``[0; z]``: ``[cos(t) a - sqrt(K) h <z,s>;
    s + (sqrt(K) h a + (cos(t) - 1)/t^2 K <z,s>) z]``, h = sin(t)/t. ``*B,n; *B,n-1 -> *B,n``."""
    z = without_turns(z, K)
    first, others = x[..., :1], x[..., 1:]
    square, along = K * dot(z, z), K**0.5 * dot(z, others)
    ratio, half = sin_ratio_k(square, 1), sin_ratio_k(square / 4, 1)
    step = K**0.5 * (ratio * first - 0.5 * half.square() * along)
    return torch.cat([cos_k(square, 1) * first - ratio * along, torch.addcmul(others, step, z)], -1)


# ---- two points -------------------------------------------------------------------------------------------------


class Between(NamedTuple):
    """Two points as seen from the direction half-way; scalars with a trailing one."""

    total: Tensor  # rows x + y
    off: Tensor  # rows
    length: Tensor  # |x + y|
    across: Tensor  # |off|
    at_x: Tensor  # of 2x along x + y
    at_y: Tensor


def _least(x: Tensor, K: float | Tensor) -> float | Tensor:
    """A length that no sum of points has but that of a point and its antipode, and whose square is a number."""
    return torch.finfo(x.dtype).tiny ** 0.3 * radius(K.detach() if isinstance(K, Tensor) else K)


def _norm(rows: Tensor, fast: bool) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=-1, keepdim=True) if fast else safe_norm(rows, keepdim=True)


def _off(x: Tensor, y: Tensor, total: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """off, and the part of y - x along the sum."""
    chord = y - x
    along = dot(chord, total) / length
    return torch.addcmul(chord, along / length, total, value=-1), along


def between(x: Tensor, y: Tensor, K: float | Tensor) -> Between:
    """For distances: of a point and its antipode, the angle alone. |off| is relatively accurate however small it is."""
    fast = is_fast(K, x, y)
    total = x + y
    length = _norm(total, fast).clamp(min=_least(x, K))
    off, along = _off(x, y, total, length)
    if fast and x.dtype == torch.float32:  # whose squares are numbers of float64
        across = torch.linalg.vector_norm(off, dim=-1, keepdim=True, dtype=torch.float64).to(x.dtype)
    else:
        across = safe_norm(off, keepdim=True)
    return Between(total, off, length, across, length - along, length + along)


def angle(across: Tensor, at_x: Tensor, at_y: Tensor) -> Tensor:
    """theta."""
    return torch.atan2(across, at_x) + torch.atan2(across, at_y)


def _with_direction(x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor, Tensor]:
    """x + y and its length; of a point and its antipode, a short vector along the first coordinate axis, or the second
    if x is closer to the first than to being at right angles with it: through these two leads one great circle."""
    fast, total, least = is_fast(K, x, y), x + y, _least(x, K)
    cut = _norm(total.detach(), True) < least
    R = radius(K.detach() if isinstance(K, Tensor) else K)
    second = x[..., :1].detach().abs() > 0.7 * R
    axis = torch.arange(-1, x.shape[-1] - 1, device=x.device) == second.to(torch.int8) - 1
    # One launch, but of a mask torch forms the tangent in float64.
    moved = torch.add(total, cut & axis, alpha=least) if fast and not isinstance(least, Tensor) else None
    total = total + (cut & axis) * least if moved is None else moved
    return total, torch.linalg.vector_norm(total, dim=-1, keepdim=True) if fast else dot(total, total).sqrt()


class Way(NamedTuple):
    """The great circle from x to y; scalars with a trailing one."""

    tangent: Tensor  # rows, of length one; zero where the points coincide
    theta: Tensor
    length: Tensor  # |x + y|
    across: Tensor  # |off|
    at_x: Tensor  # of 2x along x + y
    at_y: Tensor
    at: Tensor  # 2 |x|


def way(x: Tensor, y: Tensor, K: float | Tensor) -> Way:
    """Without derivatives: those at coincident points are not there."""
    total, length = _with_direction(x, y, K)
    off, along = _off(x, y, total, length)
    size = torch.linalg.vector_norm(off, dim=-1, keepdim=True)
    across = size.clamp_min(torch.finfo(x.dtype).tiny ** 0.45)  # off over it is a number
    at_x, at_y = length - along, length + along
    at = torch.hypot(at_x, across)
    # As x is turned by a right angle: |off| m + (|M| - l) o.
    tangent = torch.addcmul(size / length / at * total, at_x / across / at, off)
    return Way(tangent, angle(across, at_x, at_y), length, across, at_x, at_y, at)


def trigonometry(a: Way) -> tuple[Tensor, Tensor, Tensor]:
    """2|y|, sin(theta) and cos(theta)."""
    y_length = torch.hypot(a.at_y, a.across)
    sine_x, sine_y = a.across / a.at, a.across / y_length
    cosine = torch.addcmul(a.at_x / a.at * (a.at_y / y_length), sine_x, sine_y, value=-1)
    return y_length, sine_x * (a.length + a.length) / y_length, cosine


# ---- distance, logarithm, transport ----------------------------------------------------------------------------------


def sphere_dist(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """R theta: a few eps of it at every angle, exactly zero at coincident points. ``*B,n; *B,n -> *B``."""
    return sphere_dist_saving(x, y, K)[0]


def sphere_dist_saving(x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """`sphere_dist`, and what is `Between` the points."""
    found = between(x, y, K)
    return times(angle(found.across, found.at_x, found.at_y), radius(K)).squeeze(-1), *found


def _smooth_angle(x: Tensor, y: Tensor, total: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q^2, theta/q with q = |off|/|M|, off and 1 - l/|M|, with all derivatives at coincident points."""
    off, along = _off(x, y, total, length)
    q2, lean = dot(off, off) / length / length, along / length
    cosine = (1 - lean) * (1 + lean) - q2
    small = q2 < 0.1  # tan(theta) = 2q/cosine
    half = 0.5 * torch.where(small, cosine, 2.0)
    near = atan_ratio(torch.where(small, q2, 0.0) / half.square()) / half
    q = torch.where(small, 1.0, q2).sqrt()
    return q2, torch.where(small, near, torch.atan2(2 * q, cosine) / q), off, 1 - lean


def sphere_dist2(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """R^2 theta^2, smooth at coincident points. ``*B,n; *B,n -> *B``."""
    if is_fast(K, x, y):
        return sphere_dist(x, y, K).square()
    total = x + y
    length = safe_norm(total, keepdim=True).clamp(min=_least(x, K))
    q2, ratio, _, _ = _smooth_angle(x, y, total, length)
    return (q2 * ratio.square() / K).squeeze(-1)


def sphere_dist2_saving(x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """`sphere_dist2`, and what is `Between` the points."""
    d, *found = sphere_dist_saving(x, y, K)
    return d.square(), *found


def sphere_log(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """The vector of length R theta along the great circle to y. ``*B,n; *B,n -> *B,n``.

    At the antipode it leads along the great circle through a coordinate axis: the first, or near that the second.
    """
    if is_fast(K, x, y):
        found = way(x, y, K)
        return times(found.theta, radius(K)) * found.tangent
    total, length = _with_direction(x, y, K)
    q2, ratio, off, at_x = _smooth_angle(x, y, total, length)
    scale = ratio * radius(K) / (length * (at_x.square() + q2).sqrt())
    return torch.addcmul(scale * q2 * total, scale * at_x, off)


def sphere_log_saving(x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """`sphere_log`, and the `Way`."""
    found = way(x, y, K)
    return times(found.theta, radius(K)) * found.tangent, *found


def sphere_transport(x: Tensor, y: Tensor, v: Tensor, K: float | Tensor) -> Tensor:
    """v loses its part along the way and regains it along the turned one:
    ``v + <tau,v> ((cos(theta) - 1) tau - sin(theta) x/|x|)``, tau the unit tangent. ``*B,n; *B,n; *B,n -> *B,n``."""
    if is_fast(K, x, y, v):
        return sphere_transport_saving(x, y, v, K)[0]
    total, length = _with_direction(x, y, K)
    q2, _, off, at_x = _smooth_angle(x, y, total, length)
    at_y = 2 - at_x
    roots = (at_x.square() + q2).sqrt(), (at_y.square() + q2).sqrt()
    cosine, sine = (at_x * at_y - q2) / (roots[0] * roots[1]), 2 / (roots[0] * roots[1])  # the sine over q
    # q tau, and (cos(theta) - 1)/q^2, by the sine where that cancels.
    tangent = torch.addcmul(q2 * total, at_x, off) / (length * roots[0])
    back = cosine < 0
    far = (cosine - 1) / torch.where(back, q2, 1.0)
    bend = torch.where(back, far, -sine.square() / (1 + torch.where(back, 0.0, cosine)))
    along = dot(tangent, v)
    return v + along * (bend * tangent - sine * 2 / (length * roots[0]) * x)


def sphere_transport_saving(x: Tensor, y: Tensor, v: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """`sphere_transport`, and the `Way`."""
    found = way(x, y, K)
    _, sine, cosine = trigonometry(found)
    along = dot(found.tangent, v)
    moved = torch.addcmul(v, along * (cosine - 1), found.tangent)
    return torch.addcmul(moved, along * sine / found.at, x, value=-2), *found
