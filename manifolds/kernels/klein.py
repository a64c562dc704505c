"""Operations of the Beltrami-Klein ball with closed derivatives."""

from __future__ import annotations

from ..functional import klein
from ..functional import klein_geodesics as geodesics
from .rows import fused_rows

klein_dist = fused_rows(
    "klein_dist", klein.klein_dist, klein.klein_dist_backward, "x", "y", option="curvature", launchers=None
)
klein_log = fused_rows(
    "klein_log", klein.klein_log, klein.klein_log_backward, "x", "y", option="curvature", launchers=None
)
klein_exp = fused_rows(
    "klein_exp",
    geodesics.klein_exp,
    geodesics.klein_exp_backward,
    "x",
    "u",
    option="curvature",
    launchers=None,
    saving=geodesics.klein_exp_saving,
    saved=8,
)
klein_transport = fused_rows(
    "klein_transport",
    geodesics.klein_transport,
    geodesics.klein_transport_backward,
    "x",
    "y",
    "v",
    option="curvature",
    launchers=None,
    saving=geodesics.klein_transport_saving,
    saved=10,
)
