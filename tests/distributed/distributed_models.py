"""The model, the data, the one-process truth and the register of the distributed tests."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from torchriemann.layers import GrassmannClassifier, ManifoldModule
from torchriemann.manifolds import Grassmann, Sphere, Stiefel
from torchriemann.optim import RiemannianAdam, RiemannianSGD, param_groups

CLASSES = 7  # over two processes: four and three
BATCH = 12
STEPS = 5
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}

OPTIMIZERS = {
    "adam": functools.partial(RiemannianAdam, lr=1e-2, amsgrad=True, weight_decay=0.1),
    "sgd": functools.partial(RiemannianSGD, lr=1e-1, momentum=0.9, weight_decay=0.1),
}


class Net(ManifoldModule):
    """A flat layer, a frame that turns its output, directions to compare with, and a Grassmann head.

    `frame` is one matrix ``8,5`` or a batch of one ``1,8,5``; of a sharding by rows only the second is a point.
    """

    frame: Tensor
    directions: Tensor

    def __init__(self, dtype: torch.dtype = torch.float64, batched: bool = True) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        self.linear = nn.Linear(6, 8, dtype=dtype)
        shape = (1, 8, 5) if batched else (8, 5)
        self.register_manifold_parameter("frame", Stiefel().random(*shape, generator=g, dtype=dtype), Stiefel())
        self.register_manifold_parameter("directions", Sphere().random(3, 5, generator=g, dtype=dtype), Sphere())
        self.head = GrassmannClassifier(8, CLASSES, 2, dtype=dtype)
        with torch.no_grad():
            self.head.weight.copy_(Grassmann().random(CLASSES, 8, 2, generator=g, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x).tanh() @ self.frame.reshape(8, 5)
        return self.head(torch.cat([z, z @ self.directions.mT], -1))


def data(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(BATCH, 6, generator=g, dtype=dtype), torch.randint(CLASSES, (BATCH,), generator=g)


def my_part(whole: Tensor) -> Tensor:
    """This process's part of the batch."""
    return whole.chunk(dist.get_world_size())[dist.get_rank()]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Small logits, so that no gradient is as small as its rounding."""
    return nn.functional.cross_entropy(0.1 * logits, y)


def train(model: nn.Module, optimizer, x: Tensor, y: Tensor, steps: int = STEPS) -> list[float]:
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def whole(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.as_subclass(Tensor)


def values(model: nn.Module) -> dict[str, Tensor]:
    """All parameters, gathered, by their names in the bare model."""
    return {name.removeprefix("module."): whole(p) for name, p in model.named_parameters()}


@functools.cache
def truth(optimizer: str, dtype: torch.dtype, batched: bool = True, steps: int = STEPS) -> dict[str, Tensor]:
    """The parameters after training in one process on the whole batch."""
    model = Net(dtype, batched)
    train(model, OPTIMIZERS[optimizer](param_groups(model)), *data(dtype), steps)
    return values(model)


def assert_same(ours: dict[str, Tensor], truth: dict[str, Tensor], tolerance: float) -> None:
    assert ours.keys() == truth.keys()
    for name, value in ours.items():
        error = float((value - truth[name]).abs().max())
        assert error <= tolerance, f"{name} is {error:.1e} off"


def assert_on_manifolds(parameters: dict[str, Tensor]) -> None:
    manifolds = {"frame": Stiefel(), "directions": Sphere(), "head.weight": Grassmann()}
    for name, manifold in manifolds.items():
        manifold.assert_check_point_on_manifold(parameters[name])


def assert_moved(parameters: dict[str, Tensor]) -> None:
    """Every point has left its start, so that an equality is not one of things that stood still."""
    frame = parameters["frame"]
    start = values(Net(frame.dtype, batched=frame.dim() == 3))
    for name in ("frame", "directions", "head.weight"):
        assert (parameters[name] - start[name]).abs().max() > 1e-3, name


# ---- what all checks use --------------------------------------------------------------------------------------------

Check = Callable[[Path], None]


def check(*cases: tuple):
    """Mark a check: both processes run it, once a case; a case is the arguments before the folder."""

    def mark(function):
        function.cases = cases or ((),)
        return function

    return mark


every_optimizer = check(*[(o, d) for o in OPTIMIZERS for d in TOLERANCE])


def checks_of(module: ModuleType) -> dict[str, Check]:
    """The marked functions of a module, by name and case."""
    found = {}
    for name, function in vars(module).items():
        for case in getattr(function, "cases", ()):
            found[" ".join([name.replace("_", " "), *map(str, case)])] = functools.partial(function, *case)
    return found


@functools.cache
def mesh():
    """All processes in a row."""
    return init_device_mesh("cpu", (dist.get_world_size(),))


def my_data(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    x, y = data(dtype)
    return my_part(x), my_part(y)


def sharded(dtype: torch.dtype, **options) -> Net:
    model = Net(dtype)
    fully_shard(model.head, mesh=mesh(), **options)
    fully_shard(model, mesh=mesh(), **options)
    return model


def assert_is_truth(model: nn.Module, optimizer: str, dtype: torch.dtype, batched: bool = True) -> None:
    ours = values(model)
    assert_on_manifolds(ours)
    assert_moved(ours)
    assert_same(ours, truth(optimizer, dtype, batched), TOLERANCE[dtype])
