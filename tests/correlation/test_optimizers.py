"""Optimizers and solvers on every metric of correlation matrices."""

import pytest
import torch

from tests.support.correlation import METRICS, generator, of_condition
from tests.support.problems import closure_of
from torchriemann import CorrelationLogEuclideanCholesky, ManifoldParameter
from torchriemann.optim import RiemannianAdam, RiemannianLBFGS, RiemannianSGD, RiemannianTrustRegion

F64, F32 = torch.float64, torch.float32
every_metric = pytest.mark.parametrize("m", METRICS, ids=lambda m: m.name)


def squared_distances(m, x):
    """Half the mean squared distance from targets, and where it is least."""
    targets = m.random_normal(5, 4, 4, std=0.5, generator=generator(1), dtype=x.dtype)
    return lambda: 0.5 * m.dist2(x, targets).mean(), m.frechet_mean(targets)


def likelihood(m, x):
    """That of Gaussian samples of unit variances, ``tr(x^-1 s) + log det x`` with their correlation s, least at s."""
    s = m.random_normal(4, 4, std=0.5, generator=generator(3), dtype=x.dtype)
    return lambda: (torch.linalg.inv(x) * s).sum() + torch.logdet(x), s


def assert_point(m, x):
    """To the bit: ones on the diagonal, symmetric."""
    x = x.detach()
    assert m.check_point_on_manifold(x)
    assert (x.diagonal(dim1=-2, dim2=-1) == 1).all() and torch.equal(x, x.mT)


@every_metric
@pytest.mark.parametrize(("condition", "dtype", "bound"), [(10.0, F64, 1e-7), (1e6, F64, 1e-7), (10.0, F32, 1e-5)])
def test_gradient_descent_reaches_the_mean(m, condition, dtype, bound):
    x = ManifoldParameter(of_condition(4, 4, condition=condition, dtype=dtype), m)
    loss, best = squared_distances(m, x)
    optimizer = RiemannianSGD([x], lr=0.5)
    for _ in range(60):
        optimizer.step(closure_of(optimizer, loss))
        assert_point(m, x)
    assert m.dist(x.detach(), best) < bound


@every_metric
@pytest.mark.parametrize("dtype", [pytest.param(F64, marks=pytest.mark.slow), F32])
def test_adam_reaches_the_mean(m, dtype):
    x = ManifoldParameter(of_condition(4, 4, condition=100.0, dtype=dtype), m)
    loss, best = squared_distances(m, x)
    before = m.dist(x.detach(), best)
    optimizer = RiemannianAdam([x], lr=0.2)
    for k in range(120):  # a step is no longer than its rate
        optimizer.param_groups[0]["lr"] = 0.2 * 0.97**k
        optimizer.step(closure_of(optimizer, loss))
        assert_point(m, x)
    assert m.dist(x.detach(), best) < 0.1 * before


@every_metric
@pytest.mark.parametrize("kind", [RiemannianLBFGS, RiemannianTrustRegion])
def test_solvers_reach_the_mean_and_the_likelihood(m, kind):
    for problem in (squared_distances, likelihood):
        x = ManifoldParameter(of_condition(4, 4, condition=100.0), m)
        loss, best = problem(m, x)
        optimizer = kind([x], max_iter=100)
        optimizer.step(closure_of(optimizer, loss))
        assert_point(m, x)
        assert m.dist(x.detach(), best) < 1e-5, optimizer.summary


@every_metric
@pytest.mark.parametrize("kind", [RiemannianSGD, RiemannianAdam])
def test_a_float32_start_next_to_singular_matrices(m, kind):
    """Every step ends in a point, and the loss falls."""
    x = ManifoldParameter(m.projx(torch.ones(4, 4)), m)
    loss, best = squared_distances(m, x)
    distances = [m.dist(x.detach(), best)]
    optimizer = kind([x], lr=0.02 if kind is RiemannianSGD else 0.01 * float(distances[0]))
    for _ in range(40):
        optimizer.step(closure_of(optimizer, loss))
        assert_point(m, x)
        distances.append(m.dist(x.detach(), best))
    if kind is RiemannianAdam and isinstance(m, CorrelationLogEuclideanCholesky):
        # Its coordinates are products of up to three entries, all of them rounding here, and Adam makes every gradient
        # as long as any: of 24 runs from other targets 8 end farther away than they start. On the way all are nearer.
        assert min(distances) < distances[0]
    else:
        assert distances[-1] < 0.9 * distances[0]


@every_metric
@pytest.mark.parametrize("kind", [RiemannianSGD, RiemannianAdam])
def test_weight_decay_draws_towards_the_identity(m, kind):
    """Along the geodesic, by 1 - lr weight_decay of the way."""
    x = ManifoldParameter(m.random_normal(3, 4, 4, std=0.5, generator=generator(1), dtype=F64), m)
    before, one = x.detach().clone(), torch.eye(4, dtype=F64)
    optimizer = kind([x], lr=0.1, weight_decay=0.5)
    x.grad = torch.zeros_like(x)
    optimizer.step()
    torch.testing.assert_close(x.detach(), m.geodesic(one, before, 0.95), rtol=1e-10, atol=1e-11)


@every_metric
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_dtypes_are_refused(m, dtype):
    x = ManifoldParameter(torch.eye(4, dtype=dtype), m)
    x.grad = torch.zeros_like(x)
    with pytest.raises(ValueError, match=rf"RiemannianSGD: .*{m.name}.*{dtype}.*float\(\)"):
        RiemannianSGD([x], lr=0.1).step()
