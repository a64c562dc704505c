"""The sphere against outside libraries, and against the accuracy that its class states."""

import math

import geomstats.backend  # noqa: F401  (geomstats reads its backend at import)
import mpmath
import numpy as np
import pymanopt
import pytest
import torch
from geomstats.geometry.hypersphere import Hypersphere

from torchriemann.manifolds import Sphere, Stiefel
from torchriemann.manifolds.functional.rows import dot
from torchriemann.manifolds.functional.sphere import sphere_exp


@pytest.fixture(autouse=True)
def digits():
    with mpmath.workdps(50):
        yield


F64 = torch.float64


def pairs(n, count=20, seed=0, dtype=F64, curvature=1.0):
    m, g = Sphere(curvature), torch.Generator().manual_seed(seed)
    x, y = (m.random_uniform(count, n, generator=g, dtype=dtype) for _ in range(2))
    return m, x, y, m.random_tangent(x, generator=g)


def pair_at(theta, dtype, n=5, seed=0):
    """Rounded points at an angle of about theta, and their angle as it is after rounding."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, generator=g, dtype=F64)
    u = torch.randn(n, generator=g, dtype=F64)
    x = x / x.norm()
    u = u - (u @ x) * x
    y = math.cos(theta) * x + math.sin(theta) * u / u.norm()
    x, y = x.to(dtype), y.to(dtype)
    return x, y, angle_between(x, y)


def angle_between(x, y):
    """The angle of two vectors of any length, at 50 digits."""
    a, b = (mpmath.matrix(v.tolist()) for v in (x, y))
    a, b = a / mpmath.norm(a), b / mpmath.norm(b)
    return float(2 * mpmath.atan2(mpmath.norm(a - b), mpmath.norm(a + b)))


@pytest.mark.parametrize("n", [2, 3, 6])
def test_geomstats(n):
    m, x, y, u = pairs(n)
    other = Hypersphere(n - 1)
    near = torch.as_tensor
    torch.testing.assert_close(m.expmap(x, u), near(other.metric.exp(u.numpy(), x.numpy())), rtol=0, atol=1e-13)
    torch.testing.assert_close(m.logmap(x, y), near(other.metric.log(y.numpy(), x.numpy())), rtol=0, atol=1e-12)
    torch.testing.assert_close(m.dist(x, y), near(other.metric.dist(x.numpy(), y.numpy())), rtol=0, atol=1e-12)
    along = m.logmap(x, y)
    moved = other.metric.parallel_transport(u.numpy(), x.numpy(), direction=along.numpy())
    torch.testing.assert_close(m.parallel_transport(x, y, u), near(moved), rtol=0, atol=1e-12)


def test_pymanopt():
    m, x, y, u = pairs(5, count=1)
    other = pymanopt.manifolds.Sphere(5)
    a, b, d = x[0].numpy(), y[0].numpy(), u[0].numpy()
    g, h = (np.random.default_rng(s).standard_normal(5) for s in (0, 1))
    hess = m.ehess2rhess(x[0], torch.tensor(g), torch.tensor(h), u[0])
    for got, want in (
        (m.expmap(x, u)[0], other.exp(a, d)),
        (m.logmap(x, y)[0], other.log(a, b)),
        (m.retr(x, u)[0], other.retraction(a, d)),
        (m.dist(x, y)[0], other.dist(a, b)),
        (m.transp(x, y, u)[0], other.transport(a, b, d)),
        (m.proju(x[0], torch.tensor(g)), other.projection(a, g)),
        (hess, other.euclidean_to_riemannian_hessian(a, g, h, d)),
    ):
        torch.testing.assert_close(got, torch.as_tensor(np.asarray(want)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype, bound", [(F64, 1e-14), (torch.float32, 1e-6)])
@pytest.mark.parametrize("theta", [1e-6, 1e-4, 0.01, 0.5, math.pi / 2, 3.0, 3.14159])
def test_distance_is_relatively_accurate_with_a_unit_gradient(theta, dtype, bound):
    # By arccos, any two points in float32 that are closer than 0.014 are 0.014 apart, with gradient zero.
    for seed in range(5):
        x, y, true = pair_at(theta, dtype, seed=seed)
        x.requires_grad_()
        d = Sphere().dist(x, y)
        assert abs(d.item() - true) <= bound * max(true, 1e-9), (d.item(), true)
        (g,) = torch.autograd.grad(d, x)
        assert abs(Sphere().egrad2rgrad(x.detach(), g).norm().item() - 1) < 20 * torch.finfo(dtype).eps / min(theta, 1)


@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("theta", [1e-6, 0.5, 3.0, 3.14])
def test_logarithm_has_the_length_of_the_distance(theta, dtype):
    x, y, true = pair_at(theta, dtype)
    u = Sphere().logmap(x, y)
    assert abs(u.norm().item() / true - 1) < 50 * torch.finfo(dtype).eps
    assert abs((u @ x).item()) < 20 * torch.finfo(dtype).eps * true


def test_antipode():
    # geoopt's logarithm at the exact antipode is the zero vector.
    m, x, _, _ = pairs(4)
    u = m.logmap(x, -x)
    torch.testing.assert_close(m.dist(x, -x), torch.full((20,), math.pi, dtype=F64), rtol=1e-15, atol=0)
    torch.testing.assert_close(u.norm(dim=-1), torch.full((20,), math.pi, dtype=F64), rtol=1e-14, atol=0)
    torch.testing.assert_close(m.expmap(x, u), -x, rtol=0, atol=1e-14)
    assert not m.log_is_unique(x, -x).any()
    x = x.requires_grad_()
    for out in (m.dist(x, -x.detach()), m.logmap(x, -x.detach())):
        assert torch.autograd.grad(out.sum(), x)[0].isfinite().all()


def test_exponential_at_zero_has_a_gradient():
    # 0/0 in the branch that is not taken.
    e, u = torch.eye(3, dtype=F64)[0], torch.zeros(3, dtype=F64, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(lambda u: Sphere().expmap(e, u), u)
    torch.testing.assert_close(jacobian, torch.eye(3, dtype=F64), rtol=0, atol=0)
    hessian = torch.autograd.functional.hessian(lambda u: Sphere().expmap(e, u)[0], u)
    torch.testing.assert_close(hessian, -torch.eye(3, dtype=F64), rtol=0, atol=0)


def test_distance_to_itself_is_exactly_zero():
    for dtype in (torch.float32, F64):
        m, x, _, _ = pairs(7, count=200, dtype=dtype)
        x.requires_grad_()
        for out in (m.dist(x, x.detach()), m.dist2(x, x.detach())):
            assert (out == 0).all()
            assert (torch.autograd.grad(out.sum(), x)[0] == 0).all()


@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_logarithm_to_itself_is_exactly_zero_with_the_projection_as_derivative(dtype):
    m, x, _, _ = pairs(4, count=1, dtype=dtype)
    x = x[0]
    assert (m.logmap(x, x) == 0).all()
    jacobian = torch.autograd.functional.jacobian(lambda y: m.logmap(x, y), x)
    expected = torch.eye(4, dtype=dtype) - x * x[:, None]
    torch.testing.assert_close(jacobian, expected, rtol=0, atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("theta", [1e-6, 1.0, math.pi - 1e-5])
def test_the_rounding_of_lengths_does_not_count(theta):
    m = Sphere()
    x, y, _ = pair_at(theta, torch.float32)
    longer = x * (1 + 4e-7)
    assert abs(m.dist(longer, y).item() / angle_between(longer, y) - 1) < 4e-7
    assert (m.logmap(longer, y) @ longer).abs() < 4e-7 * theta


def test_bfloat16_and_autocast():
    # geoopt looks eps up in a dictionary that has no half types; a fixed tolerance rejects its own points.
    m, x, y, u = pairs(5, dtype=torch.float32)
    half = [a.bfloat16() for a in (x, y, u)]
    for out in (m.dist(*half[:2]), m.expmap(half[0], half[2]), m.logmap(*half[:2])):
        assert out.dtype == torch.bfloat16 and out.isfinite().all()
    assert m.check_point_on_manifold(half[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert m.dist(x, y).dtype == torch.float32
        assert m.check_point_on_manifold(x)


@pytest.mark.parametrize("shape", [(6, 5), (5,), (2, 1, 5), (0, 5)])
def test_projection_keeps_the_shape(shape):
    # A batch dimension that equals a dimension of an option is broadcast against it.
    assert Sphere().projx(torch.randn(shape)).shape == shape


def test_zero_vector_goes_to_the_origin():
    m = Sphere(4.0)
    torch.testing.assert_close(m.projx(torch.zeros(2, 3)), m.origin(2, 3), rtol=0, atol=0)


@pytest.mark.parametrize("curvature", [0.1, 1.0, 7.0])
def test_curvature_as_a_tensor(curvature):
    K = torch.tensor(curvature, dtype=F64, requires_grad=True)
    _, x, _, _ = pairs(4)
    _, y, _, v = pairs(4, seed=1)

    def value(K):
        m = Sphere(K)
        a, b = m.projx(x), m.projx(y)
        u = 0.3 * m.proju(a, v)
        return (m.dist(a, b).sum() + m.expmap(a, u) * torch.arange(4)).sum() + m.logmap(a, b)[:, 0].sum()

    assert torch.autograd.gradcheck(value, K, rtol=1e-6)
    plain, learned = Sphere(curvature), Sphere(K)
    a, b = plain.projx(x), plain.projx(y)
    torch.testing.assert_close(learned.dist(a, b).detach(), plain.dist(a, b), rtol=1e-15, atol=0)
    assert learned != plain and learned == learned and hash(learned) == hash(learned)


@pytest.mark.parametrize("curvature", [0.0, -1.0, math.inf, math.nan])
def test_curvature_is_checked(curvature):
    with pytest.raises(ValueError, match="Sphere: curvature must be a positive finite number"):
        Sphere(curvature)


def test_distance_scales_with_curvature():
    _, x, y, _ = pairs(3)
    torch.testing.assert_close(Sphere(4.0).dist(x / 2, y / 2), Sphere().dist(x, y) / 2, rtol=1e-14, atol=0)
    assert Sphere(4.0).injectivity_radius() == math.pi / 2


@pytest.mark.parametrize("m, shape", [(Sphere(), (3,)), (Stiefel(), (3, 2))])
def test_geodesic_names_its_order_and_batches(m, shape):
    x, y, t = m.random(4, *shape), m.random(4, *shape), torch.rand(4)
    for first in (0.5, torch.tensor(0.5), t, t[:, None], torch.rand(5, 1, 1), torch.rand(1, 1)):
        with pytest.raises(ValueError, match=rf"{m.name}.geodesic: expected x, y, t in this order, t last"):
            m.geodesic(first, x, y)
    with pytest.raises(ValueError, match="t last; y is 0.5"):
        m.geodesic(x, 0.5, y)
    with pytest.raises(
        ValueError, match=rf"{m.name}.geodesic: batch dimensions \(4,\), \(4,\), \(5,\) do not broadcast"
    ):
        m.geodesic(x, y, torch.rand(5))
    with pytest.raises(ValueError, match="needs at least|arguments are points of different shapes"):
        m.geodesic(x, torch.rand(()), t)  # t is no point here, and not blamed
    assert m.geodesic(x, y, t).shape == x.shape
    assert m.geodesic(x, y[0], t[:, None]).shape == (4, *x.shape)
    torch.testing.assert_close(m.geodesic(x[0], y[0], t)[2], m.geodesic(x[0], y[0], t[2]))


def test_spread_that_does_not_broadcast():
    m = Sphere()
    for std in (torch.ones(4), torch.ones(2, 5), torch.ones(1, 1)):
        with pytest.raises(
            ValueError, match=r"Sphere.random_normal: std must broadcast to the batch \(5,\) of the size"
        ):
            m.random_normal(5, 3, std=std)
    with pytest.raises(ValueError, match=r"std must broadcast to the batch \(1,\) of the size .* got \(5,\)"):
        m.random_normal(1, 3, std=torch.ones(5))
    with pytest.raises(ValueError, match=r"Sphere.random_normal: batch dimensions \(4,\), \(5,\) do not broadcast"):
        m.random_normal(5, 3, mean=m.random(4, 3))
    assert m.random_normal(2, 5, 3, std=torch.ones(2, 1), mean=m.random(5, 3)).shape == (2, 5, 3)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("length", [1e-3, 1.0, 50.0, 1e4, 1e9])
@pytest.mark.parametrize("curvature", [0.3, 1.0])
def test_the_derivatives_of_vectors_of_many_turns(curvature, length, dtype):
    """In closed form, in the vector and in K, as they are of the plain formula; and `expmap_transp` ends where
    `expmap` does."""
    m, x, _, v = pairs(5, dtype=dtype, curvature=curvature)
    u = length * v / v.norm(dim=-1, keepdim=True)
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    found = []
    for formula in (lambda x, u, K: Sphere(K).expmap(x, u), sphere_exp):
        arguments = [a.clone().requires_grad_() for a in (x, u, torch.tensor(curvature, dtype=dtype))]
        first = torch.autograd.grad((formula(*arguments) * weights).sum(), arguments, create_graph=True)
        found.append((*first, torch.autograd.grad((first[1] * v).sum(), arguments[1])[0]))
    # The angle is known to the rounding of the squares that it comes from, or of the turns that were counted.
    rounding = max(64, length if dtype == F64 else 0) * torch.finfo(dtype).eps
    for closed, plain in zip(*found, strict=True):
        assert (closed - plain).abs().max() < 2 * rounding * plain.abs().max()
    y, w = m.expmap_transp(x, u, v)
    assert (y - m.expmap(x, u)).abs().max() < 2 * rounding * y.abs().max()
    assert dot(y, w).abs().max() < 2 * rounding * y.abs().max() * w.abs().max()


@pytest.mark.parametrize("length", [0.0, 1e-9, 1.0, math.pi, 4.0, 3 * math.pi])
@pytest.mark.parametrize("curvature", [0.3, 1.0])
def test_a_translation_by_coordinates_of_any_length(curvature, length):
    m, x, _, _ = pairs(5, curvature=curvature)
    z = torch.nn.functional.normalize(torch.randn(20, 4, generator=torch.Generator().manual_seed(1), dtype=F64), dim=-1)
    generator = torch.zeros(20, 5, 5, dtype=F64)
    generator[:, 1:, 0], generator[:, 0, 1:] = length * z, -length * z
    want = (torch.linalg.matrix_exp(generator) @ x.unsqueeze(-1)).squeeze(-1)
    z = z * (length / curvature**0.5)
    torch.testing.assert_close(m.translated(x, z), want, rtol=0, atol=1e-13 * (1 + length) / curvature**0.5)
    assert torch.autograd.gradcheck(m.translated, (x[:2].requires_grad_(), z[:2].requires_grad_()))
