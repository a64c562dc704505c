"""Manifolds: the contract and the spaces that keep it."""

from .base import Manifold as Manifold
from .euclidean import Euclidean as Euclidean
from .grassmann import Grassmann as Grassmann
from .operation import operation as operation
from .orthogonal import Orthogonal as Orthogonal
from .orthogonal import SpecialOrthogonal as SpecialOrthogonal
from .parameter import ManifoldParameter as ManifoldParameter
from .power import Oblique as Oblique
from .power import Power as Power
from .product import Product as Product
from .rotations import axis_angle_from_rotation as axis_angle_from_rotation
from .rotations import quaternion_from_rotation as quaternion_from_rotation
from .rotations import rotation_from_axis_angle as rotation_from_axis_angle
from .rotations import rotation_from_quaternion as rotation_from_quaternion
from .scaled import Scaled as Scaled
from .sphere import Sphere as Sphere
from .stiefel import Stiefel as Stiefel
