"""Symmetric positive definite matrices: their points, and one class a metric."""

from .affine_invariant import SPDAffineInvariant as SPDAffineInvariant
from .bures_wasserstein import SPDBuresWasserstein as SPDBuresWasserstein
from .cholesky import SPDLogCholesky as SPDLogCholesky
from .cholesky import SPDPowerCholesky as SPDPowerCholesky
from .kernel import SPDKernel as SPDKernel
from .kernel_functions import ArithmeticMean as ArithmeticMean
from .kernel_functions import BogoliubovKuboMori as BogoliubovKuboMori
from .kernel_functions import GeometricMean as GeometricMean
from .kernel_functions import HarmonicMean as HarmonicMean
from .kernel_functions import HoelderMean as HoelderMean
from .kernel_functions import KernelFunction as KernelFunction
from .kernel_functions import LogarithmicMean as LogarithmicMean
from .kernel_functions import MixedPowerAffine as MixedPowerAffine
from .kernel_functions import MixedPowerEuclidean as MixedPowerEuclidean
from .kernel_functions import StolarskyMean as StolarskyMean
from .log_euclidean import SPDLogEuclidean as SPDLogEuclidean
from .power_euclidean import SPDPowerEuclidean as SPDPowerEuclidean
from .space import SPD as SPD
