"""Membership of spaces with a rim: what lies beyond is no point, by whatever tolerance."""

import pytest
import torch

from torchriemann.manifolds import CorrelationOffLog, Simplex, SPDAffineInvariant

BEYOND = {
    "SPD": (SPDAffineInvariant(), torch.diag(torch.tensor([1.0, -1e-3])), "is not positive definite"),
    "Correlation": (CorrelationOffLog(), torch.tensor([[1.0, 1.001], [1.001, 1.0]]), "is not positive definite"),
    "Simplex": (Simplex(), torch.tensor([1.001, -0.001]), "is not positive;"),
}


@pytest.mark.parametrize(("m", "x", "said"), BEYOND.values(), ids=BEYOND)
def test_no_tolerance_reaches_beyond_a_rim(m, x, said):
    inside = m.projx(x)
    for points, answer in ((x, False), (torch.stack([inside, x]), False), (inside, True), (x[None][:0], True)):
        got, reason = m.check_point_on_manifold(points, explain=True, atol=10.0)
        assert got is answer and (answer or said in reason)
    broken = torch.stack([x, torch.full_like(x, torch.nan)])
    assert "remove its NaN or infinite entries" in m.check_point_on_manifold(broken, explain=True, atol=10.0)[1]
