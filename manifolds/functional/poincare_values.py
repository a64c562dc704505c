r"""Distance, exponential, logarithm and transport of the Poincare ball where nobody asks for a graph, in few launches.

Names as in `poincare`, whose formulas these are. Each function returns its result and what a backward pass reads. What
belongs to one row is a scalar of float64 where that saves a launch or a digit: a gap and its uses, and lengths, whose
squares of float32 may overflow.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import threshold

from .compensated import accurate_gap
from .lorentz_values import shifted, squared_norm
from .rows import dot, times_added


def gap_of(x: Tensor, K: float | Tensor) -> Tensor:
    """The conformal gap, NaN outside the ball."""
    return threshold(accurate_gap(x, K), 0.0, torch.nan)


def smallest(dtype: torch.dtype) -> float:
    """Of which the square is a number."""
    return torch.finfo(dtype).tiny ** 0.5


def shifted_by(a: Tensor, b: Tensor, c: Tensor, K: float | Tensor, times: float = 1) -> Tensor:
    """a + times K c b, in the place of `a` where that can be."""
    return shifted(a, b, c * K, times) if isinstance(K, Tensor) else shifted(a, b, c, times * K)


def added_by(a: Tensor, b: Tensor, c: Tensor, K: float | Tensor, times: float = 1) -> Tensor:
    """`shifted_by` that leaves `a` as it is."""
    if isinstance(K, Tensor):
        return torch.addcmul(a, b, c * K, value=times)
    return torch.addcmul(a, b, c, value=times * K)


def _pair(x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """D = y - x, om(x), om(y), |D| and r = sqrt(-K) |D|/sqrt(om(x) om(y))."""
    om_x, om_y = gap_of(x, K), gap_of(y, K)
    d = y - x
    length = torch.linalg.vector_norm(d, dim=-1, keepdim=True)
    return d, om_x, om_y, length, length / (om_x * om_y).sqrt() * (-K) ** 0.5


def dist_and_saved(x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """``2/sqrt(-K) asinh(r)``; D, the gaps, and r."""
    d, om_x, om_y, _, r = _pair(x, y, K)
    return (r.asinh() * (2 / (-K) ** 0.5)).squeeze(-1), d, om_x, om_y, r


def log_and_saved(x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """``e/om(y) (om(x) D + K|D|^2 x)`` with e = asinh(r)/(r sqrt(1 + r^2)); D, the gaps, |D|^2, r^2, e, and the factors
    of D and of K x."""
    d, om_x, om_y, length, r = _pair(x, y, K)
    r = r.clamp_min(smallest(x.dtype))  # asinh(r)/r by itself, at zero by that of a number next to it
    r2, dd = r * r, length * length
    e = r.asinh() / (r * (1 + r2).sqrt())
    over = e / om_y
    on_d, on_x = over * om_x, over * dd
    return shifted_by(on_d * d, x, on_x, K), d, om_x, om_y, dd, r2, e, on_d, on_x


LONG = 2.0**30  # over sqrt(-K), a length behind which a retraction too is on the rim


def shortened(u: Tensor, om: Tensor, K: float | Tensor) -> tuple[Tensor | None, Tensor]:
    """None and u; of float64, whose squares may be no numbers, a factor and u times that, about `LONG` long at most."""
    if u.dtype != torch.float64:
        return None, u
    largest = torch.linalg.vector_norm(u, torch.inf, -1, keepdim=True)
    factor = (LONG * om / (-K) ** 0.5 / largest).clamp(max=1)
    return factor, factor * u


def _length(u: Tensor, K: float | Tensor, times: float = 1) -> Tensor:
    """times sqrt(-K) |u| in float64, where that of numbers of float32 is a number."""
    wide = -K.double() if isinstance(K, Tensor) else -K
    return torch.linalg.vector_norm(u, dim=-1, keepdim=True, dtype=torch.float64) * (times * wide**0.5)


def exp_and_saved(x: Tensor, u: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """``(om S - K|S|^2 x)/M``, S = x + beta u, M = om h - K|S|^2, beta = tanh(r)/(sqrt(-K) |u|), h = 1/cosh(r)^2,
    r = sqrt(-K) |u|/om; S, beta, om, h, r, M and |S|^2."""
    om = gap_of(x, K)
    _, u = shortened(u, om, K)
    length = _length(u, K).clamp_min(smallest(x.dtype))
    r = (length / om).clamp(max=2.0**20)  # tanh is one from 20 on, in both dtypes
    beta = (r.tanh() / length).to(x.dtype)
    h = r.cosh().reciprocal().square().to(x.dtype)
    s = torch.addcmul(x, beta, u)
    ss = squared_norm(s)
    m = times_added(om * h, ss, K, -1)
    y = into_ball(shifted_by(om / m * s, x, ss / m, K, -1), K)
    return y, s, beta, om, h, r.to(x.dtype), m, ss


def retr_and_saved(x: Tensor, u: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """``(S - K t x)/(h - K t)`` with S = x + beta u, beta = 1/sqrt(om^2 - K|u|^2), h = (beta om)^2 and t = |S|^2/om; S,
    beta, om, h, t and one over the denominator."""
    om = gap_of(x, K)
    _, u = shortened(u, om, K)
    wide = torch.hypot(om, _length(u, K)).reciprocal()
    beta, h = wide.to(x.dtype), (om * wide).square()
    s = torch.addcmul(x, beta, u)
    t = squared_norm(s) / om
    y = added_by(s, x, t, K, -1)
    # Of the length of what it scales, so that no rounding brings the result to the rim.
    longest = _length(y, K, 1 + 2 * torch.finfo(y.dtype).eps)
    factor = torch.maximum(times_added(h, t, K, -1), longest).reciprocal().to(x.dtype)
    return factor * y, s, beta, om, h, t, factor


def into_ball(y: Tensor, K: float | Tensor) -> Tensor:
    """`y`, drawn to the largest representable radius where rounding put it on the rim or beyond."""
    gap = accurate_gap(y, K)
    # |y| sqrt(-K) = sqrt(1 - gap), one and what rounding adds to it. NaN is not positive, and stays by its factor.
    shrunk = (1 - gap).rsqrt() * (1 - 2 * torch.finfo(y.dtype).eps)
    return y * torch.where(gap > 0, 1.0, shrunk)


def transport_and_saved(x: Tensor, y: Tensor, v: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """``om(y)/om(x) (v + 2K/M (P D - Q x))``, of `poincare.turned`; D, the gaps, |D|^2, <x, v>, <D, v>, M, P and Q."""
    om_x, om_y = gap_of(x, K), gap_of(y, K)
    d = y - x
    dd, xv, dv = squared_norm(d), dot(x, v), dot(d, v)
    m = times_added(om_x * om_y, dd, K, -1)
    p = torch.addcmul((1 - om_x) * dv, times_added(om_y, dd, K, -1), xv)
    q = times_added(om_x * dv, dd * xv, K)
    turned = shifted_by(added_by(v, d, p / m, K, 2), x, q / m, K, -2)
    return om_y / om_x * turned, d, om_x, om_y, dd, xv, dv, m, p, q
