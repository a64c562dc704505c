"""Means in a space whose radius of curvature is far from one: what has converged is said in that unit."""

import pytest
import torch

from torchriemann.manifolds import Lorentz, PoincareBall, Sphere


@pytest.mark.parametrize("kind, sign", [(Sphere, 1), (Lorentz, -1), (PoincareBall, -1)])
@pytest.mark.parametrize("size", [1e-6, 1e-3, 1e3])
def test_a_mean_goes_with_the_radius(kind, sign, size):
    K = sign / size**2
    generator = torch.Generator().manual_seed(0)
    m, unit = kind(K), kind(float(sign))
    x = unit.random_normal(20, 4, std=0.3, dtype=torch.float64, generator=generator)
    exact = unit.frechet_mean(x)
    for dtype in (torch.float32, torch.float64):
        mean = m.frechet_mean((size * x).to(dtype)).double() / size
        assert unit.dist(unit.projx(mean), exact) < 30 * torch.finfo(dtype).eps
