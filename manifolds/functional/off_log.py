r"""The correlation matrix C with given entries of log C off the diagonal.

For every symmetric H with zeros on its diagonal there is one diagonal D such that ``exp(H + D)`` has a unit diagonal:
the minimum of the convex function ``tr exp(H + D) - tr D`` (Archakov and Hansen 2021, arXiv:2012.02395, who iterate
``D <- D - log diag exp(H + D)``: 389 times at a condition number of 4e12). With E the derivative of exp at ``log C = Q
diag(a) Q^T`` and J the matrix of ``v -> diag E[diag v]``,

    J_ij = sum_kl Q_ik Q_jk exp[a_k, a_l] Q_il Q_jl,

the derivative of C along a hollow W is ``E[W + diag z]``, where z solves ``J z = -diag E[W]``: a self-adjoint map of
hollow matrices, since C is the gradient of that minimum. J is symmetric, J <= diag C, and its condition number is at
most ``r/2 coth(r/2)`` with r the logarithm of that of C, for exp[a, b] is the logarithmic mean of e^a and e^b: 14 at
1e12. It may be inverted and multiplied without loss.

Newton's method acts on ``log diag exp(H + D) = 0``, scaled by ``c = diag exp(H + D)`` so that the bound holds on the
way too. Where eigenvalues of H lie far apart it follows the solutions of ``t H`` for growing t: twice that for t is
next to that for 2t, as the diagonal of C^2 lies between 1 and n.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .decompositions import eigh_of_plain
from .matrices import sym
from .operators import Operand, define
from .spectral import differences, function_at
from .spectral_functions import EXP
from .spectral_pushforward import derivative_at
from .tracing import derivative_wanted, variation
from .triangular import diagonal

# ---- derivatives ----------------------------------------------------------------------------------------------


def log_from_off(H: Tensor, derivative: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """log C of the correlation matrix C with ``off(log C) = H``, its eigenvalues and vectors, which have no derivative,
    and J^-1, if a `derivative` will be taken or one in H may be. ``*B,n,n``; NaN where H is not finite."""
    shift, a, Q = _solve(H.detach())
    log = H + torch.diag_embed(shift)
    wanted = derivative_wanted(H)
    inverse = jacobian_inverse(a, Q) if derivative or wanted else None
    if wanted and inverse is not None:
        # Newton's method from the solution, with a constant matrix: the first step has its first derivative, the second
        # the second one as well.
        for _ in range(2):
            change = variation(diagonal(function_at(log, a, Q, EXP)))
            shift = shift - _times(inverse, change)
            log = H + torch.diag_embed(shift)
    return log, a, Q, inverse


def tangent_map(log: Tensor, a: Tensor, Q: Tensor, inverse: Tensor) -> Callable[[Tensor], Tensor]:
    """The derivative of C in H, which is self-adjoint, of what `log_from_off` returns. It reads the symmetric part off
    the diagonal, and its values have the zeros there up to rounding."""

    def along(W: Tensor) -> Tensor:
        W = sym(W)
        z = _times(inverse, -diagonal(derivative_at(log, a, Q, W, EXP)))
        if derivative_wanted(log):  # in which J is constant: as above
            for _ in range(2):
                z = z - _times(inverse, variation(diagonal(derivative_at(log, a, Q, W + torch.diag_embed(z), EXP))))
        return sym(derivative_at(log, a, Q, W + torch.diag_embed(z), EXP))

    return along


def _times(M: Tensor, v: Tensor) -> Tensor:
    return (M @ v.unsqueeze(-1)).squeeze(-1)


# ---- the matrix J -----------------------------------------------------------------------------------------------

_BLOCK = 2**16  # numbers that are multiplied at once: half a megabyte stays in the cache


def _jacobian(a: Tensor, Q: Tensor) -> Tensor:
    """J, of which the lower triangle is to be read. ``N,n; N,n,n -> N,n,n``."""
    count, n = a.shape
    slopes, J = differences(EXP, a), Q.new_zeros(Q.shape)
    rows = max(1, _BLOCK // max(1, count * n * n))
    for first in range(0, n, rows):
        last = min(first + rows, n)
        pairs = Q[:, first:last, None] * Q[:, None, :last]
        products = (pairs.flatten(1, 2) @ slopes).view_as(pairs) * pairs
        J[:, first:last, :last] = products.sum(-1)
    return J


def _inverse_of_jacobian(a: Tensor, Q: Tensor) -> Tensor:
    factor = torch.linalg.cholesky_ex(_jacobian(a.reshape(-1, a.shape[-1]), Q.reshape(-1, *Q.shape[-2:])))[0]
    return torch.cholesky_inverse(factor).reshape(Q.shape)


jacobian_inverse = define(
    "off_log_jacobian_inverse",
    _inverse_of_jacobian,
    (Operand("eigenvalues", 1), Operand("eigenvectors", 2)),
    lambda a, Q: Q.new_empty(Q.shape),
)

# ---- Newton's method --------------------------------------------------------------------------------------------

# The largest change of D in a step: without limit every third matrix of condition 1e12 overflows; of 2000 with 8 some
# take 14 steps, with 6 at most 11, with 4 one more than with 6 in the mean.
_LONGEST = 6.0
_NEAR = 32.0  # the difference of eigenvalues of H up to which D = 0 is a start
_CLOSE = 1.0  # the residual from which on the next t is taken
_ROUNDS = 100  # eigendecompositions at most
_DENSE = 16  # rows up to which J is made, and beyond only multiplied by
_TOLERANCE = {torch.float32: 2.0**-26, torch.float64: 2.0**-48}  # of the residual, times 1 + max|a|


def _find(H: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """D, the eigenvalues and the vectors of H + D; NaN for what is not finite or takes more than `_ROUNDS`.

    In float64 for any H: `eigh` takes next to the same time, and less digits would be left. An item that is done is
    left alone, so that its result does not depend on its neighbours."""
    n, tolerance = H.shape[-1], _TOLERANCE[H.dtype]
    X = H.reshape(-1, n, n).double()
    found = X.new_full((len(X), n), torch.nan), X.new_full((len(X), n), torch.nan), torch.full_like(X, torch.nan)
    items, shift, last = torch.arange(len(X), device=X.device), X.new_zeros(len(X), n), X.new_full((len(X),), torch.inf)
    a, Q = eigh_of_plain(X)
    part = (_NEAR / (a[:, -1] - a[:, 0])).clamp(max=1.0)  # t
    a = part.unsqueeze(-1) * a
    for _ in range(_ROUNDS):
        residual = (a - a[:, -1:]).exp().unsqueeze(-2).mul(Q.square()).sum(-1).log() + a[:, -1:]
        size = residual.abs().amax(-1)
        small = size <= tolerance * (1 + a.abs().amax(-1))
        still = (size < 1e-6) & (size > 0.5 * last)  # rounding keeps it from falling
        done, going = (part == 1) & (small | still), size < torch.inf  # in this sense NaN does not go on
        for whole, now in zip(found, (shift, a, Q), strict=True):
            whole[items[done]] = now[done]
        going = (going & ~done).nonzero().squeeze(-1)
        if len(going) == 0:
            break
        items, shift, part, last, a, Q = (z[going] for z in (items, shift, part, size, a, Q))
        shift = shift - _step(a, Q, residual[going])
        grown = torch.where(last < _CLOSE, (2 * part).clamp(max=1.0), part)
        shift, part = shift * (grown / part).unsqueeze(-1), grown
        a, Q = eigh_of_plain(part[:, None, None] * X[items] + torch.diag_embed(shift))
    shift, a, Q = (z.to(H.dtype) for z in found)
    return shift.reshape(H.shape[:-1]), a.reshape(H.shape[:-1]), Q.reshape(H.shape)


def _step(a: Tensor, Q: Tensor, residual: Tensor) -> Tensor:
    """J^-1 (c r), no entry above the limit."""
    top = a[:, -1:]
    root = (0.5 * (residual - top)).exp()  # of c
    if a.shape[-1] <= _DENSE:
        J = _jacobian(a - top, Q) / root.unsqueeze(-1) / root.unsqueeze(-2)
        y = torch.cholesky_solve((root * residual).unsqueeze(-1), torch.linalg.cholesky_ex(J)[0]).squeeze(-1)
    else:
        y = _conjugate_gradients(a - top, Q, 1 / root, root * residual)
    y = y / root
    return y * (_LONGEST / y.abs().amax(-1, keepdim=True)).clamp(max=1.0)


def _conjugate_gradients(a: Tensor, Q: Tensor, scale: Tensor, b: Tensor) -> Tensor:
    """y with ``diag(s) J diag(s) y = b``, to as many digits as a step of Newton's method can use: as many as b has."""
    slopes = differences(EXP, a)
    y, left, direction, square = torch.zeros_like(b), b, b, b.square().sum(-1, keepdim=True)
    goal = square * square.clamp(max=1e-4)
    for _ in range(2 * a.shape[-1]):
        rotated = Q.mT @ ((scale * direction).unsqueeze(-1) * Q)
        moved = scale * ((Q @ (slopes * rotated)) * Q).sum(-1)
        length = torch.where(square > goal, square / (direction * moved).sum(-1, keepdim=True), 0.0)
        y, left = y + length * direction, left - length * moved
        before, square = square, left.square().sum(-1, keepdim=True)
        if not bool((square > goal).any()):
            break
        direction = left + torch.where(before > 0, square / before, 0.0) * direction
    return y


def _shapes(H: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return H.new_empty(H.shape[:-1]), H.new_empty(H.shape[:-1]), H.new_empty(H.shape)


_solve = define("off_log_inverse", _find, (Operand("off", 2),), _shapes, count=3)
