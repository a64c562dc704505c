"""The loop that LBFGS and conjugate gradients share: a direction, a line search, a memory that moves along."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from ..entries import State, check_number
from .base import Closure, FullBatchOptimizer, Objective, Rows, check_positive, check_scale
from .line_search import Trial, strong_wolfe
from .product_point import ProductPoint

_MAX_TRIALS = 25  # evaluations of one line search
TRANSPORTS = ("parallel", "retraction")
Memory = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Iterate:
    """Where the solver is: point, loss, Euclidean and Riemannian gradient and the length of the latter."""

    x: Tensor
    value: float
    egrad: Tensor
    rgrad: Tensor
    grad_norm: float


class DescentOptimizer(FullBatchOptimizer):
    """A full-batch solver that searches along one direction an iteration."""

    _rows: Rows  # names of the memory
    _c2: float  # of the strong Wolfe conditions

    def __init__(self, params: Any, defaults: State) -> None:
        name = type(self).__name__
        check_number(name, "lr", defaults["lr"], tensor=True)
        check_positive(name, "lr", float(defaults["lr"]), zero=False)
        for option in ("max_iter", "max_eval"):
            value = defaults[option]
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}: {option} must be a positive integer, got {value!r}")
        for option in ("tolerance_grad", "tolerance_change"):
            check_positive(name, option, defaults[option])
        if defaults["line_search_fn"] not in (None, "strong_wolfe"):
            raise ValueError(
                f"{name}: line_search_fn must be 'strong_wolfe' or None, got {defaults['line_search_fn']!r}"
            )
        if defaults["transport"] not in TRANSPORTS:
            raise ValueError(f"{name}: transport must be one of {TRANSPORTS}, got {defaults['transport']!r}")
        super().__init__(params, defaults)

    @abc.abstractmethod
    def _direction(self, point: ProductPoint, here: Iterate, memory: Memory, options: State) -> Tensor:
        """The search direction; takes the last step, where `memory` has one, into account and into `memory`."""

    @abc.abstractmethod
    def _first_trial(self, point: ProductPoint, here: Iterate, d: Tensor, memory: Memory, options: State) -> float:
        """The step that the line search tries first."""

    @abc.abstractmethod
    def _step_rows(self, d: Tensor, t: float) -> Memory:
        """What is remembered of a step, beside the gradient where it began."""

    # ---- a step -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:  # type: ignore[override]
        """Up to `max_iter` iterations.

        Args:
            closure: clears the gradients, computes the loss, calls ``backward`` and returns the loss. It is called at
                trial points too. At them a `torch.linalg.LinAlgError`, or a loss that is infinite or NaN, shortens the
                step.

        Returns:
            The loss before the first iteration. The parameters end at the best point found, where losses that differ
            by 1e-13 of them (2e-5 in float32) count as equal; `summary` tells the rest.
        """
        options = self._options()
        point = self._point(geodesic=options["transport"] == "parallel")
        objective = Objective(type(self).__name__, closure, point)
        memory = self._recall(point, self._rows)
        x = point.read()
        here = _iterate(point, x, *objective.start())
        check_scale(type(self).__name__, here.rgrad, here.grad_norm)
        done, reason = 0, "tolerance_grad" if here.grad_norm <= options["tolerance_grad"] else None
        try:
            while reason is None:
                there, reason = self._iterate_once(point, objective, here, memory, options, done)
                done += there is not here
                here = there
        finally:
            point.write(here.x)  # also when the closure raised
            self._remember(point, self._rows, memory)
            self._note(objective, reason, n_iter=done, grad_norm=here.grad_norm, loss=here.value)
        return objective.first_loss

    def _iterate_once(
        self, point: ProductPoint, objective: Objective, here: Iterate, memory: Memory, options: State, done: int
    ) -> tuple[Iterate, str | None]:
        """One iteration: the next iterate, and the reason to stop after it."""
        d = point.project(here.x, self._direction(point, here, memory, options))
        if not point.inner(here.x, here.rgrad, d) < 0:  # also when it is NaN
            memory.clear()
            d = -here.rgrad
        last = done + 1 == options["max_iter"]
        t, there, reason = self._move(point, objective, here, d, memory, options, last)
        if reason == "line_search" and memory:
            memory.clear()  # a direction that leads nowhere: once more along the gradient
            d = -here.rgrad
            t, there, reason = self._move(point, objective, here, d, memory, options, last)
        if reason is not None:
            return there, reason
        self._advance(point, here, d, t, memory)
        if there.grad_norm <= options["tolerance_grad"]:
            return there, "tolerance_grad"
        if t * point.norm(here.x, d) <= options["tolerance_change"]:
            return there, "tolerance_change"
        if options["max_eval"] is not None and objective.evaluations >= options["max_eval"]:
            return there, "max_eval"
        return there, "max_iter" if last else None

    def _move(
        self,
        point: ProductPoint,
        objective: Objective,
        here: Iterate,
        d: Tensor,
        memory: Memory,
        options: State,
        last: bool,
    ) -> tuple[float, Iterate, str | None]:
        """The step along d: its length in units of d, its end, and why there was none."""
        t = self._first_trial(point, here, d, memory, options)
        if options["line_search_fn"] is None:
            return self._fixed_step(point, objective, here, d, t, last)
        left = _MAX_TRIALS if options["max_eval"] is None else options["max_eval"] - objective.evaluations
        # Not <egrad, d>: rounding of its part across the manifold would drown a small slope.
        start = Trial(0.0, here.value, point.inner(here.x, here.rgrad, d), (here.x, here.egrad))

        def evaluate(t: float) -> Trial:
            y, derivative = point.arc(here.x, d, t)
            value, egrad = objective.at(y)
            return Trial(t, value, derivative(egrad) if math.isfinite(value) else math.nan, (y, egrad))

        # What a loss may be off by rounding: a sum of many terms by hundreds of eps. Within it the slopes decide.
        noise = min(500 * point.eps, point.eps ** (2 / 3)) * abs(here.value)
        trial, _ = strong_wolfe(evaluate, start, t, c2=self._c2, noise=noise, max_trials=min(left, _MAX_TRIALS))
        if trial.t == 0:
            exhausted = options["max_eval"] is not None and objective.evaluations >= options["max_eval"]
            return 0.0, here, "max_eval" if exhausted else "line_search"
        return trial.t, _iterate(point, trial.content[0], trial.value, trial.content[1]), None

    def _fixed_step(
        self, point: ProductPoint, objective: Objective, here: Iterate, d: Tensor, t: float, last: bool
    ) -> tuple[float, Iterate, str | None]:
        y = point.move(here.x, t * d)
        if last and bool(y.isfinite().all()):
            # As in torch: the loss at the last point is left to the next step, which may see other data.
            return t, dataclasses.replace(here, x=y, value=math.nan, grad_norm=math.nan), None
        value, egrad = objective.at(y)
        if not math.isfinite(value):
            return 0.0, here, "line_search"
        return t, _iterate(point, y, value, egrad), None

    def _advance(self, point: ProductPoint, here: Iterate, d: Tensor, t: float, memory: Memory) -> None:
        """Carry the memory, the step and the gradient to the new point, all rows in one call."""
        rows = {**memory, **self._step_rows(d, t), "last_grad": here.rgrad.unsqueeze(0)}
        transported = point.transport_along(here.x, t * d, torch.cat(list(rows.values())))
        memory.update(zip(rows, transported.split([len(r) for r in rows.values()]), strict=True))


def _iterate(point: ProductPoint, x: Tensor, value: float, egrad: Tensor) -> Iterate:
    rgrad = point.rgrad(x, egrad)
    return Iterate(x, value, egrad, rgrad, point.norm(x, rgrad))
