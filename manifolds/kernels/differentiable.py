"""The derivatives of a kernel: autograd Functions that every transform of torch can read.

``vmap`` folds the batch into the leading dimensions, ``jvp`` and second derivatives are those of the plain formula, and
of ``jvp`` within ``jvp`` the plain formula is taken from the start. Results that only the backward pass reads are
constants to all of these: a second derivative is that of the plain formula, in its arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._C._functorch import (  # pyright: ignore[reportMissingImports]
    TransformType,
    is_functorch_wrapped_tensor,
    is_legacy_batchedtensor,
)
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch.autograd import Function, forward_ad

from ..functional.tracing import bound_once
from .kernel import Kernel

Item = TypeVar("Item")
Tensors = Sequence[Tensor]


class Call:
    """One use of a kernel: whether by its operators, and its arguments that are no tensors.

    Its *primals* are its tensors: the operands, and after them the options that are tensors, which stand in `options`
    as None.
    """

    __slots__ = ("kernel", "numbers", "operator", "options", "saved")

    def __init__(self, kernel: Kernel, operator: bool, options: Sequence[float | None], numbers: Sequence[Any]) -> None:
        self.kernel, self.operator, self.options, self.numbers = kernel, operator, options, numbers
        self.saved = kernel.operator_saved if operator else kernel.saved  # how many results are

    def arguments(self, primals: Tensors) -> tuple[Any, ...]:
        """The arguments of the formulas."""
        count = len(self.kernel.operands)
        return (*primals[:count], *self._merged(primals[count:]), *self.numbers)

    def operator_arguments(self, primals: Tensors, saved: Tensors = ()) -> tuple[Any, ...]:
        """The arguments of the operators: an option without gradient is a number, since as a tensor it would cost a
        launch to fill."""
        count = len(self.kernel.operands)
        options = self._merged(primals[count:])
        tensors = [option if fixed is None else None for option, fixed in zip(options, self.options, strict=True)]
        values = [0.0 if fixed is None else fixed for fixed in self.options]
        return (*primals[:count], *saved, *tensors, *values, *self.numbers)

    def _merged(self, tensors: Tensors) -> Sequence[Any]:
        """All options, of which `tensors` are those that are tensors."""
        if len(tensors) == len(self.options):
            return tensors
        if not tensors:
            return self.options
        given = iter(tensors)
        return [next(given) if option is None else option for option in self.options]

    def forward(self, primals: Tensors) -> tuple[Tensor, ...]:
        """The results and the saved results, which may be results again."""
        if self.operator:
            return _tuple(self.kernel.forward_operator(*self.operator_arguments(primals)))
        formula = self.kernel.saving_shared if self.saved else self.kernel.forward
        return _tuple(formula(*self.arguments(primals)))

    def saving(self, *primals: Tensor) -> tuple[Tensor, ...]:
        """`forward` in plain torch, every result a tensor of its own."""
        formula = self.kernel.saving if self.saved else self.kernel.forward
        return _tuple(formula(*self.arguments(primals)))  # type: ignore[misc]

    def plain(self, *primals: Tensor) -> tuple[Tensor, ...]:
        """The results in plain torch."""
        return _tuple(self.kernel.forward(*self.arguments(primals)))

    def backward(self, operator: bool, gradients: Tensors, primals: Tensors, saved: Tensors) -> tuple[Tensor, ...]:
        """One gradient a primal, of options item by item."""
        kernel = self.kernel
        if operator:
            arguments = self.operator_arguments(primals, saved[: kernel.operator_saved])
            found = _tuple(kernel.backward_operator(*gradients, *arguments))
        else:
            found = _tuple(kernel.backward(*gradients, *self.arguments(primals), *saved))
        count = len(kernel.operands)
        if len(primals) in (count, len(found)):  # no option is a tensor, or all are
            return found[: len(primals)]
        of_options = zip(found[count:], self.options, strict=True)
        return (*found[:count], *[g for g, option in of_options if option is None])

    def split(self, items: Sequence[Item]) -> tuple[Sequence[Item], Sequence[Item], Sequence[Item]]:
        """What belongs to the gradients, the primals and the saved results, which a backward pass has in this order."""
        first, last = self.kernel.results, len(items) - self.saved
        return items[:first], items[first:last], items[last:]


def _tuple(results: Any) -> tuple[Tensor, ...]:
    return results if isinstance(results, tuple) else (results,)


@bound_once
class Forward(Function):
    """The results of a call and its saved results. The arguments are the call and its primals."""

    @staticmethod
    def forward(call: Call, *primals: Tensor) -> tuple[Tensor, ...]:
        return call.forward(primals) if call.operator else call.saving(*primals)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.call, *primals = inputs
        saved = output[ctx.call.kernel.results :]
        ctx.mark_non_differentiable(*saved)
        ctx.save_for_backward(*primals, *saved)
        ctx.save_for_forward(*primals)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        call: Call = ctx.call
        given, primals, saved = call.split((*gradients[: call.kernel.results], *ctx.saved_tensors))
        batched = any(map(is_legacy_batchedtensor, given))  # by `is_grads_batched`, whose older vmap knows no Function
        if torch.is_grad_enabled() and batched:
            return None, *_operation_by_operation(call, given, primals, ctx.needs_input_grad[1:])
        if torch.is_grad_enabled() or any(map(is_functorch_wrapped_tensor, given)):
            found = pull_back(call, given, primals, saved)
        else:  # the dispatcher calls the operator item by item of such a batch
            found = call.backward(call.operator or batched, given, primals, saved)
        count = len(call.kernel.operands)
        if len(found) == count:
            return None, *found
        wanted = zip(found[count:], primals[count:], ctx.needs_input_grad[1 + count :], strict=True)
        totals = [g.sum().to(option.dtype) if needed else None for g, option, needed in wanted]
        return None, *found[:count], *totals

    @staticmethod
    def jvp(ctx: Any, _call: Any, *tangents: Any) -> Any:
        results = _push_forward(ctx.call.plain, ctx.saved_tensors, tangents)
        return *results, *[None] * ctx.call.saved

    @staticmethod
    def vmap(info: Any, in_dims: Any, call: Call, *primals: Tensor) -> Any:
        count = len(call.kernel.operands)
        if any(dim is not None for dim in in_dims[1 + count :]):
            results = torch.vmap(call.saving, in_dims=in_dims[1:])(*primals)
        else:
            folded = _folded(info.batch_size, in_dims[1 : 1 + count], primals[:count])
            results = _evaluate_saving(call, *folded, *primals[count:])
        return results, (0,) * len(results)


class EagerForward(Function):
    """`Forward` outside of ``torch.func``: torch takes a quarter of the time to call a Function of this older form. It
    returns no saved results: what is neither an argument nor a result is a constant to every derivative."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        call, *primals = inputs
        outputs, count = call.forward(primals), call.kernel.results
        ctx.call = call
        ctx.save_for_backward(*primals, *outputs[count:])
        return outputs[0] if count == 1 else outputs[:count]

    backward = staticmethod(Forward.backward)


@bound_once
class Backward(Function):
    """The derivative of a call, itself to be differentiated. The arguments are the call, the gradients of its results,
    its primals and the saved results; the result is that of `Call.backward`."""

    @staticmethod
    def forward(call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        return call.backward(call.operator, *call.split(tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        call, *tensors = inputs
        ctx.call = call
        gradients, primals, _ = call.split(tensors)
        ctx.save_for_backward(*gradients, *primals)
        ctx.save_for_forward(*gradients, *primals)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        call: Call = ctx.call
        found = torch.func.vjp(lambda *tensors: _plain_pull_back(call, tensors), *ctx.saved_tensors)[1](gradients)
        return None, *found, *[None] * call.saved

    @staticmethod
    def jvp(ctx: Any, _call: Any, *tangents: Any) -> tuple[Tensor, ...]:
        call: Call = ctx.call
        tangents = tangents[: len(tangents) - call.saved]
        return _push_forward(lambda *tensors: _plain_pull_back(call, tensors), ctx.saved_tensors, tangents)

    @staticmethod
    def vmap(info: Any, in_dims: Any, call: Call, *tensors: Tensor) -> Any:
        dims = call.split(in_dims[1:])
        gradients, primals, saved = parts = call.split(tensors)
        count = len(call.kernel.operands)
        if any(dim is not None for dim in dims[1][count:]):

            def plain(*parts: Tensors) -> tuple[Tensor, ...]:
                return call.backward(False, parts[0], parts[1], parts[2])

            found = torch.vmap(plain, in_dims=tuple(map(tuple, dims)))(*map(tuple, parts))
        else:
            size = info.batch_size
            operands = _folded(size, dims[1][:count], primals[:count])
            found = pull_back(
                call,
                _folded(size, dims[0], gradients),
                [*operands, *primals[count:]],
                _folded(size, dims[2], saved),
            )
        return found, (0,) * len(found)


def evaluate(call: Call, *primals: Tensor) -> Any:
    """The results of a call, one a tensor, several a tuple, differentiable in the primals under every transform."""
    if torch._C._are_functorch_transforms_active() or have_tangents(primals):
        results, count = _evaluate_saving(call, *primals), call.kernel.results
        return results[0] if count == 1 else results[:count]
    return EagerForward.apply(call, *primals)


def _evaluate_saving(call: Call, *primals: Tensor) -> tuple[Tensor, ...]:
    """The results of a call and its saved results."""
    return call.saving(*primals) if _no_function_may_stand(primals) else Forward.apply(call, *primals)


def pull_back(call: Call, gradients: Tensors, primals: Tensors, saved: Tensors) -> tuple[Tensor, ...]:
    """`Call.backward`, differentiable in the gradients and the primals under every transform."""
    if _no_function_may_stand(tensors := (*gradients, *primals)):
        return _plain_pull_back(call, tensors)
    return Backward.apply(call, *tensors, *saved)


def _plain_pull_back(call: Call, tensors: Tensors) -> tuple[Tensor, ...]:
    """The derivative of the plain formula as autograd has it, in the layout of `Call.backward`."""
    kernel = call.kernel
    gradients, primals = tensors[: kernel.results], tensors[kernel.results :]
    count = len(kernel.operands)
    if len(primals) == count:
        return torch.func.vjp(call.plain, *primals)[1](tuple(gradients))
    # One option an item, so that its gradient comes item by item.
    batch = kernel.batch(primals)
    size, leading = batch.numel(), len(batch)
    flat = [t.reshape(size, *t.shape[leading:]) for t in (*gradients, *primals[:count])]
    items = (*flat[kernel.results :], *[option.expand(size) for option in primals[count:]])
    found = torch.func.vjp(torch.vmap(call.plain), *items)[1](tuple(flat[: kernel.results]))
    return tuple(g.reshape((*batch, *g.shape[1:])) for g in found)


def _operation_by_operation(
    call: Call, gradients: Tensors, primals: Tensors, needed: Sequence[bool]
) -> list[Tensor | None]:
    """The derivative of the plain formula with its graph, as autograd has it."""
    wanted = [p for p, asked in zip(primals, needed, strict=True) if asked]
    found = iter(torch.autograd.grad(call.plain(*primals), wanted, gradients, create_graph=True, allow_unused=True))
    return [next(found) if asked else None for asked in needed]


def _push_forward(formula: Any, primals: Tensors, tangents: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    # A dual number takes the layout of its primal, and cannot be written to a broadcast one.
    dense = tuple(p.contiguous() for p in primals)
    filled = tuple(torch.zeros_like(p) if t is None else t for p, t in zip(dense, tangents, strict=True))
    return torch.func.jvp(formula, dense, filled)[1]


def _folded(size: int, dims: Sequence[int | None], tensors: Tensors) -> list[Tensor]:
    """The tensors with the mapped dimension as their first."""
    return [
        t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0) for t, dim in zip(tensors, dims, strict=True)
    ]


def have_tangents(tensors: Tensors) -> bool:
    """Tangents of torch's own forward mode, whose levels do not nest, so that no `jvp` may be called inside: the plain
    formula is differentiated operation by operation. ``torch.func.jvp`` wraps its tensors and reads our `jvp`."""
    if forward_ad._current_level < 0:
        return False
    return any(not is_functorch_wrapped_tensor(t) and forward_ad.unpack_dual(t).tangent is not None for t in tensors)


def _no_function_may_stand(tensors: Tensors) -> bool:
    """With tangents of forward mode; inside of ``torch.func.functionalize``, which has no rule for a Function; of more
    than one ``torch.func.jvp``, since torch calls the `jvp` of a Function with forward mode switched off, so that to
    the outer levels a tangent formed there is a constant; of dual numbers that a wrapped tensor may hide."""
    if have_tangents(tensors):
        return True
    if not torch._C._are_functorch_transforms_active():
        return False
    levels = [level.key() for level in retrieve_all_functorch_interpreters()]
    jvps = levels.count(TransformType.Jvp)
    dual = jvps == 0 and forward_ad._current_level >= 0
    return TransformType.Functionalize in levels or jvps > 1 or dual
