# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false
"""Functions of the numbers of a row that the Triton kernels share.

They keep their relative accuracy down to zero, and none branches on a value.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sinh_ratio(r, e):
    """sinh(r)/r, given e = exp(r)."""
    small = r < 1.0
    z = tl.where(small, r * r, 0.0)
    p = tl.full(z.shape, 1.0, tl.float32)
    for i in tl.static_range(6):  # leaves 1e-11 at r = 1
        p = 1 + z * p * (1.0 / ((12 - 2 * i) * (13 - 2 * i)))
    return tl.where(small, p, 0.5 * (e - 1 / e) / tl.where(small, 1.0, r))


@triton.jit
def sinh_ratio_derivative(r, cosh, ratio):
    """The derivative of sinh(r)/r in r^2: (cosh(r) - sinh(r)/r)/(2 r^2)."""
    small = r < 1.0
    z = tl.where(small, r * r, 0.0)
    p = tl.full(z.shape, 1.0, tl.float32)
    for i in tl.static_range(6):
        p = 1 + z * p * (1.0 / ((12 - 2 * i) * (15 - 2 * i)))
    w = tl.where(small, 1.0, r)
    return tl.where(small, p / 6, (cosh - ratio) / w * (0.5 / w))


# Below, z = s^2 < 1/4 takes the series, of which 12 terms leave less than 1e-8; above, no closed form cancels by more
# than a digit.


@triton.jit
def asinh_ratio(s):
    """asinh(s)/s for s >= 0."""
    small = s < 0.5
    z = tl.where(small, s * s, 0.0)
    p = tl.full(z.shape, 1.0, tl.float32)
    for i in tl.static_range(12):
        p = 1 - z * p * ((23 - 2 * i) * (23 - 2 * i) / ((24 - 2 * i) * (25 - 2 * i)))
    w = tl.where(small, 1.0, s)
    return tl.where(small, p, tl.log(w + tl.sqrt(1 + w * w)) / w)


@triton.jit
def log_ratio(s):
    """asinh(s)/(s sqrt(1 + s^2)): r/sinh(r) where s = sinh(r/2)."""
    return asinh_ratio(s) / tl.sqrt(1 + s * s)


@triton.jit
def log_ratio_relative_derivative(s, ratio):
    """The derivative of the logarithm of `log_ratio` in z = s^2: (1/ratio - (1 + 2z))/(2z (1 + z))."""
    small = s < 0.5
    z = tl.where(small, s * s, 0.0)
    p = tl.full(z.shape, 1.0, tl.float32)
    for i in tl.static_range(12):
        p = 1 - z * p * (2.0 * (13 - i) * (13 - i) / ((12 - i) * (27 - 2 * i)))
    w = tl.where(small, 1.0, s * s)
    return tl.where(small, p * (-2.0 / 3.0) / ratio, (1 / (1 + 2 * w) / ratio - 1) / w * ((0.5 + w) / (1 + w)))


@triton.jit
def asinh_excess(s, ratio, R):
    """R^3 (asinh(s) - s/sqrt(1 + s^2)), given asinh(s)/s; of a small s and a large R neither cube is formed."""
    small = s < 0.5
    z = tl.where(small, s * s, 0.0)
    p = tl.full(z.shape, 1.0, tl.float32)
    for i in tl.static_range(12):
        p = 1 - z * p * ((25 - 2 * i) * (25 - 2 * i) / ((24 - 2 * i) * (27 - 2 * i)))
    near = R * s * (R * s) * (R * s) * (p / 3)
    return tl.where(small, near, R * R * R * (s * (ratio - 1 / tl.sqrt(1 + s * s))))
