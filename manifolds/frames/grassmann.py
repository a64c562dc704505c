"""The Grassmann manifold of p-dimensional subspaces of R^n, in orthonormal bases."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..functional.decompositions import eigenvalues, eigh, singular_values
from ..functional.embedded import embedded_inner, embedded_norm
from ..functional.frames import (
    cholesky_qr,
    haar_frame,
    inverse_sqrt,
    newton_schulz_step,
    normal_basis,
    qr_step,
)
from ..functional.low_rank import leading_eigenspace, leading_left_space
from ..functional.matrices import identity_like
from ..functional.nearest_frame import nearest_frame
from ..functional.series import safe_sqrt, sinc_sqrt
from ..functional.singular_values import polar_factor, singular_value_function
from ..functional.spectral import symmetric_functions
from ..functional.spectral_functions import ANGLE_OVER_SINE, COS_SQRT, SINC_SQRT, VERSINE_SQRT
from ..kernels.frames import polar_step
from ..operation import in_full_precision, operation
from ..weights import per_point, weighted
from .grassmann_gyro import GrassmannGyro

RETRACTIONS = ("polar", "qr", "exp")


@final
@dataclass(frozen=True, eq=False)
class Grassmann(GrassmannGyro):
    r"""Subspaces of dimension p in R^n. A point is an orthonormal basis x, ``*B,n,p``; x and x Q are the same point.

    A tangent vector is the horizontal lift u at the given basis: x^T u = 0. Everything that belongs to a point is
    expressed at the basis that was handed in, so that for ``y Q`` instead of ``y`` a vector at y turns into ``v Q``.
    The metric is ``tr(u^T v)``; with principal angles theta_i the distance is ``|theta|``. The injectivity radius is
    pi/2 and the logarithm is unique as long as all angles are below pi/2.

    It is a `GyroManifold` around the span of the first p axes; normal coordinates there are ``*B,n-p,p``. Sums, and
    frame coordinates at x, exist where all principal angles between x and that span are below pi/2; an x beyond makes
    its own item NaN. Left reduction holds near the origin only: ``gyr[x (+) y, y] = gyr[x, y]`` while the largest angle
    of x and twice that of y add up to less than pi/2.

    `retraction`: ``"polar"`` and ``"qr"`` send u to the span of x + u (the same subspace, in another basis; second
    order), ``"exp"`` is the exponential map.

    Formulas without a singular value decomposition of the tangent vector: with ``Z = u^T u`` all of cos(sqrt Z),
    sin(sqrt Z)/sqrt Z and (cos(sqrt Z) - 1)/Z are entire. Source: Bendokat, Zimmermann and Absil, "A Grassmann
    manifold handbook", arXiv:2011.13699; Edelman, Arias and Smith, arXiv:physics/9806030.
    """

    retraction: str = "polar"

    ndim: ClassVar[int] = 2
    name: ClassVar[str] = "Grassmann"

    def __post_init__(self) -> None:
        if self.retraction not in RETRACTIONS:
            raise ValueError(f"Grassmann: retraction must be one of {RETRACTIONS}, got {self.retraction!r}")

    @property
    def retraction_order(self) -> int:
        """2, of either choice, between subspaces."""
        return 2

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        n, p = point_shape
        if not 0 < p <= n:
            wide = f"; a wide matrix has the basis in its rows: pass x.mT, or the size {p}, {n}" if 0 < n < p else ""
            return f"a basis of p vectors in R^n needs 1 <= p <= n, got n = {n}, p = {p}{wide}"
        return None

    def _point_residual(self, x: Tensor) -> tuple[Tensor, str]:
        return (x.mT @ x - identity_like(x)).abs().amax(), "max|x^T x - I|"

    def _vector_residual(self, x: Tensor, u: Tensor) -> tuple[Tensor, str]:
        return (x.mT @ u).abs().amax(), "max|x^T u|"

    def dimension(self, shape: tuple[int, ...]) -> int:
        """p (n - p)."""
        n, p = shape[-2:]
        return p * (n - p)

    @operation
    def projx(self, x: Tensor) -> Tensor:
        """The nearest orthonormal basis, spanning the same subspace: the polar factor. Of a rank-deficient matrix one
        of the nearest, with derivative zero in the directions of the singular values that vanish."""
        return nearest_frame(x)

    @operation
    def restore(self, x: Tensor) -> Tensor:
        """One Newton-Schulz step."""
        return newton_schulz_step(x)

    @operation
    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """u - x x^T u."""
        return (x @ -(x.mT @ u)).add_(u)  # in place: a fifth of the time

    @operation
    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """tr(u^T v)."""
        return embedded_inner(x, u, v, self.ndim, keepdim)

    @operation
    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        """The Frobenius norm of u."""
        return embedded_norm(x, u, self.ndim, keepdim)

    @operation
    def egrad2rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        """The horizontal part of `g`."""
        return self.proju(x, g)

    @operation
    def ehess2rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor:
        """proj(h) - u x^T g (arXiv:physics/9806030, eq. 2.72), for a function of the subspace."""
        return self.proju(x, h - u @ (x.mT @ g))

    @operation
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """x cos(sqrt Z) + u sin(sqrt Z)/sqrt Z, Z = u^T u."""
        cos, sinc = symmetric_functions(u.mT @ u, COS_SQRT, SINC_SQRT)
        return x @ cos + u @ sinc

    @operation
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """(I - x x^T) y V f(c) U^T with x^T y = U c V^T and f(c) = arccos(c)/sqrt(1 - c^2).

        y is aligned to x (Procrustes) by V U^T after the projection, which keeps one angle at pi/2 - 1e-6 accurate to
        1e-14; the tangent form through (x^T y)^-1 loses ten digits there (arXiv:2011.13699, algorithm 5.3).
        """
        overlap = x.mT @ y
        off = self.proju(x, y - x @ overlap)
        return off @ singular_value_function(overlap.mT, ANGLE_OVER_SINE)

    @operation
    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """v - (x sin(sqrt Z)/sqrt Z - u (cos(sqrt Z) - 1)/Z) u^T v, at the basis that `expmap` returns."""
        cos, sinc, versine = symmetric_functions(u.mT @ u, COS_SQRT, SINC_SQRT, VERSINE_SQRT)
        return x @ cos + u @ sinc, v - (x @ sinc - u @ versine) @ (u.mT @ v)

    @operation
    def parallel_transport(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """As `expmap_transp` along the logarithm, then turned from the basis of that geodesic to the basis y."""
        return self.expmap_transp(x, self.logmap(x, y), v)[1] @ polar_factor(x.mT @ y)

    @operation
    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """The projection at y of v turned to the basis y: v alone belongs to the basis x."""
        return self.proju(y, v @ polar_factor(x.mT @ y))

    @operation
    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """An orthonormal basis of the span of x + u, or the exponential map."""
        if self.retraction == "exp":
            return self.expmap(x, u)
        if self.retraction == "qr":
            return qr_step(x + u)
        return polar_step(x + u)

    @operation
    def inverse_retr(self, x: Tensor, y: Tensor) -> Tensor:
        """y (x^T y)^-1 - x, not finite where an angle is pi/2; the logarithm for ``"exp"``."""
        if self.retraction == "exp":
            return self.logmap(x, y)
        overlap = x.mT @ y
        # Not by torch's solve, whose forward derivative is wrong under two levels of vmap.
        return self.proju(x, y - x @ overlap) @ torch.linalg.inv_ex(overlap)[0]

    @operation
    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The turn from basis x to the basis of the result costs nothing for ``"polar"``, where x^T y is symmetric
        positive definite, and one root of the Gram matrix for ``"qr"``."""
        if self.retraction == "exp":
            y = self.expmap(x, u)
            return y, self.transp(x, y, v)
        if self.retraction == "polar":
            y = self.retr(x, u)
            return y, self.proju(y, v)
        w = x + u
        gram = w.mT @ w
        y, r = cholesky_qr(w, gram)
        turn = torch.linalg.solve_triangular(r, inverse_sqrt(gram)[1], upper=True, left=False)
        return y, self.proju(y, v @ turn)

    @operation
    def principal_angles(self, x: Tensor, y: Tensor) -> Tensor:
        """The p principal angles in [0, pi/2], ascending. ``*B,n,p, *B,n,p -> *B,p``.

        atan2 of sines and cosines (Bjorck and Golub 1973): relative accuracy at both ends, where the arccosine alone
        loses half the digits of small angles.
        """
        overlap = x.mT @ y
        sines = singular_values(y - x @ overlap).flip(-1)
        return torch.atan2(sines, singular_values(overlap))

    @operation
    def sectional_curvature(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """(|u^T v - v^T u|^2 + |u v^T - v u^T|^2)/2 over the squared area: between 0 and 2."""
        u, v = self._orthonormal(x, u, v)
        uu, uv, vv = u.mT @ u, u.mT @ v, v.mT @ v
        inside = (uv - uv.mT).square().sum((-2, -1))
        outside = 2 * ((uu * vv).sum((-2, -1)) - (uv * uv.mT).sum((-2, -1)))
        return 0.5 * (inside + outside)

    def injectivity_radius(self, x: Tensor | None = None) -> float:
        """pi/2."""
        return math.pi / 2

    @operation
    def log_is_unique(self, x: Tensor, y: Tensor, *, margin: float = 0.0) -> Tensor:
        """All principal angles below pi/2 - margin."""
        return self.principal_angles(x, y)[..., -1] < math.pi / 2 - margin

    @operation
    def logdet_dexp(self, x: Tensor, u: Tensor) -> Tensor:
        """Sum of log|sin(a)/a| over the roots a of the symmetric space at the singular values t of u: t_i + t_j and
        t_i - t_j for i < j, and t_i with multiplicity |n - 2p|."""
        n, p = u.shape[-2:]
        rank = min(p, n - p)
        t = safe_sqrt(eigenvalues(u.mT @ u + 0 * (x.mT @ x))[..., p - rank :])
        first, second = torch.triu_indices(rank, rank, offset=1, device=u.device)
        a, b = t[..., first], t[..., second]
        roots = torch.cat([a + b, a - b], -1).square()
        return sinc_sqrt(roots).abs().log().sum(-1) + abs(n - 2 * p) * sinc_sqrt(t.square()).abs().log().sum(-1)

    @operation
    def basis(self, x: Tensor) -> Tensor:
        """q_i e_j^T, q an orthonormal basis of the complement; smooth but where the first p rows of x are singular."""
        return normal_basis(x)

    @in_full_precision
    def chordal_mean(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """The subspace of least summed squared chordal distance: the top p eigenvectors of sum_i w_i x_i x_i^T.

        ``N,*B,n,p -> *B,n,p``, over the first dimension, `weights` as in `frechet_mean`. Unique and differentiable
        (twice) where the p-th and the next eigenvalue differ, elsewhere one of several. Equal to the Frechet mean for
        two points; cheaper, and the usual start for it (arXiv:2011.13699, section 6).
        """
        even = weights is None
        x, w = weighted(self, x, weights, "chordal_mean")
        count, (n, p) = x.shape[0], x.shape[-2:]
        if even and count * p < n:  # all bases side by side; every one of them alone keeps p eigenvalues at 1/N
            side_by_side = x.movedim(0, -2).flatten(-2) * count**-0.5
            return leading_left_space(side_by_side, p, 1 / count)
        w = per_point(self, w)
        scatter = (w * x @ x.mT).sum(0)
        return leading_eigenspace(scatter, p) if p < n else eigh(scatter)[1]

    def _mean_guess(self, x: Tensor, w: Tensor) -> Tensor:
        mean = self.chordal_mean(x, w.flatten(-3))
        return mean @ polar_factor(mean.mT @ x[0])  # in a basis like those of the points

    def origin(self, *size: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """The span of the first p axes."""
        self._raise(self._shape_reason(size))
        return torch.eye(*size[-2:], dtype=dtype, device=device).expand(size).contiguous()

    def random_uniform(
        self,
        *size: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """The rotation-invariant law."""
        self._raise(self._shape_reason(size))
        return haar_frame(*size, generator=generator, dtype=dtype, device=device)
