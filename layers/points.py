"""A learned point in either of two forms: a parameter on its manifold, or coordinates that any optimizer steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchriemann.manifolds import Manifold
from torchriemann.manifolds.gyro import is_gyro
from torchriemann.manifolds.precision import widen

PARAMETRIZATIONS = ("manifold", "tangent")
_POINTS = "_points"  # in the `__dict__` of a module, which deepcopy and pickle keep


@dataclass(frozen=True)
class Point:
    r"""How a module keeps a point of `manifold`, or a batch of them, of `shape` ``*B,P``.

    "manifold" keeps the point itself. "tangent" keeps its orthonormal coordinates z at the origin o of the manifold,

    .. math:: x = \exp_o\Bigl(\sum_i z_i b_i\Bigr), \qquad b_1, \dots, b_d \text{ orthonormal at } o,

    which are numbers without a constraint: the normal coordinates ``*B,Z`` of a `GyroManifold`, elsewhere ``*B,d`` for
    ``manifold.basis(o)``. The origin has the coordinates zero; below the injectivity radius z is unique.
    """

    manifold: Manifold
    shape: tuple[int, ...]
    parametrization: str

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of the parameter."""
        if self.parametrization == "manifold":
            return self.shape
        m, p = self.manifold, self._point_shape
        return (*self.shape[: -m.ndim], *(m.normal_shape(p) if is_gyro(m) else (m.dimension(p),)))

    @property
    def _point_shape(self) -> tuple[int, ...]:
        return self.shape[-self.manifold.ndim :]

    def origin_like(self, stored: Tensor) -> Tensor:
        """What the parameter of the origin is, in the dtype and on the device of `stored`."""
        if self.parametrization == "tangent":
            return torch.zeros_like(stored)
        return self.manifold.origin(*self.shape, dtype=stored.dtype, device=stored.device)

    def stored(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """What the parameter of the point `x` is, in `dtype` if it is the point. ``*B,P -> `` `stored_shape`."""
        m = self.manifold
        if self.parametrization == "manifold":
            return in_dtype(m, x, dtype)
        if is_gyro(m):
            return m.to_normal(x)
        o = m.origin(*self._point_shape, dtype=x.dtype, device=x.device)
        return m.to_coordinates(o, m.logmap(o, x))

    def of(self, stored: Tensor, dtype: torch.dtype, manifold: Manifold | None = None) -> Tensor:
        """The point that the parameter `stored` tells, ``*B,P``, on the manifold to the rounding of `dtype`."""
        m = self.manifold if manifold is None else manifold
        if self.parametrization == "manifold":
            return in_dtype(m, stored, dtype)
        if is_gyro(m):
            return m.from_normal(stored.to(dtype))
        o = m.origin(*self._point_shape, dtype=widen(dtype), device=stored.device)
        # A long exponential drifts by its rounding.
        return m.round_to(m.restore(m.expmap(o, m.from_coordinates(o, stored.to(dtype)))), dtype)


def in_dtype(manifold: Manifold, x: Tensor, dtype: torch.dtype) -> Tensor:
    """The points `x` in `dtype`, on the manifold to the rounding of that. ``*B,P -> *B,P``."""
    y = manifold.round_to(x, dtype) if isinstance(manifold, Manifold) else x.to(dtype)  # else of another library
    off = torch.finfo(x.dtype).eps
    while off > torch.finfo(dtype).eps:
        off, y = off * off, manifold.restore(y)  # a Newton step, unless it does better
    return y


def back_inside(manifold: Any, x: Tensor) -> Tensor:
    """`x`, of which the points that rounding to its dtype put on a rim or beyond are inside again. ``*B,P -> *B,P``."""
    if not isinstance(manifold, Manifold):
        return x
    wide = x.to(widen(x))
    drawn = manifold._drawn_in(wide, 0.0)
    rounding = (drawn - wide).abs() <= 4 * torch.finfo(x.dtype).eps * wide.abs()
    return manifold.round_to(torch.where(rounding, drawn, wide), x.dtype)


def remember_point(module: nn.Module, name: str, point: Point) -> None:
    """Remember on `module` which point its parameter `name` tells."""
    module.__dict__.setdefault(_POINTS, {})[name] = point


def remembered_points(module: nn.Module) -> dict[str, Point]:
    """The points of one module, by the names of their parameters."""
    return module.__dict__.get(_POINTS, {})
