"""Correlation matrices, flat in the unit triangular factor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from .cholesky_charts import UnitFactor
from .flat_factor import FlatFactor


@final
@dataclass(frozen=True, eq=False)
class CorrelationEuclideanCholesky(FlatFactor):
    r"""Correlation matrices ``*B,n,n`` with the Euclidean-Cholesky metric (Thanwerdas and Pennec 2022,
    arXiv:2201.06282).

    With ``x = L L^T`` and the unit lower triangular ``Theta(x) = D(L)^-1 L``, the Cholesky factor over its diagonal,

        dist(x, y) = |Theta(x) - Theta(y)|.

    Flat and complete: the entries below the diagonal of Theta are coordinates of R^(n(n-1)/2), and every operation is
    closed. As a gyro-structure it is a vector space, in which factors are added below the diagonal. Not invariant under
    permutations: the order of the rows matters. Changes of signs are isometries.

    L_ii is the standard deviation that the i-th variable has left once those before it have predicted it linearly: next
    to singular matrices distances grow as 1/L_ii. Nothing takes an eigendecomposition.

    In float64, of 80 pairs of random matrices each, x comes back from its coordinates to 6e-16 up to a condition of
    1e12. Tangent vectors lose digits: ``exp_x(log_x(y))`` is off by up to 3e-15, 1e-12 and 5e-10 at 1e2, 1e4 and 1e6,
    some ``eps cond(x)``, and by up to 100 times that beyond, 1e-6 at 1e8 and 1e-2 at 1e12.
    """

    chart: ClassVar[UnitFactor] = UnitFactor()
    name: ClassVar[str] = "CorrelationEuclideanCholesky"
