"""What is noticed before a step: points that are off, options that nobody learns; and what does not decay."""

import copy
import dataclasses
from typing import Any

import geoopt
import pytest
import torch
from torch import nn
from torch.optim import swa_utils

from torchriemann.layers import Curvature, EntailmentCones, ManifoldModule
from torchriemann.manifolds import (
    Lorentz,
    ManifoldParameter,
    PoincareBall,
    Product,
    Sphere,
    Stiefel,
    WrappedNormal,
)
from torchriemann.optim import (
    AveragedModel,
    LandingSGD,
    RiemannianAdam,
    RiemannianCG,
    RiemannianLBFGS,
    RiemannianSGD,
    RiemannianTrustRegion,
    clip_grad_norm_,
    param_groups,
)

STEPWISE = {"sgd": RiemannianSGD, "adam": RiemannianAdam}
SOLVERS = {"lbfgs": RiemannianLBFGS, "cg": RiemannianCG, "trust_region": RiemannianTrustRegion}


class Points(ManifoldModule):
    def __init__(self):
        super().__init__()
        self.register_manifold_parameter("directions", Sphere().random(5, 3), Sphere())
        self.register_manifold_parameter("frame", Stiefel().random(5, 2), Stiefel())
        self.bias = nn.Parameter(torch.zeros(3))


def spoil(parameter, factor=1.2):
    with torch.no_grad():
        parameter.mul_(factor)
    return parameter


# ---- points that are off: the groups -------------------------------------------------------------------------------


def test_points_that_are_off_are_named_by_the_groups():
    model = nn.Sequential(Points(), Points())
    param_groups(model)  # without a word
    spoil(model[1].frame)
    with pytest.warns(RuntimeWarning, match=r"parameter 1\.frame is off Stiefel.*max\|x\^T x - I\| = 0\.44.*projx"):
        groups = param_groups(model)
    assert [len(g["params"]) for g in groups] == [2, 2, 2]


def test_an_average_of_another_tool_is_noticed():
    model, averages = Points(), {}
    for kind in (swa_utils.AveragedModel, AveragedModel):
        torch.manual_seed(0)
        averages[kind] = kind(model)
        for _ in range(2):
            averages[kind].update_parameters(model)
            with torch.no_grad():
                model.directions.copy_(Sphere().random(5, 3))
    param_groups(averages[AveragedModel].module)
    with pytest.warns(RuntimeWarning, match=r"parameter directions is off Sphere.*p\.manifold\.projx"):
        param_groups(averages[swa_utils.AveragedModel].module)
    average = averages[swa_utils.AveragedModel].module  # what the documentation advises
    with torch.no_grad():
        for group in [{"params": [average.directions]}, {"params": [average.frame]}]:
            for p in group["params"]:
                p.copy_(p.manifold.projx(p))
    param_groups(average)


def test_shards_and_meta_tensors_are_not_looked_at():
    param_groups(spoil_all(Points()).to("meta"))
    empty = nn.Module()
    empty.none = ManifoldParameter(torch.zeros(0, 3), Sphere())
    param_groups(empty)


def spoil_all(module):
    for p in module.parameters():
        spoil(p)
    return module


# ---- points that are off: the first step ---------------------------------------------------------------------------


def off_points() -> dict[str, Any]:
    """Labelled points that are off, as no constructor of ours lets one in; the last of another library throughout."""
    outside = torch.tensor([[0.3, 0.1], [0.9, 0.9]])
    return {
        "ours, spoiled": spoil(ManifoldParameter(PoincareBall().random(3, 2), PoincareBall()), 1e3),
        "ours inside geoopt's": geoopt.ManifoldParameter(outside.clone(), manifold=PoincareBall()),
        "nan": spoil(ManifoldParameter(Sphere().random(3, 2), Sphere()), torch.nan),
        "geoopt's": geoopt.ManifoldParameter(outside.clone(), manifold=geoopt.PoincareBall()),
        "geoopt's, nan": geoopt.ManifoldParameter(outside * torch.nan, manifold=geoopt.Sphere()),
    }


@pytest.mark.parametrize("kind", off_points())
@pytest.mark.parametrize("name", STEPWISE)
def test_the_first_step_from_a_point_that_is_off_raises(name, kind):
    """Without a word it was NaN after it: the conformal factor of the ball is negative outside."""
    p, flat = off_points()[kind], nn.Parameter(torch.ones(2))
    before = p.detach().clone()
    optimizer = STEPWISE[name]([("flat", flat), ("p", p)], lr=0.1)
    p.grad, flat.grad = torch.ones_like(p), torch.ones(2)
    with pytest.raises(ValueError, match=rf"{type(optimizer).__name__}: parameter p is off \w+.*projx"):
        optimizer.step()
    assert torch.equal(flat, torch.ones(2)) and not optimizer.state
    torch.testing.assert_close(p.detach(), before, equal_nan=True, rtol=0, atol=0)
    with torch.no_grad():
        p.copy_(p.manifold.projx(torch.full_like(p, 0.5)))
    optimizer.step()
    assert p.isfinite().all() and not torch.equal(flat, torch.ones(2))


@pytest.mark.parametrize("kind", off_points())
@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_does_not_start_from_a_point_that_is_off(name, kind):
    p = off_points()[kind]
    optimizer = SOLVERS[name]([p])
    with pytest.raises(ValueError, match=r"parameter 0 of group 0 is off"):
        optimizer.step(lambda: p.square().sum())


@pytest.mark.parametrize(
    "manifold", [geoopt.Sphere(), geoopt.EuclideanStiefel(), geoopt.Lorentz(), geoopt.PoincareBall()]
)
def test_points_of_geoopt_are_let_pass_up_to_its_rounding(manifold):
    x = manifold.projx(300 * torch.randn(20, 6, 3))
    if isinstance(manifold, geoopt.Lorentz):  # <x, x> is not -1 there, in float32
        assert not manifold.check_point_on_manifold(x)
    p = geoopt.ManifoldParameter(x, manifold=manifold)
    optimizer = RiemannianSGD([p], lr=1e-3)
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert p.isfinite().all()


@pytest.mark.parametrize("name", STEPWISE)
def test_values_may_be_loaded_between_the_construction_and_the_first_step(name):
    model = Points()
    state = copy.deepcopy(model.state_dict())
    spoil_all(model)
    optimizer = STEPWISE[name](model.parameters(), lr=0.1)
    model.load_state_dict(state)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    for p in (model.directions, model.frame):
        p.manifold.assert_check_point_on_manifold(p.detach())


@pytest.mark.parametrize("lr", [0.0, torch.tensor(0.0)])
@pytest.mark.parametrize("name", STEPWISE)
def test_a_step_of_length_zero_makes_state_before_there_are_values(name, lr):
    """As torch.distributed.checkpoint takes one, before it loads model and optimizer."""
    p = spoil(ManifoldParameter(Sphere().random(4), Sphere()), 0.0)
    optimizer = STEPWISE[name]([p], lr=lr)
    p.grad = torch.zeros(4)
    optimizer.step()
    assert optimizer.state[p]["step"] == 1


def test_only_the_first_step_looks():
    """What happens later is a matter of the check that a user asks for; a point under landing may be off throughout."""
    p = ManifoldParameter(Sphere().random(4), Sphere())
    optimizer = RiemannianSGD([p], lr=0.1, momentum=0.9)
    for _ in range(2):
        p.grad = torch.ones(4)
        optimizer.step()
        spoil(p, 1 + 1e-4)
    frame = spoil(ManifoldParameter(Stiefel().random(5, 2), Stiefel()), 1.05)
    landing = LandingSGD([frame], lr=0.1)
    frame.grad = torch.ones(5, 2)
    landing.step()
    clip_grad_norm_([frame, p], 1.0)


# ---- options that nobody learns ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Options:
    space: Any


def learnable():
    return Lorentz(nn.Parameter(torch.tensor(-1.0)))


HIDDEN = {
    "manifold": lambda: learnable(),
    "product": lambda: Product((Sphere(), learnable()), ((3,), (3,))),
    "tuple": lambda: (Sphere(), learnable()),
    "list": lambda: [learnable()],
    "dict": lambda: {"a": learnable()},
    "cones": lambda: EntailmentCones(learnable()),
    "dataclass": lambda: Options(learnable()),
    "law": lambda: WrappedNormal(learnable(), torch.tensor([1.0, 0.0, 0.0]), 1.0),
    "a curvature of that day": lambda: Lorentz(Curvature(-1.0)()),
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_an_option_that_nobody_learns_raises(kind):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].space = HIDDEN[kind]()
    with pytest.raises(
        ValueError, match=r"1\.space of the model holds a manifold, an option.*layers\.Curvature.*forward"
    ):
        param_groups(model)


def test_an_option_that_is_learned_or_fixed_is_let_pass():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.k = nn.Parameter(torch.tensor(-1.0))
            self.spaces = [Lorentz(self.k), Lorentz(torch.tensor(-1.0)), Lorentz(-1.0), "and another thing"]

    model = nn.Sequential(Layer())
    assert [g["param_names"] for g in param_groups(model)] == [["0.k"]]
    model.itself = [model, {"a": 1}]
    model.itself.append(model.itself)
    model.options = Options(None)
    model.options.space = model.options
    param_groups(model)
    model.load_state_dict({"0.k": torch.tensor(-2.0)}, assign=True)  # now the list holds what is no parameter
    with pytest.raises(ValueError, match=r"0\.spaces of the model"):
        param_groups(model)


@pytest.mark.parametrize("kind", ["manifold", "product", "a curvature of that day"])
def test_a_manifold_module_says_so_when_it_is_built(kind):
    module = ManifoldModule()
    with pytest.raises(ValueError, match=r"ManifoldModule: space would be .*no parameter of the module.*forward"):
        module.space = HIDDEN[kind]()
    module.k = nn.Parameter(torch.tensor(-1.0))
    module.space = Lorentz(module.k)
    module.fixed = Lorentz(-1.0)
    assert [g["param_names"] for g in param_groups(module)] == [["k"]]


# ---- weight decay --------------------------------------------------------------------------------------------------


class Curved(nn.Module):
    def __init__(self):
        super().__init__()
        self.curvature = Curvature(-4.0)
        self.linear = nn.Linear(2, 2)


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.5}])
@pytest.mark.parametrize("make", [*STEPWISE.values(), torch.optim.AdamW])
def test_a_curvature_does_not_decay(make, options):
    model = Curved()
    groups = param_groups(model, **options)
    assert [(g["param_names"], g["manifold"]) for g in groups] == [
        (["curvature.log_magnitude"], None),
        (["linear.weight", "linear.bias"], None),
    ]
    optimizer = make(groups, lr=0.1, weight_decay=0.5)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.0, 0.5]
    before = copy.deepcopy(model.state_dict())
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert model.curvature().item() == pytest.approx(-4.0, rel=1e-6)
    assert torch.allclose(model.linear.weight, 0.95 * before["linear.weight"])
    optimizer.param_groups[0]["weight_decay"] = 0.5  # to have it otherwise
    optimizer.step()
    assert model.curvature().item() > -3.99


def test_any_module_may_exempt_its_parameters():
    class Scaled(nn.Module):
        without_weight_decay = ("scale", "absent")

        def __init__(self):
            super().__init__()
            self.scale, self.weight = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))

    groups = param_groups(nn.Sequential(Scaled(), Curved(), Points()), lr=0.1, weight_decay=0.3)
    assert [(g["weight_decay"], len(g["params"])) for g in groups] == [(0.0, 2), (0.3, 4), (0.3, 1), (0.3, 1)]
    assert all(g["lr"] == 0.1 for g in groups)
    RiemannianLBFGS(param_groups(Curved()))  # which has no weight decay


# ---- states of other divisions -------------------------------------------------------------------------------------


def trained(groups, make, model, steps):
    optimizer = make(groups, lr=0.1)
    for i in range(steps):
        for p in model.parameters():
            p.grad = torch.arange(1.0, p.numel() + 1).reshape(p.shape) + i
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("make", STEPWISE.values())
def test_a_state_from_before_a_curvature_had_its_group_loads(make):
    model = nn.Sequential(Curved(), Points())
    named = list(model.named_parameters())
    as_before = [
        {"params": [(n, p) for n, p in named if p.dim() < 2 or "linear" in n], "manifold": None, "weight_decay": 0.2},
        {"params": [named[3]], "manifold": Sphere(), "weight_decay": 0.2},
        {"params": [named[4]], "manifold": Stiefel(), "weight_decay": 0.2},
    ]
    old = trained(as_before, make, model, 2)
    fresh = make(param_groups(model, weight_decay=0.3), lr=0.7)
    fresh.load_state_dict(copy.deepcopy(old.state_dict()))
    assert [g["lr"] for g in fresh.param_groups] == [0.1] * 4
    assert [g["weight_decay"] for g in fresh.param_groups] == [0.0, 0.3, 0.3, 0.3]
    assert [g["manifolds"] for g in fresh.param_groups] == ["None", "None", repr(Sphere()), repr(Stiefel())]
    for p in model.parameters():
        for key, value in old.state[p].items():
            assert torch.equal(fresh.state[p][key], value)
    other = nn.Sequential(Curved(), nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"saved on Sphere.*but the parameter is on None"):
        make(param_groups(other)).load_state_dict(old.state_dict())


def test_a_state_that_is_told_by_names_is_held_to_its_manifolds():
    model = Points()
    state = RiemannianSGD(param_groups(model), lr=0.1).state_dict()
    model.directions.manifold = Sphere(curvature=1.0 + 1e-6)
    model.bias.manifold = None
    by_hand = [{"params": list(model.named_parameters())}]
    with pytest.raises(ValueError, match=r"was saved on Sphere\(curvature=1\.0\), but the parameter is on Sphere"):
        RiemannianSGD(by_hand, lr=0.1).load_state_dict(state)
