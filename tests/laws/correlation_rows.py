"""Rows of the table of laws: correlation matrices."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tests.laws.composites import again
from torchriemann.manifolds import (
    CorrelationEuclideanCholesky,
    CorrelationLogEuclideanCholesky,
    CorrelationLogScaled,
    CorrelationOffLog,
    CorrelationPolyHyperbolic,
)
from torchriemann.manifolds.correlation.space import Correlation
from torchriemann.testing import Case, Trial


def signs(t: Trial):
    """x -> s x s with signs s, which is linear, of points and of tangent vectors."""
    s = t.noise(t.shape[-1]).sign()
    return {"change of signs": lambda x: s.unsqueeze(-1) * x * s}


def permutations(t: Trial):
    """x -> p x p^T with a permutation p."""
    order = torch.randperm(t.shape[-1], generator=t.generator)
    return {"permutation": lambda x: x[..., order, :][..., order]}


def few_entries(t: Trial, x: Tensor) -> dict[str, Tensor]:
    """One entry, equal entries, half as long as vectors may be, and a vector next to zero."""
    one = torch.zeros_like(x)
    one[..., 1, 0] = one[..., 0, 1] = 1.0
    equal = torch.ones_like(x) - torch.eye(x.shape[-1], dtype=t.dtype)
    half = {
        name: 0.5 * t.radius(x) * u / t.manifold.norm(x, u, keepdim=True)
        for name, u in {"one entry": one, "equal entries": equal}.items()
    }
    return {**half, "tiny": t.tangent(x, 1e-9)}


VOLUME = "the volume is infinite"
BEYOND = {
    "infinite_injectivity_radius": "a point at the distance 30 is singular to the rounding of its entries",
    "extreme_numbers_give_no_nan": "a point at the distance 1000 is singular to the rounding of its entries",
}
OVERFLOW = {"extreme_vectors_transport_without_nan": "exp(1000) is beyond the largest number"}


def correlation(manifold: Correlation, *, exempt: Mapping[str, str] | None = None, **options: Any) -> Case:
    """The row of a metric; `options` of `Case` win over what all rows share."""
    shared = {
        "uniform_law_is_invariant": VOLUME,
        "retraction_has_its_order": "the retraction is the exponential map",
        "injectivity_radius_is_exact": "infinite",
    }
    common = {
        "shapes": ((3, 3), (2, 2), (4, 4)),
        "reach": 1.0,
        "spread": 0.5,  # of the uniform law some draws in three rows are of condition 1e4
        "degenerate": few_entries,
        "bad_shapes": ((2, 3), (1, 1)),
        "missing": {"random_uniform": VOLUME},
    }
    return Case(manifold, **{**common, **options, "exempt": {**shared, **(exempt or {})}})


# What a chart does, each of its methods once.
CHART = ("egrad2rgrad", "expmap", "logmap", "expmap_transp", "dist2")


def signs_and_permutations(t: Trial):
    return {**signs(t), **permutations(t)}


OFF_LOG = correlation(
    CorrelationOffLog(),
    isometries=signs_and_permutations,
    costly=CHART,
    draws=3,
    tolerance={"*": 400},
    # At the distance 1000 it finds a point all the same.
    exempt={"infinite_injectivity_radius": BEYOND["infinite_injectivity_radius"]},
)

EUCLIDEAN_CHOLESKY = correlation(CorrelationEuclideanCholesky(), isometries=signs, costly=CHART)
LOG_EUCLIDEAN_CHOLESKY = correlation(CorrelationLogEuclideanCholesky(), isometries=signs, costly=CHART)
POLY_HYPERBOLIC = correlation(
    CorrelationPolyHyperbolic(),
    isometries=signs,
    costly=("egrad2rgrad", "logmap", "expmap_transp", "dist2", "from_normal"),
    exempt={**BEYOND, **OVERFLOW},
)
LOG_SCALED = correlation(
    CorrelationLogScaled(),
    isometries=permutations,
    costly=("egrad2rgrad", "expmap_transp", "dist2"),  # each method of the chart once
    draws=3,
    tolerance={"*": 400},
    exempt={**BEYOND, **OVERFLOW},
)

CORRELATION_ROWS: list[Case] = [
    EUCLIDEAN_CHOLESKY,
    LOG_EUCLIDEAN_CHOLESKY,
    POLY_HYPERBOLIC,
    OFF_LOG,
    again(
        dataclasses.replace(OFF_LOG, manifold=CorrelationOffLog(2.0, 0.3, -0.1), isometries=permutations),
        OFF_LOG,
        "inner",
        "logmap",
    ),
    LOG_SCALED,
    again(dataclasses.replace(LOG_SCALED, manifold=CorrelationLogScaled(0.5, 0.3, 0.2)), LOG_SCALED, "inner", "logmap"),
]
