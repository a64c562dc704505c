r"""Logarithms of kernel metrics of symmetric matrices: the covector Y at X of the geodesic that ends at a target.

A quick search corrects Y in every sweep over the nodes of the whole geodesic, with the derivative of its end in Y
along a first one. Where that finds none, Newton's method takes geodesics to rounding and that derivative along each of
them; a step that does not bring the end nearer to the target is made shorter. As `kernel_steps`, this is of plain
tensors in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .decompositions import eigh_of_plain
from .kernel_cometric import Cometric
from .kernel_map import hamiltonian_gradient, lowered
from .kernel_steps import Path, field, follow, integrated
from .kernel_tangents import along, tangents
from .matrices import symmetric_from_vector, symmetric_vector
from .spectral import differences, symmetric_function
from .spectral_functions import EXP, LOG

_MOST_SWEEPS = 40
_MOST_TRIALS = 60
_MOST_ROUNDS = 40  # of a geodesic: one that takes more steps is too long
_SHORTEST = 1e-3  # of a Newton step
# The derivative need not be better: it is to bring the end nearer.
_ROUGH = 1e-3
# Of the largest entry of X and the target: where the search ends, and what counts as found.
_SOLVED, ACCEPTED = 3e-14, 1e-11


class _Search(NamedTuple):
    """Items that are searched: the nearest covectors so far, how far their ends are, the Newton steps from them and the
    parts of these to try."""

    items: Tensor
    X: Tensor
    target: Tensor
    Y: Tensor
    residual: Tensor
    step: Tensor
    factor: Tensor


def shoot(X: Tensor, target: Tensor, c: Cometric) -> Tensor:
    """The covectors; NaN where none was found. ``B,n,n``."""
    found = torch.full_like(X, torch.nan)
    items = (X + target).flatten(1).isfinite().all(1).nonzero().squeeze(-1)
    X, target = X[items], target[items]
    Y, zero = swept(X, target, c), X.new_zeros(len(X))
    at = _Search(items, X, target, Y, torch.full_like(zero, torch.inf), torch.zeros_like(Y), zero)
    for _ in range(_MOST_TRIALS):
        if len(at.items) == 0:
            break
        at, done = _tried(at, c)
        good = done & (at.residual <= ACCEPTED)
        found[at.items[good]] = at.Y[good]
        at = _Search(*(a[~done] for a in at))
    return found


def _tried(at: _Search, c: Cometric) -> tuple[_Search, Tensor]:
    """After a trial, and where the search has ended."""
    trial = at.Y + at.factor[:, None, None] * at.step
    path = follow(torch.stack([at.X, trial], 1), c, _MOST_ROUNDS)
    missing = at.target - path.end[:, 0]
    size = _size(missing, at.X, at.target)
    better = size < at.residual
    Y, residual = torch.where(better[:, None, None], trial, at.Y), torch.where(better, size, at.residual)
    larger = torch.where(at.factor > 0, 2 * at.factor, 1.0).clamp(max=1.0)
    factor = torch.where(better, larger, 0.25 * at.factor)
    # Where an end within what counts comes no nearer, rounding alone is left.
    done = (residual <= _SOLVED) | (~better & (residual <= ACCEPTED)) | (factor < _SHORTEST)
    moved = (better & ~done).nonzero().squeeze(-1)
    step = at.step.index_copy(0, moved, _newton_step(_of_items(path, moved), missing[moved], c))
    return at._replace(Y=Y, residual=residual, step=step, factor=factor), done


def _size(missing: Tensor, X: Tensor, target: Tensor) -> Tensor:
    """The largest entry, relative to those of X and the target; infinite for NaN."""
    scale = torch.maximum(X.abs(), target.abs()).amax((-2, -1))
    return (missing.abs().amax((-2, -1)) / torch.where(scale > 0, scale, 1.0)).nan_to_num(nan=torch.inf)


def _newton_step(path: Path, missing: Tensor, c: Cometric) -> Tensor:
    _, end = _derivative(path, c, _ROUGH)
    return symmetric_from_vector(_solution(end, symmetric_vector(missing)))


def _derivative(path: Path, c: Cometric, accuracy: float) -> tuple[Tensor, Tensor]:
    """Of (X, Y) at the nodes in the Y of the start, and of X at the end."""
    second, _ = along(path, c, accuracy=accuracy)
    m = second.yy.shape[-1]
    start = torch.eye(2 * m, dtype=second.yy.dtype, device=second.yy.device)[:, m:]
    nodes, end = tangents(path, second.generator(), start.expand(len(path.end), -1, -1), accuracy)
    return nodes, end[:, :m]


def _solution(matrix: Tensor, vector: Tensor) -> Tensor:
    return torch.linalg.solve_ex(matrix, vector.unsqueeze(-1))[0].squeeze(-1)


def _of_items(path: Path, items: Tensor) -> Path:
    return Path(*(a[items] for a in path))


# ---- the start ------------------------------------------------------------------------------------------------


def guess(X: Tensor, target: Tensor, c: Cometric) -> Tensor:
    """Covectors, to third order in the distance. ``B,n,n``.

    In the coordinates ``U = (e^(r X) - 1)/r``, in which the power-Euclidean metric of the same degree is flat, and c
    nearly so, the covector of the straight line at its middle, less half of what the flow changes it by: that is zero
    where c is the flat one.
    """
    r = c.rate
    flat = Cometric(1.0, r, ((-2.0, 0.5 * r),) if r else ())
    start, end = (_flat_coordinates(A, r) for A in (X, target))
    middle = _from_flat_coordinates(0.5 * (start + end), r)
    velocity = _flat_derivative(middle, end - start, r, inverse=True)
    Y, other = lowered(middle, velocity, c), lowered(middle, velocity, flat)
    force = hamiltonian_gradient(middle, Y, c) - hamiltonian_gradient(middle, Y, flat, other)
    return _flat_derivative(X, _flat_derivative(middle, Y + 0.5 * force, r, inverse=True), r)


def _flat_coordinates(X: Tensor, r: float) -> Tensor:
    return X if r == 0 else symmetric_function(r * X, EXP) / r


def _from_flat_coordinates(U: Tensor, r: float) -> Tensor:
    return U if r == 0 else symmetric_function(r * U, LOG) / r


def _flat_derivative(X: Tensor, V: Tensor, r: float, inverse: bool = False) -> Tensor:
    """The derivative of the coordinates, which is self-adjoint, or its inverse."""
    if r == 0:
        return V
    x, Q = eigh_of_plain(r * X)
    table = differences(EXP, x)
    V = Q.mT @ V @ Q
    return Q @ (V / table if inverse else table * V) @ Q.mT


# ---- sweeps over the whole geodesic ---------------------------------------------------------------------------


class _Sweep(NamedTuple):
    """Items that are swept: the starts, the states at the nodes ``B,R,8,2,n,n``, and of the first geodesics the lengths
    of the steps and the derivatives of states and end in Y."""

    items: Tensor
    state: Tensor
    states: Tensor
    lengths: Tensor
    target: Tensor
    nodes: Tensor
    end: Tensor


def swept(X: Tensor, target: Tensor, c: Cometric) -> Tensor:
    """Covectors of geodesics that end near the target, or at least not farther from it than X is. ``B,n,n``."""
    found = guess(X, target, c)
    path = follow(torch.stack([X, found], 1), c, _MOST_ROUNDS)
    nearer = _size(target - path.end[:, 0], X, target) < _size(target - X, X, target)
    found = torch.where(nearer[:, None, None], found, 0.0)
    items = nearer.nonzero().squeeze(-1)
    path, state = _of_items(path, items), torch.stack([X, found], 1)[items]
    at = _Sweep(items, state, path.states, path.lengths, target[items], *_derivative(path, c, _ROUGH))
    last = path.end.new_full((len(items),), torch.inf)
    for _ in range(_MOST_SWEEPS):
        if len(at.items) == 0:
            break
        at, size = _swept_once(at, c)
        done = (size <= _SOLVED / 3) | ~(size < 2 * last)
        solved = done & (size <= 1e-6)  # what does not come to rest is no better than the guess
        found[at.items[solved]] = at.state[solved, 1]
        at, last = _Sweep(*(a[~done] for a in at)), size[~done]
    return found


def _swept_once(at: _Sweep, c: Cometric) -> tuple[_Sweep, Tensor]:
    """After a sweep, and by how much that changed the states."""
    moved, reached = integrated(at.state, field(at.states, c), at.lengths)
    change = _solution(at.end, symmetric_vector(at.target - reached[:, 0]))
    shift = (at.nodes @ change[:, None, None, :, None]).squeeze(-1).unflatten(-1, (2, -1))
    states = moved + symmetric_from_vector(shift)
    Y = at.state[:, 1] + symmetric_from_vector(change)
    size = (states - at.states).abs().amax((1, 2, -2, -1)) / at.states.abs().amax((1, 2, -2, -1))
    return at._replace(state=torch.stack([at.state[:, 0], Y], 1), states=states), size.amax(-1)
