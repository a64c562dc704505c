r"""Derivatives of exp, log, distance and transport of the Poincare ball in closed form, for K < 0.

``poincare_f_backward(g, x, ..., K) -> (gx, ..., gK)``: the gradient `g` of the result pulled back to every
argument. All tensors have the full batch ``*B``; gK, ``*B``, is the share of each row in the gradient of K.
They are combinations of g and the arguments with one coefficient a row, found by differentiating the formulas of
`poincare` in the gaps and products that they are made of, and are differentiable in turn away from coincident points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .lorentz_values import shifted
from .poincare_values import (
    added_by,
    dist_and_saved,
    exp_and_saved,
    log_and_saved,
    retr_and_saved,
    shifted_by,
    shortened,
    smallest,
    transport_and_saved,
)
from .rows import dot, square, times_added
from .signed_trigonometry import asin_ratio_derivative_k, tan_ratio_derivative_k


def poincare_exp_backward(
    g: Tensor, x: Tensor, u: Tensor, K: float | Tensor, *saved: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of y = N/M with N = om S - K|S|^2 x, M = om h - K|S|^2, S = x + beta u, h the gap of beta u; `saved` is what
    `exp_and_saved` returns beside y."""
    s, beta, om, h, r, m, ss = saved or exp_and_saved(x, u, K)[1:]
    factor, u = shortened(u, om, K)
    tanh, r2 = r.tanh(), r * r
    ratio = tanh / r
    w, gx = beta * u, dot(g, x)
    # <g, S - h x>, of which <g, y - x> and <g, S - h y> are multiples: as differences they cancel at the rim.
    moved = torch.addcmul(dot(g, w), tanh * tanh, gx)
    shrink, bent = om / m, ss / m
    step = shrink * moved
    # The parts in S, h, and through beta and h in z = -r^2. The cancellation of h/ratio from one at small r stands
    # beside factors r^2.
    in_s = shifted_by(shrink * g, s, step / m, K, 2)
    along = dot(in_s, w)
    in_h = (gx + step) * shrink * h  # times -h
    in_z = ((1 - h / ratio) / r2 * along).sub(ratio * in_h, alpha=2)  # twice it
    grad_u = beta * added_by(in_s, w, in_z / ratio / ratio, K)
    in_om = times_added(torch.add(h * along / ratio, r2 * ratio * in_h, alpha=2) / om, bent * moved / m, K)
    grad_x = shifted_by(shifted_by(in_s, g, bent, K, -1), x, in_om, K, -2)
    grad_K = None
    if isinstance(K, Tensor):
        in_z = along / ratio * tan_ratio_derivative_k(-r2, -1) - ratio * in_h
        grad_K = (ss * step / m - in_om * square(x) - in_z * r2 / K).squeeze(-1)
    return grad_x, grad_u if factor is None else factor * grad_u, grad_K


def poincare_retr_backward(
    g: Tensor, x: Tensor, u: Tensor, K: float | Tensor, *saved: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of y = f (S - K t x) with f = 1/(h - K t), t = |S|^2/om, S = x + beta u, h the gap of beta u and
    beta = 1/sqrt(om^2 - K|u|^2); `saved` is what `retr_and_saved` returns beside y."""
    s, beta, om, h, t, f = saved or retr_and_saved(x, u, K)[1:]
    factor, u = shortened(u, om, K)
    fg, w = f * g, beta * u
    fgx = dot(fg, x)
    step = torch.addcmul(dot(fg, w), (1 - h).to(fg.dtype), fgx)  # <g, y - x>, as no difference
    in_t = f * step  # times 1/K
    in_h, in_t_om = fgx + in_t, in_t / om  # in_h times -1
    in_s = added_by(fg, s, in_t_om, K, 2)
    in_w = added_by(in_s, w, in_h, K, -2)
    along = dot(in_w, w)
    bent = beta * beta * along
    grad_u = beta * shifted_by(in_w, w, along, K)
    in_om = added_by(om * bent, in_t_om, t, K)  # times -1
    grad_x = shifted_by(shifted_by(in_s, fg, t, K, -1), x, in_om, K, -2)
    grad_K = None
    if isinstance(K, Tensor):
        grad_K = (t * in_t + (0.5 * bent - in_h * beta * beta) * square(u) - in_om * square(x)).squeeze(-1)
    return grad_x, grad_u if factor is None else factor * grad_u, grad_K


def poincare_log_backward(
    g: Tensor, x: Tensor, y: Tensor, K: float | Tensor, *saved: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of e(s)/om(y) N with N = om(x) D + K|D|^2 x, s = K|D|^2/(om(x) om(y)), e(s) = asin_ratio(s)/sqrt(1 - s); `saved`
    is what `log_and_saved` returns beside the logarithm."""
    d, om_x, om_y, dd, r2, e, on_d, on_x = saved or log_and_saved(x, y, K)[1:]
    gd, gx = dot(g, d), dot(g, x)
    gn = times_added(om_x * gd, dd * gx, K) / om_y  # <g, N>/om(y)
    # 2 s e'(s), whose cancellation at small s stands beside factors s.
    steep = (1 - torch.addcmul(e, r2, e, value=2)) / (1 + r2) * gn
    over = e / om_y
    in_om_x = torch.sub(over * gd, steep / om_x, alpha=0.5)
    in_om_y = torch.add(gn * e, steep, alpha=0.5) / om_y  # times -1
    on_dd = times_added(steep / dd.clamp_min(torch.finfo(dd.dtype).tiny), over * gx, K, 2)
    in_d = shifted(on_d * g, d, on_dd)
    grad_x = shifted_by(shifted_by(-in_d, g, on_x, K), x, in_om_x, K, 2)
    grad_y = shifted_by(in_d, y, in_om_y, K, -2)
    grad_K = None
    if isinstance(K, Tensor):
        q, s = r2 / -K, -r2
        root = (1 + r2).rsqrt()
        slope = (asin_ratio_derivative_k(s, -1) + 0.5 * e * root) * root
        in_om_x = over * gd - gn * slope * s / om_x
        in_om_y = gn * slope * s / om_y + gn * over
        grad_K = in_om_x * square(x) - in_om_y * square(y) + over * dd * gx + gn * slope * q
        grad_K = grad_K.squeeze(-1)
    return grad_x, grad_y, grad_K


def poincare_dist_backward(
    g: Tensor, x: Tensor, y: Tensor, K: float | Tensor, *saved: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of 2/sqrt(-K) asinh(r): ``2/(sqrt(-K) sqrt(1 + r^2))`` in r, whose own gradient is zero at coincident points;
    `saved` is what `dist_and_saved` returns beside the distance."""
    d, om_x, om_y, r = saved or dist_and_saved(x, y, K)[1:]
    g = g.unsqueeze(-1)
    slope = g * (1 + r * r).rsqrt() * (2 * (-K) ** 0.5)
    # Between coincident points D is zero, and whatever finite number stands here.
    in_d = slope / (r * (om_x * om_y)).clamp_min(smallest(r.dtype)) * d
    in_om = slope * r
    grad_y = torch.addcmul(in_d, y, in_om / om_y)
    grad_x = shifted(in_d, x, in_om / om_x, -1).neg()
    grad_K = None
    if isinstance(K, Tensor):
        root = r / (-K) ** 0.5
        through_K = 2 * g * root * (root * root) * asin_ratio_derivative_k(-r * r, -1)
        grad_K = (through_K + in_om / (2 * K) * (square(x) / om_x + square(y) / om_y)).squeeze(-1)
    return grad_x, grad_y, grad_K


def poincare_transport_backward(
    g: Tensor, x: Tensor, y: Tensor, v: Tensor, K: float | Tensor, *saved: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Of om(y)/om(x) (v + 2K/M (P D - Q x)), with M, P, Q as in `poincare.turned`; `saved` is what
    `transport_and_saved` returns beside it."""
    d, om_x, om_y, dd, xv, dv, m, p, q = saved or transport_and_saved(x, y, v, K)[1:]
    gv, gd, gx = dot(g, v), dot(g, d), dot(g, x)
    rho = om_y / om_x
    scale = rho / m * (2 * K)
    turn = (p * gd - q * gx) / m
    in_rho, in_m = times_added(gv, turn, K, 2) / om_x, scale * turn  # times om(x)^-1, and -1
    in_p, in_q = scale * gd, scale * gx  # of Q, times -1
    both = in_p + in_q
    # <x,v> and <D,v> stand in P and Q, and so do |D|^2 and the gaps.
    in_xv = times_added(in_p * om_y, both * dd, K, -1)
    in_dv = torch.addcmul(in_p, both, om_x, value=-1)
    in_square = in_m - both * xv
    in_om_x = in_m * om_y + both * dv + in_rho * rho  # times -1
    in_om_y = in_p * xv - in_m * om_x + in_rho
    in_d = shifted(shifted_by(scale * p * g, d, in_square, K, 2), v, in_dv)
    grad_x = shifted(shifted(-in_d, g, scale * q, -1), v, in_xv)
    grad_x = shifted_by(grad_x, x, in_om_x, K, -2)
    grad_y = shifted_by(in_d, y, in_om_y, K, 2)
    grad_v = shifted(shifted(rho * g, x, in_xv), d, in_dv)
    grad_K = None
    if isinstance(K, Tensor):
        grad_K = 2 * rho * turn + in_square * dd - in_om_x * square(x) + in_om_y * square(y)
        grad_K = grad_K.squeeze(-1)
    return grad_x, grad_y, grad_v, grad_K
