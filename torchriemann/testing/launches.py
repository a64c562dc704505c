"""How many launches a computation takes: on a GPU each costs what thousands of numbers cost, and on a CPU likewise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Views that their schemas do not tell to be such.
_VIEWS = frozenset({torch.ops.aten._unsafe_view.default, torch.ops.aten.detach.default})


class Launches(TorchDispatchMode):
    """A context that counts launches: calls of operators below autograd, views aside.

    An operator of several kernels, as a decomposition, counts once; so does a number that becomes a tensor.

    Attributes:
        count: of all calls so far.
        calls: how many calls of each operator, by its name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """The sum of `calls`."""
        return self.calls.total()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not (func.is_view or func in _VIEWS):
            self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))


class LaunchCounts(NamedTuple):
    """Launches of a function without derivatives, and of it together with its backward pass."""

    forward: int
    with_backward: int


def count_launches(function: Callable[..., Tensor | tuple[Tensor, ...]], *tensors: Tensor) -> LaunchCounts:
    """Launches of ``function(*tensors)``, and of that with the backward pass to all `tensors`, cotangents given.
    Whether `tensors` require a gradient makes no difference."""
    with torch.no_grad(), Launches() as forward:
        function(*tensors)
    leaves = [t.detach().requires_grad_() for t in tensors]
    with torch.enable_grad(), Launches() as through:
        results = function(*leaves)
    results = results if isinstance(results, tuple) else (results,)
    gradients = [torch.ones_like(r) for r in results]
    with through:
        torch.autograd.grad(results, leaves, gradients, allow_unused=True)
    return LaunchCounts(forward.count, through.count)
