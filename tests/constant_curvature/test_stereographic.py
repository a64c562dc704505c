"""Poincare ball, projected sphere and the model of any curvature, against 60 digits and against outside libraries."""

import math

import geoopt
import mpmath
import pytest
import torch
import torch._dynamo.testing

from torchriemann.manifolds import GyroManifold
from torchriemann.manifolds.constant_curvature.stereographic import PoincareBall, ProjectedSphere, Stereographic
from torchriemann.manifolds.functional import poincare, poincare_backward

F32, F64 = torch.float32, torch.float64


@pytest.fixture(autouse=True)
def digits():
    with mpmath.workdps(60):
        yield


# ---- the rational formulas, in numbers of 60 digits ----------------------------------------------------------------


def exact(x):
    return [mpmath.mpf(a) for a in x.tolist()]


def dot(a, b):
    return mpmath.fsum(p * q for p, q in zip(a, b, strict=True))


def length(a):
    return mpmath.sqrt(dot(a, a))


def combined(*terms):
    return [mpmath.fsum(c * v[i] for c, v in terms) for i in range(len(terms[0][1]))]


def minus(a):
    return [-p for p in a]


def gap(x, k):
    return 1 + k * dot(x, x)


def exact_add(x, y, k):
    scale = 1 / (1 - 2 * k * dot(x, y) + k**2 * dot(x, x) * dot(y, y))
    return combined(((1 - 2 * k * dot(x, y) - k * dot(y, y)) * scale, x), (gap(x, k) * scale, y))


def exact_tan(r, k):
    root = mpmath.sqrt(abs(k))
    return (mpmath.tanh if k < 0 else mpmath.tan)(root * r) / root


def exact_atan(r, k):
    root = mpmath.sqrt(abs(k))
    return (mpmath.atanh if k < 0 else mpmath.atan)(root * r) / root


def exact_exp(x, u, k):
    n = length(u)
    return exact_add(x, combined((exact_tan(n / gap(x, k), k) / n, u)), k)


def exact_log(x, y, k):
    m = exact_add(minus(x), y, k)
    return combined((gap(x, k) * exact_atan(length(m), k) / length(m), m))


def exact_dist(x, y, k):
    return 2 * exact_atan(length(exact_add(minus(x), y, k)), k)


def exact_gyration(u, v, w, k):
    uv, uw, vw, uu, vv = dot(u, v), dot(u, w), dot(v, w), dot(u, u), dot(v, v)
    a = -(k**2) * uw * vv - k * vw + 2 * k**2 * uv * vw
    b = -(k**2) * vw * uu + k * uw
    scale = 2 / (1 - 2 * k * uv + k**2 * uu * vv)
    return combined((1, w), (a * scale, u), (b * scale, v))


def exact_transport(x, y, v, k):
    return combined((gap(y, k) / gap(x, k), exact_gyration(y, minus(x), v, k)))


def error(got, want):
    """Of a vector, relative to its length."""
    return float(length(combined((1, exact(got)), (-1, want))) / length(want))


def unit(n, generator):
    u = torch.randn(n, generator=generator, dtype=F64)
    return u / u.norm()


def at_radius(radius, n, curvature, generator, dtype):
    """A point that far from the origin times 1/sqrt(-K), as it is rounded."""
    r = float(mpmath.tanh(mpmath.mpf(radius) / 2)) / math.sqrt(-curvature)
    return (r * unit(n, generator)).to(dtype)


BALL_RADII = [(F64, r) for r in (1e-8, 1e-3, 1.0, 8.0, 20.0, 36.5)] + [(F32, r) for r in (1e-8, 1.0, 8.0, 16.5)]


# ---- the ball, out to its rim --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, radius", BALL_RADII)
@pytest.mark.parametrize("curvature", [-1.0, -0.3])
def test_ball_distance(curvature, dtype, radius):
    # geoopt and HypLL clamp points at radius 6.2 (float32) and 12.2 (float64), and so are wrong by 100% from there.
    m, k, g = PoincareBall(curvature), mpmath.mpf(curvature), torch.Generator().manual_seed(0)
    for n in (2, 3, 16, 64):
        for share in (1.0, 0.6, 0.0):
            x = at_radius(radius, n, curvature, g, dtype)
            y = at_radius(share * radius, n, curvature, g, dtype)
            for z in (y, m.expmap(x, 0.01 * m.random_tangent(x, g))):
                if gap(exact(x), k) <= 0 or gap(exact(z), k) <= 0 or torch.equal(x, z):
                    continue
                want = exact_dist(exact(x), exact(z), k)
                assert abs(m.dist(x, z).item() / want - 1) <= 3 * torch.finfo(dtype).eps, (n, share)


@pytest.mark.parametrize("dtype, radius", [p for p in BALL_RADII if 1e-3 <= p[1] < 30])
@pytest.mark.parametrize("curvature", [-1.0, -0.3])
def test_ball_exp_log_transport_and_addition(curvature, dtype, radius):
    m, k, g = PoincareBall(curvature), mpmath.mpf(curvature), torch.Generator().manual_seed(1)
    eps, root = torch.finfo(dtype).eps, math.sqrt(-curvature)
    for n in (2, 5, 32):
        x = at_radius(radius, n, curvature, g, dtype)
        y = at_radius(0.7 * radius, n, curvature, g, dtype)
        u, v = (m.tangent_from_frame(x, unit(n, g).to(dtype) / root) for _ in range(2))
        ex, ey, eu, ev = map(exact, (x, y, u, v))
        for got, want, reach in (
            (m.expmap(x, u), exact_exp(ex, eu, k), radius + 1),
            (m.gyroadd(x, y), exact_add(ex, ey, k), 1.7 * radius),
        ):
            if 1 + k * dot(want, want) > 8 * eps:  # and not on the rim
                assert root * exact_dist(exact(got), want, k) <= 3 * eps * math.cosh(reach)
        near = m.expmap(x, 0.01 * u)
        for z in (y, near):
            if torch.equal(z, x):
                continue
            assert error(m.logmap(x, z), exact_log(ex, exact(z), k)) <= 5 * eps
            assert error(m.logmap_frame(x, z), combined((2 / gap(ex, k), exact_log(ex, exact(z), k)))) <= 5 * eps
            assert error(m.parallel_transport(x, z, v), exact_transport(ex, exact(z), ev, k)) <= 12 * eps
            assert error(m.transport_frame(x, z, v), exact_gyration(exact(z), minus(ex), ev, k)) <= 12 * eps


@pytest.mark.parametrize("dtype, radius", [(F64, 300.0), (F32, 80.0)])
def test_nothing_leaves_the_ball(dtype, radius):
    m, g = PoincareBall(-0.7), torch.Generator().manual_seed(0)
    x = m.random(50, 5, generator=g, dtype=dtype)
    z = radius * torch.nn.functional.normalize(torch.randn(50, 5, generator=g, dtype=dtype))
    rim = m.from_normal(z)
    for y in (rim, m.expmap_frame(x, z), m.expmap(x, m.tangent_from_frame(x, z)), m.gyroadd(rim, x), m.gyroadd(x, rim)):
        assert m.check_point_on_manifold(y)
        assert (m.dist0(y) > (15 if dtype == F32 else 35) / math.sqrt(0.7)).all()
        assert m.dist(x, y).isfinite().all() and m.logmap(x, y).isfinite().all()
    longest = m.expmap(x, (1e25 if dtype == F32 else 1e200) * z)  # the square overflows
    torch.testing.assert_close(longest, m.expmap(x, 1e15 * z))
    assert m.check_point_on_manifold(longest)
    assert m.expmap(x, torch.inf * z).isnan().all()  # never a wrong point


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("curvature", [-1.0, -0.3, -3.0])
def test_projection_moves_only_what_is_outside(curvature, dtype):
    # A clamp at 1 - |x| = 1e-5 takes a point from radius 37 to 12.
    m, g, eps = PoincareBall(curvature), torch.Generator().manual_seed(0), torch.finfo(dtype).eps
    radius = 1 / math.sqrt(-curvature)
    x = radius * torch.nn.functional.normalize(torch.randn(4000, 3, generator=g, dtype=F64)) * (1 - eps)
    x = x.to(dtype)
    wide = [gap(exact(p), mpmath.mpf(curvature)) > 0 for p in x[:300]]
    assert any(wide) and m.check_point_on_manifold(x[:300][torch.tensor(wide)])
    for project in (m.projx, m.restore):
        y = project(x)
        assert torch.equal(y[:300][torch.tensor(wide)], x[:300][torch.tensor(wide)])
        assert m.check_point_on_manifold(y) and ((y - x).abs() <= 6 * eps * radius).all()
    far = [[3.0, -4.0, 0.0], [3e30, -4e30, 0.0], [math.inf, 1.0, -math.inf], [math.nan, 1.0, 1.0]]
    far = torch.tensor(far, dtype=dtype)
    y = m.projx(far)
    want = radius * torch.tensor([[0.6, -0.8, 0.0], [0.6, -0.8, 0.0], [0.5**0.5, 0.0, -(0.5**0.5)]], dtype=dtype)
    torch.testing.assert_close(y[:3], want, rtol=8 * eps, atol=1e-30)
    assert m.check_point_on_manifold(y[:3]) and y[3, 0].isnan()
    assert not m.check_point_on_manifold(far[:1]) and not m.check_point_on_manifold(want[:1] * (1 + 4 * eps))


def test_outside_the_ball_there_is_no_distance():
    m, x = PoincareBall(), torch.tensor([[1.0, 0.0], [0.8, 0.7]])
    for out in (m.dist(x, 0 * x), m.logmap(x, 0 * x), m.expmap(x, x), m.inner(x, x)):
        assert out.isnan().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_a_rim_of_its_own(dtype):
    m, g = PoincareBall(-0.5), torch.Generator().manual_seed(0)
    y = m.projx(5 * torch.randn(200, 4, generator=g).to(dtype))
    assert y.dtype == dtype and m.check_point_on_manifold(y) and m.dist0(y).isfinite().all()


# ---- every curvature -----------------------------------------------------------------------------------------------

MODELS = [PoincareBall(-0.7), ProjectedSphere(0.6), Stereographic(-0.7), Stereographic(0.6), Stereographic(0.0)]
MODELS += [Stereographic(torch.tensor(k, dtype=F64)) for k in (-0.7, 0.0, 0.6)]


def drawn(m, count=6, n=4, seed=0, dtype=F64):
    g = torch.Generator().manual_seed(seed)
    x, y = (0.5 * m.random(count, n, generator=g, dtype=dtype) for _ in range(2))
    u, v, z = (0.4 * torch.randn(count, n, generator=g, dtype=dtype) for _ in range(3))
    return x, y, u, v, m.from_normal(z)


@pytest.mark.parametrize("m", MODELS, ids=repr)
def test_geoopt(m):
    k = torch.as_tensor(m.curvature, dtype=F64)
    other = geoopt.Stereographic(1.0).double()
    other.k = torch.nn.Parameter(k, requires_grad=False)
    x, y, u, v, z = drawn(m)
    t = torch.tensor(0.7, dtype=F64)
    for mine, theirs in (
        (m.expmap(x, u), other.expmap(x, u)),
        (m.logmap(x, y), other.logmap(x, y)),
        (m.dist(x, y), other.dist(x, y)),
        (m.dist2(x, y), other.dist(x, y).square()),
        (m.parallel_transport(x, y, v), other.transp(x, y, v)),
        (m.expmap_transp(x, u, v)[1], other.transp(x, other.expmap(x, u), v)),
        (m.gyroadd(x, y), other.mobius_add(x, y)),
        (m.gyroscale(0.7, x), other.mobius_scalar_mul(t, x)),
        (m.gyration(x, y, z), other.gyration(x, y, z)),
        (m.expmap0(u), other.expmap0(u)),
        (m.logmap0(x), other.logmap0(x)),
        (m.inner(x, u, v, keepdim=True), other.inner(x, u, v, keepdim=True)),
        (m.egrad2rgrad(x, u), other.egrad2rgrad(x, u)),
        (m.dist0(x), other.dist0(x)),
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


GYRO = {
    "expmap0": "u", "logmap0": "x", "inner0": "uv", "dist0": "x", "from_normal": "u", "to_normal": "x", "gyroadd": "xy",
    "gyroinv": "x", "gyration": "xyz", "expmap_frame": "xu", "logmap_frame": "xy", "tangent_from_frame": "xu",
    "frame_from_tangent": "xu", "transport_frame": "xyu",
}  # fmt: skip


@pytest.mark.parametrize("m", MODELS, ids=repr)
def test_gyro_operations_are_the_derived_ones(m):
    arguments = dict(zip("xyuvz", drawn(m), strict=True))
    for name, letters in GYRO.items():
        given = [arguments[letter] for letter in letters]
        want = getattr(GyroManifold, name)(m, *given)
        torch.testing.assert_close(getattr(m, name)(*given), want, rtol=1e-12, atol=1e-12, msg=name)
    x, z = arguments["x"], arguments["u"]
    torch.testing.assert_close(m.gyroscale(0.3, x), GyroManifold.gyroscale(m, 0.3, x), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(m.to_normal(m.from_normal(z)), z, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(m.dist0(m.from_normal(z)), z.norm(dim=-1), rtol=1e-13, atol=1e-15)
    t, s = m.to_cosine_sine(x)
    torch.testing.assert_close(t.square() + m.curvature * s.square().sum(-1, keepdim=True), torch.ones_like(t))
    torch.testing.assert_close(m.from_cosine_sine(t, s), x, rtol=1e-13, atol=1e-15)


def test_flat_space_has_lengths_doubled():
    m = Stereographic(0.0)
    x, y, u, v, _ = drawn(m)
    assert torch.equal(m.dist(x, y), 2 * (y - x).norm(dim=-1))
    assert torch.equal(m.expmap(x, u), x + u) and torch.equal(m.parallel_transport(x, y, v), v)
    torch.testing.assert_close(m.logmap(x, y), y - x, rtol=1e-15, atol=0)
    torch.testing.assert_close(m.inner(x, u, v), 4 * (u * v).sum(-1), rtol=1e-14, atol=0)


def operations(k, x, y, u, v):
    """One tensor of everything, as a function of the curvature."""
    m = Stereographic(k)
    out = [m.expmap(x, u), m.logmap(x, y), m.dist(x, y, keepdim=True), m.dist2(x, y, keepdim=True)]
    out += [m.parallel_transport(x, y, v), *m.expmap_transp(x, u, v), m.gyroadd(x, y), m.gyration(x, y, u)]
    out += [m.from_normal(u), m.to_normal(x), m.expmap_frame(x, u), m.logmap_frame(x, y), m.transport_frame(x, y, u)]
    out += [m.inner(x, u, v, keepdim=True), m.norm(x, u, keepdim=True), m.egrad2rgrad(x, u), m.ehess2rhess(x, u, v, y)]
    return torch.cat(out, -1)


@pytest.mark.parametrize("curvature", [-1.0, -1e-3, 0.0, 1e-3, 1.0])
def test_derivatives_in_the_curvature(curvature):
    x, y, u, v, _ = drawn(Stereographic(-1.0), count=2, n=3)
    k = torch.tensor(curvature, dtype=F64, requires_grad=True)
    h, run = 1e-3, lambda k: operations(torch.tensor(k, dtype=F64), x, y, u, v)
    value, first = torch.func.jvp(lambda k: operations(k, x, y, u, v), (k.detach(),), (torch.ones((), dtype=F64),))
    at = {i: run(curvature + i * h) for i in (-2, -1, 1, 2)}
    quotient = (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * h)  # over both signs next to zero
    torch.testing.assert_close(first, quotient, rtol=1e-8, atol=1e-8)
    weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    (back,) = torch.autograd.grad((weights * operations(k, x, y, u, v)).sum(), k, create_graph=True)
    torch.testing.assert_close(back, (weights * first).sum(), rtol=1e-11, atol=1e-11)
    (again,) = torch.autograd.grad(back, k)
    curved = (16 * (at[1] + at[-1]) - (at[2] + at[-2]) - 30 * value) / (12 * h * h)
    torch.testing.assert_close(again, (weights * curved).sum(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize("cls, values", [(PoincareBall, (-0.7, -1.3)), (Stereographic, (-0.7, 0.6))])
def test_a_learned_curvature_compiles_once(cls, values, backend):
    # A Python number is a constant of the graph; a sign that is looked at breaks it.
    x, y, u, v, _ = drawn(Stereographic(-1.3))

    def value(k, x, y, u, v):
        m = cls(k)
        return m.dist(x, y).sum() + (m.expmap(x, u) * m.logmap(x, y) * m.parallel_transport(x, y, v)).sum()

    torch.compiler.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend(backend)
    compiled = torch.compile(value, fullgraph=True, backend=counter)
    frames = set()
    for curvature in values:
        k = torch.tensor(curvature, dtype=F64, requires_grad=True)
        got, want = compiled(k, x, y, u, v), value(k, x, y, u, v)
        torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(*(torch.autograd.grad(o, k)[0] for o in (got, want)), rtol=1e-11, atol=1e-12)
        frames.add(counter.frame_count)
    assert len(frames) == 1  # nothing was compiled for the second value
    torch.compiler.reset()


@pytest.mark.parametrize("curvature", [-0.7, 0.0, 0.6])
def test_a_tensor_and_a_number_agree(curvature):
    x, y, u, v, _ = drawn(Stereographic(-1.0))
    k = torch.tensor(curvature, dtype=F64)
    torch.testing.assert_close(operations(k, x, y, u, v), operations(curvature, x, y, u, v), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("m", MODELS, ids=repr)
def test_gradients_at_coincidence_and_at_the_origin(m):
    for x in (drawn(m)[0], torch.zeros(6, 4, dtype=F64)):
        a, b = (x.clone().requires_grad_() for _ in range(2))
        for f in (m.dist, m.dist2):
            out = f(a, b)
            assert (out == 0).all()
            assert all((g == 0).all() for g in torch.autograd.grad(out.sum(), (a, b)))
        for out in (m.logmap(a, b), m.expmap(a, b - b.detach()), m.parallel_transport(a, b, x), m.to_normal(a)):
            assert all(
                g.isfinite().all() for g in torch.autograd.grad(out.sum(), (a, b), allow_unused=True) if g is not None
            )


# ---- the projected sphere ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("short", [1.0, 1e-2, 1e-5])
def test_distances_next_to_the_antipode(short, dtype):
    # By the sine of half the angle alone, an angle within 1e-8 of pi is pi.
    g, curvature = torch.Generator().manual_seed(0), 0.6
    m, k, eps = ProjectedSphere(curvature), mpmath.mpf(curvature), torch.finfo(dtype).eps
    for size in (0.1, 1.0, 20.0):
        x = (size * unit(4, g)).to(dtype)
        y = (-x.double() / (curvature * x.double().square().sum()) * (1 + short * unit(4, g))).to(dtype)
        ex, ey = exact(x), exact(y)
        missing = 2 * mpmath.atan(1 / (mpmath.sqrt(k) * length(exact_add(minus(ex), ey, k)))) / mpmath.sqrt(k)
        want = mpmath.pi / mpmath.sqrt(k) - missing
        assert abs(m.dist(x, y).item() - want) <= 4 * eps * want
        u = m.logmap(x, y)
        assert abs(m.norm(x, u).item() / want - 1) <= 20 * eps
        assert error(u, exact_log(ex, ey, k)) <= 30 * eps / short
        v = unit(4, g).to(dtype)
        w = m.parallel_transport(x, y, v)
        assert abs(m.norm(y, w) / m.norm(x, v) - 1) <= 100 * eps  # an isometry however near


def test_at_the_antipode_itself():
    m, x = ProjectedSphere(), torch.tensor([[0.5, 0.0], [0.0, -4.0]], dtype=F64, requires_grad=True)
    y = (-x / x.square().sum(-1, keepdim=True)).detach()
    u = m.logmap(x, y)
    torch.testing.assert_close(m.dist(x, y), torch.full((2,), math.pi, dtype=F64), rtol=1e-15, atol=0)
    torch.testing.assert_close(m.norm(x, u), torch.full((2,), math.pi, dtype=F64), rtol=1e-14, atol=0)
    torch.testing.assert_close(m.expmap(x, u), y, rtol=1e-14, atol=1e-14)
    assert not m.log_is_unique(x, y, margin=1e-9).any()
    for out in (m.dist(x, y), u, m.parallel_transport(x, y, y)):
        assert torch.autograd.grad(out.sum(), x, retain_graph=True)[0].isfinite().all()


def test_the_antipode_of_the_origin_is_passed():
    m = ProjectedSphere(2.0)
    z = torch.tensor([[1.0, 2.0, -1.0]], dtype=F64)
    z = z / z.norm() / math.sqrt(2.0)
    for angle in (math.pi - 1e-7, math.pi, math.pi + 1e-7, 4.0):
        y = m.from_normal(angle * z)
        assert y.isfinite().all()
        want = torch.tensor([min(angle, 2 * math.pi - angle) / math.sqrt(2.0)], dtype=F64)
        torch.testing.assert_close(m.dist0(y), want, rtol=1e-12, atol=0)


def test_uniform_law():
    m = ProjectedSphere(3.0)
    x = m.random_uniform(20000, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    t, s = m.to_cosine_sine(x)
    lifted = torch.cat([t, s * math.sqrt(3.0)], -1)  # of length one, uniform on the sphere in R^4
    torch.testing.assert_close(lifted.T @ lifted / 20000, torch.eye(4, dtype=F64) / 4, rtol=0, atol=0.01)
    assert lifted.mean(0).abs().max() < 0.02
    for other in (PoincareBall(), Stereographic(0.0), Stereographic(torch.tensor(1.0))):
        with pytest.raises(NotImplementedError, match="uniform law"):
            other.random_uniform(3, 2)


# ---- derivatives in closed form ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-3, 0.5, 3.0])
@pytest.mark.parametrize("curvature", [-1.0, -0.3])
def test_closed_derivatives_are_those_of_autograd(curvature, scale):
    g = torch.Generator().manual_seed(0)
    k = torch.tensor(curvature, dtype=F64, requires_grad=True)
    x, y, u, v = (scale * torch.randn(5, 3, generator=g, dtype=F64) for _ in range(4))
    x, y = (PoincareBall(curvature).from_normal(a).requires_grad_() for a in (x, y))
    u, v = u.requires_grad_(), v.requires_grad_()
    for name, arguments in (("exp", (x, u)), ("log", (x, y)), ("dist", (x, y)), ("transport", (x, y, v))):
        out = getattr(poincare, f"poincare_{name}")(*arguments, k)
        given = torch.randn(out.shape, generator=g, dtype=F64)
        want = torch.autograd.grad(out, (*arguments, k), given)
        *got, rows = getattr(poincare_backward, f"poincare_{name}_backward")(given, *arguments, k)
        for mine, theirs in zip((*got, rows.sum()), want, strict=True):
            assert (mine - theirs).abs().max() <= 1e-11 * theirs.abs().max(), name


@pytest.mark.parametrize("dtype, radius", [(F64, 1.0), (F64, 8.0), (F64, 25.0), (F32, 8.0), (F32, 14.0)])
def test_gradient_of_the_distance_at_large_radius(dtype, radius):
    g, k = torch.Generator().manual_seed(0), mpmath.mpf(-1)
    m, eps = PoincareBall(), torch.finfo(dtype).eps
    for n in (2, 16):
        x, y = (at_radius(radius, n, -1.0, g, dtype) for _ in range(2))
        for z in (y, m.expmap(x, 0.01 * m.random_tangent(x, g))):
            ex, ey = exact(x), exact(z)
            # Minus the unit vector of the logarithm, lowered by the metric factor (2/om)^2.
            want = combined((-4 / gap(ex, k) ** 2 / exact_dist(ex, ey, k), exact_log(ex, ey, k)))
            leaf = x.clone().requires_grad_()
            (mine,) = torch.autograd.grad(m.dist(leaf, z), leaf)
            (plain,) = torch.autograd.grad(poincare.poincare_dist(leaf, z, -1.0), leaf)
            assert error(mine, want) <= 12 * eps and error(plain, want) <= 100 * eps, n


def test_closed_derivatives_at_coincident_points():
    x, k = PoincareBall().random(4, 3, generator=torch.Generator().manual_seed(0), dtype=F64), torch.tensor(-1.0)
    for at in (x, 0 * x):
        gx, gy, gk = poincare_backward.poincare_dist_backward(torch.ones(4, dtype=F64), at, at, k.double())
        assert (gx == 0).all() and (gy == 0).all() and (gk == 0).all()
        for name, arguments in (("exp", (at, 0 * at)), ("log", (at, at)), ("transport", (at, at, x))):
            backward = getattr(poincare_backward, f"poincare_{name}_backward")
            assert all(g.isfinite().all() for g in backward(x, *arguments, k.double()))


# ---- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls, wrong", [(PoincareBall, 1.0), (PoincareBall, 0.0), (ProjectedSphere, -1.0)])
def test_the_sign_of_the_curvature_is_checked(cls, wrong):
    for value in (wrong, math.nan, math.inf, torch.tensor(wrong), torch.ones(2)):
        with pytest.raises(ValueError, match=f"{cls.__name__}: curvature must be"):
            cls(value)


def test_learned_curvature_trains():
    # Of points known in normal coordinates, the curvature is found again from their distances.
    g = torch.Generator().manual_seed(0)
    z = torch.randn(30, 3, generator=g, dtype=F64)
    truth = PoincareBall(-1.0)
    want = truth.cdist(truth.from_normal(z), truth.from_normal(z))
    k = torch.tensor(0.5, dtype=F64, requires_grad=True)  # from a sphere, through zero
    optimizer = torch.optim.Adam([k], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        m = Stereographic(k)
        x = m.from_normal(z)
        (m.cdist(x, x) - want).square().mean().backward()
        optimizer.step()
    assert abs(k.item() + 1) < 0.05
