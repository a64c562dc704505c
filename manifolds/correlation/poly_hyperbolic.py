"""Correlation matrices as a product of hyperbolic spaces, one a row of the Cholesky factor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from .cholesky_charts import UnitFactorRows
from .lorentz_rows import LorentzRows
from .space import Correlation


@final
@dataclass(frozen=True, eq=False)
class CorrelationPolyHyperbolic(Correlation):
    r"""Correlation matrices ``*B,n,n`` with the poly-hyperbolic-Cholesky metric (Thanwerdas and Pennec 2022,
    arXiv:2201.06282): a product of hyperbolic spaces of the dimensions 1 .. n - 1.

    Row i of the Cholesky factor L of x has length one and a positive last entry: a point of an open half sphere, which
    is a model of hyperbolic space of curvature -1. In Lorentz coordinates, as `Lorentz` has them, it has the space part
    ``s_i = (L_i1, .. L_i,i-1)/L_ii`` and the time ``t_i = 1/L_ii``; squared distances of the rows add:

        dist(x, y)^2 = sum_i arcosh(t_i(x) t_i(y) - <s_i(x), s_i(y)>)^2.

    So s_i are the rows of the factor over its diagonal, which `CorrelationEuclideanCholesky` compares as flat ones.
    Complete, with sectional curvatures from -1 to 0: geodesics and means are unique, and all is closed but means. The
    only gyro manifold of correlation matrices of which the addition does not commute. Not invariant under permutations:
    the order of the rows matters. Changes of signs are isometries.

    Far away distances grow as log(1/L_ii), not as 1/L_ii. One batch of points with zeros for the coordinates that the
    shorter rows lack serves all rows.

    In float64, of 80 pairs of random matrices each, x comes back from its coordinates to 6e-16 up to a condition of
    1e12. Tangent vectors lose digits: ``exp_x(log_x(y))`` is off by 4 ``eps cond(x)`` at most up to 1e10, and by
    up to 0.5 at 1e12.
    """

    codomain: ClassVar[LorentzRows] = LorentzRows()  # pyright: ignore[reportIncompatibleVariableOverride]
    chart: ClassVar[UnitFactorRows] = UnitFactorRows()  # pyright: ignore[reportIncompatibleVariableOverride]
    name: ClassVar[str] = "CorrelationPolyHyperbolic"
