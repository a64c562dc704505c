"""Kernels of rows: operands ``*B,D``, each row read into registers as a whole, and one option."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..functional.operators import Operand
from .dispatch import fused
from .kernel import Formula, Kernel, Launchers

MAX_WIDTH = 4096


def fused_rows(
    name: str,
    forward: Formula,
    backward: Callable[..., Any],
    *operands: str,
    option: str,
    launchers: Callable[[], Launchers] | None,
    **saving: Any,
) -> Formula:
    """`fused` of a formula of rows, see `Kernel`."""
    rows = tuple(Operand(operand, 1) for operand in operands)
    return fused(Kernel(name, forward, backward, rows, (option,), launchers=launchers, takes=takes_rows, **saving))


def takes_rows(*tensors: Tensor) -> bool:
    """Whether the rows are of one width, and short enough."""
    width = tensors[0].shape[-1]
    return width <= MAX_WIDTH and all(t.shape[-1] == width for t in tensors)
