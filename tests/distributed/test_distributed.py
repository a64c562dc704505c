"""Two gloo processes are one process: data parallel, fully sharded, class parallel, and through checkpoints.

The checks stand in `distributed_*.py` and are subtests of one test: a pair of processes takes seconds to start,
and runs all of them.
"""

from __future__ import annotations

import warnings

import torch
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load

from tests.distributed import (
    distributed_checkpoints,
    distributed_classes,
    distributed_normalization,
    distributed_sharded,
)
from tests.distributed.distributed_checkpoints import MODELS
from tests.distributed.distributed_models import (
    OPTIMIZERS,
    STEPS,
    Net,
    assert_on_manifolds,
    assert_same,
    checks_of,
    data,
    train,
    truth,
    values,
)
from tests.distributed.distributed_ranks import run_checks
from torchriemann.optim import param_groups

CHECKS = {
    name: check
    for module in (distributed_sharded, distributed_classes, distributed_checkpoints, distributed_normalization)
    for name, check in checks_of(module).items()
}


def test_two_processes_are_one(subtests, tmp_path):
    for name, report in run_checks(CHECKS, tmp_path).items():
        with subtests.test(name):
            assert not report, report
    for kind in MODELS:
        for optimizer in OPTIMIZERS:
            with subtests.test(f"a checkpoint of two processes goes on in one {kind} {optimizer}"):
                goes_on_in_one_process(tmp_path / f"{kind}_{optimizer}", optimizer)


def goes_on_in_one_process(checkpoint, optimizer):
    model = Net(torch.float64)
    stepper = OPTIMIZERS[optimizer](param_groups(model))
    model_state, optimizer_state = get_state_dict(model, stepper)
    state = {"model": model_state, "optimizer": optimizer_state}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # that is what is tested
        load(state, checkpoint_id=checkpoint)
    set_state_dict(model, stepper, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    train(model, stepper, *data(torch.float64), STEPS - 2)
    ours = values(model)
    assert_on_manifolds(ours)
    assert_same(ours, truth(optimizer, torch.float64), 1e-12)
