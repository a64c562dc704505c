"""The one wrapper that every geometric operation passes through: shapes first, then precision."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from .precision import FULL_DTYPES, GIVING_POINTS, compute
from .precision import HALF_DTYPES as HALF_DTYPES
from .precision import in_full_precision as in_full_precision

Method = TypeVar("Method", bound=Callable[..., Any])


def operation(method: Method) -> Method:
    """Mark a method of a manifold whose tensor arguments are all points or tangent vectors.

    Before any arithmetic the shapes are checked (`ValueError` that names the class, the method and the argument). Then
    it is computed as `in_full_precision` says: mixed dtypes are promoted, float32 at least, without autocast, and a
    result that is a point is one in the dtype in which it is given. Methods that take other tensors beside points are
    marked `in_full_precision`, and check shapes themselves.
    """

    # Of these none may be left out, self aside.
    needed = method.__code__.co_argcount - 1 - len(method.__defaults__ or ())
    options = frozenset(method.__kwdefaults__ or ())  # what follows the `*`: no points, though they may be tensors
    name = method.__name__
    gives_points = name in GIVING_POINTS

    @functools.wraps(method)
    def checked(self, *args, **kwargs):
        if (not kwargs or options.issuperset(kwargs)) and (dtype := _plain_dtype(args)) is not None:
            self.check_shapes(name, args)
            return method(self.in_dtype(dtype), *args, **kwargs)
        tensors = [a for a in args if isinstance(a, Tensor)]
        if kwargs:
            tensors += [a for key, a in kwargs.items() if key not in options and isinstance(a, Tensor)]
        if len(tensors) < len(args):
            _refuse_other_types(self, name, args, needed)
        self.check_operands(name, tensors)
        return compute(method, (self, *args), kwargs, tensors, (), self if gives_points else None)

    return checked  # type: ignore[return-value]


def _plain_dtype(args: Sequence[Any]) -> torch.dtype | None:
    """The dtype of arguments that are computed with as they are: tensors of one dtype, no half, without autocast. None
    of all others, right or wrong."""
    dtype = None
    for a in args:
        if not isinstance(a, Tensor) or (a.dtype is not dtype and dtype is not None):
            return None
        dtype = a.dtype
    return dtype if dtype in FULL_DTYPES and not torch._C._is_any_autocast_enabled() else None


def _refuse_other_types(manifold, name, args, needed):
    for position, a in enumerate(args):
        if not isinstance(a, Tensor) and (a is not None or position < needed):
            raise ValueError(
                f"{type(manifold).__name__}.{name}: argument {position + 1} must be a tensor, got "
                f"{type(a).__name__}; convert it with torch.as_tensor"
            )
