r"""The projected sphere of curvature K >= 0: all x in R^n, metric (2/om(x))^2 times the flat one, om(x) = 1 + K|x|^2.

The stereographic image of a sphere without one point, the antipode of the origin, which lies at infinity. In
``sin^2 = K|D|^2/(om(x) om(y))``, of half the angle between two points, D = y - x, nothing cancels, and neither does
``cos^2 = M/(om(x) om(y))``, M = 1 + 2K<x,y> + K^2|x|^2|y|^2, after mending near antipodes. At K = 0 the formulas are
those of flat space with lengths doubled, and their derivatives in K are right.

Arguments and results as in `poincare`; a point closer to infinity than rounding resolves is put at a finite distance.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .rows import dot, square
from .series import safe_norm, safe_sqrt
from .signed_trigonometry import (
    LARGEST_INVERSE,
    asin_ratio_k,
    atan_ratio_k,
    cos_k,
    sin_ratio_k,
    tan_ratio_k,
    turn,
    without_turns,
)
from .tracing import eager_without_derivative


def _finite(denominator: Tensor) -> Tensor:
    return denominator.clamp_min(torch.finfo(denominator.dtype).eps ** 2)


def projected_gap(x: Tensor, K: float | Tensor) -> Tensor:
    """om(x)."""
    return 1 + K * square(x)


def projected_inside(x: Tensor, K: float | Tensor) -> Tensor:
    """x itself: the chart is all of R^n."""
    return x.clone()


def antipodal_gap(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """M(x, y) = |x + K|x|^2 y|^2/|x|^2, which is zero where y is the antipode of x."""
    xx, product = square(x), 2 * K * dot(x, y)
    size = 1 + K * xx * K * square(y)
    opposed = -2 * product > size
    opening = torch.addcmul(x, K * xx, y)
    return torch.where(opposed, square(opening) / torch.where(opposed, xx, 1.0), size + product)


def projected_exp(x: Tensor, u: Tensor, K: float | Tensor) -> Tensor:
    """((cos(t) - 2K a) x + v)/(cos(t/2)^2 - 2K a + K|x|^2 sin(t/2)^2) with t = 2 sqrt(K) |u|/om(x), v = sin(t)/t u and
    a = <x,v>/om(x)."""
    if all(eager_without_derivative(a) for a in (x, u, K) if isinstance(a, Tensor)):
        return projected_exp_saving(x, u, K)[0]
    return _exp(x, u, K)[0]


class Arc(NamedTuple):
    """What `projected_exp` is made of; scalars with a trailing one."""

    om: Tensor
    cosine: Tensor  # cos(t)
    square_sine: Tensor  # sin(t/2)^2
    ratio: Tensor  # sin(t)/t
    inverse: Tensor  # 1/t
    twice_a: Tensor
    scale: Tensor  # one over the denominator


def projected_exp_saving(x: Tensor, u: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """`projected_exp`, and the `Arc`, without derivatives."""
    k_square = K * square(x)
    om = 1 + k_square
    cosine, sine, inverse = turn(u, K, 2 / om)
    # Of half the angle, the larger square and by the sine the smaller one.
    larger, back = 0.5 + 0.5 * cosine.abs(), cosine < 0
    smaller = sine.square() / (4 * larger)
    squares = torch.where(back, smaller, larger), torch.where(back, larger, smaller)
    found = cosine, sine * inverse, inverse.clamp_max(LARGEST_INVERSE), *squares
    cosine, ratio, inverse, square_cosine, square_sine = (a.to(x.dtype) for a in found)
    v = ratio * u
    twice_a = 2 * dot(x, v) / om
    mixed = K * twice_a
    scale = 1 / _finite(square_cosine - mixed + k_square * square_sine)
    y = torch.addcmul(v, cosine - mixed, x) * scale
    return y, om, cosine, square_sine, ratio, inverse, twice_a, scale


def _exp(x: Tensor, u: Tensor, K: float | Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    k_square = K * square(x)
    om = 1 + k_square
    u = without_turns(u, K, 2 / om)
    # The clamp is for K = 0, where the vector counts and its square does not.
    a, z = dot(x, u) / om, K * square(u).clamp(max=torch.finfo(u.dtype).max) / om.square()
    c, sigma = cos_k(4 * z, 1), sin_ratio_k(4 * z, 1)
    mixed = 2 * K * sigma * a
    scale = 1 / _finite(0.5 * (1 + c) - mixed + k_square * 0.5 * (1 - c))
    return torch.addcmul((c - mixed) * scale * x, sigma * scale, u), om, z, scale


def projected_exp_frame(x: Tensor, z: Tensor, K: float | Tensor) -> Tensor:
    """exp of the tangent vector om(x)/2 z."""
    return projected_exp(x, 0.5 * (1 + K * square(x)) * z, K)


def projected_gyroadd(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """(om(x) S - K|S|^2 x)/M(-x, y), S = x + y: infinite where y is the antipode of -x."""
    s, scale = x + y, 1 / _finite(antipodal_gap(-x, y, K))
    return torch.addcmul((1 + K * square(x)) * scale * s, -K * square(s) * scale, x)


def half_angle(x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """D, om(x), q = |D|^2/(om(x) om(y)), whether the points are more than a right angle apart, and then the half angle
    over sqrt(K)."""
    d, om_x, om_y = y - x, 1 + K * square(x), 1 + K * square(y)
    q = square(d) / (om_x * om_y)
    s = K * q
    far = s > 0.5
    safe = torch.where(far, s, 1.0)
    cosine = torch.where(far, antipodal_gap(x, y, K) / (om_x * om_y), 1.0)
    half = torch.atan2(safe.sqrt(), safe_sqrt(cosine)) * (torch.where(far, q, 1.0) / safe).sqrt()
    return d, om_x, q, far, half


def projected_dist(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """2/sqrt(K) times half the angle: by its sine, or beyond a right angle by sine and cosine."""
    return projected_dist_saving(x, y, K)[0]


def projected_dist_saving(x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """`projected_dist`, and what `half_angle` gives."""
    found = half_angle(x, y, K)
    _, _, q, far, half = found
    near = safe_sqrt(q) * asin_ratio_k(torch.where(far, 0.0, K * q), 1)
    return (2 * torch.where(far, half, near)).squeeze(-1), *found


def projected_dist2(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """The squared distance, smooth at coincident points."""
    _, _, q, far, half = half_angle(x, y, K)
    near = q * asin_ratio_k(torch.where(far, 0.0, K * q), 1).square()
    return (4 * torch.where(far, half.square(), near)).squeeze(-1)


def projected_log(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """om(x) times the half angle over sqrt(K), along `direction`; along the first axis at the exact antipode."""
    N, om_x, coefficient = _log(x, y, K)
    return om_x * coefficient * N


def projected_log_frame(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """Twice the logarithm over om(x)."""
    N, _, coefficient = _log(x, y, K)
    return 2 * coefficient * N


def _log(x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The direction N of the logarithm, om(x), and the logarithm over om(x) N."""
    d, om_x, q, far, half = half_angle(x, y, K)
    s = torch.where(far, 0.0, K * q)
    # Sine and cosine give |N| = om(x) om(y) sqrt(q (1 - s)).
    near = asin_ratio_k(s, 1) * (1 - s).rsqrt() / (om_x * (1 + K * square(y)))
    N = direction(x, y, d, om_x, far, K)
    length = safe_norm(N, keepdim=True)
    cut = far & (length == 0)
    axis = (torch.arange(x.shape[-1], device=x.device) == 0).to(N.dtype)
    N = torch.where(cut, axis, N)
    return N, om_x, torch.where(far, half / torch.where(far & ~cut, length, 1.0), near)


def direction(x: Tensor, y: Tensor, d: Tensor, om_x: Tensor, far: Tensor, K: float | Tensor) -> Tensor:
    """A multiple of N = om(x) D + K|D|^2 x = om(x) y - (1 + 2K<x,y> - K|y|^2) x: of the two, and of a third one in
    W = x + K|x|^2 y, which is short next to the antipode, the one in which nothing cancels."""
    xx, yy, product = square(x), square(y), 2 * K * dot(x, y)
    opposed = far & (-2 * product > 1 + K * xx * K * yy)
    w = torch.addcmul(x, K * xx, y)
    bent = (square(w) - 2 * om_x * dot(w, x)) / torch.where(opposed, xx, 1.0)
    along = torch.where(opposed, bent, torch.where(far, K * yy - product - 1, K * square(d)))
    return torch.addcmul(om_x * torch.where(opposed, w, torch.where(far, y, d)), along, x)


def projected_transport(x: Tensor, y: Tensor, v: Tensor, K: float | Tensor) -> Tensor:
    """The transport along the logarithm: an isometry as near to the antipode as one likes."""
    om_y = 1 + K * square(y)
    turned, om_x = _turned(x, projected_log(x, y, K), v, K)
    return om_y / om_x * turned


def projected_transport_frame(x: Tensor, y: Tensor, z: Tensor, K: float | Tensor) -> Tensor:
    """The same in frame coordinates: a rotation."""
    return _turned(x, projected_log(x, y, K), z, K)[0]


def projected_exp_transport(x: Tensor, u: Tensor, v: Tensor, K: float | Tensor) -> tuple[Tensor, Tensor]:
    """The exponential y of u, and v transported along that geodesic."""
    u = without_turns(u, K, 2 / projected_gap(x, K))
    y = projected_exp(x, u, K)
    turned, om = _turned(x, u, v, K)
    return y, (1 + K * square(y)) / om * turned


def _turned(x: Tensor, u: Tensor, v: Tensor, K: float | Tensor) -> tuple[Tensor, Tensor]:
    """gyr[x, w] v, where x (+) w is the exponential of u, in the sine and cosine of the way, and om(x)."""
    k_square = K * square(x)
    om = 1 + k_square
    a, uv, xv = dot(x, u) / om, dot(u, v) / om, dot(x, v)
    z = K * square(u).clamp(max=torch.finfo(u.dtype).max) / om.square()
    c, sigma, tau = cos_k(4 * z, 1), sin_ratio_k(4 * z, 1), sin_ratio_k(z, 1).square()
    scale = 2 * K / _finite(0.5 * (1 + c) - 2 * K * sigma * a + k_square * 0.5 * (1 - c))
    along_x = scale * (2 * K * tau * a * uv - sigma * uv - z * tau * xv)
    along_u = scale * (sigma * xv - k_square * tau * uv) / om
    return torch.addcmul(torch.addcmul(v, along_x, x), along_u, u), om


def projected_gyration(x: Tensor, y: Tensor, z: Tensor, K: float | Tensor) -> Tensor:
    """gyr[x, y] z of points: a rotation of z about the origin (Ungar 2008, doi 10.1142/6625)."""
    xx, yy, xy, xz, yz = square(x), square(y), dot(x, y), dot(x, z), dot(y, z)
    scale = 2 * K / _finite(antipodal_gap(-x, y, K))
    along_x = scale * (2 * K * xy * yz - yz - K * yy * xz)
    along_y = scale * (xz - K * xx * yz)
    return torch.addcmul(torch.addcmul(z, along_x, x), along_y, y)


def projected_from_normal(z: Tensor, K: float | Tensor) -> Tensor:
    """tan(r)/r z/2 with r = sqrt(K) |z|/2."""
    z = without_turns(z, K)
    return 0.5 * tan_ratio_k(K * square(z).clamp(max=torch.finfo(z.dtype).max) / 4, 1) * z


def projected_to_normal(x: Tensor, K: float | Tensor) -> Tensor:
    """2 atan(r)/r x with r = sqrt(K) |x|."""
    return 2 * atan_ratio_k(K * square(x), 1) * x
