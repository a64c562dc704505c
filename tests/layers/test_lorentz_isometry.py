"""A Lorentz isometry: distances to any radius, the group law of its matrices, both parametrisations."""

import math

import pytest
import torch

from tests.support.models import coordinates, directions, distance, exact, generator, points, relative_error
from torchriemann.layers import LorentzIsometry
from torchriemann.manifolds import Lorentz, PoincareBall, SpecialOrthogonal
from torchriemann.optim import RiemannianAdam, param_groups

F64 = torch.float64
EPS = 2.0**-52
KINDS = ["manifold", "tangent"]


def moved(kind: str, n: int = 3, size: float = 1.0, seed: int = 0, dtype=F64) -> LorentzIsometry:
    """An isometry somewhere."""
    module, g = LorentzIsometry(n, kind, dtype=dtype), generator(seed)
    with torch.no_grad():
        boost = torch.randn(n, dtype=F64, generator=g)
        module.boost.copy_(size * boost / boost.norm())
        if kind == "manifold":
            module.rotation.copy_(SpecialOrthogonal().random(n, n, generator=g, dtype=F64))
        else:
            module.rotation.copy_(torch.randn(module.rotation.shape, dtype=F64, generator=g))
    return module


def minkowski(n: int) -> torch.Tensor:
    return torch.diag(torch.tensor([-1.0] + [1.0] * n, dtype=F64))


@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_as_the_identity(kind):
    module, x = LorentzIsometry(3, kind, dtype=F64), Lorentz().random(5, 4, dtype=F64, generator=generator())
    torch.testing.assert_close(module(x, Lorentz()), x, rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(module.inverse(x, Lorentz()), x, rtol=1e-15, atol=1e-15)
    (gradient,) = torch.autograd.grad(module(x, Lorentz()).sum(), module.boost)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0
    torch.testing.assert_close(module.matrix(), torch.eye(4, dtype=F64))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_matrix_is_a_proper_orthochronous_lorentz_matrix(kind, n):
    m, eta = moved(kind, n).matrix(), minkowski(n)
    torch.testing.assert_close(m.mT @ eta @ m, eta, rtol=0, atol=1e-14)
    assert torch.linalg.det(m).item() == pytest.approx(1) and m[0, 0] > 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("K", [-1.0, -0.3, -4.0])
def test_it_acts_as_its_matrix_on_every_curvature(kind, K):
    module, manifold = moved(kind), Lorentz(K)
    x = manifold.random(6, 4, dtype=F64, generator=generator(1))
    torch.testing.assert_close(module(x, manifold), x @ module.matrix().mT, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(module.inverse(module(x, manifold), manifold), x, rtol=1e-13, atol=1e-13)
    away = manifold.dist0(module(manifold.origin(4, dtype=F64), manifold))
    assert away.item() == pytest.approx(1 / math.sqrt(-K))  # a rapidity of one


def test_group_law():
    one, two = moved("manifold", seed=1), moved("tangent", seed=2)
    m = Lorentz()
    x = m.random(6, 4, dtype=F64, generator=generator(1))
    both = one.matrix() @ two.matrix()
    torch.testing.assert_close(one(two(x, m), m), x @ both.mT, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(two.inverse(one.inverse(x, m), m), x @ torch.linalg.inv(both).mT, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("K", [-1.0, -0.3])
def test_isometry_to_radius_twelve(kind, K):
    module, manifold, R = moved(kind, size=3.0), Lorentz(K), 1 / math.sqrt(-K)
    for radius in (0.01, 1.0, 4.0, 8.0, 12.0):
        z, w = (radius * R * directions(8, 3, seed) for seed in (1, 2))
        x, y = points(Lorentz, K, z, F64), points(Lorentz, K, w, F64)
        truth = [distance(K, a, b) for a, b in zip(exact(z), exact(w), strict=True)]
        d = manifold.dist(module(x, manifold), module(y, manifold))
        # Each image may be off by the rounding floor of its radius, which for these distances is below 1e-13.
        assert relative_error(d, truth) <= 40 * EPS + 8 * EPS * math.cosh(min(radius, 3.0) + 3.0) / radius


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n", [2, 12])
def test_double_points_keep_their_digits_under_narrow_parameters(kind, dtype, n):
    """The rotation is orthogonal to the rounding of the points' dtype, not of its own; else 1e-7 would be left."""
    module, manifold = moved(kind, n, dtype=dtype), Lorentz(-0.5)
    x, y = (points(Lorentz, -0.5, directions(20, n, seed), F64) for seed in (1, 2))
    before = manifold.dist(x, y)
    image = module(x, manifold)
    assert image.dtype == F64 and module.rotation_matrix().dtype == dtype
    assert (manifold.dist(image, module(y, manifold)) - before).abs().max() <= 100 * EPS
    assert manifold.dist(module.inverse(image, manifold), x).max() <= 100 * EPS
    for gradient in torch.autograd.grad(image.square().sum(), module.parameters()):
        assert gradient.dtype == dtype and gradient.isfinite().all()
    torch.testing.assert_close(
        module.matrix().double(), module.double().matrix(), rtol=0, atol=20 * torch.finfo(dtype).eps
    )


@pytest.mark.parametrize("size", [8.0, 12.0])
def test_what_comes_back_from_afar_is_at_the_rounding_floor(size):
    """Points near a distant one, carried to the origin: applied as a matrix, exp(2 size) would cancel to one."""
    module, manifold = moved("manifold", size=size), Lorentz()
    apart = (-module.boost @ module.rotation_matrix()).detach()  # the rotation turns it against the boost
    far = manifold.from_normal(apart)
    x, y = (manifold.expmap_frame(far, 0.1 * directions(50, 3, seed)) for seed in (1, 2))
    before = manifold.dist(x, y)
    assert manifold.dist0(module(x, manifold)).max() < 0.11
    assert (manifold.dist(module(x, manifold), module(y, manifold)) - before).abs().max() <= 2 * EPS * math.cosh(size)
    matrix = module.matrix().mT
    assert (manifold.dist(x @ matrix, y @ matrix) - before).abs().max() > 40 * EPS * math.cosh(size)


def test_image_against_mpmath():
    """A boost along an axis adds rapidities on that axis."""
    for radius in (0.5, 5.0, 12.0):
        z = torch.tensor([[radius, 0.0], [-radius, 0.0]], dtype=F64)
        module = LorentzIsometry(2, dtype=F64)
        with torch.no_grad():
            module.boost.copy_(torch.tensor([1.5, 0.0]))
        images = module(points(Lorentz, -1.0, z, F64), Lorentz())
        for row, r in zip(images, (radius + 1.5, 1.5 - radius), strict=True):
            truth = coordinates(Lorentz, -1.0, exact(torch.tensor([[r, 0.0]], dtype=F64))[0])
            assert row[1].item() == pytest.approx(float(truth[1]), rel=20 * EPS)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind):
    module, manifold = moved(kind), Lorentz(-0.6)
    x = manifold.random(4, 4, dtype=F64, generator=generator(1)).requires_grad_()
    names = ["boost", "rotation"] if kind == "tangent" else ["boost"]
    values = tuple(getattr(module, name).detach().requires_grad_() for name in names)

    def image(x, *values):
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x, manifold))

    # Only the space part is read, and the time derived.
    assert torch.autograd.gradcheck(lambda s, *v: image(torch.cat([x[:, :1], s], -1), *v), (x[:, 1:], *values))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_learned(kind):
    """From the images of some points, with an optimizer of either kind."""
    hidden, x = moved("tangent", size=0.7, seed=3), Lorentz().random(30, 4, dtype=F64, generator=generator(1))
    target, module = hidden(x, Lorentz()).detach(), LorentzIsometry(3, kind, dtype=F64)
    optimizer = RiemannianAdam(param_groups(module), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss = Lorentz().dist2(module(x, Lorentz()), target).mean()
        loss.backward()
        optimizer.step()
    assert loss < 1e-4
    torch.testing.assert_close(module.matrix(), hidden.matrix(), rtol=0.02, atol=0.02)
    if kind == "manifold":
        assert SpecialOrthogonal().check_point_on_manifold(module.rotation)


@pytest.mark.parametrize("kind", KINDS)
def test_learnable_curvature_dtypes_and_compile(kind):
    module, K = moved(kind, dtype=torch.float32), torch.tensor(-0.5, requires_grad=True)
    x = Lorentz(-0.5).random(3, 4)
    module(x, Lorentz(K)).sum().backward()
    assert K.grad.isfinite() and K.grad != 0
    assert module(x.double(), Lorentz(-0.5)).dtype == F64
    half = module(x.bfloat16(), Lorentz(-0.5))
    assert half.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(module(x, Lorentz()), torch.no_grad()(module)(x.clone(), Lorentz()))
        assert module(x, Lorentz()).dtype == torch.float32
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, Lorentz(K)), module(x, Lorentz(K)))


def test_errors():
    with pytest.raises(ValueError, match="dim must be at least 1"):
        LorentzIsometry(0)
    with pytest.raises(ValueError, match="parametrization must be one of .* got 'qr'"):
        LorentzIsometry(3, "qr")
    with pytest.raises(ValueError, match=r"dim \+ 1 = 4 coordinates, got \(2, 3\)"):
        LorentzIsometry(3)(torch.zeros(2, 3), Lorentz())
    with pytest.raises(ValueError, match="manifold must be a Lorentz instance.*convert the points"):
        LorentzIsometry(3)(torch.zeros(2, 4), PoincareBall())
    with pytest.raises(ValueError, match=r"got a tensor of shape \(2, 4\)"):
        LorentzIsometry(3)(torch.zeros(2, 4), torch.zeros(2, 4))
    module, x = LorentzIsometry(3), Lorentz(-0.5).origin(4)
    for move in (module, module.inverse):  # points do not say of which curvature they are
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'manifold'"):
            move(x)
    assert repr(LorentzIsometry(3)) == "LorentzIsometry(dim=3, parametrization='manifold')"
