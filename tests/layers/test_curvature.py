"""A learned curvature: its sign, its gradient, one compilation for all values, and points that cannot follow it."""

import copy
import io

import pytest
import torch
from mpmath import mpf
from torch import nn
from torch._dynamo.testing import CompileCounter

from tests.support.models import directions, distance, exact
from torchriemann.layers import Curvature, ManifoldModule
from torchriemann.manifolds import (
    Klein,
    Lorentz,
    ManifoldParameter,
    PoincareBall,
    Power,
    Product,
    ProjectedSphere,
    Scaled,
    Sphere,
    Stereographic,
)
from torchriemann.optim import RiemannianSGD

F64 = torch.float64


# ---- the module -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("initial", [-1.0, -0.3, 4.0, -2, 1e-12])
def test_value_and_gradient(initial):
    module = Curvature(initial, dtype=F64)
    k = module()
    assert k.shape == () and k.item() == pytest.approx(initial, rel=1e-14)
    (gradient,) = torch.autograd.grad(k, module.log_magnitude)
    assert gradient.item() == pytest.approx(initial, rel=1e-14)  # dK/dlog|K| = K
    with torch.no_grad():
        module.log_magnitude.sub_(50.0)
    assert module().item() * initial > 0  # however far it moves
    module.reset_parameters()
    assert module().item() == pytest.approx(initial, rel=1e-14)


def test_a_curvature_that_stays_is_a_buffer():
    module = Curvature(-2.0, learnable=False)
    assert not list(module.parameters()) and dict(module.named_buffers()).keys() == {"log_magnitude", "sign"}
    assert not module().requires_grad
    assert repr(module) == "Curvature(curvature=-2.0, learnable=False)"


def test_it_is_an_ordinary_module():
    module = Curvature(-0.7)
    assert module.log_magnitude.dtype == torch.float32 and module.double()().dtype == F64
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    other = Curvature(-1.0, dtype=F64)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert other().item() == module().item() == copy.deepcopy(module)().item()
    lazy = Curvature(-0.7, device="meta")
    assert lazy().is_meta
    lazy = lazy.to_empty(device="cpu")
    lazy.reset_parameters()
    assert lazy().item() == pytest.approx(-0.7)


def test_a_checkpoint_keeps_the_sign():
    """log|K| alone would turn a sphere into a hyperbolic space in silence."""
    stored = nn.ModuleDict({"k": Curvature(2.0)}).state_dict()
    assert stored.keys() == {"k.log_magnitude", "k.sign"} and stored["k.sign"] == 1
    for assign in (False, True):
        other = nn.ModuleDict({"k": Curvature(-1.0)})
        message = r"Curvature: k\.sign must be -1, .*initial=-1\.0, got \+1 from the checkpoint; construct"
        with pytest.raises(ValueError, match=message):
            other.load_state_dict(stored, assign=assign)
        assert other["k"]().item() == -1.0
        right = nn.ModuleDict({"k": Curvature(0.1)})
        right.load_state_dict(stored, assign=assign)
        assert right["k"]().item() == pytest.approx(2.0)
    with pytest.raises(RuntimeError, match="Missing key.*sign"):
        Curvature(-1.0).load_state_dict({"log_magnitude": torch.tensor(0.0)})


def test_it_prints_the_curvature_of_today():
    module = Curvature(-1.0)
    with torch.no_grad():
        module.log_magnitude.fill_(0.5)
    assert repr(module) == "Curvature(curvature=-1.64872, learnable=True)"
    assert repr(Curvature(-1.0, device="meta")) == "Curvature(initial=-1.0, learnable=True)"


@pytest.mark.parametrize("initial", [0, 0.0, float("nan"), float("-inf"), True, "1", torch.tensor(-1.0)])
def test_no_curvature(initial):
    with pytest.raises(ValueError, match="Curvature: initial must be a finite number other than zero"):
        Curvature(initial)


# ---- in a layer -----------------------------------------------------------------------------------------------


class Distances(nn.Module):
    """Distances of fixed normal coordinates: they tell the curvature."""

    def __init__(self, space: type, initial: float):
        super().__init__()
        self.space = space
        self.curvature = Curvature(initial, dtype=F64)

    def forward(self, z, w):
        manifold = self.space(self.curvature())
        return manifold.dist(manifold.from_normal(z), manifold.from_normal(w))


def pairs(count=12):
    r = torch.linspace(0.2, 1.2, count, dtype=F64).unsqueeze(-1)
    return r * directions(count, 3, 1), r.flip(0) * directions(count, 3, 2)


SPACES = [(Lorentz, -1.0), (PoincareBall, -1.0), (Klein, -1.0), (Stereographic, -1.0), (Stereographic, 1.0)]
SPACES += [(Sphere, 1.0), (ProjectedSphere, 1.0)]


@pytest.mark.parametrize(("space", "sign"), SPACES)
def test_gradient_in_the_curvature_is_that_of_the_law_of_cosines(space, sign):
    module, (z, w) = Distances(space, 0.8 * sign), pairs(5)
    module(z, w).sum().backward()
    rows, h, K = list(zip(exact(z), exact(w), strict=True)), mpf("1e-20"), mpf(0.8) * sign
    up, down = (sum(distance(K * f, a, b) for a, b in rows) for f in (1 + h, 1 - h))
    truth = float((up - down) / (2 * h))  # in log|K|, as the parameter; with 60 digits right to 1e-40
    assert module.curvature.log_magnitude.grad.item() == pytest.approx(truth, rel=1e-11)


@pytest.mark.parametrize(("space", "sign"), [(Lorentz, -1), (PoincareBall, -1), (Stereographic, -1)])
def test_a_curvature_is_found_by_one_compilation(space, sign):
    z, w = pairs()
    truth = [float(distance(2.0 * sign, a, b)) for a, b in zip(exact(z), exact(w), strict=True)]
    truth = torch.tensor(truth, dtype=F64)
    module = Distances(space, 0.5 * sign)
    torch._dynamo.reset()
    counter = CompileCounter()
    forward = torch.compile(module, backend=counter, fullgraph=True)
    optimizer, seen = (
        torch.optim.LBFGS(
            module.parameters(), tolerance_grad=1e-11, tolerance_change=1e-14, line_search_fn="strong_wolfe"
        ),
        set(),
    )

    def closure():
        optimizer.zero_grad()
        loss = (forward(z, w) - truth).square().sum()
        loss.backward()
        seen.add(module.curvature().item())
        return loss

    optimizer.step(closure)
    assert len(seen) > 5 and counter.frame_count == 1
    assert module.curvature().item() == pytest.approx(2.0 * sign, rel=1e-6)


# ---- points that cannot follow --------------------------------------------------------------------------------


def moving():
    return Sphere(Curvature(1.0)())


@pytest.mark.parametrize(
    "wrap",
    [lambda m: m, lambda m: Power(m, 1), lambda m: Scaled(m, 2.0), lambda m: Product((Sphere(), m), ((3,), (3,)))],
)
def test_a_point_under_a_learnable_curvature_is_refused(wrap):
    manifold = wrap(moving())
    size = {"Power": (1, 3), "Product": (6,)}.get(type(manifold).__name__, (3,))
    x = manifold.origin(*size).detach()
    for make in (ManifoldParameter, ManifoldParameter.project):
        with pytest.raises(ValueError, match=r"ManifoldParameter: .* requires a gradient.*from_normal"):
            make(x, manifold)
    for tensor in (x, x.to("meta")):
        with pytest.raises(ValueError, match=r"Module: weight: .* requires a gradient.*from_normal"):
            ManifoldModule().register_manifold_parameter("weight", tensor, manifold)


def test_a_learnable_scale_is_refused_too():
    scale = torch.tensor(2.0, requires_grad=True)
    with pytest.raises(ValueError, match="requires a gradient"):
        ManifoldParameter(Sphere().origin(3), Scaled(Sphere(), scale))


def test_a_curvature_that_is_a_constant_is_accepted():
    k = torch.tensor(1.0)
    assert ManifoldParameter(Sphere().origin(3), Sphere(k)).manifold.curvature is k


def test_an_optimizer_refuses_a_group_on_a_learnable_curvature():
    p = nn.Parameter(Sphere().origin(3))
    with pytest.raises(ValueError, match="an option of which is a tensor.*normal coordinates"):
        RiemannianSGD([{"params": [p], "manifold": moving()}], lr=0.1)


def test_normal_coordinates_follow_a_learnable_curvature():
    """What the message advises: points in normal coordinates and the curvature, learned together by one optimizer."""
    z, w = pairs(6)
    truth = torch.tensor([float(distance(-2.0, a, b)) for a, b in zip(exact(z), exact(w), strict=True)], dtype=F64)
    module = Distances(Lorentz, -0.5)
    points = nn.Parameter(z + 0.1)
    optimizer = RiemannianSGD([points, *module.parameters()], lr=0.1, momentum=0.9)
    for _ in range(150):
        optimizer.zero_grad()
        loss = (module(points, w) - truth).square().sum()
        loss.backward()
        optimizer.step()
    assert loss < 1e-6
