"""Charts of positive definite matrices."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..chart import Chart, Linearized
from ..functional.definite import inside_or_nan, positive_definite
from ..functional.elementary_functions import SmoothFunction
from ..functional.matrices import sym, symmetric_from_vector, symmetric_vector
from ..functional.spectral import decomposed, function_at, symmetric_function
from ..functional.spectral_functions import EXP, LOG, power_function
from ..functional.spectral_pushforward import function_and_derivatives, function_and_inverse
from .options import from_frobenius, to_frobenius


@dataclass(frozen=True, eq=False)
class MatrixPower(Chart):
    """x^p of a positive definite matrix, p != 0. A power of one costs nothing.

    It deforms a metric by a power, ``Scaled(Pullback(SPDLogCholesky(), MatrixPower(p)), 1/|p|)``, where the metric has
    no option of its own for that.
    """

    power: float

    ndim: ClassVar[int] = 2

    def forward(self, x: Tensor) -> Tensor:
        """x^p."""
        return x if self.power == 1 else symmetric_function(x, power_function(self.power), True)

    def inverse(self, y: Tensor) -> Tensor:
        """y^(1/p)."""
        return y if self.power == 1 else symmetric_function(y, power_function(1 / self.power))

    def differential(self, x: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """x^p and its derivatives along `vectors`, from one eigendecomposition."""
        if self.power == 1:
            return x, *vectors
        return function_and_derivatives(x, power_function(self.power), *vectors, definite=True)

    def inverse_differential(self, y: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """y^(1/p) and its derivatives along `vectors`."""
        return (
            (y, *vectors) if self.power == 1 else function_and_derivatives(y, power_function(1 / self.power), *vectors)
        )

    def inverse_adjoint(self, y: Tensor, g: Tensor) -> Tensor:
        """The derivative of the inverse, which is self-adjoint, along the symmetric part of `g`."""
        return self.inverse_differential(y, sym(g))[1]

    def linearized(self, x: Tensor) -> Linearized:
        """From one eigendecomposition."""
        if self.power == 1:
            return Linearized(x, lambda v: v, sym)
        functions = power_function(self.power), power_function(1 / self.power)
        y, pull = function_and_inverse(x, *functions, definite=True)
        return Linearized(y, pull, pull)

    def inverse_is_defined(self, y: Tensor) -> Tensor:
        """Of positive definite matrices."""
        return positive_definite(y)


@dataclass(frozen=True, eq=False)
class LearnedPower(Chart):
    """x^p = exp(p log x) of a positive definite matrix, p != 0 in a tensor without dimensions, in which it has a
    derivative as well."""

    power: Tensor

    ndim: ClassVar[int] = 2

    def forward(self, x: Tensor) -> Tensor:
        """x^p, from one eigendecomposition."""
        A, a, Q = decomposed(sym(x), True, True)
        exponents = (self.power * a.log()).detach()
        return sym(function_at(self.power * function_at(A, a, Q, LOG), exponents, Q, EXP))

    def inverse(self, y: Tensor) -> Tensor:
        """y^(1/p)."""
        return LearnedPower(1 / self.power).forward(y)

    def differential(self, x: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """x^p and its derivatives along `vectors`."""
        logarithms = function_and_derivatives(x, LOG, *vectors, definite=True)
        scaled = [self.power * v for v in logarithms]
        return function_and_derivatives(scaled[0], EXP, *scaled[1:])

    def inverse_differential(self, y: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """y^(1/p) and its derivatives along `vectors`."""
        return LearnedPower(1 / self.power).differential(y, *vectors)

    def inverse_adjoint(self, y: Tensor, g: Tensor) -> Tensor:
        """The derivative of the inverse, which is self-adjoint, along the symmetric part of `g`."""
        return self.inverse_differential(y, sym(g))[1]

    def inverse_is_defined(self, y: Tensor) -> Tensor:
        """Of positive definite matrices."""
        return positive_definite(y)


def power_chart(p: float | Tensor) -> MatrixPower | LearnedPower:
    """The chart x^p."""
    return LearnedPower(p) if isinstance(p, Tensor) else MatrixPower(p)


@dataclass(frozen=True, eq=False)
class MatrixLogarithm(Chart):
    """log x of a positive definite matrix, all symmetric matrices."""

    ndim: ClassVar[int] = 2

    def forward(self, x: Tensor) -> Tensor:
        """log x."""
        return symmetric_function(x, LOG, True)

    def inverse(self, y: Tensor) -> Tensor:
        """exp y."""
        return symmetric_function(y, EXP)

    def differential(self, x: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """log x and its derivatives along `vectors`, from one eigendecomposition."""
        return function_and_derivatives(x, LOG, *vectors, definite=True)

    def inverse_differential(self, y: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """exp y and its derivatives along `vectors`."""
        return function_and_derivatives(y, EXP, *vectors)

    def inverse_adjoint(self, y: Tensor, g: Tensor) -> Tensor:
        """The derivative of exp, which is self-adjoint, along the symmetric part of `g`."""
        return self.inverse_differential(y, sym(g))[1]

    def linearized(self, x: Tensor) -> Linearized:
        """From one eigendecomposition."""
        y, pull = function_and_inverse(x, LOG, EXP, definite=True)
        return Linearized(y, pull, pull)


class SpectralVector(Chart):
    """The n(n+1)/2 coordinates of ``phi(f(x))``, with f a function of eigenvalues and phi a self-adjoint linear map of
    symmetric matrices: orthonormal for the Frobenius product of these. An item that is not positive definite gives NaN.

    A class states f and its inverse, None for the identity, and phi and its inverse.
    """

    ndim: ClassVar[int] = 2
    function: SmoothFunction | None
    inverse_function: SmoothFunction | None

    @abc.abstractmethod
    def phi(self, X: Tensor) -> Tensor: ...

    @abc.abstractmethod
    def _phi_inverse(self, Y: Tensor) -> Tensor: ...

    def matrices(self, x: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """f(x), and its derivatives along `vectors`, from one eigendecomposition."""
        if self.function is None:
            return (inside_or_nan(x), *map(sym, vectors))
        return function_and_derivatives(x, self.function, *vectors, definite=True)

    def with_inverse_derivative(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """f(x), and the inverse of its derivative there, which is self-adjoint."""
        if self.function is None or self.inverse_function is None:
            return inside_or_nan(x), sym
        return function_and_inverse(x, self.function, self.inverse_function, definite=True)

    def point(self, X: Tensor) -> Tensor:
        """The x with this f(x)."""
        return sym(_with_derivatives(self.inverse_function, X)[0])

    def _coordinates(self, X: Tensor) -> Tensor:
        return symmetric_vector(self.phi(X))

    def _matrix(self, y: Tensor) -> Tensor:
        return self._phi_inverse(symmetric_from_vector(y))

    def base_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """n(n+1)/2."""
        n = point_shape[-1]
        return (n * (n + 1) // 2,)

    def forward(self, x: Tensor) -> Tensor:
        """The coordinates of phi(f(x))."""
        return self.differential(x)[0]

    def inverse(self, y: Tensor) -> Tensor:
        """f^-1 of the matrix of `y`."""
        return self.inverse_differential(y)[0]

    def differential(self, x: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """The coordinates, and their derivatives along `vectors`, from one eigendecomposition."""
        return tuple(map(self._coordinates, self.matrices(x, *vectors)))

    def inverse_differential(self, y: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """f^-1 and its derivatives, from one eigendecomposition."""
        found = _with_derivatives(self.inverse_function, *map(self._matrix, (y, *vectors)))
        return tuple(map(sym, found))

    def inverse_adjoint(self, y: Tensor, g: Tensor) -> Tensor:
        """Coordinates of phi^-1 of the derivative of f^-1, which is self-adjoint, along `g`."""
        return self._dual(_with_derivatives(self.inverse_function, self._matrix(y), sym(g))[1])

    def _dual(self, X: Tensor) -> Tensor:
        return symmetric_vector(self._phi_inverse(X))

    def linearized(self, x: Tensor) -> Linearized:
        """From one eigendecomposition."""
        value, pull = self.with_inverse_derivative(x)
        return Linearized(self._coordinates(value), lambda v: sym(pull(self._matrix(v))), lambda g: self._dual(pull(g)))


def _with_derivatives(f: SmoothFunction | None, A: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
    if f is None:
        return (A, *map(sym, vectors))
    return function_and_derivatives(A, f, *vectors) if vectors else (symmetric_function(A, f),)


@dataclass(frozen=True, eq=False)
class LogarithmVector(SpectralVector):
    """log x, orthonormal for ``alpha |X|^2 + beta (tr X)^2``: phi is `to_frobenius`."""

    alpha: float
    beta: float

    function: ClassVar[SmoothFunction] = LOG  # pyright: ignore[reportIncompatibleVariableOverride]
    inverse_function: ClassVar[SmoothFunction] = EXP  # pyright: ignore[reportIncompatibleVariableOverride]

    def phi(self, X: Tensor) -> Tensor:
        return to_frobenius(X, self.alpha, self.beta)

    def _phi_inverse(self, Y: Tensor) -> Tensor:
        return from_frobenius(Y, self.alpha, self.beta)


@dataclass(frozen=True, eq=False)
class PowerVector(SpectralVector):
    """x^p/p, p != 0. The images are a cone; what is none gives NaN. A power of one takes no eigendecomposition."""

    power: float

    @property
    def function(self) -> SmoothFunction | None:  # type: ignore[override]
        """x^p."""
        return None if self.power == 1 else power_function(self.power)

    @property
    def inverse_function(self) -> SmoothFunction | None:  # type: ignore[override]
        """x^(1/p)."""
        return None if self.power == 1 else power_function(1 / self.power)

    def phi(self, X: Tensor) -> Tensor:
        return X / self.power

    def _phi_inverse(self, Y: Tensor) -> Tensor:
        return self.power * Y

    def inverse_differential(self, y: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """(p y)^(1/p) and its derivatives."""
        lost = torch.where(self.inverse_is_defined(y), 0.0, torch.nan).to(y.dtype)
        return super().inverse_differential(y + lost.unsqueeze(-1), *vectors)

    def point(self, X: Tensor) -> Tensor:
        """X^(1/p)."""
        inverse = self.inverse_function
        return inside_or_nan(X) if inverse is None else sym(symmetric_function(X, inverse, True))

    def inverse_is_defined(self, y: Tensor) -> Tensor:
        """Where ``p y`` is positive definite."""
        return positive_definite(self._matrix(y))
