"""The one wrapper that every geometric operation passes through: shapes first, then precision."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from .precision import HALF_DTYPES

Method = TypeVar("Method", bound=Callable[..., Any])


def operation(method: Method) -> Method:
    """Mark a method of a manifold whose tensor arguments are all points or tangent vectors.

    Before any arithmetic the shapes are checked (`ValueError` that names the class, the method and the argument).
    Mixed dtypes are promoted as torch does. bfloat16 and float16 are computed in float32 and cast back, and autocast is
    switched off inside: rounding a Gram matrix to eight bits destroys the orthogonality that the formulas rely on.
    """

    options = frozenset(method.__kwdefaults__ or ())  # what follows the `*`: no points, though they may be tensors

    @functools.wraps(method)
    def checked(self, *args, **kwargs):
        named = (a for name, a in kwargs.items() if name not in options)
        tensors = [a for a in (*args, *named) if isinstance(a, Tensor)]
        if len(tensors) < len(args):
            _refuse_other_types(self, method.__name__, args)
        self.check_operands(method.__name__, tensors)
        return _without_autocast(method, self, tensors, args, kwargs)

    return checked  # type: ignore[return-value]


def in_full_precision(method: Method) -> Method:
    """As `operation`, for methods that take other tensors beside points: they check shapes themselves."""

    @functools.wraps(method)
    def widened(self, *args, **kwargs):
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor) and a.is_floating_point()]
        # Numbers in tensors promote nothing, as among torch's own arguments.
        tensors = [a for a in tensors if a.dim() > 0] or tensors
        return _without_autocast(method, self, tensors, args, kwargs) if tensors else method(self, *args, **kwargs)

    return widened  # type: ignore[return-value]


def _without_autocast(method, self, tensors, args, kwargs):
    device_type = tensors[0].device.type
    if device_type != "meta" and torch.is_autocast_enabled(device_type):
        with torch.autocast(device_type, enabled=False):
            return _in_full_precision(method, self, tensors, args, kwargs)
    return _in_full_precision(method, self, tensors, args, kwargs)


def _refuse_other_types(manifold, name, args):
    for position, a in enumerate(args):
        if a is not None and not isinstance(a, Tensor):
            raise ValueError(
                f"{type(manifold).__name__}.{name}: argument {position + 1} must be a tensor, got "
                f"{type(a).__name__}; convert it with torch.as_tensor"
            )


def _in_full_precision(method, self, tensors, args, kwargs):
    dtype = tensors[0].dtype
    if dtype not in HALF_DTYPES and all(t.dtype == dtype for t in tensors):
        return method(self.in_dtype(dtype), *args, **kwargs)
    dtype = functools.reduce(torch.promote_types, [t.dtype for t in tensors])
    wide = torch.promote_types(dtype, torch.float32)
    args = tuple(_cast(a, wide) for a in args)
    kwargs = {name: _cast(a, wide) for name, a in kwargs.items()}
    return _cast(method(self.in_dtype(wide), *args, **kwargs), dtype)


def _cast(value, dtype):
    if isinstance(value, tuple):
        return tuple(_cast(v, dtype) for v in value)
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(dtype)
    return value
