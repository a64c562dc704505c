"""Points far from the origin, next to its antipode, and options in another dtype than the points."""

import math

import pytest
import torch

from torchriemann.layers import Curvature
from torchriemann.manifolds import (
    Klein,
    Lorentz,
    PoincareBall,
    Power,
    Product,
    ProjectedSphere,
    Scaled,
    Sphere,
    Stereographic,
)

DIRECTION = torch.tensor([0.6, 0.8], dtype=torch.float64)


def opposite(m, radius, dtype):
    """Two points at that radius whose midpoint is the origin."""
    z = radius * torch.stack([DIRECTION, -DIRECTION])
    return m.from_normal(z.to(dtype))


@pytest.mark.parametrize("dtype, radius", [(torch.float32, 12.0), (torch.float64, 30.0)])
def test_lorentz_geodesic_of_far_points(dtype, radius):
    m = Lorentz()
    x, y = m.from_normal((radius * DIRECTION).to(dtype)), m.from_normal(torch.tensor([1.0, 0.0], dtype=dtype))
    assert m.dist(m.geodesic(x, y, 1.0), y) == 0 and m.dist(m.geodesic(x, y, 0.0), x) == 0
    half = m.midpoint(x, y)
    d = m.dist(x, y)
    for end in (x, y):
        torch.testing.assert_close(m.dist(half, end), d / 2, rtol=1e-5 if dtype == torch.float32 else 1e-11, atol=0)
    inside = [m.dist(x, m.geodesic(x, y, t)) for t in torch.linspace(0.1, 0.9, 5, dtype=dtype)]
    torch.testing.assert_close(torch.stack(inside) / d, torch.linspace(0.1, 0.9, 5, dtype=dtype), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "m", [Lorentz(), Scaled(Lorentz(), 1.0), Power(Lorentz(), 1), Product([Lorentz()], [(4,)])], ids=repr
)
def test_lorentz_geodesics_keep_their_speed_at_their_ends(m):
    z = torch.tensor([[0.3, -0.2, 0.5], [-0.4, 1.1, 0.2]], dtype=torch.float64)
    x, y = Lorentz().from_normal(z).reshape(2, *([1, 4] if isinstance(m, Power) else [4]))
    assert m.dist(x, y).item() == pytest.approx(1.5505542268, abs=1e-9)
    for t in (0.0, 1.0):
        now = torch.tensor(t, dtype=torch.float64)
        point, velocity = torch.func.jvp(lambda t: m.geodesic(x, y, t), (now,), (torch.ones_like(now),))
        torch.testing.assert_close(m.norm(point, velocity), m.dist(x, y), rtol=1e-12, atol=0)


def test_lorentz_geodesic_at_coincidence():
    m = Lorentz(-0.5)
    x = m.random(3, 4, dtype=torch.float64).requires_grad_()
    (g,) = torch.autograd.grad(m.geodesic(x, x.detach(), 0.25).sum(), x)
    assert g.isfinite().all()
    torch.testing.assert_close(m.geodesic(x, x, 0.25), x)


@pytest.mark.parametrize(
    "m, dtype, radius",
    [
        (Lorentz(), torch.float64, 30.0),
        (Lorentz(), torch.float32, 16.0),
        (PoincareBall(), torch.float64, 30.0),
        (PoincareBall(), torch.float32, 14.0),
        (Klein(), torch.float64, 14.0),
        (Klein(), torch.float32, 6.0),
        (Stereographic(-1.0), torch.float64, 30.0),
    ],
    ids=str,
)
def test_mean_of_opposite_points_is_the_origin(m, dtype, radius):
    assert m.dist0(m.frechet_mean(opposite(m, radius, dtype))) < 1e-6


def test_mean_of_far_points_against_symmetry():
    # Three points at like distances and angles of 120 degrees have the origin as mean.
    angles = 2 * math.pi / 3 * torch.arange(3, dtype=torch.float64)
    z = 25 * torch.stack([angles.cos(), angles.sin()], -1)
    for m in (Lorentz(), PoincareBall()):
        x = m.from_normal(z)
        assert m.dist0(m.frechet_mean(x)) < 1e-6
    assert Lorentz().dist0(Lorentz().centroid(Lorentz().from_normal(z))) < 1e-12


@pytest.mark.parametrize("radius", [10.0, 22.0, 100.0])
def test_centroid_of_far_points(radius):
    m = Lorentz()
    assert m.dist0(m.centroid(opposite(m, radius, torch.float64))) < 1e-12


@pytest.mark.parametrize("size", [1e-24, 1e-12, 1e12, 1e24])
@pytest.mark.parametrize("make", [Lorentz, PoincareBall, Klein, Sphere, ProjectedSphere, Stereographic])
def test_extreme_curvatures_in_single_precision(make, size):
    """At distances of half the radius of curvature: values and derivatives as in float64 from the same coordinates."""
    g = torch.Generator().manual_seed(0)
    k = torch.tensor(size if make in (Sphere, ProjectedSphere) else -size)
    exact = make(float(k))
    z = 0.5 * size**-0.5 * torch.nn.functional.normalize(torch.randn(3, 5, 3, generator=g, dtype=torch.float64), dim=-1)
    x, y, z = *exact.from_normal(z[:2]).float(), z[2].float()
    x, y = (exact.projx(a) for a in (x, y))
    found = []
    for dtype in (torch.float32, torch.float64):
        leaves = [a.to(dtype).requires_grad_() for a in (x, y, z, k)]
        m = make(leaves[-1])
        p, q, w = leaves[:3]
        values = [m.dist(p, q, keepdim=True), m.logmap_frame(p, q), m.transport_frame(p, q, w)]
        values += [m.to_normal(m.expmap_frame(p, w)), m.to_normal(m.midpoint(p, q))]
        slopes = [torch.autograd.grad(v[0].sum(), leaves, allow_unused=True, retain_graph=True) for v in values]
        found.append([*values, *(a for s in slopes for a in s if a is not None)])
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() <= 1e-4 * b.abs().max()


@pytest.mark.parametrize("gap", [1e-3, 1e-5, 1e-7])
def test_sphere_frames_next_to_the_antipode_of_the_origin(gap):
    m = Sphere()
    x = torch.tensor([-math.cos(gap), 0.6 * math.sin(gap), 0.0, 0.8 * math.sin(gap)], dtype=torch.float64)
    z = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    u = m.tangent_from_frame(x, z)
    torch.testing.assert_close(m.norm(x, u), z.norm(), rtol=1e-9, atol=0)
    torch.testing.assert_close(m.frame_from_tangent(x, u), z, rtol=1e-8, atol=1e-8)
    y, w = m.random(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(m.dist(m.gyroadd(x, y), m.gyroadd(x, w)), m.dist(y, w), rtol=1e-8, atol=0)
    assert m.check_point_on_manifold(m.gyroadd(x, y))


def test_gyration_broadcasts():
    m = Sphere()
    x = m.random(5, 2, 4)
    assert m.gyration(x, x, m.random(4)).shape == (5, 2, 4)


@pytest.mark.parametrize("make", [Lorentz, PoincareBall, Klein, Stereographic])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_curvature_of_lower_precision_than_the_points(make, kind):
    k = Curvature(-0.3)().to(kind)
    m, exact = make(k), make(float(k.detach()))
    z = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = m.from_normal(z)
    m.assert_check_point_on_manifold(x.detach())
    torch.testing.assert_close(x, exact.from_normal(z), rtol=1e-13, atol=1e-13)
    y = x.flip(0)
    torch.testing.assert_close(m.dist(x, y), exact.dist(x, y), rtol=1e-13, atol=0)
    o = m.origin(*x.shape[-1:], dtype=torch.float64)
    m.assert_check_point_on_manifold(o.detach())


def test_sphere_with_a_curvature_of_lower_precision():
    k = torch.tensor(0.3)
    x = Sphere(k).from_normal(torch.randn(4, 3, dtype=torch.float64))
    assert Sphere(k).check_point_on_manifold(x) and Sphere(float(k)).check_point_on_manifold(x)


@pytest.mark.parametrize("k", [-1.0, torch.tensor(-1.0)], ids=["number", "tensor"])
def test_hyperplanes_far_away_without_a_known_sign(k):
    x = PoincareBall().from_normal(torch.tensor([15.0, 3.0])).requires_grad_()
    normal = torch.tensor([1.0, 0.0])
    d = Stereographic(k).hyperplane_dist(x, normal, -30.0)
    torch.testing.assert_close(d, PoincareBall().hyperplane_dist(x, normal, -30.0))
    assert torch.autograd.grad(d, x)[0].isfinite().all()


@pytest.mark.parametrize("m", [Lorentz(), PoincareBall(), Klein(), ProjectedSphere(), Sphere()], ids=str)
def test_numbers_in_tensors_promote_nothing(m):
    x, t = m.random(4, 3), torch.tensor(0.3, dtype=torch.float64)
    n = m.to_normal(x)
    assert m.gyroscale(t, x).dtype == m.geodesic(x, x, t).dtype == torch.float32
    assert m.hyperplane_dist(x, n, t).dtype == torch.float32
    half = x.bfloat16()
    assert m.geodesic(half, half, torch.tensor(0.3)).dtype == torch.bfloat16
