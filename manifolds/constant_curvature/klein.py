"""The Beltrami-Klein model of hyperbolic space: geodesics are straight lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..functional.embedded import embedded_inner
from ..functional.klein import separation
from ..functional.poincare import gyrated, into_ball, poincare_inside, rim_gap, shortening, turned
from ..functional.rounding import ball_rounded
from ..functional.rows import dot, square
from ..functional.series import safe_norm
from ..functional.signed_trigonometry import asin_ratio_k, tan_ratio_k
from ..kernels import klein_dist, klein_exp, klein_log, klein_transport
from ..operation import in_full_precision, operation
from .model import ConstantCurvature


@final
@dataclass(frozen=True, eq=False)
class Klein(ConstantCurvature):
    r"""The ball |x| < 1/sqrt(-K) with the metric ``<u,v>/om - K <x,u><x,v>/om^2``, ``om = 1 + K|x|^2``: hyperbolic
    space of curvature K = `curvature` < 0, a number or a 0-dim tensor, with straight geodesics.

    Points are ``*B,n``; the dimension is n. The retraction is the exponential map and `transp` the parallel transport.

    With a = sqrt(om) the point is the Lorentz point of time 1/a and space x/a, and the Poincare point x/(1 + a), whose
    conformal gap is 2a/(1 + a). Orthonormal (frame) coordinates divide the part of a tangent vector along x by om and
    the part across by a. The model ends where 1 - |x| does in floating point: at radius 18.7 (float64) and about 9
    (float32) over sqrt(-K), half as far out as `PoincareBall`, and with errors of eps cosh^2 of the radius before that.
    """

    curvature: float | Tensor = -1.0

    sign: ClassVar[int] = -1
    name: ClassVar[str] = "Klein"

    @property
    def retraction_order(self) -> int:
        """3: `retr` is the exponential map."""
        return 3

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        return None if point_shape[-1] > 0 else f"points must have at least one coordinate, got {point_shape[-1]}"

    def _vector_residual(self, x: Tensor, u: Tensor) -> tuple[Tensor, str]:
        return (u - u).abs().amax(), "max|u - u|"

    def _point_residual(self, x: Tensor) -> tuple[Tensor, str]:
        inside = rim_gap(x, self.curvature) > 0
        return torch.where(inside, 0.0, self.curvature * dot(x, x)).abs().amax(), "max|K| |x|^2 of points outside"

    def dimension(self, shape: tuple[int, ...]) -> int:
        """n."""
        return shape[-1]

    def to_cosine_sine(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """t = (1 + K|x|^2)^(-1/2) and s = t x."""
        t = rim_gap(x, self.curvature).rsqrt()
        return t, t * x

    def from_cosine_sine(self, t: Tensor, s: Tensor) -> Tensor:
        """s/t, inside the ball."""
        return into_ball(s / t, self.curvature)

    # ---- the contract -----------------------------------------------------------------------------------------

    @operation
    def projx(self, x: Tensor) -> Tensor:
        """The nearest point: `x` itself, or outside the ball on the largest representable radius."""
        return poincare_inside(x, self.curvature)

    def round_to(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The nearest numbers; where these are on the rim or beyond, every coordinate towards zero instead."""
        self.check_operands("round_to", [x])
        return ball_rounded(x, self.curvature, dtype)

    def _drawn_in(self, x: Tensor, margin: float) -> Tensor:
        return poincare_inside(x, self.curvature, margin)

    @operation
    def restore(self, x: Tensor) -> Tensor:
        """As `projx`, for points that rounding moved to the rim."""
        return into_ball(x, self.curvature)

    @operation
    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """The identity."""
        return u.expand(torch.broadcast_shapes(x.shape, u.shape)).clone()

    @operation
    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """<u,v>/om - K <x,u><x,v>/om^2."""
        om = rim_gap(x, self.curvature)
        along = dot(x, u) / om
        other = along if v is None else dot(x, v) / om
        value = embedded_inner(x, u, v, self.ndim, True) / om - self.curvature * along * other
        return value if keepdim else value.squeeze(-1)

    @operation
    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        """Length of the row (u/sqrt(om), sqrt(-K) <x,u>/om), without underflow."""
        om = rim_gap(x, self.curvature)
        along = (-self.curvature) ** 0.5 * dot(x, u) / om
        return safe_norm(torch.cat([along, u / om.sqrt()], -1), keepdim=keepdim)

    @operation
    def egrad2rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        """om (g + K <x,g> x): the inverse metric."""
        return rim_gap(x, self.curvature) * torch.addcmul(g, self.curvature * dot(x, g), x)

    @operation
    def ehess2rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor:
        """The inverse metric of h + K/om (<x,u> g + <g,u> x): Christoffel symbols -K/om (<x,u> v + <x,v> u)."""
        bent = dot(x, u) * g + dot(g, u) * x
        return self.egrad2rgrad(x, h + self.curvature / rim_gap(x, self.curvature) * bent)

    @operation
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """x + T u/(1 - K T <x,u>/om) with T = tanh(r)/r, r = sqrt(-K) times the length of u."""
        return klein_exp(x, u, self.curvature)

    @operation
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """asinh(s)/s sqrt(om(x)/om(y)) (y - x), s the hyperbolic sine of sqrt(-K) d."""
        return klein_log(x, y, self.curvature)

    @operation
    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """asinh(sqrt(-K q))/sqrt(-K), q = (om(x) |D|^2 - K <x,D>^2)/(om(x) om(y)); zero at coincident points."""
        d = klein_dist(x, y, self.curvature)
        return d.unsqueeze(-1) if keepdim else d

    @operation
    def dist2(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """Squared distance, smooth at coincident points."""
        q = separation(x, y, self.curvature).q
        d2 = q * asin_ratio_k(self.curvature * q, -1).square()
        return d2 if keepdim else d2.squeeze(-1)

    @operation
    def parallel_transport(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """b/a (v + c (y - x)) with a and b the roots of om at x and y, and a number c."""
        return klein_transport(x, y, v, self.curvature)

    @operation
    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """The parallel transport."""
        return self.parallel_transport(x, y, v)

    @operation
    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The exponential, and the transport to it."""
        y = self.expmap(x, u)
        return y, self.parallel_transport(x, y, v)

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
        """The vectors with the coordinate vectors as frame coordinates."""
        return self._from_frame(x.unsqueeze(-2), torch.eye(x.shape[-1], dtype=x.dtype, device=x.device))

    # ---- gyro structure ---------------------------------------------------------------------------------------

    def normal_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """n."""
        return tuple(point_shape)

    @in_full_precision
    def tangent_from_normal(self, z: Tensor) -> Tensor:
        """z itself."""
        self._check_normal("tangent_from_normal", z)
        return z.clone()

    @operation
    def normal_from_tangent(self, u: Tensor) -> Tensor:
        """u itself."""
        return u.clone()

    @in_full_precision
    def from_normal(self, z: Tensor) -> Tensor:
        """tanh(r)/r z with r = sqrt(-K) |z|."""
        self._check_normal("from_normal", z)
        factor, zz = shortening(z, 1.0, self.curvature)
        return into_ball(factor * tan_ratio_k(self.curvature * zz, -1) * z, self.curvature)

    @operation
    def expmap0(self, u: Tensor) -> Tensor:
        """from_normal(u)."""
        return self.from_normal(u)

    @operation
    def logmap0(self, x: Tensor) -> Tensor:
        """to_normal(x)."""
        return self.to_normal(x)

    @operation
    def to_normal(self, x: Tensor) -> Tensor:
        """atanh(r)/r x with r = sqrt(-K) |x|, by the gap."""
        om = rim_gap(x, self.curvature)
        return asin_ratio_k(self.curvature * square(x) / om, -1) * om.rsqrt() * x

    @operation
    def gyroadd(self, x: Tensor, y: Tensor) -> Tensor:
        """Einstein addition ``(a S - K <x,S>/(1 + a) x)/(1 - K <x,y>)`` with S = x + y, a = sqrt(om(x)), and twice the
        denominator ``om(x) + om(y) - K|S|^2`` (Ungar 2008, doi 10.1142/6625, has the rational form)."""
        K, om, s = self.curvature, rim_gap(x, self.curvature), x + y
        a, scale = om.sqrt(), 2 / (om + rim_gap(y, self.curvature) - K * square(s))
        return into_ball(torch.addcmul(a * scale * s, -K * scale * dot(x, s) / (1 + a), x), K)

    @operation
    def gyroinv(self, x: Tensor) -> Tensor:
        """-x."""
        return -x

    @operation
    def gyration(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """The rotation that it is in the Poincare ball."""
        a, b = rim_gap(x, self.curvature).sqrt(), rim_gap(y, self.curvature).sqrt()
        at = x / (1 + a), 2 * a / (1 + a), 1 / (1 + b), y, 2 * b / (1 + b)
        return into_ball(gyrated(*at, z, self.curvature), self.curvature)

    @in_full_precision
    def expmap_frame(self, x: Tensor, z: Tensor) -> Tensor:
        """The exponential of the tangent vector with frame coordinates z."""
        self._check_frame("expmap_frame", x, z)
        return self.expmap(x, self.tangent_from_frame(x, z))

    @operation
    def logmap_frame(self, x: Tensor, y: Tensor) -> Tensor:
        """asinh(s)/s (D - K <x,D>/(a (1 + a)) x)/sqrt(om(y)): frame coordinates of the logarithm."""
        return self._to_frame(x, self.logmap(x, y))

    @in_full_precision
    def tangent_from_frame(self, x: Tensor, z: Tensor) -> Tensor:
        """a (z + K <x,z>/(1 + a) x) with a = sqrt(om)."""
        self._check_frame("tangent_from_frame", x, z)
        return self._from_frame(x, z)

    def _from_frame(self, x: Tensor, z: Tensor) -> Tensor:
        a = rim_gap(x, self.curvature).sqrt()
        return a * torch.addcmul(z, self.curvature * dot(x, z) / (1 + a), x)

    @operation
    def frame_from_tangent(self, x: Tensor, u: Tensor) -> Tensor:
        """(u - K <x,u>/(a (1 + a)) x)/a with a = sqrt(om)."""
        return self._to_frame(x, u)

    def _to_frame(self, x: Tensor, u: Tensor) -> Tensor:
        a = rim_gap(x, self.curvature).sqrt()
        return torch.addcmul(u, -self.curvature * dot(x, u) / (a * (1 + a)), x) / a

    @in_full_precision
    def transport_frame(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """The rotation that it is in the Poincare ball."""
        self.check_operands("transport_frame", [x, y])
        self._check_frame("transport_frame", x, z)
        return self._rotated(x, y, z)

    def _rotated(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """gyr[y, -x] z, with the difference of the Poincare points from that of x and y."""
        K, d, a, b = self.curvature, y - x, rim_gap(x, self.curvature).sqrt(), rim_gap(y, self.curvature).sqrt()
        inner = 1 / ((1 + a) * (1 + b))
        gap_difference = K * (2 * dot(x, d) + square(d)) / (a + b)  # b - a
        d = torch.addcmul((1 + a) * inner * d, -gap_difference * inner, x)
        return turned(x / (1 + a), d, 2 * a / (1 + a), 2 * b / (1 + b), z, K)

    # ---- sampling ---------------------------------------------------------------------------------------------

    def origin(self, *size: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """Zero."""
        self._raise(self._shape_reason(size))
        return torch.zeros(size, dtype=dtype, device=device)

    def random_tangent(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal frame coordinates."""
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
        """There is no invariant law of mass one: raises."""
        raise self._missing("uniform law: its volume is infinite; call random_normal")
