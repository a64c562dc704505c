"""One model, dtype and radius on trial: operations on rounded inputs, against 80 digits on the same inputs.

An input is a pair: coordinates in floating point, and the point or vector that they stand for.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import exact
import torch
from exact import Ball, Hyperboloid, KleinBall
from torch import Tensor

from torchriemann.manifolds import Klein, Lorentz, PoincareBall

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import geoopt

DIMENSION = 3


@dataclass(frozen=True)
class Model:
    """A manifold, its parallel transport (which geoopt calls transp), and how its coordinates are to be read."""

    manifold: Any
    transport: Callable[[Tensor, Tensor, Tensor], Tensor]
    chart: Any


LORENTZ, BALL, KLEIN = Lorentz(), PoincareBall(), Klein()
PEER_LORENTZ, PEER_BALL = geoopt.Lorentz(), geoopt.PoincareBall()
MODELS = {
    "Lorentz": Model(LORENTZ, LORENTZ.parallel_transport, Hyperboloid),
    "Poincaré ball": Model(BALL, BALL.parallel_transport, Ball),
    "Klein": Model(KLEIN, KLEIN.parallel_transport, KleinBall),
    "geoopt Lorentz": Model(PEER_LORENTZ, PEER_LORENTZ.transp, Hyperboloid),
    "geoopt ball": Model(PEER_BALL, PEER_BALL.transp, Ball),
}


Input = tuple[Tensor, Any]


class Trial:
    """One model, dtype and radius."""

    def __init__(self, model: Model, dtype: torch.dtype, radius: float, count: int) -> None:
        self.model, self.dtype, self.radius = model, dtype, radius
        generator = torch.Generator().manual_seed(0)
        self.directions = torch.randn(3, count, DIMENSION, generator=generator, dtype=torch.float64)
        self.x = self.point(exact.polar(radius, self.directions[0]))

    def point(self, x) -> Input:
        """A point as it can be stored."""
        c = exact.rounded(self.model.chart.coordinates(x), self.dtype)
        if not exact.inside(self.model.chart, c).all():
            raise OverflowError  # here the model ends
        return c, self.model.chart.point(exact.exactly(c))

    def tangent(self, direction: Tensor, length: float) -> Input:
        """A tangent vector at x as it can be stored."""
        u = exact.tangent(self.x[1], direction, length)
        c = exact.rounded(self.model.chart.components(self.x[1], u), self.dtype)
        return c, self.model.chart.tangent(self.x[1], exact.exactly(c))

    def neighbour(self, apart: float) -> Input:
        """A point at this distance from x, about."""
        y = self.point(exact.exponential(self.x[1], exact.tangent(self.x[1], self.directions[1], apart)))
        if not (y[0] != self.x[0]).any(-1).all():
            raise OverflowError  # the model has one point for both
        return y

    def point_error(self, found: Tensor, truth) -> Tensor:
        """Hyperbolic distance; NaN for what is not a point."""
        inside = exact.inside(self.model.chart, found)
        safe = found.where(inside.unsqueeze(-1), 0.0)
        error = exact.rounded(exact.distance(self.model.chart.point(exact.exactly(safe)), truth), torch.float64)
        return error.where(inside, math.nan)

    def tangent_error(self, at, found: Tensor, truth) -> Tensor:
        """Length of the difference over the length of the truth."""
        finite = found.isfinite().all(-1)
        safe = found.where(finite.unsqueeze(-1), 0.0)
        difference = self.model.chart.tangent(at, exact.exactly(safe)) - truth
        relative = exact.rounded(exact.length(difference) / exact.length(truth), torch.float64)
        return relative.squeeze(-1).where(finite, math.nan)


def distance_error(t: Trial, y: Input) -> Tensor:
    """Relative."""
    truth = exact.rounded(exact.distance(t.x[1], y[1]), torch.float64)
    return (t.model.manifold.dist(t.x[0], y[0]).double() - truth).abs() / truth


def far_distance(t: Trial) -> Tensor:
    """Of points in independent directions."""
    return distance_error(t, t.point(exact.polar(t.radius, t.directions[1])))


def near_distance(t: Trial) -> Tensor:
    """Of points 0.01 apart."""
    return distance_error(t, t.neighbour(0.01))


def exponential(t: Trial) -> Tensor:
    """Of unit vectors."""
    u = t.tangent(t.directions[1], 1.0)
    return t.point_error(t.model.manifold.expmap(t.x[0], u[0]), exact.exponential(t.x[1], u[1]))


def logarithm(t: Trial) -> Tensor:
    """Of points at distance 1."""
    y = t.neighbour(1.0)
    return t.tangent_error(t.x[1], t.model.manifold.logmap(t.x[0], y[0]), exact.logarithm(t.x[1], y[1]))


def transport(t: Trial) -> Tensor:
    """Of unit vectors over distance 1."""
    y, v = t.neighbour(1.0), t.tangent(t.directions[2], 1.0)
    return t.tangent_error(y[1], t.model.transport(t.x[0], y[0], v[0]), exact.transport(t.x[1], y[1], v[1]))


OPERATIONS: dict[str, Callable[[Trial], Tensor]] = {
    "distance of far points": far_distance,
    "distance of near points": near_distance,
    "exponential": exponential,
    "logarithm": logarithm,
    "transport": transport,
}


def worst_error(operation: str, model: Model, dtype: torch.dtype, radius: float, count: int) -> float | None:
    """Largest error over the draws, infinite if one result is no point or vector; None beyond the model's end."""
    try:
        error = OPERATIONS[operation](Trial(model, dtype, radius, count))
    except OverflowError:
        return None
    return math.inf if error.isnan().any() else float(error.max())
