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

    @abc.abstractmethod
    def _directed(self, normal: Tensor) -> tuple[Tensor, Any]:
        """The lengths ``*B,k`` of the normal coordinates `normal` in every part, and these by part, as `directed` has
        them."""

    @abc.abstractmethod
    def _hyperplane_dists(self, x: Tensor, normals: Any, offsets: Tensor) -> Tensor:
        """The distances ``*B,k`` of the parts of `x` to hyperplanes of theirs, with offsets ``*B,k``."""

    @property
    @abc.abstractmethod
    def _members(self) -> tuple[Manifold, ...]:
        """The manifolds that it is made of."""

    # ---- gyro-operations --------------------------------------------------------------------------------------

    @property
    def has_gyro_structure(self) -> bool:
        """Whether all parts have one."""
        return all(is_gyro(part) for part in self._members)

    @property
    def is_vector_space(self) -> bool:
        """Whether all parts are."""
        return all(is_gyro(part) and part.is_vector_space for part in self._members)

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
        return self._with_keepdim(safe_norm(self._values("dist0", x)), keepdim)

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

    @in_full_precision
    def translated(self, x: Tensor, z: Tensor) -> Tensor:
        """The translation of every part."""
        self._check_frame("translated", x, z)
        return self._framed("translated", x, z=z)

    @operation
    def gyroinv(self, x: Tensor) -> Tensor:
        """The inverse in every part."""
        return self._each("gyroinv", x)

    @in_full_precision
    def gyroscale(self, t: Tensor | float, x: Tensor) -> Tensor:
        """``from_normal(t to_normal(x))``."""
        self._check_beside("gyroscale", "t", t, x)
        t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
        return self.from_normal(t.reshape(t.shape + (1,) * self.normal_ndim) * self.to_normal(x))

    @in_full_precision
    def hyperplane_dist(self, x: Tensor, normal: Tensor, offset: Tensor | float = 0.0) -> Tensor:
        r"""``f(x) = sum_i w_i d_i(x_i)`` with ``w_i = |n_i|/|n|`` and d_i the signed distance of the i-th part of `x`
        to the hyperplane of its space with the normal n_i and the offset ``w_i offset``. ``*B,P; *B,Z; *B -> *B``.

        `normal` are normal coordinates of the composite. Of flat parts this is ``<x, n/|n|> - offset``, of one part
        alone its own `hyperplane_dist`. On the geodesic from the origin along the normal f is the signed distance to
        the point of that offset. Everywhere ``|grad f| = 1``: logits do not grow with the number of parts. (A weighted
        sum of signed distances is the classifier of Tabaghi et al. 2021, arXiv:2102.10204.)

        What it is a distance to. A product of curved spaces has no totally geodesic hypersurface across parts. For
        K <= 0, f is exactly the signed distance to its own zeros, a smooth hypersurface at right angles to the normal;
        it is not the distance to the image of exp of all vectors at right angles, which has no closed form. With parts
        of K > 0, whose d_i have poles, it is at most the distance to its zeros.

        A part whose n_i is zero takes no part, with derivative zero in n_i. A `normal` of zero gives NaN.
        """
        offset = self._check_hyperplane(x, normal, offset)
        lengths, normals = self._directed(normal)
        shares = lengths / safe_norm(lengths, keepdim=True)
        return (shares * self._hyperplane_dists(x, normals, shares * offset.unsqueeze(-1))).sum(-1)

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


def directed(normal: Tensor, ndim: int) -> tuple[Tensor, Tensor]:
    """The lengths ``*B`` of normal coordinates of `ndim` dimensions, and these with ones for a zero, which has no
    direction."""
    length = safe_norm(normal, dim=tuple(range(-ndim, 0)), keepdim=True)
    return length.reshape(length.shape[: length.dim() - ndim]), torch.where(length == 0, 1.0, normal)
