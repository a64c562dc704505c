"""Functions of symmetric matrices: square roots, logarithm, exponential, powers. ``*B,n,n -> *B,n,n``.

Only the symmetric part of a matrix is read, and a result is symmetric up to rounding. First and second derivatives are
finite and right at repeated eigenvalues, under every transform. An item that is not finite, or not positive definite
where that is asked for, is NaN, or infinite where an eigenvalue is exactly zero, and no other item is touched.
"""

from __future__ import annotations

import math

from torch import Tensor

from ..precision import in_full_precision
from .elementary_functions import Power
from .matrices import check_matrices, check_number
from .matrix_roots import ITERATIVE, MAX_DEGREE, iterative_root, semidefinite_root
from .spectral import symmetric_function
from .spectral_functions import EXP, INVERSE_SQRT, LOG


@in_full_precision
def matrix_sqrt(x: Tensor, method: str = "eigh", degree: int | None = None) -> Tensor:
    """The positive semidefinite square root. ``*B,n,n -> *B,n,n``.

    Args:
        x: positive semidefinite. Eigenvalues below zero by rounding (8 to 16 eps of the norm) count as zero. The
            derivative in directions within the null space, where it would be infinite, is zero. To that belong
            eigenvectors of eigenvalues up to what rounding leaves of zero: an eps of the Frobenius norm in float32
            (half an eps at least), 8 to 16 in float64.
        method: ``"eigh"``, from the eigendecomposition, the accurate one; ``"newton_schulz"``, matrix products until
            the residual says that they are done; ``"taylor"`` and ``"pade"``, one polynomial or quotient of
            polynomials, fast and approximate. The three last have the derivative of the Lyapunov equation that the
            exact root solves, at the root that they found; for a singular matrix it is finite and no more.
            docs/matrix-functions.md has the errors of each at every condition number.
        degree: of the polynomial (10), or of both polynomials of the quotient (5, at most 8, for the denominator has
            the condition number 4^degree).

    Raises:
        ValueError: if `x` is no square matrix, or `method` or `degree` is none of these.

    Higham 2008, Functions of Matrices; Song, Sebe and Wang 2022, arXiv:2201.08663.
    """
    _check("matrix_sqrt", x, method, degree)
    return semidefinite_root(x) if method == "eigh" else iterative_root(x, False, method, degree)


@in_full_precision
def matrix_inverse_sqrt(x: Tensor, method: str = "eigh", degree: int | None = None) -> Tensor:
    """The inverse of the square root of a positive definite matrix. ``*B,n,n -> *B,n,n``. Arguments: `matrix_sqrt`."""
    _check("matrix_inverse_sqrt", x, method, degree)
    return symmetric_function(x, INVERSE_SQRT) if method == "eigh" else iterative_root(x, True, method, degree)


@in_full_precision
def matrix_log(x: Tensor) -> Tensor:
    """The symmetric logarithm. ``*B,n,n -> *B,n,n``, x positive definite."""
    _check("matrix_log", x)
    return symmetric_function(x, LOG)


@in_full_precision
def matrix_exp(x: Tensor) -> Tensor:
    """The exponential of the symmetric part. ``*B,n,n -> *B,n,n``, positive definite."""
    _check("matrix_exp", x)
    return symmetric_function(x, EXP)


@in_full_precision
def matrix_power(x: Tensor, p: float) -> Tensor:
    """The real power x^p. ``*B,n,n -> *B,n,n``, x positive definite; for ``p >= 0`` semidefinite too.

    p is a finite number. Of one that is learned, or of one an item, take ``matrix_exp(p * matrix_log(x))``.
    """
    _check("matrix_power", x)
    check_number("matrix_power", "p", p)
    if not math.isfinite(p):
        raise ValueError(f"matrix_power: p must be finite, got {p}")
    return symmetric_function(x, Power(float(p)))


def _check(name: str, x: Tensor, method: str = "eigh", degree: int | None = None) -> None:
    check_matrices(name, x)
    if method not in ("eigh", *ITERATIVE):
        raise ValueError(f"{name}: method must be one of eigh, {', '.join(ITERATIVE)}, got {method!r}")
    if degree is not None:
        check_number(name, "degree", degree, whole=True)
    if degree is not None and not 1 <= degree <= MAX_DEGREE.get(method, 0):
        allowed = " or ".join(f"1 to {most} with {other}" for other, most in MAX_DEGREE.items())
        raise ValueError(f"{name}: degree must be {allowed}, got {degree} with {method!r}")
