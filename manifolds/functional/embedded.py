"""The metric of the surrounding flat space, used by every space that is isometrically embedded."""

from __future__ import annotations

import torch
from torch import Tensor

from .series import safe_norm


def embedded_inner(x: Tensor, u: Tensor, v: Tensor | None, ndim: int, keepdim: bool) -> Tensor:
    """sum(u * v) over the last `ndim` dimensions, broadcast over the batch of x, u and v."""
    v = u if v is None else v
    shape = torch.broadcast_shapes(x.shape, u.shape, v.shape)
    return (u * v).expand(shape).sum(tuple(range(-ndim, 0)), keepdim=keepdim)


def embedded_norm(x: Tensor, u: Tensor, ndim: int, keepdim: bool) -> Tensor:
    """The Frobenius norm of u, broadcast over the batch of x and u, without underflow."""
    u = u.expand(torch.broadcast_shapes(x.shape, u.shape))
    return safe_norm(u, dim=tuple(range(-ndim, 0)), keepdim=keepdim)
