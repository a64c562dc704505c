"""Kernels of two eigenvalues whose metrics lie between Euclidean, affine-invariant and log-Euclidean ones."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import final

from ..options import check_finite
from .kernel_functions import KernelFunction, Terms, collected


@final
@dataclass(frozen=True, eq=False)
class BogoliubovKuboMori(KernelFunction):
    """The logarithmic mean: the metric is the Hessian of the entropy ``tr x log x``, of quantum statistics."""

    @property
    def degree(self) -> float:
        """1."""
        return 1.0

    @property
    def terms(self) -> Terms:
        """((1, 1/2),)."""
        return ((1.0, 0.5),)


@dataclass(frozen=True, eq=False)
class _MixedPower(KernelFunction, abc.ABC):
    p: float
    q: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite(type(self).__name__, p=self.p, q=self.q)

    @property
    def terms(self) -> Terms:
        """Of ``(x - y)^2/((x^p - y^p)(x^q - y^q))``."""
        return collected([(2.0, 0.5), (-1.0, self.p / 2), (-1.0, self.q / 2)])


@final
@dataclass(frozen=True, eq=False)
class MixedPowerEuclidean(_MixedPower):
    """``p q (x - y)^2/((x^p - y^p)(x^q - y^q))``, where p or q is 0 the limit: balanced between two power-Euclidean
    metrics, ``V -> D(x^p)[V]/p`` paired with that of q. ``p = q`` is `SPDPowerEuclidean`, and `SPDLogEuclidean` at 0;
    (0, 1) is `BogoliubovKuboMori`.

    Args:
        p, q: any real numbers; the degree is ``2 - p - q``.
        scale, beta: as of `KernelFunction`.
    """

    @property
    def degree(self) -> float:
        """2 - p - q."""
        return float(2 - self.p - self.q)


@final
@dataclass(frozen=True, eq=False)
class MixedPowerAffine(_MixedPower):
    """``(x y)^((p + q)/2)`` times the kernel of `MixedPowerEuclidean`: balanced between two power-affine metrics.
    ``p = q`` is `SPDAffineInvariant` with that power, and `SPDLogEuclidean` at 0.

    Args:
        p, q: any real numbers.
        scale, beta: as of `KernelFunction`.
    """

    @property
    def degree(self) -> float:
        """2."""
        return 2.0
