"""Which manifold a parameter is stepped on, and everything that must be refused rather than stepped as flat."""

from typing import Any

import geoopt
import pytest
import torch
import torch.distributed as dist
from torch import nn

from tests.optim.test_optim import spheres
from torchriemann import ManifoldParameter, Sphere
from torchriemann.layers import ManifoldModule
from torchriemann.manifolds.frames.stiefel import Stiefel
from torchriemann.manifolds.parameter import register_manifold
from torchriemann.optim import RiemannianAdam, RiemannianSGD, param_groups

both = pytest.mark.parametrize("optimizer_class", [RiemannianSGD, RiemannianAdam])


class Directions(nn.Module):
    """Two directions on a sphere, a frame, and a bias."""

    def __init__(self):
        super().__init__()
        self.first = ManifoldParameter(Sphere().random(4), Sphere())
        self.frame = ManifoldParameter(Stiefel().random(5, 2), Stiefel())
        self.bias = nn.Parameter(torch.zeros(3))
        self.second = ManifoldParameter(Sphere().random(4), Sphere())
        for name in ("first", "second"):
            register_manifold(self, name, Sphere())
        register_manifold(self, "frame", Stiefel())


def model():
    return nn.Sequential(Directions(), nn.Linear(3, 3))


def step_with_ones(optimizer):
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.arange(1.0, p.numel() + 1).reshape(p.shape).to(p)
    optimizer.step()


def assert_on_manifolds(module):
    for p in module.parameters():
        if isinstance(p, ManifoldParameter):
            p.manifold.assert_check_point_on_manifold(p.detach())


def test_groups_of_a_model():
    net = model()
    groups = param_groups(net, lr=0.5)
    assert [g["manifold"] for g in groups] == [Sphere(), Stiefel(), None]
    assert [g["param_names"] for g in groups] == [
        ["0.first", "0.second"],
        ["0.frame"],
        ["0.bias", "1.weight", "1.bias"],
    ]
    assert groups[0]["params"][1] is net[0].second and all(g["lr"] == 0.5 for g in groups)
    tied = nn.Sequential(net[0], net[0])
    assert sum(len(g["params"]) for g in param_groups(tied)) == 4


@both
@pytest.mark.parametrize("how", ["parameters", "named", "groups", "by hand"])
def test_all_forms_of_parameters_step_alike(optimizer_class, how):
    results = []
    for form in ("parameters", how):
        torch.manual_seed(0)
        net = model()
        params = {
            "parameters": lambda net=net: net.parameters(),
            "named": lambda net=net: net.named_parameters(),
            "groups": lambda net=net: param_groups(net),
            "by hand": lambda net=net: [{"params": [p], "lr": 1e-2} for p in net.parameters()],
        }[form]()
        step_with_ones(optimizer_class(params, lr=1e-2))
        assert_on_manifolds(net)
        results.append([p.detach() for p in net.parameters()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@both
def test_an_explicit_manifold_moves_a_plain_tensor(optimizer_class):
    x = nn.Parameter(Sphere().random(2, 4))
    optimizer = optimizer_class([{"params": [x], "manifold": Sphere()}], lr=0.1)
    step_with_ones(optimizer)
    Sphere().assert_check_point_on_manifold(x.detach())
    assert optimizer.param_groups[0]["manifolds"] == "Sphere(curvature=1.0)"


def test_the_manifold_object_is_not_in_the_state():
    optimizer = RiemannianAdam(param_groups(model()))
    assert all("manifold" not in g for g in optimizer.state_dict()["param_groups"])
    assert optimizer.param_groups[2]["manifolds"] == "None"


# ---- lost and contradicting labels ----------------------------------------------------------------------------------


def test_lost_labels_raise():
    net, head = nn.Sequential(), Directions()
    net.append(head)
    head.register_parameter("second", nn.Parameter(head.second.detach().clone()))
    with pytest.raises(ValueError, match=r"0\.second is registered on Sphere.*relabel"):
        param_groups(net)


def test_assign_loses_the_label_loudly():
    net = model()
    net.load_state_dict({k: v.clone() for k, v in net.state_dict().items()}, assign=True)
    if any(type(p) is nn.Parameter for p in (net[0].first, net[0].second)):
        with pytest.raises(ValueError, match="registered on Sphere"):
            param_groups(net)


def test_contradicting_labels_raise():
    net = model()
    register_manifold(net[0], "first", Sphere(curvature=2.0))
    with pytest.raises(ValueError, match=r"0\.first is registered on Sphere\(curvature=2\.0\)"):
        param_groups(net)
    x = ManifoldParameter(Sphere().random(4), Sphere())
    for manifold in (Sphere(curvature=2.0), None):
        with pytest.raises(ValueError, match="labelled Sphere.*its group says"):
            RiemannianAdam([{"params": [x], "manifold": manifold}])


def test_manifolds_of_geoopt_that_print_alike_are_told_apart():
    ball, other = geoopt.PoincareBall(), geoopt.PoincareBall()
    x, y = (geoopt.ManifoldParameter(m.random(2, 3), manifold=m) for m in (ball, other))
    module, message = ManifoldModule(), "labelled PoincareBall.*equal only if they are the same object"
    with pytest.raises(ValueError, match=message):
        module.register_manifold_parameter("w", ball.random(2, 3), other)
    module.register_manifold_parameter("w", y, other)
    with pytest.raises(ValueError, match=message):
        module.w = x
    with pytest.raises(ValueError, match=message):
        RiemannianAdam([{"params": [x], "manifold": other}])
    register_manifold(module, "w", ball)
    with pytest.raises(ValueError, match=message):
        param_groups(module)


@both
def test_a_label_that_gets_lost_later_raises(optimizer_class):
    (x,) = points = spheres(1)
    optimizer = optimizer_class(points)
    step_with_ones(optimizer)
    optimizer.param_groups[0]["params"] = [nn.Parameter(x.detach().clone())]
    with pytest.raises(ValueError, match=r"was on Sphere\(curvature=1.0\) and is now on None"):
        step_with_ones(optimizer)


# ---- what cannot be stepped -----------------------------------------------------------------------------------------


@both
def test_half_points_are_refused_and_half_flat_parameters_are_not(optimizer_class):
    for dtype in (torch.bfloat16, torch.float16):
        x = ManifoldParameter(Sphere().random(4), Sphere()).to(dtype)
        x = ManifoldParameter._label(x.detach(), Sphere())
        with pytest.raises(ValueError, match="float32 or float64"):
            optimizer_class([x])
    step_with_ones(optimizer_class([nn.Parameter(torch.ones(3, dtype=torch.bfloat16))]))


@both
def test_complex_and_integer_parameters_are_refused(optimizer_class):
    with pytest.raises(ValueError, match="real floating-point"):
        optimizer_class([nn.Parameter(torch.ones(3, dtype=torch.complex64))])
    with pytest.raises(ValueError, match="real floating-point"):
        optimizer_class([nn.Parameter(torch.ones(3, dtype=torch.long), requires_grad=False)])


@both
def test_manifolds_that_could_move_are_refused(optimizer_class):
    x = Sphere().random(4)
    moving = [Sphere(curvature=torch.tensor(1.0)), geoopt.Lorentz(learnable=True), geoopt.PoincareBall(learnable=True)]
    for manifold in moving:
        with pytest.raises(ValueError, match="left off its manifold"):
            optimizer_class([{"params": [nn.Parameter(x)], "manifold": manifold}])
    with pytest.raises(ValueError, match="must be a manifold or None, got str"):
        optimizer_class([{"params": [nn.Parameter(x)], "manifold": "sphere"}])


@both
def test_wrong_shapes_are_refused_by_name(optimizer_class):
    with pytest.raises(ValueError, match="parameter w cannot be a point"):
        optimizer_class([{"params": [("w", nn.Parameter(torch.ones(4)))], "manifold": Stiefel()}])


@both
def test_a_refused_group_is_not_added(optimizer_class):
    points = spheres(2)
    optimizer = optimizer_class(points)
    with pytest.raises(ValueError):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(4))], "manifold": Stiefel()})
    assert len(optimizer.param_groups) == 1
    step_with_ones(optimizer)


@pytest.fixture
def one_process():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore
    yield dist.device_mesh.init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_cut_points_and_lost_labels_are_refused(one_process):  # geoopt steps them as flat
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Shard, distribute_tensor

    net = model()
    fully_shard(net, mesh=one_process)
    with pytest.raises(ValueError, match=r"0\.first is registered on Sphere.*DTensor"):
        param_groups(net)
    x = nn.Parameter(distribute_tensor(Sphere().random(4), one_process, [Shard(0)]))
    with pytest.raises(ValueError, match=r"sharded along dimension 0 of \(4,\), which cuts through its points"):
        RiemannianAdam([{"params": [x], "manifold": Sphere()}])


@both
def test_flags_that_are_not_supported_or_exclude_each_other_raise(optimizer_class):
    def geoopt_point():
        return [geoopt.ManifoldParameter(torch.eye(3)[0], geoopt.Sphere())]

    refused: list[tuple[str, dict[str, Any]]] = [
        ("fused=True is not supported", {"fused": True}),
        ("capturable=True and check_finite=True exclude", {"capturable": True, "check_finite": True}),
        ("capturable=True and differentiable=True exclude", {"capturable": True, "differentiable": True}),
        ("foreach=True and differentiable=True exclude", {"foreach": True, "differentiable": True}),
        ("foreach must be", {"foreach": "yes"}),
    ]
    for message, flags in refused:
        with pytest.raises(ValueError, match=message):
            optimizer_class(spheres(1), **flags)
        with pytest.raises(ValueError, match=message):
            optimizer_class([{"params": spheres(1), **flags}])
    with pytest.raises(ValueError, match="differentiable as a whole or not at all"):
        optimizer_class([{"params": spheres(1), "differentiable": True}])
    with pytest.raises(ValueError, match="of another library.*capturable=True steps this library's"):
        optimizer_class(geoopt_point(), capturable=True)


@both
@pytest.mark.parametrize("option", ["lr", "weight_decay"])
def test_numbers_are_checked(optimizer_class, option):
    for value in (-1.0, float("nan")):
        with pytest.raises(ValueError, match=f"{optimizer_class.__name__}: {option} must be in"):
            optimizer_class(spheres(1), **{option: value})
    with pytest.raises(ValueError, match="one element" if option == "lr" else "must be a number, got Tensor"):
        optimizer_class(spheres(1), **{option: torch.ones(2)})
    with pytest.raises(ValueError, match=f"{option} must be a number.*, got str"):
        optimizer_class(spheres(1), **{option: "1e-3"})


def test_options_of_one_optimizer_are_checked():
    of_adam: list[dict[str, Any]] = [{"betas": (1.0, 0.9)}, {"betas": (0.9, -0.1)}, {"betas": 0.9}, {"eps": -1.0}]
    of_sgd: list[dict[str, Any]] = [{"nesterov": True}, {"momentum": 0.9, "dampening": 0.1, "nesterov": True}]
    for optimizer_class, cases in ((RiemannianAdam, of_adam), (RiemannianSGD, [*of_sgd, {"momentum": -1.0}])):
        for options in cases:
            with pytest.raises(ValueError, match=optimizer_class.__name__):
                optimizer_class(spheres(1), **options)
    with pytest.raises(ValueError, match="empty parameter list"):
        RiemannianSGD([])
    with pytest.raises(TypeError):
        RiemannianSGD(spheres(1)[0])


@both
def test_a_tensor_that_its_group_calls_a_point_is_looked_at(optimizer_class):
    off = nn.Parameter(3 * torch.eye(4)[:, :2])
    with pytest.raises(ValueError, match=r"parameter 0 of group 0 is off Stiefel.*max\|x\^T x - I\| = 8 .*projx"):
        optimizer_class([{"params": [off], "manifold": Stiefel()}])


@both
def test_options_of_groups_are_checked_as_those_of_the_constructor(optimizer_class):
    for options in ({"lr": -1.0}, {"lr": float("nan")}, {"weight_decay": "1"}):
        with pytest.raises(ValueError, match=optimizer_class.__name__):
            optimizer_class([{"params": spheres(1), **options}])
    with pytest.raises(ValueError, match="the key of a group's manifold is"):
        optimizer_class([{"params": spheres(1), "manifolds": Sphere()}])
    with pytest.raises(ValueError, match="is an expanded tensor"):
        optimizer_class([nn.Parameter(torch.zeros(1).expand(3))])


def test_param_groups_wants_the_model():
    with pytest.raises(ValueError, match="pass the model, not model.parameters"):
        param_groups(model().parameters())
