r"""Closed-form backward passes of `lorentz`: few row combinations, and more accurate than differentiated rounding.

Each takes the gradient `g` of its output and the arguments of the forward function, and returns the gradient of each of
them and that of K, as one partial for each row (``*B``), which the caller sums. Time entries are not read, so their
gradient is zero; the gradient of an output's time, which was derived, is folded into its space part. All arguments
have the same batch shape.

The gradients of S = sinh^2(sqrt(-K) d/2) are both multiples of the perpendicular q of the separation:
``dS/dx = K/2 q_x``, ``dS/dy = -K/2 q_y`` with ``q_x = s_y - t_y/t_x s_x`` and ``q_y = t_x/t_y s_y - s_x``. Times are in
units of R, and factors meet in the order that keeps products within the range of numbers, as in `lorentz`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .lorentz import (
    Separation,
    cosh_and_ratio,
    half_length,
    joined,
    log_ratios,
    metric_parts,
    radius,
    scaled,
    separation,
    separation_again,
    shifted,
    space,
    space_of,
    time_of,
    with_known_part,
)
from .rows import dot, square
from .series import polynomial, safe_sqrt


def _padded(g: Tensor, in_place: bool = False) -> Tensor:
    """A gradient of space parts as one of full rows."""
    return joined(torch.zeros_like(g[..., :1]), g, in_place)


# Power series in S and in r^2 of the two derivatives below, which are 0/0 at zero: twenty terms reach 1e-17 at the
# switch.
_SWITCH = 0.1


def _log_ratio_terms() -> tuple[float, ...]:
    a, terms = 1.0, []
    for k in range(1, 25):
        a *= -2.0 * k / (2.0 * k + 1.0)
        terms.append(k * a)
    return tuple(terms)


_LOG_RATIO_TERMS = _log_ratio_terms()


def log_ratio_relative_derivative(S: Tensor, f: Tensor) -> Tensor:
    """The derivative ``(1/f - (1 + 2S))/(2 S (1 + S))`` of log f, f = r/sinh(r). That of f is no number far out."""
    small = S < _SWITCH
    far = torch.where(small, 1.0, S)
    closed = (1 / torch.where(small, 1.0, f) - (1 + 2 * far)) / (1 + far) * (0.5 / far)
    return torch.where(small, polynomial(_LOG_RATIO_TERMS, torch.where(small, S, 0.0)) / f, closed)


# asinh(r) - r/sqrt(1 + r^2) = r^3 sum c_k r^2k: -2 times the derivative of asinh(r)/r in r^2.
_EXCESS = tuple(2 * k * (-1) ** (k + 1) * math.comb(2 * k, k) / 4**k / (2 * k + 1) for k in range(1, 21))


def _excess(S: Tensor, chord: Tensor, K: float | Tensor) -> Tensor:
    """``R^3 (asinh(sqrt S) - sqrt(S/(1 + S)))``, given R sqrt(S)."""
    small = S < _SWITCH
    terms = _EXCESS[: 20 if S.dtype == torch.float64 else 10]
    near = chord * (chord * chord) * polynomial(terms, torch.where(small, S, 0.0))
    far = torch.where(small, 1.0, S)
    return torch.where(small, near, radius(K) ** 3 * (half_length(far) - (far / (1 + far)).sqrt()))


def _sinh_ratio_terms() -> tuple[float, ...]:
    a, terms = 1.0, []
    for k in range(1, 16):
        a /= 2 * k * (2 * k + 1)
        terms.append(k * a)
    return tuple(terms)


_SINH_RATIO_TERMS = _sinh_ratio_terms()
_SINH_SWITCH = 4.0


def sinh_ratio_derivative(z: Tensor, cosh: Tensor, ratio: Tensor) -> Tensor:
    """The derivative ``(cosh r - sinh(r)/r)/(2z)`` of sinh(r)/r in z = r^2."""
    small = z < _SINH_SWITCH
    closed = (cosh - ratio) / (2 * torch.where(small, 1.0, z))
    return torch.where(small, polynomial(_SINH_RATIO_TERMS, torch.where(small, z, 0.0)), closed)


def _gradients_of_S(a: Separation, x: Tensor, y: Tensor, half: Tensor, K: float | Tensor) -> tuple[Tensor, Tensor]:
    """``half q_x`` and ``-half q_y``, each with its part along its own point as it is known: a covector is cosh of the
    radius longer there than its coordinates show. The last use of `a.perpendicular`."""
    xs, ys, in_place = space(x), space(y), a.in_place
    q = space_of(a.perpendicular, in_place)
    back = a.tx / a.ty
    xq = dot(q, xs)
    yq = 4 * a.angular + xq  # of t_x/t_y q and y, whose difference from x is q
    at_x = (a.time_difference / a.tx - 2 * a.S + K * xq) / a.tx.square()
    at_y = (a.time_difference / a.ty + 2 * a.S + K * yq) / a.ty.square()
    gx = shifted(half * a.perpendicular, x if in_place else xs, half * at_x, in_place)
    gy = shifted(scaled(a.perpendicular, -half * back, in_place), y if in_place else ys, -half * at_y, in_place)
    return gx, gy


def _space_gradients_of_S(
    a: Separation, x: Tensor, y: Tensor, half: Tensor, K: float | Tensor
) -> tuple[Tensor, Tensor]:
    """The space parts of `_gradients_of_S`."""
    gx, gy = _gradients_of_S(a, x, y, half, K)
    return (space(gx), space(gy)) if a.in_place else (gx, gy)


def lorentz_dist_backward(
    g: Tensor, x: Tensor, y: Tensor, K: float | Tensor, *saved: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """``d = 2R asinh(sqrt S)``: the gradient along q over sinh of the distance, zero at coincidence. `g` is ``*B``.

    `saved` is what `lorentz_dist_saving` returns beside d, if it is at hand.
    """
    g = g.unsqueeze(-1)
    a = separation_again(x, y, K, *saved) if saved else separation(x, y, K, need_difference=False)
    R, root = radius(K), safe_sqrt(a.S)
    zero = root == 0
    chord, cosh = torch.where(zero, 1.0, R * root), (1 + a.S).sqrt()
    derivative = torch.where(zero, 0.0, g / (chord * cosh))  # in R^2 S
    gx, gy = _gradients_of_S(a, x, y, -0.5 * derivative, K)
    # R^2 d'(R) and K dS/dK nearly cancel between close points: D/2 - tanh(D/2), D = d/R, as a power series does not.
    dt_R2 = a.time_difference / -K
    gK = derivative * dt_R2 * (dt_R2 / (4 * a.tx * a.ty)) + g * torch.where(zero, 0.0, _excess(a.S, chord, K))
    return _padded(gx, a.in_place), _padded(gy, a.in_place), gK.squeeze(-1)


def lorentz_exp_backward(g: Tensor, x: Tensor, u: Tensor, K: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``y = C s + H u``; the length r enters by C and H, ``d(r^2)/du = -2K p`` and ``d(r^2)/ds = -2K^2 nu p``."""
    s, v = space(x), space(u)
    _, nu, p = metric_parts(s, v, K)
    sigma = -K * nu
    z = sigma.square() - K * square(p)
    C, H = cosh_and_ratio(z)
    y = C * s + H * v
    gt = g[..., :1] / time_of(y, K)
    h = g[..., 1:] + gt * y
    gz = 0.5 * H * dot(h, s) + sinh_ratio_derivative(z, C, H) * dot(h, v)
    along = 2 * K * gz
    gK = 0.5 * gt / K / K - gz * square(p)
    return _padded(C * h + along * sigma * p), _padded(H * h - along * p), gK.squeeze(-1)


def _derived_time(gt: Tensor, s: Tensor, u: Tensor, nu: Tensor, t: Tensor, K: float | Tensor):
    """Of ``u_t = <s, u>/(R t) = R nu t/R^2``: what its gradient `gt` adds to those of u, s and K."""
    gt = gt * (-K) ** 0.5 / t
    return gt * s, gt * (u + K * nu * s), 0.5 * gt * nu / K


def lorentz_log_backward(g: Tensor, x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``u = f D - (m + f - f alike) x`` with D = y - alike x, f = r/sinh(r) and m = 2 S f."""
    xs = space(x)
    a = separation(x, y, K)
    f, m = log_ratios(a.S)
    difference = space_of(a.difference, a.in_place)
    u = torch.addcmul(f * difference, xs, f * (a.alike - 1) - m)
    nu = (m - f * a.time_difference / a.tx) / K
    time_u, time_x, time_K = _derived_time(g[..., :1], xs, u, nu, a.tx, K)
    h = g[..., 1:] + time_u
    hx = dot(h, xs)
    # m' = (1 + f)/(1 + S). Of f' and 2 S f' far out the sum would be small.
    along_f = f * (dot(h, difference) + (a.alike - 1) * hx)
    gS = log_ratio_relative_derivative(a.S, f) * along_f - (1 + f) / (1 + a.S) * hx
    gx, gy = _space_gradients_of_S(a, x, y, 0.5 * K * gS, K)
    gK = time_K - gS * a.angular
    return _padded(gx - (f + m) * h + time_x), _padded(gy + f * h), gK.squeeze(-1)


def lorentz_transport_backward(
    g: Tensor, x: Tensor, y: Tensor, v: Tensor, K: float | Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``w = v + c (x + y)`` with ``c = -K/2 <q_x, v>/(1 + S)``, where ``<q_x, v> = <y, v> - t_y/t_x <x, v>``."""
    xs, ys, vs = space(x), space(y), space(v)
    a = separation(x, y, K)
    known = (a.time_difference / a.tx - 2 * a.S) / a.tx
    qx = with_known_part(space_of(a.perpendicular, a.in_place), xs, known, a.tx, K)
    along = dot(xs, vs)
    scale = -0.5 * K / (1 + a.S)
    product = dot(qx, vs)
    c = scale * product
    total = xs + ys
    ratio = a.ty / a.tx
    nu = (along / a.tx - c * (a.tx + a.ty) / K) / a.ty
    time_w, time_y, time_K = _derived_time(g[..., :1], ys, vs + c * total, nu, a.ty, K)
    h = g[..., 1:] + time_w
    gk = dot(h, total)
    gproduct = gk * scale
    through_S_x, through_S_y = _space_gradients_of_S(a, x, y, -0.5 * K * gk * c / (1 + a.S), K)
    gx = c * h - gproduct * ratio * (vs + K * (along / a.tx.square()) * xs) + through_S_x
    gy = c * h + gproduct * (vs + K * (along / (a.tx * a.ty)) * ys) + through_S_y + time_y
    # Each factor of the product is a small number.
    lean = 0.5 / K * (along / a.tx / a.tx) * (a.time_difference / a.tx) * (1 + ratio) / ratio
    gK = gk * c / K - gproduct * lean + gk * c / (1 + a.S) * a.angular + time_K
    return _padded(gx), _padded(gy), _padded(h + gproduct * qx), gK.squeeze(-1)
