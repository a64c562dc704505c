r"""The Poincare ball of curvature K < 0: points x with -K|x|^2 < 1, metric (2/om(x))^2 times the flat one.

``om(x) = 1 + K|x|^2`` is the conformal gap. Near the rim it is what tells how far out a point is, and it is never
formed as a difference but once (`conformal_gap`): that of a sum follows from those of its terms,
``om(x (+) y) = om(x) om(y)/(om(x) om(y) - K|x + y|^2)``. Moebius addition in the same form is
``x (+) y = (om(x) S - K|S|^2 x)/(om(x) om(y) - K|S|^2)`` with S = x + y, sums of numbers of one sign (Ungar 2008, doi
10.1142/6625, has the rational form that this is equal to).

`K` is a negative number or 0-dim tensor; points and vectors are ``*B,n``, distances ``*B``. Derivatives of all orders
exist everywhere, those of the distance at coincident points being zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import poincare_values as values
from .compensated import conformal_gap
from .lorentz_values import without_graph
from .rows import dot, square
from .series import safe_sqrt
from .signed_trigonometry import asin_ratio_k, sech_square_k, tan_ratio_k
from .tracing import eager_without_derivative


def rim_gap(x: Tensor, K: float | Tensor) -> Tensor:
    """The conformal gap of a point, NaN outside the ball: there is no metric."""
    gap = conformal_gap(x, K, -1)
    return torch.where(gap <= 0, torch.nan, gap)


def poincare_inside(x: Tensor, K: float | Tensor, margin: float = 0.0) -> Tensor:
    """`x` itself if |x| < (1 - margin)/sqrt(-K), elsewhere the point in its direction there, but at least by twice the
    eps of the dtype inside of the rim, which is what the rounding of that point may take; NaN stays NaN."""
    largest = x.detach().abs().amax(-1, keepdim=True)
    # Of numbers whose squares overflow the gap is not known; of others it is exact, and this product is not.
    outside = (conformal_gap(x, K, -1) <= margin * (2 - margin)) | (K * largest.square() <= -2)
    limit = torch.finfo(x.dtype).max  # of infinite entries: then the others are as good as zero
    unit = torch.where(outside, x.clamp(-limit, limit) / torch.where(outside, largest.clamp(max=limit), 1.0), 0.0)
    length2 = torch.where(outside, -K * (unit * unit).sum(-1, keepdim=True), 1.0)
    inside = 1 - max(margin, 2 * torch.finfo(x.dtype).eps)
    return torch.where(outside, inside * length2.rsqrt() * unit, x)


def _rim_factor(y: Tensor, K: float | Tensor) -> Tensor:
    """One, or where rounding put `y` on the rim or beyond, what draws it to the largest representable radius."""
    fixed = K.detach() if isinstance(K, Tensor) else K
    gap = conformal_gap(y.detach(), fixed, -1)
    outside = gap <= 0  # in this sense NaN stays NaN
    # |y| sqrt(-K) = sqrt(1 - gap), one and what rounding adds to it. Such a factor has no derivative to speak of.
    shrunk = (1 - 2 * torch.finfo(y.dtype).eps) * torch.where(outside, 1 - gap, 1.0).rsqrt()
    return torch.where(outside, shrunk, 1.0)


def into_ball(y: Tensor, K: float | Tensor) -> Tensor:
    """`y`, drawn to the largest representable radius where rounding put it on the rim or beyond."""
    return y * _rim_factor(y, K)


def _translated(x: Tensor, om: Tensor, beta: Tensor, u: Tensor, g: Tensor, K: float | Tensor) -> Tensor:
    """x (+) w for w = beta u with gap g."""
    s = torch.addcmul(x, beta, u)
    k_square = K * square(s)
    scale = 1 / (om * g - k_square)
    y = torch.addcmul(om * scale * s, -k_square * scale, x)
    return y.mul_(_rim_factor(y, K))  # in place: one tensor less of its size


# Over sqrt(-K), a length behind which every geodesic is on the rim: tanh is one from 20 on, in both dtypes.
_LONG = 2.0**20


def shortening(u: Tensor, om: float | Tensor, K: float | Tensor, longest: float = _LONG) -> tuple[Tensor, Tensor]:
    """A factor of u, and the square of u times that. It is one, or where |u| sqrt(-K)/om is above `longest` what makes
    u about as long as that: it leads to the same point on the rim, and its square is a number. A constant: that far
    out no length counts."""
    om, K = (a.detach() if isinstance(a, Tensor) else a for a in (om, K))
    if isinstance(K, Tensor):
        K = torch.where(K == 0, -1.0, K)  # of a branch that is not taken
    limit = longest * om / (-K) ** 0.5
    if u.dtype == torch.float32 and eager_without_derivative(u):
        # One pass, and a number where the length is none in float32.
        length = torch.linalg.vector_norm(u, dim=-1, keepdim=True, dtype=torch.float64)
        factor = (limit / length).clamp(max=1)
        return factor.to(u.dtype), (factor * length).square().to(u.dtype)
    factor = (limit / torch.linalg.vector_norm(u.detach(), torch.inf, -1, keepdim=True)).clamp(max=1)
    return factor, square(factor * u)


def poincare_exp(x: Tensor, u: Tensor, K: float | Tensor) -> Tensor:
    """x (+) tanh(r)/r u/om(x) with r = sqrt(-K) |u|/om(x), half of sqrt(-K) times the length of u."""
    if without_graph(K, x, u):
        return values.exp_and_saved(x, u, K)[0]
    om = rim_gap(x, K)
    factor, uu = shortening(u, om, K)
    z = K * uu / om.square()
    return _translated(x, om, factor * tan_ratio_k(z, -1) / om, u, sech_square_k(z), K)


def poincare_retr(x: Tensor, u: Tensor, K: float | Tensor) -> Tensor:
    """x (+) v/sqrt(1 + |v|^2)/sqrt(-K) with v = sqrt(-K) u/om(x): (1, v) scaled to length one, in the place of tanh.

    The point lies on the geodesic of u, 2/sqrt(-K) asinh(sqrt(-K) |u|_x/2) away.
    """
    if without_graph(K, x, u):
        return values.retr_and_saved(x, u, K)[0]
    om = rim_gap(x, K)
    factor, uu = shortening(u, om, K, values.LONG)
    h = 1 / (1 - K * uu / om.square())
    return _translated(x, om, factor * h.sqrt() / om, u, h, K)


def poincare_inverse_retr(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """The vector that `poincare_retr` sends to y: the logarithm, its length 2 asinh(r) replaced by 2r."""
    d, dd, om_x, om_y = separation(x, y, K)
    scale = (1 - K * dd / (om_x * om_y)).rsqrt() / om_y
    return torch.addcmul(scale * om_x * d, scale * K * dd, x)


def poincare_exp_frame(x: Tensor, z: Tensor, K: float | Tensor) -> Tensor:
    """x (+) w, w the point with normal coordinates `z`: ``tanh(r)/r z/2`` with r = sqrt(-K) |z|/2."""
    factor, zz = shortening(z, 2.0, K)
    q = K * zz / 4
    return _translated(x, rim_gap(x, K), 0.5 * factor * tan_ratio_k(q, -1), z, sech_square_k(q), K)


def poincare_from_normal(z: Tensor, K: float | Tensor) -> Tensor:
    """tanh(r)/r z/2 with r = sqrt(-K) |z|/2."""
    factor, zz = shortening(z, 2.0, K)
    return into_ball(0.5 * factor * tan_ratio_k(K * zz / 4, -1) * z, K)


def poincare_to_normal(x: Tensor, K: float | Tensor) -> Tensor:
    """2 asinh(r)/(r sqrt(om)) x with r = sqrt(-K) |x|/sqrt(om)."""
    om = rim_gap(x, K)
    return 2 * asin_ratio_k(K * square(x) / om, -1) * om.rsqrt() * x


def poincare_gyroadd(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """x (+) y."""
    om_x, om_y = rim_gap(x, K), rim_gap(y, K)
    return _translated(x, om_x, torch.ones_like(om_y), y, om_y, K)


def separation(x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """D = y - x, |D|^2, om(x), om(y)."""
    d = y - x
    return d, square(d), rim_gap(x, K), rim_gap(y, K)


def poincare_log(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """asinh(r)/(r sqrt(1 + r^2)) (om(x) D + K|D|^2 x)/om(y) with r as in `poincare_dist`."""
    if without_graph(K, x, y):
        return values.log_and_saved(x, y, K)[0]
    d, dd, om_x, om_y = separation(x, y, K)
    s = K * dd / (om_x * om_y)
    scale = asin_ratio_k(s, -1) * (1 - s).rsqrt() / om_y
    return torch.addcmul(scale * om_x * d, scale * K * dd, x)


def poincare_log_frame(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """Normal coordinates of (-x) (+) y: twice the logarithm over om(x)."""
    d, dd, om_x, om_y = separation(x, y, K)
    s = K * dd / (om_x * om_y)
    scale = 2 * asin_ratio_k(s, -1) * (1 - s).rsqrt() / om_y
    return torch.addcmul(scale * d, scale * K * dd / om_x, x)


def poincare_dist(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """2/sqrt(-K) asinh(r), r = sqrt(-K) |y - x|/sqrt(om(x) om(y))."""
    if without_graph(K, x, y):
        return values.dist_and_saved(x, y, K)[0]
    _, dd, om_x, om_y = separation(x, y, K)
    q = dd / (om_x * om_y)
    return (2 * safe_sqrt(q) * asin_ratio_k(K * q, -1)).squeeze(-1)


def poincare_dist2(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """The squared distance, smooth at coincident points."""
    _, dd, om_x, om_y = separation(x, y, K)
    q = dd / (om_x * om_y)
    return (4 * q * asin_ratio_k(K * q, -1).square()).squeeze(-1)


def poincare_transport(x: Tensor, y: Tensor, v: Tensor, K: float | Tensor) -> Tensor:
    """om(y)/om(x) gyr[y, -x] v, the Levi-Civita transport along the geodesic."""
    if without_graph(K, x, y, v):
        return values.transport_and_saved(x, y, v, K)[0]
    d, _, om_x, om_y = separation(x, y, K)
    return om_y / om_x * turned(x, d, om_x, om_y, v, K)


def poincare_transport_frame(x: Tensor, y: Tensor, z: Tensor, K: float | Tensor) -> Tensor:
    """gyr[y, -x] z: the transport in frame coordinates, a rotation."""
    d, _, om_x, om_y = separation(x, y, K)
    return turned(x, d, om_x, om_y, z, K)


def turned(x: Tensor, d: Tensor, om_x: Tensor, om_y: Tensor, v: Tensor, K: float | Tensor) -> Tensor:
    r"""gyr[y, -x] v = v + 2K/M (P D - Q x) in terms that are small where its angle is: D = y - x,
    M = om(x) om(y) - K|D|^2, P = (om(y) - K|D|^2) <x,v> + (1 - om(x)) <D,v>, Q = om(x) <D,v> + K|D|^2 <x,v>."""
    xv, dv, k_square = dot(x, v), dot(d, v), K * square(d)
    scale = 2 * K / (om_x * om_y - k_square)
    p = scale * ((om_y - k_square) * xv + (1 - om_x) * dv)
    q = scale * (om_x * dv + k_square * xv)
    return torch.addcmul(torch.addcmul(v, p, d), -q, x)


def gyrated(x: Tensor, om: Tensor, beta: Tensor, u: Tensor, g: Tensor, v: Tensor, K: float | Tensor) -> Tensor:
    """gyr[x, w] v for w = beta u with gap g: as `turned`, with S = x + w in the place of D."""
    s = torch.addcmul(x, beta, u)
    wv, sv, k_square = beta * dot(u, v), dot(s, v), K * square(s)
    scale = 2 * K / (om * g - k_square)
    p = scale * ((1 - g) * sv - (om - k_square) * wv)
    q = scale * (g * sv - k_square * wv)
    return torch.addcmul(torch.addcmul(v, p, s), q * beta, u)


def poincare_exp_transport(x: Tensor, u: Tensor, v: Tensor, K: float | Tensor) -> tuple[Tensor, Tensor]:
    """The exponential y of u, and v transported along that geodesic: om(y)/om(x) gyr[x, w] v with y = x (+) w."""
    om = rim_gap(x, K)
    factor, uu = shortening(u, om, K)
    z = K * uu / om.square()
    beta, g = factor * tan_ratio_k(z, -1) / om, sech_square_k(z)
    y = _translated(x, om, beta, u, g, K)
    return y, rim_gap(y, K) / om * gyrated(x, om, beta, u, g, v, K)


def poincare_gyration(x: Tensor, y: Tensor, z: Tensor, K: float | Tensor) -> Tensor:
    """gyr[x, y] z of points: a rotation of z about the origin."""
    om_x, om_y = rim_gap(x, K), rim_gap(y, K)
    return into_ball(gyrated(x, om_x, torch.ones_like(om_y), y, om_y, z, K), K)
