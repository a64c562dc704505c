"""A head of which every process holds some classes: a class is a point, so points are never cut."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import Placement


def on_shards(logits: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor) -> DTensor:
    """``logits(x, weight)`` of a `weight` that is sharded over classes, each process computing its own part.

    ``*B,d`` and ``K,d,k -> *B,K``, sharded over K as `weight` is and over ``*B`` as `x` is, where `weight` is
    replicated. Where `weight` is sharded, `x` is gathered, and its gradient is summed over the processes.

    Raises ``ValueError`` if `weight` is sharded within its points, or if `x` does not say how it is distributed.
    """
    assert isinstance(weight, DTensor)
    mesh = weight.device_mesh
    _check_weight(weight)
    if not isinstance(x, DTensor) or x.device_mesh != mesh:
        came = f"a DTensor on {x.device_mesh}" if isinstance(x, DTensor) else type(x).__name__
        raise ValueError(
            f"GrassmannClassifier: weight is sharded over {mesh}, so x must be a DTensor on that mesh, got {came}; say "
            "how the processes hold it by DTensor.from_local(x, mesh, placements), or let "
            "parallelize_module(head, mesh, ClassParallel(input_layouts=...)) do so"
        )
    # A dimension of the mesh serves one purpose: it splits the classes, or else it may split the batch.
    roles = [_role(p, q, x.dim()) for p, q in zip(weight.placements, x.placements, strict=True)]
    x = x.redistribute(mesh, [feature for feature, *_ in roles])
    local_x = x.to_local(grad_placements=[grad for _, grad, *_ in roles])
    local_weight = weight.to_local(grad_placements=[grad for *_, grad, _ in roles])
    shape = (*x.shape[:-1], weight.shape[0])
    return DTensor.from_local(
        logits(local_x, local_weight),
        mesh,
        [output for *_, output in roles],
        shape=torch.Size(shape),
        stride=torch.empty(shape, device="meta").stride(),
    )


def _role(of_weight: Placement, of_x: Placement, dim: int) -> tuple[Placement, Placement, Placement, Placement]:
    """Placements on one dimension of the mesh: of the features, their gradient, the weight's gradient, the logits."""
    if isinstance(of_weight, Shard):
        return Replicate(), Partial(), of_weight, Shard(dim - 1)
    if isinstance(of_x, Shard) and of_x.dim < dim - 1:
        return of_x, of_x, Partial(), of_x
    return Replicate(), Replicate(), Replicate(), Replicate()


def draw_shard(manifold, weight: Tensor, dtype: torch.dtype) -> None:
    """Fill a `weight` that is sharded over classes with a draw from the invariant law, independent on every shard.

    The seed is rank 0's, so copies agree; the draw depends on the number of shards.
    """
    assert isinstance(weight, DTensor)
    mesh = weight.device_mesh
    _check_placements(weight)
    common = distribute_tensor(torch.randint(2**62, ()), mesh, [Replicate()] * mesh.ndim)
    shard = 0
    for placement, size, coordinate in zip(weight.placements, mesh.shape, mesh.get_coordinate() or (), strict=True):
        shard = shard * size + coordinate if isinstance(placement, Shard) else shard
    local = weight.to_local()
    generator = torch.Generator(local.device).manual_seed(int(common.to_local()) + shard)
    local.copy_(manifold.random_uniform(*local.shape, generator=generator, device=local.device, dtype=dtype))


def _check_weight(weight: DTensor) -> None:
    _check_placements(weight)
    check_no_empty_shard("GrassmannClassifier", weight.shape[0], weight.device_mesh, weight.placements)


def _check_placements(weight: DTensor) -> None:
    for placement in weight.placements:
        if not placement.is_replicate() and placement != Shard(0):
            raise ValueError(
                f"GrassmannClassifier: weight is placed as {weight.placements}, expected Shard(0) or Replicate(): "
                "its first dimension counts the classes, and a class must be held whole; "
                "call weight.redistribute(placements=[Shard(0)])"
            )


def check_no_empty_shard(where: str, classes: int, mesh: DeviceMesh, placements) -> None:
    """torch splits as `torch.chunk` does, so that the last processes may get nothing; its parallel loss then skips a
    reduction that the others take part in."""
    smallest = classes
    for placement, size in zip(placements, mesh.shape, strict=True):
        if isinstance(placement, Shard):
            smallest -= (size - 1) * -(-smallest // size)
    if smallest < 1:
        raise ValueError(
            f"{where}: {classes} classes over {mesh.shape} processes leave some process without a class; "
            "use fewer processes for the head"
        )
