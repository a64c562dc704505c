"""Algebra of square matrices."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def identity_like(m: Tensor) -> Tensor:
    """The identity with as many columns. ``*B,n,n -> n,n``."""
    return torch.eye(m.shape[-1], dtype=m.dtype, device=m.device)


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


def symmetric_vector(m: Tensor) -> Tensor:
    """The upper triangle row by row, entries off the diagonal times sqrt 2: |v| is the Frobenius norm of a symmetric
    matrix. ``*B,n,n -> *B,n(n+1)/2``."""
    n = m.shape[-1]
    i, j = torch.triu_indices(n, n, device=m.device).unbind(0)
    entries = m.flatten(-2).index_select(-1, i * n + j)
    return torch.where(i == j, entries, math.sqrt(2.0) * entries)


def symmetric_from_vector(v: Tensor) -> Tensor:
    """The symmetric matrix of `symmetric_vector`. ``*B,n(n+1)/2 -> *B,n,n``."""
    n = (math.isqrt(8 * v.shape[-1] + 1) - 1) // 2
    k = torch.arange(n, device=v.device)
    i, j = torch.minimum(k, k.unsqueeze(-1)), torch.maximum(k, k.unsqueeze(-1))
    place = i * n - i * (i - 1) // 2 + j - i  # of entry i <= j among the rows of the triangle
    entries = v.index_select(-1, place.flatten()).unflatten(-1, (n, n))
    return torch.where(i == j, entries, math.sqrt(0.5) * entries)
