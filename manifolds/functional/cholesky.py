r"""Cholesky factors of symmetric positive definite matrices, with closed derivatives.

For ``P = L L^T`` the derivative along dP is ``dL = L half(L^-1 dP L^-T)``, where `half` takes the lower triangle with
half of the diagonal, and the gradient is ``sym(L^-T half(L^T G) L^-1)`` (Murray 2016, arXiv:1602.07527). It is formed
with the inverse of the factor: one triangular solve, for the rest products, which take a third of the time of solves.

Factors are found in float64. Only the symmetric part of P is read, and gradients are symmetric. A matrix that is not
positive definite or not finite gives NaN, in values and gradients, and no other matrix of the batch does. What others
call are the kernels of these formulas, `kernels.cholesky`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .matrices import sym
from .tracing import values_at_hand
from .triangular import diagonal, half, lower_inverse


def cholesky(P: Tensor) -> Tensor:
    """The lower triangular L with positive diagonal and ``P = L L^T``. ``*B,n,n -> *B,n,n``."""
    return _factor(P)


def cholesky_with_inverse(P: Tensor) -> tuple[Tensor, Tensor]:
    """L of `cholesky`, and L^-1. ``*B,n,n -> *B,n,n`` each."""
    L = _factor(P)
    return L, lower_inverse(L)


def factor_of_plain(P: Tensor) -> Tensor:
    """The Cholesky factor of the symmetric part, in float64; NaN of a matrix that has none."""
    L, info = torch.linalg.cholesky_ex(sym(P.double()).mT)  # stored by columns, as LAPACK takes it
    return L if values_at_hand(L) and not bool(info.any()) else torch.where((info == 0)[..., None, None], L, torch.nan)


def cholesky_saving(P: Tensor) -> tuple[Tensor, Tensor]:
    """`cholesky` with what its backward pass reads."""
    L = cholesky(P)
    return L, L


def cholesky_with_inverse_saving(P: Tensor) -> tuple[Tensor, ...]:
    """`cholesky_with_inverse` with what its backward pass reads."""
    L, inverse = cholesky_with_inverse(P)
    return L, inverse, L, inverse


def cholesky_backward(G: Tensor, P: Tensor, L: Tensor) -> tuple[Tensor]:
    """The gradient of `cholesky` in P, of G in L, of which the upper triangle counts for nothing but must be finite."""
    return (pulled_back(L.mT @ G, lower_inverse(L)),)


def cholesky_with_inverse_backward(G: Tensor, H: Tensor, P: Tensor, L: Tensor, inverse: Tensor) -> tuple[Tensor]:
    """The gradient of `cholesky_with_inverse` in P, of G in L and H in L^-1: since ``d L^-1 = -L^-1 dL L^-1``, H counts
    as ``-L^-T H L^-T`` in L."""
    return (pulled_back(L.mT @ G - H @ inverse.mT, inverse),)


def _factor(P: Tensor) -> Tensor:
    """The factors; NaN where there is none."""
    # In float64, for a hundredth of an eigendecomposition: every point has a factor, which is right to the last digit.
    # In float32 points of condition 1e8 need not have one. Stored by columns, as LAPACK takes it.
    L, info = torch.linalg.cholesky_ex(sym(P).double().mT)
    L = L.to(P.dtype)
    size = torch.where(info == 0, diagonal(L.detach()).sum(-1), torch.nan)  # to LAPACK infinity has a root
    return (size / size)[..., None, None] * L


def pulled_back(M: Tensor, inverse: Tensor) -> Tensor:
    """The gradient in P, of L^T G in the lower triangle of M. ``*B,n,n``."""
    return sym(inverse.mT @ (half(M) @ inverse))
