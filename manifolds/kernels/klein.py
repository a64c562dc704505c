"""Operations of the Beltrami-Klein ball with closed derivatives."""

from __future__ import annotations

from ..functional import klein
from .rows import fused_rows

klein_dist = fused_rows(
    "klein_dist", klein.klein_dist, klein.klein_dist_backward, "x", "y", option="curvature", launchers=None
)
klein_log = fused_rows(
    "klein_log", klein.klein_log, klein.klein_log_backward, "x", "y", option="curvature", launchers=None
)
