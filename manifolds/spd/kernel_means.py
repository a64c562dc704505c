"""Kernels of two eigenvalues that are powers of means of the two."""

from __future__ import annotations

import abc
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import final

from ..options import check_finite
from .kernel_functions import KernelFunction, Terms, collected


@dataclass(frozen=True, eq=False)
class MeanKernel(KernelFunction, abc.ABC):
    """``phi = scale m(x, y)^power`` for a mean m of two positive numbers: symmetric, homogeneous, between the two and
    monotone.

    Args:
        power: of the mean, the degree of the kernel.
        scale, beta: as of `KernelFunction`.
    """

    power: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite(type(self).__name__, power=self.power)

    @property
    def degree(self) -> float:
        """The power."""
        return float(self.power)

    @property
    def terms(self) -> Terms:
        """Those of the mean times the power."""
        return collected((self.power * weight, rate) for weight, rate in self._mean_terms)

    @property
    @abc.abstractmethod
    def _mean_terms(self) -> Iterable[tuple[float, float]]:
        """Of ``log m(x, y) - log(x y)/2``."""


@final
@dataclass(frozen=True, eq=False)
class ArithmeticMean(MeanKernel):
    """(x + y)/2. ``ArithmeticMean(scale=4.0)`` is the kernel of `SPDBuresWasserstein`."""

    @property
    def _mean_terms(self) -> Iterable[tuple[float, float]]:
        return (1.0, 1.0), (-1.0, 0.5)  # log cosh(s/2)


@final
@dataclass(frozen=True, eq=False)
class GeometricMean(MeanKernel):
    """(x y)^(1/2). ``GeometricMean(power=2.0)`` is the kernel of `SPDAffineInvariant`."""

    @property
    def _mean_terms(self) -> Iterable[tuple[float, float]]:
        return ()


@final
@dataclass(frozen=True, eq=False)
class HarmonicMean(MeanKernel):
    """2 x y/(x + y), the inverse of the arithmetic mean of the inverses."""

    @property
    def _mean_terms(self) -> Iterable[tuple[float, float]]:
        return (-1.0, 1.0), (1.0, 0.5)


@final
@dataclass(frozen=True, eq=False)
class LogarithmicMean(MeanKernel):
    """(x - y)/(log x - log y). ``LogarithmicMean(power=2.0)`` is the kernel of `SPDLogEuclidean`, ``LogarithmicMean()``
    that of Bogoliubov, Kubo and Mori."""

    @property
    def _mean_terms(self) -> Iterable[tuple[float, float]]:
        return ((1.0, 0.5),)


@final
@dataclass(frozen=True, eq=False)
class HoelderMean(MeanKernel):
    """((x^p + y^p)/2)^(1/p), the geometric mean at p = 0.

    Args:
        p: any real number.
        power, scale, beta: as of `MeanKernel`.
    """

    p: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite(type(self).__name__, p=self.p)

    @property
    def _mean_terms(self) -> Iterable[tuple[float, float]]:
        return () if self.p == 0 else ((1 / self.p, self.p), (-1 / self.p, self.p / 2))  # log cosh(p s/2)/p


@final
@dataclass(frozen=True, eq=False)
class StolarskyMean(MeanKernel):
    """(q (x^p - y^p)/(p (x^q - y^q)))^(1/(p - q)), where p or q is 0 the limit: the arithmetic mean at (2, 1), the
    logarithmic one at (1, 0), the geometric one where p + q = 0.

    Args:
        p, q: two different real numbers.
        power, scale, beta: as of `MeanKernel`.

    Stolarsky 1975, "Generalizations of the logarithmic mean".

    Raises ``ValueError`` if p and q are equal: those means are limits that are no quotient of powers.
    """

    p: float
    q: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite(type(self).__name__, p=self.p, q=self.q)
        if self.p == self.q:
            raise ValueError(f"StolarskyMean: p and q must be different, got {self.p!r} and {self.q!r}")

    @property
    def _mean_terms(self) -> Iterable[tuple[float, float]]:
        weight = 1 / (self.p - self.q)
        return (weight, self.p / 2), (-weight, self.q / 2)
