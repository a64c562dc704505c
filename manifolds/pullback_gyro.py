"""The gyro structure that a diffeomorphism carries over from a known manifold."""

from __future__ import annotations

import abc
from collections.abc import Callable

from torch import Tensor

from .base import Manifold
from .chart import Chart
from .gyro import GyroManifold, is_gyro
from .operation import in_full_precision, operation
from .turns import ClosedFactor


class PullbackGyro(GyroManifold, abc.ABC):
    """Gyro-operations through the `chart` f, with ``f^-1(origin)`` of `codomain` as the origin: ``x (+) y =
    f^-1(f(x) (+) f(y))``. They exist where `codomain` has them and the image is all of it."""

    codomain: Manifold
    chart: Chart

    @property
    def has_gyro_structure(self) -> bool:
        """Whether `codomain` has one. A space of which the image is not all of it overrides this by False."""
        return is_gyro(self.codomain)

    @property
    def is_vector_space(self) -> bool:
        """Whether `codomain` is one, and the image all of it."""
        return self.has_gyro_structure and self._gyro_codomain.is_vector_space

    @property
    def _gyro_codomain(self) -> GyroManifold:
        codomain = self.codomain
        if not isinstance(codomain, GyroManifold) or not self.has_gyro_structure:
            raise NotImplementedError(f"{self!r} has no gyro structure{self._gyro_reason()}")
        return codomain

    def _gyro_reason(self) -> str:
        return f", since {self.codomain!r} has none"

    @property
    def normal_ndim(self) -> int:
        """That of `codomain`."""
        return self.codomain.normal_ndim if isinstance(self.codomain, GyroManifold) else 1

    def _pulled(self, y: Tensor, v: Tensor) -> Tensor:
        """The tangent vector whose image at `y` is `v`."""
        return self.chart.inverse_differential(y, v)[1]

    def normal_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """That of the image."""
        return self._gyro_codomain.normal_shape(self.chart.base_shape(tuple(point_shape)))

    def closed_factors(self, point_shape: tuple[int, ...]) -> tuple[ClosedFactor, ...]:
        """Those of the image."""
        return self._gyro_codomain.closed_factors(self.chart.base_shape(tuple(point_shape)))

    @in_full_precision
    def tangent_from_normal(self, z: Tensor) -> Tensor:
        """Df^-1 of that of `codomain`."""
        self._check_normal("tangent_from_normal", z)
        v = self._gyro_codomain.tangent_from_normal(z)
        return self._pulled(self._gyro_codomain._origin_of(v), v)

    @operation
    def normal_from_tangent(self, u: Tensor) -> Tensor:
        """That of Df u."""
        return self._gyro_codomain.normal_from_tangent(self.chart.differential(self._origin_of(u), u)[1])

    @operation
    def expmap0(self, u: Tensor) -> Tensor:
        """f^-1 of that of Df u."""
        return self.chart.inverse(self._gyro_codomain.expmap0(self.chart.differential(self._origin_of(u), u)[1]))

    @operation
    def logmap0(self, x: Tensor) -> Tensor:
        """Df^-1 of that of the image."""
        v = self._gyro_codomain.logmap0(self.chart.forward(x))
        return self._pulled(self._gyro_codomain._origin_of(v), v)

    @operation
    def dist0(self, x: Tensor, *, keepdim: bool = False) -> Tensor:
        """That of the image."""
        return self._with_keepdim(self._gyro_codomain.dist0(self.chart.forward(x)), keepdim)

    @in_full_precision
    def from_normal(self, z: Tensor) -> Tensor:
        """f^-1 of the point of `codomain`."""
        self._check_normal("from_normal", z)
        return self.chart.inverse(self._gyro_codomain.from_normal(z))

    @operation
    def to_normal(self, x: Tensor) -> Tensor:
        """Those of the image."""
        return self._gyro_codomain.to_normal(self.chart.forward(x))

    @operation
    def gyroadd(self, x: Tensor, y: Tensor) -> Tensor:
        """f^-1 of the sum of the images."""
        return self.chart.inverse(self._gyro_codomain.gyroadd(self.chart.forward(x), self.chart.forward(y)))

    @operation
    def gyroinv(self, x: Tensor) -> Tensor:
        """f^-1 of the inverse of the image."""
        return self.chart.inverse(self._gyro_codomain.gyroinv(self.chart.forward(x)))

    @in_full_precision
    def gyroscale(self, t: Tensor | float, x: Tensor) -> Tensor:
        """f^-1 of the multiple of the image."""
        self._check_beside("gyroscale", "t", t, x)
        return self.chart.inverse(self._gyro_codomain.gyroscale(t, self.chart.forward(x)))

    @operation
    def gyration(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """f^-1 of that of the images."""
        return self.chart.inverse(self._gyro_codomain.gyration(*map(self.chart.forward, (x, y, z))))

    @in_full_precision
    def expmap_frame(self, x: Tensor, z: Tensor) -> Tensor:
        """f^-1 of that at the image."""
        self._check_frame("expmap_frame", x, z)
        return self.chart.inverse(self._gyro_codomain.expmap_frame(self.chart.forward(x), z))

    @operation
    def logmap_frame(self, x: Tensor, y: Tensor) -> Tensor:
        """That of the images."""
        return self._gyro_codomain.logmap_frame(self.chart.forward(x), self.chart.forward(y))

    @in_full_precision
    def tangent_from_frame(self, x: Tensor, z: Tensor) -> Tensor:
        """Df^-1 of that at the image."""
        self._check_frame("tangent_from_frame", x, z)
        y, pull, _ = self.chart.linearized(x)
        return pull(self._gyro_codomain.tangent_from_frame(y, z))

    @operation
    def frame_from_tangent(self, x: Tensor, u: Tensor) -> Tensor:
        """That of Df u at the image."""
        return self._gyro_codomain.frame_from_tangent(*self.chart.differential(x, u))

    @in_full_precision
    def transport_frame(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """That between the images."""
        self.check_operands("transport_frame", [x, y])
        self._check_frame("transport_frame", x, z)
        return self._gyro_codomain.transport_frame(self.chart.forward(x), self.chart.forward(y), z)

    def log_and_exp(self, x: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """Those of the images, and f^-1 of what they become."""
        log, exp = self._gyro_codomain.log_and_exp(self.chart.forward(x))
        return lambda y: log(self.chart.forward(y)), lambda u: self.chart.inverse(exp(u))

    def recentred(self, x: Tensor, y: Tensor) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
        """Those of the images, and f^-1 of what they become."""
        squares, placed = self._gyro_codomain.recentred(self.chart.forward(x), self.chart.forward(y))
        return squares, lambda b, t: self.chart.inverse(placed(b, t))
