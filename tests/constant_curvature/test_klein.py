"""The Klein model against 60 digits, against the Poincare ball, and its derivatives."""

import math

import mpmath
import pytest
import torch

from torchriemann.layers import Curvature
from torchriemann.manifolds import GyroManifold
from torchriemann.manifolds.constant_curvature.klein import Klein
from torchriemann.manifolds.constant_curvature.stereographic import PoincareBall
from torchriemann.manifolds.functional.klein_geodesics import klein_exp, klein_transport

F32, F64 = torch.float32, torch.float64
CURVATURES = [-1.0, -0.3, -4.0]


@pytest.fixture(autouse=True)
def digits():
    with mpmath.workdps(60):
        yield


def dot(a, b):
    return mpmath.fsum(p * q for p, q in zip(a, b, strict=True))


def exact(x):
    return [mpmath.mpf(a) for a in x.tolist()]


def exact_dist(x, y, k):
    """By the Lorentz product: cosh = (1 + K<x,y>)/sqrt(om(x) om(y)), which 60 digits can afford."""
    c = (1 + k * dot(x, y)) / mpmath.sqrt((1 + k * dot(x, x)) * (1 + k * dot(y, y)))
    return mpmath.acosh(c) / mpmath.sqrt(-k)


def exact_exp(x, u, k):
    """On the straight line: x + T u/(1 - K T <x,u>/om), T = tanh(r)/r."""
    om = 1 + k * dot(x, x)
    r = mpmath.sqrt(-k * (dot(u, u) / om - k * (dot(x, u) / om) ** 2))
    t = mpmath.tanh(r) / r
    scale = t / (1 - k * t * dot(x, u) / om)
    return [a + scale * b for a, b in zip(x, u, strict=True)]


def unit(n, generator):
    u = torch.randn(n, generator=generator, dtype=F64)
    return u / u.norm()


def at_radius(radius, n, curvature, generator, dtype):
    r = float(mpmath.tanh(radius)) / math.sqrt(-curvature)
    return (r * unit(n, generator)).to(dtype)


def exact_transport(x, y, v, k):
    """That of the hyperboloid, V - <Y,V>/(<X,Y> + 1/K) (X + Y), by the points (1, x)/sqrt(om(x))."""
    a, b = mpmath.sqrt(1 + k * dot(x, x)), mpmath.sqrt(1 + k * dot(y, y))
    X, Y = [1 / a, *[p / a for p in x]], [1 / b, *[p / b for p in y]]
    t = -k * dot(x, v) / a**3
    V = [t, *[p / a + t * q for p, q in zip(v, x, strict=True)]]

    def product(p, q):
        return p[0] * q[0] / k + dot(p[1:], q[1:])

    c = product(Y, V) / (product(X, Y) + 1 / mpmath.mpf(k))
    W = [p - c * (q + r) for p, q, r in zip(V, X, Y, strict=True)]
    return [b * (p - q * W[0]) for p, q in zip(W[1:], y, strict=True)]


@pytest.mark.parametrize("apart", [1e-9, 1.0, 5.0])
@pytest.mark.parametrize("radius", [0.0, 1.0, 6.0])
@pytest.mark.parametrize("curvature", CURVATURES)
def test_transport(curvature, radius, apart):
    generator, m = torch.Generator().manual_seed(0), Klein(curvature)
    x = at_radius(radius, 4, curvature, generator, F64)
    u, v = (m.random_tangent(x, generator) for _ in range(2))
    y = m.expmap(x, apart / m.norm(x, u) * u)
    want = exact_transport(exact(x), exact(y), exact(v), curvature)
    off = torch.tensor(
        [float(p - q) for p, q in zip(exact(m.parallel_transport(x, y, v)), want, strict=True)], dtype=F64
    )
    # Points are rounded by eps, which is eps cosh^2 of the radius of a distance.
    assert m.norm(y, off) < 8e-16 * math.cosh(radius + apart) ** 2 * m.norm(x, v)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("length", [0.0, 1e-8, 1.0, 5.0, 1e10])
@pytest.mark.parametrize("radius", [0.0, 1.0, 3.0])
def test_closed_derivatives_of_geodesics(radius, length, dtype):
    """Those of the plain formulas in float64, of the numbers as they are stored."""
    generator, m = torch.Generator().manual_seed(0), Klein(-0.25)
    x = torch.stack([at_radius(radius, 4, -0.25, generator, dtype) for _ in range(10)])
    u, v, g = m.random_tangent(x, generator), m.random_tangent(x, generator), m.random_tangent(x, generator)
    u = length / m.norm(x, u, keepdim=True) * u
    y = m.expmap(x, u)
    K = torch.tensor(-0.25, dtype=dtype)  # a number of float32, in which points on the rim are inside
    for closed, plain, arguments in (
        (lambda x, u, K: Klein(K).expmap(x, u), klein_exp, (x, u, K)),
        (lambda x, y, v, K: Klein(K).parallel_transport(x, y, v), klein_transport, (x, y, v, K)),
    ):
        found = []
        for function, to in ((closed, dtype), (plain, F64)):
            leaves = [a.to(to).requires_grad_() for a in arguments]
            found.append(torch.autograd.grad((function(*leaves) * g.to(to)).sum(), leaves))
        scale = max(float(b.abs().max()) for b in found[1])
        reach = math.cosh(min(radius + length, 8.0)) ** 2
        for a, b in zip(*found, strict=True):
            assert (a - b).abs().max() < 64 * torch.finfo(dtype).eps * reach * scale


@pytest.mark.parametrize("dtype, radius", [(F64, r) for r in (1e-6, 1.0, 6.0, 12.0, 18.0)] + [(F32, 1.0), (F32, 6.0)])
@pytest.mark.parametrize("curvature", CURVATURES)
def test_distance(curvature, dtype, radius):
    # The common form, with |x - y|^2 + K(|x|^2 |y|^2 - <x,y>^2), is off by 4e-5 at radius 6.
    m, k, g = Klein(curvature), mpmath.mpf(curvature), torch.Generator().manual_seed(0)
    for n in (2, 3, 16):
        for share in (1.0, 0.5, 0.0):
            x, y = (at_radius(s * radius, n, curvature, g, dtype) for s in (1.0, share))
            if m.check_point_on_manifold(x):
                want = exact_dist(exact(x), exact(y), k)
                assert abs(m.dist(x, y).item() / want - 1) <= 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("radius", [0.1, 1.0, 4.0, 8.0])
@pytest.mark.parametrize("curvature", CURVATURES)
def test_exponential_and_logarithm(curvature, radius):
    m, k, g, eps = Klein(curvature), mpmath.mpf(curvature), torch.Generator().manual_seed(0), torch.finfo(F64).eps
    for n in (2, 5):
        x = at_radius(radius, n, curvature, g, F64)
        inwards = -x * (1 + 0.1 * unit(n, g))
        for direction in (m.random_tangent(x, g), m.proju(x, inwards)):
            u = direction / m.norm(x, direction) / math.sqrt(-curvature)
            for length in (0.01, 1.0, radius):
                y = m.expmap(x, length * u)
                want = exact_exp(exact(x), exact(length * u), k)
                # The rounding of coordinates alone is eps cosh^2 of the radius.
                miss = math.sqrt(-curvature) * exact_dist(exact(y), want, k)
                assert miss <= 8 * eps * math.cosh(radius + length) ** 2
                back = m.logmap(x, y)
                d = exact_dist(exact(x), exact(y), k)
                assert abs(m.norm(x, back).item() / d - 1) <= 20 * eps * math.cosh(radius)
                torch.testing.assert_close(back / back.norm(), (y - x) / (y - x).norm(), rtol=0, atol=1e-14)


def to_klein(p, curvature):
    return 2 * p / (1 - curvature * p.square().sum(-1, keepdim=True))


@pytest.mark.parametrize("radius", [8.0, 14.0, 16.0, 17.5])
def test_steps_across_the_ray_near_the_rim(radius):
    """Where a vector across is longer than its coordinates by 1/sqrt(om), as one along the ray is by 1/om."""
    m = Klein()
    x = m.from_normal(torch.tensor([radius, 0.0, 0.0], dtype=torch.float64))
    u = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    for length in (0.05, 0.5, 3.0):
        y = m.expmap(x, length / m.norm(x, u) * u)
        assert m.dist(x, y).item() == pytest.approx(length, rel=1e-12)


@pytest.mark.parametrize("curvature", CURVATURES)
def test_poincare(curvature):
    m, ball, g = Klein(curvature), PoincareBall(curvature), torch.Generator().manual_seed(0)
    p, q, r = (0.7 * ball.random(6, 4, generator=g, dtype=F64) for _ in range(3))
    a, b = (0.3 * torch.randn(6, 4, generator=g, dtype=F64) for _ in range(2))

    def pushed(p, u):
        return torch.func.jvp(lambda p: to_klein(p, curvature), (p,), (u,))[1]

    x, y, z = (to_klein(s, curvature) for s in (p, q, r))
    u, v = pushed(p, a), pushed(p, b)
    for mine, theirs in (
        (m.dist(x, y), ball.dist(p, q)),
        (m.dist2(x, y), ball.dist2(p, q)),
        (m.inner(x, u, v), ball.inner(p, a, b)),
        (m.expmap(x, u), to_klein(ball.expmap(p, a), curvature)),
        (m.logmap(x, y), pushed(p, ball.logmap(p, q))),
        (m.parallel_transport(x, y, v), pushed(q, ball.parallel_transport(p, q, b))),
        (m.gyroadd(x, y), to_klein(ball.gyroadd(p, q), curvature)),
        (m.gyration(x, y, z), to_klein(ball.gyration(p, q, r), curvature)),
        (m.frame_from_tangent(x, u), ball.frame_from_tangent(p, a)),
        (m.tangent_from_frame(x, a), pushed(p, ball.tangent_from_frame(p, a))),
        (m.transport_frame(x, y, a), ball.transport_frame(p, q, a)),
        (m.to_normal(x), ball.to_normal(p)),
        (m.from_normal(a), to_klein(ball.from_normal(a), curvature)),
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("curvature", CURVATURES)
def test_gyro_operations_are_the_derived_ones(curvature):
    m, g = Klein(curvature), torch.Generator().manual_seed(0)
    x, y, z = (m.random_normal(6, 3, std=0.4, generator=g, dtype=F64) for _ in range(3))
    u = 0.4 * torch.randn(6, 3, generator=g, dtype=F64)
    for name, given in (
        ("gyroadd", (x, y)),
        ("gyroinv", (x,)),
        ("gyration", (x, y, z)),
        ("expmap_frame", (x, u)),
        ("logmap_frame", (x, y)),
        ("tangent_from_frame", (x, u)),
        ("frame_from_tangent", (x, u)),
        ("transport_frame", (x, y, u)),
    ):
        want = getattr(GyroManifold, name)(m, *given)
        torch.testing.assert_close(getattr(m, name)(*given), want, rtol=1e-10, atol=1e-11, msg=name)
    t, s = m.to_cosine_sine(x)
    torch.testing.assert_close(t.square() + m.curvature * s.square().sum(-1, keepdim=True), torch.ones_like(t))
    torch.testing.assert_close(m.from_cosine_sine(t, s), x, rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("curvature", [-1.0, -4.0])
def test_derivatives(curvature):
    # The laws draw points so near to the rim that the steps of their difference quotients lead out of the ball.
    g, k = torch.Generator().manual_seed(0), torch.tensor(curvature, dtype=F64, requires_grad=True)
    z, w, u, v = (0.5 * torch.randn(2, 3, generator=g, dtype=F64) / math.sqrt(-curvature) for _ in range(4))
    x, y = (Klein(curvature).from_normal(a).requires_grad_() for a in (z, w))
    u, v = u.requires_grad_(), v.requires_grad_()

    def everything(k, x, y, u, v):
        m = Klein(k)
        out = [m.expmap(x, u), m.logmap(x, y), m.dist(x, y, keepdim=True), m.dist2(x, y, keepdim=True)]
        out += [*m.expmap_transp(x, u, v), m.parallel_transport(x, y, v), m.gyroadd(x, y), m.gyration(x, y, x)]
        out += [m.from_normal(u), m.to_normal(x), m.logmap_frame(x, y), m.inner(x, u, v, keepdim=True)]
        return torch.cat(out, -1)

    options = dict(atol=1e-6, rtol=1e-5, fast_mode=True)
    assert torch.autograd.gradcheck(everything, (k, x, y, u, v), check_forward_ad=True, **options)
    assert torch.autograd.gradgradcheck(everything, (k, x, y, u, v), **options)


def test_hessian_has_the_christoffel_symbols():
    m, g = Klein(-0.7), torch.Generator().manual_seed(0)
    x = m.random_normal(3, generator=g, dtype=F64)
    u, a = torch.randn(3, generator=g, dtype=F64), torch.randn(3, generator=g, dtype=F64)

    def f(x):
        return (x * a).sum().sin() + x.square().sum()

    grad, hess = torch.func.jvp(torch.func.grad(f), (x,), (u,))
    along = torch.func.jvp(
        lambda s: f(m.expmap(x, s * u)), (torch.zeros((), dtype=F64),), (torch.ones((), dtype=F64),)
    )[1]
    second = torch.func.grad(torch.func.grad(lambda s: f(m.expmap(x, s * u))))(torch.zeros((), dtype=F64))
    torch.testing.assert_close(m.inner(x, m.egrad2rgrad(x, grad), u), along)
    torch.testing.assert_close(m.inner(x, m.ehess2rhess(x, grad, hess, u), u), second)


@pytest.mark.parametrize("dtype", [F64, F32])
def test_the_rim(dtype):
    m, g = Klein(-0.7), torch.Generator().manual_seed(0)
    z = 40 * torch.nn.functional.normalize(torch.randn(100, 4, generator=g, dtype=dtype))
    x = m.random(100, 4, generator=g, dtype=dtype)
    for y in (m.from_normal(z), m.expmap_frame(x, z), m.projx(100 * z), m.projx(1e30 * z)):
        assert m.check_point_on_manifold(y) and torch.equal(m.projx(y), y)
        assert m.dist(x, y).isfinite().all() and (m.dist0(y) > (7.5 if dtype == F32 else 17) / math.sqrt(0.7)).all()
    assert not m.check_point_on_manifold(z) and m.dist(z, x).isnan().all()


def test_at_coincidence_and_at_the_origin():
    m = Klein(-0.7)
    for x in (m.random(5, 3, generator=torch.Generator().manual_seed(0), dtype=F64), torch.zeros(5, 3, dtype=F64)):
        a, b = (x.clone().requires_grad_() for _ in range(2))
        for f in (m.dist, m.dist2):
            assert (f(a, b) == 0).all()
            assert all((g == 0).all() for g in torch.autograd.grad(f(a, b).sum(), (a, b)))
        for out in (m.logmap(a, b), m.parallel_transport(a, b, x), m.to_normal(a)):
            found = torch.autograd.grad(out.sum(), (a, b), allow_unused=True)
            assert all(g.isfinite().all() for g in found if g is not None)


@pytest.mark.parametrize("wrong", [0.0, 1.0, math.nan, -math.inf, torch.tensor(1.0), torch.ones(1)])
def test_curvature_is_checked(wrong):
    with pytest.raises(ValueError, match="Klein: curvature must be a negative finite number"):
        Klein(wrong)


def test_a_module_for_the_curvature_is_to_be_called():
    with pytest.raises(ValueError, match=r"Klein: curvature must be .*; call it, as in Klein\(curvature\(\)\)"):
        Klein(Curvature(-1.0))
