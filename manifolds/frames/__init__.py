"""Orthonormal frames, subspaces and rotations."""

from .grassmann import Grassmann as Grassmann
from .orthogonal import Orthogonal as Orthogonal
from .orthogonal import SpecialOrthogonal as SpecialOrthogonal
from .rotations import axis_angle_from_rotation as axis_angle_from_rotation
from .rotations import quaternion_from_rotation as quaternion_from_rotation
from .rotations import rotation_from_axis_angle as rotation_from_axis_angle
from .rotations import rotation_from_quaternion as rotation_from_quaternion
from .stiefel import Stiefel as Stiefel
from .truncated_svd import ProductSVD as ProductSVD
from .truncated_svd import TruncatedSVD as TruncatedSVD
