r"""Hamilton's equations of a kernel metric, solved by Gauss's method with steps that are as long as accuracy allows.

The method has 8 nodes and order 16; it is symplectic and keeps what is quadratic and conserved, as the angular
momentum [X, Y]. Its equations are solved by Picard's sweeps, all nodes as one batch. The slopes at the nodes are a
polynomial: how its Legendre coefficients decay says whether a step was too long. Items of a batch take steps of their
own, and those that have arrived are not computed any more.

All this is of plain tensors in float64, and looks at numbers: `kernel_flow` makes operators of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .decompositions import eigh_of_plain
from .kernel_cometric import Cometric

STAGES = 8
MOST_ROUNDS = 100
_MOST_SWEEPS = 40
_SOLVED = 2e-15  # relative change of the slopes in a sweep
# Of the last two Legendre coefficients of the slopes to the largest. At 2e-4 ends were off by 4e-13, at 5e-6 by
# rounding alone: the error of the end goes with more than the square.
_DECAY = 2e-5
# The first step, of the inverse of the Frobenius norm of X' and the width of the kernel.
_FIRST_STEP = 2.0
# Steps grow by this at most.
_GROWTH = 2.0


def _gauss() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Nodes and weights of Gauss's method on [0, 1], its matrix, and the map from values at the nodes to Legendre
    coefficients."""
    x, w = np.polynomial.legendre.leggauss(STAGES)
    values = np.polynomial.legendre.legvander(x, STAGES)
    coefficients = (np.arange(STAGES) + 0.5)[:, None] * values[:, :-1].T * w
    below = np.concatenate([-np.ones((STAGES, 1)), values[:, :-2]], 1)
    integrals = (values[:, 1:] - below) / (2 * np.arange(STAGES) + 1)  # of P_k, from -1 to the nodes
    integrals[:, 0] = x + 1
    matrix = integrals @ coefficients / 2
    return tuple(torch.tensor(a.tolist(), dtype=torch.float64) for a in ((x + 1) / 2, w / 2, matrix, coefficients))  # type: ignore


NODES, WEIGHTS, MATRIX, _COEFFICIENTS = _gauss()


class Path(NamedTuple):
    """Steps of geodesics: states (X, Y) at the nodes ``B,R,8,2,n,n``, lengths of the steps ``B,R``, zero behind the
    last one of an item, and the end ``B,2,n,n``, NaN where a geodesic was not followed to the time one."""

    states: Tensor
    lengths: Tensor
    end: Tensor


def combined(matrix: Tensor, slopes: Tensor) -> Tensor:
    """Sums over the nodes, which are the second dimension. ``k,8 and B,8,* -> B,k,*``; `matrix` may have a batch."""
    return (matrix.to(slopes.device) @ slopes.flatten(2)).unflatten(-1, slopes.shape[2:])


# Two eigenvalues at most this far apart, in units of the width of the kernel, take four nodes of Gauss, which leave
# 1e-18; the others a quotient, which loses a digit.
_NEAR = 0.2
_FOUR = tuple(((1 + x) / 2, w / 2) for x, w in zip(*np.polynomial.legendre.leggauss(4), strict=True))


def field(states: Tensor, c: Cometric) -> Tensor:
    """(X', Y') at (X, Y). ``*B,2,n,n``."""
    X, Y = states.unbind(-3)
    x, Q = eigh_of_plain(X)
    n = x.shape[-1]
    Y = Q.mT @ Y @ Q
    first, second = x.unsqueeze(-1), x.unsqueeze(-2)
    gap, table = first - second, c.value(first, second)
    raised = table * Y
    products = raised @ Y
    near = gap.abs() * max(1.0, c.width, abs(c.rate)) <= _NEAR
    # sum_k c[x_i, x_j; x_k] Y_ik Y_jk; the quotient of sums is the sum of quotients
    gradient = (products - products.mT) / torch.where(near, torch.nan, gap)
    slopes = table * (c.exponent_derivative(gap) - c.rate)
    gradient = torch.where(near, 0.0, gradient) + torch.diag_embed((slopes * Y.square()).sum(-1))
    gradient = _with_near(gradient, near.triu(1), x, Y, c)
    if c.trace:
        weights = (-c.rate * x).exp()
        factor = c.trace_factor(n)
        total = (weights * Y.diagonal(dim1=-2, dim2=-1)).sum(-1)
        raised = raised + factor * torch.diag_embed(total.unsqueeze(-1) * weights)
        scaled = 0.5 * c.rate * gap  # of e^(-r x), the divided difference
        ratio = torch.where(scaled == 0, 1.0, torch.sinh(scaled) / torch.where(scaled == 0, 1.0, scaled))
        differences = -c.rate * (-0.5 * c.rate * (first + second)).exp() * ratio
        gradient = gradient + factor * total[..., None, None] * differences * Y
    moved = Q.unsqueeze(-3) @ torch.stack([raised, -gradient], -3) @ Q.mT.unsqueeze(-3)
    return 0.5 * (moved + moved.mT)


def _with_near(gradient: Tensor, near: Tensor, x: Tensor, Y: Tensor, c: Cometric) -> Tensor:
    """The entries of dH/dX of pairs of eigenvalues that are next to each other, by integrals of the derivative of c."""
    place = near.nonzero()
    if len(place) == 0:
        return gradient
    *item, i, j = place.unbind(-1)
    low, high, others = x[(*item, i)].unsqueeze(-1), x[(*item, j)].unsqueeze(-1), x[tuple(item)]
    mean = sum(w * c.derivative(low + t * (high - low), others) for t, w in _FOUR)
    values = (mean * Y[(*item, i)] * Y[(*item, j)]).sum(-1)
    gradient[(*item, i, j)] = values
    gradient[(*item, j, i)] = values
    return gradient


# ---- steps ----------------------------------------------------------------------------------------------------


def follow(start: Tensor, c: Cometric, rounds: int = MOST_ROUNDS) -> Path:
    """The geodesics from (X, Y) for a time of one. ``B,2,n,n``."""
    end, count = torch.full_like(start, torch.nan), torch.zeros(len(start), dtype=torch.long, device=start.device)
    items = start.flatten(1).isfinite().all(1).nonzero().squeeze(-1)
    state, time = start[items], start.new_zeros(len(items))
    slopes = _constant(state, c)
    speed = slopes[:, 0, 0].flatten(1).norm(dim=1) * max(1.0, c.width, abs(c.rate))
    length = _even(_FIRST_STEP / speed, time)
    taken: list[tuple[Tensor, ...]] = []
    for _ in range(rounds):
        if len(items) == 0:
            break
        stages, found, decay = solved_step(state, length, slopes, c)
        good = decay <= _DECAY
        taken.append((items[good], count[items[good]], stages[good], length[good]))
        count[items[good]] += 1
        moved = state + _per_item(length, state) * combined(WEIGHTS.unsqueeze(0), found).squeeze(1)
        state, time = torch.where(_per_item(good, state), moved, state), torch.where(good, time + length, time)
        arrived = time > 1 - 1e-12
        end[items[arrived]] = state[arrived]
        following = _even(_factor(decay) * length, time)
        continued = _continued(found, following / length)
        going = (~arrived).nonzero().squeeze(-1)
        items, state, time, good = items[going], state[going], time[going], good[going]
        slopes = torch.where(_per_item(good, found), continued[going], _constant(state, c))
        length = following[going]
    return _path(start, end, taken, int(count.max()) if len(count) else 0)


def _factor(decay: Tensor) -> Tensor:
    """What to multiply the length of a step by. The error goes with its power 7, and 0.7 is a margin."""
    factor = 0.7 * (_DECAY / decay.clamp(min=1e-18)) ** (1 / 7)
    return torch.where(decay <= _DECAY, factor.clamp(0.7, _GROWTH), factor.nan_to_num(nan=0.0).clamp(0.25, 0.5))


def _per_item(a: Tensor, like: Tensor) -> Tensor:
    return a.reshape(-1, *[1] * (like.dim() - 1))


def _constant(state: Tensor, c: Cometric) -> Tensor:
    """The slopes at the start of a step, for all nodes."""
    return field(state, c).unsqueeze(1).expand(-1, STAGES, -1, -1, -1)


def _even(length: Tensor, time: Tensor) -> Tensor:
    """At most that length, such that some equal steps arrive at one."""
    return (1 - time) / ((1 - time) / length - 1e-9).ceil().clamp(min=1)


def solved_step(state: Tensor, length: Tensor, slopes: Tensor, c: Cometric) -> tuple[Tensor, Tensor, Tensor]:
    """The states and the slopes at the nodes of a step, and their `_decay`; infinite where the sweeps do not end."""
    h, begin = length.reshape(-1, 1, 1, 1, 1), state.unsqueeze(1)
    last, done = torch.full_like(length, torch.inf), torch.zeros_like(length, dtype=torch.bool)
    stages = begin + h * combined(MATRIX, slopes)
    for _ in range(_MOST_SWEEPS):
        found = field(stages, c)
        change = _relative(_sizes(found - slopes, state, length).amax(1), _sizes(found, state, length).amax(1))
        slopes, stages = found, begin + h * combined(MATRIX, found)
        done = done | (change <= _SOLVED) | ((change >= last) & (change < 1e-12))
        last = change
        # One that grows beyond all bounds will not come back: a shorter step serves it better.
        if bool((done | ~(change < 1e3)).all()):
            break
    return stages, slopes, torch.where(done, _decay(slopes, state, length), torch.inf)


def _sizes(slopes: Tensor, state: Tensor, length: Tensor) -> Tensor:
    """What X moves by in this step, and Y, relative to Y. ``B,k,2,n,n -> B,k,2``."""
    size = slopes.flatten(-2).abs().amax(-1) * length.reshape(-1, 1, 1)
    scale = state[:, 1].flatten(1).abs().amax(1)
    return size / torch.stack([torch.ones_like(scale), torch.where(scale > 0, scale, 1.0)], 1).unsqueeze(1)


def _decay(slopes: Tensor, state: Tensor, length: Tensor) -> Tensor:
    """The last two Legendre coefficients of the slopes over the largest. ``B``."""
    sizes = _sizes(combined(_COEFFICIENTS, slopes), state, length)
    return _relative(sizes[:, -2:].amax(1), sizes.amax(1))


def _relative(part: Tensor, size: Tensor) -> Tensor:
    """A part of what X moves by, and of what Y moves by, the latter relative to Y if that is more. ``B,2 -> B``."""
    least = torch.tensor([0.0, 1.0], dtype=size.dtype, device=size.device)
    size = torch.maximum(size, least)
    return (part / torch.where(size > 0, size, 1.0)).amax(-1)


def integrated(start: Tensor, slopes: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The states at the nodes and at the end, of slopes ``B,R,8,2,n,n`` at the nodes of all steps."""
    h = lengths[:, :, None, None, None, None]
    inner, whole = combined(torch.cat([MATRIX, WEIGHTS.unsqueeze(0)]), slopes.flatten(0, 1)).split([STAGES, 1], 1)
    inner, whole = h * inner.unflatten(0, lengths.shape), h * whole.unflatten(0, lengths.shape)
    until = start[:, None, None] + whole.cumsum(1)
    return until - whole + inner, until[:, -1, 0]


def _continued(slopes: Tensor, ratio: Tensor) -> Tensor:
    """The polynomial of the slopes at the nodes of the following step, which is `ratio` times as long."""
    z = 1 + 2 * ratio.unsqueeze(-1) * NODES.to(ratio.device)  # this step is from -1 to 1
    values = [torch.ones_like(z), z]
    for k in range(1, STAGES - 1):
        values.append(((2 * k + 1) * z * values[-1] - k * values[-2]) / (k + 1))
    return combined(torch.stack(values, -1) @ _COEFFICIENTS.to(ratio.device), slopes)


def _path(start: Tensor, end: Tensor, taken: list[tuple[Tensor, ...]], most: int) -> Path:
    states = start[:, None, None].repeat(1, most, STAGES, 1, 1, 1)
    lengths = start.new_zeros(len(start), most)
    for items, place, stages, length in taken:
        states[items, place], lengths[items, place] = stages, length
    return Path(states, lengths, end)
