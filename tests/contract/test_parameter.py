"""Parameters that know their manifold, inside geoopt and through everything that copies or stores a tensor."""

import copy
import io
import pickle

import geoopt
import pytest
import torch
from torch import nn

from torchriemann.manifolds import Euclidean, Grassmann, Manifold, ManifoldParameter, Sphere
from torchriemann.manifolds.parameter import named_manifolds, register_manifold, registered_manifolds, relabel

MANIFOLDS = [(Euclidean(), (3,)), (Sphere(), (4, 3)), (Sphere(0.5), (3,)), (Grassmann("qr"), (2, 5, 2))]


def parameter(manifold=None, shape=(4, 3)):
    m = Sphere() if manifold is None else manifold
    return ManifoldParameter(m.random(*shape, generator=torch.Generator().manual_seed(0)), m)


def saved_and_loaded(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, **options)


@pytest.mark.parametrize("manifold, shape", MANIFOLDS)
def test_is_a_parameter_of_geoopt(manifold, shape):
    p = parameter(manifold, shape)
    assert isinstance(p, nn.Parameter) and isinstance(p, geoopt.ManifoldParameter)
    assert isinstance(manifold, geoopt.Manifold) and isinstance(manifold, Manifold)
    assert p.requires_grad and p.is_leaf and p.is_contiguous() and p.manifold == manifold
    theirs = geoopt.ManifoldParameter(p.detach().clone(), manifold=manifold)
    assert theirs.manifold == manifold


def test_off_the_manifold_raises_and_offers_project():
    with pytest.raises(ValueError, match=r"Sphere.*= 1.*projx.*ManifoldParameter\.project"):
        ManifoldParameter(2 * Sphere().random(4, 3), Sphere())
    with pytest.raises(ValueError, match="ManifoldParameter"):
        ManifoldParameter(torch.full((3,), torch.nan), Sphere())
    with pytest.raises(ValueError, match="manifold must be an instance"):
        ManifoldParameter(torch.ones(3), None)
    p = ManifoldParameter.project(torch.tensor([3.0, 4.0]), Sphere(), requires_grad=False)
    torch.testing.assert_close(p.data, torch.tensor([0.6, 0.8]))
    assert not p.requires_grad


def test_does_not_project_or_share_a_graph():
    x = Sphere().random(4, 3).requires_grad_()
    p = ManifoldParameter(x * 1.0, Sphere())
    assert torch.equal(p, x) and p.grad_fn is None


@pytest.mark.parametrize("manifold, shape", MANIFOLDS)
@pytest.mark.parametrize(
    "twin",
    [copy.deepcopy, copy.copy, lambda p: pickle.loads(pickle.dumps(p)), saved_and_loaded],
    ids=["deepcopy", "copy", "pickle", "torch.load"],
)
def test_survives_being_copied(twin, manifold, shape):
    # torch.load reads weights only by default, and geoopt's parameter makes it fail.
    p = parameter(manifold, shape).requires_grad_(False)
    q = twin(p)
    assert type(q) is ManifoldParameter and q.manifold == manifold
    assert torch.equal(p, q) and not q.requires_grad


def test_deepcopy_of_a_module_keeps_sharing():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = parameter()
            self.second = self.first

    twin = copy.deepcopy(Tied())
    assert twin.first is twin.second and twin.first.manifold == Sphere()


def test_module_state_is_plain_tensors():
    module = nn.Module()
    module.weight = parameter()
    state = saved_and_loaded(module.state_dict(), weights_only=True)
    assert list(state) == ["weight"]
    other = nn.Module()
    other.weight = parameter()
    other.weight.data.neg_()
    other.load_state_dict(state)
    assert torch.equal(other.weight, module.weight) and other.weight.manifold == Sphere()


def test_dtype_and_gradient():
    module = nn.Module()
    module.weight = parameter()
    module.double()
    assert module.weight.dtype == torch.float64 and module.weight.manifold == Sphere()
    module.weight.square().sum().backward()
    assert module.weight.grad.shape == (4, 3)


# ---- the registry ---------------------------------------------------------------------------------------------


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = parameter()
        self.bias = nn.Parameter(torch.zeros(2))
        register_manifold(self, "weight", Sphere())


def test_registry_remembers_what_assignment_loses():
    # load_state_dict(assign=True) gives a plain Parameter; so does a move to the meta device.
    layer = Layer()
    layer.load_state_dict({"weight": 2 * torch.eye(4, 3), "bias": torch.zeros(2)}, assign=True)
    assert type(layer.weight) is nn.Parameter
    assert {name: manifold for name, _, manifold in named_manifolds(layer)} == {"weight": Sphere(), "bias": None}
    mended = relabel(layer.weight, Sphere())
    assert type(mended) is ManifoldParameter and mended.manifold == Sphere()

    meta = copy.deepcopy(Layer()).to("meta")
    assert registered_manifolds(meta) == {"weight": Sphere()}
    assert {name: manifold for name, _, manifold in named_manifolds(meta)}["weight"] == Sphere()


def test_registry_reads_labels_and_shared_parameters_once():
    model = nn.Sequential(Layer(), nn.Linear(2, 2))
    model.append(model[0])
    model.extra = parameter(Grassmann(), (3, 2))
    found = {name: manifold for name, _, manifold in named_manifolds(model)}
    assert found == {
        "extra": Grassmann(), "0.weight": Sphere(), "0.bias": None, "1.weight": None, "1.bias": None
    }  # fmt: skip


def test_registry_refuses_a_contradiction():
    layer = Layer()
    register_manifold(layer, "weight", Sphere(2.0))
    with pytest.raises(ValueError, match=r"weight.*curvature=2.0.*curvature=1.0"):
        list(named_manifolds(layer))


# ---- inside geoopt --------------------------------------------------------------------------------------------


def quadratic(dtype=torch.float64):
    a = torch.randn(5, 5, generator=torch.Generator().manual_seed(3), dtype=dtype)
    return a + a.mT


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: geoopt.optim.RiemannianAdam([p], lr=0.05, stabilize=10),
        lambda p: geoopt.optim.RiemannianAdam([p], lr=0.05, amsgrad=True),
        lambda p: geoopt.optim.RiemannianSGD([p], lr=0.05, momentum=0.5, stabilize=10),
        lambda p: geoopt.optim.RiemannianSGD([p], lr=0.05),
    ],
    ids=["adam", "amsgrad", "sgd momentum", "sgd"],
)
@pytest.mark.parametrize("manifold, shape", [(Sphere(), (5,)), (Grassmann(), (5, 2)), (Grassmann("qr"), (5, 2))])
def test_trains_under_geoopt(optimizer, manifold, shape):
    A = quadratic()
    x = manifold.random(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p = ManifoldParameter(x, manifold)
    steps = optimizer(p)
    for _ in range(400):
        steps.zero_grad()
        loss = (p * (A @ p)).sum()
        loss.backward()
        steps.step()
    count = 1 if len(shape) == 1 else shape[1]
    best = torch.linalg.eigvalsh(A)[:count].sum()
    assert abs((loss.detach() - best).item()) < 1e-3
    assert manifold.check_point_on_manifold(p.detach(), atol=1e-10)


def test_geoopt_methods_of_the_parameter():
    m, p = Sphere(), parameter()
    u = m.random_tangent(p.detach(), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(p.expmap(u), m.expmap(p, u))
    torch.testing.assert_close(p.retr(u), m.retr(p, u))
    torch.testing.assert_close(p.dist(p.detach(), p="g"), torch.zeros(4))
    assert isinstance(repr(p), str) and "Sphere" in repr(p)
