"""The polar retraction of orthonormal frames, with its closed derivative."""

from __future__ import annotations

from torch import Tensor

from ..functional import polar as plain
from ..functional.operators import Operand
from .dispatch import fused
from .kernel import Kernel

polar_step = fused(Kernel("polar_step", plain.polar_step, plain.polar_step_backward, (Operand("matrices", 2),)))


def polar(x: Tensor, u: Tensor) -> Tensor:
    """(x + u)(I + u^T u)^-1/2, the nearest frame to x + u (Absil and Malick 2012, doi 10.1137/100802529)."""
    # The Gram matrix of x + u itself, not I + u^T u: it corrects what x lacks in orthonormality.
    return polar_step(x + u)
