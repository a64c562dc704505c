"""The one switch of the kernels."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ContextDecorator, contextmanager
from contextvars import ContextVar

import torch

AUTO, PLAIN, OPERATOR, TRITON = "auto", "plain", "operator", "triton"

_path: ContextVar[str] = ContextVar("torchriemann_kernels", default=AUTO)


def current_path() -> str:
    """What the next call may take: AUTO, PLAIN, or one of the two that tests force on a CPU."""
    return _path.get()


class use_kernels(ContextDecorator):
    """Whether fused kernels and their closed-form derivatives are used; they are by default.

    Like ``torch.set_grad_enabled`` it acts at once, as a plain call; as a context manager it is undone at the end, and
    as a decorator it holds for the calls of the function alone::

        with torchriemann.use_kernels(False):  # plain formulas, derivatives by autograd
            ...

    With ``False`` every operation is its plain torch formula. With ``True`` it is a Triton kernel for tensors of
    float32, bfloat16 or float16 on a GPU, with rows of up to 4,096 numbers, where Triton is installed; elsewhere in
    eager mode the plain formula with a closed-form backward pass. Under ``torch.compile`` and ``torch.export`` the
    plain formula is traced, and the switch, met inside of the compiled function, does nothing.

    The switch is a context variable: it concerns the thread or task that sets it. A backward pass follows what its
    forward pass did.

    Args:
        enabled: True or False.

    Raises:
        TypeError: if `enabled` is no bool.
    """

    def __init__(self, enabled: bool) -> None:
        if not isinstance(enabled, bool):
            raise TypeError(f"use_kernels: enabled is {enabled!r}, not True or False")
        self._enabled = enabled
        self._replaced: list[str] = []  # one a level of nesting
        self._entered = True
        if not torch.compiler.is_compiling():
            self.__enter__()
            self._entered = False  # the first entry is this one: what it replaced is what the exit restores

    def __enter__(self) -> None:
        if torch.compiler.is_compiling():
            return
        if self._entered:
            self._replaced.append(_path.get())
        self._entered = True
        _path.set(AUTO if self._enabled else PLAIN)

    def __exit__(self, *error: object) -> None:
        if not torch.compiler.is_compiling():
            _path.set(self._replaced.pop())

    def __call__(self, function: Callable) -> Callable:
        if not self._entered:  # a decorator acts in the calls only
            self._entered = True
            self.__exit__()
        return super().__call__(function)

    def _recreate_cm(self) -> use_kernels:
        return use_kernels(self._enabled)  # one a call, for threads


@contextmanager
def forced(path: str):
    """Take the registered operators on every device (OPERATOR), or Triton too (TRITON, through its interpreter)."""
    before = _path.get()
    _path.set(path)
    try:
        yield
    finally:
        _path.set(before)
