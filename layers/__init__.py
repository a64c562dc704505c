"""Layers: modules whose parameters may be points of a manifold."""

from .base import ManifoldModule as ManifoldModule
from .classifiers import GrassmannClassifier as GrassmannClassifier
from .curvature import Curvature as Curvature
from .entailment import EntailmentCones as EntailmentCones
from .hyperbolic import LorentzIsometry as LorentzIsometry
