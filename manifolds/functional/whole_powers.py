"""Square and reciprocal of positive eigenvalues: powers whose divided differences need no quotient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .matrix_function import Sides


def _positive(a: Tensor) -> Tensor:
    """NaN for a negative number, of which these powers would be numbers all the same."""
    return torch.where(a < 0, torch.nan, a)


@dataclass(frozen=True)
class Square:
    """a^2 for a >= 0."""

    key: str = "square"
    degree: float = 2.0
    positive_domain: ClassVar[bool] = True

    def value(self, a: Tensor) -> Tensor:
        """a^2."""
        return _positive(a) * a

    def divided_difference(self, a: Tensor, b: Tensor) -> Tensor:
        """a + b."""
        return a + b

    def second_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, sides: Sides = None) -> Tensor:
        """1."""
        return torch.ones_like(a + b + c)

    def third_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(a + b + c + d)


@dataclass(frozen=True)
class Reciprocal:
    """1/a for a > 0."""

    key: str = "reciprocal"
    degree: float = -1.0
    positive_domain: ClassVar[bool] = True

    def value(self, a: Tensor) -> Tensor:
        """1/a."""
        return 1 / _positive(a)

    def divided_difference(self, a: Tensor, b: Tensor) -> Tensor:
        """-1/(a b), without leaving the range of numbers on the way."""
        return -1 / a / b

    def second_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, sides: Sides = None) -> Tensor:
        """1/(a b c)."""
        return 1 / a / b / c

    def third_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        """-1/(a b c d)."""
        return -1 / a / b / c / d
