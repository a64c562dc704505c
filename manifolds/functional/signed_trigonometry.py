r"""Trigonometry in one form for every sign of the curvature: functions of a signed z = K r^2, smooth through zero.

For z > 0 they are circular functions of sqrt(z), for z < 0 hyperbolic ones of sqrt(-z), and next to zero their common
power series, by a "double where": no branch can send a NaN into another one, and all derivatives in z are right at
zero. `sign` (-1 or 1) says what is known of the sign of all z beforehand and saves the other closed form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from .rows import dot
from .series import horner
from .tracing import eager_without_derivative


class _Series(NamedTuple):
    """Coefficients of z^k, taken below |z| = switch."""

    switch: float
    double: tuple[float, ...]
    single: tuple[float, ...]

    @classmethod
    def until(cls, switch: float, coefficient: Callable[[int], Fraction]) -> _Series:
        # So many terms that the second derivative, k^2 times larger, is complete too.
        def terms(error: float) -> tuple[float, ...]:
            k, found = 0, []
            while not found or k < 3 or k * k * abs(found[-1]) * switch ** (k - 1) > error:
                found.append(float(coefficient(k)))
                k += 1
            return tuple(found)

        return cls(switch, terms(1e-17), terms(1e-8))

    def at(self, z: Tensor) -> Tensor:
        return horner(self.double if z.dtype == torch.float64 else self.single, z)


def _joined(
    z: Tensor,
    series: _Series,
    circular: Callable[[Tensor], Tensor],
    hyperbolic: Callable[[Tensor], Tensor],
    sign: int,
    exact: bool = False,
) -> Tensor:
    """The series near zero, a function of sqrt(z) above, of sqrt(-z) below; NaN stays NaN.

    Closed forms that are `exact` next to zero need the series for their derivatives only.
    """
    plain = exact and eager_without_derivative(z)
    switch = torch.finfo(z.dtype).tiny if plain else series.switch
    near = z.abs() < switch
    far = torch.ones_like(z)
    if sign >= 0:
        far = circular(torch.where(z < switch, 1.0, z).sqrt())
    if sign <= 0:
        below = hyperbolic(torch.where(z > -switch, 1.0, -z).sqrt())
        far = below if sign < 0 else torch.where(z < 0, below, far)
    return torch.where(near, series.double[0] if plain else series.at(torch.where(near, z, 0.0)), far)


def _inverse_series(k: int, a: list[Fraction], b: list[Fraction]) -> list[Fraction]:
    """The first k + 1 coefficients of a(z)/b(z), b(0) = 1."""
    found: list[Fraction] = []
    for i in range(k + 1):
        found.append(a[i] - sum((b[j] * found[i - j] for j in range(1, i + 1)), Fraction(0)))
    return found


_TERMS = 40
_COS_TERMS = [Fraction((-1) ** k, math.factorial(2 * k)) for k in range(_TERMS)]
_SIN_TERMS = [Fraction((-1) ** k, math.factorial(2 * k + 1)) for k in range(_TERMS)]
_TAN_TERMS = _inverse_series(_TERMS - 1, _SIN_TERMS, _COS_TERMS)
_ASIN_TERMS = [Fraction(math.comb(2 * k, k), 4**k * (2 * k + 1)) for k in range(_TERMS)]
_COT_TERMS = _inverse_series(_TERMS - 1, _COS_TERMS, _SIN_TERMS)

# Entire functions: the closed forms lose nothing from 1 on, and the series are short.
_COS = _Series.until(1.0, lambda k: _COS_TERMS[k])
_SIN = _Series.until(1.0, lambda k: _SIN_TERMS[k])
# Radii of convergence pi^2/4, 1, 1, pi^2: a tenth of that costs about twenty terms in double precision.
_TAN = _Series.until(0.25, lambda k: _TAN_TERMS[k])
_ATAN = _Series.until(0.1, lambda k: Fraction((-1) ** k, 2 * k + 1))
_ASIN = _Series.until(0.1, lambda k: _ASIN_TERMS[k])
# Derivatives lose digits in closed form next to zero: their series are taken further out.
_TAN_DERIVATIVE = _Series.until(0.25, lambda k: (k + 1) * _TAN_TERMS[k + 1])
_ASIN_DERIVATIVE = _Series.until(0.1, lambda k: (k + 1) * _ASIN_TERMS[k + 1])
_COT = _Series.until(1.0, lambda k: -_COT_TERMS[k + 1])
_LOG_SIN = _Series.until(1.0, lambda k: Fraction(0) if k == 0 else _COT_TERMS[k] / (2 * k))


def cos_k(z: Tensor, sign: int = 0) -> Tensor:
    """cos(sqrt z), cosh(sqrt(-z))."""
    return _joined(z, _COS, torch.cos, torch.cosh, sign, exact=True)


def sin_ratio_k(z: Tensor, sign: int = 0) -> Tensor:
    """sin(sqrt z)/sqrt z, sinh(sqrt(-z))/sqrt(-z)."""
    return _joined(z, _SIN, lambda r: r.sin() / r, lambda r: r.sinh() / r, sign, exact=True)


def tan_ratio_k(z: Tensor, sign: int = 0) -> Tensor:
    """tan(sqrt z)/sqrt z, tanh(sqrt(-z))/sqrt(-z)."""
    return _joined(z, _TAN, lambda r: r.tan() / r, lambda r: r.tanh() / r, sign, exact=True)


def tan_ratio_derivative_k(z: Tensor, sign: int = 0) -> Tensor:
    """The derivative of `tan_ratio_k`: ``(1 + z t^2 - t)/(2 z)``."""

    def circular(r: Tensor) -> Tensor:
        t = r.tan()
        return (1 + t.square() - t / r) / (2 * r.square())

    def hyperbolic(r: Tensor) -> Tensor:
        return (r.tanh() / r - _sech_square(r)) / (2 * r.square())

    return _joined(z, _TAN_DERIVATIVE, circular, hyperbolic, sign)


def _sech_square(r: Tensor) -> Tensor:
    e = torch.exp(-2 * r)
    return 4 * e / (1 + e).square()


def sech_square_k(z: Tensor) -> Tensor:
    """1/cosh^2(sqrt(-z)) for z <= 0, relatively accurate where it is tiny: one less the square of tanh would not be."""
    near = z > -_TAN.switch
    inner = torch.where(near, z, 0.0)
    series = 1 + inner * _TAN.at(inner).square()
    return torch.where(near, series, _sech_square(torch.where(near, 1.0, -z).sqrt()))


def atan_ratio_k(q: Tensor, sign: int = 0) -> Tensor:
    """atan(sqrt q)/sqrt q, atanh(sqrt(-q))/sqrt(-q); infinite, with gradient zero, from q = -1 down."""

    def hyperbolic(r: Tensor) -> Tensor:
        inside = r < 1
        inner = torch.where(inside, r, 0.5)
        return torch.where(inside, inner.atanh() / inner, torch.where(r >= 1, torch.inf, r))

    return _joined(q, _ATAN, lambda r: r.atan() / r, hyperbolic, sign, exact=True)


def asin_ratio_k(q: Tensor, sign: int = 0) -> Tensor:
    """asin(sqrt q)/sqrt q, asinh(sqrt(-q))/sqrt(-q); for q that rounding put above one, its value at one."""

    def circular(r: Tensor) -> Tensor:
        inside = r < 1
        inner = torch.where(inside, r, 0.5)
        return torch.where(inside, inner.asin() / inner, torch.where(r >= 1, 0.5 * math.pi, r))

    return _joined(q, _ASIN, circular, lambda r: r.asinh() / r, sign, exact=True)


def asin_ratio_derivative_k(q: Tensor, sign: int = 0) -> Tensor:
    """The derivative of `asin_ratio_k`: ``(1/sqrt(1 - q) - a)/(2 q)``."""

    def circular(r: Tensor) -> Tensor:
        return ((1 - r.square()).rsqrt() - r.asin() / r) / (2 * r.square())

    def hyperbolic(r: Tensor) -> Tensor:
        return (r.asinh() / r - (1 + r.square()).rsqrt()) / (2 * r.square())

    return _joined(q, _ASIN_DERIVATIVE, circular, hyperbolic, sign)


def cot_excess_k(z: Tensor, sign: int = 0) -> Tensor:
    """(1 - r cot r)/z with r = sqrt z, (r coth r - 1)/(-z) with r = sqrt(-z); 1/3 at zero. (DLMF 4.19.6.)"""
    return _joined(z, _COT, lambda r: (1 - r / r.tan()) / r.square(), lambda r: (r / r.tanh() - 1) / r.square(), sign)


def without_turns(u: Tensor, K: float | Tensor, per_length: float | Tensor = 1.0) -> Tensor:
    """`u`, or where its angle sqrt(K) |u| `per_length` is so large that its square might be no number, u less whole
    turns, from a length that does not overflow: on a space whose geodesics close, the same one ends there."""
    if u.shape[-1] == 0:  # coordinates of a space of single points
        return u
    fixed, per = (a.detach() if isinstance(a, Tensor) else a for a in (K, per_length))
    fast = all(eager_without_derivative(a) for a in (u, K, per_length) if isinstance(a, Tensor))
    if fast and u.dtype == torch.float32:
        length = torch.linalg.vector_norm(u, dim=-1, keepdim=True, dtype=torch.float64)  # one pass
        angle = length * (fixed**0.5 * per)
        far = angle > torch.finfo(u.dtype).max ** 0.4
        return torch.where(far, angle.remainder(2 * math.pi) / angle, 1.0).to(u.dtype) * u
    largest = torch.linalg.vector_norm(u.detach(), torch.inf, -1, keepdim=True)
    far = largest * (fixed**0.5 * per) > torch.finfo(u.dtype).max ** 0.4
    largest = torch.where(far, largest, 1.0)
    size = dot(v := torch.where(far, u / largest, 1.0), v).sqrt()
    # Where the product is no number one angle is as good as another: u is rounded by many turns.
    angle = (size * largest * (positive(K) ** 0.5 * per_length)).clamp(max=torch.finfo(u.dtype).max)
    return torch.where(far, angle.remainder(2 * math.pi) / angle, 1.0) * u


def positive(K: float | Tensor) -> float | Tensor:
    """K, or one where that is not positive."""
    return torch.where(K > 0, K, 1.0) if isinstance(K, Tensor) else (K if K > 0 else 1.0)


def log_sin_ratio_k(z: Tensor, sign: int = 0) -> Tensor:
    """log|sin(r)/r|, log(sinh(r)/r), relatively accurate at small r and finite at large r."""
    return _joined(
        z,
        _LOG_SIN,
        lambda r: (r.sin() / r).abs().log(),
        lambda r: r + torch.log1p(-torch.exp(-2 * r)) - torch.log(2 * r),
        sign,
    )
