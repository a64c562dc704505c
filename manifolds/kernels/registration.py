"""The seam between a formula and its fused kernel: one call of `fused` a kernel.

The plain torch formula is the definition. Around it stand, for tensors on a GPU, two operators of the dispatcher (the
value and its closed-form derivative), and around those an autograd Function that every transform of torch can read:
``vmap`` folds the batch into the rows, ``jvp`` and second derivatives are those of the plain formula, and of ``jvp``
within ``jvp`` the plain formula is taken from the start. The operators
carry no autograd rule of their own: with one, ``torch.func`` fails, and forward mode drops the tangent silently.
Under ``torch.compile`` and ``torch.export`` the plain formula is traced, which Inductor fuses by itself.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
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

from ..functional.operators import LIBRARY
from ..precision import HALF_DTYPES
from .switch import AUTO, PLAIN, TRITON, current_path

DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # float64: the plain formula, whose error is a few eps
MAX_WIDTH = 4096  # a row stays in registers

Formula = TypeVar("Formula", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Kernel:
    """A formula ``forward(*tensors, curvature)``, its derivative ``backward(g, *tensors, curvature)``, and where the
    Triton sources of both are. `operands` names the tensors; a `scalar` formula has one number a row."""

    name: str
    forward: Callable[..., Tensor]
    backward: Callable[..., tuple[Any, ...]]
    operands: tuple[str, ...]
    scalar: bool
    sources: str

    def register(self) -> None:
        """Define the two operators ``torchriemann::NAME`` and ``torchriemann::NAME_backward``."""
        tensors = ", ".join(f"Tensor {name}" for name in self.operands)
        gradients = ", ".join(["Tensor"] * (len(self.operands) + 1))
        # A curvature without gradient is a number: as a tensor it would cost a launch to fill.
        curvature = "Tensor? curvature, float fixed"
        for name, schema, run, shapes in (
            (self.name, f"({tensors}, {curvature}) -> Tensor", self._value, self._value_shapes),
            (
                f"{self.name}_backward",
                f"(Tensor g, {tensors}, {curvature}) -> ({gradients})",
                self._slope,
                _slope_shapes,
            ),
        ):
            LIBRARY.define(name + schema)
            LIBRARY.impl(name, run, "CompositeExplicitAutograd")
            torch.library.register_fake(f"torchriemann::{name}", shapes, lib=LIBRARY)

    def value(self, operator: bool, tensors: tuple[Tensor, ...], curvature: float | Tensor) -> Tensor:
        """The formula, by its operator or in plain torch."""
        if not operator:
            return self.forward(*tensors, curvature)
        return getattr(torch.ops.torchriemann, self.name).default(*tensors, *_split(curvature))

    def slope(self, operator: bool, g: Tensor, tensors: tuple[Tensor, ...], curvature: float | Tensor):
        """The derivative: one gradient a tensor and, if the curvature is a tensor, its gradient row by row."""
        if operator:
            run = getattr(torch.ops.torchriemann, f"{self.name}_backward").default
            gradients = run(g, *tensors, *_split(curvature))
        else:
            gradients = self.backward(g, *tensors, curvature)
        return gradients if isinstance(curvature, Tensor) else gradients[: len(tensors)]

    def _value(self, *arguments: Any) -> Tensor:
        *tensors, curvature, fixed = arguments
        if _runs_triton(tensors[0]):
            return self._launchers()[0](*tensors, curvature, fixed)
        return self.forward(*tensors, fixed if curvature is None else curvature)

    def _slope(self, *arguments: Any) -> tuple[Tensor, ...]:
        g, *tensors, curvature, fixed = arguments
        if _runs_triton(g):
            return self._launchers()[1](g, *tensors, curvature, fixed)
        gradients = self.backward(g, *tensors, fixed if curvature is None else curvature)
        rows = g.new_empty(0) if curvature is None else gradients[-1]
        return (*gradients[: len(tensors)], rows)

    def _value_shapes(self, *arguments: Any) -> Tensor:
        x = arguments[0]
        return x.new_empty(x.shape[:-1] if self.scalar else x.shape)

    def _launchers(self) -> tuple[Callable[..., Tensor], Callable[..., tuple[Tensor, ...]]]:
        return importlib.import_module(f"{__package__}.{self.sources}").LAUNCHERS[self.name]


def _slope_shapes(*arguments: Any) -> tuple[Tensor, ...]:
    _, *tensors, curvature, _ = arguments
    rows = tensors[0].shape[:-1] if curvature is not None else (0,)
    dtype = torch.promote_types(tensors[0].dtype, torch.float32)  # of halves, a sum over many rows wants float32
    return (*[x.new_empty(x.shape) for x in tensors], tensors[0].new_empty(rows, dtype=dtype))


def _split(curvature: float | Tensor) -> tuple[Tensor | None, float]:
    return (curvature, 0.0) if isinstance(curvature, Tensor) else (None, curvature)


def fused(
    name: str, forward: Formula, backward: Callable[..., Any], *operands: str, sources: str, scalar=False
) -> Formula:
    """`forward` with a fused kernel in its place where there is one, and with `backward` as its derivative.

    Args:
        name: of the operators, ``torchriemann::name``.
        forward: the plain formula, ``forward(*tensors, curvature)``: rows (*B, D) that broadcast, and a float or a
            0-dim tensor.
        backward: ``backward(g, *tensors, curvature)``: a gradient for each tensor, and for the curvature one number a
            row.
        operands: names of the tensors.
        sources: the module beside this one that holds the Triton launchers, ``LAUNCHERS[name]``. It is imported at
            the first use.
        scalar: whether the formula has one number a row, (*B), instead of a row.
    """
    kernel = Kernel(name, _in_float(forward), _in_float(backward), operands, scalar, sources)
    kernel.register()
    plain = kernel.forward

    @functools.wraps(forward)
    def call(*arguments):
        if torch.compiler.is_compiling():
            return plain(*arguments)
        path = current_path()
        if path == PLAIN:
            return plain(*arguments)
        *tensors, curvature = arguments
        operator = _takes_operator(path, tensors)
        derivative = _derivative_wanted(arguments)
        if not (operator or derivative):
            return plain(*arguments)
        return _call(kernel, operator, derivative, tensors, curvature)

    return call  # type: ignore[return-value]


def _call(kernel, operator, derivative, tensors, curvature):
    first = tensors[0]
    if any(t.dtype != first.dtype for t in tensors):
        return kernel.forward(*tensors, curvature)  # torch's promotion
    if any(t.shape != first.shape for t in tensors):
        tensors = torch.broadcast_tensors(*tensors)
    if isinstance(curvature, Tensor) and curvature.device != first.device:
        curvature = curvature.to(first.device)
    if derivative or _have_tangents(curvature, *tensors):
        return _value(kernel, operator, curvature, *tensors)
    return kernel.value(operator, tuple(tensors), curvature)


class _Value(Function):
    """A formula. The arguments are the kernel, whether to take its operator, the curvature, and the tensors."""

    @staticmethod
    def forward(kernel: Kernel, operator: bool, curvature: Any, *tensors: Tensor) -> Tensor:
        return kernel.value(operator, tensors, curvature)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _keep(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        kernel, operator, curvature, *tensors = _kept(ctx)
        if torch.is_grad_enabled() or is_functorch_wrapped_tensor(g):
            gradients = _slope(kernel, operator, curvature, g, *tensors)
        else:
            # Of `is_grads_batched`, whose older vmap knows no Function: the dispatcher calls the operator row by row.
            gradients = kernel.slope(operator or is_legacy_batchedtensor(g), g, tuple(tensors), curvature)
        total = None
        if ctx.needs_input_grad[2]:
            total = gradients[-1].sum().to(curvature.dtype)
        return None, None, total, *gradients[: len(tensors)]

    @staticmethod
    def jvp(ctx: Any, _kernel: Any, _operator: Any, *tangents: Any) -> Tensor:
        kernel, _, *primals = _kept(ctx)
        return _push_forward(lambda curvature, *tensors: kernel.forward(*tensors, curvature), primals, tangents)

    @staticmethod
    def vmap(info: Any, in_dims: Any, kernel: Kernel, operator: bool, curvature: Any, *tensors: Tensor) -> Any:
        if in_dims[2] is not None:
            batched = torch.vmap(kernel.forward, in_dims=(*in_dims[3:], in_dims[2]))
            return batched(*tensors, curvature), 0
        return _value(kernel, operator, curvature, *_folded(info, in_dims[3:], tensors)), 0


class _EagerValue(Function):
    """`_Value` outside of ``torch.func``: torch takes a quarter of the time to call a Function of this older form."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        _keep(ctx, inputs)
        kernel, operator, curvature, *tensors = inputs
        return kernel.value(operator, tuple(tensors), curvature)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _Value.backward(ctx, *grads)


class _Slope(Function):
    """The derivative of a formula, itself to be differentiated. The arguments are those of `_Value`, with the gradient
    of the value before the tensors; the result is that of `Kernel.slope`."""

    @staticmethod
    def forward(kernel: Kernel, operator: bool, curvature: Any, g: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(kernel.slope(operator, g, tensors, curvature))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _keep(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        kernel, _, curvature, *tensors = _kept(ctx)
        primals = (curvature, *tensors) if isinstance(curvature, Tensor) else tensors
        gradients = torch.func.vjp(functools.partial(_plain_slope, kernel, curvature), *primals)[1](grads)
        return None, None, *([None] * (len(ctx.needs_input_grad) - 2 - len(gradients))), *gradients

    @staticmethod
    def jvp(ctx: Any, _kernel: Any, _operator: Any, *tangents: Any) -> tuple[Tensor, ...]:
        kernel, _, *primals = _kept(ctx)
        curvature = primals[0]
        skip = 0 if isinstance(curvature, Tensor) else 1
        return _push_forward(functools.partial(_plain_slope, kernel, curvature), primals[skip:], tangents[skip:])

    @staticmethod
    def vmap(info: Any, in_dims: Any, kernel: Kernel, operator: bool, curvature: Any, *tensors: Tensor) -> Any:
        if in_dims[2] is not None:
            batched = torch.vmap(kernel.backward, in_dims=(*in_dims[3:], in_dims[2]))
            gradients = batched(*tensors, curvature)
        else:
            gradients = _slope(kernel, operator, curvature, *_folded(info, in_dims[3:], tensors))
        return gradients, (0,) * len(gradients)


def _value(kernel: Kernel, operator: bool, curvature: Any, *tensors: Tensor) -> Tensor:
    transformed = torch._C._are_functorch_transforms_active()
    if _have_tangents(curvature, *tensors) or (transformed and _no_function_may_stand()):
        return kernel.forward(*tensors, curvature)
    function = _Value if transformed else _EagerValue
    return function.apply(kernel, operator, curvature, *tensors)


def _slope(kernel: Kernel, operator: bool, curvature: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
    transformed = torch._C._are_functorch_transforms_active()
    if _have_tangents(curvature, *tensors) or (transformed and _no_function_may_stand()):
        primals = (curvature, *tensors) if isinstance(curvature, Tensor) else tensors
        return _plain_slope(kernel, curvature, *primals)
    return _Slope.apply(kernel, operator, curvature, *tensors)


def _plain_slope(kernel: Kernel, fixed: Any, *primals: Tensor) -> tuple[Tensor, ...]:
    """The derivative of the plain formula as autograd has it, in the layout of `Kernel.slope`."""
    if not isinstance(fixed, Tensor):
        g, *tensors = primals
        return torch.func.vjp(lambda *t: kernel.forward(*t, fixed), *tensors)[1](g)
    curvature, g, *tensors = primals
    # One curvature a row, so that its gradient comes row by row.
    batch = g.shape if kernel.scalar else g.shape[:-1]
    rows = [t.reshape(-1, t.shape[-1]) for t in tensors]
    formula = torch.vmap(kernel.forward)
    pull_back = torch.func.vjp(formula, *rows, curvature.expand(batch.numel()))[1]
    *gradients, slopes = pull_back(g.reshape(-1) if kernel.scalar else g.reshape(-1, g.shape[-1]))
    return (*[a.reshape(t.shape) for a, t in zip(gradients, tensors, strict=True)], slopes.reshape(batch))


def _push_forward(formula, primals, tangents):
    fixed = [not isinstance(p, Tensor) for p in primals]

    def of_tensors(*values):
        rest = iter(values)
        return formula(*[p if f else next(rest) for p, f in zip(primals, fixed, strict=True)])

    # A dual number takes the layout of its primal, and cannot be written to a broadcast one.
    pairs = [
        (p.contiguous(), torch.zeros_like(p) if t is None else t)
        for p, t, f in zip(primals, tangents, fixed, strict=True)
        if not f
    ]
    return torch.func.jvp(of_tensors, *zip(*pairs, strict=True))[1]


def _keep(ctx: Any, inputs: tuple[Any, ...]) -> None:
    ctx.kernel, ctx.operator, ctx.fixed, *tensors = inputs
    if isinstance(ctx.fixed, Tensor):
        tensors, ctx.fixed = [ctx.fixed, *tensors], None
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def _kept(ctx: Any) -> Any:
    curvature = () if ctx.fixed is None else (ctx.fixed,)
    return ctx.kernel, ctx.operator, *curvature, *ctx.saved_tensors


def _folded(info: Any, dims: tuple[Any, ...], tensors: tuple[Tensor, ...]) -> list[Tensor]:
    size = info.batch_size
    return [
        t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0) for t, dim in zip(tensors, dims, strict=True)
    ]


def _takes_operator(path: str, tensors: Any) -> bool:
    x = tensors[0]
    if path != AUTO:
        return all(t.dtype == x.dtype for t in tensors)
    if not x.is_cuda:
        return False
    return (
        x.dtype in DTYPES
        and x.shape[-1] <= MAX_WIDTH
        and all(t.dtype == x.dtype and t.device == x.device and t.numel() > 0 and _is_dense(t) for t in tensors)
        and _triton_is_there()
    )


def _is_dense(x: Tensor) -> bool:
    """Not a wrapper such as DTensor, of whose parts the plain formula is taken by torch."""
    return type(x).__torch_dispatch__ is Tensor.__torch_dispatch__  # pyright: ignore[reportAttributeAccessIssue]


def _runs_triton(x: Tensor) -> bool:
    if x.numel() == 0 or x.dtype not in DTYPES:
        return False
    return (x.is_cuda or current_path() == TRITON) and _triton_is_there()


@functools.cache
def _triton_is_there() -> bool:
    return importlib.util.find_spec("triton") is not None


def _derivative_wanted(arguments: Any) -> bool:
    grad = torch.is_grad_enabled()
    for a in arguments:
        if isinstance(a, Tensor) and ((grad and a.requires_grad) or is_functorch_wrapped_tensor(a)):
            return True
    return False


def _have_tangents(*arguments: Any) -> bool:
    """Tangents of torch's own forward mode, whose levels do not nest, so that no `jvp` may be called inside: the plain
    formula is differentiated operation by operation. ``torch.func.jvp`` wraps its tensors and reads our `jvp`."""
    for a in arguments:
        if (
            isinstance(a, Tensor)
            and not is_functorch_wrapped_tensor(a)
            and forward_ad.unpack_dual(a).tangent is not None
        ):
            return True
    return False


def _no_function_may_stand() -> bool:
    """Inside of ``torch.func.functionalize``, which knows no rule for a Function; of more than one ``torch.func.jvp``,
    since torch calls the `jvp` of a Function with forward mode switched off, so that to the outer levels a tangent
    formed there is a constant; and of a level of dual numbers, whose tangents a wrapped tensor may hide."""
    levels = [level.key() for level in retrieve_all_functorch_interpreters()]
    jvps = levels.count(TransformType.Jvp)
    dual = jvps == 0 and forward_ad._current_level >= 0
    return TransformType.Functionalize in levels or jvps > 1 or dual


def _in_float(formula: Formula) -> Formula:
    """Halves are computed in float32, as the kernels do."""

    @functools.wraps(formula)
    def widened(*arguments):
        if arguments[0].dtype not in HALF_DTYPES:
            return formula(*arguments)
        dtype = arguments[0].dtype
        wide = [a.float() if isinstance(a, Tensor) and a.dtype in HALF_DTYPES else a for a in arguments]
        result = formula(*wide)
        if isinstance(result, Tensor):
            return result.to(dtype)
        *gradients, rows = result  # the curvature's keeps its digits: it is summed over all rows
        return (*[r.to(dtype) for r in gradients], rows)

    return widened  # type: ignore[return-value]
