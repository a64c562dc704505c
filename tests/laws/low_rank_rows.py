"""Rows of the table of laws: positive semidefinite matrices of fixed rank."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.laws.composites import again
from torchriemann.manifolds import LowRankPSD, SPDLogCholesky
from torchriemann.testing import Case, Trial


def rotation(t: Trial, n: int) -> Tensor:
    return torch.linalg.qr(t.noise(n, n))[0]


def congruences(first: bool):
    """Congruence by an orthogonal matrix of the first p coordinates and one of the others, which is linear in the pair.
    Without `first` that of the first p is a matrix of signs."""

    def maps(t: Trial):
        m: Any = t.manifold
        p, n = m.p, m.n
        inner = rotation(t, p) if first else torch.diag(t.noise(p).sign())
        outer = torch.block_diag(inner, rotation(t, n - p)) if n > p else inner

        def congruence(x: Tensor) -> Tensor:
            U, S = m.split(x)
            pair = outer @ U @ inner.mT, inner @ S @ inner.mT
            return torch.cat([part.flatten(-2) for part in pair], -1)

        return {"congruence by O(p) x O(n-p)": congruence}

    return maps


def one_angle(t: Trial, x: Tensor) -> Tensor:
    """A unit vector along which one principal angle grows, and S stays."""
    m: Any = t.manifold
    U, S = m.split(x)
    e = t.noise(1, m.p)
    across = torch.linalg.qr(U, mode="complete")[0][..., m.p : m.p + 1] @ (e / e.norm())
    return m.proju(x, torch.cat([across.flatten(-2), torch.zeros_like(S).flatten(-2)], -1))


def one_factor(t: Trial, x: Tensor) -> dict[str, Tensor]:
    """Vectors of one factor alone, and one next to zero."""
    m: Any = t.manifold
    u = t.tangent(x)
    parts = m.split(u)
    alone = {
        name: torch.cat([(part if i == k else torch.zeros_like(part)).flatten(-2) for i, part in enumerate(parts)], -1)
        for k, name in enumerate(("S at rest", "the range at rest"))
    }
    return {**alone, "tiny": t.tangent(x, 1e-9)}


VOLUME = "the volume is infinite"
BEYOND = "exp(1000) is beyond the largest number"


def low_rank(manifold: LowRankPSD, **options: Any) -> Case:
    """The row of a space; `options` of `Case` win over what all rows share."""
    common = {
        "shapes": ((manifold.n * manifold.p + manifold.p**2,),),
        "order": 2,
        "reach": 1.0,
        "spread": 0.3,  # next to a singular top block canonical pairs jump
        "isometries": congruences(first=True),
        "cut": one_angle,
        "degenerate": one_factor,
        "off": torch.neg,
        "bad_shapes": ((manifold.n * manifold.p,), (0,)),
        "missing": {"random_uniform": VOLUME},
        "exempt": {
            "uniform_law_is_invariant": VOLUME,
            "infinite_injectivity_radius": "pi/2",
            "extreme_numbers_give_no_nan": BEYOND,
            "extreme_vectors_transport_without_nan": BEYOND,
        },
    }
    return Case(manifold, **{**common, **options})


LOW_RANK = low_rank(
    LowRankPSD(4, 2),
    costly=("egrad2rgrad", "expmap", "logmap", "expmap_transp"),
    draws=2,  # the rest is formulas of the factors, which have rows of their own
)

LOW_RANK_ROWS = [
    LOW_RANK,
    again(low_rank(LowRankPSD(3, 2, SPDLogCholesky(), 2.0), isometries=congruences(first=False)), LOW_RANK, "dist2"),
    again(low_rank(LowRankPSD(3, 1, weight=0.5)), LOW_RANK, "dist2"),
]
