"""What a scalar function must answer to act on eigenvalues, and functions given by their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor


class MatrixFunction(Protocol):
    """A scalar function with its divided differences, on tensors of eigenvalues that broadcast, in any order.

    ``f[a, b] = (f(b) - f(a))/(b - a)`` and ``f[a, b, c] = (f[b, c] - f[a, b])/(c - a)``, continued to equal arguments
    by ``f'(a)`` and ``f''(a)/2``. Nothing is differentiated through these methods.

    `positive_domain` says whether it is a function of positive numbers, of which the smallest matter as much as the
    largest.
    """

    positive_domain: ClassVar[bool]

    @property
    def key(self) -> str:
        """The name by which `spectral_functions.named` finds the function: operators carry strings."""
        ...

    @property
    def degree(self) -> float | None:
        """p, if ``f[t a, t b] = t^(p - 1) f[a, b]`` for all t > 0; None of a function with a scale of its own."""
        ...

    def value(self, a: Tensor) -> Tensor:
        """f(a)."""
        ...

    def divided_difference(self, a: Tensor, b: Tensor) -> Tensor:
        """f[a, b]."""
        ...

    def second_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, sides: Sides = None) -> Tensor:
        """f[a, b, c]. Whoever knows the `sides` f[a, b] and f[b, c], and that b lies between a and c, may say so."""
        ...


Sides = tuple[Tensor, Tensor] | None


def ascending(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three arguments sorted, item by item."""
    low, high = torch.minimum(torch.minimum(a, b), c), torch.maximum(torch.maximum(a, b), c)
    return low, torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c)), high


def change_of_sides(
    f: MatrixFunction, a: Tensor, b: Tensor, c: Tensor, sides: Sides
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """a, b, c with b in the middle, and f[b, c] - f[a, b]."""
    if sides is None:
        a, b, c = ascending(a, b, c)
        sides = f.divided_difference(a, b), f.divided_difference(b, c)
    return a, b, c, sides[1] - sides[0]


def _gauss(n: int) -> list[tuple[float, ...]]:
    """(node, weight) of Gauss-Legendre quadrature on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return [(float(0.5 + 0.5 * t), float(0.5 * w)) for t, w in zip(nodes, weights, strict=True)]


_LINE = _gauss(8)


def _radon() -> list[tuple[float, ...]]:
    """(s, t, weight) of Radon's rule of degree 5 on the triangle a + s (b - a) + t (c - a), whose area is 1/2."""
    rule = [(1 / 3, 1 / 3, 9 / 80)]
    for root in (15**0.5, -(15**0.5)):
        pair, other, weight = (6 - root) / 21, (9 + 2 * root) / 21, (155 - root) / 2400
        rule += [(pair, pair, weight), (pair, other, weight), (other, pair, weight)]
    return rule


_TRIANGLE = _radon()
# Of `quadrature_gap`. Beyond it the quotient of first differences loses two digits at most.
_TRIANGLE_PART = 0.02


@dataclass(frozen=True)
class QuadratureFunction:
    """A function given with its first two derivatives; divided differences by Gauss quadrature of these
    (Hermite-Genocchi), or as quotients where the arguments lie far apart.

    `quadrature_gap` is the distance of two arguments, in the units of the eigenvalues, up to which 8 nodes integrate
    `first` to rounding, and beyond which the difference quotient loses nothing. For functions with a scale of their
    own, as entire ones have; not for logarithms and powers.
    """

    key: str
    _value: Callable[[Tensor], Tensor]
    first: Callable[[Tensor], Tensor]
    second: Callable[[Tensor], Tensor]
    quadrature_gap: float
    degree: None = None
    positive_domain: ClassVar[bool] = False

    def value(self, a: Tensor) -> Tensor:
        """f(a)."""
        return self._value(a)

    def divided_difference(self, a: Tensor, b: Tensor) -> Tensor:
        """f[a, b]."""
        far = (b - a).abs() > self.quadrature_gap
        quotient = (self.value(b) - self.value(a)) / torch.where(far, b - a, 1.0)
        nodes, weights = _on_leading_dimension(_LINE, quotient)
        return torch.where(far, quotient, (weights * self.first(a + nodes * (b - a))).sum(0))

    def second_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, sides: Sides = None) -> Tensor:
        """f[a, b, c]."""
        a, b, c, change = change_of_sides(self, a, b, c, sides)
        far = (c - a).abs() > _TRIANGLE_PART * self.quadrature_gap
        s, t, weights = _on_leading_dimension(_TRIANGLE, change)
        near = (weights * self.second(a + s * (b - a) + t * (c - a))).sum(0)
        return torch.where(far, change / torch.where(far, c - a, 1.0), near)


def _on_leading_dimension(rule: list[tuple[float, ...]], like: Tensor) -> tuple[Tensor, ...]:
    """The columns of a rule (nodes, weights) as tensors that broadcast against `like` along a new first dimension."""
    columns = torch.tensor(rule, dtype=like.dtype, device=like.device).unbind(-1)
    return tuple(c.reshape((-1,) + (1,) * like.dim()) for c in columns)


@dataclass(frozen=True)
class ConstantFunction:
    """One. As a function of singular values it gives the polar factor."""

    key: str = "one"
    degree: float = 0.0
    positive_domain: ClassVar[bool] = False

    def value(self, a: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(a)

    def divided_difference(self, a: Tensor, b: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(a + b)

    def second_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, sides: Sides = None) -> Tensor:
        """0."""
        return torch.zeros_like(a + b + c)


@dataclass(frozen=True)
class StepFunction:
    """One on positive eigenvalues and zero on the others: the spectral projector of the upper eigenspace.

    Differentiable as long as no eigenvalue is zero; eigenvalues on one side may repeat.
    """

    key: str = "step"
    degree: float = 0.0
    positive_domain: ClassVar[bool] = False

    def value(self, a: Tensor) -> Tensor:
        """1 where a > 0."""
        return (a > 0).to(a.dtype)

    def divided_difference(self, a: Tensor, b: Tensor) -> Tensor:
        """1/|b - a| across zero, 0 on one side."""
        across = (a > 0) != (b > 0)
        return torch.where(across, 1 / torch.where(across, (b - a).abs(), 1.0), 0.0)

    def second_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, sides: Sides = None) -> Tensor:
        """f[a, b, c]."""
        a, b, c, change = change_of_sides(self, a, b, c, sides)
        across = (a > 0) != (c > 0)
        return torch.where(across, change / torch.where(across, c - a, 1.0), 0.0)
