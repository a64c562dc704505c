"""Conversions between models and between curvatures: against mpmath, there and back, and at the ends of the models."""

import itertools
import math

import pytest
import torch

from tests.support.models import HYPERBOLIC, SPHERICAL, coordinates, directions, distance, exact, generator, points
from torchriemann.manifolds import (
    Euclidean,
    Klein,
    Lorentz,
    PoincareBall,
    ProjectedSphere,
    Sphere,
    Stereographic,
    change_curvature,
    convert,
)

F32, F64 = torch.float32, torch.float64
EPS = {F32: 2.0**-23, F64: 2.0**-52}
PAIRS = [(a, b, K) for K in (-0.5, -1.0, -3.0) for a, b in itertools.permutations(HYPERBOLIC, 2)]
PAIRS += [(a, b, K) for K in (0.5, 1.0, 3.0) for a, b in itertools.permutations(SPHERICAL, 2)]


def normal(radii, d=3, seed=0):
    r = torch.tensor(radii, dtype=F64).unsqueeze(-1)
    return r * directions(len(radii), d, seed)


# ---- convert --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize(("source", "target", "K"), PAIRS)
def test_coordinates_are_right(source, target, K, dtype):
    z = normal([1e-6, 0.01, 0.3, 1.0, 1.5]) / math.sqrt(abs(K))
    x = points(source, K, z, dtype)
    y = convert(x, source(K), target(K))
    truth = points(target, K, z, F64)
    assert y.dtype == dtype
    # The rounding of x is amplified by no more than the condition of the map, below 12 at these radii.
    assert ((y.double() - truth).norm(dim=-1) / truth.norm(dim=-1)).max() <= 30 * EPS[dtype]


REACH = {  # radius up to which the narrower of two models still tells points apart
    (Lorentz, PoincareBall): {F32: 16.0, F64: 36.0},
    (Lorentz, Stereographic): {F32: 16.0, F64: 36.0},
    (Lorentz, Klein): {F32: 8.0, F64: 18.0},
    (PoincareBall, Klein): {F32: 8.0, F64: 18.0},
}


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("K", [-1.0, -0.3])
@pytest.mark.parametrize("pair", REACH)
def test_there_and_back_to_the_end_of_the_narrower_model(pair, K, dtype):
    wide, narrow = pair[0](K), pair[1](K)
    radii = [f * REACH[pair][dtype] / math.sqrt(-K) for f in (1e-6, 0.1, 0.5, 0.75, 0.9, 1.0)]
    p = points(pair[1], K, normal(radii * 8), dtype)
    back = convert(convert(p, narrow, wide), wide, narrow)
    assert ((back - p).norm(dim=-1) / p.norm(dim=-1)).max() <= 4 * EPS[dtype]
    # The narrower model rounds its coordinates, the wider one loses those digits: by eps exp(radius) at most.
    x = points(pair[0], K, normal(radii[:2] * 8), dtype)
    back = convert(convert(x, wide, narrow), narrow, wide)
    assert ((back - x).norm(dim=-1) / x.norm(dim=-1)).max() <= 60 * EPS[dtype]


@pytest.mark.parametrize(("source", "target", "K"), PAIRS)
def test_it_is_an_isometry_that_keeps_normal_coordinates_and_gyro_sums(source, target, K):
    m, n = source(K), target(K)
    x, y = (points(source, K, normal([0.2, 0.7, 1.1, 0.4], seed=s) / math.sqrt(abs(K)), F64) for s in (1, 2))
    u, v = convert(x, m, n), convert(y, m, n)
    torch.testing.assert_close(n.dist(u, v), m.dist(x, y), rtol=1e-13, atol=0)
    torch.testing.assert_close(n.to_normal(u), m.to_normal(x), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(convert(m.gyroadd(x, y), m, n), n.gyroadd(u, v), rtol=1e-13, atol=1e-13)


def test_origins_and_the_antipode():
    for K in (-2.0, 2.0):
        models = HYPERBOLIC if K < 0 else SPHERICAL
        for a, b in itertools.permutations(models, 2):
            sizes = [4 if m in (Lorentz, Sphere) else 3 for m in (a, b)]
            origin = convert(a(K).origin(sizes[0], dtype=F64), a(K), b(K))
            torch.testing.assert_close(origin, b(K).origin(sizes[1], dtype=F64), rtol=1e-15, atol=0)
    sphere, chart = Sphere(4.0), ProjectedSphere(4.0)
    z = (0.5 * math.pi - 1e-7) * torch.eye(3, dtype=F64)[:1]
    x = points(Sphere, 4.0, z, F64)
    far = convert(x, sphere, chart)
    truth = coordinates(ProjectedSphere, 4.0, exact(z)[0])
    assert far[0, 0] == pytest.approx(float(truth[0]), rel=1e-8)  # eps/1e-7: the rounding of x
    torch.testing.assert_close(convert(far, chart, sphere), x, rtol=1e-15, atol=1e-22)
    assert not convert(-sphere.origin(4, dtype=F64), sphere, chart).isfinite().all()


def test_precision_and_batches():
    x = Lorentz().random(2, 5, 4).bfloat16()
    p = convert(x, Lorentz(), PoincareBall())
    assert p.dtype == torch.bfloat16 and p.shape == (2, 5, 3)
    assert convert(x, Lorentz(), Lorentz(-1)) is x
    assert convert(p, PoincareBall(), Stereographic(-1.0)) is p
    assert convert(torch.zeros(0, 4), Lorentz(), Klein()).shape == (0, 3)


def test_gradients_of_conversions():
    K = torch.tensor(-0.7, dtype=F64, requires_grad=True)
    z = normal([0.0, 0.5, 2.0]).requires_grad_()

    def path(z, K):
        ball, chart = PoincareBall(K), Klein(K)
        return convert(convert(convert(ball.from_normal(z), ball, Lorentz(K)), Lorentz(K), chart), chart, ball)

    assert torch.autograd.gradcheck(path, (z, K))
    L = torch.tensor(0.7, dtype=F64, requires_grad=True)
    sphere = lambda z, K: convert(ProjectedSphere(K).from_normal(z), ProjectedSphere(K), Sphere(K))  # noqa: E731
    assert torch.autograd.gradcheck(sphere, (z, L))


def test_compiled():
    def f(x, K):
        return convert(change_curvature(x, Lorentz(), Lorentz(K)), Lorentz(K), PoincareBall(K))

    x, K = Lorentz().random(5, 4, dtype=F64), torch.tensor(-0.5, dtype=F64)
    torch.testing.assert_close(torch.compile(f, fullgraph=True, backend="eager")(x, K), f(x, K))


def test_other_curvatures_are_refused():
    x, k = Lorentz().origin(4), torch.tensor(-1.0)
    with pytest.raises(ValueError, match="differ in curvature.*change_curvature"):
        convert(x, Lorentz(), PoincareBall(-2.0))
    with pytest.raises(ValueError, match="differ in curvature"):
        convert(x, Lorentz(k), PoincareBall(-1.5))
    with pytest.raises(ValueError, match="differ in curvature"):
        convert(x, Lorentz(), Sphere())
    assert convert(x, Lorentz(k), PoincareBall()).shape == (3,)
    assert convert(x, Lorentz(torch.tensor(-0.3)), PoincareBall(-0.3)).shape == (3,)  # equal after rounding


@pytest.mark.filterwarnings("error")
def test_learnable_curvatures_are_compared_without_a_warning():
    def k(value):
        return torch.tensor(value, dtype=F64, requires_grad=True)

    z = torch.tensor([0.3, 0.4], dtype=F64)
    x, source, target = Lorentz(-0.5).from_normal(z), Lorentz(k(-0.5)), PoincareBall(k(-0.5))
    y = convert(x, source, target)
    torch.testing.assert_close(y, PoincareBall(-0.5).from_normal(z), rtol=1e-14, atol=0)
    assert y.requires_grad
    with pytest.raises(ValueError, match="differ in curvature"):
        convert(x, source, PoincareBall(k(-0.6)))
    assert change_curvature(x, source, Stereographic(k(-2.0))).requires_grad  # reads the sign


def test_wrong_arguments():
    x = Lorentz().origin(4)
    for function in (convert, change_curvature):
        name = function.__name__
        with pytest.raises(ValueError, match=f"{name}: target must be a model of constant curvature.*Euclidean"):
            function(x, Lorentz(), Euclidean())
        with pytest.raises(ValueError, match=f"{name}: source .* the class Lorentz"):
            function(x, Lorentz, PoincareBall())
        with pytest.raises(ValueError) as swapped:
            function(Lorentz(), torch.full((100, 4), 0.125), PoincareBall())
        message = str(swapped.value)
        assert "got a tensor of shape (100, 4)" in message and f"{name}(x, source, target)" in message
        assert "0.125" not in message
        with pytest.raises(ValueError, match=f"{name}: x must be a tensor"):
            function([1.0, 0.0], Lorentz(), PoincareBall())
        with pytest.raises(ValueError, match="needs at least 1 dimension"):
            function(x[0], Lorentz(), PoincareBall())
    with pytest.raises(ValueError, match='how must be "homothety" or "radial", got \'scale\''):
        change_curvature(x, Lorentz(), Lorentz(-2.0), how="scale")
    with pytest.raises(ValueError, match='homothety keeps the sign.*how="radial"'):
        change_curvature(x, Lorentz(), Sphere(2.0))
    with pytest.raises(ValueError, match="homothety keeps the sign"):
        change_curvature(x, Lorentz(), Stereographic(torch.tensor(0.0)))


# ---- change_curvature -----------------------------------------------------------------------------------------

CHANGES = [(a, b, K, L) for a in HYPERBOLIC for b in HYPERBOLIC for K, L in ((-1.0, -0.3), (-0.3, -4.0))]
CHANGES += [(a, b, K, L) for a in SPHERICAL for b in SPHERICAL for K, L in ((1.0, 0.3), (0.3, 4.0))]


@pytest.mark.parametrize(("source", "target", "K", "L"), CHANGES)
def test_homothety_scales_all_distances(source, target, K, L):
    m, n = source(K), target(L)
    z, w = (normal([0.1, 0.6, 1.4, 1.0], seed=s) / math.sqrt(abs(K)) for s in (1, 2))
    x, y = (change_curvature(points(source, K, p, F64), m, n) for p in (z, w))
    ratio = math.sqrt(K / L)
    truth = [ratio * float(distance(K, a, b)) for a, b in zip(exact(z), exact(w), strict=True)]
    torch.testing.assert_close(n.dist(x, y), torch.tensor(truth, dtype=F64), rtol=1e-13, atol=0)
    torch.testing.assert_close(n.to_normal(x), ratio * z, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("K", [-1.0, -0.2, 0.0, 0.2, 1.0])
@pytest.mark.parametrize("L", [-3.0, -1e-9, 0.0, 1e-9, 0.9])
def test_radial_change_keeps_normal_coordinates(K, L):
    z = normal([1e-5, 0.4, 1.3, 2.9])
    m, n = Stereographic(K), Stereographic(L)
    x = change_curvature(points(Stereographic, K, z, F64), m, n, how="radial")
    torch.testing.assert_close(x, points(Stereographic, L, z, F64), rtol=1e-13, atol=1e-18)
    if L == 0:
        torch.testing.assert_close(x, z / 2, rtol=1e-13, atol=0)  # the metric of the flat chart is 4 |dx|^2


def test_radial_change_at_large_radius():
    z = normal([10.0, 20.0, 30.0])
    y = change_curvature(points(Lorentz, -1.0, z, F64), Lorentz(), Lorentz(-2.5), how="radial")
    truth = points(Lorentz, -2.5, z, F64)
    # The condition of coordinates in the distance is the radius.
    assert ((y - truth).norm(dim=-1) / truth.norm(dim=-1)).max() <= 60 * 4 * EPS[F64]


def test_both_flat_is_the_identity():
    x = torch.randn(4, 3, dtype=F64, generator=generator())
    assert torch.equal(change_curvature(x, Stereographic(0.0), Stereographic(0.0)), x)


@pytest.mark.parametrize("how", ["homothety", "radial"])
def test_gradient_reaches_both_curvatures(how):
    K, L = (torch.tensor(k, dtype=F64, requires_grad=True) for k in (-0.7, -1.9))
    z = normal([0.0, 0.5, 2.0]).requires_grad_()

    def change(z, K, L):
        return change_curvature(Lorentz(K).from_normal(z), Lorentz(K), PoincareBall(L), how=how)

    assert torch.autograd.gradcheck(change, (z, K, L))


def test_radial_change_through_zero_is_smooth():
    z = normal([0.3, 1.0, 2.0])
    slope = lambda k: torch.func.jacfwd(  # noqa: E731
        lambda k: change_curvature(z / 2, Stereographic(0.0), Stereographic(k), how="radial")
    )(torch.tensor(k, dtype=F64))
    # tan_K(r/2) = r/2 + K (r/2)^3/3 + ...
    r = z.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(slope(0.0), (r / 2) ** 3 / 3 * z / r, rtol=1e-12, atol=0)
    torch.testing.assert_close(slope(1e-10), slope(-1e-10), rtol=1e-8, atol=0)


# ---- the flat limit -------------------------------------------------------------------------------------------

LIMITS = [(m, s * 1e-8) for s, models in ((-1, HYPERBOLIC), (1, SPHERICAL)) for m in models]


@pytest.mark.parametrize(("model", "K"), LIMITS)
def test_every_model_tends_to_euclidean_space(model, K):
    m = model(K)
    z, w = normal([0.5, 1.0, 2.0], seed=1), normal([1.5, 0.2, 1.0], seed=2)
    x, y = m.from_normal(z), m.from_normal(w)
    # In ambient coordinates 1/sqrt(K) stands beside the coordinates: 1e4 eps of noise where the time is read.
    close = {"rtol": 1e-7, "atol": 1e-7}
    torch.testing.assert_close(m.dist(x, y), (z - w).norm(dim=-1), **close)
    torch.testing.assert_close(m.to_normal(m.gyroadd(x, y)), z + w, **close)
    torch.testing.assert_close(m.logmap_frame(x, y), w - z, **close)
    torch.testing.assert_close(m.to_normal(m.expmap_frame(x, w)), z + w, **close)
    torch.testing.assert_close(m.transport_frame(x, y, z), z, **close)


@pytest.mark.parametrize("how", ["convert", "homothety", "radial"])
def test_double_points_keep_their_digits_under_curvatures_of_float32(how):
    """0.3 in float32 is 0.30000001192...: with that number, and not with its root in float32."""
    z, k = normal([0.3, 1.0, 2.0]), torch.tensor(-0.3)
    x = points(Lorentz, k.item(), z, F64)
    if how == "convert":
        y, truth = convert(x, Lorentz(k), PoincareBall(k)), convert(x, Lorentz(k.item()), PoincareBall(k.item()))
    else:
        y = change_curvature(x, Lorentz(k), PoincareBall(4 * k), how=how)
        truth = change_curvature(x, Lorentz(k.item()), PoincareBall(4 * k.item()), how=how)
    torch.testing.assert_close(y, truth, rtol=1e-14, atol=0)
