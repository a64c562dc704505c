"""Positive definiteness of symmetric matrices: a Cholesky factor in float64 exists."""

from __future__ import annotations

import torch
from torch import Tensor

from .decompositions import eigh
from .matrices import sym
from .tracing import values_at_hand


def positive_definite(x: Tensor) -> Tensor:
    """Whether the symmetric part has a Cholesky factor in float64. ``*B,n,n -> *B`` (bool); no derivative."""
    return _has_factor(sym(x.detach().double()))  # the sum of two numbers of float32 need not be one


def _has_factor(x: Tensor) -> Tensor:
    """Of symmetric matrices."""
    factor, info = torch.linalg.cholesky_ex(x.double(), upper=True)  # stored by rows it is found sooner
    return (info == 0) & (factor.diagonal(dim1=-2, dim2=-1).sum(-1) < torch.inf)  # what is not finite ends in a pivot


def _mark(x: Tensor) -> Tensor:
    """Zero, or NaN of a symmetric matrix that is not positive definite. ``*B,n,n -> *B``."""
    return torch.where(_has_factor(x.detach()), 0.0, torch.nan).to(x.dtype)


def inside_or_nan(x: Tensor) -> Tensor:
    """The symmetric part, NaN for items that are not positive definite: rounding makes a singular one pass for one that
    is not, of which logarithms and powers would be numbers."""
    x = sym(x)
    return x + _mark(x)[..., None, None]


def definite_eigh(x: Tensor, positive: bool) -> tuple[Tensor, Tensor, Tensor]:
    """`inside_or_nan` of symmetric x, and its `eigh`, of which `positive` is the option. No factor is sought where
    eigenvalues are positive by far more than their rounding."""
    if not values_at_hand(x):
        x = inside_or_nan(x)
        return x, *eigh(x, positive)
    a, Q = eigh(x, positive)
    if bool((a[..., 0] > torch.finfo(x.dtype).eps ** 0.5 * a[..., -1]).all()):
        return x, a, Q
    mark = _mark(x).unsqueeze(-1)
    return x + mark.unsqueeze(-1), a + mark, Q + mark.unsqueeze(-1)


MEND = (
    "where that is rounding call projx(x), for a matrix of low rank add a part of the identity, or call "
    "project_eigenvalue_floor(x, floor)"
)


def outside_reason(x: Tensor, mend: str = MEND) -> str | None:
    """Which matrices of a finite ``*B,n,n`` are not positive definite, and what to do; None where all are."""
    outside = ~positive_definite(x)
    if not bool(x.isfinite().all()) or not bool(outside.any()):
        return None
    first = tuple(int(i) for i in outside.nonzero()[0])
    values = torch.linalg.eigvalsh(sym(x[first].double()))
    item, more = f"item {first} " if first else "it ", f", and {int(outside.sum())} of {outside.numel()} are not"
    return (
        f"x is not positive definite: {item}has min eigenvalue = {float(values[0]):.2g}, max eigenvalue = "
        f"{float(values[-1]):.2g}{more if first else ''}; {mend}"
    )
