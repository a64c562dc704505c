"""Where an incomplete metric ends: beyond is NaN, and retractions never get there."""

import pytest
import torch

from tests.support.spd import generator
from torchriemann.manifolds import (
    SPDAffineInvariant,
    SPDBuresWasserstein,
    SPDLogCholesky,
    SPDLogEuclidean,
    SPDPowerCholesky,
    SPDPowerEuclidean,
)
from torchriemann.manifolds.functional.definite import positive_definite

F64, F32 = torch.float64, torch.float32

# Whole and odd roots of negative numbers are numbers.
POWERS = [1.0, 0.5, 1 / 3, 2.0, -1.0, -0.5]
# Of 1 x 1 matrices each has a flat coordinate, the power with this exponent.
EXPONENTS = {
    SPDPowerEuclidean: lambda power: power,
    SPDPowerCholesky: lambda power: power / 2,
    SPDBuresWasserstein: lambda power: power / 2,
}


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("kind", EXPONENTS, ids=lambda kind: kind.__name__)
def test_geodesics_end_where_the_coordinate_does(kind, power):
    m, q = kind(power=power), EXPONENTS[kind](power)
    x, y = (torch.full((8, 1, 1), a, dtype=F64) for a in (1.0, 4.0))
    t = torch.tensor([-3.0, -1.0, -0.4, 0.5, 1.5, 2.0, 3.0, 5.0], dtype=F64)
    coordinate = (1 - t) + t * 4.0**q
    wanted = torch.where(coordinate > 0, coordinate.clamp(min=0) ** (1 / q), torch.nan)
    u = t[:, None, None] * m.logmap(x, y)
    near = {"rtol": 1e-12, "atol": 0.0, "equal_nan": True}
    torch.testing.assert_close(m.geodesic(x, y, t).flatten(), wanted, **near)
    torch.testing.assert_close(m.expmap(x, u).flatten(), wanted, **near)
    assert torch.equal(m.exp_is_defined(x, u), coordinate > 0)


RETRACTIONS = [
    SPDPowerEuclidean(0.5),
    SPDPowerEuclidean(1.0),
    SPDPowerCholesky(0.5),
    SPDPowerCholesky(1.0),
    SPDPowerCholesky(-1.0),
    SPDBuresWasserstein(),
    SPDBuresWasserstein(power=0.5),
    SPDBuresWasserstein(torch.tensor([[2.1, 0.1, 0.3], [0.1, 1.1, 0.1], [0.3, 0.1, 0.4]])),
    SPDAffineInvariant(),
    SPDAffineInvariant(0.5, beta=0.3),
    SPDLogEuclidean(),
    SPDLogCholesky(),
]


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("manifold", RETRACTIONS, ids=repr)
def test_retractions_end_in_points(manifold, dtype):
    """Of long and short vectors, along the matrix and across it: a point as numbers, or what is no number."""
    count, g = 3000, generator()
    for condition in (1e2, 1e6):
        x = manifold.random_spectrum(count, 3, 3, condition=condition, generator=g, dtype=dtype)
        u = torch.randn(count, 3, 3, generator=g, dtype=dtype)
        root = torch.linalg.cholesky_ex(x.double())[0].to(dtype)
        u = torch.cat([u[::2], (root @ u @ root.mT)[1::2]])
        length = 10 ** torch.empty(count, 1, 1, dtype=dtype).uniform_(-2, 3, generator=g)
        for y in (manifold.retr(x, length * u), manifold.retr_transp(x, length * u, u)[0]):
            finite = y.isfinite().flatten(1).all(1)
            assert positive_definite(y)[finite].all() and torch.equal(y[finite], y.mT[finite])
            assert finite.all() or manifold.injectivity_radius() == torch.inf  # exponentials overflow
