r"""Closed-form backward passes of `sphere`: each gradient is a combination of few rows.

Each takes the gradient `g` of its result, the arguments of the forward function, and what its saving form returns
beside the result, if that is at hand. It returns the gradient of each argument and that of K, as one partial for each
row (``*B``), which the caller sums; None for a K that is a number. All arguments have the same batch shape.

Notation as in `sphere`: the unit tangents ``tau`` at x towards y and ``sigma`` at y away from x, theta the angle, e the
direction of x. A point x that moves by dx changes theta by ``-<dx, tau>/|x|``, turns tau by that towards -e, and across
the plane of the two by ``-cos(theta)/sin(theta) dx/|x|``; of y it is ``<dy, sigma>/|y|``, nothing and
``dy/(sin(theta) |y|)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .rows import dot, times
from .sphere import Between, Turn, Way, angle, between, radius, sphere_exp_saving, trigonometry, way

Gradients = tuple[Tensor | None, ...]


def sphere_exp_backward(g: Tensor, x: Tensor, u: Tensor, K: float | Tensor, *saved: Tensor) -> Gradients:
    """``cos(t) x + H u``, with ``-H/2`` and half the bend as derivatives of cos(t) and H in t^2 = K |u|^2."""
    turn = Turn(*(saved or sphere_exp_saving(x, u, K)[1:]))
    # The bend first: a product with a vector as long as numbers are is none.
    through = torch.addcmul(dot(g, turn.bend * u), turn.ratio, dot(g, x), value=-1)
    gK = (0.5 * through * dot(u, u)).squeeze(-1) if isinstance(K, Tensor) else None
    return turn.cosine * g, torch.addcmul(turn.ratio * g, times(through, K), u), gK


def sphere_dist_backward(g: Tensor, x: Tensor, y: Tensor, K: float | Tensor, *saved: Tensor) -> Gradients:
    """R theta: ``-R tau/|x|`` and ``R sigma/|y|``, zero at coincidence. `g` is ``*B``."""
    g = g.unsqueeze(-1)
    a = Between(*saved) if saved else between(x, y, K)
    # Twice the points, turned by a right angle: |off| m + (|M| - l) o and (|M| + l) o - |off| m.
    along = a.across / a.length * a.total
    unit = a.off / a.across.clamp_min(torch.finfo(x.dtype).tiny)
    square, scale = a.across * a.across, g * (-2 * radius(K))
    gx = scale / torch.addcmul(square, a.at_x, a.at_x) * torch.addcmul(along, a.at_x, unit)
    gy = scale / torch.addcmul(square, a.at_y, a.at_y) * torch.addcmul(along, a.at_y, unit, value=-1)
    if not isinstance(K, Tensor):
        return gx, gy, None
    return gx, gy, (-0.5 * g * angle(a.across, a.at_x, a.at_y) * radius(K) / K).squeeze(-1)


def sphere_dist2_backward(g: Tensor, x: Tensor, y: Tensor, K: float | Tensor, *saved: Tensor) -> Gradients:
    """2 d times the gradient of d."""
    a = Between(*saved) if saved else between(x, y, K)
    d = times(angle(a.across, a.at_x, a.at_y), 2 * radius(K)).squeeze(-1)
    return sphere_dist_backward(g * d, x, y, K, *a)


def sphere_log_backward(g: Tensor, x: Tensor, y: Tensor, K: float | Tensor, *saved: Tensor) -> Gradients:
    """R theta tau. With h the part of g across the plane of x and y:
    ``-R/|x| ((<g,tau> + theta <g,e>) tau + theta cos(theta)/sin(theta) h)`` and
    ``R/|y| (<g,tau> sigma + theta/sin(theta) h)``."""
    a = Way(*saved) if saved else way(x, y, K)
    y_length, sine, cosine = trigonometry(a)
    # At the antipode, where there is no derivative, a number.
    F = (a.theta / sine).clamp_max(4 / torch.finfo(x.dtype).eps)
    E = F * cosine
    gt, gx = dot(g, a.tangent), dot(g, x) / a.at
    gx = gx + gx
    # In g, tau and e: h = g - <g,tau> tau - <g,e> e, sigma = cos(theta) tau - sin(theta) e.
    to_y = torch.addcmul(F * g, gt * (cosine - F), a.tangent)
    to_x = torch.addcmul(E * g, torch.addcmul(gt - gt * E, a.theta, gx), a.tangent)
    half = a.at * 0.5
    to_y = torch.addcmul(to_y, torch.addcmul(gt * sine, F, gx) / half, x, value=-1)
    to_x = torch.addcmul(to_x, E * gx / half, x, value=-1)
    R = radius(K)
    gK = (-0.5 * gt * a.theta * R / K).squeeze(-1) if isinstance(K, Tensor) else None
    return to_x * (-R / half), to_y * (2 * R / y_length), gK


def sphere_transport_backward(
    g: Tensor, x: Tensor, y: Tensor, v: Tensor, K: float | Tensor, *saved: Tensor
) -> Gradients:
    """``v + <tau,v> ((cos(theta) - 1) tau - sin(theta) e)``; across the plane of x and y the gradients are those of
    ``h = (<g,e> + t <g,tau>) v + <tau,v> t g``, t = tan(theta/2)."""
    a = Way(*saved) if saved else way(x, y, K)
    y_length, sine, cosine = trigonometry(a)
    e = x * (2 / a.at)
    gt, ge, vt, ve = dot(g, a.tangent), dot(g, e), dot(v, a.tangent), dot(v, e)
    back = cosine < 0
    half = torch.where(back, 1 - cosine, sine) / torch.where(back, sine, 1 + cosine)
    half = half.clamp_max(4 / torch.finfo(x.dtype).eps)  # at the antipode, where there is no derivative, a number
    in_v, in_g = ge + half * gt, vt * half
    ht, he = in_v * vt + in_g * gt, in_v * ve + in_g * ge
    turned, lost = vt * (sine * gt + cosine * ge), vt * sine
    h = in_v * v + in_g * g
    to_y = (ht - turned * cosine) * a.tangent + (he + turned * sine) * e - h
    to_x = cosine * h - lost * g + (turned + sine * he - cosine * ht) * a.tangent + (lost * ge - cosine * he) * e
    gv = torch.addcmul(g, (cosine - 1) * gt - sine * ge, a.tangent)
    return to_x * (2 / a.at), to_y * (2 / y_length), gv, torch.zeros_like(g[..., 0])
