"""Adam on manifolds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchriemann.manifolds import Manifold
from torchriemann.manifolds.functional.series import safe_sqrt

from ..entries import Entry, State, StateNames
from .base import RiemannianOptimizer, move_and_transport
from .flags import StepFlags
from .flat_updates import as_scalar

if TYPE_CHECKING:
    from typing_extensions import Unpack


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

    gamma is about the arc by which a whole point moves in a step, where torch's Adam moves every entry by it: the same
    progress takes some sqrt(dimension of the point) times the rate.

    Args:
        params: parameters, named parameters, or groups (`param_groups`); each is stepped on its own manifold, ours or
            geoopt's, or in flat space.
        lr: step length, a number or a tensor of one element; give groups of points some sqrt(dimension) times that of
            flat parameters, for which the default is torch's.
        betas, eps, amsgrad: as in torch.
        weight_decay: decoupled; of flat parameters, and of the flat factors of a product.
        **flags: how a step runs, the keyword arguments of `StepFlags`.
    """

    _flat = "adamw"

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        **flags: Unpack[StepFlags],
    ) -> None:
        options = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
        }
        super().__init__(params, options, flags)

    def _state_names(self, group: State) -> StateNames:
        names: StateNames = {"exp_avg": "vector", "exp_avg_sq": "scalar"}
        return {**names, "max_exp_avg_sq": "scalar"} if group["amsgrad"] else names

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
            lr=as_scalar(group["lr"]),
            beta1=beta1,
            beta2=beta2,
            eps=group["eps"],
            weight_decay=group["weight_decay"],
        )


def _second_moment(manifold: Manifold, p: Tensor, root: Tensor, g: Tensor) -> Tensor:
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
    manifold: Manifold,
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
) -> tuple[Tensor, dict[str, Tensor]]:
    """One step of a batch of points.

    `points`, `grads`, `exp_avg` are ``*B,P``, the second moments ``*B,1(,1)``; `step` is a number or broadcasts.
    """
    rgrad = manifold.egrad2rgrad(points, grads)
    exp_avg = exp_avg.lerp(rgrad, 1 - beta1)
    # Not lerp: where a square overflows the sum stays infinite, which ends in a step of zero, not in NaN.
    square = manifold.component_inner(points, rgrad)
    exp_avg_sq = (beta2 * exp_avg_sq).add(square, alpha=1 - beta2)
    new = {"exp_avg_sq": exp_avg_sq}
    if max_exp_avg_sq is not None:
        exp_avg_sq = new["max_exp_avg_sq"] = torch.maximum(max_exp_avg_sq, exp_avg_sq)
    # Scalars first: one multiplication at full size. The root of a zero has the derivative zero.
    denominator = safe_sqrt(exp_avg_sq / _bias_correction(beta2, step, points)) + eps
    scale = denominator.reciprocal() * (-lr / _bias_correction(beta1, step, points))
    shrink = None if weight_decay == 0 else 1 - lr * weight_decay
    points, new["exp_avg"] = move_and_transport(manifold, points, scale * exp_avg, exp_avg, shrink)
    return points, new


def _bias_correction(beta: float, step: float | Tensor, like: Tensor) -> float | Tensor:
    if not isinstance(step, Tensor):
        return 1 - beta**step
    # 1 - beta^t, without the cancellation that float32, in which a device may count its steps, would suffer.
    return -torch.expm1(step.to(like) * math.log(beta)) if beta > 0 else torch.ones_like(step, dtype=like.dtype)
