"""Several points of one manifold as one point."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ..base import Manifold
from ..gyro import GyroManifold
from ..operation import operation
from ..turns import ClosedFactor
from .gyro_parts import directed
from .parts import Composite


@final
@dataclass(frozen=True, eq=False)
class Power(Composite):
    r"""The Riemannian product of `n` copies of `manifold`, ``*B,n,P``: the points stand along one more dimension.

    Squared distances add over the n points, everything else is point by point and computed as one batch. Planes across
    points are flat; the injectivity radius is that of `manifold`.

    Beside a batch of n points, which has n distances and n means, this is one point with one of each. Under Adam the
    second moment is still one scalar for each of the n points (`component_inner`).

    Raises ``ValueError`` if `manifold` is none or `n` is below one.
    """

    manifold: Manifold
    n: int

    name: ClassVar[str] = "Power"

    def __post_init__(self) -> None:
        if not isinstance(self.manifold, Manifold):
            raise ValueError(f"Power: manifold must be an instance such as Sphere(), got {self.manifold!r}")
        if not isinstance(self.n, int) or isinstance(self.n, bool) or self.n < 1:
            raise ValueError(f"Power: n must be a positive integer, got {self.n!r}")

    @property
    def ndim(self) -> int:
        """One more than that of `manifold`."""
        return self.manifold.ndim + 1

    @property
    def restore_every(self) -> int:
        """That of the part that needs it most often."""
        return self.manifold.restore_every

    @property
    def retraction_order(self) -> int:
        """That of `manifold`."""
        return self.manifold.retraction_order

    @property
    def _members(self) -> tuple[Manifold, ...]:
        return (self.manifold,)

    # ---- asking the manifold, for which n is a batch dimension ------------------------------------------------

    def _each(self, name: str, *arguments: Tensor | None, **options: Any) -> Any:
        return self._ask(self.manifold, "", name, *arguments, **options)

    def _values(self, name: str, *arguments: Tensor | None, **options: Any) -> Tensor:
        return self._ask(self.manifold, "", name, *arguments, **options)

    def _framed(self, name: str, *points: Tensor, z: Tensor | None = None, normal: bool = False) -> Tensor:
        if z is not None and z.shape[-self.normal_ndim] != self.n:
            raise ValueError(f"Power.{name}: expected normal coordinates of {self.n} points, got {tuple(z.shape)}")
        return self._ask(self.manifold, "", name, *points, *(() if z is None else (z,)))

    def _directed(self, normal: Tensor) -> tuple[Tensor, Tensor]:
        return directed(normal, self.normal_ndim - 1)

    def _hyperplane_dists(self, x: Tensor, normals: Tensor, offsets: Tensor) -> Tensor:
        return self._ask(self.manifold, "", "hyperplane_dist", x, normals, offsets)

    @property
    def normal_ndim(self) -> int:
        """One more than that of `manifold`."""
        return 1 + (self.manifold.normal_ndim if isinstance(self.manifold, GyroManifold) else 1)

    def normal_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """n times that of `manifold`."""
        return (self.n, *self._ask(self.manifold, "", "normal_shape", tuple(point_shape[1:])))

    def closed_factors(self, point_shape: tuple[int, ...]) -> tuple[ClosedFactor, ...]:
        """Those of `manifold`, n times."""
        own = tuple(point_shape[1:])
        found = self._ask(self.manifold, "", "closed_factors", own)
        size = math.prod(self._ask(self.manifold, "", "normal_shape", own))
        if len(found) == 1 and found[0].size * found[0].repeats == size:
            return (dataclasses.replace(found[0], repeats=self.n * found[0].repeats),)
        shifted = ((c, i * size) for i in range(self.n) for c in found)
        return tuple(dataclasses.replace(c, offset=c.offset + before) for c, before in shifted)

    def _drawn(self, name: str, size: tuple[int, ...], **options: Any) -> Tensor:
        self._raise(self._shape_reason(size))
        return self._ask(self.manifold, "", name, *size, **options)

    def _per_part(self, number: float | Tensor) -> float | Tensor:
        return number.unsqueeze(-1) if isinstance(number, Tensor) else number

    # ---- membership -------------------------------------------------------------------------------------------

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        if point_shape[0] != self.n:
            return f"a point is {self.n} points of {self.manifold!r}, got {point_shape[0]}"
        return self.manifold._shape_complaint(point_shape[1:])

    def _point_residual(self, x: Tensor) -> tuple[Tensor, str]:
        return self.manifold._point_residual(x)

    def _vector_residual(self, x: Tensor, u: Tensor) -> tuple[Tensor, str]:
        return self.manifold._vector_residual(x, u)

    def dimension(self, shape: tuple[int, ...]) -> int:
        """n times that of `manifold`."""
        return self.n * self.manifold.dimension(shape)

    # ---- geometry that is not point by point ------------------------------------------------------------------

    @operation
    def component_inner(self, x: Tensor, u: Tensor, v: Tensor | None = None) -> Tensor:
        """The inner product of every one of the n points. ``-> *B,n,1(,1)``."""
        return self._each("component_inner", x, u, v)

    @operation
    def sectional_curvature(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """sum_i K_i |u_i ^ v_i|^2 / |u ^ v|^2 over the n points."""
        u, v = self._orthonormal(x, u, v)
        return self._curvature_form(self.manifold, "", x, u, v).sum(-1)

    def injectivity_radius(self, x: Tensor | None = None) -> float | Tensor:
        """The smallest over the n points."""
        radius = self._ask(self.manifold, "", "injectivity_radius", x)
        return radius.amin(-1) if isinstance(radius, Tensor) and radius.dim() > 0 else radius

    @operation
    def basis(self, x: Tensor) -> Tensor:
        """The bases at the n points one after another, each zero at the other points."""
        ndim = self.manifold.ndim
        own = self._each("basis", x).unsqueeze(-ndim - 1)  # *B,n,d,1,P
        eye = torch.eye(self.n, dtype=torch.bool, device=x.device).reshape(self.n, 1, self.n, *(1,) * ndim)
        return torch.where(eye, own, 0.0).flatten(-ndim - 3, -ndim - 2)

    @operation
    def to_coordinates(self, x: Tensor, u: Tensor) -> Tensor:
        """The coordinates at the n points one after another."""
        return self._each("to_coordinates", x, u).flatten(-2)

    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        """The tangent vectors at the n points with the coordinates `z`. ``*B,n d -> *B,n,P``."""
        self.check_operands("from_coordinates", [x])
        return self._each("from_coordinates", x, z.unflatten(-1, (self.n, -1)))
