"""Operations of the Poincare ball with their kernels."""

from __future__ import annotations

from typing import Any

from ..functional import poincare as plain
from ..functional import poincare_backward as closed
from ..functional import poincare_values as values
from .kernel import Formula, Launchers
from .rows import fused_rows


def _launchers() -> Launchers:
    from . import triton_poincare

    return triton_poincare.LAUNCHERS


def _fused(name: str, forward: Formula, backward, *operands: str, **saving: Any) -> Formula:
    return fused_rows(name, forward, backward, *operands, option="curvature", launchers=_launchers, **saving)


poincare_exp = _fused(
    "poincare_exp", plain.poincare_exp, closed.poincare_exp_backward, "x", "u", saving=values.exp_and_saved, saved=7
)
poincare_log = _fused(
    "poincare_log", plain.poincare_log, closed.poincare_log_backward, "x", "y", saving=values.log_and_saved, saved=8
)
poincare_dist = _fused(
    "poincare_dist", plain.poincare_dist, closed.poincare_dist_backward, "x", "y", saving=values.dist_and_saved, saved=4
)
poincare_retr = fused_rows(
    "poincare_retr",
    plain.poincare_retr,
    closed.poincare_retr_backward,
    "x",
    "u",
    option="curvature",
    saving=values.retr_and_saved,
    saved=6,
)
poincare_transport = _fused(
    "poincare_transport",
    plain.poincare_transport,
    closed.poincare_transport_backward,
    "x",
    "y",
    "v",
    saving=values.transport_and_saved,
    saved=9,
)
