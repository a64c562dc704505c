"""What a `ManifoldModule` remembers of itself and of what it holds, through everything that moves its parameters."""

import copy
import pickle
import re

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from torchriemann.layers import GrassmannClassifier, ManifoldModule
from torchriemann.manifolds import Lorentz, ManifoldParameter, Sphere
from torchriemann.manifolds.parameter import named_manifolds, register_manifold, registered_manifolds, relabel
from torchriemann.optim import RiemannianAdam, RiemannianSGD, param_groups


class Directions(ManifoldModule):
    def __init__(self):
        super().__init__()
        self.register_manifold_parameter("weight", Sphere().random(5, 3), Sphere())


class Holder(ManifoldModule):
    """Points in modules without a memory."""

    def __init__(self):
        super().__init__()
        self.items = nn.ParameterList([point(), nn.Parameter(torch.zeros(2))])
        self.named = nn.ParameterDict({"a": point()})
        linear = nn.Linear(3, 4, bias=False)
        linear.weight = point()
        self.linear = linear
        self.add_module("added", nn.ParameterList([point()]))


def point(*size, manifold=None):
    manifold = Sphere() if manifold is None else manifold
    return ManifoldParameter(manifold.random(*(size or (4, 3))), manifold)


def assigned(module):
    module.load_state_dict({name: value.clone() for name, value in module.state_dict().items()}, assign=True)
    return module


def through_meta(module):
    state = {name: value.clone() for name, value in module.state_dict().items()}
    module = module.to("meta")
    assert all(manifold is None or p.is_meta for _, p, manifold in named_manifolds(module))
    module.to_empty(device="cpu").load_state_dict(state)
    return module


def swapped(module):
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        state = module.state_dict()
        module.double().float().load_state_dict(state)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    return module


ROUTES = {
    "as it is": lambda m: m,
    "meta": through_meta,
    "assign": assigned,
    "twice": lambda m: through_meta(assigned(m)),
    "double": lambda m: m.double().float(),
    "swap": swapped,
    "deepcopy": copy.deepcopy,
    "deepcopy, assign": lambda m: assigned(copy.deepcopy(m)),
    "inside another": lambda m: assigned(through_meta(nn.Sequential(m)))[0],
}


def stepped(model, lr=0.3):
    """One step of every parameter, from which flat steps would leave a sphere."""
    for p in model.parameters():
        p.grad = torch.arange(1.0, p.numel() + 1).reshape(p.shape)
    RiemannianSGD(param_groups(model), lr=lr).step()


def on_spheres(model):
    return [name for name, p, m in named_manifolds(model) if m == Sphere() and m.check_point_on_manifold(p.detach())]


# ---- modules without a memory, inside of one that has one ----------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES)
def test_points_of_lists_and_plain_modules_are_remembered(route):
    model = ROUTES[route](Holder())
    stepped(model)
    assert on_spheres(model) == ["items.0", "named.a", "linear.weight", "added.0"]
    assert model.items[1].abs().min() > 0.1


@pytest.mark.parametrize("route", [r for r in ROUTES if r != "as it is"])
def test_points_that_were_added_later_are_remembered(route):
    model = Holder()
    model.items.append(point())
    model.named["b"] = point()
    model.inner = nn.Module()
    model.inner.deep = nn.Sequential(nn.Linear(2, 2))
    model.inner.deep[0].weight = point(2, 2)
    model = ROUTES[route](model)
    stepped(model)
    assert {"items.2", "named.b", "inner.deep.0.weight"} < set(on_spheres(model))


def test_points_of_lists_that_lose_their_label_in_silence_raise():
    """As `fully_shard` does, which writes into plain modules."""
    model = Holder()
    model.items._parameters["0"] = nn.Parameter(model.items[0].detach().clone())
    with pytest.raises(ValueError, match=r"items\.0 is registered on Sphere.*relabel"):
        param_groups(model)
    register_manifold(model.items, "0", None)
    assert [g["manifold"] for g in param_groups(model)] == [None, Sphere()]


def test_items_of_lists_come_and_go():
    model = Holder()
    model.named.pop("a")
    model.items[0] = point(4, manifold=Lorentz())
    found = {name: m for name, _, m in named_manifolds(model.double())}
    assert found["items.0"] == Lorentz() and "named.a" not in found


def test_fully_shard_on_a_list_inside_a_manifold_module_raises():
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore
    try:
        model = Holder()
        fully_shard(model, mesh=dist.device_mesh.init_device_mesh("cpu", (1,)))
        with pytest.raises(ValueError, match=r"items\.0 is registered on Sphere.*DTensor.*relabel"):
            param_groups(model)
    finally:
        dist.destroy_process_group()


# ---- names that torch changes --------------------------------------------------------------------------------------


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


class Halved(Doubled):
    def right_inverse(self, x):
        return x / 2


def parametrized(module):
    parametrize.register_parametrization(module, "weight", Doubled())
    return "parametrizations.weight.original"


def pruned(module):
    prune.random_unstructured(module, "weight", amount=0.3)
    return "weight_orig"


def old_spectral_norm(module):
    nn.utils.spectral_norm(module)
    return "weight_orig"


RENAMED = {"parametrize": parametrized, "prune": pruned, "old spectral_norm": old_spectral_norm}


# torch does not copy a pruned module: its weight is no leaf.
PAIRS = [(n, r) for n in RENAMED for r in ROUTES if "inside" not in r and not (n == "prune" and "deepcopy" in r)]


@pytest.mark.parametrize(("rename", "route"), PAIRS)
def test_a_point_under_another_name_is_followed(rename, route):
    module = Directions()
    name = RENAMED[rename](module)
    module = ROUTES[route](module)
    assert [(n, m) for n, _, m in named_manifolds(module)] == [(name, Sphere())]
    stepped(module)
    assert on_spheres(module) == [name]


@pytest.mark.parametrize("rename", RENAMED)
def test_a_point_under_another_name_that_lost_its_label_raises(rename):
    module = Directions()
    name = RENAMED[rename](module)
    owner = module.get_submodule(name.rpartition(".")[0])
    owner._parameters[name.rpartition(".")[2]] = nn.Parameter(Sphere().random(5, 3))
    with pytest.raises(ValueError, match=name.replace(".", r"\.") + r" is registered on Sphere"):
        param_groups(nn.Sequential(module))


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "replace",
    [nn.utils.weight_norm, parametrizations.weight_norm, lambda m: m._parameters.pop("weight")],
    ids=["old weight_norm", "weight_norm", "gone"],
)
def test_a_point_that_is_gone_raises(replace):
    """Weight normalisation steps a length and a direction instead."""
    module = Directions()
    replace(module)
    with pytest.raises(ValueError, match=r"parameter 0\.weight is registered on Sphere.*no such parameter any more"):
        param_groups(nn.Sequential(module))
    register_manifold(module, "weight", None)
    direction = "0.parametrizations.weight.original1"  # the tensor that was the point, with its label
    found = {name: m for name, _, m in named_manifolds(nn.Sequential(module))}
    assert all(m == (Sphere() if name == direction else None) for name, m in found.items())


def test_a_chart_is_flat_on_purpose():
    """`original` then holds coordinates, of which the module of the parametrization says that they are flat."""
    module = Directions()
    parametrize.register_parametrization(module, "weight", Halved())
    mend = (
        r"original is off Sphere.*get_submodule\(\"parametrizations\.weight\"\), \"original\", None\) and relabel\(p, N"
    )
    with pytest.warns(RuntimeWarning, match=mend):
        groups = param_groups(module)
    module.weight.sum().backward()
    with pytest.raises(ValueError, match=mend):
        RiemannianSGD(groups).step()
    coordinates = module.parametrizations.weight
    register_manifold(coordinates, "original", None)
    relabel(coordinates.original, None)
    for route in ("as it is", "meta", "assign", "double"):
        module = ROUTES[route](module)
        assert [(g["manifold"], g["param_names"]) for g in param_groups(module)] == [
            (None, ["parametrizations.weight.original"])
        ]


def test_a_chart_of_a_plain_module_is_flat():
    module = nn.Linear(3, 4)
    parametrize.register_parametrization(module, "weight", Halved())
    assert [g["manifold"] for g in param_groups(module)] == [None]


@pytest.mark.parametrize("rename", ["parametrize", "prune"])
def test_a_point_that_comes_back_is_found_under_its_name(rename):
    module = Directions()
    RENAMED[rename](module)
    if rename == "prune":
        prune.remove(module, "weight")
        with torch.no_grad():
            module.weight.copy_(Sphere().projx(module.weight + 0.1))
    else:
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
    module = assigned(module)
    assert [(n, m) for n, _, m in named_manifolds(module)] == [("weight", Sphere())]


# ---- rebuilt past the module, as accelerate does -------------------------------------------------------------------


def set_directly(module, name, value):
    """`accelerate.utils.set_module_tensor_to_device`, which its other calls go through."""
    *path, name = name.split(".")
    module = module.get_submodule(".".join(path))
    old = module._parameters[name]
    module._parameters[name] = type(old)(value, requires_grad=old.requires_grad)


def emptied(module):
    """`accelerate.init_empty_weights`, which rebuilds a parameter when it is registered."""
    for owner in module.modules():
        for name, p in owner._parameters.items():
            if p is not None:
                owner._parameters[name] = type(p)(p.to("meta"), **p.__dict__, requires_grad=p.requires_grad)
    return module


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 7), GrassmannClassifier(7, 4, 2))


def test_empty_weights_keep_their_labels():
    model = emptied(net())
    assert [g["manifold"] for g in param_groups(model)] == [None, net()[1].manifold]


@pytest.mark.parametrize("start", ["meta", "values"])
def test_weights_that_are_set_directly_are_points_again(start):
    model, source, x = emptied(net()) if start == "meta" else net(), net(), torch.ones(2, 3)
    for name, value in source.state_dict().items():
        set_directly(model, name, value.clone())
    assert torch.equal(model(x), source(x))  # offloaded weights come and go in this way
    optimizer = RiemannianAdam(param_groups(model), lr=0.1)
    model(x).sum().backward()
    optimizer.step()
    assert model[1].weight.manifold == model[1].manifold
    model[1].manifold.assert_check_point_on_manifold(model[1].weight.detach())
    assert model[1].manifold.dist(model[1].weight, source[1].weight).max() > 1e-2


def test_weights_that_are_set_directly_are_remembered_inside_other_modules():
    model = Holder()
    for name, value in model.state_dict().items():
        set_directly(model, name, value.clone())
    stepped(model)
    assert on_spheres(model) == ["items.0", "named.a", "linear.weight", "added.0"]


def test_weights_of_a_plain_module_that_are_set_directly_raise():
    module = nn.Linear(3, 4)
    module.weight = point()
    set_directly(module, "weight", Sphere().random(4, 3))
    with pytest.raises(ValueError, match="weight is a ManifoldParameter without a manifold"):
        param_groups(module)


# ---- what replaces tensors for a while -----------------------------------------------------------------------------


def test_functional_calls_leave_the_labels():
    model = net()
    before = dict(model.named_parameters())
    values = {name: value.clone() for name, value in model.state_dict().items()}
    got = torch.func.functional_call(model, values, (torch.ones(2, 3),))
    assert torch.equal(got, model(torch.ones(2, 3)))
    assert all(p is before[name] for name, p in model.named_parameters())
    assert [g["manifold"] for g in param_groups(model)] == [None, model[1].manifold]


def test_stacked_models_are_stepped_by_groups_that_say_their_manifold():
    models = [net() for _ in range(3)]
    params, _ = torch.func.stack_module_state(models)  # plain tensors: without a label
    manifold = models[0][1].manifold
    optimizer = RiemannianSGD([{"params": [params["1.weight"]], "manifold": manifold}], lr=0.1)
    params["1.weight"].square().mul(torch.arange(1.0, 8.0)[:, None]).sum().backward()
    optimizer.step()
    manifold.assert_check_point_on_manifold(params["1.weight"].detach())


def test_the_memory_is_in_copies_of_the_module():
    model = nn.Sequential(Holder())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert registered_manifolds(twin[0].items) == {"0": Sphere()}
        stepped(assigned(twin))
        assert len(on_spheres(twin)) == 4


def test_the_error_says_the_call_that_makes_an_item_of_a_list_flat():
    model = Holder()
    model.items[0] = nn.Parameter(torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"parameter items\.0 is registered on Sphere") as caught:
        param_groups(model)
    (call,) = re.findall(r"register_manifold\(.*?None\)", str(caught.value))
    eval(call, {"model": model, "register_manifold": register_manifold})
    assert {name: m for name, _, m in named_manifolds(model)}["items.0"] is None
    assert "items.0" in param_groups(model)[0]["param_names"]


def test_a_name_that_no_parameter_has_is_not_registered():
    model = Holder()
    with pytest.raises(ValueError, match=r"call register_manifold\(module\.get_submodule\(\"items\"\), \"0\", None\)"):
        register_manifold(model, "items.0", None)
    with pytest.raises(ValueError, match="Holder has no parameter '0' that could be flat"):
        register_manifold(model, "0", None)
    register_manifold(model, "later", Sphere())
    model.later = nn.Parameter(Sphere().random(3))
    assert model.later.manifold == Sphere()
    for rename in RENAMED.values():
        module = nn.Linear(3, 4)
        rename(module)
        register_manifold(module, "weight", None)


class Lists(ManifoldModule):
    def __init__(self):
        super().__init__()
        self.items = nn.ParameterList([ManifoldParameter(Sphere().random(2, 3), Sphere()), torch.ones(2, 3)])
        self.plain = nn.Linear(3, 2)
        self.plain.weight = ManifoldParameter(Sphere().random(2, 3), Sphere())


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.double(),
        lambda m: m.load_state_dict(m.state_dict()),
        lambda m: m.load_state_dict({k: v.clone() for k, v in m.state_dict().items()}, assign=True),
    ],
    ids=["double", "load", "assign"],
)
def test_what_replaces_a_point_is_not_made_one(change):
    model = Lists()
    model.items[0] = nn.Parameter(torch.full((2, 3), 10.0))
    model.plain.weight = nn.Parameter(torch.full((2, 3), 10.0))
    change(model)
    for parameter in (model.items[0], model.plain.weight):
        assert type(parameter) is nn.Parameter and (parameter == 10).all()
    with pytest.raises(ValueError, match="is registered on Sphere"):
        param_groups(model)


def test_items_that_change_places_keep_their_labels():
    model = Lists()
    point = model.items[0].detach().clone()
    model.items[0], model.items[1] = model.items[1], model.items[0]
    model.double().load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)
    assert type(model.items[0]) is nn.Parameter and (model.items[0] == 1).all()
    assert model.items[1].manifold == Sphere()
    torch.testing.assert_close(model.items[1].detach(), Sphere().projx(point.double()))
