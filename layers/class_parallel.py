"""Class heads of which every process holds some classes: a class is a point, so points are never cut."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ParallelStyle
from torch.distributed.tensor.placement_types import Placement

from torchriemann.manifolds.parameter import relabel

from .classifiers import GrassmannClassifier


class ClassParallel(ParallelStyle):
    """Shard a `GrassmannClassifier` over its classes, for ``torch.distributed.tensor.parallel.parallelize_module``.

    Each process keeps, differentiates and steps its own classes only; the logits are a `DTensor`, sharded over classes,
    which `torch.distributed.tensor.parallel.loss_parallel` takes to cross-entropy without gathering it.
    ``logits.full_tensor()`` gathers.

    Args:
        input_layouts: how the processes hold the features. ``Shard(0)``: each a part of the batch, of equal size; the
            parts are gathered, and their gradients summed and handed back. ``Replicate()``: each the whole batch, the
            same everywhere. There is no default, because a wrong one would go unnoticed.

    Raises ``ValueError`` for another kind of module, for another layout, for a head that is distributed already, and
    for fewer classes than leave one for each process.

    >>> parallelize_module(model, mesh, {"head": ClassParallel(input_layouts=Shard(0))})  # doctest: +SKIP
    """

    def __init__(self, *, input_layouts: Placement) -> None:
        super().__init__()
        if input_layouts not in (Replicate(), Shard(0)):
            raise ValueError(f"ClassParallel: input_layouts must be Replicate() or Shard(0), got {input_layouts!r}")
        self.input_layouts = input_layouts

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if not isinstance(module, GrassmannClassifier):
            raise ValueError(f"ClassParallel: the module must be a GrassmannClassifier, got {type(module).__name__}")
        placements = [Shard(0)] * device_mesh.ndim
        whole = module.weight
        if isinstance(whole, DTensor):
            raise ValueError(
                f"ClassParallel: weight is distributed already, as {whole.placements}; apply this style first"
            )
        _check_no_empty_shard("ClassParallel", whole.shape[0], device_mesh, placements)
        # From rank 0's values: all processes then hold parts of one head, whatever their seeds.
        shard = distribute_tensor(whole.data.as_subclass(Tensor), device_mesh, placements)
        module.weight = relabel(nn.Parameter(shard, whole.requires_grad), whole.manifold)  # type: ignore[assignment]
        layouts = [self.input_layouts] * device_mesh.ndim

        def lay_out(_, args, kwargs):
            laid_out = {name: _laid_out(x, device_mesh, layouts) for name, x in kwargs.items()}
            return tuple(_laid_out(x, device_mesh, layouts) for x in args), laid_out

        module.register_forward_pre_hook(lay_out, with_kwargs=True)
        return module


def _laid_out(x: Tensor, mesh: DeviceMesh, layouts: list[Placement]) -> Tensor:
    return x if isinstance(x, DTensor) else DTensor.from_local(x, mesh, layouts)


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
    _check_no_empty_shard("GrassmannClassifier", weight.shape[0], weight.device_mesh, weight.placements)


def _check_placements(weight: DTensor) -> None:
    for placement in weight.placements:
        if not placement.is_replicate() and placement != Shard(0):
            raise ValueError(
                f"GrassmannClassifier: weight is placed as {weight.placements}, expected Shard(0) or Replicate(): "
                "its first dimension counts the classes, and a class must be held whole; "
                "call weight.redistribute(placements=[Shard(0)])"
            )


def _check_no_empty_shard(where: str, classes: int, mesh: DeviceMesh, placements) -> None:
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
