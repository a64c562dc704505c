r"""Geodesics of the metrics that are flat in the Cholesky factor, for a power p.

With ``x = L L^T``, ``y = K K^T`` and the derivative ``X = L half(L^-1 u L^-T)`` of the factor along u, a geodesic is a
straight line below the diagonal, and on it in ``L_jj^p/p``, which for p = 0 stands for ``log L_jj`` (Lin 2019,
arXiv:1908.09326; Chen et al. 2024, arXiv:2407.02607). There ``s_j = X_jj/L_jj`` at its start and ``delta_j =
log(K_jj/L_jj)`` at its end determine each other, ``exp(p delta) = 1 + p s``. It ends where ``1 + p s_j <= 0``; the
retraction takes ``positive_linear(p s_j)`` in that place, which is equal to second order and positive.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .cholesky import cholesky, cholesky_with_inverse
from .matrices import sym
from .series import safe_norm
from .tracing import eager_without_derivative
from .triangular import diagonal, half, product, product_derivative, with_diagonal


def growth(s: Tensor, power: float, retraction: bool) -> Tensor:
    """delta of s. Of the geodesic it is no number, or infinite, where that ends before."""
    if power == 0:
        return s
    a = power * s
    if not retraction:
        return a.log1p() / power
    below = a < 0
    q = torch.where(below, a, 0.0)
    return (torch.where(below, 0.0, a).log1p() - (q * q - q).log1p()) / power


def growth_slope(s: Tensor, power: float, retraction: bool) -> Tensor:
    """The derivative of `growth`."""
    a = power * s
    slope = 1 / (1 + a)
    return torch.where(a < 0, (1 - 2 * a) / (1 - a + a * a), slope) if retraction else slope


def velocity(delta: Tensor, power: float, retraction: bool) -> Tensor:
    """s of delta."""
    if power == 0:
        return delta
    a = power * delta
    if not retraction:
        return a.expm1() / power
    below = a < 0
    q = torch.where(below, a, 0.0)
    end = q.exp()  # positive_linear(p s), of which p s = (1 - sqrt(4/end - 3))/2, a difference next to one
    return torch.where(below, 2 * q.expm1() / (end + (end * (4 - 3 * end)).sqrt()), a.expm1()) / power


def factors(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """L and K. Two batches of one shape are factored as one, in half of the launches."""
    if x.shape != y.shape:
        return cholesky(x), cholesky(y)
    L, K = cholesky(torch.stack([x, y])).unbind()
    return L, K


def cholesky_difference(x: Tensor, y: Tensor, root: Tensor, power: float) -> Tensor:
    """K - L below the diagonal, on it ``r_j (K_jj^p - L_jj^p)/p``, of which near points lose no digit.
    ``*B,n,n; *B,n,n; *B,n -> *B,n,n``."""
    return cholesky_difference_saving(x, y, root, power)[0]


def cholesky_difference_saving(x: Tensor, y: Tensor, root: Tensor, power: float) -> tuple[Tensor, ...]:
    """`cholesky_difference` with what its backward pass reads."""
    L, K = factors(x, y)
    d = diagonal(L)
    change = velocity((diagonal(K) / d).log(), power, False)
    D = with_diagonal(K - L, root * (change if power == 0 else d**power * change))
    return D, L, K, D


def cholesky_dist(x: Tensor, y: Tensor, root: Tensor, power: float) -> Tensor:
    """The norm of `cholesky_difference`. ``-> *B``."""
    return cholesky_dist_saving(x, y, root, power)[0]


def cholesky_dist_saving(x: Tensor, y: Tensor, root: Tensor, power: float) -> tuple[Tensor, ...]:
    """`cholesky_dist` with what its backward pass reads."""
    D, L, K, _ = cholesky_difference_saving(x, y, root, power)
    # What a sum of squares in float64 loses of float32 is nothing.
    plain = D.dtype == torch.float32 and eager_without_derivative(D)
    length = torch.linalg.vector_norm(D.double(), dim=(-2, -1)).float() if plain else safe_norm(D, (-2, -1))
    return length, L, K, D, length


def cholesky_log(x: Tensor, y: Tensor, power: float, retraction: bool) -> Tensor:
    """The tangent vector ``L X^T + X L^T`` at x that points to y: X is K - L below the diagonal, ``L_jj s_j`` on it.
    ``*B,n,n -> *B,n,n``."""
    return cholesky_log_saving(x, y, power, retraction)[0]


def cholesky_log_saving(x: Tensor, y: Tensor, power: float, retraction: bool) -> tuple[Tensor, ...]:
    """`cholesky_log` with what its backward pass reads."""
    L, K = factors(x, y)
    d = diagonal(L)
    X = with_diagonal(K - L, d * velocity((diagonal(K) / d).log(), power, retraction))
    return product_derivative(L, X), L, K, X


def cholesky_exp(x: Tensor, u: Tensor, power: float, retraction: bool) -> Tensor:
    """The point ``K K^T`` to which u points: K is L + X below the diagonal, ``L_jj exp(delta_j)`` on it. NaN for an
    item of which the geodesic ends before. ``*B,n,n -> *B,n,n``."""
    return cholesky_exp_saving(x, u, power, retraction)[0]


def cholesky_exp_saving(x: Tensor, u: Tensor, power: float, retraction: bool) -> tuple[Tensor, ...]:
    """`cholesky_exp` with what its backward pass reads."""
    L, inverse = cholesky_with_inverse(x)
    Z = sym(inverse @ u @ inverse.mT)
    h = half(Z)
    factor = growth(diagonal(h), power, retraction).exp()
    K = with_diagonal(L + (h.mT @ L.mT).mT, diagonal(L) * factor)  # added in one layout
    if power != 0 and not retraction:  # beyond the domain all of the item is NaN, and at its rim, 0 or infinity
        inside = factor.detach()
        K = (inside / inside).amin(-1)[..., None, None] * K
    return product(K), L, inverse, Z, K
