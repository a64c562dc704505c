r"""The matrices nearest to a symmetric one, in the Frobenius norm, in sets that are described by eigenvalues.

The nearest matrix has the eigenvectors of ``X = Q diag(a) Q^T``, and as eigenvalues the nearest point p(a) of the set
of vectors. All of these maps are affine as long as no eigenvalue changes its side, with a Jacobian ``diag(s) + d c^T``
in which s is one for eigenvalues that move freely and zero for others, and d is a multiple of c. The derivative is then

    D P[G] = Q (Gamma * G' + diag(d <c, diag G'>)) Q^T,   G' = Q^T G Q,   Gamma_ij = (p_i - p_j)/(a_i - a_j),

and ``Gamma_ij = s_i`` for equal eigenvalues. It is self-adjoint. There is no second derivative; at a kink the first is
that of one side. (Cederberg and Boyd 2025, "Projections onto Spectral Matrix Cones", arXiv:2511.01089, for the
reduction to eigenvalues.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..precision import in_full_precision
from .decompositions import eigh_of_plain
from .matrices import check_matrices, check_number, identity_like, sym
from .operators import Operand, define
from .self_adjoint import SelfAdjointMap
from .spectral import symmetric_function
from .spectral_functions import POSITIVE_PART
from .tracing import transforms_or_forward_mode, variation


@in_full_precision
def project_eigenvalue_floor(x: Tensor, floor: float | Tensor) -> Tensor:
    """The nearest symmetric matrix with eigenvalues not below `floor`. ``*B,n,n -> *B,n,n``.

    `floor` may be a tensor ``*B``, with a gradient; 0 is the cone of positive semidefinite matrices. With second
    derivatives, away from eigenvalues at the floor. A floor in proportion to the largest eigenvalue is a bound of the
    condition number: `project_condition`.

    Raises:
        ValueError: if `x` is no square matrix, or `floor` does not broadcast to its batch.
    """
    check_matrices("project_eigenvalue_floor", x)
    floor = torch.as_tensor(floor, dtype=x.dtype, device=x.device)
    if not _broadcasts_to(floor.shape, x.shape[:-2]):
        raise ValueError(
            f"project_eigenvalue_floor: floor must be a number or broadcast to the batch {tuple(x.shape[:-2])} of x, "
            f"got shape {tuple(floor.shape)}"
        )
    lift = floor[..., None, None] * identity_like(x)
    return symmetric_function(x - lift, POSITIVE_PART) + lift


@in_full_precision
def project_condition(x: Tensor, bound: float) -> Tensor:
    """The nearest positive semidefinite matrix with condition number at most `bound`. ``*B,n,n -> *B,n,n``.

    Eigenvalues are clipped to [m, bound m] with the best m, found exactly from their order. The nearest matrix is zero,
    whose condition number is what one likes, where ``bound sum max(a, 0) <= sum max(-a, 0)``.
    """
    check_matrices("project_condition", x)
    check_number("project_condition", "bound", bound)
    if not bound >= 1:
        raise ValueError(f"project_condition: bound must be at least 1, got {bound}")
    return _project(x, f"condition {float(bound)!r}")


@in_full_precision
def project_trace_one(x: Tensor) -> Tensor:
    """The nearest positive semidefinite matrix of trace one, a density matrix. ``*B,n,n -> *B,n,n``.

    Eigenvalues go to the nearest point of the simplex, ``max(a - t, 0)`` (Held, Wolfe, Crowder 1974).
    """
    check_matrices("project_trace_one", x)
    return _project(x, "trace_one 1.0")


@in_full_precision
def project_rank(x: Tensor, rank: int) -> Tensor:
    """The nearest positive semidefinite matrix of at most that rank. ``*B,n,n -> *B,n,n``.

    The `rank` largest eigenvalues are kept as far as they are positive. No convex set: where the last that is kept
    equals the first that is not, the nearest matrix is one of many, and the derivative across is taken as zero; next to
    such a matrix it grows without bound.
    """
    check_matrices("project_rank", x)
    check_number("project_rank", "rank", rank, whole=True)
    if not 1 <= rank <= x.shape[-1]:
        raise ValueError(f"project_rank: rank must be in 1..{x.shape[-1]} for {tuple(x.shape)}, got {rank}")
    return _project(x, f"rank {rank}")


def _broadcasts_to(shape: torch.Size, batch: torch.Size) -> bool:
    pairs = zip(reversed(shape), reversed(batch), strict=False)
    return len(shape) <= len(batch) and all(one in (1, other) for one, other in pairs)


def _project(x: Tensor, option: str) -> Tensor:
    """`option` is a kind and its number."""
    x = sym(x)
    parts = _parts_operator(x.detach(), option)
    if torch.compiler.is_compiling() and transforms_or_forward_mode():
        return _taylor(x, *parts)
    return _projection(x, option, *parts)


# ---- eigenvalues --------------------------------------------------------------------------------------------------


def _condition(a: Tensor, bound: float) -> tuple[Tensor, ...]:
    """Of ascending a: with the i lowest clipped to m and the j highest to bound m, the distance has its least value at
    ``m = (sum of the low + bound sum of the high)/(i + bound^2 j)``. The half of its derivative,
    ``sum max(m - a, 0) - bound sum max(a - bound m, 0)``, grows with m and is linear between the kinks a and a/bound.
    """
    kinks = torch.cat([a, a / bound], -1).clamp(min=0).sort(-1).values
    low = (kinks.unsqueeze(-1) - a.unsqueeze(-2)).clamp(min=0).sum(-1)
    high = (a.unsqueeze(-2) - bound * kinks.unsqueeze(-1)).clamp(min=0).sum(-1)
    # Between the last kink where it is not positive and the next one the sides do not change.
    last = ((low - bound * high <= 0).sum(-1, keepdim=True) - 1).clamp(0, kinks.shape[-1] - 2)
    inside = 0.5 * (kinks.gather(-1, last) + kinks.gather(-1, last + 1))
    c = (a < inside).to(a.dtype) + bound * (a > bound * inside).to(a.dtype)
    met = (a[..., :1] >= 0) & (a[..., -1:] <= bound * a[..., :1])
    c = torch.where(met, 0.0, c)
    weight = c.square().sum(-1, keepdim=True)
    weight = torch.where(weight == 0, 1.0, weight)
    m = (c * a).sum(-1, keepdim=True) / weight
    zero = ~met & (m <= 0)
    c = torch.where(zero, 0.0, c)
    held = zero | (c > 0)
    return torch.where(held, c * m, a), (~held).to(a.dtype), c, c / weight


def _trace_one(a: Tensor, _: float) -> tuple[Tensor, ...]:
    """max(a - t, 0) with t = (sum of the k largest - 1)/k for the largest k whose smallest stays positive."""
    falling = a.flip(-1)
    count = torch.arange(1, a.shape[-1] + 1, dtype=a.dtype, device=a.device)
    # Differences from the largest: the sum of large eigenvalues would swallow the one.
    t = ((falling - falling[..., :1]).cumsum(-1) - 1) / count
    k = (falling - falling[..., :1] > t).sum(-1, keepdim=True).clamp(min=1)
    moved = a - a[..., -1:] - t.gather(-1, k - 1)
    s = (moved > 0).to(a.dtype)
    return torch.where(moved > 0, moved, 0.0) + 0 * a, s, s, -s / s.sum(-1, keepdim=True).clamp(min=1)


def _rank(a: Tensor, number: float) -> tuple[Tensor, ...]:
    """The largest ones, as far as they are positive."""
    s = (torch.arange(a.shape[-1], device=a.device) >= a.shape[-1] - int(number)) & (a > 0)
    return torch.where(s, a, 0.0), s.to(a.dtype), torch.zeros_like(a), torch.zeros_like(a)


_EIGENVALUES: dict[str, Callable[[Tensor, float], tuple[Tensor, ...]]] = {
    "condition": _condition,
    "trace_one": _trace_one,
    "rank": _rank,
}


def _slopes(a: Tensor, p: Tensor, s: Tensor) -> Tensor:
    """Gamma: one among those that move freely, zero among those that do not, but for two at different ends."""
    gap, change = a.unsqueeze(-1) - a.unsqueeze(-2), p.unsqueeze(-1) - p.unsqueeze(-2)
    equal = gap == 0
    free, held = s.unsqueeze(-1) * s.unsqueeze(-2), (1 - s.unsqueeze(-1)) * (1 - s.unsqueeze(-2))
    quotient = torch.where(equal, 0.0, change / torch.where(equal, 1.0, gap))
    # Eigenvalues that move freely do so together: their quotient would lose digits.
    return torch.where((free > 0) | (held > 0) & (change == 0), free, quotient)


def _parts(x: Tensor, option: str) -> tuple[Tensor, ...]:
    """Q, p, Gamma, c and d."""
    a, Q = eigh_of_plain(x)
    kind, _, number = option.partition(" ")
    p, s, c, d = _EIGENVALUES[kind](a, float(number))
    slopes = _slopes(a, p, s)
    if kind != "rank":  # a projection on a convex set moves no two points apart
        slopes = slopes.clamp(0, 1)
    return Q, p, slopes, c, d


def _part_shapes(x: Tensor, *_: object) -> tuple[Tensor, ...]:
    vector = x.shape[:-1]
    return tuple(x.new_empty(shape) for shape in (x.shape, vector, x.shape, vector, vector))


_parts_operator = define(
    "spectral_projection_parts",
    _parts,
    (Operand("matrices", 2),),
    _part_shapes,
    numbers={"option": str},
    count=5,
)


# ---- derivatives --------------------------------------------------------------------------------------------------


def _value(Q: Tensor, p: Tensor, *_: object) -> Tensor:
    return (Q * p.unsqueeze(-2)) @ Q.mT


def _first(g: Tensor, Q: Tensor, p: Tensor, slopes: Tensor, c: Tensor, d: Tensor, _: object = None) -> Tensor:
    inner = Q.mT @ sym(g) @ Q
    along = (c * inner.diagonal(dim1=-2, dim2=-1)).sum(-1, keepdim=True)
    return Q @ (slopes * inner + torch.diag_embed(d * along)) @ Q.mT


def _no_second(*_: object) -> Tensor:
    raise NotImplementedError(NO_SECOND)


def _taylor(x: Tensor, *parts: Tensor) -> Tensor:
    """The first-order Taylor polynomial, in a difference whose value is zero, for compilers; a second derivative, which
    they would not notice, is NaN: that of |e|^(3/2) at zero."""
    e = variation(x)
    refused = e.abs().pow(1.5)
    return _value(*parts) + _first(e, *parts) + refused


NO_SECOND = "projections on spectral sets have first derivatives, not second ones"

_projection = SelfAdjointMap(
    "spectral_projection",
    (2, 1, 2, 1, 1),
    _value,
    _first,
    _no_second,
    lambda x, option: _taylor(x, *_parts_operator(x.detach(), option)),
    NO_SECOND,
)
