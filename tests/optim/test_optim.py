"""The optimizers' mathematics: known optima, torch's results in flat space, one batch against one by one, drift."""

import copy

import geoopt
import numpy as np
import pytest
import torch
from torch import nn

from torchriemann import ManifoldParameter, Sphere
from torchriemann.manifolds import Euclidean, Grassmann, Power, Product
from torchriemann.manifolds.frames.stiefel import Stiefel
from torchriemann.optim import RiemannianAdam, RiemannianSGD

OPTIMIZERS = {
    "sgd": lambda p, **k: RiemannianSGD(p, **{"lr": 0.03, **k}),
    "momentum": lambda p, **k: RiemannianSGD(p, **{"lr": 0.02, "momentum": 0.8, "dampening": 0.1, **k}),
    "nesterov": lambda p, **k: RiemannianSGD(p, **{"lr": 0.02, "momentum": 0.8, "nesterov": True, **k}),
    "adam": lambda p, **k: RiemannianAdam(p, **{"lr": 0.05, **k}),
    "amsgrad": lambda p, **k: RiemannianAdam(p, **{"lr": 0.05, "amsgrad": True, **k}),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def spheres(count, n=6, seed=0, dtype=torch.float64):
    return [
        ManifoldParameter(Sphere().random(n, generator=generator(seed + i), dtype=dtype), Sphere())
        for i in range(count)
    ]


def symmetric(n, seed=0):
    a = torch.randn(n, n, generator=generator(seed), dtype=torch.float64)
    return a + a.T


def train(optimizer, loss, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


# ---- known optima --------------------------------------------------------------------------------------------------


@every_optimizer
def test_rayleigh_quotient_reaches_the_smallest_eigenvalue(make):
    a = symmetric(8)
    (x,) = points = spheres(1, n=8)
    train(make(points), lambda: x @ a @ x, 800)
    assert abs((x @ a @ x).item() - np.linalg.eigvalsh(a.numpy())[0]) < 1e-6


@every_optimizer
def test_maximize_climbs(make):  # geoopt descends
    a = symmetric(8)
    (x,) = points = spheres(1, n=8)
    train(make(points, maximize=True), lambda: x @ a @ x, 800)
    assert abs((x @ a @ x).item() - np.linalg.eigvalsh(a.numpy())[-1]) < 1e-6


@every_optimizer
def test_brockett_function_on_the_stiefel_manifold(make):
    a, weights = symmetric(8) / 2, torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    for manifold in (Stiefel(), Stiefel(beta=0.5, retraction="qr")):
        x = ManifoldParameter(manifold.random(8, 3, generator=generator(), dtype=torch.float64), manifold)
        train(make([x]), lambda x=x: (weights * (x * (a @ x)).sum(0)).sum(), 800)
        optimum = (np.linalg.eigvalsh(a.numpy())[:3] * weights.numpy()).sum()
        assert abs((weights * (x * (a @ x)).sum(0)).sum().item() - optimum) < 1e-6


@every_optimizer
def test_leading_subspace_on_the_grassmann_manifold(make):
    a = symmetric(8)
    x = ManifoldParameter(Grassmann().random(8, 3, generator=generator(), dtype=torch.float64), Grassmann())
    train(make([x]), lambda: (x * (a @ x)).sum(), 800)
    assert abs((x * (a @ x)).sum().item() - np.linalg.eigvalsh(a.numpy())[:3].sum()) < 1e-6


@every_optimizer
@pytest.mark.parametrize(
    "manifold", [geoopt.Sphere(), geoopt.EuclideanStiefel(), geoopt.CanonicalStiefel()], ids=lambda m: m.name
)
def test_geoopt_manifolds(make, manifold):
    a = symmetric(6)
    shape = (6,) if manifold.ndim == 1 else (6, 2)
    start = torch.linalg.qr(torch.randn(6, 2, generator=generator(), dtype=torch.float64))[0]
    x = geoopt.ManifoldParameter(start[:, 0].clone() if len(shape) == 1 else start, manifold=manifold)
    train(make([x]), lambda: (x * (a @ x)).sum(), 1000)
    assert abs((x * (a @ x)).sum().item() - np.linalg.eigvalsh(a.numpy())[: x[:1].numel()].sum()) < 1e-6
    assert manifold.check_point_on_manifold(x.detach())


def test_geoopt_hyperbolic_manifolds_and_products_approach_a_target():
    product = geoopt.ProductManifold((geoopt.Sphere(), 3), (geoopt.PoincareBall(), 2))
    for manifold in (geoopt.PoincareBall(), geoopt.Lorentz(), product):
        target = manifold.projx(torch.tensor([0.5, 0.2, -0.3, 0.1, 0.2], dtype=torch.float64))
        start = manifold.projx(torch.tensor([0.6, -0.4, 0.2, -0.2, 0.1], dtype=torch.float64))
        points = [geoopt.ManifoldParameter(start.clone(), manifold=manifold) for _ in range(2)]
        optimizer = RiemannianAdam(points, lr=0.05)
        train(optimizer, lambda p=points, t=target: sum((q - t).square().sum() for q in p), 600)
        assert max((p - target).abs().max().item() for p in points) < 1e-5


# ---- flat space is torch's ----------------------------------------------------------------------------------------


def flat_parameters(dtype=torch.float32):
    g = generator(3)
    shapes = [(), (5,), (4, 3), (0,), (2, 0, 3), (2, 3, 4)]
    return [torch.nn.Parameter(torch.randn(s, generator=g, dtype=dtype)) for s in shapes]


def paired_run(ours, theirs, a, b, steps=7):
    g = generator(4)
    for _ in range(steps):
        for p, q in zip(a, b, strict=True):
            p.grad = torch.randn(p.shape, generator=g, dtype=p.dtype)
            q.grad = p.grad.clone()
        ours.step()
        theirs.step()
    for p, q in zip(a, b, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("foreach", [None, True, False])
@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True, "weight_decay": 0.1}], ids=str
)
def test_flat_adam_is_adamw_to_the_bit(options, foreach):
    a, b = flat_parameters(), flat_parameters()
    theirs = torch.optim.AdamW(b, lr=0.02, foreach=foreach, **{"weight_decay": 0, **options})
    paired_run(RiemannianAdam(a, lr=0.02, foreach=foreach, **options), theirs, a, b)


@pytest.mark.parametrize("foreach", [None, True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.2}, {"momentum": 0.9, "nesterov": True, "maximize": True}],
    ids=str,
)
def test_flat_sgd_is_torchs_to_the_bit(options, foreach):
    a, b = flat_parameters(), flat_parameters()
    theirs = torch.optim.SGD(b, lr=0.02, foreach=foreach, **options)
    paired_run(RiemannianSGD(a, lr=0.02, foreach=foreach, **options), theirs, a, b)


def test_flat_sgd_decay_is_decoupled_from_momentum():
    (p,) = [torch.nn.Parameter(torch.ones(3))]
    optimizer = RiemannianSGD([p], lr=0.1, momentum=0.9, weight_decay=0.5)
    p.grad = torch.zeros(3)
    optimizer.step()
    torch.testing.assert_close(p.detach(), torch.full((3,), 0.95))
    assert (optimizer.state[p]["momentum_buffer"] == 0).all()


@pytest.mark.parametrize("label", [Euclidean(), geoopt.Euclidean()], ids=["ours", "geoopt"])
def test_a_parameter_labelled_flat_is_flat(label):
    (a,), (b,) = [geoopt.ManifoldParameter(torch.ones(3), manifold=label)], [torch.nn.Parameter(torch.ones(3))]
    paired_run(RiemannianAdam([a], weight_decay=0.1), torch.optim.AdamW([b], weight_decay=0.1), [a], [b])


@every_optimizer
def test_weight_decay_leaves_points_alone(make):
    points, others = spheres(2), spheres(2)
    for p, q in zip(points, others, strict=True):
        p.grad = torch.randn(6, generator=generator(), dtype=p.dtype)
        q.grad = p.grad.clone()
    make(points, weight_decay=0.5).step()
    make(others).step()
    assert all(torch.equal(p, q) for p, q in zip(points, others, strict=True))


@pytest.mark.parametrize("make", [RiemannianSGD, RiemannianAdam])
@pytest.mark.parametrize("momentum", [False, True])
def test_weight_decay_reaches_the_flat_factors_of_a_product(make, momentum):
    product = Product((Sphere(), Power(Euclidean(), 2)), ((3,), (2, 1)))
    whole = ManifoldParameter(product.random(5, generator=generator(), dtype=torch.float64), product)
    sphere, flat = product.split(whole.detach())
    apart = [ManifoldParameter(sphere.clone(), Sphere()), nn.Parameter(flat.clone())]
    options = {"lr": 0.1, "weight_decay": 0.3, **({"momentum": 0.9} if momentum and make is RiemannianSGD else {})}
    together, separate = make([whole], **options), make(apart, **options)
    for i in range(4):
        whole.grad = torch.randn(whole.shape, generator=generator(i), dtype=torch.float64)
        apart[0].grad, apart[1].grad = product.split(whole.grad)
        together.step()
        separate.step()
    torch.testing.assert_close(whole.detach(), product.join(*(p.detach() for p in apart)), rtol=1e-13, atol=1e-13)


# ---- momentum, second moments, gradients ----------------------------------------------------------------------------


def test_momentum_starts_from_the_riemannian_gradient():
    x = ManifoldParameter(torch.tensor([1.0, 0.0, 0.0]), Sphere())
    optimizer = RiemannianSGD([x], lr=1e-6, momentum=0.9, dampening=0.5)
    x.grad = torch.tensor([5.0, 1.0, 0.0])
    optimizer.step()
    torch.testing.assert_close(optimizer.state[x]["momentum_buffer"], torch.tensor([0.0, 1.0, 0.0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [1, 3])
def test_momentum_stays_tangent(count):
    points = spheres(count)
    for optimizer, name in (
        (RiemannianSGD(points, momentum=0.9), "momentum_buffer"),
        (RiemannianAdam(points), "exp_avg"),
    ):
        train(optimizer, lambda: sum((p * p.roll(1)).sum() for p in points), 20)
        for p in points:
            assert abs(torch.dot(p.detach(), optimizer.state[p][name])) < 1e-14


def test_second_moment_is_one_scalar_a_point():
    stiefel = Stiefel()
    x = ManifoldParameter(stiefel.random(4, 6, 3), stiefel)
    y = spheres(2)
    optimizer = RiemannianAdam([x, *y])
    for p in (x, *y):
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert optimizer.state[x]["exp_avg_sq"].shape == (4, 1, 1)
    assert optimizer.state[y[0]]["exp_avg_sq"].shape == (1,)
    rgrad = stiefel.egrad2rgrad(stiefel.projx(x.detach()), torch.ones(4, 6, 3))
    assert optimizer.state[x]["exp_avg_sq"].max() < 1e-2 * rgrad.square().sum()


@every_optimizer
def test_gradients_are_never_written(make):
    lorentz = geoopt.Lorentz()
    hyper = geoopt.ManifoldParameter(lorentz.projx(torch.randn(4, generator=generator())), manifold=lorentz)
    flat = torch.nn.Parameter(torch.ones(3))
    points = [*spheres(2), *spheres(1, n=4), hyper, flat]
    for p in points:
        p.grad = torch.randn(p.shape, generator=generator(), dtype=p.dtype)
    before, versions = [p.grad.clone() for p in points], [p.grad._version for p in points]
    optimizer = make(points, weight_decay=0.1, maximize=True)
    optimizer.step()
    optimizer.step()
    assert all(torch.equal(p.grad, b) for p, b in zip(points, before, strict=True))
    assert [p.grad._version for p in points] == versions


@every_optimizer
@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_drift_in_float32(make, count):
    """1,000 steps with fresh random gradients, never a projection by the user."""
    manifold = Stiefel()
    g = generator(9)
    points = spheres(count, n=32, dtype=torch.float32)
    frames = [ManifoldParameter(manifold.random(12, 4, generator=g), manifold) for _ in range(count)]
    optimizer = make([*points, *frames])
    for _ in range(1000):
        for p in (*points, *frames):
            p.grad = torch.randn(p.shape, generator=g)
        optimizer.step()
    assert max(abs(p.detach().double().norm().item() - 1) for p in points) < 1e-6
    assert max((p.detach().double().mT @ p.detach().double() - torch.eye(4)).abs().max().item() for p in frames) < 1e-6


# ---- one batch against one by one -----------------------------------------------------------------------------------


@every_optimizer
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stacked_and_single_paths_agree(make, dtype):
    def start():
        g = generator(5)
        stiefel = Stiefel()
        frames = [ManifoldParameter(stiefel.random(7, 3, generator=g, dtype=dtype), stiefel) for _ in range(3)]
        return [*spheres(4, dtype=dtype), *frames, torch.nn.Parameter(torch.ones(4, dtype=dtype))]

    stacked, single = start(), start()
    one, two = make(stacked, foreach=True), make(single, foreach=False)
    g = generator(6)
    for step in range(10):
        for i, (p, q) in enumerate(zip(stacked, single, strict=True)):
            # Some miss some steps: their step counts differ from then on.
            p.grad = None if (step + i) % 4 == 0 else torch.randn(p.shape, generator=g, dtype=dtype)
            q.grad = None if p.grad is None else p.grad.clone()
        one.step()
        two.step()
    tolerance = 50 * torch.finfo(dtype).eps
    for p, q in zip(stacked, single, strict=True):
        torch.testing.assert_close(p, q, atol=tolerance, rtol=tolerance)
        assert one.state[p].keys() == two.state[q].keys()
        for name in one.state[p]:
            torch.testing.assert_close(one.state[p][name], two.state[q][name], atol=20 * tolerance, rtol=20 * tolerance)


@every_optimizer
def test_parameters_without_gradient_stay_and_get_no_state(make):
    points = spheres(4)
    before = [p.detach().clone() for p in points]
    optimizer = make(points)
    for i in (0, 2):
        points[i].grad = torch.ones(6, dtype=torch.float64)
    optimizer.step()
    assert set(optimizer.state) == {points[0], points[2]}
    assert torch.equal(points[1], before[1]) and not torch.equal(points[0], before[0])
    points[0].grad, points[1].grad = None, torch.ones(6, dtype=torch.float64)
    moved = points[0].detach().clone()
    optimizer.step()
    assert torch.equal(points[0], moved) and set(optimizer.state) == set(points[:3])
    assert [int(optimizer.state[p]["step"]) for p in points[:3]] == [1, 1, 2]


@every_optimizer
def test_nothing_random_and_nothing_to_do(make):
    runs = []
    for _ in range(2):
        points = spheres(3)
        optimizer = make(points)
        optimizer.step()  # no gradient anywhere
        assert not optimizer.state
        train(optimizer, lambda p=points: sum((q * q.roll(1)).sum() for q in p), 5)
        runs.append(torch.stack([p.detach() for p in points]))
    assert torch.equal(*runs)


def test_empty_batches_step():
    x = ManifoldParameter(Sphere().random(0, 5), Sphere())
    x.grad = torch.zeros(0, 5)
    for optimizer in (RiemannianSGD([x], momentum=0.9, check_finite=True), RiemannianAdam([x])):
        optimizer.step()
    assert x.shape == (0, 5)


# ---- learning rates -------------------------------------------------------------------------------------------------


@every_optimizer
def test_tensor_learning_rates(make):
    results = []
    for lr in (0.125, torch.tensor(0.125), torch.tensor([0.125])):
        points = [*spheres(2), *spheres(1, n=3), torch.nn.Parameter(torch.ones(2))]
        train(make(points, lr=lr), lambda p=points: sum((q * q.roll(1)).sum() for q in p), 5)
        results.append([p.detach() for p in points])
        assert all(p.dtype in (torch.float32, torch.float64) for p in points)
    for other in results[1:]:
        for p, q in zip(results[0], other, strict=True):
            torch.testing.assert_close(p, q)


def test_schedulers_and_closures_work_as_in_torch():
    (x,) = points = spheres(1)
    optimizer = RiemannianAdam(points, lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)

    def closure():
        optimizer.zero_grad()
        loss = x[0] + 2
        loss.backward()
        return loss

    losses = []
    for _ in range(10):
        losses.append(optimizer.step(closure).item())
        scheduler.step()
    assert losses[-1] < losses[0]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(RiemannianSGD(points, momentum=0.9), max_lr=0.1, total_steps=5)
    x.grad = torch.ones_like(x)
    for _ in range(4):
        cycle.optimizer.step()
        cycle.step()


def test_learning_rate_zero_moves_nothing():
    points = spheres(2)
    before = copy.deepcopy(points)
    train(RiemannianAdam(points, lr=0.0), lambda: sum(p[0] for p in points), 3)
    for p, q in zip(points, before, strict=True):
        torch.testing.assert_close(p, q, atol=1e-15, rtol=0)


def test_an_exploding_gradient_is_one_lost_step():
    """The square of 1e20 is infinite in float32: the second moment stays so, and the point where it is."""
    p = ManifoldParameter(torch.tensor([1.0, 0, 0]), Sphere())
    optimizer = RiemannianAdam([p], lr=0.1)
    for size in (1.0, 1e20, 1.0):
        p.grad = size * torch.tensor([0.0, 1, 1])
        optimizer.step()
    assert Sphere().check_point_on_manifold(p)
