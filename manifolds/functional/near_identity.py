"""Factors of a Gram matrix I + E near the identity, such as that of x + u with a frame x and a short tangent u: a few
terms of their series, where numbers may be looked at. The step of an optimizer seldom needs more than one."""

from __future__ import annotations

import torch
from torch import Tensor

from .matrices import identity_like

# Of (1 + e)^-1/2.
_BINOMIAL = (1.0, -1 / 2, 3 / 8, -5 / 16, 35 / 128, -63 / 256, 231 / 1024, -429 / 2048, 6435 / 32768)


def inverse_root_near_identity(gram: Tensor) -> Tensor | None:
    """(I + E)^-1/2, or None where the farthest matrix of the batch needs more than seven terms beside the identity.
    ``*B,p,p``."""
    off, farthest = _deviation(gram)
    terms = _terms(farthest, 0.25 * torch.finfo(gram.dtype).eps)
    if terms is None:
        return None
    root = _plus_multiple(_BINOMIAL[terms] * off, _BINOMIAL[terms - 1])
    for coefficient in _BINOMIAL[terms - 2 :: -1] if terms > 1 else ():
        root = _plus_multiple(root @ off, coefficient)
    return root


def inverse_triangle_near_identity(gram: Tensor) -> Tensor | None:
    """R^-1 of the Cholesky factorisation R^T R = I + E, or None where the first term does not do. ``*B,p,p``.

    R = I + F to first order, F the upper triangle of E with half of its diagonal; what is left is below 2 |E|^2.
    """
    off, farthest = _deviation(gram)
    if not 2 * farthest * farthest <= 0.25 * torch.finfo(gram.dtype).eps:
        return None
    inverse = torch.triu(off).neg_()
    inverse.diagonal(dim1=-2, dim2=-1).mul_(0.5).add_(1.0)
    return inverse


def _deviation(gram: Tensor) -> tuple[Tensor, float]:
    """E and the greatest Frobenius norm of one in the batch, NaN where one is not a number."""
    off = gram - identity_like(gram)
    return off, float(torch.linalg.vector_norm(off, dim=(-2, -1)).amax())


def _terms(distance: float, tolerance: float) -> int | None:
    """How many terms beside the first reach the tolerance where |E| is that distance."""
    if not distance < 1:  # so that NaN is not either
        return None
    for terms in range(1, len(_BINOMIAL) - 1):
        if abs(_BINOMIAL[terms + 1]) * distance ** (terms + 1) <= tolerance:
            return terms
    return None


def _plus_multiple(m: Tensor, number: float) -> Tensor:
    """M + number I, in place of M."""
    m.diagonal(dim1=-2, dim2=-1).add_(number)
    return m
