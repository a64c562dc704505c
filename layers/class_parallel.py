"""Class heads of which every process holds some classes: a class is a point, so points are never cut."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ParallelStyle
from torch.distributed.tensor.placement_types import Placement

from torchriemann.manifolds.parameter import relabel

from .class_shards import check_no_empty_shard
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

    Raises ``ValueError`` for another kind of module, for a head in "tangent" form, for another layout, for a head that
    is distributed already, and for fewer classes than leave one for each process.

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
        if module.parametrization != "manifold":
            raise ValueError(
                f"ClassParallel: the head has parametrization={module.parametrization!r}; make one with "
                'parametrization="manifold"'
            )
        placements = [Shard(0)] * device_mesh.ndim
        whole = module.weight
        if isinstance(whole, DTensor):
            raise ValueError(
                f"ClassParallel: weight is distributed already, as {whole.placements}; apply this style first"
            )
        check_no_empty_shard("ClassParallel", whole.shape[0], device_mesh, placements)
        # From rank 0's values: all processes then hold parts of one head, whatever their seeds.
        shard = distribute_tensor(whole.data.as_subclass(Tensor), device_mesh, placements)
        module.weight = relabel(nn.Parameter(shard, whole.requires_grad), module.manifold)  # type: ignore[assignment]
        layouts = [self.input_layouts] * device_mesh.ndim

        def lay_out(_, args, kwargs):
            laid_out = {name: _laid_out(x, device_mesh, layouts) for name, x in kwargs.items()}
            return tuple(_laid_out(x, device_mesh, layouts) for x in args), laid_out

        module.register_forward_pre_hook(lay_out, with_kwargs=True)
        return module


def _laid_out(x: Tensor, mesh: DeviceMesh, layouts: list[Placement]) -> Tensor:
    return x if isinstance(x, DTensor) else DTensor.from_local(x, mesh, layouts)
