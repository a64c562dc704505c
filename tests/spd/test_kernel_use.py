"""Kernel metrics in use: optimizers, means against direct minimisation, products, copies and checkpoints."""

import copy
import io
import pickle

import pytest
import scipy.optimize
import torch

from tests.spd.test_kernel import F64, OTHERS, every_other, generator, points, relative, symmetric
from tests.support.problems import closure_of
from torchriemann import ManifoldParameter
from torchriemann.manifolds import LogarithmicMean, Product, Scaled, SPDKernel, SPDLogEuclidean, Sphere, matrix_exp
from torchriemann.manifolds.functional.matrices import symmetric_from_vector
from torchriemann.optim import RiemannianAdam, RiemannianLBFGS, RiemannianSGD, param_groups


def likelihood(x, s):
    """tr(x^-1 s) + log det x, least at s."""
    return (torch.linalg.inv(x) * s).sum() + torch.logdet(x)


OPTIMIZERS = {
    "sgd": (RiemannianSGD, {"lr": 0.2}, 120, 1e-5),
    "momentum": (RiemannianSGD, {"lr": 0.05, "momentum": 0.8}, 120, 1e-3),
    "adam": (RiemannianAdam, {"lr": 0.1}, 120, 1e-2),
    "lbfgs": (RiemannianLBFGS, {"max_iter": 60}, 1, 1e-6),
}


def search(phi, name):
    """All optimizers with the first kernel; with the others those of 120 steps are left to the slow half."""
    marks = [pytest.mark.slow] if phi is not OTHERS[0] and name != "lbfgs" else []
    return pytest.param(phi, *OPTIMIZERS[name], id=f"{phi}-{name}", marks=marks)


@pytest.mark.parametrize(
    ("phi", "kind", "options", "steps", "near"), [search(phi, name) for phi in OTHERS for name in OPTIMIZERS]
)
def test_optimizers_find_the_covariance(phi, kind, options, steps, near):
    """From a point of another scale, by points all the way."""
    m = SPDKernel(phi)
    s = points(2, 3, 3, condition=5.0)[1]
    x = ManifoldParameter(points(2, 3, 3, condition=3.0, seed=8)[1] * 1.5, m)
    optimizer = kind([x], **options)
    first = likelihood(x.detach(), s)
    for _ in range(steps):
        optimizer.step(closure_of(optimizer, lambda: likelihood(x, s)))
        assert m.check_point_on_manifold(x.detach())
    assert likelihood(x.detach(), s) < first
    assert relative(x.detach(), s) < near


@pytest.mark.slow
@every_other
def test_squared_distances_are_a_loss(phi):
    """Of the three points that the mean is taken of, which is where gradient descent goes."""
    m = SPDKernel(phi)
    targets = points(4, 2, 2, condition=3.0)[1:]
    x = ManifoldParameter(torch.eye(2, dtype=F64), m)
    optimizer = RiemannianSGD([x], lr=0.8)
    for _ in range(20):
        optimizer.step(closure_of(optimizer, lambda: 0.5 * m.dist2(x, targets).mean()))
    assert m.dist(x.detach(), m.frechet_mean(targets)) < 1e-7


@pytest.mark.parametrize(
    "phi", [OTHERS[0], *(pytest.param(phi, marks=pytest.mark.slow) for phi in OTHERS[1:])], ids=repr
)
def test_means_minimise_squared_distances(phi):
    """By scipy's BFGS in coordinates of the matrix logarithm, and weighted."""
    m = SPDKernel(phi)
    x, w = points(4, 2, 2, condition=3.0), torch.tensor([1.0, 2.0, 0.5, 1.5], dtype=F64)

    def value_and_gradient(z):
        z = torch.tensor(z, dtype=F64, requires_grad=True)
        value = (w * m.dist2(matrix_exp(symmetric_from_vector(z)), x)).sum()
        (gradient,) = torch.autograd.grad(value, z)
        return float(value.detach()), gradient.numpy()

    found = scipy.optimize.minimize(value_and_gradient, [0.0] * 3, jac=True, method="BFGS", options={"gtol": 1e-9})
    best = matrix_exp(symmetric_from_vector(torch.tensor(found.x, dtype=F64)))
    mean = m.frechet_mean(x, w)
    assert relative(mean, best) < 1e-7
    assert m.karcher_residual(x, mean, w) < 1e-9
    assert (w * m.dist2(mean, x)).sum() <= found.fun * (1 + 1e-12)


@every_other
def test_products_with_other_manifolds(phi):
    """Squares add up; a multiple of the metric multiplies distances."""
    k = SPDKernel(phi)
    m = Product([k, Sphere()], [(2, 2), (3,)])
    x, y = points(2, 2, 2, condition=3.0), points(2, 2, 2, condition=2.0, seed=5)
    s = Sphere().random(2, 2, 3, generator=generator(), dtype=F64)
    p, q = m.join(x, s[0]), m.join(y, s[1])
    assert relative(m.dist2(p, q), k.dist2(x, y) + Sphere().dist2(*s)) < 1e-12
    assert relative(m.expmap(p, m.logmap(p, q)), q) < 1e-12
    v = m.proju(p, m.join(symmetric(2, 2, 2), s[1]))
    moved = m.split(m.parallel_transport(p, q, v))
    assert relative(moved[0], k.parallel_transport(x, y, m.split(v)[0])) < 1e-12
    assert relative(Scaled(k, 3.0).dist(x, y), 3 * k.dist(x, y)) < 1e-12


class Model(torch.nn.Module):
    def __init__(self, m):
        super().__init__()
        self.point = ManifoldParameter(m.random(2, 2, 2, generator=generator(3), dtype=F64), m)

    def forward(self):
        return likelihood(self.point[0], self.point[1].detach())


@every_other
def test_copies_and_checkpoints_resume_to_the_bit(phi):
    m = SPDKernel(phi)
    for other in (copy.deepcopy(m), pickle.loads(pickle.dumps(m))):
        assert other == m and hash(other) == hash(m) and repr(other) == repr(m)
    model = Model(m)
    optimizer = RiemannianAdam(param_groups(model), lr=0.05)
    for _ in range(3):
        optimizer.step(closure_of(optimizer, model))
    twin = copy.deepcopy(model)
    assert twin.point.manifold == m
    saved = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, saved)
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    twin.point.data.mul_(2.0)
    twin.load_state_dict(state["model"])
    resumed = RiemannianAdam(param_groups(twin), lr=0.05)
    resumed.load_state_dict(state["optimizer"])
    for _ in range(3):
        optimizer.step(closure_of(optimizer, model))
        resumed.step(closure_of(resumed, twin))
    assert torch.equal(model.point, twin.point)


def test_manifolds_are_safe_to_name_in_checkpoints():
    m = SPDKernel(LogarithmicMean(power=1.5, beta=0.1))
    saved = io.BytesIO()
    torch.save(m, saved)
    saved.seek(0)
    assert torch.load(saved, weights_only=True) == m != SPDLogEuclidean()
