"""Kernels of rows: operands ``*B,D``, each row read into registers as a whole, and one option."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..functional.operators import Operand
from ..functional.tracing import eager_without_derivative
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
    saving: Callable[..., tuple[Tensor, ...]] | None = None,
    saved: int = 0,
) -> Formula:
    """`fused` of a formula of rows, see `Kernel`. `saving` is called where nobody wants a graph of it; a fused kernel
    has what it returns in registers."""
    rows = tuple(Operand(operand, 1) for operand in operands)
    kernel = Kernel(
        name,
        forward,
        backward,
        rows,
        (option,),
        saving=None if saving is None else _with_graph(forward, saving),
        saved=saved,
        recomputes=saved > 0,
        launchers=launchers,
        takes=takes_rows,
    )
    return fused(kernel)


def _with_graph(forward: Callable[..., Tensor], saving: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Any]:
    """`saving`, or where a derivative may be wanted the plain formula with what is saved as constants."""

    def both(*arguments: Any) -> tuple[Tensor, ...]:
        tensors = [a for a in arguments if isinstance(a, Tensor)]
        if all(map(eager_without_derivative, tensors)):
            return saving(*arguments)
        constants = [a.detach() if isinstance(a, Tensor) else a for a in arguments]
        return forward(*arguments), *saving(*constants)[1:]

    return both


def takes_rows(*tensors: Tensor) -> bool:
    """Whether the rows are of one width, and short enough."""
    width = tensors[0].shape[-1]
    return width <= MAX_WIDTH and all(t.shape[-1] == width for t in tensors)
