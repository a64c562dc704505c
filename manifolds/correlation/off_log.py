"""The off-log metric of correlation matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..chart import Linearized, derivative_along
from ..euclidean import Euclidean
from ..functional.correlation import hollow, lifted_correlation, unit_diagonal, with_ones
from ..functional.hollow_matrices import (
    form_factors,
    hollow_from_vector,
    hollow_vector,
    scaled_subspaces,
)
from ..functional.matrices import sym
from ..functional.off_log_derivatives import correlation_from_off, tangent_map, tangent_map_from_off
from ..functional.spectral import decomposed, function_at
from ..functional.spectral_functions import LOG
from ..functional.spectral_pushforward import function_and_derivatives
from ..operation import operation
from ..options import check_finite
from .invariant_form import InvariantForm
from .space import Correlation


@dataclass(frozen=True, eq=False)
class OffLogarithm(InvariantForm):
    """The n(n-1)/2 coordinates of the entries of log C off the diagonal, orthonormal for the quadratic form with alpha,
    beta and gamma. Onto: its inverse is `log_from_off`."""

    alpha: float
    beta: float
    gamma: float

    _factor_names = "alpha", "alpha + (n - 2)/2 beta", "alpha + (n - 1)(beta + n gamma)"

    def differential(self, x: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """The coordinates, and those of the derivatives of the logarithm, from one eigendecomposition."""
        moved = map(hollow, vectors)
        return tuple(map(self._coordinates, function_and_derivatives(with_ones(x), LOG, *moved, definite=True)))

    def inverse_differential(self, y: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """The point, and the derivatives along the matrices of `vectors`."""
        x, *moved = correlation_from_off(*map(self._matrix, (y, *vectors)))
        return lifted_correlation(unit_diagonal(x)), *map(hollow, moved)

    def inverse_adjoint(self, y: Tensor, g: Tensor) -> Tensor:
        """The coordinates of the same derivative, which is self-adjoint, along g."""
        return self._dual(tangent_map_from_off(self._matrix(y))(g))

    def linearized(self, x: Tensor) -> Linearized:
        """From one eigendecomposition of x, without the way to y and back."""
        x, a, Q = decomposed(sym(with_ones(x)), True, True)
        H = hollow(function_at(x, a, Q, LOG))
        along = tangent_map(H, a.log(), Q)
        return Linearized(
            self._coordinates(H), lambda v: hollow(along(self._matrix(v))), lambda g: self._dual(along(g))
        )

    # ---- coordinates ------------------------------------------------------------------------------------------

    def _factors(self, n: int) -> tuple[float, float, float]:
        return form_factors(self.alpha, self.beta, self.gamma, n)

    def _vector(self, X: Tensor, power: float) -> Tensor:
        return hollow_vector(scaled_subspaces(hollow(X), self._factors(X.shape[-1]), power))

    def _matrix(self, y: Tensor) -> Tensor:
        X = hollow_from_vector(y)
        return scaled_subspaces(X, self._factors(X.shape[-1]), -0.5)


@final
@dataclass(frozen=True, eq=False)
class CorrelationOffLog(Correlation):
    r"""Correlation matrices ``*B,n,n`` with the metric that their logarithms, of which the diagonal is dropped, carry
    over from symmetric matrices with zeros on the diagonal:

        dist(x, y)^2 = alpha tr Z^2 + beta |Z 1|^2 + gamma (1^T Z 1)^2,    Z = off(log x - log y),

    Flat and complete: the injectivity radius is infinite. Invariant under permutations of rows and columns, and under
    changes of signs if beta = gamma = 0. A gyro manifold with a commutative addition. Means are closed: the matrix of
    the mean of the logarithms off the diagonal.

    Points to coordinates, and derivatives at a point, take one eigendecomposition; the way back from coordinates takes
    Newton's method, with 4 of them for a condition number of 1e2, 5 for 1e4, 6 for 1e8, 7 for 1e12. So `dist`,
    `logmap`, `inner`, `egrad2rgrad` and transports take one a point; `expmap`, `geodesic` and means one way back. In
    float64 both round trips, through coordinates and of exp and log, are right to ``eps cond(x)``, that through
    coordinates to 2e-14 up to a condition of 1e12.

    Args:
        alpha: of the Frobenius product.
        beta: of the product of the sums of rows.
        gamma: of the product of the sums of all entries. None of the three changes geodesics, transport or means. The
            form has to be positive, which is checked where n is known: ``alpha > 0`` if n > 3,
            ``alpha + (n - 2)/2 beta > 0`` if n > 2, and ``alpha + (n - 1)(beta + n gamma) > 0``.

    Thanwerdas 2024, "Permutation-invariant log-Euclidean geometries on full-rank correlation matrices", doi
    10.1137/22M1538144; Archakov and Hansen 2021, arXiv:2012.02395, for the coordinates.

    Raises ``ValueError`` if one of the three is no finite number.
    """

    alpha: float = 1.0
    beta: float = 0.0
    gamma: float = 0.0

    name: ClassVar[str] = "CorrelationOffLog"
    codomain: ClassVar[Euclidean] = Euclidean()

    def __post_init__(self) -> None:
        check_finite(self.name, alpha=self.alpha, beta=self.beta, gamma=self.gamma)

    @property
    def chart(self) -> OffLogarithm:  # type: ignore[override]
        """The logarithm off the diagonal, in coordinates."""
        return OffLogarithm(self.alpha, self.beta, self.gamma)

    @operation
    def ehess2rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor:
        """Df^-1 of the Euclidean Hessian of the function carried to coordinates: (Df^-1)^T h and the derivative along
        u of (Df^-1)^T g. All at x: no way back from coordinates is taken."""
        x, g, h, u = (t.contiguous() for t in torch.broadcast_tensors(x, g, h, u))  # for dual numbers
        _, pull, adjoint = self.chart.linearized(x)
        turned = derivative_along(lambda at: self.chart.linearized(at).adjoint(g), x, u)[1]
        return pull(turned + adjoint(h))
