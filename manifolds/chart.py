"""Charts: diffeomorphisms with their derivatives, for the metrics that they carry."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from .functional.tracing import forward_mode_is_taken
from .options import ByOptions


class Linearized(NamedTuple):
    """A chart f at one point: its image, and the inverse of Df there, which carries tangent vectors back, with the
    transpose of that."""

    image: Tensor
    pull: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]


class Chart(ByOptions, abc.ABC):
    r"""A diffeomorphism f from a space of points ``*B,P`` onto one of points ``*B,Q``, whose geometry is known.

    A frozen dataclass, ``@dataclass(frozen=True, eq=False)``, whose fields are its options: numbers, tensors, functions
    or modules (an invertible network). Every method broadcasts over ``*B`` and is made of differentiable operations.

    A class defines `forward` and `inverse`. Derivatives of the two are found by forward and reverse mode
    (`torch.func`); a class that has them in closed form overrides `differential`, `inverse_differential` and
    `inverse_adjoint`, which is faster. `base_shape` says what Q is where it is not P.
    """

    ndim: ClassVar[int] = 1  # dimensions of one point ``P``

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The image f(x). ``*B,P -> *B,Q``."""

    @abc.abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """The point with the image `y`. ``*B,Q -> *B,P``."""

    # ---- derivatives ------------------------------------------------------------------------------------------

    def differential(self, x: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """f(x), and its derivatives along `vectors`, sharing work: ``(f(x), Df u, ...)``. ``*B,P -> *B,Q``."""
        return _along(self.forward, x, vectors)

    def inverse_differential(self, y: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """The point x with the image `y`, and the derivatives of it along `vectors`. ``*B,Q -> *B,P``."""
        return _along(self.inverse, y, vectors)

    def inverse_adjoint(self, y: Tensor, g: Tensor) -> Tensor:
        """The transpose of the derivative of `inverse` at `y`, applied to `g`: the Euclidean gradient in y of a
        function whose gradient in x is `g`. ``*B,Q; *B,P -> *B,Q``, of one batch."""
        return torch.func.vjp(self.inverse, y)[1](g)[0]

    def linearized(self, x: Tensor) -> Linearized:
        """f(x), and the derivative of the inverse there; overridden where that follows from what f(x) takes."""
        y = self.forward(x)
        return Linearized(y, lambda v: self.inverse_differential(y, v)[1], lambda g: self.inverse_adjoint(y, g))

    # ---- the domain -------------------------------------------------------------------------------------------

    def complaint(self, point_shape: tuple[int, ...]) -> str | None:
        """Why trailing dimensions cannot be a point, or None."""
        return None

    def base_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Q, the shape of the image of one point."""
        return point_shape

    def project(self, x: Tensor) -> Tensor:
        """A point of the domain of f near `x`; `x` itself where it lies inside. By default the domain is all."""
        return x

    def residual(self, x: Tensor) -> tuple[Tensor, str]:
        """Largest deviation from the domain (0-dim tensor) and its formula, for messages."""
        back = self.inverse(self.forward(x))
        return ((back - x).abs() / (1 + x.abs())).amax(), "max|inverse(forward(x)) - x|/(1 + |x|)"

    def inverse_is_defined(self, y: Tensor) -> Tensor | bool:
        """Which `y` are images, not beyond. ``*B,Q -> *B`` (bool), or True where all of Q is."""
        return True

    def in_dtype(self, dtype: torch.dtype) -> Any:
        """The same chart with its tensor options in `dtype`, which its points have."""
        changed = {
            f.name: value.to(dtype)
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if isinstance(value := getattr(self, f.name), Tensor) and value.is_floating_point() and value.dtype != dtype
        }
        return dataclasses.replace(self, **changed) if changed else self  # type: ignore[type-var]


def _along(function: Callable[[Tensor], Tensor], at: Tensor, vectors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The value of `function`, and its derivatives along `vectors`."""
    if not vectors:
        return (function(at),)
    # A dual number takes the layout of its primal, and cannot be written to a broadcast one.
    pairs = [[t.contiguous() for t in torch.broadcast_tensors(at, v)] for v in vectors]
    found = [derivative_along(function, here, v) for here, v in pairs]
    return (found[0][0], *(derivative for _, derivative in found))


def derivative_along(function: Callable[[Tensor], Tensor], at: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The value of `function`, and its derivative along `v`, also inside of torch's own forward mode."""
    if not forward_mode_is_taken():
        # In a compiled graph a slice of a dual number that is an input of the graph fails.
        at = at.clone() if torch.compiler.is_compiling() else at.contiguous()  # no dual number is broadcast
        value, derivative, *_ = torch.func.jvp(function, (at,), (v,))
        return value, derivative
    # By reverse mode alone: the pull-back is linear in its cotangent, and the transpose of that map is the derivative.
    value, pull_back, *_ = torch.func.vjp(function, at)
    return value, torch.func.vjp(lambda g: pull_back(g)[0], torch.zeros_like(value))[1](v)[0]
