"""Operations of the projected sphere with closed derivatives."""

from __future__ import annotations

from ..functional import projected_sphere as plain
from ..functional.projected_sphere_backward import projected_dist_backward, projected_exp_backward
from .rows import fused_rows

projected_exp = fused_rows(
    "projected_exp",
    plain.projected_exp,
    projected_exp_backward,
    "x",
    "u",
    option="curvature",
    launchers=None,
    saving=plain.projected_exp_saving,
    saved=7,
)
projected_dist = fused_rows(
    "projected_dist",
    plain.projected_dist,
    projected_dist_backward,
    "x",
    "y",
    option="curvature",
    launchers=None,
    saving=plain.projected_dist_saving,
    saved=5,
)
