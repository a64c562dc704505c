"""Batch normalisation over two processes is that of the joined batch; their parts may differ in size."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from tests.distributed.distributed_models import check, mesh, whole
from torchriemann.layers import GyroBatchNorm
from torchriemann.manifolds import Lorentz, Manifold, SPDAffineInvariant, SPDBuresWasserstein, SPDLogCholesky

F64 = torch.float64
MATRICES, LINE = ((3, 3), 0.3), ((4,), 0.4)
SPACES: dict[str, tuple[Manifold, tuple, dict]] = {
    "affine-invariant": (SPDAffineInvariant(), MATRICES, {"karcher_steps": 2}),
    "log-Cholesky": (SPDLogCholesky(), MATRICES, {}),
    "hyperboloid": (Lorentz(), LINE, {"karcher_steps": None, "stats_grad": "implicit"}),
    "domains": (Lorentz(), LINE, {"num_domains": 3, "momentum": None}),
    "Bures-Wasserstein": (SPDBuresWasserstein(), ((3, 3), 0.1), {"form": "tangent"}),
}


def batch(manifold: Manifold, shape: tuple, std: float) -> tuple[Tensor, Tensor, Tensor]:
    """All items, weights of a loss, and domains; one item is NaN."""
    g = torch.Generator().manual_seed(0)
    x = manifold.random_normal(9, 2, *shape, std=std, generator=g, dtype=F64)
    x[3, 1] = torch.nan
    return x, torch.randn(x.shape, generator=g, dtype=F64), torch.tensor([0, 2, 0, 0, 2, 2, 0, 2, 0])


def mine(x: Tensor, sizes: list[int]) -> Tensor:
    return x.split(sizes)[dist.get_rank()]


def loss_of(norm: nn.Module, x: Tensor, w: Tensor, domain: Tensor | None) -> Tensor:
    y = norm(x) if domain is None else norm(x, domain)
    return (w * y)[x.isfinite()].sum()


@check(*[(name, sizes) for name in SPACES for sizes in ([5, 4], [7, 2], [9, 0])])
def two_parts_of_a_batch_are_one(name: str, sizes: list[int], folder: Path) -> None:
    manifold, (shape, std), options = SPACES[name]
    joined = GyroBatchNorm(manifold, shape, 2, dtype=F64, sync=False, **options)
    with torch.no_grad():
        joined.scale.fill_(-1.0)
        joined.bias.normal_(std=0.2, generator=torch.Generator().manual_seed(1))
    split = copy.deepcopy(joined)
    split.sync = True
    x, w, domain = batch(manifold, shape, std)
    index = domain if "num_domains" in options else None
    x.requires_grad_()
    loss_of(joined, x, w, index).backward()
    part = mine(x.detach(), sizes).clone().requires_grad_()
    loss_of(split, part, mine(w, sizes), None if index is None else mine(index, sizes)).backward()
    assert float((part.grad - mine(x.grad, sizes)).abs().sum()) <= 1e-10
    for a, b in zip(split.parameters(), joined.parameters(), strict=True):
        dist.all_reduce(a.grad)
        assert float((a.grad - b.grad).abs().max()) <= 1e-10
    for a, b in zip(split.buffers(), joined.buffers(), strict=True):
        assert float((a - b).abs().max()) <= 1e-10
    split.refit(mine(x.detach(), sizes), None if index is None else 1)
    joined.refit(x.detach(), None if index is None else 1)
    assert float((split.running_mean - joined.running_mean).abs().max()) <= 1e-10


def net() -> nn.Sequential:
    torch.manual_seed(0)
    norm = GyroBatchNorm(SPDLogCholesky(), (3, 3), 2, dtype=F64)
    return nn.Sequential(norm, nn.Flatten(), nn.Linear(18, 5, dtype=F64), nn.Linear(5, 1, dtype=F64))


def train(model: nn.Module, x: Tensor, w: Tensor, part: float) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(4):
        optimizer.zero_grad()
        (part * (w * model(x).squeeze(-1).tanh()).sum()).backward()
        optimizer.step()


@check(("ddp",), ("fsdp",))
def training_in_two_processes_is_training_in_one(kind: str, folder: Path) -> None:
    x, _, _ = batch(SPDLogCholesky(), *MATRICES)
    x, w = x[4:], torch.tensor([1.0, -2.0, 3.0, -1.0, 2.0], dtype=F64)
    single = net()
    single[0].sync = False  # type: ignore[assignment]
    train(single, x, w, 1.0)
    model = net()
    if kind == "ddp":
        model = DistributedDataParallel(model)
    else:
        fully_shard(model[0], mesh=mesh())
        fully_shard(model, mesh=mesh())
    sizes = [3, 2]
    train(model, mine(x, sizes), mine(w, sizes), 2.0)  # gradients are averaged over the processes
    ours = {k.removeprefix("module."): whole(v) for k, v in model.state_dict().items()}
    for name, value in single.state_dict().items():
        assert float((ours[name] - value).abs().max()) <= 1e-10, name
    assert float((single[0].bias.abs()).max().detach()) > 1e-3
