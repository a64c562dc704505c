"""Trust regions on manifolds, with exact or finite-difference Hessian products."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from ..entries import State
from .base import Closure, FullBatchOptimizer, Objective, check_positive, check_scale, dense, number
from .product_point import LinAlgError, ProductPoint
from .steihaug import truncated_cg

HESSIANS = ("autograd", "finite_difference")


@dataclasses.dataclass(frozen=True)
class Model:
    """The quadratic model at x: loss, Euclidean and Riemannian gradient, and what Hessian products are made from."""

    x: Tensor
    value: float
    egrad: Tensor
    rgrad: Tensor
    grad_norm: float
    graph: dict[Tensor, Tensor]  # Euclidean gradients with their graph, of the parameters that have one


class RiemannianTrustRegion(FullBatchOptimizer):
    r"""Riemannian trust regions for deterministic losses (Absil, Baker and Gallivan 2007, doi
    10.1007/s10208-005-0179-9).

    Each iteration minimises ``f + <grad, u> + <u, Hess u>/2`` over ``|u| <= delta`` by truncated conjugate gradients
    (`truncated_cg`), moves there by the manifold's retraction, and compares the decrease with the one predicted. With
    exact Hessian products and `theta` 1 it converges quadratically. Parameters of all groups form one point.

    Args:
        params: parameters, named parameters, or groups (`param_groups`); float32 or float64. ``hessian="autograd"``
            needs flat parameters or manifolds with `ehess2rhess`.
        max_iter: iterations of one ``step``, rejected ones included.
        max_eval: evaluations of the closure in one ``step``; None does not limit them.
        tolerance_grad: stop when the Riemannian gradient is not longer.
        tolerance_change: stop when an accepted step is not longer.
        delta_bar: greatest radius; by default twice the injectivity radii of all points, taken together as in a
            product, and unlimited in flat space.
        delta0: first radius; by default a fourth of the injectivity radii, or of the square root of the dimension where
            that is less.
        rho_prime: accept a step with more than this share of the predicted decrease; below 1/4.
        kappa, theta: the inner iteration stops at a residual of ``|grad| min(kappa, |grad|**theta)``.
        max_inner: inner iterations; by default twice the dimension, since rounding undoes the end after as many.
        rho_regularization: decreases are compared after adding ``rho_regularization eps max(1, |f|)`` to both, so that
            steps within rounding are trusted (Conn, Gould and Toint 2000, section 17.4.2).
        hessian: "autograd" differentiates the gradient again; "finite_difference" differences it along the retraction,
            one evaluation a product, for manifolds without `ehess2rhess` or losses without second derivatives (Boumal
            2015, doi 10.1007/978-3-319-25040-3_50).
    """

    def __init__(
        self,
        params: Any,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 0.0,
        *,
        delta_bar: float | None = None,
        delta0: float | None = None,
        rho_prime: float = 0.1,
        kappa: float = 0.1,
        theta: float = 1.0,
        max_inner: int | None = None,
        rho_regularization: float = 1e3,
        hessian: str = "autograd",
    ) -> None:
        defaults = {
            "max_iter": max_iter,
            "max_eval": max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "delta_bar": delta_bar,
            "delta0": delta0,
            "rho_prime": rho_prime,
            "kappa": kappa,
            "theta": theta,
            "max_inner": max_inner,
            "rho_regularization": rho_regularization,
            "hessian": hessian,
        }
        _check_options(defaults)
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:  # type: ignore[override]
        """Up to `max_iter` iterations.

        Args:
            closure: computes the loss and returns it with its graph. It must not call ``backward``: the gradient is
                differentiated again.

        Returns:
            The loss before the first iteration. The parameters end at the best point; `summary` tells the rest, with
            `n_hessian` the number of Hessian products.
        """
        options = self._options()
        point = self._point(geodesic=False)
        objective = Differentiable("RiemannianTrustRegion", closure, point, options["hessian"] == "autograd")
        model = objective.start_model()
        check_scale("RiemannianTrustRegion", model.rgrad, model.grad_norm)
        largest, typical = point.injectivity_radii(model.x)
        largest = options["delta_bar"] or max(2 * largest, options["delta0"] or 0.0)
        first = options["delta0"] or min(typical, largest) / 4
        radius = min(self.state[self._first()].get("radius", first), largest)
        radius = first if radius < point.eps else radius  # the last step ended there, perhaps on another loss
        done, reason = 0, "tolerance_grad" if model.grad_norm <= options["tolerance_grad"] else None
        try:
            while reason is None:
                before = model
                model, radius, length = self._iterate_once(point, objective, before, radius, largest, options)
                done += 1
                reason = _stop_reason(objective, model, radius, length, done, options)
        finally:
            point.write(model.x)
            self._note(
                objective,
                reason,
                n_iter=done,
                n_hessian=objective.products,
                grad_norm=model.grad_norm,
                loss=model.value,
                radius=radius,
            )
        return objective.first_loss

    def _iterate_once(
        self, point: ProductPoint, objective: Differentiable, here: Model, radius: float, largest: float, options: State
    ) -> tuple[Model, float, float | None]:
        """The next model and radius, and the length of the step if it was accepted."""
        x = here.x
        inner = truncated_cg(
            lambda u: objective.hessian(here, u),
            lambda u, v: point.inner(x, u, v),
            here.rgrad,
            radius,
            kappa=options["kappa"],
            theta=options["theta"],
            tolerance=0.1 * options["tolerance_grad"],  # the rest is left to what the model misses
            max_iter=options["max_inner"] or 2 * max(point.dimension(), 1),
            project=lambda u: point.project(x, u),
        )
        y = point.move(x, inner.u)
        value, loss = objective.loss_at(y)
        slack = options["rho_regularization"] * point.eps * max(1.0, abs(here.value))
        predicted = inner.decrease + slack
        rho = (here.value - value + slack) / predicted if predicted > 0 and math.isfinite(value) else -math.inf
        there = objective.model(y, value, loss) if rho > options["rho_prime"] else None
        if there is not None and inner.decrease < slack and there.grad_norm > here.grad_norm:
            there = None  # the loss cannot tell whether such a step is good, the gradient can
        if there is None:
            point.write(x)
            return here, radius / 4, None
        if rho < 0.25:
            radius = radius / 4
        elif rho > 0.75 and inner.at_boundary:
            radius = min(2 * radius, largest)
        return there, radius, inner.length


def _stop_reason(
    objective: Objective, model: Model, radius: float, length: float | None, done: int, options: State
) -> str | None:
    if model.grad_norm <= options["tolerance_grad"]:
        return "tolerance_grad"
    if length is not None and length <= options["tolerance_change"]:
        return "tolerance_change"
    if done >= options["max_iter"]:
        return "max_iter"
    if options["max_eval"] is not None and objective.evaluations >= options["max_eval"]:
        return "max_eval"
    # Shorter steps than this do not change the point.
    return "radius" if radius < objective.point.eps else None


class Differentiable(Objective):
    """The closure with its graph: gradients that can be differentiated again, and Hessian products, counted."""

    def __init__(self, name: str, closure: Closure | None, point: ProductPoint, exact: bool) -> None:
        super().__init__(name, closure, point)
        self.exact = exact
        self.products = 0

    def start_model(self) -> Model:
        """The model where the parameters are; raises ``ValueError`` where it is not finite."""
        loss = self.loss()
        model = self.model(self.point.read(), number(loss), loss)
        if model is None:
            raise ValueError(
                f"{self.name}: the loss or its gradient is not finite at the starting point (loss {number(loss)}); "
                "start where it is"
            )
        return model

    def loss_at(self, x: Tensor) -> tuple[float, Any]:
        """The loss at x, where it puts the parameters, as a number and with its graph; NaN where there is none."""
        if not bool(x.isfinite().all()):
            return math.nan, None
        self.point.write(x)
        try:
            loss = self.loss()
        except LinAlgError:
            return math.nan, None
        return number(loss), loss

    def model(self, x: Tensor, value: float, loss: Any) -> Model | None:
        """The model at x, where the parameters are, from the loss there; None where it is not finite."""
        graph = self._gradients(loss, self.exact)
        egrad = self._gather(graph)
        if not math.isfinite(value) or not bool(egrad.isfinite().all()):
            return None
        rgrad = self.point.rgrad(x, egrad)
        return Model(x, value, egrad, rgrad, self.point.norm(x, rgrad), graph)

    def hessian(self, model: Model, u: Tensor) -> Tensor:
        """The Riemannian Hessian at the model's point, where the parameters are, applied to u."""
        self.products += 1
        return self._exact(model, u) if self.exact else self._difference(model, u)

    def _exact(self, model: Model, u: Tensor) -> Tensor:
        vectors = self.point.scatter(u)
        curved = [p for p, g in model.graph.items() if g.requires_grad]  # of a linear loss no gradient is
        products: dict[Tensor, Tensor] = {}
        if curved:
            parameters = self.point.parameters
            found = torch.autograd.grad(
                [model.graph[p] for p in curved],
                parameters,
                [vectors[p] for p in curved],
                retain_graph=True,
                allow_unused=True,
            )
            products = {p: h for p, h in zip(parameters, found, strict=True) if h is not None}
        return self.point.rhess(model.x, model.egrad, self._gather(products), u)

    def _difference(self, model: Model, u: Tensor) -> Tensor:
        """(T grad f(move(x, h u)) - grad f(x))/h, T back to x; h |u| balances rounding and curvature."""
        length = self.point.norm(model.x, u)
        if length == 0:
            return torch.zeros_like(u)
        h = self.point.eps**0.5 / length
        y = self.point.move(model.x, h * u)
        value, loss = self.loss_at(y)
        if not math.isfinite(value):
            raise ValueError(f"{self.name}: the loss is not finite within rounding of a point that was accepted")
        there = self.point.rgrad(y, self._gather(self._gradients(loss, False)))
        self.point.write(model.x)
        return (self.point.transport_to(y, model.x, there) - model.rgrad) / h

    def _gather(self, tensors: dict[Tensor, Tensor]) -> Tensor:
        known = {p: tensors[p].detach() if p in tensors else torch.zeros_like(p) for p in self.point.parameters}
        return self.point.gather(known)

    def _gradients(self, loss: Any, create_graph: bool) -> dict[Tensor, Tensor]:
        if not isinstance(loss, Tensor) or not loss.requires_grad:
            raise ValueError(
                f"{self.name}: the closure must return the loss with its graph, as a tensor that requires a gradient; "
                "return it without .item() or .detach()"
            )
        with torch.enable_grad():
            try:
                found = torch.autograd.grad(loss, self.point.parameters, create_graph=create_graph, allow_unused=True)
            except RuntimeError as error:
                if "second time" not in str(error):
                    raise
                raise ValueError(
                    f"{self.name}: the graph of the loss is gone: the closure must return the loss without calling "
                    "backward()"
                ) from None
        if all(g is None for g in found):
            raise ValueError(f"{self.name}: the loss depends on no parameter of the optimizer")
        return {p: dense(g) for p, g in zip(self.point.parameters, found, strict=True) if g is not None}


def _check_options(options: State) -> None:
    name = "RiemannianTrustRegion"
    for option in ("max_iter", "max_eval", "max_inner"):
        value = options[option]
        if (value is not None or option == "max_iter") and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name}: {option} must be a positive integer, got {value!r}")
    for option in ("tolerance_grad", "tolerance_change", "kappa", "theta", "rho_regularization"):
        check_positive(name, option, options[option])
    for option in ("delta_bar", "delta0"):
        if options[option] is not None:
            check_positive(name, option, options[option], zero=False)
    if options["delta_bar"] is not None and (options["delta0"] or 0.0) > options["delta_bar"]:
        raise ValueError(
            f"{name}: delta0 must not exceed delta_bar, got {options['delta0']} and {options['delta_bar']}"
        )
    if not 0 <= options["rho_prime"] < 0.25:
        raise ValueError(f"{name}: rho_prime must be in [0, 0.25), got {options['rho_prime']!r}")
    if options["hessian"] not in HESSIANS:
        raise ValueError(f"{name}: hessian must be one of {HESSIANS}, got {options['hessian']!r}")
