"""Coordinates that are orthonormal for a quadratic form with three coefficients, invariant under permutations."""

from __future__ import annotations

import abc
from typing import ClassVar

from torch import Tensor

from ..chart import Chart


class InvariantForm(Chart, abc.ABC):
    """A chart of correlation matrices, ``*B,n,n -> *B,n(n-1)/2``, by way of symmetric matrices X of which n(n-1)/2
    entries are free.

    These fall into three parts that permutations map to themselves. So a form that is invariant under permutations
    multiplies the squared norm of each part by one factor, and its coordinates are those of X with the three parts
    times the roots of the factors.
    """

    ndim: ClassVar[int] = 2
    _factor_names: ClassVar[tuple[str, str, str]]  # in the coefficients of the form, for messages

    @abc.abstractmethod
    def _factors(self, n: int) -> tuple[float, float, float]:
        """Those of the three parts, for n x n correlation matrices."""

    @abc.abstractmethod
    def _vector(self, X: Tensor, power: float) -> Tensor:
        """X with its parts times that power of the factors, as a vector of the same norm."""

    @abc.abstractmethod
    def _matrix(self, y: Tensor) -> Tensor:
        """The matrix X with the coordinates y."""

    def _coordinates(self, X: Tensor) -> Tensor:
        return self._vector(X, 0.5)

    def _dual(self, X: Tensor) -> Tensor:
        """The transpose of `_matrix`."""
        return self._vector(X, -0.5)

    def complaint(self, point_shape: tuple[int, ...]) -> str | None:
        """Where the form is not positive, the factor that is not. Of two rows there is the last part only, of three
        rows there are the last two."""
        n = point_shape[-1]
        factors = list(zip(self._factor_names, self._factors(n), strict=True))
        for name, factor in factors[3 - min(n - 1, 3) :]:
            if not factor > 0:
                return f"the form is not positive: {name} must be so for {n} x {n} matrices, got {factor:.4g}"
        return None

    def base_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """n (n - 1)/2 numbers."""
        return (point_shape[-1] * (point_shape[-1] - 1) // 2,)

    def forward(self, x: Tensor) -> Tensor:
        """The coordinates of X."""
        return self.differential(x)[0]

    def inverse(self, y: Tensor) -> Tensor:
        """The correlation matrix of the X with the coordinates y."""
        return self.inverse_differential(y)[0]
