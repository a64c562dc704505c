"""Limited-memory BFGS on manifolds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..entries import State
from .base import check_positive
from .descent import DescentOptimizer, Iterate, Memory
from .product_point import ProductPoint

_CAUTION = 1e-6  # the least curvature of a pair, as a multiple of the gradient norm (Li and Fukushima 2001)


class RiemannianLBFGS(DescentOptimizer):
    r"""Limited-memory BFGS on manifolds, for deterministic losses (Huang, Gallivan and Absil 2015, doi
    10.1137/140955483; Ring and Wirth 2012, doi 10.1137/11082885X).

    Of the last steps s = T(t d) and gradient changes y = g - T(g') it keeps those with enough curvature,
    ``<s, y> >= 1e-6 |g| <s, s>`` (cautious update), and carries all of them to the new point in one call by T: the
    parallel transport, an isometry, unless `transport` says otherwise. The direction is the two-loop recursion that
    starts from <s, y>/<y, y> times the gradient. Parameters of all groups form one point; in flat space the method is
    `torch.optim.LBFGS` with another line search.

    Args:
        params: parameters, named parameters, or groups (`param_groups`), on manifolds of this library or geoopt's, or
            flat; float32 or float64.
        lr: first trial of the line search, or the step itself without one. The very first step is
            ``lr min(1, 1/|grad|)`` times the gradient.
        max_iter: iterations of one ``step``.
        max_eval: evaluations of the closure in one ``step``; None does not limit them (each iteration makes 25 at
            most).
        tolerance_grad: stop when the Riemannian gradient is not longer.
        tolerance_change: stop when a step is not longer.
        history_size: pairs kept.
        line_search_fn: "strong_wolfe", or None for a fixed step `lr`.
        transport: "parallel" moves along geodesics with parallel transport; "retraction" uses the manifold's own
            `retr_transp`, rescaled to keep lengths, which is cheaper where geodesics are costly (Stiefel) and the only
            choice for geoopt's manifolds.
    """

    _rows = (("old_steps", "old_changes"), ("last_step", "last_grad"))
    _c2 = 0.9

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-12,
        history_size: int = 20,
        line_search_fn: str | None = "strong_wolfe",
        *,
        transport: str = "parallel",
    ) -> None:
        check_positive("RiemannianLBFGS", "history_size", history_size, zero=False)
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
            "transport": transport,
        }
        super().__init__(params, defaults)

    def _first_trial(self, point: ProductPoint, here: Iterate, d: Tensor, memory: Memory, options: State) -> float:
        lr = float(options["lr"])
        return lr if "old_steps" in memory else lr * min(1.0, 1.0 / here.grad_norm)

    def _step_rows(self, d: Tensor, t: float) -> Memory:
        return {"last_step": (t * d).unsqueeze(0)}

    def _direction(self, point: ProductPoint, here: Iterate, memory: Memory, options: State) -> Tensor:
        pairs = _pairs(here, memory)
        memory.clear()
        if pairs is None:
            return -here.rgrad
        steps, changes = pairs.chunk(2)
        lowered_steps, lowered_changes = point.lower(here.x, pairs).chunk(2)
        curvature, squares = _dots(lowered_steps, changes), _dots(lowered_steps, steps)
        # The second bound: below it <s, y> is the rounding of its terms.
        rounding = point.eps * (squares * _dots(lowered_changes, changes)).clamp(min=0).sqrt()
        good = (curvature > _CAUTION * here.grad_norm * squares) & (curvature > rounding)
        if not bool(good.any()):
            return -here.rgrad
        # As a slice, if all are good: choosing by index copies the history.
        sound = slice(None) if bool(good.all()) else good.nonzero().squeeze(1)
        recent = slice(-options["history_size"], None)
        s, y, ls, ly, sy = (t[sound][recent] for t in (steps, changes, lowered_steps, lowered_changes, curvature))
        memory["old_steps"], memory["old_changes"] = s, y
        return -_two_loops(here.rgrad, s, y, ls, ly, sy, scale=sy[-1] / (ly[-1] @ y[-1]))


def _dots(a: Tensor, b: Tensor) -> Tensor:
    """Products of rows, without a product of their entries in memory. ``m,N, m,N -> m``."""
    return torch.einsum("mn,mn->m", a, b)


def _pairs(here: Iterate, memory: Memory) -> Tensor | None:
    """All steps, the last one among them, then all changes of the gradient: one copy of the history."""
    steps, changes = [], []
    if "old_steps" in memory:
        steps, changes = [memory["old_steps"]], [memory["old_changes"]]
    if "last_step" in memory:
        steps.append(memory["last_step"])
        changes.append(here.rgrad - memory["last_grad"])
    return torch.cat([*steps, *changes]) if steps else None


def _two_loops(
    grad: Tensor,
    steps: Tensor,
    changes: Tensor,
    lowered_steps: Tensor,
    lowered_changes: Tensor,
    curvature: Tensor,
    *,
    scale: Tensor,
) -> Tensor:
    """The inverse Hessian that the pairs state, applied to the gradient (Nocedal 1980; Nocedal and Wright 2006,
    algorithm 7.4). ``m,N`` each, oldest first; inner products are products with the lowered rows."""
    q, shares = grad, []
    for i in reversed(range(len(steps))):
        share = (lowered_steps[i] @ q) / curvature[i]
        q = q - share * changes[i]
        shares.append(share)
    q = scale * q
    for i, share in enumerate(reversed(shares)):
        q = q + (share - (lowered_changes[i] @ q) / curvature[i]) * steps[i]
    return q
