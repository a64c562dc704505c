"""A learned curvature between bounds: where it stays, how it leaves a bound, and what checkpoints say."""

import copy
import math

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from torchriemann.layers import Curvature
from torchriemann.optim import RiemannianAdam, RiemannianSGD, param_groups

F64 = torch.float64
BOUNDS = [(-1.0, -10.0, -0.1), (-1.0, -10.0, None), (-1.0, None, -0.1), (2.0, 0.5, 3.0), (2.0, 0.5, None)]
BOUNDS += [(-10.0, -10.0, -0.1), (-0.1, -10.0, -0.1), (0.5, 0.5, 3.0), (3.0, None, 3.0)]  # from a bound


def bounded(initial, low, high, **options):
    return Curvature(initial, min=low, max=high, **{"dtype": F64, **options})


def reflected(x, low, high):
    """By one reflection after the other, in Python."""
    while not low <= x <= high:
        x = 2 * low - x if x < low else 2 * high - x
    return x


def within(k, low, high, rounding=1e-14):
    return (low is None or k >= low - rounding * abs(low)) and (high is None or k <= high + rounding * abs(high))


@pytest.mark.parametrize(("initial", "low", "high"), BOUNDS)
def test_value_and_derivative(initial, low, high):
    """Against reflections one by one, and difference quotients of them; the same inside as without bounds."""
    module, sign = bounded(initial, low, high), math.copysign(1.0, initial)
    assert module().item() == pytest.approx(initial, rel=1e-14)
    ends = (low, high) if sign > 0 else (high, low)
    a, b = (s * math.inf if e is None else math.log(abs(e)) for s, e in zip((-1, 1), ends, strict=True))
    x = torch.linspace(-20.03, 20.07, 399, dtype=F64)

    def curvature(t):
        return torch.func.functional_call(module, {"log_magnitude": t}, ())

    k, slope = torch.func.vmap(curvature)(x), torch.func.vmap(torch.func.grad(curvature))(x)
    second = torch.func.vmap(torch.func.grad(torch.func.grad(curvature)))(x)
    h = 1e-6
    for t, value, d, dd in zip(x.tolist(), k.tolist(), slope.tolist(), second.tolist(), strict=True):
        up, down = (sign * math.exp(reflected(t + s, a, b)) for s in (h, -h))
        assert value == pytest.approx(sign * math.exp(reflected(t, a, b)), rel=1e-13) and within(
            value, low, high, 1e-13
        )
        assert d == pytest.approx((up - down) / (2 * h), rel=1e-8)
        assert abs(d) == pytest.approx(abs(value), rel=1e-13) and dd == pytest.approx(value, rel=1e-13)
        if a < t < b:
            assert d == pytest.approx(sign * math.exp(t), rel=1e-13)


def draw(module, direction, make, steps, **options):
    """Steps of a loss that draws log|K| up (1) or down (-1); the curvatures on the way."""
    optimizer, seen = make(module.parameters(), **options), []
    for _ in range(steps):
        optimizer.zero_grad()
        (-direction * module().abs().log()).backward()
        optimizer.step()
        seen.append(module().item())
    return seen


OPTIMIZERS = {
    "sgd": (RiemannianSGD, {"lr": 0.02}),
    "momentum": (torch.optim.SGD, {"lr": 0.005, "momentum": 0.9}),
    "adam": (RiemannianAdam, {"lr": 0.02}),
    "ascent": (torch.optim.SGD, {"lr": 0.02, "maximize": True}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("initial", "low", "high"), [(-1.0, -10.0, -0.1), (2.0, 0.5, 3.0), (-0.1, -10.0, -0.1)])
def test_it_stays_and_it_leaves_a_bound_again(initial, low, high, name):
    """A sigmoid would not come back from 300 steps against a bound, and neither would a parameter that is clamped."""
    make, options = OPTIMIZERS[name]
    module, maximize = bounded(initial, low, high), -1 if "maximize" in options else 1
    near, far = sorted((low, high), key=abs)
    for end, direction in ((far, 1), (near, -1), (far, 1)):
        seen = draw(module, maximize * direction, make, 300, **options)
        assert all(within(k, low, high) for k in seen)
        hovering = abs(math.log(seen[-1] / end))
        assert hovering < 0.06, "it hovers within a step or two of the bound"
        seen = draw(module, -maximize * direction, make, 60, **options)
        assert abs(math.log(seen[-1] / end)) > 0.7, "and leaves it at once"


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("initial", [-10.0, -0.1])
def test_at_a_bound_itself_the_first_step_leads_inside(initial, direction):
    """Where the derivative of a clamp, of a sigmoid's limit, or of an absolute value is zero."""
    for dtype in (torch.float32, F64):
        module = bounded(initial, -10.0, -0.1, dtype=dtype)
        (slope,) = torch.autograd.grad(module(), module.log_magnitude)
        assert abs(slope.item()) == pytest.approx(abs(initial), rel=1e-6)
        (k,) = draw(module, direction, torch.optim.Adam, 1, lr=0.01)
        assert -10.0 < k < -0.1 and abs(math.log(k / initial)) == pytest.approx(0.01, rel=1e-3)


def test_one_graph_for_all_values():
    module = bounded(-1.0, -10.0, -0.1)
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(module, backend=counter, fullgraph=True)
    for x in (-5.0, -2.4, 0.0, 1.3, 2.4, 9.0):
        with torch.no_grad():
            module.log_magnitude.fill_(x)
        assert torch.equal(compiled(), module())
    assert counter.frame_count == 1


def test_weight_decay_does_not_touch_it():
    module = bounded(-9.0, -10.0, -0.1)
    optimizer = torch.optim.AdamW(param_groups(module), lr=0.1, weight_decay=1.0)
    module.log_magnitude.grad = torch.zeros((), dtype=F64)
    optimizer.step()
    assert module().item() == pytest.approx(-9.0, rel=1e-14)


def test_what_it_shows():
    assert repr(bounded(-1.0, -10.0, -0.1)) == "Curvature(curvature=-1.0, learnable=True, min=-10.0, max=-0.1)"
    assert repr(Curvature(-1.0)) == "Curvature(curvature=-1.0, learnable=True)"
    module = bounded(2.0, 0.5, None, learnable=False)
    assert not list(module.parameters()) and not module().requires_grad
    assert dict(module.named_buffers()).keys() == {"log_magnitude", "sign", "bounds"}


# ---- checkpoints ---------------------------------------------------------------------------------------------------


def holding(*arguments, **options):
    return nn.ModuleDict({"k": bounded(*arguments, **options)})


@pytest.mark.parametrize("assign", [False, True])
def test_a_checkpoint_without_bounds_loads(assign):
    stored = nn.ModuleDict({"k": Curvature(-4.0, dtype=F64)}).state_dict()
    assert stored.keys() == {"k.log_magnitude", "k.sign"}  # as it was before there were bounds
    fresh = holding(-1.0, -10.0, -0.1)
    fresh.load_state_dict(stored, assign=assign)
    assert fresh["k"]().item() == pytest.approx(-4.0) and fresh["k"].bounds.tolist() == [-10.0, -0.1]
    assert stored.keys() == {"k.log_magnitude", "k.sign"}
    fresh.load_state_dict(nn.ModuleDict({"k": Curvature(-10.0)}).state_dict())  # float32, at the bound
    stored = nn.ModuleDict({"k": Curvature(-20.0)}).state_dict()  # reflected it would be -5, in silence
    with pytest.raises(ValueError, match=r"k\.log_magnitude of the checkpoint.*K=-20, beyond min=-10\.0, max=-0\.1"):
        fresh.load_state_dict(stored, assign=assign)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, F64])
@pytest.mark.parametrize("assign", [False, True])
def test_a_checkpoint_says_its_bounds(assign, dtype):
    trained = holding(-1.0, -10.0, -0.1, dtype=dtype)
    with torch.no_grad():
        trained["k"].log_magnitude.fill_(2.5)  # behind the bound, where a step may land
    stored = copy.deepcopy(trained.state_dict())
    again = holding(-1.0, -10.0, -0.1, dtype=F64)
    again.load_state_dict(stored, assign=assign)
    assert again["k"]().item() == pytest.approx(trained["k"]().item(), rel=4 * torch.finfo(dtype).eps)
    assert again["k"].bounds.tolist() == pytest.approx([-10.0, -0.1], rel=torch.finfo(again["k"].bounds.dtype).eps)
    holding(-1.0, -10.0, -0.1).load_state_dict(again.double().state_dict())
    for other in ((-1.0, -12.0, -0.1), (-1.0, -10.0, None)):
        with pytest.raises(ValueError, match=r"k\.bounds must be min=.*from the checkpoint"):
            holding(*other).load_state_dict(stored, assign=assign)
    message = r"k\.bounds must be min=None and max=None, got min=-10 and max=-0\.1\d* from the checkpoint"
    with pytest.raises(ValueError, match=message):
        nn.ModuleDict({"k": Curvature(-1.0)}).load_state_dict(stored, assign=assign)


def test_a_module_that_was_pickled_before_there_were_bounds():
    module = Curvature(-2.0)
    for name in ("min", "max", "_low", "_high"):
        del module.__dict__[name]
    twin = copy.deepcopy(module)
    twin.load_state_dict(module.state_dict())
    assert twin().item() == pytest.approx(-2.0) and "min" not in repr(twin)


def test_on_the_meta_device():
    with torch.device("meta"):
        lazy = holding(-1.0, -10.0, None)
    lazy.to_empty(device="cpu")["k"].reset_parameters()
    assert lazy["k"]().item() == pytest.approx(-1.0) and lazy["k"].bounds.tolist() == [-10.0, math.inf]
    with torch.device("meta"):
        lazy = holding(-1.0, -10.0, None)
    lazy.load_state_dict(holding(-2.0, -10.0, None).state_dict(), assign=True)
    assert lazy["k"]().item() == pytest.approx(-2.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0, 0.1, None), r"min must be a negative finite number, as initial=-1\.0, or None, got 0\.1"),
        ((-1.0, None, 0.0), "max must be a negative finite number"),
        ((1.0, -1.0, 2.0), "min must be a positive finite number"),
        ((1.0, "a", None), "min must be a positive finite number.*'a'"),
        ((1.0, None, math.inf), "max must be a positive finite number"),
        ((-1.0, -0.1, -10.0), r"initial must lie between min and max.*got initial=-1\.0, min=-0\.1, max=-10\.0"),
        ((-20.0, -10.0, -0.1), "initial must lie between min and max, .*initial=-20"),
        ((1.0, 1.0, 1.0), "initial must lie between min and max, and min below max"),
    ],
)
def test_bounds_that_are_none(arguments, message):
    with pytest.raises(ValueError, match="Curvature: " + message):
        bounded(*arguments)
