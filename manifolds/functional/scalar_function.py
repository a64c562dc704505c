"""Scalar functions that are one operation of autograd's graph each, with a closed derivative."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.autograd import Function

from .tracing import differentiated_by_autograd

Formula = Callable[[Tensor, int], Tensor]
Derivative = Callable[[Tensor, Tensor, int], Tensor]


class _Value(Function):
    """In the older form of a Function, which torch calls in a quarter of the time and transforms do not know."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, sign: int, value: Formula, derivative: Derivative) -> Tensor:
        ctx.save_for_backward(z)
        ctx.sign, ctx.derivative = sign, derivative
        return value(z, sign)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return ctx.derivative(g, z, ctx.sign), None, None, None


def with_derivative(derivative: Derivative) -> Callable[[Formula], Callable[..., Tensor]]:
    """``f(z, sign)`` with g f'(z) given as ``derivative(g, z, sign)``, which is differentiable in turn.

    Autograd then keeps z alone, and f computes its value as if no derivative were wanted. Under every other way to
    differentiate, and to a compiler, f is the plain formula.
    """

    def attach(value: Formula) -> Callable[..., Tensor]:
        @functools.wraps(value)
        def function(z: Tensor, sign: int = 0) -> Tensor:
            if differentiated_by_autograd(z):
                return _Value.apply(z, sign, value, derivative)  # type: ignore[return-value]
            return value(z, sign)

        return function

    return attach
