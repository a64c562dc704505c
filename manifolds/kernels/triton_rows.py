# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false
"""The launch of Triton kernels of rows with one option, and what they load.

A program holds a tile of whole rows in registers: every input is read once and every output written once. Arithmetic
is in float32, whatever the dtype that is read.
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


def forward_launcher(kernel: Any, *, scalar: bool = False, skip: int = 0) -> Callable[..., Tensor]:
    """The function ``(*tensors, option, value) -> result`` that runs `kernel`, whose tile leaves out `skip` columns of
    a row. The option is a tensor, or else None and the value counts. A `scalar` result has one number a row."""

    def run(*arguments: Any) -> Tensor:
        *tensors, option, value = arguments
        x = tensors[0]
        result = x.new_empty(x.shape[:-1] if scalar else x.shape)
        _launch(kernel, tensors, [result], x.shape[-1] - skip, option, value)
        return result

    return run


def backward_launcher(kernel: Any, *, scalar: bool = False, skip: int = 0) -> Callable[..., tuple[Tensor, ...]]:
    """The function ``(gradient, *tensors, option, value) -> (*gradients, the option's row by row)``, the last one empty
    unless the option is a tensor."""

    def run(*arguments: Any) -> tuple[Tensor, ...]:
        g, *tensors, option, value = arguments
        x = tensors[0]
        gradients = [x.new_empty(x.shape) for _ in tensors]
        rows = x.new_empty((0,) if option is None else x.shape[:-1], dtype=torch.float32)
        inputs = [g.unsqueeze(-1) if scalar else g, *tensors]
        _launch(kernel, inputs, [*gradients, rows], x.shape[-1] - skip, option, value)
        return (*gradients, rows)

    return run


def _launch(
    kernel: Any, inputs: list[Tensor], outputs: list[Tensor], width: int, option: Tensor | None, value: float
) -> None:
    matrices = [_rows(x) for x in inputs]
    n = matrices[0].shape[0]
    block = triton.next_power_of_2(width)
    rows = max(1, min(TILE // block, 128))
    high = _rounded(value)
    with torch.cuda.device_of(inputs[0]):
        kernel[(triton.cdiv(n, rows),)](
            *matrices,
            *outputs,
            inputs[0] if option is None else option,
            *[x.stride(0) for x in matrices],
            high,
            value - high,
            n,
            width,
            OPTION_IS_TENSOR=option is not None,
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
def load_option(pointer, high, low, OPTION_IS_TENSOR: tl.constexpr):
    """The option in float64. A tensor is read on the device, so that the host need not wait for it; a number comes as
    the sum of two, since Triton passes floats in single precision, whose rounding may be seen."""
    if OPTION_IS_TENSOR:
        return tl.load(pointer).to(tl.float64)
    else:
        return tl.cast(high, tl.float64) + tl.cast(low, tl.float64)


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
def load_row(pointer, stride, row, column, mask):
    """The tile of rows that lie `stride` numbers apart."""
    return load(pointer, row[:, None] * stride + column[None, :], mask)


@triton.jit
def store_packed(pointer, row, column, width, mask, value):
    """Write a tile of rows of `width` numbers, packed."""
    tl.store(pointer + row[:, None] * width + column[None, :], value, mask=mask)
