r"""Canonical pairs of positive semidefinite matrices of rank p: ``X = U S U^T`` with ``U^T U = I``, in which the first
p rows of U, its *top block*, are a symmetric positive definite matrix C.

Any other pair is ``(U Q, Q^T S Q)`` with Q orthogonal. The one of a basis Y with the top block ``C W`` (left polar
decomposition) is ``U = Y W^T``. A moving basis turns by as much as keeps the top block symmetric:

    U' = Y' W^T + U Omega,    C Omega + Omega C = T^T - T,    T the top block of Y' W^T,

a Lyapunov equation, which divides by sums of two different eigenvalues of C, cosines of the principal angles to the
span of the first p axes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .decompositions import eigenvalues, eigh
from .frames import inverse_sqrt
from .matrices import identity_like, sym
from .singular_values import polar_factor
from .spectral import function_at
from .spectral_functions import UPPER_PROJECTOR
from .tracing import derivative_wanted, values_at_hand, variation

_ORDERS = 2  # of derivatives that are right


def top_block(u: Tensor) -> Tensor:
    """The first p rows. ``*B,n,p -> *B,p,p``."""
    return u[..., : u.shape[-1], :]


def aligned(y: Tensor) -> tuple[Tensor, Tensor]:
    """The canonical basis U of the span of a basis Y, and W with ``U = Y W^T``. ``*B,n,p -> *B,n,p and *B,p,p``.

    Where the top block is singular there are several; this is one of them.
    """
    w = polar_factor(top_block(y))
    return y @ w.mT, w


def skew_lyapunov(c: Tensor, k: Tensor) -> Tensor:
    """The skew Omega with ``C Omega + Omega C = K``, of a skew K and a symmetric C without negative eigenvalues, no
    larger than one. ``*B,p,p``. First and second derivatives; zero in the planes of two eigenvalues that vanish."""
    if c.shape[-1] == 1:
        return 0 * (c + k)
    c = sym(c)
    a, q = eigh(c)
    sums = a.unsqueeze(-1) + a.unsqueeze(-2)
    known = sums > 16 * torch.finfo(a.dtype).eps  # cosines are rounded to eps of one
    weight = torch.where(known, 1 / torch.where(known, sums, 1.0), 0.0 * sums)

    def solved(k: Tensor) -> Tensor:
        inner = q.mT @ k @ q
        return q @ (weight * (0.5 * (inner - inner.mT))) @ q.mT

    omega = solved(k)
    for _ in range(_ORDERS if derivative_wanted(c) else 0):
        omega = omega + solved(variation(k - c @ omega - omega @ c))
    return omega


def stays_aligned(u: Tensor, moved: Tensor) -> Tensor:
    """The velocity of the canonical basis U of a span, of which another basis moves from U with the velocity `moved`.
    ``*B,n,p``."""
    t = top_block(moved)
    return moved + u @ skew_lyapunov(top_block(u), t.mT - t)


def stays_aligned_adjoint(u: Tensor, g: Tensor) -> Tensor:
    """The transpose of `stays_aligned` in `moved`. ``*B,n,p``."""
    a = u.mT @ g
    turned = skew_lyapunov(top_block(u), a - a.mT)
    return g - _under(turned, g)


def _under(top: Tensor, like: Tensor) -> Tensor:
    """The matrix of the shape of `like` with the first rows `top`, and zeros in the others."""
    n, p = like.shape[-2:]
    return torch.cat([top, top.new_zeros((*top.shape[:-2], n - p, p))], -2)


# ---- next to singular top blocks ------------------------------------------------------------------------------


def least_cosine(u: Tensor) -> Tensor:
    """The smallest eigenvalue of the symmetric part of the top block. ``*B,n,p -> *B``, no derivative."""
    return eigenvalues(sym(top_block(u.detach())))[..., 0]


def clear_of_rounding(u: Tensor) -> Tensor:
    """Whether the top block is positive definite by more than rounding. ``*B,n,p -> *B`` (bool)."""
    return least_cosine(u) > u.shape[-1] * torch.finfo(u.dtype).eps


def lifted_top(u: Tensor, margin: float) -> Tensor:
    """Canonical U where the eigenvalues of the top block are above `margin`; else that of U + 2 `margin` I_(n,p), of
    which they are."""
    low = ~(least_cosine(u) > margin)[..., None, None]
    if values_at_hand(u) and not bool(low.any()):
        return u
    moved = u + 2 * margin * _under(identity_like(u).expand(*u.shape[:-2], -1, -1), u)
    return torch.where(low, moved @ inverse_sqrt(moved.mT @ moved)[0], u)


def off_the_rim(u: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Canonical U with a top block that the rounding of `dtype`, by default its own, leaves regular. ``*B,n,p``."""
    return lifted_top(u, 2 * u.shape[-1] * torch.finfo(u.dtype if dtype is None else dtype).eps)


# ---- matrices -------------------------------------------------------------------------------------------------


def leading_eigenspace(x: Tensor, p: int) -> Tensor:
    """An orthonormal basis of the span of the eigenvectors of the p largest eigenvalues of symmetric x.
    ``*B,n,n -> *B,n,p``, p < n. With first and second derivatives of the span where eigenvalue p and the next one
    differ by more than rounding; where they do not it is one such span, as if it were constant."""
    values, vectors = eigh(x)
    n = x.shape[-1]
    lower, upper = values[..., : n - p], values[..., n - p :]
    middle = 0.5 * (upper[..., :1] + lower[..., -1:])
    size, eps = values.abs().amax(-1, keepdim=True), n * torch.finfo(x.dtype).eps
    differ = upper[..., :1] - lower[..., -1:] > eps * size
    # Of eigenvalues so far apart the derivative is next to zero.
    apart = torch.where(differ, 0.0, (size + (size == 0)) / eps)
    sides = torch.cat([lower - middle - apart, upper - middle + apart], -1)
    top = vectors[..., n - p :]
    # The projector is differentiable although eigenvectors are not at repeated eigenvalues: follow the basis.
    moved = function_at(x - middle.unsqueeze(-1) * identity_like(x), sides, vectors, UPPER_PROJECTOR) @ top
    return moved @ inverse_sqrt(moved.mT @ moved)[0]


def leading_left_space(factor: Tensor, p: int, least: float) -> Tensor:
    """`leading_eigenspace` of ``factor factor^T`` from the m x m Gram matrix, for p <= m <= n. ``*B,n,m -> *B,n,p``.
    The p largest eigenvalues are at least `least`: the larger they are, the less the Gram matrix forgets."""
    gram = factor.mT @ factor
    m = factor.shape[-1]
    y = factor @ leading_eigenspace(gram, p) if p < m else factor
    return y @ (inverse_sqrt(y.mT @ y / least)[0] * least**-0.5)
