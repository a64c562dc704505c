"""Layers of hyperbolic space."""

from .curvature import Curvature as Curvature
from .entailment import EntailmentCones as EntailmentCones
from .isometry import LorentzIsometry as LorentzIsometry
