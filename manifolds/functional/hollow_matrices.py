"""Symmetric matrices with zeros on the diagonal: their coordinates, and the quadratic forms that are invariant under
permutations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .matrices import rows_of_triangle
from .triangular import with_diagonal

# Of the three parts of a hollow matrix X that permutations map to themselves: the one with X 1 = 0, the one of matrices
# v 1^T + 1 v^T off the diagonal with sum v = 0, and the one with all entries equal.
Factors = tuple[float, float, float]


def hollow_vector(X: Tensor) -> Tensor:
    """The entries below the diagonal, row by row, times sqrt 2: |y| is the Frobenius norm. ``*B,n,n ->
    *B,n(n-1)/2``."""
    n = X.shape[-1]
    i, j = torch.tril_indices(n, n, -1, device=X.device)
    return math.sqrt(2.0) * X.flatten(-2).index_select(-1, n * i + j)


def hollow_from_vector(y: Tensor) -> Tensor:
    """The matrix of `hollow_vector`. ``*B,n(n-1)/2 -> *B,n,n``."""
    n = rows_of_triangle(y) + 1
    k = torch.arange(n, device=y.device)
    i, j = torch.maximum(k, k.unsqueeze(-1)), torch.minimum(k, k.unsqueeze(-1))
    place = torch.where(i == j, 0, i * (i - 1) // 2 + j)
    entries = y.index_select(-1, place.flatten()).unflatten(-1, (n, n))
    return torch.where(i == j, 0.0, math.sqrt(0.5) * entries)


def form_factors(alpha: float, beta: float, gamma: float, n: int) -> Factors:
    """What ``alpha tr X^2 + beta |X 1|^2 + gamma (1^T X 1)^2`` multiplies the squared norm of each of the three parts
    by. Of two rows there is the last part only, of three the last two: those that are lacking get the factor of the
    next."""
    last = alpha + (n - 1) * (beta + n * gamma)
    middle = alpha + 0.5 * (n - 2) * beta if n > 2 else last
    return alpha if n > 3 else middle, middle, last


def scaled_subspaces(X: Tensor, factors: Factors, power: float) -> Tensor:
    """The hollow X with each of the three parts times that power of its factor. ``*B,n,n``."""
    first, middle, last = (factor**power for factor in factors)
    if first == middle == last:
        return X if first == 1 else first * X
    n = X.shape[-1]
    sums = X.sum(-1)
    mean = sums.mean(-1, keepdim=True)
    v = (middle - first) / max(n - 2, 1) * (sums - mean) + 0.5 * (last - first) / (n - 1) * mean
    return first * X + with_diagonal(v.unsqueeze(-1) + v.unsqueeze(-2), torch.zeros_like(v))
