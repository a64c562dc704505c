"""Operations of the Bures-Wasserstein metric with closed derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..functional import bures_wasserstein as plain
from ..functional import bures_wasserstein_transport as transport
from ..functional.operators import Operand
from .dispatch import fused
from .kernel import Formula, Kernel


def _fused(
    name: str, forward: Formula, backward: Callable[..., Any], saving: Callable[..., Any], saved: int
) -> Formula:
    matrices = (Operand("first", 2), Operand("second", 2))
    return fused(Kernel(name, forward, backward, matrices, saving=saving, saved=saved))


lyapunov = _fused("lyapunov", plain.lyapunov, plain.lyapunov_backward, plain.lyapunov_saving, 3)
bures_displacement = _fused(
    "bures_displacement",
    plain.bures_displacement,
    plain.bures_displacement_backward,
    plain.bures_displacement_saving,
    4,
)
bures_dist2 = _fused("bures_dist2", plain.bures_dist2, plain.gradients_backward, plain.bures_dist2_saving, 2)
bures_dist = _fused("bures_dist", plain.bures_dist, plain.gradients_backward, plain.bures_dist_saving, 2)
bures_transport = fused(
    Kernel(
        "bures_transport",
        transport.bures_transport,
        transport.bures_transport_backward,
        (Operand("points", 2), Operand("displacements", 2), Operand("vectors", 2)),
        saving=transport.bures_transport_saving,
        saved=2,
    )
)
