"""Products, powers and scaled manifolds: against their parts computed apart, geoopt, and known spaces."""

import math

import geoopt
import pytest
import torch

from tests.laws.composites import F64, MIXED, NESTED, arguments_of, call, same
from torchriemann.manifolds import (
    Euclidean,
    Grassmann,
    Oblique,
    Orthogonal,
    PoincareBall,
    Power,
    Product,
    Scaled,
    Sphere,
    Stiefel,
)

# ---- against the parts, computed apart ------------------------------------------------------------------------

PUT_TOGETHER = ("projx", "restore", "proju", "egrad2rgrad", "ehess2rhess", "expmap", "logmap", "retr", "inverse_retr",
                "transp", "parallel_transport", "expmap_transp", "retr_transp", "geodesic", "midpoint",
                "transp_follow_retr", "transp_follow_expmap")  # fmt: skip
ADDED = ("inner", "dist2", "logdet_dexp")
ROOTS = {"norm": "inner", "dist": "dist2"}


def of_factor(m, i, arguments):
    """The arguments of one factor, cut out by hand."""
    sizes = [math.prod(s) for s in m.shapes]
    start = sum(sizes[:i])
    cut = {}
    for letter, a in arguments.items():
        if letter == "t":
            cut[letter] = a
        elif letter not in "zn":
            cut[letter] = a[..., start : start + sizes[i]].reshape(*a.shape[:-1], *m.shapes[i])
    return cut


@pytest.mark.parametrize("m", [MIXED, NESTED], ids=["mixed", "nested"])
def test_operations_are_those_of_the_factors(m):
    arguments = arguments_of(m, m.size)
    parts = [of_factor(m, i, arguments) for i in range(len(m.factors))]
    for name in PUT_TOGETHER:
        for k, got in enumerate(call(m, name, arguments)):
            want = [call(f, name, own)[k].flatten(1) for f, own in zip(m.factors, parts, strict=True)]
            same(got, torch.cat(want, -1))
    for name in ADDED:
        want = sum(call(f, name, own)[0] for f, own in zip(m.factors, parts, strict=True))
        same(call(m, name, arguments)[0], want, 1e-13)
    for name, square in ROOTS.items():
        same(call(m, name, arguments)[0].square(), call(m, square, {**arguments, "v": arguments["u"]})[0], 1e-13)
    unique = torch.stack([call(f, "log_is_unique", own)[0] for f, own in zip(m.factors, parts, strict=True)])
    assert torch.equal(call(m, "log_is_unique", arguments)[0], unique.all(0))


@pytest.mark.parametrize("inner, shape", [(Sphere(2.0), (3,)), (Stiefel(0.5, "cayley"), (4, 2)), (MIXED, (23,))],
                         ids=["sphere", "stiefel", "product"])  # fmt: skip
def test_a_power_is_a_loop_over_its_points(inner, shape):
    m = Power(inner, 3)
    arguments = arguments_of(m, 3, *shape)
    points = [{k: a[:, i] if k not in "tz" else a for k, a in arguments.items()} for i in range(3)]
    for name in PUT_TOGETHER:
        for k, got in enumerate(call(m, name, arguments)):
            same(got, torch.stack([call(inner, name, own)[k] for own in points], 1), 1e-12)
    for name in ADDED:
        same(call(m, name, arguments)[0], sum(call(inner, name, own)[0] for own in points), 1e-12)
    each = [inner.component_inner(own["x"], own["u"], own["v"]) for own in points]
    same(m.component_inner(arguments["x"], arguments["u"], arguments["v"]), torch.stack(each, 1))


def test_a_power_is_the_product_of_equal_factors():
    power, product = Power(Grassmann(), 3), Product([Grassmann()] * 3, [(4, 2)] * 3)
    arguments = arguments_of(power, 3, 4, 2)
    flat = {k: a.flatten(1) if k not in "tz" else a for k, a in arguments.items()}
    for name in ("sectional_curvature", "logdet_dexp", "dist", "dist2", "norm", "inner", "log_is_unique"):
        same(call(power, name, arguments)[0], call(product, name, flat)[0], 1e-13)
    for name in ("basis", "to_coordinates"):
        got, want = call(power, name, arguments)[0], call(product, name, flat)[0]
        same(got.reshape(want.shape), want, 1e-13)
    u = power.from_coordinates(arguments["x"], arguments["z"])
    same(u.flatten(1), product.from_coordinates(flat["x"], arguments["z"]))
    assert power.dimension((3, 4, 2)) == product.dimension((24,)) == 12
    assert power.injectivity_radius() == product.injectivity_radius() == math.pi / 2


@pytest.mark.parametrize("m", [MIXED, Power(Sphere(), 3)], ids=["product", "power"])
def test_the_mean_is_that_of_the_parts(m):
    shape = (m.size,) if isinstance(m, Product) else (3, 4)
    centre = arguments_of(m, *shape, batch=(2,))["x"].expand(5, 2, *shape)
    x = m.expmap(centre, 0.3 * m.random_tangent(centre, torch.Generator().manual_seed(1)))
    w = torch.rand(5, 2, dtype=F64, generator=torch.Generator().manual_seed(2))
    mean = m.frechet_mean(x, w)
    if isinstance(m, Product):
        want = torch.cat([f.frechet_mean(p, w).flatten(1) for f, p in zip(m.factors, m.split(x), strict=True)], -1)
    else:
        want = torch.stack([m.manifold.frechet_mean(x[:, :, i], w) for i in range(3)], 1)
    same(mean, want, 1e-12)
    # It minimises the sum of squared distances: no step along any basis vector makes that smaller.
    total = (w * m.dist2(mean, x)).sum(0)
    for sign in (1, -1):
        moved = m.expmap(mean.unsqueeze(1), sign * 1e-4 * m.basis(mean))
        assert ((w.unsqueeze(-1) * m.dist2(moved, x.unsqueeze(2))).sum(0) > total.unsqueeze(-1)).all()


def test_samples_are_those_of_the_parts():
    g = torch.Generator()
    m = Product((Sphere(), Grassmann()), ((3,), (4, 2)))
    parts = list(zip(m.factors, m.shapes, strict=True))
    for name in ("random", "random_uniform", "random_normal"):
        got = getattr(m, name)(5, 11, generator=g.manual_seed(1), dtype=F64)
        g.manual_seed(1)
        want = [getattr(f, name)(5, *s, generator=g, dtype=F64).flatten(1) for f, s in parts]
        same(got, torch.cat(want, -1))
    mean = m.random(11, dtype=F64)
    x = m.random_normal(4000, 11, mean=mean, std=torch.linspace(0.01, 0.1, 4000, dtype=F64), generator=g)
    spread = m.dist(mean, x)[2000:].square().mean() / m.dist(mean, x)[:2000].square().mean()
    assert 4 < spread < 9  # 6.9: the second half is drawn with the larger deviations
    y = Power(Sphere(), 2).random_normal(4000, 2, 3, std=torch.linspace(0.01, 0.1, 4000, dtype=F64), dtype=F64)
    assert y.shape == (4000, 2, 3)


# ---- against other libraries and known spaces -----------------------------------------------------------------


def test_geoopt_product():
    ours = Product((Sphere(), Euclidean()), ((3,), (4,)))
    theirs = geoopt.ProductManifold((geoopt.Sphere(), 3), (geoopt.Euclidean(1), 4))
    a = arguments_of(ours, 7)
    x, y, u, v, g = (a[k] for k in "xyuvg")
    for name, args in (
        ("expmap", (x, u)), ("logmap", (x, y)), ("dist", (x, y)), ("dist2", (x, y)), ("egrad2rgrad", (x, g)),
        ("proju", (x, g)), ("projx", (g,)), ("retr", (x, u)), ("inner", (x, u, v)), ("transp", (x, y, v)),
    ):  # fmt: skip
        same(getattr(ours, name)(*args), getattr(theirs, name)(*args), 1e-12)
    # geoopt takes a flat factor for a product of lines; so is Power(Euclidean(), 4).
    lines = Product((Sphere(), Power(Euclidean(), 4)), ((3,), (4, 1)))
    same(lines.component_inner(x, u, v), theirs.component_inner(x, u, v))
    same(ours.component_inner(x, u, v)[..., :3], theirs.component_inner(x, u, v)[..., :3])


@pytest.mark.parametrize("s", [0.4, 2.5])
def test_geoopt_scaled(s):
    ours, theirs = Scaled(Sphere(), s), geoopt.Scaled(geoopt.Sphere(), s)
    theirs = theirs.to(F64)
    theirs._scale.fill_(s)  # not rounded to float32
    a = arguments_of(ours, 4)
    x, y, u = (a[k] for k in "xyu")
    same(ours.dist(x, y), theirs.dist(x, y), 1e-12)
    same(ours.dist2(x, y), theirs.dist2(x, y), 1e-12)
    same(ours.expmap(x, u), theirs.expmap(x, s * u), 1e-12)
    same(s * ours.logmap(x, y), theirs.logmap(x, y), 1e-12)


@pytest.mark.parametrize("s", [0.4, 2.5])
def test_a_scaled_sphere_is_a_sphere_of_another_curvature(s):
    # x -> s x is an isometry from Scaled(Sphere(), s) to Sphere(1/s^2): tangent vectors go to s u, gradients to g/s.
    m, round_ = Scaled(Sphere(), s), Sphere(s**-2)
    a = arguments_of(m, 4)
    x, y, u, v, g, h = (a[k] for k in "xyuvgh")
    b = m.basis(x)
    for got, want in (
        (m.dist(x, y), round_.dist(s * x, s * y)),
        (m.dist2(x, y), round_.dist2(s * x, s * y)),
        (m.inner(x, u, v), round_.inner(s * x, s * u, s * v)),
        (m.norm(x, u), round_.norm(s * x, s * u)),
        (s * m.expmap(x, u), round_.expmap(s * x, s * u)),
        (s * m.logmap(x, y), round_.logmap(s * x, s * y)),
        (s * m.egrad2rgrad(x, g), round_.egrad2rgrad(s * x, g / s)),
        (s * m.ehess2rhess(x, g, h, u), round_.ehess2rhess(s * x, g / s, h / s, s * u)),
        (m.sectional_curvature(x, u, v), round_.sectional_curvature(s * x, s * u, s * v)),
        (m.logdet_dexp(x, u), round_.logdet_dexp(s * x, s * u)),
        (s * m.parallel_transport(x, y, v), round_.parallel_transport(s * x, s * y, s * v)),
        (m.inner(x[:, None, None], b[:, :, None], b[:, None]), torch.eye(3, dtype=F64).expand(3, 3, 3)),
    ):
        same(got, want, 1e-13)
    assert m.injectivity_radius() == pytest.approx(round_.injectivity_radius(), rel=1e-15)
    apart = m.dist(x, y)
    for margin in (0.0, 0.5, 1.0):
        assert torch.equal(m.log_is_unique(x, y, margin=margin), apart < s * math.pi - margin)


def test_curvature_of_a_product_of_spheres():
    # S^2(K = 1) x S^2(K = 4): 0 <= K <= 4, mixed planes flat, and the diagonal plane (K1 + K2)/4.
    m = Product((Sphere(), Sphere(4.0)), ((3,), (3,)))
    x = torch.tensor([0, 0, 1, 0, 0, 0.5], dtype=F64)
    e = torch.eye(6, dtype=F64)
    for u, v, K in (
        (e[0], e[1], 1.0), (e[3], e[4], 4.0), (e[0], e[3], 0.0), (e[0], e[3] + e[4], 0.0),
        (e[0] + e[3], e[1] + e[4], 5 / 4), (e[0] + e[3], e[1], 1 / 2), (e[0] + e[3], e[0] + e[4], 4 / 3),
        (3 * (e[0] + e[3]), e[1] + e[4] - 7 * (e[0] + e[3]), 5 / 4),
    ):  # fmt: skip
        same(m.sectional_curvature(x, u, v), torch.tensor(K, dtype=F64), 1e-14)
    assert m.sectional_curvature(x, e[0], 2 * e[0]).isnan()


def test_curvature_where_a_factor_is_at_rest():
    # The plane does not meet the Grassmann factor, or meets it in a line: its own formula is 0/0 there.
    m = Product((Grassmann(), Stiefel(), Sphere()), ((4, 2), (4, 2), (3,)))
    x = m.random(19, dtype=F64, generator=torch.Generator().manual_seed(0))
    u, v = (m.random_tangent(x, torch.Generator().manual_seed(i)) for i in (1, 2))
    (gu, su, u3), v3 = m.split(u), m.split(v)[2]
    zero = torch.zeros_like
    for a, b in (
        (m.join(zero(gu), zero(su), u3), m.join(zero(gu), zero(su), v3)),
        (m.join(gu, su, u3), m.join(2 * gu, zero(su), v3)),
        (m.join(gu, zero(su), u3), m.join(zero(gu), zero(su), v3)),
    ):
        y, a, b = (t.clone().requires_grad_() for t in (x, a, b))
        K = m.sectional_curvature(y, a, b)
        third = [Sphere().sectional_curvature(*(m.split(t)[2] for t in (y, a, b)))]
        area = m.inner(y, a) * m.inner(y, b) - m.inner(y, a, b).square()
        (p, q, r) = (m.split(t)[2] for t in (y, a, b))
        own = Sphere().inner(p, q) * Sphere().inner(p, r) - Sphere().inner(p, q, r).square()
        same(K, third[0] * own / area, 1e-13)
        assert all(g.isfinite().all() for g in torch.autograd.grad(K, (y, a, b)))


# ---- distances ------------------------------------------------------------------------------------------------


def test_distance_where_factors_coincide():
    m = Product((Sphere(), Euclidean()), ((3,), (2,)))
    x = m.random(5, dtype=F64, generator=torch.Generator().manual_seed(0))
    leaf = x.clone().requires_grad_()
    d = m.dist(leaf, x)
    assert d == 0 and (torch.autograd.grad(d, leaf)[0] == 0).all()
    y = x + torch.tensor([0, 0, 0, 3.0, 4.0])
    d = m.dist(leaf, y)
    assert d.item() == pytest.approx(5, rel=1e-15)
    same(torch.autograd.grad(d, leaf)[0], torch.tensor([0, 0, 0, -0.6, -0.8], dtype=F64))


def test_distance_neither_underflows_nor_overflows():
    m = Product((Euclidean(), Euclidean()), ((1,), (1,)))
    for size in (1e-30, 1e30):
        x, y = torch.zeros(2), torch.tensor([3 * size, 4 * size])
        assert m.dist(x, y).item() == pytest.approx(5 * size, rel=1e-6)
        assert m.norm(x, y).item() == pytest.approx(5 * size, rel=1e-6)


def test_distance_between_components_is_infinite():
    m = Product((Orthogonal(), Euclidean()), ((2, 2), (1,)))
    x = torch.tensor([1, 0, 0, 1, 0], dtype=F64)
    y = torch.tensor([1, 0, 0, -1, 1], dtype=F64)
    assert m.dist(x, y) == math.inf and m.dist(x, x) == 0
    assert not m.log_is_unique(x, y)


# ---- points ---------------------------------------------------------------------------------------------------


def test_split_and_join():
    x = MIXED.random(2, 3, MIXED.size, dtype=F64)
    parts = MIXED.split(x)
    assert [tuple(p.shape) for p in parts] == [(2, 3, 3), (2, 3, 4, 2), (2, 3, 2), (2, 3, 5, 2)]
    assert all(p.untyped_storage().data_ptr() == x.untyped_storage().data_ptr() for p in parts)
    assert torch.equal(MIXED.join(*parts), x)
    assert torch.equal(MIXED.join(parts[0][0, 0], *parts[1:])[1, 2, :3], x[0, 0, :3])
    for bad, message in (
        (parts[:3], "expected 4 tensors, one a factor, got 3"),
        (
            (parts[1], *parts[1:]),
            r"factor 0 \(Sphere.*\) has points of shape \(3,\), got \(2, 3, 4, 2\)",
        ),
        ((3.0, *parts[1:]), "got float"),
        ((parts[0][:, :2], *parts[1:]), "do not broadcast"),
    ):
        with pytest.raises(ValueError, match=message):
            MIXED.join(*bad)
    with pytest.raises(ValueError, match=r"Product.split: points have 3 \+ 8 \+ 2 \+ 10 = 23 coordinates, got 22"):
        MIXED.split(x[..., :-1])


def test_rows_of_an_oblique_point_are_unit_vectors():
    m = Oblique(4)
    assert m == Power(Sphere(), 4)
    x = m.projx(torch.randn(7, 4, 3, dtype=F64))
    same(x.norm(dim=-1), torch.ones(7, 4, dtype=F64), 1e-15)
    same(Oblique(4, 0.25).random_uniform(4, 3, dtype=F64).norm(dim=-1), torch.full((4,), 2.0, dtype=F64))
    theirs = geoopt.Sphere()
    u = m.random_tangent(x)
    same(m.expmap(x, u), theirs.expmap(x, u), 1e-13)
    same(m.dist(x, m.expmap(x, u)).square(), theirs.dist(x, theirs.expmap(x, u)).square().sum(-1), 1e-12)


def test_messages_name_the_factor():
    x = MIXED.random(MIXED.size, dtype=F64)
    for i, position in enumerate((0, 3, 11, 13)):
        y = x.clone()
        y[position] = math.inf if i == 2 else 9.0
        answer, reason = MIXED.check_point_on_manifold(y, explain=True)
        assert not answer and f"of factor {i} ({MIXED.factors[i]!r}) = " in reason and "projx(x)" in reason
    u = torch.zeros_like(x)
    u[3:11] = x[3:11]
    assert f"of factor 1 ({Stiefel()!r}) = " in MIXED.check_vector_on_tangent(x, u, explain=True)[1]
    with pytest.raises(ValueError, match=r"Product: x has max\|sqrt\(K\) \|x\| - 1\| of factor 0"):
        MIXED.assert_check_point_on_manifold(torch.cat([2 * x[:3], x[3:]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("m", [Product((PoincareBall(-0.3), Euclidean()), ((3,), (3,))), Power(PoincareBall(), 2)])
def test_projection_stays_in_a_ball_in_half_precision(m, dtype):
    x = torch.randn(1000, *((6,) if m.ndim == 1 else (2, 3)), generator=torch.Generator().manual_seed(0))
    assert m.check_point_on_manifold(m.projx(2 * x.to(dtype)))
