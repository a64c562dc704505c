"""Stochastic gradient descent on manifolds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from .base import RiemannianOptimizer, check_number, scalar
from .buckets import Entry, State


class RiemannianSGD(RiemannianOptimizer):
    r"""Riemannian stochastic gradient descent with transported momentum (Bonnabel 2013, arXiv:1111.5280).

    .. math::
        g_t = \operatorname{grad} f(x_{t-1}), \quad
        b_t = \mu\, b'_{t-1} + (1 - \tau)\, g_t, \quad
        (x_t, b'_t) = (R_{x_{t-1}}(-\gamma d_t), T(b_t)), \qquad b_1 = g_1,

    with d = b, or g + mu b (`nesterov`); R is the retraction of the manifold and T its transport. In flat space this is
    `torch.optim.SGD`, to the bit, but for weight decay, which is decoupled: ``p *= 1 - lr * weight_decay``. Weight
    decay has no meaning on a compact manifold and does not act there.

    Args:
        params: parameters, named parameters, or groups (`param_groups`); each is stepped on its own manifold, ours or
            geoopt's, or in flat space.
        lr: step length, a number or a tensor of one element.
        momentum, dampening, nesterov: as in torch.
        weight_decay: decoupled, of flat parameters only.
        maximize: climb.
        foreach: None or True steps same-shaped points of a manifold as one batch, False one by one.
        capturable, differentiable, fused: not supported; any true value raises.
        check_finite: raise ``ValueError`` naming the parameter, and change nothing, if a step would produce an infinite
            or NaN point, or a flat parameter has such a gradient; costs one synchronisation.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        momentum: float = 0,
        dampening: float = 0,
        nesterov: bool = False,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        check_finite: bool = False,
    ) -> None:
        for option, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)):
            check_number("RiemannianSGD", option, value)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(
                f"RiemannianSGD: nesterov needs momentum > 0 and dampening = 0, got {momentum} and {dampening}"
            )
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "check_finite": check_finite,
        }
        super().__init__(params, defaults)

    def _state_names(self, group: State) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] != 0 else ()

    def _import_state(self, entry: Entry, state: State) -> None:
        # torch's and geoopt's SGD count no steps, and keep momentum in the ambient space.
        if "step" not in state and state.get("momentum_buffer") is not None:
            state["momentum_buffer"] = entry.manifold.proju(entry.parameter, state["momentum_buffer"])
            state["step"] = 1.0

    def _point_update(self, group, manifold, points, grads, state, step):
        return _point_sgd(
            manifold,
            points,
            grads,
            state.get("momentum_buffer"),
            step,
            lr=scalar(group["lr"]),
            momentum=group["momentum"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=group["maximize"],
        )

    def _flat_update(self, group: State, params: list[Tensor], grads: list[Tensor], states: list[State]) -> None:
        lr = float(group["lr"])
        if group["weight_decay"] != 0:
            torch._foreach_mul_(params, 1 - lr * group["weight_decay"])  # type: ignore
        buffers = [s.get("momentum_buffer") for s in states]
        options = {key: group[key] for key in ("momentum", "dampening", "nesterov", "maximize", "foreach")}
        sgd(params, grads, buffers, fused=False, lr=lr, weight_decay=0, **options)
        if group["momentum"] != 0:
            for state, buffer in zip(states, buffers, strict=True):
                state["momentum_buffer"] = buffer


def _point_sgd(
    manifold: Any,
    points: Tensor,
    grads: Tensor,
    momentum_buffer: Tensor | None,
    step: float | Tensor,
    *,
    lr: float | Tensor,
    momentum: float,
    dampening: float,
    nesterov: bool,
    maximize: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """One step of a batch of points. `points`, `grads`, `momentum_buffer` are ``*B,P``; `step` broadcasts to them."""
    rgrad = manifold.egrad2rgrad(points, grads)
    if maximize:
        rgrad = -rgrad
    if momentum_buffer is None:
        return manifold.retr(points, -lr * rgrad), {}
    new = rgrad
    if dampening != 0:
        # The buffer starts at zero, and the first gradient is not dampened, as in torch.
        later = step != 1
        new = (1 - dampening * (later.to(points) if isinstance(later, Tensor) else later)) * rgrad
    buffer = new.add(momentum_buffer, alpha=momentum)
    direction = rgrad.add(buffer, alpha=momentum) if nesterov else buffer
    points, buffer = manifold.retr_transp(points, -lr * direction, buffer)
    return points, {"momentum_buffer": buffer}
