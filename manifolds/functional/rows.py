"""Algebra of rows: scalar products over the last dimension, which is kept with the length one."""

from __future__ import annotations

import torch
from torch import Tensor

from .tracing import eager_without_derivative


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean scalar products of rows. ``*B,n; *B,n -> *B,1``."""
    return (a * b).sum(-1, keepdim=True)


def square(a: Tensor) -> Tensor:
    """Squared Euclidean lengths of rows. ``*B,n -> *B,1``."""
    if not eager_without_derivative(a):
        return a.square().sum(-1, keepdim=True)
    # Without an intermediate: a quarter to a third of the time.
    return torch.linalg.vector_norm(a, dim=-1, keepdim=True).square()


def times(a: Tensor, number: float | Tensor) -> Tensor:
    """number a; `a` itself where that is the number one, at no launch."""
    return a if not isinstance(number, Tensor) and number == 1 else number * a


def times_added(a: Tensor, b: Tensor, factor: float | Tensor, by: float = 1) -> Tensor:
    """``a + by factor b``, in one launch; `factor` is a number or a 0-dim tensor."""
    return torch.addcmul(a, b, factor, value=by) if isinstance(factor, Tensor) else torch.add(a, b, alpha=by * factor)


def unit_vector(index: int | Tensor, like: Tensor) -> Tensor:
    """The coordinate vector with that `index`, a number or ``*B,1``, in the space of the rows of `like`.

    Unlike torch's `one_hot` it looks at no value, so that it can stand under nested transforms.
    """
    return (torch.arange(like.shape[-1], device=like.device) == index).to(like.dtype)
