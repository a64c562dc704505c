"""Means in spaces of constant curvature: the closed Hessian, Newton's iteration, and the model in which it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import frechet
from ..functional.rows import dot
from ..functional.series import safe_norm
from ..functional.signed_trigonometry import cot_excess_k
from ..functional.tracing import values_readable
from ..mean_start import best_start

if TYPE_CHECKING:
    from .model import ConstantCurvature


def hessian_from_logs(
    model: ConstantCurvature, mu: Tensor, logs: Tensor, w: Tensor, inner: Callable[..., Tensor]
) -> frechet.LinearMap:
    r"""v -> sum_i w_i (f_i v + (1 - f_i) <e_i, v> e_i) with e_i the direction of the i-th logarithm and
    f = r cot r, r = sqrt(K) d: the Hessian of half the mean squared distance. `inner` is the metric at `mu` in the
    coordinates of the logarithms."""
    K = model.curvature
    square = inner(mu, logs, keepdim=True)
    excess = K * cot_excess_k(K * square, model.sign)  # (1 - f)/d^2
    radial = (w * (1 - excess * square)).sum(0)

    def hessian(v: Tensor) -> Tensor:
        along = inner(mu, logs, v.expand(logs.shape), keepdim=True)
        return radial * v + (w * excess * along * logs).sum(0)

    return hessian


def newton_step(model: ConstantCurvature, space: frechet.MeanSpace, mu: Tensor, logs: Tensor, w: Tensor) -> Tensor:
    """Newton's step from `mu`, in the coordinates of `space`: the model itself or its `FrameSpace`.

    Far points pull with a Hessian r coth r, under which a step of the mean logarithm overshoots. An inexact step costs
    an iteration and not the limit. Where the iteration is traced it is long enough anyway.
    """
    rounds = min(model.dimension(tuple(mu.shape[-1:])), 10 if values_readable(mu) else 3)
    hessian = hessian_from_logs(model, mu, logs, w, space.inner)
    return frechet.solve(space, mu, hessian, (w * logs).sum(0), rounds=rounds)


def centroid(model: ConstantCurvature, x: Tensor, w: Tensor) -> Tensor:
    r"""The points' mean in the space around, brought back: the mean (T, S) of (t, s) over ``sqrt(T^2 + K|S|^2)``.

    For K < 0 that root is of the product of the means of ``t - q a`` and ``t + q a``, a the part of s along S and
    q = sqrt(-K). Each is a sum of positive numbers, the smaller one of every point as what it has to be:
    ``(t - q a)(t + q a) = 1 + q^2 |s - a|^2``. The difference of squares has no digit left of far points.
    """
    K = model.curvature
    t, s = model.to_cosine_sine(x)
    T, S = (w * t).sum(0), (w * s).sum(0)
    q = torch.where(K < 0, -K, 0.0).sqrt() if isinstance(K, Tensor) else max(-K, 0.0) ** 0.5
    length = safe_norm(S, keepdim=True)
    direction = S / torch.where(length == 0, 1.0, length)
    a = dot(s, direction)
    p = s - a * direction
    p = p - dot(p, direction) * direction
    ahead = a > 0
    larger = t + q * torch.where(ahead, a, -a)  # not |a|, whose derivative at the origin is none of the two
    smaller = (1 + q * q * dot(p, p)) / larger
    product = (w * torch.where(ahead, smaller, larger)).sum(0) * (w * torch.where(ahead, larger, smaller)).sum(0)
    plain = T.square() + K * dot(S, S)
    root = (torch.where(K < 0, product, plain) if isinstance(K, Tensor) else product if K < 0 else plain).sqrt()
    return model.from_cosine_sine(T / root, S / root)


def pivoted_mean(
    model: ConstantCurvature, x: Tensor, w: Tensor, start: Tensor | None, search: frechet.Search
) -> Tensor:
    """The mean of the points as seen from a pivot: first `start` or the best one, then a point near the mean, so that
    the mean has small coordinates. It does not depend on the pivot, and neither does its derivative."""
    at, weight, K = x.detach(), w.detach(), model.curvature
    # Where no curvature is positive there is one mean, and every start leads there.
    convex = model.sign < 0 or (not isinstance(K, Tensor) and K <= 0)
    find = centroid if convex else best_start
    pivot = find(model, at, weight).detach() if start is None else start
    origin = model._origin_of(x).expand(x.shape[1:])
    moved = model.from_normal(model.logmap_frame(pivot, at))
    roughly = frechet.Search(search.operation, 20, 0.01)
    rough = frechet.karcher_flow(FrameSpace(model), moved, weight, origin, roughly, warn=False)
    pivot = model.expmap_frame(pivot, model.to_normal(rough)).detach()
    moved = model.from_normal(model.logmap_frame(pivot, x))
    mean = frechet.mean_from(model, moved, w, origin, search)
    return model.expmap_frame(pivot, model.to_normal(mean))


class FrameSpace(frechet.MeanSpace):
    """A model with its tangent vectors in frame coordinates, whose lengths lose no digit anywhere."""

    def __init__(self, model: ConstantCurvature) -> None:
        self._model = model

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return self._model.logmap_frame(x, y)

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self._model.expmap_frame(x, u)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return u

    def restore(self, x: Tensor) -> Tensor:
        return self._model.restore(x)

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        return (u * (u if v is None else v)).sum(-1, keepdim=keepdim)

    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        return safe_norm(u, keepdim=keepdim)

    def _unit_of_length(self, x: Tensor) -> Tensor | float:
        return self._model._unit_of_length(x)

    def _mean_step(self, mu: Tensor, logs: Tensor, w: Tensor) -> Tensor:
        return newton_step(self._model, self, mu, logs, w)
