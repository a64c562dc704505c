"""The metric of correlation matrices that reads the logarithm of what has row sums one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..chart import Chart, Linearized
from ..euclidean import Euclidean
from ..functional.log_scaling import (
    Rooted,
    exp_scaling,
    log_scaling,
    pulled,
    pushed,
    rooted,
    scaled,
    zero_sum_basis,
)
from ..functional.matrices import congruent, identity_like, symmetric_from_vector, symmetric_vector
from ..functional.spectral import function_at
from ..functional.spectral_functions import EXP, LOG
from ..functional.spectral_pushforward import derivative_at, function_and_derivatives
from ..functional.triangular import diagonal
from .space import Correlation


@dataclass(frozen=True, eq=False)
class LogScaling(Chart):
    """Z = log(F^T diag(x) C diag(x) F), in coordinates that are orthonormal for ``alpha tr(S^2) + delta tr(Diag(S)^2) +
    zeta tr(S)^2`` of ``S = F Z F^T``. ``*B,n,n -> *B,n(n-1)/2``.

    The permutations leave three spaces of symmetric matrices with row sums zero as they are, on each of which the form
    is a multiple of tr(S^2): the multiples of ``F F^T``; ``F F^T diag(v) F F^T`` with the sum of v zero, for n > 2;
    and what has a zero diagonal, for n > 3.
    """

    alpha: float
    delta: float
    zeta: float

    ndim: ClassVar[int] = 2

    def base_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """n (n - 1)/2 numbers."""
        return (point_shape[-1] * (point_shape[-1] - 1) // 2,)

    def forward(self, x: Tensor) -> Tensor:
        """The coordinates of Z."""
        return self.differential(x)[0]

    def inverse(self, y: Tensor) -> Tensor:
        """cor(exp S)."""
        return self.inverse_differential(y)[0]

    def differential(self, x: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """From one scaling and one eigendecomposition."""
        return tuple(map(self._coordinates, log_scaling(x, *vectors)))

    def inverse_differential(self, y: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """From one eigendecomposition."""
        return exp_scaling(*map(self._matrix, (y, *vectors)))

    def inverse_adjoint(self, y: Tensor, g: Tensor) -> Tensor:
        """The derivative of exp is self-adjoint."""
        Z = 0.5 * self._matrix(y)
        at = rooted(function_and_derivatives(Z, EXP)[0])
        return self._dual(function_and_derivatives(Z, EXP, pulled(at, g))[1])

    def linearized(self, x: Tensor) -> Linearized:
        """From one scaling and one eigendecomposition, whose vectors are those of Z too."""
        s = scaled(x, False)
        Z = function_at(s.B, s.a, s.Q, LOG)
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

    def _coordinates(self, Z: Tensor) -> Tensor:
        return symmetric_vector(_by_parts(Z, *self._roots(Z)))

    def _matrix(self, y: Tensor) -> Tensor:
        Z = symmetric_from_vector(y)
        return _by_parts(Z, *(1 / root for root in self._roots(Z)))

    def _dual(self, G: Tensor) -> Tensor:
        return symmetric_vector(_by_parts(G, *(1 / root for root in self._roots(G))))

    def _roots(self, Z: Tensor) -> list[float]:
        return [math.sqrt(value) for value in form_values(self.alpha, self.delta, self.zeta, Z.shape[-1] + 1)]


def form_values(alpha: float, delta: float, zeta: float, n: int) -> tuple[float, float, float]:
    """The form over tr(S^2), on the three spaces of `LogScaling` in that order. Where there is none, the value of the
    one before stands for it."""
    spherical = alpha + delta * (n - 1) / n + zeta * (n - 1)
    standard = alpha + delta * (n - 2) / n if n > 2 else spherical
    return spherical, standard, alpha if n > 3 else standard


def _by_parts(Z: Tensor, spherical: float, standard: float, rest: float) -> Tensor:
    """The parts of a symmetric matrix in the three spaces, times a number each. Self-adjoint."""
    result = rest * Z
    if spherical == standard == rest:
        return result
    n, F = Z.shape[-1] + 1, zero_sum_basis(Z.shape[-1] + 1, Z)
    d = diagonal(congruent(F, Z))
    mean = d.mean(-1, keepdim=True)
    result = result + (spherical - rest) * (n / (n - 1)) * mean.unsqueeze(-1) * identity_like(Z)
    if standard == rest:
        return result
    return result + (standard - rest) * (n / (n - 2)) * (F.mT @ ((d - mean).unsqueeze(-1) * F))


@final
@dataclass(frozen=True, eq=False)
class CorrelationLogScaled(Correlation):
    r"""Correlation matrices ``*B,n,n`` with the metric that ``S = log(diag(x) C diag(x))`` carries over from the
    symmetric matrices with row sums zero, where x > 0 is what makes all row sums of ``diag(x) C diag(x)`` one:

        dist(C, D)^2 = q(S_C - S_D),   q(S) = alpha tr(S^2) + delta tr(Diag(S)^2) + zeta tr(S)^2

    Flat and complete: the injectivity radius is infinite, means are closed. Invariant under permutations, and under
    ``C -> cor(C^-1)``, which takes S to -S. A gyro manifold with a commutative addition. q is every quadratic form that
    permutations leave as it is.

    Each point takes one eigendecomposition and a Newton iteration (some 5 steps at condition 10, 7 at 1e4, 10 at 1e8,
    of a Cholesky factorisation each), the way back, ``C = cor(exp S)``, an eigendecomposition alone. Both are sought in
    float64. A round trip is right to some ``eps cond(C)``.

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

    def __post_init__(self) -> None:
        for name in ("alpha", "delta", "zeta"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(f"CorrelationLogScaled: {name} must be a finite number, got {value!r}")

    @property
    def codomain(self) -> Euclidean:  # type: ignore[override]
        """The coordinates of symmetric matrices with row sums zero."""
        return Euclidean()

    @property
    def chart(self) -> LogScaling:  # type: ignore[override]
        """The logarithm, in coordinates."""
        return LogScaling(self.alpha, self.delta, self.zeta)

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        complaint = super()._shape_complaint(point_shape)
        if complaint is not None:
            return complaint
        n = point_shape[-1]
        names = ("alpha + delta (n-1)/n + zeta (n-1)", "alpha + delta (n-2)/n", "alpha")
        for name, value in list(zip(names, form_values(self.alpha, self.delta, self.zeta, n), strict=True))[: n - 1]:
            if not value > 0:
                return (
                    f"{name} must be positive for {n} x {n} matrices, got {value:.4g} of alpha = {self.alpha!r}, delta "
                    f"= {self.delta!r}, zeta = {self.zeta!r}"
                )
        return None
