"""Optimizers of parameters that may lie on manifolds."""

from .adam import RiemannianAdam as RiemannianAdam
from .groups import param_groups as param_groups
from .sgd import RiemannianSGD as RiemannianSGD
