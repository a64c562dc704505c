"""Correlation matrices, flat in the logarithm of the unit triangular factor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from .cholesky_charts import UnitFactorLogarithm
from .flat_factor import FlatFactor


@final
@dataclass(frozen=True, eq=False)
class CorrelationLogEuclideanCholesky(FlatFactor):
    r"""Correlation matrices ``*B,n,n`` with the log-Euclidean-Cholesky metric (Thanwerdas and Pennec 2022,
    arXiv:2201.06282).

    With ``x = L L^T`` and the unit lower triangular ``Theta(x) = D(L)^-1 L``, the Cholesky factor over its diagonal,

        dist(x, y) = |log Theta(x) - log Theta(y)|.

    Flat and complete: the logarithm is strictly lower triangular, and may be any such matrix. All is closed: logarithms
    and exponentials of these matrices are polynomials of degree n - 1. As a gyro-structure it is a vector space, in
    which the inverse of x is the matrix with the factor Theta^-1. Not invariant under permutations: the order of the
    rows matters. Changes of signs are isometries.

    A logarithm takes n/2 triangular inverses, which at 64 rows cost a few eigendecompositions and n/2 times the memory
    of the points; an exponential some 2 sqrt(n) products. In float64 a round trip is right to some ``eps cond(x)``, as
    long as the logarithm itself is well conditioned: of the factors of very smooth processes of many values (squared
    exponential covariances) it is not.
    """

    chart: ClassVar[UnitFactorLogarithm] = UnitFactorLogarithm()
    name: ClassVar[str] = "CorrelationLogEuclideanCholesky"
