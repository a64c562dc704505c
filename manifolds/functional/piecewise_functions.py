r"""Functions of eigenvalues that change their formula at zero, with divided differences that lose no digit there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .matrix_function import Sides, ascending


@dataclass(frozen=True)
class PositivePart:
    """max(a, 0): the projection on the cone of positive semidefinite matrices.

    Its derivative at an eigenvalue of zero is taken as that of the negative side; it has no second one there.
    """

    key: str = "positive_part"
    degree: float = 1.0
    positive_domain: ClassVar[bool] = False

    def value(self, a: Tensor) -> Tensor:
        """max(a, 0)."""
        return torch.where(a <= 0, 0.0, a)  # NaN stays NaN

    def divided_difference(self, a: Tensor, b: Tensor) -> Tensor:
        """1 above zero, 0 below, M/(M - m) across."""
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        across = (low <= 0) & (high > 0)
        quotient = high / torch.where(across, high - low, 1.0)
        return torch.where(across, quotient, (low > 0).to(a.dtype))

    def second_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, sides: Sides = None) -> Tensor:
        """|a|/(|a - b| |a - c|) for an eigenvalue a that is alone on its side of zero, 0 where none is."""
        low, middle, high = ascending(a, b, c)
        across = (low <= 0) & (high > 0)
        alone = torch.where(middle > 0, low, high)
        to_middle, to_end = (torch.where(across, gap, 1.0) for gap in ((middle - alone).abs(), high - low))
        return torch.where(across, alone.abs() / to_middle / to_end, 0.0)


@dataclass(frozen=True)
class PositiveLinear:
    r"""1 + a for a >= 0 and 1/(1 - a + a^2) below: positive everywhere, and 1 + a + O(a^3).

    What an exponential map 1 + a becomes where it may not leave a cone: a retraction of second order. With
    ``g(a) = 1/(1 - a + a^2)`` one has ``1 + a - g(a) = a^3 g(a)``, which needs no difference.
    """

    key: str = "positive_linear"
    degree: None = None
    positive_domain: ClassVar[bool] = False

    def value(self, a: Tensor) -> Tensor:
        """f(a)."""
        return torch.where(a < 0, _reciprocal(a), 1 + a)

    def inverse(self, y: Tensor) -> Tensor:
        """The a with f(a) = y > 0."""
        below = y < 1
        inner = torch.where(below, y, 1.0)
        # a = (1 - sqrt(4/y - 3))/2, without a difference next to y = 1.
        root = ((4 - 3 * inner) / inner).sqrt()
        return torch.where(below, 2 * (inner - 1) / inner / (1 + root), y - 1)

    def divided_difference(self, a: Tensor, b: Tensor) -> Tensor:
        """f[a, b]."""
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        below = (1 - low - high) * _reciprocal(low) * _reciprocal(high)  # 1 - h[a, b] would cancel far below zero
        return torch.where(high < 0, below, 1 - _bend_difference(low, high))

    def second_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, sides: Sides = None) -> Tensor:
        """f[a, b, c]."""
        low, middle, high = ascending(a, b, c)
        gap = high - low
        apart = gap > 0.5 * (low.abs() + high.abs())
        far = (_bend_difference(low, middle) - _bend_difference(middle, high)) / torch.where(apart, gap, 1.0)
        # g[a, b, c] = g(b) ((1 - b - c) g[a, c] - g(a)), of three on one side.
        low, middle, high = (torch.where(apart, 0.0, t).clamp_max(0) for t in (low, middle, high))
        g = _reciprocal(low)
        outer = (1 - low - high) * g * _reciprocal(high)
        return torch.where(apart, far, _reciprocal(middle) * ((1 - middle - high) * outer - g))


def _reciprocal(a: Tensor) -> Tensor:
    """1/(1 - a + a^2) for a < 0."""
    a = a.clamp_max(0)
    return 1 / (1 - a + a * a)


def _bend_difference(low: Tensor, high: Tensor) -> Tensor:
    """h[a, b] of h(a) = 1 + a - f(a): a^3/(1 - a + a^2) below zero, 0 above."""
    g = _reciprocal(low)
    end = high.clamp_max(0)
    inner = low.clamp_max(0)
    both = (inner**2 + inner * end + end**2 - inner * end * (inner + end) + (inner * end) ** 2) * g * _reciprocal(end)
    across = (low < 0) & (high > 0)
    over = -(inner**3) * g / torch.where(across, high - low, 1.0)
    return torch.where(across, over, both)
