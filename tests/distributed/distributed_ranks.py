"""Two processes for test_distributed.py: they start once, run every check, and leave a report a check."""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

WORLD = 2
TIMEOUT = timedelta(seconds=60)  # of a collective that one process never joins


def run_checks(checks: dict[str, Callable[[Path], None]], folder: Path) -> dict[str, str]:
    """Run every check on two gloo processes; name of the check -> tracebacks, empty where it passed."""
    store = dist.TCPStore("localhost", 0, WORLD + 1, is_master=True, wait_for_workers=False)  # type: ignore
    context = spawn(_rank, args=(store.port, checks, folder), nprocs=WORLD, join=False)
    while not context.join():
        pass
    reports = [json.loads((folder / f"report_{rank}.json").read_text()) for rank in range(WORLD)]
    return {name: "\n".join(filter(None, (report[name] for report in reports))) for name in checks}


def _rank(rank: int, port: int, checks: dict[str, Callable[[Path], None]], folder: Path) -> None:
    faulthandler.enable()
    torch.set_num_threads(1)
    store = dist.TCPStore("localhost", port, is_master=False)  # type: ignore
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD, timeout=TIMEOUT)
    report = {}
    for name, check in checks.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)  # what the library warns of
                check(folder)
            report[name] = ""
        except Exception:
            report[name] = f"rank {rank}:\n{traceback.format_exc()}"
        dist.barrier()
    (folder / f"report_{rank}.json").write_text(json.dumps(report))
    dist.destroy_process_group()
    # Without the interpreter's teardown, in which a process was once seen to abort with nothing left to check.
    sys.stderr.flush()
    os._exit(0)
