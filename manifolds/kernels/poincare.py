"""Operations of the Poincare ball with their kernels."""

from __future__ import annotations

from ..functional import poincare as plain
from ..functional import poincare_backward as slopes
from .registration import fused

SOURCES = "triton_poincare"

poincare_exp = fused("poincare_exp", plain.poincare_exp, slopes.poincare_exp_backward, "x", "u", sources=SOURCES)
poincare_log = fused("poincare_log", plain.poincare_log, slopes.poincare_log_backward, "x", "y", sources=SOURCES)
poincare_dist = fused(
    "poincare_dist", plain.poincare_dist, slopes.poincare_dist_backward, "x", "y", sources=SOURCES, scalar=True
)
poincare_transport = fused(
    "poincare_transport", plain.poincare_transport, slopes.poincare_transport_backward, "x", "y", "v", sources=SOURCES
)
