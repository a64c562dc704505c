"""How points deviate from a mean: in coordinates, in frame coordinates, or as tangent vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from torchriemann.manifolds import Manifold
from torchriemann.manifolds.checks import described
from torchriemann.manifolds.gyro import GyroManifold, is_gyro
from torchriemann.manifolds.parameter import check_options_fixed
from torchriemann.manifolds.pullback_metric import PullbackMetric
from torchriemann.manifolds.weights import per_point

FORMS = ("gyro", "tangent", "basis")
Map = Callable[[Tensor], Tensor]
Placed = Callable[[Tensor, Tensor], Tensor]


class Deviations(Protocol):
    """What normalisation asks of a space. Points are ``*B,P``, or what `enter` makes of them; deviations are vectors,
    which may be added and multiplied."""

    linear: bool  # whether the mean of deviations from any point leads from there to the mean
    bias_by_coordinates: bool  # whether `recentred` takes the normal coordinates of a point b, or the point
    manifold: Manifold  # in which means are sought, unless that is linear
    ndim: int  # dimensions of one of these

    def enter(self, x: Tensor) -> Tensor:
        """Points of the manifold in the form in which this computes."""
        ...

    def leave(self, x: Tensor) -> Tensor:
        """The way back."""
        ...

    def log_and_exp(self, mean: Tensor) -> tuple[Map, Map]:
        """The maps that give the deviations of points from `mean`, and the points of deviations."""
        ...

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor | float) -> Tensor:
        """The point at `t` on the geodesic from `x` to `y`."""
        ...

    def recentred(self, mean: Tensor, x: Tensor) -> tuple[Tensor, Placed]:
        """The squared distances of the points `x` from `mean`, ``*B``, and what gives of b and factors ``*B`` the
        points that deviate from b as `x` from `mean`, times the factors."""
        ...


class CoordinateDeviations(Deviations):
    """Of a manifold that is a vector space: differences of normal coordinates, which stand for the points, so that a
    point goes through its chart once there and once back."""

    linear = bias_by_coordinates = True
    manifold: GyroManifold  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, manifold: GyroManifold) -> None:
        self.manifold, self.ndim = manifold, manifold.normal_ndim

    def enter(self, x: Tensor) -> Tensor:
        return self.manifold.to_normal(x)

    def leave(self, x: Tensor) -> Tensor:
        return self.manifold.from_normal(x)

    def log_and_exp(self, mean: Tensor) -> tuple[Map, Map]:
        return lambda x: x - mean, lambda z: mean + z

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor | float) -> Tensor:
        return x + (t.reshape(t.shape + (1,) * self.ndim) if isinstance(t, Tensor) else t) * (y - x)

    def recentred(self, mean: Tensor, x: Tensor) -> tuple[Tensor, Placed]:
        z = x - mean
        return z.square().flatten(-self.ndim).sum(-1), lambda b, t: b + t.reshape(t.shape + (1,) * self.ndim) * z


class FrameDeviations(Deviations):
    """Of a gyro manifold: normal coordinates of ``(-)M (+) x``. They are those of ``(-)B (+) y`` without a change."""

    linear, bias_by_coordinates = False, True
    manifold: GyroManifold  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, manifold: GyroManifold) -> None:
        self.manifold, self.ndim = manifold, manifold.ndim

    def enter(self, x: Tensor) -> Tensor:
        return x

    def leave(self, x: Tensor) -> Tensor:
        return x

    def log_and_exp(self, mean: Tensor) -> tuple[Map, Map]:
        return self.manifold.log_and_exp(mean)

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor | float) -> Tensor:
        return self.manifold.geodesic(x, y, t)

    def recentred(self, mean: Tensor, x: Tensor) -> tuple[Tensor, Placed]:
        return self.manifold.recentred(mean, x)


class TangentDeviations(Deviations):
    """Of any manifold: logarithms at M, carried to B by parallel transport along the shortest geodesic. Where a chart
    carries the metric, of the images: so that a point goes through it once there and once back."""

    linear = bias_by_coordinates = False

    def __init__(self, manifold: Manifold) -> None:
        self.manifold, self.chart = manifold, None
        # A space of which the image is not all of the codomain has no gyro structure where the codomain has one.
        if isinstance(manifold, PullbackMetric) and manifold.has_gyro_structure == is_gyro(manifold.codomain):
            self.manifold, self.chart = manifold.codomain, manifold.chart
        self.ndim = self.manifold.ndim

    def enter(self, x: Tensor) -> Tensor:
        return x if self.chart is None else self.chart.forward(x)

    def leave(self, x: Tensor) -> Tensor:
        return x if self.chart is None else self.chart.inverse(x)

    def log_and_exp(self, mean: Tensor) -> tuple[Map, Map]:
        return lambda x: self.manifold.logmap(mean, x), lambda z: self._moved(mean, z)

    def _moved(self, mean: Tensor, z: Tensor) -> Tensor:
        m = self.manifold
        inside = per_point(m, m.exp_is_defined(mean, z))
        # In a space that geodesics leave: along the retraction, which does not. Each gets vectors that it has a
        # derivative at: that of the one that is not taken would be NaN, which times zero is NaN.
        geodesic = m.expmap(mean, torch.where(inside, z, 0.0))
        return torch.where(inside, geodesic, m.retr(mean, torch.where(inside, 0.0, z)))

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor | float) -> Tensor:
        return self.manifold.geodesic(x, y, t)

    def recentred(self, mean: Tensor, x: Tensor) -> tuple[Tensor, Placed]:
        u = self.manifold.logmap(mean, x)
        return self.manifold.inner(mean, u), lambda b, t: self._moved(b, self._carried(mean, b, t, u))

    def _carried(self, mean: Tensor, b: Tensor, t: Tensor, u: Tensor) -> Tensor:
        """The vectors `u` at `mean`, times `t`, at `b`."""
        return self.manifold.parallel_transport(mean, b, per_point(self.manifold, t) * u)


class BasisDeviations(TangentDeviations):
    """Of any manifold: logarithms in the coordinates of `basis`, an orthonormal one at each point."""

    def _carried(self, mean: Tensor, b: Tensor, t: Tensor, u: Tensor) -> Tensor:
        m = self.manifold
        return m.from_coordinates(b, t.unsqueeze(-1) * m.to_coordinates(mean, u))


def deviations(manifold: Manifold, form: str) -> Deviations:
    """Those of the `form`, "gyro", "tangent" or "basis", on `manifold`."""
    if form != "gyro":
        return TangentDeviations(manifold) if form == "tangent" else BasisDeviations(manifold)
    assert isinstance(manifold, GyroManifold)
    return CoordinateDeviations(manifold) if manifold.is_vector_space else FrameDeviations(manifold)


def check_space(where: str, manifold: Manifold, point_shape: tuple[int, ...], form: str) -> None:
    """Raise unless points of `point_shape` of `manifold` have deviations of that `form`."""
    if not isinstance(manifold, Manifold):
        raise ValueError(
            f"{where}: manifold must be a manifold of torchriemann, as SPDAffineInvariant(), got {described(manifold)}"
        )
    if not isinstance(point_shape, Sequence):
        raise ValueError(
            f"{where}: point_shape must be the shape of one point, as ({point_shape},), got {point_shape!r}"
        )
    reason = manifold.check_point(torch.empty(tuple(point_shape), device="meta"), explain=True)[1]
    if reason is not None or len(point_shape) != manifold.ndim:
        raise ValueError(
            f"{where}: point_shape must be that of one point of {manifold!r}, of {manifold.ndim} dimension(s), got "
            f"{tuple(point_shape)}{'' if reason is None else f': {reason}'}"
        )
    check_options_fixed(manifold, f"{where}: the points")
    if form not in FORMS:
        raise ValueError(f"{where}: form must be one of {FORMS}, got {form!r}")
    if form == "gyro" and not is_gyro(manifold):
        raise ValueError(f'{where}: {manifold!r} has no gyro structure; choose form="tangent", which needs none')
