"""The charts of correlation matrices that read the Cholesky factor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..chart import Chart, Linearized
from ..functional.correlation import with_ones
from ..functional.correlation_factor import (
    below,
    correlation_factor_of_plain,
    derivative_of_rows,
    from_below,
    of_unit_factor,
    unit_factor,
    unit_factor_derivative,
    unit_factor_gradient,
)
from ..functional.matrices import identity_like
from ..functional.rows import dot
from ..functional.tracing import eager_without_derivative
from ..functional.triangular import diagonal, lower_inverse
from ..functional.unipotent import unipotent_exp, unipotent_log
from ..kernels import cholesky, cholesky_with_inverse


def correlation_factor(x: Tensor) -> Tensor:
    """The Cholesky factor L; NaN of an item that has none. ``*B,n,n``."""
    return correlation_factor_of_plain(x) if eager_without_derivative(x) else cholesky(with_ones(x))


def factor_with_inverse(x: Tensor) -> tuple[Tensor, Tensor]:
    """L, and L^-1. ``*B,n,n``."""
    if not eager_without_derivative(x):
        return cholesky_with_inverse(with_ones(x))
    L = correlation_factor_of_plain(x)
    return L, lower_inverse(L)


@dataclass(frozen=True, eq=False)
class UnitFactor(Chart):
    """Theta = D(L)^-1 L below its diagonal, row by row, L the Cholesky factor. ``*B,n,n -> *B,n(n-1)/2``."""

    ndim: ClassVar[int] = 2

    def base_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """n (n - 1)/2 numbers."""
        return (point_shape[-1] * (point_shape[-1] - 1) // 2,)

    def of_factor(self, unit: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """The coordinates of Theta below the diagonal of a lower triangular matrix, of which the diagonal is constant,
        and their derivatives. ``*B,n,n``."""
        return unit, *vectors

    def to_factor(self, V: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """The way back, which does not read the diagonal. ``*B,n,n``; of V^T the derivatives are those of the
        transpose, below the diagonal."""
        return with_ones(V), *vectors

    def forward(self, x: Tensor) -> Tensor:
        """Of the factor of x."""
        return below(self.of_factor(unit_factor(correlation_factor(x)))[0])

    def inverse(self, y: Tensor) -> Tensor:
        """L L^T, of which the rows of L are those of Theta over their lengths."""
        return of_unit_factor(self.to_factor(from_below(y))[0])[0]

    def differential(self, x: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """Along the derivative of Theta, Theta phi - D(phi) Theta with phi = half(L^-1 u L^-T)."""
        L, inverse = factor_with_inverse(x)
        unit = unit_factor(L)
        moved = (unit_factor_derivative(unit, inverse, u) for u in vectors)
        return tuple(map(below, self.of_factor(unit, *moved)))

    def inverse_differential(self, y: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """L dL^T + dL L^T, where rows of dL stand at right angles to those of L."""
        return of_unit_factor(*self.to_factor(*map(from_below, (y, *vectors))))

    def inverse_adjoint(self, y: Tensor, g: Tensor) -> Tensor:
        """The transpose of the way back, of the gradient in Theta of a function of L L^T."""
        V = from_below(y)
        return self._adjoint(V, self.to_factor(V)[0], g)

    def linearized(self, x: Tensor) -> Linearized:
        """With L of x itself."""
        L = correlation_factor(x)
        unit = unit_factor(L)
        V = self.of_factor(unit)[0]
        return Linearized(below(V), lambda v: self.pulled(L, V, from_below(v)), lambda g: self._adjoint(V, unit, g))

    def pulled(self, L: Tensor, V: Tensor, dV: Tensor) -> Tensor:
        """The tangent vector at L L^T along which V has the derivative dV. ``*B,n,n``."""
        return derivative_of_rows(L, diagonal(L).unsqueeze(-1) * self.to_factor(V, dV)[1])

    def _adjoint(self, V: Tensor, unit: Tensor, g: Tensor) -> Tensor:
        return below(self.to_factor(V.mT, unit_factor_gradient(unit, g))[1])


@dataclass(frozen=True, eq=False)
class UnitFactorLogarithm(UnitFactor):
    """log Theta below its diagonal, row by row. ``*B,n,n -> *B,n(n-1)/2``."""

    def of_factor(self, unit: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """The logarithm."""
        return unipotent_log(unit - identity_like(unit), *vectors)

    def to_factor(self, V: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """The exponential."""
        S, *moved = unipotent_exp(V, *vectors)
        return S + identity_like(S), *moved


@dataclass(frozen=True, eq=False)
class UnitFactorRows(Chart):
    """The rows of Theta as points of hyperbolic spaces: row i = 1 .. n - 1 below the diagonal is the space part of a
    point of dimension i, filled up by zeros, and ``1/L_ii`` the time, which stands first. ``*B,n,n -> *B,n-1,n``."""

    ndim: ClassVar[int] = 2

    def base_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(n - 1, n)."""
        return (point_shape[-1] - 1, point_shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Of the factor of x."""
        return self._rows(correlation_factor(x))

    def inverse(self, y: Tensor) -> Tensor:
        """L L^T, of which the rows of L are those of Theta over their lengths. The times are not read."""
        return of_unit_factor(with_ones(_from_space(y)))[0]

    def differential(self, x: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """Of space parts Theta phi - D(phi) Theta with phi = half(L^-1 u L^-T), of a time <s, ds>/t."""
        L, inverse = factor_with_inverse(x)
        y, unit = self._rows(L), unit_factor(L)
        return y, *(_with_time(y, unit_factor_derivative(unit, inverse, u)) for u in vectors)

    def inverse_differential(self, y: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """L dL^T + dL L^T, where rows of dL stand at right angles to those of L."""
        return of_unit_factor(with_ones(_from_space(y)), *map(_from_space, vectors))

    def inverse_adjoint(self, y: Tensor, g: Tensor) -> Tensor:
        """The gradient of a function of L L^T in the space parts."""
        return pad(unit_factor_gradient(with_ones(_from_space(y)), g)[..., 1:, :-1], (1, 0))

    def _rows(self, L: Tensor) -> Tensor:
        time = 1 / diagonal(L)[..., 1:, None]
        return torch.cat([time, (unit_factor(L) - identity_like(L))[..., 1:, :-1]], -1)


def _from_space(y: Tensor) -> Tensor:
    """The strictly lower triangular matrix of space parts. ``*B,n-1,n -> *B,n,n``."""
    return pad(y[..., 1:], (0, 1, 1, 0))


def _with_time(y: Tensor, E: Tensor) -> Tensor:
    """The tangent vector at y of which E has the space parts. ``*B,n-1,n; *B,n,n -> *B,n-1,n``."""
    v = E[..., 1:, :-1]
    return torch.cat([dot(y[..., 1:], v) / y[..., :1], v], -1)
