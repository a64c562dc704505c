r"""Trigonometry in one form for every sign of the curvature: functions of a signed z = K r^2, smooth through zero.

For z > 0 they are circular functions of sqrt(z), for z < 0 hyperbolic ones of sqrt(-z), and next to zero their common
power series, by a "double where": no branch can send a NaN into another one, and all derivatives in z are right at
zero. `sign` (-1 or 1) says what is known of the sign of all z beforehand and saves the other closed form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

from .rows import dot, times
from .scalar_function import with_derivative
from .series import Series, safe_norm
from .tracing import eager_without_derivative


def _joined(
    z: Tensor,
    series: Series,
    circular: Callable[[Tensor], Tensor],
    hyperbolic: Callable[[Tensor], Tensor],
    sign: int,
    exact: bool = False,
    times: Tensor | None = None,
) -> Tensor:
    """The series near zero, a function of sqrt(z) above, of sqrt(-z) below; NaN stays NaN.

    Closed forms that are `exact` next to zero need the series for their derivatives only. `times` is what they contain
    and the series is multiplied by.
    """
    if eager_without_derivative(z):
        far = _closed(z, circular, hyperbolic, sign)
        if exact:
            return far
        terms = series.at(z, value_only=True)
        return torch.where(_near(z, series.switch, sign), terms if times is None else times * terms, far)
    switch = series.switch
    near = z.abs() < switch
    far = torch.ones_like(z)
    if sign >= 0:
        far = circular(torch.where(z < switch, 1.0, z).sqrt())
    if sign <= 0:
        below = hyperbolic(torch.where(z > -switch, 1.0, -z).sqrt())
        far = below if sign < 0 else torch.where(z < 0, below, far)
    terms = series.at(torch.where(near, z, 0.0))
    return torch.where(near, terms if times is None else times * terms, far)


def _closed(
    z: Tensor, circular: Callable[[Tensor], Tensor], hyperbolic: Callable[[Tensor], Tensor], sign: int
) -> Tensor:
    """The closed forms, also at zero: the root is that of a number just beside it, which rounding leaves elsewhere."""
    tiny = torch.finfo(z.dtype).tiny
    if sign != 0:
        r = (z + tiny if sign > 0 else tiny - z).sqrt()
        return circular(r) if sign > 0 else hyperbolic(r)
    r = (z.abs() + tiny).sqrt()
    return torch.where(z < 0, hyperbolic(r), circular(r))


def _near(z: Tensor, switch: float, sign: int) -> Tensor:
    if sign == 0:
        return z.abs() < switch
    return z < switch if sign > 0 else z > -switch


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
_COS = Series.until(1.0, lambda k: _COS_TERMS[k])
_SIN = Series.until(1.0, lambda k: _SIN_TERMS[k])
# Radii of convergence pi^2/4, 1, 1, pi^2: a tenth of that costs about twenty terms in double precision.
_TAN = Series.until(0.25, lambda k: _TAN_TERMS[k])
_ATAN = Series.until(0.1, lambda k: Fraction((-1) ** k, 2 * k + 1))
_ASIN = Series.until(0.1, lambda k: _ASIN_TERMS[k])
# Derivatives lose digits in closed form next to zero: their series are taken further out.
_SIN_DERIVATIVE = Series.until(1.0, lambda k: (k + 1) * _SIN_TERMS[k + 1])
_TAN_DERIVATIVE = Series.until(0.25, lambda k: (k + 1) * _TAN_TERMS[k + 1])
_ATAN_DERIVATIVE = Series.until(0.1, lambda k: Fraction((-1) ** (k + 1) * (k + 1), 2 * k + 3))
_ASIN_DERIVATIVE = Series.until(0.1, lambda k: (k + 1) * _ASIN_TERMS[k + 1])
_COT = Series.until(1.0, lambda k: -_COT_TERMS[k + 1])
_LOG_SIN = Series.until(1.0, lambda k: Fraction(0) if k == 0 else _COT_TERMS[k] / (2 * k))


@with_derivative(lambda g, z, sign: -0.5 * g * sin_ratio_k(z, sign))
def cos_k(z: Tensor, sign: int = 0) -> Tensor:
    """cos(sqrt z), cosh(sqrt(-z))."""
    return _joined(z, _COS, torch.cos, torch.cosh, sign, exact=True)


@with_derivative(lambda g, z, sign: g * sin_ratio_derivative_k(z, sign))
def sin_ratio_k(z: Tensor, sign: int = 0) -> Tensor:
    """sin(sqrt z)/sqrt z, sinh(sqrt(-z))/sqrt(-z)."""
    return _joined(z, _SIN, lambda r: r.sin() / r, lambda r: r.sinh() / r, sign, exact=True)


def sin_ratio_derivative_k(z: Tensor, sign: int = 0) -> Tensor:
    """The derivative of `sin_ratio_k`: ``(c - s)/(2 z)``, c of `cos_k` and s of `sin_ratio_k`."""

    def circular(r: Tensor) -> Tensor:
        return 0.5 * (r.cos() - r.sin() / r) / r.square()

    def hyperbolic(r: Tensor) -> Tensor:
        return 0.5 * (r.sinh() / r - r.cosh()) / r.square()

    return _joined(z, _SIN_DERIVATIVE, circular, hyperbolic, sign)


@with_derivative(lambda g, z, sign: g * tan_ratio_derivative_k(z, sign))
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
    if eager_without_derivative(r):
        return r.cosh().reciprocal().square()  # an infinite cosine is right here
    e = torch.exp(-2 * r)
    return 4 * e / (1 + e).square()


def _sech_square_slope(g: Tensor, z: Tensor, sign: int) -> Tensor:
    return g * sech_square_k(z) * tan_ratio_k(z, -1)


@with_derivative(_sech_square_slope)
def sech_square_k(z: Tensor, sign: int = -1) -> Tensor:
    """1/cosh^2(sqrt(-z)) for z <= 0, relatively accurate where it is tiny: one less the square of tanh would not be."""
    if eager_without_derivative(z):
        return _sech_square((-z).sqrt())
    near = z > -_TAN.switch
    inner = torch.where(near, z, 0.0)
    series = 1 + inner * _TAN.at(inner).square()
    return torch.where(near, series, _sech_square(torch.where(near, 1.0, -z).sqrt()))


@with_derivative(lambda g, q, sign: atan_ratio_derivative_k(q, sign, g))
def atan_ratio_k(q: Tensor, sign: int = 0) -> Tensor:
    """atan(sqrt q)/sqrt q, atanh(sqrt(-q))/sqrt(-q); infinite, with gradient zero, from q = -1 down."""

    def hyperbolic(r: Tensor) -> Tensor:
        if eager_without_derivative(r):
            inner = r.clamp(max=1)
            return inner.atanh() / inner
        inside, inner = _within(r)
        return torch.where(inside, inner.atanh() / inner, torch.where(r >= 1, torch.inf, r))

    return _joined(q, _ATAN, lambda r: r.atan() / r, hyperbolic, sign, exact=True)


def atan_ratio_derivative_k(q: Tensor, sign: int = 0, times: Tensor | None = None) -> Tensor:
    """The derivative of `atan_ratio_k`, ``(1/(1 + q) - a)/(2 q)``, or `times` it, which may be a number where it is not
    one itself."""

    def circular(r: Tensor) -> Tensor:
        return _over(times, 2 * r.square()) * (1 / (1 + r.square()) - r.atan() / r)

    def hyperbolic(r: Tensor) -> Tensor:
        inside, inner = _within(r)
        slope = _over(times, 2 * inner.square()) * (inner.atanh() / inner - 1 / ((1 - inner) * (1 + inner)))
        return torch.where(inside, slope, torch.where(r >= 1, 0.0, r))

    return _joined(q, _ATAN_DERIVATIVE, circular, hyperbolic, sign, times=times)


@with_derivative(lambda g, q, sign: asin_ratio_derivative_k(q, sign, g))
def asin_ratio_k(q: Tensor, sign: int = 0) -> Tensor:
    """asin(sqrt q)/sqrt q, asinh(sqrt(-q))/sqrt(-q); for q that rounding put above one, its value at one."""

    def circular(r: Tensor) -> Tensor:
        if eager_without_derivative(r):
            inner = r.clamp(max=1)
            return inner.asin() / inner
        inside, inner = _within(r)
        return torch.where(inside, inner.asin() / inner, torch.where(r >= 1, 0.5 * math.pi, r))

    return _joined(q, _ASIN, circular, lambda r: r.asinh() / r, sign, exact=True)


def asin_ratio_derivative_k(q: Tensor, sign: int = 0, times: Tensor | None = None) -> Tensor:
    """The derivative of `asin_ratio_k`, ``(1/sqrt(1 - q) - a)/(2 q)``, zero from q = 1 on; or `times` it, which may be
    a number where it is not one itself."""

    def circular(r: Tensor) -> Tensor:
        inside, inner = _within(r)
        slope = _over(times, 2 * inner.square()) * ((1 - inner.square()).rsqrt() - inner.asin() / inner)
        return torch.where(inside, slope, torch.where(r >= 1, 0.0, r))

    def hyperbolic(r: Tensor) -> Tensor:
        return _over(times, 2 * r.square()) * (r.asinh() / r - (1 + r.square()).rsqrt())

    return _joined(q, _ASIN_DERIVATIVE, circular, hyperbolic, sign, times=times)


def _over(times: Tensor | None, a: Tensor) -> Tensor:
    return a.reciprocal() if times is None else times / a


def _within(r: Tensor) -> tuple[Tensor, Tensor]:
    """Where r < 1, and r there, a harmless number elsewhere."""
    inside = r < 1
    return inside, torch.where(inside, r, 0.5)


def cot_excess_k(z: Tensor, sign: int = 0) -> Tensor:
    """(1 - r cot r)/z with r = sqrt z, (r coth r - 1)/(-z) with r = sqrt(-z); 1/3 at zero. (DLMF 4.19.6.)"""
    return _joined(z, _COT, lambda r: (1 - r / r.tan()) / r.square(), lambda r: (r / r.tanh() - 1) / r.square(), sign)


def long_angle(u: Tensor, factor: float | Tensor) -> Tensor:
    """|u| `factor` with a trailing one, without derivatives at zero: a number wherever u is, NaN or infinite where it
    is not. In float64, whose numbers the squares of float32 are."""
    if u.dtype == torch.float32:
        return times(torch.linalg.vector_norm(u, dim=-1, keepdim=True, dtype=torch.float64), factor)
    # Where the product is no number one angle is as good as another: u is rounded by many turns.
    return times(safe_norm(u, keepdim=True), factor).clamp(max=torch.finfo(torch.float64).max)


# Of 1/t in (cos(t) - sin(t)/t)/t^2, of which that times t^2 counts: beyond, less than the rounding of one.
LARGEST_INVERSE = 1e8


def turn(u: Tensor, K: float | Tensor, per_length: float | Tensor = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """cos(t), sin(t) and 1/t of t = sqrt(K) |u| `per_length`, less whole turns as in `without_turns`; in float64,
    without derivatives, for vectors of any length."""
    # In float64 of a short part of the vector: |u| may be no number where u is one.
    part = 1.0 if u.dtype == torch.float32 else 2.0**-10
    t = long_angle(times(u, part), K**0.5 * per_length).clamp_min(torch.finfo(torch.float64).tiny)
    rest = times(t.remainder(2 * math.pi * part), 1 / part)
    return rest.cos(), rest.sin(), times(t.reciprocal(), part)


# In longer vectors turns are worth counting: squares know the angle to 64 eps.
_FAR = 64.0


def without_turns(u: Tensor, K: float | Tensor, per_length: float | Tensor = 1.0) -> Tensor:
    """`u`, or where its angle sqrt(K) |u| `per_length` is large, u less whole turns: on a space whose geodesics close,
    the same one ends there. The turns are those of floating point, by 2 pi in float64."""
    if u.shape[-1] == 0:  # coordinates of a space of single points
        return u
    fixed, per = (a.detach() if isinstance(a, Tensor) else a for a in (K, per_length))
    angle = long_angle(u.detach(), fixed**0.5 * per)
    far, rest = angle > _FAR, angle.remainder(2 * math.pi)
    factor = torch.where(far, rest / angle, 1.0).to(u.dtype)
    if all(eager_without_derivative(a) for a in (u, K, per_length) if isinstance(a, Tensor)):
        return factor * u
    # Of the factor 1 - turns/angle the value is that above, to its last digit, and the derivatives are these.
    share = torch.where(far, (angle - rest) / angle, 0.0).to(u.dtype)
    largest = torch.linalg.vector_norm(u.detach(), torch.inf, -1, keepdim=True)
    known = far & (angle < torch.finfo(u.dtype).max)
    w = torch.where(known, u / torch.where(known, largest, 1.0), 1.0)
    length = dot(w, w).sqrt()
    if isinstance(K, Tensor):
        length = length * positive(K) ** 0.5
    if isinstance(per_length, Tensor):
        length = length * per_length
    return (factor + share * (1 - length.detach() / length)) * u


def positive(K: float | Tensor) -> float | Tensor:
    """K, or one where that is not positive."""
    return torch.where(K > 0, K, 1.0) if isinstance(K, Tensor) else (K if K > 0 else 1.0)


@with_derivative(lambda g, z, sign: -0.5 * g * cot_excess_k(z, sign))
def log_sin_ratio_k(z: Tensor, sign: int = 0) -> Tensor:
    """log|sin(r)/r|, log(sinh(r)/r), relatively accurate at small r and finite at large r."""
    return _joined(
        z,
        _LOG_SIN,
        lambda r: (r.sin() / r).abs().log(),
        lambda r: r + torch.log1p(-torch.exp(-2 * r)) - torch.log(2 * r),
        sign,
    )
