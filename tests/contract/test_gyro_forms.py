"""Gyro laws on every geometry that has them, at their full reach; closed forms against what transport makes of them."""

import dataclasses

import pytest
import torch

from torchriemann.manifolds import (
    CorrelationEuclideanCholesky,
    CorrelationLogEuclideanCholesky,
    CorrelationLogScaled,
    CorrelationOffLog,
    CorrelationPolyHyperbolic,
    Euclidean,
    GeometricMean,
    Grassmann,
    Klein,
    Lorentz,
    LowRankPSD,
    PoincareBall,
    ProjectedSphere,
    SPDAffineInvariant,
    SPDBuresWasserstein,
    SPDKernel,
    SPDLogCholesky,
    SPDLogEuclidean,
    SPDPowerCholesky,
    SPDPowerEuclidean,
    Sphere,
)
from torchriemann.manifolds.gyro import is_gyro
from torchriemann.testing import LAWS, Case, Trial

RADIUS = 3.0  # of points, where curvature is not positive; farther out coordinates lose digits as its exponential
LAWS_OF_GYRO = [law for law in LAWS.values() if law.subject == "gyro structure" and law.exact and law.float64 == 1e-10]


def subspace(x):
    return x @ x.mT


def case(manifold, *shape, **options):
    return Case(manifold, (shape,), reach=RADIUS, **options)


TABLE = [
    case(Euclidean(), 4),
    case(Sphere(), 4),
    case(ProjectedSphere(), 3),
    case(Lorentz(), 4),
    case(PoincareBall(), 3),
    case(Klein(), 3),
    case(Grassmann(), 6, 2, invariant=subspace),
    case(Grassmann(), 5, 3, invariant=subspace),
    case(SPDAffineInvariant(), 3, 3),
    case(SPDAffineInvariant(0.5, 2.0, -0.3), 3, 3),
    case(SPDLogEuclidean(), 3, 3),
    case(SPDLogCholesky(), 3, 3),
    case(CorrelationEuclideanCholesky(), 4, 4),
    case(CorrelationLogEuclideanCholesky(), 4, 4),
    case(CorrelationOffLog(), 4, 4),
    case(CorrelationLogScaled(), 4, 4),
    case(CorrelationPolyHyperbolic(), 4, 4),
    case(LowRankPSD(5, 2), 14),
]


def ids(row):
    return f"{row.manifold}{row.shapes[0]}"


def drawn(row, **options):
    """Twenty points of each kind, as far out as the row lets them lie."""
    row = dataclasses.replace(row, **options)
    return Trial(row, row.shapes[0], seed=7, scale=1.0, batch=(20,))


@pytest.mark.parametrize("law", LAWS_OF_GYRO, ids=lambda law: law.name)
@pytest.mark.parametrize("row", TABLE, ids=ids)
def test_laws_hold_to_ten_digits(row, law):
    law(drawn(row))


@pytest.mark.parametrize("row", TABLE, ids=ids)
def test_closed_forms_are_those_that_transport_makes(row):
    # The derived gyration adds three points up, and loses the digits of their sum.
    law = LAWS["closed_gyro_forms_agree_with_derived_ones"]
    law(drawn(row, reach=RADIUS / 3, tolerance={law.name: 1e-12 / torch.finfo(torch.float64).eps}))


@pytest.mark.parametrize(
    "manifold, reason",
    [
        (SPDBuresWasserstein(), "geodesics end"),
        (SPDPowerEuclidean(0.5), "may leave the cone"),
        (SPDPowerCholesky(0.5), "may be negative"),
        (SPDKernel(GeometricMean()), "whether shortest geodesics are unique is not known"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_spaces_without_gyro_structure_give_the_reason(manifold, reason):
    assert not is_gyro(manifold)
    x = manifold.origin(2, 3, 3)
    with pytest.raises(NotImplementedError, match=f"has no gyro structure.*{reason}"):
        manifold.gyroadd(x, x)
