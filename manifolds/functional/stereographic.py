r"""The stereographic model of any curvature: the Poincare ball for K < 0, the projected sphere for K > 0, and at K = 0
flat space with lengths doubled, smooth in K through zero.

The two halves stand in `poincare` and `projected_sphere`, in the forms that lose no digits there; both are the same
analytic functions of K. Where the sign is known, by `sign` or because K is a number, one of them is evaluated; for a
0-dim tensor K both, without a look at its value. (Skopek, Ganea and Becigneul 2020, arXiv:1911.08411; Bachmann,
Becigneul and Ganea 2020, arXiv:1911.05076.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import poincare, projected_sphere
from .poincare import Curvature


def _half(ball: Callable[..., Any], sphere: Callable[..., Any], k: Curvature, sign: int, *points: Tensor) -> Any:
    """What `ball` gives for K < 0 and `sphere` for K >= 0."""
    if not isinstance(k, Tensor):
        sign = -1 if k < 0 else 1
    elif sign == 0:
        return _either(ball, sphere, k, *points)
    return ball(*points, k) if sign < 0 else sphere(*points, k)


def _either(ball: Callable[..., Any], sphere: Callable[..., Any], k: Tensor, *points: Tensor) -> Any:
    negative = k < 0
    below, above = ball(*points, torch.where(negative, k, 0.0)), sphere(*points, torch.where(negative, 0.0, k))
    if isinstance(below, tuple):
        return tuple(torch.where(negative, b, a) for b, a in zip(below, above, strict=True))
    return torch.where(negative, below, above)


def stereographic_exp(x: Tensor, u: Tensor, curvature: Curvature, sign: int = 0) -> Tensor:
    """The exponential map."""
    return _half(poincare.poincare_exp, projected_sphere.projected_exp, curvature, sign, x, u)


def stereographic_log(x: Tensor, y: Tensor, curvature: Curvature, sign: int = 0) -> Tensor:
    """The logarithm."""
    return _half(poincare.poincare_log, projected_sphere.projected_log, curvature, sign, x, y)


def stereographic_dist(x: Tensor, y: Tensor, curvature: Curvature, sign: int = 0) -> Tensor:
    """The distance, ``*B``."""
    return _half(poincare.poincare_dist, projected_sphere.projected_dist, curvature, sign, x, y)


def stereographic_dist2(x: Tensor, y: Tensor, curvature: Curvature, sign: int = 0) -> Tensor:
    """The squared distance, ``*B``, smooth at coincident points."""
    return _half(poincare.poincare_dist2, projected_sphere.projected_dist2, curvature, sign, x, y)


def stereographic_transport(x: Tensor, y: Tensor, v: Tensor, curvature: Curvature, sign: int = 0) -> Tensor:
    """Levi-Civita transport of v from x to y."""
    return _half(poincare.poincare_transport, projected_sphere.projected_transport, curvature, sign, x, y, v)


def stereographic_exp_transport(
    x: Tensor, u: Tensor, v: Tensor, curvature: Curvature, sign: int = 0
) -> tuple[Tensor, Tensor]:
    """The exponential of u and v transported along that geodesic."""
    return _half(poincare.poincare_exp_transport, projected_sphere.projected_exp_transport, curvature, sign, x, u, v)


def stereographic_gyroadd(x: Tensor, y: Tensor, curvature: Curvature, sign: int = 0) -> Tensor:
    """Moebius addition x (+) y."""
    return _half(poincare.poincare_gyroadd, projected_sphere.projected_gyroadd, curvature, sign, x, y)


def stereographic_gyration(x: Tensor, y: Tensor, z: Tensor, curvature: Curvature, sign: int = 0) -> Tensor:
    """gyr[x, y] z, a rotation."""
    return _half(poincare.poincare_gyration, projected_sphere.projected_gyration, curvature, sign, x, y, z)


def stereographic_exp_frame(x: Tensor, z: Tensor, curvature: Curvature, sign: int = 0) -> Tensor:
    """The exponential of the tangent vector with frame coordinates z; at x = 0 the point with normal coordinates z."""
    return _half(poincare.poincare_exp_frame, projected_sphere.projected_exp_frame, curvature, sign, x, z)


def stereographic_log_frame(x: Tensor, y: Tensor, curvature: Curvature, sign: int = 0) -> Tensor:
    """Frame coordinates of the logarithm."""
    return _half(poincare.poincare_log_frame, projected_sphere.projected_log_frame, curvature, sign, x, y)


def stereographic_transport_frame(x: Tensor, y: Tensor, z: Tensor, curvature: Curvature, sign: int = 0) -> Tensor:
    """Transport from x to y in frame coordinates, a rotation."""
    forms = poincare.poincare_transport_frame, projected_sphere.projected_transport_frame
    return _half(*forms, curvature, sign, x, y, z)


def stereographic_from_normal(z: Tensor, curvature: Curvature, sign: int = 0) -> Tensor:
    """The point with normal coordinates z."""
    return _half(poincare.poincare_from_normal, projected_sphere.projected_from_normal, curvature, sign, z)


def stereographic_to_normal(x: Tensor, curvature: Curvature, sign: int = 0) -> Tensor:
    """Normal coordinates of x."""
    return _half(poincare.poincare_to_normal, projected_sphere.projected_to_normal, curvature, sign, x)


def stereographic_gap(x: Tensor, curvature: Curvature, sign: int = 0) -> Tensor:
    """om(x) = 1 + K|x|^2, ``*B,1``, NaN where it is not positive."""
    return _half(poincare.rim_gap, lambda x, k: 1 + k * poincare.square(x), curvature, sign, x)


def stereographic_inside(x: Tensor, curvature: Curvature, sign: int = 0, eps: float | None = None) -> Tensor:
    """x, drawn to (1 - eps)/sqrt(-K), by default of twice the eps of the dtype, where it is not in the ball."""
    return _half(lambda x, k: poincare.poincare_inside(x, k, eps), lambda x, k: x.clone(), curvature, sign, x)


def stereographic_restored(x: Tensor, curvature: Curvature, sign: int = 0) -> Tensor:
    """The same for points that rounding moved out of the ball."""
    return _half(poincare.into_ball, lambda x, k: x.clone(), curvature, sign, x)
