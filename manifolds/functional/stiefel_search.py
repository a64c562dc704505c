r"""Geodesics of the Stiefel manifold from the first p axes to a frame, in the reduced problem of m x m blocks.

Tangent vectors are A, skew, and B; the geodesic is ``e^(tW) X e^(tP)`` as in `stiefel_differential`. One shorter than
the injectivity radius is the shortest, and no more is tried. The work looks at its residuals.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .frames import matrix_exp, so_log
from .matrices import identity_like, skew
from .stiefel_differential import coordinates, from_coordinates, generator, system
from .stiefel_geodesic import norm_bound, skew_adjoint_exp


def tolerance(target: Tensor) -> float:
    """The residual that rounding alone may leave."""
    return 16 * torch.finfo(target.dtype).eps * math.sqrt(target.shape[-2])


def length(a: Tensor, b: Tensor, beta: float) -> Tensor:
    return (beta * a.square().sum((-2, -1)) + b.square().sum((-2, -1))).sqrt()


def turns(a: Tensor, b: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """e^W and e^P."""
    turn = matrix_exp((1 - 2 * beta) * a) if beta != 0.5 else identity_like(a).expand_as(a)
    return matrix_exp(generator(a, b, beta)), turn


# ---- beta = 1/2: matrix completion ----------------------------------------------------------------------------

# Each step halves the error at 0.97 of the injectivity radius, gains two digits at 0.5; Newton's method takes over.
_COMPLETION_STEPS = 40


def completion(target: Tensor) -> Tensor:
    """The rotation with first columns `target` whose lower right block is as near as can be to positive."""
    p = target.shape[-1]
    q = torch.linalg.qr(target, mode="complete")[0][..., p:]
    left, _, right = torch.linalg.svd(q[..., p:, :])
    q = q @ (right.mT @ left.mT)
    # Special Procrustes: where the determinant is -1 flip the direction of the smallest singular value.
    sign = torch.linalg.det(torch.cat([target, q], -1)).sign()[..., None, None]
    last = left[..., -1:]
    return torch.cat([target, q - (1 - sign) * ((q @ last) @ last.mT)], -1)


def canonical(v: Tensor, p: int) -> tuple[Tensor, Tensor]:
    """(A, B) of a canonical logarithm: rotate the completion until the lower block of its logarithm is zero.

    A step solves S G + G S = C, S = B B^T/12 - I/2, the second-order expansion of the exact Newton equation
    (arXiv:2103.12046, section 5), and rotates by the Cayley transform of G.
    """
    small = 8 * torch.finfo(v.dtype).eps
    log = so_log(v)
    for _ in range(_COMPLETION_STEPS):
        b, c = log[..., p:, :p], log[..., p:, p:]
        size = c.square().sum((-2, -1), keepdim=True).sqrt()
        done = size <= small * (1 + b.square().sum((-2, -1), keepdim=True).sqrt())
        if bool(done.all()):
            break
        identity = identity_like(c)
        s, e = torch.linalg.eigh(b @ b.mT / 12 - 0.5 * identity)
        g = 0.5 * skew(e @ ((e.mT @ c @ e) / (s.unsqueeze(-1) + s.unsqueeze(-2))) @ e.mT)
        turned = v[..., p:] @ torch.linalg.solve_ex(identity - g, identity + g)[0]
        v = torch.cat([v[..., :p], torch.where(done, v[..., p:], turned)], -1)
        log = so_log(v)
    return log[..., :p, :p], log[..., p:, :p]


# ---- any beta ---------------------------------------------------------------------------------------------------

_SHOTS = 20


def shoot(target: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Add the residual, transported back, while that halves it. Returns A, B and the length; infinite if that fails.

    The transport inverts d exp up to curvature, so that the error shrinks by |u|^2/6 or so a step (arXiv:2103.12046,
    section 4, there with projections for transports).
    """
    p = target.shape[-1]
    a, b = torch.zeros_like(target[..., :p, :]), torch.zeros_like(target[..., p:, :])
    items = torch.arange(len(a), device=a.device)
    solved = torch.zeros_like(items, dtype=torch.bool)
    c, d, last = a, b, a.new_full((len(a),), math.inf)
    for _ in range(_SHOTS):
        moved, turn = turns(c, d, beta)
        residual = target[items] - moved[..., :p] @ turn
        size = residual.abs().amax((-2, -1))
        good = size < tolerance(target)
        a[items[good]], b[items[good]], solved[items[good]] = c[good], d[good], True
        # Below the tolerance, too, go on as long as it pays.
        going = (size < 0.5 * last).nonzero().squeeze(-1)
        items, last, c, d = items[going], size[going], c[going], d[going]
        if len(items) == 0:
            break
        back = moved[going].mT @ residual[going] @ turn[going].mT
        e, f = _transport_back(skew(back[..., :p, :]), back[..., p:, :], c, d, beta)
        c, d = c + e, d + f
    return a, b, torch.where(solved, length(a, b, beta), math.inf)


def _transport_back(e: Tensor, f: Tensor, a: Tensor, b: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """exp(-L) of `geodesic_transport`, on blocks."""
    left = torch.cat([(4 * beta - 1) * a, -b.mT], -1)
    moved = skew_adjoint_exp(left, beta * b, -beta * a, torch.cat([e, f], -2), norm_bound(a, b, beta))
    return moved[..., : e.shape[-2], :], moved[..., e.shape[-2] :, :]


# Full steps often lead away. From zero, short ones follow a path of targets to the shortest geodesic: half as long,
# they found it next to the injectivity radius where these missed it.
_LONGEST_STEP = 0.7
_LONGEST_PATH = 17.0  # as many steps as that takes: 24, or 48 of half the length


def newton(
    a: Tensor, b: Tensor, target: Tensor, beta: float, longest: float = _LONGEST_STEP
) -> tuple[Tensor, Tensor, Tensor]:
    """Newton's method for exp(A, B) = target, and the length that it finds: infinite where it does not converge."""
    steps = int(_LONGEST_PATH / longest)
    a, b, p = a.clone(), b.clone(), target.shape[-1]
    size = a.new_full((len(a),), math.inf)
    going = torch.arange(len(a), device=a.device)
    for step in range(steps + 1):
        moved, turn = turns(a[going], b[going], beta)
        size[going] = (target[going] - moved[..., :p] @ turn).abs().amax((-2, -1)).nan_to_num(nan=math.inf)
        going = going[(size[going] > tolerance(target)) & (size[going] < math.inf)]
        if step == steps or len(going) == 0:
            break
        back, turn_back, matrix, _ = system(a[going], b[going], beta)
        z = coordinates(back @ target[going] @ turn_back)
        c, d = from_coordinates(torch.linalg.solve_ex(matrix.mT, z)[0], p)
        factor = (longest / length(c, d, 1.0)).clamp(max=1.0)[:, None, None]
        a[going] += factor * c
        b[going] += factor * d
    return a, b, torch.where(size < 100 * tolerance(target), length(a, b, beta), math.inf)


def direct(target: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """A quick way to (A, B) for near targets, and the length; infinite where it fails."""
    if beta != 0.5:
        return shoot(target, beta)
    p = target.shape[-1]
    a, b = canonical(completion(target), p)
    off = (target - turns(a, b, beta)[0][..., :p]).abs().amax((-2, -1))
    return a, b, torch.where(off < tolerance(target), length(a, b, beta), math.inf)


# ---- the shortest of several ------------------------------------------------------------------------------------

# Unknowns up to which other geodesics are looked for where the first one found may not be the shortest: one more costs
# milliseconds, and beyond seconds.
_WIDE = 200
_FEW, _MANY = 4, 24


def long_from(target: Tensor, radius: float) -> float:
    """The length from which on a geodesic to the target is compared with others: the injectivity radius."""
    m, p = target.shape[-2:]
    return radius if p * (p - 1) // 2 + p * (m - p) <= _WIDE else math.inf


def shortest(target: Tensor, beta: float, radius: float) -> tuple[Tensor, Tensor]:
    """(A, B) of the shortest geodesic that Newton's method finds from several starts; NaN where it finds none.

    From zero; unless that one is shorter than `radius`, from zero by shorter steps; then from the canonical logarithm,
    from a part of the logarithm of the completion and from a few short vectors. From many of these where nothing else
    converged.
    """
    limit = long_from(target, radius)
    found = newton(*_zero(target), target, beta)
    found = _improved(found, target, beta, limit, lambda t: _stacked(_zero(t)), 0.5 * _LONGEST_STEP)
    found = _improved(found, target, beta, limit, lambda t: _guesses(t, beta, radius))
    found = _improved(found, target, beta, math.inf, lambda t: _short_vectors(t, beta, radius, _MANY))
    a, b, size = found
    known = (size < math.inf)[:, None, None]
    return torch.where(known, a, torch.nan), torch.where(known, b, 0.0)


_Pair = tuple[Tensor, Tensor]


def _improved(
    found: tuple[Tensor, Tensor, Tensor],
    target: Tensor,
    beta: float,
    limit: float,
    starts: Callable[[Tensor], _Pair],
    longest: float = _LONGEST_STEP,
) -> tuple[Tensor, Tensor, Tensor]:
    """`found` with shorter geodesics, where there are such, for the items that are not shorter than `limit`."""
    a, b, size = found
    far = (~(size < limit)).nonzero().squeeze(-1)
    if len(far) == 0:
        return found
    goal = target[far]
    c, d = starts(goal)
    count = len(c)
    c, d, lengths = newton(c.flatten(0, 1), d.flatten(0, 1), goal.repeat(count, 1, 1), beta, longest)
    lengths, which = lengths.unflatten(0, (count, -1)).min(0)
    # Of equally long ones the first, whatever rounding says.
    better = (lengths < size[far] * (1 - 1e-9)).nonzero().squeeze(-1)
    chosen, items = which[better] * len(far) + better, far[better]
    a[items], b[items], size[items] = c[chosen], d[chosen], lengths[better]
    return a, b, size


def _zero(target: Tensor) -> _Pair:
    zero, p = torch.zeros_like(target), target.shape[-1]
    return zero[..., :p, :], zero[..., p:, :]


def _stacked(*pairs: _Pair) -> _Pair:
    return torch.stack([a for a, _ in pairs]), torch.stack([b for _, b in pairs])


def _guesses(target: Tensor, beta: float, radius: float) -> _Pair:
    p = target.shape[-1]
    v = completion(target)
    log = 0.4 * so_log(v)
    a, b = _stacked(canonical(v, p), (log[..., :p, :p], log[..., p:, :p]))
    c, d = _short_vectors(target, beta, radius, _FEW)
    return torch.cat([a, c]), torch.cat([b, d])


def _short_vectors(target: Tensor, beta: float, radius: float, count: int) -> _Pair:
    """0.4 of the radius long, always in the same directions."""
    n, m, p = target.shape
    k = p * (p - 1) // 2
    z = torch.randn(count, k + p * (m - p), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = 0.4 * radius * torch.nn.functional.normalize(z, dim=-1).to(target)
    z[:, :k] /= math.sqrt(2 * beta)
    a, b = from_coordinates(z, p)
    return a[:, None].expand(-1, n, -1, -1), b[:, None].expand(-1, n, -1, -1)
