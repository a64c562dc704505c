"""Parameters as optimizers, clipping and averaging see them: each with its manifold, alike ones together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from .groups import is_flat
from .sharding import is_dtensor

State = dict[str, Any]
# Names of the state of a point beside "step": a "vector" is tangent and moves along with the point, a "scalar" is one
# number a point (a factor, on products).
StateNames = dict[str, Literal["vector", "scalar"]]
Method = TypeVar("Method", bound=Callable[..., Any])


def bookkeeping(method: Method) -> Method:
    """Run `method` as it is under ``torch.compile(optimizer.step)``, which compiles the mathematics in between."""
    # torch.optim's own way: torch.compiler.disable would import the whole compiler with this library.
    return torch._disable_dynamo(method)  # type: ignore[return-value]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One parameter of an optimizer, its manifold, and how messages call it."""

    parameter: Tensor
    manifold: Any  # a `Manifold`, or None in flat space
    where: str


def same_points(entries: Sequence[Entry], *, together: bool = True) -> list[list[Entry]]:
    """The points among `entries` in lists of equal manifold, shape, dtype, device and layout over processes; unless
    `together` each in one of its own."""
    batches: dict[Any, list[Entry]] = {}
    for i, entry in enumerate(entries):
        p = entry.parameter
        if not is_flat(entry.manifold):
            layout = (p.device_mesh, p.placements) if is_dtensor(p) else None  # type: ignore[attr-defined]
            number = None if together else i
            batches.setdefault((entry.manifold, p.shape, p.dtype, p.device, layout, number), []).append(entry)
    return list(batches.values())


def check_number(name: str, option: str, value: Any, *, below: float = float("inf"), tensor: bool = False) -> None:
    """Raise ``ValueError`` unless ``0 <= value < below``; with `tensor` a tensor of one element will do."""
    if tensor and isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name}: tensor {option} must have one element, got shape {tuple(value.shape)}")
        if value.device.type != "cpu":
            return  # reading it would synchronise
    elif not isinstance(value, (int, float)):
        kind = "a number or a tensor of one element" if tensor else "a number"
        raise ValueError(f"{name}: {option} must be {kind}, got {type(value).__name__}")
    if not 0.0 <= value < below:
        raise ValueError(f"{name}: {option} must be in [0, {below}), got {value}")
