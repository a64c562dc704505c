"""Weights of averages: checked and normalised, and items of weight zero made harmless."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .functional.tracing import values_readable

if TYPE_CHECKING:
    from .base import Manifold


def weighted(manifold: Manifold, x: Tensor, weights: Tensor | None, operation_name: str) -> tuple[Tensor, Tensor]:
    """Points ``N,*B,P`` to average and their weights ``N,*B``, which sum to one over the first dimension.

    An item of weight zero is left out, whatever it is: in its place comes its projection, of numbers that are not
    finite as of zeros, without a derivative. Its weight has the derivative towards that point, and none where the item
    is not finite.
    """
    batch = _checked(manifold, x, weights, f"{type(manifold).__name__}.{operation_name}")
    if weights is None:
        return x, torch.full(batch, 1.0 / batch[0], dtype=x.dtype, device=x.device)
    w = weights.reshape(weights.shape + (1,) * (len(batch) - weights.dim())).to(x.dtype).expand(batch)
    unused = w == 0
    if not values_readable(w) or bool(unused.any()):
        finite = x.isfinite()
        projected = manifold.projx(torch.where(finite, x, 0.0).detach()).detach()
        x = torch.where(per_point(manifold, unused), projected, x)
        w = torch.where(unused & ~finite.flatten(len(batch)).all(-1), 0.0, w)
    return x, w / w.sum(0, keepdim=True)


def per_point(manifold: Manifold, numbers: Tensor) -> Tensor:
    """Numbers ``*B`` in the shape that broadcasts against points ``*B,P``."""
    return numbers.reshape(numbers.shape + (1,) * manifold.ndim)


def _checked(manifold: Manifold, x: Tensor, weights: Tensor | None, where: str) -> torch.Size:
    """The shape ``N,*B`` of the weights that `x` has; raise unless the arguments are points and weights of them."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{where}: x must be a tensor of points, got {type(x).__name__}; stack them with torch.stack")
    batch = x.shape[: x.dim() - manifold.ndim]
    if not batch or batch[0] == 0:
        raise ValueError(
            f"{where}: needs a non-empty first dimension of points to average over, got shape {tuple(x.shape)}"
        )
    manifold.check_operands(where.rpartition(".")[2], [x])
    if weights is None:
        return batch
    if not isinstance(weights, Tensor):
        raise ValueError(
            f"{where}: weights must be a tensor, got {type(weights).__name__}; convert them with torch.as_tensor"
        )
    if weights.shape[:1] != batch[:1] or weights.dim() > len(batch):
        raise ValueError(f"{where}: weights must be broadcastable to {tuple(batch)}, got {tuple(weights.shape)}")
    if values_readable(weights):
        known = weights.detach()
        if not bool((known >= 0).all() & known.isfinite().all() & (known.sum(0) > 0).all()):
            raise ValueError(f"{where}: weights must be non-negative, finite, not NaN, and not all zero")
    return batch
