"""Layers: modules whose parameters may be points of a manifold."""

from .base import ManifoldModule as ManifoldModule
from .classifiers import GrassmannClassifier as GrassmannClassifier
