"""Stochastic gradient descent on manifolds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from torchriemann.manifolds import Manifold

from ..entries import Entry, State, StateNames
from .base import RiemannianOptimizer, move_and_transport
from .flags import StepFlags
from .flat_updates import as_scalar

if TYPE_CHECKING:
    from typing_extensions import Unpack


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
        **flags: how a step runs, the keyword arguments of `StepFlags`.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        momentum: float = 0,
        dampening: float = 0,
        nesterov: bool = False,
        weight_decay: float = 0,
        **flags: Unpack[StepFlags],
    ) -> None:
        options = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
        }
        super().__init__(params, options, flags)

    def _check_options(self, options: State) -> None:
        super()._check_options(options)
        if options["nesterov"] and (options["momentum"] == 0 or options["dampening"] != 0):
            raise ValueError(
                "RiemannianSGD: nesterov needs momentum > 0 and dampening = 0, got "
                f"{options['momentum']} and {options['dampening']}"
            )

    def _state_names(self, group: State) -> StateNames:
        return {"momentum_buffer": "vector"} if group["momentum"] != 0 else {}

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
            lr=as_scalar(group["lr"]),
            momentum=group["momentum"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            weight_decay=group["weight_decay"],
        )


def _point_sgd(
    manifold: Manifold,
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
) -> tuple[Tensor, dict[str, Tensor]]:
    """One step of a batch of points. `points`, `grads`, `momentum_buffer` are ``*B,P``; `step` broadcasts to them."""
    rgrad = manifold.egrad2rgrad(points, grads)
    shrink = None if weight_decay == 0 else 1 - lr * weight_decay
    if momentum_buffer is None and shrink is None:
        return manifold.retr(points, -lr * rgrad), {}
    if momentum_buffer is None:
        return move_and_transport(manifold, points, -lr * rgrad, rgrad, shrink)[0], {}
    new = rgrad
    if dampening != 0:
        # The buffer starts at zero, and the first gradient is not dampened, as in torch.
        later = step != 1
        new = (1 - dampening * (later.to(points) if isinstance(later, Tensor) else later)) * rgrad
    buffer = new.add(momentum_buffer, alpha=momentum)
    direction = rgrad.add(buffer, alpha=momentum) if nesterov else buffer
    points, buffer = move_and_transport(manifold, points, -lr * direction, buffer, shrink)
    return points, {"momentum_buffer": buffer}
