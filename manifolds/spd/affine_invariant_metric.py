"""The affine-invariant metric without a power: its operations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from .. import frechet
from ..functional.cone import lifted
from ..functional.definite import inside_or_nan
from ..functional.matrices import congruent, identity_like, sym
from ..functional.pencil import (
    pencil_exp_transport,
    pencil_hessian,
    pencil_power,
    pencil_transport,
    sinh_ratios,
    whitened_hessian,
)
from ..kernels.cholesky import cholesky_with_inverse
from ..kernels.spd import pencil_dist, pencil_function, pencil_moments
from ..operation import in_full_precision, operation
from .affine_invariant_frames import AffineInvariantFrames


@final
@dataclass(frozen=True, eq=False)
class AffineInvariantMetric(AffineInvariantFrames):
    r"""``alpha tr(x^-1 u x^-1 v) + beta tr(x^-1 u) tr(x^-1 v)``, which `SPDAffineInvariant` takes of powers.

    With x = L L^T and ``X~ = L^-1 X L^-T`` it is the product at the identity of u~ and v~, and everything at x is
    L . L^T of what it is at the identity. alpha and beta change lengths alone: the connection is that of alpha = 1,
    beta = 0.
    """

    name: ClassVar[str] = "AffineInvariantMetric"

    @property
    def retraction_order(self) -> int:
        """3: `retr` is the exponential map."""
        return 3

    # ---- metric -----------------------------------------------------------------------------------------------

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
        u, v = self._whitened(x, u, v)
        return self._product(u, v, keepdim)

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
        x, g, h, u = (a.double() for a in (inside_or_nan(x), sym(g), sym(h), sym(u)))  # as above
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
        square = self.alpha * squares + self.beta * total.square() if self.beta else self.alpha * squares
        return self._with_keepdim(square, keepdim)

    @operation
    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """The root of `dist2`; between coincident points rounding, some eps, with a gradient of at most unit norm."""
        return self._with_keepdim(pencil_dist(x, y, float(self.alpha), float(self.beta)), keepdim)

    @operation
    def sectional_curvature(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """-alpha/4 |u~ v~ - v~ u~|^2 of orthonormal u~, v~: from -1/(2 alpha) to 0."""
        u, v = self._orthonormal(identity_like(x), *self._whitened(x, u, v))
        product = u @ v
        return -0.25 * self.alpha * (product - product.mT).square().sum((-2, -1))

    def injectivity_radius(self, x: Tensor | None = None) -> float:
        """Infinite."""
        return math.inf

    @operation
    def logdet_dexp(self, x: Tensor, u: Tensor) -> Tensor:
        """Sum over i < j of log(sinh(a)/a), a half the difference of the eigenvalues i and j of u~."""
        return sinh_ratios(*self._whitened(x, u))

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
    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """The exponential map, inside of the cone as numbers too."""
        return lifted(pencil_function(x, u, "exp"))

    @operation
    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """As `expmap_transp`, inside of the cone as numbers too."""
        y, w = pencil_exp_transport(x, u, v)
        return lifted(y), w

    # ---- means ------------------------------------------------------------------------------------------------

    def _unit_of_length(self, x: Tensor) -> Tensor:
        """tr(x) tr(x^-1)/n, between the condition of x over n and its condition: so much a rounding of x moves it."""
        x = x.detach()
        inverse = cholesky_with_inverse(x)[1].square().sum((-2, -1))
        return (x.diagonal(dim1=-2, dim2=-1).sum(-1) * inverse / x.shape[-1])[..., None, None]

    def _mean_guess(self, x: Tensor, w: Tensor) -> Tensor:
        """The midpoint of the arithmetic and the harmonic mean: it goes with congruence and inversion, as the mean."""
        return self.midpoint((w * x).sum(0), self.gyroinv((w * self.gyroinv(x)).sum(0)))

    def _mean_step(self, mu: Tensor, logs: Tensor, w: Tensor) -> Tensor:
        """Newton's, by conjugate gradients: the mean of the logarithms overshoots where points are far apart, and ten
        products with the Hessian cost less than one eigendecomposition."""
        L, mean, hessian = whitened_hessian(mu, logs, w)
        # alpha and beta have no part in it, so that the product may be any of those that it is self-adjoint in.
        return congruent(L, frechet.solve(_Flat(), mu, hessian, mean, rounds=min(10, self.dimension(mu.shape))))

    def _mean_hessian(self, mu: Tensor, x: Tensor, w: Tensor) -> frechet.LinearMap:
        """In the basis that brings mu and x_i to diagonal form it multiplies by a coth a, a as in `logdet_dexp`."""
        return pencil_hessian(mu, self.logmap(mu, x), w)


class _Flat:
    """The symmetric matrices with the Frobenius product."""

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        return (u * (u if v is None else v)).sum((-2, -1), keepdim=keepdim)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return u


def _trace(u: Tensor, keepdim: bool) -> Tensor:
    trace = u.diagonal(dim1=-2, dim2=-1).sum(-1)
    return trace[..., None, None] if keepdim else trace
