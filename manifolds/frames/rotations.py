"""Rotations of space in three forms: matrices, unit quaternions (w, x, y, z) and rotation vectors (axis times angle).

The conversions choose their formula by the numbers, entry by entry and without a Python branch: they batch, compile,
vmap and differentiate. bfloat16 and float16 are computed in float32; autocast is off inside.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..functional.series import atan_ratio, sinc_sqrt, versine_sqrt
from ..precision import in_full_precision

Conversion = Callable[[Tensor], Tensor]


def _conversion(*shape: int) -> Callable[[Conversion], Conversion]:
    """Check the trailing dimensions of the one argument, then compute in float32 at least."""

    def wrap(function: Conversion) -> Conversion:
        precise = in_full_precision(function)

        @functools.wraps(function)
        def converted(x: Tensor) -> Tensor:
            if not isinstance(x, Tensor) or not x.is_floating_point() or x.shape[-len(shape) :] != shape:
                got = f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
                expected = ", ".join(str(s) for s in ("*B", *shape))
                raise ValueError(
                    f"{function.__name__}: expected a floating-point tensor ({expected}), got {got}; "
                    "reshape or convert it"
                )
            return precise(x)

        return converted

    return wrap


@_conversion(4)
def rotation_from_quaternion(q: Tensor) -> Tensor:
    """The rotation matrix of any quaternion but zero, w first. ``*B,4 -> *B,3,3``.

    ``I + 2 (w [v] + [v]^2)/|q|^2`` with [v] the matrix of the cross product with v = (x, y, z), and q and -q the same
    rotation (Shepperd 1978, doi 10.2514/3.55767b); NaN for zero. All derivatives.
    """
    # Normalised by parts: squares of small or huge numbers leave the range.
    q = q / q.detach().abs().amax(-1, keepdim=True)
    q = q / torch.linalg.vector_norm(q, dim=-1, keepdim=True)
    w, k = q[..., :1, None], _cross(q[..., 1:])
    return torch.eye(3, dtype=q.dtype, device=q.device) + 2 * (w * k + k @ k)


@_conversion(3, 3)
def quaternion_from_rotation(r: Tensor) -> Tensor:
    """The unit quaternion (w, x, y, z) of a rotation matrix, w >= 0. ``*B,3,3 -> *B,4``.

    A row of ``4 q q^T``, which is linear in R, divided by its length: the row with the largest diagonal entry, which is
    at least one, so that every rotation keeps its digits (Shepperd 1978, doi 10.2514/3.55767b). All derivatives,
    except at an angle of pi, where the sign jumps: there w = 0 and the largest entry is positive.
    """
    outer = _four_outer(r)
    diagonal = outer.diagonal(dim1=-2, dim2=-1)
    best = diagonal.detach().argmax(-1, keepdim=True)
    row = outer.gather(-2, best.unsqueeze(-1).expand(*best.shape, 4)).squeeze(-2)
    q = row / torch.linalg.vector_norm(row, dim=-1, keepdim=True)
    return torch.where(q[..., :1] < 0, -q, q)


def _four_outer(r: Tensor) -> Tensor:
    """4 q q^T of the quaternion q of R. ``*B,3,3 -> *B,4,4``."""
    trace = r.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    turning = r - r.mT
    vector = torch.stack([turning[..., 2, 1], turning[..., 0, 2], turning[..., 1, 0]], -1).unsqueeze(-1)
    block = r + r.mT + (1 - trace) * torch.eye(3, dtype=r.dtype, device=r.device)
    top = torch.cat([1 + trace, vector.mT], -1)
    return torch.cat([top, torch.cat([vector, block], -1)], -2)


@_conversion(3)
def rotation_from_axis_angle(v: Tensor) -> Tensor:
    """The rotation by |v| about v: the matrix exponential of the cross product with v. ``*B,3 -> *B,3,3``.

    ``I + sin(t)/t [v] + (1 - cos(t))/t^2 [v]^2`` with t = |v| (Rodrigues), by series in t^2: all derivatives,
    v = 0 included.
    """
    z = v.square().sum(-1)[..., None, None]
    k = _cross(v)
    return torch.eye(3, dtype=v.dtype, device=v.device) + sinc_sqrt(z) * k - versine_sqrt(z) * (k @ k)


@_conversion(3, 3)
def axis_angle_from_rotation(r: Tensor) -> Tensor:
    """The shortest v with ``rotation_from_axis_angle(v) == R``, |v| <= pi. ``*B,3,3 -> *B,3``.

    ``2 atan2(|q|, w)/|q| q`` from the quaternion (w, q): relative error of a few eps at every angle, smooth at the
    identity, all derivatives up to an angle of pi, where the sign jumps.
    """
    quaternion = quaternion_from_rotation(r)
    w, q = quaternion[..., :1], quaternion[..., 1:]
    sine2 = q.square().sum(-1, keepdim=True)
    small = sine2 < w.square()
    near_w, near = torch.where(small, w, 1.0), torch.where(small, sine2, 0.0)
    ratio_near = atan_ratio(near / near_w.square()) / near_w
    # From a right angle on by the complement, for w may be zero.
    far = torch.where(small, 1.0, sine2)
    w_far = torch.where(small, 0.0, w)
    complement = w_far / far.sqrt() * atan_ratio(w_far.square() / far)
    ratio_far = (0.5 * math.pi - complement) / far.sqrt()
    return 2 * torch.where(small, ratio_near, ratio_far) * q


def _cross(v: Tensor) -> Tensor:
    """[v], the matrix of w -> v x w. ``*B,3 -> *B,3,3``."""
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    rows = (torch.stack([zero, -z, y], -1), torch.stack([z, zero, -x], -1), torch.stack([-y, x, zero], -1))
    return torch.stack(rows, -2)
