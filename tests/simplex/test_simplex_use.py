"""Probability vectors in use: projections, checks, zero entries, laws of sampling, means, optimizers."""

import math

import pytest
import torch
from scipy import stats

from tests.support.problems import closure_of
from tests.support.simplex import F32, F64, M, close, generator
from torchriemann import ManifoldParameter, Power, Product, Pullback, Scaled, Sphere
from torchriemann.manifolds import Chart
from torchriemann.optim import RiemannianAdam, RiemannianLBFGS, RiemannianSGD, RiemannianTrustRegion

# ---- projections and rounding ---------------------------------------------------------------------------------


def test_projection_is_the_nearest_point_of_the_simplex():
    """By the conditions of optimality: x - p is one number where p is positive, and no larger elsewhere."""
    x = torch.cat([s * torch.randn(40, 7, generator=generator(1), dtype=F64) for s in (0.01, 0.3, 1.0, 30.0)])
    p = M.projx(x)
    floor = torch.finfo(F64).eps / 7
    assert M.check_point_on_manifold(p) and (p >= floor * (1 - 1e-12)).all()
    tau = (x - p).amax(-1, keepdim=True)
    inner = p > 2 * floor
    assert ((x - p - tau).abs() < 1e-13 * (1 + x.abs().amax()))[inner].all() and inner.any(-1).all()
    assert (~inner).any()
    leaf = x[:40].clone().requires_grad_()
    assert torch.autograd.gradcheck(M.projx, leaf)


@pytest.mark.parametrize("dtype", [F64, F32, torch.bfloat16, torch.float16])
def test_any_finite_vector_has_a_projection(dtype):
    limit = 4 if dtype == torch.float16 else 30
    for n in (2, 5, 1000):
        for power in (-limit, -4, 0, 4, limit):
            x = (10.0**power * torch.randn(5, n, generator=generator(n), dtype=F32)).to(dtype)
            assert M.check_point_on_manifold(M.projx(x))
        close(M.projx(torch.zeros(n, dtype=dtype)), torch.full((n,), 1 / n, dtype=dtype), 1e-2)
        points = M.random(5, n, generator=generator(n), dtype=dtype)
        assert (
            (M.projx(points) - points).abs() <= torch.finfo(dtype).eps * max(points.amax(), 0.5 * (dtype in (F64, F32)))
        ).all()
        few = points.clone()
        few[:, 0] = 1e-3 / n
        assert M.projx(M.restore(few))[:, 0].min() > 0.5e-3 / n  # the ratios of a point are kept
    bad = M.projx(torch.tensor([[1.0, math.nan], [math.inf, 0.0], [3.0, 1.0]]))
    assert bad[:2].isnan().any(-1).all() and bad[2].isfinite().all()


def test_tiny_entries_survive_projection_and_restoring():
    x = torch.tensor([1e-300, 1e-20, 0.25, 0.75], dtype=F64)
    assert torch.equal(M.projx(x), x) and torch.equal(M.restore(x), x)
    tiny = torch.finfo(F64).tiny
    close(M.restore(torch.tensor([-1e-17, 0.0, 0.5, 0.5], dtype=F64))[:2], torch.tensor([tiny, tiny], dtype=F64), 0)
    single = M.round_to(x, F32)
    assert M.check_point_on_manifold(single) and single[0] > 0 and single[2:].tolist() == [0.25, 0.75]
    for dtype in (torch.bfloat16, torch.float16):
        half = M.round_to(x, dtype)
        assert M.check_point_on_manifold(half) and torch.equal(M.round_to(half, dtype), half)
    e = torch.tensor([1.0, 1e-3, 1e-9, 1e-40], dtype=F64)
    assert M.round_to(torch.stack([e / e.sum()]), torch.float16).min() > 0


@pytest.mark.parametrize(
    "x, message",
    [
        (
            [0.5, 0.6, -0.1],
            r"Simplex: x has min\(x\) = -0\.1, and an entry of 1 of 1 items is not positive; call projx",
        ),
        ([0.5, 0.5, 0.0], r"Simplex: x has min\(x\) = 0, .* or restore\(x\) of a softmax"),
        ([0.5, 0.5, 0.1], r"Simplex: x has max\|sum\(x\) - 1\| = 0\.1 > 1\.5e-11 \(float64\); call projx\(x\)"),
        ([0.5, math.nan, 0.1], r"Simplex: x has .* = nan .*remove its NaN"),
        ([1.0], "Simplex: x points must have at least two entries, got 1"),
    ],
)
def test_what_is_no_point_is_told(x, message):
    x = torch.tensor(x, dtype=F64)
    with pytest.raises(ValueError, match=message):
        M.assert_check_point_on_manifold(x)
    if x.isfinite().all() and x.numel() > 1:
        assert M.check_point_on_manifold(M.projx(x))
    with pytest.raises(ValueError, match=r"Simplex: u has max\|sum\(u\)\| = 0.3 > .* call proju"):
        M.assert_check_vector_on_tangent(torch.tensor([0.5, 0.5]), torch.tensor([0.1, 0.2]))


def test_zero_entries():
    """Distances and ways to a face are those of the closed simplex; from a face there is none."""
    x = M.random(3, generator=generator(2), dtype=F64).requires_grad_()
    corner = torch.tensor([1.0, 0.0, 0.0], dtype=F64)
    d = M.dist(x, corner)
    close(d.detach(), 2 * x[0].detach().sqrt().acos())
    (g,) = torch.autograd.grad(d, x)
    u = M.logmap(x.detach(), corner)
    close(M.egrad2rgrad(x.detach(), g), -u / M.norm(x.detach(), u))
    close(M.geodesic(x.detach(), corner, 1.0), corner)
    close(M.dist(corner, torch.tensor([0.0, 0.5, 0.5], dtype=F64)), torch.tensor(math.pi, dtype=F64))
    assert M.logmap(corner, x.detach()).isnan().any() and M.expmap(corner, u).isnan().all()
    assert M.retr(corner, u).isnan().all() and M.injectivity_radius(corner) == 0
    negative = torch.tensor([1.1, -0.1, 0.0], dtype=F64)
    for name in ("dist", "dist2", "logmap", "parallel_transport"):
        assert getattr(M, name)(x.detach(), negative, *([u] if name == "parallel_transport" else [])).isnan().any()
    logits = torch.tensor([[900.0, 0.0, 1.0]], requires_grad=True)
    p = M.restore(logits.softmax(-1))
    (g,) = torch.autograd.grad(M.dist2(p, torch.full((3,), 1 / 3)).sum(), logits)
    assert M.check_point_on_manifold(p.detach()) and g.isfinite().all()


# ---- sampling -------------------------------------------------------------------------------------------------


def matches(sample, law):
    assert stats.kstest(sample.numpy(), law.cdf).pvalue > 1e-4


def test_laws_of_sampling():
    n, size = 5, 20000
    draws = {"generator": generator(3), "dtype": F64}
    x = M.random(size, n, **draws)
    matches(x[:, 2], stats.beta(1, n - 1))
    volume = M.random_uniform(size, n, **draws)
    matches(volume[:, 0], stats.beta(0.5, (n - 1) / 2))
    sphere = Sphere().random_uniform(size, n, **draws).square()
    for f in (lambda p: p.amax(-1), lambda p: M.dist(p, M.origin(n, dtype=F64)), lambda p: p[:, :2].sum(-1)):
        assert stats.ks_2samp(f(volume).numpy(), f(sphere).numpy()).pvalue > 1e-4
    alpha = torch.tensor([0.3, 2.0, 7.0])
    y = M.random_dirichlet(size, 3, concentration=alpha, **draws)
    for i in range(3):
        matches(y[:, i], stats.beta(float(alpha[i]), float(alpha.sum() - alpha[i])))
    rare = M.random_dirichlet(1000, 4, concentration=1e-3, generator=generator(4))
    assert rare.dtype == F32 and M.check_point_on_manifold(rare) and M.logmap(rare, rare.flip(0)).isfinite().all()
    assert (rare.amax(-1) > 0.9).double().mean() > 0.97  # nearly all at a corner
    assert M.random(2, 3, device="meta").shape == (2, 3)
    for wrong in (0.0, -1.0, math.inf, torch.tensor([1.0, 0.0, 1.0]), torch.ones(4)):
        with pytest.raises(ValueError, match=r"Simplex.random_dirichlet: concentration"):
            M.random_dirichlet(2, 3, concentration=wrong)


def test_normal_laws_stay_inside():
    mean = torch.tensor([0.01, 0.29, 0.7], dtype=F64)
    x = M.random_normal(2000, 3, mean=mean, std=0.5, generator=generator(5), dtype=F64)
    assert M.check_point_on_manifold(x)
    u = M.logmap(mean, x)
    assert M.exp_is_defined(mean, u).all() and M.norm(mean, u).max() > 0.8
    with pytest.raises(ValueError, match=r"Simplex.random_normal: std is too large, .* left the space 100 times"):
        M.random_normal(100, 3, std=1e6, generator=generator(6))


# ---- means, decay, compositions -------------------------------------------------------------------------------


def test_means_exist_and_are_unique():
    n = 300
    vertices = M.projx(torch.eye(n, dtype=F64))  # as far apart as points can be
    close(M.frechet_mean(vertices), M.origin(n, dtype=F64), 1e-12)
    x = M.random_uniform(40, 20, 6, generator=generator(7), dtype=F64)
    mean = M.frechet_mean(x)
    assert M.check_point_on_manifold(mean) and M.karcher_residual(x, mean).max() < 1e-12
    for start in (x[0], x[1], M.restore(x[2] ** 20)):
        close(M.frechet_mean(x, start=start), mean, 1e-12)
    flat = M.frechet_mean(torch.eye(3, dtype=F64), torch.tensor([0.5, 0.25, 0.25], dtype=F64))  # zero entries
    assert M.check_point_on_manifold(flat) and M.karcher_residual(torch.eye(3, dtype=F64), flat, None).isfinite()
    step = M.logmap(x[0], x).mean(0)
    assert M.exp_is_defined(x[0], step).all()  # a mean of logarithms stays inside, from wherever


def test_decay_leads_to_the_uniform_distribution():
    x = M.random(10, 4, generator=generator(8), dtype=F64)
    o = M.origin(4, dtype=F64)
    for factor in (1.0, 0.7, torch.tensor(0.01, dtype=F64), 0.0):
        close(M.dist(o, M.decay(x, factor)), factor * M.dist(o, x), 1e-7)
    close(M.decay(x, 1.0), x)
    assert M.decay(x.bfloat16(), 0.5).dtype == torch.bfloat16


def test_inside_of_compositions():
    for m, shape in ((Power(M, 3), (3, 4)), (Product((M, Sphere()), ((4,), (3,))), (7,)), (Scaled(M, 2.0), (4,))):
        x, y = (m.random(5, *shape, generator=generator(s), dtype=F64) for s in (9, 10))
        u = m.random_tangent(x, generator=generator(11))
        for end in (m.retr(x, 10 * u), m.projx(y - 0.2), m.round_to(x, torch.float16), m.restore(x)):
            assert m.check_point_on_manifold(end)
        close(m.inverse_retr(x, m.retr(x, 0.1 * u)), 0.1 * u, 1e-12)
        assert m.dist(x, m.frechet_mean(torch.stack([x, y]))).isfinite().all()

    class Halves(Chart):
        """One distribution as twice as many outcomes, which is no use but a chart."""

        def forward(self, x):
            return x / x.sum(-1, keepdim=True)

        def inverse(self, y):
            return y

    pulled = Pullback(M, Halves())
    x = M.random(20, 4, generator=generator(12), dtype=F64)
    x[0] = torch.tensor([1e-12, 1e-9, 0.4, 0.6])
    x = M.projx(x)
    for dtype in (F32, torch.float16):
        assert M.check_point_on_manifold(pulled.round_to(x, dtype))


def test_a_hundred_thousand_outcomes():
    n = 100_000
    x, y = M.random(2, n, generator=generator(13), dtype=F32)
    u = M.random_tangent(x, generator=generator(14)) / n**0.5
    true = 2 * (x.double() / x.double().sum() * y.double() / y.double().sum()).sqrt().sum().acos()
    assert abs(M.dist(x, y).double() / true - 1) < 1e-6
    for z in (M.retr(x, u), M.projx(y - 1 / n), M.expmap(x, 0.5 * M.logmap(x, y)), M.frechet_mean(torch.stack([x, y]))):
        assert M.check_point_on_manifold(z)
    close(M.expmap(x, M.logmap(x, y)) * n, y * n, 1e-4)


# ---- optimizers -----------------------------------------------------------------------------------------------


def target_next_to_a_face(dtype):
    t = torch.tensor([[1e-8, 1e-4, 0.3, 0.7], [0.999, 1e-3, 1e-6, 1e-6]], dtype=F64)
    return (t / t.sum(-1, keepdim=True)).to(dtype)


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("optimizer", [RiemannianSGD, RiemannianAdam])
def test_stepwise_optimizers_reach_a_target_next_to_a_face(optimizer, dtype):
    target = target_next_to_a_face(dtype)
    x = ManifoldParameter(M.projx(target.flip(-1)), M)
    options = {"lr": 0.5, "momentum": 0.3} if optimizer is RiemannianSGD else {"lr": 0.1}
    made, steps = optimizer([x], **options), 150 if optimizer is RiemannianSGD else 250
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(made, steps)
    for _ in range(steps):
        made.step(closure_of(made, lambda: 0.5 * M.dist2(x, target).sum()))
        schedule.step()
        assert M.check_point_on_manifold(x.detach())
    assert M.dist(x.detach(), target).max() < (1e-5 if optimizer is RiemannianSGD else 3e-3)


@pytest.mark.parametrize("solver", [RiemannianLBFGS, RiemannianTrustRegion])
def test_solvers_reach_a_target_next_to_a_face(solver):
    target = target_next_to_a_face(F64)
    x = ManifoldParameter(M.projx(target.flip(-1)), M)
    made = solver([x], max_iter=100)
    made.step(closure_of(made, lambda: -(target * x.log()).sum()))  # cross entropy, steep next to a face
    assert M.check_point_on_manifold(x.detach()) and M.dist(x.detach(), target).max() < 1e-6


def test_huge_steps_never_leave():
    x = ManifoldParameter(M.random(50, 6, generator=generator(15)), M)
    made = RiemannianSGD([x], lr=1e3, momentum=0.9)
    weights = torch.randn(50, 6, generator=generator(16))
    for _ in range(30):
        made.step(closure_of(made, lambda: (weights * x).sum()))
        assert M.check_point_on_manifold(x.detach())
    assert ((weights * x.detach()).sum(-1) - weights.amin(-1)).max() < 1e-2  # at the cheapest corner
