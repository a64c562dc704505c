"""The Bures-Wasserstein metric without base and power: its operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..functional.bures_wasserstein import bures_domain, bures_moved
from ..functional.bures_wasserstein_metric import bures_basis, bures_curvature, bures_log_volume, bures_noise
from ..functional.cone import lifted
from ..functional.decompositions import eigenvalues
from ..functional.definite import inside_or_nan
from ..functional.matrices import identity_like, sym
from ..functional.spectral import symmetric_function
from ..functional.spectral_functions import INVERSE_POSITIVE_LINEAR, POSITIVE_LINEAR
from ..kernels.bures_wasserstein import bures_displacement, bures_dist, bures_dist2, bures_transport, lyapunov
from ..kernels.cholesky import cholesky
from ..operation import in_full_precision, operation
from .space import SPD


@final
@dataclass(frozen=True, eq=False)
class BuresWassersteinMetric(SPD):
    """The metric itself. S is the solution of ``x S + S x = u``."""

    name: ClassVar[str] = "BuresWassersteinMetric"
    # The step exp_mu(sum w log_mu x) is T mu T with T the mean of the transport maps: the fixed point iteration of
    # Alvarez-Esteban, del Barrio, Cuesta-Albertos and Matran 2016, arXiv:1511.05355, theorem 4.2.
    _mean_descends: ClassVar[bool] = True

    @property
    def retraction_order(self) -> int:
        """2."""
        return 2

    # ---- metric -----------------------------------------------------------------------------------------------

    @operation
    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """1/2 tr(S v)."""
        v = u if v is None else v
        return self._with_keepdim(0.5 * (lyapunov(x, sym(u)) * sym(v)).sum((-2, -1)), keepdim)

    @operation
    def egrad2rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        """2 (g x + x g)."""
        return 4 * sym(sym(g) @ inside_or_nan(x))  # of no point it would be a number

    @operation
    def ehess2rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor:
        """2 (h x + x h) + 2 (g S x + x S g): the derivative of 2 (g x + x g) along u, less ``S x 2g + 2g x S``."""
        return 4 * sym((sym(h) + sym(g) @ lyapunov(x, sym(u))) @ sym(x))

    @operation
    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """|R - L| with x = L L^T, y = R R^T and L^T R symmetric: orthogonal Procrustes."""
        return self._with_keepdim(bures_dist(x, y), keepdim)

    @operation
    def dist2(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """The square of that: tr x + tr y - 2 tr (x^1/2 y x^1/2)^1/2."""
        return self._with_keepdim(bures_dist2(x, y), keepdim)

    @operation
    def sectional_curvature(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """3/2 sum a_i a_j/(a_i + a_j) [S_u, S_v]_ij^2 of orthonormal vectors, in eigenvectors of x: never negative."""
        return bures_curvature(x, u, v)

    @in_full_precision
    def injectivity_radius(self, x: Tensor | None = None) -> float | Tensor:
        """sqrt of the least eigenvalue: the distance to singular matrices, at which a geodesic ends. 0 without x."""
        if x is None:
            return 0.0
        # In float64: float32 finds the least eigenvalue to eps of the largest only.
        return eigenvalues(inside_or_nan(x).double())[..., 0].sqrt().to(x.dtype)

    def _unit_of_length(self, x: Tensor) -> Tensor:
        """sqrt(tr x): the metric has no unit of its own."""
        return x.detach().diagonal(dim1=-2, dim2=-1).sum(-1).sqrt()[..., None, None]

    @operation
    def basis(self, x: Tensor) -> Tensor:
        """The symmetric matrices of one and two entries, made orthonormal."""
        return bures_basis(x)

    @operation
    def logdet_dexp(self, x: Tensor, u: Tensor) -> Tensor:
        """By the eigenvalues of both ends and of x (I + S)."""
        return bures_log_volume(x, lyapunov(x.double(), sym(u).double()))

    def random_tangent(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal coordinates in an orthonormal basis."""
        self.check_operands("random_tangent", [x])
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return self._drawn_at(x, noise)

    @in_full_precision
    def _drawn_at(self, x: Tensor, noise: Tensor) -> Tensor:
        return bures_noise(x, noise)

    # ---- geodesics and transports -----------------------------------------------------------------------------

    @operation
    def exp_is_defined(self, x: Tensor, u: Tensor) -> Tensor:
        """Where I + S is positive definite."""
        return bures_domain(lyapunov(x, sym(u)))

    @operation
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """(I + S) x (I + S)."""
        return bures_moved(x, lyapunov(x, sym(u)))

    @operation
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """S x + x S with S = T - I, T the optimal transport map: positive definite, T x T = y."""
        return 2 * sym(bures_displacement(x, y) @ sym(x))

    @in_full_precision
    def geodesic(self, x: Tensor, y: Tensor, t: Tensor | float) -> Tensor:
        """(I + tS) x (I + tS) with S = T - I."""
        self._check_geodesic(x, y, t)
        s = bures_displacement(x, y)
        return bures_moved(x, self._per_point(t, s) * s)

    @operation
    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """f(S) x f(S), with f(s) = 1 + s, or 1/(1 - s + s^2) for s < 0: a point for every u."""
        # Of a factor: what rounding leaves of the product is no more than some eps of its own trace.
        root = symmetric_function(lyapunov(x, sym(u)), POSITIVE_LINEAR) @ cholesky(x)
        return lifted(sym(root @ root.mT))

    @operation
    def inverse_retr(self, x: Tensor, y: Tensor) -> Tensor:
        """S x + x S with f(S) = T."""
        t = bures_displacement(x, y) + identity_like(x)
        return 2 * sym(symmetric_function(t, INVERSE_POSITIVE_LINEAR) @ sym(x))

    @operation
    def parallel_transport(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """By Gauss's method on two intervals of eight nodes."""
        return bures_transport(x, bures_displacement(x, y), v)

    @operation
    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The end of the geodesic, and the vector transported along it."""
        s = lyapunov(x, sym(u))
        return bures_moved(x, s), bures_transport(x, s, v)
