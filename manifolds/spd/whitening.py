"""The chart of the generalised Bures-Wasserstein metrics: a power, and a congruence that makes a base the identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from ..chart import Chart
from ..functional.definite import inside_or_nan, positive_definite
from ..functional.matrices import congruent, sym
from ..functional.triangular import whitened
from .charts import power_chart


@final
@dataclass(frozen=True, eq=False)
class Whitening(Chart):
    """x -> N^-1 (x^p/p^2) N^-T, in which the metric of `SPDBuresWasserstein` is the plain one. `root` is N, or None for
    the identity."""

    power: float | Tensor
    root: Tensor | None = None

    ndim: ClassVar[int] = 2

    def forward(self, x: Tensor) -> Tensor:
        """The image."""
        return self._whitened(power_chart(self.power).forward(inside_or_nan(x)))

    def inverse(self, y: Tensor) -> Tensor:
        """(p^2 N y N^T)^(1/p)."""
        return sym(power_chart(self.power).inverse(self._coloured(y)))

    def differential(self, x: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """Linear behind the power."""
        return tuple(map(self._whitened, power_chart(self.power).differential(sym(x), *vectors)))

    def inverse_differential(self, y: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """Linear before the root."""
        return tuple(map(sym, power_chart(self.power).inverse_differential(*map(self._coloured, (y, *vectors)))))

    def inverse_adjoint(self, y: Tensor, g: Tensor) -> Tensor:
        """p^2 N^T h N, h that of the root."""
        h = self.power**2 * sym(power_chart(self.power).inverse_adjoint(self._coloured(y), g))
        return h if self.root is None else congruent(self.root.mT, h)

    def inverse_is_defined(self, y: Tensor) -> Tensor:
        """Of positive definite matrices."""
        return positive_definite(y)

    def _whitened(self, y: Tensor) -> Tensor:
        y = y / self.power**2
        return sym(y) if self.root is None else whitened(self.root, y)

    def _coloured(self, y: Tensor) -> Tensor:
        y = self.power**2 * y
        return sym(y) if self.root is None else congruent(self.root, y)
