r"""Scalar functions that are smooth at zero although their closed forms are 0/0 there.

Every function uses a "double where": the closed form is evaluated at a harmless argument wherever the series is
taken, so that neither branch can send a NaN backwards. The switch lies where the closed form has lost nothing, not
near zero, so that first and second derivatives are as accurate as the value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .tracing import eager_without_derivative, values_at_hand


def safe_sqrt(z: Tensor) -> Tensor:
    """sqrt(z) with gradient zero, not infinity, at ``z <= 0``."""
    if eager_without_derivative(z):
        return z.clamp(min=0.0).sqrt()
    zero = z <= 0  # in this sense NaN stays NaN
    return torch.where(zero, 0.0, torch.where(zero, 1.0, z).sqrt())


def safe_norm(x: Tensor, dim: int | tuple[int, ...] = -1, keepdim: bool = False) -> Tensor:
    """Euclidean norm with gradient zero at the zero vector, without underflow of small vectors."""
    if not (values_at_hand(x) and eager_without_derivative(x)):
        return _scaled_norm(x, dim, keepdim)
    length = torch.linalg.vector_norm(x.double(), dim=dim, keepdim=keepdim)
    if x.dtype != torch.float64:  # whose squares are numbers of float64; of infinite ones NaN, as in the other way
        return (length + 0 * length).to(x.dtype)
    usual = (length > 2.0**-480) & (length < 2.0**480)
    # By the item, so that what one is does not depend on the others.
    return length if bool(usual.all()) else torch.where(usual, length, _scaled_norm(x, dim, keepdim))


def _scaled_norm(x: Tensor, dim: int | tuple[int, ...], keepdim: bool) -> Tensor:
    # Divided by the largest entry, since squares underflow below 1e-23 in float32. The scale is detached: the norm
    # is homogeneous, so its derivative through the scale is zero.
    scale = x.detach().abs().amax(dim, keepdim=True)
    zero = scale == 0
    scale = torch.where(zero, 1.0, scale)
    length = safe_sqrt((x / scale).square().sum(dim, keepdim=True)) * scale
    return length if keepdim else length.squeeze(dim)


def polynomial(coefficients: tuple[float, ...], z: Tensor) -> Tensor:
    """sum_k coefficients[k] z^k."""
    # Pairs of terms, of which each is one launch, joined by z^2, z^4, ... (Estrin): a third fewer than Horner's rule.
    if len(coefficients) == 1:
        return torch.full_like(z, coefficients[0])
    terms: list[Any] = [
        torch.rsub(z, low, alpha=-high) for low, high in zip(coefficients[::2], coefficients[1::2], strict=False)
    ]
    if len(coefficients) % 2:
        terms.append(coefficients[-1])
    power = z
    while len(terms) > 1:
        power = power * power
        pairs = zip(terms[::2], terms[1::2], strict=False)
        terms = [_linear(low, high, power) for low, high in pairs] + terms[len(terms) // 2 * 2 :]
    return terms[0]


def _linear(low: Tensor, high: Tensor | float, z: Tensor) -> Tensor:
    return torch.addcmul(low, high, z) if isinstance(high, Tensor) else torch.add(low, z, alpha=high)


class Series(NamedTuple):
    """Coefficients of z^k, taken below |z| = switch, and how many of them the value alone needs."""

    switch: float
    double: tuple[float, ...]
    single: tuple[float, ...]
    values: tuple[int, int]

    @classmethod
    def until(cls, switch: float, coefficient: Callable[[int], Fraction]) -> Series:
        # So many terms that the second derivative, k^2 times larger, is complete too.
        def terms(error: float) -> tuple[float, ...]:
            k, found = 0, []
            while not found or k < 3 or k * k * abs(found[-1]) * switch ** (k - 1) > error:
                found.append(float(coefficient(k)))
                k += 1
            return tuple(found)

        def count(found: tuple[float, ...], error: float) -> int:
            return sum(k < 3 or abs(a) * switch**k > error for k, a in enumerate(found))

        double, single = terms(1e-17), terms(1e-8)
        return cls(switch, double, single, (count(double, 1e-17), count(single, 1e-8)))

    def at(self, z: Tensor, value_only: bool = False) -> Tensor:
        terms, count = (self.double, self.values[0]) if z.dtype == torch.float64 else (self.single, self.values[1])
        return polynomial(terms[:count] if value_only else terms, z)


# 16 terms of sum_k (-z/2)^k / (k! (2n+2k+1)!!) reach 1e-16 up to z = 4.
_BESSEL_SWITCH = 4.0
_BESSEL = tuple(
    tuple((-0.5) ** k / (math.factorial(k) * math.prod(range(1, 2 * n + 2 * k + 2, 2))) for k in range(16))
    for n in range(4)
)


def bessel_sqrt(order: int, z: Tensor) -> Tensor:
    r"""j_n(\sqrt z) / z^{n/2} for n = 0..3 and z >= 0: entire functions of z, with derivative ``-bessel(n+1)/2``.

    Order 0 is sin(sqrt z)/sqrt z. (DLMF 10.53.1 for the series, 10.51.1 for the recurrence
    ``b_{n+1} = ((2n+1) b_n - b_{n-1}) / z``.)
    """
    small = z < _BESSEL_SWITCH
    series = polynomial(_BESSEL[order], torch.where(small, z, 0.0))
    w = torch.where(small, 1.0, z)
    root = w.sqrt()
    previous, current = root.cos(), root.sin() / root
    for n in range(order):
        previous, current = current, ((2 * n + 1) * current - previous) / w
    return torch.where(small, series, current)


def sinc_sqrt(z: Tensor) -> Tensor:
    """sin(sqrt z)/sqrt z for z >= 0, one at zero."""
    return bessel_sqrt(0, z)


# cos(sqrt z) = sum (-z)^k / (2k)!; 16 terms reach 1e-16 up to z = 4, as above.
_COS = tuple((-1.0) ** k / math.factorial(2 * k) for k in range(16))


def cos_sqrt(z: Tensor) -> Tensor:
    """cos(sqrt z) for z >= 0, smooth at zero."""
    small = z < _BESSEL_SWITCH
    series = polynomial(_COS, torch.where(small, z, 0.0))
    return torch.where(small, series, torch.where(small, 1.0, z).sqrt().cos())


def versine_sqrt(z: Tensor) -> Tensor:
    """(cos(sqrt z) - 1)/z for z >= 0, -1/2 at zero, without cancellation."""
    return -0.5 * sinc_sqrt(z / 4).square()


# atan(t)/t = sum (-q)^k/(2k+1), q = t^2: below q = 0.1, 18 terms leave 3e-20 and second derivatives 2e-16.
_ATAN_SWITCH = 0.1
_ATAN = tuple((-1.0) ** k / (2 * k + 1) for k in range(18))


def atan_ratio(q: Tensor) -> Tensor:
    """atan(sqrt q)/sqrt q for q >= 0, one at zero."""
    small = q < _ATAN_SWITCH
    series = polynomial(_ATAN, torch.where(small, q, 0.0))
    t = torch.where(small, 1.0, q).sqrt()
    return torch.where(small, series, t.atan() / t)


# theta/sin(theta) = sum a_k s^k in s = sin^2(theta/2), a_{k+1}/a_k = (2k+2)/(2k+3). Below s = 0.1 the 24 terms leave
# 1e-24 of the value and 1e-17 of the second derivative.
_ANGLE_SWITCH = 0.1
_ANGLE_TERMS = 24
_ANGLE = tuple(math.prod((2 * k + 2) / (2 * k + 3) for k in range(n)) for n in range(_ANGLE_TERMS))
_ANGLE_1 = tuple(-0.5 * k * a for k, a in enumerate(_ANGLE))[1:]
_ANGLE_2 = tuple(0.25 * k * (k - 1) * a for k, a in enumerate(_ANGLE))[2:]


def angle_over_sine(c: Tensor, derivative: int = 0) -> Tensor:
    """arccos(c)/sqrt(1 - c^2) for -1 < c <= 1, or its first or second derivative in c.

    Smooth at c = 1, where it is one, and a little beyond, so that rounded cosines are welcome. Derivatives by the
    equations ``(1 - c^2) f' = c f - 1`` and ``(1 - c^2) f'' = 3 c f' + f`` away from c = 1, by the series next to it.
    """
    s = 0.5 * (1 - c)
    small = s < _ANGLE_SWITCH
    inner = torch.where(small, s, 0.0)
    series = polynomial((_ANGLE, _ANGLE_1, _ANGLE_2)[derivative], inner)
    d = torch.where(small, 0.0, c)
    sine2 = (1 - d) * (1 + d)
    closed = d.arccos() * sine2.rsqrt()
    if derivative > 0:
        first = (d * closed - 1) / sine2
        closed = first if derivative == 1 else (3 * d * first + closed) / sine2
    return torch.where(small, series, closed)
