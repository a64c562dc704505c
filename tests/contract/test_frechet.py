"""Frechet means where the iteration has nothing to do or far to go, in half precision, and under transforms."""

import warnings

import mpmath
import pytest
import torch

from torchriemann.manifolds import Euclidean, Grassmann, Product, Scaled, Sphere, Stiefel
from torchriemann.manifolds.constant_curvature.lorentz import Lorentz
from torchriemann.manifolds.constant_curvature.stereographic import PoincareBall, Stereographic
from torchriemann.manifolds.frechet import hessian_by_pullback

D = torch.float64
SPACES = [(Euclidean(), (4,)), (Sphere(2.0), (4,)), (Grassmann(), (5, 2)), (Stiefel(), (4, 2))]


def cloud(m, shape, spread: float, count: int = 5, dtype=D):
    x = m.origin(1, *shape, dtype=dtype).expand(count, *shape)
    return m.expmap(x, spread * m.random_tangent(x, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("m, shape", SPACES, ids=repr)
def test_gradient_at_coincident_points_is_shared_under_func_grad(m, shape):
    # The first point is the mean already: a flow that stands still gives it the whole gradient.
    points = m.origin(3, *shape, dtype=D)
    direction = m.random_tangent(points[0], torch.Generator().manual_seed(0))

    def along(p):
        return (direction * m.frechet_mean(p, max_iter=8)).sum()

    leaf = points.clone().requires_grad_()
    (implicit,) = torch.autograd.grad(along(leaf), leaf)
    for g in (implicit, torch.func.grad(along)(points)):
        tangent = m.proju(points, g)
        torch.testing.assert_close(tangent, direction.expand_as(tangent) / 3, rtol=1e-9, atol=1e-9)


def test_second_derivative_raises():
    m = Sphere()
    points = cloud(m, (3,), 0.3).requires_grad_()
    (g,) = torch.autograd.grad(m.frechet_mean(points)[0], points, create_graph=True)
    with pytest.raises(NotImplementedError, match="Frechet mean"):
        torch.autograd.grad(g.sum(), points)


@pytest.mark.parametrize("m, shape", SPACES, ids=repr)
def test_half_precision_averages(m, shape):
    points = cloud(m, shape, 0.3, dtype=torch.float32).bfloat16()
    mean = m.frechet_mean(points)
    assert mean.dtype == torch.bfloat16
    exact = m.frechet_mean(m.projx(points.double()))
    assert (mean.double() - exact).abs().max() < 0.02
    assert (points[0].double() - exact).abs().max() > 0.05  # what the first iterate would have been


def test_mean_stays_on_the_sphere():
    # exp after log multiplies radial drift at every step; wide clouds take many.
    m, generator = Sphere(), torch.Generator().manual_seed(0)
    x = m.origin(20, 40, 3, dtype=D)
    points = m.expmap(x, 0.5 * m.random_tangent(x, generator))
    assert m.check_point_on_manifold(m.frechet_mean(points, max_iter=400))


def test_vmap_over_the_weights():
    m = Sphere()
    points, weights = cloud(m, (3,), 0.3, 4), torch.rand(2, 4, dtype=D)
    batched = torch.func.vmap(lambda w: m.frechet_mean(points, w))(weights)
    torch.testing.assert_close(batched, torch.stack([m.frechet_mean(points, w) for w in weights]))


@pytest.mark.parametrize("weights", [[1.0, -1, 1], [0.0, 0, 0], [1.0, torch.nan, 1]])
def test_weights_that_are_none(weights):
    m = Sphere()
    with pytest.raises(ValueError, match="Sphere.frechet_mean: weights must be non-negative"):
        m.frechet_mean(m.origin(3, 4), torch.tensor(weights))


# ---- constant curvature ---------------------------------------------------------------------------------------

CURVED = [Sphere(), Sphere(0.3), Lorentz(-2.0), PoincareBall(), Stereographic(-0.5), Stereographic(0.0)]


def around_origin(m, count, spread, *, batch=(), d=3, seed=0, dtype=D):
    """Points at random distances up to `spread` from the origin, and weights."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(count, *batch, d, generator=g, dtype=D)
    radius = spread * torch.rand(count, *batch, 1, generator=g, dtype=D) ** (1 / d)
    w = torch.rand(count, *batch, generator=g, dtype=D) + 0.1
    return m.from_normal((radius * z / z.norm(dim=-1, keepdim=True)).to(dtype)), w.to(dtype)


@pytest.mark.parametrize("m", CURVED, ids=repr)
def test_closed_hessian_is_the_derivative_of_the_field(m):
    x, w = around_origin(m, 6, 0.9, batch=(2,))
    mu = m.frechet_mean(x, w)
    w = (w / w.sum(0)).unsqueeze(-1)
    v = m.random_tangent(mu, torch.Generator().manual_seed(3))
    got, want = m._mean_hessian(mu, x, w)(v), hessian_by_pullback(m, mu, x, w)(v)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [D, torch.float32])
@pytest.mark.parametrize("m", [Lorentz(), PoincareBall(), Stereographic(-1.0)], ids=repr)
@pytest.mark.parametrize("spread", [1.0, 5.0, 10.0])
def test_points_far_apart(m, spread, dtype):
    # The Hessian is up to `spread` times the identity: a flow by the mean logarithm jumps back and forth for ever.
    x, w = around_origin(m, 20, spread, batch=(4,), dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mu = m.frechet_mean(x, w)
    shares = (w / w.sum(0)).double().unsqueeze(-1)
    residual = (shares * m.logmap_frame(mu.double(), x.double())).sum(0).norm(dim=-1).max()
    # The mean is known as well as its own coordinates are, at its radius.
    floor = torch.finfo(dtype).eps * m.dist0(mu).cosh().max()
    assert residual < 200 * spread * floor


def lorentz_residual(x, mu):
    """Mean of the logarithms of points x at mu, all by their space parts, in the frame at mu, with 60 digits."""
    with mpmath.workdps(60):

        def lifted(row):
            s = [mpmath.mpf(a) for a in row]
            return mpmath.sqrt(1 + sum(a * a for a in s)), s

        t, s = lifted(mu)
        total = [mpmath.mpf(0)] * len(s)
        for row in x:
            ty, y = lifted(row)
            along = sum(a * b for a, b in zip(s, y, strict=True))
            moved = [b - (ty - along / (1 + t)) * a for a, b in zip(s, y, strict=True)]  # (-mu) (+) y
            length = mpmath.sqrt(sum(a * a for a in moved))
            total = [a + mpmath.asinh(length) / length * b for a, b in zip(total, moved, strict=True)]
        return float(mpmath.sqrt(sum(a * a for a in total)) / len(x))


@pytest.mark.parametrize(
    "dtype, radius", [(D, 10.0), (D, 20.0), (D, 30.0), (torch.float32, 8.0), (torch.float32, 12.0)]
)
def test_cluster_far_from_the_origin(dtype, radius):
    m = Lorentz()
    centre = m.from_normal(radius * torch.nn.functional.normalize(torch.tensor([1.0, -2, 3], dtype=dtype), dim=0))
    x = m.expmap_frame(centre, m.to_normal(around_origin(m, 6, 0.5, dtype=dtype)[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mu = m.frechet_mean(x)
    floor = torch.finfo(dtype).eps * float(m.dist0(mu).double().cosh())
    assert lorentz_residual(x[:, 1:].tolist(), mu[1:].tolist()) <= 2 * floor


def quotient(value, at, along, h=1e-4):
    """The derivative along a direction, by five points."""
    f = {k: float(value(*(a + k * h * d for a, d in zip(at, along, strict=True))).detach()) for k in (-2, -1, 1, 2)}
    return (8 * (f[1] - f[-1]) - (f[2] - f[-2])) / (12 * h)


@pytest.mark.parametrize(
    "model, start",
    [(Sphere, 0.6), (Lorentz, -0.8), (PoincareBall, -0.8), *((Stereographic, k) for k in (-0.8, 0.0, 0.6))],
)
def test_gradient_in_points_weights_and_curvature(model, start):
    g = torch.Generator().manual_seed(0)
    z, dz, probe = (torch.randn(4, 2, 3, generator=g, dtype=D) for _ in range(3))
    w, dw = torch.rand(4, 2, generator=g, dtype=D) + 0.5, torch.rand(4, 2, generator=g, dtype=D)

    def value(z, w, k):
        m = model(k)
        x = m.from_normal(0.5 * z)
        mean = m.frechet_mean(x, w, tol=1e-14)
        return (probe[0] * m.to_normal(mean)).sum() + mean[..., 0].sum()

    at = (z, w, torch.tensor(start, dtype=D))
    leaves = [a.clone().requires_grad_() for a in at]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the goal is below rounding
        gradients = torch.autograd.grad(value(*leaves), leaves)
        for i, along in enumerate((dz, dw, torch.tensor(0.3, dtype=D))):
            only = tuple(along if j == i else torch.zeros_like(a) for j, a in enumerate(at))
            got = float((gradients[i] * along).sum())
            assert got == pytest.approx(quotient(value, at, only), rel=1e-7, abs=1e-8), ("points", "weights", "K")[i]
    assert float(gradients[2].abs()) > 1e-4


def test_second_derivative_in_the_curvature_raises():
    k = torch.tensor(-1.0, dtype=D, requires_grad=True)
    m = PoincareBall(k)
    mean = m.frechet_mean(around_origin(PoincareBall(), 4, 0.5)[0])
    (g,) = torch.autograd.grad(mean.sum(), k, create_graph=True)
    with pytest.raises(NotImplementedError, match="Frechet mean"):
        torch.autograd.grad(g, k)


def test_unrolled_derivative_is_the_implicit_one():
    m = Lorentz()
    x, w = around_origin(m, 6, 3.0)

    def value(x):
        return m.frechet_mean(x, w, max_iter=12)[1:].sum()

    leaf = x.clone().requires_grad_()
    (implicit,) = torch.autograd.grad(value(leaf), leaf)
    torch.testing.assert_close(torch.func.grad(value)(x), implicit, rtol=0, atol=1e-9)


@pytest.mark.parametrize("model, start", [(PoincareBall, -0.8), (Lorentz, -0.8)])
def test_functional_derivative_in_the_curvature_alone(model, start):
    x, w = around_origin(model(start), 5, 1.0)
    k = torch.tensor(start, dtype=D, requires_grad=True)

    def value(k):
        return model(k).frechet_mean(x, w, max_iter=15)[..., 1:].sum()

    (implicit,) = torch.autograd.grad(value(k), k)
    torch.testing.assert_close(torch.func.grad(value)(k.detach()), implicit, rtol=1e-9, atol=1e-12)
    assert float(implicit) == pytest.approx(quotient(value, (k.detach(),), (torch.ones((), dtype=D),)), rel=1e-6)


def test_product_with_learned_curvatures():
    def value(k, scale):
        m = Product((Lorentz(k[0]), Scaled(Sphere(k[1]), scale), Stereographic(k[2])), ((3,), (3,), (2,)))
        z = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=D)
        mean = m.frechet_mean(m.from_normal(0.4 * z))
        return (m.to_normal(mean) * torch.arange(1, 7)).sum()

    at = (torch.tensor([-0.7, 0.5, 0.0], dtype=D), torch.tensor(1.5, dtype=D))
    leaves = [a.clone().requires_grad_() for a in at]
    gradients = torch.autograd.grad(value(*leaves), leaves)
    for i in range(3):
        along = (torch.eye(3, dtype=D)[i], torch.tensor(0.0, dtype=D))
        assert float(gradients[0][i]) == pytest.approx(quotient(value, at, along, 1e-3), rel=1e-6)
    along = (torch.zeros(3, dtype=D), torch.tensor(1.0, dtype=D))
    assert float(gradients[1]) == pytest.approx(quotient(value, at, along, 1e-3), rel=1e-6)


def test_a_mean_that_is_nan_is_not_called_slow():
    """An item that is NaN is told as such, and the other means of the batch are no part of it."""
    x = cloud(Sphere(), (3,), 0.3).unsqueeze(1).repeat(1, 4, 1)
    x[2, 1] = torch.nan
    for given, start in ((x, None), (x[:, 0], torch.full((3,), torch.nan, dtype=D))):
        with pytest.warns(RuntimeWarning, match="is NaN: an item of x is not finite.*weight 0") as caught:
            mean = Sphere().frechet_mean(given, start=start)
        assert len(caught) == 1 and mean.isnan().any()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Sphere().frechet_mean(x, max_iter=1, start=x[0])
    slow, lost = (str(warning.message) for warning in caught)
    assert "not converged after 1 iterations" in slow and "nan" not in slow and "weight 0" in lost
    weights = torch.ones(5, dtype=D).index_fill(0, torch.tensor([2]), 0.0)
    assert Sphere().frechet_mean(x, weights).isfinite().all()
