"""Laws of Hessians, of derivatives of the distance, and of derivatives where formulas may be 0/0."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import operations
from .trial import Trial, law


def _function(t: Trial, seed: int) -> Callable[[Tensor], Tensor]:
    """A smooth function of points with an ambient extension: a quadratic polynomial of the invariant."""
    generator = torch.Generator().manual_seed(seed)
    size = t.case.invariant(torch.zeros(t.shape)).numel()
    a, b = (torch.randn(size, generator=generator, dtype=t.dtype) for _ in range(2))

    def value(x: Tensor) -> Tensor:
        z = t.case.invariant(x).flatten(-t.manifold.ndim)
        return z @ a + 0.5 * (z @ b).square()

    return value


def _hessian(t: Trial, f: Callable[[Tensor], Tensor], x: Tensor, u: Tensor) -> Tensor:
    gradient = torch.func.grad(lambda p: f(p).sum())
    g, h = torch.func.jvp(gradient, (x,), (u,))[:2]
    return t.manifold.ehess2rhess(x, g, h, u)


@law("Hessians", float64=1e-9, float32=1e-3)
def hessian_is_self_adjoint(t: Trial) -> None:
    """<Hess f[u], v>_x = <u, Hess f[v]>_x, it is tangent and linear in u."""
    m, x = t.manifold, t.point()
    u, v, f = t.direction(x), t.direction(x), _function(t, t.seed + 1)
    hu, hv = _hessian(t, f, x, u), _hessian(t, f, x, v)
    size = float(m.norm(x, hu).amax()) + 1
    t.is_tangent(x, hu / size, "ehess2rhess")
    t.close(m.inner(x, hu, v), m.inner(x, u, hv), "self-adjoint", scale=size)
    t.close(_hessian(t, f, x, u - 2 * v), hu - 2 * hv, "linear", scale=size)


@law("Hessians", examples=3)
def hessian_is_the_second_order_of_functions(t: Trial) -> None:
    """f(exp_x(hu)) - f(x) - h <grad f, u> - h^2/2 <Hess f[u], u> = O(h^3): slope at least 2.9."""
    m, x = t.manifold, t.point()
    u, f = t.direction(x), _function(t, t.seed + 1)
    g = m.egrad2rgrad(x, torch.func.grad(lambda p: f(p).sum())(x))
    value, first, second = f(x), m.inner(x, g, u), m.inner(x, _hessian(t, f, x, u), u)
    slope = t.slope(lambda h: f(m.expmap(x, h * u)) - value - h * first - 0.5 * h * h * second)
    t.require(slope >= 2.9, f"slope {slope:.3f} < 2.9")


@law("derivatives", float64=1e-8, float32=1e-3)
def gradient_of_squared_distance_is_minus_twice_log(t: Trial) -> None:
    """grad_x d^2(x, y) = -2 log_x(y), and |grad_x d(x, y)| = 1."""
    m, x = t.manifold, t.point()
    y = t.near(x)
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(m.dist2(leaf, y).sum(), leaf)
    t.close(m.egrad2rgrad(x, g), -2 * m.logmap(x, y), "grad d^2 = -2 log")
    d = m.dist(leaf, y)
    (g,) = torch.autograd.grad(d.sum(), leaf)
    if m.dimension(t.shape) > 0:
        length = torch.where(d > 0, m.norm(x, m.egrad2rgrad(x, g)), 1.0)  # zero at points that rounding made equal
        t.close(length, torch.ones_like(length), "|grad d| = 1")


@law("derivatives", float64=1e-6, float32=1e-3, examples=5)
def distance_is_differentiable_at_coincidence(t: Trial) -> None:
    """At y = x: the gradients of d in x and y are finite with dual norm at most one; d^2/2 has gradient zero and, in
    normal coordinates, the identity as Hessian."""
    m, x = t.manifold, t.point(())
    for side in range(2):
        pair = [x.clone(), x.clone()]
        pair[side].requires_grad_()
        (g,) = torch.autograd.grad(m.dist(*pair).sum(), pair[side])
        t.require(g.isfinite().all(), "the gradient of d is not finite")
        t.small(torch.relu(m.norm(x, m.egrad2rgrad(x, g)) - 1), "|grad d| <= 1")
    b = t.direction(x.expand(m.dimension(t.shape), *t.shape)) if "basis" in t.case.missing else m.basis(x)
    z = torch.zeros(b.shape[0], dtype=t.dtype)

    def half(z: Tensor, first: bool) -> Tensor:
        p = m.expmap(x, torch.tensordot(z, b, 1))
        return 0.5 * (m.dist2(p, x) if first else m.dist2(x, p))

    gram = m.inner(x, b.unsqueeze(0), b.unsqueeze(1))
    for first in (True, False):
        gradient = torch.autograd.functional.jacobian(lambda z, s=first: half(z, s), z)
        t.small(torch.as_tensor(gradient), "grad d^2 = 0")
        hessian = torch.autograd.functional.hessian(lambda z, s=first: half(z, s), z)
        t.close(torch.as_tensor(hessian), gram, "Hessian of d^2/2")


@law("derivatives", float64=0.0, float32=0.0, examples=3)
def derivatives_are_finite_at_degenerate_arguments(t: Trial) -> None:
    """First and second derivatives of the smooth operations are finite at u = 0, y = x, and at the degenerate vectors
    that the case lists, with y = exp_x(u). (First ones only of d, |u|: they are finite, not smooth.)"""
    m, x = t.manifold, t.point()
    places = t.degenerate(x)
    labels, u = list(places), torch.stack(list(places.values()))
    x = x.expand_as(u)
    zero = torch.tensor([label == "zero" for label in labels]).reshape(-1, *(1,) * (u.dim() - 1))
    y = torch.where(zero, x, m.expmap(x, u).detach())
    values = {"x": x, "y": y, "u": u, "v": t.direction(x)}

    def require_finite(derivatives: list[Tensor], what: str) -> None:
        for i, label in enumerate(labels):
            t.require(all(bool(g[i].isfinite().all()) for g in derivatives), f"{what} at {label} is not finite")

    for name, letters in operations.costly(t.case).items():
        if not set(letters) <= set("xyuv") or name in (*operations.ANSWERS, "basis", "sectional_curvature"):
            continue
        leaves = {letter: values[letter].clone().requires_grad_() for letter in letters}
        out = sum(((o * t.noise(*o.shape)).sum() for o in operations.call(t, name, leaves)), torch.zeros(()))
        if not out.requires_grad:
            continue  # a constant, such as the curvature
        smooth = name in operations.SMOOTH
        first = torch.autograd.grad(out, list(leaves.values()), create_graph=smooth, allow_unused=True)
        used = [g for g in first if g is not None]
        require_finite(used, f"first derivative of {name}")
        again = sum(((g * t.noise(*g.shape)).sum() for g in used), torch.zeros(()))
        if smooth and again.requires_grad:
            second = torch.autograd.grad(again, list(leaves.values()), allow_unused=True)
            require_finite([g for g in second if g is not None], f"second derivative of {name}")
