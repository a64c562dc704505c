"""What may be asked of a tensor: whether its numbers can be read, whether derivatives may be wanted. And numbers that
have nothing but derivatives, or none."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import (  # pyright: ignore[reportMissingImports]
    TransformType,
    get_dynamic_layer_stack_depth,
    get_unwrapped,
    is_batchedtensor,
    is_functorch_wrapped_tensor,
    is_legacy_batchedtensor,
)
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import Function, forward_ad
from torch.autograd.function import once_differentiable


def bound_once(function: type[Function]) -> type[Function]:
    """A Function of which torch reads the signature once: it binds the arguments of every call to it, and reading it
    takes longer than a product of small matrices."""
    forward: Any = function.forward
    forward.__signature__ = inspect.signature(forward)
    return function


def values_readable(x: Tensor) -> bool:
    """False under compile, vmap and the like, and of meta and fake tensors, of which no number can be taken."""
    if torch.compiler.is_compiling() or is_functorch_wrapped_tensor(x) or x.is_meta:
        return False
    return not isinstance(x, FakeTensor)


def values_at_hand(x: Tensor) -> bool:
    """Whether they can be read and reading costs nothing: on an accelerator a look waits for all that was asked."""
    return values_readable(x) and x.device.type == "cpu"


def transforms_are_on() -> bool:
    """Whether a transform of `torch.func` is being computed."""
    return get_dynamic_layer_stack_depth() > 0


# Dynamo calls it and keeps the answer, which the guards on transforms hold: before torch 2.13 it cannot trace what it
# asks. What torch.compiler.assume_constant_result does, without its import of the whole compiler.
transforms_are_on._dynamo_marked_constant = True  # type: ignore[attr-defined]


def transforms_or_forward_mode() -> bool:
    """Whether something else than plain autograd may differentiate. To a compiler a constant that its guards hold."""
    return transforms_are_on() or forward_ad._current_level >= 0


def derivative_wanted(x: Tensor) -> bool:
    """Whether a derivative with respect to `x` may be asked for; true where that cannot be seen."""
    if torch.compiler.is_compiling():
        # What is exported serves other tensors later.
        if transforms_or_forward_mode():
            return True
        return torch.is_grad_enabled() and (x.requires_grad or torch.compiler.is_exporting())
    if not values_readable(x):
        return True
    return (torch.is_grad_enabled() and x.requires_grad) or forward_ad.unpack_dual(x).tangent is not None


def derivative_wanted_of_items(x: Tensor) -> bool:
    """`derivative_wanted`, which is seen through a `torch.vmap` by itself: where an operator follows that computes
    values of any batch, and derivatives cost many times as much."""
    if not torch.compiler.is_compiling() and is_batchedtensor(x):
        levels = retrieve_all_functorch_interpreters()
        if all(level.key() == TransformType.Vmap for level in levels):
            while is_batchedtensor(x):
                x = get_unwrapped(x)
    return derivative_wanted(x)


def eager_without_derivative(x: Tensor) -> bool:
    """Whether shortcuts pay that save eager code a pass: a compiler fuses the plain form without them."""
    # `derivative_wanted` in the order in which it is soonest known: this is asked before every launch or two.
    if torch.compiler.is_compiling() or (x.requires_grad and torch.is_grad_enabled()):
        return False
    if is_functorch_wrapped_tensor(x) or x.is_meta or isinstance(x, FakeTensor):
        return False
    return forward_ad._current_level < 0 or forward_ad.unpack_dual(x).tangent is None


def differentiated_by_autograd(x: Tensor) -> bool:
    """Whether a derivative with respect to `x` is wanted by plain eager autograd alone, which reads any Function."""
    if not x.requires_grad or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return False
    return not is_legacy_batchedtensor(x)


def forward_mode_is_taken() -> bool:
    """Whether torch's own forward mode is on, whose levels do not nest: `torch.func.jvp` may not be called."""
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return False
    return all(level.key() != TransformType.Jvp for level in retrieve_all_functorch_interpreters())


def function_loses_graph(gradient: Tensor) -> bool:
    """Whether a backward pass has to be made of torch's own operations: with `is_grads_batched` and `create_graph` its
    gradients come in an older vmap, in which what a Function computes has no graph."""
    return torch.is_grad_enabled() and is_legacy_batchedtensor(gradient)


def variation(x: Tensor) -> Tensor:
    """x - x: zero, with the derivatives of x. A Taylor polynomial in it has these of a function, through any
    transform, where the value is known from what has none."""
    return x - x.detach()


class LastDerivative(Function):
    """The identity on `value`, which was computed from `anchor` without a graph: a further derivative with respect to
    the anchor raises ``NotImplementedError(message)`` instead of being silently zero."""

    generate_vmap_rule = True

    @staticmethod
    def forward(anchor: Tensor, value: Tensor, message: str) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.message = inputs[2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise NotImplementedError(ctx.message)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise NotImplementedError(ctx.message)


def last_derivative(value: Tensor, message: str, *anchors: Tensor) -> Tensor:
    """`value` with a `LastDerivative` for each of the anchors. In a `jvp`, where forward mode is switched off, it would
    be a constant to an outer level that moves one of them."""
    for anchor in anchors:
        value = LastDerivative.apply(anchor, value, message)  # type: ignore[assignment]
    return value
