"""torchriemann: deep learning on Riemannian manifolds."""

__version__ = "0.1.0"

from torchriemann import layers as layers
from torchriemann import manifolds as manifolds
from torchriemann import optim as optim
from torchriemann.manifolds import Euclidean as Euclidean
from torchriemann.manifolds import Grassmann as Grassmann
from torchriemann.manifolds import Manifold as Manifold
from torchriemann.manifolds import ManifoldParameter as ManifoldParameter
from torchriemann.manifolds import Oblique as Oblique
from torchriemann.manifolds import Orthogonal as Orthogonal
from torchriemann.manifolds import Power as Power
from torchriemann.manifolds import Product as Product
from torchriemann.manifolds import Scaled as Scaled
from torchriemann.manifolds import SpecialOrthogonal as SpecialOrthogonal
from torchriemann.manifolds import Sphere as Sphere
from torchriemann.manifolds import Stiefel as Stiefel
