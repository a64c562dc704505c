r"""Hyperbolic space in Lorentz coordinates as seen from its origin: normal coordinates, gyro-operations, frames.

Names and scales as in `lorentz`: K < 0 is the curvature, R = 1/sqrt(-K), and times are in units of R.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .lorentz import (
    cosh_and_ratio,
    over_radius,
    radius,
    separation,
    space,
    with_known_part,
)
from .rows import dot, square
from .signed_trigonometry import asin_ratio_k

# ---- normal coordinates ---------------------------------------------------------------------------------------


def point_from_normal(z: Tensor, K: float | Tensor) -> Tensor:
    """``(R cosh r, sinh(r)/r z)`` with r = |z|/R: the point with normal coordinates z. ``*B,n -> *B,n+1``."""
    cosh, ratio = cosh_and_ratio(-K * square(z))
    return torch.cat([cosh * radius(K), ratio * z], -1)


def normal_from_point(x: Tensor, K: float | Tensor) -> Tensor:
    """``asinh(|s|/R)/(|s|/R) s``: normal coordinates of x. ``*B,n+1 -> *B,n``."""
    s = space(x)
    overflow = (K * square(s.detach())).isinf()
    # There asinh is log(2|s|/R) to rounding, of s over its largest entry, whose square has a derivative.
    largest = torch.where(overflow, s.detach().abs().amax(-1, keepdim=True), 1.0)
    s = s / largest
    q = K * square(s)
    far = torch.where(overflow, -q, 1.0)
    length = 0.5 * far.log() + (largest.log() + math.log(2))
    near = asin_ratio_k(torch.where(overflow, -1.0, q), -1)
    return torch.where(overflow, length * far.rsqrt(), near) * s


# ---- gyro-operations and frames -----------------------------------------------------------------------------------


def lorentz_gyrodiff(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """``(-)x (+) y``, the boost of y that brings x to the origin. ``*B,n+1; *B,n+1 -> *B,n+1``."""
    a = separation(space(x), space(y), K)
    xs, twice = space(x), 2 * a.S
    shift = a.alike - 1 - (a.time_difference + twice) / (a.tx + 1)
    z = torch.addcmul(a.difference, xs, shift)
    z = with_known_part(z, xs, a.time_difference / a.tx - twice, a.tx, K)
    return torch.cat([radius(K) * (1 + twice), z], -1)


def lorentz_gyroadd(x: Tensor, y: Tensor, K: float | Tensor) -> Tensor:
    """``x (+) y``, the boost of y that brings the origin to x. ``*B,n+1; *B,n+1 -> *B,n+1``."""
    return lorentz_gyrodiff(-x, y, K)


def lorentz_transport_normal(x: Tensor, y: Tensor, z: Tensor, K: float | Tensor) -> Tensor:
    r"""Transport from x to y in frame coordinates, ``gyr[y, (-)x] z``: a rotation in the plane of x and y.

    With the points p, q of the Poincare ball and w z = p <q, z> - q <p, z>:
    ``z + 2/|1 - p q|^2 ((1 - <p, q>) w z + w^2 z)``, where ``|1 - p q|^2 = 4(1 + S)/((1 + t_x/R)(1 + t_y/R))``. None of
    the sums cancels. ``*B,n+1; *B,n+1; *B,n -> *B,n``.
    """
    a = separation(space(x), space(y), K)
    s, q = space(x), a.perpendicular
    # The plane is spanned by x and the perpendicular q, made of the size of ball points.
    px, py = a.tx + 1, a.ty + 1
    qz, xz = dot(q, z) / py, dot(s, z) / px
    qq, xx = -K * square(q) / py / py, (a.tx - 1) / px
    xq = (a.time_difference / a.tx - 2 * a.S) / px / py
    whole = 2 * (1 + a.S)
    once = -K * ((a.tx + a.ty) / whole + 1)
    twice = -K / (whole / px / py)  # of a quotient that is neither small nor large
    on_x = (twice * (qz * xq - xz * qq) + once * qz) / px
    on_q = (twice * (xz * xq - qz * xx) - once * xz) / py
    return torch.addcmul(torch.addcmul(z, s, on_x), q, on_q)


def lorentz_gyration_normal(x: Tensor, y: Tensor, z: Tensor, K: float | Tensor) -> Tensor:
    """``gyr[x, y] z`` of normal coordinates z. ``*B,n+1; *B,n+1; *B,n -> *B,n``."""
    return lorentz_transport_normal(-y, x, z, K)


def tangent_from_frame(x: Tensor, z: Tensor, K: float | Tensor) -> Tensor:
    """The tangent vector at x with frame coordinates z: ``z + <s, z>/(R (R + t)) s``. ``*B,n+1; *B,n -> *B,n+1``."""
    s = space(x)
    along = dot(s, z)
    over = along / (1 + over_radius(square(s), K))
    return torch.cat([along * (-K) ** 0.5, z - K * over * s], -1)


def frame_from_tangent(x: Tensor, u: Tensor, K: float | Tensor) -> Tensor:
    """Frame coordinates ``u_s - <s, u_s>/(t (R + t)) s`` of the tangent vector u at x. ``*B,n+1 -> *B,n``."""
    s, v = space(x), space(u)
    t = over_radius(square(s), K)
    along = K * dot(s / t, v)  # a product of the coordinates themselves overflows for a long vector far out
    return with_known_part(v + along / (1 + t) * s, s, -along / t, t, K)
