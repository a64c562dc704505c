"""Manifolds: the contract and the spaces that keep it."""

if __name__ != "torchriemann.manifolds":
    raise ImportError(
        "this folder is torchriemann.manifolds: run `pip install -e .` in the checkout, and import it by that "
        "name, as in `from torchriemann.manifolds import Sphere`"
    )

from .base import Manifold as Manifold
from .chart import Chart as Chart
from .composite import LowRankPSD as LowRankPSD
from .composite import Power as Power
from .composite import Product as Product
from .composite import Scaled as Scaled
from .constant_curvature import ConstantCurvature as ConstantCurvature
from .constant_curvature import Klein as Klein
from .constant_curvature import Lorentz as Lorentz
from .constant_curvature import Oblique as Oblique
from .constant_curvature import PoincareBall as PoincareBall
from .constant_curvature import ProjectedSphere as ProjectedSphere
from .constant_curvature import Sphere as Sphere
from .constant_curvature import Stereographic as Stereographic
from .constant_curvature import change_curvature as change_curvature
from .constant_curvature import convert as convert
from .correlation import Correlation as Correlation
from .correlation import CorrelationEuclideanCholesky as CorrelationEuclideanCholesky
from .correlation import CorrelationLogEuclideanCholesky as CorrelationLogEuclideanCholesky
from .correlation import CorrelationLogScaled as CorrelationLogScaled
from .correlation import CorrelationOffLog as CorrelationOffLog
from .correlation import CorrelationPolyHyperbolic as CorrelationPolyHyperbolic
from .euclidean import Euclidean as Euclidean
from .frames import Grassmann as Grassmann
from .frames import Orthogonal as Orthogonal
from .frames import ProductSVD as ProductSVD
from .frames import SpecialOrthogonal as SpecialOrthogonal
from .frames import Stiefel as Stiefel
from .frames import TruncatedSVD as TruncatedSVD
from .frames import axis_angle_from_rotation as axis_angle_from_rotation
from .frames import quaternion_from_rotation as quaternion_from_rotation
from .frames import rotation_from_axis_angle as rotation_from_axis_angle
from .frames import rotation_from_quaternion as rotation_from_quaternion
from .functional.matrix_functions import matrix_exp as matrix_exp
from .functional.matrix_functions import matrix_inverse_sqrt as matrix_inverse_sqrt
from .functional.matrix_functions import matrix_log as matrix_log
from .functional.matrix_functions import matrix_power as matrix_power
from .functional.matrix_functions import matrix_sqrt as matrix_sqrt
from .functional.spectral_cones import project_condition as project_condition
from .functional.spectral_cones import project_eigenvalue_floor as project_eigenvalue_floor
from .functional.spectral_cones import project_rank as project_rank
from .functional.spectral_cones import project_trace_one as project_trace_one
from .gyro import GyroManifold as GyroManifold
from .kernels import use_kernels as use_kernels
from .operation import operation as operation
from .parameter import ManifoldParameter as ManifoldParameter
from .pullback import Pullback as Pullback
from .pullback_metric import PullbackMetric as PullbackMetric
from .simplex import Simplex as Simplex
from .spd import SPD as SPD
from .spd import ArithmeticMean as ArithmeticMean
from .spd import BogoliubovKuboMori as BogoliubovKuboMori
from .spd import GeometricMean as GeometricMean
from .spd import HarmonicMean as HarmonicMean
from .spd import HoelderMean as HoelderMean
from .spd import KernelFunction as KernelFunction
from .spd import LogarithmicMean as LogarithmicMean
from .spd import MatrixPower as MatrixPower
from .spd import MixedPowerAffine as MixedPowerAffine
from .spd import MixedPowerEuclidean as MixedPowerEuclidean
from .spd import SPDAffineInvariant as SPDAffineInvariant
from .spd import SPDBuresWasserstein as SPDBuresWasserstein
from .spd import SPDKernel as SPDKernel
from .spd import SPDLogCholesky as SPDLogCholesky
from .spd import SPDLogEuclidean as SPDLogEuclidean
from .spd import SPDPowerCholesky as SPDPowerCholesky
from .spd import SPDPowerEuclidean as SPDPowerEuclidean
from .spd import StolarskyMean as StolarskyMean
from .wrapped_normal import WrappedNormal as WrappedNormal
