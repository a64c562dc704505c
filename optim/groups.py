"""Which manifold a parameter is stepped on: read from the model, from a group, or from the tensor's own label."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from torchriemann.manifolds import Euclidean, Manifold
from torchriemann.manifolds.parameter import manifold_label, named_manifolds, only_itself

from .foreign import as_manifold, has_moving_option, with_the_same_points
from .labels import check_all_learned, check_label, undecayed, warn_if_off
from .sharding import complaint, is_dtensor

POINT_DTYPES = (torch.float32, torch.float64)


def param_groups(model: nn.Module, **options: Any) -> list[dict[str, Any]]:
    """The parameters of `model` as optimizer groups, one a manifold, in the order in which they first appear.

    Each group is ``{"params": [...], "param_names": [...], "manifold": manifold or None, **options}``; None means
    flat space, where the optimizers compute what torch's compute. Shared parameters appear once. Parameters that a
    module names in its attribute ``without_weight_decay``, as `layers.Curvature` does, are a group of their own with
    ``weight_decay=0.0``, whatever `options` or the optimizer say of the others; to decay them, write to that group.

    Unlike ``model.parameters()`` this reads what the modules remember. Raises ``ValueError`` naming the parameter if
    its tensor lost the label that its module registered (``load_state_dict(assign=True)``, sharding, a plain
    ``Parameter`` assigned over it) or contradicts it: such a parameter is never stepped as if it were flat. Raises also
    if a module keeps a manifold with a learnable option that is no parameter of `model`. Warns (`RuntimeWarning`) with
    the residual of a point that is off its manifold, unless it is a shard or on the meta device: call it once, and
    keep the groups for clipping, rather than once a step.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"param_groups: model must be a module, whose submodules remember their manifolds, got "
            f"{type(model).__name__}; pass the model, not model.parameters()"
        )
    check_all_learned(model)
    groups: dict[Any, dict[str, Any]] = {}
    exempt = undecayed(model)
    for name, parameter, manifold in named_manifolds(model):
        check_label(parameter, manifold, name)
        check_parameter(parameter, manifold, f"parameter {name}")
        own = {"weight_decay": 0.0} if id(parameter) in exempt else {}
        new = {"params": [], "param_names": [], "manifold": manifold, **options, **own}
        group = groups.setdefault((manifold, bool(own)), new)
        group["params"].append(parameter)
        group["param_names"].append(name)
    warn_if_off(list(groups.values()))
    return list(groups.values())


def is_flat(manifold: Manifold | None) -> bool:
    """No manifold, or flat space of either library: stepped entry by entry, as torch does."""
    return manifold is None or isinstance(with_the_same_points(manifold), Euclidean)


def resolve(parameter: Tensor, explicit: Iterable[Any], where: str) -> Manifold | None:
    """The manifold of `parameter`: that of its group (`explicit`, empty if the group names none), else its own label.

    Raises ``ValueError`` if the two differ, or if the parameter cannot be stepped there.
    """
    label = manifold_label(parameter)
    for manifold in explicit:
        if label is not None and label != manifold:
            alike = only_itself(label, manifold)
            raise ValueError(f"{where} is labelled {label!r}, but its group says manifold={manifold!r}{alike}")
        label = manifold
    return check_parameter(parameter, label, where)


def check_parameter(parameter: Tensor, label: Any, where: str) -> Manifold | None:
    """What a label says under this library's contract. Raises ``ValueError`` unless an optimizer of this library can
    step `parameter` there."""
    if not parameter.is_floating_point():
        raise ValueError(f"{where} must be a real floating-point tensor, got {parameter.dtype}; convert it with .to()")
    overlap = torch._debug_has_internal_overlap(parameter)  # pyright: ignore[reportPrivateImportUsage]
    if overlap == 1 and not is_dtensor(parameter):
        raise ValueError(f"{where} is an expanded tensor, whose entries share memory; call .clone() or .contiguous()")
    manifold = as_manifold(label, where)
    if manifold is None:
        return None
    _check_options(manifold, where)
    if is_flat(manifold):
        return manifold
    if parameter.dtype not in POINT_DTYPES:
        raise ValueError(
            f"{where} on {manifold!r} is {parameter.dtype}: points under an optimizer are float32 or float64, "
            "because a half-precision point is off its manifold by more than a step; keep it in .float()"
        )
    reason = complaint(parameter, manifold.ndim)
    if reason is not None:
        raise ValueError(f"{where} on {manifold!r} {reason}")
    ok, reason = manifold.check_point(parameter, explain=True)
    if not ok:
        raise ValueError(f"{where} cannot be a point of {manifold!r}: {reason}")
    return manifold


def _check_options(manifold: Manifold, where: str) -> None:
    if has_moving_option(manifold):
        raise ValueError(
            f"{where} is on {manifold!r}, an option of which is a tensor: if it moved, the point would be left off its "
            "manifold. Build the manifold with a number, or learn the point in normal coordinates"
        )
