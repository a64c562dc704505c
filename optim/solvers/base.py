"""What the full-batch solvers share: parameter groups, options, the closure, and a memory that `state_dict` keeps."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ..entries import State
from ..optimizer import ManifoldOptimizer
from .product_point import LinAlgError, ProductPoint

Closure = Callable[[], Any]
Rows = tuple[tuple[str, ...], ...]  # names of remembered vectors, those that belong together side by side

_UNSUPPORTED = ("maximize", "foreach", "capturable", "differentiable", "fused", "weight_decay")

_COUNTS = ("n_iter", "func_evals", "n_hessian")


class FullBatchOptimizer(ManifoldOptimizer, abc.ABC):
    """An optimizer whose ``step(closure)`` runs many iterations on one deterministic loss.

    The parameters of all groups, each on the manifold of its group (key ``"manifold"``) or of its own label, form one
    point of a product manifold. The options are those of the whole solver: groups that differ in one raise
    ``ValueError``. Parameters that do not require gradients stay where they are.

    `summary` tells how the last step ended. It is kept, as torch's LBFGS keeps its counts, in the state of the first
    parameter; vectors are kept as plain tensors in the state of the parameter that they belong to.
    """

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self._stop_reason: str | None = None
        super().__init__(params, defaults)

    @property
    def summary(self) -> dict[str, Any]:
        """``n_iter``, ``func_evals`` (and ``n_hessian``) since the beginning; ``grad_norm`` (Riemannian), ``loss`` and
        ``stop_reason`` of the last step. Empty before the first; the reason is not part of the ``state_dict``.

        `stop_reason` is the name of the option that ended the step, or ``"line_search"`` (``"radius"``) where rounding
        leaves no better point along the direction (in the trust region).
        """
        known = self.state.get(self._first(), {})
        facts = {k: known[k] for k in (*_COUNTS, "grad_norm", "loss") if k in known}
        return {**facts, "stop_reason": self._stop_reason} if facts else {}

    def _first(self) -> Tensor:
        return self.param_groups[0]["params"][0]

    # ---- groups -----------------------------------------------------------------------------------------------

    def _check_group(self, group: State) -> None:
        self._options()

    def _options(self) -> State:
        """The options, which are the same in all groups."""
        name, first = type(self).__name__, self.param_groups[0]
        names = [option for option in self.defaults if option in first]  # torch adds defaults that groups do not have
        for group in self.param_groups:
            for option in names:
                if group[option] != first[option]:
                    raise ValueError(
                        f"{name}: {option} is {first[option]} in one group and {group[option]} in another, but the "
                        "groups are solved together; give it to the constructor"
                    )
            for flag in _UNSUPPORTED:
                if group.get(flag):
                    raise ValueError(f"{name}: {flag}={group[flag]} is not supported; leave it out")
        return {option: first[option] for option in names}

    def _point(self, *, geodesic: bool) -> ProductPoint:
        entries = [e for i in range(len(self.param_groups)) for e in self._entries(i)]
        for entry in entries:
            self._check_start(entry)
        try:
            return ProductPoint(entries, geodesic=geodesic)
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}: {error}") from None

    # ---- state ------------------------------------------------------------------------------------------------

    def _note(self, objective: Objective, stop_reason: str | None, **facts: float) -> None:
        """Add the counts of a step to the summary, and replace its other entries."""
        self._stop_reason = stop_reason  # not in the state: torch takes a string there for a list of tensors
        state = self.state[self._first()]
        new = {"func_evals": objective.evaluations, **facts}
        for name, value in new.items():
            state[name] = state.get(name, 0) + value if name in _COUNTS else value

    def _recall(self, point: ProductPoint, names: Rows) -> dict[str, Tensor]:
        """The rows that `_remember` left, tangent at the point; of names that belong together all or none."""
        states = [self.state.get(p, {}) for p in point.parameters]
        memory = {}
        for together in names:
            found = {}
            for name in together:
                tensors = {p: s[name] for p, s in zip(point.parameters, states, strict=True) if name in s}
                lengths = {len(t) for t in tensors.values()}
                if len(tensors) == len(point.parameters) and len(lengths) == 1:
                    # The parameters may have been moved since, by a load or by hand.
                    found[name] = point.project(point.read(), point.gather(tensors, 1))
            memory.update(found if len(found) == len(together) else {})
        return memory

    def _remember(self, point: ProductPoint, names: Rows, memory: dict[str, Tensor]) -> None:
        """Leave rows as ``state[p][name]``, of shape ``m,*p.shape``; forget those that are not in `memory`."""
        for name in chain(*names):
            parts = point.scatter(memory[name]) if name in memory else {}
            for p in point.parameters:
                self.state[p].pop(name, None)
                if p in parts:
                    self.state[p][name] = parts[p].clone()  # a view would hold on to the rows of all parameters

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_stop_reason": self._stop_reason}


class Objective:
    """The closure as a function on the product point, which counts its calls."""

    def __init__(self, name: str, closure: Closure | None, point: ProductPoint) -> None:
        if closure is None:
            raise ValueError(f"{name}: step needs a closure that reevaluates the model and returns the loss")
        self.name, self.closure, self.point = name, closure, point
        self.evaluations = 0
        self.first_loss: Any = None

    def loss(self) -> Any:
        """The closure's loss, as it returns it, where the parameters are."""
        self.evaluations += 1
        with torch.enable_grad():
            loss = self.closure()
        if not isinstance(loss, (Tensor, float, int)) or (isinstance(loss, Tensor) and loss.numel() != 1):
            shown = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"{self.name}: the closure must return the loss, a scalar, got {shown}")
        if self.evaluations == 1:
            self.first_loss = loss
        return loss

    def start(self) -> tuple[float, Tensor]:
        """Value and Euclidean gradient where the parameters are; raises ``ValueError`` unless they are finite."""
        value, gradient = self._here()
        if not math.isfinite(value) or not bool(gradient.isfinite().all()):
            raise ValueError(
                f"{self.name}: the loss or its gradient is not finite at the starting point (loss {value}); start "
                "from a point where it is"
            )
        return value, gradient

    def at(self, x: Tensor) -> tuple[float, Tensor]:
        """Value and Euclidean gradient at x, where it puts the parameters; NaN where there is no value."""
        nothing = math.nan, torch.full_like(x, math.nan)
        if not bool(x.isfinite().all()):
            return nothing
        self.point.write(x)
        try:
            value, gradient = self._here()
        except LinAlgError:  # such as a Cholesky factor that a far trial does not have
            return nothing
        return (value, gradient) if bool(gradient.isfinite().all()) else nothing

    def _here(self) -> tuple[float, Tensor]:
        value = number(self.loss())
        grads = {p: p.grad for p in self.point.parameters}
        if all(g is None for g in grads.values()):
            raise ValueError(f"{self.name}: no parameter has a gradient; the closure must call loss.backward()")
        return value, self.point.gather({p: torch.zeros_like(p) if g is None else dense(g) for p, g in grads.items()})


def number(loss: Any) -> float:
    """The value of a loss."""
    return loss.item() if isinstance(loss, Tensor) else float(loss)


def dense(grad: Tensor) -> Tensor:
    """The gradient as a dense tensor."""
    return grad.to_dense() if grad.layout != torch.strided else grad


def check_positive(name: str, option: str, value: Any, *, zero: bool = True) -> None:
    """Raise ``ValueError`` unless `value` is a number above zero, or zero where that is allowed."""
    if not isinstance(value, (int, float)) or not (value >= 0 if zero else value > 0):
        least = "not negative" if zero else "positive"
        raise ValueError(f"{name}: {option} must be {least}, got {value!r}")


def check_scale(name: str, gradient: Tensor, length: float) -> None:
    """Raise ``ValueError`` if the square of the gradient's length overflows or underflows."""
    if not math.isfinite(length) or (length == 0 and bool((gradient != 0).any())):
        raise ValueError(
            f"{name}: the square of the gradient's length is not a number of {gradient.dtype} (largest entry "
            f"{float(gradient.abs().max()):.1e}); scale the loss, or use float64"
        )
