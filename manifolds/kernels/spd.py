"""Operations of symmetric positive definite matrices with their closed derivatives."""

from __future__ import annotations

from ..functional import pencil as plain
from ..functional import spectral_powers as spectral
from .dispatch import Operand, fused
from .kernel import Kernel

_PAIR = (Operand("x", 2), Operand("y", 2))
_DECOMPOSED = (Operand("x", 2), Operand("values", 1), Operand("vectors", 2))

pencil_function = fused(
    Kernel(
        "pencil_function",
        plain.pencil_function,
        plain.pencil_function_backward,
        _PAIR,
        numbers={"function": str},
        saving=plain.pencil_function_saving,
        saved=3,
    )
)
pencil_moments = fused(
    Kernel(
        "pencil_moments",
        plain.pencil_moments,
        plain.pencil_moments_backward,
        _PAIR,
        results=2,
        saving=plain.pencil_moments_saving,
        saved=2,
    )
)
pencil_dist = fused(
    Kernel(
        "pencil_dist",
        plain.pencil_dist,
        plain.pencil_dist_backward,
        _PAIR,
        numbers={"alpha": float, "beta": float},
        saving=plain.pencil_dist_saving,
        saved=2,
    )
)
power_at = fused(
    Kernel("spectral_power_at", spectral.power_at, spectral.power_at_backward, (*_DECOMPOSED, Operand("exponent", 0)))
)
log_moments_at = fused(
    Kernel("log_moments_at", spectral.log_moments_at, spectral.log_moments_at_backward, _DECOMPOSED, results=2)
)
