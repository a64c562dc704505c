"""What the gyro layers ask of their arguments, and what they show of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torchriemann.manifolds import GyroManifold
from torchriemann.manifolds.checks import described
from torchriemann.manifolds.gyro import is_gyro


def check_space(layer: object, name: str, manifold: Any, point_shape: Any, shape_name: str = "point_shape") -> None:
    """Raise ``ValueError`` unless `manifold`, given as `name`, has a gyro structure and points of `point_shape`."""
    where = f"{type(layer).__name__}: "
    if not is_gyro(manifold):
        raise ValueError(
            f"{where}{name} must have a gyro structure, as SPDAffineInvariant() and Lorentz() have, got "
            f"{described(manifold)}"
        )
    shape = tuple(point_shape) if isinstance(point_shape, (tuple, list, torch.Size)) else None
    if shape is None or len(shape) != manifold.ndim or not all(isinstance(n, int) for n in shape):
        raise ValueError(
            f"{where}{shape_name} must be the {manifold.ndim} size(s) of one point of {manifold!r}, got {point_shape!r}"
        )
    right, reason = manifold.check_point(torch.empty(shape, device="meta"), explain=True)
    if not right:
        raise ValueError(f"{where}{shape_name} is that of no point: {reason}")


def check_count(layer: object, name: str, count: Any, *, optional: bool = False) -> None:
    """Raise ``ValueError`` unless `count`, given as `name`, is a positive integer, or None where that is `optional`."""
    if optional and count is None:
        return
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"{type(layer).__name__}: {name} must be a positive integer, got {count!r}")


def check_choice(layer: object, name: str, choice: Any, choices: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless `choice`, given as `name`, is one of `choices`."""
    if choice not in choices:
        raise ValueError(f"{type(layer).__name__}: {name} must be one of {choices}, got {choice!r}")


def check_input(layer: object, x: Any, *sizes: int | None, batched: bool = True) -> None:
    """Raise ``ValueError`` unless `x` is a floating-point tensor that ends in `sizes`, of which None may be any, and
    has no other dimensions unless `batched`."""
    where = f"{type(layer).__name__}: "
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{where}x must be a floating-point tensor, got {got}; convert it with .to()")
    tail = x.shape[x.dim() - len(sizes) :] if x.dim() >= len(sizes) else ()
    fits = len(tail) == len(sizes) and all(want in (None, n) for n, want in zip(tail, sizes, strict=True))
    if not fits or (not batched and x.dim() > len(sizes)):
        wanted = ", ".join([*(["*B"] if batched else []), *("_" if n is None else str(n) for n in sizes)])
        raise ValueError(f"{where}x must have the shape ({wanted}), got {tuple(x.shape)}")


def check_points(where: str, manifold: Any, points: list[Any]) -> None:
    """Raise ``ValueError`` unless `manifold` has a gyro structure and `points` are such that broadcast."""
    if not is_gyro(manifold):
        raise ValueError(
            f"{where}: manifold must have a gyro structure, as SPDAffineInvariant() and Lorentz() have, got "
            f"{described(manifold)}"
        )
    manifold.check_operands(where, points)


def check_coordinates(where: str, manifold: GyroManifold, name: str, z: Any, x: Tensor) -> None:
    """Raise ``ValueError`` unless `z`, given as `name`, is None or normal coordinates that broadcast with `x`."""
    if z is None:
        return
    shape = tuple(manifold.normal_shape(tuple(x.shape[x.dim() - manifold.ndim :])))
    if not isinstance(z, Tensor) or not z.is_floating_point() or tuple(z.shape[z.dim() - len(shape) :]) != shape:
        raise ValueError(f"{where}: {name} must be a floating-point tensor *B,{shape}, got {described(z)}")
    manifold.check_batches(where, [x.shape[: x.dim() - manifold.ndim], z.shape[: z.dim() - len(shape)]])


def channels(num_channels: int | None) -> tuple[int, ...]:
    """The dimension of channels, if there is one."""
    return () if num_channels is None else (num_channels,)


def shown(module: nn.Module, *names: str) -> str:
    """Arguments of the constructor, for ``print(module)``."""
    return ", ".join(f"{name}={getattr(module, name)!r}" for name in names)


@torch.no_grad()
def draw_uniform(parameter: Tensor, bound: float) -> None:
    """Independent entries between -`bound` and `bound`, the same in every dtype but for rounding."""
    drawn = torch.rand(parameter.shape, dtype=torch.float32, device=parameter.device)
    parameter.copy_(bound * (2 * drawn - 1))
