r"""Correlation matrices as logarithms of matrices with row sums one.

For positive definite C there is one x > 0 with ``x_i (C x)_i = 1``: the minimum of ``f(x) = x^T C x/2 - sum log x_i``,
which is strictly convex. ``M = diag(x) C diag(x)`` then has the eigenvalue 1 with the eigenvector of ones, and
``S = log M`` row sums zero. Every symmetric S with row sums zero is one, of ``C = cor(exp S)`` (Thanwerdas 2024, doi
10.1137/22M1538144, theorem 3.8). With orthonormal columns F orthogonal to the vector of ones, ``S = F Z F^T`` and
``Z = log(F^T M F)``: what is computed is Z, of n - 1 rows, so that no rounding takes row sums of S from zero.

The condition of M may be the square of that of C, as with two blocks of which one is near to singular and the other one
near to rank one. Its eigenvalues are well determined all the same: those of ``G^T G`` with ``G = L^T diag(x) F`` and
``C = L L^T``, as accurate as singular values of G are, ``eps cond(M)^(1/2)``.

Derivatives are those of the equation, ``(I + M) e = -N 1`` for ``N = diag(x) dC diag(x)`` and ``dx = diag(x) e``; then
``dM = N + diag(e) M + M diag(e)``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .correlation import hollow, unit_diagonal, with_ones
from .decompositions import eigh_of_plain, svd_of_plain
from .matrices import congruent, identity_like, sym
from .operators import Operand, define
from .spectral import function_at
from .spectral_functions import EXP, LOG
from .spectral_pushforward import derivative_at, function_and_derivatives
from .tracing import derivative_wanted, variation
from .triangular import diagonal, lower_inverse, product, product_derivative, with_diagonal
from .zero_sum_matrices import zero_sum_basis

# ---- the scale ----------------------------------------------------------------------------------------------------

_ROUNDS = 100  # seven take a condition of 1e4, some fifteen one of 1e12, thirty one of many blocks near to singular
_NEAR = 0.25  # of the decrement, from where on whole steps square it: (0.25/(1 - 0.25))^2 is less than a half of it


def _scale(C: Tensor) -> Tensor:
    """x of positive definite matrices, by Newton's method; NaN where it does not converge. ``N,n,n -> N,n``.

    A step goes nearly to the minimum of f along its direction; then x is multiplied by the number that makes
    ``x^T C x = n``, to the minimum on that ray.
    """
    x = torch.rsqrt(C.mean(-1).sum(-1, keepdim=True)).expand(C.shape[:-1])
    last = torch.full_like(x[..., :1], torch.inf)
    done = torch.zeros_like(last, dtype=torch.bool)
    for _ in range(_ROUNDS):
        s = (C @ x.unsqueeze(-1)).squeeze(-1)
        # Cholesky's method does as well for any scaling of rows and columns.
        factor = torch.linalg.cholesky_ex(C + torch.diag_embed(x**-2))[0]
        slope = s - 1 / x
        p = -torch.cholesky_solve(slope.unsqueeze(-1), factor).squeeze(-1)
        decrement = (slope * -p).sum(-1, keepdim=True).clamp(min=0).sqrt()
        near, following = decrement <= _NEAR, x + p
        if not bool(near.all()):
            following = torch.where(near, following, _line_minimum(x, p, s, decrement))
        x = torch.where(done, x, following)
        # The step squares the decrement; where that stalls it is rounding.
        done = done | (decrement < torch.finfo(C.dtype).eps ** 0.5) | ((last <= _NEAR) & (decrement > 0.5 * last))
        if bool(done.all()):
            break
        last = decrement
    return torch.where(done, x, torch.nan)


def _line_minimum(x: Tensor, p: Tensor, s: Tensor, decrement: Tensor) -> Tensor:
    """Where f is as small as one step of Newton's method finds along p from the step 1/(1 + decrement), and no smaller
    than there, and multiplied as `_scale` says. The latter alone is known to suffice: f is self-concordant (Nesterov
    2004, Introductory Lectures on Convex Optimization, theorem 4.1.11)."""
    d, slope = p / x, (p * s).sum(-1, keepdim=True)
    # f(x + t p) - f(x) = t slope + t^2 curvature/2 - sum log(1 + t d_i).
    curvature = (decrement.square() - d.square().sum(-1, keepdim=True)).clamp(min=0)
    damped = 1 / (1 + decrement)
    q = d / (1 + damped * d)
    falling = slope + damped * curvature - q.sum(-1, keepdim=True)
    lowest = d.amin(-1, keepdim=True)
    rim = torch.where(lowest < 0, -1 / lowest, torch.inf)
    t = torch.minimum(damped - falling / (curvature + q.square().sum(-1, keepdim=True)), 0.5 * (damped + rim))
    both = torch.stack([damped, t])
    value = both * slope + 0.5 * both.square() * curvature - torch.log1p(both * d).sum(-1, keepdim=True)
    t = torch.where(value[1] < value[0], t, damped)
    size = (x * s).sum(-1, keepdim=True) + 2 * t * slope + t.square() * curvature
    return (x + t * p) * (x.shape[-1] / size).sqrt()


# ---- the operator -------------------------------------------------------------------------------------------------


def _scaled_eigh(C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x, and the eigenvalues and eigenvectors of F^T M F, all found in float64; NaN for matrices that are not positive
    definite. ``*B,n,n -> *B,n, *B,n-1 and *B,n-1,n-1``."""
    batch, n = C.shape[:-2], C.shape[-1]
    wide = C.double().reshape(-1, n, n)
    factor, info = torch.linalg.cholesky_ex(wide)
    definite = ((info == 0) & wide.isfinite().flatten(1).all(-1)).unsqueeze(-1)
    wide, factor = (torch.where(definite.unsqueeze(-1), m, identity_like(m)) for m in (wide, factor))
    x = _scale(wide)
    found = definite & x.isfinite().all(-1, keepdim=True)
    G = factor.mT @ (torch.where(found, x, 1.0).unsqueeze(-1) * zero_sum_basis(n, wide))
    a, Q = eigh_of_plain(G.mT @ G)
    # Rounding is one of the largest eigenvalue, and is to be small beside the smallest.
    poor = (a[:, 0] < torch.finfo(a.dtype).eps ** 0.25 * a[:, -1]).nonzero().squeeze(-1)
    if len(poor) > 0:
        _, values, vectors = svd_of_plain(torch.linalg.qr(G[poor]).R)
        a, Q = a.index_copy(0, poor, values.square().flip(-1)), Q.index_copy(0, poor, vectors.flip(-1))
    mark = torch.where(found, 0.0, torch.nan)
    shapes = (n,), (n - 1,), (n - 1, n - 1)
    results = (x + mark, a + mark, Q + mark.unsqueeze(-1))
    return tuple(r.to(C.dtype).reshape(*batch, *s) for r, s in zip(results, shapes, strict=True))  # type: ignore


def _empty(C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, n = C.shape[:-2], C.shape[-1]
    return C.new_empty(C.shape[:-1]), C.new_empty((*batch, n - 1)), C.new_empty((*batch, n - 1, n - 1))


scaled_eigh = define("correlation_scaling", _scaled_eigh, (Operand("matrices", 2),), _empty, count=3)


# ---- the logarithm, with its derivatives --------------------------------------------------------------------------


class Scaled(NamedTuple):
    """A matrix C with row sums made one: x, M and ``B = F^T M F`` with the first and second derivatives of C; the
    eigenvalues a and eigenvectors Q of B, and W with ``W^T W = (I + M)^-1``, without a derivative."""

    x: Tensor
    M: Tensor
    B: Tensor
    a: Tensor
    Q: Tensor
    W: Tensor | None

    def solved(self, v: Tensor) -> Tensor:
        """``(I + M)^-1 v``, with the derivatives of M and v."""
        once = self._at_rest(v)
        if not derivative_wanted(self.M):
            return once
        # Of (I + M + dM)^-1 to second order.
        change = variation(self.M)
        return once - self._at_rest(change @ (once - self._at_rest(change @ once)))

    def _at_rest(self, v: Tensor) -> Tensor:
        assert self.W is not None
        return self.W.mT @ (self.W @ v)


def scaled(C: Tensor, with_solver: bool) -> Scaled:
    """C, of which what is off the diagonal is read, with row sums made one. ``*B,n,n``."""
    C = with_ones(sym(C))
    at = C.detach()
    x, a, Q = scaled_eigh(at)
    M, F = _both_sides(x, at), zero_sum_basis(C.shape[-1], C)
    varied = derivative_wanted(C)
    # In float64, and Cholesky's method does as well for any scaling.
    wide = M.double()
    W = lower_inverse(torch.linalg.cholesky_ex(wide + identity_like(wide))[0]).to(C) if with_solver or varied else None
    found = Scaled(x, M, congruent(F.mT, M), a, Q, W)
    if not varied:
        return found
    # To second order ``(I + M) e = -N 1 - (N e - e^2)``.
    N = _both_sides(x, variation(C))
    e = -found._at_rest(N.sum(-1, keepdim=True))
    e = (e - found._at_rest(N @ e - e.square())).squeeze(-1)
    M = _both_sides(1 + e, M + N)
    return Scaled(x * (1 + e), M, congruent(F.mT, M), a, Q, W)


def _both_sides(x: Tensor, m: Tensor) -> Tensor:
    """diag(x) m diag(x)."""
    return x.unsqueeze(-1) * m * x.unsqueeze(-2)


def log_scaling(C: Tensor, *directions: Tensor) -> tuple[Tensor, ...]:
    """Z of a correlation matrix, and its derivatives along `directions`. ``*B,n,n -> *B,n-1,n-1`` each."""
    s = scaled(C, bool(directions))
    F = zero_sum_basis(C.shape[-1], C)
    found = [function_at(s.B, s.a, s.Q, LOG)]
    for u in directions:
        N = _both_sides(s.x, hollow(u))
        moved = N - s.solved(N.sum(-1, keepdim=True)) * s.M  # diag(e) M, and its transpose below
        found.append(derivative_at(s.B, s.a, s.Q, congruent(F.mT, 2 * moved - N), LOG))
    return tuple(found)


# ---- the inverse --------------------------------------------------------------------------------------------------


class Rooted(NamedTuple):
    """``exp(S) = Y Y^T + 1 1^T/n`` for ``Y = F exp(Z/2)``, the roots r of its diagonal, and ``C = cor(exp S)``. The
    factor keeps the relative error of small rows."""

    Y: Tensor
    r: Tensor
    C: Tensor


def rooted(E: Tensor) -> Rooted:
    """Of exp(Z/2)."""
    n = E.shape[-1] + 1
    Y = zero_sum_basis(n, E) @ E
    P = product(Y) + 1 / n
    return Rooted(Y, diagonal(P).sqrt(), unit_diagonal(P))


def pushed(at: Rooted, dE: Tensor) -> Tensor:
    """The derivative of C along one of exp(Z/2)."""
    dY = zero_sum_basis(at.C.shape[-1], dE) @ dE
    dP = product_derivative(at.Y / at.r.unsqueeze(-1), dY / at.r.unsqueeze(-1))
    half = 0.5 * diagonal(dP)
    return hollow(dP - (half.unsqueeze(-1) + half.unsqueeze(-2)) * at.C)


def pulled(at: Rooted, g: Tensor) -> Tensor:
    """The gradient of exp(Z/2), of one in C: the transpose of `pushed`, up to a factor of two."""
    g = hollow(g)
    weight = with_diagonal(g, -(g * at.C).sum(-1)) / at.r.unsqueeze(-1) / at.r.unsqueeze(-2)
    return sym(zero_sum_basis(at.C.shape[-1], g).mT @ (weight @ at.Y))


def exp_scaling(Z: Tensor, *directions: Tensor) -> tuple[Tensor, ...]:
    """C of Z, and its derivatives along `directions`. ``*B,n-1,n-1 -> *B,n,n`` each."""
    E, *moved = function_and_derivatives(0.5 * Z, EXP, *(0.5 * v for v in directions))
    at = rooted(E)
    return at.C, *(pushed(at, dE) for dE in moved)
