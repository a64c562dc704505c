"""Eigenvalues and singular values of a batch in which no matrix can spoil another.

LAPACK raises for the whole batch where one matrix is not finite or does not converge. Here that matrix gets NaN, and
with it everything that is computed from it. (Its QR, LU and Cholesky factorisations raise for no such matrix, nor do
the solvers that end in ``_ex``.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # pyright: ignore[reportAttributeAccessIssue]

from .matrices import identity_like
from .operators import Operand, define
from .tracing import values_readable

_SCALE_BY_THEMSELVES = ("cpu",)  # LAPACK does


def eigh(A: Tensor, positive: bool = False) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues and eigenvectors of symmetric matrices. ``*B,n,n -> *B,n and *B,n,n``, no derivative.

    `positive`: whether the matrices are meant to be positive definite and small eigenvalues matter beside large ones,
    as they do to logarithms and powers. Then they are exact relative to themselves as far as float64 has them.
    """
    A = A.detach()
    return (eigh_of_plain if values_readable(A) else _eigh_operator)(A, positive)


def svd(M: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, c, V with M = U diag(c) V^T, c descending, of square matrices. ``*B,n,n``, no derivative."""
    M = M.detach()
    return svd_of_plain(M) if values_readable(M) else _svd_operator(M)


def eigenvalues(A: Tensor) -> Tensor:
    """Ascending eigenvalues of symmetric matrices. ``*B,n,n -> *B,n``, with the derivatives of torch's eigvalsh."""
    A, mark = _apart(A)
    return torch.linalg.eigvalsh(A) + mark


def singular_values(M: Tensor) -> Tensor:
    """Descending singular values. ``*B,n,p -> *B,min(n,p)``, with the derivatives of torch's svdvals."""
    M, mark = _apart(M)
    return torch.linalg.svdvals(M) + mark


def _apart(A: Tensor) -> tuple[Tensor, Tensor]:
    """The matrices, zero for those that are not finite; and NaN for these, zero for the others. ``-> *B,1``."""
    usable = A.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    return torch.where(usable, A, 0.0), torch.where(usable, 0.0, torch.nan).squeeze(-1).to(A.dtype)


def eigh_of_plain(A: Tensor, positive: bool = False) -> tuple[Tensor, Tensor]:
    """`eigh` outside transforms."""
    values, vectors = _decompose(torch.linalg.eigh, A)
    resolves = not positive or A.dtype != torch.float32 or A.shape[-1] < 2
    return (values, vectors) if resolves else _resolved(A, values, vectors)


def _resolved(A: Tensor, values: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """In float32, a decomposition of which the smallest value is next to zero beside the largest is made again in
    float64: of positive definite matrices of condition 3e3 and more, whose small eigenvalues float32 does not find."""
    low, high = values[..., 0], values[..., -1]
    poor = low.abs() < torch.finfo(A.dtype).eps ** 0.5 * high
    if not bool(poor.any()):
        return values, vectors
    n, place = A.shape[-1], poor.reshape(-1).nonzero().squeeze(-1)
    exact = _decompose(torch.linalg.eigh, A.reshape(-1, n, n)[place].double())
    mended = values.reshape(-1, n).index_copy(0, place, exact[0].to(A.dtype))
    turned = vectors.reshape(-1, n, n).index_copy(0, place, exact[1].to(A.dtype))
    return mended.reshape(values.shape), turned.reshape(vectors.shape)


def svd_of_plain(M: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`svd` outside transforms."""
    values, left, right = _decompose(_svd, M)
    return left, values, right.mT


def _svd(M: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    left, values, right = torch.linalg.svd(M)
    return values, left, right


def _decompose(decompose: Callable[[Tensor], Any], A: Tensor) -> Any:
    """The values and the one or two matrices of vectors that `decompose` finds."""
    if A.device.type in _SCALE_BY_THEMSELVES:  # and a matrix that is no good is rare
        try:
            return _marked(*decompose(A))
        except LinAlgError:
            pass
    scaled, scale = _scaled(A)
    values, *vectors = _item_by_item_if_it_fails(decompose, scaled)
    return _marked(values * scale.squeeze(-1), *vectors)


def _marked(values: Tensor, vectors: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Values that are no numbers spoil the vectors, and with these all that is computed: a step function of NaN would
    be a number."""
    return values, vectors + (0 * values).sum(-1)[..., None, None], *others


def _scaled(A: Tensor) -> tuple[Tensor, Tensor]:
    """The matrices over a power of two, and that power; the identity and NaN for those that are not finite.

    Entries near one keep squares inside from overflow and underflow, and the power rounds nothing.
    """
    if A.numel() == 0:
        return A, A.new_ones((*A.shape[:-2], 1, 1))
    size = torch.linalg.vector_norm(A, torch.inf, (-2, -1), keepdim=True)
    usable = size < torch.inf  # in this sense NaN is not
    known = usable & (size > 0)
    size = torch.where(known, size, 1.0)
    scale = size / torch.frexp(size).mantissa
    identity = identity_like(A)
    return torch.where(usable, A / scale, identity), torch.where(usable, scale, torch.nan)


def _item_by_item_if_it_fails(decompose: Callable[[Tensor], Any], A: Tensor) -> tuple[Tensor, ...]:
    try:
        return decompose(A)
    except LinAlgError:  # somewhere in the batch
        batch, n = A.shape[:-2], A.shape[-1]
        items = [_one(decompose, a) for a in A.reshape(-1, n, n)]
        return tuple(torch.stack(r).reshape(*batch, *r[0].shape) for r in zip(*items, strict=True))


def _one(decompose: Callable[[Tensor], Any], a: Tensor) -> tuple[Tensor, ...]:
    try:
        return decompose(a)
    except LinAlgError:
        return tuple(torch.full_like(r, torch.nan) for r in decompose(torch.eye(*a.shape, dtype=a.dtype).to(a.device)))


_MATRICES = (Operand("matrices", 2),)
_eigh_operator = define(
    "eigh",
    eigh_of_plain,
    _MATRICES,
    lambda A, _: (A.new_empty(A.shape[:-1]), A.new_empty(A.shape)),
    numbers={"positive": bool},
    count=2,
)
_svd_operator = define(
    "svd",
    svd_of_plain,
    _MATRICES,
    lambda M: (M.new_empty(M.shape), M.new_empty(M.shape[:-1]), M.new_empty(M.shape)),
    count=3,
)
