"""Means that do not depend on the order of the points, on points of weight zero, or on where the search starts."""

import itertools
import re

import pytest
import torch

from tests.laws.table import TABLE
from torchriemann.manifolds import (
    Euclidean,
    Grassmann,
    Lorentz,
    Orthogonal,
    PoincareBall,
    Power,
    Product,
    ProjectedSphere,
    Scaled,
    SpecialOrthogonal,
    Sphere,
    Stiefel,
)

D = torch.float64
SPACES = [
    (Euclidean(), (3,)),
    (Sphere(2.0), (4,)),
    (Lorentz(), (4,)),
    (PoincareBall(), (3,)),
    (ProjectedSphere(), (3,)),
    (SpecialOrthogonal(), (3, 3)),
    (Orthogonal(), (3, 3)),
    (Grassmann(), (5, 2)),
    (Stiefel(0.5), (4, 2)),
    (Product((Sphere(), SpecialOrthogonal()), ((3,), (3, 3))), (12,)),
    (Power(Grassmann(), 2), (2, 4, 1)),
    (Scaled(Sphere(), 2.0), (3,)),
]


def cloud(m, shape, count=5, seed=1):
    g = torch.Generator().manual_seed(seed)
    x = m.random(1, *shape, generator=g, dtype=D).expand(count, *shape)
    return m.expmap(x, 0.2 * m.random_tangent(x, g))


def test_a_first_rotation_of_weight_zero_at_a_half_turn():
    m = SpecialOrthogonal()
    x = cloud(m, (3, 3))
    far = m.projx(x.mean(0)) @ torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=D))
    w = torch.tensor([0.0, 1, 1, 1, 1, 1], dtype=D)
    assert m.dist(m.frechet_mean(torch.cat([far[None], x]), w), m.frechet_mean(x)) < 1e-12


@pytest.mark.parametrize("m, shape", SPACES, ids=repr)
def test_whatever_has_weight_zero_is_left_out(m, shape):
    x = cloud(m, shape)
    mean, one = m.frechet_mean(x), torch.ones(5, dtype=D)
    for bad in (torch.nan, torch.inf, 0.0, -1.0, 1e200):
        y = torch.cat([bad * x[:1], x]).requires_grad_()
        w = torch.cat([torch.zeros(1, dtype=D), one]).requires_grad_()
        got = m.frechet_mean(y, w)
        gy, gw = torch.autograd.grad(got.sin().sum() + m.frechet_variance(y, w), (y, w))
        assert m.dist(got, mean) < 1e-12
        assert (gy[0] == 0).all()
        assert gy.isfinite().all() and gw.isfinite().all()
        unrolled = torch.func.grad(lambda y, w: m.frechet_mean(y, w, max_iter=3).sum(), (0, 1))(y.detach(), w.detach())
        assert (unrolled[0][0] == 0).all()
        assert all(g.isfinite().all() for g in unrolled)
        assert m.karcher_residual(y, got, w) < 1e-10


def test_a_reflection_of_weight_zero_among_rotations():
    m, x = Orthogonal(), cloud(SpecialOrthogonal(), (3, 3))
    y = torch.cat([-x[:1], x]).requires_grad_()
    w = torch.tensor([0.0, 1, 1, 1, 1, 1], dtype=D)
    mean = m.frechet_mean(y, w)
    (g,) = torch.autograd.grad(mean.sum(), y)
    assert m.dist(mean, m.frechet_mean(x)) < 1e-12
    assert g.isfinite().all() and (g[0] == 0).all()


def test_the_derivative_in_a_weight_of_zero_is_the_one_sided_quotient():
    m = SpecialOrthogonal()
    x, w = cloud(m, (3, 3)), torch.tensor([0.0, 1.0, 2.0, 1.0, 0.5], dtype=D)

    def value(w):
        return m.frechet_mean(x, w, tol=1e-14)[0, 1]

    leaf, e = w.clone().requires_grad_(), torch.eye(5, dtype=D)[0]
    (g,) = torch.autograd.grad(value(leaf), leaf)
    quotient = (-3 * value(w) + 4 * value(w + 1e-4 * e) - value(w + 2e-4 * e)) / 2e-4
    assert float(g[0]) == pytest.approx(float(quotient), rel=1e-6)


TIES = [[[1.0, 0, 0], [-1, 0, 0]], [[0.0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], [[0.6, 0.8, 0], [-0.6, -0.8, 0]]]


@pytest.mark.parametrize("points", TIES, ids=len)
def test_points_with_many_means_give_the_same_one_in_every_order(points):
    m, x = Sphere(), torch.tensor(points, dtype=D)
    means = torch.stack([m.frechet_mean(x[list(p)]) for p in itertools.permutations(range(len(x)))])
    assert (means - means[0]).abs().max() < 1e-12


@pytest.mark.parametrize("m, shape", SPACES, ids=repr)
def test_start(m, shape):
    x = torch.stack([cloud(m, shape), cloud(m, shape, seed=2)], 1)
    start = x[3, :1].clone().requires_grad_()
    with torch.enable_grad():
        got = m.frechet_mean(x.requires_grad_(), start=start)
    assert (m.dist(got, m.frechet_mean(x)) < 1e-10).all()
    assert torch.autograd.grad(got.sum(), start, allow_unused=True) == (None,)
    name = type(m).__name__
    with pytest.raises(ValueError, match=f"{name}.frechet_mean: start must broadcast to"):
        m.frechet_mean(x, start=x[:3])
    with pytest.raises(ValueError, match=f"{name}.frechet_mean"):
        m.frechet_mean(x, start=torch.zeros(3, *(n + 1 for n in shape), dtype=D))


def test_a_start_decides_between_local_minima():
    m = Sphere()
    angles = torch.tensor([0.0, 2.0943951, 4.1887902], dtype=D)
    x = torch.stack([angles.cos(), angles.sin()], -1)  # on a circle: a mean in every gap and on every point
    for start in x:
        turned = torch.stack([-start[1], start[0]]) * 0.2 + start
        got = m.frechet_mean(x, start=m.projx(turned))
        assert m.dist(got, start) < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_variance_in_half_precision(dtype):
    m = Sphere()
    x = cloud(m, (3,)).to(dtype)
    got = m.frechet_variance(x)
    assert got.dtype == dtype
    assert float(got) == pytest.approx(float(m.frechet_variance(m.projx(x.double()))), rel=0.02)


@pytest.mark.parametrize("m, shape", SPACES, ids=repr)
def test_variance_has_the_gradient_of_a_fixed_mean_and_no_second_one(m, shape):
    x, w = cloud(m, shape).requires_grad_(), torch.rand(5, dtype=D, generator=torch.Generator().manual_seed(3)) + 0.5
    (got,) = torch.autograd.grad(m.frechet_variance(x, w), x, create_graph=True)
    (want,) = torch.autograd.grad(m.frechet_variance(x, w, m.frechet_mean(x, w).detach()), x)
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10)
    if not isinstance(m, Euclidean):
        with pytest.raises(NotImplementedError, match="Frechet mean"):
            torch.autograd.grad(got.sum(), x)


def test_a_mean_has_no_dimension_of_items():
    m = Sphere()
    x = torch.stack([cloud(m, (3,)), cloud(m, (3,), seed=2)], 1)
    for mean in (x, x.expand(7, *x.shape)):
        with pytest.raises(ValueError, match=r"Sphere.frechet_variance: mean must broadcast to \(2, 3\)"):
            m.frechet_variance(x, None, mean)
        with pytest.raises(ValueError, match=r"Sphere.karcher_residual: mu must broadcast to \(2, 3\)"):
            m.karcher_residual(x, mean)
    one = m.frechet_variance(x, None, x[0, 0])
    torch.testing.assert_close(one, m.frechet_variance(x, None, x[0, :1].expand(2, 3)))


def test_variance_of_learned_curvatures():
    def value(k):
        m = Product((Sphere(k[0]), Lorentz(-k[1])), ((3,), (3,)))
        z = torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=D)
        return m.frechet_variance(m.from_normal(0.4 * z))

    k = torch.tensor([0.7, 0.5], dtype=D, requires_grad=True)
    (g,) = torch.autograd.grad(value(k), k)
    for i, e in enumerate(torch.eye(2, dtype=D)):
        quotient = (value(k.detach() + 1e-5 * e) - value(k.detach() - 1e-5 * e)) / 2e-5
        assert float(g[i]) == pytest.approx(float(quotient), rel=1e-6)


@pytest.mark.parametrize("m, shape", [s for s in SPACES if len(s[1]) > 1], ids=repr)
def test_single_precision_has_the_gradient_of_double(m, shape):
    # Conjugate gradients went on with what rounding had left, along which the Hessian is next to nothing.
    x = torch.stack([cloud(m, shape), cloud(m, shape, seed=2)], 1)
    probe = torch.randn(2, *shape, dtype=D, generator=torch.Generator().manual_seed(5))
    found = []
    for dtype in (D, torch.float32):
        leaf = m.projx(x).to(dtype).requires_grad_()
        (g,) = torch.autograd.grad((m.logmap(leaf[0].detach(), m.frechet_mean(leaf)) * probe.to(dtype)).sum(), leaf)
        found.append(m.proju(leaf, g).detach().double())
    assert (found[1] - found[0]).abs().max() < 1e-4


@pytest.mark.parametrize("case", TABLE, ids=lambda case: repr(case.manifold))
def test_messages_name_the_operation_that_was_called(case):
    m, shape = case.manifold, case.shapes[0]
    x = m.origin(2, *shape)
    calls = {
        "frechet_mean": lambda w: m.frechet_mean(x, w),
        "frechet_variance": lambda w: m.frechet_variance(x, w),
        "karcher_residual": lambda w: m.karcher_residual(x, x[0], w),
        **({"centroid": lambda w: m.centroid(x, w)} if isinstance(m, Lorentz) else {}),
        **({"chordal_mean": lambda w: m.chordal_mean(x, w)} if isinstance(m, Grassmann) else {}),
    }
    for name, call in calls.items():
        for weights in (torch.ones(3), torch.zeros(2), torch.tensor([1.0, torch.inf]), "all"):
            with pytest.raises(ValueError, match=re.escape(f"{type(m).__name__}.{name}: weights must")):
                call(weights)
    point = torch.zeros(())
    for name in (
        "norm",
        "retr",
        "inverse_retr",
        "restore",
        "midpoint",
        "component_inner",
        "transp_follow_retr",
        "projx",
    ):
        arguments = {"projx": 1, "restore": 1, "transp_follow_retr": 3}.get(name, 2)
        with pytest.raises(ValueError, match=re.escape(f"{type(m).__name__}.{name}: needs at least")):
            getattr(m, name)(*[point] * arguments)
