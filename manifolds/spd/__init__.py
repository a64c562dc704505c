"""Symmetric positive definite matrices: their points, and one class a metric."""

from .affine_invariant import SPDAffineInvariant as SPDAffineInvariant
from .bures_wasserstein import SPDBuresWasserstein as SPDBuresWasserstein
from .cholesky import SPDLogCholesky as SPDLogCholesky
from .cholesky import SPDPowerCholesky as SPDPowerCholesky
from .log_euclidean import SPDLogEuclidean as SPDLogEuclidean
from .power_euclidean import SPDPowerEuclidean as SPDPowerEuclidean
from .space import SPD as SPD
