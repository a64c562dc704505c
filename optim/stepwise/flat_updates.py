"""What torch's own optimizers do to parameters of flat space, for the optimizers that leave these to them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from ..entries import State

FlatUpdate = Callable[[State, list[Tensor], list[Tensor], list[State]], None]


def as_scalar(value: float | Tensor) -> float | Tensor:
    """A tensor option as a 0-dim tensor, which does not change the shape or the dtype of what it multiplies."""
    return value.reshape(()) if isinstance(value, Tensor) else value


def update_by_sgd(options: State, params: list[Tensor], grads: list[Tensor], states: list[State]) -> None:
    """`torch.optim.SGD` with decoupled weight decay. What `options` do not name is zero."""
    momentum, weight_decay = options.get("momentum", 0), options.get("weight_decay", 0)
    lr = options["lr"] if options["capturable"] or options["differentiable"] else float(options["lr"])
    if weight_decay != 0:
        torch._foreach_mul_(params, 1 - as_scalar(lr) * weight_decay)  # type: ignore
    buffers = [s.get("momentum_buffer") for s in states]
    if options["differentiable"] and momentum != 0:
        # torch would start from the detached gradient. This makes the first buffer the gradient, with its graph.
        first = options.get("dampening", 0) / momentum * (-1 if options["maximize"] else 1)
        buffers = [first * g if b is None else b for b, g in zip(buffers, grads, strict=True)]
    torchs = {
        "momentum": momentum,
        "dampening": options.get("dampening", 0),
        "nesterov": options.get("nesterov", False),
        "maximize": options["maximize"],
        "foreach": False if options["differentiable"] else options["foreach"],
        "weight_decay": 0,
        "fused": False,
    }
    if options["capturable"] and isinstance(lr, Tensor):
        # torch would read a tensor lr back. From zero with lr 1 it computes the direction.
        moves = [torch.zeros_like(p) for p in params]
        sgd(moves, grads, buffers, lr=1.0, **torchs)
        torch._foreach_add_(params, torch._foreach_mul(moves, as_scalar(lr)))  # type: ignore
    else:
        sgd(params, grads, buffers, lr=lr, **torchs)
    if momentum != 0:
        for state, buffer in zip(states, buffers, strict=True):
            state["momentum_buffer"] = buffer


def update_by_adamw(options: State, params: list[Tensor], grads: list[Tensor], states: list[State]) -> None:
    """`torch.optim.AdamW`. What `options` do not name has torch's default, but weight decay, which is zero."""
    amsgrad = options.get("amsgrad", False)
    names = ("exp_avg", "exp_avg_sq") + (("max_exp_avg_sq",) if amsgrad else ())
    # torch refuses to be capturable on a CPU, where there is nothing to capture.
    capturable = options["capturable"] and all(p.device.type != "cpu" for p in params)
    for p, state in zip(params, states, strict=True):
        step = torch.as_tensor(state.get("step", 0.0), dtype=torch.float32)
        state["step"] = step.to(p.device) if capturable else step
        for name in names:
            if name not in state:
                state[name] = torch.zeros_like(p, memory_format=torch.preserve_format)
    beta1, beta2 = options.get("betas", (0.9, 0.999))
    adam(
        params,
        grads,
        [s["exp_avg"] for s in states],
        [s["exp_avg_sq"] for s in states],
        [s["max_exp_avg_sq"] for s in states] if amsgrad else [],
        [s["step"] for s in states],
        foreach=False if options["differentiable"] else options["foreach"],
        fused=False,
        capturable=capturable,
        differentiable=options["differentiable"],
        decoupled_weight_decay=True,
        amsgrad=amsgrad,
        beta1=beta1,
        beta2=beta2,
        lr=options["lr"] if capturable or options["differentiable"] else float(options["lr"]),
        weight_decay=options.get("weight_decay", 0),
        eps=options.get("eps", 1e-8),
        maximize=options["maximize"],
    )


FLAT_UPDATES: dict[str, FlatUpdate] = {"sgd": update_by_sgd, "adamw": update_by_adamw}
