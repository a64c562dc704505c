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
    from_below,
    of_unit_factor,
    unit_factor,
    unit_factor_derivative,
    unit_factor_gradient,
)
from ..functional.rows import dot
from ..functional.triangular import diagonal
from ..functional.unipotent import unipotent_exp, unipotent_log
from ..kernels import cholesky, cholesky_with_inverse


@dataclass(frozen=True, eq=False)
class UnitFactor(Chart):
    """Theta = D(L)^-1 L below its diagonal, row by row, L the Cholesky factor. ``*B,n,n -> *B,n(n-1)/2``."""

    ndim: ClassVar[int] = 2

    def base_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """n (n - 1)/2 numbers."""
        return (point_shape[-1] * (point_shape[-1] - 1) // 2,)

    def forward(self, x: Tensor) -> Tensor:
        """Of the factor of x."""
        return below(unit_factor(cholesky(with_ones(x))))

    def inverse(self, y: Tensor) -> Tensor:
        """L L^T, of which the rows of L are those of Theta over their lengths."""
        return of_unit_factor(from_below(y))[0]

    def differential(self, x: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """Theta phi - D(phi) Theta with phi = half(L^-1 u L^-T)."""
        L, inverse = cholesky_with_inverse(with_ones(x))
        return below(unit_factor(L)), *(below(unit_factor_derivative(L, inverse, u)) for u in vectors)

    def inverse_differential(self, y: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """L dL^T + dL L^T, where rows of dL stand at right angles to those of L."""
        return of_unit_factor(from_below(y), *map(from_below, vectors))

    def inverse_adjoint(self, y: Tensor, g: Tensor) -> Tensor:
        """The gradient of a function of L L^T in Theta."""
        return below(unit_factor_gradient(from_below(y), g))


@dataclass(frozen=True, eq=False)
class UnitFactorLogarithm(UnitFactor):
    """log Theta below its diagonal, row by row. ``*B,n,n -> *B,n(n-1)/2``."""

    def forward(self, x: Tensor) -> Tensor:
        """Of the factor of x."""
        return below(unipotent_log(unit_factor(cholesky(with_ones(x))))[0])

    def inverse(self, y: Tensor) -> Tensor:
        """Of Theta, the exponential."""
        return of_unit_factor(unipotent_exp(from_below(y))[0])[0]

    def differential(self, x: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """The derivative of the logarithm along that of Theta."""
        L, inverse = cholesky_with_inverse(with_ones(x))
        moved = (unit_factor_derivative(L, inverse, u) for u in vectors)
        return tuple(map(below, unipotent_log(unit_factor(L), *moved)))

    def inverse_differential(self, y: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """Along the derivative of the exponential."""
        return of_unit_factor(*unipotent_exp(*map(from_below, (y, *vectors))))

    def inverse_adjoint(self, y: Tensor, g: Tensor) -> Tensor:
        """The transpose of the derivative of the exponential, which is that at the transpose, of the gradient in
        Theta."""
        V = from_below(y)
        return self._adjoint(V, unipotent_exp(V)[0], g)

    def linearized(self, x: Tensor) -> Linearized:
        """With Theta of x itself."""
        S = unit_factor(cholesky(with_ones(x)))
        V = unipotent_log(S)[0]
        return Linearized(below(V), lambda v: self._pulled(V, S, v), lambda g: self._adjoint(V, S, g))

    def _pulled(self, V: Tensor, S: Tensor, v: Tensor) -> Tensor:
        return of_unit_factor(S, unipotent_exp(V, from_below(v))[1])[1]

    def _adjoint(self, V: Tensor, S: Tensor, g: Tensor) -> Tensor:
        return below(unipotent_exp(V.mT, unit_factor_gradient(S, g))[1])


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
        return self._rows(cholesky(with_ones(x)))

    def inverse(self, y: Tensor) -> Tensor:
        """L L^T, of which the rows of L are those of Theta over their lengths. The times are not read."""
        return of_unit_factor(_from_space(y))[0]

    def differential(self, x: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """Of space parts Theta phi - D(phi) Theta with phi = half(L^-1 u L^-T), of a time <s, ds>/t."""
        L, inverse = cholesky_with_inverse(with_ones(x))
        y = self._rows(L)
        return y, *(_with_time(y, unit_factor_derivative(L, inverse, u)) for u in vectors)

    def inverse_differential(self, y: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """L dL^T + dL L^T, where rows of dL stand at right angles to those of L."""
        return of_unit_factor(*map(_from_space, (y, *vectors)))

    def inverse_adjoint(self, y: Tensor, g: Tensor) -> Tensor:
        """The gradient of a function of L L^T in the space parts."""
        return pad(unit_factor_gradient(_from_space(y), g)[..., 1:, :-1], (1, 0))

    def _rows(self, L: Tensor) -> Tensor:
        time = 1 / diagonal(L)[..., 1:, None]
        return torch.cat([time, unit_factor(L)[..., 1:, :-1]], -1)


def _from_space(y: Tensor) -> Tensor:
    """The strictly lower triangular matrix of space parts. ``*B,n-1,n -> *B,n,n``."""
    return pad(y[..., 1:], (0, 1, 1, 0))


def _with_time(y: Tensor, E: Tensor) -> Tensor:
    """The tangent vector at y of which E has the space parts. ``*B,n-1,n; *B,n,n -> *B,n-1,n``."""
    v = E[..., 1:, :-1]
    return torch.cat([dot(y[..., 1:], v) / y[..., :1], v], -1)
