"""Correlation matrices: unit diagonals, and samples by rows of unit length."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .cone import inside_cone, lifted
from .matrices import sym
from .tracing import values_at_hand
from .triangular import diagonal, product, with_diagonal


def unit_diagonal(x: Tensor) -> Tensor:
    """``D^-1/2 x D^-1/2`` of symmetric x with the diagonal D, symmetric to the bit with exact ones; NaN where D is not
    positive and finite. ``*B,n,n``."""
    root = diagonal(x).sqrt()
    # One factor after another: the product of two small roots may be no number. The order rounds differently.
    scaled = sym(x / root.unsqueeze(-1) / root.unsqueeze(-2))
    lost = (root / root).detach().amin(-1, keepdim=True)
    return with_diagonal(scaled, lost.expand_as(root)) * lost.unsqueeze(-1)


def with_ones(x: Tensor) -> Tensor:
    """x with ones on its diagonal, of which nothing is read: charts begin so, and their derivatives along a vector
    depend on its entries off the diagonal alone. ``*B,n,n``."""
    return with_diagonal(x, torch.ones_like(diagonal(x)))


def hollow(u: Tensor) -> Tensor:
    """The symmetric part without its diagonal. ``*B,n,n``."""
    return with_diagonal(sym(u), torch.zeros_like(diagonal(u)))


def lifted_correlation(x: Tensor) -> Tensor:
    """Symmetric x with exact ones on the diagonal itself where it is positive definite by more than rounding; else, if
    that is enough, with its entries drawn to zero by 4 n^2 eps. A way back from a chart ends so: what it finds may be
    singular in the numbers of its dtype."""
    inside = lifted(x)
    return x if inside is x else unit_diagonal(inside)


def inside_correlations(x: Tensor, margin: float) -> Tensor:
    """`x` where it is positive definite by more than `margin` times n, else drawn towards the identity by as much."""
    return unit_diagonal(inside_cone(x, margin))


def correlation_of_rows(factor: Tensor) -> Tensor:
    """The correlation matrix ``L L^T`` of which the rows of L have the directions of those of a lower triangular
    `factor`. ``*B,n,n``."""
    return correlation_of_unit_rows(factor / torch.linalg.vector_norm(factor, dim=-1, keepdim=True))


def correlation_of_unit_rows(L: Tensor) -> Tensor:
    """``L L^T`` of a lower triangular L with rows of length one, a point to the bit; NaN of an item that has one
    anywhere. ``*B,n,n``."""
    x = product(L)
    squares = diagonal(x).detach()
    x = with_diagonal(x, torch.ones_like(squares))
    if _far_from_singular(L):
        return x
    size = squares.sum(-1)[..., None, None]
    return lifted_correlation(x + (size - size))


def _far_from_singular(L: Tensor) -> bool:
    """Whether it can be seen at once that ``L L^T`` is finite, and positive definite by more than its rounding.

    All eigenvalues but the least have the sum n at most, and so a product of e at most: the least is at least
    det(L)^2/e.
    """
    if not values_at_hand(L):
        return False
    n = L.shape[-1]
    rounding = 4 * n * n * torch.finfo(L.dtype).eps
    return bool((diagonal(L.detach()).prod(-1) > (math.e * rounding) ** 0.5).all())


def unit_rows(noise: Tensor, last: Tensor) -> Tensor:
    """The correlation matrix of which row i of the Cholesky factor has the direction of the first i numbers of `noise`
    and, beside them, the root of `last`. ``*B,n,n; *B,n -> *B,n,n``."""
    return correlation_of_rows(with_diagonal(noise.tril(-1), last.sqrt()))
