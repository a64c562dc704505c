"""Operations of the Lorentz model with their kernels."""

from __future__ import annotations

from typing import Any

from ..functional import lorentz as plain
from ..functional import lorentz_backward as closed
from ..functional import lorentz_values as values
from .kernel import Formula, Launchers
from .rows import fused_rows


def _launchers() -> Launchers:
    from . import triton_lorentz

    return triton_lorentz.LAUNCHERS


def _fused(name: str, forward: Formula, backward, *operands: str, **saving: Any) -> Formula:
    return fused_rows(name, forward, backward, *operands, option="curvature", launchers=_launchers, **saving)


lorentz_exp = _fused(
    "lorentz_exp", plain.lorentz_exp, closed.lorentz_exp_backward, "x", "u", saving=values.exp_and_saved, saved=6
)
lorentz_log = _fused(
    "lorentz_log", plain.lorentz_log, closed.lorentz_log_backward, "x", "y", saving=values.log_and_saved, saved=7
)
lorentz_dist = _fused(
    "lorentz_dist", plain.lorentz_dist, closed.lorentz_dist_backward, "x", "y", saving=values.dist_and_saved, saved=6
)
lorentz_transport = _fused(
    "lorentz_transport", plain.lorentz_transport, closed.lorentz_transport_backward, "x", "y", "v"
)
