r"""Distance and logarithm of the Beltrami-Klein ball |x| < 1/sqrt(-K), and their backward passes in closed form.

With D = y - x and om(x) = 1 + K|x|^2 all is in ``N = om(x) |D|^2 - K <x, D>^2``, a sum of positive terms that is the
same seen from y, and the square of om(x) times the length of D at x: ``q = N/(om(x) om(y))`` is -1/K times the square
of the hyperbolic sine of sqrt(-K) d. Geodesics are straight, so that the logarithm is a multiple of D.

``klein_f_backward(g, x, y, K) -> (gx, gy, gK)``, all of one batch shape ``*B``; gK is the share of each row.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .poincare import rim_gap
from .rows import dot, square
from .series import safe_sqrt
from .signed_trigonometry import asin_ratio_derivative_k, asin_ratio_k


class Separation(NamedTuple):
    """Two points; scalars with a trailing one."""

    D: Tensor  # rows
    q: Tensor
    om_x: Tensor
    om_y: Tensor


def separation(x: Tensor, y: Tensor, K: float | Tensor) -> Separation:
    """No difference of large numbers is formed."""
    D, om_x, om_y = y - x, rim_gap(x, K), rim_gap(y, K)
    along = (-K) ** 0.5 * dot(x, D)  # the square of the product alone may overflow
    return Separation(D, (om_x * square(D) + along * along) / (om_x * om_y), om_x, om_y)


def klein_dist(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """asinh(sqrt(-K q))/sqrt(-K). ``*B,n; *B,n -> *B``."""
    q = separation(x, y, K).q
    return (safe_sqrt(q) * asin_ratio_k(K * q, -1)).squeeze(-1)


def klein_dist_backward(g: Tensor, x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor | None, ...]:
    """The unit tangent vectors at the ends, lowered: ``(D - K <x,D>/om(x) x)/sqrt(N)``; zero at coincidence."""
    a, g = separation(x, y, K), g.unsqueeze(-1)
    same = a.q == 0
    root = torch.where(same, 1.0, a.q).sqrt()
    scale = torch.where(same, 0.0, g / (root * (a.om_x * a.om_y).sqrt()))
    xD, yD = dot(x, a.D), dot(y, a.D)
    gx = -scale * torch.addcmul(a.D, K * xD / a.om_x, x, value=-1)
    gy = scale * torch.addcmul(a.D, K * yD / a.om_y, y, value=-1)
    if not isinstance(K, Tensor):
        return gx, gy, None
    # Of q in K: of |D|^2/om(y) - K <x,D>^2/(om(x) om(y)); no factor is a fourth power of the radius of curvature.
    bent = xD / root * (xD / a.om_x) / (a.om_x * a.om_y) + root * (square(y) / a.om_y)
    explicit = root * a.q * asin_ratio_derivative_k(K * a.q, -1)
    gK = g * (explicit - 0.5 * (1 - K * a.q).rsqrt() * bent)
    return gx, gy, torch.where(same, 0.0, gK).squeeze(-1)


def klein_log(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """asinh(s)/s sqrt(om(x)/om(y)) D, s = sqrt(-K q). ``*B,n; *B,n -> *B,n``."""
    a = separation(x, y, K)
    return asin_ratio_k(K * a.q, -1) * (a.om_x / a.om_y).sqrt() * a.D


def klein_log_backward(g: Tensor, x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor | None, ...]:
    """Of the ratio in q, the gaps and D."""
    a = separation(x, y, K)
    ratio, root, xD = asin_ratio_k(K * a.q, -1), (a.om_x / a.om_y).sqrt(), dot(x, a.D)
    gD = root * dot(g, a.D)
    in_s = gD * asin_ratio_derivative_k(K * a.q, -1)
    in_q, half = K * in_s, 0.5 * gD * ratio
    bent = K * xD / a.om_x / a.om_y
    in_om_x = half / a.om_x + in_q * bent * xD / a.om_x
    in_om_y = -(in_q * a.q + half) / a.om_y
    in_D = torch.addcmul(torch.addcmul(ratio * root * g, 2 * in_q / a.om_y, a.D), -2 * in_q * bent, x)
    gx = torch.addcmul(torch.addcmul(-in_D, -2 * in_q * bent, a.D), 2 * K * in_om_x, x)
    gy = torch.addcmul(in_D, 2 * K * in_om_y, y)
    if not isinstance(K, Tensor):
        return gx, gy, None
    through_om = in_om_x * square(x) + in_om_y * square(y)
    return gx, gy, (through_om + in_s * a.q - in_q * xD / a.om_x * (xD / a.om_y)).squeeze(-1)
