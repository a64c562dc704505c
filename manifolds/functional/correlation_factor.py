r"""Correlation matrices by their unit triangular factor, the Cholesky factor over its diagonal: ``I + S = D(L)^-1 L``.

The rows of the factor L of a correlation matrix have length one, so that they are those of I + S over their lengths,
and any strictly lower triangular S is that of one correlation matrix (Thanwerdas and Pennec 2022, arXiv:2201.06282).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from .correlation import correlation_of_unit_rows, hollow
from .matrices import sym
from .tracing import values_at_hand
from .triangular import diagonal, from_numbers, half, numbers, product_derivative, with_diagonal


def below(M: Tensor) -> Tensor:
    """The entries below the diagonal, row by row. ``*B,n,n -> *B,n(n-1)/2``."""
    return numbers(M[..., 1:, :-1])


def from_below(v: Tensor) -> Tensor:
    """The strictly lower triangular matrix. ``*B,n(n-1)/2 -> *B,n,n``."""
    return pad(from_numbers(v), (0, 1, 1, 0))


def correlation_factor_of_plain(x: Tensor) -> Tensor:
    """The Cholesky factor L of the symmetric part with ones on its diagonal, in the dtype of x; NaN of a matrix that
    has none. ``*B,n,n``."""
    square = sym(x).double()
    diagonal(square).fill_(1.0)
    # Stored by rows, as what follows takes it: then norms of rows, and rows over numbers, take a fifth of the time.
    upper, info = torch.linalg.cholesky_ex(square, upper=True)
    L = upper.mT.to(x.dtype)
    return L if values_at_hand(L) and not bool(info.any()) else torch.where((info == 0)[..., None, None], L, torch.nan)


def unit_factor(L: Tensor) -> Tensor:
    """I + S of the Cholesky factor L, of which the rows have length one. ``*B,n,n``."""
    return L / diagonal(L).unsqueeze(-1)


def unit_factor_derivative(unit: Tensor, inverse: Tensor, u: Tensor) -> Tensor:
    """The derivative of ``I + S = D(L)^-1 L`` along symmetric u, which is read off its diagonal; `inverse` is L^-1.
    ``*B,n,n``.

    With ``phi = half(L^-1 u L^-T)`` and ``dL = L phi`` it is ``(I + S) phi - D(phi) (I + S)``.
    """
    phi = half(inverse @ hollow(u) @ inverse.mT)
    return unit @ phi - diagonal(phi).unsqueeze(-1) * unit


def of_unit_factor(unit: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
    """The correlation matrix with this I + S, and its derivatives along strictly lower triangular `vectors`.
    ``*B,n,n``."""
    L, length = _unit_rows(unit)
    return correlation_of_unit_rows(L), *(derivative_of_rows(L, E / length) for E in vectors)


def derivative_of_rows(L: Tensor, M: Tensor) -> Tensor:
    """``L X^T + X L^T``, where X is what of M stands at right angles to the rows of L, which have length one. It has
    zeros on the diagonal. ``*B,n,n``."""
    X = M - (L * M).sum(-1, keepdim=True) * L
    moved = product_derivative(L, X)
    return with_diagonal(moved, torch.zeros_like(diagonal(moved)))


def unit_factor_gradient(unit: Tensor, g: Tensor) -> Tensor:
    """The gradient in S of a function of `of_unit_factor` with the gradient g. ``*B,n,n``, below the diagonal."""
    L, length = _unit_rows(unit)
    at_L = 2 * hollow(g) @ L
    return (at_L - (L * at_L).sum(-1, keepdim=True) * L).tril(-1) / length


def _unit_rows(M: Tensor) -> tuple[Tensor, Tensor]:
    length = torch.linalg.vector_norm(M, dim=-1, keepdim=True)
    return M / length, length
