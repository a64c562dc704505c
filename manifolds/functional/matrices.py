"""Algebra of square matrices."""

from __future__ import annotations

from torch import Tensor


def sym(m: Tensor) -> Tensor:
    """(M + M^T)/2. ``*B,n,n``."""
    return 0.5 * (m + m.mT)


def skew(m: Tensor) -> Tensor:
    """(M - M^T)/2. ``*B,n,n``."""
    return 0.5 * (m - m.mT)
