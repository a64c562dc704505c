r"""Updates of a truncated singular value decomposition ``U diag(s) V^T`` of rank k, by small matrices.

What is added is written in bases of both sides, each the old one with a few columns more, ``[U Q]`` and ``[V P]``. The
singular value decomposition of the small matrix K between them turns these into the new ones:

    [l U diag(s) V^T; R] = [U 0; 0 I] K [V P]^T,   K = [l diag(s), 0; R V, R P],   K = A diag(t) B^T

with the forgetting factor l. Zha and Simon 1999, "On updating problems in latent semantic indexing", doi
10.1137/S1064827597329266; Brand 2006, doi 10.1016/j.laa.2005.07.021.

A basis that is turned in every update costs (n + m) k^2. It may be kept as a product, a large matrix and a small one:

    [L M, Q] [B_1; B_2] = (L + Q B_2 (M B_1)^-1) (M B_1),   [L M, 0; 0, I] [A_1; A_2] = [L; A_2 (M A_1)^-1] (M A_1)

so that r columns more cost (n + m) k r: the decomposition of Brand 2006 and of Deng et al. 2024, "Fast Updating
Truncated SVD for Representation Learning with Sparse Matrices", arXiv:2401.09703. Nothing here has derivatives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .decompositions import svd
from .frames import newton_schulz_step
from .matrices import identity_like
from .tracing import values_readable

_OVERLAP = 16  # eps: what a new column may have in the span of the old ones
_PASSES = 3  # of taking that out
_CONDITION = 30.0  # of the small factor: by as much rounding grows


@torch.no_grad()
def thin_svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, s, V of any matrices, s descending. ``*B,n,m -> *B,n,k; *B,k; *B,m,k`` with k = min(n, m). A matrix that is
    not finite gives NaN, and no other does."""
    n, m = x.shape[-2:]
    if n < m:
        v, s, u = thin_svd(x.mT)
        return u, s, v
    if n == m:
        return svd(x)
    q, r = torch.linalg.qr(x)
    u, s, v = svd(r)
    return q @ u, s, v


def with_columns(basis: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """An orthonormal basis of the span of both, and the coordinates of both in it: ``[basis columns] = Q R``. By
    Householder reflections, whatever the columns: Q is orthonormal to rounding, and drift does not add up."""
    return torch.linalg.qr(torch.cat([basis, columns], -1))


def stacked_core(s: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """``[diag(s) first^T; second^T]``. ``*B,k; *B,q,k; *B,q,r -> *B,k+r,q``."""
    return torch.cat([s.unsqueeze(-1) * first.mT, second.mT], -2)


@torch.no_grad()
def rows_appended(u: Tensor, s: Tensor, v: Tensor, rows: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """U, s, V of ``[U diag(s) V^T; rows]``, cut off behind `rank`."""
    k = s.shape[-1]
    q, r = with_columns(v, rows.mT)
    a, t, b = cut_off(thin_svd(stacked_core(s, r[..., :k], r[..., k:])), rank)
    grown = torch.cat([u @ a[..., :k, :], a[..., k:, :]], -2)
    # V is made anew by reflections; U keeps its drift, which this takes away.
    return newton_schulz_step(grown), t, q @ b


@torch.no_grad()
def low_rank_added(u: Tensor, s: Tensor, v: Tensor, a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """U, s, V of ``U diag(s) V^T + a b^T``, cut off behind `rank`."""
    (left, in_left), (right, in_right) = with_columns(u, a), with_columns(v, b)
    scale = torch.cat([s, torch.ones_like(a[..., 0, :])], -1)
    turn, t, other = cut_off(thin_svd((in_left * scale.unsqueeze(-2)) @ in_right.mT), rank)
    return left @ turn, t, right @ other


def cut_off(parts: tuple[Tensor, Tensor, Tensor], rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first columns of U and V, and numbers of s."""
    u, s, v = parts
    return u[..., :rank], s[..., :rank], v[..., :rank]


# ---- a basis as a product -------------------------------------------------------------------------------------


@torch.no_grad()
def residual_basis(large: Tensor, small: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """P, Q and T with ``columns = L M P + Q T``, Q orthonormal and orthogonal to the orthonormal L M. None where
    rounding leaves no such Q, or numbers cannot be looked at."""
    if not values_readable(columns) or columns.numel() == 0 or columns.shape[-1] > columns.shape[-2]:
        return None

    def coordinates(x: Tensor) -> Tensor:
        return small.mT @ (large.mT @ x)

    p = coordinates(columns)
    q, t = torch.linalg.qr(columns - large @ (small @ p))
    for _ in range(_PASSES):  # of a short rest much is rounding, and of a rest of zero Q is anything
        overlap = coordinates(q)
        if bool(overlap.abs().amax() <= _OVERLAP * torch.finfo(q.dtype).eps):  # of NaN not
            return p, q, t
        q, more = torch.linalg.qr(q - large @ (small @ overlap))
        p, t = p + overlap @ t, more @ t
    return None


@torch.no_grad()
def turned_product(large: Tensor, small: Tensor, turn: Tensor, q: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """L' and M' with ``L' M' = [L M, Q] turn``, or of ``[L M, 0; 0, I] turn`` where there is no Q. None where M' is too
    ill-conditioned for that."""
    k = small.shape[-1]
    first, second = turn[..., :k, :], turn[..., k:, :]
    turned = small @ first
    inverse = torch.linalg.inv_ex(turned)[0]
    # Frobenius norms bound the condition number; one of the identity is sqrt(k).
    condition = torch.linalg.matrix_norm(turned) * torch.linalg.matrix_norm(inverse) / k
    if not bool((condition <= _CONDITION).all()):
        return None
    correction = second @ inverse
    moved = torch.cat([large, correction], -2) if q is None else large + q @ correction
    return moved, turned


def identity_beside(x: Tensor) -> Tensor:
    """The identity of as many columns, with the batch of x. ``*B,n,k -> *B,k,k``."""
    return identity_like(x).expand(*x.shape[:-2], -1, -1)
