"""Operations of the Poincare ball with their kernels."""

from __future__ import annotations

from ..functional import poincare as plain
from ..functional import poincare_backward as closed
from .kernel import Formula, Launchers
from .rows import fused_rows


def _launchers() -> Launchers:
    from . import triton_poincare

    return triton_poincare.LAUNCHERS


def _fused(name: str, forward: Formula, backward, *operands: str) -> Formula:
    return fused_rows(name, forward, backward, *operands, option="curvature", launchers=_launchers)


poincare_exp = _fused("poincare_exp", plain.poincare_exp, closed.poincare_exp_backward, "x", "u")
poincare_log = _fused("poincare_log", plain.poincare_log, closed.poincare_log_backward, "x", "y")
poincare_dist = _fused("poincare_dist", plain.poincare_dist, closed.poincare_dist_backward, "x", "y")
poincare_transport = _fused(
    "poincare_transport", plain.poincare_transport, closed.poincare_transport_backward, "x", "y", "v"
)
