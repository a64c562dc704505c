"""Matrices with unit rows."""

from __future__ import annotations

from torch import Tensor

from ..composite import Power
from .sphere import Sphere


def Oblique(n: int, curvature: float | Tensor = 1.0) -> Power:
    """Matrices whose n **rows** are unit vectors, ``*B,n,d``: ``Power(Sphere(curvature), n)``.

    For matrices with unit columns (the usual oblique manifold) store the transpose, and use ``x.mT`` in the model. Rows
    are contiguous in memory, and are what an embedding table or a linear layer's weight consists of. With a `curvature`
    K other than one the rows have the length 1/sqrt(K).
    """
    return Power(Sphere(curvature), n)
