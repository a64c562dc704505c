"""A whole model on manifolds, its optimizer and single points through files, copies, dtypes, devices and compilation.

`test_parameter` and `test_layers` hold one parameter and one module to it; here are whole models and real files.
"""

import copy
import pickle
import subprocess
import sys

import geoopt
import pytest
import safetensors.torch
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode, is_fake
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from tests.laws.table import TABLE
from torchriemann.layers import GrassmannClassifier, ManifoldModule
from torchriemann.manifolds import (
    CorrelationLogScaled,
    CorrelationOffLog,
    CorrelationPolyHyperbolic,
    Grassmann,
    ManifoldParameter,
    SPDAffineInvariant,
    SPDLogCholesky,
    Sphere,
)
from torchriemann.manifolds.frames.stiefel import Stiefel
from torchriemann.optim import RiemannianAdam, RiemannianSGD, param_groups


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Points(ManifoldModule):
    """A frame, a batch of directions and a flat parameter."""

    def __init__(self, seed=0):
        super().__init__()
        frame, directions = Stiefel(retraction="qr"), Sphere(0.25)
        self.register_manifold_parameter("frame", frame.random(5, 2, generator=generator(seed)), frame)
        self.register_manifold_parameter("directions", directions.random(3, 5, generator=generator(seed)), directions)
        self.bias = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return torch.cat([x @ self.frame + self.bias, x @ self.directions.mT], -1)


class Net(nn.Sequential):
    def __init__(self, seed=0):
        torch.manual_seed(seed)
        super().__init__(nn.Linear(4, 5), Points(seed), nn.Tanh(), GrassmannClassifier(5, 3, 2))


LABELS = {"1.frame": Stiefel(retraction="qr"), "1.directions": Sphere(0.25), "3.weight": Grassmann()}


def labels(model):
    found = {name: getattr(p, "manifold", None) for name, p in model.named_parameters()}
    return {name.removeprefix("_orig_mod."): m for name, m in found.items() if m is not None}


def train(model, optimizer, steps):
    dtype = next(model.parameters()).dtype
    for k in steps:
        optimizer.zero_grad()
        x = torch.randn(8, 4, generator=generator(k), dtype=dtype)
        nn.functional.cross_entropy(model(x), torch.arange(8) % 3).backward()
        optimizer.step()


def assert_equal(one, two):
    pairs = zip(one.state_dict().items(), two.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def on_manifolds(model):
    return all(m.check_point_on_manifold(model.get_parameter(name).detach()) for name, m in labels(model).items())


def assert_usable(model):
    """Labels are there, points are points, and an optimizer steps them along their manifolds."""
    assert labels(model) == LABELS and on_manifolds(model)
    train(model, RiemannianAdam(param_groups(model), lr=0.1), range(3))
    assert on_manifolds(model)


# ---- state dicts through files ----------------------------------------------------------------------------------


def by_torch(model, fresh, path):
    torch.save(model.state_dict(), path)
    assert str(fresh.load_state_dict(torch.load(path, weights_only=True))) == "<All keys matched successfully>"


def by_safetensors_file(model, fresh, path):
    safetensors.torch.save_file(model.state_dict(), path)
    fresh.load_state_dict(safetensors.torch.load_file(path))


def by_safetensors_model(model, fresh, path):
    safetensors.torch.save_model(model, str(path))
    assert safetensors.torch.load_model(fresh, path) == (set(), [])


def by_assignment(model, fresh, path):
    safetensors.torch.save_file(dict(model.named_parameters()), path)
    fresh.load_state_dict(safetensors.torch.load_file(path), assign=True)


FILES = [by_torch, by_safetensors_file, by_safetensors_model, by_assignment]


@pytest.mark.parametrize("through", FILES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_labels_survive_a_file(through, dtype, tmp_path):
    model, fresh = Net().to(dtype), Net(seed=1).to(dtype)
    train(model, RiemannianAdam(param_groups(model), lr=0.1), range(3))
    through(model, fresh, tmp_path / "model")
    assert_equal(model, fresh)
    assert_usable(fresh)


@pytest.mark.parametrize("through", FILES)
def test_a_model_on_the_meta_device_is_filled_from_a_file(through, tmp_path):
    with torch.device("meta"):
        fresh = Net()
    assert labels(fresh) == LABELS and all(p.is_meta for p in fresh.parameters())
    if through is not by_assignment:
        fresh.to_empty(device="cpu")
        assert labels(fresh) == LABELS
    model = Net()
    through(model, fresh, tmp_path / "model")
    assert_equal(model, fresh)
    assert_usable(fresh)


@pytest.mark.parametrize("through", FILES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_files_of_another_dtype(through, dtype, tmp_path):
    """A coarser point is projected where it lands; a finer one is rounded, which is within the tolerance."""
    model, fresh = Net().to(dtype), Net(seed=1).double()
    through(model, fresh, tmp_path / "model")
    assert labels(fresh) == LABELS and on_manifolds(fresh)
    if through is by_assignment:
        assert fresh[1].frame.dtype == dtype
    else:
        torch.testing.assert_close(fresh[1].frame, model[1].frame.double(), rtol=0, atol=4 * torch.finfo(dtype).eps)
        assert_usable(fresh)


def test_half_points_are_assigned_but_not_stepped(tmp_path):
    model, fresh = Net().bfloat16(), Net(seed=1)
    by_assignment(model, fresh, tmp_path / "model")
    with pytest.raises(ValueError, match=r"1\.frame.*bfloat16: points under an optimizer are float32 or float64"):
        RiemannianAdam(param_groups(fresh))
    assert_usable(fresh.float())


def test_checkpoints_of_geoopt_load(tmp_path):
    theirs = nn.Module()
    theirs.weight = geoopt.ManifoldParameter(Sphere().random(3, 5), manifold=geoopt.Sphere())
    torch.save(theirs.state_dict(), tmp_path / "theirs")
    ours = ManifoldModule()
    ours.register_manifold_parameter("weight", Sphere().random(3, 5), Sphere())
    ours.load_state_dict(torch.load(tmp_path / "theirs", weights_only=True))
    assert torch.equal(ours.weight, theirs.weight) and ours.weight.manifold == Sphere()


# ---- what does not fit ------------------------------------------------------------------------------------------

OFF = (
    "Points.frame is taken as it is, but is off its manifold: Stiefel: x has max|x^T x - I| = 3 > 9.7e-06 (float32); "
    "call projx(x), as in `with torch.no_grad(): module.frame.copy_(module.frame.manifold.projx(module.frame))`"
)


@pytest.mark.parametrize("through", FILES[:3])
def test_points_off_their_manifold_warn_with_the_residual(through, tmp_path):
    model, fresh = Net(), Net(seed=1)
    model[1].frame.data = 2 * model[1].frame.data
    with pytest.warns(RuntimeWarning) as caught:
        through(model, fresh, tmp_path / "model")
    assert [str(w.message) for w in caught] == [OFF]
    assert torch.equal(fresh[1].frame, model[1].frame)
    with torch.no_grad():  # the mend of the message
        fresh[1].frame.copy_(fresh[1].frame.manifold.projx(fresh[1].frame))
    assert_usable(fresh)


def test_assignment_of_points_off_their_manifold_warns():
    state = Net().state_dict()
    state["1.frame"] = torch.full((5, 2), torch.nan)
    fresh = Net(seed=1)
    with pytest.warns(RuntimeWarning, match="= nan > 9.7e-06 .*remove its NaN or infinite entries, then call projx"):
        fresh.load_state_dict(state, assign=True)
    assert labels(fresh) == LABELS


def test_errors_of_torch_stay_what_they_are():
    state = Net().state_dict()
    state["extra"] = state.pop("1.frame")
    state["1.directions"] = torch.ones(2, 2)
    fresh = Net(seed=1)
    with pytest.raises(RuntimeError, match=r'(?s)Missing.*"1.frame".*Unexpected.*"extra".*size mismatch.*1.directions'):
        fresh.load_state_dict(state)
    assert_usable(fresh)
    del state["1.directions"]
    answer = fresh.load_state_dict(state, strict=False)
    assert answer.missing_keys == ["1.directions", "1.frame"][::-1] and answer.unexpected_keys == ["extra"]
    assert_usable(fresh)


# ---- copies -----------------------------------------------------------------------------------------------------


class Tied(nn.Module):
    """One batch of points that two modules share."""

    def __init__(self, seed=0):
        super().__init__()
        self.first, self.second = Points(seed), Points(seed + 1)
        self.second.register_manifold_parameter("frame", self.first.frame, self.first.frame.manifold)


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_of_a_model(twin):
    model = Net()
    fresh = twin(model)
    assert_equal(model, fresh)
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in fresh.parameters()}
    assert_usable(fresh)
    tied = twin(Tied())
    assert tied.first.frame is tied.second.frame and labels(tied)["first.frame"] == LABELS["1.frame"]


@pytest.mark.parametrize("load", [by_torch, by_safetensors_model])
def test_shared_points_stay_shared(load, tmp_path):
    model, fresh = Tied(), Tied(seed=5)
    load(model, fresh, tmp_path / "model")
    assert_equal(model, fresh)
    assert fresh.first.frame is fresh.second.frame
    fresh.double()
    assert fresh.first.frame is fresh.second.frame and fresh.first.frame.manifold == LABELS["1.frame"]
    names = [name for group in param_groups(fresh) for name in group["param_names"]]
    assert names.count("first.frame") == 1 and "second.frame" not in names


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("coarse", [torch.float16, torch.bfloat16, torch.float32])
def test_there_and_back_across_dtypes(swap, coarse):
    model = Net().double()
    before = copy.deepcopy(model.state_dict())
    torch.__future__.set_swap_module_params_on_conversion(swap)
    try:
        model.to(coarse)
        assert labels(model) == LABELS and on_manifolds(model)
        model.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=4 * torch.finfo(coarse).eps)
    assert_usable(model)


def test_a_model_of_fake_tensors():
    """Planning tools build models without values: there is nothing to check but shapes."""
    with FakeTensorMode():
        model = Net()
        nn.functional.cross_entropy(model(torch.randn(8, 4)), torch.zeros(8, dtype=torch.long)).backward()
        p = ManifoldParameter(torch.empty(5, 2), Stiefel(), requires_grad=False)
        with pytest.raises(ValueError, match="Stiefel"):
            ManifoldParameter(torch.empty(2, 5), Stiefel())
    assert labels(model) == LABELS and all(is_fake(q) and q.grad.shape == q.shape for q in model.parameters())
    assert isinstance(p, nn.Parameter) and is_fake(p) and p.manifold == Stiefel() and not p.requires_grad


@pytest.mark.parametrize(
    "manifold",
    [SPDAffineInvariant(), SPDLogCholesky(), CorrelationPolyHyperbolic(), CorrelationOffLog(), CorrelationLogScaled()],
    ids=repr,
)
def test_operations_of_fake_tensors(manifold):
    """Where there are numbers operations look at them: whether a matrix is definite, whether a search has ended."""
    with FakeTensorMode():
        x, y, u = (torch.empty(5, 3, 3, requires_grad=True) for _ in range(3))
        calls = {"dist": (x, y), "expmap": (x, u), "logmap": (x, y), "egrad2rgrad": (x, u), "projx": (x,)}
        for name, arguments in calls.items():
            result = getattr(manifold, name)(*arguments)
            assert is_fake(result) and result.shape == ((5,) if name == "dist" else (5, 3, 3))
            assert is_fake(torch.autograd.grad(result.sum(), x)[0])


def test_parameters_that_come_from_files_without_values_or_copies(tmp_path):
    p = Points().frame
    torch.save(p, tmp_path / "p")
    meta = torch.load(tmp_path / "p", map_location="meta")
    mapped = torch.load(tmp_path / "p", mmap=True)
    assert meta.is_meta and meta.manifold == mapped.manifold == p.manifold and torch.equal(mapped, p)


def test_a_compiled_model(tmp_path):
    model, plain = Net(), Net(seed=1)
    compiled = torch.compile(model, backend="eager")
    assert labels(compiled) == LABELS
    train(compiled, RiemannianAdam(param_groups(compiled), lr=0.1), range(3))
    assert on_manifolds(model)
    torch.save(compiled.state_dict(), tmp_path / "model")
    state = torch.load(tmp_path / "model", weights_only=True)
    plain.load_state_dict({name.removeprefix("_orig_mod."): value for name, value in state.items()})
    assert_equal(model, plain)
    fresh = torch.compile(Net(seed=2), backend="eager")
    fresh.load_state_dict(state)
    x = torch.randn(3, 4, generator=generator())
    torch.testing.assert_close(fresh(x), compiled(x), rtol=0, atol=0)
    assert_usable(fresh._orig_mod)


# ---- single parameters ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", TABLE, ids=lambda case: repr(case.manifold))
def test_a_parameter_of_every_manifold_through_a_file(case, tmp_path):
    x = case.manifold.random(2, *case.shapes[0], generator=generator(), dtype=torch.float64)
    p = ManifoldParameter(x, case.manifold, requires_grad=False)
    torch.save({"p": p}, tmp_path / "p")
    for q in (torch.load(tmp_path / "p", weights_only=True)["p"], pickle.loads(pickle.dumps(p)), copy.deepcopy(p)):
        assert type(q) is ManifoldParameter and repr(q.manifold) == repr(p.manifold)
        assert torch.equal(p, q) and not q.requires_grad and q.manifold.check_point_on_manifold(q)


@pytest.mark.slow  # a second import of torch
def test_a_parameter_loads_in_a_process_that_only_imported_the_library(tmp_path):
    torch.save([ManifoldParameter(m.random(4, 2), m) for m in (Stiefel(0.5, "cayley"), Sphere(0.5))], tmp_path / "p")
    code = "import sys, torch, torchriemann; print([repr(p.manifold) for p in torch.load(sys.argv[1])])"
    answer = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "p")], capture_output=True, text=True, check=True
    ).stdout
    assert answer.strip() == repr([repr(Stiefel(0.5, "cayley")), repr(Sphere(0.5))])


def test_a_label_of_geoopt_is_not_read_with_weights_only(tmp_path):
    torch.save(ManifoldParameter(Sphere().random(3), geoopt.Sphere()), tmp_path / "p")
    with pytest.raises(pickle.UnpicklingError, match="geoopt.manifolds.sphere.Sphere"):
        torch.load(tmp_path / "p", weights_only=True)
    assert torch.load(tmp_path / "p", weights_only=False).manifold.name == "Sphere"


# ---- optimizers -------------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "adam": lambda model, **k: RiemannianAdam(param_groups(model), lr=0.05, amsgrad=True, **k),
    "sgd": lambda model, **k: RiemannianSGD(param_groups(model), lr=0.05, momentum=0.9, **k),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("through", FILES)
def test_training_resumed_from_files_is_training_uninterrupted_to_the_bit(make, through, tmp_path):
    model = Net()
    optimizer = make(model)
    train(model, optimizer, range(60))
    resumed = Net(seed=1)
    through(model, resumed, tmp_path / "model")
    torch.save(optimizer.state_dict(), tmp_path / "optimizer")
    resumed_optimizer = make(resumed)
    resumed_optimizer.load_state_dict(torch.load(tmp_path / "optimizer", weights_only=True))
    train(model, optimizer, range(60, 68))  # over the step at which membership is restored
    train(resumed, resumed_optimizer, range(60, 68))
    assert_equal(model, resumed)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_distributed_checkpoints(make, tmp_path):
    """torch.distributed.checkpoint names the state by the parameters; here it runs in one process."""
    model, resumed = Net(), Net(seed=1)
    optimizer, resumed_optimizer = make(model), make(resumed)
    train(model, optimizer, range(3))
    dcp_save(dict(zip("mo", get_state_dict(model, optimizer), strict=True)), checkpoint_id=tmp_path, no_dist=True)
    parts = get_state_dict(resumed, resumed_optimizer)
    dcp_load(dict(zip("mo", parts, strict=True)), checkpoint_id=tmp_path, no_dist=True)
    set_state_dict(resumed, resumed_optimizer, model_state_dict=parts[0], optim_state_dict=parts[1])
    assert_equal(model, resumed)
    train(model, optimizer, range(3, 6))
    train(resumed, resumed_optimizer, range(3, 6))
    assert_equal(model, resumed)
