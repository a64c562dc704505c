r"""Functions of a pencil: two symmetric matrices P, Q that one basis brings to diagonal form, P positive definite.

    P = A A^T,    Q = A diag(w) A^T,    with P = L L^T (Cholesky), L^-1 Q L^-T = U diag(w) U^T, A = L U.

``P #_f Q = A diag(f(w)) A^T`` is what the affine-invariant metric is made of: the logarithm of Q at P for f = log, the
midpoint for sqrt, the geodesic for powers, and for a tangent vector Q the exponential for exp. With M = A^T G A,
B = A^-T and divided differences f[.,.] its derivative in closed form is

    grad_Q = B (f[w_i, w_j] * M) B^T,    grad_P = B (M * (f_i + f_j)/2 - (f[w_i, w_j] * M) * (w_i + w_j)/2) B^T.

Symmetric parts are read, and results are symmetric to the bit. A pair of which P is not positive definite, or Q where
f or its logarithm needs it to be, gives NaN, and no other pair of the batch does.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .cholesky import cholesky
from .decompositions import eigenvalues
from .matrices import congruent, sym
from .pencil_pairs import Pairs, exact_pairs_of_plain, exact_values_of_plain, pairs, pairs_of_plain
from .series import safe_sqrt
from .signed_trigonometry import cot_excess_k, log_sin_ratio_k
from .singular_values import polar_factor
from .spectral import differences, function_at
from .spectral_functions import EXP, LOG, named
from .tracing import derivative_wanted, values_readable
from .triangular import whitened

# ---- functions ------------------------------------------------------------------------------------------------


def pencil_function(P: Tensor, Q: Tensor, function: str) -> Tensor:
    """A diag(f(w)) A^T for the function of that key (`spectral_functions.named`). ``*B,n,n``."""
    if _value_alone(P, Q):
        L, w, U = pairs_of_plain(P, Q, named(function).positive_domain)
        return _applied(function, L @ U, w)
    return _differentiable_function(P, Q, function)[0]


def pencil_function_saving(P: Tensor, Q: Tensor, function: str) -> tuple[Tensor, ...]:
    """`pencil_function`, and A, B and w for the backward pass."""
    if _value_alone(P, Q):
        L, w, U = pairs_of_plain(P, Q, named(function).positive_domain)
        A = L @ U
        value = _applied(function, A, w)
    else:
        value, L, w, U = _differentiable_function(P, Q, function)
        A = L @ U
    return value, A, _transposed_inverse(L, U), w.to(P.dtype)


def _applied(function: str, A: Tensor, w: Tensor) -> Tensor:
    """A diag(f(w)) A^T of w in float64."""
    one = (A * (0.5 * named(function).value(w)).to(A.dtype).unsqueeze(-2)) @ A.mT
    return one + one.mT


def _transposed_inverse(L: Tensor, U: Tensor) -> Tensor:
    """B = (L U)^-T: the transpose of U^-1 L^-1, by a solve from the right, which takes half the time."""
    return torch.linalg.solve_triangular(L, U.mT, upper=False, left=False).mT


def _differentiable_function(P: Tensor, Q: Tensor, function: str) -> tuple[Tensor, ...]:
    """The value, and L, w and U without derivative."""
    K, W, (L, w, U) = _differentiable(P, Q, named(function).positive_domain)
    return congruent(K, function_at(W, w, U, named(function))), L, w, U


def pencil_function_backward(
    G: Tensor, P: Tensor, Q: Tensor, function: str, A: Tensor, B: Tensor, w: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of P and of Q."""
    f = named(function)
    M = sym(A.mT @ G @ A)
    of_Q = differences(f, w) * M
    of_P = torch.addcmul(M * _means(f.value(w)), of_Q, _means(w), value=-1)
    return B @ of_P @ B.mT, B @ of_Q @ B.mT


def pencil_power(P: Tensor, Q: Tensor, t: Tensor) -> Tensor:
    """A diag(w^t) A^T for one exponent an item, ``*B``, differentiable in it: exp(t log W), by one decomposition."""
    L, W, (_, w, U) = _differentiable(P, Q, True)
    t = t.unsqueeze(-1)
    logarithm = t.unsqueeze(-1) * function_at(W, w, U, LOG)
    return congruent(L, function_at(logarithm, (t * w.log()).detach(), U, EXP))


def _means(w: Tensor) -> Tensor:
    """(w_i + w_j)/2."""
    w = 0.5 * w
    return w.unsqueeze(-1) + w.unsqueeze(-2)


def _value_alone(P: Tensor, Q: Tensor) -> bool:
    return values_readable(P) and values_readable(Q) and not (derivative_wanted(P) or derivative_wanted(Q))


def _differentiable(P: Tensor, Q: Tensor, definite: bool, exact: bool = False) -> tuple[Tensor, Tensor, Pairs]:
    """L and W = L^-1 Q L^-T with their derivatives, and `pairs`, which have none."""
    L = cholesky(P)
    return L, whitened(L, Q), pairs(P, Q, definite, exact)


# ---- distances ------------------------------------------------------------------------------------------------


def pencil_moments(P: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    """sum (log w)^2 and sum log w. ``*B,n,n -> *B`` each."""
    if _value_alone(P, Q):
        return _moments(exact_values_of_plain(P, Q).log(), P.dtype)
    squares, total, *_ = _differentiable_moments(P, Q)
    return squares, total


def pencil_moments_saving(P: Tensor, Q: Tensor) -> tuple[Tensor, ...]:
    """`pencil_moments`, and B and log w for the backward pass."""
    if _value_alone(P, Q):
        L, w, U = exact_pairs_of_plain(P, Q)
        logarithms = w.log()
        results = _moments(logarithms, P.dtype)
    else:
        *results, L, w, U = _differentiable_moments(P, Q)
        logarithms = w.log()
    return *results, _transposed_inverse(L, U), logarithms.to(P.dtype)


def _differentiable_moments(P: Tensor, Q: Tensor) -> tuple[Tensor, ...]:
    """The moments, and L, w and U without derivative."""
    _, W, (L, w, U) = _differentiable(P, Q, True, True)
    S = function_at(W, w, U, LOG)
    return S.square().sum((-2, -1)), S.diagonal(dim1=-2, dim2=-1).sum(-1), L, w, U


def pencil_moments_backward(
    g: Tensor, h: Tensor, P: Tensor, Q: Tensor, B: Tensor, logarithms: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of P and of Q: no divided difference is left."""
    slope = 2 * g.unsqueeze(-1) * logarithms + h.unsqueeze(-1)
    return _of_slopes(torch.stack((-slope, slope * (-logarithms).exp()), -2), B)


def _of_slopes(slopes: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """B diag(slopes_k) B^T for the two rows of slopes. ``*B,2,n; *B,n,n``."""
    both = (B.unsqueeze(-3) * slopes.unsqueeze(-2)).flatten(-3, -2) @ B.mT
    of_P, of_Q = both.unflatten(-2, (2, -1)).unbind(-3)
    return of_P, of_Q


def pencil_dist(P: Tensor, Q: Tensor, alpha: float, beta: float) -> Tensor:
    """The root of alpha sum (log w)^2 + beta (sum log w)^2. ``*B,n,n -> *B``."""
    if _value_alone(P, Q):
        return _length(exact_values_of_plain(P, Q).log(), alpha, beta).to(P.dtype)
    return _differentiable_dist(P, Q, alpha, beta)[0]


def pencil_dist_saving(P: Tensor, Q: Tensor, alpha: float, beta: float) -> tuple[Tensor, ...]:
    """`pencil_dist`, and B and its derivatives in log P and log Q, in this basis, for the backward pass."""
    if _value_alone(P, Q):
        L, w, U = exact_pairs_of_plain(P, Q)
        dist = _length(w.log(), alpha, beta)
    else:
        dist, L, w, U = _differentiable_dist(P, Q, alpha, beta)
    logarithms = w.log()
    slope = alpha * logarithms
    slope = slope + beta * logarithms.sum(-1, keepdim=True) if beta else slope
    slope = slope / torch.where(dist == 0, torch.inf, dist.detach()).unsqueeze(-1)  # between coincident points zero
    slopes = torch.stack((-slope, slope / w), -2)
    return dist.to(P.dtype), _transposed_inverse(L, U), slopes.to(P.dtype)


def _differentiable_dist(P: Tensor, Q: Tensor, alpha: float, beta: float) -> tuple[Tensor, ...]:
    """The distance, and L, w and U without derivative."""
    squares, total, L, w, U = _differentiable_moments(P, Q)
    return safe_sqrt(alpha * squares + beta * total.square() if beta else alpha * squares), L, w, U


def pencil_dist_backward(
    g: Tensor, P: Tensor, Q: Tensor, alpha: float, beta: float, B: Tensor, slopes: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of P and of Q."""
    return _of_slopes(g[..., None, None] * slopes, B)


def _length(logarithms: Tensor, alpha: float, beta: float) -> Tensor:
    length = alpha**0.5 * torch.linalg.vector_norm(logarithms, dim=-1)
    if not beta:
        return length
    return (length.square() + beta * logarithms.sum(-1).square()).clamp_min(0).sqrt()


def _moments(logarithms: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return logarithms.square().sum(-1).to(dtype), logarithms.sum(-1).to(dtype)


# ---- transport ------------------------------------------------------------------------------------------------


def pencil_transport(P: Tensor, Q: Tensor, V: Tensor) -> Tensor:
    """Parallel transport of V along the affine-invariant geodesic from P to Q: E V E^T with E = (Q P^-1)^(1/2).

    E = L_Q O^T L_P^-1 with O the polar factor of L_P^-1 L_Q, since E P E^T = Q and E is self-adjoint in the metric: an
    isometry to rounding, where a product with A sqrt(w) A^-1 loses what the condition of P takes. In float64 inside.
    """
    L, K = cholesky(P.double()), cholesky(Q.double())
    O = polar_factor(torch.linalg.solve_triangular(L, K, upper=False))  # noqa: E741
    return congruent(K @ O.mT, whitened(L, V.double())).to(P.dtype)


def pencil_exp_transport(P: Tensor, U: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """The end of the geodesic from P with velocity U, and V transported along it: M M^T and M V~ M^T with
    M = L exp(U~/2), where X~ = L^-1 X L^-T; in float64 inside."""
    L, W, (_, w, E) = _differentiable(P.double(), 0.5 * U.double(), False)
    M = L @ function_at(W, w, E, EXP)
    return sym(M @ M.mT).to(P.dtype), congruent(M, whitened(L, V.double())).to(P.dtype)


# ---- curvature ------------------------------------------------------------------------------------------------


def sinh_ratios(W: Tensor) -> Tensor:
    """sum over i < j of log(sinh(a)/a), a half the difference of the eigenvalues i and j. ``*B,n,n -> *B``."""
    values = eigenvalues(W)
    i, j = torch.triu_indices(values.shape[-1], values.shape[-1], 1, device=W.device).unbind(0)
    a = 0.5 * (values[..., i] - values[..., j])
    return log_sin_ratio_k(-a.square(), -1).sum(-1)


def pencil_hessian(P: Tensor, logarithms: Tensor, weights: Tensor) -> Callable[[Tensor], Tensor]:
    """The Hessian at P of half the mean squared distance to points with these logarithms at P, as a map of tangent
    vectors. weights ``N,*B,1,1``. The derivative is in V alone."""
    L, _, hessian = whitened_hessian(P, logarithms, weights)
    return lambda V: congruent(L, hessian(whitened(L, V)))


def whitened_hessian(
    P: Tensor, logarithms: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """L, and with ``V~ = L^-1 V L^-T`` the mean of the logarithms~ and the Hessian in V~, self-adjoint in the Frobenius
    product: sum_i w_i U_i (C_i * U_i^T V~ U_i) U_i^T with C = a coth a, a half the difference of two eigenvalues of a
    logarithm~."""
    L, theta, U = pairs(P, logarithms, False)
    weights = weights.detach()
    a = 0.5 * (theta.unsqueeze(-1) - theta.unsqueeze(-2))
    factors = weights * (1 + a.square() * cot_excess_k(-a.square(), -1))
    mean = ((U * (weights.squeeze(-1) * theta).unsqueeze(-2)) @ U.mT).sum(0)
    return L, sym(mean), lambda V: sym((U @ (factors * (U.mT @ V @ U)) @ U.mT).sum(0))
