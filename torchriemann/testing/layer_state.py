"""Laws of layers as modules: construction, conversion, copies, checkpoints, and the manifolds of their parameters."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from torchriemann.manifolds.parameter import named_manifolds
from torchriemann.manifolds.precision import widen
from torchriemann.optim import param_groups

from .layers import LayerTrial, floating, layer_law

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def _own(layer: nn.Module) -> list[Tensor]:
    """The floating-point parameters and buffers."""
    return floating([*layer.parameters(), *layer.buffers()])


def _have_dtype(layer: nn.Module, dtype: torch.dtype) -> bool:
    """Whether the parameters are of that dtype, and so the buffers, which may be float32 where it is a half one: a
    running statistic would stand still in its rounding."""
    wide = all(b.dtype in (dtype, widen(dtype)) for b in floating(layer.buffers()))
    return wide and all(p.dtype == dtype for p in floating(layer.parameters()))


def _saved(value: Any, weights_only: bool) -> Any:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=weights_only)


def _assigned(layer: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    layer.load_state_dict({name: value.clone() for name, value in state.items()}, assign=True)
    return layer


def _loaded(layer: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    layer.load_state_dict(state)
    return layer


def _emptied(layer: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    return _loaded(layer.to("meta").to_empty(device="cpu"), {name: value.clone() for name, value in state.items()})


@layer_law("module")
def state_dict_restores_the_layer(t: LayerTrial) -> None:
    """`state_dict` holds plain tensors, goes through a file that is read with ``weights_only=True``, and makes another
    layer compute exactly the same, by copy and by ``assign=True``, without a warning."""
    layer, arguments = t.layer(), t.arguments()
    for name, value in layer.state_dict().items():
        t.require(type(value) is Tensor, f"state_dict: {name} is a {type(value).__name__}")
    state, want = _saved(layer.state_dict(), True), t.call(layer, arguments)
    t.require(state.keys() == t.layer(1).state_dict().keys(), "another layer has other keys")
    for load in (_loaded, _assigned):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            other = load(t.layer(1), state)
        t.close(t.call(other, arguments), want, f"the layer loaded by {load.__name__[1:]} state", 0.0)


@layer_law("module")
def layers_start_on_the_meta_device(t: LayerTrial) -> None:
    """Built on the meta device a layer allocates nothing; it comes to life by `to_empty` and `reset_parameters`, by
    `to_empty` and a checkpoint, and by a checkpoint with ``assign=True``."""
    layer, arguments = t.layer(), t.arguments()
    state, want = layer.state_dict(), t.call(layer, arguments)

    def lazy() -> nn.Module:
        made = t.case.make(device="meta", dtype=t.dtype)
        t.require(all(v.is_meta for v in (*made.parameters(), *made.buffers())), "device='meta' allocates memory")
        return made

    for how, made in (
        ("to_empty and load_state_dict", _loaded(lazy().to_empty(device="cpu"), state)),
        ("load_state_dict(assign=True)", _assigned(lazy(), state)),
    ):
        t.close(t.call(made, arguments), want, how, 0.0)
        kept = {name: p.requires_grad for name, p in made.named_parameters()}
        t.require(
            kept == {name: p.requires_grad for name, p in layer.named_parameters()}, f"{how} changes requires_grad"
        )
    if _own(layer):
        fresh: Any = lazy().to_empty(device="cpu")
        fresh.reset_parameters()
        t.finite(_own(fresh), "the state after to_empty and reset_parameters")
        t.on_manifolds(fresh, "after to_empty and reset_parameters")


@layer_law("module")
def copies_are_equal_and_independent(t: LayerTrial) -> None:
    """deepcopy, pickle and torch.save give a layer that computes exactly the same, and whose state is its own."""
    layer, arguments = t.layer(), t.arguments()
    want = t.call(layer, arguments)
    for how, copied in (
        ("deepcopy", copy.deepcopy(layer)),
        ("pickle", pickle.loads(pickle.dumps(layer))),
        ("torch.save", _saved(layer, False)),
    ):
        t.close(t.call(copied, arguments), want, how, 0.0)
        with torch.no_grad():
            for value in _own(copied):
                value.fill_(torch.nan)
        t.close(t.call(layer, arguments), want, f"the layer after its {how} was written to", 0.0)


@layer_law("module")
def device_and_dtype_are_honoured(t: LayerTrial) -> None:
    """``device=`` and ``dtype=`` say where all parameters and buffers are and of which type (buffers may be float32
    instead of a half dtype); by default they are as torch's own would be, and the points lie on their manifolds."""
    for dtype in DTYPES:
        layer = t.start(dtype=dtype)
        t.require(_have_dtype(layer, dtype), f"dtype={dtype} is not that of all tensors")
        t.on_manifolds(layer, f"built in {dtype}")
        lazy = t.start(device="meta", dtype=dtype)
        meta = _have_dtype(lazy, dtype) and all(v.is_meta for v in _own(lazy))
        t.require(meta, f"device='meta', dtype={dtype} are not those of all tensors")
    default = [(v.dtype, v.device.type) for v in _own(t.start())]
    expected = (torch.get_default_dtype(), torch.get_default_device().type)
    t.require(all(d == expected for d in default), "without device and dtype the tensors are not torch's default")


@layer_law("module", tolerance=8)
def conversions_keep_points_and_values(t: LayerTrial) -> None:
    """``.double()``, ``.float()``, ``.half()`` and ``.bfloat16()`` convert all tensors (buffers may stay float32 where
    that is wider); the points lie on their manifolds to the rounding of the new dtype, widened ones too; and the layer
    computes what it did, to the rounding of the narrower of both, in the dtype of its input."""
    wanted = [v.double() for v in t.call(t.layer(dtype=torch.float64), t.arguments(dtype=torch.float64))]
    for source in (torch.float64, torch.bfloat16):
        for target in DTYPES:
            layer = t.layer(dtype=source).to(target)
            what = f"{source} -> {target}"
            t.require(_have_dtype(layer, target), f"{what}: not all tensors have that dtype")
            t.on_manifolds(layer, what)
            got = t.call(layer, t.arguments(dtype=target))
            t.require(all(v.dtype == target for v in got), f"{what}: the results are {[v.dtype for v in got]}")
            t.finite(got, f"{what}: the result")
            eps = max(torch.finfo(source).eps, torch.finfo(target).eps)
            assert t.law is not None
            bound = t.case.tolerance.get(t.law.name, t.law.tolerance) * eps
            t.close([v.double() for v in got], wanted, what, bound)


@layer_law("module")
def repr_shows_the_arguments(t: LayerTrial) -> None:
    """`extra_repr` shows every argument of the constructor but device and dtype as ``name=value``, and the layer keeps
    it under its name as it was given."""
    layer = t.start()
    shown = layer.extra_repr()
    for name in inspect.signature(type(layer)).parameters:
        if name in ("device", "dtype"):
            continue
        t.require(name in vars(layer) or name in layer._modules, f"{name} is not kept as given")
        expected = f"{name}={getattr(layer, name)!r}"
        t.require(expected in shown or name in layer._modules, f"extra_repr lacks {expected}: {shown!r}")


@layer_law("module")
def reset_parameters_starts_again(t: LayerTrial) -> None:
    """`reset_parameters` brings a layer from any state, NaN included, to the one in which it is built."""
    layer = t.start(dtype=t.dtype)
    if not _own(layer):
        return
    start = {name: value.clone() for name, value in layer.state_dict().items()}
    t.finite(start.values(), "the state in which it is built")
    with torch.no_grad():
        for value in _own(layer):
            value.fill_(torch.nan)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(t.seed)
        layer.reset_parameters()
    for name, value in layer.state_dict().items():
        if value.is_floating_point():
            t.close([value], [start[name]], f"{name} after reset_parameters", 4 * t.eps)
        t.require(value.is_floating_point() or torch.equal(value, start[name]), f"{name} is {value}, not what it was")
    t.on_manifolds(layer, "after reset_parameters")


# How a layer may come to an optimizer.
ROUTES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    ".float()": lambda layer: layer.float(),
    "to('meta'), to_empty and load_state_dict": lambda layer: _emptied(layer, layer.state_dict()),
    "load_state_dict(assign=True)": lambda layer: _assigned(layer, layer.state_dict()),
}


@layer_law("module")
def optimizers_find_the_manifolds(t: LayerTrial) -> None:
    """`optim.param_groups` finds every parameter under the manifold on which the layer is built, whatever torch has
    done to the layer since."""
    want = {name: manifold for name, _, manifold in named_manifolds(t.layer())}
    for how, route in {"construction": lambda layer: layer, **ROUTES}.items():
        layer = route(t.layer())
        found = {id(p): g["manifold"] for g in param_groups(layer) for p in g["params"]} if want else {}
        for name, p in layer.named_parameters():
            t.require(id(p) in found, f"after {how} {name} is in no group")
            t.require(found[id(p)] == want[name], f"after {how} {name} is on {found[id(p)]!r}, not {want[name]!r}")
