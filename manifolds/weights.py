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

    An item of weight zero is left out, whatever it is: in its place comes its projection, without a derivative. Its
    weight has the derivative towards that point. Where there is none, or one to which the item of the greatest weight
    has no distance, that item comes in its place, and the weight has no derivative.
    """
    batch = _checked(manifold, x, weights, f"{type(manifold).__name__}.{operation_name}")
    if weights is None:
        return x, torch.full(batch, 1.0 / batch[0], dtype=x.dtype, device=x.device)
    w = weights.reshape(weights.shape + (1,) * (len(batch) - weights.dim())).to(x.dtype).expand(batch)
    unused = w == 0
    if not values_readable(w) or bool(unused.any()):
        projected, lost = _projected(manifold, x.detach(), w.detach())
        x = torch.where(per_point(manifold, unused), projected, x)
        w = torch.where(unused & lost, 0.0, w)
    return x, w / w.sum(0, keepdim=True)


@torch.no_grad()
def _projected(manifold: Manifold, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """The projections of the items, and for which ones another item had to stand in."""
    finite = x.isfinite()
    found = manifold.projx(torch.where(finite, x, 0.0))
    heaviest = taken(x, w.argmax(0, keepdim=True))
    # Also coordinates whose squares overflow are none to compute with.
    size = manifold.dist2(heaviest, found) + found.square().flatten(w.dim()).sum(-1)
    lost = ~(finite.flatten(w.dim()).all(-1) & size.isfinite())
    return torch.where(per_point(manifold, lost), heaviest, found).detach(), lost


def taken(x: Tensor, index: Tensor) -> Tensor:
    """The items of ``N,*B,P`` with an index ``k,*B``. ``-> k,*B,P``."""
    tail = x.shape[index.dim() :]
    return x.gather(0, index.reshape(index.shape + (1,) * len(tail)).expand(index.shape + tail))


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
    fits = all(n in (1, m) for n, m in zip(weights.shape, batch, strict=False))
    if weights.shape[:1] != batch[:1] or weights.dim() > len(batch) or not fits:
        raise ValueError(f"{where}: weights must be broadcastable to {tuple(batch)}, got {tuple(weights.shape)}")
    if values_readable(weights):
        known = weights.detach()
        if not bool((known >= 0).all() & known.isfinite().all() & (known.sum(0) > 0).all()):
            raise ValueError(f"{where}: weights must be non-negative, finite, not NaN, and not all zero")
    return batch
