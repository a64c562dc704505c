"""The chart of positive definite matrices that reads the Cholesky factor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..chart import Chart, Linearized
from ..functional.matrices import sym
from ..functional.tracing import values_at_hand
from ..functional.triangular import (
    diagonal,
    from_numbers,
    half,
    numbers,
    product,
    product_derivative,
    with_diagonal,
)
from ..kernels import cholesky, cholesky_with_inverse

Weights = tuple[float, ...] | Tensor | None


@dataclass(frozen=True, eq=False)
class CholeskyFactor(Chart):
    """The lower triangle of the Cholesky factor L row by row, with ``sqrt(w_j) L_jj^p/p`` on its diagonal, and
    ``sqrt(w_j) log L_jj`` for p = 0. ``*B,n,n -> *B,n(n+1)/2``."""

    power: float
    weights: Weights

    ndim: ClassVar[int] = 2

    def base_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """n (n + 1)/2 numbers."""
        return (point_shape[-1] * (point_shape[-1] + 1) // 2,)

    def forward(self, x: Tensor) -> Tensor:
        """Of the factor of x."""
        return self._coordinates(cholesky(x))

    def inverse(self, y: Tensor) -> Tensor:
        """L L^T; NaN where a diagonal entry is no coordinate of a positive number."""
        return product(self._factor(y))

    def differential(self, x: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """Along X = L half(L^-1 u L^-T), the derivative of L along u."""
        L, inverse = cholesky_with_inverse(x)
        slope = self._slope(diagonal(L))
        moved = (L @ half(sym(inverse @ u @ inverse.mT)) for u in vectors)
        return self._coordinates(L), *(numbers(with_diagonal(X, slope * diagonal(X))) for X in moved)

    def inverse_differential(self, y: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """L X^T + X L^T, where X is the derivative of L."""
        L = self._factor(y)
        return product(L), *(self._pulled(L, v) for v in vectors)

    def inverse_adjoint(self, y: Tensor, g: Tensor) -> Tensor:
        """The lower triangle of (g + g^T) L, with the diagonal over the slope."""
        return self._adjoint(self._factor(y), g)

    def linearized(self, x: Tensor) -> Linearized:
        """The same with L of x itself, without the way to y and back."""
        L = cholesky(x)
        return Linearized(self._coordinates(L), lambda v: self._pulled(L, v), lambda g: self._adjoint(L, g))

    def inverse_is_defined(self, y: Tensor) -> Tensor | bool:
        """Where p y_jj > 0 for all j; for p = 0 everywhere."""
        return True if self.power == 0 else (self.power * diagonal(from_numbers(y)) > 0).all(-1)

    def _pulled(self, L: Tensor, v: Tensor) -> Tensor:
        X = from_numbers(v)
        return product_derivative(L, with_diagonal(X, diagonal(X) / self._slope(diagonal(L))))

    def _adjoint(self, L: Tensor, g: Tensor) -> Tensor:
        X = (g + g.mT) @ L
        return numbers(with_diagonal(X, diagonal(X) / self._slope(diagonal(L))))

    def root_weights(self, like: Tensor) -> Tensor:
        """sqrt(w), ones if there are none, for matrices of the shape of `like`."""
        if self.weights is None:
            return torch.ones(like.shape[-1], dtype=like.dtype, device=like.device)
        return torch.as_tensor(self.weights, dtype=like.dtype, device=like.device).sqrt()

    def _coordinates(self, L: Tensor) -> Tensor:
        d, p = diagonal(L), self.power
        return numbers(with_diagonal(L, self.root_weights(d) * (d.log() if p == 0 else d**p / p)))

    def _slope(self, d: Tensor) -> Tensor:
        """The derivative of the coordinate of a diagonal entry."""
        return self.root_weights(d) * d ** (self.power - 1)

    def _factor(self, y: Tensor) -> Tensor:
        """L; all of it is NaN where there is none."""
        matrix, p = from_numbers(y), self.power
        d = diagonal(matrix) / self.root_weights(matrix)
        if p == 0:
            return with_diagonal(matrix, d.exp())
        # Of a negative number odd powers are numbers, and what becomes zero or infinite is no factor.
        d = torch.where(p * d > 0, p * d, torch.nan) ** (1 / p)
        return (d / d).detach().amin(-1)[..., None, None] * with_diagonal(matrix, d)


def check_weights(owner: str, w: object) -> None:
    """Raise unless `w` is None, or positive finite numbers in a tuple or a 1-dim tensor."""
    wanted = f"{owner}: weights must be None, or a tuple of n positive numbers"
    if isinstance(w, Tensor):
        if w.dim() != 1 or not w.is_floating_point() or w.numel() == 0:
            got = f"{w.dtype} of shape {tuple(w.shape)}"
            raise ValueError(f"{wanted} or a 1-dim floating-point tensor of them, got {got}")
        if not values_at_hand(w):  # what is learned is made again in every forward
            return
        values = w.detach().tolist()
    else:
        values = (1.0,) if w is None else w
        if not isinstance(values, tuple) or not values or not all(type(v) in (int, float) for v in values):
            raise ValueError(f"{wanted} or a 1-dim tensor of them, got {w!r}")
    if not all(0 < v < math.inf for v in values):
        raise ValueError(f"{wanted} that are finite, got {w!r}")
