"""Maps of matrices whose derivative is self-adjoint, with first and second derivatives under every transform.

What iterates, such as a decomposition, is computed before, of a tensor without derivative. From these *parts* a map
has its value, its derivative ``D F[g]`` and its second derivative ``D^2 F[g, h]``. The value is a function of x that
reads the parts only, so the backward pass of D F is D F again, and its derivative in x the second one.

Eager code and the transforms of `torch.func` take an autograd Function. Dynamo knows no custom jvp; it gets an operator
of the dispatcher with a rule for plain autograd, which computes nothing for a derivative that nobody asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .operators import LIBRARY, Operand, define
from .tracing import (
    bound_once,
    derivative_wanted,
    function_loses_graph,
    last_derivative,
    transforms_or_forward_mode,
)


@dataclass(eq=False)
class SelfAdjointMap:
    """x -> F(x) for ``*B,n,p`` matrices, of the same shape.

    Formulas take the parts and the option at the end. The derivative is ``sum(h * first(g))``, symmetric in g and h;
    `second` is symmetric in its two directions and in h.

    Args:
        name: of the operators ``torchriemann::NAME``, ``NAME_derivative`` and ``NAME_curvature``.
        parts: how many dimensions the item of each part has.
        value: ``value(*parts, option)``, a new tensor.
        first: ``first(g, *parts, option)``.
        second: ``second(g, h, *parts, option)``.
        taylor: ``taylor(x, option)``: the value with first and second derivatives through plain torch, for an older
            vmap that knows no Function.
        no_third: what the error says where a third derivative is asked for.
        key, named: an option as a string, and the option of that string: operators carry strings.
    """

    name: str
    parts: tuple[int, ...]
    value: Callable[..., Tensor]
    first: Callable[..., Tensor]
    second: Callable[..., Tensor]
    taylor: Callable[[Tensor, Any], Tensor]
    no_third: str
    key: Callable[[Any], str] = str
    named: Callable[[str], Any] = str

    def __post_init__(self) -> None:
        self.value_operator = self._define("", (), self.value)
        self.derivative_operator = self._define("_derivative", ("gradient",), self.first)
        self.curvature_operator = self._define("_curvature", ("gradient", "direction"), self.second)
        for operator, backward in (
            (self.value_operator, self._pull_value),
            (self.derivative_operator, self._pull_derivative),
            (self.curvature_operator, self._pull_curvature),
        ):
            torch.library.register_autograd(operator, backward, setup_context=_save_all, lib=LIBRARY)

    def __call__(self, x: Tensor, option: Any, *parts: Tensor) -> Tensor:
        """F(x), of the parts that belong to x."""
        if torch.compiler.is_compiling():
            return self.value_operator(x, *parts, self.key(option))
        if not derivative_wanted(x):  # torch takes as long to call a Function as for a product of small matrices
            return self.value(*parts, option)
        function = _Value if transforms_or_forward_mode() else _EagerValue
        return function.apply(self, option, x, *parts)  # type: ignore[return-value]

    def derivative(self, g: Tensor, x: Tensor, option: Any, *parts: Tensor) -> Tensor:
        """D F[g], to be differentiated once. All have the same batch."""
        if torch.compiler.is_compiling():
            return self.derivative_operator(g, x, *parts, self.key(option))
        if not (derivative_wanted(g) or derivative_wanted(x)):
            return self.first(g, *parts, option)
        return _Derivative.apply(self, option, g, x, *parts)  # type: ignore[return-value]

    def _define(self, suffix: str, directions: tuple[str, ...], formula: Callable[..., Tensor]) -> Callable[..., Any]:
        """The operator of directions, x and parts. x is not read: it is what derivatives are asked of."""
        count = len(directions)
        operands = [Operand(name, 2) for name in (*directions, "x")]
        operands += [Operand(f"part{i}", ndim) for i, ndim in enumerate(self.parts)]

        def run(*arguments: Any) -> Tensor:
            *tensors, key = arguments
            return formula(*tensors[:count], *tensors[count + 1 :], self.named(key))

        def result(*arguments: Any) -> Tensor:
            self.named(arguments[-1])  # an unknown name raises where it is compiled
            return arguments[count].new_empty(arguments[count].shape)

        return define(self.name + suffix, run, operands, result, numbers={"option": str})

    def _pull_value(self, ctx: Any, g: Tensor) -> Any:
        return self.derivative_operator(g, *ctx.saved_tensors, ctx.key), *self._none()

    def _pull_derivative(self, ctx: Any, h: Tensor) -> Any:
        g, *others = ctx.saved_tensors
        of_g, of_x = ctx.needs_input_grad[:2]
        pulled = self.derivative_operator(h, *others, ctx.key) if of_g else None
        return pulled, self.curvature_operator(g, h, *others, ctx.key) if of_x else None, *self._none()

    def _pull_curvature(self, ctx: Any, _: Tensor) -> Any:
        raise NotImplementedError(self.no_third)

    def _none(self) -> tuple[None, ...]:
        return (None,) * (len(self.parts) + 1)


def _save_all(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.key = inputs
    ctx.save_for_backward(*tensors)


@bound_once
class _Value(Function):
    """F(x). The arguments are the map, its option, x and the parts."""

    generate_vmap_rule = True

    @staticmethod
    def forward(rule: SelfAdjointMap, option: Any, x: Tensor, *parts: Tensor) -> Tensor:
        return rule.value(*parts, option)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.rule, ctx.option, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, *parts = ctx.saved_tensors
        if function_loses_graph(g):
            pulled = torch.autograd.grad(ctx.rule.taylor(x, ctx.option), x, g, create_graph=True)[0]
        elif torch.is_grad_enabled() or transforms_or_forward_mode():
            pulled = _Derivative.apply(ctx.rule, ctx.option, g, x, *parts)
        else:
            pulled = ctx.rule.first(g, *parts, ctx.option)
        return None, None, pulled, *(None,) * len(parts)

    @staticmethod
    def jvp(ctx: Any, _rule: Any, _option: Any, dx: Tensor, *_: Any) -> Any:
        return _Derivative.apply(ctx.rule, ctx.option, dx, *ctx.saved_tensors)


class _EagerValue(Function):
    """`_Value` for plain autograd: torch takes a quarter of the time to call a Function of this older form."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        ctx.rule, ctx.option, *tensors = inputs
        ctx.save_for_backward(*tensors)
        return ctx.rule.value(*tensors[1:], ctx.option)

    backward = staticmethod(_Value.backward)


@bound_once
class _Derivative(Function):
    """D F[g] as a function of g and x."""

    generate_vmap_rule = True

    @staticmethod
    def forward(rule: SelfAdjointMap, option: Any, g: Tensor, x: Tensor, *parts: Tensor) -> Tensor:
        return rule.first(g, *parts, option)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.rule, ctx.option, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> Any:
        g, x, *parts = ctx.saved_tensors
        rule, of_g, of_x = ctx.rule, *ctx.needs_input_grad[2:4]
        pulled = _Derivative.apply(rule, ctx.option, h, x, *parts) if of_g else None
        curved = None
        if of_x:
            curved = last_derivative(rule.second(g, h, *parts, ctx.option), rule.no_third, x)
        return None, None, pulled, curved, *(None,) * len(parts)

    @staticmethod
    def jvp(ctx: Any, _rule: Any, _option: Any, dg: Tensor | None, dx: Tensor | None, *_: Any) -> Any:
        g, x, *parts = ctx.saved_tensors
        change = torch.zeros_like(g)
        if dx is not None:
            curved = ctx.rule.second(g, dx, *parts, ctx.option)
            change = change + last_derivative(curved, ctx.rule.no_third, x, g, dx)
        if dg is not None:
            change = change + _Derivative.apply(ctx.rule, ctx.option, dg, x, *parts)
        return change
