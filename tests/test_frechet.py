"""Frechet means where the iteration has nothing to do, in half precision, and under transforms."""

import pytest
import torch

from torchriemann.manifolds import Euclidean, Grassmann, Sphere, Stiefel

D = torch.float64
SPACES = [(Euclidean(), (4,)), (Sphere(2.0), (4,)), (Grassmann(), (5, 2)), (Stiefel(), (4, 2))]


def cloud(m, shape, spread: float, count: int = 5, dtype=D):
    x = m.origin(1, *shape, dtype=dtype).expand(count, *shape)
    return m.expmap(x, spread * m.random_tangent(x, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("m, shape", SPACES, ids=repr)
def test_gradient_at_coincident_points_is_shared_under_func_grad(m, shape):
    # The first point is the mean already: a flow that stands still gives it the whole gradient.
    points = m.origin(3, *shape, dtype=D)
    direction = m.random_tangent(points[0], torch.Generator().manual_seed(0))

    def along(p):
        return (direction * m.frechet_mean(p, max_iter=8)).sum()

    leaf = points.clone().requires_grad_()
    (implicit,) = torch.autograd.grad(along(leaf), leaf)
    for g in (implicit, torch.func.grad(along)(points)):
        tangent = m.proju(points, g)
        torch.testing.assert_close(tangent, direction.expand_as(tangent) / 3, rtol=1e-9, atol=1e-9)


def test_second_derivative_raises():
    m = Sphere()
    points = cloud(m, (3,), 0.3).requires_grad_()
    (g,) = torch.autograd.grad(m.frechet_mean(points)[0], points, create_graph=True)
    with pytest.raises(NotImplementedError, match="Frechet mean"):
        torch.autograd.grad(g.sum(), points)


@pytest.mark.parametrize("m, shape", SPACES, ids=repr)
def test_half_precision_averages(m, shape):
    points = cloud(m, shape, 0.3, dtype=torch.float32).bfloat16()
    mean = m.frechet_mean(points)
    assert mean.dtype == torch.bfloat16
    exact = m.frechet_mean(m.projx(points.double()))
    assert (mean.double() - exact).abs().max() < 0.02
    assert (points[0].double() - exact).abs().max() > 0.05  # what the first iterate would have been


def test_mean_stays_on_the_sphere():
    # exp after log multiplies radial drift at every step; wide clouds take many.
    m, generator = Sphere(), torch.Generator().manual_seed(0)
    x = m.origin(20, 40, 3, dtype=D)
    points = m.expmap(x, 0.5 * m.random_tangent(x, generator))
    assert m.check_point_on_manifold(m.frechet_mean(points, max_iter=400))


def test_vmap_over_the_weights():
    m = Sphere()
    points, weights = cloud(m, (3,), 0.3, 4), torch.rand(2, 4, dtype=D)
    batched = torch.func.vmap(lambda w: m.frechet_mean(points, w))(weights)
    torch.testing.assert_close(batched, torch.stack([m.frechet_mean(points, w) for w in weights]))


@pytest.mark.parametrize("weights", [[1.0, -1, 1], [0.0, 0, 0], [1.0, torch.nan, 1]])
def test_weights_that_are_none(weights):
    m = Sphere()
    with pytest.raises(ValueError, match="Sphere.frechet_mean: weights must be non-negative"):
        m.frechet_mean(m.origin(3, 4), torch.tensor(weights))
