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

from .lorentz import Separation, half_length, separation, with_known_part
from .lorentz_values import dist_and_saved, exp_and_saved, log_and_saved, radius, shifted, space, squared_norm
from .rows import dot, square, times_added
from .series import polynomial


def _padded(g: Tensor) -> Tensor:
    """A gradient of space parts as one of full rows."""
    return torch.cat([torch.zeros_like(g[..., :1]), g], -1)


def _without_time(g: Tensor) -> Tensor:
    """A gradient of full rows: times are not read."""
    g[..., :1].zero_()
    return g


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


def _space_gradients_of_S(
    a: Separation, x: Tensor, y: Tensor, half: Tensor, K: float | Tensor
) -> tuple[Tensor, Tensor]:
    """``half q_x`` and ``-half q_y``, each with its part along its own point as it is known: a covector is cosh of the
    radius longer there than its coordinates show."""
    xs, ys, q = space(x), space(y), a.perpendicular
    back = a.tx / a.ty
    xq = dot(q, xs)
    yq = 4 * a.angular + xq  # of t_x/t_y q and y, whose difference from x is q
    at_x = (a.time_difference / a.tx - 2 * a.S + K * xq) / a.tx.square()
    at_y = (a.time_difference / a.ty + 2 * a.S + K * yq) / a.ty.square()
    gx = torch.addcmul(half * q, xs, half * at_x)
    return gx, torch.addcmul(-half * back * q, ys, -half * at_y)


def _along_points(q: Tensor, x: Tensor, shift: Tensor, S4: Tensor, half: Tensor, K: float | Tensor) -> Tensor:
    """``R^2 half (shift - 2S + K <q, x>)``, zero but for the rounding of q: what the gradients ``half q`` and
    ``-half q/(T_y/T_x)`` of S lack along x and y, times the squares of their times."""
    lacking = times_added(shift, dot(space(q), space(x)), K).sub(S4, alpha=0.5)
    return half * lacking * (-1 / K)


def lorentz_dist_backward(
    g: Tensor, x: Tensor, y: Tensor, K: float | Tensor, *saved: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """``d = 2R asinh(sqrt S)``: the gradient along q over sinh of the distance, zero at coincidence. `g` is ``*B``.

    `saved` is what `dist_and_saved` returns beside d, if it is at hand.
    """
    q, tx, ty, ratio, shift, S4 = saved or dist_and_saved(x, y, K)[1:]
    g = g.unsqueeze(-1)
    root, cosh = S4.sqrt(), torch.rsub(S4, 1, alpha=-0.25).sqrt()
    # Between coincident points q is zero, and whatever finite number stands here; squares below it are no numbers.
    half = g / (root * cosh).clamp_min(torch.finfo(S4.dtype).tiny ** 0.5) * -((-K) ** 0.5)
    along = _along_points(q, x, shift, S4, half, K)
    gx = shifted(half * q, x, along / (tx * tx))
    gy = shifted(-half / ratio * q, y, along / (ty * ty), -1)
    gK = None
    if isinstance(K, Tensor):
        zero, R = S4 == 0, radius(K)
        chord = torch.where(zero, 1.0, 0.5 * R * root)
        # R^2 d'(R) and K dS/dK nearly cancel between close points, in D/2 - tanh(D/2), D = d/R: hence a power series.
        steep = (R * shift) * (R * shift / (4 * ratio)) * (R * R)
        gK = torch.where(zero, 0.0, g / (chord * cosh) * steep + g * _excess(0.25 * S4, chord, K)).squeeze(-1)
    return _without_time(gx), _without_time(gy), gK


def lorentz_exp_backward(
    g: Tensor, x: Tensor, u: Tensor, K: float | Tensor, *saved: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """``y = C s + H u``; the length r enters by C and H, ``d(r^2)/du = -2K p`` and ``d(r^2)/ds = 2K lean p``.

    `saved` is what `exp_and_saved` returns beside y.
    """
    p, lean, z, C, H, time = saved or exp_and_saved(x, u, K)[1:]
    gt = g[..., :1] / time
    h = shifted(torch.addcmul(g, x, gt * C), u, gt * H)
    hs, hv = dot(space(h), space(x)), dot(space(h), space(u))
    # C' = H/2 and H' = (C - H)/(2 r^2), whose cancellation at small r stands beside the factor r^2 of <h, v> p.
    twice = torch.addcmul((C - H) / z * hv, H, hs)
    along = twice * K
    gu = shifted(h * H, p, along, -1)
    gx = shifted(h * C, p, along * lean)
    gK = None
    if isinstance(K, Tensor):
        slope = 0.5 * H * hs + sinh_ratio_derivative(z, C, H) * hv
        gK = (0.5 * gt / K / K - slope * square(space(p))).squeeze(-1)
    return _without_time(gx), _without_time(gu), gK


def _derived_time(gt: Tensor, s: Tensor, u: Tensor, nu: Tensor, t: Tensor, K: float | Tensor):
    """Of ``u_t = <s, u>/(R t) = R nu t/R^2``: what its gradient `gt` adds to those of u, s and K."""
    gt = gt * (-K) ** 0.5 / t
    return gt * s, gt * (u + K * nu * s), 0.5 * gt * nu / K


def lorentz_log_backward(
    g: Tensor, x: Tensor, y: Tensor, K: float | Tensor, *saved: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """``u = f (y - x - 2S x)``, f = r/sinh(r). `saved` is what `log_and_saved` returns beside u.

    The time ``u_t = <s, u>/T`` has the gradients s/T in u and f q/T in s.
    """
    q, tx, ty, ratio, shift, S4, f = saved or log_and_saved(x, y, K)[1:]
    gt = g[..., :1] / tx
    h = torch.addcmul(g, x, gt)
    hx, hq = dot(space(h), space(x)), dot(space(h), space(q))
    along_f = torch.addcmul(hq, hx, shift)  # <h, y - x>
    fC = f * torch.rsub(S4, 1, alpha=-0.5)  # r/tanh(r)
    over_S = along_f / S4.clamp_min(torch.finfo(S4.dtype).tiny)
    # -K/2 times the gradient of S. f' = (1 - r/tanh r)/(2S (1 + S)), whose cancellation at small r stands beside the
    # factor r^2 of <h, y - x> q; (2 S f)' = (1 + f)/(1 + S). Of f' and 2 S f' far out the sum would be small.
    in_S = torch.addcmul(hx, hx, f).sub((1 - fC) * over_S, alpha=2)
    half = in_S / torch.rsub(S4, 1, alpha=-0.25) * (-0.5 * K)
    along = _along_points(q, x, shift, S4, half, K)
    gx = shifted(shifted(torch.addcmul(half, f, gt) * q, x, along / (tx * tx)), h, fC, -1)
    gy = shifted(shifted(f * h, q, half / ratio, -1), y, along / (ty * ty), -1)
    gK = None
    if isinstance(K, Tensor):
        S = 0.25 * S4
        in_S = log_ratio_relative_derivative(S, f) * (f * along_f) - (1 + f) / (1 + S) * hx
        u_t = f * torch.sub(shift, S4, alpha=0.5)  # over T_x
        gK = (-0.5 * gt * u_t / K / K - in_S * (0.25 / ratio * squared_norm(space(q)))).squeeze(-1)
    return _without_time(gx), _without_time(gy), gK


def lorentz_transport_backward(
    g: Tensor, x: Tensor, y: Tensor, v: Tensor, K: float | Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``w = v + c (x + y)`` with ``c = -K/2 <q_x, v>/(1 + S)``, where ``<q_x, v> = <y, v> - t_y/t_x <x, v>``."""
    xs, ys, vs = space(x), space(y), space(v)
    a = separation(xs, ys, K)
    known = (a.time_difference / a.tx - 2 * a.S) / a.tx
    qx = with_known_part(a.perpendicular, xs, known, a.tx, K)
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
