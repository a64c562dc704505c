"""Distances and logarithms of the metrics of positive definite matrices to 40 digits, by their textbook formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath as mp
from torch import Tensor

mp.mp.dps = 40
Matrix = Any  # mpmath states no types
Number = Any
POWER = mp.mpf(0.5)


def exact(x: Tensor) -> Matrix:
    """The stored numbers of the symmetric part."""
    rows = mp.matrix(x.double().tolist())
    return (rows + rows.T) / 2


def frobenius(x: Matrix) -> Number:
    """The Frobenius norm."""
    return mp.sqrt(mp.fsum(entry**2 for entry in x))


def _spectral(x: Matrix, f: Callable[[Number], Number]) -> Matrix:
    values, vectors = mp.eigsy(x)
    return vectors * mp.diag([f(value) for value in values]) * vectors.T


def _root(x: Matrix, sign: int = 1) -> Matrix:
    return _spectral(x, lambda value: value ** (sign * mp.mpf(0.5)))


def _pulled(x: Matrix, v: Matrix, f: Callable[[Number], Number], slope: Callable[[Number], Number]) -> Matrix:
    """The tangent vector at x that the differential of f, with the derivative `slope`, sends to v."""
    values, vectors = mp.eigsy(x)
    turned = vectors.T * v * vectors
    for i, a in enumerate(values):
        for j, b in enumerate(values):
            turned[i, j] /= slope(a) if a == b else (f(a) - f(b)) / (a - b)
    return vectors * turned * vectors.T


# ---- the metrics: (dist, log) ---------------------------------------------------------------------------------


def affine_invariant(x: Matrix, y: Matrix) -> tuple[Number, Matrix]:
    """|log w| of the eigenvalues of x^-1 y; L log(L^-1 y L^-T) L^T."""
    lower = mp.cholesky(x)
    inverse = mp.inverse(lower)
    log = _spectral(inverse * y * inverse.T, mp.log)
    return frobenius(log), lower * log * lower.T


def _flat(
    x: Matrix, y: Matrix, f: Callable[[Number], Number], slope: Callable[[Number], Number]
) -> tuple[Number, Matrix]:
    difference = _spectral(y, f) - _spectral(x, f)
    return frobenius(difference), _pulled(x, difference, f, slope)


def log_euclidean(x: Matrix, y: Matrix) -> tuple[Number, Matrix]:
    """|log y - log x|."""
    return _flat(x, y, mp.log, lambda a: 1 / a)


def power_euclidean(x: Matrix, y: Matrix) -> tuple[Number, Matrix]:
    """|y^p - x^p|/p."""
    return _flat(x, y, lambda a: a**POWER / POWER, lambda a: a ** (POWER - 1))


def _triangular(x: Matrix, y: Matrix, f: Callable, inverse_slope: Callable) -> tuple[Number, Matrix]:
    """f on the diagonals of the Cholesky factors; `inverse_slope` is 1/f'."""
    lower, other = mp.cholesky(x), mp.cholesky(y)
    n = lower.rows
    chart = mp.matrix(n, n)
    for i in range(n):
        for j in range(i):
            chart[i, j] = other[i, j] - lower[i, j]
        chart[i, i] = f(other[i, i]) - f(lower[i, i])
    length = frobenius(chart)
    for i in range(n):
        chart[i, i] *= inverse_slope(lower[i, i])
    return length, lower * chart.T + chart * lower.T


def log_cholesky(x: Matrix, y: Matrix) -> tuple[Number, Matrix]:
    """Lin 2019, arXiv:1908.09326."""
    return _triangular(x, y, mp.log, lambda a: a)


def power_cholesky(x: Matrix, y: Matrix) -> tuple[Number, Matrix]:
    """Chen et al. 2024, arXiv:2407.02607."""
    return _triangular(x, y, lambda a: a**POWER / POWER, lambda a: a ** (1 - POWER))


def bures_wasserstein(x: Matrix, y: Matrix) -> tuple[Number, Matrix]:
    """tr x + tr y - 2 tr (x^1/2 y x^1/2)^1/2; (x y)^1/2 + (y x)^1/2 - 2 x."""
    root = _root(x)
    middle = _root(root * y * root)
    product = root * middle * _root(x, -1)
    square = mp.fsum(x[i, i] + y[i, i] - 2 * middle[i, i] for i in range(x.rows))
    return mp.sqrt(square), product + product.T - 2 * x


TRUTH = {
    "SPDAffineInvariant": affine_invariant,
    "SPDLogEuclidean": log_euclidean,
    "SPDLogCholesky": log_cholesky,
    "SPDPowerCholesky": power_cholesky,
    "SPDBuresWasserstein": bures_wasserstein,
    "SPDPowerEuclidean": power_euclidean,
}
