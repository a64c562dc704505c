"""Nonlinear conjugate gradients on manifolds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..entries import State
from .descent import DescentOptimizer, Iterate, Memory
from .product_point import ProductPoint


class RiemannianCG(DescentOptimizer):
    r"""Nonlinear conjugate gradients on manifolds, for deterministic losses (Sato 2022, SIAM Journal on
    Optimization 32).

    .. math:: d = -g + \beta\, T(d'), \qquad x = R_{x'}(t\, d)

    with t from a line search for the strong Wolfe conditions, T a transport that keeps lengths, and, with
    ``y = g - T(g')``, beta by

    - ``"PR+"``: max(0, <g, y>/<g', g'>) (Polak, Ribiere and Polyak),
    - ``"FR"``: <g, g>/<g', g'> (Fletcher and Reeves),
    - ``"HS+"``: max(0, <g, y>/<T d', y>) (Hestenes and Stiefel),
    - ``"HZ"``: <y - 2 T d' <y, y>/<T d', y>, g>/<T d', y>, bounded below (Hager and Zhang 2005, doi
      10.1137/030601880).

    A direction that does not descend is replaced by the negative gradient. Memory: three vectors.

    Args:
        params: as in `RiemannianLBFGS`.
        lr: factor of the first trial of each line search, or the step itself without one.
        max_iter, max_eval, tolerance_grad, tolerance_change, line_search_fn, transport: as in `RiemannianLBFGS`.
        beta_rule: "PR+", "FR", "HS+" or "HZ".
    """

    _rows = (("last_step", "last_direction", "last_grad"),)
    _c2 = 0.1  # directions stay conjugate only if the search is nearly exact

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-12,
        line_search_fn: str | None = "strong_wolfe",
        *,
        beta_rule: str = "HZ",
        transport: str = "parallel",
    ) -> None:
        if beta_rule not in BETA_RULES:
            raise ValueError(f"RiemannianCG: beta_rule must be one of {tuple(BETA_RULES)}, got {beta_rule!r}")
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "line_search_fn": line_search_fn,
            "beta_rule": beta_rule,
            "transport": transport,
        }
        super().__init__(params, defaults)

    def _step_rows(self, d: Tensor, t: float) -> Memory:
        return {"last_step": (t * d).unsqueeze(0), "last_direction": d.unsqueeze(0)}

    def _direction(self, point: ProductPoint, here: Iterate, memory: Memory, options: State) -> Tensor:
        if "last_grad" not in memory:
            return -here.rgrad
        direction, old = memory["last_direction"][0], memory["last_grad"][0]
        beta = BETA_RULES[options["beta_rule"]](lambda u, v: point.inner(here.x, u, v), here.rgrad, old, direction)
        return beta * direction - here.rgrad

    def _first_trial(self, point: ProductPoint, here: Iterate, d: Tensor, memory: Memory, options: State) -> float:
        lr = float(options["lr"])
        if options["line_search_fn"] is None:
            return lr
        if "last_grad" in memory:
            # Of as much decrease, to first order, as the last step had (Nocedal and Wright 2006, section 3.5).
            t = point.inner(here.x, memory["last_grad"][0], memory["last_step"][0])
            t /= point.inner(here.x, here.rgrad, d)
            if 0 < t < float("inf"):
                return lr * t
        return lr * min(1.0, 1.0 / here.grad_norm)


Inner = Callable[[Tensor, Tensor], float]


def _polak_ribiere(inner: Inner, grad: Tensor, old: Tensor, direction: Tensor) -> float:
    return max(0.0, _ratio(inner(grad, grad - old), inner(old, old)))


def _fletcher_reeves(inner: Inner, grad: Tensor, old: Tensor, direction: Tensor) -> float:
    return _ratio(inner(grad, grad), inner(old, old))


def _hestenes_stiefel(inner: Inner, grad: Tensor, old: Tensor, direction: Tensor) -> float:
    change = grad - old
    return max(0.0, _ratio(inner(grad, change), inner(direction, change)))


def _hager_zhang(inner: Inner, grad: Tensor, old: Tensor, direction: Tensor) -> float:
    change = grad - old
    curvature = inner(direction, change)
    beta = _ratio(inner(change, grad), curvature)
    beta -= 2 * _ratio(inner(change, change), curvature) * _ratio(inner(direction, grad), curvature)
    lengths = inner(direction, direction) ** 0.5, inner(old, old) ** 0.5
    return max(beta, -_ratio(1.0, lengths[0] * min(0.01, lengths[1])))  # the lower bound of the paper, eta = 0.01


def _ratio(a: float, b: float) -> float:
    """a/b; no conjugacy, so 0, where there is nothing to divide by."""
    return a / b if b != 0 else 0.0


BETA_RULES = {"PR+": _polak_ribiere, "FR": _fletcher_reeves, "HS+": _hestenes_stiefel, "HZ": _hager_zhang}
