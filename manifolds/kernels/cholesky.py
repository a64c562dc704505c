"""Cholesky factors with their closed derivatives."""

from __future__ import annotations

from ..functional import cholesky as plain
from ..functional.operators import Operand
from .dispatch import fused
from .kernel import Kernel

_POINTS = (Operand("points", 2),)

cholesky = fused(
    Kernel("cholesky", plain.cholesky, plain.cholesky_backward, _POINTS, saving=plain.cholesky_saving, saved=1)
)
cholesky_with_inverse = fused(
    Kernel(
        "cholesky_with_inverse",
        plain.cholesky_with_inverse,
        plain.cholesky_with_inverse_backward,
        _POINTS,
        results=2,
        saving=plain.cholesky_with_inverse_saving,
        saved=2,
    )
)
