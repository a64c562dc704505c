"""Long steps, cut loci and single bad points: on the manifold, or NaN; never a silent wrong point."""

import math

import mpmath
import pytest
import torch

from torchriemann.manifolds import (
    Grassmann,
    Klein,
    Lorentz,
    PoincareBall,
    Power,
    Product,
    ProjectedSphere,
    Scaled,
    SpecialOrthogonal,
    Sphere,
    Stereographic,
    Stiefel,
)

FRAMES = [Stiefel(1.0, r) for r in ("polar", "qr", "cayley")] + [Grassmann("polar"), Grassmann("qr")]


def rank_one_step(m, length: float, dtype):
    generator = torch.Generator().manual_seed(0)
    x = m.random(6, 3, dtype=dtype, generator=generator)
    left, right = (torch.randn(s, dtype=dtype, generator=generator) for s in ((6, 1), (1, 3)))
    u = m.proju(x, left @ right)
    return x, u * (length / u.norm())


@pytest.mark.parametrize("wanted", [False, True], ids=["eager", "differentiated"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("m", FRAMES, ids=repr)
def test_long_steps_end_on_the_manifold_or_say_nan(m, dtype, wanted):
    for length in (1e1, 1e2, 1e3, 1e4, 1e6, 1e8):
        x, u = rank_one_step(m, length, dtype)
        y = m.retr(x, u.requires_grad_(wanted)).detach()
        assert y.isnan().any() or m.check_point_on_manifold(y), f"|u| = {length:g}"
        if length <= 1e2:
            assert m.check_point_on_manifold(y), f"|u| = {length:g}"


@pytest.mark.parametrize("m", FRAMES, ids=repr)
def test_nan_stays_in_its_own_point(m):
    x = m.random(3, 6, 2)
    u = m.random_tangent(x)
    u[0] = torch.nan
    y = m.retr(x, u)
    assert y[0].isnan().any()
    assert m.check_point_on_manifold(y[1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sphere_of_huge_vectors(dtype):
    m, huge = Sphere(), torch.finfo(dtype).max / 2
    assert m.check_point_on_manifold(m.projx(torch.full((4,), huge, dtype=dtype)))
    assert m.check_point_on_manifold(m.retr(m.origin(4, dtype=dtype), torch.full((4,), huge, dtype=dtype)))


@pytest.mark.parametrize("beta", [0.2, 0.5, 1.0, 3.0])
def test_rotation_by_pi_is_not_at_distance_zero(beta):
    m = Stiefel(beta)
    x = torch.eye(3, dtype=torch.float64)
    assert m.dist(x, torch.diag(torch.tensor([-1.0, -1, 1], dtype=x.dtype))).isnan()
    assert not m.log_is_unique(x, torch.diag(torch.tensor([-1.0, -1, 1], dtype=x.dtype)))


def test_denormal_cosine_has_a_finite_gradient():
    x = torch.tensor([[1.0], [0], [0]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[1e-310], [1], [0]], dtype=torch.float64)
    (g,) = torch.autograd.grad(Grassmann().dist(x, y), x)
    assert g.isfinite().all()
    torch.testing.assert_close(g.norm(), torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("m, size", [(Stiefel(), (6, 2)), (SpecialOrthogonal(), (4, 4))], ids=repr)
def test_long_geodesics_end_on_the_manifold_or_in_nan(m, size, dtype):
    x = m.random(*size, dtype=dtype)
    u = m.random_tangent(x)
    u = u / m.norm(x, u, keepdim=True)
    for length in (1e2, 1.5e3, 4e3):
        off = m._point_residual(m.expmap(x, length * u))[0]
        assert off < 4 * torch.finfo(dtype).eps * length  # the rounding of the angle itself
    assert m.expmap(x, 1e12 * u).isnan().all()


CLOSED = [
    Sphere(),
    Sphere(0.3),
    ProjectedSphere(),
    Stereographic(2.0),
    Product([Sphere(), Power(Sphere(), 1)], [(4,), (1, 4)]),
]
OPEN = [PoincareBall(), PoincareBall(-0.3), Klein(), Stereographic(-1.0), Scaled(PoincareBall(), 3.0)]


@pytest.mark.parametrize("learned", [False, True], ids=["eager", "differentiated"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("m", [*CLOSED, *OPEN], ids=repr)
def test_the_square_of_a_vector_need_not_be_a_number(m, dtype, learned):
    """Exponentials of vectors as long as numbers are: points with gradients, and NaN only of infinite vectors."""
    generator = torch.Generator().manual_seed(0)
    x = m.random_normal(5, 8 if isinstance(m, Product) else 4, std=0.3, dtype=dtype, generator=generator)
    u = torch.nn.functional.normalize(m.random_tangent(x, generator), dim=-1)
    largest = torch.finfo(dtype).max
    for length in (largest**0.3, largest**0.45, largest**0.55, largest**0.9):
        v = (length * u).requires_grad_(learned)
        y, w = m.expmap_transp(x, v, u)
        assert m.check_point_on_manifold(y.detach()) and w.isfinite().all(), f"|u| = {length:g}"
        torch.testing.assert_close(m.expmap(x, v), y)
        if learned:
            assert torch.autograd.grad(y.sum(), v)[0].isfinite().all(), f"|u| = {length:g}"
    v = (largest * u).clone()
    v[0, 0] = torch.inf
    assert m.expmap(x, v)[0].isnan().any()


@pytest.mark.parametrize("learned", [False, True], ids=["eager", "differentiated"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("m", [*CLOSED, *OPEN], ids=repr)
def test_the_length_of_a_vector_need_not_be_a_number(m, dtype, learned):
    """Of entries as large as numbers are: a point, with a gradient, and not the one where it started."""
    x = m.origin(8 if isinstance(m, Product) else 4, dtype=dtype)
    v = ((x == 0).to(dtype) * torch.finfo(dtype).max).requires_grad_(learned)
    y = m.expmap(x, v)
    assert m.check_point_on_manifold(y.detach()) and (y - x).abs().max() > (0.1 if m in OPEN else 0)
    if learned and m != Stereographic(-1.0):  # whose plain formulas add up what a gradient makes of the whole vector
        assert torch.autograd.grad(y.sum(), v)[0].isfinite().all()


@pytest.mark.parametrize("m", OPEN, ids=repr)
def test_long_vectors_lead_to_the_rim(m):
    x = m.random_normal(5, 4, std=0.3, dtype=torch.float64)
    u = m.random_tangent(x)
    torch.testing.assert_close(m.expmap(x, 1e200 * u), m.expmap(x, 1e3 * u), rtol=1e-12, atol=0)


def test_long_vectors_wind_around_the_sphere():
    m, x = Sphere(), torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    u = torch.tensor([0, 1.0, 0, 0], dtype=torch.float64)
    length = torch.tensor(1e140, dtype=torch.float64, requires_grad=True)
    y = m.expmap(x, length * u)
    with mpmath.workdps(400):  # of the angle that is left of so many turns in floating point
        turns = mpmath.mpf(1e140) / (2 * mpmath.mpf(math.pi))
        angle = 2 * mpmath.mpf(math.pi) * (turns - mpmath.floor(turns))
    torch.testing.assert_close(y[0].item(), float(mpmath.cos(angle)), rtol=1e-9, atol=1e-9)
    # It still moves with unit speed.
    speed = torch.stack([torch.autograd.grad(a, length, retain_graph=True)[0] for a in y])
    torch.testing.assert_close(speed.norm(), torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize(
    "m", [Sphere(), ProjectedSphere(), PoincareBall(), Klein(), Lorentz(), Stereographic(0.0)], ids=repr
)
def test_tiny_vectors_move_their_point(m):
    """Also where their square is zero: from the origin to where the logarithm finds them, at every length."""
    o = m.origin(4)
    for length in (1e-15, 1e-25, 1e-37):
        u = m.tangent_from_normal(length * torch.tensor([0.6, 0.0, 0.8, 0.5][: m.normal_shape((4,))[0]]))
        y = m.expmap(o, u)
        # What a point has along the origin is of second order in the length, and so is its rounding.
        torch.testing.assert_close(m.logmap(o, y), u, rtol=1e-5, atol=1e-7 * length**2)
        torch.testing.assert_close(m.norm(o, u), m.to_normal(y).double().norm().float(), rtol=1e-5, atol=0)
        torch.testing.assert_close(m.expmap0(u), y, rtol=1e-5, atol=0)
