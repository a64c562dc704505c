"""Adam on manifolds."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

from torchriemann.manifolds.functional.series import safe_sqrt

from ..entries import Entry, State, check_number
from .base import RiemannianOptimizer, move_and_carry, scalar


class RiemannianAdam(RiemannianOptimizer):
    r"""Riemannian Adam and AMSGrad (Becigneul and Ganea 2019, arXiv:1810.00760).

    .. math::
        g_t = \operatorname{grad} f(x_{t-1}), \quad
        m_t = \beta_1 m'_{t-1} + (1 - \beta_1) g_t, \quad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) \|g_t\|^2_{x_{t-1}}, \quad
        (x_t, m'_t) = \Bigl(R_{x_{t-1}}\Bigl(-\gamma \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon}\Bigr), T(m_t)\Bigr),

    with v one scalar a point, because single entries of a tangent vector mean nothing; R is the retraction of the
    manifold, T its transport, and the hats divide by 1 - beta^t. In flat space this is `torch.optim.AdamW`, entry by
    entry and to the bit. Weight decay is decoupled and by manifold (`Manifold.decay`): it has no meaning on a compact
    one and does not act there.

    Args:
        params: parameters, named parameters, or groups (`param_groups`); each is stepped on its own manifold, ours or
            geoopt's, or in flat space.
        lr: step length, a number or a tensor of one element.
        betas, eps, amsgrad: as in torch.
        weight_decay: decoupled; of flat parameters, and of the flat factors of a product.
        maximize: climb.
        foreach: None or True steps same-shaped points of a manifold as one batch, False one by one.
        capturable: step without a synchronisation and at fixed addresses, for capture in a CUDA graph. On a CPU it only
            keeps the step count in a tensor.
        differentiable: step inside autograd, one parameter at a time; the parameters must not be leaves.
        fused: not supported; True raises.
        check_finite: raise ``ValueError`` naming the parameter, and change nothing, if a step would produce an infinite
            or NaN value; costs one synchronisation.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
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
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "check_finite": check_finite,
        }
        super().__init__(params, defaults)

    def _check_options(self, options: State) -> None:
        check_number("RiemannianAdam", "lr", options["lr"], tensor=True)
        check_number("RiemannianAdam", "eps", options["eps"])
        check_number("RiemannianAdam", "weight_decay", options["weight_decay"])
        betas = options["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"RiemannianAdam: betas must be a pair of numbers, got {betas!r}")
        for i, beta in enumerate(betas):
            check_number("RiemannianAdam", f"betas[{i}]", beta, below=1.0)

    def _state_names(self, group: State) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq") + (("max_exp_avg_sq",) if group["amsgrad"] else ())

    def _import_state(self, entry: Entry, state: State, geoopt: bool) -> None:
        p, manifold = entry.parameter.detach(), entry.manifold
        shape = manifold.component_inner(p, torch.zeros_like(p)).shape
        if "exp_avg_sq" not in state or state["exp_avg_sq"].shape != p.shape:
            return
        for name in state.keys() & {"exp_avg_sq", "max_exp_avg_sq"}:
            second = state[name]
            if geoopt:  # our scalar, repeated over the point
                total = second.sum_to_size(shape)
                state[name] = total / (p.numel() / max(total.numel(), 1))
            else:
                state[name] = _second_moment(manifold, p, second.sqrt(), state["exp_avg"])
        if not geoopt:  # torch's momentum is a Euclidean gradient; geoopt's is tangent already
            state["exp_avg"] = manifold.egrad2rgrad(p, state["exp_avg"])

    def _point_update(self, group, manifold, points, grads, state, step):
        beta1, beta2 = group["betas"]
        return _point_adam(
            manifold,
            points,
            grads,
            state["exp_avg"],
            state["exp_avg_sq"],
            state.get("max_exp_avg_sq"),
            step,
            lr=scalar(group["lr"]),
            beta1=beta1,
            beta2=beta2,
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            maximize=group["maximize"],
        )

    def _flat_update(self, group: State, params: list[Tensor], grads: list[Tensor], states: list[State]) -> None:
        names = ("exp_avg", "exp_avg_sq") + (("max_exp_avg_sq",) if group["amsgrad"] else ())
        # torch refuses to be capturable on a CPU, where there is nothing to capture.
        capturable = group["capturable"] and all(p.device.type != "cpu" for p in params)
        for p, state in zip(params, states, strict=True):
            step = torch.as_tensor(state.get("step", 0.0), dtype=torch.float32)
            state["step"] = step.to(p.device) if capturable else step
            for name in names:
                if name not in state:
                    state[name] = torch.zeros_like(p, memory_format=torch.preserve_format)
        beta1, beta2 = group["betas"]
        adam(
            params,
            grads,
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [s["max_exp_avg_sq"] for s in states] if group["amsgrad"] else [],
            [s["step"] for s in states],
            foreach=False if group["differentiable"] else group["foreach"],
            fused=False,
            capturable=capturable,
            differentiable=group["differentiable"],
            decoupled_weight_decay=True,
            amsgrad=group["amsgrad"],
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"] if capturable or group["differentiable"] else float(group["lr"]),
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=group["maximize"],
        )


def _second_moment(manifold: Any, p: Tensor, root: Tensor, g: Tensor) -> Tensor:
    """One scalar a point, or a factor, from the root of a second moment of every entry of a Euclidean gradient: their
    squares added up, in the metric of gradients. ``-> *B,1(,1)``.

    `component_inner` adds up; but it lowers where gradients are raised, which makes a square of the metric. The tangent
    part of the mean gradient `g` tells how much that is.
    """
    tangent = manifold.proju(p, g)
    raised = manifold.component_inner(p, manifold.egrad2rgrad(p, tangent))
    lowered = manifold.component_inner(p, tangent)
    zero = lowered == 0
    return manifold.component_inner(p, root) * torch.where(zero, 1.0, raised / torch.where(zero, 1.0, lowered))


def _point_adam(
    manifold: Any,
    points: Tensor,
    grads: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    max_exp_avg_sq: Tensor | None,
    step: float | Tensor,
    *,
    lr: float | Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """One step of a batch of points.

    `points`, `grads`, `exp_avg` are ``*B,P``, the second moments ``*B,1(,1)``; `step` is a number or broadcasts.
    """
    rgrad = manifold.egrad2rgrad(points, grads)
    if maximize:
        rgrad = -rgrad
    exp_avg = exp_avg.lerp(rgrad, 1 - beta1)
    # Not lerp: where a square overflows the sum stays infinite, which ends in a step of zero, not in NaN.
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * manifold.component_inner(points, rgrad)
    new = {"exp_avg_sq": exp_avg_sq}
    if max_exp_avg_sq is not None:
        exp_avg_sq = new["max_exp_avg_sq"] = torch.maximum(max_exp_avg_sq, exp_avg_sq)
    # Scalars first: one multiplication at full size. The root of a zero has the derivative zero.
    denominator = safe_sqrt(exp_avg_sq / _bias_correction(beta2, step, points)) + eps
    scale = denominator.reciprocal() * (-lr / _bias_correction(beta1, step, points))
    shrink = None if weight_decay == 0 else 1 - lr * weight_decay
    points, new["exp_avg"] = move_and_carry(manifold, points, scale * exp_avg, exp_avg, shrink)
    return points, new


def _bias_correction(beta: float, step: float | Tensor, like: Tensor) -> float | Tensor:
    if not isinstance(step, Tensor):
        return 1 - beta**step
    # 1 - beta^t, without the cancellation that float32, in which a device may count its steps, would suffer.
    return -torch.expm1(step.to(like) * math.log(beta)) if beta > 0 else torch.ones_like(step, dtype=like.dtype)
