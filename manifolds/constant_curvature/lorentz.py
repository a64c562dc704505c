"""Hyperbolic space as the upper sheet of a hyperboloid in Minkowski space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..functional import lorentz as formulas
from ..functional import lorentz_frames as frames
from ..functional.lorentz import metric_parts, point_from_space, space, time_of, vector_from_space
from ..functional.rounding import sheet_rounded
from ..functional.rows import dot, square
from ..functional.series import safe_norm
from ..kernels import lorentz_dist, lorentz_exp, lorentz_log, lorentz_transport
from ..operation import in_full_precision, operation
from ..weights import per_point, weighted
from . import means
from .model import ConstantCurvature


@final
@dataclass(frozen=True, eq=False)
class Lorentz(ConstantCurvature):
    r"""Vectors ``(t, s)`` with ``t^2 - |s|^2 = R^2``, t > 0: the space of constant sectional curvature K = -1/R^2 < 0.

    Points are ``*B,n+1``, time first; the dimension is n >= 1. `curvature` is a number or a 0-dim tensor, K. The metric
    is the Minkowski product, ``<u, v> = -u_t v_t + <u_s, v_s>``. The retraction is the exponential map.

    Time is stored and never read: every operation derives it from the space part, which holds a point to eps of its
    angle at any radius, while ``t^2 - |s|^2`` has lost R^2 at radius 19 (float64) or 10 (float32) (arXiv 2211.00181).
    The same holds for the time of a tangent vector, but for `proju`. Coordinates overflow at radius 710 (88), where
    normal coordinates end; squares of them at 354 (44). To there all operations on points and frame coordinates are
    finite and right, and so are their derivatives, as long as coordinates stay below 1e19 in float32 (1e154), which are
    R sinh(radius) long: for 1/1e24 <= -K <= 1e24 at smaller radii. Derivatives in K lose digits, and vanish in the end,
    for -K above 1e8 far out. In float16 the largest number is the time of radius 11.8: a point
    farther out is returned there, on its ray from the origin, and is a point; tangent vectors longer than that are
    infinite.

    At radius r (in units of R) coordinates are rounded by eps cosh(r) in arc length across, and a vector of length one
    has coordinates as large as cosh(r). What is computed is within a few times that of the exact result for the rounded
    arguments; the distance of points in general position to two eps. On nearly one ray from the origin it loses its
    digits from radius 34 (15) on. Frame coordinates (`logmap_frame`, `transport_frame`) do not grow. Two things end
    where that rounding is as long as R, at radius 36 (16): ambient tangent vectors (`inner`, `norm`, `proju`, `expmap`,
    `parallel_transport`), behind which `expmap` overflows as well, and means that lie out there.
    """

    curvature: float | Tensor = -1.0

    sign: ClassVar[int] = -1
    name: ClassVar[str] = "Lorentz"

    @property
    def retraction_order(self) -> int:
        """3: `retr` is the exponential map."""
        return 3

    @property
    def _radius(self) -> float | Tensor:
        return formulas.radius(self.curvature)

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        n = point_shape[-1]
        return None if n > 1 else f"points must have a time and at least one space coordinate, got {n} in all"

    def _point_residual(self, x: Tensor) -> tuple[Tensor, str]:
        time = formulas.time_at_length(space(x), self.curvature)
        return (x[..., :1] / time - 1).abs().amax(), "max|t/sqrt(R^2 + |s|^2) - 1|"

    def _vector_residual(self, x: Tensor, u: Tensor) -> tuple[Tensor, str]:
        s = space(x)
        return (u[..., :1] - dot(s, space(u)) / time_of(s, self.curvature)).abs().amax(), "max|u_t - <s, u_s>/t|"

    def to_cosine_sine(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The time over R, from the space part, and the space part."""
        return formulas.cosine_at_length(space(x), self.curvature), space(x)

    def from_cosine_sine(self, t: Tensor, s: Tensor) -> Tensor:
        """s with its time; t is not read."""
        return torch.cat([formulas.time_at_length(s, self.curvature), s], -1)

    def dimension(self, shape: tuple[int, ...]) -> int:
        """n, one less than the number of coordinates."""
        return shape[-1] - 1

    # ---- projections ------------------------------------------------------------------------------------------

    @operation
    def projx(self, x: Tensor) -> Tensor:
        """The point with the same space part; the time of `x` is not read, whatever it is."""
        s = space(x)
        return torch.cat([formulas.time_at_length(s, self.curvature), s], -1)

    def round_to(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The nearest numbers; where none is as large as the time, the point with the largest time there is on the same
        ray from the origin: at radius 11.8 in float16, 89 in float32 and bfloat16."""
        self.check_operands("round_to", [x])
        return sheet_rounded(x, self.curvature, dtype)

    @operation
    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """``u - K <x, u> x``, the orthogonal projection in the Minkowski product, with the time derived.

        A product <x, u> of the size of its own rounding leaves `u` as it is: x would enlarge it by cosh^2 of the
        radius.
        """
        s, v = space(x), space(u)
        t = time_of(s, self.curvature)
        ut = u[..., :1]
        product = dot(s, v) - t * ut
        rounding = 16 * torch.finfo(x.dtype).eps * (t * (ut.abs() + safe_norm(v, keepdim=True)))
        product = product - torch.where(product.abs() <= rounding, product, 0.0).detach()
        return vector_from_space(s, v - self.curvature * product * s, self.curvature)

    # ---- metric -----------------------------------------------------------------------------------------------

    @operation
    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """The Minkowski product, from space parts."""
        s, root = space(x), (-self.curvature) ** 0.5
        _, nu, p = metric_parts(s, space(u), self.curvature)
        if v is None:
            value = square(p) + (root * nu).square()
        else:
            _, other, q = metric_parts(s, space(v), self.curvature)
            value = dot(p, q) + (root * nu) * (root * other)
        return value if keepdim else value.squeeze(-1)

    @operation
    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        """Length in the Minkowski product, from space parts."""
        _, nu, p = metric_parts(space(x), space(u), self.curvature)
        return safe_norm(torch.cat([nu * (-self.curvature) ** 0.5, p], -1), keepdim=keepdim)

    @operation
    def egrad2rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        """``h - K <s, h> s`` with ``h = g_s + g_t s/t``: a function may have read the time."""
        s, K = space(x), self.curvature
        t = time_of(s, K)
        h = space(g) + g[..., :1] * (s / t)
        along = -K * dot(s, h)
        return torch.cat([along * t, h + along * s], -1)

    @operation
    def ehess2rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor:
        """The gradient's map applied to `h`, and ``-K (t g_t + <s, g_s>) u``."""
        s, K = space(x), self.curvature
        radial = time_of(s, K) * g[..., :1] + dot(s, space(g))
        w = space(self.egrad2rgrad(x, h)) - K * radial * space(u)
        return vector_from_space(s, w, K)

    # ---- geodesics --------------------------------------------------------------------------------------------

    @operation
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """``cosh(r) x + sinh(r)/r u`` with r = sqrt(-K) |u|. From radius 36 (float32: 16) on the rounding of an ambient
        vector may be long enough for the result to overflow: `expmap_frame` has no such limit."""
        return lorentz_exp(x, u, self.curvature)

    @operation
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """``r/sinh(r) (y - cosh(r) x)`` with r = sqrt(-K) d(x, y)."""
        return lorentz_log(x, y, self.curvature)

    @operation
    def parallel_transport(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """``v - K <y, v>/(1 + cosh r) (x + y)``."""
        return lorentz_transport(x, y, v, self.curvature)

    @operation
    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """The parallel transport: the projection at y would cost as much, and multiply lengths by up to cosh(r)."""
        return lorentz_transport(x, y, v, self.curvature)

    @operation
    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The exponential map, then the transport to where it ends."""
        y = lorentz_exp(x, u, self.curvature)
        return y, lorentz_transport(x, y, v, self.curvature)

    @operation
    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """Geodesic distance: of points in general position to two eps at every radius, exactly zero of equal ones."""
        d = lorentz_dist(x, y, self.curvature)
        return d.unsqueeze(-1) if keepdim else d

    @operation
    def dist2(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """Squared geodesic distance, smooth at coincidence."""
        d2 = formulas.lorentz_dist2(x, y, self.curvature)
        return d2.unsqueeze(-1) if keepdim else d2

    @in_full_precision
    def geodesic(self, x: Tensor, y: Tensor, t: Tensor | float) -> Tensor:
        """``(sinh((1 - t) r) x + sinh(t r) y)/sinh(r)``, r = sqrt(-K) d: for t in [0, 1] a sum of positive multiples,
        where the exponential of a long logarithm at a far point subtracts."""
        self._check_geodesic(x, y, t)
        t = self._per_point(t, x)
        z = -self.curvature * self.dist2(x, y, keepdim=True)
        s = formulas.sinh_quotient(1 - t, z) * space(x) + formulas.sinh_quotient(t, z) * space(y)
        return point_from_space(s, self.curvature)

    # ---- bases and laws ---------------------------------------------------------------------------------------

    @operation
    def basis(self, x: Tensor) -> Tensor:
        """The frame at x: the space axes, carried there from the origin. ``*B,n+1 -> *B,n,n+1``."""
        n = x.shape[-1] - 1
        axes = torch.eye(n, dtype=x.dtype, device=x.device)
        return frames.tangent_from_frame(x.unsqueeze(-2), axes, self.curvature)

    @operation
    def to_coordinates(self, x: Tensor, u: Tensor) -> Tensor:
        """Frame coordinates."""
        return frames.frame_from_tangent(x, u, self.curvature)

    @in_full_precision
    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        """The tangent vector with frame coordinates `z`."""
        self._check_frame("from_coordinates", x, z)
        return self.tangent_from_frame(x, z)

    def origin(self, *size: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """``(R, 0, ..., 0)``."""
        self._raise(self._shape_reason(size))
        s = torch.zeros((*size[:-1], size[-1] - 1), dtype=dtype, device=device)
        return torch.cat([torch.zeros_like(s[..., :1]) + self.in_dtype(s.dtype)._radius, s], -1)

    def random_uniform(
        self,
        *size: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """There is no invariant law of mass one: raises."""
        raise self._missing("uniform law: its volume is infinite; call random_normal")

    def random_tangent(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Independent N(0, 1) frame coordinates."""
        self.check_operands("random_tangent", [x])
        size = (*x.shape[:-1], x.shape[-1] - 1)
        return self.tangent_from_frame(x, torch.randn(size, generator=generator, dtype=x.dtype, device=x.device))

    # ---- gyro structure ---------------------------------------------------------------------------------------

    def normal_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """n."""
        return (point_shape[-1] - 1,)

    def tangent_from_normal(self, z: Tensor) -> Tensor:
        """(0, z)."""
        self._check_normal("tangent_from_normal", z)
        return torch.cat([torch.zeros_like(z[..., :1]), z], -1)

    @operation
    def normal_from_tangent(self, u: Tensor) -> Tensor:
        """The space part of `u`."""
        return space(u).clone()

    @operation
    def expmap0(self, u: Tensor) -> Tensor:
        """``expmap(origin, u)``, at any radius that coordinates hold."""
        return frames.point_from_normal(space(u), self.curvature)

    @operation
    def logmap0(self, x: Tensor) -> Tensor:
        """``logmap(origin, x)``, at any radius that coordinates hold."""
        return self.tangent_from_normal(frames.normal_from_point(x, self.curvature))

    @in_full_precision
    def from_normal(self, z: Tensor) -> Tensor:
        """``(R cosh r, sinh(r)/r z)`` with r = |z|/R."""
        self._check_normal("from_normal", z)
        return frames.point_from_normal(z, self.curvature)

    @operation
    def to_normal(self, x: Tensor) -> Tensor:
        """``asinh(r)/r s`` with r = |s|/R."""
        return frames.normal_from_point(x, self.curvature)

    @operation
    def dist0(self, x: Tensor, *, keepdim: bool = False) -> Tensor:
        """``dist(origin, x)``, at any radius that coordinates hold."""
        return safe_norm(frames.normal_from_point(x, self.curvature), keepdim=keepdim)

    @operation
    def gyroadd(self, x: Tensor, y: Tensor) -> Tensor:
        """The boost of `y` that takes the origin to `x`."""
        return frames.lorentz_gyroadd(x, y, self.curvature)

    @operation
    def gyroinv(self, x: Tensor) -> Tensor:
        """(t, -s)."""
        return self.projx(-x)

    @operation
    def gyration(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """A rotation of the space part of `z` in the plane of those of `x` and `y`."""
        s = frames.lorentz_gyration_normal(x, y, space(z), self.curvature)
        return point_from_space(s, self.curvature)

    @operation
    def logmap_frame(self, x: Tensor, y: Tensor) -> Tensor:
        """Frame coordinates of ``logmap(x, y)``."""
        return frames.normal_from_point(frames.lorentz_gyrodiff(x, y, self.curvature), self.curvature)

    @in_full_precision
    def transport_frame(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Parallel transport in frame coordinates, a rotation in the plane of `x` and `y`, to a few eps at every
        radius but for what the rounding of nearby points says of their direction."""
        self.check_operands("transport_frame", [x, y])
        self._check_frame("transport_frame", x, z)
        return frames.lorentz_transport_normal(x, y, z, self.curvature)

    @in_full_precision
    def tangent_from_frame(self, x: Tensor, z: Tensor) -> Tensor:
        """The tangent vector at `x` with frame coordinates `z`."""
        self._check_frame("tangent_from_frame", x, z)
        return frames.tangent_from_frame(x, z, self.curvature)

    @operation
    def frame_from_tangent(self, x: Tensor, u: Tensor) -> Tensor:
        """Frame coordinates of the tangent vector `u` at `x`."""
        return frames.frame_from_tangent(x, u, self.curvature)

    def decay(self, x: Tensor, factor: float | Tensor) -> Tensor:
        """The point `factor` times as far from the origin."""
        self.check_operands("decay", [x])
        return self.gyroscale(factor, x)

    def boost_matrix(self, x: Tensor) -> Tensor:
        """The Lorentz boost that takes the origin to `x`, as a matrix: ``boost_matrix(x) @ y == gyroadd(x, y)`` up to
        the rounding of a product whose terms are cosh(r) larger than the result. ``*B,n+1 -> *B,n+1,n+1``."""
        self.check_operands("boost_matrix", [x])
        basis = self.basis(x)
        t, s = self.to_cosine_sine(x)
        return torch.cat([torch.cat([t, s * (-self.curvature) ** 0.5], -1).unsqueeze(-1), basis.mT], -1)

    # ---- means ------------------------------------------------------------------------------------------------

    @in_full_precision
    def centroid(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        r"""The weighted sum of the points, scaled back on the sheet: ``N,*B,n+1 -> *B,n+1``.

        It minimises ``sum_i w_i (cosh(sqrt(-K) d(x_i, mu)) - 1)`` (Law, Liao, Snell and Zemel 2019, "Lorentzian
        Distance Learning for Hyperbolic Representations") and commutes with isometries. `weights` as of `frechet_mean`.
        """
        x, w = weighted(self, x, weights, "centroid")
        return means.centroid(self, x, per_point(self, w))
