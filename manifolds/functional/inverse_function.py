"""Inverses of functions of eigenvalues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .matrix_function import Sides
from .piecewise_functions import PositiveLinear


@dataclass(frozen=True)
class InverseFunction:
    """The inverse of `of`, whose values are positive, with divided differences from those of `of` at the inverse
    images: no quotient is formed that is 0/0."""

    of: PositiveLinear
    degree: None = None
    positive_domain: ClassVar[bool] = True

    @property
    def key(self) -> str:
        """``"inverse positive_linear"``."""
        return f"inverse {self.of.key}"

    def value(self, a: Tensor) -> Tensor:
        """The x with f(x) = a."""
        return self.of.inverse(a)

    def divided_difference(self, a: Tensor, b: Tensor) -> Tensor:
        """1/f[x, y]."""
        return 1 / self.of.divided_difference(self.value(a), self.value(b))

    def second_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, sides: Sides = None) -> Tensor:
        """-f[x, y, z]/(f[x, y] f[y, z] f[z, x])."""
        x, y, z = self.value(a), self.value(b), self.value(c)
        f = self.of.divided_difference
        return -self.of.second_divided_difference(x, y, z) / f(x, y) / f(y, z) / f(z, x)
