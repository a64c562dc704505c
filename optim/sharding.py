"""Parameters spread over processes as DTensors: what of them is here, and which cuts leave points whole.

A point is stepped by the process that holds it. That needs no communication as long as no point is cut, so a batch of
points may be sharded over its batch dimensions and over nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_dtensor(t: Tensor) -> bool:
    """Is `t` a `torch.distributed.tensor.DTensor`? Whoever has one has imported its module, which takes a second."""
    if not is_traceable_wrapper_subclass(t):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(t, DTensor)


def complaint(parameter: Tensor, ndim: int) -> str | None:
    """Why a parameter whose last `ndim` dimensions are a point cannot be stepped where it lies, or None."""
    if not is_traceable_wrapper_subclass(parameter):
        return None
    if not is_dtensor(parameter):
        return f"is a {type(parameter).__name__}; only plain tensors and DTensors are stepped"
    for placement in parameter.placements:  # type: ignore[attr-defined]
        if placement.is_partial():
            return "is a sum over processes (Partial); redistribute it to Replicate() or Shard()"
        if placement.is_shard() and placement.dim >= parameter.dim() - ndim:
            return (
                f"is sharded along dimension {placement.dim} of {tuple(parameter.shape)}, which cuts through its "
                f"points (the last {ndim} dimension(s)); shard a batch dimension, or leave it whole "
                "(fully_shard(..., ignored_params={parameter}))"
            )
    return None


def local(t: Tensor) -> Tensor:
    """The part of `t` that this process holds: a view of a DTensor's storage, any other tensor itself."""
    if not is_dtensor(t):
        return t
    shard: DTensor = t  # type: ignore[assignment]
    return shard.to_local()


def local_gradient(parameter: Tensor) -> Tensor | None:
    """The part of the gradient that belongs to `local(parameter)`. One that is laid out otherwise, such as a sum over
    processes that nobody has added up yet, is redistributed first."""
    grad = parameter.grad
    if grad is None or not is_dtensor(parameter) or not is_dtensor(grad):
        return grad
    if grad.placements != parameter.placements:  # type: ignore[attr-defined]
        grad = grad.redistribute(placements=parameter.placements)  # type: ignore[attr-defined]
    return local(grad)


def laid_out_as(parameter: Tensor, part: Tensor) -> Tensor:
    """`part`, which belongs to ``local(parameter)`` and has its batch dimensions, as a DTensor spread like
    `parameter`: so the state is saved and resharded with it."""
    if not is_dtensor(parameter):
        return part
    from torch.distributed.tensor import DTensor

    shape = list(part.shape)
    for placement in parameter.placements:  # type: ignore[attr-defined]
        if placement.is_shard():
            shape[placement.dim] = parameter.shape[placement.dim]
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(
        part,
        parameter.device_mesh,  # type: ignore[attr-defined]
        parameter.placements,  # type: ignore[attr-defined]
        run_check=False,
        shape=torch.Size(shape),
        stride=stride,
    )


def everywhere(flag: Tensor, parameters: list[Any]) -> Tensor:
    """`flag` (0-dim bool) of this process and of all that share one of the `parameters`."""
    meshes = dict.fromkeys(p.device_mesh for p in parameters if is_dtensor(p))  # in the same order everywhere
    if not meshes:
        return flag
    votes = flag.to(torch.int32)
    for mesh in meshes:
        for dim in range(mesh.ndim):
            torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MIN, group=mesh.get_group(dim))
    return votes.bool()
