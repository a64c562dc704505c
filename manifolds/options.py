"""Options of the frozen dataclasses that hold nothing else: equality and hashing by them, and checks."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor


def is_finite_number(value: object) -> bool:
    """Whether it is a finite int or float; a bool or a tensor is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_finite(owner: str, **options: object) -> None:
    """Raise ``ValueError`` unless all `options` of the class `owner` are finite numbers."""
    for name, value in options.items():
        if not is_finite_number(value):
            raise ValueError(f"{owner}: {name} must be a finite number, got {value!r}")


class ByOptions:
    """Base of dataclasses declared with ``@dataclass(frozen=True, eq=False)``.

    Two of one class are equal when their options are: numbers, strings and other objects of this kind by value,
    tensors and callables by identity. Their classes are safe to name in a checkpoint that is read with
    ``weights_only=True``, since they hold options only.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        torch.serialization.add_safe_globals([cls])

    def _options(self) -> tuple:
        values = (getattr(self, f.name) for f in dataclasses.fields(self))  # type: ignore[arg-type]
        return tuple(id(v) if isinstance(v, Tensor) or callable(v) else v for v in values)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._options() == other._options()  # type: ignore[union-attr]

    def __hash__(self) -> int:
        return hash((type(self), self._options()))
