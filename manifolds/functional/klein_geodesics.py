r"""Exponential and parallel transport of the Beltrami-Klein ball, and their backward passes in closed form.

Geodesics are straight: the exponential of u is a multiple of u away, and a transported vector differs from a multiple
of itself by one of D = y - x. With om(x) = 1 + K|x|^2, a = sqrt(om(x)), b = sqrt(om(y)):

    exp_x(u) = x + s u,                    s = T/(1 - K T <x,u>/om(x)),    T = tanh(r)/r,
    PT v = b/a (v + c D),                  c = K <x,v>/om(x) + 2K beta/M,

r^2 = -K |u|^2/om(x) + (K <x,u>/om(x))^2 the square of sqrt(-K) times the length of u, beta = <D,v> - K <x,v><x,D>/om(x)
and M = (a + b)^2 - K|D|^2. The second is the transport ``V - <Y,V>/(<X,Y> + 1/K) (X + Y)`` of the hyperboloid, in its
points (1, x)/a and (1, y)/b, without a difference of large numbers.

``klein_f_backward(g, x, ..., K) -> (gx, ..., gK)``, all of one batch shape ``*B``; gK is the share of each row.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .poincare import into_ball, rim_gap, shortening
from .rows import dot, square
from .signed_trigonometry import sech_square_k, tan_ratio_k
from .tracing import eager_without_derivative

Gradients = tuple[Tensor | None, ...]


def klein_exp(x: Tensor, u: Tensor, K: float | Tensor) -> Tensor:
    """x + s u. ``*B,n; *B,n -> *B,n``."""
    if all(eager_without_derivative(a) for a in (x, u, K) if isinstance(a, Tensor)):
        return klein_exp_saving(x, u, K)[0]
    om = rim_gap(x, K)
    # By the shortest that u may be, across x: along x it is longer by 1/sqrt(om), and on the rim before.
    u = shortening(u, om.sqrt(), K)[0] * u
    uu, along = square(u) / om, dot(x, u) / om
    z = K * uu - (K * along).square()
    ratio = tan_ratio_k(z, -1)
    scale = _denominator(K * ratio * along, K * ratio.square() * uu, sech_square_k(z))
    return into_ball(torch.addcmul(x, ratio / scale, u), K)


def _denominator(p: Tensor, across: Tensor, h: Tensor) -> Tensor:
    """1 - p, which inwards is next to zero: there (1 - p^2)/(1 + p), a sum of positive terms."""
    inwards = p > 0
    return torch.where(inwards, (h - across) / (1 + torch.where(inwards, p, 0.0)), 1 - p)


class Step(NamedTuple):
    """What `klein_exp` is made of; scalars with a trailing one."""

    om: Tensor
    factor: Tensor  # of u, to a length whose square is a number
    uu: Tensor  # |u|^2/om
    along: Tensor  # <x,u>/om
    s: Tensor
    denominator: Tensor  # 1 - K T <x,u>/om
    r: Tensor
    h: Tensor  # 1/cosh(r)^2


def klein_exp_saving(x: Tensor, u: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """`klein_exp`, and the `Step`, without derivatives."""
    om = rim_gap(x, K)
    factor = shortening(u, om.sqrt(), K)[0]
    u = factor * u
    uu, along = square(u) / om, dot(x, u) / om
    # What counts of the derivative of T in r^2 is that times r^2, which below is less than the rounding of one.
    r = ((K * along).square() - K * uu).clamp_min(1e-16).sqrt()
    h, ratio = r.cosh().reciprocal().square(), r.tanh() / r
    denominator = _denominator(K * ratio * along, K * ratio.square() * uu, h)
    s = ratio / denominator
    y = into_ball(torch.addcmul(x, s, u), K)
    return y, om, factor, uu, along, s, denominator, r, h


def klein_exp_backward(g: Tensor, x: Tensor, u: Tensor, K: float | Tensor, *saved: Tensor) -> Gradients:
    """Of s in T and <x,u>/om: ``1/(1 - K T <x,u>/om)^2`` and ``K s^2``."""
    a = Step(*(saved or klein_exp_saving(x, u, K)[1:]))
    u = a.factor * u
    in_s = dot(g, u)
    twice_slope = (a.h - a.s * a.denominator) / a.r / a.r  # of T in r^2
    in_r2 = 0.5 * twice_slope * (in_s / a.denominator / a.denominator)
    in_along = K * (in_s * a.s * a.s + 2 * K * in_r2 * a.along)
    in_om = (K * in_r2 * a.uu - in_along * a.along) / a.om
    lean = in_along / a.om
    gx = torch.addcmul(torch.addcmul(g, lean, u), 2 * K * in_om, x)
    gu = a.factor * torch.addcmul(torch.addcmul(a.s * g, -2 * K * in_r2 / a.om, u), lean, x)
    if not isinstance(K, Tensor):
        return gx, gu, None
    explicit = in_s * a.s * a.s * a.along + in_r2 * (2 * K * a.along * a.along - a.uu)
    return gx, gu, (explicit + in_om * square(x)).squeeze(-1)


class Between(NamedTuple):
    """What `klein_transport` is made of; scalars with a trailing one."""

    D: Tensor  # rows
    om_x: Tensor
    om_y: Tensor
    a: Tensor
    b: Tensor
    xi: Tensor  # <x,v>/om(x)
    xD: Tensor
    dd: Tensor
    beta: Tensor
    M: Tensor


def klein_transport(x: Tensor, y: Tensor, v: Tensor, K: float | Tensor) -> Tensor:
    """b/a (v + c D). ``*B,n; *B,n; *B,n -> *B,n``."""
    return klein_transport_saving(x, y, v, K)[0]


def klein_transport_saving(x: Tensor, y: Tensor, v: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """`klein_transport`, and what is `Between` the points."""
    D, om_x, om_y = y - x, rim_gap(x, K), rim_gap(y, K)
    a, b = om_x.sqrt(), om_y.sqrt()
    xi, xD, dd = dot(x, v) / om_x, dot(x, D), square(D)
    beta = torch.addcmul(dot(D, v), K * xi, xD, value=-1)
    M = (a + b).square() - K * dd
    w = b / a * torch.addcmul(v, K * (xi + 2 * beta / M), D)
    return w, D, om_x, om_y, a, b, xi, xD, dd, beta, M


def klein_transport_backward(
    g: Tensor, x: Tensor, y: Tensor, v: Tensor, K: float | Tensor, *saved: Tensor
) -> Gradients:
    """In v and D, and through the scalars that b/a and c are made of."""
    s = Between(*(saved or klein_transport_saving(x, y, v, K)[1:]))
    rho, over = s.b / s.a, 2 / s.M
    mean = s.xi + s.beta * over  # c/K
    gD = dot(g, s.D)
    in_c = K * rho * gD
    in_beta = over * in_c
    in_M = -0.5 * in_beta * s.beta * over
    in_xi = torch.addcmul(in_c, K * s.xD, in_beta, value=-1)
    in_xD = -K * s.xi * in_beta
    in_rho = torch.addcmul(dot(g, v), K * mean, gD) / s.a
    both = 2 * (s.a + s.b) * in_M
    in_om_x = 0.5 * (both - in_rho * rho) / s.a - in_xi * s.xi / s.om_x
    in_om_y = 0.5 * (both + in_rho) / s.b
    lean = in_xi / s.om_x
    in_D = torch.addcmul(K * mean * rho * g, in_beta, v)
    in_D = torch.addcmul(torch.addcmul(in_D, -2 * K * in_M, s.D), in_xD, x)
    gx = torch.addcmul(torch.addcmul(-in_D, in_xD, s.D), lean, v)
    gx, gy = torch.addcmul(gx, 2 * K * in_om_x, x), torch.addcmul(in_D, 2 * K * in_om_y, y)
    gv = torch.addcmul(torch.addcmul(rho * g, in_beta, s.D), lean, x)
    if not isinstance(K, Tensor):
        return gx, gy, gv, None
    explicit = rho * gD * mean - s.xi * s.xD * in_beta - s.dd * in_M
    return gx, gy, gv, (explicit + square(x) * in_om_x + square(y) * in_om_y).squeeze(-1)
