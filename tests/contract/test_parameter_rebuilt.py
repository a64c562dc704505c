"""Parameters that torch and its tools make anew from a labelled one: the label stays, or its loss is loud."""

import copy
import io
import pickle
from multiprocessing.reduction import ForkingPickler

import geoopt
import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from tests.contract.test_parameter import parameter, saved_and_loaded
from torchriemann import ManifoldParameter, Sphere
from torchriemann.manifolds.parameter import relabel
from torchriemann.optim import RiemannianAdam, RiemannianSGD, clip_grad_norm_, param_groups

# As torch's own class is called by torch, accelerate and others.
BY_CLASS = {
    "keyword": lambda p, data: type(p)(data, requires_grad=p.requires_grad),
    "position": lambda p, data: type(p)(data, p.requires_grad),
    "attributes": lambda p, data: type(p)(data, **p.__dict__, requires_grad=p.requires_grad),
}


@pytest.mark.parametrize("requires_grad", [True, False])
@pytest.mark.parametrize("how", BY_CLASS)
def test_rebuilt_by_its_class(how, requires_grad):
    p = parameter().requires_grad_(requires_grad)
    values = -p.detach()
    plain, labelled = BY_CLASS[how](p, values), BY_CLASS[how](p, p)
    for q, want in ((plain, values), (labelled, p)):
        assert type(q) is ManifoldParameter and q.is_leaf and q.requires_grad is requires_grad
        assert torch.equal(q, want) and q.data_ptr() == want.data_ptr()
    assert labelled.manifold == Sphere()
    assert plain.manifold == (Sphere() if how == "attributes" else None)


def test_rebuilt_by_its_class_it_is_not_checked():
    """A tool is no claim: a point in training may be off, and a checkpoint is looked at when it is loaded."""
    p = parameter()
    with torch.no_grad():
        p.mul_(2)
    assert type(p)(p).manifold == Sphere()
    with pytest.raises(ValueError, match="data must be a tensor, got list"):
        ManifoldParameter([1.0])


@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_torch_parameter_of_it_keeps_the_label(requires_grad):
    p = parameter()
    q = nn.Parameter(p, requires_grad=requires_grad)
    assert type(q) is ManifoldParameter and q.manifold == Sphere() and q is not p
    assert q.is_leaf and q.requires_grad is requires_grad and q.data_ptr() == p.data_ptr()
    module = nn.Module()
    module.weight = nn.Parameter(p)
    assert param_groups(module)[0]["manifold"] == Sphere()
    assert nn.Parameter(ManifoldParameter(torch.ones(3))).manifold is None


def test_detached_it_is_a_plain_tensor():
    p = parameter()
    for detached in (p.detach(), p.data, torch.detach(p), nn.ParameterList([p]).state_dict()["0"]):
        assert type(detached) is torch.Tensor and not detached.requires_grad
        assert detached.data_ptr() == p.data_ptr()

    def f(x):
        return x @ p.detach().mT + (x @ p.mT)

    x = torch.ones(2, 3)
    for backend in ("eager", "aot_eager"):
        torch._dynamo.reset()
        assert torch.equal(torch.compile(f, fullgraph=True, backend=backend)(x), f(x))
    assert torch.equal(torch.func.vmap(f)(x), f(x))


@pytest.mark.parametrize(
    "twin",
    [copy.deepcopy, copy.copy, lambda p: pickle.loads(pickle.dumps(p)), saved_and_loaded],
    ids=["deepcopy", "copy", "pickle", "torch.load"],
)
def test_one_without_a_manifold_is_copied(twin):
    p = ManifoldParameter(torch.ones(3), requires_grad=False)
    q = twin(p)
    assert type(q) is ManifoldParameter and q.manifold is None and torch.equal(p, q) and not q.requires_grad
    assert "None" in repr(q)


def test_shared_memory_keeps_the_label():
    p = parameter()
    assert p.share_memory_() is p and p.is_shared() and p.manifold == Sphere()
    buffer = io.BytesIO()
    ForkingPickler(buffer).dump(p)  # how a process gets it
    q = pickle.loads(buffer.getvalue())
    assert type(q) is ManifoldParameter and q.manifold == Sphere() and q.is_shared()
    with torch.no_grad():
        p.neg_()
    assert torch.equal(p, q)


def test_swapped_tensors_swap_their_labels():
    p, q = parameter(), nn.Parameter(torch.zeros(2))
    torch.utils.swap_tensors(p, q)
    assert type(p) is nn.Parameter and type(q) is ManifoldParameter and q.manifold == Sphere()
    optimizer = RiemannianSGD([q], lr=0.1)
    torch.utils.swap_tensors(p, q)
    q.grad = torch.ones(2)
    with pytest.raises(ValueError, match=r"was on Sphere.* and is now on None"):
        optimizer.step()


def test_fake_tensors():
    p = parameter()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = mode.from_tensor(p)
        for q in (ManifoldParameter(fake, Sphere()), ManifoldParameter(fake), nn.Parameter(fake)):
            assert q.shape == p.shape and isinstance(q, nn.Parameter)


def test_relabelled_as_flat():
    p = relabel(parameter(), None)
    assert type(p) is nn.Parameter and "manifold" not in p.__dict__
    assert relabel(p, Sphere()) is p and type(p) is ManifoldParameter and p.manifold == Sphere()


# ---- never stepped as flat -----------------------------------------------------------------------------------------


def lost():
    p = ManifoldParameter(Sphere().random(4, 3))
    p.grad = torch.ones(4, 3)
    return p


@pytest.mark.parametrize("optimizer_class", [RiemannianSGD, RiemannianAdam])
def test_one_without_a_manifold_is_refused(optimizer_class):
    module = nn.Module()
    module.weight = lost()
    message = r"weight is a ManifoldParameter without a manifold.*relabel.*register_manifold_parameter"
    for make in (
        lambda: optimizer_class(module.named_parameters(), lr=0.1),
        lambda: optimizer_class([{"params": list(module.named_parameters()), "manifold": None}], lr=0.1),
        lambda: param_groups(module),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(ValueError, match="without a manifold"):
        clip_grad_norm_(module.parameters(), 1.0)
    optimizer = optimizer_class([{"params": [module.weight], "manifold": Sphere()}], lr=0.1)
    optimizer.step()
    Sphere().assert_check_point_on_manifold(module.weight.detach())


def test_geoopt_does_not_step_it_either():
    p = lost()
    with pytest.raises(AttributeError, match="NoneType"):
        geoopt.optim.RiemannianSGD([p], lr=0.1).step()
