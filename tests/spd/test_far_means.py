"""Means of matrices that lie far apart are reached, in float32 too: a warning would be an error."""

import pytest
import torch

from torchriemann.manifolds import SPDAffineInvariant, SPDBuresWasserstein

METRICS = [SPDAffineInvariant(), SPDAffineInvariant(power=0.5, beta=0.2), SPDBuresWasserstein()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("manifold", METRICS, ids=repr)
def test_far_means(manifold, dtype):
    generator = torch.Generator().manual_seed(3)
    x = manifold.random_spectrum(8, 4, 16, 16, condition=1e3, generator=generator, dtype=torch.float64).to(dtype)
    mean = manifold.frechet_mean(x).double()
    exact = manifold.frechet_mean(x.double())
    off = (mean - exact).norm(dim=(-2, -1)) / exact.norm(dim=(-2, -1))
    assert (off < 1e3 * torch.finfo(dtype).eps).all()
    residual = manifold.norm(exact, manifold.logmap(exact, x.double()).mean(0))
    spread = manifold.dist(exact, x.double()).square().mean(0).sqrt()
    assert (residual < 1e-12 * spread).all()
