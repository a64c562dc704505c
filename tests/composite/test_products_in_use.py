"""Products, powers and scaled manifolds in use: errors, values, transforms, and under optimizers."""

import copy
import io
import math
import pickle

import geoopt
import pytest
import torch

from tests.laws.composites import F64, MIXED, NESTED, arguments_of, call, same
from torchriemann import optim
from torchriemann.manifolds import (
    Euclidean,
    Grassmann,
    ManifoldParameter,
    Oblique,
    Power,
    Product,
    Scaled,
    Sphere,
    Stiefel,
)
from torchriemann.testing import check_manifold

# ---- errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make, message", [
    (lambda: Product((), ()), "Product: factors must be a tuple of one entry a factor, got ()"),
    (lambda: Product(Sphere(), ((3,),)), "Product: factors must be a tuple"),
    (lambda: Product((Sphere(), Sphere()), ((3,),)), "Product: got 2 factors but 1 shapes"),
    (lambda: Product((Sphere,), ((3,),)), "factors[0] must be an instance of Manifold such as Sphere(), got the class"),
    (lambda: Product((geoopt.Sphere(),), ((3,),)), "factors[0] must be an instance of Manifold"),
    (lambda: Product((Sphere(), Sphere()), ((3,), 3)), "shapes[1] must be a tuple of integers such as (3,), got 3"),
    (lambda: Product((Sphere(),), ((3.0,),)), "shapes[0] must be a tuple of integers"),
    (lambda: Product((Stiefel(),), ((2, 3),)), "shapes[0] = (2, 3) is no point of Stiefel"),
    (lambda: Product((Stiefel(),), ((3,),)), "shapes[0] = (3,) is no point of Stiefel"),
    (lambda: Product((Sphere(),), ((2, 3),)), "for several points of one manifold use Power"),
    (lambda: Power(Sphere, 3), "Power: manifold must be an instance such as Sphere()"),
    (lambda: Power(Sphere(), 0), "Power: n must be a positive integer, got 0"),
    (lambda: Power(Sphere(), 2.0), "Power: n must be a positive integer, got 2.0"),
    (lambda: Oblique(-1), "Power: n must be a positive integer, got -1"),
    (lambda: Scaled(3.0, Sphere()), "Scaled: manifold must be an instance such as Sphere(), got 3.0"),
    (lambda: Scaled(Sphere(), 0.0), "Scaled: scale must be a positive finite number, got 0.0"),
    (lambda: Scaled(Sphere(), math.nan), "Scaled: scale must be a positive finite number, got nan"),
    (lambda: Scaled(Sphere(), torch.ones(1)), "Scaled: scale must be a number or a 0-dim tensor, got (1,)"),
])  # fmt: skip
def test_options_are_checked(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)


@pytest.mark.parametrize("m, size, message", [
    (MIXED, (22,), "points have 3 + 8 + 2 + 10 = 23 coordinates, got 22"),
    (Power(Sphere(), 3), (2, 4), "a point is 3 points of Sphere(curvature=1.0), got 2"),
    (Power(Stiefel(), 3), (3, 1, 2), "a frame of p vectors in R^n needs 1 <= p <= n, got n = 1, p = 2"),
    (Scaled(Stiefel(), 2.0), (1, 2), "a frame of p vectors in R^n needs 1 <= p <= n, got n = 1, p = 2"),
])  # fmt: skip
def test_wrong_sizes(m, size, message):
    for make in (lambda: m.random(*size), lambda: m.origin(*size), lambda: m.expmap(*[torch.randn(size)] * 2),
                 lambda: m.frechet_mean(torch.randn(2, *size)), lambda: m.random_tangent(torch.randn(size)),
                 lambda: m.geodesic(*[torch.randn(size)] * 2, 0.5)):  # fmt: skip
        with pytest.raises(ValueError) as error:
            make()
        assert message in str(error.value) and type(m).__name__ in str(error.value)


@pytest.mark.parametrize("m", [Sphere(), Euclidean(), Stiefel(), MIXED, Power(Sphere(), 5), Scaled(Sphere(), 2.0)])
def test_a_tuple_for_separate_sizes(m):
    for name in ("random", "random_normal", "origin"):
        with pytest.raises(ValueError, match=r"must be given as separate integers, got \(\(5, 3\),\)"):
            getattr(m, name)((5, 3))
    with pytest.raises(ValueError, match="must be given as separate integers"):
        m.random_normal((5, 3), mean=torch.ones(5, 3))


def test_what_a_part_lacks():
    for m, size in ((MIXED, (23,)), (Power(Euclidean(), 2), (2, 3)), (Scaled(Euclidean(), 2.0), (3,))):
        with pytest.raises(NotImplementedError, match=rf"{m.name}: .*Euclidean\(\) has no uniform law"):
            m.random_uniform(*size)
    with pytest.raises(NotImplementedError, match="Product: factor 2, Euclidean"):
        MIXED.random_uniform(23)


def test_the_order_of_a_retraction_is_the_lowest_of_its_parts():
    assert Power(Euclidean(), 2).retraction_order == 3
    assert MIXED.retraction_order == 2
    assert Product((Sphere(), Stiefel(0.5)), ((3,), (4, 2))).retraction_order == 1


def test_weights_of_a_mean_are_checked():
    with pytest.raises(ValueError, match="Product.frechet_mean: weights must be broadcastable"):
        MIXED.frechet_mean(MIXED.random(4, 23), torch.ones(3))
    with pytest.raises(ValueError, match="Product.frechet_mean: weights must be broadcastable"):
        MIXED.frechet_mean(MIXED.random(4, 2, 23), torch.ones(4, 3))
    with pytest.raises(ValueError, match="Power.frechet_mean: needs a non-empty first dimension"):
        Oblique(3).frechet_mean(torch.empty(0, 3, 2))


def test_order_of_the_retraction():
    exact, first = Stiefel(0.5, "exp"), Stiefel(1.0, "qr")
    assert Power(exact, 2).retraction_order == 3 and Scaled(first, 2.0).retraction_order == 1
    assert Product((exact, first), ((3, 2), (3, 2))).retraction_order == 1


# ---- values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [MIXED, NESTED, Power(Stiefel(0.5), 2), Scaled(NESTED, 0.5)])
def test_manifolds_are_values(m):
    buffer = io.BytesIO()
    torch.save({"manifold": m, "point": torch.ones(3)}, buffer)
    buffer.seek(0)
    read = torch.load(buffer, weights_only=True)["manifold"]
    for twin in (copy.deepcopy(m), pickle.loads(pickle.dumps(m)), read, eval(repr(m))):
        assert twin == m and hash(twin) == hash(m) and len({twin, m}) == 1


def test_equality_is_by_value():
    assert NESTED == Product((Product((Sphere(2.0), Euclidean()), ((3,), (1,))), Sphere()), ((4,), (2,)))
    others = [
        Product((Sphere(), Euclidean()), ((3,), (2,))), Product((Sphere(), Euclidean()), ((2,), (3,))),
        Product((Sphere(2.0), Euclidean()), ((3,), (2,))), Power(Sphere(), 2), Power(Sphere(), 3),
        Power(Sphere(2.0), 2), Scaled(Sphere(), 2), Scaled(Sphere(), 3), Sphere(),
    ]  # fmt: skip
    assert len(set(others)) == len(others)


def test_options_may_be_tensors():
    scale, K = torch.tensor(1.5, dtype=F64, requires_grad=True), torch.tensor(0.7, dtype=F64, requires_grad=True)
    raw = torch.randn(2, 3, 9, dtype=F64, generator=torch.Generator().manual_seed(0))

    def value(scale, K):
        m = Product((Scaled(Sphere(K), scale), Power(Sphere(K), 2)), ((3,), (2, 3)))
        x, y = m.projx(raw)
        return m.dist(x, y).sum() + m.inner(x, m.logmap(x, y)).sum() + m.injectivity_radius(x)

    assert torch.autograd.gradcheck(value, (scale, K))
    m = Product((Sphere(K), Euclidean()), ((3,), (2,)))
    assert m == copy.copy(m) and m != Product((Sphere(0.7), Euclidean()), ((3,), (2,)))
    assert Sphere(K).check_point_on_manifold(Sphere(K).projx(torch.randn(5, dtype=F64)))  # without a warning
    with pytest.raises(ValueError, match="requires a gradient"):
        ManifoldParameter.project(torch.randn(5, dtype=F64), m)
    m = Product((Sphere(K.detach()), Euclidean()), ((3,), (2,)))
    p = ManifoldParameter.project(torch.randn(5, dtype=F64), m)
    with pytest.raises(ValueError, match="an option of which is a tensor"):
        optim.RiemannianSGD([p], lr=0.1)


# ---- transforms -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "factor, shape, backend",
    [(Sphere(0.3), (4,), "eager"), pytest.param(Stiefel(), (4, 2), "aot_eager", marks=pytest.mark.slow)],
)
def test_compiles_without_graph_breaks(factor, shape, backend):
    m = Product((Power(Sphere(), 2), factor, Euclidean()), ((2, 3), shape, (2,)))
    a = arguments_of(m, m.size)
    names = ("egrad2rgrad", "retr_transp", "component_inner", "basis", "sectional_curvature")

    def everything(a):
        return [out for name in names for out in call(m, name, a)]

    torch.compiler.reset()
    try:
        got = torch.compile(everything, fullgraph=True, backend=backend, dynamic=False)(a)
    finally:
        torch.compiler.reset()
    for g, w in zip(got, everything(a), strict=True):
        same(g, w, 1e-12)


def test_per_sample_gradients():
    m = Product((Sphere(), Grassmann()), ((3,), (4, 2)))
    a = arguments_of(m, 11)
    per_sample = torch.func.vmap(torch.func.grad(m.dist2), in_dims=(0, 0))(a["x"], a["y"])
    x = a["x"].clone().requires_grad_()
    same(per_sample, torch.autograd.grad(m.dist2(x, a["y"]).sum(), x)[0], 1e-13)


def test_a_user_holds_a_product_of_their_own_to_the_laws():
    m = Product((Sphere(), Sphere()), ((2,), (3,)))
    held = check_manifold(m, (5,), seeds=range(1), components=lambda a: a[..., 0] + a[..., 2],
                          laws=("inner_is_a_scalar_product", "gradient_represents_the_differential"))  # fmt: skip
    assert len(held) == 2
    with pytest.raises(AssertionError, match="component_inner"):
        check_manifold(m, (5,), seeds=range(1), laws=("inner_is_a_scalar_product",))


# ---- optimizers -----------------------------------------------------------------------------------------------

FACTORS = (Sphere(2.0), Stiefel(0.5, "cayley"), Grassmann("qr"), Scaled(Sphere(), 2.0), Power(Euclidean(), 2))
SHAPES = ((3,), (4, 2), (4, 2), (3,), (2, 1))
TARGETS = [torch.randn(s, dtype=F64, generator=torch.Generator().manual_seed(9)) for s in SHAPES]


def loss_of(parts):
    return sum(((p @ p.mT if s == (4, 2) else p.sin()).sum(-1) * t.flatten()[0]).sum() + (p - t).square().sum()
               for p, t, s in zip(parts, TARGETS, SHAPES, strict=True))  # fmt: skip


def train(parameters, split, make, steps=30):
    optimizer = make(parameters)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(split(parameters)).backward()
        optimizer.step()
    return optimizer


OPTIMIZERS = {
    "sgd": lambda p: optim.RiemannianSGD(p, lr=0.02),
    "momentum": lambda p: optim.RiemannianSGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "adam": lambda p: optim.RiemannianAdam(p, lr=0.05),
    "amsgrad": lambda p: optim.RiemannianAdam(p, lr=0.05, amsgrad=True),
}


def starting_point(m):
    return m.random(m.size, dtype=F64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_product_steps_like_its_factors(name):
    m = Product(FACTORS, SHAPES)
    start = starting_point(m)
    whole = [ManifoldParameter(start.clone(), m)]
    apart = [ManifoldParameter(p.clone(), f) for f, p in zip(FACTORS, m.split(start), strict=True)]
    apart[-1] = torch.nn.Parameter(m.split(start)[-1].clone())  # a product of lines, stepped as torch does
    train(whole, lambda p: m.split(p[0]), OPTIMIZERS[name])
    train(apart, list, OPTIMIZERS[name])
    same(whole[0].detach(), m.join(*(p.detach() for p in apart)), 1e-12)
    assert m.check_point_on_manifold(whole[0], atol=1e-13)
    assert (whole[0] - start).abs().max() > 0.1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_power_steps_like_separate_points(name):
    m = Oblique(4)
    start = m.random(4, 3, dtype=F64, generator=torch.Generator().manual_seed(3))
    target = torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(4))
    whole, apart = ManifoldParameter(start.clone(), m), [ManifoldParameter(p.clone(), Sphere()) for p in start]
    for parameters, stack in (([whole], lambda p: p[0]), (apart, torch.stack)):
        optimizer = OPTIMIZERS[name](parameters)
        for _ in range(20):
            optimizer.zero_grad()
            (stack(parameters) - target).pow(4).sum().backward()
            optimizer.step()
    same(whole.detach(), torch.stack(apart).detach(), 1e-12)


def test_second_moments_are_one_scalar_a_factor():
    m = Product(FACTORS[:3], SHAPES[:3])
    p = ManifoldParameter(m.random(5, m.size, dtype=F64), m)
    optimizer = optim.RiemannianAdam([p], lr=0.1)
    (p * torch.randn(5, m.size, dtype=F64)).sum().backward()
    optimizer.step()
    second = m.split(optimizer.state[p]["exp_avg_sq"])
    for part in second:
        flat = part.flatten(1)
        assert torch.equal(flat, flat[:, :1].expand_as(flat)) and (flat > 0).all()
    rows = ManifoldParameter(Oblique(4).random(5, 4, 3, dtype=F64), Oblique(4))
    optimizer = optim.RiemannianAdam([rows], lr=0.1)
    rows.square().mul(torch.randn(3, dtype=F64)).sum().backward()
    optimizer.step()
    assert optimizer.state[rows]["exp_avg_sq"].shape == (5, 4, 1)


def test_geoopt_steps_our_product_as_we_do():
    m = Product(FACTORS, SHAPES)
    start = starting_point(m)
    points = []
    for make in (lambda p: geoopt.optim.RiemannianAdam(p, lr=0.05), OPTIMIZERS["adam"]):
        points.append(ManifoldParameter(start.clone(), m))
        train(points[-1:], lambda p: m.split(p[0]), make)
    same(points[0].detach(), points[1].detach(), 1e-10)


def test_state_of_a_product_survives_a_checkpoint():
    m = Product(FACTORS, SHAPES)
    p = ManifoldParameter(starting_point(m), m)
    optimizer = train([p], lambda p: m.split(p[0]), OPTIMIZERS["adam"], steps=5)
    buffer = io.BytesIO()
    torch.save({"point": p.detach(), "optimizer": optimizer.state_dict()}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    q = ManifoldParameter(saved["point"], m)
    other = OPTIMIZERS["adam"]([q])
    other.load_state_dict(saved["optimizer"])
    for parameter, continued in ((p, optimizer), (q, other)):
        continued.zero_grad()
        loss_of(m.split(parameter)).backward()
        continued.step()
    assert torch.equal(p, q)


def test_a_scale_that_is_a_tensor_leaves_every_question_answered():
    x, y = Sphere().random(5, 3, dtype=torch.float64), Sphere().random(5, 3, dtype=torch.float64)
    m, plain = Scaled(Sphere(), torch.tensor(2.0, dtype=torch.float64)), Scaled(Sphere(), 2.0)
    for margin in (0.0, 1.0):
        assert torch.equal(m.log_is_unique(x, y, margin=margin), plain.log_is_unique(x, y, margin=margin))
    torch.testing.assert_close(m.dist(x, y), plain.dist(x, y))


@pytest.mark.parametrize(
    "scale", [-2.0, 0.0, math.nan, math.inf, True, 1e200, torch.tensor(-2.0), torch.tensor(math.nan)]
)
def test_scales_are_positive_numbers(scale):
    with pytest.raises(ValueError, match="Scaled: scale must be a positive finite number"):
        Scaled(Sphere(), scale)


def test_weight_decay_of_compact_factors_copies_nothing():
    x = torch.randn(4, 8)
    assert Product((Sphere(), Grassmann()), ((2,), (3, 2))).decay(x, 0.5) is x
    assert Power(Sphere(), 2).decay(x, 0.5) is x
