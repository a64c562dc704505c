"""Probability vectors with the Fisher-Rao metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from .constant_curvature.sphere import Sphere
from .frechet import Search
from .functional.rows import dot
from .functional.series import atan_ratio, safe_norm
from .functional.signed_trigonometry import log_sin_ratio_k, sin_ratio_k
from .functional.simplex import (
    geodesic_end,
    inside_rounding,
    over_sum,
    positive_root,
    positive_step,
    roots_apart,
    squared_inside,
)
from .operation import in_full_precision, operation
from .probability_vectors import ProbabilityVectors
from .redraw import drawn_inside


@final
@dataclass(frozen=True, eq=False)
class Simplex(ProbabilityVectors):
    r"""Probability vectors with positive entries, and the Fisher-Rao metric ``<u, v>_x = sum_i u_i v_i/x_i``.

    Points are ``*B,n``, n > 1, tangent vectors have the sum zero, the dimension is n - 1. ``x -> 2 sqrt(x)`` is an
    isometry onto the open part of the sphere of radius 2 with positive entries: sectional curvature 1/4, distances
    ``2 arccos(sum sqrt(x_i y_i))``, below pi. Up to a factor it is the only metric for which every split of outcomes by
    fixed shares is isometric (Cencov 1982; Ay, Jost, Le and Schwachhoefer 2015, doi 10.1007/s00440-014-0574-8). Of
    close distributions, ``dist^2/2`` is the relative entropy up to a term of third order, and the mean of the relative
    entropies of both directions up to one of fourth order.

    **Incomplete.** Shortest geodesics are unique and stay inside, and means exist and are unique. A geodesic that goes
    on reaches a face, where an entry is zero, and would fold back: `expmap` is NaN from there on, and `exp_is_defined`
    says so. The injectivity radius at x is the distance to the nearest face, ``2 arcsin(sqrt(min x))``, that of the
    whole space 0. No gyro structure: a sum of two logarithms may lead outside.

    `retr` is a point for every u, and of second order: x f(u/x) over its sum, with
    ``f(a) = (1 + 2a + sqrt((1 + 2a)^2 + 3))/3 = 1 + a + a^2/4 + O(a^3)``, where the exponential map has
    ``(cos r + sin(r)/r a/2)^2``. It has a closed inverse everywhere. Vectors are transported in parallel.

    An item with a negative entry gives NaN in all that takes roots, which `inner`, gradients and projections do not,
    and no other one is touched by it. Distances between vectors with zero entries, and logarithms, geodesics and
    transports to one, are those of the closed simplex; from one they are NaN. The distance has an infinite derivative
    in an entry that is zero where that of the other point is not. An entry that underflows ends as the least normal
    number.

    Source: Amari and Nagaoka 2000, "Methods of Information Geometry"; Astrom, Petra, Schmitzer and Schnoerr 2017,
    "Image labeling by assignment", arXiv:1603.05285, for exponential map and logarithm.
    """

    name: ClassVar[str] = "Simplex"

    @property
    def retraction_order(self) -> int:
        """2."""
        return 2

    # ---- the metric -------------------------------------------------------------------------------------------

    @operation
    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """u - x sum(u): orthogonal in the metric."""
        return u - x * u.sum(-1, keepdim=True)

    @operation
    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """sum u v/x."""
        return (u / x * (u if v is None else v)).sum(-1, keepdim=keepdim)

    @operation
    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        """|u/sqrt(x)|, without overflow."""
        return safe_norm(u / x.sqrt(), keepdim=keepdim)

    @operation
    def egrad2rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        """x (g - sum(x g)): the direction of the replicator equation."""
        return x * (g - dot(x, g))

    @operation
    def ehess2rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor:
        """The tangent part of ``x h + u (g - sum(x g))/2``: the Levi-Civita derivative of V along u in the positive
        orthant, which 2 sqrt makes flat, is ``DV[u] - u V/(2x)``."""
        return self.proju(x, x * h + 0.5 * u * (g - dot(x, g)))

    @operation
    def sectional_curvature(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """1/4."""
        return torch.zeros_like((x + u + v).sum(-1)) + 0.25

    @in_full_precision
    def injectivity_radius(self, x: Tensor | None = None) -> float | Tensor:
        """The distance to the nearest face, ``2 arcsin(sqrt(min x))``; 0 of the whole space."""
        if x is None:
            return 0.0
        self.check_operands("injectivity_radius", [x])
        return 2 * x.amin(-1).sqrt().asin()

    @operation
    def log_is_unique(self, x: Tensor, y: Tensor, *, margin: float = 0.0) -> Tensor:
        """Everywhere."""
        return self._everywhere(x, y)

    @operation
    def logdet_dexp(self, x: Tensor, u: Tensor) -> Tensor:
        """(n - 2) log(sin(r)/r) with r = |u|/2."""
        return (x.shape[-1] - 2) * log_sin_ratio_k(0.25 * self.inner(x, u), 1)

    @operation
    def basis(self, x: Tensor) -> Tensor:
        """sqrt(x) times that of the unit sphere at sqrt(x)."""
        root = positive_root(x)
        return root.unsqueeze(-2) * Sphere().basis(root)

    # ---- distances --------------------------------------------------------------------------------------------

    @operation
    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """``4 atan2(|a - b|, |a + b|)`` of the roots: relative error of a few eps of the given numbers, at every
        distance."""
        off, square = roots_apart(x, y)
        d = 4 * torch.atan2(safe_norm(off, keepdim=True), square.sqrt())
        return d if keepdim else d.squeeze(-1)

    @operation
    def dist2(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """The square of that, by a series in tan^2 of a quarter of it where that is small: smooth at coincidence."""
        off, square = roots_apart(x, y)
        q = dot(off, off) / square
        d2 = 16 * q * atan_ratio(q).square()
        return d2 if keepdim else d2.squeeze(-1)

    # ---- geodesics and transports -----------------------------------------------------------------------------

    @operation
    def exp_is_defined(self, x: Tensor, u: Tensor) -> Tensor:
        """Whether no entry of ``cos(r) + sin(r)/r u/(2x)`` is below zero, and r = |u|/2 below pi/2."""
        return geodesic_end(x, u)[1].squeeze(-1)

    @operation
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """``x (cos(r) + sin(r)/r u/(2x))^2`` with r = |u|/2; NaN beyond a face."""
        end, inside, *_ = geodesic_end(x, u)
        return squared_inside(end, inside)

    @operation
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """``2 sqrt(x) theta/sin(theta) (sqrt(y) - cos(theta) sqrt(x))``, theta = dist/2."""
        a = positive_root(x)
        off, square = roots_apart(x, y)
        q = dot(off, off) / square
        step = 2 * a * off
        return (1 + q) * atan_ratio(q) * (step - x * step.sum(-1, keepdim=True))

    @in_full_precision
    def geodesic(self, x: Tensor, y: Tensor, t: Tensor | float) -> Tensor:
        """The square of ``(sin((1 - t) theta) sqrt(x) + sin(t theta) sqrt(y))/sin(theta)``, theta = dist/2: between
        the ends a sum of positive numbers."""
        self._check_geodesic(x, y, t)
        z = 0.25 * self.dist2(x, y, keepdim=True)
        t = self._per_point(t, z)
        before, after = t.square() * z, (1 - t).square() * z
        scale = 1 / sin_ratio_k(z, 1)
        a, b = positive_root(x), y.sqrt()
        root = (1 - t) * sin_ratio_k(after, 1) * scale * a + t * sin_ratio_k(before, 1) * scale * b
        return squared_inside(root, inside_rounding(root, torch.maximum(a, b), torch.maximum(before, after)))

    @in_full_precision
    def decay(self, x: Tensor, factor: float | Tensor) -> Tensor:
        """The point on the geodesic from the uniform distribution to `x` at `factor`."""
        self.check_operands("decay", [x])
        return self.geodesic(torch.full_like(x, 1 / x.shape[-1]), x, factor)

    @operation
    def parallel_transport(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """``2b (w - <b, w>/(1 + <a, b>) (a + b))`` with the roots a, b and w = v/(2a)."""
        a, b = positive_root(x), y.sqrt()
        w = v / (2 * a)
        return 2 * b * (w - dot(b, w) / (1 + dot(a, b)) * (a + b))

    @operation
    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """The parallel transport. v itself is tangent at y too, but next to a face it may be arbitrarily long there."""
        return self.parallel_transport(x, y, v)

    @operation
    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """w = v/(2a) loses its part along the velocity and regains it along the turned one, as on a sphere."""
        end, inside, w, z = geodesic_end(x, u)
        a = positive_root(x)
        of_v = v / (2 * a)
        turned = of_v - dot(w, of_v) * (0.5 * sin_ratio_k(z / 4, 1).square() * w + sin_ratio_k(z, 1) * a)
        return squared_inside(end, inside), torch.where(inside, 2 * end * turned, torch.nan)

    @operation
    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """x f(u/x) over its sum."""
        # In units of a long u, of which sums may overflow.
        unit = u.detach().abs().amax(-1, keepdim=True).clamp_min(1)
        step = positive_step(torch.where(x > 0, x, torch.nan) / unit, u / unit)
        return over_sum(step, torch.finfo(x.dtype).tiny)

    @operation
    def inverse_retr(self, x: Tensor, y: Tensor) -> Tensor:
        """``x (3f - 2 - 1/f)/4`` with f = c y/x; that its sum is zero makes c the positive root of
        ``3c^2 - 2c = sum(x^2/y)``. In differences, which keep their digits:
        ``((c - 1) y + y - x)(3 + 1/f)/4`` and ``c - 1 = e/(sqrt(4 + 3e) + 2)``, e = sum((y - x)^2/y)."""
        step = y - torch.where(x > 0, x, torch.nan)
        e = (step.square() / y).sum(-1, keepdim=True)
        more = e / ((4 + 3 * e).sqrt() + 2)
        return 0.25 * (more * y + step) * (3 + x / ((1 + more) * y))

    # ---- means ------------------------------------------------------------------------------------------------

    def _mean(self, x: Tensor, start: Tensor | None, *, w: Tensor, search: Search) -> Tensor:
        # Of the roots, by Newton's iteration on the sphere: convex in the orthant, which holds the mean.
        start = None if start is None else start.sqrt()
        return self.restore(Sphere()._mean(x.sqrt(), start, w=w, search=search).square())

    # ---- sampling ---------------------------------------------------------------------------------------------

    def random_uniform(self, *size: int, **draw: Any) -> Tensor:
        """The volume of the metric, over all of it: `random_dirichlet` with the concentration 1/2, which has the
        density ``prod x_i^-1/2`` of Jeffreys' prior."""
        return self.random_dirichlet(*size, concentration=0.5, **draw)

    def random_tangent(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal in the metric: the tangent part of sqrt(x) times noise."""
        self.check_operands("random_tangent", [x])
        return self._tangent(x, torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device))

    @in_full_precision
    def _tangent(self, x: Tensor, noise: Tensor) -> Tensor:
        return self.proju(x, positive_root(x) * noise)

    def random_normal(self, *size: int, mean: Tensor | None = None, std: float | Tensor = 1.0, **draw: Any) -> Tensor:
        """Wrapped normal law ``exp_mean(std * z)`` given that the geodesic stays inside: what leaves is drawn again.

        Raises ``ValueError`` if nothing stays inside in 100 rounds.
        """
        normal = super().random_normal
        return drawn_inside(self, lambda: normal(*size, mean=mean, std=std, **draw))
