r"""Functions of a pencil: two symmetric matrices P, Q that one basis brings to diagonal form, P positive definite.

    P = A A^T,    Q = A diag(w) A^T,    with P = L L^T (Cholesky), L^-1 Q L^-T = U diag(w) U^T, A = L U.

``P #_f Q = A diag(f(w)) A^T`` is what the affine-invariant metric is made of: the logarithm of Q at P for f = log, the
midpoint for sqrt, the geodesic for powers, and for a tangent vector Q the exponential for exp. With M = A^T G A,
B = A^-T and divided differences f[.,.] its derivative in closed form is

    grad_Q = B (f[w_i, w_j] * M) B^T,    grad_P = B (M * (f_i + f_j)/2 - (f[w_i, w_j] * M) * (w_i + w_j)/2) B^T.

Precision. L^-1 Q L^-T is formed in float64, since in float32 it keeps nothing of two near points of condition 1e6. It
is decomposed in the dtype of the arguments; where the ratio of the smallest to the largest w is below what that
resolves, w are the squared singular values of ``L_P^-1 L_Q``, which are relatively exact (Q positive definite).

Symmetric parts are read, and results are symmetric to the bit. A pair of which P is not positive definite, or Q where
f or its logarithm needs it to be, gives NaN, and no other pair of the batch does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .decompositions import eigenvalues, eigh_of_plain, singular_values, svd_of_plain
from .matrices import sym
from .matrix_function import MatrixFunction
from .operators import Operand, define
from .singular_values import polar_factor
from .spectral import differences, function_at
from .spectral_functions import EXP, LOG, named
from .tracing import derivative_wanted, values_readable


def cholesky(P: Tensor) -> Tensor:
    """The lower Cholesky factor, NaN of a matrix that has none. ``*B,n,n``."""
    L, info = torch.linalg.cholesky_ex(P)
    return torch.where((info == 0)[..., None, None], L, torch.nan)


def whitened(L: Tensor, Q: Tensor) -> Tensor:
    """L^-1 Q L^-T, symmetric."""
    half = torch.linalg.solve_triangular(L, Q, upper=False)
    return sym(torch.linalg.solve_triangular(L.mT, half, upper=True, left=False))


def congruent(L: Tensor, F: Tensor) -> Tensor:
    """L F L^T, symmetric."""
    return sym(L @ F @ L.mT)


# ---- functions ------------------------------------------------------------------------------------------------


def pencil_function(P: Tensor, Q: Tensor, function: str) -> Tensor:
    """A diag(f(w)) A^T for the function of that key (`spectral_functions.named`). ``*B,n,n``."""
    P, Q, f = sym(P), sym(Q), named(function)
    if _value_alone(P, Q):
        L, w, U = _pairs_of_plain(P, Q, _definite(function))
        return _assembled(L @ U, f.value(w))
    L, W, w, U = _differentiable(P, Q, _definite(function))
    return congruent(L, function_at(W, w, U, f))


def pencil_function_saving(P: Tensor, Q: Tensor, function: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`pencil_function`, and A, B and w for the backward pass."""
    L, w, U = _pairs(sym(P), sym(Q), _definite(function))
    A = L @ U
    B = torch.linalg.solve_triangular(L.mT, U, upper=True)
    return _assembled(A, named(function).value(w)), A, B, w


def pencil_function_backward(
    G: Tensor, P: Tensor, Q: Tensor, function: str, A: Tensor, B: Tensor, w: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of P and of Q."""
    f = named(function)
    M = A.mT @ sym(G) @ A
    of_Q = differences(f, w) * M
    of_P = M * _means(f.value(w)) - of_Q * _means(w)
    return congruent(B, of_P), congruent(B, of_Q)


def pencil_power(P: Tensor, Q: Tensor, t: Tensor) -> Tensor:
    """A diag(w^t) A^T for one exponent an item, ``*B``, differentiable in it: exp(t log W), by one decomposition."""
    L, W, w, U = _differentiable(sym(P), sym(Q), True)
    t = t.unsqueeze(-1)
    logarithm = t.unsqueeze(-1) * function_at(W, w, U, LOG)
    return congruent(L, function_at(logarithm, (t * w.log()).detach(), U, EXP))


def _definite(function: str) -> bool:
    """Whether f is a function of positive numbers, so that Q has to be positive definite."""
    return function not in ("exp", "positive_linear")


def _assembled(A: Tensor, values: Tensor) -> Tensor:
    return sym((A * values.unsqueeze(-2)) @ A.mT)


def _means(w: Tensor) -> Tensor:
    """(w_i + w_j)/2."""
    return 0.5 * (w.unsqueeze(-1) + w.unsqueeze(-2))


def _value_alone(P: Tensor, Q: Tensor) -> bool:
    return values_readable(P) and values_readable(Q) and not (derivative_wanted(P) or derivative_wanted(Q))


def _differentiable(P: Tensor, Q: Tensor, definite: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """L and W = L^-1 Q L^-T with their derivatives, and the decomposition w, U of W, which has none."""
    L = cholesky(P)
    _, w, U = _pairs(P, Q, definite)
    return L, whitened(L, Q), w, U


# ---- distances ------------------------------------------------------------------------------------------------


def pencil_moments(P: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    """sum (log w)^2 and sum log w. ``*B,n,n -> *B`` each."""
    P, Q = sym(P), sym(Q)
    if _value_alone(P, Q):
        return _moments(_exact_logarithms(P, Q), P.dtype)
    _, W, w, U = _differentiable(P, Q, True)
    S = function_at(W, w, U, LOG)
    return S.square().sum((-2, -1)), S.diagonal(dim1=-2, dim2=-1).sum(-1)


def pencil_moments_saving(P: Tensor, Q: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`pencil_moments`, and B and log w for the backward pass."""
    L, logarithms, U = _exact_pairs(sym(P), sym(Q))
    B = torch.linalg.solve_triangular(L.mT, U, upper=True)
    return *_moments(logarithms, P.dtype), B, logarithms.to(P.dtype)


def pencil_moments_backward(
    g: Tensor, h: Tensor, P: Tensor, Q: Tensor, B: Tensor, logarithms: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of P and of Q: no divided difference is left."""
    slope = 2 * g.unsqueeze(-1) * logarithms + h.unsqueeze(-1)
    return _assembled(B, -slope), _assembled(B, slope * (-logarithms).exp())


def _moments(logarithms: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return logarithms.square().sum(-1).to(dtype), logarithms.sum(-1).to(dtype)


# ---- transport ------------------------------------------------------------------------------------------------


def pencil_transport(P: Tensor, Q: Tensor, V: Tensor) -> Tensor:
    """Parallel transport of V along the affine-invariant geodesic from P to Q: E V E^T with E = (Q P^-1)^(1/2).

    E = L_Q O^T L_P^-1 with O the polar factor of L_P^-1 L_Q, since E P E^T = Q and E is self-adjoint in the metric: an
    isometry to rounding, where a product with A sqrt(w) A^-1 loses what the condition of P takes.
    """
    L, K = cholesky(sym(P)), cholesky(sym(Q))
    O = polar_factor(torch.linalg.solve_triangular(L, K, upper=False))  # noqa: E741
    return congruent(K @ O.mT, whitened(L, sym(V)))


def pencil_exp_transport(P: Tensor, U: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """The end of the geodesic from P with velocity U, and V transported along it: M M^T and M V~ M^T with
    M = L exp(U~/2), where X~ = L^-1 X L^-T."""
    L = cholesky(sym(P))
    half = 0.5 * sym(U)
    _, w, E = _pairs(sym(P), half, False)
    M = L @ function_at(whitened(L, half), w, E, EXP)
    return sym(M @ M.mT), congruent(M, whitened(L, sym(V)))


# ---- decompositions -------------------------------------------------------------------------------------------


def _pairs(P: Tensor, Q: Tensor, definite: bool) -> tuple[Tensor, Tensor, Tensor]:
    """L, w and U of symmetric P and Q, without derivative, w ascending."""
    P, Q = P.detach(), Q.detach()
    known = values_readable(P) and values_readable(Q)
    return _pairs_of_plain(P, Q, definite) if known else _pairs_operator(P, Q, definite)


def _pairs_of_plain(P: Tensor, Q: Tensor, definite: bool) -> tuple[Tensor, Tensor, Tensor]:
    L = cholesky(P.double())
    W = whitened(L, Q.double())
    w, U = eigh_of_plain(W.to(P.dtype))
    if definite:
        w, U = _refined(L, Q, w, U, torch.finfo(P.dtype).eps ** (0.5 if P.dtype == torch.float32 else 0.25))
    return L.to(P.dtype), w.to(P.dtype), U.to(P.dtype)


def _exact_pairs(P: Tensor, Q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """L, the logarithms of w, and U, of a decomposition in float64."""
    L = cholesky(P.double())
    if P.dtype == torch.float64:
        w, U = _by_singular_values(L, Q)
    else:
        w, U = _refined(L, Q, *eigh_of_plain(whitened(L, Q.double())), _RESOLVED)
    return L.to(P.dtype), w.log(), U.to(P.dtype)


def _exact_logarithms(P: Tensor, Q: Tensor) -> Tensor:
    """The logarithms of w, in float64."""
    L = cholesky(P.double())
    if P.dtype == torch.float64:
        return 2 * singular_values(_quotient(L, Q)).log()
    w = eigenvalues(whitened(L, Q.double()))
    return _refined(L, Q, w, w.unsqueeze(-1), _RESOLVED)[0].log()


_RESOLVED = 1e-8  # w_min/w_max of which eigenvalues in float64 keep eight digits: those that float32 has


def _refined(L: Tensor, Q: Tensor, w: Tensor, U: Tensor, resolved: float) -> tuple[Tensor, Tensor]:
    """w in float64, and U: by singular values where the smallest w is below that part of the largest, or is none."""
    w, poor = w.double(), ~(w[..., 0] > resolved * w[..., -1])
    if not bool(poor.any()):
        return w, U
    batch, n = w.shape[:-1], w.shape[-1:]
    exact, vectors = _by_singular_values(L.expand(*batch, *n, *n)[poor], Q.expand(*batch, *n, *n)[poor])
    return w.index_put((poor,), exact), U.index_put((poor,), vectors[..., : U.shape[-1]].to(U.dtype))


def _by_singular_values(L: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    """w, ascending, and U, from L_P^-1 L_Q = U sqrt(w) V^T."""
    U, s, _ = svd_of_plain(_quotient(L, Q))
    return s.square().flip(-1), U.flip(-1)


def _quotient(L: Tensor, Q: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(L, cholesky(Q.double()), upper=False)


def _pair_shapes(P: Tensor, Q: Tensor, definite: bool) -> tuple[Tensor, Tensor, Tensor]:
    whole = torch.broadcast_shapes(P.shape, Q.shape)
    return P.new_empty(P.shape), P.new_empty(whole[:-1]), P.new_empty(whole)


_pairs_operator = define(
    "pencil_pairs",
    _pairs_of_plain,
    (Operand("base", 2), Operand("other", 2)),
    _pair_shapes,
    numbers={"definite": bool},
    count=3,
)
