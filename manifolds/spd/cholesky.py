"""Metrics of positive definite matrices that are flat in their Cholesky factors. No eigenvalue is computed."""

from __future__ import annotations

import abc
import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ..euclidean import Euclidean
from ..functional.cone import lifted
from ..functional.matrices import sym
from ..functional.triangular import diagonal, half
from ..kernels import (
    cholesky,
    cholesky_difference,
    cholesky_dist,
    cholesky_exp,
    cholesky_log,
    cholesky_with_inverse,
)
from ..operation import in_full_precision, operation
from ..pullback_metric import PullbackMetric
from .cholesky_chart import CholeskyFactor, Weights, check_weights
from .options import check_power
from .space import SPD


class CholeskyMetric(SPD, PullbackMetric, abc.ABC):
    """The metric that `CholeskyFactor` carries over from flat space, with closed forms in the factors."""

    weights: Weights
    power: float
    codomain: ClassVar[Euclidean] = Euclidean()

    def __post_init__(self) -> None:
        check_weights(type(self).__name__, self.weights)

    @property
    def chart(self) -> CholeskyFactor:  # type: ignore[override]
        """The Cholesky factor."""
        return CholeskyFactor(self.power, self.weights)

    def in_dtype(self, dtype: torch.dtype) -> Any:
        """The same space with weights that are a tensor in `dtype`, which its points have."""
        w = self.weights
        if not isinstance(w, Tensor) or w.dtype == dtype:
            return self
        return dataclasses.replace(self, weights=w.to(dtype))  # type: ignore[type-var]

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        complaint, w = super()._shape_complaint(point_shape), self.weights
        if complaint is None and w is not None and len(w) != point_shape[-1]:
            return f"there are {len(w)} weights, which is for points of as many rows, got {point_shape[-1]}"
        return complaint

    # ---- the metric -------------------------------------------------------------------------------------------

    @operation
    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """The distance of the images, by differences of which near points lose no digit."""
        return self._with_keepdim(cholesky_dist(x, y, self.chart.root_weights(x), self.power), keepdim)

    @operation
    def dist2(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """Its square."""
        found = cholesky_difference(x, y, self.chart.root_weights(x), self.power)
        return found.square().sum((-2, -1), keepdim)

    @operation
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """``K K^T`` with K = L + X, but ``L_jj exp(delta_j)`` on the diagonal."""
        return cholesky_exp(x, u, self.power, False)

    @operation
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """``L X^T + X L^T`` with X = K - L, but ``L_jj s_j`` on the diagonal."""
        return cholesky_log(x, y, self.power, False)

    @operation
    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """As `expmap`, with ``positive_linear(p s_j)`` in the place of 1 + p s_j: a point in any case, lifted into the
        cone where its numbers are none."""
        return lifted(cholesky_exp(x, u, self.power, True))

    @operation
    def inverse_retr(self, x: Tensor, y: Tensor) -> Tensor:
        """The tangent vector that `retr` sends to `y`, in closed form."""
        return cholesky_log(x, y, self.power, True)

    @operation
    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The retraction, and `v` transported to it."""
        y = self.retr(x, u)
        return y, self.transp(x, y, v)


@final
@dataclass(frozen=True, eq=False)
class SPDLogCholesky(CholeskyMetric):
    r"""Symmetric positive definite matrices with the log-Cholesky metric (Lin 2019, arXiv:1908.09326). Points are
    ``*B,n,n``.

    With ``x = L L^T`` and the derivative ``X = L half(L^-1 u L^-T)`` of L along u, where `half` takes the lower
    triangle with half of the diagonal,

        <u, u>_x = sum_{i>j} X_ij^2 + sum_j w_j X_jj^2/L_jj^2,
        dist^2(x, y) = sum_{i>j} (K_ij - L_ij)^2 + sum_j w_j log^2(K_jj/L_jj),        y = K K^T.

    The space is flat and complete, the lower triangle of L and ``sqrt(w_j) log L_jj`` are coordinates of R^(n(n+1)/2).
    Everything is closed, and nothing takes an eigendecomposition. It is not invariant under congruence or permutation:
    the order of the rows matters. As a gyro-structure it is a vector space; ``x (+) y`` has the factor with L + K below
    the diagonal and ``L_jj K_jj`` on it, ``t (*) x`` the one with t L and ``L_jj^t``, which is not the power x^t.

    Below the diagonal lengths grow as the root of x, on it they depend on ratios only.

    Args:
        weights: w, a tuple of n positive numbers or a 1-dim tensor, which may be learned; ones by default. Points then
            have n rows.

    Raises ``ValueError`` if `weights` are something else.
    """

    weights: Weights = None

    name: ClassVar[str] = "SPDLogCholesky"
    power: ClassVar[float] = 0.0  # type: ignore[misc]


@final
@dataclass(frozen=True, eq=False)
class SPDPowerCholesky(CholeskyMetric):
    r"""Symmetric positive definite matrices with the power-Cholesky metric (Chen et al. 2024, arXiv:2407.02607). Points
    are ``*B,n,n``.

    With ``x = L L^T``, ``X = L half(L^-1 u L^-T)`` and p = `power`,

        <u, u>_x = sum_{i>j} X_ij^2 + sum_j w_j L_jj^(2p-2) X_jj^2,
        dist^2(x, y) = sum_{i>j} (K_ij - L_ij)^2 + sum_j w_j (K_jj^p - L_jj^p)^2/p^2,        y = K K^T.

    Flat: the lower triangle of L and ``sqrt(w_j) L_jj^p/p`` are coordinates, of any sign below the diagonal and of one
    sign on it. So any two points have a geodesic between them and any set of points a mean, but the space is
    *incomplete*: `expmap` is NaN where ``1 + p X_jj/L_jj <= 0`` for some j, as `exp_is_defined` tells, and `retr`, of
    second order, never leaves the space. As seen from the identity a sum has ``L_jj^p + K_jj^p - 1`` on the diagonal,
    which may be negative: there is no gyro-structure. For p -> 0 it is `SPDLogCholesky`, linearly in p; then means and
    transports have an error of some eps/|p|.

    The Bures-Wasserstein-Cholesky metric of arXiv:2407.02607 with power t and base matrix diag(M_1 .. M_n) is
    ``SPDPowerCholesky(t / 2, tuple(0.25 / m for m in M))``.

    Args:
        power: p, a number that is not 0.
        weights: w, a tuple of n positive numbers or a 1-dim tensor, which may be learned; ones by default.

    Raises ``ValueError`` if `power` or `weights` are something else.
    """

    power: float
    weights: Weights = None

    name: ClassVar[str] = "SPDPowerCholesky"

    def __post_init__(self) -> None:
        check_power("SPDPowerCholesky", self.power)
        super().__post_init__()

    @property
    def retraction_order(self) -> int:
        """2."""
        return 2

    @property
    def has_gyro_structure(self) -> bool:
        """False."""
        return False

    def _gyro_reason(self) -> str:
        return ": a sum as seen from the identity has L_jj^p + K_jj^p - 1 on the diagonal, which may be negative"

    @operation
    def exp_is_defined(self, x: Tensor, u: Tensor) -> Tensor:
        """Where ``1 + p X_jj/L_jj > 0`` for all j."""
        inverse = cholesky_with_inverse(x)[1]
        s = half(sym(inverse @ u @ inverse.mT))
        return (self.power * diagonal(s) > -1).all(-1)

    @in_full_precision
    def injectivity_radius(self, x: Tensor | None = None) -> float | Tensor:
        """The distance to the boundary, the least of ``sqrt(w_j) L_jj^p/|p|``; without `x` its infimum, zero."""
        if x is None:
            return 0.0
        self.check_operands("injectivity_radius", [x])
        d = diagonal(cholesky(x))
        return (self.chart.root_weights(d) * d**self.power).amin(-1) / abs(self.power)
