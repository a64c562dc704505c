"""The Frechet mean: a Karcher flow forwards, the implicit function theorem backwards."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function

from .functional.tracing import LastDerivative, values_readable
from .weights import per_point

if TYPE_CHECKING:
    from .base import Manifold

LinearMap = Callable[[Tensor], Tensor]


class MeanSpace(Protocol):
    """What an iteration for a mean asks of a space: a manifold, or one in other coordinates of its tangent vectors."""

    _mean_descends: bool = False  # whether no step leads to a larger mean squared distance

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """The tangent vector at `x` whose geodesic ends in `y`."""
        ...

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """The end of the geodesic that starts at `x` with velocity `u`."""
        ...

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """The tangent part of `u`."""
        ...

    def restore(self, x: Tensor) -> Tensor:
        """`x` without the drift that rounding made."""
        ...

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """The metric at `x`."""
        ...

    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        """The length of `u`."""
        ...

    def _unit_of_length(self, x: Tensor) -> Tensor | float:
        """What rounding of the points near `x` is small beside. ``*B,1(,1)``."""
        ...

    def _mean_step(self, mu: Tensor, logs: Tensor, w: Tensor) -> Tensor:
        """The step of the iteration from the estimate `mu`, at which the points have these logarithms."""
        ...


_NO_SECOND = "the Frechet mean has a first derivative by the implicit function theorem, not a second one"
PATIENCE = 4  # steps without a new minimum of the residual, after which rounding is what is left of it
CG_TOL = 1e-12  # relative residual of the implicit solve, far below the accuracy of a mean


@dataclasses.dataclass(frozen=True)
class Search:
    """How a mean is sought, and for which operation, "Class.method" of what was called, which messages name."""

    operation: str
    max_iter: int = 100
    tol: float | None = None

    def goal(self, dtype: torch.dtype) -> float:
        """`tol`, by default 100 eps of the dtype."""
        return 100 * torch.finfo(dtype).eps if self.tol is None else self.tol


def karcher_flow(
    manifold: MeanSpace, x: Tensor, w: Tensor, start: Tensor, search: Search, *, warn: bool = True
) -> Tensor:
    """mu <- exp_mu(step) until the mean of the logarithms is below `search.tol` times the spread, or near to
    that and not falling any more.

    The manifold says what the step is, by default that mean itself. A step after which the mean squared distance is not
    enough smaller (Armijo's condition) is taken back and halved: under negative curvature a plain step overshoots
    as soon as the points are some radii of curvature away. Not so of a space that says that its steps descend, and not
    next to the mean as long as steps lead nearer: there a rise is the rounding of the logarithms.

    Finished items stand still where nobody differentiates the flow itself; there every item keeps moving, because an
    item that starts at its mean has the right derivative only after it moved.
    """
    readable = _readable(manifold, x, w)
    eps, tol = torch.finfo(x.dtype).eps, search.goal(x.dtype)
    mu = best = start
    step = norm = goal = gain = waited = torch.zeros((), dtype=x.dtype, device=x.device)
    square = least = torch.full_like(step, torch.inf)
    for _ in range(search.max_iter):
        logs = _logarithms(manifold, mu, x, w)
        mean = (w * logs).sum(0)
        norm = manifold.norm(mu, mean, keepdim=True)
        now = (w * manifold.inner(mu, logs, keepdim=True)).sum(0)
        # The floor keeps coincident points, whose spread is itself rounding, from never converging.
        goal = tol * now.sqrt() + 10 * eps * manifold._unit_of_length(mu)
        # How exact logarithms are depends on the points, by their condition for instance.
        nearer = (norm < least) & (norm < eps**0.25 * now.sqrt())
        waited, least = torch.where(norm < least, 0.0, waited + 1), torch.minimum(norm, least)
        rounding = (waited >= PATIENCE) & (norm < eps**0.5 * now.sqrt())
        goal = torch.where(rounding, torch.maximum(goal, norm), goal)
        moves = norm > goal  # no item whose mean is NaN
        if readable and not bool(moves.any()):
            break
        onwards = manifold._mean_step(mu, logs, w)
        if manifold._mean_descends:  # by a theorem: a rise is the rounding of close points
            best, step = mu, onwards
        else:
            rises = (now > square - 0.2 * gain + 64 * eps * square) & ~nearer
            step = torch.where(rises, 0.5 * step, onwards)
            gain = torch.where(rises, 0.5 * gain, manifold.inner(mu, onwards, mean, keepdim=True))
            best, square = torch.where(rises, best, mu), torch.where(rises, square, now)
        # exp multiplies a deviation from the manifold at every step: restored, or it grows without bound.
        moved = manifold.restore(manifold.expmap(best, step))
        mu = torch.where(moves, moved, mu) if readable else moved
    if readable and warn and not bool((norm <= goal).all()):
        _warn(search, norm, goal)
    return torch.where(norm.isnan(), norm, mu)  # no mean is known, and the start is none


def _warn(search: Search, norm: Tensor, goal: Tensor) -> None:
    """Of means that are not reached, and of those of which nothing is known, each by itself."""
    where, far = search.operation, norm > goal
    if bool(far.any()):
        worst, above = float(norm[far].amax()), float((norm - goal)[far].amax())
        warnings.warn(
            f"{where}: not converged after {search.max_iter} iterations, the mean of the logarithms still has norm "
            f"{worst:.2g} ({above:.2g} above the goal); raise max_iter, give a start, or check that the points lie "
            "within half of the injectivity radius",
            RuntimeWarning,
            stacklevel=5,
        )
    if not bool((far | (norm <= goal)).all()):
        warnings.warn(
            f"{where}: the mean of the logarithms is NaN: an item of x is not finite (give it the weight 0), or start "
            "is not, or a point has no logarithm at the estimate",
            RuntimeWarning,
            stacklevel=5,
        )


def _logarithms(manifold: MeanSpace, mu: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """Those of the points at `mu`; zero of an item of weight zero that has none."""
    logs = manifold.logmap(mu, x)
    return torch.where((w == 0) & ~logs.isfinite(), 0.0, logs)


def in_reach(manifold: Manifold, mu: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """The points, with `mu` in place of items of weight zero that have no logarithm there: in a derivative even zero
    times NaN is NaN."""
    if values_readable(w) and not bool((w == 0).any()):
        return x
    with torch.no_grad():
        logs = manifold.logmap(mu.detach(), x.detach())
        found = logs.isfinite().flatten(-manifold.ndim).all(-1)
    return torch.where((w == 0) & ~per_point(manifold, found), mu.detach(), x)


def _field(manifold: Manifold, mu: Tensor, x: Tensor, w: Tensor) -> Tensor:
    return (w * manifold.logmap(mu, x)).sum(0)


def hessian_by_pullback(manifold: Manifold, mu: Tensor, x: Tensor, w: Tensor) -> LinearMap:
    """The Hessian of half the weighted mean squared distance at its minimum `mu`, as a map of tangent vectors.

    Applied to v it is minus the derivative of the field of mean logarithms along v. It is self-adjoint in the metric,
    so a vector-Jacobian product gives it.
    """
    pullback = torch.func.vjp(lambda m: _field(manifold, m, x, w), mu)[1]
    return lambda v: -manifold.egrad2rgrad(mu, pullback(_lower(manifold, mu, v))[0])


class LinearSpace(Protocol):
    """What conjugate gradients ask of a space of vectors."""

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """The product at `x`."""
        ...

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """The part of `u` in the space."""
        ...


def solve(manifold: LinearSpace, mu: Tensor, hessian: LinearMap, b: Tensor, *, rounds: int) -> Tensor:
    """H^-1 b for a self-adjoint H by `rounds` conjugate gradients at most; b itself where H is not positive along b."""
    z = torch.zeros_like(b)
    r = p = b
    rr = start = manifold.inner(mu, r, keepdim=True)
    goal = max(CG_TOL, 4 * torch.finfo(b.dtype).eps) ** 2 * start
    for i in range(rounds):
        hp = hessian(p)
        curvature = manifold.inner(mu, p, hp, keepdim=True)
        active = (rr > goal) & (curvature > 0)
        alpha = torch.where(active, rr / torch.where(active, curvature, 1.0), 1.0 if i == 0 else 0.0)
        # Rounding is normal to the manifold as much as tangent, and along a normal residual H is next to nothing.
        z, r = z + alpha * p, manifold.proju(mu, r - alpha * hp)
        previous, rr = rr, manifold.inner(mu, r, keepdim=True)
        if values_readable(rr) and not bool((active & (rr > goal)).any()):
            break
        beta = torch.where(active, rr / torch.where(active, previous, 1.0), 0.0)
        p = torch.where(active, r + beta * p, 0.0)
    return z


def _lower(manifold: Manifold, x: Tensor, v: Tensor) -> Tensor:
    """The ambient gradient of u -> <u, v>_x: the metric's lowered index."""
    return torch.func.grad(lambda u: manifold.inner(x, u, v).sum())(torch.zeros_like(v))


def _readable(manifold: MeanSpace, x: Tensor, w: Tensor) -> bool:
    return all(values_readable(t) for t in (x, w, *vars(manifold).values()) if isinstance(t, Tensor))


def _options(manifold: Manifold) -> list[Tensor]:
    """What the manifold itself depends on and learns, such as a curvature."""
    values = (getattr(manifold, f.name) for f in dataclasses.fields(manifold))  # type: ignore[arg-type]
    return [v for v in values if isinstance(v, Tensor) and v.requires_grad]


class _FrechetMean(Function):
    @staticmethod
    def forward(x: Tensor, w: Tensor, start: Tensor, manifold: Manifold, search: Search, *options: Tensor) -> Tensor:
        return karcher_flow(manifold, x, w, start, search).clone()  # it may be `start` itself

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0], inputs[1], output)
        ctx.manifold = inputs[3]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, w, mu = ctx.saved_tensors
        manifold = ctx.manifold
        options = _options(manifold)
        with torch.no_grad():
            at = in_reach(manifold, mu, x, w)
            z = _FrechetMean._solved(manifold, at, w, mu, grad)
            dx, dw = torch.func.vjp(lambda points, weights: _field(manifold, mu, points, weights), at, w)[1](z)
        by_options = []
        if options:
            with torch.enable_grad():
                field = _field(manifold, mu.detach(), at.detach(), w.detach())
            by_options = torch.autograd.grad(field, options, z, materialize_grads=True)
        # The gradients depend on the mean, whose own derivative is left out of them: a further derivative raises,
        # whatever it is in.
        found = [dx, dw, *by_options]
        for anchor in (x, w, grad, *options):
            found = [LastDerivative.apply(anchor, d, _NO_SECOND) for d in found]
        return (*found[:2], None, None, None, *found[2:])

    @staticmethod
    def _solved(manifold: Manifold, x: Tensor, w: Tensor, mu: Tensor, grad: Tensor) -> Tensor:
        # mu solves F(mu, x, w) = sum w log_mu(x) = 0, and D_mu F = -H: dmu = H^-1 (D_x F dx + D_w F dw).
        b = manifold.egrad2rgrad(mu, grad)
        rounds = manifold.dimension(tuple(mu.shape))
        return _lower(manifold, mu, solve(manifold, mu, manifold._mean_hessian(mu, x, w), b, rounds=rounds))


def mean_from(manifold: Manifold, x: Tensor, w: Tensor, start: Tensor, search: Search) -> Tensor:
    """The mean under the weights `w`, ``N,*B,1(,1)``, sought from `start`."""
    start = start.detach()
    if not _readable(manifold, x, w):
        return karcher_flow(manifold, in_reach(manifold, start, x, w), w, start, search)
    options = _options(manifold) if torch.is_grad_enabled() else []
    mu: Any = _FrechetMean.apply(x, w, start, manifold, search, *options)
    # The manifold moves with its options; the derivative above is along the manifold.
    return manifold.restore(mu) if options else mu


class _Stationary(Function):
    """A mean that was found without a graph, for a function that is stationary there: its derivative in what the mean
    depends on is zero. A second one would not be."""

    @staticmethod
    def forward(mu: Tensor, *anchors: Tensor) -> Tensor:
        return mu.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return (None, *(LastDerivative.apply(grad, torch.zeros_like(a), _NO_SECOND) for a in ctx.saved_tensors))


def stationary_mean(manifold: Manifold, x: Tensor, w: Tensor, search: Search) -> Tensor:
    """The mean under the weights ``N,*B`` for the variance around it."""
    if not _readable(manifold, x, w):
        return manifold._mean(x, None, w=w, search=search)
    with torch.no_grad():
        found = manifold._mean(x, None, w=w, search=search)
    options = _options(manifold)
    mu: Any = _Stationary.apply(found, x, w, *options)
    return manifold.restore(mu) if options else mu
