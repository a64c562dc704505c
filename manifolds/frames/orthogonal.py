"""The orthogonal group and the rotation group, with their bi-invariant metric."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..base import Manifold
from ..frechet import Search
from ..functional.embedded import embedded_inner, embedded_norm
from ..functional.frame_retractions import cayley, inverse_cayley, inverse_polar, inverse_qr, qr
from ..functional.frames import haar_frame, matrix_exp, newton_schulz_step, polish, sampled_dtypes
from ..functional.matrices import identity_like, skew, sym
from ..functional.nearest_frame import nearest_frame
from ..functional.rotation_log import nearest_rotation, relative_log, solve
from ..functional.tracing import values_readable
from ..kernels.frames import polar
from ..operation import in_full_precision, operation

_RETRACT = {"qr": qr, "polar": polar, "cayley": cayley}
_INVERSE = {"qr": inverse_qr, "polar": inverse_polar, "cayley": inverse_cayley}
RETRACTIONS = (*_RETRACT, "exp")


@dataclass(frozen=True, eq=False)
class OrthogonalMatrices(Manifold):
    r"""What `Orthogonal` and `SpecialOrthogonal` share. Abstract.

    Points are ``*B,n,n`` with x^T x = I. A tangent vector is ``u = x A`` with A skew, its squared length half the trace
    form, ``tr(u^T u)/2``: a rotation by theta in one plane has the length theta. The metric is invariant under
    products from both sides; it is that of Stiefel(beta=1/2) at p = n. Geodesics are one-parameter groups,
    ``exp_x(x A) = x exp(A)`` (Edelman, Arias and Smith, arXiv:physics/9806030, section 2.2.3).

    The sectional curvature lies between 0 and 1/4 for n = 3, and 0 and 1/2 for n > 3 (attained by the left
    multiplications with two quaternions in SO(4)). The injectivity radius is pi (n = 1: infinite), but the logarithm is
    unique wherever x^T y has no angle of pi, which may be as far as ``pi sqrt(floor(n/2))``.

    `retraction` (`retr`, `inverse_retr`, `retr_transp`):

    - ``"polar"``: the nearest point to x + u, second order,
    - ``"qr"``: the Q factor of x + u, first order and cheapest,
    - ``"cayley"``: ``x (I - A/2)^-1 (I + A/2)``, second order,
    - ``"exp"``: the exponential map.

    Each stays in the component of x. Derivatives of `logmap` and `dist` are capped within pi sqrt(eps) of the cut
    locus, where some angle is pi.
    """

    retraction: str = "polar"

    ndim: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.retraction not in RETRACTIONS:
            raise ValueError(f"{type(self).__name__}: retraction must be one of {RETRACTIONS}, got {self.retraction!r}")

    @property
    def retraction_order(self) -> int:
        """Order of contact of `retr` with geodesics: 1 for qr, 2 for polar and cayley, 3 for exp, which is exact."""
        return {"qr": 1, "exp": 3}.get(self.retraction, 2)

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        n, p = point_shape
        frames = f"; {max(n, p)} x {min(n, p)} frames are points of Stiefel()" if n != p and n * p > 0 else ""
        return None if n == p > 0 else f"needs square matrices with n >= 1, got {n} x {p}{frames}"

    def _point_residual(self, x: Tensor) -> tuple[Tensor, str]:
        return (x.mT @ x - identity_like(x)).abs().amax(), "max|x^T x - I|"

    def _vector_residual(self, x: Tensor, u: Tensor) -> tuple[Tensor, str]:
        return sym(x.mT @ u).abs().amax(), "max|sym(x^T u)|"

    def dimension(self, shape: tuple[int, ...]) -> int:
        """n (n - 1)/2."""
        return shape[-1] * (shape[-1] - 1) // 2

    # ---- points and tangent vectors ---------------------------------------------------------------------------

    @abc.abstractmethod
    def projx(self, x: Tensor) -> Tensor:
        """The nearest point."""

    @operation
    def restore(self, x: Tensor) -> Tensor:
        """One Newton-Schulz step: `projx` of a point that is off by rounding, at the cost of two products."""
        return newton_schulz_step(x)

    @operation
    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """x skew(x^T u)."""
        # As u minus its normal part: exact on tangent vectors, whatever the rounding of x.
        return u - x @ sym(x.mT @ u)

    @operation
    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """tr(u^T v)/2."""
        return 0.5 * embedded_inner(x, u, v, self.ndim, keepdim)

    @operation
    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        """The Frobenius norm over sqrt(2), without underflow."""
        return math.sqrt(0.5) * embedded_norm(x, u, self.ndim, keepdim)

    @operation
    def egrad2rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        """x (S - S^T) with S = x^T g: twice the projection, for the metric is half the trace form."""
        s = x.mT @ g
        return x @ (s - s.mT)

    @operation
    def ehess2rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor:
        """egrad2rgrad of ``h - u sym(x^T g)``: the connection is that of the trace form, the gradient twice its
        (Absil, Mahony and Trumpf 2013, doi 10.1007/978-3-642-40020-9_39)."""
        return self.egrad2rgrad(x, h - u @ sym(x.mT @ g))

    # ---- geodesics --------------------------------------------------------------------------------------------

    @operation
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """x exp(x^T u)."""
        return x @ matrix_exp(skew(x.mT @ u))

    @operation
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """x log(x^T y), the angles in [0, pi]; NaN between the components.

        exp(logmap) is y to rounding everywhere; the vector itself is off by eps/(pi - t), t the largest angle, for
        that is how fast it turns. At an angle of pi it is one of the shortest. First and second derivatives.
        """
        a, apart = relative_log(x, y)
        return torch.where(apart, torch.nan, x @ a)

    @operation
    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """The root of the sum of squared angles, zero at coincident points; infinite between the components."""
        a, apart = relative_log(x, y)
        d = torch.where(apart, torch.inf, math.sqrt(0.5) * embedded_norm(x, a, self.ndim, True))
        return d if keepdim else d.squeeze(-1).squeeze(-1)

    @operation
    def dist2(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """The sum of squared angles, smooth at coincident points; infinite between the components."""
        a, apart = relative_log(x, y)
        d2 = torch.where(apart, torch.inf, 0.5 * a.square().sum((-2, -1), keepdim=True))
        return d2 if keepdim else d2.squeeze(-1).squeeze(-1)

    @operation
    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """``x e^A`` and ``x e^(A/2) (x^T v) e^(A/2)`` with u = x A (Edelman, Arias and Smith, section 2.2.3)."""
        half = matrix_exp(0.5 * skew(x.mT @ u))
        moved = x @ half
        return moved @ half, moved @ (x.mT @ v) @ half

    # ---- retractions ------------------------------------------------------------------------------------------

    @operation
    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """The retraction chosen in the constructor."""
        if self.retraction == "exp":
            return polish(self.expmap(x, u))
        return _RETRACT[self.retraction](x, u)

    @operation
    def inverse_retr(self, x: Tensor, y: Tensor) -> Tensor:
        """The tangent vector that `retr` sends to y; NaN (``"cayley"``: not finite) where there is none."""
        if self.retraction == "exp":
            return self.logmap(x, y)
        return _INVERSE[self.retraction](x, y)

    # ---- curvature and radii ----------------------------------------------------------------------------------

    @operation
    def sectional_curvature(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """|[A, B]|^2/4 over the squared area, for u = x A and v = x B (Milnor 1976, doi 10.1016/S0001-8708(76)80002-3,
        section 7)."""
        u, v = self._orthonormal(x, u, v)
        a, b = skew(x.mT @ u), skew(x.mT @ v)
        bracket = 2 * skew(a @ b)
        return 0.125 * bracket.square().sum((-2, -1))

    def injectivity_radius(self, x: Tensor | None = None) -> float:
        """pi, half of the shortest closed geodesic; infinite for n = 1, where each component is a point."""
        return math.inf if x is not None and x.shape[-1] == 1 else math.pi

    @operation
    def log_is_unique(self, x: Tensor, y: Tensor, *, margin: float = 0.0) -> Tensor:
        """Every angle of x^T y is below pi - margin; false between the components. A distance beyond
        `injectivity_radius` may still have a unique logarithm."""
        a, apart = solve(*torch.broadcast_tensors(x.detach(), y.detach()))
        known = a.isfinite()
        angle = torch.linalg.matrix_norm(torch.where(known, a, 0.0), 2, keepdim=True)
        limit = (math.pi - margin) * (1 - 16 * torch.finfo(a.dtype).eps)
        unique = (angle < limit) & ~apart & known.all(-1, keepdim=True).all(-2, keepdim=True)
        return unique.squeeze(-1).squeeze(-1)

    @operation
    def basis(self, x: Tensor) -> Tensor:
        """x (E_ij - E_ji) for i < j, row by row."""
        rows, columns = torch.triu_indices(x.shape[-1], x.shape[-1], 1, device=x.device)
        eye = identity_like(x)
        e = eye[rows, :, None] * eye[columns, None, :]
        return x.unsqueeze(-3) @ (e - e.mT)

    @in_full_precision
    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        """x A with A skew, the entries of `z` above its diagonal row by row: no basis of n^4/2 numbers."""
        self.check_operands("from_coordinates", [x])
        n = x.shape[-1]
        above = torch.triu_indices(n, n, 1, device=x.device).unbind()
        upper = z.new_zeros(n, n, *z.shape[:-1]).index_put(above, z.movedim(-1, 0)).movedim((0, 1), (-2, -1))
        return x @ (upper - upper.mT)

    # ---- sampling ---------------------------------------------------------------------------------------------

    def origin(self, *size: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """The identity."""
        self._raise(self._shape_reason(size))
        return torch.eye(size[-1], dtype=dtype, device=device).expand(size).contiguous()

    @in_full_precision
    def random_tangent(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Independent N(0, 1) coordinates in `basis`."""
        self.check_operands("random_tangent", [x])
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return x @ (math.sqrt(2.0) * skew(noise))


@final
@dataclass(frozen=True, eq=False)
class Orthogonal(OrthogonalMatrices):
    """The orthogonal group O(n), ``*B,n,n``, in two components: rotations (det 1) and reflections (det -1).

    The metric is bi-invariant, half the trace form, so that lengths are angles; `OrthogonalMatrices` has its properties
    and the choices of `retraction`. No geodesic joins the components: between them `dist` and `dist2` are infinite,
    `logmap` is NaN, `log_is_unique` false, and a `frechet_mean` raises ``ValueError`` (NaN under transforms).
    """

    name: ClassVar[str] = "Orthogonal"

    @operation
    def projx(self, x: Tensor) -> Tensor:
        """The nearest orthogonal matrix: the polar factor. Of a singular matrix one of the nearest,
        with derivative zero in the directions of the singular values that vanish."""
        return nearest_frame(x)

    def random_uniform(
        self,
        *size: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Haar measure: either component with probability 1/2."""
        self._raise(self._shape_reason(size))
        return haar_frame(*size, generator=generator, dtype=dtype, device=device)

    def _mean(self, x: Tensor, start: Tensor | None, *, w: Tensor, search: Search) -> Tensor:
        if values_readable(x) and values_readable(w):
            det = torch.where(w > 0, torch.linalg.det(x.detach()), 0.0)
            if bool(((det > 0).any(0) & (det < 0).any(0)).any()):
                raise ValueError(
                    f"{search.operation}: x has points with det = 1 and with det = -1, expected points of "
                    "one component; no geodesic joins the components: average each by itself"
                )
        return super()._mean(x, start, w=w, search=search)


@final
@dataclass(frozen=True, eq=False)
class SpecialOrthogonal(OrthogonalMatrices):
    """The rotation group SO(n), ``*B,n,n`` with x^T x = I and det x = 1.

    The metric is bi-invariant, half the trace form, so that lengths are angles; `OrthogonalMatrices` has its properties
    and the choices of `retraction`. For n = 3 `rotation_from_quaternion` and its kin convert.
    """

    name: ClassVar[str] = "SpecialOrthogonal"

    def _point_residual(self, x: Tensor) -> tuple[Tensor, str]:
        off, formula = super()._point_residual(x)
        det = torch.linalg.det(x)
        if bool(off < 0.5) and bool((det < 0).any()):
            return (det - 1).abs().amax(), "det = -1: a reflection; |det - 1|"
        return off, formula

    @operation
    def projx(self, x: Tensor) -> Tensor:
        """The nearest rotation: where the nearest orthogonal matrix is a reflection, the direction of the smallest
        singular value is flipped."""
        return nearest_rotation(x)

    def random_uniform(
        self,
        *size: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Haar measure: that of O(n) with the first column turned round where the determinant is -1."""
        self._raise(self._shape_reason(size))
        dtype, wide = sampled_dtypes(dtype)
        x = haar_frame(*size, generator=generator, dtype=wide, device=device)
        sign = torch.where(torch.linalg.det(x) < 0, -1.0, 1.0).to(wide)[..., None, None]
        return torch.cat([sign * x[..., :1], x[..., 1:]], -1).to(dtype)
