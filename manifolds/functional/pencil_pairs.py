r"""The decomposition of a pencil, two symmetric matrices P, Q with P positive definite, as values without derivative.

    P = L L^T (Cholesky),    L^-1 Q L^-T = U diag(w) U^T,    w ascending.

L^-1 Q L^-T is formed in float64: in float32 it keeps nothing of two near points of condition 1e6. Of float32 it is
decomposed in float32, shifted to have eigenvalues around zero: what matters of near points is what they differ by.
Where the ratio of the smallest to the largest w is below what that resolves, and Q is to be positive definite, w are
the squared singular values of ``L_P^-1 L_Q``, which are relatively exact.

A pair of which P, or a Q that is to be so, is not positive definite gives NaN, and no other pair of the batch does.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # pyright: ignore[reportAttributeAccessIssue]

from .decompositions import eigh_of_plain, singular_values, svd_of_plain
from .matrices import sym
from .operators import Operand, define
from .tracing import values_readable

Pairs = tuple[Tensor, Tensor, Tensor]


def pairs(P: Tensor, Q: Tensor, definite: bool, exact: bool = False) -> Pairs:
    """L, w and U in the dtype of P, under every transform. Of both the symmetric part is read.

    `definite`: whether Q has to be positive definite. `exact`: w and U are those of `exact_pairs_of_plain`.
    """
    P, Q = P.detach(), Q.detach()
    if values_readable(P) and values_readable(Q):
        return _pairs_of_dtype(P, Q, definite, exact)
    return _pairs_operator(P, Q, definite, exact)


def pairs_of_plain(P: Tensor, Q: Tensor, definite: bool) -> Pairs:
    """L and U in the dtype of P, w in float64."""
    L = factor_of_plain(P)
    W = whitened(L, Q.double())
    if not definite:
        w, U = _eigh(W.to(P.dtype))
    elif P.dtype == torch.float64:
        w, U = _refined(L, Q, *_eigh(W), _RESOLVED_EIGH)
    else:
        shift = _shifted(W)
        w, U = _eigh(W.to(P.dtype))
        w, U = _refined(L, Q, w + shift, U, _RESOLVED_FLOAT32)
    return L.to(P.dtype), w, U


def exact_pairs_of_plain(P: Tensor, Q: Tensor) -> Pairs:
    """`pairs_of_plain` of a positive definite Q with w as exact as in float64."""
    L = factor_of_plain(P)
    if P.dtype == torch.float64:
        return L, *_by_singular_values(L, Q)
    W = whitened(L, Q.double())
    shift = _shifted(W)
    U = _eigh(W.to(P.dtype))[1]
    V = U.mT.double()  # in the order of memory
    w = (V * (V @ W)).sum(-1) / V.square().sum(-1)  # Rayleigh quotients: the error of U squared
    return L.to(P.dtype), *_refined(L, Q, w + shift, U, _RESOLVED_FLOAT32)


def exact_values_of_plain(P: Tensor, Q: Tensor) -> Tensor:
    """The w of `exact_pairs_of_plain`."""
    L = factor_of_plain(P)
    if P.dtype == torch.float64:
        return singular_values(_quotient(L, Q)).square()
    w = _eigvalsh(whitened(L, Q.double()))
    return _refined(L, Q, w, w.unsqueeze(-1), _RESOLVED_EIGH)[0]


def whitened(L: Tensor, Q: Tensor) -> Tensor:
    """L^-1 Q L^-T of the symmetric part of Q."""
    half = torch.linalg.solve_triangular(L, Q.mT, upper=False)  # stored by columns, as LAPACK takes it
    return sym(torch.linalg.solve_triangular(L.mT, half, upper=True, left=False))


def factor_of_plain(P: Tensor) -> Tensor:
    """The Cholesky factor of the symmetric part, in float64; NaN of a matrix that has none."""
    L, info = torch.linalg.cholesky_ex(sym(P.double()).mT)  # stored by columns, as LAPACK takes it
    return torch.where((info == 0)[..., None, None], L, torch.nan) if bool(info.any()) else L


# w_min/w_max of which eigenvalues are taken. In float64 they keep twelve digits of it, in float32 four.
_RESOLVED_EIGH, _RESOLVED_FLOAT32 = 1e-4, 1e-3


def _eigh(W: Tensor) -> tuple[Tensor, Tensor]:
    try:  # without marking: what is NaN in w or L reaches all that is computed
        return torch.linalg.eigh(W)
    except LinAlgError:
        return eigh_of_plain(W)


def _eigvalsh(W: Tensor) -> Tensor:
    try:
        return torch.linalg.eigvalsh(W)
    except LinAlgError:
        return eigh_of_plain(W)[0]


def _shifted(W: Tensor) -> Tensor:
    """Subtract from W, in place, a number between its eigenvalues, ``*B,1``: an entry of the diagonal."""
    shift = W[..., 0, :1].clone()
    W.diagonal(dim1=-2, dim2=-1).sub_(shift)
    return shift


def _refined(L: Tensor, Q: Tensor, w: Tensor, U: Tensor, resolved: float) -> tuple[Tensor, Tensor]:
    """w, U: by singular values where the smallest w is below that part of the largest, or is no number."""
    good = w[..., 0] > resolved * w[..., -1]
    if bool(good.all()):
        return w, U
    poor, shape = ~good, (*w.shape, w.shape[-1])
    exact, vectors = _by_singular_values(L.expand(shape)[poor], Q.expand(shape)[poor])
    vectors = vectors[..., : U.shape[-1]].to(U.dtype)
    if poor.dim() == 0:  # an index without dimensions adds one
        return exact[0], vectors[0]
    return w.index_put((poor,), exact), U.index_put((poor,), vectors)


def _by_singular_values(L: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    """w and U, from L_P^-1 L_Q = U sqrt(w) V^T."""
    U, s, _ = svd_of_plain(_quotient(L, Q))
    return s.square().flip(-1), U.flip(-1)


def _quotient(L: Tensor, Q: Tensor) -> Tensor:
    """L_P^-1 L_Q."""
    return torch.linalg.solve_triangular(L, factor_of_plain(Q), upper=False)


def _pairs_of_dtype(P: Tensor, Q: Tensor, definite: bool, exact: bool) -> Pairs:
    L, w, U = exact_pairs_of_plain(P, Q) if exact else pairs_of_plain(P, Q, definite)
    return L, w.to(P.dtype), U


def _shapes(P: Tensor, Q: Tensor, definite: bool, exact: bool) -> Pairs:
    whole = torch.broadcast_shapes(P.shape, Q.shape)
    return P.new_empty(P.shape), P.new_empty(whole[:-1]), P.new_empty(whole)


_pairs_operator = define(
    "pencil_pairs",
    _pairs_of_dtype,
    (Operand("base", 2), Operand("other", 2)),
    _shapes,
    numbers={"definite": bool, "exact": bool},
    count=3,
)
