"""Symmetric positive definite matrices: their points, and one class a metric."""

from .log_euclidean import SPDLogEuclidean as SPDLogEuclidean
from .space import SPD as SPD
