"""Gyro structure of manifolds that are made of others: that of every part."""

from __future__ import annotations

import abc
from typing import Any

import torch
from torch import Tensor

from ..base import Manifold
from ..functional.series import safe_norm
from ..gyro import GyroManifold, is_gyro
from ..operation import in_full_precision, operation


class GyroComposite(GyroManifold):
    """A manifold made of parts, with normal and frame coordinates side by side and gyro-operations part by part.

    They exist if every part has them; else they raise ``NotImplementedError`` naming the part that has none.
    """

    # ---- what a composite states ------------------------------------------------------------------------------

    @abc.abstractmethod
    def _each(self, name: str, *arguments: Tensor | None, **options: Any) -> Any:
        """The points or vectors (or pairs of them) that the method `name` of the parts gives, put together."""

    @abc.abstractmethod
    def _values(self, name: str, *arguments: Tensor | None, **options: Any) -> Tensor:
        """The numbers that the method `name` of the parts gives, side by side. ``-> *B,k``."""

    @abc.abstractmethod
    def _framed(self, name: str, *points: Tensor, z: Tensor | None = None, normal: bool = False) -> Tensor:
        """As `_each`, for methods that take normal coordinates `z` last or, with `normal`, give some."""

    @property
    @abc.abstractmethod
    def _members(self) -> tuple[Manifold, ...]:
        """The manifolds that it is made of."""

    def _kept(self, value: Tensor, keepdim: bool) -> Tensor:
        return value.reshape(value.shape + (1,) * self.ndim) if keepdim else value

    # ---- gyro-operations --------------------------------------------------------------------------------------

    @property
    def has_gyro_structure(self) -> bool:
        """Whether all parts have one."""
        return all(is_gyro(part) for part in self._members)

    @in_full_precision
    def tangent_from_normal(self, z: Tensor) -> Tensor:
        """The tangent vector of every part."""
        self._check_normal("tangent_from_normal", z)
        return self._framed("tangent_from_normal", z=z)

    @operation
    def normal_from_tangent(self, u: Tensor) -> Tensor:
        """The coordinates in every part."""
        return self._framed("normal_from_tangent", u, normal=True)

    @operation
    def expmap0(self, u: Tensor) -> Tensor:
        """The exponential map of every part at its origin."""
        return self._each("expmap0", u)

    @operation
    def logmap0(self, x: Tensor) -> Tensor:
        """The logarithm of every part at its origin."""
        return self._each("logmap0", x)

    @operation
    def dist0(self, x: Tensor, *, keepdim: bool = False) -> Tensor:
        """The root of the sum of squares over the parts."""
        return self._kept(safe_norm(self._values("dist0", x)), keepdim)

    @in_full_precision
    def from_normal(self, z: Tensor) -> Tensor:
        """The point of every part."""
        self._check_normal("from_normal", z)
        return self._framed("from_normal", z=z)

    @operation
    def to_normal(self, x: Tensor) -> Tensor:
        """The coordinates in every part."""
        return self._framed("to_normal", x, normal=True)

    @operation
    def gyroadd(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum in every part."""
        return self._each("gyroadd", x, y)

    @operation
    def gyroinv(self, x: Tensor) -> Tensor:
        """The inverse in every part."""
        return self._each("gyroinv", x)

    @in_full_precision
    def gyroscale(self, t: Tensor | float, x: Tensor) -> Tensor:
        """``from_normal(t to_normal(x))``."""
        self._check_scaled(t, x)
        t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
        return self.from_normal(t.reshape(t.shape + (1,) * self.normal_ndim) * self.to_normal(x))

    @operation
    def gyration(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """The gyration of every part."""
        return self._each("gyration", x, y, z)

    @in_full_precision
    def expmap_frame(self, x: Tensor, z: Tensor) -> Tensor:
        """The exponential map of every part."""
        self._check_frame("expmap_frame", x, z)
        return self._framed("expmap_frame", x, z=z)

    @operation
    def logmap_frame(self, x: Tensor, y: Tensor) -> Tensor:
        """The logarithm of every part."""
        return self._framed("logmap_frame", x, y, normal=True)

    @in_full_precision
    def tangent_from_frame(self, x: Tensor, z: Tensor) -> Tensor:
        """The tangent vector of every part."""
        self._check_frame("tangent_from_frame", x, z)
        return self._framed("tangent_from_frame", x, z=z)

    @operation
    def frame_from_tangent(self, x: Tensor, u: Tensor) -> Tensor:
        """The coordinates in every part."""
        return self._framed("frame_from_tangent", x, u, normal=True)

    @in_full_precision
    def transport_frame(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """The transport of every part."""
        self.check_operands("transport_frame", [x, y])
        self._check_frame("transport_frame", x, z)
        return self._framed("transport_frame", x, y, z=z, normal=True)
