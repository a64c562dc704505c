"""Symmetric matrices with row sums zero, ``S = F Z F^T``, and the quadratic forms that are invariant under
permutations."""

from __future__ import annotations

import torch
from torch import Tensor

from .matrices import congruent, identity_like
from .triangular import diagonal

# Of the three parts of S that permutations map to themselves: the one with a zero diagonal, the one of matrices
# F F^T diag(v) F F^T with sum v = 0, and the one of multiples of F F^T.
Factors = tuple[float, float, float]


def zero_sum_basis(n: int, like: Tensor) -> Tensor:
    """F, orthonormal columns that are orthogonal to the vector of ones: of the reflection that takes the first axis to
    it, all but the first. ``n,n-1``."""
    root = n**0.5
    F = torch.eye(n, dtype=torch.float64, device=like.device)[:, 1:] - 1 / (n - root)
    return torch.cat([torch.full_like(F[:1], 1 / root), F[1:]]).to(like.dtype)


def form_factors(alpha: float, delta: float, zeta: float, n: int) -> Factors:
    """What ``alpha tr S^2 + delta tr Diag(S)^2 + zeta (tr S)^2`` multiplies the squared norm of each of the three parts
    by. Of two rows there is the last part only, of three the last two: those that are lacking get the factor of the
    next."""
    last = alpha + (n - 1) * (delta / n + zeta)
    middle = alpha + (n - 2) / n * delta if n > 2 else last
    return alpha if n > 3 else middle, middle, last


def scaled_subspaces(Z: Tensor, factors: Factors, power: float) -> Tensor:
    """The Z of S with each of the three parts times that power of its factor. ``*B,n-1,n-1``."""
    first, middle, last = (factor**power for factor in factors)
    if first == middle == last:
        return Z if first == 1 else first * Z
    n = Z.shape[-1] + 1
    F = zero_sum_basis(n, Z)
    entries = diagonal(congruent(F, Z))
    mean = entries.mean(-1, keepdim=True)
    v = (middle - first) * n / max(n - 2, 1) * (entries - mean)
    multiple = (last - first) * n / (n - 1) * mean
    return first * Z + F.mT @ (v.unsqueeze(-1) * F) + multiple.unsqueeze(-1) * identity_like(Z)
