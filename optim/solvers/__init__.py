"""Solvers of full-batch problems, in the closure form of `torch.optim.LBFGS`."""

from .conjugate_gradient import RiemannianCG as RiemannianCG
from .lbfgs import RiemannianLBFGS as RiemannianLBFGS
from .trust_region import RiemannianTrustRegion as RiemannianTrustRegion
