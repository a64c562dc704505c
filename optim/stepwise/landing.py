"""Gradient descent that is drawn to the Stiefel manifold instead of put back on it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchriemann.manifolds import Orthogonal, SpecialOrthogonal, Stiefel
from torchriemann.manifolds.functional.matrices import identity_like

from ..entries import Entry, State, StateNames
from ..foreign import with_the_same_points
from ..groups import is_flat
from ..sharding import local
from .base import RiemannianOptimizer
from .flags import EagerFlags
from .flat_updates import as_scalar

if TYPE_CHECKING:
    from typing_extensions import Unpack


class LandingSGD(RiemannianOptimizer):
    r"""The landing algorithm on frames, x^T x = I, by matrix products alone (Ablin and Peyre 2022, arXiv:2102.07432;
    rectangular: Ablin, Vary, Gao and Absil 2024, arXiv:2303.16510).

    .. math::
        b = \mu\, m_{t-1} + \nabla f(x), \quad
        \Lambda = \tfrac12 (b\, x^\top x - x\, b^\top x) + \lambda\, x (x^\top x - I), \quad
        x_t = x - \eta\, \Lambda, \quad \eta = \min(\gamma, \eta^*, \tfrac{1}{2 \lambda}), \quad
        m_t = b - x\, \mathrm{sym}(x^\top b), \qquad x = x_{t-1}

    The first term, skew(b x^T) x, moves along the matrices of equal x^T x, and on the manifold is half the canonical
    gradient; the second, orthogonal to it, leads to the manifold. Both vanish at the critical points on the manifold,
    and nowhere else in the tube. With D = x^T x - I and d = ||D||_F a step leaves

    .. math::
        D' = D - 2 \eta\lambda (D + D^2) + \eta^2 \Lambda^\top \Lambda, \qquad
        d' \le d - 2 \eta\lambda\, d (1 - d) + \eta^2 \|\Lambda\|_F^2 \quad (2 \eta\lambda \le 1),

    and eta* is the longest step for which the bound stays within `safe_distance`: whatever gradients and lr, every
    frame stays in the tube d <= safe_distance, its rank and, for p = n, the sign of its determinant with it. The bound
    holds for any b, hence with momentum, whose part normal to the manifold is taken out at every step: it does not
    vanish at an optimum, and as x moves on it would act as friction.

    Use it where factorising or iterating at every step costs more than some small infeasibility, as for p in the
    hundreds. **Points are off their manifold during training**, d by up to about gamma ||Lambda||^2/(2 lambda), which
    goes to zero with the gradient. `project_` puts them on it; call it before evaluating, averaging or saving. With
    gamma ||Lambda|| above one they come to the rim of the tube, where a step is no longer than
    2 lambda d (1 - d) / ||Lambda||: clip the gradient or lower lr.

    Every 64th step ends with one Newton-Schulz step, as that of the other optimizers. It moves along the second term
    only, and takes D to (D^3 - 3 D^2)/4, hence d to at most d^2.

    Args:
        params: parameters, named parameters, or groups (`param_groups`), on `Stiefel` with any metric, `Orthogonal`,
            `SpecialOrthogonal` or geoopt's `Stiefel`, and flat ones, which `torch.optim.SGD` steps, to the bit. The
            metric and the retraction of a manifold play no part here.
        lr: the longest step, a number or a tensor of one element. Twice that of `RiemannianSGD` is the same step to
            first order, on ``Stiefel(beta=0.5)``.
        momentum: as in torch.
        landing: lambda, the strength of the attraction; d shrinks by 1 - 2 lr lambda a step.
        safe_distance: the radius of the tube, above 0 and below 1, in the Frobenius norm of x^T x - I.
        **flags: `maximize`, `foreach` and `check_finite`, as in `StepFlags`.

    Raises ``ValueError`` for a parameter on any other manifold, and for a frame outside the tube; distances are looked
    at when the optimizer is built and when it finds parameters or state replaced. A frame that something else moves
    out between two steps is led back if d < 1, and becomes NaN otherwise.
    """

    _flags = EagerFlags

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        momentum: float = 0,
        landing: float = 1.0,
        safe_distance: float = 0.5,
        **flags: Unpack[EagerFlags],
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "landing": landing, "safe_distance": safe_distance}
        super().__init__(params, options, flags)

    @torch.no_grad()
    def project_(self) -> None:
        """Replace every frame by the nearest on its manifold, by a factorisation. State stays as it is."""
        for index in range(len(self.param_groups)):
            for entry in super()._entries(index):
                if not is_flat(entry.manifold):
                    part = local(entry.parameter)
                    part.copy_(Stiefel().projx(part))

    def _entries(self, index: int) -> list[Entry]:
        """As `Stiefel` all of them: frames of either library are then one batch, and restored by products."""
        entries = super()._entries(index)
        for i, entry in enumerate(entries):
            if is_flat(entry.manifold):
                continue
            if not isinstance(with_the_same_points(entry.manifold), (Stiefel, Orthogonal, SpecialOrthogonal)):
                raise ValueError(
                    f"{entry.where} is on {entry.manifold!r}; LandingSGD steps frames (Stiefel, Orthogonal, "
                    "SpecialOrthogonal) and flat parameters. Use RiemannianSGD"
                )
            _check_distance(entry, self.param_groups[index]["safe_distance"])
            entries[i] = dataclasses.replace(entry, manifold=Stiefel())
        return entries

    def _check_options(self, options: State) -> None:
        super()._check_options(options)
        for option, below in (("landing", float("inf")), ("safe_distance", 1.0)):
            value = options[option]
            if not isinstance(value, (int, float)) or not 0 < value < below:
                raise ValueError(f"LandingSGD: {option} must be a number in (0.0, {below}), got {value!r}")

    def _check_start(self, entry: Entry) -> None:
        """Frames may start anywhere in the tube, which is looked at apart."""

    def _state_names(self, group: State) -> StateNames:
        return {"momentum_buffer": "vector"} if group["momentum"] != 0 else {}

    def _point_update(self, group, manifold, points, grads, state, step):
        return _point_landing(
            points,
            grads,
            state.get("momentum_buffer"),
            lr=as_scalar(group["lr"]),
            momentum=group["momentum"],
            landing=group["landing"],
            safe_distance=group["safe_distance"],
        )


def _check_distance(entry: Entry, safe_distance: float) -> None:
    x = local(entry.parameter).detach()
    if x.numel() == 0 or x.is_meta:
        return
    distance = float(torch.linalg.vector_norm(x.mT @ x - identity_like(x), dim=(-2, -1)).max())
    if not distance <= safe_distance:
        raise ValueError(
            f"{entry.where} is off its manifold: ||x^T x - I||_F = {distance:.3g} > safe_distance = {safe_distance}; "
            "start from manifold.projx(parameter)"
        )


def _point_landing(
    points: Tensor,
    grads: Tensor,
    momentum_buffer: Tensor | None,
    *,
    lr: float | Tensor,
    momentum: float,
    landing: float,
    safe_distance: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """One step of a batch of frames; all tensors are ``*B,n,p``. Four products with an n x p matrix, or five."""
    b, new = grads, {}
    if momentum_buffer is not None:
        b = b.add(momentum_buffer, alpha=momentum)
    gram, s = points.mT @ points, b.mT @ points
    off = gram - identity_like(gram)
    field = (b @ (0.5 * gram)).add_(points @ (landing * off - 0.5 * s))
    if momentum_buffer is not None:
        new["momentum_buffer"] = (points @ (-0.5 * (s + s.mT))).add_(b)
    # Rounding, too, has to stay in the tube: that of x, and what it leaves of sym(x^T Lambda), which grows with the
    # part of b that cancels. The bounds are three and more times what was seen up to p = 256.
    n, p = points.shape[-2:]
    unit = torch.finfo(points.dtype).eps * (n * p) ** 0.5
    limit, noise = safe_distance - 4 * unit, 2 * p**0.25 * unit * b.abs().amax((-2, -1), keepdim=True)
    distance, length = torch.linalg.vector_norm(off, dim=(-2, -1), keepdim=True), _length(field)
    longest = 0.5 / landing
    longest = lr.to(field).clamp(max=longest) if isinstance(lr, Tensor) else min(lr, longest)
    step = _safe_step(distance, length, noise, landing, limit).clamp(max=longest)
    return points.addcmul(step, field, value=-1), new


def _length(field: Tensor) -> Tensor:
    """The Frobenius norm, by the largest entry: safe_norm without its derivative, in two passes less."""
    peak = field.abs().amax((-2, -1), keepdim=True)
    peak = torch.where(peak == 0, 1.0, peak)
    return torch.linalg.vector_norm(field / peak, dim=(-2, -1), keepdim=True) * peak


def _safe_step(d: Tensor, length: Tensor, noise: Tensor, landing: float, limit: float) -> Tensor:
    """The positive root eta* of ``length^2 eta^2 - 2 (landing d (1 - d) - noise) eta + d - limit``; where d is beyond
    the limit and there is none, the eta at which that is least; NaN for d from one on, where it would lead away."""
    divisor = torch.where(length > 0, length, 1.0)
    descent = (landing * d * (1 - d) - noise) / divisor  # divided first: the square of a long field overflows
    room = limit - d
    root = (descent.square() + room).clamp(min=0).sqrt()
    back = descent < 0
    # The same number twice, each time without cancellation.
    longest = torch.where(back, room.clamp(min=0) / torch.where(back, root - descent, 1.0), descent + root) / divisor
    return torch.where(d < 1, torch.where(length > 0, longest, torch.inf), torch.nan)
