"""The shape to which others broadcast, and tensors in it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def broadcast_shape(*shapes: Sequence[int]) -> tuple[int, ...] | None:
    """The shape to which all of these broadcast, None if they do not.

    In eager mode ``torch.broadcast_shapes`` takes the time of ten launches, this one that of one.
    """
    if torch.compiler.is_compiling():  # torch knows what may be asked of a size that is not known yet
        try:
            return tuple(torch.broadcast_shapes(*shapes))
        except RuntimeError:
            return None
    whole = [1] * max(map(len, shapes), default=0)
    for shape in shapes:
        for i, n in enumerate(shape, len(whole) - len(shape)):
            if n != 1 and whole[i] != n:
                if whole[i] != 1:
                    return None
                whole[i] = n
    return tuple(whole)


def over_batch(u: Tensor, x: Tensor) -> Tensor:
    """`u` in the shape to which it and `x` broadcast, a view."""
    return u if u.shape == x.shape else u.expand(torch.broadcast_shapes(x.shape, u.shape))
