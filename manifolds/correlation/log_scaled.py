"""The metric of correlation matrices that reads the logarithm of what has row sums one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from ..chart import Linearized
from ..euclidean import Euclidean
from ..functional.correlation import lifted_correlation
from ..functional.log_scaling import (
    Rooted,
    exp_scaling,
    log_scaling,
    pulled,
    pushed,
    rooted,
    scaled,
)
from ..functional.matrices import symmetric_from_vector, symmetric_vector
from ..functional.spectral import function_at
from ..functional.spectral_functions import EXP
from ..functional.spectral_pushforward import derivative_at, function_and_derivatives
from ..functional.zero_sum_matrices import form_factors, scaled_subspaces
from ..options import check_finite
from .invariant_form import InvariantForm
from .space import Correlation


@dataclass(frozen=True, eq=False)
class LogScaling(InvariantForm):
    """Z = log(F^T diag(x) C diag(x) F), in coordinates that are orthonormal for ``alpha tr(S^2) + delta tr(Diag(S)^2) +
    zeta tr(S)^2`` of ``S = F Z F^T``. ``*B,n,n -> *B,n(n-1)/2``.
    """

    alpha: float
    delta: float
    zeta: float

    _factor_names = "alpha", "alpha + delta (n - 2)/n", "alpha + (n - 1)(delta/n + zeta)"

    def differential(self, x: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """From one scaling and one eigendecomposition."""
        return tuple(map(self._coordinates, log_scaling(x, *vectors)))

    def inverse_differential(self, y: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """From one eigendecomposition."""
        x, *moved = exp_scaling(*map(self._matrix, (y, *vectors)))
        return lifted_correlation(x), *moved

    def inverse_adjoint(self, y: Tensor, g: Tensor) -> Tensor:
        """The derivative of exp is self-adjoint."""
        Z = 0.5 * self._matrix(y)
        at = rooted(function_and_derivatives(Z, EXP)[0])
        return self._dual(function_and_derivatives(Z, EXP, pulled(at, g))[1])

    def linearized(self, x: Tensor) -> Linearized:
        """From one scaling and one eigendecomposition, whose vectors are those of Z too."""
        s = scaled(x)
        Z = s.logarithm
        half, values = 0.5 * Z, 0.5 * s.a.log()

        def along(V: Tensor) -> Tensor:
            return derivative_at(half, values, s.Q, V, EXP)

        def at() -> Rooted:
            return rooted(function_at(half, values, s.Q, EXP))

        return Linearized(
            self._coordinates(Z),
            lambda v: pushed(at(), along(0.5 * self._matrix(v))),
            lambda g: self._dual(along(pulled(at(), g))),
        )

    # ---- coordinates ------------------------------------------------------------------------------------------

    def _factors(self, n: int) -> tuple[float, float, float]:
        return form_factors(self.alpha, self.delta, self.zeta, n)

    def _vector(self, X: Tensor, power: float) -> Tensor:
        return symmetric_vector(scaled_subspaces(X, self._factors(X.shape[-1] + 1), power))

    def _matrix(self, y: Tensor) -> Tensor:
        Z = symmetric_from_vector(y)
        return scaled_subspaces(Z, self._factors(Z.shape[-1] + 1), -0.5)


@final
@dataclass(frozen=True, eq=False)
class CorrelationLogScaled(Correlation):
    r"""Correlation matrices ``*B,n,n`` with the metric that ``S = log(diag(x) C diag(x))`` carries over from the
    symmetric matrices with row sums zero, where x > 0 is what makes all row sums of ``diag(x) C diag(x)`` one:

        dist(C, D)^2 = q(S_C - S_D),   q(S) = alpha tr(S^2) + delta tr(Diag(S)^2) + zeta tr(S)^2

    Flat and complete: the injectivity radius is infinite, means are closed. Invariant under permutations, and under
    ``C -> cor(C^-1)``, which takes S to -S. A gyro manifold with a commutative addition. Every quadratic form that is
    invariant under permutations is such a q.

    Each point takes one eigendecomposition and Newton's method, with 4 to 6 Cholesky factorisations for a condition
    number of 10, 6 to 10 for 1e4, 8 to 12 for 1e8 and 1e12. The way back, ``C = cor(exp S)``, takes an
    eigendecomposition alone. In float64 a round trip of exp and log is right to 25 ``eps cond(C)``, and
    one through coordinates to 2e-10 up to a condition of 1e12.

    Args:
        alpha: of tr(S^2).
        delta: of tr(Diag(S)^2).
        zeta: of tr(S)^2. The form must be positive, which is checked where n is known: ``alpha + delta (n-1)/n +
            zeta (n-1) > 0``, for n > 2 also ``alpha + delta (n-2)/n > 0``, and for n > 3 ``alpha > 0``. None of the
            three changes geodesics, transport or means.

    Thanwerdas 2024, "Permutation-invariant log-Euclidean geometries on full-rank correlation matrices", doi
    10.1137/22M1538144, section 3.4.

    Raises ``ValueError`` if one of the three is no finite number.
    """

    alpha: float = 1.0
    delta: float = 0.0
    zeta: float = 0.0

    name: ClassVar[str] = "CorrelationLogScaled"
    codomain: ClassVar[Euclidean] = Euclidean()

    def __post_init__(self) -> None:
        check_finite(self.name, alpha=self.alpha, delta=self.delta, zeta=self.zeta)

    @property
    def chart(self) -> LogScaling:  # type: ignore[override]
        """The logarithm, in coordinates."""
        return LogScaling(self.alpha, self.delta, self.zeta)
