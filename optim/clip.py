"""Clipping by the length that gradients have on their manifolds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .entries import Entry, bookkeeping, same_points
from .groups import is_flat, resolve
from .labels import check_not_lost
from .sharding import is_dtensor, local, local_gradient


@bookkeeping  # dynamo does not read the gradient of a labelled tensor
@torch.no_grad()
def get_total_norm(parameters: Any, *, error_if_nonfinite: bool = False, foreach: bool | None = None) -> Tensor:
    r"""The length of the gradient of all parameters together, as a tangent vector of the product manifold.

    .. math:: \Bigl( \sum_i \|\operatorname{grad}_i f\|^2_{x_i} \Bigr)^{1/2}, \qquad
        \operatorname{grad}_i f = \mathtt{egrad2rgrad}(x_i, \partial f / \partial x_i),

    with the metric of each parameter's own manifold; for flat parameters this is `torch.nn.utils.get_total_norm` of
    their gradients, to the bit. Arguments and errors are those of `clip_grad_norm_`. Returns a 0-dim tensor, zero if no
    parameter has a gradient; nothing is written.
    """
    return _total_norm(_with_gradient(parameters), error_if_nonfinite, foreach)


@bookkeeping  # dynamo does not read the gradient of a labelled tensor
@torch.no_grad()
def clip_grad_norm_(
    parameters: Any, max_norm: float | Tensor, *, error_if_nonfinite: bool = False, foreach: bool | None = None
) -> Tensor:
    r"""Scale all gradients in place so that their total Riemannian length is at most `max_norm`; return that length.

    Every ``p.grad`` is multiplied by ``min(1, max_norm / (total + 1e-6))`` with `total` of `get_total_norm`. The
    Riemannian gradient is linear in the Euclidean one, so that scaling the latter scales the former by the same factor.
    `torch.nn.utils.clip_grad_norm_` measures coordinates instead, and on a Poincare ball, say, the coordinates of a
    gradient of length one grow without bound towards the rim. On flat parameters both do the same, to the bit.

    Nothing is synchronised unless `error_if_nonfinite`. With a gradient scaler, call ``scaler.unscale_(optimizer)``
    first. Inside `torch.compile` it runs as it is, between two graphs. The length of sharded parameters (DTensors) is
    that of the whole, the same on every process; all of them have to call.

    Args:
        parameters: a tensor, an iterable of tensors, or groups (dicts with "params" and perhaps "manifold", as
            `param_groups` returns). A tensor of no manifold, by its group or its own label, is flat.
        max_norm: the bound, at least 0.
        error_if_nonfinite: raise ``RuntimeError``, before anything is scaled, if the total is infinite or NaN.
        foreach: None or True treats same-shaped points of a manifold as one batch, False one by one; flat gradients
            as in torch.

    Raises ``ValueError`` for a parameter that cannot be a point of its manifold, one whose sharding cuts through
    points, a sparse gradient of a point, and the groups of an optimizer that keeps the manifolds to itself.
    """
    readable = not isinstance(max_norm, Tensor) or max_norm.device.type == "cpu"  # elsewhere it would synchronise
    if readable and not max_norm >= 0:
        raise ValueError(f"clip_grad_norm_: max_norm must be at least 0, got {max_norm}")
    entries = _with_gradient(parameters)
    total = _total_norm(entries, error_if_nonfinite, foreach)
    for part in _by_kind([e.parameter for e in entries]):
        nn.utils.clip_grads_with_norm_(part, max_norm, total, foreach)  # type: ignore[arg-type]
    return total


def _with_gradient(parameters: Any) -> list[Entry]:
    """All parameters that have a gradient, with their manifolds."""
    if isinstance(parameters, nn.Module):
        raise ValueError(
            "clip_grad_norm_: parameters must be tensors or groups, got a module; pass param_groups(model)"
        )
    entries = []
    for index, item in enumerate([parameters] if isinstance(parameters, (Tensor, dict)) else list(parameters)):
        if isinstance(item, dict):
            entries += _of_group(item, index)
        elif isinstance(item, Tensor):
            entries += _of_tensors([item], (), [f"parameter {index}"])
        else:
            raise ValueError(
                f"clip_grad_norm_: parameters must be tensors or groups, got {type(item).__name__} at {index}; pass "
                "model.parameters() or param_groups(model)"
            )
    return entries


def _of_group(group: dict[str, Any], index: int) -> list[Entry]:
    params = group["params"]
    params = [params] if isinstance(params, Tensor) else list(params)
    names = group.get("param_names", [f"{i} of group {index}" for i in range(len(params))])
    explicit = (group["manifold"],) if "manifold" in group else ()
    entries = _of_tensors(params, explicit, [f"parameter {name}" for name in names])
    # A group of one of our optimizers names its manifolds without holding them.
    recorded = group.get("manifolds", [])
    recorded = [recorded] * len(params) if isinstance(recorded, str) else recorded
    known = {id(p): manifold for p, manifold in zip(params, recorded, strict=False)}
    for entry in entries:
        manifold = known.get(id(entry.parameter), repr(entry.manifold))
        if manifold != repr(entry.manifold):
            raise ValueError(
                f"{entry.where} is stepped on {manifold}, but neither the group nor the tensor says so; pass "
                "param_groups(model), or the groups that the optimizer was built from"
            )
    return entries


def _of_tensors(params: Iterable[Tensor], explicit: tuple, names: list[str]) -> list[Entry]:
    entries = []
    for p, name in zip(params, names, strict=True):
        if p.grad is not None:
            where = f"clip_grad_norm_: {name}"
            entries.append(Entry(p, resolve(p, explicit, where), where))
            if entries[-1].manifold is None:
                check_not_lost(p, where)
    return entries


def _total_norm(entries: list[Entry], error_if_nonfinite: bool, foreach: bool | None) -> Tensor:
    flat = _by_kind([e.parameter.grad for e in entries if is_flat(e.manifold)])  # type: ignore[misc]
    batches = same_points(entries, together=foreach is not False)
    if not batches and len(flat) < 2:
        return nn.utils.get_total_norm(sum(flat, []), 2.0, error_if_nonfinite, foreach)
    with torch._C.DisableTorchFunctionSubclass():  # stacks of labelled parameters are plain tensors
        norms = [_batch_norm(batch) for batch in batches]
    norms += [_whole(nn.utils.get_total_norm(part, 2.0, False, foreach)) for part in flat]
    device = entries[0].parameter.device
    total = torch.linalg.vector_norm(torch.stack([n.to(device) for n in norms]))
    if error_if_nonfinite and not torch.isfinite(total):
        raise RuntimeError(
            "clip_grad_norm_: the total norm of the gradients is infinite or NaN, so they cannot be clipped; nothing "
            "was changed. Pass error_if_nonfinite=False to scale by it anyway"
        )
    return total


def _by_kind(tensors: list[Tensor]) -> list[list[Tensor]]:
    """Plain tensors and DTensors apart, for torch's foreach functions do not take both in one list."""
    lists = [[t for t in tensors if is_dtensor(t) is sharded] for sharded in (False, True)]
    return [part for part in lists if part]


def _whole(norm: Tensor) -> Tensor:
    return norm.full_tensor() if is_dtensor(norm) else norm  # type: ignore[operator]


def _batch_norm(batch: list[Entry]) -> Tensor:
    """The length of the gradients of points ``*B,P`` of one manifold, as one vector."""
    points = [e.parameter for e in batch]
    grads: list[Tensor] = [local_gradient(p) for p in points]  # type: ignore[misc]
    for entry, grad in zip(batch, grads, strict=True):
        if grad.layout != torch.strided:
            raise ValueError(f"{entry.where}: its gradient is sparse; only dense gradients of points are supported")
    manifold = batch[0].manifold
    x = torch.stack([local(p).detach() for p in points])
    norm = torch.linalg.vector_norm(manifold.norm(x, manifold.egrad2rgrad(x, torch.stack(grads))))
    return _over_shards(norm, points[0])


def _over_shards(norm: Tensor, parameter: Any) -> Tensor:
    """The root of the sum of squares over the processes that hold different parts of `parameter`."""
    if not is_dtensor(parameter):
        return norm
    from torch.distributed.tensor import DTensor, Partial, Replicate

    parts = [Partial() if placement.is_shard() else Replicate() for placement in parameter.placements]
    return DTensor.from_local(norm.double().square(), parameter.device_mesh, parts).full_tensor().sqrt().to(norm)
