"""Layers on gyro manifolds: translations, multiples, linear layers, convolutions and classifiers."""

from .maps import GyroScaling as GyroScaling
from .maps import GyroTranslation as GyroTranslation
