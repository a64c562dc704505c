"""Derivatives of the exponential and the distance of the projected sphere in closed form, for K >= 0.

Arguments and results as in `poincare_backward`; None as the gradient of a K that is a number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .projected_sphere import antipodal_gap, direction, half_angle, projected_exp_saving
from .rows import dot, square
from .signed_trigonometry import asin_ratio_derivative_k, sin_ratio_derivative_k


def projected_exp_backward(
    g: Tensor, x: Tensor, u: Tensor, K: float | Tensor, *saved: Tensor
) -> tuple[Tensor | None, ...]:
    """Of N/D with N = (cos(t) - 2K a) x + v: in x and v, and through a, om, t and K|x|^2."""
    om, cosine, square_sine, ratio, inverse, twice_a, scale = saved or projected_exp_saving(x, u, K)[1:]
    g = scale * g
    v = ratio * u
    gx, mixed = dot(g, x), K * twice_a
    in_D = scale * torch.addcmul(dot(g, v), cosine - mixed, gx)  # times -1: <g, y>
    in_mixed = in_D - gx
    in_cosine = torch.addcmul(gx, in_D, 2 - om, value=-0.5)
    lean = 2 * in_mixed / om
    q = torch.addcmul(g, lean * K, x)  # the gradient of v
    # In t, with a unit vector along u times om/(2 sqrt(K)). Nothing is as long as u, which may be as numbers are.
    unit = inverse * u
    in_t = torch.addcmul((cosine - ratio) * dot(q, unit), ratio / inverse, in_cosine, value=-1)
    in_om = -(mixed * in_mixed + in_t / inverse) / om
    in_square = torch.addcmul(in_om, in_D, square_sine, value=-1)  # of K|x|^2
    gu = torch.addcmul(ratio * q, 4 * K * in_t / om / om, unit)
    gx = torch.addcmul((cosine - mixed) * g, lean * K, v)
    gx = torch.addcmul(gx, 2 * K * in_square, x)
    if not isinstance(K, Tensor):
        return gx, gu, None
    # t^2/K, of which alone a derivative in K knows at K = 0.
    length = 4 * (square(u) / om / om).clamp(max=torch.finfo(u.dtype).max)
    z = K * length
    bend = torch.where(z < 1, 2 * sin_ratio_derivative_k(z.clamp_max(1), 1), (cosine - ratio) * inverse * inverse)
    through_t = 0.5 * length * (bend * dot(q, u) - ratio * in_cosine)
    return gx, gu, (in_mixed * twice_a + through_t + square(x) * in_square).squeeze(-1)


def projected_dist_backward(
    g: Tensor, x: Tensor, y: Tensor, K: float | Tensor, *saved: Tensor
) -> tuple[Tensor | None, ...]:
    """At either end 2/om times the direction away from the other point, which is relatively accurate next to the
    antipode too; zero at coincidence."""
    g = g.unsqueeze(-1)
    d, om_x, q, far, half = saved or half_angle(x, y, K)
    om_y = 1 + K * square(y)
    gx = _slope(g, direction(x, y, d, om_x, far, K), om_x)
    gy = _slope(g, direction(y, x, -d, om_y, far, K), om_y)
    if not isinstance(K, Tensor):
        return gx, gy, None
    root = q.sqrt()
    s = torch.where(far, 0.0, K * q)
    near = 2 * root * q * asin_ratio_derivative_k(s, 1)
    near = near - root * (1 - s).rsqrt() * (square(x) / om_x + square(y) / om_y)
    # By sine and cosine of half the angle, at fixed q and through it.
    cosine = torch.where(far, antipodal_gap(x, y, K) / (om_x * om_y), 1.0)
    opposite = cosine == 0
    through = torch.where(opposite, 0.0, root * torch.where(opposite, 1.0, cosine).rsqrt())
    safe = torch.where(far, K, 1.0)
    beyond = (through * ((1 - K * square(x) * (K * square(y))) / (om_x * om_y)) - half) / safe
    return gx, gy, (g * torch.where(far, beyond, near)).squeeze(-1)


def _slope(g: Tensor, towards: Tensor, om: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(towards, dim=-1, keepdim=True)
    return -2 * g / om / torch.where(length == 0, 1.0, length) * towards
