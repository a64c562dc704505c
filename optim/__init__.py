"""Optimizers of parameters that may lie on manifolds."""

if __name__ != "torchriemann.optim":
    raise ImportError(
        "this folder is torchriemann.optim: run `pip install -e .` in the checkout, and import it by that "
        "name, as in `from torchriemann.optim import RiemannianAdam`"
    )

from .averaging import AveragedModel as AveragedModel
from .clip import clip_grad_norm_ as clip_grad_norm_
from .clip import get_total_norm as get_total_norm
from .groups import param_groups as param_groups
from .solvers import RiemannianCG as RiemannianCG
from .solvers import RiemannianLBFGS as RiemannianLBFGS
from .solvers import RiemannianTrustRegion as RiemannianTrustRegion
from .stepwise import LandingSGD as LandingSGD
from .stepwise import RiemannianAdam as RiemannianAdam
from .stepwise import RiemannianSGD as RiemannianSGD
from .stepwise import StepFlags as StepFlags
