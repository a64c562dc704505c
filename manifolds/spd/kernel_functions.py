r"""Kernels of two eigenvalues, which the metrics of `SPDKernel` divide by: means of two positive numbers, their powers,
and what lies between Euclidean, affine-invariant and log-Euclidean metrics.

All are of one form, ``phi(x, y) = a (x y)^(theta/2) e^(kappa(s))`` with ``s = log x - log y`` and the even function
``kappa(s) = sum_k w_k l(r_k s)``, ``l(z) = log(sinh(z)/z)``, the terms (w_k, r_k) of a class. In it nothing cancels:
phi is the power ``a x^theta`` at x = y, and its derivatives come from those of l.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..functional.kernel_cometric import Cometric, log_sinhc_second
from ..options import ByOptions, check_finite

Terms = tuple[tuple[float, float], ...]


def collected(terms: Iterable[tuple[float, float]]) -> Terms:
    """Those of one rate as one; l is even, and l(0) = 0."""
    found: dict[float, float] = {}
    for weight, rate in terms:
        found[abs(rate)] = found.get(abs(rate), 0.0) + weight
    return tuple((weight, rate) for rate, weight in sorted(found.items()) if weight and rate)


@dataclass(frozen=True, eq=False)
class KernelFunction(ByOptions, abc.ABC):
    r"""A kernel phi of two positive numbers, symmetric, positive and homogeneous: ``phi(t x, t y) = t^degree phi(x,
    y)``.

    It gives positive definite matrices the metric of `SPDKernel`, ``sum_ij V'_ij^2/phi(l_i, l_j) + beta (sum_i
    V'_ii/phi(l_i, l_i)^(1/2))^2``. A class states `degree` and its `terms`.

    Args:
        scale: a, positive: ``phi(1, 1)``. It divides squared lengths, without the trace term's beta.
        beta: of the trace term, above ``-1/n`` for n x n matrices.

    Raises ``ValueError`` if scale is not positive, or an option no finite number.
    """

    scale: float = field(default=1.0, kw_only=True)
    beta: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        check_finite(type(self).__name__, scale=self.scale, beta=self.beta)
        if not self.scale > 0:
            raise ValueError(f"{type(self).__name__}: scale must be positive, got {self.scale!r}")

    @property
    @abc.abstractmethod
    def degree(self) -> float:
        """theta: ``phi(x, x) = a x^theta``."""

    @property
    @abc.abstractmethod
    def terms(self) -> Terms:
        """(w_k, r_k) of kappa, none of which is zero, each r_k positive and once."""

    @property
    def is_complete(self) -> bool:
        """Whether the metric of `SPDKernel` is: where the degree is 2, and only there."""
        return self.degree == 2

    def value(self, x: Tensor, y: Tensor) -> Tensor:
        """phi(x, y); NaN where an argument is not positive. `x` and `y` broadcast."""
        log_x, log_y = x.log(), y.log()
        exponent = self.of_logarithms.exponent(_log_ratio(x, y, log_x, log_y))
        value = self.scale * (0.5 * self.degree * (log_x + log_y) + exponent).exp()
        return torch.where((x > 0) & (y > 0), value, torch.nan)

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        """The derivative of phi(x, y) in x."""
        return self.value(x, y) * self._slope(x, y) / x

    def second_derivative(self, x: Tensor, y: Tensor) -> Tensor:
        """The second derivative of phi(x, y) in x."""
        slope = self._slope(x, y)
        return self.value(x, y) * (slope * (slope - 1) + self._bend(x, y)) / x / x

    def mixed_derivative(self, x: Tensor, y: Tensor) -> Tensor:
        """The derivative of phi(x, y) in x and y."""
        slope = self._slope(x, y)
        return self.value(x, y) * (slope * (self.degree - slope) - self._bend(x, y)) / x / y

    @property
    def of_logarithms(self) -> Cometric:
        """phi itself, as a function of the logarithms of its arguments."""
        return Cometric(self.scale, -self.degree / 2, self.terms, self.beta)

    @property
    def cometric(self) -> Cometric:
        """The kernel of the metric in the matrix logarithm, again as a function of logarithms: the derivative of exp
        at the logarithms of x and y is ``(x y)^(1/2) e^l(s/2)``, so that it is ``phi/(x y) e^(-2 l(s/2))``."""
        return Cometric(self.scale, 1 - self.degree / 2, collected([*self.terms, (-2.0, 0.5)]), self.beta)

    def complaint(self, n: int) -> str | None:
        """Why there is no metric of n x n matrices, or None."""
        if self.beta > -1 / n:
            return None
        return f"beta of phi must be above -1/n = {-1 / n:.4g} for {n} x {n} matrices, got {self.beta!r}"

    def _slope(self, x: Tensor, y: Tensor) -> Tensor:
        """x times the derivative of log phi in x: theta/2 + kappa'(s)."""
        return 0.5 * self.degree + self.of_logarithms.exponent_derivative(_log_ratio(x, y, x.log(), y.log()))

    def _bend(self, x: Tensor, y: Tensor) -> Tensor:
        """kappa''(s)."""
        s = _log_ratio(x, y, x.log(), y.log())
        return sum((w * r * r * log_sinhc_second(r * s) for w, r in self.terms), torch.zeros_like(s))


def _log_ratio(x: Tensor, y: Tensor, log_x: Tensor, log_y: Tensor) -> Tensor:
    """log(x/y), of near numbers without cancellation."""
    q = (x - y) / y
    near = q.abs() < 0.5
    return torch.where(near, torch.where(near, q, 0.0).log1p(), log_x - log_y)
