"""The point at most r from the origin: exact, bitwise inside, with derivatives everywhere."""

import pytest
import torch

from tests.support.models import HYPERBOLIC, SPHERICAL, directions, points
from torchriemann.manifolds import Euclidean, Lorentz, PoincareBall, Power, Product, Scaled, Sphere, Stereographic
from torchriemann.manifolds.functional.series import safe_norm

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
MODELS = [(m, -0.7) for m in HYPERBOLIC] + [(m, 0.7) for m in SPHERICAL] + [(Stereographic, 0.0)]


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize(("model", "K"), MODELS)
def test_it_is_the_point_on_the_way(model, K, dtype):
    m, e = model(K), directions(9, 4)
    lengths = torch.tensor([0.0, 1e-9, 0.1, 0.7, 0.75, 0.8, 1.0, 2.0, 3.0], dtype=F64).unsqueeze(-1)
    x = points(model, K, lengths * e, dtype)
    y = m.clip_radius(x, 0.75)
    want = points(model, K, lengths.clamp(max=0.75) * e, dtype)
    torch.testing.assert_close(y, want, rtol=0, atol=40 * torch.finfo(dtype).eps)
    inside = safe_norm(m.to_normal(x)) <= 0.75
    assert inside[m.dist0(x) < 0.75 - 1e-6].all() and not inside[m.dist0(x) > 0.75 + 1e-6].any()
    assert torch.equal(y[inside], x[inside])
    assert y.dtype == dtype and (m.dist0(y) <= 0.75 * (1 + 8 * torch.finfo(dtype).eps)).all()


@pytest.mark.parametrize(("model", "K"), MODELS)
def test_derivatives(model, K):
    """At the origin and at r the identity; beyond, a difference quotient; in r too."""
    m, n = model(K), directions(4, 3)
    z = torch.cat([0 * n[:1], 0.4 * n[1:2], 0.8 * n[2:3], 2.0 * n[3:]]).requires_grad_()
    r = torch.tensor(0.8 - 1e-6, dtype=F64, requires_grad=True)
    clipped = lambda z, r: m.to_normal(m.clip_radius(m.from_normal(z), r))  # noqa: E731
    assert torch.autograd.gradcheck(clipped, (z, r), eps=1e-7, atol=1e-5)
    at_r = torch.func.jacrev(lambda x: m.clip_radius(x, m.dist0(x).detach()))(m.from_normal(0.8 * n[0]))
    torch.testing.assert_close(at_r, torch.eye(at_r.shape[0], dtype=F64))
    o = m.origin(m.from_normal(n).shape[-1], dtype=F64)
    for radius in (0.0, 0.5, torch.tensor(1e30, dtype=F64)):
        jacobian = torch.func.jacrev(lambda x, radius=radius: m.clip_radius(x, radius))(o)
        torch.testing.assert_close(jacobian, torch.eye(len(o), dtype=F64))
    assert torch.autograd.gradgradcheck(clipped, (z, r), eps=1e-7, atol=1e-4)


def test_a_composite_is_clipped_as_a_whole():
    m = Product(
        (Lorentz(-2.0), Scaled(PoincareBall(), 0.5), Power(Sphere(), 2), Euclidean()), ((3,), (2,), (2, 3), (1,))
    )
    z = 0.8 * torch.randn(50, 9, dtype=F64, generator=torch.Generator().manual_seed(0))
    x = m.from_normal(z)
    y = m.clip_radius(x, 2.0)
    length = m.dist0(x)
    assert (length > 2).any() and (length < 2).any()
    torch.testing.assert_close(m.dist0(y), length.clamp(max=2.0))
    torch.testing.assert_close(m.to_normal(y), z * (2 / length).clamp(max=1.0).unsqueeze(-1))
    assert torch.equal(y[length <= 2], x[length <= 2])


@pytest.mark.parametrize("dtype", [BF16, F32])
def test_far_points_and_dtypes(dtype):
    for m, radius in ((Lorentz(), 40.0), (PoincareBall(), 16.0)):
        x = m.from_normal((radius * directions(20, 5)).to(dtype))
        y = m.clip_radius(x, 3.0)
        assert y.dtype == dtype and m.check_point_on_manifold(y)
        assert (m.dist0(y) - 3).abs().max() < 20 * torch.finfo(dtype).eps
        assert torch.equal(m.clip_radius(x, 100.0), x)
        leaf = x.clone().requires_grad_()
        for r in (3.0, 100.0):
            assert torch.autograd.grad(m.clip_radius(leaf, r).sum(), leaf)[0].isfinite().all()


def test_transforms_and_errors():
    m = Lorentz()
    x = m.from_normal(torch.tensor([0.3, 1.0, 2.0]).unsqueeze(-1) * directions(3, 4).float())
    r = torch.tensor([0.5, 0.5, 3.0])
    y = m.clip_radius(x, r)
    torch.testing.assert_close(m.dist0(y), torch.tensor([0.3, 0.5, 2.0]))
    assert torch.equal(torch.func.vmap(m.clip_radius)(x, r), y)
    torch.testing.assert_close(torch.compile(m.clip_radius, fullgraph=True, backend="eager")(x, r), y)
    assert m.clip_radius(x, torch.ones(4, 1)).shape == (4, 3, 5)
    with pytest.raises(ValueError, match=r"Lorentz.clip_radius: r must be a distance of at least 0, got -1"):
        m.clip_radius(x, -1.0)
    with pytest.raises(ValueError, match=r"Lorentz.clip_radius: batch dimensions \(5,\), \(3,\) do not broadcast"):
        m.clip_radius(x, torch.ones(5))
    with pytest.raises(ValueError, match="Lorentz.clip_radius: expected x, r in this order"):
        m.clip_radius(1.0, x)
