# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false
"""What the Triton kernels share: the launch, and scalar functions of a row.

A program holds a tile of whole rows in registers: every input is read once and every output written once. Arithmetic
is in float32, whatever the dtype that is read; only the conformal gap of a ball adds up in float64. The scalar
functions keep their relative accuracy down to zero, and none branches on a value.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 512  # numbers in a tile of short rows: four a thread, since every thread of a row holds the scalars of the row


def value_launcher(kernel: Any, *, scalar: bool = False, skip: int = 0) -> Callable[..., Tensor]:
    """The function ``(*tensors, curvature, fixed) -> value`` that runs `kernel`, whose tile leaves out `skip` columns
    of a row."""

    def run(*arguments: Any) -> Tensor:
        *tensors, curvature, fixed = arguments
        x = tensors[0]
        value = x.new_empty(x.shape[:-1] if scalar else x.shape)
        _launch(kernel, tensors, [value], x.shape[-1] - skip, curvature, fixed)
        return value

    return run


def slope_launcher(kernel: Any, *, scalar: bool = False, skip: int = 0) -> Callable[..., tuple[Tensor, ...]]:
    """The function ``(g, *tensors, curvature, fixed) -> (*gradients, gradient in K row by row)``, which is empty unless
    the curvature is a tensor."""

    def run(*arguments: Any) -> tuple[Tensor, ...]:
        g, *tensors, curvature, fixed = arguments
        x = tensors[0]
        gradients = [x.new_empty(x.shape) for _ in tensors]
        rows = x.new_empty((0,) if curvature is None else x.shape[:-1], dtype=torch.float32)
        inputs = [g.unsqueeze(-1) if scalar else g, *tensors]
        _launch(kernel, inputs, [*gradients, rows], x.shape[-1] - skip, curvature, fixed)
        return (*gradients, rows)

    return run


def _launch(
    kernel: Any, inputs: list[Tensor], outputs: list[Tensor], width: int, curvature: Tensor | None, fixed: float
) -> None:
    matrices = [_rows(x) for x in inputs]
    n = matrices[0].shape[0]
    block = triton.next_power_of_2(width)
    rows = max(1, min(TILE // block, 128))
    high = _rounded(fixed)
    with torch.cuda.device_of(inputs[0]):
        kernel[(triton.cdiv(n, rows),)](
            *matrices,
            *outputs,
            inputs[0] if curvature is None else curvature,
            *[x.stride(0) for x in matrices],
            high,
            fixed - high,
            n,
            width,
            K_IS_TENSOR=curvature is not None,
            ROWS=rows,
            BLOCK=block,
            num_warps=4 if block <= 1024 else 8,
            enable_fp_fusion=True,
        )


def _rows(x: Tensor) -> Tensor:
    """`x` as a matrix whose rows are contiguous: a view wherever there is one, of broadcast rows too."""
    if x.shape[-1] > 1 and x.stride(-1) != 1:
        x = x.contiguous()
    return x.reshape(-1, x.shape[-1])


def _rounded(value: float) -> float:
    return struct.unpack("f", struct.pack("f", value))[0]


@triton.jit
def load_c(k_ptr, high, low, K_IS_TENSOR: tl.constexpr):
    """c = -K in float64. A tensor is read on the device, so that the host need not wait for it; a number comes as the
    sum of two, since Triton passes floats in single precision, of which the rim of a ball sees the rounding."""
    if K_IS_TENSOR:
        return -tl.load(k_ptr).to(tl.float64)
    else:
        return -(tl.cast(high, tl.float64) + tl.cast(low, tl.float64))


@triton.jit
def tile(n, width, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Row numbers, column numbers, the mask of the rows and that of the tile."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # 64 bits: an offset may pass 2^31
    column = tl.arange(0, BLOCK)
    live = row < n
    return row, column, live, live[:, None] & (column < width)[None, :]


@triton.jit
def load(pointer, offset, mask):
    """The numbers at these offsets in float32, 0 where the mask is false."""
    return tl.load(pointer + offset, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def dot(x, y):
    """<x, y> of each row of a tile."""
    return tl.sum(x * y, axis=1)


@triton.jit
def divide(a, b):
    """a/b, and 0 where b = 0."""
    zero = b == 0
    return tl.where(zero, 0.0, a / tl.where(zero, 1.0, b))


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
def sinh_ratio_slope(r, cosh, ratio):
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
def log_ratio_slope(s, ratio):
    """The derivative of `log_ratio` in z = s^2: (1 - ratio (1 + 2z))/(2z (1 + z))."""
    small = s < 0.5
    z = tl.where(small, s * s, 0.0)
    p = tl.full(z.shape, 1.0, tl.float32)
    for i in tl.static_range(12):
        p = 1 - z * p * (2.0 * (13 - i) * (13 - i) / ((12 - i) * (27 - 2 * i)))
    w = tl.where(small, 1.0, s * s)
    return tl.where(small, p * (-2.0 / 3.0), (1 / (1 + 2 * w) - ratio) / w * ((0.5 + w) / (1 + w)))


@triton.jit
def asinh_excess(s, ratio):
    """asinh(s) - s/sqrt(1 + s^2), given asinh(s)/s."""
    small = s < 0.5
    z = tl.where(small, s * s, 0.0)
    p = tl.full(z.shape, 1.0, tl.float32)
    for i in tl.static_range(12):
        p = 1 - z * p * ((25 - 2 * i) * (25 - 2 * i) / ((24 - 2 * i) * (27 - 2 * i)))
    return s * tl.where(small, z * p / 3, ratio - 1 / tl.sqrt(1 + s * s))
