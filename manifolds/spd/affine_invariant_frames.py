"""Coordinates and gyro structure of the affine-invariant metric."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..functional.matrices import congruent, sym, symmetric_from_vector, symmetric_vector
from ..functional.matrix_function import MatrixFunction
from ..functional.singular_values import polar_factor
from ..functional.spectral import decomposed, function_at, symmetric_function
from ..functional.spectral_functions import EXP, INVERSE_SQRT, LOG, SQRT
from ..gyro import GyroManifold
from ..kernels.cholesky import cholesky, cholesky_with_inverse
from ..kernels.spd import log_moments_at, power_at
from ..operation import in_full_precision, operation
from .options import from_frobenius, to_frobenius
from .space import SPD


@dataclass(frozen=True, eq=False)
class AffineInvariantFrames(SPD, GyroManifold, abc.ABC):
    r"""Orthonormal coordinates for ``alpha tr(u^2) + beta (tr u)^2`` at the identity, carried to x = L L^T by L . L^T;
    and the closed forms of gyro-operations, which ``x^(1/2) . x^(1/2)`` makes.

    Nguyen and Yang 2023, arXiv:2305.04560, for the gyro structure.
    """

    alpha: float = 1.0
    beta: float = 0.0

    def _whitened(self, x: Tensor, *vectors: Tensor) -> list[Tensor]:
        """L^-1 V L^-T of each vector, in float64 inside: in float32 the condition of x takes too much."""
        inverse = cholesky_with_inverse(x.double())[1]
        return [congruent(inverse, v.double()).to(x.dtype) for v in vectors]

    # ---- coordinates ------------------------------------------------------------------------------------------

    @operation
    def basis(self, x: Tensor) -> Tensor:
        """L e L^T for the orthonormal e at the identity."""
        d = self.dimension(x.shape)
        e = self.tangent_from_normal(torch.eye(d, dtype=x.dtype, device=x.device))
        return congruent(cholesky(x).unsqueeze(-3), e)

    @operation
    def to_coordinates(self, x: Tensor, u: Tensor) -> Tensor:
        """Normal coordinates of u~."""
        return self.normal_from_tangent(*self._whitened(x, u))

    @in_full_precision
    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        """L . L^T of the vector with normal coordinates `z`."""
        self.check_operands("from_coordinates", [x])
        return congruent(cholesky(x), self.tangent_from_normal(z))

    def random_tangent(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A standard normal tangent vector in this metric."""
        self.check_operands("random_tangent", [x])
        size = (*x.shape[:-2], self.dimension(x.shape))
        return self.from_coordinates(x, torch.randn(size, generator=generator, dtype=x.dtype, device=x.device))

    # ---- gyro structure ---------------------------------------------------------------------------------------

    def normal_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """n(n+1)/2."""
        return (self.dimension(point_shape),)

    @in_full_precision
    def tangent_from_normal(self, z: Tensor) -> Tensor:
        """The symmetric matrix with this upper triangle row by row, entries off the diagonal over sqrt 2, where
        alpha = 1 and beta = 0; else such a combination of it and its trace that the metric is |z|^2."""
        self._check_normal("tangent_from_normal", z)
        return from_frobenius(symmetric_from_vector(z), self.alpha, self.beta)

    @operation
    def normal_from_tangent(self, u: Tensor) -> Tensor:
        """Its inverse, of the symmetric part."""
        return symmetric_vector(to_frobenius(sym(u), self.alpha, self.beta))

    @operation
    def expmap0(self, u: Tensor) -> Tensor:
        """The matrix exponential."""
        return sym(symmetric_function(u, EXP))

    @operation
    def logmap0(self, x: Tensor) -> Tensor:
        """The matrix logarithm."""
        return _spectral(x, LOG)

    @operation
    def gyroadd(self, x: Tensor, y: Tensor) -> Tensor:
        """x^(1/2) y x^(1/2)."""
        return congruent(self._root(x), y)

    @operation
    def gyroinv(self, x: Tensor) -> Tensor:
        """x^-1."""
        inverse = cholesky_with_inverse(x)[1]
        return sym(inverse.mT @ inverse)

    @in_full_precision
    def gyroscale(self, t: Tensor | float, x: Tensor) -> Tensor:
        """x^t."""
        self._check_beside("gyroscale", "t", t, x)
        return self.geodesic(self._origin_of(x), x, t)

    @operation
    def logmap_frame(self, x: Tensor, y: Tensor) -> Tensor:
        """Normal coordinates of x^(-1/2) y x^(-1/2), formed in float64: in float32 the condition of y takes too
        much, and leaves no positive definite matrix in the end."""
        return self.to_normal(congruent(_inverse_root(x), y.double())).to(x.dtype)

    @operation
    def gyration(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """O z O^T, O the polar factor of x^(1/2) y^(1/2), which is ``(x (+) y)^(-1/2) x^(1/2) y^(1/2)``."""
        return congruent(polar_factor(self._root(x) @ self._root(y)), z)

    def log_and_exp(self, x: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """log(L^-1 y L^-T) in float64, and its inverse: of one factor, where frame coordinates take two roots."""
        L, inverse = cholesky_with_inverse(x.double())

        def log(y: Tensor) -> Tensor:
            return function_at(*decomposed(congruent(inverse, y.double()), True, True), LOG)

        return log, lambda u: congruent(L, symmetric_function(u.double(), EXP)).to(x.dtype)

    def recentred(self, x: Tensor, y: Tensor) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
        """From one decomposition of ``(-)x (+) y``: the moments of its logarithm, and its powers."""
        decomposition = decomposed(congruent(_inverse_root(x), y.double()), True, True)
        squares, total = log_moments_at(*decomposition)
        squares = self.alpha * squares + self.beta * total.square() if self.beta else self.alpha * squares

        def placed(b: Tensor, t: Tensor) -> Tensor:
            root = symmetric_function(0.5 * self.tangent_from_normal(b), EXP)
            return congruent(root, power_at(*decomposition, t.double()).to(b.dtype))

        return squares.to(x.dtype), placed

    def _root(self, x: Tensor) -> Tensor:
        return _spectral(x, SQRT)


def _spectral(x: Tensor, function: MatrixFunction) -> Tensor:
    """The function of x, decomposed in float64: in float32 small eigenvalues are rounding of the large ones."""
    return sym(symmetric_function(x.double(), function, definite=True)).to(x.dtype)


def _inverse_root(x: Tensor) -> Tensor:
    """x^(-1/2) in float64."""
    return symmetric_function(x.double(), INVERSE_SQRT, definite=True)
