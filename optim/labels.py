"""What a model tells of its parameters before they are stepped: labels that got lost, points that are off, options of
manifolds that nobody learns, parameters that do not decay."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import is_fake

from torchriemann.manifolds.parameter import (
    ManifoldParameter,
    learnable_options,
    manifold_label,
    registering,
    relabel,
)

from .foreign import as_manifold
from .sharding import is_dtensor


def check_label(parameter: Tensor, manifold: Any, name: str) -> None:
    """Raise ``ValueError`` for the parameter `name` of a model, without a label, that its module registered on
    `manifold`; one that was rebuilt by its class, as accelerate does, gets the label back. With None for `manifold`, as
    `check_not_lost`."""
    where = f"param_groups: parameter {name}"
    if manifold is None:
        check_not_lost(parameter, where)
    elif manifold_label(parameter) is None and type(parameter) is ManifoldParameter:
        relabel(parameter, manifold)
    elif manifold_label(parameter) is None:
        raise ValueError(
            f"{where} is registered on {manifold!r}, but its tensor ({type(parameter).__name__}) carries no manifold; "
            "give it back by relabel(parameter, manifold), or say that it is flat by "
            f"{registering(name)}, both of torchriemann.manifolds.parameter"
        )


def check_not_lost(parameter: Tensor, where: str) -> None:
    """Raise ``ValueError`` for a parameter without a label that was a point once, as its class tells."""
    if isinstance(parameter, ManifoldParameter) and manifold_label(parameter) is None:
        raise ValueError(
            f"{where} is a ManifoldParameter without a manifold, as tools leave it that rebuild a parameter by its "
            "class; give it back by torchriemann.manifolds.parameter.relabel(parameter, manifold), and register it by "
            "ManifoldModule.register_manifold_parameter, which remembers it (relabel(parameter, None) makes it flat)"
        )


# ---- values -------------------------------------------------------------------------------------------------------


def readable(parameter: Tensor) -> bool:
    """Are there whole points to look at? Not on the meta device, in a shard, or while a CUDA graph is captured."""
    if parameter.is_meta or is_dtensor(parameter) or is_fake(parameter):
        return False
    return not (parameter.is_cuda and torch.cuda.is_current_stream_capturing())


def mended(name: str, manifold: str = "p.manifold") -> str:
    """What to do about the parameter `name` that is off its `manifold`, so called, after "call projx(x)"."""
    if not name.endswith(".original"):
        return f", as in `with torch.no_grad(): p.copy_({manifold}.projx(p))`"
    return (
        " on it, unless it holds coordinates, as a parametrization with a right_inverse leaves them: these are flat by "
        f"{registering(name)} and relabel(p, None), both of torchriemann.manifolds.parameter"
    )


@torch.no_grad()
def reason_off(manifold: Any, x: Tensor) -> str | None:
    """Why `x` (``*B,P``) is no point of `manifold`, of either library, or None."""
    known = as_manifold(manifold, "reason_off")
    return None if known is None else known.check_point_on_manifold(x.detach(), explain=True)[1]


def warn_if_off(groups: Sequence[dict[str, Any]]) -> None:
    """Warn (`RuntimeWarning`) of points that are off their manifold, as an average of coordinates leaves them."""
    for group in groups:
        if group["manifold"] is None:
            continue
        named = zip(group["param_names"], group["params"], strict=True)
        for batch in _of_one_shape([(n, p) for n, p in named if p.numel() > 0 and readable(p)]):
            points = [p for _, p in batch]
            if reason_off(group["manifold"], _stacked(points)) is None:
                continue
            name, reason = next(
                (n, reason) for n, p in batch if (reason := reason_off(group["manifold"], p)) is not None
            )
            warnings.warn(
                f"param_groups: parameter {name} is off {group['manifold']!r}: {reason}{mended(name)}. Values that are "
                "still to be loaded do not matter",
                RuntimeWarning,
                stacklevel=3,
            )


def _stacked(points: list[Tensor]) -> Tensor:
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():  # which each labelled tensor is asked about
        return points[0].detach() if len(points) == 1 else torch.stack(points)


def _of_one_shape(named: list[tuple[str, Tensor]]) -> Iterator[list[tuple[str, Tensor]]]:
    batches: dict[Any, list[tuple[str, Tensor]]] = {}
    for name, p in named:
        batches.setdefault((p.shape, p.dtype, p.device), []).append((name, p))
    yield from batches.values()


# ---- what nobody learns, and what does not decay ------------------------------------------------------------------


def check_all_learned(model: nn.Module) -> None:
    """Raise ``ValueError`` if a module keeps a manifold with a learnable option that is no parameter of `model`."""
    known = {id(p) for p in model.parameters()}
    for prefix, module in model.named_modules():
        for name, value in vars(module).items():
            options = [] if name in _MODULE_ATTRIBUTES else learnable_options(value)
            if all(id(option) in known for option in options):
                continue
            where, shown = f"{prefix}.{name}" if prefix else name, " ".join(repr(value).split())
            raise ValueError(
                f"param_groups: {where} of the model holds a manifold, an option of which requires a gradient but "
                f"is no parameter of the model, so that no optimizer moves it: {shown}. Hold a layers.Curvature, or a "
                "parameter, and build the manifold of it in forward: `Lorentz(self.curvature())`, in a local variable"
            )


_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))  # torch's own, among which are no manifolds


def undecayed(model: nn.Module) -> set[int]:
    """The ids of the parameters that a module names in its attribute `without_weight_decay`."""
    return {
        id(module._parameters[name])
        for module in model.modules()
        for name in getattr(module, "without_weight_decay", ())
        if name in module._parameters
    }
