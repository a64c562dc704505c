"""Gradients, Hessians and retractions checked by the slope of a Taylor remainder in a log-log plot."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchriemann.manifolds.checks import described

Cost = Callable[[Tensor], Tensor]
Retraction = Callable[[Tensor, Tensor], Tensor]

PER_DECADE = 6
DECADES = 8  # steps from 1e-8 to 1
WINDOW = 9  # steps in a fit: 1.3 decades
STRAIGHT = 0.02  # root mean square of a fit in decades, below which points lie on a line: 5 % of the error
SLACK = 0.1  # by which a fitted slope may miss the expected one
EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True, repr=False)
class SlopeCheck:
    """The answer of `check_gradient`, `check_hessian` or `check_retraction`; true as a condition exactly if `ok`.

    `slope` is that of ``log(errors)`` against ``log(steps)`` at the smallest steps that rounding does not spoil, those
    of `window`; infinity where all errors are rounding, NaN where no finite ones were met. `complaint` says what else
    is wrong, such as a gradient that is not tangent; None if nothing is.
    """

    what: str
    slope: float
    expected: float
    steps: tuple[float, ...]
    errors: tuple[float, ...]
    window: tuple[float, float] | None
    complaint: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the slope is that expected or steeper, and there is no complaint."""
        return self.slope >= self.expected - SLACK and self.complaint is None

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        where = "all errors are rounding" if self.window is None else "at steps {:.1e} to {:.1e}".format(*self.window)
        where = "no finite errors" if math.isnan(self.slope) else where
        complaint = f"; {self.complaint}" if self.complaint else ""
        verdict = "ok" if self.ok else "WRONG"
        return f"{self.what}: {verdict}, slope {self.slope:.2f}, expected {self.expected:g}, {where}{complaint}"


# ---- the three checks -------------------------------------------------------------------------------------------


def check_gradient(
    manifold: Any,
    cost: Cost,
    x: Tensor | None = None,
    u: Tensor | None = None,
    *,
    shape: tuple[int, ...] | None = None,
    gradient: Cost | None = None,
    retraction: Retraction | None = None,
    generator: torch.Generator | None = None,
    raises: bool = False,
) -> SlopeCheck:
    """Is `gradient` the Riemannian gradient of `cost`?

    The remainder ``f(R_x(hu)) - f(x) - h <grad f, u>`` is O(h^2): slope 2. The gradient must be tangent as well, which
    no remainder along a tangent vector can tell (Boumal 2023, "An Introduction to Optimization on Smooth Manifolds",
    section 4.8).

    Args:
        cost: ``*B,P -> ()`` or ``*B``, summed. Computed in float64.
        x: a float64 point ``*B,P``; by default random, of `shape`.
        u: a tangent vector at `x`, made a unit vector; by default random. (Of geoopt's manifolds give both.)
        gradient: ``x -> grad f(x)``; by default `egrad2rgrad` of what autograd finds.
        retraction: the map R, ``(x, u) -> y``; by default `expmap`.
        raises: raise ``AssertionError`` with the answer unless it is `ok`.

    >>> import torch, torchriemann
    >>> a = torch.arange(3.0, dtype=torch.float64)
    >>> check_gradient(torchriemann.Sphere(), lambda x: x @ a, shape=(3,)).ok
    True
    """
    x, u = _arguments("check_gradient", manifold, x, u, shape, generator)
    g = _gradient(manifold, cost, x) if gradient is None else _user(gradient(x), x, "check_gradient: gradient(x)")
    slope = float(manifold.inner(x, g, u).sum())
    errors, scales = _remainders(cost, x, u, manifold.expmap if retraction is None else retraction, (slope,))
    what = f"gradient of {_named(cost)} on {manifold!r}"
    complaint = _not_tangent(manifold, x, g, "gradient") or _unseen("gradient", errors, scales, slope)
    return _verdict(what, 2.0, errors, scales, complaint, raises)


def check_hessian(
    manifold: Any,
    cost: Cost,
    x: Tensor | None = None,
    u: Tensor | None = None,
    *,
    shape: tuple[int, ...] | None = None,
    gradient: Cost | None = None,
    hessian: Callable[[Tensor, Tensor], Tensor] | None = None,
    retraction: Retraction | None = None,
    generator: torch.Generator | None = None,
    raises: bool = False,
) -> SlopeCheck:
    """Is `hessian` the Riemannian Hessian of `cost`?

    The remainder ``f(R_x(hu)) - f(x) - h <grad f, u> - h^2/2 <Hess f[u], u>`` is O(h^3) along geodesics and
    second-order retractions: slope 3. The Hessian must be tangent, linear and self-adjoint as well (Boumal 2023,
    section 6.8).

    Args:
        cost, x, u, shape, gradient, generator, raises: as of `check_gradient`.
        hessian: ``(x, u) -> Hess f(x)[u]``; by default `ehess2rhess` of what autograd finds.
        retraction: of second order; by default `expmap`.
    """
    x, u = _arguments("check_hessian", manifold, x, u, shape, generator)
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    v = _unit("check_hessian", manifold, x, manifold.proju(x, noise))
    g = _gradient(manifold, cost, x) if gradient is None else _user(gradient(x), x, "check_hessian: gradient(x)")

    def product(w: Tensor) -> Tensor:
        if hessian is None:
            return _hessian(manifold, cost, x, w)
        return _user(hessian(x, w), x, "check_hessian: hessian(x, u)")

    hu = product(u)
    terms = float(manifold.inner(x, g, u).sum()), float(manifold.inner(x, hu, u).sum()) / 2
    errors, scales = _remainders(cost, x, u, manifold.expmap if retraction is None else retraction, terms)
    complaint = (
        _not_tangent(manifold, x, hu, "Hessian product")
        or _not_symmetric(manifold, x, u, v, hu, product)
        or _unseen("Hessian", errors, scales, terms[1])
    )
    return _verdict(f"Hessian of {_named(cost)} on {manifold!r}", 3.0, errors, scales, complaint, raises)


def check_retraction(
    manifold: Any,
    x: Tensor | None = None,
    u: Tensor | None = None,
    *,
    shape: tuple[int, ...] | None = None,
    retraction: Retraction | None = None,
    order: int = 1,
    generator: torch.Generator | None = None,
    raises: bool = False,
) -> SlopeCheck:
    """Is `retraction` a retraction of the manifold, of the order `order`?

    ``dist(R_x(hu), exp_x(hu))`` is O(h^(order + 1)): slope 2 for every retraction, 3 for one of second order (Boumal
    2023, definitions 3.47 and 5.42). `expmap` and `dist` of the manifold are taken to be right.

    Args:
        x, u, shape, generator, raises: as of `check_gradient`.
        retraction: ``(x, u) -> y``; by default `retr`.
        order: 1 or 2.
    """
    if order not in (1, 2):
        raise ValueError(f"check_retraction: order must be 1 or 2, got {order!r}")
    x, u = _arguments("check_retraction", manifold, x, u, shape, generator)
    move: Retraction = manifold.retr if retraction is None else retraction
    with torch.no_grad():
        moved = [_user(move(x, h * u), x, "check_retraction: retraction(x, u)") for h in _both_ways()]
        moved, exact = torch.stack(moved), torch.stack([manifold.expmap(x, h * u) for h in _both_ways()])
        each = manifold.dist(moved, exact).reshape(len(moved), -1).amax(1)
        errors = _worse_way(each)
    what = f"retraction {_named(move)} of {manifold!r}"
    scales = torch.full_like(errors, max(1.0, float(x.abs().max())))
    outside = manifold.check_point_on_manifold(moved[each.isfinite()], explain=True)[1]
    return _verdict(what, order + 1.0, errors, scales, outside and f"it leaves the manifold: {outside}", raises)


# ---- arguments --------------------------------------------------------------------------------------------------


def _arguments(where: str, manifold: Any, x: Any, u: Any, shape: Any, generator: Any) -> tuple[Tensor, Tensor]:
    """A float64 point and a unit tangent vector, given or drawn."""
    if isinstance(manifold, type):
        raise ValueError(f"{where}: manifold must be an instance such as Sphere(), got {described(manifold)}")
    if x is None:
        if shape is None:
            raise ValueError(f"{where}: give a point x, or the shape of a random one, as in shape=(5, 2)")
        x = manifold.random(*shape, generator=generator, dtype=torch.float64)
    for name, value in (("x", x), ("u", u)):
        if value is not None and (not isinstance(value, Tensor) or value.dtype != torch.float64):
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{where}: {name} must be a float64 tensor, for slopes to show, got {got}; use .double()")
    x = x.detach().as_subclass(Tensor)
    manifold.assert_check_point_on_manifold(x)
    if u is None:
        # Projected again: what is drawn may be nearly normal, and its short rest tangent to rounding of the whole only.
        u = manifold.proju(x, _unit(where, manifold, x, manifold.random_tangent(x, generator=generator)))
    manifold.assert_check_vector_on_tangent(x, u.detach())
    return x, _unit(where, manifold, x, u.detach().as_subclass(Tensor))


def _unit(where: str, manifold: Any, x: Tensor, u: Tensor) -> Tensor:
    length = manifold.inner(x, u, u).sum().sqrt()
    if not length > 0:
        raise ValueError(f"{where}: u has length {float(length):g} on {manifold!r}; give a direction to look along")
    return u / length


def _user(value: Any, like: Tensor, where: str) -> Tensor:
    if not isinstance(value, Tensor) or value.dtype != like.dtype or value.shape != like.shape:
        got = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{where} must be a float64 tensor of shape {tuple(like.shape)}, got {got}")
    return value.detach()


def _named(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


# ---- derivatives ------------------------------------------------------------------------------------------------


def _value(cost: Cost, x: Tensor) -> Tensor:
    value = cost(x)
    if not isinstance(value, Tensor) or value.dtype != torch.float64:
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{_named(cost)}(x) must be a float64 tensor, for slopes to show, got {got}")
    return value.sum()


def _egrad(cost: Cost, x: Tensor, create_graph: bool = False) -> Tensor:
    value, g = _value(cost, x), None
    if value.requires_grad:
        (g,) = torch.autograd.grad(value, x, create_graph=create_graph, allow_unused=True)
    if g is None:
        raise ValueError(f"{_named(cost)}(x) does not depend on x through autograd; give its gradient")
    return g


def _gradient(manifold: Any, cost: Cost, x: Tensor) -> Tensor:
    with torch.enable_grad():
        g = _egrad(cost, x.clone().requires_grad_())
    return manifold.egrad2rgrad(x, g)


def _hessian(manifold: Any, cost: Cost, x: Tensor, u: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        g = _egrad(cost, leaf, create_graph=True)
        # Of a linear cost the gradient is a constant, without a graph.
        h = torch.autograd.grad((g * u).sum(), leaf, allow_unused=True)[0] if g.requires_grad else None
    return manifold.ehess2rhess(x, g.detach(), torch.zeros_like(x) if h is None else h, u)


# ---- what no remainder tells ------------------------------------------------------------------------------------


def _not_tangent(manifold: Any, x: Tensor, u: Tensor, name: str) -> str | None:
    reason = manifold.check_vector_on_tangent(x, u, explain=True)[1]
    return reason and f"the {name} is not tangent: {reason}"


def _not_symmetric(manifold: Any, x: Tensor, u: Tensor, v: Tensor, hu: Tensor, product: Cost) -> str | None:
    hv, bound = product(v), math.sqrt(EPS)

    def inner(a: Tensor, b: Tensor) -> float:
        return float(manifold.inner(x, a, b).sum())

    size = math.sqrt(inner(hu, hu)) + math.sqrt(inner(hv, hv))
    asymmetry = abs(inner(hu, v) - inner(u, hv))
    if not asymmetry <= bound * size:
        return f"the Hessian is not self-adjoint: |<Hu, v> - <u, Hv>| = {asymmetry:.2g}, |Hu| + |Hv| = {size:.2g}"
    rest = product(u - 2 * v) - hu + 2 * hv
    rest_size = math.sqrt(inner(rest, rest))
    if not rest_size <= bound * size:
        return f"the Hessian is not linear: |H(u - 2v) - Hu + 2Hv| = {rest_size:.2g}, |Hu| + |Hv| = {size:.2g}"
    return None


# ---- slopes -----------------------------------------------------------------------------------------------------


def _steps() -> list[float]:
    return [10.0 ** (k / PER_DECADE - DECADES) for k in range(DECADES * PER_DECADE + 1)]


def _remainders(cost: Cost, x: Tensor, u: Tensor, move: Retraction, terms: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """|f(R(hu)) - f(R(0)) - h t_1 - h^2 t_2| at all steps, and the size of the numbers whose difference it is."""
    errors, scales = [], []
    start = float(_value(cost, _user(move(x, 0 * u), x, "retraction(x, u)")).detach())
    for h in _both_ways():
        value = float(_value(cost, move(x, h * u)).detach())
        parts = [t * h ** (k + 1) for k, t in enumerate(terms)]
        errors.append(abs((value - start) - sum(parts)))
        scales.append(abs(start) + abs(value) + sum(map(abs, parts)))
    return _worse_way(errors), _worse_way(scales)


def _both_ways() -> list[float]:
    # The terms of a remainder may cancel at some step, which bends the line. They do not at the opposite step.
    return [*_steps(), *(-h for h in _steps())]


def _worse_way(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64).reshape(2, -1).amax(0)


def _unseen(name: str, errors: Tensor, scales: Tensor, term: float) -> str | None:
    """A term that is not zero, but small enough for a wrong one to pass as rounding of the cost."""
    rounding = EPS * float(scales.max())
    if math.isfinite(_slope(errors, scales)[0]) or not 10 * rounding < abs(term) < 1e4 * rounding:
        return None
    return f"the {name} changes the cost by {abs(term):.1g}, too little beside its rounding; scale or shift the cost"


def _verdict(
    what: str, expected: float, errors: Tensor, scales: Tensor, complaint: str | None, raises: bool
) -> SlopeCheck:
    slope, window = _slope(errors, scales)
    result = SlopeCheck(what, slope, expected, tuple(_steps()), tuple(errors.tolist()), window, complaint)
    if raises and not result:
        raise AssertionError(repr(result))
    return result


def _slope(errors: Tensor, scales: Tensor) -> tuple[float, tuple[float, float] | None]:
    """The slope at the smallest steps whose errors lie on a line, above rounding; if none do, at the straightest."""
    steps = _steps()
    if not errors[: len(steps) // 2].isfinite().all():  # large steps may leave the domain of the cost, small ones not
        return math.nan, None
    above = errors > _noise(errors, scales)  # false for NaN
    best: tuple[float, float, int] | None = None
    for i in range(len(steps) - WINDOW + 1):
        if above[i : i + WINDOW].all() and errors[i : i + WINDOW].isfinite().all():
            slope, spread = _line(errors[i : i + WINDOW])
            if best is None or spread < best[0]:
                best = (spread, slope, i)
            if spread <= STRAIGHT:
                break
    if best is None:
        return math.inf, None
    return best[1], (steps[best[2]], steps[best[2] + WINDOW - 1])


def _noise(errors: Tensor, scales: Tensor) -> Tensor:
    """The size of an error that is rounding: 100 eps relative to what was subtracted, or what is seen.

    In the first decade a remainder of second order is below 1e-14. What stands there and does not grow with the step is
    the noise of the cost; but beyond 1e-9 nothing passes for noise.
    """
    head = errors[: PER_DECADE + 1]
    slope, spread = _line(head)
    seen = 10 * float(head.max()) if spread > 5 * STRAIGHT or slope < 0.5 else 0.0
    return torch.maximum(100 * EPS * scales, torch.clamp(1e-9 * scales, max=seen))


def _line(errors: Tensor) -> tuple[float, float]:
    """Slope of a straight line through the logarithms, and the root mean square of what it leaves, in decades."""
    y = errors.clamp_min(torch.finfo(errors.dtype).tiny).log10()
    t = torch.arange(len(y), dtype=y.dtype) / PER_DECADE
    t, y = t - t.mean(), y - y.mean()
    slope = (t @ y) / (t @ t)
    return float(slope), float((y - slope * t).square().mean().sqrt())
