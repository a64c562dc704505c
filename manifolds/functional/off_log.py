r"""The diagonal that makes the exponential of a symmetric matrix a correlation matrix.

For every symmetric H with zeros on its diagonal there is one diagonal D such that ``exp(H + D)`` has a unit diagonal:
the minimum of the convex function ``tr exp(H + D) - tr D`` (Archakov and Hansen 2021, arXiv:2012.02395, who iterate
``D <- D - log diag exp(H + D)``: 389 times at a condition number of 4e12). The second derivative of that function is

    J_ij = sum_kl Q_ik Q_jk exp[a_k, a_l] Q_il Q_jl,    H + D = Q diag(a) Q^T.

exp[a, b] is the logarithmic mean of e^a and e^b, so that with ``c = diag exp(H + D)`` all eigenvalues of
``c^-1/2 J c^-1/2`` lie between ``tanh(r/2)/(r/2)`` and one, r the largest difference of two a: above 1/14 at a
condition number of 1e12. A step of Newton's method for ``log c = 0`` solves ``J y = c log c``.

Where eigenvalues of H lie far apart it follows the solutions of ``t H`` for growing t: twice the one for t is next to
that for 2t, since the diagonal of the square of a correlation matrix lies between 1 and n.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .decompositions import eigh_of_plain
from .operators import Operand, define
from .spectral import differences
from .spectral_functions import EXP

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
    factor, info = torch.linalg.cholesky_ex(_jacobian(a.reshape(-1, a.shape[-1]), Q.reshape(-1, *Q.shape[-2:])))
    # Of numbers that are no positive definite J; of a singular factor torch would raise, for its neighbours too.
    lost = (info != 0)[:, None, None]
    inverse = torch.cholesky_inverse(torch.where(lost, torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device), factor))
    return torch.where(lost, torch.nan, inverse).reshape(Q.shape)


jacobian_inverse = define(
    "off_log_jacobian_inverse",
    _inverse_of_jacobian,
    (Operand("eigenvalues", 1), Operand("eigenvectors", 2)),
    lambda a, Q: Q.new_empty(Q.shape),
)

# ---- Newton's method --------------------------------------------------------------------------------------------

# The largest change of D in a step. Without a limit every third matrix of condition 1e12 overflows; with 8 some of 2000
# take 14 rounds, with 6 at most 9; with 4 they take one more in the mean.
_LONGEST = 6.0
_NEAR = 32.0  # the difference of eigenvalues of H up to which D = 0 is a start
_CLOSE = 1.0  # the residual from which on the next t is taken
_ROUNDS = 100  # eigendecompositions at most
_DENSE = 24  # rows up to which J is made, and beyond only multiplied by: at 64 in half of the time
# Of the residual, times 1 + max|a|. D is off by up to 14 times as much, at a condition number of 1e12.
_TOLERANCE = {torch.float32: 2.0**-33, torch.float64: 2.0**-48}


def _find(H: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """D, the eigenvalues and the vectors of H + D; NaN for what is not finite or takes more than `_ROUNDS`.

    In float64 for any H: `eigh` takes next to the same time, and less digits would be left. An item that is done is
    left alone, so that its result does not depend on its neighbours."""
    n = H.shape[-1]
    X = H.reshape(-1, n, n).double()
    shift = X.new_zeros(len(X), n)
    found = [torch.full_like(z, torch.nan) for z in (shift, shift, X)]
    items, last = torch.arange(len(X), device=X.device), X.new_full((len(X),), torch.inf)
    a, Q = eigh_of_plain(X)
    part = (_NEAR / (a[:, -1] - a[:, 0])).clamp(max=1.0)  # t
    a = part.unsqueeze(-1) * a
    for _ in range(_ROUNDS):
        residual = _log_of_diagonal(a, Q)
        size = residual.abs().amax(-1)
        done = (part == 1) & _is_rounding(size, last, a, _TOLERANCE[H.dtype])
        going = (size < torch.inf) & ~done  # in this sense NaN does not go on
        if len(items) == 0 or not bool(going.all()):
            for whole, now in zip(found, (shift, a, Q), strict=True):
                whole[items[done]] = now[done]
            items, shift, part, size, a, Q, residual = (z[going] for z in (items, shift, part, size, a, Q, residual))
            if len(items) == 0:
                break
        grown = torch.where(size < _CLOSE, 2 * part, part).clamp(max=1.0)
        shift = (shift - _newton_step(a, Q, residual)) * (grown / part).unsqueeze(-1)
        last, part = size, grown
        a, Q = eigh_of_plain(part[:, None, None] * X[items] + torch.diag_embed(shift))
    shift, a, Q = (z.to(H.dtype) for z in found)
    return shift.reshape(H.shape[:-1]), a.reshape(H.shape[:-1]), Q.reshape(H.shape)


def _log_of_diagonal(a: Tensor, Q: Tensor) -> Tensor:
    """log c."""
    top = a[:, -1:]
    return ((a - top).exp().unsqueeze(-2) * Q.square()).sum(-1).log() + top


def _is_rounding(size: Tensor, last: Tensor, a: Tensor, tolerance: float) -> Tensor:
    """Whether a residual of that size, after the last one, is as small as it gets."""
    return (size <= tolerance * (1 + a.abs().amax(-1))) | ((size < 1e-6) & (size > 0.5 * last))


def _newton_step(a: Tensor, Q: Tensor, residual: Tensor) -> Tensor:
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


diagonal_of_log = define("off_log_inverse", _find, (Operand("off", 2),), _shapes, count=3)
