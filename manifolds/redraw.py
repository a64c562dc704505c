"""Draws from an incomplete space, in which geodesics end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .functional.tracing import values_readable
from .weights import per_point

if TYPE_CHECKING:
    from .base import Manifold

ROUNDS = 100  # of drawing again what fell outside: one draw in two leaves 1e-30 after these


def drawn_inside(manifold: Manifold, draw: Callable[[], Tensor]) -> Tensor:
    """What `draw` gives, of which items that are not finite are drawn again.

    Raises ``ValueError`` if one is not finite in 100 rounds.
    """
    x = draw()
    if not values_readable(x):
        return x
    for _ in range(ROUNDS):
        lost = ~x.detach().isfinite().flatten(-manifold.ndim).all(-1)
        if not bool(lost.any()):
            return x
        x = torch.where(per_point(manifold, lost), draw(), x)
    raise ValueError(
        f"{type(manifold).__name__}.random_normal: std is too large, or mean is no point: {int(lost.sum())} of "
        f"{lost.numel()} draws left the space {ROUNDS} times; take a std well below injectivity_radius(mean)"
    )
