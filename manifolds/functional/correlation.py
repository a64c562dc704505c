"""Correlation matrices: unit diagonals, and samples by rows of unit length."""

from __future__ import annotations

import torch
from torch import Tensor

from .cone import inside_cone, lifted
from .matrices import sym
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
    return sym(u).tril(-1) + sym(u).triu(1)


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
    """The correlation matrix ``L L^T`` of which the rows of L have the directions of those of `factor`. ``*B,n,n``."""
    rows = factor / torch.linalg.vector_norm(factor, dim=-1, keepdim=True)
    return lifted_correlation(unit_diagonal(product(rows)))


def unit_rows(noise: Tensor, last: Tensor) -> Tensor:
    """The correlation matrix of which row i of the Cholesky factor has the direction of the first i numbers of `noise`
    and, beside them, the root of `last`. ``*B,n,n; *B,n -> *B,n,n``."""
    return correlation_of_rows(with_diagonal(noise.tril(-1), last.sqrt()))
