r"""Kernels of two eigenvalues, in logarithms of these: ``c(x, y) = a e^(-r (x + y)) e^(K(x - y))`` with the even
function ``K(s) = sum_k w_k l(r_k s)``, ``l(z) = log(sinh(z)/z)``.

What the means of two positive numbers are made of is l: ``log cosh z = l(2z) - l(z)``. Its singularities are those of
the logarithm at the zeros ``+-i pi k`` of sinh(z)/z, which give c its scale.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from .series import polynomial


def _even_bernoulli(count: int) -> list[Fraction]:
    """B_2, B_4, ... by their recurrence."""
    numbers = [Fraction(1)]
    for m in range(1, 2 * count + 1):
        total = sum((math.comb(m + 1, j) * b for j, b in enumerate(numbers)), Fraction(0))
        numbers.append(-total / (m + 1))
    return numbers[2::2]


# l(z) = sum_k a_k z^(2k) from k = 1 with a_k = 4^k B_2k/(2k (2k)!), in |z| < pi: below a half, 10 terms leave 1e-16.
_TERMS = [float(4**k * b / (2 * k * math.factorial(2 * k))) for k, b in enumerate(_even_bernoulli(10), 1)]
_FIRST = tuple(2 * k * a for k, a in enumerate(_TERMS, 1))
_SECOND = tuple((2 * k - 1) * a for k, a in enumerate(_FIRST, 1))


def log_sinhc(z: Tensor) -> Tensor:
    """log(sinh(z)/z), to eps and to eps |z|."""
    twice = 2 * z.abs() + torch.finfo(z.dtype).tiny  # the number is for the limit
    return 0.5 * twice + (-torch.expm1(-twice) / twice).log()


def log_sinhc_derivative(z: Tensor) -> Tensor:
    """coth(z) - 1/z, of Langevin."""
    small = z.abs() < 0.5
    series = z * polynomial(_FIRST, torch.where(small, z, 0.0).square())
    w = torch.where(small, 1.0, z)
    return torch.where(small, series, 1 / w.tanh() - 1 / w)


def log_sinhc_second(z: Tensor) -> Tensor:
    """1/z^2 - 1/sinh(z)^2."""
    small = z.abs() < 0.5
    series = polynomial(_SECOND, torch.where(small, z, 0.0).square())
    w = torch.where(small, 1.0, z.abs())
    decay = (-w).exp()
    return torch.where(small, series, 1 / w.square() - (2 * decay / torch.expm1(-2 * w)).square())


@dataclass(frozen=True)
class Cometric:
    r"""An inner product of covectors of symmetric matrices at X, ``sum_ij c(x_i, x_j) Y'_ij^2`` in eigenvectors of X,
    less ``b a/(1 + n b) (sum_i e^(-r x_i) Y'_ii)^2``.

    Its inverse is the metric ``sum_ij W'_ij^2/c(x_i, x_j) + b/a (sum_i e^(r x_i) W'_ii)^2``.

    Args:
        scale: a, positive.
        rate: r.
        powers: (w_k, r_k) of K; none with ``r_k = 0``.
        trace: b, above -1/n.
    """

    scale: float
    rate: float
    powers: tuple[tuple[float, float], ...] = ()
    trace: float = 0.0

    @property
    def width(self) -> float:
        """Twice the largest of the r_k: c is analytic where ``|Im s|`` is below 2 pi over it."""
        return max([0.0, *[2 * abs(rate) for _, rate in self.powers]])

    @property
    def key(self) -> str:
        """A name of which `named` makes the kernel again: operators carry strings."""
        return ",".join(repr(float(v)) for v in (self.scale, self.rate, self.trace, *sum(self.powers, ())))

    @staticmethod
    def named(key: str) -> Cometric:
        """The kernel of a `key`."""
        scale, rate, trace, *rest = map(float, key.split(","))
        return Cometric(scale, rate, tuple(zip(rest[::2], rest[1::2], strict=True)), trace)

    def exponent(self, s: Tensor) -> Tensor:
        """K(s)."""
        total = torch.zeros_like(s)
        for weight, rate in self.powers:
            total = total + weight * log_sinhc(rate * s)
        return total

    def exponent_derivative(self, s: Tensor) -> Tensor:
        """K'(s)."""
        total = torch.zeros_like(s)
        for weight, rate in self.powers:
            total = total + weight * rate * log_sinhc_derivative(rate * s)
        return total

    def value(self, x: Tensor, y: Tensor) -> Tensor:
        """c(x, y)."""
        return self.scale * (self.exponent(x - y) - self.rate * (x + y)).exp()

    def derivative(self, x: Tensor, y: Tensor) -> Tensor:
        """The derivative of c(x, y) in x."""
        return self.value(x, y) * (self.exponent_derivative(x - y) - self.rate)

    def trace_factor(self, n: int) -> float:
        """-b a/(1 + n b)."""
        return -self.trace * self.scale / (1 + n * self.trace)

    def to_power(self, t: float) -> Cometric:
        """With c^t in place of c, and no trace."""
        powers = tuple((t * weight, rate) for weight, rate in self.powers)
        return Cometric(self.scale**t, t * self.rate, powers)

    def inverse(self, n: int) -> Cometric:
        """The metric of which this is the inverse, in the same form, for n x n matrices."""
        return dataclasses.replace(self.to_power(-1), trace=-self.trace / (1 + n * self.trace))
