"""Optimizers that make one step at a time, of points in stacks."""

from .adam import RiemannianAdam as RiemannianAdam
from .flags import StepFlags as StepFlags
from .landing import LandingSGD as LandingSGD
from .sgd import RiemannianSGD as RiemannianSGD
