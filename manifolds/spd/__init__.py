"""Symmetric positive definite matrices: their points, and one class a metric."""

from .cholesky import SPDLogCholesky as SPDLogCholesky
from .cholesky import SPDPowerCholesky as SPDPowerCholesky
from .log_euclidean import SPDLogEuclidean as SPDLogEuclidean
from .space import SPD as SPD
