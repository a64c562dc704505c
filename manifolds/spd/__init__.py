"""Symmetric positive definite matrices: their points, and one class a metric."""

from .affine_invariant import SPDAffineInvariant as SPDAffineInvariant
from .bures_wasserstein import SPDBuresWasserstein as SPDBuresWasserstein
from .charts import MatrixPower as MatrixPower
from .cholesky import SPDLogCholesky as SPDLogCholesky
from .cholesky import SPDPowerCholesky as SPDPowerCholesky
from .kernel import SPDKernel as SPDKernel
from .kernel_families import BogoliubovKuboMori as BogoliubovKuboMori
from .kernel_families import MixedPowerAffine as MixedPowerAffine
from .kernel_families import MixedPowerEuclidean as MixedPowerEuclidean
from .kernel_functions import KernelFunction as KernelFunction
from .kernel_means import ArithmeticMean as ArithmeticMean
from .kernel_means import GeometricMean as GeometricMean
from .kernel_means import HarmonicMean as HarmonicMean
from .kernel_means import HoelderMean as HoelderMean
from .kernel_means import LogarithmicMean as LogarithmicMean
from .kernel_means import StolarskyMean as StolarskyMean
from .log_euclidean import SPDLogEuclidean as SPDLogEuclidean
from .power_euclidean import SPDPowerEuclidean as SPDPowerEuclidean
from .space import SPD as SPD
