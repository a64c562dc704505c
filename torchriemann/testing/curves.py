"""Laws of curves: what they are worth in their parameter, at their ends and beyond them as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchriemann.manifolds.gyro import is_gyro

from .trial import Trial, law

Curve = Callable[[Tensor], Tensor]  # of times ``k,*B``

TIMES = (-0.25, 0.0, 0.5, 1.0, 1.25)
STEP = 1e-3  # of quotients from four values, whose truncation is 1e-13 of the fifth derivative


def _curves(t: Trial) -> dict[str, tuple[Curve, Tensor]]:
    """Every way along which an operation moves a point, with its speed."""
    m: Any = t.manifold
    x = t.point()
    y, u = t.near(x), t.tangent(x)
    curves: dict[str, tuple[Curve, Tensor]] = {
        "expmap(x, t u)": (lambda s: m.expmap(x, m._per_point(s, x) * u), m.norm(x, u))
    }
    if not {"logmap", "geodesic"} & set(t.case.missing):
        curves["geodesic(x, y, t)"] = (lambda s: m.geodesic(x, y, s), m.dist(x, y))
    if is_gyro(m):
        p = t.near_origin()
        curves["gyroscale(t, p)"] = (lambda s: m.gyroscale(s, p), m.dist0(p))
    return curves


def _times(t: Trial) -> Tensor:
    times = torch.tensor(TIMES, dtype=t.dtype)
    return times.reshape(-1, *(1,) * len(t.batch)).expand(-1, *t.batch).contiguous()


def _velocity(curve: Curve, times: Tensor) -> Tensor:
    return torch.func.jvp(curve, (times,), (torch.ones_like(times),))[1]


def _quotient(curve: Curve, times: Tensor) -> Tensor:
    """The five-point difference quotient."""
    ahead, behind, far, back = curve(torch.stack([times + k * STEP for k in (1, -1, 2, -2)])).unbind(0)
    return (8 * (ahead - behind) - (far - back)) / (12 * STEP)


@law("geodesics", float64=1e-8, float32=1e-3)
def geodesics_keep_their_speed(t: Trial) -> None:
    """The velocity of ``geodesic(x, y, t)``, by forward and by reverse differentiation in t, is as long as d(x, y): at
    both ends, half way, before the start and behind the end. That of ``expmap(x, t u)`` is as long as u, of
    ``gyroscale(t, p)`` as d(e, p)."""
    m, times = t.manifold, _times(t)
    for name, (curve, speed) in _curves(t).items():
        points, velocity = curve(times), _velocity(curve, times)
        # Where points are classes of matrices, a moving representative adds a part that does not move the point.
        horizontal = m.proju(points, velocity)
        t.close(m.norm(points, horizontal), speed.expand(times.shape), f"speed of {name}")
        leaf, weights = times.clone().requires_grad_(), t.noise(*points.shape)
        gradient = _gradient((curve(leaf) * weights).sum(), leaf)
        t.close(gradient, (velocity * weights).flatten(times.dim()).sum(-1), f"reverse derivative of {name} in t")


@law("geodesics", float64=1e-7, examples=1, exact=False)
def curves_are_twice_differentiable(t: Trial) -> None:
    """First and second derivatives of these curves in t are difference quotients, at t = 0, 1/2 and 1 as well."""
    times = _times(t)
    for name, (curve, _) in _curves(t).items():
        velocity = _velocity(curve, times)
        t.close(velocity, _quotient(curve, times), f"velocity of {name}")
        forward = _velocity(lambda s, curve=curve: _velocity(curve, s), times)
        t.close(forward, _quotient(lambda s, curve=curve: _velocity(curve, s), times), f"second derivative of {name}")
        leaf, weights = times.clone().requires_grad_(), t.noise(*velocity.shape)
        second = _gradient(_gradient((curve(leaf) * weights).sum(), leaf, True).sum(), leaf)
        t.close(second, (forward * weights).flatten(times.dim()).sum(-1), f"second reverse derivative of {name}")


def _gradient(value: Tensor, times: Tensor, create_graph: bool = False) -> Tensor:
    """Zero of what is linear in the times and was differentiated."""
    if not value.requires_grad:
        return torch.zeros_like(times)
    return torch.autograd.grad(value, times, create_graph=create_graph)[0]
