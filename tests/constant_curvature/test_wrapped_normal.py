"""The wrapped normal law: closed forms in mpmath, integrals, all models alike, gradients."""

import math

import mpmath
import pytest
import torch
from mpmath import mpf
from torch.distributions import MultivariateNormal, Normal

from tests.support.models import HYPERBOLIC, SPHERICAL, directions, exact, generator, norm, points, sine
from torchriemann.manifolds import (
    Euclidean,
    Klein,
    Lorentz,
    PoincareBall,
    Power,
    Product,
    ProjectedSphere,
    Scaled,
    Sphere,
    Stereographic,
    Stiefel,
    WrappedNormal,
)

F64 = torch.float64
STD = torch.tensor([0.3, 0.6], dtype=F64)
TRIL = torch.tensor([[0.4, 0.0], [-0.3, 0.5]], dtype=F64)


# ---- the density ----------------------------------------------------------------------------------------------


CASES = [(m, K) for m in HYPERBOLIC for K in (-0.3, -1.0, -4.0)] + [(m, 0.25) for m in SPHERICAL]


@pytest.mark.parametrize(("model", "K"), [*CASES, (Stereographic, 0.0)])
def test_closed_form_at_the_origin(model, K):
    z = torch.tensor([1e-4, 0.01, 0.4, 1.3, 2.4], dtype=F64).unsqueeze(-1) * directions(5, 3)
    std = torch.tensor([0.3, 0.7, 0.5], dtype=F64)
    x, origin = points(model, K, z, F64), model(K).origin(4 if model in (Lorentz, Sphere) else 3, dtype=F64)
    value = WrappedNormal(model(K), origin, std).log_prob(x)
    for v, row in zip(value, exact(z), strict=True):
        normal = sum(-((a / mpf(s)) ** 2) / 2 - mpmath.log(mpf(s) * mpmath.sqrt(2 * mpmath.pi)) for a, s in
                     zip(row, std.tolist(), strict=True))  # fmt: skip
        truth = normal - 2 * mpmath.log(sine(K, norm(row)) / norm(row))
        assert v.item() == pytest.approx(float(truth), rel=1e-12, abs=1e-12)


def grid(reach: float, n: int):
    """Points of the plane, and the area of their cells."""
    a = torch.linspace(-reach, reach, n, dtype=F64)
    return torch.cartesian_prod(a, a), (2 * reach / (n - 1)) ** 2


def area_factor(K, z):
    """Of normal coordinates: sinh(r)/r of their radius."""
    r = z.norm(dim=-1) * math.sqrt(-K)
    return torch.where(r == 0, 1.0, r.sinh() / torch.where(r == 0, 1.0, r))


@pytest.mark.parametrize("law", ["std", "tril", "number"])
@pytest.mark.parametrize("K", [-0.5, -1.0, -2.0])
def test_it_integrates_to_one_and_all_models_agree(K, law):
    """Over normal coordinates at the origin, where the law is not centred, by the trapezoidal rule."""
    z, cell = grid(7.0, 161)
    centre = torch.tensor([[0.8, -0.5]], dtype=F64)
    scale = {"std": {"scale": STD}, "tril": {"scale_tril": TRIL}, "number": {"scale": 0.5}}[law]
    densities = []
    for model in HYPERBOLIC[:3]:
        manifold = model(K)
        distribution = WrappedNormal(manifold, manifold.from_normal(centre)[0], **scale)
        x = manifold.from_normal(z)
        densities.append(distribution.log_prob(x).exp())
        total = (densities[-1] * area_factor(K, z)).sum() * cell
        assert total.item() == pytest.approx(1.0, abs=1e-6)
    near = z.norm(dim=-1) * math.sqrt(-K) < 4  # farther out the coordinates of ball and Klein tell less
    for other in densities[1:]:
        torch.testing.assert_close(other[near], densities[0][near], rtol=1e-9, atol=1e-13)


def legendre(n: int, top: float):
    """Nodes and weights on (0, top)."""
    x, w = (torch.tensor(a, dtype=F64) for a in __import__("numpy").polynomial.legendre.leggauss(n))
    return top / 2 * (x + 1), top / 2 * w


@pytest.mark.parametrize("std", [0.4, 0.9, 2.0])
@pytest.mark.parametrize("K", [1.0, 0.36])
def test_it_integrates_to_one_on_the_sphere_however_often_it_goes_around(K, std):
    """In polar coordinates about the centre; without the turns, 0.2 % would be missing at 0.9 and 29 % at 2."""
    R, loc = K**-0.5, points(Sphere, K, torch.tensor([[0.5, 0.9]], dtype=F64), F64)[0]
    r, w = legendre(60, math.pi * R)
    angle = torch.arange(40, dtype=F64) * (2 * math.pi / 40)
    e = torch.linalg.qr(torch.cat([loc.unsqueeze(-1), torch.eye(3, dtype=F64)[:, 1:]], -1))[0][:, 1:]
    around = angle.cos().unsqueeze(-1) * e[:, 0] + angle.sin().unsqueeze(-1) * e[:, 1]
    x = (r / R).cos().view(-1, 1, 1) * loc + R * (r / R).sin().view(-1, 1, 1) * around
    scale = R * std * torch.tensor([1.0, 0.8], dtype=F64)
    for manifold in (Sphere(K), Sphere(torch.tensor(K, dtype=F64))):
        density = WrappedNormal(manifold, loc, scale).log_prob(x).exp()
        total = (density * (R * (r / R).sin() * w).unsqueeze(-1)).sum() * (2 * math.pi / 40)
        assert total.item() == pytest.approx(1.0, abs=1e-8)
    assert (density > 0).all()
    p = torch.tensor([[0.3, 1.0], [-1.0, 0.2]], dtype=F64)
    charts = [(Sphere, 3), (ProjectedSphere, 2), (Stereographic, 2)]
    values = [WrappedNormal(m(K), m(K).origin(n, dtype=F64), scale).log_prob(points(m, K, p, F64)) for m, n in charts]
    for other in values[1:]:
        torch.testing.assert_close(other, values[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("std", [0.3, 1.0, 2.5])
def test_on_a_circle_it_is_the_wrapped_normal_of_the_circle(std):
    """sum_k N(angle + 2 pi k), at every angle, zero included."""
    K = 0.25
    angle = torch.tensor([0.0, 1e-9, 0.5, -2.0, 3.1, -3.14], dtype=F64)
    x = 2.0 * torch.stack([(angle + 0.7).cos(), (angle + 0.7).sin()], -1)
    loc = 2.0 * torch.tensor([math.cos(0.7), math.sin(0.7)], dtype=F64)
    k = torch.arange(-9, 10, dtype=F64)
    truth = (
        Normal(torch.zeros((), dtype=F64), 2 * std).log_prob(2 * (angle.unsqueeze(-1) + 2 * math.pi * k)).logsumexp(-1)
    )
    torch.testing.assert_close(WrappedNormal(Sphere(K), loc, 2 * std).log_prob(x), truth, rtol=1e-13, atol=1e-13)


def test_flat_spaces_have_the_normal_law():
    loc, x = torch.randn(2, 4, dtype=F64, generator=generator())
    flat = WrappedNormal(Euclidean(), loc[:2], scale_tril=TRIL)
    torch.testing.assert_close(flat.log_prob(x[:2]), MultivariateNormal(loc[:2], scale_tril=TRIL).log_prob(x[:2]))
    # The flat stereographic chart has the metric 4 |dx|^2.
    chart = WrappedNormal(Stereographic(0.0), loc / 2, 0.7)
    torch.testing.assert_close(chart.log_prob(x / 2), Normal(loc, 0.7).log_prob(x).sum())


def test_a_product_has_the_product_of_the_laws():
    m = Product((Lorentz(-0.5), Euclidean()), ((3,), (2,)))
    a, b = Lorentz(-0.5).random(2, 3, dtype=F64, generator=generator(1)), torch.randn(2, 2, dtype=F64)
    std = torch.tensor([0.3, 0.4, 0.5, 0.6], dtype=F64)
    value = WrappedNormal(m, torch.cat([a[0], b[0]], -1), std).log_prob(torch.cat([a[1], b[1]], -1))
    parts = WrappedNormal(Lorentz(-0.5), a[0], std[:2]).log_prob(a[1])
    parts = parts + WrappedNormal(Euclidean(), b[0], std[2:]).log_prob(b[1])
    torch.testing.assert_close(value, parts, rtol=1e-13, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_large_radii_do_not_overflow(dtype):
    """The power of sinh is near exp(88) and exp(700), where it overflows."""
    radius = 43.0 if dtype == torch.float32 else 350.0
    z = torch.tensor([[radius, 0.0, 0.0]], dtype=F64)
    loc = Lorentz().origin(4, dtype=dtype)
    value = WrappedNormal(Lorentz(), loc, radius, validate_args=False).log_prob(points(Lorentz, -1.0, z, dtype))
    truth = -0.5 - 1.5 * math.log(2 * math.pi) - 3 * math.log(radius) - 2 * (radius - math.log(2 * radius))
    assert value.item() == pytest.approx(truth, rel=1e-5 if dtype == torch.float32 else 1e-13)


# ---- samples --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manifold", [Lorentz(-0.5), PoincareBall(-2.0), Klein(), Stereographic(0.0), Sphere(0.5)])
def test_samples_have_the_law(manifold):
    """Whitened frame coordinates of 20000 draws: mean, covariance and a tail."""
    n = 3 if isinstance(manifold, (Lorentz, Sphere)) else 2
    loc = manifold.from_normal(torch.tensor([0.4, -0.3], dtype=F64))
    assert loc.shape == (n,)
    torch.manual_seed(0)
    law = WrappedNormal(manifold, loc, scale_tril=0.5 * TRIL)
    x = law.sample((20000,))
    assert not x.requires_grad and x.shape == (20000, n)
    assert manifold.check_point_on_manifold(x)
    white = torch.linalg.solve_triangular(0.5 * TRIL, manifold.logmap_frame(loc, x).mT, upper=False)
    assert white.mean(-1).abs().max() < 0.03  # four standard errors
    torch.testing.assert_close(white @ white.mT / 20000, torch.eye(2, dtype=F64), rtol=0, atol=0.04)
    assert abs((white.norm(dim=0) > 2).double().mean().item() - math.exp(-2)) < 0.01


def test_the_density_is_that_of_the_samples_beyond_the_injectivity_radius():
    """Caps of a sphere under a law of which 8 % goes beyond the antipode."""
    torch.manual_seed(1)
    sphere, loc = Sphere(1.0), Sphere(1.0).origin(3, dtype=F64)
    law = WrappedNormal(sphere, loc, 1.4)
    draws = sphere.dist(law.sample((100000,)), loc)
    for top in (0.5, 1.5, 2.5):
        r, w = legendre(60, top)
        x = torch.stack([r.cos(), r.sin(), 0 * r], -1)
        mass = 2 * math.pi * (law.log_prob(x).exp() * r.sin() * w).sum()
        assert abs((draws < top).double().mean().item() - mass.item()) < 0.007  # four standard errors


def test_reproducible_and_reparametrised():
    law = WrappedNormal(Lorentz(), Lorentz().random(5, 4, generator=generator()), 0.3)
    torch.manual_seed(3)
    first = law.rsample((2,))
    torch.manual_seed(3)
    assert torch.equal(law.rsample((2,)), first) and law.has_rsample


@pytest.mark.parametrize("model", [Lorentz, PoincareBall, Sphere])
@pytest.mark.parametrize("tril", [False, True])
def test_gradients(model, tril):
    sign = 1.0 if model is Sphere else -1.0
    K = torch.tensor(0.7 * sign, dtype=F64, requires_grad=True)
    p, q = torch.tensor([[0.3, -0.4], [1.0, 0.2]], dtype=F64).requires_grad_().unbind()
    scale = (TRIL if tril else STD).clone().requires_grad_()
    own = "scale_tril" if tril else "scale"

    def law(p, scale, K):
        scale = scale.tril() if tril else scale
        return WrappedNormal(model(K), model(K).from_normal(p), **{own: scale}, validate_args=False)

    def sample(p, scale, K):
        torch.manual_seed(0)
        return law(p, scale, K).rsample((3,))

    def density(p, q, scale, K):
        return law(p, scale, K).log_prob(model(K).from_normal(q))

    assert torch.autograd.gradcheck(sample, (p, scale, K))
    assert torch.autograd.gradcheck(density, (p, q, scale, K))


@pytest.mark.parametrize("manifold", [Lorentz(), PoincareBall(), Klein(), Stereographic(torch.tensor(-1e-9)), Sphere()])
def test_gradient_at_the_centre_is_finite(manifold):
    loc = manifold.from_normal(torch.tensor([0.4, -0.3], dtype=F64)).requires_grad_()
    scale = torch.tensor(0.5, dtype=F64, requires_grad=True)
    value = WrappedNormal(manifold, loc, scale).log_prob(loc.detach())
    assert value.item() == pytest.approx(-math.log(2 * math.pi * 0.25), rel=1e-12)
    g, h = torch.autograd.grad(value, (loc, scale))
    assert g.isfinite().all() and h.item() == pytest.approx(-4.0)


def test_gradient_in_the_curvature_passes_zero():
    """-(d - 1) log(sinh(r)/r) + ... : linear in K next to zero, with the slope (d - 1) r^2/6."""
    z = torch.tensor([0.3, 0.5], dtype=torch.float32)
    for k in (1e-6, 1e-19, 1e-30, 1e-38, 0.0, -1e-30, -1e-6):
        K = torch.tensor(k, requires_grad=True)
        manifold = Stereographic(K)
        law = WrappedNormal(manifold, torch.zeros(2), 0.5, validate_args=False)
        (slope,) = torch.autograd.grad(law.log_prob(manifold.from_normal(z)), K)
        assert slope.item() == pytest.approx(0.34 / 6, rel=1e-5)


def test_a_law_is_fitted_by_maximum_likelihood():
    torch.manual_seed(2)
    manifold = Lorentz(-0.5)
    x = WrappedNormal(manifold, manifold.from_normal(torch.tensor([1.0, 0.5], dtype=F64)), STD).sample((4000,))
    z = torch.zeros(2, dtype=F64, requires_grad=True)
    log_std = torch.zeros(2, dtype=F64, requires_grad=True)
    optimizer = torch.optim.LBFGS([z, log_std], max_iter=60, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = -WrappedNormal(manifold, manifold.from_normal(z), log_std.exp()).log_prob(x).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(z.detach(), torch.tensor([1.0, 0.5], dtype=F64), rtol=0, atol=0.04)
    torch.testing.assert_close(log_std.exp().detach(), STD, rtol=0, atol=0.03)


# ---- the interface of torch.distributions ---------------------------------------------------------------------


def test_shapes():
    m = Lorentz()
    loc = m.random(5, 4, generator=generator())
    for scale, batch in ((0.3, (5,)), (torch.ones(3), (5,)), (torch.ones(5, 1), (5,)), (torch.ones(2, 1, 3), (2, 5))):
        law = WrappedNormal(m, loc, scale)
        assert law.batch_shape == batch and law.event_shape == (4,)
        assert law.loc.shape == (*batch, 4) and law.scale.shape == (*batch, 3) and law.mean is law.loc
        assert law.rsample((7,)).shape == (7, *batch, 4)
        assert law.log_prob(law.sample()).shape == batch
    empty = WrappedNormal(m, loc[:0], 0.3)
    assert empty.rsample((2,)).shape == (2, 0, 4) and empty.log_prob(empty.sample()).shape == (0,)
    law = WrappedNormal(m, loc[0], scale_tril=torch.eye(3).expand(6, 3, 3))
    assert law.batch_shape == (6,) and law.log_prob(loc[:1]).shape == (6,)


@pytest.mark.parametrize("scale", [{"scale": STD}, {"scale_tril": TRIL}])
def test_expand(scale):
    m = Lorentz()
    law = WrappedNormal(m, m.origin(3, dtype=F64), **scale)
    wide = law.expand((4, 2))
    assert wide.batch_shape == (4, 2) and wide.sample((3,)).shape == (3, 4, 2, 3)
    x = m.random(4, 2, 3, dtype=F64)
    torch.testing.assert_close(wide.log_prob(x), law.log_prob(x))
    assert torch.distributions.Independent(wide, 1).log_prob(x).shape == (4,)


def test_repr_and_support():
    law = WrappedNormal(PoincareBall(), torch.zeros(2), 0.5)
    assert repr(law) == "WrappedNormal(PoincareBall(curvature=-1.0, retraction='exp'), loc: (2,), scale: (2,))"
    assert repr(law.support) == "OnManifold(PoincareBall(curvature=-1.0, retraction='exp'))"
    assert law.support.check(torch.zeros(3, 2)).tolist() == [True] * 3
    assert law.support.check(torch.ones(2)).item() is False


def test_validation():
    m = Lorentz()
    loc = m.origin(4)
    with pytest.raises(ValueError, match="manifold must have normal coordinates.*Stiefel"):
        WrappedNormal(Stiefel(), torch.eye(4)[:, :2], 0.5)
    for scales in ({}, {"scale": 1.0, "scale_tril": torch.eye(3)}):
        with pytest.raises(ValueError, match="exactly one of scale and scale_tril"):
            WrappedNormal(m, loc, **scales)
    for wrong in ({"scale": torch.ones(4)}, {"scale_tril": torch.eye(4)}, {"scale_tril": torch.ones(3)}):
        with pytest.raises(ValueError, match="normal coordinates has shape"):
            WrappedNormal(m, loc, **wrong)
    with pytest.raises(ValueError, match="do not broadcast"):
        WrappedNormal(m, loc.expand(2, 4), torch.ones(3, 3))
    # Said aloud, because torch.compile switches the default off for the rest of the process.
    with pytest.raises(ValueError, match=r"scale \(3,\) must be positive, its least entry is -1; take exp"):
        WrappedNormal(m, loc, -1.0, validate_args=True)
    with pytest.raises(ValueError, match=r"scale_tril \(3, 3\) must be lower triangular.*cholesky"):
        WrappedNormal(m, loc, scale_tril=torch.ones(3, 3), validate_args=True)
    with pytest.raises(ValueError, match="different shapes"):
        WrappedNormal(m, loc, 1.0, validate_args=True).log_prob(torch.ones(3))
    with pytest.raises(ValueError, match="do not broadcast"):
        WrappedNormal(m, loc.expand(2, 4), 1.0, validate_args=True).log_prob(loc.expand(3, 4))
    law = WrappedNormal(m, loc, 1.0, validate_args=True)
    for name, make in (("loc", lambda: WrappedNormal(m, [1.0, 0.0], 1.0)), ("value", lambda: law.log_prob([1.0, 0.0]))):
        with pytest.raises(ValueError, match=f"WrappedNormal: {name} must be a tensor, got list"):
            make()
    nan = torch.tensor([0.5, float("nan"), 1.0])
    with pytest.raises(ValueError, match="must be positive"):
        WrappedNormal(m, loc, nan, validate_args=True)


def test_points_off_the_manifold():
    """The residual and the mend, and none of the numbers of a tensor."""
    off = torch.full((50, 4), 1.0078125)
    laws = [
        ("loc", lambda: WrappedNormal(Lorentz(), off, 1.0, validate_args=True)),
        ("value", lambda: WrappedNormal(Lorentz(), Lorentz().origin(4), 1.0, validate_args=True).log_prob(off)),
    ]
    for name, make in laws:
        with pytest.raises(ValueError) as caught:
            make()
        message = str(caught.value)
        assert message.startswith(f"WrappedNormal: {name} (50, 4) is off Lorentz(curvature=-1.0): x has ")
        assert "> 9.7e-06 (float32); call projx(x)" in message and "manifold.from_normal(mu)" in message
        assert "1.0078" not in message and "tensor(" not in message
        make = {"loc": lambda: WrappedNormal(Lorentz(), off, 1.0, validate_args=False)}.get(name)
        assert make is None or make().loc.shape == (50, 4)
    with pytest.raises(ValueError) as caught:
        WrappedNormal(off, Lorentz(), 1.0)
    assert "got a tensor of shape (50, 4)" in str(caught.value) and "1.0078" not in str(caught.value)


def test_one_scale_a_point_is_given_a_dimension_of_its_own():
    m = Lorentz()
    loc = m.origin(5, 4)
    with pytest.raises(
        ValueError, match=r"normal coordinates has shape \(5,\).*one number a point.*scale\[\.\.\., None\]"
    ):
        WrappedNormal(m, loc, torch.ones(5))
    assert WrappedNormal(m, loc, torch.ones(5)[..., None]).scale.shape == (5, 3)
    with pytest.raises(ValueError) as caught:
        WrappedNormal(m, loc, scale_tril=torch.ones(5))
    assert "None" not in str(caught.value)


def test_a_factor_without_gyro_structure_is_no_place_for_it():
    m = Product((Lorentz(), Stiefel()), ((3,), (4, 2)))
    with pytest.raises(ValueError, match=r"WrappedNormal: manifold must have normal coordinates.*Stiefel"):
        WrappedNormal(m, m.origin(11), 0.1)


def test_moments_without_a_meaning():
    law = WrappedNormal(Lorentz(-0.5), Lorentz(-0.5).origin(4), 0.5)
    for name, ask in (("variance", lambda: law.variance), ("stddev", lambda: law.stddev), ("entropy", law.entropy)):
        message = rf"WrappedNormal on Lorentz\(curvature=-0\.5\) has no {name}: .*; estimate it by "
        with pytest.raises(NotImplementedError, match=message):
            ask()


def test_precision_and_compile():
    m = Lorentz()
    law = WrappedNormal(m, m.origin(4).bfloat16(), 0.5)
    x = law.rsample((3,))
    assert x.dtype == law.log_prob(x).dtype == torch.bfloat16

    def density(z, x, K):
        m = Lorentz(K)
        return WrappedNormal(m, m.from_normal(z), 0.5, validate_args=False).log_prob(x)

    z, x, K = torch.tensor([0.3, 0.1]), m.random(5, 3), torch.tensor(-1.0)
    torch.testing.assert_close(
        torch.compile(density, fullgraph=True, backend="eager")(z, x, K), density(z, x, K), rtol=1e-5, atol=1e-5
    )


# ---- composites with closed factors ---------------------------------------------------------------------------

SPHERE_AREA = 4 * math.pi
CLOSED = [
    (Product((Sphere(), Sphere()), ((3,), (3,))), (6,), SPHERE_AREA**2),
    (Power(ProjectedSphere(), 2), (2, 2), SPHERE_AREA**2),
    (Scaled(Sphere(), 2.0), (3,), 4 * SPHERE_AREA),
    (Product((Sphere(), Power(Scaled(Sphere(0.25), 0.5), 1)), ((2,), (1, 3))), (5,), 2 * math.pi * SPHERE_AREA),
]


def importance(log_weights):
    """The mean of weights and its standard error."""
    w = log_weights.exp()
    return w.mean().item(), w.std().item() / len(w) ** 0.5


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("m, shape, volume", CLOSED, ids=repr)
def test_it_integrates_to_one_on_composites_with_closed_factors(m, shape, volume, joint):
    g, d = generator(4), m.dimension(shape)
    a = torch.randn(d, d, dtype=F64, generator=g)
    tril = torch.linalg.cholesky(a @ a.mT / d + torch.eye(d, dtype=F64))
    scale = {"scale_tril": tril} if joint else {"scale": tril.diagonal().reshape(m.normal_shape(shape)) + 0.5}
    law = WrappedNormal(m, m.random_uniform(*shape, generator=g, dtype=F64), **scale)
    mass, error = importance(law.log_prob(m.random_uniform(100_000, *shape, generator=g, dtype=F64)) + math.log(volume))
    assert abs(mass - 1) < 5 * error < 0.05


def test_it_integrates_to_one_beside_hyperbolic_space():
    g, m = generator(5), Product((Sphere(), Lorentz()), ((3,), (3,)))
    law = WrappedNormal(m, m.origin(6, dtype=F64), torch.tensor([1.6, 1.2, 0.8, 0.5], dtype=F64))
    other = WrappedNormal(Lorentz(), Lorentz().origin(3, dtype=F64), 1.0)
    y = other.sample((100_000,), generator=g)
    x = m.join(Sphere().random_uniform(100_000, 3, generator=g, dtype=F64), y)
    mass, error = importance(law.log_prob(x) - other.log_prob(y) + math.log(SPHERE_AREA))
    assert abs(mass - 1) < 5 * error < 0.05


def test_turns_of_factors_are_those_of_the_factors():
    m = Product((Sphere(), Euclidean()), ((3,), (2,)))
    x, loc, std = m.random(7, 5, dtype=F64, generator=generator(1)), m.origin(5, dtype=F64), torch.full((4,), 1.3)
    parts = [WrappedNormal(f, p, std[:2].to(F64)) for f, p in zip(m.factors, m.split(loc), strict=True)]
    want = sum(law.log_prob(p) for law, p in zip(parts, m.split(x), strict=True))
    for scale in ({"scale": std}, {"scale_tril": torch.diag(std).to(F64)}):
        torch.testing.assert_close(WrappedNormal(m, loc, **scale).log_prob(x), want, rtol=1e-12, atol=1e-12)


def test_too_many_closed_factors_with_one_covariance():
    m = Power(Sphere(), 5)
    law = WrappedNormal(m, m.origin(5, 2), scale_tril=torch.eye(5))
    with pytest.raises(NotImplementedError, match="turns around 5 closed factors"):
        law.log_prob(m.origin(5, 2))


@pytest.mark.parametrize("manifold", [Sphere(), Stereographic(0.7), Product((Sphere(), Lorentz()), ((3,), (3,)))])
def test_derivatives_of_the_density_vmap(manifold):
    size = 6 if isinstance(manifold, Product) else 3
    law = WrappedNormal(manifold, manifold.origin(size, dtype=F64), 0.8, validate_args=False)
    x = law.sample((3,), generator=generator(2))
    for derivative in (torch.func.grad, torch.func.jacfwd, torch.func.hessian):
        got = torch.func.vmap(derivative(law.log_prob))(x)
        torch.testing.assert_close(got, torch.stack([derivative(law.log_prob)(row) for row in x]))


def test_draws_from_a_generator():
    law = WrappedNormal(Sphere(), Sphere().origin(3), 0.5)
    state = torch.random.get_rng_state()
    first, again = (draw((4,), generator=generator(7)) for draw in (law.sample, law.rsample))
    assert torch.equal(first, again)
    assert torch.equal(torch.random.get_rng_state(), state)
