"""Stochastic gradient descent on manifolds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from ..entries import Entry, State, check_number
from .base import RiemannianOptimizer, move_and_carry, scalar


class RiemannianSGD(RiemannianOptimizer):
    r"""Riemannian stochastic gradient descent with transported momentum (Bonnabel 2013, arXiv:1111.5280).

    .. math::
        g_t = \operatorname{grad} f(x_{t-1}), \quad
        b_t = \mu\, b'_{t-1} + (1 - \tau)\, g_t, \quad
        (x_t, b'_t) = (R_{x_{t-1}}(-\gamma d_t), T(b_t)), \qquad b_1 = g_1,

    with d = b, or g + mu b (`nesterov`); R is the retraction of the manifold and T its transport. In flat space this is
    `torch.optim.SGD`, to the bit, but for weight decay, which is decoupled: ``p *= 1 - lr * weight_decay``. Weight
    decay has no meaning on a compact manifold and does not act there (`Manifold.decay`).

    Args:
        params: parameters, named parameters, or groups (`param_groups`); each is stepped on its own manifold, ours or
            geoopt's, or in flat space.
        lr: step length, a number or a tensor of one element.
        momentum, dampening, nesterov: as in torch.
        weight_decay: decoupled; of flat parameters, and of the flat factors of a product.
        maximize: climb.
        foreach: None or True steps same-shaped points of a manifold as one batch, False one by one.
        capturable: step without a synchronisation and at fixed addresses, for capture in a CUDA graph. On a CPU it only
            keeps the step count in a tensor.
        differentiable: step inside autograd, one parameter at a time; the parameters must not be leaves.
        fused: not supported; True raises.
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

    def _check_options(self, options: State) -> None:
        check_number("RiemannianSGD", "lr", options["lr"], tensor=True)
        for option in ("momentum", "dampening", "weight_decay"):
            check_number("RiemannianSGD", option, options[option])
        if options["nesterov"] and (options["momentum"] == 0 or options["dampening"] != 0):
            raise ValueError(
                "RiemannianSGD: nesterov needs momentum > 0 and dampening = 0, got "
                f"{options['momentum']} and {options['dampening']}"
            )

    def _state_names(self, group: State) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] != 0 else ()

    def _import_state(self, entry: Entry, state: State, geoopt: bool) -> None:
        # Neither counts steps. torch's momentum is a Euclidean gradient, geoopt's a Riemannian one with a normal part.
        if "step" not in state and state.get("momentum_buffer") is not None:
            to_tangent = entry.manifold.proju if geoopt else entry.manifold.egrad2rgrad
            state["momentum_buffer"] = to_tangent(entry.parameter.detach(), state["momentum_buffer"])
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
            weight_decay=group["weight_decay"],
            maximize=group["maximize"],
        )

    def _flat_update(self, group: State, params: list[Tensor], grads: list[Tensor], states: list[State]) -> None:
        lr = group["lr"] if group["capturable"] or group["differentiable"] else float(group["lr"])
        if group["weight_decay"] != 0:
            torch._foreach_mul_(params, 1 - scalar(lr) * group["weight_decay"])  # type: ignore
        buffers = [s.get("momentum_buffer") for s in states]
        if group["differentiable"] and group["momentum"] != 0:
            # torch would start from the detached gradient. This makes the first buffer the gradient, with its graph.
            first = group["dampening"] / group["momentum"] * (-1 if group["maximize"] else 1)
            buffers = [first * g if b is None else b for b, g in zip(buffers, grads, strict=True)]
        options = {key: group[key] for key in ("momentum", "dampening", "nesterov", "maximize")}
        options["foreach"] = False if group["differentiable"] else group["foreach"]
        if group["capturable"] and isinstance(lr, Tensor):
            # torch would read a tensor lr back. From zero with lr 1 it computes the direction.
            moves = [torch.zeros_like(p) for p in params]
            sgd(moves, grads, buffers, fused=False, lr=1.0, weight_decay=0, **options)
            torch._foreach_add_(params, torch._foreach_mul(moves, scalar(lr)))  # type: ignore
        else:
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
    weight_decay: float,
    maximize: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """One step of a batch of points. `points`, `grads`, `momentum_buffer` are ``*B,P``; `step` broadcasts to them."""
    rgrad = manifold.egrad2rgrad(points, grads)
    if maximize:
        rgrad = -rgrad
    shrink = None if weight_decay == 0 else 1 - lr * weight_decay
    if momentum_buffer is None and shrink is None:
        return manifold.retr(points, -lr * rgrad), {}
    if momentum_buffer is None:
        return move_and_carry(manifold, points, -lr * rgrad, rgrad, shrink)[0], {}
    new = rgrad
    if dampening != 0:
        # The buffer starts at zero, and the first gradient is not dampened, as in torch.
        later = step != 1
        new = (1 - dampening * (later.to(points) if isinstance(later, Tensor) else later)) * rgrad
    buffer = new.add(momentum_buffer, alpha=momentum)
    direction = rgrad.add(buffer, alpha=momentum) if nesterov else buffer
    points, buffer = move_and_carry(manifold, points, -lr * direction, buffer, shrink)
    return points, {"momentum_buffer": buffer}
