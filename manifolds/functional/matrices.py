"""Algebra of square matrices."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def identity_like(m: Tensor) -> Tensor:
    """The identity with as many columns. ``*B,n,n -> n,n``."""
    return torch.eye(m.shape[-1], dtype=m.dtype, device=m.device)


def check_matrices(name: str, x: Tensor) -> None:
    """Raise unless `x` is a floating-point tensor of square matrices, of at least one row."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name}: x must be a tensor, got {type(x).__name__}; convert it with torch.as_tensor")
    if x.dim() < 2 or x.shape[-1] != x.shape[-2] or x.shape[-1] == 0 or not x.is_floating_point():
        raise ValueError(f"{name}: x must be real matrices *B,n,n, n > 0, got shape {tuple(x.shape)} of {x.dtype}")


def check_number(name: str, argument: str, given: object, whole: bool = False) -> None:
    """Raise unless an argument is one real, or `whole`, number, be it in a tensor without a derivative."""
    if isinstance(given, Tensor):
        if given.dim() > 0 or given.requires_grad:
            raise ValueError(
                f"{name}: {argument} must be one number for the whole batch, without a derivative, got a tensor of "
                f"shape {tuple(given.shape)}; call it for each number"
            )
        given = given.item()
    kinds = (int, np.integer) if whole else (int, np.integer, float, np.floating)
    if isinstance(given, bool) or not isinstance(given, kinds) or given != given:
        raise ValueError(f"{name}: {argument} must be a {'whole' if whole else 'real'} number, got {given!r}")


def sym(m: Tensor) -> Tensor:
    """(M + M^T)/2. ``*B,n,n``."""
    return 0.5 * (m + m.mT)


def skew(m: Tensor) -> Tensor:
    """(M - M^T)/2. ``*B,n,n``."""
    return 0.5 * (m - m.mT)


def congruent(a: Tensor, m: Tensor) -> Tensor:
    """A M A^T of the symmetric part of M, symmetric to the bit. ``*B,n,n``."""
    return sym(a @ m @ a.mT)


def scaled_parts(m: Tensor, traceless: float, spherical: float) -> Tensor:
    """One number times the traceless part of M, and another times the rest, the multiple (tr M/n) I of the identity.
    ``*B,n,n``."""
    if traceless == spherical:
        return m if traceless == 1 else traceless * m
    mean = m.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    return traceless * m + (spherical - traceless) * mean * identity_like(m)


def rows_of_triangle(v: Tensor) -> int:
    """The n of a vector ``*B,n(n+1)/2``.

    Raises ``ValueError`` if its length is none of these numbers.
    """
    count = v.shape[-1]
    n = (math.isqrt(8 * count + 1) - 1) // 2
    if n == 0 or n * (n + 1) // 2 != count:
        raise ValueError(
            f"a symmetric matrix has n(n+1)/2 coordinates (1, 3, 6, 10, ...), got {count} of shape {tuple(v.shape)}"
        )
    return n


def symmetric_vector(m: Tensor) -> Tensor:
    """The upper triangle row by row, entries off the diagonal times sqrt 2: |v| is the Frobenius norm of a symmetric
    matrix. ``*B,n,n -> *B,n(n+1)/2``."""
    n = m.shape[-1]
    i, j = torch.triu_indices(n, n, device=m.device).unbind(0)
    entries = m.flatten(-2).index_select(-1, i * n + j)
    return torch.where(i == j, entries, math.sqrt(2.0) * entries)


def symmetric_from_vector(v: Tensor) -> Tensor:
    """The symmetric matrix of `symmetric_vector`. ``*B,n(n+1)/2 -> *B,n,n``."""
    n = rows_of_triangle(v)
    k = torch.arange(n, device=v.device)
    i, j = torch.minimum(k, k.unsqueeze(-1)), torch.maximum(k, k.unsqueeze(-1))
    place = i * (2 * n - 1 - i) // 2 + j  # of entry i <= j among the rows of the triangle
    weights = torch.full((n, n), math.sqrt(0.5), dtype=v.dtype, device=v.device).fill_diagonal_(1)
    return weights * v.index_select(-1, place.flatten()).unflatten(-1, (n, n))
