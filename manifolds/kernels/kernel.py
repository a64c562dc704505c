"""A formula with a closed-form derivative and, where there is one, a fused kernel for both.

The plain torch formula is the definition. Around it stand two operators of the dispatcher, the value and the closed
derivative, which run the fused kernel on a GPU and the formulas elsewhere; they have no autograd rule, see
`functional.operators`. `differentiable` builds the derivatives around them, `dispatch` chooses among the paths.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from ..functional.operators import Operand, define
from ..precision import HALF_DTYPES, widen
from .switch import TRITON, current_path

DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # float64: the plain formula, whose error is a few eps

Formula = TypeVar("Formula", bound=Callable[..., Any])
Launchers = Mapping[str, tuple[Callable[..., Any], Callable[..., Any]]]


@dataclass(eq=False)
class Kernel(Generic[Formula]):
    """The formulas of one operation, and the operators ``torchriemann::NAME`` and ``torchriemann::NAME_backward``.

    Formulas take ``(*tensors, *options, *numbers)``. An *option* is one scalar for all items, a float or a 0-dim tensor
    that may want a gradient; a *number* is a float, int, bool or str, without gradient. Halves are computed in float32,
    and the results cast back.

    Args:
        name: of the operators.
        forward: the plain formula. One result is a tensor, several are a tuple.
        backward: ``backward(*gradients, *tensors, *options, *numbers, *saved)``: for every result its gradient comes
            first; a gradient for each tensor goes out, and for each option one number an item, of the batch's shape,
            which the caller sums.
        operands: the tensors, each with the number of dimensions of its item; they share their leading dimensions.
        options: the names of the options.
        numbers: the names of the numbers and their types.
        results: how many results there are.
        saving: `forward` with more results, which only `backward` reads; one that is a result too is copied. No
            derivative passes through them: second ones are those of the plain formula.
        saved: how many such results there are.
        recomputes: whether the fused kernel has what is saved at no cost. The operators then neither return nor take
            it, and `backward` is also called without.
        launchers: a function that imports the sources and returns ``{name: (forward, backward)}``, what runs the fused
            kernels. They take what the operators do, ``(*gradients, *tensors, *saved, *options, *values, *numbers)``
            in the backward pass: an option is a tensor, or None where its value counts. Nothing is imported before a
            kernel runs. None: there is no fused kernel.
        dtypes: what the fused kernels take.
        takes: ``takes(*tensors)``: whether the fused kernels take tensors of these shapes.
    """

    name: str
    forward: Formula
    backward: Callable[..., Sequence[Tensor]]
    operands: tuple[Operand, ...]
    options: tuple[str, ...] = ()
    numbers: Mapping[str, type] = field(default_factory=dict)
    results: int = 1
    saving: Callable[..., Any] | None = None
    saved: int = 0
    recomputes: bool = False
    launchers: Callable[[], Launchers] | None = None
    dtypes: tuple[torch.dtype, ...] = DTYPES
    takes: Callable[..., bool] = lambda *tensors: True

    def __post_init__(self) -> None:
        self.forward = _in_float(self.forward, self.results)  # type: ignore[assignment]
        # As autograd can save it, which knows its results again, and as an operator or a transform has to return it.
        self.saving_shared = self.forward if self.saving is None else _in_float(self.saving, self.results)
        self.saving = _apart(self.saving_shared, self.results) if self.saved else self.forward
        self.backward = _in_float(self.backward, len(self.operands))
        options = tuple(Operand(option, 0, shared=True) for option in self.options)
        numbers = {**{f"{option}_value": float for option in self.options}, **self.numbers}
        self.alike = len({operand.ndim for operand in self.operands}) == 1  # operands have items of one ndim
        self.operator_saved = 0 if self.recomputes else self.saved
        self.forward_operator = define(
            self.name,
            self._run_forward,
            (*self.operands, *options),
            self._empty_results,
            numbers=numbers,
            count=self.results + self.operator_saved,
            batched=False,
        )
        # The operators are called below all transforms, so nothing asks how many dimensions these have.
        gradients = tuple(Operand(f"gradient{i}", 0) for i in range(self.results))
        saved = tuple(Operand(f"saved{i}", 0) for i in range(self.operator_saved))
        self.backward_operator = define(
            f"{self.name}_backward",
            self._run_backward,
            (*gradients, *self.operands, *saved, *options),
            self._empty_gradients,
            numbers=numbers,
            count=len(self.operands) + len(options),
            batched=False,
        )

    def launches(self, tensors: Sequence[Tensor]) -> bool:
        """Whether the operators run the fused kernel on these operands."""
        x = tensors[0]
        return (
            self.launchers is not None
            and (x.is_cuda or current_path() == TRITON)
            and x.dtype in self.dtypes
            and all(t.numel() > 0 for t in tensors)
            and self.takes(*tensors)
            and _triton_is_there()
        )

    def batch(self, tensors: Sequence[Tensor]) -> torch.Size:
        """The leading dimensions of operands that share them."""
        x = tensors[0]
        return x.shape[: x.dim() - self.operands[0].ndim]

    def _run_forward(self, *arguments: Any) -> Any:
        if self.launches(arguments[: len(self.operands)]):
            return self.launchers()[self.name][0](*arguments)  # type: ignore[misc]
        return self._plain_results(arguments)

    def _run_backward(self, *arguments: Any) -> Any:
        count = len(self.operands)
        parts = self._split(arguments, self.results, count, self.operator_saved)
        gradients, tensors, saved, options, values = parts
        if self.launches(tensors):
            return self.launchers()[self.name][1](*arguments)  # type: ignore[misc]
        found = self.backward(*gradients, *tensors, *values, *saved)
        if count + len(options) == 1:
            return found if isinstance(found, Tensor) else found[0]
        pairs = zip(found[count:], options, strict=True)
        return (*found[:count], *[_none(tensors) if option is None else g for g, option in pairs])

    def _plain_results(self, arguments: tuple[Any, ...]) -> Any:
        tensors, _, values = self._split(arguments, len(self.operands))
        return (self.forward if self.recomputes else self.saving)(*tensors, *values)  # type: ignore[misc]

    def _split(self, arguments: Sequence[Any], *counts: int) -> list[Sequence[Any]]:
        """The arguments of an operator: its tensors in groups of these sizes, its options as tensors or None, and its
        options and numbers as a formula takes them."""
        groups = []
        for count in (*counts, len(self.options), len(self.options)):
            groups.append(arguments[:count])
            arguments = arguments[count:]
        *groups, options, values = groups
        chosen = [value if option is None else option for option, value in zip(options, values, strict=True)]
        return [*groups, options, (*chosen, *arguments)]

    def _empty_results(self, *arguments: Any) -> Any:
        results = self._plain_results(arguments)
        return results.contiguous() if isinstance(results, Tensor) else tuple(r.contiguous() for r in results)

    def _empty_gradients(self, *arguments: Any) -> Any:
        _, tensors, _, options, _ = self._split(arguments, self.results, len(self.operands), self.operator_saved)
        gradients = [t.new_empty(t.shape) for t in tensors]
        for option in options:
            none = _none(tensors)
            gradients.append(none if option is None else none.new_empty(self.batch(tensors)))
        return gradients[0] if len(gradients) == 1 else tuple(gradients)


def _none(tensors: Sequence[Tensor]) -> Tensor:
    """What an operator returns as the gradient of an option that is a number. Of halves, sums want float32."""
    return tensors[0].new_empty(0, dtype=widen(tensors[0]))


def _in_float(formula: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Halves are computed in float32, as the kernels do, and `count` results cast back. What follows, saved results and
    gradients of options, keeps its digits."""

    @functools.wraps(formula)
    def widened(*arguments: Any) -> Any:
        dtype = arguments[0].dtype
        if dtype not in HALF_DTYPES:
            return formula(*arguments)
        wide = [a.float() if isinstance(a, Tensor) and a.dtype in HALF_DTYPES else a for a in arguments]
        results = formula(*wide)
        if isinstance(results, Tensor):
            return results.to(dtype)
        return (*[r.to(dtype) for r in results[:count]], *results[count:])

    return widened


def _apart(saving: Callable[..., Any], count: int) -> Callable[..., Any]:
    """What is saved as tensors of their own, where it is one of the `count` results."""

    @functools.wraps(saving)
    def separate(*arguments: Any) -> Any:
        outputs = saving(*arguments)
        results = outputs[:count]
        return (*results, *[s.clone() if any(s is r for r in results) else s for s in outputs[count:]])

    return separate


@functools.cache
def _triton_is_there() -> bool:
    return importlib.util.find_spec("triton") is not None
