"""The functions that are taken of eigenvalues and of singular values, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor

from .elementary_functions import (
    Exponential,
    InverseSquareRoot,
    Logarithm,
    Power,
    SemidefiniteSquareRoot,
    SmoothFunction,
    SquareRoot,
)
from .inverse_function import InverseFunction
from .matrix_function import ConstantFunction, MatrixFunction, QuadratureFunction, StepFunction
from .piecewise_functions import PositiveLinear, PositivePart
from .series import angle_over_sine, bessel_sqrt, cos_sqrt, sinc_sqrt, versine_sqrt
from .whole_powers import Reciprocal, Square


def _versine_first(z: Tensor) -> Tensor:
    return bessel_sqrt(0, z / 4) * bessel_sqrt(1, z / 4) / 8


def _versine_second(z: Tensor) -> Tensor:
    y = z / 4
    return -(bessel_sqrt(1, y).square() + bessel_sqrt(0, y) * bessel_sqrt(2, y)) / 64


COS_SQRT = QuadratureFunction(
    "cos_sqrt", cos_sqrt, lambda z: -0.5 * bessel_sqrt(0, z), lambda z: 0.25 * bessel_sqrt(1, z), quadrature_gap=3.0
)
SINC_SQRT = QuadratureFunction(
    "sinc_sqrt", sinc_sqrt, lambda z: -0.5 * bessel_sqrt(1, z), lambda z: 0.25 * bessel_sqrt(2, z), quadrature_gap=3.0
)
VERSINE_SQRT = QuadratureFunction("versine_sqrt", versine_sqrt, _versine_first, _versine_second, quadrature_gap=3.0)
ANGLE_OVER_SINE = QuadratureFunction(
    "angle_over_sine",
    angle_over_sine,
    lambda c: angle_over_sine(c, 1),
    lambda c: angle_over_sine(c, 2),
    quadrature_gap=0.3,
)
UPPER_PROJECTOR = StepFunction()
POLAR_FACTOR = ConstantFunction()
POSITIVE_PART, POSITIVE_LINEAR = PositivePart(), PositiveLinear()
INVERSE_POSITIVE_LINEAR = InverseFunction(POSITIVE_LINEAR)
LOG, EXP, SQRT, INVERSE_SQRT = Logarithm(), Exponential(), SquareRoot(), InverseSquareRoot()
SEMIDEFINITE_SQRT, SQUARE, RECIPROCAL = SemidefiniteSquareRoot(), Square(), Reciprocal()

FUNCTIONS: Mapping[str, MatrixFunction] = MappingProxyType(
    {
        f.key: f
        for f in (
            *(COS_SQRT, SINC_SQRT, VERSINE_SQRT, ANGLE_OVER_SINE),
            *(UPPER_PROJECTOR, POLAR_FACTOR),
            *(POSITIVE_PART, POSITIVE_LINEAR, INVERSE_POSITIVE_LINEAR),
            *(LOG, EXP, SQRT, INVERSE_SQRT, SEMIDEFINITE_SQRT, SQUARE, RECIPROCAL),
        )
    }
)


def power_function(p: float) -> SmoothFunction:
    """a^p of positive eigenvalues, in closed form where there is one."""
    closed: dict[float, SmoothFunction] = {0.5: SQRT, 2.0: SQUARE, -1.0: RECIPROCAL}
    return closed.get(p, Power(p))


def named(key: str) -> MatrixFunction:
    """The function with that `key`: one of `FUNCTIONS`, or ``"power P"``."""
    family, _, exponent = key.partition(" ")
    if family == "power" and exponent:
        return Power(float(exponent))
    if key not in FUNCTIONS:
        raise ValueError(
            f"named: key must be one of {', '.join(FUNCTIONS)} or 'power P', got {key!r}; "
            "a function that is compiled has to stand in spectral_functions.FUNCTIONS"
        )
    return FUNCTIONS[key]
