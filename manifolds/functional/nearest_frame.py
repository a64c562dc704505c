r"""The orthonormal frame nearest to a matrix, its polar factor, with exact derivatives: ``M = P H -> P``.

With ``H = V diag(s) V^T`` and the Sylvester map ``L(A) = V ((V^T A V)_ij/(s_i + s_j)) V^T``,

    D P[E] = P L(P^T E - E^T P) + (I - P P^T) E H^-1,

a self-adjoint map, for P is the gradient of the sum of the singular values. Where singular values vanish the nearest
frame is not unique and has no derivative: there L and H^-1 give zero in the directions of those that vanish, so that
all derivatives are finite, and zero at M = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .decompositions import svd_of_plain
from .matrices import sym
from .operators import Operand, define
from .self_adjoint import SelfAdjointMap
from .tracing import derivative_wanted, values_readable, variation

_VANISHING = 16  # eps of the largest singular value: what rounding leaves of one that is zero


def nearest_frame(x: Tensor) -> Tensor:
    """The orthonormal frame nearest to any full matrix: its polar factor. ``*B,n,p -> *B,n,p``, p <= n.

    Also for rank-deficient matrices an orthonormal frame, one of the nearest; a singular value below 16 eps of the
    largest counts as zero. First and second derivatives. A matrix that is not finite gives NaN, and no other does.
    """
    # The frame is blind to scale; dividing keeps squares from overflowing.
    size = x.detach().abs().amax((-2, -1), keepdim=True)
    x = x / torch.where(size == 0, 1.0, size)
    if torch.compiler.is_compiling():
        parts = _parts_operator(x.detach())
        return _taylor(x, *parts) if derivative_wanted(x) else parts[0]
    if not derivative_wanted(x):
        return _decomposed(x)[0]
    parts = _parts(x.detach()) if values_readable(x) else _parts_operator(x.detach())
    return _frame_of(x, None, *parts)


def nearest_frame_derivative(e: Tensor, x: Tensor) -> Tensor:
    """D P[E] at a matrix x outside transforms."""
    return _first(e, *_parts(x)[:4]).frame


def _decomposed(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """P, V and s, of plain tensors. Householder QR, then the singular values of the p x p triangle: the Gram matrix
    would square the condition number."""
    if x.shape[-2] == x.shape[-1]:
        left, s, v = svd_of_plain(x)
        return left @ v.mT, v, s
    q, r = torch.linalg.qr(x)  # of what is not finite not finite, without an error
    left, s, v = svd_of_plain(r)
    return q @ (left @ v.mT), v, s


def _parts(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """P, V, the table 1/(s_i + s_j), H^-1 and H, where they have inverses."""
    frame, v, s = _decomposed(x)
    least = _VANISHING * torch.finfo(s.dtype).eps * s[..., :1]
    sums = _reciprocal(s.unsqueeze(-1) + s.unsqueeze(-2), least.unsqueeze(-1))
    # Of a square matrix nothing is across the frame but rounding, which an inverse would make numbers.
    across = torch.zeros_like(s) if x.shape[-2] == x.shape[-1] else _reciprocal(s, least)
    inverse, stretch = ((v * d.unsqueeze(-2)) @ v.mT for d in (across, s))
    return frame, v.clone(), sums, inverse, stretch


def _reciprocal(s: Tensor, least: Tensor) -> Tensor:
    known = s > least
    return torch.where(known, 1 / torch.where(known, s, 1.0), 0.0)


def _part_shapes(x: Tensor) -> tuple[Tensor, ...]:
    p = x.shape[-1]
    return x.new_empty(x.shape), *(x.new_empty((*x.shape[:-2], p, p)) for _ in range(4))


_parts_operator = define("nearest_frame", _parts, (Operand("matrices", 2),), _part_shapes, count=5)


# ---- derivatives ----------------------------------------------------------------------------------------------


class _Moved(NamedTuple):
    """A first derivative and what it is made of."""

    frame: Tensor  # D P[E]
    overlap: Tensor  # P^T E
    turn: Tensor  # L(..), its part within the frame
    across: Tensor  # and the one across


def _sylvester(a: Tensor, v: Tensor, sums: Tensor) -> Tensor:
    """L(A)."""
    return v @ (sums * (v.mT @ a @ v)) @ v.mT


def _first(e: Tensor, frame: Tensor, v: Tensor, sums: Tensor, inverse: Tensor) -> _Moved:
    """D P[E]."""
    overlap = frame.mT @ e
    turn, across = _sylvester(overlap - overlap.mT, v, sums), (e - frame @ overlap) @ inverse
    return _Moved(frame @ turn + across, overlap, turn, across)


def _second(
    e: Tensor, by_e: _Moved, by_k: _Moved, frame: Tensor, v: Tensor, sums: Tensor, inverse: Tensor, stretch: Tensor
) -> Tensor:
    """D^2 P[E, K]: `_first` differentiated along K, where H moves by P^T K - L(..) H."""
    stretched = sym(by_k.overlap - by_k.turn @ stretch)
    mixed, bent = by_k.frame.mT @ e, stretched @ by_e.turn
    change = mixed - bent
    turning = _sylvester(change - change.mT, v, sums)
    crossing = frame @ mixed + by_k.frame @ by_e.overlap + by_e.across @ stretched
    return by_k.frame @ by_e.turn + frame @ turning - crossing @ inverse


def _curved(e: Tensor, k: Tensor, parts: Sequence[Tensor]) -> Tensor:
    return _second(e, _first(e, *parts[:4]), _first(k, *parts[:4]), *parts)


def _taylor(x: Tensor, *parts: Tensor) -> Tensor:
    """The second-order Taylor polynomial at M, in a difference whose value is zero: for compilers, which know no custom
    jvp."""
    e = variation(x)
    first = _first(e, *parts[:4])
    return parts[0] + first.frame + 0.5 * _second(e, first, first, *parts)


def _frame_value(frame: Tensor, *_: object) -> Tensor:
    return frame.clone()


_frame_of = SelfAdjointMap(
    "nearest_frame_of",
    (2, 2, 2, 2, 2),
    _frame_value,
    lambda e, *parts: _first(e, *parts[:4]).frame,
    lambda e, k, *parts: _curved(e, k, parts[:5]),
    lambda x, _: _taylor(x, *_parts_operator(x.detach())),
    "the nearest frame has first and second derivatives, not third ones",
)
