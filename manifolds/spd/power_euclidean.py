"""The power-Euclidean metrics of positive definite matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..euclidean import Euclidean
from ..functional.matrices import symmetric_from_vector
from ..operation import in_full_precision, operation
from ..pullback_metric import PullbackMetric
from .charts import PowerVector, check_power
from .space import SPD


@final
@dataclass(frozen=True, eq=False)
class SPDPowerEuclidean(SPD, PullbackMetric):
    power: float

    name: ClassVar[str] = "SPDPowerEuclidean"

    def __post_init__(self) -> None:
        check_power("SPDPowerEuclidean", self.power)

    @property
    def codomain(self) -> Euclidean:  # type: ignore[override]
        """The coordinates of symmetric matrices."""
        return Euclidean()

    @property
    def chart(self) -> PowerVector:  # type: ignore[override]
        """The power, in coordinates."""
        return PowerVector(self.power)
