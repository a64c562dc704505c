"""Operators of the dispatcher: a piece of eager code that compilers and functorch see as one operation.

`define` makes ``torchriemann::NAME`` of a function on plain tensors. To ``torch.compile``, ``torch.export`` and
Inductor it is one node, so it may iterate, look at numbers and stop; ``vmap`` calls it once with a larger batch. An
operator has **no autograd rule**: its operands come detached, and whoever wants derivatives builds them around it,
by a ``torch.autograd.Function`` or by differentiating the equation that the results solve. (A rule on the operator
fails under ``torch.func`` and drops tangents in forward mode without a word.)

torch knows a name once a process, and this module opens the namespace. A module that calls `define` at its top level
does so at its first import; the old names of a module are aliases of it, not copies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

NAMESPACE = "torchriemann"
LIBRARY = torch.library.Library(NAMESPACE, "DEF")
TYPES = {float: "float", int: "SymInt", bool: "bool", str: "str"}
# Any strides come in and contiguous tensors go out, so Inductor need not copy to keep a layout.
TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.flexible_layout)


@dataclass(frozen=True)
class Operand:
    """A tensor argument: the last `ndim` dimensions are the item, the leading ones the batch.

    One that is `shared` has no batch: it is one for all items, and may be None.
    """

    name: str
    ndim: int
    shared: bool = False


def define(
    name: str,
    run: Callable[..., Any],
    operands: Sequence[Operand],
    results: Callable[..., Any],
    *,
    numbers: Mapping[str, type] | None = None,
    count: int = 1,
    batched: bool = True,
) -> Callable[..., Any]:
    """Register ``torchriemann::name`` and return it, to be called with the operands and then the numbers by position.

    Args:
        name: of the operator. It can be defined once a process.
        run: ``run(*operands, *numbers)`` on plain tensors, on any device. It changes no operand, and no result shares
            memory with an operand or another result. Results are made contiguous.
        operands: the tensors. Their batches may have to be equal or to broadcast, as `run` likes it; under ``vmap``
            every one that is not shared gets the mapped dimension as its first, and ones behind it where another has
            more leading dimensions, so that equal batches stay equal. A mapped shared operand costs a call an item.
        results: ``results(*operands, *numbers)``: empty results of the shapes, dtypes and devices of those of `run`,
            which reads no number of a tensor. The batch of a result is that of the operands, broadcast.
        numbers: the names of the other arguments and their types: float, int, bool or str.
        count: how many results there are; one is a tensor, several a tuple.
        batched: whether it has a rule for ``vmap``; without one torch calls it item by item.
    """
    numbers = numbers or {}
    arguments = [f"Tensor{'?' if o.shared else ''} {o.name}" for o in operands]
    arguments += [f"{TYPES[kind]} {number}" for number, kind in numbers.items()]
    returned = "Tensor" if count == 1 else f"({', '.join(['Tensor'] * count)})"
    LIBRARY.define(f"{name}({', '.join(arguments)}) -> {returned}", tags=TAGS)
    operator = getattr(getattr(torch.ops, NAMESPACE), name).default
    # On every device, and hidden from dynamo, which would else trace `run` where it meets a frame that it skips.
    torch.library.register_kernel(operator, None, _contiguous(run, count), lib=LIBRARY)
    torch.library.register_fake(operator, results, lib=LIBRARY)
    if batched:
        torch.library.register_vmap(operator, _vmap_rule(operator, tuple(operands), count), lib=LIBRARY)
    return operator


def _contiguous(run: Callable[..., Any], count: int) -> Callable[..., Any]:
    if count == 1:
        return lambda *arguments: run(*arguments).contiguous()
    return lambda *arguments: tuple([r.contiguous() for r in run(*arguments)])


def _vmap_rule(operator: Callable[..., Any], operands: tuple[Operand, ...], count: int) -> Callable[..., Any]:
    def rule(info: Any, in_dims: Any, *arguments: Any) -> Any:
        dims = in_dims[: len(operands)]
        tensors, numbers = arguments[: len(operands)], arguments[len(operands) :]
        if any(o.shared and dim is not None for o, dim in zip(operands, dims, strict=True)):
            results = _item_by_item(operator, info.batch_size, dims, tensors, numbers)
        else:
            results = operator(*_folded(info.batch_size, operands, dims, tensors), *numbers)
        return results, 0 if count == 1 else (0,) * count

    return rule


def _folded(
    size: int, operands: tuple[Operand, ...], dims: Sequence[int | None], tensors: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The operands with the mapped dimension before their batches, which it leaves aligned."""
    leading = [
        0 if t is None or o.shared else t.dim() - o.ndim - (dim is not None)
        for o, dim, t in zip(operands, dims, tensors, strict=True)
    ]
    most = max(leading)
    return [
        t if t is None or o.shared else _with_first(t, dim, size, most - own)
        for o, dim, t, own in zip(operands, dims, tensors, leading, strict=True)
    ]


def _with_first(t: Tensor, dim: int | None, size: int, ones: int) -> Tensor:
    t = t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)
    return t.reshape(size, *[1] * ones, *t.shape[1:]) if ones else t


def _item_by_item(operator, size, dims, tensors, numbers) -> Any:
    calls = [
        operator(*[t if dim is None else t.select(dim, i) for t, dim in zip(tensors, dims, strict=True)], *numbers)
        for i in range(size)
    ]
    return torch.stack(calls) if isinstance(calls[0], Tensor) else tuple(map(torch.stack, zip(*calls, strict=True)))
