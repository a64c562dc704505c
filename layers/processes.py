"""The processes that share a batch: sums and items of all of them, with derivatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


class _Sum(Function):
    """Every process has a part in the sum of all, so that its derivative is the sum of all that come back."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = own.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _Sum.apply(grad, ctx.group), None


class Processes:
    """Those of one group of torch.distributed, or this process alone."""

    def __init__(self, group: Any = None, sync: bool = True) -> None:
        dist = torch.distributed
        self.group = group
        self.alone = not (sync and dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1)

    def total(self, own: Tensor) -> Tensor:
        """The sum over the processes, each of which gives a tensor of one shape. Its derivative is the sum of those
        that the processes have in it."""
        if self.alone:
            return own
        found: Any = _Sum.apply(own, self.group)
        return found

    def gathered(self, own: Tensor) -> Tensor:
        """The items ``n,...`` of all processes one after the other; their numbers n may differ."""
        if self.alone:
            return own
        dist = torch.distributed
        counts = torch.zeros(dist.get_world_size(self.group), dtype=torch.int64, device=own.device)
        rank = dist.get_rank(self.group)
        counts[rank] = len(own)
        dist.all_reduce(counts, group=self.group)
        before, after = int(counts[:rank].sum()), int(counts[rank + 1 :].sum())
        # Each puts its items among zeros: a sum, unlike torch's gathering, takes numbers that differ.
        padded = [own.new_zeros(n, *own.shape[1:]) for n in (before, after)]
        return self.total(torch.cat([padded[0], own, padded[1]]))
