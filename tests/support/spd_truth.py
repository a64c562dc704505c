"""Operations of the affine-invariant metric at sixty digits, for pairs of matrices of any condition."""

from __future__ import annotations

from typing import Any

import mpmath
import torch
from torch import Tensor

DIGITS = 60


def exact(a: Tensor) -> Any:
    """The numbers of a matrix as they are."""
    return mpmath.matrix(a.double().tolist())


def rounded(a: Any) -> Tensor:
    return torch.tensor([[float(a[i, j]) for j in range(a.cols)] for i in range(a.rows)], dtype=torch.float64)


def pencil(x: Any, y: Any) -> tuple[Any, list]:
    """A and w with x = A A^T and y = A diag(w) A^T."""
    factor = mpmath.cholesky(x)
    inverse = factor**-1
    w = inverse * y * inverse.T
    values, vectors = mpmath.eigsy((w + w.T) / 2)
    return factor * vectors, list(values)


def function(x: Tensor, y: Tensor, f) -> Tensor:
    """A diag(f(w)) A^T."""
    with mpmath.workdps(DIGITS):
        a, w = pencil(exact(x), exact(y))
        return rounded(a * mpmath.diag([f(v) for v in w]) * a.T)


def distance(x: Tensor, y: Tensor) -> float:
    with mpmath.workdps(DIGITS):
        return float(mpmath.sqrt(mpmath.fsum(mpmath.log(v) ** 2 for v in pencil(exact(x), exact(y))[1])))


def transport(x: Tensor, y: Tensor, v: Tensor) -> Tensor:
    """E v E^T with E = (y x^-1)^(1/2) = A sqrt(w) A^-1."""
    with mpmath.workdps(DIGITS):
        a, w = pencil(exact(x), exact(y))
        e = a * mpmath.diag([mpmath.sqrt(s) for s in w]) * a**-1
        return rounded(e * exact(v) * e.T)


def length(x: Tensor, u: Tensor) -> float:
    with mpmath.workdps(DIGITS):
        inverse = mpmath.cholesky(exact(x)) ** -1
        white = inverse * exact(u) * inverse.T
        return float(mpmath.sqrt(mpmath.fsum(v**2 for v in white)))
