r"""Derivatives of exp, log, distance and transport of the Poincare ball in closed form, for K < 0.

``poincare_f_backward(g, x, ..., K) -> (gx, ..., gK)``: the gradient `g` of the result pulled back to every
argument. All tensors have the full batch ``*B``; gK, ``*B``, is the share of each row in the gradient of K.
They are combinations of g and the arguments with one coefficient a row, found by differentiating the formulas of
`poincare` in the gaps and products that they are made of, and are differentiable in turn away from coincident points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .poincare import rim_gap, separation, shortening
from .rows import dot, square
from .signed_trigonometry import (
    asin_ratio_derivative_k,
    asin_ratio_k,
    sech_square_k,
    tan_ratio_derivative_k,
    tan_ratio_k,
)


def poincare_exp_backward(g: Tensor, x: Tensor, u: Tensor, K: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of y = N/Q with N = om S - K|S|^2 x, Q = om h - K|S|^2, S = x + beta u, h the gap of beta u."""
    om, xx = rim_gap(x, K), square(x)
    factor, uu = shortening(u, om, K)
    u = factor * u
    z = K * uu / om.square()
    ratio, h = tan_ratio_k(z, -1), sech_square_k(z)
    beta = ratio / om
    s = torch.addcmul(x, beta, u)
    ss, gx = square(s), dot(g, x)
    q = om * h - K * ss
    # <g, S - h x>, of which <g, y - x> and <g, S - h y> are multiples: as differences they cancel at the rim.
    moved = ratio / om * dot(g, u) - z * ratio.square() * gx
    step = om / q * moved
    gy = gx + step
    # The parts in S, om, h, K, and through beta and h in z.
    in_s = torch.addcmul(om / q * g, 2 * K * step / q, s)
    in_beta = dot(in_s, u)
    in_h = -gy * om / q
    in_z = in_beta * tan_ratio_derivative_k(z, -1) / om + in_h * ratio * h
    in_om = -K * ss / q.square() * moved - in_beta * beta / om - 2 * z * in_z / om
    grad_u = factor * torch.addcmul(beta * in_s, 2 * K / om.square() * in_z, u)
    grad_x = torch.addcmul(torch.addcmul(in_s, -K * ss / q, g), 2 * K * in_om, x)
    grad_K = ss * step / q + in_om * xx + in_z * uu / om.square()
    return grad_x, grad_u, grad_K.squeeze(-1)


def poincare_log_backward(g: Tensor, x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of e(s)/om(y) N with N = om(x) D + K|D|^2 x, s = K|D|^2/(om(x) om(y)), e(s) = asin_ratio(s)/sqrt(1 - s)."""
    d, dd, om_x, om_y = separation(x, y, K)
    gd, gx = dot(g, d), dot(g, x)
    q = dd / (om_x * om_y)
    s = K * q
    ratio, root = asin_ratio_k(s, -1), (1 - s).rsqrt()
    e = ratio * root / om_y
    derivative = (asin_ratio_derivative_k(s, -1) + 0.5 * ratio * root.square()) * root / om_y
    gn = om_x * gd + K * dd * gx
    in_s = gn * derivative
    in_om_x = e * gd - in_s * s / om_x
    in_om_y = -(in_s * s + gn * e) / om_y
    in_d = torch.addcmul(e * om_x * g, 2 * K * (e * gx + in_s / (om_x * om_y)), d)
    grad_x = torch.addcmul(torch.addcmul(-in_d, e * K * dd, g), 2 * K * in_om_x, x)
    grad_y = torch.addcmul(in_d, 2 * K * in_om_y, y)
    grad_K = in_om_x * square(x) + in_om_y * square(y) + e * dd * gx + in_s * q
    return grad_x, grad_y, grad_K.squeeze(-1)


def poincare_dist_backward(g: Tensor, x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of 2 sqrt(q) asin_ratio(K q), q = |D|^2/(om(x) om(y)): ``1/sqrt(q (1 - K q))`` in q, zero where q is."""
    g = g.unsqueeze(-1)
    d, dd, om_x, om_y = separation(x, y, K)
    q = dd / (om_x * om_y)
    same = q == 0
    root = torch.where(same, 1.0, q).sqrt()
    in_q = torch.where(same, 0.0, g / (root * (1 - K * q).sqrt()))
    in_d, in_om = 2 * in_q / (om_x * om_y), -in_q * q
    grad_x = torch.addcmul(-in_d * d, 2 * K * in_om / om_x, x)
    grad_y = torch.addcmul(in_d * d, 2 * K * in_om / om_y, y)
    through_K = torch.where(same, 0.0, 2 * g * root * q * asin_ratio_derivative_k(K * q, -1))
    grad_K = through_K + in_om * (square(x) / om_x + square(y) / om_y)
    return grad_x, grad_y, grad_K.squeeze(-1)


def poincare_transport_backward(
    g: Tensor, x: Tensor, y: Tensor, v: Tensor, K: float | Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of om(y)/om(x) (v + 2K/M (P D - Q x)), with M, P, Q as in `poincare_transport`."""
    d, dd, om_x, om_y = separation(x, y, K)
    xv, dv, gv, gd, gx = dot(x, v), dot(d, v), dot(g, v), dot(g, d), dot(g, x)
    k_square, rho = K * dd, om_y / om_x
    m = om_x * om_y - k_square
    p, q = (om_y - k_square) * xv + (1 - om_x) * dv, om_x * dv + k_square * xv
    scale = 2 * K / m
    turn = p * gd - q * gx
    in_rho, in_m, in_p, in_q = gv + scale * turn, -rho * scale * turn / m, rho * scale * gd, -rho * scale * gx
    # <x,v> and <D,v> stand in P and Q, and so do |D|^2 and the gaps.
    in_xv, in_dv = in_p * (om_y - k_square) + in_q * k_square, in_p * (1 - om_x) + in_q * om_x
    in_k_square = (in_q - in_p) * xv - in_m
    in_om_x = in_m * om_y + (in_q - in_p) * dv - in_rho * rho / om_x
    in_om_y = in_m * om_x + in_p * xv + in_rho / om_x
    in_d = torch.addcmul(torch.addcmul(rho * scale * p * g, 2 * K * in_k_square, d), in_dv, v)
    grad_x = torch.addcmul(torch.addcmul(-in_d, -rho * scale * q, g), in_xv, v)
    grad_x = torch.addcmul(grad_x, 2 * K * in_om_x, x)
    grad_y = torch.addcmul(in_d, 2 * K * in_om_y, y)
    grad_v = torch.addcmul(torch.addcmul(rho * g, in_xv, x), in_dv, d)
    grad_K = 2 * rho * turn / m + in_k_square * dd + in_om_x * square(x) + in_om_y * square(y)
    return grad_x, grad_y, grad_v, grad_K.squeeze(-1)
