r"""Geodesics of kernel metrics of symmetric matrices.

With the cometric C_X of `kernel_map` and ``H(X, Y) = 1/2 <Y, C_X Y>`` they solve Hamilton's equations ``X' = C_X Y``,
``Y' = -dH/dX``. `kernel_steps` solves them in float64, to rounding as far as that has been measured: H and the angular
momentum [X, Y] are kept to 1e-13, and ends agree with the closed ones of the metrics that have them to 1e-13 of the
largest entry. A geodesic that leaves the space, or takes more than 100 steps, is NaN.

First and second derivatives are those of the numerical flow (`kernel_jets`); a third one is wrong. The scale of the
kernel changes no geodesic, and moving X by a multiple of the identity changes c by a factor: both are taken out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from .kernel_cometric import Cometric
from .kernel_jets import GRAPH_DEGREE, GRAPH_STEPS, Jet, coordinates, jet, matrices, shapes
from .kernel_map import hamiltonian_gradient, lowered, raised, raised_along
from .kernel_shooting import shoot
from .kernel_steps import follow
from .matrices import identity_like, sym, symmetric_from_vector, symmetric_vector
from .operators import Operand, define
from .tracing import derivative_wanted_of_items, variation


def spray(X: Tensor, W: Tensor, c: Cometric) -> Tensor:
    """X'' of the geodesic through X with the velocity W, quadratic in W. ``*B,n,n``."""
    Y = lowered(X, W, c)
    return raised_along(X, W, Y, c) - raised(X, hamiltonian_gradient(X, Y, c), c)


def christoffel(X: Tensor, V: Tensor, W: Tensor, c: Cometric) -> Tensor:
    """Gamma(V, W) of the Levi-Civita connection ``D_V W = dW(V) + Gamma(V, W)``, symmetric and bilinear; `spray` is
    ``-Gamma(W, W)``. ``*B,n,n``."""
    Y, Z = lowered(X, V, c), lowered(X, W, c)
    turned = raised_along(X, V, Z, c) + raised_along(X, W, Y, c)
    return raised(X, hamiltonian_gradient(X, Y, c, Z), c) - 0.5 * turned


def flow(X: Tensor, W: Tensor, c: Cometric) -> Tensor:
    """The end of the geodesic from X with the velocity W, after a time of one. ``*B,n,n``, of one batch."""
    dtype, c = X.dtype, unscaled(c)
    X, W = sym(X.double()), sym(W.double())
    center = centers(X)
    X = X - center
    start = torch.stack([X, lowered(X, W, c)], -3)
    if derivative_wanted_of_items(X) or derivative_wanted_of_items(W):
        end = matrices(jet_of(start.detach(), c).moved(coordinates(variation(start)), c))
    else:
        end = _flow_operator(start.detach(), c.key)
    return (end[..., 0, :, :] + center).to(dtype)


def logarithm(X: Tensor, Y: Tensor, c: Cometric) -> Tensor:
    """A velocity W with ``flow(X, W, c) = Y``, NaN where none is found. ``*B,n,n``, of one batch.

    The end misses Y by at most 1e-11 of the largest entry of X and Y, taken from their common center. It is the
    velocity of a geodesic next to the straight line in flat coordinates, by `kernel_shooting`; the only one where the
    metric is complete and not positively curved. First and second derivatives are those of the equation; a third one is
    wrong.

    Found for all of 14 pairs of independent eigenvectors whose matrices ``e^X`` have a condition of 300, in each of
    five kernels; of 1e4, for all but those of `BogoliubovKuboMori` (12 of 14); of 1e6, for all of ``LogarithmicMean(
    power=1.5)`` and none of the squared geometric mean, ends of which change by e^s where Y changes by one, s their
    distance. For the squared harmonic mean, at which s is twice as large, 300 is too much (4 of 14), and 30 is not.
    """
    dtype, c = X.dtype, unscaled(c)
    X, Y = sym(X.double()), sym(Y.double())
    center = centers(X)
    X, Y = X - center, Y - center
    if not (derivative_wanted_of_items(X) or derivative_wanted_of_items(Y)):
        return raised(X, _logarithm_operator(X.detach(), Y.detach(), c.key), c).to(dtype)
    found, inverse, *parts = _logarithm_jet_operator(X.detach(), Y.detach(), c.key, *sizes(c))
    at, change = Jet(*parts), symmetric_vector(variation(X))
    wanted, m = symmetric_vector(variation(Y)), change.shape[-1]
    moved = _times(inverse, wanted - _times(at.tangent[..., :m, :m], change))
    bent = at.bent(torch.cat([change, moved], -1), c)
    moved = moved - _times(inverse, _times(at.tangent[..., :m, :], bent))
    return raised(X, found + symmetric_from_vector(moved), c).to(dtype)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def unscaled(c: Cometric) -> Cometric:
    """With the same geodesics."""
    return dataclasses.replace(c, scale=1.0)


def centers(X: Tensor) -> Tensor:
    """tr(X)/n I, without derivative."""
    return X.detach().diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] * identity_like(X)


# ---- operators ------------------------------------------------------------------------------------------------


def jet_of(start: Tensor, c: Cometric) -> Jet:
    """The jet of the geodesics from (X, Y), which have no derivative. ``*B,2,n,n``."""
    return Jet(*_jet_operator(start, c.key, *sizes(c)))


def sizes(c: Cometric) -> tuple[int, int]:
    """How many steps and which degree the nodes of a jet have; zero stands for what is needed."""
    return (GRAPH_STEPS, GRAPH_DEGREE * max(1, round(c.width))) if torch.compiler.is_compiling() else (0, 0)


def flat(run: Callable[..., tuple[Tensor, ...]], ndim: int) -> Callable[..., tuple[Tensor, ...]]:
    """`run` of operands ``*B,...`` of `ndim` dimensions each, computed with one dimension for the batch."""

    def run_flat(first: Tensor, *rest: Tensor | str | int) -> tuple[Tensor, ...]:
        batch = first.shape[: first.dim() - ndim]
        operands = [a.reshape(-1, *a.shape[len(batch) :]) if isinstance(a, Tensor) else a for a in (first, *rest)]
        return tuple(a.reshape(*batch, *a.shape[1:]) for a in run(*operands))

    return run_flat


def _end(start: Tensor, key: str) -> tuple[Tensor, ...]:
    return (follow(start, Cometric.named(key)).end,)


def _jet(start: Tensor, key: str, steps: int, degree: int) -> tuple[Tensor, ...]:
    c = Cometric.named(key)
    return jet(follow(start, c), c, steps, degree)


def _covector(X: Tensor, target: Tensor, key: str) -> tuple[Tensor, ...]:
    return (shoot(X, target, Cometric.named(key)),)


def _covector_jet(X: Tensor, target: Tensor, key: str, steps: int, degree: int) -> tuple[Tensor, ...]:
    c = Cometric.named(key)
    found = shoot(X, target, c)
    at = jet(follow(torch.stack([X, found], 1), c), c, steps, degree)
    m = at.tangent.shape[-1] // 2
    return found, torch.linalg.inv_ex(at.tangent[:, :m, m:])[0], *at


def _covector_shapes(X: Tensor, target: Tensor, key: str, steps: int, degree: int) -> tuple[Tensor, ...]:
    at = shapes(torch.stack([X, target], -3), steps, degree)
    m = at.tangent.shape[-1] // 2
    return X.new_empty(X.shape), X.new_empty((*X.shape[:-2], m, m)), *at


STATES = (Operand("start", 3),)
_POINTS = (Operand("X", 2), Operand("target", 2))
JET_SIZES: dict[str, type] = {"kernel": str, "steps": int, "degree": int}
_flow_operator = define(
    "kernel_flow",
    lambda start, key: flat(_end, 3)(start, key)[0],
    STATES,
    lambda start, key: start.new_empty(start.shape),
    numbers={"kernel": str},
)
_jet_operator = define(
    "kernel_flow_jet",
    flat(_jet, 3),
    STATES,
    lambda start, key, steps, degree: tuple(shapes(start, steps, degree)),
    numbers=JET_SIZES,
    count=len(Jet._fields),
)
_logarithm_operator = define(
    "kernel_logarithm",
    lambda X, target, key: flat(_covector, 2)(X, target, key)[0],
    _POINTS,
    lambda X, target, key: X.new_empty(X.shape),
    numbers={"kernel": str},
)
_logarithm_jet_operator = define(
    "kernel_logarithm_jet",
    flat(_covector_jet, 2),
    _POINTS,
    _covector_shapes,
    numbers=JET_SIZES,
    count=2 + len(Jet._fields),
)
