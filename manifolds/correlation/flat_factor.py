"""The metrics of correlation matrices that are flat in the unit triangular factor, or in its logarithm."""

from __future__ import annotations

import abc
from typing import ClassVar

from torch import Tensor

from ..euclidean import Euclidean
from ..frechet import Search
from ..functional.correlation_factor import of_unit_factor, unit_factor, unit_factor_derivative
from ..functional.series import safe_norm
from ..operation import operation
from ..weights import per_point
from .cholesky_charts import UnitFactor, correlation_factor, factor_with_inverse
from .space import Correlation, of_both


class FlatFactor(Correlation, abc.ABC):
    """The metric that `UnitFactor` carries over from flat space, in matrices V in the place of their numbers."""

    codomain: ClassVar[Euclidean] = Euclidean()  # pyright: ignore[reportIncompatibleVariableOverride]
    chart: ClassVar[UnitFactor]  # pyright: ignore[reportIncompatibleVariableOverride]

    def _coordinates(self, x: Tensor) -> Tensor:
        return self.chart.of_factor(unit_factor(correlation_factor(x)))[0]

    @operation
    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """|V(y) - V(x)|."""
        V, W = of_both(self._coordinates, x, y)
        return safe_norm(W - V, (-2, -1), keepdim)

    @operation
    def dist2(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """Its square."""
        V, W = of_both(self._coordinates, x, y)
        return (W - V).square().sum((-2, -1), keepdim)

    @operation
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """The point with V(x) and its derivative along u as V."""
        L, inverse = factor_with_inverse(x)
        unit = unit_factor(L)
        V, dV = self.chart.of_factor(unit, unit_factor_derivative(unit, inverse, u))
        return of_unit_factor(self.chart.to_factor(V + dV)[0])[0]

    @operation
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """The tangent vector along which V has the derivative V(y) - V(x)."""
        L, K = of_both(correlation_factor, x, y)
        V, W = of_both(lambda L: self.chart.of_factor(unit_factor(L))[0], L, K)
        return self.chart.pulled(L, V, W - V)

    def _mean(self, x: Tensor, start: Tensor | None, *, w: Tensor, search: Search) -> Tensor:
        V = (per_point(self, w) * self._coordinates(x)).sum(0)
        return of_unit_factor(self.chart.to_factor(V)[0])[0]
