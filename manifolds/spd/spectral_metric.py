"""Metrics that are flat in a function of the eigenvalues: what needs no coordinates."""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from ..functional.matrices import sym
from ..functional.series import safe_norm
from ..operation import operation
from .charts import SpectralVector
from .retracting import RetractingSPD


class SpectralMetric(RetractingSPD, abc.ABC):
    """The metric that `SpectralVector` carries over from flat space, by the matrices f(x) themselves: a straight line
    among them does not change with phi."""

    chart: SpectralVector

    @operation
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """f^-1(f(x) + Df u)."""
        image, moved = self.chart.matrices(x, u)
        return self.chart.point(image + moved)

    @operation
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """Df^-1 (f(y) - f(x))."""
        image, pull = self.chart.with_inverse_derivative(x)
        return sym(pull(self.chart.matrices(y)[0] - image))

    @operation
    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """|phi(f(x) - f(y))|."""
        return safe_norm(self._difference(x, y), (-2, -1), keepdim)

    @operation
    def dist2(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """Its square."""
        return self._difference(x, y).square().sum((-2, -1), keepdim)

    def _difference(self, x: Tensor, y: Tensor) -> Tensor:
        """Two batches of one shape are decomposed as one, in half of the launches."""
        if x.shape == y.shape:
            first, second = self.chart.matrices(torch.stack([x, y]))[0].unbind()
        else:
            (first,), (second,) = self.chart.matrices(x), self.chart.matrices(y)
        return self.chart.phi(sym(first - second))  # of near points it is as small as the skew part of rounding
