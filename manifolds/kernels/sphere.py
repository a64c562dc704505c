"""Operations of the sphere with their kernels."""

from __future__ import annotations

from typing import Any

from ..functional import sphere as plain
from ..functional import sphere_backward as closed
from .kernel import Formula, Launchers
from .rows import fused_rows


def _launchers() -> Launchers:
    from . import triton_sphere

    return triton_sphere.LAUNCHERS


def _fused(name: str, forward: Formula, backward, *operands: str, **saving: Any) -> Formula:
    return fused_rows(name, forward, backward, *operands, option="curvature", launchers=_launchers, **saving)


sphere_exp = _fused(
    "sphere_exp", plain.sphere_exp, closed.sphere_exp_backward, "x", "u", saving=plain.sphere_exp_saving, saved=3
)
sphere_log = _fused(
    "sphere_log", plain.sphere_log, closed.sphere_log_backward, "x", "y", saving=plain.sphere_log_saving, saved=7
)
sphere_dist = _fused(
    "sphere_dist", plain.sphere_dist, closed.sphere_dist_backward, "x", "y", saving=plain.sphere_dist_saving, saved=6
)
sphere_dist2 = _fused(
    "sphere_dist2",
    plain.sphere_dist2,
    closed.sphere_dist2_backward,
    "x",
    "y",
    saving=plain.sphere_dist2_saving,
    saved=6,
)
sphere_transport = _fused(
    "sphere_transport",
    plain.sphere_transport,
    closed.sphere_transport_backward,
    "x",
    "y",
    "v",
    saving=plain.sphere_transport_saving,
    saved=7,
)
