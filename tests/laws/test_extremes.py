"""Long steps, cut loci and single bad points: on the manifold, or NaN; never a silent wrong point."""

import pytest
import torch

from torchriemann.manifolds import Grassmann, SpecialOrthogonal, Sphere, Stiefel

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
