"""Means of correlation matrices and distances to hyperplanes, against direct minimisation in other coordinates."""

import numpy as np
import pytest
import scipy.optimize
import torch

from torchriemann.manifolds import (
    CorrelationEuclideanCholesky,
    CorrelationLogEuclideanCholesky,
    CorrelationLogScaled,
    CorrelationOffLog,
    CorrelationPolyHyperbolic,
)
from torchriemann.manifolds.functional.correlation import unit_diagonal

FLAT = [
    CorrelationEuclideanCholesky(),
    CorrelationLogEuclideanCholesky(),
    CorrelationOffLog(0.5, 0.3, 0.2),
    CorrelationLogScaled(0.5, 0.3, 0.2),
]
METRICS = [*FLAT, CorrelationPolyHyperbolic()]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(manifold, *size, seed=0):
    return manifold.random_lkj(*size, concentration=2.0, generator=generator(seed), dtype=torch.float64)


def point(numbers):
    """The correlation matrix of 3 x 3 factors with ones on the diagonal: every one, whatever the metric."""
    L = torch.eye(3, dtype=torch.float64)
    L[[1, 2, 2], [0, 0, 1]] = torch.as_tensor(numbers, dtype=torch.float64)
    return unit_diagonal(L @ L.mT)


def with_gradient(function):
    """Of three numbers, for scipy."""

    def both(numbers):
        z = torch.tensor(numbers, dtype=torch.float64, requires_grad=True)
        L = torch.diag_embed(torch.ones(3, dtype=torch.float64)).index_put(
            (torch.tensor([1, 2, 2]), torch.tensor([0, 0, 1])), z
        )
        value = function(unit_diagonal(L @ L.mT))
        (g,) = torch.autograd.grad(value, z)
        return value.item(), g.numpy()

    return both


@pytest.mark.parametrize("manifold", METRICS, ids=lambda m: m.name)
def test_weighted_means_minimise_squared_distances(manifold):
    x = draws(manifold, 6, 2, 3, 3)
    w = torch.rand(6, 2, generator=generator(1), dtype=torch.float64)
    mean = manifold.frechet_mean(x, w)
    for item in range(2):
        found = scipy.optimize.minimize(
            with_gradient(lambda y, item=item: (w[:, item] * manifold.dist2(y, x[:, item])).sum()),
            np.zeros(3),
            jac=True,
            method="BFGS",
            options={"gtol": 1e-9},
        )
        torch.testing.assert_close(mean[item], point(found.x), rtol=0, atol=1e-7)


@pytest.mark.parametrize("manifold", METRICS, ids=lambda m: m.name)
def test_means_of_a_batch_are_those_of_its_items_and_scale_with_weights(manifold):
    x = draws(manifold, 5, 3, 4, 4, seed=2)
    w = torch.rand(5, 3, generator=generator(3), dtype=torch.float64)
    means = manifold.frechet_mean(x, 7 * w)
    for item in range(3):
        torch.testing.assert_close(means[item], manifold.frechet_mean(x[:, item], w[:, item]), rtol=0, atol=1e-10)
    manifold.assert_check_point_on_manifold(means)
    one = torch.zeros(5, 3, dtype=torch.float64)
    one[2] = 1.0
    torch.testing.assert_close(manifold.frechet_mean(x, one), x[2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("manifold", METRICS, ids=lambda m: m.name)
def test_gradients_of_means_are_those_of_difference_quotients(manifold):
    x, h = draws(manifold, 4, 3, 3, seed=4), 1e-5
    u, g = (manifold.proju(x, torch.randn(4, 3, 3, generator=generator(s), dtype=torch.float64)) for s in (5, 6))
    x.requires_grad_()
    value = (manifold.frechet_mean(x) * g[0]).sum()
    (found,) = torch.autograd.grad(value, x)
    x = x.detach()
    ends = [(manifold.frechet_mean(x + s * h * u) * g[0]).sum() for s in (1, -1)]
    torch.testing.assert_close((found * u).sum(), (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("manifold", FLAT, ids=lambda m: m.name)
def test_distance_to_a_hyperplane_is_the_least_one_to_its_points(manifold):
    x = draws(manifold, 3, 3, seed=7)
    normal = torch.randn(manifold.normal_shape((3, 3)), generator=generator(8), dtype=torch.float64)
    offset = 0.3

    def level(y):
        return (manifold.to_normal(y) * normal).sum() / normal.norm() - offset

    signed = manifold.hyperplane_dist(x, normal, offset)
    on_it = {"type": "eq", "fun": lambda z: with_gradient(level)(z)[0], "jac": lambda z: with_gradient(level)(z)[1]}
    found = scipy.optimize.minimize(
        with_gradient(lambda y: manifold.dist2(y, x)),
        np.zeros(3),
        jac=True,
        method="SLSQP",
        constraints=[on_it],
        options={"ftol": 1e-12, "maxiter": 200},
    )
    assert found.success
    torch.testing.assert_close(signed.square().item(), found.fun, rtol=1e-6, atol=0)
    assert (signed > 0) == (level(x) > 0)
