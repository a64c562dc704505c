"""Manifolds: the contract and the spaces that keep it."""

from .base import Manifold as Manifold
from .euclidean import Euclidean as Euclidean
from .grassmann import Grassmann as Grassmann
from .operation import operation as operation
from .parameter import ManifoldParameter as ManifoldParameter
from .sphere import Sphere as Sphere
from .stiefel import Stiefel as Stiefel
