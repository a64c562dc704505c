"""Optimizers of parameters that may lie on manifolds."""

from .adam import RiemannianAdam as RiemannianAdam
from .averaging import AveragedModel as AveragedModel
from .clip import clip_grad_norm_ as clip_grad_norm_
from .clip import get_total_norm as get_total_norm
from .conjugate_gradient import RiemannianCG as RiemannianCG
from .groups import param_groups as param_groups
from .landing import LandingSGD as LandingSGD
from .lbfgs import RiemannianLBFGS as RiemannianLBFGS
from .sgd import RiemannianSGD as RiemannianSGD
from .trust_region import RiemannianTrustRegion as RiemannianTrustRegion
