"""What is called in a formula's place: `fused`, the choice of path.

On a GPU the operators are called, for what the fused kernel takes; elsewhere in eager mode the plain formula with the
closed-form derivative. Under ``torch.compile`` and ``torch.export`` the plain formula is traced, which Inductor fuses
by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor  # pyright: ignore[reportMissingImports]

from ..functional.broadcasting import broadcast_shape
from ..functional.operators import Operand as Operand
from .differentiable import Call, evaluate, have_tangents
from .kernel import Formula
from .kernel import Kernel as Kernel
from .switch import AUTO, PLAIN, current_path


def fused(kernel: Kernel[Formula]) -> Formula:
    """The plain formula of a kernel with its operators in its place where they apply, and with its closed-form
    derivative. The arguments come by position."""
    plain, count = kernel.forward, len(kernel.operands)

    @functools.wraps(plain)
    def call(*arguments):
        if torch.compiler.is_compiling():
            return plain(*arguments)
        path = current_path()
        if path == PLAIN:
            return plain(*arguments)
        tensors = arguments[:count]
        operator = _takes_operators(kernel, path, tensors)
        derivative = _derivative_wanted(arguments)
        if not (operator or derivative):
            return plain(*arguments)
        return _call(kernel, operator, derivative, tensors, arguments[count:])

    return call  # type: ignore[return-value]


def _call(kernel: Kernel, operator: bool, derivative: bool, tensors: Sequence[Tensor], others: Sequence[Any]) -> Any:
    first = tensors[0]
    dtype, shape, same = first.dtype, first.shape, kernel.alike
    for t in tensors[1:]:
        if t.dtype is not dtype:
            return kernel.forward(*tensors, *others)  # torch's promotion
        same = same and t.shape == shape
    primals, fixed, count = list(tensors) if same else _with_one_batch(kernel, tensors), [], len(kernel.options)
    for option in others[:count]:
        if isinstance(option, Tensor):
            primals.append(option if option.device == first.device else option.to(first.device))
            option = None
        fixed.append(option)
    call = Call(kernel, operator, fixed, others[count:])
    if derivative or have_tangents(primals):
        return evaluate(call, *primals)
    results = call.forward(primals)
    return results[0] if kernel.results == 1 else results[: kernel.results]


def _with_one_batch(kernel: Kernel, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The operands with the same leading dimensions."""
    batches = [t.shape[: t.dim() - operand.ndim] for t, operand in zip(tensors, kernel.operands, strict=True)]
    batch = broadcast_shape(*batches)
    if batch is None:
        batch = torch.broadcast_shapes(*batches)  # raises
    return [
        t if own == batch else t.expand(*batch, *t.shape[len(own) :]) for t, own in zip(tensors, batches, strict=True)
    ]


def _takes_operators(kernel: Kernel, path: str, tensors: Sequence[Tensor]) -> bool:
    x = tensors[0]
    if path != AUTO:
        return all(t.dtype == x.dtype for t in tensors)
    if not x.is_cuda:
        return False
    return all(t.dtype == x.dtype and t.device == x.device and _is_dense(t) for t in tensors) and kernel.launches(
        tensors
    )


def _is_dense(x: Tensor) -> bool:
    """Not a wrapper such as DTensor, of whose parts the plain formula is taken by torch."""
    return type(x).__torch_dispatch__ is Tensor.__torch_dispatch__  # pyright: ignore[reportAttributeAccessIssue]


def _derivative_wanted(arguments: Any) -> bool:
    grad = torch.is_grad_enabled()
    for a in arguments:
        if isinstance(a, Tensor) and ((grad and a.requires_grad) or is_functorch_wrapped_tensor(a)):
            return True
    return False
