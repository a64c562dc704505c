"""The laws of layers catch what they are for: one layer, broken in one way at a time."""

import copy

import pytest
import torch
from torch import nn

from torchriemann.layers import ManifoldModule
from torchriemann.manifolds import ManifoldParameter, Sphere
from torchriemann.manifolds.precision import in_full_precision, widen
from torchriemann.testing import LAYER_LAWS, LayerCase, LayerTrial, check_layer, layer_exemption_stands


class Mirrors(ManifoldModule):
    """x times its cosine with learned directions, and a bias: ``*B,4 -> *B,num``. Nothing is wrong with it."""

    def __init__(self, num=2, device=None, dtype=None):
        super().__init__()
        self.num = num
        self.register_point("weight", Sphere(), (num, 4), device=device, dtype=dtype)
        self.bias = nn.Parameter(torch.empty(num, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self):
        with torch.no_grad():
            self.bias.zero_()
        drawn = Sphere().random(self.num, 4, device=self.weight.device, dtype=widen(self.weight))
        self.set_point("weight", drawn)

    @in_full_precision
    def forward(self, x):
        self.check(x)
        return self.values(x)

    def check(self, x):
        if not isinstance(x, torch.Tensor) or not x.is_floating_point() or x.shape[-1:] != (4,):
            raise ValueError(f"{type(self).__name__}: x must be *B,4 floating-point numbers")

    def values(self, x):
        return torch.tanh(x @ self.point("weight", x.dtype).mT) + self.bias.to(x.dtype)

    def extra_repr(self):
        return f"num={self.num}"


class LosesTheDtype(Mirrors):
    def forward(self, x):
        return super().forward(x).float()


class ForgetsToWiden(Mirrors):
    def forward(self, x):
        self.check(x)
        return self.values(x)


class IgnoresTheDtype(Mirrors):
    def __init__(self, num=2, device=None, dtype=None):
        super().__init__(num, device)


class IgnoresTheDevice(Mirrors):
    def __init__(self, num=2, device=None, dtype=None):
        super().__init__(num, dtype=dtype)


class HasABufferOfItsOwnDtype(Mirrors):
    def __init__(self, num=2, device=None, dtype=None):
        super().__init__(num, device, dtype)
        self.register_buffer("scale", torch.ones((), device=device))


class KeepsStateOutOfTheDict(Mirrors):
    def __init__(self, num=2, device=None, dtype=None):
        super().__init__(num, device, dtype)
        self.shift = torch.randn(num, dtype=torch.float64)

    def values(self, x):
        return super().values(x) + self.shift.to(x)


class RenamesItsState(Mirrors):
    def state_dict(self, *args, **kwargs):
        return {f"old_{name}": value for name, value in super().state_dict(*args, **kwargs).items()}


class GivesAwayItsParameters(Mirrors):
    def state_dict(self, *args, **kwargs):
        return dict(self.named_parameters())


class CannotBePickled(Mirrors):
    def __init__(self, num=2, device=None, dtype=None):
        super().__init__(num, device, dtype)
        self.activation = lambda x: x


class CopiesShareTheState(Mirrors):
    def __deepcopy__(self, memo):
        return copy.copy(self)


class ForgetsItsManifold(Mirrors):
    """A label on the tensor alone, as without `ManifoldModule`."""

    def __init__(self, num=2, device=None, dtype=None):
        super().__init__(num, device, dtype)
        del self.__dict__["_points"], self.__dict__["_manifolds"]
        self.weight = ManifoldParameter(self.weight.detach(), Sphere()) if device != "meta" else self.weight
        self.__dict__.pop("_manifolds", None)

    def point(self, name, dtype=None, manifold=None):
        return self.weight.to(dtype)


class HidesAnArgument(Mirrors):
    def extra_repr(self):
        return ""


class ChangesAnArgument(Mirrors):
    def extra_repr(self):
        return f"num={self.num + 1}"


class ResetsOnlyHalf(Mirrors):
    def reset_parameters(self):
        self.set_point("weight", Sphere().random(self.num, 4, device=self.weight.device, dtype=self.weight.dtype))


class CannotBeReset(Mirrors):
    reset_parameters = None

    def __init__(self, num=2, device=None, dtype=None):
        ManifoldModule.__init__(self)
        self.num = num
        self.register_point("weight", Sphere(), (num, 4), device=device, dtype=dtype)
        self.bias = nn.Parameter(torch.zeros(num, device=device, dtype=dtype))


class MixesTheBatch(Mirrors):
    def values(self, x):
        return super().values(x) - 0.1 * x.mean()


class NanAtAnEmptyBatch(Mirrors):
    def values(self, x):
        count = torch.ones_like(x).sum() / x.shape[:-1].numel() if x.numel() else x.new_tensor(torch.nan)
        return super().values(x) + 0.25 * count * self.bias.to(x.dtype)


class DropsEmptyDimensions(Mirrors):
    def values(self, x):
        return super().values(x) if x.numel() else x.new_zeros(0, self.num)


class TakesContiguousMemory(Mirrors):
    def values(self, x):
        return super().values(x.view(-1, 4)).view(*x.shape[:-1], self.num)


class WritesToItsInput(Mirrors):
    def values(self, x):
        return super().values(x.mul_(1.0))


class WrongGradient(Mirrors):
    def values(self, x):
        return _Wrong.apply(super().values(x))


class _Wrong(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return 1.01 * grad


class WrongGradientOfThePointsAlone(Mirrors):
    def values(self, x):
        w = self.point("weight", x.dtype)
        return torch.tanh(x @ (w + 0.1 * w.roll(1, -1).detach()).mT) + self.bias.to(x.dtype)


class NanGradientAtTheStart(Mirrors):
    def values(self, x):
        return super().values(x) + self.bias.to(x.dtype).square().sum().sqrt()


class CutsTheGradient(Mirrors):
    def values(self, x):
        return super().values(x.detach())


class BranchesOnItsInput(Mirrors):
    def values(self, x):
        return super().values(x) if bool(x.sum() > -1e9) else x[..., : self.num]


class BranchesOnItsState(Mirrors):
    def values(self, x):
        return super().values(x) if float(self.bias.detach().sum()) > -1e9 else x[..., : self.num]


class BreaksTheGraph(Mirrors):
    def values(self, x):
        torch._dynamo.graph_break()
        return super().values(x)


class ChangesItsMindWhenCompiled(Mirrors):
    def values(self, x):
        y = super().values(x)
        return y * 1.01 if torch.compiler.is_compiling() else y


class LeavesErrorsToTorch(Mirrors):
    def check(self, x):
        pass


class AcceptsIntegers(Mirrors):
    def check(self, x):
        super().check(x.double() if isinstance(x, torch.Tensor) else x)

    def forward(self, x):
        self.check(x)
        return self.values(x.to(self.weight.dtype) if not x.is_floating_point() else x)


class NamesNothing(Mirrors):
    def check(self, x):
        if not isinstance(x, torch.Tensor) or not x.is_floating_point() or x.shape[-1:] != (4,):
            raise ValueError("wrong x")


class LeavesTheManifold(Mirrors):
    """Its results are said to be points of the circle, which they are not."""


CAUGHT = [
    (LosesTheDtype, "half_precision_is_computed_in_single"),
    (LosesTheDtype, "conversions_keep_points_and_values"),
    (ForgetsToWiden, "half_precision_is_computed_in_single"),
    (ForgetsToWiden, "autocast_changes_nothing"),
    (IgnoresTheDtype, "device_and_dtype_are_honoured"),
    (IgnoresTheDevice, "device_and_dtype_are_honoured"),
    (IgnoresTheDevice, "layers_start_on_the_meta_device"),
    (HasABufferOfItsOwnDtype, "device_and_dtype_are_honoured"),
    (KeepsStateOutOfTheDict, "state_dict_restores_the_layer"),
    (RenamesItsState, "state_dict_restores_the_layer"),
    (GivesAwayItsParameters, "state_dict_restores_the_layer"),
    (CannotBePickled, "copies_are_equal_and_independent"),
    (CopiesShareTheState, "copies_are_equal_and_independent"),
    (ForgetsItsManifold, "optimizers_find_the_manifolds"),
    (ForgetsItsManifold, "conversions_keep_points_and_values"),
    (HidesAnArgument, "repr_shows_the_arguments"),
    (ChangesAnArgument, "repr_shows_the_arguments"),
    (ResetsOnlyHalf, "reset_parameters_starts_again"),
    (CannotBeReset, "reset_parameters_starts_again"),
    (CannotBeReset, "layers_start_on_the_meta_device"),
    (MixesTheBatch, "batches_are_items_side_by_side"),
    (NanAtAnEmptyBatch, "empty_batches_give_empty_results"),
    (DropsEmptyDimensions, "empty_batches_give_empty_results"),
    (TakesContiguousMemory, "strides_do_not_matter"),
    (WritesToItsInput, "arguments_are_never_written"),
    (WrongGradient, "gradients_are_those_of_finite_differences"),
    (WrongGradientOfThePointsAlone, "gradients_are_those_of_finite_differences"),
    (NanGradientAtTheStart, "gradients_are_finite"),
    (CutsTheGradient, "gradients_are_finite"),
    (BranchesOnItsInput, "vmap_equals_batching"),
    (BranchesOnItsInput, "exported_equals_eager"),
    (BranchesOnItsState, "stacked_states_are_states_side_by_side"),
    (BreaksTheGraph, "compiled_equals_eager"),
    (ChangesItsMindWhenCompiled, "compiled_equals_eager"),
    (LeavesErrorsToTorch, "wrong_arguments_are_rejected"),
    (AcceptsIntegers, "wrong_arguments_are_rejected"),
    (NamesNothing, "wrong_arguments_are_rejected"),
    (LeavesTheManifold, "results_are_points"),
]


def features(t):
    return (t.noise(*t.batch, 4),)


def row(layer, **more):
    image = Sphere() if layer is LeavesTheManifold else None
    return LayerCase(layer, features, name=layer.__name__, image=image, **more)


@pytest.mark.parametrize(("broken", "name"), CAUGHT, ids=lambda value: getattr(value, "__name__", value))
def test_defect_is_caught(broken, name):
    with pytest.raises(AssertionError, match=f"{name} fails on {broken.__name__}: ") as caught:
        LAYER_LAWS[name](LayerTrial(row(broken)))
    assert not isinstance(caught.value.__cause__, (NameError, ImportError)), "the test itself is broken"


@pytest.mark.parametrize("name", LAYER_LAWS)
def test_every_law_catches_something(name):
    assert any(law == name for _, law in CAUGHT)


def test_the_sound_layer_obeys_and_check_layer_says_which_laws_hold():
    held = check_layer(Mirrors, features)
    assert set(held) == set(LAYER_LAWS) - {"results_are_points"}


def test_check_layer_fails_by_name_and_leaves_out_what_is_exempt():
    with pytest.raises(AssertionError, match=r"repr_shows_the_arguments fails on HidesAnArgument.*num=2.*\n  seed 0"):
        check_layer(HidesAnArgument, features, laws=["repr_shows_the_arguments"])
    reasons = {name: "costly" for name in ("compiled_equals_eager", "exported_equals_eager")}
    held = check_layer(HidesAnArgument, features, exempt={"repr_shows_the_arguments": "terse", **reasons}, seeds=[3])
    assert "gradients_are_finite" in held and "repr_shows_the_arguments" not in held
    with pytest.raises(ValueError, match="check_layer: no such law: colour"):
        check_layer(Mirrors, features, laws=["colour"])
    with pytest.raises(ValueError, match="check_layer: make must build the layer, got the layer Mirrors"):
        check_layer(Mirrors(), features)
    with pytest.raises(ValueError, match=r"check_layer: example must be a function of a trial.*shape \(3, 4\)"):
        check_layer(Mirrors, torch.randn(3, 4))
    with pytest.raises(ValueError, match=r"example must return the tuple of the arguments.*shape \(3, 4\)"):
        check_layer(Mirrors, lambda t: t.noise(*t.batch, 4))


class LeavesHalfToTorch(Mirrors):
    def __init__(this, num=2, device=None, dtype=None):  # noqa: N805
        super().__init__(num, device, dtype)

    def forward(self, x):
        return x @ self.weight.mT


def test_half_precision_that_torch_refuses_is_told_what_computes_it():
    with pytest.raises(AssertionError, match=r"m1 and m2.*in_full_precision.*self\.point\(name, x\.dtype\)"):
        check_layer(LeavesHalfToTorch, features, laws=["half_precision_is_computed_in_single"])
    assert check_layer(LeavesHalfToTorch, features, laws=["repr_shows_the_arguments"])


def test_an_exemption_is_held_to_the_truth():
    assert layer_exemption_stands(row(HidesAnArgument), "repr_shows_the_arguments")
    assert not layer_exemption_stands(row(Mirrors), "repr_shows_the_arguments")
