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


@pytest.mark.parametrize("m", [SPDAffineInvariant(), SPDBuresWasserstein()], ids=repr)
def test_a_mean_of_what_is_no_point_is_no_number(m):
    x = m.random(5, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alone = m.frechet_mean(x[:, 2])
    x[1, 0], x[2, 1] = -x[1, 0], torch.nan
    with pytest.warns(RuntimeWarning, match="is NaN"):
        mean = m.frechet_mean(x)
    assert mean[:2].isnan().all()
    torch.testing.assert_close(mean[2], alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("m", METRICS, ids=repr)
def test_means_go_with_the_unit_of_the_data(m, dtype):
    x = m.random(12, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = m.frechet_mean(x)
    for unit in (1e-12, 1e-24, 1e20):
        off = m.frechet_mean((unit * x).to(dtype)).double() / unit - exact
        assert off.norm() / exact.norm() < 300 * torch.finfo(dtype).eps


@pytest.mark.parametrize("power", [1.0, 0.5, -1.0])
def test_means_end_where_rounding_of_the_logarithms_does(power):
    """At condition 1e4 logarithms are exact to 1e-12: no more steps are taken than help, and nothing is said."""
    m, generator = SPDAffineInvariant(power), torch.Generator().manual_seed(1)
    x = m.random_spectrum(6, 300, 4, 4, condition=1e4, generator=generator, dtype=torch.float64)
    mean = m.frechet_mean(x)
    residual = m.norm(mean, m.logmap(mean, x).mean(0))
    assert (residual < 1e-11 * m.dist(mean, x).square().mean(0).sqrt()).all()
    # A goal that is given and cannot be reached ends it too, where it is next to what rounding leaves.
    near = m.frechet_mean(x[:, :5], tol=0.0)
    torch.testing.assert_close(near, mean[:5], rtol=0, atol=1e-8 * float(mean[:5].abs().max()))
