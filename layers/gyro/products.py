"""The linear functions of gyro spaces: products with directions, in the frames at base points."""

from __future__ import annotations

import torch
from torch import Tensor

from torchriemann.manifolds import GyroManifold
from torchriemann.manifolds.functional.series import safe_norm

from ..base import ManifoldModule
from ..points import remembered_points


def coordinates_of(module: ManifoldModule, name: str, dtype: torch.dtype) -> Tensor:
    """Normal coordinates of the point that the parameter `name` tells. ``-> *B,Z``."""
    point = remembered_points(module)[name]
    if point.parametrization == "tangent":
        return getattr(module, name).to(dtype)  # not by an exponential and its inverse
    return point.manifold.to_normal(module.point(name, dtype))  # type: ignore[attr-defined]


def frame_products(manifold: GyroManifold, x: Tensor, base: Tensor, directions: Tensor) -> Tensor:
    """``sum_c <to_normal((-)b_jc (+) x_c), a_jc>``. ``*B,C,P; J,C,P; J,C,Z -> *B,J``.

    A product over |a| is the pseudo-gyrodistance to the hyperplane through b with the normal a (Nguyen and Yang 2023,
    arXiv:2305.04560, section 3.2): the signed distance in flat spaces, and no more than that in hyperbolic ones.
    """
    logarithms = manifold.logmap_frame(base, x.unsqueeze(-manifold.ndim - 2))
    return (logarithms * directions).flatten(-manifold.normal_ndim - 1).sum(-1)


def vector_products(manifold: GyroManifold, z: Tensor, base: Tensor, directions: Tensor) -> Tensor:
    """The same of vector spaces, in normal coordinates: one matrix product. ``*B,C,Z; J,C,Z; J,C,Z -> *B,J``. All
    directions may share their base points, ``1,C,Z``."""
    directions = directions.flatten(1)
    return z.flatten(-manifold.normal_ndim - 1) @ directions.mT - (base.flatten(1) * directions).sum(-1)


def shared_products(manifold: GyroManifold, x: Tensor, base: Tensor, directions: Tensor) -> Tensor:
    """`frame_products` with the same base points for all directions. ``*B,C,P; 1,C,P; J,C,Z -> *B,J``."""
    z = manifold.logmap_frame(base.squeeze(0), x)
    return z.flatten(-manifold.normal_ndim - 1) @ directions.flatten(1).mT


def hyperplane_margins(manifold: GyroManifold, x: Tensor, base: Tensor, directions: Tensor) -> Tensor:
    """``sum_c |a_jc| d(x_c, H_jc)`` with the signed distance to the hyperplane H_jc through b_jc with the normal a_jc.
    ``*B,C,P; J,C,P; J,C,Z -> *B,J``. A direction of zero gives zero, with derivative zero."""
    # An isometry brings every base point to the origin; by coordinates, which lose nothing far out.
    moved = manifold.from_normal(manifold.logmap_frame(base, x.unsqueeze(-manifold.ndim - 2)))
    dims = tuple(range(-manifold.normal_ndim, 0))
    length = safe_norm(directions, dim=dims, keepdim=True)
    normal = torch.where(length == 0, 1.0, directions)
    return (length.flatten(-manifold.normal_ndim - 1) * manifold.hyperplane_dist(moved, normal)).sum(-1)
