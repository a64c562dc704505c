"""The affine-invariant metric without a power: its operations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from .. import frechet
from ..functional.cone import inside_or_nan
from ..functional.decompositions import eigenvalues
from ..functional.matrices import sym, symmetric_from_vector, symmetric_vector
from ..functional.pencil import (
    congruent,
    pencil_exp_transport,
    pencil_hessian,
    pencil_power,
    pencil_transport,
    sinh_ratios,
)
from ..functional.series import safe_sqrt
from ..functional.signed_trigonometry import cot_excess_k
from ..functional.singular_values import polar_factor
from ..functional.spectral import symmetric_function
from ..functional.spectral_functions import EXP
from ..gyro import GyroManifold
from ..kernels.cholesky import cholesky, cholesky_with_inverse
from ..kernels.spd import pencil_function, pencil_moments
from ..operation import in_full_precision, operation
from .charts import _on_trace
from .space import SPD


@final
@dataclass(frozen=True, eq=False)
class AffineInvariantMetric(SPD, GyroManifold):
    r"""``alpha tr(x^-1 u x^-1 v) + beta tr(x^-1 u) tr(x^-1 v)``: what `SPDAffineInvariant` makes of powers of its points.

    With x = L L^T and ``X~ = L^-1 X L^-T`` it is the product at the identity of u~ and v~, and everything at x is L . L^T
    of what it is at the identity. alpha and beta change lengths alone: the connection is that of alpha = 1, beta = 0.
    """

    alpha: float = 1.0
    beta: float = 0.0

    name: ClassVar[str] = "AffineInvariantMetric"

    @property
    def retraction_order(self) -> int:
        """3: `retr` is the exponential map."""
        return 3

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        n = point_shape[-1]
        if n > 0 and not self.beta > -self.alpha / n:
            return f"beta must be above -alpha/n = {-self.alpha / n:.4g} for {n} x {n} matrices, got {self.beta!r}"
        return super()._shape_complaint(point_shape)

    # ---- metric -----------------------------------------------------------------------------------------------

    def _whitened(self, x: Tensor, *vectors: Tensor) -> list[Tensor]:
        """L^-1 V L^-T of each vector."""
        inverse = cholesky_with_inverse(x)[1]
        return [congruent(inverse, v) for v in vectors]

    def _product(self, u: Tensor, v: Tensor, keepdim: bool) -> Tensor:
        """The metric at the identity."""
        value = self.alpha * (u * v).sum((-2, -1), keepdim=keepdim)
        return value + self.beta * _trace(u, keepdim) * _trace(v, keepdim) if self.beta else value

    @operation
    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """alpha tr(u~ v~) + beta tr(u~) tr(v~)."""
        if v is None:
            (u,) = self._whitened(x, u)
            return self._product(u, u, keepdim)
        return self._product(*self._whitened(x, u, v), keepdim)

    @operation
    def egrad2rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        """(x g x - beta/(alpha + n beta) tr(g x) x)/alpha."""
        dtype = x.dtype
        # In float64: g is as large as x^-1, and next to singular matrices x g x is a difference of large numbers.
        x, g = inside_or_nan(x).double(), sym(g).double()  # of no point it would be a number
        return self._raised(x, congruent(x, g), (g * x).sum((-2, -1), keepdim=True)).to(dtype)

    @operation
    def ehess2rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor:
        """The covariant derivative of `egrad2rgrad`: x h x + sym(u g x), and for the trace, x itself being parallel,
        tr(h x + g u) x."""
        dtype = x.dtype
        x, g, h, u = (sym(a).double() for a in (x, g, h, u))  # as above
        trace = (h * x).sum((-2, -1), keepdim=True) + (g * u).sum((-2, -1), keepdim=True)
        return self._raised(x, congruent(x, h) + sym(u @ g @ x), trace).to(dtype)

    def _raised(self, x: Tensor, vector: Tensor, trace: Tensor) -> Tensor:
        if not self.beta:
            return vector / self.alpha
        return (vector - self.beta / (self.alpha + x.shape[-1] * self.beta) * trace * x) / self.alpha

    @operation
    def dist2(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """alpha sum (log w)^2 + beta (sum log w)^2, w the eigenvalues of x^-1 y."""
        squares, total = pencil_moments(x, y)
        value = self.alpha * squares + self.beta * total.square() if self.beta else self.alpha * squares
        return self._with_keepdim(value, keepdim)

    @operation
    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """The root of `dist2`; between coincident points rounding, some eps, with a gradient of at most unit norm."""
        return safe_sqrt(self.dist2(x, y, keepdim=keepdim))

    @operation
    def sectional_curvature(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """-alpha/4 |u~ v~ - v~ u~|^2 of orthonormal u~, v~: from -1/(2 alpha) to 0."""
        u, v = self._orthonormal(self._identity_like(x), *self._whitened(x, u, v))
        product = u @ v
        return -0.25 * self.alpha * (product - product.mT).square().sum((-2, -1))

    def injectivity_radius(self, x: Tensor | None = None) -> float:
        """Infinite."""
        return math.inf

    @operation
    def logdet_dexp(self, x: Tensor, u: Tensor) -> Tensor:
        """Sum over i < j of log(sinh(a)/a), a half the difference of the eigenvalues i and j of u~."""
        return sinh_ratios(*self._whitened(x, u))

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

    # ---- geodesics and transports -----------------------------------------------------------------------------

    @operation
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """L exp(u~) L^T."""
        return pencil_function(x, u, "exp")

    @operation
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """L log(y~) L^T."""
        return pencil_function(x, y, "log")

    @in_full_precision
    def geodesic(self, x: Tensor, y: Tensor, t: Tensor | float) -> Tensor:
        """L y~^t L^T, for any real t."""
        self._check_geodesic(x, y, t)
        if isinstance(t, Tensor):
            return pencil_power(x, y, t.to(x.dtype))
        return pencil_function(x, y, f"power {float(t)!r}")

    @operation
    def midpoint(self, x: Tensor, y: Tensor) -> Tensor:
        """L y~^(1/2) L^T, the geometric mean."""
        return pencil_function(x, y, "sqrt")

    @operation
    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Parallel transport: nothing cheaper keeps vectors in proportion to the points."""
        return pencil_transport(x, y, v)

    @operation
    def parallel_transport(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """E v E^T with E = (y x^-1)^(1/2), from Cholesky factors and the polar factor of L_x^-1 L_y."""
        return pencil_transport(x, y, v)

    @operation
    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """M M^T and M v~ M^T with M = L exp(u~/2)."""
        return pencil_exp_transport(x, u, v)

    @operation
    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """As `expmap_transp`."""
        return pencil_exp_transport(x, u, v)

    # ---- means ------------------------------------------------------------------------------------------------

    def _mean_guess(self, x: Tensor, w: Tensor) -> Tensor:
        """The midpoint of the arithmetic and the harmonic mean: it goes with congruence and inversion, as the mean."""
        return self.midpoint((w * x).sum(0), self.gyroinv((w * self.gyroinv(x)).sum(0)))

    def _mean_step(self, mu: Tensor, logs: Tensor, w: Tensor) -> Tensor:
        """The mean of the logarithms times 2/(1 + M): the Hessian lies between 1 and the mean M of a coth a, where a is
        half the spread of log w (Bini and Iannazzo 2013, doi 10.1016/j.laa.2011.08.052)."""
        values = eigenvalues(*self._whitened(mu, logs))
        square = 0.25 * (values[..., -1] - values[..., 0]).square()
        bound = (w[..., 0, 0] * (1 + square * cot_excess_k(-square, -1))).sum(0)
        return (2 / (1 + bound))[..., None, None] * (w * logs).sum(0)

    def _mean_hessian(self, mu: Tensor, x: Tensor, w: Tensor) -> frechet.LinearMap:
        """In the basis that brings mu and x_i to diagonal form it multiplies by a coth a, a as in `logdet_dexp`."""
        return pencil_hessian(mu, x, w)

    # ---- gyro structure ---------------------------------------------------------------------------------------

    def normal_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """n(n+1)/2."""
        return (self.dimension(point_shape),)

    @in_full_precision
    def tangent_from_normal(self, z: Tensor) -> Tensor:
        """The symmetric matrix with this upper triangle row by row, entries off the diagonal over sqrt 2, where
        alpha = 1 and beta = 0; else such a combination of it and its trace that the metric is |z|^2."""
        self._check_normal("tangent_from_normal", z)
        S = symmetric_from_vector(z)
        return _on_trace(S, self.alpha**-0.5, (self.alpha + S.shape[-1] * self.beta) ** -0.5)

    @operation
    def normal_from_tangent(self, u: Tensor) -> Tensor:
        """Its inverse, of the symmetric part."""
        n = u.shape[-1]
        return symmetric_vector(_on_trace(sym(u), self.alpha**0.5, (self.alpha + n * self.beta) ** 0.5))

    @operation
    def expmap0(self, u: Tensor) -> Tensor:
        """The matrix exponential."""
        return sym(symmetric_function(u, EXP))

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
    def gyration(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """O z O^T, O the polar factor of x^(1/2) y^(1/2), which is ``(x (+) y)^(-1/2) x^(1/2) y^(1/2)``."""
        return congruent(polar_factor(self._root(x) @ self._root(y)), z)

    def _root(self, x: Tensor) -> Tensor:
        return self.midpoint(self._origin_of(x), x)


def _trace(u: Tensor, keepdim: bool) -> Tensor:
    trace = u.diagonal(dim1=-2, dim2=-1).sum(-1)
    return trace[..., None, None] if keepdim else trace
