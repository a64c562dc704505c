"""A manifold with all lengths multiplied by one number."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ..base import Manifold
from ..frechet import Search
from ..functional.tracing import values_readable
from ..gyro import GyroManifold
from ..operation import operation
from ..turns import ClosedFactor
from .gyro_parts import directed
from .parts import Composite


@final
@dataclass(frozen=True, eq=False)
class Scaled(Composite):
    r"""`manifold` with the metric multiplied by s^2, s = `scale` > 0, a number or a 0-dim tensor.

    Distances and the injectivity radius are multiplied by s, gradients and Hessians divided by s^2, the curvature
    divided by s^2, an orthonormal basis divided by s, normal coordinates multiplied by s. Points, geodesics,
    transports, gyro-sums and means stay what they are, and so does `logdet_dexp`, since the bases at both ends scale
    alike.

    Tangent vectors are velocities in the coordinates of `manifold`: ``expmap(x, u)`` is the same point whatever s, and
    u has s times the length. (geoopt's `Scaled` hands out s u instead: its ``expmap(x, s u)`` is ours of u.)

    Raises ``ValueError`` if `manifold` is none or `scale` not positive and finite.
    """

    manifold: Manifold
    scale: float | Tensor = 1.0

    name: ClassVar[str] = "Scaled"

    def __post_init__(self) -> None:
        if not isinstance(self.manifold, Manifold):
            raise ValueError(f"Scaled: manifold must be an instance such as Sphere(), got {self.manifold!r}")
        if isinstance(self.scale, Tensor):
            if self.scale.dim() > 0:
                raise ValueError(f"Scaled: scale must be a number or a 0-dim tensor, got {tuple(self.scale.shape)}")
            known = values_readable(self.scale) and not self.scale.is_meta
            wrong = known and not 0 < float(self.scale.detach()) < math.inf
        else:
            number = isinstance(self.scale, (int, float)) and not isinstance(self.scale, bool)
            wrong = not number or not 1e-150 < self.scale < 1e150  # its square is a number too
        if wrong:
            raise ValueError(f"Scaled: scale must be a positive finite number, got {self.scale!r}")

    @property
    def ndim(self) -> int:
        """That of `manifold`."""
        return self.manifold.ndim

    @property
    def restore_every(self) -> int:
        """That of the part that needs it most often."""
        return self.manifold.restore_every

    @property
    def retraction_order(self) -> int:
        """That of `manifold`, whose geodesics these are."""
        return self.manifold.retraction_order

    @property
    def _members(self) -> tuple[Manifold, ...]:
        return (self.manifold,)

    # ---- asking the manifold ----------------------------------------------------------------------------------

    def _each(self, name: str, *arguments: Tensor | None, **options: Any) -> Any:
        return self._ask(self.manifold, "", name, *arguments, **options)

    def _values(self, name: str, *arguments: Tensor | None, **options: Any) -> Tensor:
        return self._each(name, *arguments, **options).unsqueeze(-1)

    def _framed(self, name: str, *points: Tensor, z: Tensor | None = None, normal: bool = False) -> Tensor:
        out = self._ask(self.manifold, "", name, *points, *(() if z is None else (z / self.scale,)))
        return self.scale * out if normal else out

    def _directed(self, normal: Tensor) -> tuple[Tensor, Tensor]:
        length, normal = directed(normal, self.normal_ndim)
        return length.unsqueeze(-1), normal

    def _hyperplane_dists(self, x: Tensor, normals: Tensor, offsets: Tensor) -> Tensor:
        own = self._ask(self.manifold, "", "hyperplane_dist", x, normals, offsets.squeeze(-1) / self.scale)
        return self.scale * own.unsqueeze(-1)

    @property
    def normal_ndim(self) -> int:
        """That of `manifold`."""
        return self.manifold.normal_ndim if isinstance(self.manifold, GyroManifold) else 1

    def normal_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """That of `manifold`; the coordinates are s times as long."""
        return self._ask(self.manifold, "", "normal_shape", point_shape)

    def closed_factors(self, point_shape: tuple[int, ...]) -> tuple[ClosedFactor, ...]:
        """Those of `manifold`, of a curvature over s^2."""
        found = self._ask(self.manifold, "", "closed_factors", point_shape)
        return tuple(dataclasses.replace(c, curvature=c.curvature / self.scale**2) for c in found)

    def _drawn(self, name: str, size: tuple[int, ...], **options: Any) -> Tensor:
        self._raise(self._shape_reason(size))
        return self._ask(self.manifold, "", name, *size, **options)

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        return self.manifold._shape_complaint(point_shape)

    def _point_residual(self, x: Tensor) -> tuple[Tensor, str]:
        return self.manifold._point_residual(x)

    def _vector_residual(self, x: Tensor, u: Tensor) -> tuple[Tensor, str]:
        return self.manifold._vector_residual(x, u)

    def dimension(self, shape: tuple[int, ...]) -> int:
        """That of `manifold`."""
        return self.manifold.dimension(shape)

    # ---- what scales ------------------------------------------------------------------------------------------

    @operation
    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """s^2 times that of `manifold`."""
        return self.scale**2 * self._each("inner", x, u, v, keepdim=keepdim)

    @operation
    def component_inner(self, x: Tensor, u: Tensor, v: Tensor | None = None) -> Tensor:
        """s^2 times that of `manifold`."""
        return self.scale**2 * self._each("component_inner", x, u, v)

    @operation
    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        """s times that of `manifold`."""
        return self.scale * self._each("norm", x, u, keepdim=keepdim)

    @operation
    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """s times that of `manifold`."""
        return self.scale * self._each("dist", x, y, keepdim=keepdim)

    @operation
    def dist0(self, x: Tensor, *, keepdim: bool = False) -> Tensor:
        """s times that of `manifold`."""
        return self.scale * self._each("dist0", x, keepdim=keepdim)

    @operation
    def dist2(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """s^2 times that of `manifold`."""
        return self.scale**2 * self._each("dist2", x, y, keepdim=keepdim)

    def _variance(self, x: Tensor, mean: Tensor | None, *, w: Tensor, search: Search) -> Tensor:
        return self.scale**2 * self._each("_variance", x, mean, w=w, search=search)

    @operation
    def egrad2rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        """That of `manifold` over s^2."""
        return self._each("egrad2rgrad", x, g) / self.scale**2

    @operation
    def ehess2rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor:
        """That of `manifold` over s^2: the derivative along u of a gradient that is over s^2."""
        return self._each("ehess2rhess", x, g, h, u) / self.scale**2

    @operation
    def sectional_curvature(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """That of `manifold` over s^2."""
        return self._each("sectional_curvature", x, u, v) / self.scale**2

    def injectivity_radius(self, x: Tensor | None = None) -> float | Tensor:
        """s times that of `manifold`."""
        return self.scale * self._each("injectivity_radius", x)

    @operation
    def log_is_unique(self, x: Tensor, y: Tensor, *, margin: float = 0.0) -> Tensor:
        """As on `manifold`, with a margin over s."""
        return self._each("log_is_unique", x, y, margin=margin / self.scale)

    @operation
    def basis(self, x: Tensor) -> Tensor:
        """That of `manifold` over s."""
        return self._each("basis", x) / self.scale

    def random_normal(self, *size: int, mean: Tensor | None = None, std: float | Tensor = 1.0, **kwargs: Any) -> Tensor:
        """That of `manifold` with the spread `std` over s."""
        return self._drawn("random_normal", size, mean=mean, std=std / self.scale, **kwargs)

    def random_tangent(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """That of `manifold` over s: standard normal in this metric."""
        return super().random_tangent(x, generator) / self.scale
