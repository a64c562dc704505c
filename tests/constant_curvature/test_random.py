"""`random`: points that every operation takes, in every dimension and at every curvature; `std` is exact."""

from dataclasses import dataclass

import pytest
import torch

from torchriemann.manifolds import (
    Chart,
    Euclidean,
    Klein,
    Lorentz,
    PoincareBall,
    Power,
    Product,
    ProjectedSphere,
    Pullback,
    Scaled,
    Sphere,
    Stereographic,
)

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
SPACES = [Lorentz(), Lorentz(-25.0), Lorentz(torch.tensor(-0.01)), PoincareBall(), PoincareBall(-1e6), Klein()]
SPACES += [Klein(-4.0), Stereographic(-1e-12), Stereographic(0.0), Stereographic(torch.tensor(0.0)), Stereographic(9.0)]
SPACES += [ProjectedSphere()]


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("dtype", [F32, F64, BF16])
@pytest.mark.parametrize("m", SPACES, ids=repr)
def test_points_are_usable_in_every_dimension(m, dtype):
    own = min(1.0, max(float(torch.as_tensor(m.curvature).abs()), 1e-30) ** -0.5)
    for d in (1, 4, 300, 4096):
        x, y = m.random(2, 40, d + isinstance(m, Lorentz), generator=generator(), dtype=dtype)
        assert x.dtype == dtype and m.check_point_on_manifold(x)
        root_mean_square = m.dist0(x).double().square().mean().sqrt() / own
        assert abs(root_mean_square - 1) < 0.05 + 3 / (40 * d) ** 0.5
        for found in (m.dist(x, y), m.logmap(x, y), m.logmap_frame(x, y), m.midpoint(x, y), m.logdet_dexp(x, x - x)):
            assert found.isfinite().all()


@pytest.mark.parametrize("m", SPACES, ids=repr)
def test_a_deviation_that_is_given_is_exact(m):
    d, own = 3, 0.1 * min(1.0, max(float(torch.as_tensor(m.curvature).abs()), 1e-30) ** -0.5)
    size = (20000, d + isinstance(m, Lorentz))
    for draw in (m.random, m.random_normal):
        x = draw(*size, std=own, generator=generator(), dtype=F64)
        error = (m.dist0(x).square().mean() / own**2 - d) / (2 * d / size[0]) ** 0.5
        assert abs(error) < 5
    mean = m.random(size[-1], generator=generator(), dtype=F64)
    near = m.random(*size, mean=mean, std=own, generator=generator(), dtype=F64)
    assert abs((m.dist2(mean, near).mean() / own**2 - d) / (2 * d / size[0]) ** 0.5) < 5


def test_other_spaces():
    """Composites draw the parts; compact spaces have their invariant law, and flat space the standard normal one."""
    sphere = Sphere()
    uniform = sphere.random_uniform(50, 4, generator=generator())
    assert torch.equal(sphere.random(50, 4, generator=generator()), uniform)
    x = Euclidean().random(100, 4096, generator=generator())
    assert abs(x.std() - 1) < 0.01
    lorentz, size = Lorentz(), 4097
    for m, shape, length in (
        (Power(lorentz, 4), (4, size), 2.0),
        (Scaled(lorentz, 3.0), (size,), 3.0),
        (Product((lorentz, PoincareBall(-4.0)), ((size,), (4096,))), (size + 4096,), 1.25**0.5),
        (Pullback(lorentz, Turned()), (size,), 1.0),
    ):
        x, y = m.random(2, 50, *shape, generator=generator())
        assert m.check_point_on_manifold(x) and m.dist(x, y).isfinite().all()
        assert ((m.dist0(x) - length).abs() < 0.1 * length).all()


@dataclass(frozen=True, eq=False)
class Turned(Chart):
    """The space coordinates in the opposite order."""

    def forward(self, x):
        return torch.cat([x[..., :1], x[..., 1:].flip(-1)], -1)

    inverse = forward


def test_a_draw_is_differentiable_in_the_curvature():
    K = torch.tensor(-2.0, dtype=F64, requires_grad=True)
    value = lambda K: Lorentz(K).random(5, 4, generator=generator(), dtype=F64).sum()  # noqa: E731
    assert torch.autograd.gradcheck(value, K)


@pytest.mark.parametrize("std", [float("nan"), "0.1", None, True])
@pytest.mark.parametrize("m", [Sphere(), Lorentz(), Product((Sphere(), Lorentz()), ((3,), (3,)))], ids=repr)
def test_a_deviation_is_a_number(m, std):
    with pytest.raises(ValueError, match=r"random_normal: std must be a real number, got"):
        m.random_normal(2, 6 if isinstance(m, Product) else 3, std=std)
