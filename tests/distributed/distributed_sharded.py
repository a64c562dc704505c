"""Data parallel and fully sharded training is training in one process; what cuts a point is refused."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.nn.parallel import DistributedDataParallel

from tests.distributed.distributed_models import (
    CLASSES,
    OPTIMIZERS,
    STEPS,
    Net,
    assert_is_truth,
    assert_on_manifolds,
    assert_same,
    check,
    cross_entropy,
    data,
    every_optimizer,
    mesh,
    my_data,
    sharded,
    train,
    truth,
    values,
    whole,
)
from torchriemann.layers import GrassmannClassifier, ManifoldModule
from torchriemann.manifolds import Grassmann, Sphere, Stiefel
from torchriemann.optim import RiemannianSGD, param_groups

# ---- data parallel --------------------------------------------------------------------------------------------------


@every_optimizer
def ddp_is_one_process(optimizer: str, dtype: torch.dtype, folder: Path) -> None:
    model = DistributedDataParallel(Net(dtype, batched=False))
    train(model, OPTIMIZERS[optimizer](param_groups(model)), *my_data(dtype))
    assert_is_truth(model, optimizer, dtype, batched=False)


@check()
def ddp_accumulates_gradients_without_communication(folder: Path) -> None:
    dtype = torch.float64
    model = DistributedDataParallel(Net(dtype))
    optimizer = OPTIMIZERS["adam"](param_groups(model))
    x, y = my_data(dtype)
    for _ in range(STEPS):
        optimizer.zero_grad()
        parts = list(zip(x.chunk(3), y.chunk(3), strict=True))
        for i, (part, labels) in enumerate(parts):
            with contextlib.nullcontext() if i == len(parts) - 1 else model.no_sync():
                (cross_entropy(model(part), labels) / len(parts)).backward()
        optimizer.step()
    assert_is_truth(model, "adam", dtype)


# ---- fully sharded --------------------------------------------------------------------------------------------------


@every_optimizer
def fsdp_is_one_process(optimizer: str, dtype: torch.dtype, folder: Path) -> None:
    model = sharded(dtype)
    stepper = OPTIMIZERS[optimizer](param_groups(model))
    train(model, stepper, *my_data(dtype))
    assert_is_truth(model, optimizer, dtype)
    # Every process holds, and keeps state of, its own classes only.
    mine = [4, 3][dist.get_rank()]
    assert model.head.weight.to_local().shape == (mine, 8, 2)
    state = stepper.state[model.head.weight]
    for name, value in state.items():
        if name != "step":
            assert value.placements == (Shard(0),), name
            assert value.to_local().shape[0] == mine and value.shape[0] == CLASSES, name


@check()
def fsdp_accumulates_gradients(folder: Path) -> None:
    dtype = torch.float64
    model = sharded(dtype)
    optimizer = OPTIMIZERS["sgd"](param_groups(model))
    x, y = my_data(dtype)
    for _ in range(STEPS):
        optimizer.zero_grad()
        for i, (part, labels) in enumerate(zip(x.chunk(2), y.chunk(2), strict=True)):
            model.set_requires_gradient_sync(i == 1)
            (cross_entropy(model(part), labels) / 2).backward()
        optimizer.step()
    assert_is_truth(model, "sgd", dtype)


@check()
def fsdp_groups_read_the_registry(folder: Path) -> None:
    model = sharded(torch.float64)
    groups = {g["manifold"]: g for g in param_groups(model)}
    assert {m: g["param_names"] for m, g in groups.items()} == {
        Stiefel(): ["frame"],
        Sphere(): ["directions"],
        None: ["linear.weight", "linear.bias"],
        Grassmann(): ["head.weight"],
    }
    assert all(type(p) is DTensor for g in groups.values() for p in g["params"])
    # The labels are also on the tensors, so that plain parameters() is stepped alike.
    train(model, OPTIMIZERS["adam"](model.parameters()), *my_data(torch.float64))
    assert_is_truth(model, "adam", torch.float64)


@check()
def fsdp_that_cuts_a_point_is_refused(folder: Path) -> None:
    model = Net(torch.float64, batched=False)
    fully_shard(model, mesh=mesh())
    with pytest.raises(ValueError, match=r"parameter frame.*Stiefel.*dimension 0.*ignored_params"):
        param_groups(model)
    with pytest.raises(ValueError, match="Stiefel.*dimension 0.*ignored_params"):
        RiemannianSGD(model.parameters())


@check()
def fsdp_leaves_an_ignored_point_to_its_owner(folder: Path) -> None:
    dtype = torch.float64
    model = Net(dtype, batched=False)
    fully_shard(model, mesh=mesh(), ignored_params={model.frame})
    assert not isinstance(model.frame, DTensor)

    def average(p: Tensor) -> None:
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()

    model.frame.register_post_accumulate_grad_hook(average)
    train(model, OPTIMIZERS["adam"](param_groups(model)), *my_data(dtype))
    assert_is_truth(model, "adam", dtype, batched=False)


class Bank(ManifoldModule):
    """Four points of a sphere, with a batch dimension of one before them."""

    bank: Tensor

    def __init__(self) -> None:
        super().__init__()
        points = Sphere().random(1, 4, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        self.register_manifold_parameter("bank", points, Sphere())

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.bank[0].mT).square()


@check()
def fsdp_shards_the_dimension_it_is_told(folder: Path) -> None:
    results = []
    for split in (False, True):
        model = Bank()
        if split:
            fully_shard(model, mesh=mesh(), shard_placement_fn=lambda p: Shard(1))
            assert model.bank.to_local().shape == (1, 2, 6)
        optimizer = RiemannianSGD(param_groups(model), lr=0.1, momentum=0.9)
        x = my_data(torch.float64)[0] if split else data(torch.float64)[0]
        for _ in range(STEPS):
            optimizer.zero_grad()
            model(x).sum(1).mean().backward()
            optimizer.step()
        results.append(values(model))
    assert_same(results[1], results[0], 1e-12)
    model = Bank()
    fully_shard(model, mesh=mesh(), shard_placement_fn=lambda p: Shard(2))
    with pytest.raises(ValueError, match="parameter bank.*Sphere.*dimension 2"):
        param_groups(model)


@check()
def fsdp_in_bfloat16_keeps_the_points_in_float32(folder: Path) -> None:
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    model = sharded(torch.float32, mp_policy=policy)
    optimizer = OPTIMIZERS["sgd"](param_groups(model))
    x, y = my_data(torch.float32)
    seen = []
    model.head.register_forward_pre_hook(lambda module, args: seen.append((module.weight.dtype, args[0].dtype)))
    train(model, optimizer, x, y)
    assert set(seen) == {(torch.bfloat16, torch.bfloat16)}
    assert model.head.weight.dtype == torch.float32
    ours = values(model)
    assert_on_manifolds(ours)  # to the tolerance of float32
    exact = truth("sgd", torch.float32)
    start = values(Net(torch.float32))
    for name, value in ours.items():
        # eight bits in every gradient, five steps of it
        assert (value - exact[name]).norm() < 0.05 * (exact[name] - start[name]).norm(), name


@check()
def fsdp_clips_as_one_process(folder: Path) -> None:
    def clipped(model, x, y):
        optimizer = OPTIMIZERS["sgd"](param_groups(model))
        norms = []
        for _ in range(STEPS):
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            norms.append(float(whole(nn.utils.clip_grad_norm_(model.parameters(), 0.05))))
            optimizer.step()
        return norms, values(model)

    norms, ours = clipped(sharded(torch.float64), *my_data(torch.float64))
    true_norms, true_values = clipped(Net(torch.float64), *data(torch.float64))
    assert min(true_norms) > 0.05
    torch.testing.assert_close(norms, true_norms, rtol=1e-12, atol=0)
    assert_same(ours, true_values, 1e-12)


@check()
def hybrid_sharding_steps_copies_alike(folder: Path) -> None:
    model = Net(torch.float64)
    grid = init_device_mesh("cpu", (2, 1), mesh_dim_names=("copies", "shards"))
    fully_shard(model, mesh=grid)
    assert model.head.weight.placements == (Replicate(), Shard(0))
    train(model, OPTIMIZERS["adam"](param_groups(model)), *my_data(torch.float64))
    assert_is_truth(model, "adam", torch.float64)


@check(*[(o,) for o in OPTIMIZERS])
def fsdp_starts_on_the_meta_device(optimizer: str, folder: Path) -> None:
    torch.manual_seed(dist.get_rank())
    with torch.device("meta"):
        heads = nn.Sequential(GrassmannClassifier(8, CLASSES, 2), GrassmannClassifier(CLASSES, 1, 2))
    for module in (*heads, heads):
        fully_shard(module, mesh=mesh())
    heads.to_empty(device="cpu")
    for head in heads:
        head.reset_parameters()
    stepper = OPTIMIZERS[optimizer](param_groups(heads))
    for _ in range(STEPS):  # one process has nothing of the second head to step
        stepper.zero_grad()
        heads(torch.randn(3, 8)).sum().backward()
        stepper.step()
    assert heads[1].weight.to_local().shape[0] == [1, 0][dist.get_rank()]
    for head in heads:
        Grassmann().assert_check_point_on_manifold(whole(head.weight))


# ---- a step that fails, fails everywhere ----------------------------------------------------------------------------


@check(*[(o,) for o in OPTIMIZERS])
def a_bad_gradient_on_one_process_stops_both(optimizer: str, folder: Path) -> None:
    model = sharded(torch.float64)
    stepper = OPTIMIZERS[optimizer](param_groups(model), check_finite=True)
    train(model, stepper, *my_data(torch.float64), steps=2)
    before = values(model)
    cross_entropy(model(my_data(torch.float64)[0]), my_data(torch.float64)[1]).backward()
    if dist.get_rank() == 1:
        model.head.weight.grad.to_local()[0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="nothing was changed"):
        stepper.step()
    assert_same(values(model), before, 0.0)
