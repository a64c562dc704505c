r"""Logarithm, exponential and powers as functions of matrices, with divided differences that have no scale.

With ``0 < m <= M`` for the smaller and the larger of two eigenvalues, ``s = (M - m)/M`` and ``r = log(M/m)``, which is
``log1p((M - m)/m)``, every first divided difference is a product of factors of full relative accuracy:

    log[m, M] = 2 log(1 + q) / (q d),  d = m + sqrt(m M), q = (M - m)/d,    exp[m, M] = e^M (1 - e^{m - M}) / (M - m),
    x^p [m, M] = M^{p-1} (1 - e^{-p r}) / s  for p >= 0,     -(m^p / M) (1 - e^{p r}) / s  for p < 0.

No threshold is taken: quotients such as r/s need their limit only where M = m exactly. Logarithm and exponential get it
by a number added that rounding takes away elsewhere, since `torch.where` costs more than a logarithm. Second
differences of the roots have closed forms without cancellation; the others are quotients of first differences, which
lose at most a digit beyond a relative gap of 1/8, and Taylor polynomials at the middle eigenvalue within it. An
eigenvalue of zero gives what the limit gives, infinite where that is; one below zero NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from .matrix_function import MatrixFunction, Sides, ascending, change_of_sides

# Relative to the middle eigenvalue. 20 terms leave 20/8^20 = 2e-17 of the sum.
_NEAR = 1 / 8
_TERMS = 20


def _quotient(numerator: Tensor, denominator: Tensor, limit: float) -> Tensor:
    """numerator/denominator, and the limit where both are zero; NaN in the numerator stays."""
    zero = denominator == 0
    return torch.where(zero, limit + numerator, numerator / torch.where(zero, 1.0, denominator))


def _relative_gap(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """(M - m)/M and log(M/m)."""
    gap = high - low
    equal = gap == 0  # also 0 and 0; the root is there for its NaN
    roots = low.sqrt() * high.sqrt()  # M/m overflows where its root does not
    ratio = 2 * (gap / (low + roots)).log1p()
    return torch.where(equal, 0.0, gap / torch.where(equal, 1.0, high)), torch.where(equal, 0.0 * roots, ratio)


def _polynomial_difference(coefficients: tuple[float, ...], x: Tensor, z: Tensor) -> Tensor:
    """f[x, 0, z] of ``f(t) = sum_k c_k t^(k+2)``: Horner's rule, differenced."""
    coefficients = coefficients[: math.ceil(-math.log(torch.finfo(x.dtype).eps, 8)) + 2]  # of a step of 1/8
    value = torch.full_like(x, coefficients[-1])
    difference = torch.zeros_like(x)
    for c in reversed((0.0, *coefficients[:-1])):
        difference = difference * z + value
        value = value * x + c
    return difference


class SmoothFunction(MatrixFunction, Protocol):
    """A function of which the derivatives are differentiated twice themselves."""

    def third_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        """f[a, b, c, d]: the quotient of f[b, c, d] - f[a, b, c] by d - a, continued to equal arguments."""
        ...


def _third_difference(
    f: MatrixFunction,
    points: tuple[Tensor, ...],
    coefficients: tuple[float, ...],
    size: Callable[[Tensor], Tensor],
    width: float,
    unit: float | None = None,
) -> Tensor:
    """f[a, b, c, d]. Where the points lie within `width`, in units of the second or of `unit`, by the polynomial
    ``size(b) sum_k c_k t^(k+3)``; else as a quotient, which loses two digits."""
    low, b, c, high = torch.stack(torch.broadcast_tensors(*points)).sort(0).values.unbind(0)
    scale = b if unit is None else torch.full_like(b, unit)
    near = high - low <= width * scale
    change = f.second_divided_difference(b, c, high) - f.second_divided_difference(low, b, c)
    far = change / torch.where(near, 1.0, high - low)
    known = near & (scale > 0)
    steps = [torch.where(known, (p - b) / torch.where(known, scale, 1.0), 0.0) for p in (low, b, c, high)]
    table = [torch.zeros_like(b)] * 4  # Horner's rule, differenced
    for coefficient in reversed((0.0, 0.0, 0.0, *coefficients)):
        before = [coefficient, *table[:3]]
        table = [t * step + other for t, step, other in zip(table, steps, before, strict=True)]
    return torch.where(near, size(b) * table[3], far)


@dataclass(frozen=True)
class Exponential:
    """exp, of any real eigenvalues."""

    key: str = "exp"
    degree: None = None
    positive_domain: ClassVar[bool] = False

    def value(self, a: Tensor) -> Tensor:
        """e^a."""
        return a.exp()

    def divided_difference(self, a: Tensor, b: Tensor) -> Tensor:
        """exp[a, b]."""
        below = -torch.finfo(a.dtype).tiny - (b - a).abs()  # the number is for the limit
        return torch.maximum(a.exp(), b.exp()) * (below.expm1() / below)

    def second_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, sides: Sides = None) -> Tensor:
        """exp[a, b, c]."""
        a, b, c, change = change_of_sides(self, a, b, c, sides)
        near = (c - a).abs() <= 1  # its own scale: the quotient loses half a digit beyond
        x, z = (torch.where(near, end - b, 0.0) for end in (a, c))
        taylor = b.exp() * _polynomial_difference(_EXPONENTIAL, x, z)
        return torch.where(near, taylor, change / torch.where(near, 1.0, c - a))

    def third_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        """exp[a, b, c, d]."""
        return _third_difference(self, (a, b, c, d), _EXPONENTIAL[1:], torch.exp, 1.0, unit=1.0)


_EXPONENTIAL = tuple(1 / math.factorial(k + 2) for k in range(_TERMS))


@dataclass(frozen=True)
class Logarithm:
    """log, of positive eigenvalues."""

    key: str = "log"
    degree: float = 0.0
    positive_domain: ClassVar[bool] = True

    def value(self, a: Tensor) -> Tensor:
        """log(a)."""
        return a.log()

    def divided_difference(self, a: Tensor, b: Tensor) -> Tensor:
        """log[a, b]."""
        info = torch.finfo(a.dtype)
        d = torch.minimum(a, b) + a.sqrt() * b.sqrt()
        # The smallest number makes 0/0 infinite. A quotient that is not zero has at least the size of eps.
        q = (((b - a).abs() + info.tiny * info.eps) / d + info.tiny).clamp(max=info.max)
        return q.log1p() / q / (0.5 * d)

    def second_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, sides: Sides = None) -> Tensor:
        """log[a, b, c]."""
        a, b, c, change = change_of_sides(self, a, b, c, sides)
        near = (c - a).abs() <= _NEAR * b
        x, z = (torch.where(near, (end - b) / b, 0.0) for end in (a, c))
        taylor = _polynomial_difference(_LOGARITHM, x, z) / b / b
        return torch.where(near, taylor, change / torch.where(near, 1.0, c - a))

    def third_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        """log[a, b, c, d]."""
        return _third_difference(self, (a, b, c, d), _LOGARITHM[1:], lambda m: 1 / m / m / m, _NEAR)


_LOGARITHM = tuple((-1.0) ** (k + 1) / (k + 2) for k in range(_TERMS))


@dataclass(frozen=True)
class SquareRoot:
    """sqrt, of eigenvalues that are not negative."""

    key: str = "sqrt"
    degree: float = 0.5
    positive_domain: ClassVar[bool] = True

    def value(self, a: Tensor) -> Tensor:
        """sqrt(a)."""
        return a.sqrt()

    def divided_difference(self, a: Tensor, b: Tensor) -> Tensor:
        """1/(sqrt a + sqrt b)."""
        return 1 / (a.sqrt() + b.sqrt())

    def second_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, sides: Sides = None) -> Tensor:
        """-1/((sqrt a + sqrt b)(sqrt b + sqrt c)(sqrt c + sqrt a))."""
        a, b, c = a.sqrt(), b.sqrt(), c.sqrt()
        return -1 / (a + b) / (b + c) / (c + a)

    def third_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        """The sum of the four roots over the product of the sums of two."""
        a, b, c, d = a.sqrt(), b.sqrt(), c.sqrt(), d.sqrt()
        return (a + b + c + d) / (a + b) / (c + d) / (a + c) / (b + d) / (a + d) / (b + c)


@dataclass(frozen=True)
class SemidefiniteSquareRoot:
    """sqrt of matrices of a Frobenius norm between one and two, with eigenvalues of zero that rounding has moved.

    The derivative between two of them, which would be infinite, is zero: f[a, b] = 0, and f[a, b, c] the quotient of
    that and of f[b, c], which is right along all curves of matrices of one rank.

    Entries that are rounded by half an eps each move an eigenvalue by half an eps of the Frobenius norm at most. In
    float32 that is all, since small eigenvalues are found in float64; in float64 there are some eps of `eigh` besides.
    """

    key: str = "semidefinite_sqrt"
    degree: None = None
    positive_domain: ClassVar[bool] = True
    vanishing: float = 16.0  # below zero, in eps

    def value(self, a: Tensor) -> Tensor:
        """sqrt(a)."""
        rounded = (a < 0) & (a >= -self.vanishing * torch.finfo(a.dtype).eps)
        return torch.where(rounded, 0.0, a).sqrt()

    def _null(self, a: Tensor) -> Tensor:
        eps = torch.finfo(a.dtype).eps
        return (a >= -self.vanishing * eps) & (a <= (1.0 if a.dtype == torch.float32 else self.vanishing) * eps)

    def divided_difference(self, a: Tensor, b: Tensor) -> Tensor:
        """1/(sqrt a + sqrt b)."""
        null = self._null(a) & self._null(b)
        return torch.where(null, 0.0, 1 / torch.where(null, 1.0, self.value(a) + self.value(b)))

    def second_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, sides: Sides = None) -> Tensor:
        """-1/((sqrt a + sqrt b)(sqrt b + sqrt c)(sqrt c + sqrt a)); of two of zero and c, 1/sqrt(c)^3."""
        n = [self._null(x) for x in (a, b, c)]
        a, b, c = self.value(a), self.value(b), self.value(c)
        every = n[0] & n[1] & n[2]
        largest = torch.where(every, 1.0, torch.maximum(torch.maximum(a, b), c))
        pairs = ((a + b, n[0] & n[1]), (b + c, n[1] & n[2]), (c + a, n[2] & n[0]))
        one, other, third = (1 / torch.where(null, -largest, total) for total, null in pairs)
        return torch.where(every, 0.0, -one * other * third)


@dataclass(frozen=True)
class InverseSquareRoot:
    """1/sqrt, of positive eigenvalues."""

    key: str = "inverse_sqrt"
    degree: float = -0.5
    positive_domain: ClassVar[bool] = True

    def value(self, a: Tensor) -> Tensor:
        """1/sqrt(a)."""
        return 1 / a.sqrt()  # rsqrt is one more rounding off in float32

    def divided_difference(self, a: Tensor, b: Tensor) -> Tensor:
        """-1/(sqrt a sqrt b (sqrt a + sqrt b))."""
        a, b = a.sqrt(), b.sqrt()
        return -1 / a / b / (a + b)

    def second_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, sides: Sides = None) -> Tensor:
        """(A + B + C)/(A B C (A + B)(B + C)(C + A)) of the roots."""
        low, middle, high = (root.sqrt() for root in ascending(a, b, c))
        # By small and large factors in turn, or the product would leave the range of numbers before the result does.
        second = (low + middle + high) / (middle + high) / low / high / middle
        return second / (high + low) / (low + middle)


@dataclass(frozen=True)
class Power:
    """x^p for a real exponent p, of positive eigenvalues; for ``p >= 0`` of zero too."""

    exponent: float
    positive_domain: ClassVar[bool] = True

    @property
    def key(self) -> str:
        """``"power 0.3"``."""
        return f"power {self.exponent!r}"

    @property
    def degree(self) -> float:
        """The exponent."""
        return self.exponent

    def value(self, a: Tensor) -> Tensor:
        """a^p."""
        return torch.where(a < 0, torch.nan, a**self.exponent)  # whole exponents know no sign

    def divided_difference(self, a: Tensor, b: Tensor) -> Tensor:
        """x^p [a, b]."""
        return _power_difference(self.exponent, torch.minimum(a, b), torch.maximum(a, b))

    def second_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, sides: Sides = None) -> Tensor:
        """x^p [a, b, c]."""
        p = self.exponent
        if p in (0.0, 1.0):
            return torch.zeros_like(a + b + c)
        low, middle, high = ascending(a, b, c)
        near = (high - low) * max(1.0, abs(p)) <= _NEAR * middle
        gap = torch.where(near, 1.0, high - low)
        far = _change_of_differences(p, low, middle, high) / gap
        if abs(p - 1) <= 0.5:
            # Next to p = 1 all first differences are nearly equal: (x x^q)[a, b, c] = a x^q [a, b, c] + x^q [b, c].
            change = low * _change_of_differences(p - 1, low, middle, high)
            far = torch.where(low == 0, far, change / gap + _power_difference(p - 1, middle, high))
        safe = near & (middle > 0)
        x, z = (torch.where(safe, (end - middle) / middle, 0.0) for end in (low, high))
        coefficients = tuple(_binomial(p, k + 2) for k in range(_TERMS))
        polynomial = _polynomial_difference(coefficients, x, z)
        half = middle ** (p / 2) / middle  # its square is x^(p-2): p - 2 would be rounded
        limit = torch.where(middle == 0, middle ** (p - 2) * coefficients[0], half * (half * polynomial))
        return torch.where(near, limit, far)

    def third_divided_difference(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        """x^p [a, b, c, d]."""
        p = self.exponent
        coefficients = tuple(_binomial(p, k + 3) for k in range(_TERMS))
        return _third_difference(self, (a, b, c, d), coefficients, lambda m: m ** (p - 3), _NEAR / max(1.0, abs(p)))


def _power_difference(p: float, low: Tensor, high: Tensor) -> Tensor:
    s, r = _relative_gap(low, high)
    if p == 0:
        return torch.zeros_like(r)  # 0 log(0) is NaN
    change = _quotient(-torch.expm1(-abs(p) * r), s, abs(p))
    larger = high if p >= 0 else low  # in the power
    half = larger ** (p / 2)  # its square may leave the range of numbers although the result does not
    unit = torch.where(high == 0, high ** (p - 1), half * (half / high))
    return math.copysign(1.0, p) * unit * change


def _change_of_differences(p: float, low: Tensor, middle: Tensor, high: Tensor) -> Tensor:
    return _power_difference(p, middle, high) - _power_difference(p, low, middle)


def _binomial(p: float, k: int) -> float:
    return math.prod((p - j) / (j + 1) for j in range(k))
