"""Hyperplanes of composites: what the sum of distances is, by its limits, its gradient and the way to its zeros."""

import math
from dataclasses import dataclass

import pytest
import torch

from tests.support.models import directions
from torchriemann.manifolds import (
    Chart,
    Euclidean,
    Klein,
    Lorentz,
    PoincareBall,
    Power,
    Product,
    Pullback,
    Scaled,
    Sphere,
    Stereographic,
    Stiefel,
)

F64 = torch.float64
CURVED = Product((Lorentz(-0.7), PoincareBall(-2.0), Euclidean(), Klein()), ((3,), (2,), (2,), (3,)))
NESTED = Product((Scaled(Lorentz(), 0.6), Power(PoincareBall(-0.5), 2)), ((4,), (2, 3)))
OPEN = [CURVED, NESTED, Power(Lorentz(-0.3), 3), Scaled(PoincareBall(), 2.5), Power(Power(Klein(), 2), 2)]
SHAPES = {CURVED: (10,), NESTED: (10,), OPEN[2]: (3, 4), OPEN[3]: (3,), OPEN[4]: (2, 2, 3)}


def drawn(m, count=20, seed=0):
    """Points, and normal coordinates of one normal each."""
    shape = m.normal_shape(SHAPES[m])
    g = torch.Generator().manual_seed(seed)
    z, n = (torch.randn(count, *shape, generator=g, dtype=F64) for _ in range(2))
    return m.from_normal(z), n, torch.randn(count, generator=g, dtype=F64)


@pytest.mark.parametrize("m", OPEN, ids=repr)
def test_it_is_the_distance_to_its_zeros(m):
    """The gradient has length one, so that f is no more than the distance; and against it f falls to zero in a way of
    length |f|."""
    x, n, offset = drawn(m)
    leaf = x.clone().requires_grad_()
    f = m.hyperplane_dist(leaf, n, offset)
    (g,) = torch.autograd.grad(f.sum(), leaf)
    gradient = m.egrad2rgrad(x, g)
    torch.testing.assert_close(m.norm(x, gradient), torch.ones(20, dtype=F64), rtol=1e-9, atol=0)
    f = f.detach()
    foot = m.expmap(x, -f.reshape(-1, *(1,) * m.ndim) * gradient)
    torch.testing.assert_close(m.hyperplane_dist(foot, n, offset), torch.zeros(20, dtype=F64), rtol=0, atol=1e-8)
    torch.testing.assert_close(m.dist(x, foot), f.abs(), rtol=1e-7, atol=1e-9)
    y = drawn(m, seed=1)[0]
    assert ((m.hyperplane_dist(y, n, offset) - f).abs() <= m.dist(x, y)).all()


@pytest.mark.parametrize("m", OPEN, ids=repr)
def test_along_the_normal_it_is_the_length(m):
    _, n, offset = drawn(m)
    unit = n / n.flatten(1).norm(dim=-1).reshape(-1, *(1,) * (n.dim() - 1))
    for r in (-1.5, 0.0, 0.4, 2.0):
        d = m.hyperplane_dist(m.from_normal(r * unit), 3 * n, offset)
        torch.testing.assert_close(d, r - offset, rtol=1e-9, atol=1e-9)


def test_flat_parts_give_the_linear_function():
    """Also in the limit of vanishing curvatures, of either sign; flat space as a model doubles coordinates."""
    z, n, offset = torch.randn(3, 30, 7, dtype=F64, generator=torch.Generator().manual_seed(0))
    offset = offset[:, 0]
    want = (z * n).sum(-1) / n.norm(dim=-1) - offset
    flat = Product((Euclidean(), Stereographic(0.0)), ((3,), (4,)))
    torch.testing.assert_close(flat.hyperplane_dist(flat.from_normal(z), n, offset), want)
    torch.testing.assert_close(Euclidean().hyperplane_dist(z, n, offset), want)
    for K in (1e-8, 1e-10):
        bent = Product((Lorentz(-K), Sphere(K), Stereographic(-K)), ((3,), (3,), (3,)))
        error = bent.hyperplane_dist(bent.from_normal(z), n, offset) - want
        assert error.abs().max() < 100 * K


def test_a_normal_in_one_part_is_that_of_the_part():
    """A part without a normal takes no part, and gets no derivative."""
    x, n, offset = drawn(CURVED)
    n = torch.cat([torch.zeros_like(n[:, :2]), n[:, 2:4], torch.zeros_like(n[:, 4:])], -1).requires_grad_()
    x.requires_grad_()
    d = CURVED.hyperplane_dist(x, n, offset)
    own = PoincareBall(-2.0).hyperplane_dist(CURVED.split(x)[1], n[:, 2:4], offset)
    torch.testing.assert_close(d, own)
    gx, gn = torch.autograd.grad(d.sum(), (x, n))
    assert gx.isfinite().all() and (gn[:, :2] == 0).all() and (gn[:, 4:] == 0).all() and (gn[:, 2:4] != 0).any()
    assert CURVED.hyperplane_dist(x, torch.zeros(9, dtype=F64)).isnan().all()


@pytest.mark.parametrize("m", [Product((Sphere(), Lorentz()), ((3,), (3,))), Power(Sphere(0.5), 2)], ids=repr)
def test_with_closed_parts_it_is_no_more_than_the_distance(m):
    g = torch.Generator().manual_seed(0)
    shape = (6,) if isinstance(m, Product) else (2, 3)
    x, y = m.random(2, 200, *shape, generator=g, dtype=F64)
    n = torch.randn(200, *m.normal_shape(shape), generator=g, dtype=F64)
    assert ((m.hyperplane_dist(x, n, 0.2) - m.hyperplane_dist(y, n, 0.2)).abs() <= m.dist(x, y) + 1e-12).all()


@dataclass(frozen=True, eq=False)
class Doubled(Chart):
    def forward(self, x):
        return 2 * x

    def inverse(self, y):
        return y / 2


def test_pullbacks_transforms_and_gradients():
    base = PoincareBall(-0.5)
    z, n = (0.7 * directions(6, 3)).requires_grad_(), directions(6, 3, 1).requires_grad_()
    m = Pullback(base, Doubled())
    torch.testing.assert_close(
        m.hyperplane_dist(m.from_normal(z), n, 0.3), base.hyperplane_dist(base.from_normal(z), n, 0.3)
    )
    both, normals = torch.cat([z, z.flip(0)], -1), torch.cat([n, n.flip(0)], -1)
    space = Product((base, Klein(-0.2)), ((3,), (3,)))
    value = lambda z, n, o: space.hyperplane_dist(space.from_normal(z), n, o)  # noqa: E731
    offset = torch.tensor([0.3, 0.0, -0.2, 0.1, 0.0, 1.0], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(value, (both.detach().requires_grad_(), normals.detach().requires_grad_(), offset))
    at = (both.detach(), normals.detach(), offset.detach())
    torch.testing.assert_close(torch.func.vmap(value)(*at), value(*at))
    x = space.from_normal(at[0])
    compiled = torch.compile(space.hyperplane_dist, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, *at[1:]), value(*at))
    classes = space.hyperplane_dist(space.from_normal(at[0]).unsqueeze(-2), torch.ones(4, 6), torch.zeros(4))
    assert classes.shape == (6, 4)
    half = value(*(a.to(torch.bfloat16) for a in at))
    assert half.dtype == torch.bfloat16 and (half.double() - value(*at)).abs().max() < 0.05


def test_errors():
    x = torch.zeros(3, 10)
    with pytest.raises(ValueError, match=r"Product.hyperplane_dist: normal coordinates of points .* end in \(9,\)"):
        CURVED.hyperplane_dist(x, torch.ones(10))
    with pytest.raises(ValueError, match=r"Product.hyperplane_dist: batch dimensions .*\(5,\) do not broadcast"):
        CURVED.hyperplane_dist(x, torch.ones(9), torch.zeros(5))
    with pytest.raises(NotImplementedError, match=r"factor 1, Stiefel.* has no gyro structure, hence no normal coord"):
        Product((Lorentz(), Stiefel()), ((3,), (3, 2))).hyperplane_dist(torch.zeros(9), torch.ones(4))
    assert math.isclose(Euclidean().hyperplane_dist(torch.tensor([3.0]), torch.tensor([-2.0]), 1.0).item(), -4.0)
