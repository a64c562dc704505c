r"""Hyperbolic space in Lorentz coordinates, from the space parts alone.

A point is a row ``(t, s)`` of n + 1 entries with ``t^2 = R^2 + |s|^2``, R^2 = -1/K for the curvature K < 0 (a number or
a 0-dim tensor). No formula reads t: it is derived from s, because ``t^2 - |s|^2`` keeps no digit of R^2 at large radius
(Mishne, Wan, Wang and Yang 2022, arXiv 2211.00181). Tangent vectors ``(u_t, u_s)`` likewise have ``u_t = <s, u_s>/t``.

Everything follows from the *separation* of two points, ``S = sinh^2(sqrt(-K) d/2)``, as a sum of squares, and from row
scalars: full-size passes are few, and every result is a combination of its arguments' rows. All formulas are smooth,
coincident points and the origin included, except the distance itself at coincidence, where its gradient is zero.

Scales. Inside a formula times are in units of R, ``t/R = sqrt(1 - K|s|^2)``, and what is small by one power of K or of
exp(-r) meets what is large by another before either is multiplied by a third: squares of coordinates are formed, no
higher powers, and no power of 1/K but in results that have it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .lorentz_values import (
    dist_and_saved,
    exp_and_saved,
    log_and_saved,
    radius,
    space,
    without_graph,
)
from .rows import dot, square
from .series import polynomial, safe_norm, safe_sqrt
from .signed_trigonometry import sin_ratio_k
from .tracing import eager_without_derivative


def over_radius(square: Tensor, K: float | Tensor) -> Tensor:
    """t/R = cosh of the distance from the origin over R, of points with the square |s|^2."""
    if isinstance(K, Tensor):
        return (1 - K * square).sqrt()
    return torch.rsub(square, 1.0, alpha=K).sqrt()  # one launch


def time_of(s: Tensor, K: float | Tensor) -> Tensor:
    """t = sqrt(R^2 + |s|^2), with a trailing one."""
    if isinstance(K, Tensor) and not eager_without_derivative(K):
        return (square(s) + radius(K) ** 2).sqrt()
    return (square(s) - 1 / K).sqrt()


def time_at_length(s: Tensor, K: float | Tensor) -> Tensor:
    """`time_of` where squares may overflow, as they do from radius 44 (float32) and 354 (float64) on."""
    overflow = square(s.detach()).isinf()
    near = time_of(torch.where(overflow, 1.0, s), K)
    return torch.where(overflow, safe_norm(torch.where(overflow, s, 1.0), keepdim=True), near)


def cosine_at_length(s: Tensor, K: float | Tensor) -> Tensor:
    """t/R at any length that is a number."""
    overflow = (K * square(s.detach())).isinf()
    near = over_radius(square(torch.where(overflow, 0.0, s)), K)
    return torch.where(overflow, safe_norm(torch.where(overflow, s, 1.0), keepdim=True) * (-K) ** 0.5, near)


def point_from_space(s: Tensor, K: float | Tensor) -> Tensor:
    """The point with the space part `s`. ``*B,n -> *B,n+1``."""
    return torch.cat([time_of(s, K), s], -1)


def vector_from_space(s: Tensor, u: Tensor, K: float | Tensor) -> Tensor:
    """The tangent vector with the space part `u` at the point with the space part `s`. ``*B,n -> *B,n+1``."""
    time = dot(s, u) / time_of(s, K)
    return torch.cat([time, u.expand(*time.shape[:-1], u.shape[-1])], -1)


def overwritable(K: float | Tensor, *rows: Tensor) -> bool:
    """Whether a formula may overwrite its temporaries: all `rows` have one shape, and nobody differentiates
    or compiles.

    It then computes with full rows, which need no copy of the space parts, and sets the time at the end. Where somebody
    differentiates that would not do: the stored time may be infinite, and a gradient of zero times it is NaN.
    """
    if isinstance(K, Tensor) and not eager_without_derivative(K):
        return False
    return all(r.shape == rows[0].shape and eager_without_derivative(r) for r in rows)


def joined(time: Tensor, rows: Tensor, in_place: bool) -> Tensor:
    """Full rows with this time: of `rows` that are full if `in_place`, of space parts if not."""
    if not in_place:
        return torch.cat([time, rows], -1)
    rows[..., :1] = time
    return rows


def space_of(rows: Tensor, full: bool) -> Tensor:
    """The space parts of rows that are `full`, or that are space parts already."""
    return space(rows) if full else rows


class Separation(NamedTuple):
    """Two points as seen from x. All but the rows, of space parts, are scalars with a trailing one."""

    alike: Tensor  # one where the radii differ by less than a factor of two, else zero
    difference: Tensor  # y - alike x
    perpendicular: Tensor  # q = y_s - t_y/t_x x_s
    tx: Tensor  # over R, as all times
    ty: Tensor
    time_difference: Tensor  # t_y - t_x
    angular: Tensor  # the part of R^2 S that the directions make; the rest is that of the times
    chord2: Tensor  # R^2 S: next to zero a quarter of d^2, whatever K is
    S: Tensor  # sinh^2(sqrt(-K) d/2)


def separation(xs: Tensor, ys: Tensor, K: float | Tensor) -> Separation:
    r"""``S = -K/4 (t_x/t_y) |q|^2 + (t_y - t_x)^2/(4 t_x t_y)`` with ``q = y_s - t_y/t_x x_s``, of space parts.

    Both terms are positive. Of points at like radii, q and t_y - t_x are made of the difference of the coordinates,
    so that the error of S is that of the rounded coordinates; of others the difference would lose those of the
    lower one.
    """
    xx, yy = square(xs), square(ys)
    tx, ty = over_radius(xx, K), over_radius(yy, K)
    alike = (tx < 2 * ty) & (ty < 2 * tx)
    one = alike.to(xs.dtype)
    difference = torch.addcmul(ys, xs, -one)
    # To a compiler without the radii, so that one loop makes all sums of products.
    chord = ys - xs if torch.compiler.is_compiling() else difference
    dt_R2 = torch.where(alike, square(chord) + 2 * dot(chord, xs), yy - xx) / (tx + ty)  # R^2 (t_y - t_x)
    dt = -K * dt_R2
    q = torch.addcmul(difference, xs, torch.where(alike, -dt / tx, -ty / tx))
    angular = 0.25 * (tx / ty) * square(q)
    chord2 = angular + dt_R2 * (dt / (4 * tx * ty))
    return Separation(one, difference, q, tx, ty, dt, angular, chord2, -K * chord2)


# Below z = 1/4 the next term is below the rounding of one.
_COSH_SWITCH = 0.25
_COSH = tuple(1 / math.factorial(2 * k) for k in range(9))
_SINH = tuple(1 / math.factorial(2 * k + 1) for k in range(8))


def cosh_and_ratio(z: Tensor) -> tuple[Tensor, Tensor]:
    """cosh(r) and sinh(r)/r for z = r^2 >= 0, from one exponential."""
    small = z < _COSH_SWITCH
    r = torch.where(small, 1.0, z).sqrt()
    e = r.exp()
    f = 1 / e
    terms = 9 if z.dtype == torch.float64 else 5
    near = torch.where(small, z, 0.0)
    cosh = torch.where(small, polynomial(_COSH[:terms], near), 0.5 * (e + f))
    return cosh, torch.where(small, polynomial(_SINH[:terms], near), 0.5 * (e - f) / r)


def sinh_quotient(t: Tensor, z: Tensor) -> Tensor:
    """sinh(t r)/sinh(r) for z = r^2 >= 0: smooth in both, and without overflow for t between -1 and 1."""
    w, short = t.square() * z, z < 1.0
    r = torch.where(short, 1.0, z).sqrt()
    # |t| and the sign of t are smooth only away from t = 0.
    slow = short | (w < 1.0)
    far = torch.where(slow, 1.0, t)
    size = far.abs() * r
    quotient = far.sign() * torch.exp(size - r) * torch.expm1(-2 * size) / torch.expm1(-2 * r)
    ratio = torch.where(
        short, 1 / sin_ratio_k(torch.where(short, -z, 0.0), -1), -2 * r * torch.exp(-r) / torch.expm1(-2 * r)
    )
    return torch.where(slow, t * sin_ratio_k(torch.where(slow, -w, 0.0), -1) * ratio, quotient)


def half_length(S: Tensor) -> Tensor:
    """asinh(sqrt S), half of sqrt(-K) d; ten times as fast as torch's asinh. Its gradient is zero at zero."""
    return torch.log1p(safe_sqrt(S) + S / (1 + (1 + S).sqrt()))


# Of the functions of S below.
_SWITCH = 0.1

# r/sinh(r) = sum a_k S^k, a_(k+1)/a_k = -(2k + 2)/(2k + 3): below S = 0.1 the next term is below the rounding of one,
# and of the second derivative.
_RATIO = tuple((-1) ** n * math.prod((2 * k + 2) / (2 * k + 3) for k in range(n)) for n in range(20))

# asinh(r)/r = sum b_k S^k, with r^2 = S: below S = 0.1 as above.
_ASINH = tuple((-0.25) ** k * math.comb(2 * k, k) / (2 * k + 1) for k in range(20))


def log_ratios(S: Tensor) -> tuple[Tensor, Tensor]:
    """f = r/sinh(r) and ``2 S f = r tanh(r/2)`` as functions of S = sinh^2(r/2).

    The derivative of f is smaller than the square of what f is multiplied with is large: neither is a number from
    r = 60 (float32) on. So the second one has a derivative of its own.
    """
    small = S < _SWITCH
    far, near = torch.where(small, 1.0, S), torch.where(small, S, 0.0)
    series = polynomial(_RATIO[: 20 if S.dtype == torch.float64 else 9], near)
    half, root, cosh = half_length(far), far.sqrt(), (1 + far).sqrt()
    f = torch.where(small, series, half / (root * cosh))
    if eager_without_derivative(S):
        return f, 2 * S * f
    return f, 2 * torch.where(small, near * series, half * (root / cosh))


def with_known_part(z: Tensor, s: Tensor, known: Tensor, t: Tensor, K: float | Tensor) -> Tensor:
    """z with ``<s, z> = known R t``, t over R: where z is a difference of rows much longer than itself, the rounding
    along s is seen cosh of the radius larger than across. A constant shift, since `known` is what <s, z> is. Where that
    product overflows, z is longer than what it is made of, and there is nothing to mend."""
    shift = (known + K * dot(s, z) / t) / t
    return torch.addcmul(z, s, shift.detach().nan_to_num(0.0, 0.0, 0.0))


# ---- distance, exponential, logarithm, transport ----------------------------------------------------------------


def _separation_only(x: Tensor, y: Tensor, K: float | Tensor) -> Separation:
    """The scalars of two points."""
    if torch.compiler.is_compiling():
        # A slice becomes a padded copy in the compiled backward pass, a product with zeros and ones nothing.
        space_mask = torch.cat([x.new_zeros(1), x.new_ones(x.shape[-1] - 1)])
        return separation(x * space_mask, y * space_mask, K)
    return separation(space(x), space(y), K)


def _near_and_far(a: Separation, K: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where points are close, asinh(sqrt S)/sqrt S there, and d elsewhere. Next to zero d has to come from R^2 S:
    of R and S apart, the derivatives in K cancel."""
    small = a.S < _SWITCH
    ratio = polynomial(_ASINH[: 20 if a.S.dtype == torch.float64 else 9], torch.where(small, a.S, 0.0))
    return small, ratio, 2 * radius(K) * half_length(torch.where(small, 1.0, a.S))


def lorentz_dist(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """Geodesic distance ``2R asinh(sqrt S)``. ``*B,n+1 -> *B``."""
    if without_graph(K, x, y):
        return dist_and_saved(x, y, K)[0]
    a = _separation_only(x, y, K)
    if not isinstance(K, Tensor) or eager_without_derivative(K):
        return (half_length(a.S) * (2 * radius(K))).squeeze(-1)
    small, ratio, far = _near_and_far(a, K)
    return torch.where(small, 2 * safe_sqrt(a.chord2) * ratio, far).squeeze(-1)


def lorentz_dist2(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """Squared geodesic distance, smooth at coincidence. ``*B,n+1 -> *B``."""
    if without_graph(K, x, y):
        return dist_and_saved(x, y, K)[0].square()
    a = _separation_only(x, y, K)
    small, ratio, far = _near_and_far(a, K)
    return torch.where(small, 4 * a.chord2 * ratio.square(), far.square()).squeeze(-1)


def metric_parts(s: Tensor, u: Tensor, K: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """t/R, nu = R^2 <s, u>/t^2 and p = u + K nu s: products of tangent vectors are ``<p, p'> - K nu nu'``.

    The difference ``|u|^2 - u_t^2`` would lose cosh^2 of the radius.
    """
    t = over_radius(square(s), K)
    nu = dot(s / t, u) / t  # in this order, since a long vector far out would overflow
    return t, nu, torch.addcmul(u, s, K * nu)


def lorentz_exp(x: Tensor, u: Tensor, K: float | Tensor) -> Tensor:
    """The exponential ``cosh(r) x + sinh(r)/r u`` with r = sqrt(-K) |u|. ``*B,n+1; *B,n+1 -> *B,n+1``."""
    if without_graph(K, x, u):
        return exp_and_saved(x, u, K)[0]
    s = space(x)
    sigma = K * (dot(s, space(u)) / (1 - K * square(s)))
    p = torch.addcmul(space(u), s, sigma)
    if torch.compiler.is_compiling():
        # Inductor makes one loop over the rows of all this if no row scalar needs a loop of its own that it would
        # rather vectorise: the sum ends in a reduction, and the exponential reads a number from within a row.
        z = (sigma.square() / s.shape[-1] - K * p.square()).sum(-1, keepdim=True)
        cosh, ratio = cosh_and_ratio(torch.where(s[..., :1].isnan(), torch.nan, z))
        y = cosh * s + ratio * space(u)
        return point_from_space(y, K)
    cosh, ratio = cosh_and_ratio(sigma.square() - K * square(p))
    return point_from_space(torch.addcmul(ratio * p, s, cosh - ratio * sigma), K)


def lorentz_log(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """The logarithm ``r/sinh(r) (y - x - 2S x)``, r = sqrt(-K) d. ``*B,n+1; *B,n+1 -> *B,n+1``."""
    if without_graph(K, x, y):
        return log_and_saved(x, y, K)[0]
    a = separation(space(x), space(y), K)
    f, m = log_ratios(a.S)
    u = torch.addcmul(f * a.difference, space(x), f * (a.alike - 1) - m)
    return torch.cat([radius(K) * (f * a.time_difference - m * a.tx), u], -1)


def lorentz_transport(x: Tensor, y: Tensor, v: Tensor, K: float | Tensor) -> Tensor:
    """Levi-Civita transport along the geodesic from x to y: ``v - K <y, v>/(2 + 2S) (x + y)``, Minkowski product.

    ``*B,n+1; *B,n+1; *B,n+1 -> *B,n+1``.
    """
    in_place = overwritable(K, x, y, v)
    row = x if in_place else space(x)
    tx, ty = over_radius(square(space(x)), K), over_radius(square(space(y)), K)
    ratio = ty / tx
    q = torch.addcmul(y if in_place else space(y), row, -ratio)
    # 1 + S needs no relative accuracy of S.
    S = -0.25 * K / ratio * square(space_of(q, in_place)) + (ty - tx) * ((ty - tx) / (4 * tx * ty))
    nu = dot(space(x), space(v)) / tx.square()
    sigma = -K * nu
    p = torch.addcmul(v if in_place else space(v), row, -sigma)
    # <y, v> = <q, p> + sigma <q, x>, the last product as it is known: both rows are rounded along x by cosh(radius).
    product = dot(space_of(q, in_place), space_of(p, in_place)) + nu * (ratio - 1 - 2 * S)
    c = -0.5 * K * product / (1 + S)
    step = Tensor.addcmul_ if in_place else torch.addcmul
    w = step(step(p, q, c), row, sigma + c * (1 + ratio))
    return joined(radius(K) * (sigma * tx + c * (tx + ty)), w, in_place)
