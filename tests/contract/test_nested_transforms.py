"""Derivatives under vmap, of what the law on all operations does not reach."""

import pytest
import torch

from torchriemann.manifolds import Grassmann, Lorentz, Product, ProjectedSphere, SpecialOrthogonal, Sphere, Stiefel
from torchriemann.manifolds.functional.frame_retractions import cayley_transport

D = torch.float64
DERIVATIVES = [torch.func.grad, torch.func.jacrev, torch.func.jacfwd]


def hold(function, x):
    """vmap of each derivative equals the loop."""
    for derivative in (*DERIVATIVES, torch.func.hessian):
        got = torch.func.vmap(derivative(function))(x)
        torch.testing.assert_close(got, torch.stack([derivative(function)(a) for a in x]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(5, 2), (4, 1)])
def test_transport_of_the_cayley_retraction(size):
    m, g = Stiefel(), torch.Generator().manual_seed(0)
    x = m.random(2, *size, generator=g, dtype=D)
    u, v = m.random_tangent(x, g), m.random_tangent(x, g)
    for argument in range(3):
        function = torch.func.jacfwd(cayley_transport, argument)
        loop = [torch.stack(a) for a in zip(*(function(*items) for items in zip(x, u, v, strict=True)), strict=True)]
        for got, want in zip(torch.func.vmap(function)(x, u, v), loop, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "m, shape",
    [
        (Sphere(), (3,)),
        (ProjectedSphere(), (2,)),
        pytest.param(Lorentz(), (3,), marks=pytest.mark.slow),  # also a factor of the product
        (Grassmann(), (4, 1)),
        (SpecialOrthogonal(), (3, 3)),
        (Product((Sphere(), Lorentz()), ((3,), (3,))), (6,)),
    ],
    ids=repr,
)
def test_means(m, shape):
    g = torch.Generator().manual_seed(1)
    x = m.random(2, 3, *shape, generator=g, dtype=D)
    x = m.expmap(x[:, :1].expand_as(x), 0.2 * m.random_tangent(x[:, :1].expand_as(x), g))
    w = torch.rand(2, 3, generator=g, dtype=D)
    hold(lambda w: m.frechet_mean(x[0], w, max_iter=3).sum(), w)
    for derivative in DERIVATIVES:
        function = derivative(lambda p: m.frechet_mean(p, max_iter=3).sum())
        torch.testing.assert_close(torch.func.vmap(function)(x), torch.stack([function(p) for p in x]))


def test_other_functions():
    sphere, lorentz, grassmann = Sphere(), Lorentz(), Grassmann()
    g = torch.Generator().manual_seed(2)
    x, normal = sphere.random(2, 3, generator=g, dtype=D), torch.randn(2, generator=g, dtype=D)
    hold(lambda p: sphere.hyperplane_dist(p, normal, 0.3), x)
    y = lorentz.random(2, 4, 3, generator=g, dtype=D)
    hold(lambda p: lorentz.centroid(p).sum(), y)
    hold(lambda p: lorentz.cdist(p, p[:2]).square().sum(), y)
    hold(lambda p: lorentz.boost_matrix(p[0]).sum(), y)
    z = grassmann.random(2, 3, 4, 2, generator=g, dtype=D)
    hold(lambda p: (p[0] @ p[0].mT @ (q := grassmann.chordal_mean(p)) @ q.mT).sum(), z)
