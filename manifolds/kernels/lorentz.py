"""Operations of the Lorentz model with their kernels."""

from __future__ import annotations

from ..functional import lorentz as plain
from ..functional import lorentz_backward as slopes
from .registration import fused

SOURCES = "triton_lorentz"

lorentz_exp = fused("lorentz_exp", plain.lorentz_exp, slopes.lorentz_exp_backward, "x", "u", sources=SOURCES)
lorentz_log = fused("lorentz_log", plain.lorentz_log, slopes.lorentz_log_backward, "x", "y", sources=SOURCES)
lorentz_dist = fused(
    "lorentz_dist", plain.lorentz_dist, slopes.lorentz_dist_backward, "x", "y", sources=SOURCES, scalar=True
)
lorentz_transport = fused(
    "lorentz_transport", plain.lorentz_transport, slopes.lorentz_transport_backward, "x", "y", "v", sources=SOURCES
)
