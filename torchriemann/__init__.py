"""torchriemann: deep learning on Riemannian manifolds."""

__version__ = "0.1.0"

from torchriemann.manifolds import Euclidean as Euclidean
from torchriemann.manifolds import Grassmann as Grassmann
from torchriemann.manifolds import Manifold as Manifold
from torchriemann.manifolds import ManifoldParameter as ManifoldParameter
from torchriemann.manifolds import Sphere as Sphere
