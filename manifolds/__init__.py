"""Manifolds: the contract and the spaces that keep it."""

if __name__ != "torchriemann.manifolds":
    raise ImportError(
        "this folder is torchriemann.manifolds: run `pip install -e .` in the checkout, and import it by that "
        "name, as in `from torchriemann.manifolds import Sphere`"
    )

from .base import Manifold as Manifold
from .chart import Chart as Chart
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
from .euclidean import Euclidean as Euclidean
from .frames import Grassmann as Grassmann
from .frames import Orthogonal as Orthogonal
from .frames import SpecialOrthogonal as SpecialOrthogonal
from .frames import Stiefel as Stiefel
from .frames import axis_angle_from_rotation as axis_angle_from_rotation
from .frames import quaternion_from_rotation as quaternion_from_rotation
from .frames import rotation_from_axis_angle as rotation_from_axis_angle
from .frames import rotation_from_quaternion as rotation_from_quaternion
from .gyro import GyroManifold as GyroManifold
from .kernels import use_kernels as use_kernels
from .operation import operation as operation
from .parameter import ManifoldParameter as ManifoldParameter
from .pullback import Pullback as Pullback
from .pullback_metric import PullbackMetric as PullbackMetric
from .spd import SPD as SPD
from .spd import SPDLogCholesky as SPDLogCholesky
from .spd import SPDLogEuclidean as SPDLogEuclidean
from .spd import SPDPowerCholesky as SPDPowerCholesky
from .wrapped_normal import WrappedNormal as WrappedNormal
