"""Distributed checkpoints go on where they stopped, in the same layout and in others."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import loss_parallel, parallelize_module

from tests.distributed.distributed_models import (
    OPTIMIZERS,
    STEPS,
    Net,
    assert_is_truth,
    assert_on_manifolds,
    assert_same,
    check,
    data,
    mesh,
    my_data,
    sharded,
    train,
    values,
)
from torchriemann.layers.class_parallel import ClassParallel
from torchriemann.optim import param_groups


def class_parallel_net() -> Net:
    model = Net(torch.float64)
    parallelize_module(model, mesh(), {"head": ClassParallel(input_layouts=Replicate())})
    return model


MODELS = {"fsdp": lambda: sharded(torch.float64), "class_parallel": class_parallel_net}


def steps_of(kind: str, model: nn.Module, optimizer, steps: int) -> None:
    x, y = my_data(torch.float64) if kind == "fsdp" else data(torch.float64)
    with loss_parallel() if kind == "class_parallel" else contextlib.nullcontext():
        train(model, optimizer, x, y, steps)


@check(*[(kind, o) for kind in MODELS for o in OPTIMIZERS])
def checkpoints_go_on_where_they_stopped(kind: str, optimizer: str, folder: Path) -> None:
    make = OPTIMIZERS[optimizer]
    model = MODELS[kind]()
    stepper = make(param_groups(model))
    steps_of(kind, model, stepper, 2)
    model_state, optimizer_state = get_state_dict(model, stepper)
    # test_distributed.py reads it in one process and goes on there
    save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=folder / f"{kind}_{optimizer}")
    again = MODELS[kind]()
    fresh = make(param_groups(again))
    with torch.no_grad():
        for p in again.parameters():
            p.mul_(0)
    model_state, optimizer_state = get_state_dict(again, fresh)
    state = {"model": model_state, "optimizer": optimizer_state}
    load(state, checkpoint_id=folder / f"{kind}_{optimizer}")
    set_state_dict(again, fresh, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    steps_of(kind, again, fresh, STEPS - 2)
    assert_is_truth(again, optimizer, torch.float64)


@check(*[(kind,) for kind in MODELS])
def whole_state_dicts_go_in_and_out(kind: str, folder: Path) -> None:
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    trained = Net(torch.float64)
    train(trained, OPTIMIZERS["sgd"](param_groups(trained)), *data(torch.float64), 2)
    model = MODELS[kind]()
    state = {n: p.as_subclass(Tensor) for n, p in trained.state_dict().items()} if dist.get_rank() == 0 else {}
    set_model_state_dict(model, state, options=options)
    stepper = OPTIMIZERS["adam"](param_groups(model))  # the labels are still there
    assert_same(values(model), values(trained), 0.0)
    steps_of(kind, model, stepper, 1)
    full = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    assert_same({n: t.as_subclass(Tensor) for n, t in full.items()}, values(model), 0.0)
    assert_on_manifolds(full)
