"""Layers on gyro manifolds: translations, multiples, linear layers, convolutions and classifiers."""

from .classifier import GyroClassifier as GyroClassifier
from .convolution import GyroConv1d as GyroConv1d
from .convolution import GyroConv2d as GyroConv2d
from .linear import GyroLinear as GyroLinear
from .maps import GyroScaling as GyroScaling
from .maps import GyroTranslation as GyroTranslation
from .scoring import gyro_score as gyro_score
