"""A head that is sharded over its classes is the head of one process; what would be wrong is refused."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import loss_parallel, parallelize_module

from tests.distributed.distributed_models import (
    BATCH,
    CLASSES,
    OPTIMIZERS,
    STEPS,
    TOLERANCE,
    Net,
    assert_is_truth,
    assert_same,
    check,
    cross_entropy,
    data,
    every_optimizer,
    mesh,
    my_part,
    train,
    values,
    whole,
)
from torchriemann.layers import GrassmannClassifier
from torchriemann.layers.class_parallel import ClassParallel
from torchriemann.manifolds import Grassmann
from torchriemann.optim import param_groups


def both_heads(dtype: torch.dtype, layout) -> tuple[GrassmannClassifier, GrassmannClassifier, Tensor, Tensor]:
    """The head in one process and over classes; the features of this process and the labels of all."""
    single, split = Net(dtype).head, Net(dtype).head
    parallelize_module(split, mesh(), ClassParallel(input_layouts=layout))
    x = torch.randn(BATCH, 8, generator=torch.Generator().manual_seed(3), dtype=dtype)
    return single, split, x, data(dtype)[1]


LAYOUTS = [(layout, how) for layout in (Shard(0), Replicate()) for how in ("loss_parallel", "gathered")]


@check(*[(*case, d) for case in LAYOUTS for d in TOLERANCE])
def class_parallel_is_one_process(layout, how: str, dtype: torch.dtype, folder: Path) -> None:
    single, split, x, y = both_heads(dtype, layout)
    mine = (my_part(x) if layout == Shard(0) else x).clone().requires_grad_()
    x.requires_grad_()
    steppers = [OPTIMIZERS["adam"](param_groups(head)) for head in (single, split)]
    for _ in range(STEPS):
        for stepper in steppers:
            stepper.zero_grad()
        loss = cross_entropy(single(x), y)
        loss.backward()
        logits = split(mine)
        assert logits.placements == (Shard(1),) and logits.shape == (BATCH, CLASSES)
        with loss_parallel() if how == "loss_parallel" else contextlib.nullcontext():
            split_loss = cross_entropy(logits if how == "loss_parallel" else logits.full_tensor(), y)
            split_loss.backward()
        assert abs(float(split_loss.detach()) - float(loss.detach())) <= TOLERANCE[dtype]
        assert split.weight.grad.placements == (Shard(0),)
        for stepper in steppers:
            stepper.step()
    truth_x = my_part(x.grad) if layout == Shard(0) else x.grad
    gradients = {"x": truth_x, "weight": single.weight.grad}
    assert_same({"x": mine.grad, "weight": whole(split.weight.grad)}, gradients, 10 * TOLERANCE[dtype])
    assert_same(values(split), values(single), TOLERANCE[dtype])
    Grassmann().assert_check_point_on_manifold(split.weight.to_local())
    assert split.weight.to_local().shape[0] == [4, 3][dist.get_rank()]


@check()
def class_parallel_communicates_what_the_guide_counts(folder: Path) -> None:
    _, split, x, y = both_heads(torch.float32, Replicate())
    with CommDebugMode() as comm, loss_parallel():
        cross_entropy(split(x.requires_grad_()), y).backward()
    # maximum, sum of exponentials, true logit; and the gradient of the features
    assert {str(op): n for op, n in comm.get_comm_counts().items()} == {"c10d_functional.all_reduce": 4}
    _, split, x, y = both_heads(torch.float32, Shard(0))
    with CommDebugMode() as comm, loss_parallel():
        cross_entropy(split(my_part(x).requires_grad_()), y).backward()
    assert {str(op).split(".")[1]: n for op, n in comm.get_comm_counts().items()} == {
        "all_reduce": 3,
        "all_gather_into_tensor": 1,
        "reduce_scatter_tensor": 1,
    }


@every_optimizer
def class_parallel_head_on_a_sharded_network(optimizer: str, dtype: torch.dtype, folder: Path) -> None:
    model = Net(dtype)
    parallelize_module(model, mesh(), {"head": ClassParallel(input_layouts=Shard(0))})
    fully_shard(model, mesh=mesh(), ignored_params=set(model.head.parameters()))
    # The loss is the mean over the whole batch, so the gradients of its parts are summed, not averaged.
    model.set_gradient_divide_factor(1.0)
    model.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sum
    stepper = OPTIMIZERS[optimizer](param_groups(model))
    x, y = my_part(data(dtype)[0]), data(dtype)[1]
    with loss_parallel():
        train(model, stepper, x, y)
    assert_is_truth(model, optimizer, dtype)


@check()
def class_parallel_splits_classes_and_batch_over_a_grid(folder: Path) -> None:
    if torch.__version__ < (2, 13):
        with pytest.raises(ValueError, match="loss_parallel.. only supports input on one-dimensional DeviceMesh"):
            classes_and_batch_over_a_grid()
    else:
        classes_and_batch_over_a_grid()


def classes_and_batch_over_a_grid() -> None:
    for shape in ((2, 1), (1, 2)):
        single, _, x, y = both_heads(torch.float64, Replicate())
        grid = init_device_mesh("cpu", shape, mesh_dim_names=("batch", "classes"))
        split = Net(torch.float64).head
        weight = distribute_tensor(single.weight.detach().as_subclass(Tensor), grid, [Replicate(), Shard(0)])
        split.weight = nn.Parameter(weight)
        features = distribute_tensor(x, grid, [Shard(0), Replicate()]).requires_grad_()
        labels = distribute_tensor(y, grid, [Shard(0), Replicate()])
        x.requires_grad_()
        steppers = [OPTIMIZERS["sgd"](param_groups(head)) for head in (single, split)]
        for _ in range(STEPS):
            for stepper in steppers:
                stepper.zero_grad()
            logits = split(features)
            assert logits.placements == (Shard(0), Shard(1))
            with loss_parallel():  # the mean is not to be had on a grid
                (nn.functional.cross_entropy(0.1 * logits, labels, reduction="sum") / BATCH).backward()
            cross_entropy(single(x), y).backward()
            for stepper in steppers:
                stepper.step()
        assert_same({"x": whole(features.grad), **values(split)}, {"x": x.grad, **values(single)}, 1e-12)


@check()
def class_parallel_refuses_what_would_be_wrong(folder: Path) -> None:
    def head(classes=4):
        return GrassmannClassifier(8, classes, 2)

    def with_weight(placement):
        split = head()
        split.weight = nn.Parameter(distribute_tensor(split.weight.detach().as_subclass(Tensor), mesh(), [placement]))
        return split

    x = distribute_tensor(torch.randn(3, 8), mesh(), [Replicate()])
    for dim in (1, 2):
        with pytest.raises(ValueError, match=rf"placed as \(Shard\(dim={dim}\),\), expected Shard\(0\) or Replicate"):
            with_weight(Shard(dim))(x)
        with pytest.raises(ValueError, match="held whole"):
            with_weight(Shard(dim)).reset_parameters()
        with pytest.raises(ValueError, match=f"parameter weight.*Grassmann.*dimension {dim}"):
            param_groups(with_weight(Shard(dim)))
    with pytest.raises(ValueError, match="x must be a DTensor on that mesh, got Tensor.*from_local"):
        with_weight(Shard(0))(torch.randn(3, 8))
    with pytest.raises(ValueError, match="1 classes over .* processes leave some process without a class"):
        parallelize_module(head(1), mesh(), ClassParallel(input_layouts=Replicate()))
    with pytest.raises(ValueError, match=r"distributed already, as \(Shard\(dim=0\),\)"):
        parallelize_module(with_weight(Shard(0)), mesh(), ClassParallel(input_layouts=Replicate()))
    with pytest.raises(ValueError, match="must be a GrassmannClassifier, got Linear"):
        parallelize_module(nn.Linear(2, 2), mesh(), ClassParallel(input_layouts=Replicate()))
    with pytest.raises(ValueError, match=r"must be Replicate\(\) or Shard\(0\), got Shard\(dim=1\)"):
        ClassParallel(input_layouts=Shard(1))
    with pytest.raises(ValueError, match=r"in_features = 8\), got \(3, 9\)"):
        with_weight(Shard(0))(distribute_tensor(torch.randn(3, 9), mesh(), [Replicate()]))


@check()
def class_parallel_starts_where_the_weights_are(folder: Path) -> None:
    torch.manual_seed(dist.get_rank())  # ranks that disagree: rank 0 decides
    split = parallelize_module(GrassmannClassifier(8, CLASSES, 2), mesh(), ClassParallel(input_layouts=Replicate()))
    torch.manual_seed(0)
    assert torch.equal(whole(split.weight), GrassmannClassifier(8, CLASSES, 2).weight.detach().as_subclass(Tensor))


@check()
def shards_are_drawn_where_they_lie(folder: Path) -> None:
    torch.manual_seed(dist.get_rank())
    with torch.device("meta"):
        split = GrassmannClassifier(8, 200, 2)
    parallelize_module(split, mesh(), ClassParallel(input_layouts=Replicate()))
    split.to_empty(device="cpu")
    split.reset_parameters()
    ((group),) = param_groups(split)
    assert group["manifold"] == Grassmann() and split.weight.to_local().shape == (100, 8, 2)
    drawn = whole(split.weight)
    Grassmann().assert_check_point_on_manifold(drawn)
    assert not torch.isclose(drawn[:100], drawn[100:]).any(-1).any(-1).any()  # every shard its own draw
    # rotation-invariant: the mean projector is (k/d) I; the deviation of an entry is below .25/sqrt(200)
    mean = (drawn @ drawn.mT).mean(0)
    assert (mean - 0.25 * torch.eye(8)).abs().max() < 0.09
    copies = GrassmannClassifier(8, 5, 2)
    weight = distribute_tensor(copies.weight.detach().as_subclass(Tensor), mesh(), [Replicate()])
    copies.weight = nn.Parameter(weight)
    copies.reset_parameters()
    everywhere = [torch.empty(5, 8, 2) for _ in range(dist.get_world_size())]
    dist.all_gather(everywhere, copies.weight.to_local().detach())
    assert torch.equal(*everywhere)
