"""The Frechet mean: a Karcher flow forwards, the implicit function theorem backwards."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Function

from .functional.tracing import LastDerivative, values_readable

if TYPE_CHECKING:
    from .base import Manifold

_NO_SECOND = "the Frechet mean has a first derivative by the implicit function theorem, not a second one"
CG_TOL = 1e-12  # relative residual of the implicit solve, far below the accuracy of a mean


def normalised_weights(manifold: Manifold, x: Tensor, weights: Tensor | None) -> Tensor:
    """Weights of shape ``N,*B,1(,1)`` that sum to one over the first dimension."""
    if not isinstance(x, Tensor):
        raise ValueError(
            f"{type(manifold).__name__}.frechet_mean: x must be a tensor of points, got {type(x).__name__}; stack them "
            "with torch.stack"
        )
    ones = (1,) * manifold.ndim
    batch = x.shape[: x.dim() - manifold.ndim]
    if not batch or batch[0] == 0:
        raise ValueError(
            f"{type(manifold).__name__}.frechet_mean: needs a non-empty first dimension of points to average over, "
            f"got shape {tuple(x.shape)}"
        )
    if weights is None:
        return torch.full(batch + ones, 1.0 / batch[0], dtype=x.dtype, device=x.device)
    if not isinstance(weights, Tensor):
        raise ValueError(
            f"{type(manifold).__name__}.frechet_mean: weights must be a tensor, got {type(weights).__name__}; convert "
            "them with torch.as_tensor"
        )
    if weights.shape[:1] != batch[:1] or weights.dim() > len(batch):
        raise ValueError(
            f"{type(manifold).__name__}.frechet_mean: weights must be broadcastable to {tuple(batch)}, "
            f"got {tuple(weights.shape)}"
        )
    if values_readable(weights) and not bool((weights >= 0).all() & (weights.sum(0) > 0).all()):
        raise ValueError(
            f"{type(manifold).__name__}.frechet_mean: weights must be non-negative, not NaN, and not all zero"
        )
    w = weights.reshape(weights.shape + (1,) * (len(batch) - weights.dim()) + ones).to(x.dtype)
    w = w.expand(batch + ones)
    return w / w.sum(0, keepdim=True)


def _karcher_flow(manifold: Manifold, x: Tensor, w: Tensor, max_iter: int, tol: float) -> Tensor:
    """mu <- exp_mu(mean of log_mu x_i) until the step is below `tol` times the spread.

    Finished items stand still where nobody differentiates the flow itself; there every item keeps moving, because an
    item that starts at its mean has the right derivative only after it moved.
    """
    readable = values_readable(x) and values_readable(w)
    mu = x.select(0, 0)
    step = norm = goal = torch.zeros(())
    for _ in range(max_iter):
        logs = manifold.logmap(mu, x)
        step = (w * logs).sum(0)
        norm = manifold.norm(mu, step, keepdim=True)
        spread = (w * manifold.inner(mu, logs, keepdim=True)).sum(0).sqrt()
        # The floor keeps coincident points, whose spread is itself rounding, from never converging.
        goal = tol * spread + 10 * torch.finfo(x.dtype).eps
        if readable and bool((norm <= goal).all()):
            return mu
        # exp multiplies a deviation from the manifold at every step: restored, or it grows without bound.
        moved = manifold.restore(manifold.expmap(mu, step))
        mu = torch.where(norm <= goal, mu, moved) if readable else moved
    if readable:
        worst = float((norm - goal).amax())
        warnings.warn(
            f"{type(manifold).__name__}.frechet_mean: not converged after {max_iter} iterations, the mean of the "
            f"logarithms still has norm {float(norm.amax()):.2g} ({worst:.2g} above the goal); raise max_iter, or "
            "check that the points lie within half of the injectivity radius",
            RuntimeWarning,
            stacklevel=4,
        )
    return mu


def _field(manifold: Manifold, mu: Tensor, x: Tensor, w: Tensor) -> Tensor:
    return (w * manifold.logmap(mu, x)).sum(0)


def _solve_hessian(manifold: Manifold, mu: Tensor, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """H^-1 b by conjugate gradients, H the Hessian of half the weighted mean squared distance at its minimum.

    H v is minus the derivative of the field of mean logarithms along v. It is self-adjoint in the metric, so a
    vector-Jacobian product gives it.
    """
    pullback = torch.func.vjp(lambda m: _field(manifold, m, x, w), mu)[1]

    def hessian(v: Tensor) -> Tensor:
        flat = _lower(manifold, mu, v)
        return -manifold.egrad2rgrad(mu, pullback(flat)[0])

    z = torch.zeros_like(b)
    r = p = b
    rr = start = manifold.inner(mu, r, keepdim=True)
    for _ in range(manifold.dimension(tuple(mu.shape))):
        hp = hessian(p)
        curvature = manifold.inner(mu, p, hp, keepdim=True)
        active = (rr > CG_TOL**2 * start) & (curvature > 0)
        alpha = torch.where(active, rr / torch.where(active, curvature, 1.0), 0.0)
        z, r = z + alpha * p, r - alpha * hp
        previous, rr = rr, manifold.inner(mu, r, keepdim=True)
        beta = torch.where(active, rr / torch.where(active, previous, 1.0), 0.0)
        p = r + beta * p
    return z


def _lower(manifold: Manifold, x: Tensor, v: Tensor) -> Tensor:
    """The ambient gradient of u -> <u, v>_x: the metric's lowered index."""
    return torch.func.grad(lambda u: manifold.inner(x, u, v).sum())(torch.zeros_like(v))


class _FrechetMean(Function):
    @staticmethod
    def forward(x: Tensor, w: Tensor, manifold: Manifold, max_iter: int, tol: float) -> Tensor:
        return _karcher_flow(manifold, x, w, max_iter, tol)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0], inputs[1], output)
        ctx.manifold = inputs[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, w, mu = ctx.saved_tensors
        manifold = ctx.manifold
        with torch.no_grad():
            dx, dw = _FrechetMean._pull_back(manifold, x, w, mu, grad)
        # Every input of the derivative is an anchor: the mean's own curvature is not computed.
        for anchor in (x, w, grad):
            dx, dw = (LastDerivative.apply(anchor, d, _NO_SECOND) for d in (dx, dw))
        return dx, dw, None, None, None

    @staticmethod
    def _pull_back(manifold: Manifold, x: Tensor, w: Tensor, mu: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        # mu solves F(mu, x, w) = sum w log_mu(x) = 0, and D_mu F = -H: dmu = H^-1 (D_x F dx + D_w F dw).
        b = manifold.egrad2rgrad(mu, grad)
        z = _lower(manifold, mu, _solve_hessian(manifold, mu, x, w, b))
        pullback = torch.func.vjp(lambda points, weights: _field(manifold, mu, points, weights), x, w)[1]
        return pullback(z)


def frechet_mean(manifold: Manifold, x: Tensor, weights: Tensor | None, *, max_iter: int, tol: float | None) -> Tensor:
    """See `Manifold.frechet_mean`."""
    w = normalised_weights(manifold, x, weights)
    tol = 100 * torch.finfo(x.dtype).eps if tol is None else tol
    if not (values_readable(x) and values_readable(w)):
        return _karcher_flow(manifold, x, w, max_iter, tol)
    return _FrechetMean.apply(x, w, manifold, max_iter, tol)  # type: ignore[return-value]
