"""Charts of positive definite matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..chart import Chart
from ..functional.cone import positive_definite
from ..functional.matrices import sym
from ..functional.spectral import symmetric_function
from ..functional.spectral_functions import Power
from ..functional.spectral_pushforward import function_and_derivatives


@dataclass(frozen=True, eq=False)
class MatrixPower(Chart):
    """x^p of a positive definite matrix, p != 0. A power of one costs nothing."""

    power: float

    ndim: ClassVar[int] = 2

    def forward(self, x: Tensor) -> Tensor:
        """x^p."""
        return x if self.power == 1 else symmetric_function(x, Power(self.power))

    def inverse(self, y: Tensor) -> Tensor:
        """y^(1/p)."""
        return y if self.power == 1 else symmetric_function(y, Power(1 / self.power))

    def differential(self, x: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """x^p and its derivatives along `vectors`, from one eigendecomposition."""
        return (x, *vectors) if self.power == 1 else function_and_derivatives(x, Power(self.power), *vectors)

    def inverse_differential(self, y: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """y^(1/p) and its derivatives along `vectors`."""
        return (y, *vectors) if self.power == 1 else function_and_derivatives(y, Power(1 / self.power), *vectors)

    def inverse_adjoint(self, y: Tensor, g: Tensor) -> Tensor:
        """The derivative of the inverse, which is self-adjoint, along the symmetric part of `g`."""
        return self.inverse_differential(y, sym(g))[1]

    def inverse_is_defined(self, y: Tensor) -> Tensor:
        """Of positive definite matrices."""
        return positive_definite(y)


def check_power(owner: str, power: float) -> None:
    """Raise unless `power` is a finite number and not zero."""
    number = isinstance(power, (int, float)) and not isinstance(power, bool)
    if not number or power == 0 or not abs(power) < torch.inf:
        raise ValueError(f"{owner}: power must be a finite number and not 0, got {power!r}")
