"""Metrics of positive definite matrices that a chart carries over, with retractions that end inside as numbers."""

from __future__ import annotations

import abc

from torch import Tensor

from ..functional.cone import lifted
from ..functional.matrices import sym
from ..operation import operation
from ..pullback_metric import PullbackMetric
from .charts import MatrixPower
from .space import SPD


class RetractingSPD(SPD, PullbackMetric, abc.ABC):
    """A chart's way back ends in a symmetric matrix, whose small eigenvalues rounding may have made negative. Along
    geodesics that is left as it is: beyond the condition that the dtype holds, their ends are no points. Optimizers
    move by retractions, which are points for every vector, short of overflow."""

    @operation
    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """f^-1 of the retraction of Df u, lifted into the cone."""
        return self._lifted(super().retr(x, u))

    @operation
    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """`retr`, and Df v transported to its end, carried back."""
        y, w = super().retr_transp(x, u, v)
        return self._lifted(y), w

    def _lifted(self, y: Tensor) -> Tensor:
        # What no chart carried is the codomain's own retraction, a point already.
        return y if self.chart == MatrixPower(1) else lifted(sym(y))
