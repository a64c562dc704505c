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
from .triangular import diagonal, product, product_derivative, with_diagonal
from .zero_sum_matrices import zero_sum_basis

# ---- the scale ----------------------------------------------------------------------------------------------------

_ROUNDS = 100  # a dozen take a condition of 1e12; thirty, many blocks of which each is near to singular in its own way
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
    """a, Q and R of `Scaled`, found in float64; NaN for matrices that are not positive definite. ``*B,n,n -> *B,n-1,
    *B,n-1,n-1 and *B,n,n``."""
    batch, n = C.shape[:-2], C.shape[-1]
    wide = C.double().reshape(-1, n, n)
    L, info = torch.linalg.cholesky_ex(wide)
    definite = ((info == 0) & wide.isfinite().flatten(1).all(-1)).unsqueeze(-1)
    wide, L = (torch.where(definite.unsqueeze(-1), m, identity_like(m)) for m in (wide, L))
    x = _scale(wide)
    found = definite & x.isfinite().all(-1, keepdim=True)
    x = torch.where(found, x, 1.0).unsqueeze(-1)
    F = zero_sum_basis(n, wide)
    G = L.mT @ (x * F)
    a, Q = eigh_of_plain(G.mT @ G)
    R = x * with_ones_first(F @ Q)
    # Rounding is one of the largest eigenvalue, and is to be small beside the smallest.
    poor = (a[:, 0] < torch.finfo(a.dtype).eps ** 0.25 * a[:, -1]).nonzero().squeeze(-1)
    if len(poor) > 0:
        frame, triangle = torch.linalg.qr(G[poor])
        left, c, right = (t.flip(-1) for t in svd_of_plain(triangle))
        columns = torch.linalg.solve_triangular(L[poor].mT, frame @ (left * c.unsqueeze(-2)), upper=True)
        a, Q = a.index_copy(0, poor, c.square()), Q.index_copy(0, poor, right)
        R = R.index_copy(0, poor, torch.cat([R[poor, :, :1], columns], -1))
    mark = torch.where(found, 0.0, torch.nan)
    results = a + mark, Q + mark.unsqueeze(-1), R + mark.unsqueeze(-1)
    return tuple(r.to(C.dtype).reshape(*batch, *r.shape[1:]) for r in results)  # type: ignore[return-value]


def with_ones_first(columns: Tensor) -> Tensor:
    """The vector of ones, made of length one, and columns that are orthogonal to it. ``*B,n,n-1 -> *B,n,n``."""
    return torch.cat([torch.full_like(columns[..., :1], columns.shape[-2] ** -0.5), columns], -1)


def _empty(C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, n = C.shape[:-2], C.shape[-1]
    return C.new_empty((*batch, n - 1)), C.new_empty((*batch, n - 1, n - 1)), C.new_empty(C.shape)


scaled_eigh = define("correlation_scaling", _scaled_eigh, (Operand("matrices", 2),), _empty, count=3)


# ---- the logarithm, with its derivatives --------------------------------------------------------------------------


class Scaled(NamedTuple):
    """A matrix C with row sums made one, in eigenvectors: ``M = P diag(m) P^T`` with the vector of ones first, ``P =
    (1/sqrt n | F Q)`` and ``m = (1, a)``, and ``R = diag(x) P``.

    M and ``T = I + P^T diag(e) P``, the growth of x, are in the basis P, diagonal matrices with the first and second
    derivatives of C; the rest has no derivative. In this basis small eigenvalues keep their digits: ``P^T N P = R^T dC
    R`` is as small as they are.
    """

    a: Tensor
    Q: Tensor
    P: Tensor
    R: Tensor
    m: Tensor
    M: Tensor
    T: Tensor | None

    @property
    def inner(self) -> Tensor:
        """M without the vector of ones: the matrix whose logarithm is taken. ``*B,n-1,n-1``."""
        return self.M[..., 1:, 1:]

    @property
    def logarithm(self) -> Tensor:
        """Z. ``*B,n-1,n-1``."""
        return congruent(self.Q, function_at(self.inner, self.a, identity_like(self.Q).expand_as(self.Q), LOG))

    def along(self, u: Tensor) -> Tensor:
        """The derivative of Z along u. ``*B,n-1,n-1``."""
        N = congruent(self.R.mT, hollow(u))
        if self.T is None:
            e = _in_rest(self.m, -_times_ones(N))
        else:
            N = self.T @ N @ self.T
            e = self._solved(-_times_ones(N))
        changed = N + 2 * sym(_as_diagonal(self.P, e) @ self.M)
        rest = identity_like(self.Q).expand(*changed.shape[:-2], *self.Q.shape[-2:])
        return congruent(self.Q, derivative_at(self.inner, self.a, rest, changed[..., 1:, 1:], LOG))

    def _solved(self, v: Tensor) -> Tensor:
        """``(I + M)^-1 v``, with the derivatives of M and v to second order."""
        change, once = variation(self.M), _in_rest(self.m, v)
        return once - _in_rest(self.m, change @ (once - _in_rest(self.m, change @ once)))


def scaled(C: Tensor) -> Scaled:
    """C, of which what is off the diagonal is read, with row sums made one. ``*B,n,n``."""
    C = with_ones(sym(C))
    a, Q, R = scaled_eigh(C.detach())
    P = with_ones_first(zero_sum_basis(C.shape[-1], C) @ Q)
    m = torch.cat([torch.ones_like(a[..., :1]), a], -1)
    M = torch.diag_embed(m)
    if not derivative_wanted(C):
        return Scaled(a, Q, P, R, m, M, None)
    N = congruent(R.mT, variation(C))
    # To second order ``(I + M) e = -N 1 - (N e - e^2)``.
    e = _in_rest(m, -_times_ones(N))
    e = e - _in_rest(m, N @ e - P.mT @ (P @ e).square())
    T = identity_like(M) + _as_diagonal(P, e)
    return Scaled(a, Q, P, R, m, sym(T @ (M + N) @ T), T)


def _times_ones(N: Tensor) -> Tensor:
    """N 1, in the basis P."""
    return N.shape[-1] ** 0.5 * N[..., :1]


def _in_rest(m: Tensor, v: Tensor) -> Tensor:
    """``(I + M)^-1 v`` of the M without derivative."""
    return v / (1 + m).unsqueeze(-1)


def _as_diagonal(P: Tensor, e: Tensor) -> Tensor:
    """``P^T diag(e) P`` of e in the basis P. ``*B,n,1 -> *B,n,n``."""
    return P.mT @ ((P @ e) * P)


def log_scaling(C: Tensor, *directions: Tensor) -> tuple[Tensor, ...]:
    """Z of a correlation matrix, and its derivatives along `directions`. ``*B,n,n -> *B,n-1,n-1`` each."""
    s = scaled(C)
    return s.logarithm, *(s.along(u) for u in directions)


# ---- the inverse --------------------------------------------------------------------------------------------------


class Rooted(NamedTuple):
    """``exp(S) = Y Y^T + 1 1^T/n`` for ``Y = F exp(Z/2)``, the roots r of its diagonal, and ``C = cor(exp S)``. The
    factor keeps the relative error of small rows."""

    F: Tensor
    Y: Tensor
    r: Tensor
    C: Tensor


def rooted(E: Tensor) -> Rooted:
    """Of exp(Z/2)."""
    n = E.shape[-1] + 1
    F = zero_sum_basis(n, E)
    Y = F @ E
    P = product(Y) + 1 / n
    return Rooted(F, Y, diagonal(P).sqrt(), unit_diagonal(P))


def pushed(at: Rooted, dE: Tensor) -> Tensor:
    """The derivative of C along one of exp(Z/2)."""
    r = at.r.unsqueeze(-1)
    dP = product_derivative(at.Y / r, (at.F @ dE) / r)
    half = 0.5 * diagonal(dP)
    return hollow(dP - (half.unsqueeze(-1) + half.unsqueeze(-2)) * at.C)


def pulled(at: Rooted, g: Tensor) -> Tensor:
    """The gradient of exp(Z/2), of one in C: the transpose of `pushed`, up to a factor of two."""
    g = hollow(g)
    weight = with_diagonal(g, -(g * at.C).sum(-1)) / at.r.unsqueeze(-1) / at.r.unsqueeze(-2)
    return sym(at.F.mT @ (weight @ at.Y))


def exp_scaling(Z: Tensor, *directions: Tensor) -> tuple[Tensor, ...]:
    """C of Z, and its derivatives along `directions`. ``*B,n-1,n-1 -> *B,n,n`` each."""
    E, *moved = function_and_derivatives(0.5 * Z, EXP, *(0.5 * v for v in directions))
    at = rooted(E)
    return at.C, *(pushed(at, dE) for dE in moved)
