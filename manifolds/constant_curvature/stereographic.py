"""The stereographic models of spaces of constant curvature: Poincare ball, projected sphere, and both through zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from .. import kernels
from ..functional import poincare, projected_sphere
from ..functional.embedded import embedded_inner, embedded_norm
from ..functional.rounding import ball_rounded, space_rounded
from ..functional.rows import dot
from ..operation import in_full_precision, operation
from ..precision import widen
from .model import ConstantCurvature


class StereographicModel(ConstantCurvature):
    r"""R^n, or for K < 0 the ball |x| < 1/sqrt(-K), with the metric ``<u, v>_x = (2/om(x))^2 <u, v>``,
    ``om(x) = 1 + K|x|^2``: constant sectional curvature K = `curvature`.

    Points are ``*B,n``; the dimension is n. The factor is 4 at the origin, also at K = 0: tangent vectors are in the
    ball's own coordinates, normal coordinates z = 2u. `transp` is the parallel transport, and the retraction the
    exponential map but where `PoincareBall` is told another one.

    The gap om(x) is computed with twice the digits, so that distances are right to a few eps of the coordinates as
    they are stored, out to the last representable radius: about 17 (float32) and 37 (float64) over sqrt(-K). Nothing
    is clamped but results that would lie on the rim, and `projx` moves no point of the ball.
    """

    sign: ClassVar[int]

    @property
    def retraction_order(self) -> int:
        """3: `retr` is the exponential map."""
        return 3

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        return None if point_shape[-1] > 0 else f"points must have at least one coordinate, got {point_shape[-1]}"

    def _vector_residual(self, x: Tensor, u: Tensor) -> tuple[Tensor, str]:
        return (u - u).abs().amax(), "max|u - u|"

    def _point_residual(self, x: Tensor) -> tuple[Tensor, str]:
        inside = (self._gap(x) > 0) | (self.curvature >= 0)
        outside = torch.where(inside, 0.0, self.curvature * dot(x, x)).abs().amax()
        return outside + (x - x).abs().amax(), "max|K| |x|^2 of points outside the ball"

    def dimension(self, shape: tuple[int, ...]) -> int:
        """n."""
        return shape[-1]

    def _of_sign(
        self,
        ball: Callable[..., Any],
        sphere: Callable[..., Any],
        *points: Tensor,
        fused: Callable[..., Any] | None = None,
    ) -> Any:
        """What `ball` gives for K < 0, or `sphere` for K >= 0; `fused` is the kernel of `ball`, where K is known to be
        negative. Of a 0-dim tensor K of any sign both are evaluated, the other one at K = 0, which `fused` does not
        know, without a look at the value."""
        K = self.curvature
        if self.sign < 0 or (self.sign == 0 and not isinstance(K, Tensor) and K < 0):
            return (fused or ball)(*points, K)
        if self.sign > 0 or not isinstance(K, Tensor):
            return sphere(*points, K)
        negative = K < 0
        below, above = ball(*points, torch.where(negative, K, 0.0)), sphere(*points, torch.where(negative, 0.0, K))
        if isinstance(below, tuple):
            return tuple(torch.where(negative, b, a) for b, a in zip(below, above, strict=True))
        return torch.where(negative, below, above)

    def _gap(self, x: Tensor) -> Tensor:
        return self._of_sign(poincare.rim_gap, projected_sphere.projected_gap, x)

    def to_cosine_sine(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(2 - om)/om and 2x/om."""
        om = self._gap(x)
        return (2 - om) / om, 2 / om * x

    def from_cosine_sine(self, t: Tensor, s: Tensor) -> Tensor:
        """s/(1 + t), drawn into the ball."""
        # 1 + t = K|s|^2/(1 - t), without cancellation next to the antipode of the origin.
        opposed = t < 0
        denominator = torch.where(opposed, self.curvature * dot(s, s) / (1 - torch.where(opposed, t, 0.0)), 1 + t)
        return self._of_sign(poincare.into_ball, projected_sphere.projected_inside, s / denominator)

    # ---- the contract -----------------------------------------------------------------------------------------

    @operation
    def projx(self, x: Tensor) -> Tensor:
        """The nearest point: `x` itself, or for K < 0 and outside the ball, on the largest representable radius."""
        return self._of_sign(poincare.poincare_inside, projected_sphere.projected_inside, x)

    def round_to(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The nearest numbers; where these are on the rim or beyond (for K >= 0, larger than any number of `dtype`),
        every coordinate towards zero instead."""
        self.check_operands("round_to", [x])
        return self._of_sign(lambda x, K: ball_rounded(x, K, dtype), lambda x, K: space_rounded(x, dtype), x)

    def _drawn_in(self, x: Tensor, margin: float) -> Tensor:
        return self._of_sign(lambda x, K: poincare.poincare_inside(x, K, margin), projected_sphere.projected_inside, x)

    @operation
    def restore(self, x: Tensor) -> Tensor:
        """As `projx`, for points that rounding moved to the rim."""
        return self._of_sign(poincare.into_ball, projected_sphere.projected_inside, x)

    @operation
    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """The identity."""
        return u.expand(torch.broadcast_shapes(x.shape, u.shape)).clone()

    @operation
    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """4 <u, v>/om(x)^2."""
        om = self._gap(x)
        value = 4 * embedded_inner(x, u, v, self.ndim, True) / om / om
        return value if keepdim else value.squeeze(-1)

    @operation
    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        """2 |u|/om(x)."""
        value = 2 * embedded_norm(x, u, self.ndim, True) / self._gap(x)
        return value if keepdim else value.squeeze(-1)

    @operation
    def egrad2rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        """om(x)^2/4 g."""
        return (0.5 * self._gap(x)).square() * g

    @operation
    def ehess2rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor:
        """om(x)^2/4 (h + 2K/om(x) (<x,u> g + <g,u> x - <x,g> u)): the Christoffel symbols of a conformal metric."""
        om = self._gap(x)
        bent = dot(x, u) * g + dot(g, u) * x - dot(x, g) * u
        return (0.5 * om).square() * h + 0.5 * self.curvature * om * bent

    @operation
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """x (+) w with w the point of normal coordinates 2u/om(x)."""
        return self._of_sign(poincare.poincare_exp, kernels.projected_exp, x, u, fused=kernels.poincare_exp)

    @operation
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """om(x)/2 times the normal coordinates of (-x) (+) y."""
        return self._of_sign(poincare.poincare_log, projected_sphere.projected_log, x, y, fused=kernels.poincare_log)

    @operation
    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """The length of the logarithm: a few eps of it, exactly zero at coincident points."""
        d = self._of_sign(poincare.poincare_dist, kernels.projected_dist, x, y, fused=kernels.poincare_dist)
        return d.unsqueeze(-1) if keepdim else d

    @operation
    def dist2(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """Squared distance, smooth at coincident points."""
        d = self._of_sign(poincare.poincare_dist2, projected_sphere.projected_dist2, x, y)
        return d.unsqueeze(-1) if keepdim else d

    @operation
    def parallel_transport(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """om(y)/om(x) gyr[y, -x] v."""
        return self._of_sign(
            poincare.poincare_transport, projected_sphere.projected_transport, x, y, v, fused=kernels.poincare_transport
        )

    @operation
    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """The parallel transport."""
        return self.parallel_transport(x, y, v)

    @operation
    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """With w as in `expmap`, x (+) w and om(x (+) w)/om(x) gyr[x, w] v."""
        return self._of_sign(poincare.poincare_exp_transport, projected_sphere.projected_exp_transport, x, u, v)

    @operation
    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """`expmap_transp`."""
        return self.expmap_transp(x, u, v)

    @in_full_precision
    def decay(self, x: Tensor, factor: float | Tensor) -> Tensor:
        """factor (*) x: the distance from the origin is multiplied."""
        self.check_operands("decay", [x])
        return self.gyroscale(factor, x)

    @operation
    def basis(self, x: Tensor) -> Tensor:
        """om(x)/2 times the coordinate vectors."""
        return 0.5 * self._gap(x).unsqueeze(-1) * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)

    # ---- gyro structure ---------------------------------------------------------------------------------------

    def normal_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """n."""
        return tuple(point_shape)

    @in_full_precision
    def tangent_from_normal(self, z: Tensor) -> Tensor:
        """z/2."""
        self._check_normal("tangent_from_normal", z)
        return 0.5 * z

    @operation
    def normal_from_tangent(self, u: Tensor) -> Tensor:
        """2u."""
        return 2 * u

    @in_full_precision
    def from_normal(self, z: Tensor) -> Tensor:
        """tan(r)/r z/2 with r = sqrt(K) |z|/2, or tanh."""
        self._check_normal("from_normal", z)
        return self._of_sign(poincare.poincare_from_normal, projected_sphere.projected_from_normal, z)

    @operation
    def to_normal(self, x: Tensor) -> Tensor:
        """2 atan(r)/r x with r = sqrt(K) |x|, or atanh, by the gap."""
        return self._of_sign(poincare.poincare_to_normal, projected_sphere.projected_to_normal, x)

    @operation
    def expmap0(self, u: Tensor) -> Tensor:
        """from_normal(2u)."""
        return self.from_normal(2 * u)

    @operation
    def logmap0(self, x: Tensor) -> Tensor:
        """to_normal(x)/2."""
        return 0.5 * self.to_normal(x)

    @operation
    def gyroadd(self, x: Tensor, y: Tensor) -> Tensor:
        """Moebius addition ``((1 - 2K<x,y> - K|y|^2) x + om(x) y)/(1 - 2K<x,y> + K^2 |x|^2 |y|^2)``."""
        return self._of_sign(poincare.poincare_gyroadd, projected_sphere.projected_gyroadd, x, y)

    @operation
    def gyroinv(self, x: Tensor) -> Tensor:
        """-x."""
        return -x

    @operation
    def gyration(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """A rotation in the plane of x and y."""
        return self._of_sign(poincare.poincare_gyration, projected_sphere.projected_gyration, x, y, z)

    @in_full_precision
    def expmap_frame(self, x: Tensor, z: Tensor) -> Tensor:
        """x (+) from_normal(z)."""
        self._check_frame("expmap_frame", x, z)
        return self._of_sign(poincare.poincare_exp_frame, projected_sphere.projected_exp_frame, x, z)

    @operation
    def logmap_frame(self, x: Tensor, y: Tensor) -> Tensor:
        """Normal coordinates of (-x) (+) y."""
        return self._of_sign(poincare.poincare_log_frame, projected_sphere.projected_log_frame, x, y)

    @in_full_precision
    def tangent_from_frame(self, x: Tensor, z: Tensor) -> Tensor:
        """om(x)/2 z."""
        self._check_frame("tangent_from_frame", x, z)
        return 0.5 * self._gap(x) * z

    @operation
    def frame_from_tangent(self, x: Tensor, u: Tensor) -> Tensor:
        """2/om(x) u."""
        return 2 / self._gap(x) * u

    @in_full_precision
    def transport_frame(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """gyr[y, -x] z."""
        self.check_operands("transport_frame", [x, y])
        self._check_frame("transport_frame", x, z)
        return self._of_sign(poincare.poincare_transport_frame, projected_sphere.projected_transport_frame, x, y, z)

    # ---- sampling ---------------------------------------------------------------------------------------------

    def origin(self, *size: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """Zero."""
        self._raise(self._shape_reason(size))
        return torch.zeros(size, dtype=dtype, device=device)

    def random_tangent(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """om(x)/2 times standard normal entries."""
        self.check_operands("random_tangent", [x])
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return self.tangent_from_frame(x, noise)

    def random_uniform(
        self,
        *size: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """The stereographic image of a uniform point of the sphere, where the curvature is known to be positive."""
        self._raise(self._shape_reason(size))
        if self.sign < 0 or (not isinstance(self.curvature, Tensor) and self.curvature <= 0):
            raise self._missing("uniform law: its volume is infinite; call random_normal")
        if self.sign == 0 and isinstance(self.curvature, Tensor):
            raise self._missing("uniform law while the sign of its curvature may change; call random_normal")
        size = (*size[:-1], size[-1] + 1)
        dtype = torch.get_default_dtype() if dtype is None else dtype
        w = torch.randn(size, generator=generator, dtype=widen(dtype), device=device)
        w = w / torch.linalg.vector_norm(w, dim=-1, keepdim=True)
        m = self.in_dtype(w.dtype)
        return m.round_to(m.from_cosine_sine(w[..., :1], w[..., 1:] * m.curvature**-0.5), dtype)


@final
@dataclass(frozen=True, eq=False)
class PoincareBall(StereographicModel):
    r"""The ball |x| < 1/sqrt(-K) with the metric ``4 |u|^2/(1 + K|x|^2)^2``: hyperbolic space of curvature K < 0.

    `curvature` is a negative number or a 0-dim tensor. With r = sqrt(-K) |y - x|/sqrt(om(x) om(y)) the distance is
    ``2/sqrt(-K) asinh(r)``. Near the rim the rounding of coordinates moves a point by about
    eps exp(sqrt(-K) d)/4, d its distance from the origin; `Lorentz` has no such limit.

    `retraction` (`retr`, `inverse_retr`, `retr_transp`):

    - ``"exp"``: the exponential map.
    - ``"projective"``: x (+) w with w = v/sqrt(1 + |v|^2) in units of 1/sqrt(-K), v = sqrt(-K) u/om(x): along the
      geodesic to the distance ``2/sqrt(-K) asinh(sqrt(-K) |u|_x/2)``, of second order, and inverted everywhere.
    """

    curvature: float | Tensor = -1.0
    retraction: str = "exp"

    sign: ClassVar[int] = -1
    name: ClassVar[str] = "PoincareBall"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.retraction not in ("exp", "projective"):
            raise ValueError(f"PoincareBall: retraction must be 'exp' or 'projective', got {self.retraction!r}")

    @property
    def retraction_order(self) -> int:
        """3 for "exp", which is the exponential map, 2 for "projective"."""
        return 3 if self.retraction == "exp" else 2

    @operation
    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """The retraction chosen in the constructor."""
        if self.retraction == "exp":
            return kernels.poincare_exp(x, u, self.curvature)
        return kernels.poincare_retr(x, u, self.curvature)

    @operation
    def inverse_retr(self, x: Tensor, y: Tensor) -> Tensor:
        """Of the retraction chosen in the constructor, at every point of the ball."""
        if self.retraction == "exp":
            return kernels.poincare_log(x, y, self.curvature)
        return poincare.poincare_inverse_retr(x, y, self.curvature)

    @operation
    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """`retr`, and `v` transported along the same geodesic."""
        if self.retraction == "exp":
            return poincare.poincare_exp_transport(x, u, v, self.curvature)
        y = kernels.poincare_retr(x, u, self.curvature)
        return y, kernels.poincare_transport(x, y, v, self.curvature)


@final
@dataclass(frozen=True, eq=False)
class ProjectedSphere(StereographicModel):
    r"""R^n with the metric ``4 |u|^2/(1 + K|x|^2)^2``: the sphere of curvature K > 0, projected from a point.

    `curvature` is a positive number or a 0-dim tensor. The antipode of the origin is at infinity in this chart and no
    point of it; geodesics through it go on at the other side. Every other point is finite, its antipode -x/(K|x|^2).
    """

    curvature: float | Tensor = 1.0

    sign: ClassVar[int] = 1
    name: ClassVar[str] = "ProjectedSphere"
    _moves_mean: ClassVar[bool] = False  # the antipode of a pivot would go to infinity


@final
@dataclass(frozen=True, eq=False)
class Stereographic(StereographicModel):
    r"""`PoincareBall` for K < 0, `ProjectedSphere` for K > 0, at K = 0 flat space with lengths doubled; smooth in K.

    `curvature` is a number or a 0-dim tensor of any sign, and may pass through zero while it is learned: values and
    derivatives of every operation are continuous there. A tensor costs both signs' formulas, since its value is not
    looked at; a point then has to lie in the ball of the curvature that it meets.
    """

    curvature: float | Tensor

    sign: ClassVar[int] = 0
    name: ClassVar[str] = "Stereographic"
