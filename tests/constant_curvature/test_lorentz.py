"""The Lorentz model against 160-digit arithmetic on the stored space parts, and what only it has."""

import math

import mpmath as mp
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests.support.lorentz_truth import Space, combine, dot, numbers
from torchriemann.manifolds.constant_curvature.lorentz import Lorentz
from torchriemann.manifolds.functional import lorentz as formulas
from torchriemann.manifolds.functional import lorentz_backward as slopes
from torchriemann.manifolds.functional import lorentz_frames as frames

CURVATURES = (-1.0, -0.3, -4.0)
DTYPES = (torch.float32, torch.float64)
COUNT = 12


def directions(count, n, seed):
    d = torch.randn(count, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return d / d.norm(dim=-1, keepdim=True)


def sphere_of(m, rho, dtype, seed=0, n=5, count=COUNT):
    """Random points at the distance rho R from the origin."""
    s = directions(count, n, seed) * (math.sinh(rho) * m._radius)
    return formulas.point_from_space(s.to(dtype), m.curvature)


def points(space, x):
    return [space.point(numbers(row[1:])) for row in x]


def vectors(space, xs, u):
    return [space.vector(x, numbers(row[1:])) for x, row in zip(xs, u, strict=True)]


def beside(space, m, x, z):
    """Points with frame coordinates z seen from x, rounded to the dtype of x."""
    exact = [space.exp(p, space.from_frame(p, numbers(row))) for p, row in zip(points(space, x), z, strict=True)]
    s = torch.tensor([[float(a) for a in p[1:]] for p in exact], dtype=torch.float64)
    return formulas.point_from_space(s.to(x.dtype), m.curvature)


def worst(errors):
    return max(float(e) for e in errors)


def angles(x, y):
    return torch.nn.functional.cosine_similarity(x[:, 1:].double(), y[:, 1:].double()).clamp(-1, 1).acos()


# ---- distance -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("curvature", CURVATURES)
def test_distance_is_right_to_eight_eps_at_every_radius(curvature, dtype):
    m, space = Lorentz(curvature), Space(curvature)
    for rho in (1e-8, 1e-4, 1e-2, 1.0, 4.0, 12.0, 25.0, 40.0):
        x = sphere_of(m, rho, dtype)
        for other in (rho, 0.4 * rho, 0.0):
            y = sphere_of(m, other, dtype, seed=1)
            d = m.dist(x, y)
            for p, q, got, angle in zip(points(space, x), points(space, y), d, angles(x, y), strict=True):
                if other == 0 or angle > 0.05:
                    true = space.dist(p, q)
                    assert abs(mp.mpf(float(got)) - true) <= 8 * torch.finfo(dtype).eps * true, (rho, other)


@pytest.mark.parametrize("rho, bar", [(8.0, 3e-13), (12.0, 2e-11)])
def test_distance_of_near_points_is_that_of_the_rounded_ones(rho, bar):
    m, space = Lorentz(), Space(-1)
    x = sphere_of(m, rho, torch.float64, count=40)
    y = beside(space, m, x, 1e-3 * directions(40, 5, seed=2))
    true = [space.dist(p, q) for p, q in zip(points(space, x), points(space, y), strict=True)]
    assert worst(abs(mp.mpf(float(d)) / t - 1) for d, t in zip(m.dist(x, y), true, strict=True)) <= bar


@pytest.mark.parametrize("separation", [1e-3, 1.0, None])
def test_gradient_of_the_distance_at_radius_eight(separation):
    m, space = Lorentz(), Space(-1)
    x = sphere_of(m, 8.0, torch.float64)
    far = separation is None
    y = sphere_of(m, 8.0, torch.float64, seed=3) if far else beside(space, m, x, separation * directions(COUNT, 5, 3))
    closed = slopes.lorentz_dist_backward(torch.ones(COUNT, dtype=torch.float64), x, y, -1.0)[:2]
    leaves = [x.clone().requires_grad_(), y.clone().requires_grad_()]
    plain = torch.autograd.grad(formulas.lorentz_dist(*leaves, -1.0).sum(), leaves)
    public = torch.autograd.grad(m.dist(*leaves).sum(), leaves)
    ps, qs = points(space, x), points(space, y)
    for gx, gy in (closed, plain, public):
        assert gx[:, 0].abs().max() == 0 and gy[:, 0].abs().max() == 0
        for p, q, a, b in zip(ps, qs, gx, gy, strict=True):
            for at, other, g in ((p, q, a), (q, p, b)):
                error = [u - v for u, v in zip(numbers(g[1:]), space.dist_gradient(at, other), strict=True)]
                assert space.conorm(at, error) <= 1e-12


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_point_is_at_no_distance_from_itself(dtype):
    m = Lorentz(-0.3)
    for rho in (0.0, 1e-8, 1.0, 12.0, 40.0):
        x = sphere_of(m, rho, dtype).requires_grad_()
        y = x.detach().clone().requires_grad_()
        for plain in (False, True):
            d = formulas.lorentz_dist(x, y, -0.3) if plain else m.dist(x, y)
            assert (d == 0).all()
            assert all((g == 0).all() for g in torch.autograd.grad(d.sum(), (x, y)))
        assert (m.logmap(x, y) == 0).all() and (m.dist2(x, y) == 0).all()


# ---- exponential, logarithm, transport --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("curvature", CURVATURES)
def test_exponential_and_gyroaddition_reach_the_rounding_of_the_point(curvature, dtype):
    m, space = Lorentz(curvature), Space(curvature)
    eps = torch.finfo(dtype).eps
    for rho in (1e-4, 1.0, 4.0, 8.0, 12.0):
        x, z = sphere_of(m, rho, dtype), (directions(COUNT, 5, 4) * m._radius).to(dtype)
        u, b = m.tangent_from_frame(x, z), m.from_normal(z)
        y, total = m.expmap(x, u), m.gyroadd(x, b)
        xs, bar = points(space, x), 4 * eps * math.cosh(rho + 1)
        for p, v, q, r, w in zip(xs, vectors(space, xs, u), points(space, y), points(space, b), total, strict=True):
            assert space.dist(space.exp(p, v), q) <= bar * space.R
            assert space.dist(space.gyroadd(p, r), space.point(numbers(w[1:]))) <= bar * space.R
    assert torch.allclose(m.expmap_frame(x, z), total, rtol=1e3 * eps, atol=0)


@pytest.mark.parametrize("rho, ambient, framed", [(4.0, 4e-15, 2e-15), (8.0, 7.5e-14, 2e-15), (12.0, 6e-12, 2e-15)])
def test_logarithm_of_a_unit_step(rho, ambient, framed):
    # Ambient coordinates round the result itself by eps cosh(rho).
    m, space, n = Lorentz(), Space(-1), 64
    x = sphere_of(m, rho, torch.float64, n=n, count=6)
    y = beside(space, m, x, directions(6, n, seed=5))
    xs, ys = points(space, x), points(space, y)
    for p, q, u, z in zip(xs, ys, vectors(space, xs, m.logmap(x, y)), m.logmap_frame(x, y), strict=True):
        true = space.log(p, q)
        assert space.norm(combine((1, u), (-1, true))) <= ambient * space.norm(true)
        frame = space.frame(p, true)
        error = combine((1, numbers(z)), (-1, frame))
        assert mp.sqrt(dot(error, error)) <= framed * space.norm(true)


@pytest.mark.parametrize("curvature", CURVATURES)
def test_transport_in_frame_coordinates_is_right_at_every_radius(curvature):
    m, space = Lorentz(curvature), Space(curvature)
    z = directions(COUNT, 5, 6)
    for rho in (1e-4, 1.0, 4.0, 12.0, 25.0, 40.0):
        x, y = sphere_of(m, rho, torch.float64), sphere_of(m, 0.7 * rho, torch.float64, seed=7)
        got = m.transport_frame(x, y, z)
        for p, q, a, b, angle in zip(points(space, x), points(space, y), z, got, angles(x, y), strict=True):
            if angle > 0.05:
                true = space.frame(q, space.transport(p, q, space.from_frame(p, numbers(a))))
                assert worst(abs(s - t) for s, t in zip(numbers(b), true, strict=True)) <= 1e-14


@pytest.mark.parametrize("separation", [1e-3, 1.0])
def test_transport_of_ambient_vectors_keeps_the_digits_that_they_have(separation):
    m, space, eps = Lorentz(), Space(-1), torch.finfo(torch.float64).eps
    for rho in (1.0, 4.0, 8.0, 12.0):
        x = sphere_of(m, rho, torch.float64)
        y = beside(space, m, x, separation * directions(COUNT, 5, 8))
        v = m.tangent_from_frame(x, directions(COUNT, 5, 9))
        xs, ys = points(space, x), points(space, y)
        moved = vectors(space, ys, m.parallel_transport(x, y, v))
        for p, q, a, b in zip(xs, ys, vectors(space, xs, v), moved, strict=True):
            error = combine((1, b), (-1, space.transport(p, q, a)))
            assert space.norm(error) <= 2 * eps * math.cosh(rho + separation)


def test_frame_coordinates_of_tangent_vectors():
    m, space, eps = Lorentz(-0.3), Space(-0.3), torch.finfo(torch.float64).eps
    for rho in (1e-4, 1.0, 8.0, 12.0):
        x, z = sphere_of(m, rho, torch.float64), directions(COUNT, 5, 10)
        u = m.tangent_from_frame(x, z)
        assert (m.frame_from_tangent(x, u) - z).abs().max() <= 2 * eps * math.cosh(rho)
        assert (m.norm(x, u) - 1).abs().max() <= 2 * eps * math.cosh(rho)
        xs = points(space, x)
        for p, v, got in zip(xs, vectors(space, xs, u), m.frame_from_tangent(x, u), strict=True):
            assert worst(abs(s - t) for s, t in zip(numbers(got), space.frame(p, v), strict=True)) <= eps * math.cosh(
                rho
            )


# ---- normal coordinates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype, radii", [(torch.float32, (1e-8, 1e-3, 1.0, 40.0, 85.0)), (torch.float64, (1e-8, 1.0, 300.0, 700.0))]
)
def test_normal_coordinates_to_the_largest_radius(dtype, radii):
    m = Lorentz()
    for rho in radii:
        z = (rho * directions(COUNT, 5, 11)).to(dtype)
        x = m.from_normal(z)
        assert x.isfinite().all()
        assert ((m.to_normal(x) - z).norm(dim=-1) <= 4 * torch.finfo(dtype).eps * rho).all()
        assert ((m.dist0(x) - rho).abs() <= 4 * torch.finfo(dtype).eps * rho).all()
        assert m.check_point_on_manifold(x)


def test_overflowing_squares_are_points_still():
    x = Lorentz().projx(torch.tensor([[0.0, 1e30, -1e30], [torch.nan, 3e30, 0.0]]))
    assert torch.allclose(x[:, 0], torch.tensor([2**0.5 * 1e30, 3e30]))
    assert Lorentz().check_point_on_manifold(x)


# ---- what is not read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", [0.0, 1e30, torch.nan, torch.inf])
def test_stored_times_are_never_read(time):
    m, g = Lorentz(-2.0), torch.Generator().manual_seed(0)
    x, y = (m.random(4, 5, generator=g, dtype=torch.float64) for _ in range(2))
    u, v = m.random_tangent(x, g), m.random_tangent(x, g)
    z = torch.randn(4, 4, generator=g, dtype=torch.float64)
    h, k = torch.randn(2, 4, 5, generator=g, dtype=torch.float64)

    def everything(spoil):
        a, b, c, d = (t.clone() for t in (x, y, u, v))
        if spoil:
            for t in (a, b, c, d):
                t[:, 0] = time
        for t in (a, b, c, d):
            t.requires_grad_()
        out = [m.dist(a, b), m.dist2(a, b), m.expmap(a, c), m.logmap(a, b), m.parallel_transport(a, b, d)]
        out += [*m.expmap_transp(a, c, d), m.inner(a, c, d), m.norm(a, c), m.egrad2rgrad(a, h), m.projx(a)]
        out += [m.ehess2rhess(a, h, k, c), m.basis(a), m.gyroadd(a, b), m.gyroinv(a), m.gyration(a, b, a), m.dist0(a)]
        out += [m.to_normal(a), m.logmap_frame(a, b), m.transport_frame(a, b, z), m.frame_from_tangent(a, c)]
        out += [m.boost_matrix(a), m.centroid(a), m.decay(a, 0.5), m.midpoint(a, b), m.logdet_dexp(a, c)]
        gradients = torch.autograd.grad(sum(o.square().sum() for o in out), (a, b, c, d))
        return [*out, *gradients]

    for got, want in zip(everything(True), everything(False), strict=True):
        assert torch.equal(got, want)


def test_egrad2rgrad_reads_the_time_of_the_gradient():
    m = Lorentz(-0.7)
    x = m.random(3, 4, dtype=torch.float64)
    v = m.random_tangent(x)
    g = torch.zeros_like(x)
    g[:, 0] = 1.0
    assert torch.allclose(m.inner(x, m.egrad2rgrad(x, g), v), v[:, 0])


def test_projection_of_tangent_vectors_is_the_identity_at_large_radius():
    m, eps = Lorentz(), torch.finfo(torch.float64).eps
    for rho in (1.0, 8.0, 12.0, 18.0):
        x = sphere_of(m, rho, torch.float64)
        u = m.random_tangent(x, torch.Generator().manual_seed(1))
        projected = m.proju(x, u)
        assert torch.equal(projected[:, 1:], u[:, 1:])
        assert torch.allclose(projected, u, rtol=1e2 * eps, atol=0)


def test_projection_is_orthogonal_in_the_minkowski_product():
    m = Lorentz(-0.7)
    x = m.random(6, 4, dtype=torch.float64)
    a, v = torch.randn_like(x), m.random_tangent(x)
    rest = a - m.proju(x, a)
    minkowski = (rest * v)[:, 1:].sum(-1) - rest[:, 0] * v[:, 0]
    assert minkowski.abs().max() < 1e-12 * rest.norm() * v.norm()


# ---- isometries and means ---------------------------------------------------------------------------------------


def test_boost_matrix_is_a_lorentz_transformation():
    m = Lorentz(-0.6)
    x, y = m.random(5, 4, dtype=torch.float64), m.random(5, 4, dtype=torch.float64)
    boost = m.boost_matrix(x)
    metric = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    assert torch.allclose(boost.mT @ metric @ boost, metric.expand_as(boost), atol=1e-10)
    assert torch.allclose((boost @ m.origin(4, dtype=torch.float64).unsqueeze(-1)).squeeze(-1), x)
    assert torch.allclose((boost @ y.unsqueeze(-1)).squeeze(-1), m.gyroadd(x, y))


def test_gyration_is_its_definition():
    m = Lorentz(-0.6)
    x, y, z = (m.random(5, 4, dtype=torch.float64) for _ in range(3))
    left = m.gyroadd(m.gyroinv(m.gyroadd(x, y)), m.gyroadd(x, m.gyroadd(y, z)))
    assert torch.allclose(m.gyration(x, y, z), left, rtol=1e-8, atol=1e-8)


def truth_of_centroid(space, rows, weights):
    total = combine(*zip(weights, rows, strict=True))
    return combine((space.R / mp.sqrt(-space.product(total, total)), total))


@pytest.mark.parametrize("curvature", (-1.0, -0.3))
def test_centroid_reaches_the_rounding_floor_to_radius_thirty(curvature):
    m, space, eps = Lorentz(curvature), Space(curvature), torch.finfo(torch.float64).eps
    w = torch.tensor([0.1, 0.4, 0.2, 0.25, 0.05], dtype=torch.float64)
    for rho in (0.0, 1.0, 8.0, 15.0, 20.0, 30.0):
        centre = sphere_of(m, rho, torch.float64, count=1).expand(5, -1)
        x = beside(space, m, centre, 0.5 * m._radius * directions(5, 5, seed=12))
        true = truth_of_centroid(space, points(space, x), numbers(w))
        error = space.dist(true, space.point(numbers(m.centroid(x, w)[1:]))) / space.R
        assert error <= 4 * eps * math.cosh(rho + 0.5)


def test_centroid_commutes_with_isometries_and_has_gradients():
    m = Lorentz()
    x, g = m.random(4, 3, 5, dtype=torch.float64), m.random(3, 5, dtype=torch.float64)
    w = torch.rand(4, dtype=torch.float64)
    assert torch.allclose(m.centroid(m.gyroadd(g, x), w), m.gyroadd(g, m.centroid(x, w)), rtol=1e-9)

    def both(s, w):
        return m.centroid(formulas.point_from_space(s, -1.0), w)

    inputs = (x[..., 1:].clone().requires_grad_(), w.requires_grad_())
    assert gradcheck(both, inputs, fast_mode=True)


def test_centroid_has_its_derivatives_at_the_origin():
    """The part of a point along the mean is zero there, where its size and its sign have no derivative."""
    m, g = Lorentz(), torch.Generator().manual_seed(0)
    s = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.3]], dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, generator=g, dtype=torch.float64)

    def value(s):
        return m.centroid(formulas.point_from_space(s, -1.0)) @ weights

    assert gradcheck(value, (s,))
    assert gradgradcheck(value, (s,))


# ---- derivatives ------------------------------------------------------------------------------------------------


def leaves(*shapes, seed=13):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=g, dtype=torch.float64).requires_grad_() for shape in shapes]


FORMULAS = {
    "lorentz_dist": 2,
    "lorentz_dist2": 2,
    "lorentz_exp": 2,
    "lorentz_log": 2,
    "lorentz_transport": 3,
    "lorentz_gyrodiff": 2,
    "lorentz_gyroadd": 2,
}


def formula_named(name):
    return getattr(frames if "gyro" in name else formulas, name)


@pytest.mark.parametrize("name", FORMULAS)
def test_plain_formulas_differentiate_in_rows_and_curvature(name):
    inputs = (*leaves(*[(3, 4)] * FORMULAS[name]), torch.tensor(-0.7, dtype=torch.float64, requires_grad=True))
    formula = formula_named(name)
    assert gradcheck(formula, inputs, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(formula, inputs, fast_mode=True)


def test_transport_in_frames_differentiates():
    inputs = (*leaves((3, 4), (3, 4), (3, 3)), torch.tensor(-0.7, dtype=torch.float64, requires_grad=True))
    assert gradcheck(frames.lorentz_transport_normal, inputs, fast_mode=True)
    assert gradgradcheck(frames.lorentz_transport_normal, inputs, fast_mode=True)


@pytest.mark.parametrize("place", ["ties", "origin", "coincidence", "opposite"])
def test_smooth_formulas_differentiate_at_special_places(place):
    (s,) = leaves((2, 3))
    s = s.detach()
    t = {"ties": s.flip(-1), "origin": 0 * s, "coincidence": s.clone(), "opposite": -s}[place]
    for name in ("lorentz_dist2", "lorentz_log", "lorentz_gyrodiff"):

        def formula(s, t, name=name):
            rows = (formulas.point_from_space(a, -1.3) for a in (s, t))
            return formula_named(name)(*rows, -1.3)

        inputs = (s.clone().requires_grad_(), t.clone().requires_grad_())
        assert gradcheck(formula, inputs, fast_mode=True), name
        assert gradgradcheck(formula, inputs, fast_mode=True), name


@pytest.mark.parametrize("name", ["dist", "exp", "log", "transport"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 3.0])
def test_closed_form_derivatives_are_those_of_the_plain_formulas(name, scale):
    formula, backward = getattr(formulas, f"lorentz_{name}"), getattr(slopes, f"lorentz_{name}_backward")
    rows = [(scale * a).detach().requires_grad_() for a in leaves(*[(6, 5)] * FORMULAS[f"lorentz_{name}"], seed=14)]
    K = torch.tensor(-0.4, dtype=torch.float64, requires_grad=True)
    out = formula(*rows, K)
    g = torch.randn_like(out)
    want = torch.autograd.grad(out, [*rows, K], g)
    *got, gK = backward(g, *(r.detach() for r in rows), K.detach())
    assert gK.shape == (6,)
    for a, b in zip(got, want, strict=False):
        assert (a - b).abs().max() <= 1e-11 * b.abs().max()
    assert (gK.sum() - want[-1]).abs() <= 1e-11 * max(1.0, float(want[-1].abs()))


@pytest.mark.parametrize("name", ["dist", "exp", "log", "transport"])
def test_closed_form_derivatives_differentiate(name):
    backward = getattr(slopes, f"lorentz_{name}_backward")
    rows = leaves(*[(3, 4)] * FORMULAS[f"lorentz_{name}"])
    g = torch.randn((3,) if name == "dist" else (3, 4), dtype=torch.float64, requires_grad=True)
    K = torch.tensor(-0.7, dtype=torch.float64, requires_grad=True)
    assert gradcheck(backward, (g, *rows, K), fast_mode=True)


def test_closed_form_derivative_of_the_distance_is_zero_at_coincidence():
    (x,) = leaves((4, 5))
    x = x.detach()
    one, K = torch.ones(4, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)
    assert all((g == 0).all() for g in slopes.lorentz_dist_backward(one, x, x.clone(), K))


def test_overwriting_temporaries_changes_nothing():
    x, y, v = (a.detach() for a in leaves((6, 5), (6, 5), (6, 5)))
    for name, count in FORMULAS.items():
        rows = (x, y, v)[:count]
        before = [r.clone() for r in rows]
        formula = formula_named(name)
        fast, plain = formula(*rows, -1.0), formula(*(r.clone().requires_grad_() for r in rows), -1.0)
        assert torch.allclose(fast, plain, rtol=1e-12, atol=1e-12), name
        assert all(torch.equal(a, b) for a, b in zip(rows, before, strict=True)), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lorentz_exp", "lorentz_log", "lorentz_transport", "lorentz_dist"])
def test_compiled_by_inductor(name):
    rows = [a.detach() for a in leaves(*[(40, 9)] * FORMULAS[name])]
    formula = formula_named(name)
    got = torch.compile(formula, fullgraph=True)(*rows, -0.7)
    assert torch.allclose(got, formula(*rows, -0.7), rtol=1e-11, atol=1e-11)


# ---- arguments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("curvature", [0.0, 1.0, math.inf, math.nan, "1", torch.ones(2)])
def test_curvature_must_be_negative(curvature):
    with pytest.raises(ValueError, match="Lorentz: curvature"):
        Lorentz(curvature)


def test_random_uniform_is_refused():
    with pytest.raises(NotImplementedError, match="Lorentz.*volume is infinite"):
        Lorentz().random_uniform(3, 4)


def test_the_lower_sheet_is_refused():
    answer, reason = Lorentz().check_point_on_manifold(-Lorentz().origin(4), explain=True)
    assert not answer and "max|t/sqrt(R^2 + |s|^2) - 1| = 2" in reason


def test_decay_draws_to_the_origin():
    m = Lorentz(-2.0)
    x = m.random(5, 4, dtype=torch.float64)
    assert torch.allclose(m.dist0(m.decay(x, 0.3)), 0.3 * m.dist0(x))
    assert torch.allclose(m.to_normal(m.decay(x, torch.tensor(0.3))), 0.3 * m.to_normal(x))


def test_curvature_as_a_tensor_has_its_gradient():
    K = torch.tensor(-0.8, dtype=torch.float64, requires_grad=True)
    s, t = (a.detach() for a in leaves((4, 3), (4, 3)))

    def d(K):
        m = Lorentz(K)
        return m.dist(formulas.point_from_space(s, K), formulas.point_from_space(t, K)).sum()

    assert gradcheck(d, (K,))


def test_a_single_point_has_second_derivatives_in_a_learned_curvature():
    def of(K, z, batch):
        m = Lorentz(K)
        x, y = m.origin(*batch, 3, dtype=z.dtype), m.from_normal(z.expand(*batch, 2))
        return m.dist(x, y).sum() + m.logmap(x, y).square().sum() + m.expmap(y, m.proju(y, x)).sum()

    K, z = torch.tensor(-1.3, dtype=torch.float64), torch.tensor([1.0, 0.5], dtype=torch.float64)
    single, stacked = (torch.func.hessian(lambda K, z, b=b: of(K, z, b), (0, 1))(K, z) for b in ((), (1,)))
    torch.testing.assert_close(single, stacked)
    leaves = K.requires_grad_(), z.requires_grad_()
    first = torch.autograd.grad(of(*leaves, ()), leaves, create_graph=True)
    second = torch.autograd.grad(first[1].sum(), leaves)
    torch.testing.assert_close(second[1], single[1][1].sum(0))
    torch.testing.assert_close(second[0], single[1][0].sum(0))
