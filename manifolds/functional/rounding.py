"""Points in a dtype of fewer digits, in which they are points as well.

Rounding to the nearest numbers may lengthen a vector by half an eps, which leads out of a ball and past the largest
number of a dtype. What is a point after rounding to nearest is rounded so, and nothing else is done to it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..precision import widen
from .compensated import conformal_gap
from .lorentz import space, time_at_length
from .poincare import poincare_inside
from .series import safe_norm


def towards_zero(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` in `dtype`, no entry of larger magnitude than before: the nearest number, or where that is farther from zero
    than `x`, the one before it.

    So a vector never grows, in any dimension and among subnormal numbers too. It shrinks by no more than eps of its
    length, and sqrt(n) times the least positive number. A factor 1 - c eps on all entries would do as well, but c has
    to grow with sqrt(n) where entries are subnormal, and takes from points that need not be moved so far.
    """
    info = torch.finfo(dtype)
    nearest = within_numbers(x, dtype).to(dtype)
    wide = nearest.to(x.dtype)
    # 0.6 of eps times a number, which is 0.6 to 1.2 of the spacing there, leads to the number before it and no further,
    # also from a power of two, below which the spacing is half of that above.
    spacing = (info.eps * wide.abs()).clamp_min(info.tiny * info.eps)
    before = (wide - 0.6 * wide.sign() * spacing).to(dtype)
    return torch.where(wide.abs() > x.abs(), before, nearest)


def within_numbers(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` with its finite entries no larger than the largest number of `dtype`."""
    limit = torch.finfo(dtype).max
    return torch.where(x.isinf(), x, x.clamp(-limit, limit))


def ball_rounded(x: Tensor, K: float | Tensor, dtype: torch.dtype) -> Tensor:
    """Points of the ball |x| < 1/sqrt(-K): the nearest numbers, or where these are outside, those towards zero."""
    x = x.to(widen(x, dtype))
    if isinstance(K, Tensor) and K.dtype != widen(dtype):
        K = K.to(widen(dtype))  # the curvature that these points will meet, of a ball that is smaller or larger
        x = poincare_inside(x, K)
    nearest = x.to(dtype)
    fixed = K.detach() if isinstance(K, Tensor) else K
    inside = conformal_gap(nearest.detach().to(x.dtype), fixed, -1) > 0
    return torch.where(inside, nearest, towards_zero(x, dtype))


def space_rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Points of all of R^n: the nearest numbers, no larger than the largest one."""
    return within_numbers(x.to(widen(x, dtype)), dtype).to(dtype)


def sheet_rounded(x: Tensor, K: float | Tensor, dtype: torch.dtype) -> Tensor:
    """Points of the hyperboloid: the nearest numbers, or where none is as large as the time, those of the point with
    the largest time on the same ray from the origin."""
    x = x.to(widen(x, dtype))
    info = torch.finfo(dtype)
    largest = (1 - info.eps) * info.max
    s, t = space(x), time_at_length(space(x), K)
    far = (t > largest) & t.isfinite()
    ratio = 1 + 1 / (K * largest) / largest
    length = largest * (ratio.clamp_min(0) if isinstance(ratio, Tensor) else max(ratio, 0.0)) ** 0.5
    drawn = s * (length / torch.where(far, safe_norm(s, keepdim=True), length))
    return torch.where(far, torch.cat([time_at_length(drawn, K), drawn], -1), x).to(dtype)
