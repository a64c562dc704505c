"""Layers: modules whose parameters may be points of a manifold."""

if __name__ != "torchriemann.layers":
    raise ImportError(
        "this folder is torchriemann.layers: run `pip install -e .` in the checkout, and import it by that "
        "name, as in `from torchriemann.layers import GrassmannClassifier`"
    )

from .base import ManifoldModule as ManifoldModule
from .bures_wasserstein_normalization import BuresWassersteinBatchNorm as BuresWassersteinBatchNorm
from .classifiers import GrassmannClassifier as GrassmannClassifier
from .grassmann import FRMap as FRMap
from .grassmann import GrassmannPool as GrassmannPool
from .grassmann import OrthMap as OrthMap
from .grassmann import ProjMap as ProjMap
from .grassmann import ReOrth as ReOrth
from .gyro import GyroClassifier as GyroClassifier
from .gyro import GyroConv1d as GyroConv1d
from .gyro import GyroConv2d as GyroConv2d
from .gyro import GyroLinear as GyroLinear
from .gyro import GyroScaling as GyroScaling
from .gyro import GyroTranslation as GyroTranslation
from .gyro import gyro_score as gyro_score
from .hyperbolic import Curvature as Curvature
from .hyperbolic import EntailmentCones as EntailmentCones
from .hyperbolic import LorentzIsometry as LorentzIsometry
from .normalization import GyroBatchNorm as GyroBatchNorm
