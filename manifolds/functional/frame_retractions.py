"""Retractions of the Stiefel manifold and their inverses, on p x p matrices; no factorisation of an n x p one."""

from __future__ import annotations

import torch
from torch import Tensor

from .frames import block, polish, qr_step
from .matrices import identity_like, skew, sym
from .operators import Operand, define
from .tracing import derivative_wanted, variation


def qr(x: Tensor, u: Tensor) -> Tensor:
    """The Q of x + u with a positive diagonal of R, so that columns never flip."""
    return qr_step(x + u)


def cayley(x: Tensor, u: Tensor) -> Tensor:
    """-x + (x (2I - A) + u)(I - A/2 + H^T H/4)^-1: the Cayley transform of Wen and Yin (doi 10.1007/s10107-012-0584-1).

    Its n x n solve reduced to p x p. The symmetric part of the matrix is at least I, so the solve exists for every u.
    """
    a = skew(x.mT @ u)
    identity = identity_like(a)
    h = u - x @ a  # not u^T u + A^2, which in its rounding is no longer positive
    k = 0.5 * a - 0.25 * (h.mT @ h)
    inverse = torch.linalg.inv_ex(identity - k)[0]
    return polish(x @ ((2 * identity - a) @ inverse - identity) + u @ inverse)


def cayley_transport(x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The rotation of R^n that carries x to `cayley(x, u)`, applied to v: an isometry for every beta.

    Q = I + U (I - V^T U/2)^-1 V^T with U = [P u, x], V = [x, -P u], P = I - x x^T/2.
    """
    p = x.shape[-1]
    a = skew(x.mT @ u)
    half = u - 0.5 * (x @ a)
    identity = identity_like(a).expand_as(a)
    small = block([[identity - 0.25 * a, -0.5 * identity], [0.5 * (half.mT @ half), identity - 0.25 * a]])
    right = block([[identity, x.mT @ v], [0.5 * a, -(half.mT @ v)]])
    # Not by torch's solve, whose forward derivative is wrong under two levels of vmap.
    z = torch.linalg.inv_ex(small)[0] @ right
    y = x + half @ z[..., :p, :p] + x @ z[..., p:, :p]
    return polish(y), v + half @ z[..., :p, p:] + x @ z[..., p:, p:]


# C has the eigenvalues (l - 1)/(l + 1) for l of M and is squared at every step: 22 reach rounding for l down to 1e-5.
_DOUBLINGS = 22


def inverse_polar(x: Tensor, y: Tensor) -> Tensor:
    """y S - x with S positive definite, M S + S M^T = 2I, M = x^T y.

    With C = (M + I)^-1 (M - I) the Lyapunov equation is ``S - C S C^T = G``, G = 4 (M + I)^-1 (M + I)^-T, and S the
    sum of C^k G C^kT; each step doubles the number of terms (Smith 1968, doi 10.1137/0116017). A solution exists where
    the eigenvalues of M have positive real part; elsewhere NaN.
    """
    m = x.mT @ y
    identity = identity_like(m)
    half = 2 * torch.linalg.inv_ex(m + identity)[0]
    # In three dimensions a product is one node of a graph.
    c, s = (z.reshape(-1, *m.shape[-2:]) for z in (identity - half, half @ half.mT))
    for _ in range(_DOUBLINGS):
        s = torch.baddbmm(s, torch.bmm(c, s), c.mT)
        c = torch.bmm(c, c)
    found = c.detach().abs().amax((-2, -1), keepdim=True) < torch.finfo(c.dtype).eps ** 0.5
    return y @ torch.where(found, sym(s), torch.nan).reshape(m.shape) - x


def _eliminate(m: Tensor) -> tuple[Tensor, Tensor]:
    """M = L U with unit lower L, by p rank-one eliminations."""
    columns, rows = [], []
    for k in range(m.shape[-1]):
        row = m[..., k : k + 1, :]
        column = m[..., :, k : k + 1] / row[..., k : k + 1]
        m = m - column @ row
        columns.append(column)
        rows.append(row)
    return torch.cat(columns, -1).tril(), torch.cat(rows, -2).triu()


_lu_operator = define(
    "unpivoted_lu", _eliminate, [Operand("m", 2)], lambda m: (m.new_empty(m.shape), m.new_empty(m.shape)), count=2
)


def _unpivoted_lu(m: Tensor) -> tuple[Tensor, Tensor]:
    """M = L U. To a compiler the eliminations are one operator, and the equation is differentiated in two Newton steps:
    ``L^-1 dM U^-1 = L^-1 dL + dU U^-1`` has a strictly lower and an upper part."""
    if not torch.compiler.is_compiling():
        return _eliminate(m)
    lower, upper = left, right = _lu_operator(m.detach())
    if not derivative_wanted(m):
        return lower, upper
    for _ in range(2):
        off = torch.linalg.solve_triangular(left, m - lower @ upper, upper=False, unitriangular=True)
        off = torch.linalg.solve_triangular(right, off, upper=True, left=False)
        off = variation(off)
        lower, upper = lower + left @ off.tril(-1), upper + off.triu() @ right
    return lower, upper


def inverse_qr(x: Tensor, y: Tensor) -> Tensor:
    """y R - x with R upper triangular, of positive diagonal, M R + R^T M^T = 2I, M = x^T y.

    With M = L U the matrix P = U R L^-T is upper triangular and P + P^T = 2 L^-1 L^-T. NaN where no such R exists.
    """
    lower, upper = _unpivoted_lu(x.mT @ y)
    inverse = torch.linalg.solve_triangular(lower, identity_like(lower), upper=False, unitriangular=True)
    gram = inverse @ inverse.mT
    p = 2 * gram.triu(1) + torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1))
    r = torch.linalg.solve_triangular(upper, p @ lower.mT, upper=True)
    found = (r.diagonal(dim1=-2, dim2=-1).detach() > 0).all(-1)[..., None, None]
    return torch.where(found, y @ r - x, torch.nan)


def inverse_cayley(x: Tensor, y: Tensor) -> Tensor:
    """x A + 2 (y - x M)(I + M)^-1 with A = 2 (I + M)^-T (M - M^T)(I + M)^-1, where I + M is invertible."""
    m = x.mT @ y
    inverse = torch.linalg.inv_ex(identity_like(m) + m)[0]
    return x @ (2 * inverse.mT @ (m - m.mT) @ inverse - 2 * m @ inverse) + 2 * (y @ inverse)
