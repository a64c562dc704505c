r"""Correlation matrices by their unit triangular factor, the Cholesky factor over its diagonal: ``I + S = D(L)^-1 L``.

The rows of the factor L of a correlation matrix have length one, so that they are those of I + S over their lengths,
and any strictly lower triangular S is that of one correlation matrix (Thanwerdas and Pennec 2022, arXiv:2201.06282).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from .correlation import correlation_of_rows, hollow
from .matrices import identity_like, sym
from .triangular import diagonal, from_numbers, half, numbers, product_derivative


def below(M: Tensor) -> Tensor:
    """The entries below the diagonal, row by row. ``*B,n,n -> *B,n(n-1)/2``."""
    return numbers(M[..., 1:, :-1])


def from_below(v: Tensor) -> Tensor:
    """The strictly lower triangular matrix. ``*B,n(n-1)/2 -> *B,n,n``."""
    return pad(from_numbers(v), (0, 1, 1, 0))


def unit_factor(L: Tensor) -> Tensor:
    """S of the Cholesky factor L. ``*B,n,n``."""
    return L.tril(-1) / diagonal(L).unsqueeze(-1)


def unit_factor_derivative(L: Tensor, inverse: Tensor, u: Tensor) -> Tensor:
    """The derivative of S along symmetric u, which is read off its diagonal. ``*B,n,n``.

    With ``phi = half(L^-1 u L^-T)`` and ``dL = L phi``, that of ``D(L)^-1 L`` is ``D(L)^-1 L phi - D(phi) D(L)^-1 L``.
    """
    unit = L / diagonal(L).unsqueeze(-1)
    phi = half(sym(inverse @ hollow(u) @ inverse.mT))
    return (unit @ phi - diagonal(phi).unsqueeze(-1) * unit).tril(-1)


def of_unit_factor(S: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
    """The correlation matrix with this S, and its derivatives along strictly lower triangular `vectors`. ``*B,n,n``."""
    unit = S + identity_like(S)
    x = correlation_of_rows(unit)
    if not vectors:
        return (x,)
    L, length = _unit_rows(unit)
    moved = (E / length for E in vectors)
    return x, *(hollow(product_derivative(L, m - (L * m).sum(-1, keepdim=True) * L)) for m in moved)


def unit_factor_gradient(S: Tensor, g: Tensor) -> Tensor:
    """The gradient in S of a function of `of_unit_factor` with the gradient g. ``*B,n,n``, below the diagonal."""
    L, length = _unit_rows(S + identity_like(S))
    at_L = 2 * hollow(g) @ L
    return (at_L - (L * at_L).sum(-1, keepdim=True) * L).tril(-1) / length


def _unit_rows(M: Tensor) -> tuple[Tensor, Tensor]:
    length = torch.linalg.vector_norm(M, dim=-1, keepdim=True)
    return M / length, length
