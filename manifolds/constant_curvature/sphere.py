"""The sphere of any positive curvature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ..functional.embedded import embedded_inner, embedded_norm
from ..functional.rows import dot, unit_vector
from ..functional.sphere import sphere_exp_transport, sphere_translated
from ..kernels import sphere_dist, sphere_dist2, sphere_exp, sphere_log, sphere_transport
from ..operation import in_full_precision, operation
from .model import ConstantCurvature


@final
@dataclass(frozen=True, eq=False)
class Sphere(ConstantCurvature):
    r"""Vectors of length 1/sqrt(K) with the metric of the ambient space: constant sectional curvature K > 0.

    Points are ``*B,n``; the dimension is n - 1. `curvature` is a number or a 0-dim tensor, K. Two points have an angle
    theta; their distance is theta/sqrt(K) and the injectivity radius pi/sqrt(K). The retraction is the metric
    projection ``(x + u)/|x + u|/sqrt(K)``, of second order (Absil and Malick 2012, doi 10.1137/100802529).

    Stable forms. An angle is that between x + y and what y - x has across it: the rounding of |x| and |y|, which enters
    |y - x| by far more than the angle does when the points are close, does not count.

    The origin is the first axis, and normal coordinates are those along the other ones. Gyro-operations that move the
    origin to its antipode do not exist, and are NaN or far off next to it: the antipode has no frame.

    Raises ``ValueError`` if `curvature` is not positive and finite.
    """

    curvature: float | Tensor = 1.0

    sign: ClassVar[int] = 1
    name: ClassVar[str] = "Sphere"
    _moves_mean: ClassVar[bool] = False  # every point is as good as the origin, but its antipode cannot be moved there

    @property
    def _radius(self) -> float | Tensor:
        return self.curvature**-0.5

    @property
    def retraction_order(self) -> int:
        """2: `retr` is a metric projection."""
        return 2

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        return None if point_shape[-1] > 0 else f"points must have at least one coordinate, got {point_shape[-1]}"

    def _point_residual(self, x: Tensor) -> tuple[Tensor, str]:
        return ((self.curvature * dot(x, x)).sqrt() - 1).abs().amax(), "max|sqrt(K) |x| - 1|"

    def _vector_residual(self, x: Tensor, u: Tensor) -> tuple[Tensor, str]:
        return (self.curvature**0.5 * dot(x, u)).abs().amax(), "max|sqrt(K) <x, u>|"

    def dimension(self, shape: tuple[int, ...]) -> int:
        """n - 1."""
        return shape[-1] - 1

    @operation
    def projx(self, x: Tensor) -> Tensor:
        """x/(sqrt(K) |x|); the zero vector, from which every point is equally far, goes to the origin."""
        zero = (x == 0).all(-1, keepdim=True)
        return torch.where(zero, self._pole(x) * self._radius, self._normalised(torch.where(zero, 1.0, x)))

    def _normalised(self, w: Tensor) -> Tensor:
        # Divided by the largest entry first: squares overflow from 2e19 on in float32.
        w = w / w.detach().abs().amax(-1, keepdim=True)
        return w * (self._radius / torch.linalg.vector_norm(w, dim=-1, keepdim=True))

    @operation
    def restore(self, x: Tensor) -> Tensor:
        """x/(sqrt(K) |x|) for an x that is nearly that long."""
        return x * (self._radius / torch.linalg.vector_norm(x, dim=-1, keepdim=True))

    @operation
    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """u - K <x, u> x."""
        return u - self.curvature * dot(x, u) * x

    @operation
    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """The dot product."""
        return embedded_inner(x, u, v, self.ndim, keepdim)

    @operation
    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        """|u|."""
        return embedded_norm(x, u, self.ndim, keepdim)

    @operation
    def egrad2rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        """The tangent part of `g`."""
        return self.proju(x, g)

    @operation
    def ehess2rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor:
        """proj(h) - K <x, g> u (Absil, Mahony and Trumpf 2013, doi 10.1007/978-3-642-40020-9_39)."""
        return self.proju(x, h) - self.curvature * dot(x, g) * u

    @operation
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """cos(t) x + sin(t)/t u with t = sqrt(K) |u|."""
        return sphere_exp(x, u, self.curvature)

    @operation
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """The vector of length theta/sqrt(K) along the great circle to y.

        At the antipode it leads along the great circle through the first coordinate axis, or near that the second.
        """
        return sphere_log(x, y, self.curvature)

    @operation
    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """theta/sqrt(K): relative error of a few eps at every angle, exactly zero at coincident points."""
        d = sphere_dist(x, y, self.curvature)
        return d.unsqueeze(-1) if keepdim else d

    @operation
    def dist2(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """theta^2/K, smooth at coincidence."""
        d2 = sphere_dist2(x, y, self.curvature)
        return d2.unsqueeze(-1) if keepdim else d2

    @operation
    def parallel_transport(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """``v + <tau,v> ((cos(theta) - 1) tau - sin(theta) sqrt(K) x)``, tau the unit vector along the logarithm."""
        return sphere_transport(x, y, v, self.curvature)

    @operation
    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """v loses its part along u and regains it along the turned velocity."""
        return sphere_exp_transport(x, u, v, self.curvature)

    @operation
    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """The metric projection of x + u, which for a tangent u is never shorter than x."""
        return self._normalised(x + u)

    @operation
    def inverse_retr(self, x: Tensor, y: Tensor) -> Tensor:
        """y/(K <x, y>) - x, defined in the open half sphere around x; NaN outside it."""
        c = self.curvature * dot(x, y)
        return torch.where(c > 0, self.proju(x, y) / torch.where(c > 0, c, 1.0), torch.nan)

    @operation
    def basis(self, x: Tensor) -> Tensor:
        """Columns of the Householder reflection that sends the first axis to -+x: smooth but for a sign at x_0 = 0."""
        n = x.shape[-1]
        unit = self.curvature**0.5 * x
        sign = torch.where(unit[..., :1] < 0, -1.0, 1.0)
        w = torch.cat([unit[..., :1] + sign, unit[..., 1:]], -1)
        eye = torch.eye(n, dtype=x.dtype, device=x.device)
        reflection = eye - 2 * w.unsqueeze(-1) * w.unsqueeze(-2) / dot(w, w).unsqueeze(-1)
        return reflection[..., 1:, :]

    # ---- gyro structure ---------------------------------------------------------------------------------------

    def to_cosine_sine(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x_0/R and the other coordinates."""
        return x[..., :1] / self._radius, x[..., 1:]

    def from_cosine_sine(self, t: Tensor, s: Tensor) -> Tensor:
        """(R t, s)."""
        return torch.cat([t * self._radius, s], -1)

    def normal_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """n - 1 coordinates."""
        return (point_shape[-1] - 1,)

    @in_full_precision
    def tangent_from_normal(self, z: Tensor) -> Tensor:
        """(0, z)."""
        self._check_normal("tangent_from_normal", z)
        return torch.cat([torch.zeros_like(z[..., :1]), z], -1)

    @operation
    def normal_from_tangent(self, u: Tensor) -> Tensor:
        """u without its first entry, which is zero."""
        return u[..., 1:].clone()

    @in_full_precision
    def translated(self, x: Tensor, z: Tensor) -> Tensor:
        """The rotation by sqrt(K) |z| in the plane of the first axis and `z`, of any length: also where the point is
        the antipode of the origin, or was passed."""
        self._check_frame("translated", x, z)
        return sphere_translated(x, z, self.curvature)

    @in_full_precision
    def tangent_from_frame(self, x: Tensor, z: Tensor) -> Tensor:
        """The transvection to x is linear in the ambient space, and is applied to (0, z)."""
        self._check_frame("tangent_from_frame", x, z)
        t, s = self.to_cosine_sine(x)
        along = self.curvature * dot(s, z)
        return torch.cat([-self._radius * along, z - along / self._one_plus(t, s) * s], -1)

    @operation
    def frame_from_tangent(self, x: Tensor, u: Tensor) -> Tensor:
        """The transvection back, ``u_s - sqrt(K) u_t s/(1 + t)`` of a tangent vector."""
        t, s = self.to_cosine_sine(x)
        return u[..., 1:] - u[..., :1] / (self._radius * self._one_plus(t, s)) * s

    @operation
    def logmap_frame(self, x: Tensor, y: Tensor) -> Tensor:
        """The coordinates of ``logmap(x, y)``, which keeps its digits when the points are close."""
        return self.frame_from_tangent(x, self.logmap(x, y))

    # ---- sampling ---------------------------------------------------------------------------------------------

    def _pole(self, like: Tensor) -> Tensor:
        return unit_vector(0, like)

    def origin(self, *size: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """The first axis, at length 1/sqrt(K)."""
        self._raise(self._shape_reason(size))
        x = torch.zeros(size, dtype=dtype, device=device)
        return (self._pole(x) * self.in_dtype(x.dtype)._radius).expand(size).contiguous()

    def random(self, *size: int, **kwargs: Any) -> Tensor:
        """The invariant law."""
        return self.random_uniform(*size, **kwargs)

    def random_uniform(
        self,
        *size: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """A normalised Gaussian vector: the rotation-invariant law."""
        self._raise(self._shape_reason(size))
        return self.projx(torch.randn(size, generator=generator, dtype=dtype, device=device))
