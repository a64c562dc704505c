"""Tables of Euclidean distances by torch's own loop, where no derivative is wanted."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import pairwise
from .pairwise import _filled, table
from .series import safe_norm
from .tracing import eager_without_derivative

_LONGEST = 4096  # its loop adds up one term after another, which loses digits in longer vectors


def euclidean_table(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j| for all i, j. ``(*B,N,n), (*B,M,n) -> *B,N,M``, in the memory of `table`."""
    if not (_is_plain(x) and _is_plain(y)) or not 0 < x.shape[-1] <= _LONGEST or 0 in (*x.shape, *y.shape):
        return table(_distance, x, y, 1)
    batch = math.prod(torch.broadcast_shapes(x.shape[:-2], y.shape[:-2]))
    points = max(1, pairwise._TILE // (batch * x.shape[-1]))
    side = max(1, math.isqrt(pairwise._WHOLE * pairwise._TILE // batch))
    sizes = min(x.shape[-2], points, side), min(y.shape[-2], points, side)
    if sizes == (x.shape[-2], y.shape[-2]):
        return _scaled_table(x, y)
    return _filled(_scaled_table, x, y, -2, sizes)


def _is_plain(x: Tensor) -> bool:
    """Whether no derivative, no transform, no mode and no subclass with operations of its own asks for the formula."""
    keys = torch._C._dispatch_keys(x)
    own = keys.has(torch._C.DispatchKey.Python) or torch._C._len_torch_dispatch_stack() > 0
    return eager_without_derivative(x) and not own


def _distance(x: Tensor, y: Tensor) -> Tensor:
    return safe_norm(x - y)


def _scaled_table(x: Tensor, y: Tensor) -> Tensor:
    """By torch's loop, of entries times a power of two that keeps all squares of differences normal numbers. Where
    there is none, of numbers of too different sizes or not finite, by `table`."""
    info = torch.finfo(x.dtype)
    low, high = _range(x, y)
    least = 2 * math.sqrt(info.tiny) / info.eps  # numbers from there on differ by sqrt(tiny), or not at all
    most = 0.25 * math.sqrt(info.max / x.shape[-1])
    if not high < math.inf or low * (most / 4) < least * high:
        return table(_distance, x, y, 1)
    if least <= low and high <= most:
        return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    power = math.floor(math.log2(most)) - math.frexp(high)[1]
    x, y = (_times(z, power) for z in (x, y))
    return _times(torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist"), -power)


def _range(x: Tensor, y: Tensor) -> tuple[float, float]:
    """The smallest size of an entry that is not zero, and the largest; one and one of zeros."""
    sizes = [z.abs() for z in (x, y)]
    highest = [z.amax() for z in sizes]
    lowest = [torch.where(z == 0, torch.inf, z).amin() for z in sizes]
    a, b, c, d = torch.stack([*lowest, *highest]).tolist()
    high = a + b + c + d if math.isnan(c + d) else max(c, d)
    return (1.0, 1.0) if high == 0 else (min(a, b), high)


def _times(z: Tensor, power: int) -> Tensor:
    """z 2^power, in two steps, since the power itself may leave the range of numbers."""
    half = power // 2
    return z * 2.0**half * 2.0 ** (power - half)
