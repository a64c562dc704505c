"""Hyperbolic spaces of the dimensions 1, 2, .. m as one batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ..base import Manifold
from ..composite.gyro_parts import directed
from ..composite.parts import Composite
from ..constant_curvature import Lorentz
from ..functional.signed_trigonometry import log_sin_ratio_k
from ..functional.triangular import from_numbers, numbers
from ..operation import operation

_ROW = Lorentz(-1.0)


@final
@dataclass(frozen=True, eq=False)
class LorentzRows(Composite):
    """The Riemannian product of the hyperbolic spaces of the dimensions 1 .. m, of curvature -1. Points are
    ``*B,m,m+1``: row i is a point of `Lorentz` of m dimensions, of which the space coordinates from the i-th on are
    zero.

    That is a totally geodesic subspace: what `Lorentz` computes of points and vectors in it is right, and in it. So one
    batch serves all rows. Normal coordinates are the lower triangle of space parts, row by row.
    """

    ndim: ClassVar[int] = 2
    name: ClassVar[str] = "LorentzRows"

    @property
    def retraction_order(self) -> int:
        """3: `retr` is the exponential map."""
        return 3

    @property
    def _members(self) -> tuple[Manifold, ...]:
        return (_ROW,)

    # ---- asking for all rows, which are a batch dimension -----------------------------------------------------

    def _each(self, name: str, *arguments: Tensor | None, **options: Any) -> Any:
        return self._ask(_ROW, "", name, *arguments, **options)

    def _values(self, name: str, *arguments: Tensor | None, **options: Any) -> Tensor:
        return self._ask(_ROW, "", name, *arguments, **options)

    def _framed(self, name: str, *points: Tensor, z: Tensor | None = None, normal: bool = False) -> Tensor:
        found = self._ask(_ROW, "", name, *points, *(() if z is None else (from_numbers(z),)))
        return numbers(found) if normal else found

    def _directed(self, normal: Tensor) -> tuple[Tensor, Tensor]:
        return directed(from_numbers(normal), 1)

    def _hyperplane_dists(self, x: Tensor, normals: Tensor, offsets: Tensor) -> Tensor:
        return self._ask(_ROW, "", "hyperplane_dist", x, normals, offsets)

    def _drawn(self, name: str, size: tuple[int, ...], **options: Any) -> Tensor:
        self._raise(self._shape_reason(size))
        return self._ask(_ROW, "", name, *size, **options)

    def _per_part(self, number: float | Tensor) -> float | Tensor:
        return number.unsqueeze(-1) if isinstance(number, Tensor) else number

    def normal_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(m (m + 1)/2,)."""
        return (self.dimension(point_shape),)

    # ---- membership -------------------------------------------------------------------------------------------

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        m, n = point_shape
        return None if n == m + 1 > 1 else f"points are m rows of m + 1 coordinates, got {m} x {n}"

    def _point_residual(self, x: Tensor) -> tuple[Tensor, str]:
        residual, formula = _ROW._point_residual(x)
        return torch.maximum(residual, _outside(x)), f"the larger of {formula} and the coordinates that are zero"

    def _vector_residual(self, x: Tensor, u: Tensor) -> tuple[Tensor, str]:
        residual, formula = _ROW._vector_residual(x, u)
        return torch.maximum(residual, _outside(u)), f"the larger of {formula} and the coordinates that are zero"

    def dimension(self, shape: tuple[int, ...]) -> int:
        """m (m + 1)/2."""
        return shape[-1] * (shape[-1] - 1) // 2

    # ---- what depends on the dimension of a row ---------------------------------------------------------------

    @operation
    def projx(self, x: Tensor) -> Tensor:
        """The points with the same space parts."""
        return _ROW.projx(x.tril(1))

    @operation
    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """The projection of every row."""
        return _ROW.proju(x, u.tril(1))

    @operation
    def egrad2rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        """The gradient of every row, in its own coordinates."""
        return _ROW.egrad2rgrad(x, g.tril(1))

    @operation
    def ehess2rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor:
        """The Hessian of every row, in its own coordinates."""
        return _ROW.ehess2rhess(x, g.tril(1), h.tril(1), u)

    @operation
    def logdet_dexp(self, x: Tensor, u: Tensor) -> Tensor:
        """The sum of ``(i - 1) log(sinh(r_i)/r_i)`` with r_i = |u_i| over the rows i = 1 .. m."""
        volumes = log_sin_ratio_k(-_ROW.inner(x, u), -1)
        return (torch.arange(x.shape[-2], dtype=x.dtype, device=x.device) * volumes).sum(-1)

    @operation
    def sectional_curvature(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """-sum_i |u_i ^ v_i|^2 / |u ^ v|^2 over the rows."""
        u, v = self._orthonormal(x, u, v)
        return self._curvature_form(_ROW, "", x, u, v).sum(-1)

    def injectivity_radius(self, x: Tensor | None = None) -> float | Tensor:
        """Infinite."""
        return math.inf

    @operation
    def basis(self, x: Tensor) -> Tensor:
        """The frame of every row, one after another. ``*B,m,m+1 -> *B,m(m+1)/2,m,m+1``."""
        axes = torch.eye(self.dimension(tuple(x.shape)), dtype=x.dtype, device=x.device)
        return self._framed("tangent_from_frame", x.unsqueeze(-3), z=axes)

    # ---- sampling ---------------------------------------------------------------------------------------------

    def random_tangent(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Independent N(0, 1) frame coordinates."""
        self.check_operands("random_tangent", [x])
        size = (*x.shape[:-2], self.dimension(tuple(x.shape)))
        z = torch.randn(size, generator=generator, dtype=x.dtype, device=x.device)
        return self._framed("tangent_from_frame", x, z=z)

    def random_normal(self, *size: int, **kwargs: Any) -> Tensor:
        """That of any manifold: one normal vector in all rows."""
        return Manifold.random_normal(self, *size, **kwargs)

    def random(self, *size: int, **kwargs: Any) -> Tensor:
        """`random_normal` with the deviation ``m^-1/2``: no row is expected to be farther than one."""
        self._raise(self._shape_reason(size))
        return self.random_normal(*size, std=size[-2] ** -0.5, **kwargs)


def _outside(x: Tensor) -> Tensor:
    return x.triu(2).abs().amax()
