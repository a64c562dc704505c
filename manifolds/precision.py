"""The policy of precision: float32 at least, autocast off inside, results in the caller's dtype."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn

HALF_DTYPES = (torch.bfloat16, torch.float16)
FULL_DTYPES = (torch.float32, torch.float64)  # what is computed with as it is

# The methods of the contract of which the result, or the first of two, is a point.
GIVING_POINTS = frozenset({
    "projx", "restore", "decay", "expmap", "retr", "expmap_transp", "retr_transp", "geodesic", "midpoint",
    "frechet_mean", "centroid", "expmap0", "from_normal", "gyroadd", "gyroinv", "gyroscale", "gyration", "expmap_frame",
    "clip_radius", "translated",
})  # fmt: skip

Function = TypeVar("Function", bound=Callable[..., Any])


class Castable:
    """What holds tensors of its own, and gives itself with them in the dtype of a computation."""

    def in_dtype(self, dtype: torch.dtype) -> Any:
        """The same thing with its tensors in `dtype`; itself where it holds none."""
        return self

    def round_to(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The result `x` in `dtype`."""
        return x.to(dtype)


def widen(*given: Tensor | torch.dtype) -> torch.dtype:
    """The dtype to compute in: the one to which torch promotes the tensors and dtypes given, float32 at least."""
    dtypes = (g.dtype if isinstance(g, Tensor) else g for g in given)
    return functools.reduce(torch.promote_types, dtypes, torch.float32)


def _points_by(function: Callable[..., Any], points_of: str | None) -> Callable[[Any, Any], Castable | None]:
    """Which argument of a call is the manifold of which its result is a point."""
    if points_of is None:
        method = function.__name__ in GIVING_POINTS
        return lambda args, kwargs: args[0] if method and args and isinstance(args[0], Castable) else None
    position = list(inspect.signature(function).parameters).index(points_of)
    return lambda args, kwargs: args[position] if position < len(args) else kwargs.get(points_of)


@overload
def in_full_precision(function: Function) -> Function: ...
@overload
def in_full_precision(*, points_of: str) -> Callable[[Function], Function]: ...
def in_full_precision(function: Any = None, *, points_of: str | None = None) -> Any:
    """Compute `function` in float32 at least, with autocast off, and give its results in its caller's dtype.

    The caller's dtype is that to which torch promotes the floating-point tensors among the arguments, numbers in
    tensors (0-dim) aside if there are others. The computation takes place in `widen` of it, and all arguments come in
    that dtype: tensors are cast, also those in tuples, and a `Castable`, such as a manifold whose curvature is a
    tensor, is asked for itself in it. Rounding a Gram matrix to eight bits would destroy the orthogonality that
    formulas rely on.

    For functions and for methods. In a method of a module, such as ``forward``, its own parameters and buffers count
    too: they may widen the computation, whose dtype ``x.dtype`` is, though not the result. The body reads them in that
    dtype, as in ``self.point("weight", x.dtype)``. If no argument is a tensor, theirs is the caller's dtype.

    A result that is a point is a point in the dtype in which it is given: the manifold rounds it (`round_to`). That is
    known of the methods of the contract by their names, `GIVING_POINTS`. Another function names the argument that is
    the manifold, ``@in_full_precision(points_of="manifold")``, and gives that first if it gives several results.
    """
    if function is None:
        return lambda given: in_full_precision(given, points_of=points_of)  # type: ignore[call-overload]
    manifold_of = _points_by(function, points_of)

    @functools.wraps(function)
    def precise(*args, **kwargs):
        if not kwargs and (dtype := _common_dtype(args)) is not None:
            return function(*_castables_in(dtype, args))
        given = (*args, *kwargs.values()) if kwargs else args
        # Numbers in tensors promote nothing, as among torch's own arguments.
        tensors = _floating(given, 1) or _floating(given, 0)
        held = _held(args[0]) if args and isinstance(args[0], nn.Module) else ()
        if not tensors and not held:
            return function(*args, **kwargs)
        return compute(function, args, kwargs, tensors or held, held, manifold_of(args, kwargs))

    return precise


def compute(
    function: Callable[..., Any],
    args: Iterable[Any],
    kwargs: Mapping[str, Any],
    tensors: Sequence[Tensor],
    held: Sequence[Tensor] = (),
    manifold: Castable | None = None,
) -> Any:
    """``function(*args, **kwargs)`` under the policy. `tensors` tell the caller's dtype; `held` ones only widen. Of the
    `manifold`, if there is one, the first result is a point."""
    if torch._C._is_any_autocast_enabled():
        device_type = tensors[0].device.type
        if device_type != "meta" and torch.is_autocast_enabled(device_type):
            with torch.autocast(device_type, enabled=False):
                return compute(function, args, kwargs, tensors, held, manifold)
    dtype = tensors[0].dtype
    as_it_is = dtype not in HALF_DTYPES
    for t in tensors if not held else (*tensors, *held):
        as_it_is = as_it_is and t.dtype == dtype
    if as_it_is:  # nothing to cast but what manifolds hold
        options = dict(zip(kwargs, _castables_in(dtype, kwargs.values()), strict=True)) if kwargs else kwargs
        return function(*_castables_in(dtype, args), **options)
    dtype = functools.reduce(torch.promote_types, [t.dtype for t in tensors])
    wide = widen(dtype, *held)
    args = [_cast(a, wide) for a in args]
    result = function(*args, **{n: _cast(a, wide) for n, a in kwargs.items()})
    if manifold is None or wide == dtype:
        return _cast(result, dtype)
    round_to = manifold.in_dtype(wide).round_to
    if isinstance(result, tuple):
        return round_to(result[0], dtype), *_cast(result[1:], dtype)
    return round_to(result, dtype)


def _common_dtype(args: Iterable[Any]) -> torch.dtype | None:
    """The dtype of arguments that are computed with as they are: the tensors among them have one, no half, and there is
    no autocast. None of others."""
    dtype = None
    for a in args:
        if isinstance(a, Tensor):
            if a.dtype is not dtype and dtype is not None:
                return None
            dtype = a.dtype
        elif isinstance(a, nn.Module):
            return None
    return dtype if dtype in FULL_DTYPES and not torch._C._is_any_autocast_enabled() else None


def _castables_in(dtype: torch.dtype, values: Iterable[Any]) -> list[Any]:
    return [a.in_dtype(dtype) if isinstance(a, Castable) else a for a in values]


def _floating(values: Iterable[Any], dim: int) -> list[Tensor]:
    """The floating-point tensors of at least `dim` dimensions among `values`."""
    return [v for v in values if isinstance(v, Tensor) and v.dim() >= dim and v.is_floating_point()]


def _held(module: nn.Module) -> list[Tensor]:
    return _floating((*module._parameters.values(), *module._buffers.values()), 0)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """`value` in `dtype` where it has one."""
    if isinstance(value, tuple):
        return tuple(_cast(v, dtype) for v in value)
    if isinstance(value, Castable):
        return value.in_dtype(dtype)
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
