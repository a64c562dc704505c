"""Cholesky factors, and the geodesics of metrics that are flat in them, with their closed derivatives."""

from __future__ import annotations

from ..functional import cholesky as factor
from ..functional import cholesky_backward as closed
from ..functional import cholesky_geodesics as plain
from ..functional.operators import Operand
from .dispatch import fused
from .kernel import Kernel

_POINTS, _PAIRS = (Operand("points", 2),), (Operand("points", 2), Operand("others", 2))
_WEIGHTED, _POWER = (*_PAIRS, Operand("roots", 1)), {"power": float}
_MAP = {"power": float, "retraction": bool}

cholesky = fused(
    Kernel("cholesky", factor.cholesky, factor.cholesky_backward, _POINTS, saving=factor.cholesky_saving, saved=1)
)
cholesky_with_inverse = fused(
    Kernel(
        "cholesky_with_inverse",
        factor.cholesky_with_inverse,
        factor.cholesky_with_inverse_backward,
        _POINTS,
        results=2,
        saving=factor.cholesky_with_inverse_saving,
        saved=2,
    )
)
cholesky_difference = fused(
    Kernel(
        "cholesky_difference",
        plain.cholesky_difference,
        closed.cholesky_difference_backward,
        _WEIGHTED,
        numbers=_POWER,
        saving=plain.cholesky_difference_saving,
        saved=3,
    )
)
cholesky_dist = fused(
    Kernel(
        "cholesky_dist",
        plain.cholesky_dist,
        closed.cholesky_dist_backward,
        _WEIGHTED,
        numbers=_POWER,
        saving=plain.cholesky_dist_saving,
        saved=4,
    )
)
cholesky_exp = fused(
    Kernel(
        "cholesky_exp",
        plain.cholesky_exp,
        closed.cholesky_exp_backward,
        _PAIRS,
        numbers=_MAP,
        saving=plain.cholesky_exp_saving,
        saved=4,
    )
)
cholesky_log = fused(
    Kernel(
        "cholesky_log",
        plain.cholesky_log,
        closed.cholesky_log_backward,
        _PAIRS,
        numbers=_MAP,
        saving=plain.cholesky_log_saving,
        saved=3,
    )
)
