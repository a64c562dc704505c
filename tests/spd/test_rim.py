"""Where an incomplete metric ends: beyond is NaN, and retractions never get there."""

import pytest
import torch

from torchriemann.manifolds import (
    SPDBuresWasserstein,
    SPDPowerCholesky,
    SPDPowerEuclidean,
)

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
