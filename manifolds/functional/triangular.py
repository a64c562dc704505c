"""Lower triangular matrices: their diagonals, their numbers as vectors, and the products L L^T."""

from __future__ import annotations

import torch
from torch import Tensor

from .matrices import identity_like, rows_of_triangle, sym


def diagonal(L: Tensor) -> Tensor:
    """``*B,n,n -> *B,n``."""
    return L.diagonal(dim1=-2, dim2=-1)


def with_diagonal(M: Tensor, d: Tensor) -> Tensor:
    """M with d on the diagonal. ``*B,n,n; *B,n -> *B,n,n``; the batch of M may be the smaller one."""
    return torch.diagonal_scatter(M.expand(*d.shape, d.shape[-1]), d, dim1=-2, dim2=-1)


def half(M: Tensor) -> Tensor:
    """The lower triangle of finite M with half of the diagonal: ``half(M) + half(M)^T = M`` for symmetric M.
    ``*B,n,n``."""
    weights = torch.full(M.shape[-2:], 0.5, dtype=M.dtype, device=M.device)
    return M * (weights.tril() + weights.tril(-1))  # in a fifth of the time of two triangles of a batch


def lower_inverse(L: Tensor) -> Tensor:
    """L^-1. ``*B,n,n``."""
    # The transpose, by a solve from the right: LAPACK takes half the time of one from the left.
    return torch.linalg.solve_triangular(L.mT, identity_like(L), upper=True, left=False).mT


def whitened(L: Tensor, Q: Tensor) -> Tensor:
    """L^-1 Q L^-T of the symmetric part of Q. ``*B,n,n``."""
    left = torch.linalg.solve_triangular(L, Q.mT, upper=False)  # stored by columns, as LAPACK takes it
    return sym(torch.linalg.solve_triangular(L.mT, left, upper=True, left=False))


def product(L: Tensor) -> Tensor:
    """L L^T. ``*B,n,n``."""
    return sym(L @ L.mT)


def product_derivative(L: Tensor, X: Tensor) -> Tensor:
    """L X^T + X L^T. ``*B,n,n``."""
    one = X @ L.mT
    return one + one.mT


def stacked(*matrices: Tensor) -> Tensor:
    """One batch of matrices of one shape, stored by columns, as LAPACK stores factors. ``-> k,*B,n,n``."""
    return torch.stack([m.mT for m in matrices]).mT


def numbers(L: Tensor) -> Tensor:
    """The lower triangle, row by row. ``*B,n,n -> *B,n(n+1)/2``."""
    return L.flatten(-2).index_select(-1, _places(L.shape[-1], L.device))


def from_numbers(y: Tensor) -> Tensor:
    """The lower triangular matrix. ``*B,n(n+1)/2 -> *B,n,n``."""
    n = rows_of_triangle(y)
    empty = y.new_zeros(*y.shape[:-1], n * n)
    return empty.index_add(-1, _places(n, y.device), y).unflatten(-1, (n, n))


def _places(n: int, device: torch.device) -> Tensor:
    i, j = torch.tril_indices(n, n, device=device)
    return n * i + j
