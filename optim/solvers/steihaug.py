"""Truncated conjugate gradients for the trust-region subproblem, on vectors that it knows only by their products."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class InnerSolution:
    """A step `u`, its length, the decrease ``-<grad, u> - <u, Hess u>/2`` that the model predicts, and whether it ends
    at the radius."""

    u: Tensor
    length: float
    decrease: float
    at_boundary: bool


def truncated_cg(
    hessian: Callable[[Tensor], Tensor],
    inner: Callable[[Tensor, Tensor], float],
    grad: Tensor,
    radius: float,
    *,
    kappa: float,
    theta: float,
    tolerance: float,
    max_iter: int,
    project: Callable[[Tensor], Tensor],
) -> InnerSolution:
    """Nearly the minimum of ``<grad, u> + <u, Hess u>/2`` over ``|u| <= radius`` (Steihaug 1983; Toint 1981; Absil,
    Baker and Gallivan 2007, algorithm 2).

    Stops at a residual of ``|grad| min(kappa, |grad|**theta)`` or of `tolerance`, at the radius, along a direction of
    negative curvature at the radius, or when rounding ends the decrease.

    Args:
        hessian: a self-adjoint operator.
        inner: the inner product it is self-adjoint in.
        project: on the space of the vectors; rounding leaves it otherwise.
    """
    u, residual = torch.zeros_like(grad), grad
    square = inner(residual, residual)
    length = math.sqrt(square)
    # Below 1e3 eps of it the residual is rounding, and what looks like negative curvature too.
    floor = 1e3 * torch.finfo(grad.dtype).eps * length
    goal = max(length * min(kappa, length**theta), tolerance, floor)
    direction = -residual
    uu, ud, dd = 0.0, 0.0, square  # |u|^2, <u, direction>, |direction|^2
    decrease = 0.0
    for _ in range(max_iter):
        product = hessian(direction)
        curvature = inner(direction, product)
        t = square / curvature if curvature > 0 else math.inf
        reached = uu + 2 * t * ud + t * t * dd if curvature > 0 else math.inf
        if not reached < radius * radius:  # also when the Hessian is NaN
            t = (math.sqrt(ud * ud + dd * (radius * radius - uu)) - ud) / dd
            curvature = curvature if math.isfinite(curvature) else math.inf
            return InnerSolution(u + t * direction, radius, decrease + t * square - 0.5 * t * t * curvature, True)
        gain = 0.5 * t * square  # along a conjugate direction: t square - t^2 curvature/2
        u = u + t * direction
        decrease, uu = decrease + gain, reached
        residual = residual + t * product
        before, square = square, inner(residual, residual)
        # An indefinite metric (geoopt's hyperboloid) makes rounding across the manifold negative.
        if square <= goal * goal or gain <= 0:
            break
        beta = square / before
        direction = project(beta * direction - residual)
        ud, dd = beta * (ud + t * dd), square + beta * beta * dd
    return InnerSolution(u, math.sqrt(max(uu, 0.0)), decrease, False)
