"""torchriemann: deep learning on Riemannian manifolds."""

from importlib.util import find_spec

__version__ = "0.1.0"

if find_spec("torchriemann.manifolds") is None:
    raise ImportError(
        "torchriemann/manifolds, layers and optim are links to the folders beside torchriemann, and this copy has lost "
        "them, as archives do: run `pip install .` (or `pip install -e .`) in the folder that holds pyproject.toml"
    )

from torchriemann import layers as layers
from torchriemann import manifolds as manifolds
from torchriemann import optim as optim
from torchriemann.manifolds import SPD as SPD
from torchriemann.manifolds import Chart as Chart
from torchriemann.manifolds import ConstantCurvature as ConstantCurvature
from torchriemann.manifolds import Correlation as Correlation
from torchriemann.manifolds import CorrelationEuclideanCholesky as CorrelationEuclideanCholesky
from torchriemann.manifolds import CorrelationLogEuclideanCholesky as CorrelationLogEuclideanCholesky
from torchriemann.manifolds import CorrelationLogScaled as CorrelationLogScaled
from torchriemann.manifolds import CorrelationOffLog as CorrelationOffLog
from torchriemann.manifolds import CorrelationPolyHyperbolic as CorrelationPolyHyperbolic
from torchriemann.manifolds import Euclidean as Euclidean
from torchriemann.manifolds import Grassmann as Grassmann
from torchriemann.manifolds import GyroManifold as GyroManifold
from torchriemann.manifolds import Klein as Klein
from torchriemann.manifolds import Lorentz as Lorentz
from torchriemann.manifolds import LowRankPSD as LowRankPSD
from torchriemann.manifolds import Manifold as Manifold
from torchriemann.manifolds import ManifoldParameter as ManifoldParameter
from torchriemann.manifolds import Oblique as Oblique
from torchriemann.manifolds import Orthogonal as Orthogonal
from torchriemann.manifolds import PoincareBall as PoincareBall
from torchriemann.manifolds import Power as Power
from torchriemann.manifolds import Product as Product
from torchriemann.manifolds import ProjectedSphere as ProjectedSphere
from torchriemann.manifolds import Pullback as Pullback
from torchriemann.manifolds import Scaled as Scaled
from torchriemann.manifolds import Simplex as Simplex
from torchriemann.manifolds import SPDAffineInvariant as SPDAffineInvariant
from torchriemann.manifolds import SPDBuresWasserstein as SPDBuresWasserstein
from torchriemann.manifolds import SPDKernel as SPDKernel
from torchriemann.manifolds import SPDLogCholesky as SPDLogCholesky
from torchriemann.manifolds import SPDLogEuclidean as SPDLogEuclidean
from torchriemann.manifolds import SPDPowerCholesky as SPDPowerCholesky
from torchriemann.manifolds import SPDPowerEuclidean as SPDPowerEuclidean
from torchriemann.manifolds import SpecialOrthogonal as SpecialOrthogonal
from torchriemann.manifolds import Sphere as Sphere
from torchriemann.manifolds import Stereographic as Stereographic
from torchriemann.manifolds import Stiefel as Stiefel
from torchriemann.manifolds import WrappedNormal as WrappedNormal
from torchriemann.manifolds import change_curvature as change_curvature
from torchriemann.manifolds import convert as convert
from torchriemann.manifolds.kernels import use_kernels as use_kernels
from torchriemann.moved import alias_old_paths
from torchriemann.optim import RiemannianAdam as RiemannianAdam
from torchriemann.optim import RiemannianSGD as RiemannianSGD
from torchriemann.optim import param_groups as param_groups

alias_old_paths()
del alias_old_paths
