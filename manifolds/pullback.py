"""A space whose points and metric a chart carries over from a known manifold."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from .base import Manifold
from .chart import Chart
from .functional.broadcasting import over_batch
from .operation import operation
from .pullback_metric import PullbackMetric


@final
@dataclass(frozen=True, eq=False)
class Pullback(PullbackMetric):
    r"""The space that `chart` sends onto the manifold `base`, with the metric that it carries back:
    ``<u, v>_x = <Df u, Df v>_f(x)``.

    Points are those of the chart, ``*B,P`` with ``chart.ndim`` dimensions: x of its domain whose image is a point of
    `base`. The dimension is that of `base`; where it is as large as a point's number of entries the space is open, and
    every vector is tangent. `projx` asks the chart for a point of its domain, and `base` for one near its image.

    Accuracy is that of `base` at the images, and what the chart loses: about eps times the condition of Df.

    Raises ``ValueError`` if `base` is no manifold or `chart` no `Chart`.
    """

    base: Manifold
    chart: Chart

    name: ClassVar[str] = "Pullback"

    def __post_init__(self) -> None:
        if not isinstance(self.base, Manifold):
            raise ValueError(f"Pullback: base must be a manifold such as Euclidean(), got {self.base!r}")
        if not isinstance(self.chart, Chart):
            raise ValueError(f"Pullback: chart must be an instance of a class under Chart, got {self.chart!r}")

    @property
    def ndim(self) -> int:
        """That of `chart`."""
        return self.chart.ndim

    @property
    def codomain(self) -> Manifold:  # type: ignore[override]
        """`base`."""
        return self.base

    def in_dtype(self, dtype: torch.dtype) -> Any:
        """The same space with base and chart in `dtype`."""
        base, chart = self.base.in_dtype(dtype), self.chart.in_dtype(dtype)
        if base is self.base and chart is self.chart:
            return self
        return dataclasses.replace(self, base=base, chart=chart)

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        complaint = self.chart.complaint(point_shape)
        if complaint is not None:
            return complaint
        shape = self.chart.base_shape(point_shape)
        if len(shape) != self.base.ndim:
            return f"the chart sends points {point_shape} to {shape}, of which {self.base!r} has none"
        return self.base._shape_complaint(shape)

    def dimension(self, shape: tuple[int, ...]) -> int:
        """That of `base`."""
        return self.base.dimension(self.chart.base_shape(tuple(shape[len(shape) - self.ndim :])))

    def _is_open(self, x: Tensor) -> bool:
        shape = tuple(x.shape[x.dim() - self.ndim :])
        return self.dimension(shape) == math.prod(shape)

    def _point_residual(self, x: Tensor) -> tuple[Tensor, str]:
        domain, formula = self.chart.residual(x)
        image, image_formula = self.base._point_residual(self.chart.forward(x))
        return torch.maximum(domain, image), f"{formula}, or of its image {image_formula},"

    def _vector_residual(self, x: Tensor, u: Tensor) -> tuple[Tensor, str]:
        if self._is_open(x):
            return (u - u).abs().amax(), "max|u - u|"
        y, w = self.chart.differential(x, u)
        image, formula = self.base._vector_residual(y, w)
        around = (self._pulled(y, w) - u).abs().amax()
        return torch.maximum(around, image), f"max|Df^-1 Df u - u|, or of its image {formula},"

    @operation
    def projx(self, x: Tensor) -> Tensor:
        """f^-1 of the nearest point of `base` to the image, of a point of the domain that the chart names."""
        return self.chart.inverse(self.base.projx(self.chart.forward(self.chart.project(x))))

    @operation
    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """Df^-1 of the tangent part of Df u; `u` itself where every vector is tangent."""
        if self._is_open(x):
            return over_batch(u, x).clone()
        y, w = self.chart.differential(x, u)
        return self._pulled(y, self.base.proju(y, w))
