"""Optimizers and solvers on every metric of positive definite matrices, from starts next to the rim."""

import copy
import io

import pytest
import torch

from tests.support.problems import closure_of
from tests.support.spd import METRICS, generator
from torchriemann import ManifoldParameter
from torchriemann.manifolds import SPDLogEuclidean, SPDPowerEuclidean
from torchriemann.optim import (
    RiemannianAdam,
    RiemannianCG,
    RiemannianLBFGS,
    RiemannianSGD,
    RiemannianTrustRegion,
    param_groups,
)

F64, F32 = torch.float64, torch.float32
every_metric = pytest.mark.parametrize("metric", METRICS, ids=repr)
SOLVERS = {"lbfgs": RiemannianLBFGS, "cg": RiemannianCG, "trust region": RiemannianTrustRegion}


def start_next_to_the_rim(m, condition=1e9, dtype=F64):
    """Of that condition, with the eigenvalues of the targets, about one, at the end that the metric sees best."""
    sized = condition**0.5 if m == SPDPowerEuclidean(-1.0) else condition**-0.5
    x = sized * m.random_spectrum(4, 4, condition=condition, generator=generator(2), dtype=dtype)
    return ManifoldParameter(m.projx(x), m)


def squared_distances(m, x):
    """The mean squared distance from targets, and where it is least."""
    targets = m.random(5, 4, 4, generator=generator(1), dtype=x.dtype)
    return lambda: 0.5 * m.dist2(x, targets).mean(), m.frechet_mean(targets)


def likelihood(m, x):
    """tr(x^-1 s) + log det x, least at s: steep next to the rim."""
    s = m.random(4, 4, generator=generator(3), dtype=x.dtype)
    return lambda: (torch.linalg.inv(x) * s).sum() + torch.logdet(x), s


def attainable(m):
    """Tangent vectors of x^-1 are eps cond(x)^2 exact: float64 holds nothing of them at condition 1e9."""
    return 1e4 if m == SPDPowerEuclidean(-1.0) else 1e9


@every_metric
def test_gradient_descent_from_condition_1e9(metric):
    m = metric.manifold
    x = start_next_to_the_rim(m, attainable(m))
    loss, best = squared_distances(m, x)
    optimizer = RiemannianSGD([x], lr=0.5)
    for _ in range(60):
        optimizer.step(closure_of(optimizer, loss))
        assert m.check_point_on_manifold(x.detach())
    assert m.dist(x.detach(), best) < 1e-7


@every_metric
def test_adam_from_condition_1e9(metric):
    m = metric.manifold
    x = start_next_to_the_rim(m, attainable(m))
    loss, best = squared_distances(m, x)
    before = m.dist(x.detach(), best)
    optimizer = RiemannianAdam([x], lr=0.3)
    for _ in range(150):
        optimizer.step(closure_of(optimizer, loss))
        assert m.check_point_on_manifold(x.detach())
    assert m.dist(x.detach(), best) < 0.35 * before


@every_metric
@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_from_condition_1e9(metric, name):
    m = metric.manifold
    x = start_next_to_the_rim(m, attainable(m))
    loss, best = squared_distances(m, x)
    optimizer = SOLVERS[name]([x], max_iter=100)
    optimizer.step(closure_of(optimizer, loss))
    assert m.check_point_on_manifold(x.detach())
    assert m.dist(x.detach(), best) < 1e-5, optimizer.summary


@every_metric
@pytest.mark.parametrize("name", ["lbfgs", "trust region"])
def test_solvers_of_a_loss_that_is_steep_next_to_the_rim(metric, name):
    m = metric.manifold
    x = start_next_to_the_rim(m, attainable(m))
    loss, best = likelihood(m, x)
    optimizer = SOLVERS[name]([x], max_iter=150)
    optimizer.step(closure_of(optimizer, loss))
    assert m.check_point_on_manifold(x.detach())
    assert m.dist(x.detach(), best) < 1e-5, optimizer.summary


@pytest.mark.parametrize("name", ["adam", *SOLVERS])
def test_tangent_vectors_that_float64_cannot_hold_do_no_harm(name):
    m = SPDPowerEuclidean(-1.0)
    x = start_next_to_the_rim(m)
    loss, _ = likelihood(m, x)
    before = loss().detach()
    options = {"max_iter": 30} if name in SOLVERS else {"lr": 0.1}
    optimizer = {"adam": RiemannianAdam, **SOLVERS}[name]([x], **options)
    for _ in range(1 if name in SOLVERS else 30):
        optimizer.step(closure_of(optimizer, loss))
        assert m.check_point_on_manifold(x.detach())
    assert name == "adam" or loss() <= before


@every_metric
@pytest.mark.parametrize("name", ["sgd", "adam", "lbfgs"])
def test_a_float32_start_whose_least_eigenvalue_is_rounding(metric, name):
    """geoopt's metric takes the root of a negative number here, and its eigendecomposition raises."""
    m = metric.manifold
    if m == SPDPowerEuclidean(-1.0):
        pytest.skip("its tangent vectors are cond(x)^2 eps exact, and the squares of their lengths no float32 numbers")
    q = torch.linalg.qr(torch.randn(4, 4, generator=generator(5), dtype=F64))[0]
    x = (q * torch.tensor([7e-8, 0.5, 1.0, 2.0], dtype=F64)) @ q.mT
    x = ManifoldParameter(m.round_to(0.5 * (x + x.mT), F32), m)
    loss, best = squared_distances(m, x)
    before = m.dist(x.detach(), best)
    # The entries of a gradient are those of x^-1, and rounded: a step of length one would be one of noise.
    options = {"lr": 0.1 if name == "adam" else 0.02} if name != "lbfgs" else {"max_iter": 30, "tolerance_grad": 1e-3}
    optimizer = {"sgd": RiemannianSGD, "adam": RiemannianAdam, "lbfgs": RiemannianLBFGS}[name]([x], **options)
    for _ in range(1 if name == "lbfgs" else 60):
        optimizer.step(closure_of(optimizer, loss))
        assert m.check_point_on_manifold(x.detach())
    assert m.dist(x.detach(), best) < 0.85 * before


# ---- decay, groups, state -------------------------------------------------------------------------------------


@every_metric
@pytest.mark.parametrize("kind", [RiemannianSGD, RiemannianAdam])
def test_weight_decay_draws_towards_the_identity(metric, kind):
    """Along the geodesic, by 1 - lr weight_decay of the way; under the log-Euclidean metric that is a power."""
    m = metric.manifold
    x = ManifoldParameter(m.random(3, 4, 4, generator=generator(1), dtype=F64), m)
    before, one = x.detach().clone(), torch.eye(4, dtype=F64)
    optimizer = kind([x], lr=0.1, weight_decay=0.5)
    x.grad = torch.zeros_like(x)
    optimizer.step()
    torch.testing.assert_close(x.detach(), m.geodesic(one, before, 0.95), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(m.dist(x.detach(), one), 0.95 * m.dist(before, one), rtol=1e-10, atol=0)
    if isinstance(m, SPDLogEuclidean):
        values, vectors = torch.linalg.eigh(before)
        torch.testing.assert_close(x.detach(), (vectors * (values**0.95).unsqueeze(-2)) @ vectors.mT)


class Model(torch.nn.Module):
    def __init__(self, m):
        super().__init__()
        self.point = ManifoldParameter.project(torch.randn(2, 3, 3, generator=generator(7), dtype=F64), m)
        self.linear = torch.nn.Linear(9, 1, dtype=F64)

    def forward(self):
        return self.linear(self.point.flatten(-2)).square().sum()


@every_metric
def test_groups_and_state_resume_to_the_bit(metric):
    torch.manual_seed(0)
    model = Model(metric.manifold)
    optimizer = RiemannianAdam(param_groups(model), lr=0.05)
    for _ in range(3):
        optimizer.step(closure_of(optimizer, model))
    twin = copy.deepcopy(model)
    saved = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, saved)
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    twin.load_state_dict(state["model"])
    resumed = RiemannianAdam(param_groups(twin), lr=0.05)
    resumed.load_state_dict(state["optimizer"])
    for _ in range(3):
        optimizer.step(closure_of(optimizer, model))
        resumed.step(closure_of(resumed, twin))
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)
    assert metric.manifold.check_point_on_manifold(model.point.detach())
