"""Modules remember their manifolds whatever torch does to the tensors; the Grassmann head computes what it says."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from torchriemann.layers import GrassmannClassifier, ManifoldModule
from torchriemann.manifolds import Grassmann, ManifoldParameter, Sphere
from torchriemann.manifolds.parameter import registered_manifolds
from torchriemann.optim import RiemannianSGD, param_groups


class Directions(ManifoldModule):
    """The least module: five points of a sphere."""

    weight: nn.Parameter

    def __init__(self, tensor=None):
        super().__init__()
        tensor = Sphere().random(5, 3) if tensor is None else tensor
        self.register_manifold_parameter("weight", tensor, Sphere())

    def forward(self, x):
        return x @ self.weight.mT


class Shard(torch.Tensor):
    """Like a DTensor: a parameter of its own class, which cannot become a `ManifoldParameter`."""


def is_labelled(module) -> bool:
    return module.weight.manifold == registered_manifolds(module)["weight"]


def head(*, dtype=torch.float64, **options) -> GrassmannClassifier:
    torch.manual_seed(0)
    return GrassmannClassifier(7, 4, 3, dtype=dtype, **options)


# ---- ManifoldModule -------------------------------------------------------------------------------------------


def test_registration_labels_the_parameter_and_the_module():
    module = Directions()
    assert isinstance(module.weight, ManifoldParameter)
    assert registered_manifolds(module) == {"weight": Sphere()}
    assert [name for name, _ in module.named_parameters()] == ["weight"]


def test_registration_of_a_tensor_off_the_manifold_offers_to_project():
    with pytest.raises(ValueError, match=r"Sphere: x has .* = 1 > .*ManifoldParameter\.project"):
        Directions(torch.tensor([[0.0, 2.0, 0.0]]))


def test_registration_of_a_tensor_that_is_labelled_otherwise():
    parameter = ManifoldParameter.project(Sphere(4.0).random(5, 3), Sphere(4.0))
    with pytest.raises(ValueError, match=r"Directions: weight .*Sphere\(curvature=1.0\).*Sphere\(curvature=4.0\)"):
        Directions(parameter)


def test_registration_of_a_labelled_parameter_that_was_moved_off():
    parameter = Directions().weight
    with torch.no_grad():
        parameter.mul_(2)
    with pytest.raises(ValueError, match="Sphere: x has"):
        Directions(parameter)


def test_registration_of_a_meta_tensor_checks_the_shape():
    assert is_labelled(Directions(torch.empty(5, 3, device="meta")))
    with pytest.raises(ValueError, match="Sphere: x needs at least 1 dimension"):
        Directions(torch.empty((), device="meta"))


def test_a_shared_parameter_stays_one_parameter():
    first = Directions()
    second = Directions(first.weight)
    assert second.weight is first.weight
    (group,) = param_groups(nn.ModuleList([first, second]))
    assert len(group["params"]) == 1


def through_pickle(module):
    return pickle.loads(pickle.dumps(module))


def through_torch_save(module):
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def through_assignment(module):
    module.load_state_dict(copy.deepcopy(module).state_dict(), assign=True)
    return module


@pytest.mark.parametrize("through", [copy.deepcopy, through_pickle, through_torch_save, through_assignment])
def test_label_and_values_survive(through):
    module = Directions()
    values = module.weight.detach().clone()
    survivor = through(module)
    assert is_labelled(survivor)
    assert isinstance(survivor.weight, ManifoldParameter) and survivor.weight.requires_grad
    assert torch.equal(survivor.weight, values)
    assert param_groups(survivor)[0]["manifold"] == Sphere()


@pytest.mark.parametrize("swap", [False, True])
def test_label_survives_conversion(swap):
    # torch has two ways to convert parameters; the second swaps the tensors' insides, their labels included.
    torch.__future__.set_swap_module_params_on_conversion(swap)
    try:
        model = nn.Sequential(nn.Linear(3, 3), Directions())
        assert is_labelled(model.to(torch.float64)[1])
        assert is_labelled(model.to(torch.bfloat16)[1])
        model[1].load_state_dict(Directions().state_dict())
        assert is_labelled(model[1])
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def test_label_survives_the_meta_device():
    state = nn.Sequential(nn.Linear(3, 3), Directions()).state_dict()
    model = nn.Sequential(nn.Linear(3, 3), Directions()).to("meta")
    assert model[1].weight.is_meta and is_labelled(model[1])
    assert is_labelled(model.to_empty(device="cpu")[1])
    model.load_state_dict(state)
    assert [group["manifold"] for group in param_groups(model)] == [None, Sphere()]


def test_state_dict_holds_plain_tensors():
    buffer = io.BytesIO()
    module = Directions()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=True)
    assert type(module.state_dict()["weight"]) is type(loaded["weight"]) is torch.Tensor
    assert torch.equal(loaded["weight"], module.weight)


def test_points_widened_to_a_finer_dtype_lie_on_the_manifold_there():
    assert Sphere().check_point_on_manifold(Directions().double().weight)
    assert Sphere().check_point_on_manifold(Directions().bfloat16().float().weight)
    module = Directions().double()
    module.load_state_dict(Directions().bfloat16().state_dict())
    assert Sphere().check_point_on_manifold(module.weight)


def test_assignment_labels_the_very_tensor():
    module = Directions()
    parameter = nn.Parameter(Sphere().random(5, 3))
    module.weight = parameter  # an optimizer may hold it already
    assert module.weight is parameter and is_labelled(module)


def test_assignment_of_a_point_of_another_manifold():
    module = Directions()
    with pytest.raises(ValueError, match=r"Directions: parameter weight is registered on Sphere.*Grassmann"):
        module.weight = ManifoldParameter.project(Grassmann().random(5, 3), Grassmann())


def test_other_attributes_are_left_alone():
    module = Directions()
    module.bias = nn.Parameter(torch.ones(5))
    assert type(module.bias) is nn.Parameter


def test_trap_p22_a_sharded_parameter_carries_its_manifold_as_an_attribute():
    module = Directions()
    module.weight = nn.Parameter(torch.zeros(2, 3).as_subclass(Shard))  # a part of the points: not checked
    assert type(module.weight) is Shard and is_labelled(module)


@pytest.mark.parametrize("assign", [False, True])
def test_trap_p23_loading_points_off_the_manifold_warns(assign):
    module = head()
    with pytest.warns(RuntimeWarning, match=r"GrassmannClassifier\.weight .*max\|x\^T x - I\| = 3 > .*projx"):
        module.load_state_dict({"weight": 2 * module.weight.detach()}, assign=assign)
    assert is_labelled(module) and isinstance(module.weight, ManifoldParameter)
    with torch.no_grad():  # what the warning says
        module.weight.copy_(module.weight.manifold.projx(module.weight))
    assert Grassmann().check_point_on_manifold(module.weight)


def test_trap_p23_a_step_after_assignment_stays_on_the_manifold():
    module = head()
    module.load_state_dict({"weight": head().weight.detach().clone()}, assign=True)
    optimizer = RiemannianSGD(param_groups(module), lr=0.5)
    module(torch.randn(8, 7, dtype=torch.float64)).square().sum().backward()
    optimizer.step()
    assert Grassmann().check_point_on_manifold(module.weight)


def test_trap_p24_a_parameter_loads_with_the_default_of_torch_load():
    buffer = io.BytesIO()
    parameter = head().weight
    torch.save(parameter, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer)
    assert loaded.manifold == parameter.manifold and torch.equal(loaded, parameter)


def test_loading_reports_what_torch_reports():
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        Directions().load_state_dict({"weight": torch.ones(4, 3)})
    with pytest.raises(RuntimeError, match="Missing key"):
        Directions().load_state_dict({})


# ---- GrassmannClassifier: values ------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (5,), (2, 5), (0,)])
@pytest.mark.parametrize("normalize", [True, False])
def test_logits_are_lengths_of_projections(batch, normalize):
    classifier = head(normalize=normalize)
    x = torch.randn(*batch, 7, dtype=torch.float64)
    expected = 25 * torch.stack([(x.unsqueeze(-2) @ s).norm(dim=(-2, -1)) for s in classifier.weight], -1)
    if normalize:
        expected = expected / x.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(classifier(x), expected)


def test_logits_lie_between_zero_and_scale():
    classifier = GrassmannClassifier(6, 3, 6, scale=10.0)  # every feature lies in every subspace
    logits = classifier(torch.randn(200, 6))
    torch.testing.assert_close(logits, torch.full_like(logits, 10.0))
    assert (head()(torch.randn(200, 7)) >= 0).all()


def test_logits_depend_on_directions_and_subspaces_only():
    classifier = head()
    x = torch.randn(6, 7, dtype=torch.float64)
    logits = classifier(x)
    torch.testing.assert_close(classifier(-3 * x), logits)
    with torch.no_grad():
        classifier.weight.copy_(classifier.weight @ torch.linalg.qr(torch.randn(4, 3, 3, dtype=torch.float64))[0])
    torch.testing.assert_close(classifier(x), logits)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_features_of_extreme_size(size):
    classifier = head(dtype=torch.float32)
    x = torch.randn(6, 7)
    torch.testing.assert_close(classifier(size * x), classifier(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    classifier = head(dtype=torch.float32)
    x = torch.randn(6, 7).to(dtype)
    logits = classifier(x)
    assert logits.dtype == dtype
    assert torch.equal(logits, classifier(x.float()).to(dtype))
    assert torch.isfinite(head(dtype=dtype)(x)).all()


def test_autocast_changes_nothing():
    classifier = head(dtype=torch.float32)
    x = torch.randn(6, 7)
    with torch.autocast("cpu", torch.bfloat16):
        logits = classifier(x)
    assert logits.dtype == torch.float32 and torch.equal(logits, classifier(x))


# ---- GrassmannClassifier: derivatives and transforms ----------------------------------------------------------


def through_weight(x, weight):
    return torch.func.functional_call(head(), {"weight": weight}, (x,))


def test_first_and_second_derivatives():
    x = torch.randn(2, 7, dtype=torch.float64, requires_grad=True)
    inputs = (x, head().weight.detach().requires_grad_())
    assert torch.autograd.gradcheck(through_weight, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(through_weight, inputs, fast_mode=True)


@pytest.mark.parametrize("normalize", [True, False])
def test_gradients_are_finite_where_the_length_has_a_kink(normalize):
    classifier = head(normalize=normalize)
    with torch.no_grad():
        classifier.weight.copy_(torch.eye(7, 3, dtype=torch.float64))
    # The zero feature, a feature orthogonal to all subspaces, and one inside all of them.
    x = torch.stack([torch.zeros(7), torch.eye(7)[5], torch.eye(7)[0]]).double().requires_grad_()
    gradients = torch.autograd.grad(classifier(x).sum(), (x, classifier.weight), create_graph=True)
    second = torch.autograd.grad(torch.stack([g.square().sum() for g in gradients]).sum(), (x, classifier.weight))
    assert all(torch.isfinite(g).all() for g in (*gradients, *second))
    assert (gradients[0][:2] == 0).all()
    assert torch.equal(classifier(x)[:2], torch.zeros(2, 4, dtype=torch.float64))


def test_compiles_in_one_graph():
    classifier = head()
    compiled = torch.compile(classifier, fullgraph=True, backend="aot_eager")
    x = torch.randn(5, 7, dtype=torch.float64)
    expected = classifier(x)
    torch.testing.assert_close(compiled(x), expected)
    (gradient,) = torch.autograd.grad(compiled(x).square().sum(), classifier.weight)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.square().sum(), classifier.weight)[0])


def test_compiles_under_autocast():
    classifier = head(dtype=torch.float32)
    x = torch.randn(5, 7)
    with torch.autocast("cpu", torch.bfloat16):
        logits = torch.compile(classifier, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(logits, classifier(x))


def test_vmap_and_forward_mode():
    classifier = head()
    x, v = torch.randn(2, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(classifier)(x), classifier(x))
    tangent = torch.func.jvp(classifier, (x,), (v,))[1]
    step = 1e-6
    torch.testing.assert_close(tangent, (classifier(x + step * v) - classifier(x - step * v)) / (2 * step))


def test_exports_with_a_free_batch_size():
    classifier = head()
    batch = torch.export.Dim("batch")
    program = torch.export.export(classifier, (torch.randn(5, 7),), dynamic_shapes=({0: batch},))
    x = torch.randn(9, 7)
    torch.testing.assert_close(program.module()(x), classifier(x))


# ---- GrassmannClassifier: as a module -------------------------------------------------------------------------


def test_arguments_are_stored_and_shown():
    classifier = GrassmannClassifier(7, 4, 3, scale=12, normalize=False)
    assert (classifier.in_features, classifier.num_classes, classifier.subspace_dim) == (7, 4, 3)
    assert classifier.scale == 12 and classifier.normalize is False
    assert "in_features=7, num_classes=4, subspace_dim=3, scale=12, normalize=False" in repr(classifier)


def test_reset_draws_from_the_invariant_law():
    torch.manual_seed(0)
    classifier = GrassmannClassifier(6, 4000, 2)
    weight = classifier.weight.detach().clone()
    assert classifier.weight.is_contiguous() and Grassmann().check_point_on_manifold(weight)
    # Under the invariant law the mean projector is k/d times the identity; an entry of it deviates by less than 0.5.
    torch.testing.assert_close((weight @ weight.mT).mean(0), torch.eye(6) / 3, atol=4 * 0.5 / 4000**0.5, rtol=0)
    classifier.reset_parameters()
    assert not torch.equal(classifier.weight, weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_materialises_from_the_meta_device(dtype):
    classifier = GrassmannClassifier(7, 4, 3, device="meta", dtype=dtype)
    assert classifier.weight.is_meta
    classifier.to_empty(device="cpu").reset_parameters()
    assert classifier.weight.dtype == dtype and is_labelled(classifier)
    assert Grassmann().check_point_on_manifold(classifier.weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((7, 4, 8), "subspace_dim must lie between 1 and in_features = 7, got 8"),
        ((7, 4, 0), "subspace_dim must lie between 1 and in_features = 7, got 0"),
        ((7, 0, 3), "num_classes must be at least 1, got 0"),
        ((7, 4, 3, -1.0), "scale must be positive, got -1.0"),
        ((7, 4, 3, float("nan")), "scale must be positive, got nan"),
    ],
)
def test_sizes_that_make_no_subspaces(arguments, message):
    with pytest.raises(ValueError, match=f"GrassmannClassifier: {message}"):
        GrassmannClassifier(*arguments)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(2, 6), r"x must have shape \(\*B, in_features = 7\), got \(2, 6\)"),
        (torch.tensor(1.0), r"x must have shape \(\*B, in_features = 7\), got \(\)"),
        (torch.ones(2, 7, dtype=torch.long), "x must be a floating-point tensor, got torch.int64"),
    ],
)
def test_inputs_that_are_no_features(x, message):
    with pytest.raises(ValueError, match=f"GrassmannClassifier: {message}"):
        head()(x)


def test_learns_subspaces():
    generator = torch.Generator().manual_seed(0)
    truth = Grassmann().random_uniform(3, 12, 2, generator=generator)
    y = torch.arange(3).repeat(40)
    x = (truth[y] @ torch.randn(120, 2, 1, generator=generator)).squeeze(-1)
    torch.manual_seed(0)
    classifier = GrassmannClassifier(12, 3, 2)
    optimizer = RiemannianSGD(param_groups(classifier), lr=0.1, momentum=0.9)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(classifier(x), y).backward()
        optimizer.step()
    assert (classifier(x).argmax(-1) == y).all()
    assert Grassmann().check_point_on_manifold(classifier.weight)


def test_a_parameter_registered_anew_is_labelled():
    """As torch.distributed's `distribute_module` does, past `__setattr__`."""
    module = GrassmannClassifier(5, 3, 2)
    module.register_parameter("weight", nn.Parameter(module.weight.detach().clone()))
    assert module.weight.manifold == module.manifold and isinstance(module.weight, ManifoldParameter)
