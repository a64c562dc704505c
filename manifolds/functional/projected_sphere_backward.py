"""Derivative of the distance of the projected sphere in closed form, for K >= 0.

Arguments and results as in `poincare_backward`; None as the gradient of a K that is a number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .projected_sphere import antipodal_gap, direction, half_angle
from .rows import square
from .signed_trigonometry import asin_ratio_derivative_k


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
