"""Points that a layer learns: both forms, restored after widening, in batches, under a curvature that moves."""

import copy
import pickle

import geoopt
import pytest
import torch
from torch import nn

from torchriemann.layers import Curvature, LorentzIsometry, ManifoldModule
from torchriemann.manifolds import (
    Euclidean,
    Grassmann,
    Lorentz,
    ManifoldParameter,
    PoincareBall,
    Power,
    Product,
    SpecialOrthogonal,
    Sphere,
    Stiefel,
)
from torchriemann.optim import RiemannianSGD, param_groups

F64 = torch.float64
KINDS = ("manifold", "tangent")
# A manifold, the shape of its points, and that of their coordinates.
SPACES = [
    (Euclidean(), (3,), (3,)),
    (Sphere(2.0), (4,), (3,)),
    (Lorentz(-0.5), (4,), (3,)),
    (PoincareBall(), (3,), (3,)),
    (SpecialOrthogonal(), (4, 4), (6,)),
    (SpecialOrthogonal(), (1, 1), (0,)),
    (Grassmann(), (5, 2), (3, 2)),
    (Stiefel(), (5, 2), (7,)),
    (Power(Sphere(), 2), (2, 3), (2, 2)),
    (Product((Lorentz(), Sphere()), ((3,), (3,))), (6,), (4,)),
    (Product((Stiefel(), Sphere()), ((3, 2), (3,))), (9,), (5,)),  # of which one part has no gyro structure
]


class Holder(ManifoldModule):
    def __init__(self, manifold, shape, kind, dtype=F64, device=None):
        super().__init__()
        self.register_point("x", manifold, shape, kind, device=device, dtype=dtype)


def near(manifold, shape, dtype=F64):
    """Points within the reach of the coordinates."""
    o, g = manifold.origin(*shape, dtype=dtype), torch.Generator().manual_seed(0)
    return manifold.expmap(o, 0.4 * manifold.random_tangent(o, generator=g))


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize(("manifold", "shape", "coordinates"), SPACES)
def test_both_forms_hold_the_same_points(manifold, shape, coordinates, batch):
    x, origin = near(manifold, (*batch, *shape)), manifold.origin(*batch, *shape, dtype=F64)
    for kind, stored in zip(KINDS, (shape, coordinates), strict=True):
        module = Holder(manifold, (*batch, *shape), kind)
        assert module.x.shape == (*batch, *stored)
        torch.testing.assert_close(module.point("x"), origin, rtol=0, atol=1e-15)
        module.set_point("x", x)
        assert manifold.dist(module.point("x"), x).max() < 1e-7  # of subspaces: the basis may be another
        assert manifold.check_point_on_manifold(module.point("x"))
        for survivor in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert torch.equal(survivor.point("x"), module.point("x"))
        module.set_point("x")
        torch.testing.assert_close(module.point("x"), origin, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("manifold", "shape", "coordinates"), SPACES)
def test_coordinates_are_orthonormal(manifold, shape, coordinates):
    """Their length is the distance to the origin, and the differential of the point there an isometry."""
    module, g = Holder(manifold, shape, "tangent"), torch.Generator().manual_seed(1)
    z = torch.randn(coordinates, dtype=F64, generator=g)
    with torch.no_grad():
        module.x.copy_(0.3 * z / max(1.0, float(z.norm())))
    o = manifold.origin(*shape, dtype=F64)
    torch.testing.assert_close(manifold.dist(o, module.point("x")), module.x.norm(), rtol=1e-12, atol=1e-14)
    read = lambda z: torch.func.functional_call(Reader(module), {"holder.x": z}, ())  # noqa: E731
    moved = torch.func.jvp(read, (torch.zeros_like(z),), (z,))[1]
    torch.testing.assert_close(manifold.norm(o, moved), z.norm(), rtol=1e-12, atol=1e-14)


class Reader(nn.Module):
    def __init__(self, holder):
        super().__init__()
        self.holder = holder

    def forward(self):
        return self.holder.point("x")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("wanted", [torch.float32, F64])
@pytest.mark.parametrize(("manifold", "shape", "coordinates"), SPACES)
def test_a_point_is_read_on_the_manifold_of_a_finer_dtype(manifold, shape, coordinates, stored, wanted, kind):
    module = Holder(manifold, (3, *shape), kind, dtype=stored)
    module.set_point("x", near(manifold, (3, *shape)))
    x = module.point("x", wanted)
    assert x.dtype == wanted and module.point("x").dtype == stored
    assert manifold.check_point_on_manifold(x, atol=200 * torch.finfo(wanted).eps)
    (gradient,) = torch.autograd.grad((x * x.roll(1, -1)).sum(), module.x)
    assert gradient.dtype == stored and gradient.isfinite().all()


def test_large_coordinates_of_a_rotation_are_orthogonal_to_rounding():
    """Of a matrix exponential alone the error grows with the length: 7e-14 at a size of 30."""
    for size in (1.0, 30.0):
        isometry = LorentzIsometry(5, "tangent", dtype=F64)
        for seed in range(20):
            with torch.no_grad():
                isometry.rotation.normal_(0, size, generator=torch.Generator().manual_seed(seed))
            o = isometry.rotation_matrix()
            assert (o.mT @ o - torch.eye(5, dtype=F64)).abs().max() <= 1e-15


@pytest.mark.parametrize(("kind", "groups"), [("manifold", [Stiefel()]), ("tangent", [None])])
def test_both_forms_are_learned(kind, groups):
    """The tangent form by a plain optimizer, which knows no manifold."""
    target = near(Stiefel(), (2, 5, 2))
    module = Holder(Stiefel(), (2, 5, 2), kind)
    assert [g["manifold"] for g in param_groups(module)] == groups
    assert isinstance(module.x, ManifoldParameter) == (kind == "manifold")
    plain = torch.optim.SGD(module.parameters(), lr=0.3)
    optimizer = plain if kind == "tangent" else RiemannianSGD(param_groups(module), lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = (module.point("x") - target).square().sum()
        loss.backward()
        optimizer.step()
    assert loss < 1e-6


def test_coordinates_follow_a_curvature_that_is_learned():
    class Centre(ManifoldModule):
        def __init__(self, kind="tangent"):
            super().__init__()
            self.curvature = Curvature(-1.0, dtype=F64)
            self.register_point("centre", Lorentz(), (3,), kind, dtype=F64)

        def forward(self, x):
            manifold = Lorentz(self.curvature())
            return manifold.dist(x, self.point("centre", x.dtype, manifold))

    module = Centre()
    module.set_point("centre", near(Lorentz(), (3,)))
    with torch.no_grad():
        module.curvature.log_magnitude.fill_(0.7)
    manifold = Lorentz(module.curvature())
    centre = module.point("centre", manifold=manifold)
    assert manifold.check_point_on_manifold(centre)
    torch.testing.assert_close(manifold.dist0(centre), module.centre.norm())
    module(manifold.origin(3, dtype=F64).detach()).backward()
    assert module.curvature.log_magnitude.grad is not None and module.centre.grad.norm() > 0
    with pytest.raises(ValueError, match=r"Centre: centre is a point of Lorentz\(curvature=-1.0\).*\"tangent\""):
        Centre("manifold").point("centre", manifold=manifold)


@pytest.mark.parametrize("kind", KINDS)
def test_a_point_that_is_set_from_a_coarser_dtype_lies_on_the_manifold(kind):
    module = Holder(Stiefel(), (4, 5, 2), kind)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        module.set_point("x", near(Stiefel(), (4, 5, 2), torch.float32).to(dtype))
        x = module.point("x")
        assert (x.mT @ x - torch.eye(2, dtype=F64)).abs().max() < 1e-14


def test_a_registered_parameter_is_a_point_too():
    module = ManifoldModule()
    module.register_manifold_parameter("x", Sphere().random(2, 3), Sphere())
    assert torch.equal(module.point("x"), module.x) and module.point("x", F64).dtype == F64
    module.set_point("x")
    assert torch.equal(module.x, Sphere().origin(2, 3))


def test_meta_points_are_left_alone():
    for kind in KINDS:
        module = Holder(Sphere(), (2, 3), kind, device="meta")
        module.set_point("x", Sphere().random(2, 3))
        assert module.x.is_meta and module.point("x").shape == (2, 3) and module.point("x").is_meta
        module.to_empty(device="cpu").set_point("x", Sphere().origin(3).double())
        assert torch.equal(module.point("x"), Sphere().origin(2, 3, dtype=F64))


def test_errors():
    with pytest.raises(ValueError, match=r"Holder: parametrization must be one of .*, got 'euclidean'"):
        Holder(Sphere(), (3,), "euclidean")
    with pytest.raises(ValueError, match="Holder: x needs a manifold of torchriemann, .* got Sphere manifold"):
        Holder(geoopt.Sphere(), (3,), "tangent")
    with pytest.raises(ValueError, match="Holder: x needs a manifold of torchriemann, .* got the class Sphere"):
        Holder(Sphere, (3,), "tangent")
    for kind in KINDS:
        with pytest.raises(ValueError, match="Holder: x: an option of Sphere.* requires a gradient"):
            Holder(Sphere(Curvature(1.0)()), (3,), kind)
        with pytest.raises(ValueError, match="Stiefel: a frame .* got n = 2, p = 5"):
            Holder(Stiefel(), (2, 5), kind)
        with pytest.raises(ValueError, match=r"Sphere: x has .*projx"):
            Holder(Sphere(), (3,), kind).set_point("x", torch.ones(3))
    with pytest.raises(ValueError, match=r"Holder: y is no point; call register_point in __init__"):
        Holder(Sphere(), (3,), "tangent").point("y")


@pytest.mark.parametrize("size", [(2, 3, 3), (4, 3), (2, 4)])
def test_points_of_another_shape_are_refused(size):
    for kind in KINDS:
        with pytest.raises(ValueError, match=r"Holder: x has the shape \(2, 3\), to which .* does not broadcast"):
            Holder(Sphere(), (2, 3), kind).set_point("x", Sphere().random(*size))
