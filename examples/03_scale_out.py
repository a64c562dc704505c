"""A Grassmann head of 3,000 classes, sharded over processes, against the same training in one process.

Every process holds its own classes and a part of the batch: features are gathered and the softmax is summed over the
processes; no logit, no class and no gradient of a class travels. The data are generated: each class is a random
3-dimensional subspace of R^64 with noise, seen through a fixed mixing matrix. It shows memory, traffic and time;
the accuracy shows that both runs learn, and the losses that they learn the same.

    torchrun --nproc-per-node 2 examples/03_scale_out.py [--quick]
    python examples/03_scale_out.py [--quick]      # the one process alone
"""

# %%
import argparse
import contextlib
import math
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler, which counts the traffic, is talkative

import matplotlib.pyplot as plt
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import loss_parallel, parallelize_module
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from torchriemann.layers import GrassmannClassifier
from torchriemann.layers.class_parallel import ClassParallel
from torchriemann.optim import RiemannianSGD, param_groups

FIGURE = Path(__file__).parent / "figures" / "03_scale_out.png"
D, SUBSPACE, BATCH, LR = 64, 3, 500, 1.0
FLOAT = 4  # bytes


@dataclass
class Data:
    """Training and test set: unit-scale inputs ``N,D`` and labels ``N``, the same in every process."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def generate(classes: int, per_class: int = 16, noise: float = 0.1) -> Data:
    """Every class Gaussian in a random subspace, with noise in all directions, mixed by one matrix of condition 5."""
    g = torch.Generator().manual_seed(0)
    bases = torch.linalg.qr(torch.randn(classes, D, SUBSPACE, generator=g))[0]
    left, right = torch.linalg.qr(torch.randn(2, D, D, generator=g))[0]
    mixing = left * torch.logspace(0, -math.log10(5), D) @ right

    def draw(count: int) -> tuple[Tensor, Tensor]:
        y = torch.arange(classes).repeat(count)
        inside = bases[y] @ torch.randn(len(y), SUBSPACE, 1, generator=g)
        x = (inside.squeeze(-1) + noise * torch.randn(len(y), D, generator=g)) @ mixing
        return math.sqrt(D) * nn.functional.normalize(x, dim=-1), y

    return Data(*draw(per_class), *draw(2))


class Backbone(nn.Module):
    """One residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(D, 2 * D), nn.Linear(2 * D, D)

    def forward(self, x):
        return x + self.down(nn.functional.gelu(self.up(x)))


class Net(nn.Module):
    """The block and the head."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone, self.head = Backbone(), GrassmannClassifier(D, classes, SUBSPACE)

    def forward(self, x):
        return self.head(self.backbone(x))


# %% Two processes differ from one in this, and in which rows of a batch they are handed


def distribute(net: Net, mesh: DeviceMesh) -> Net:
    """The head by classes, the backbone by FSDP2."""
    parallelize_module(net, mesh, {"head": ClassParallel(input_layouts=Shard(0))})
    fully_shard(net.backbone, mesh=mesh)
    # The loss is the mean over the whole batch already: gradients of its parts are summed, not averaged.
    net.backbone.set_gradient_divide_factor(1.0)  # type: ignore[operator]
    net.backbone.set_force_sum_reduction_for_comms(True)  # type: ignore[operator]  # gloo knows no scaled sum
    return net


def part(x: Tensor, mesh: DeviceMesh | None) -> Tensor:
    """The rows of this process."""
    return x if mesh is None else x.chunk(mesh.size())[mesh.get_local_rank()]


def backward(net: nn.Module, x: Tensor, y: Tensor, mesh: DeviceMesh | None) -> float:
    """Cross-entropy of the batch, and its gradients; `x` is this process's part, `y` the labels of all."""
    with contextlib.nullcontext() if mesh is None else loss_parallel():
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
    return float(loss.detach())


# %% What is measured


def local(t: Tensor) -> Tensor:
    """What this process holds."""
    return t.to_local() if isinstance(t, DTensor) else t


def memory(net: Net, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Bytes of the head in this process."""
    weight = net.head.weight
    assert weight.grad is not None
    state = [t for t in optimizer.state[weight].values() if isinstance(t, Tensor)]
    tensors: dict[str, list[Tensor]] = {"weights": [weight], "gradient": [weight.grad], "optimizer state": state}
    return {name: sum(local(t).nbytes for t in parts) for name, parts in tensors.items()}


def counted_traffic(net: Net, x: Tensor, y: Tensor, mesh: DeviceMesh) -> int:
    """Bytes of all tensors that the head's forward and backward hand to collectives, gathered tensors in full."""
    features = net.backbone(x).detach().requires_grad_()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
        backward(net.head, features, y, mesh)
    net.zero_grad()
    sent = 0
    for event in recorded.events() or []:
        if event.name.startswith("gloo:"):
            copies = mesh.size() if event.name == "gloo:all_gather" else 1
            sent += copies * FLOAT * sum(math.prod(shape) for shape in event.input_shapes)
    return sent


def traffic(kind: str, classes: int) -> int:
    """The same by formula: features, their gradients and three numbers a row; or all gradients of the weights."""
    return FLOAT * (2 * BATCH * D + 3 * BATCH if kind == "class parallel" else classes * D * SUBSPACE)


@torch.no_grad()
def accuracy(net: Net, data: Data, mesh: DeviceMesh | None) -> float:
    """Per cent of the test set."""
    hits = 0
    for x, y in zip(data.x_test.split(BATCH), data.y_test.split(BATCH), strict=True):
        logits = net(part(x, mesh))
        logits = logits.full_tensor() if isinstance(logits, DTensor) else logits
        hits += int((logits.argmax(-1) == y).sum())
    return 100 * hits / len(data.y_test)


@torch.no_grad()
def class_pca(data: Data, classes: int) -> float:
    """Accuracy in per cent of the principal subspaces of the classes, computed from the inputs and not trained."""
    samples = data.x[data.y.argsort(stable=True)].unflatten(0, (classes, -1))
    bases = torch.linalg.svd(samples, full_matrices=False)[2][:, :SUBSPACE]
    projections = (data.x_test @ bases.flatten(0, 1).mT).unflatten(-1, (classes, SUBSPACE))
    return 100 * float((projections.square().sum(-1).argmax(-1) == data.y_test).double().mean())


def train(data: Data, epochs: int, mesh: DeviceMesh | None = None) -> dict[str, Any]:
    """Train from one seed; losses, times and the rest."""
    torch.manual_seed(0)
    net = Net(int(data.y.max()) + 1)
    if mesh is not None:
        distribute(net, mesh)
    optimizer = RiemannianSGD(param_groups(net), lr=LR, momentum=0.9)
    batches = torch.cat([torch.randperm(len(data.x)) for _ in range(epochs)]).split(BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    losses, times, used = [], [], {}
    name = "one process" if mesh is None else f"{mesh.size()} processes"
    for batch in tqdm(batches, desc=name, unit="step", disable=mesh is not None and dist.get_rank() > 0):
        start = time.perf_counter()
        losses.append(backward(net, part(data.x[batch], mesh), data.y[batch], mesh))
        optimizer.step()
        schedule.step()
        times.append(time.perf_counter() - start)
        used = used or memory(net, optimizer)
        optimizer.zero_grad()
    first = batches[0]
    sent = 0 if mesh is None else counted_traffic(net, part(data.x[first], mesh), data.y[first], mesh)
    return {
        "accuracy": accuracy(net, data, mesh),
        "losses": losses,
        "memory": used,
        "sent": sent,
        "step": 1e3 * statistics.median(times),
    }


# %% The table


def table(runs: dict[str, dict[str, Any]], classes: int) -> str:
    """One line a quantity, one column a run."""

    def line(name: str, cells) -> str:
        return f"{name:44}" + "".join(f"{cell:>20}" for cell in cells)

    columns = list(runs.values())
    lines = [line(f"{classes} classes, d = {D}, k = {SUBSPACE}, B = {BATCH}", runs)]
    lines.append(line("test accuracy, %", [f"{r['accuracy']:.2f}" for r in columns]))
    lines.append(line("loss, first and last step", [f"{r['losses'][0]:.4f}, {r['losses'][-1]:.4f}" for r in columns]))
    for what in columns[0]["memory"]:
        lines.append(line(f"head, {what}, MB a process", [f"{r['memory'][what] / 1e6:.2f}" for r in columns]))
    lines.append(line("head, handed to collectives a step, kB", [f"{r['sent'] / 1e3:.1f}" for r in columns]))
    lines.append(line("median step, ms", [f"{r['step']:.0f}" for r in columns]))
    return "\n".join(lines)


def remarks(runs: dict[str, dict[str, Any]], classes: int) -> str:
    """What the table cannot hold."""
    one, two = runs.values()
    apart = max(abs(a - b) for a, b in zip(one["losses"], two["losses"], strict=True))
    return (
        f"The losses of {len(one['losses'])} steps differ by at most {apart:.1e}. By formula the head hands "
        f"{traffic('class parallel', classes) / 1e3:.1f} kB a step to collectives,\nwhatever the number of classes; "
        f"data parallel, all gradients of the head, it would be {traffic('data parallel', classes) / 1e3:.1f} kB."
    )


# %% The figure

ONE, MANY, WARM = "#7F7F7F", "#0072B2", "#D55E00"  # Okabe and Ito's colours: distinct to every eye
PARTS = ("#56B4E9", "#E69F00", "#009E73")


def show_losses(axes, runs) -> None:
    """Both runs, one upon the other."""
    for (name, run), colour, width, style in zip(runs.items(), (ONE, MANY), (5, 1.6), ("-", "--"), strict=False):
        axes.plot(run["losses"], color=colour, lw=width, ls=style, label=name)
    axes.set(xlabel="step", ylabel="cross-entropy", title="Training loss: the same, step by step")
    axes.legend()
    axes.grid(alpha=0.3)


def show_memory(axes, runs) -> None:
    """What one process holds of the head."""
    bottom = [0.0] * len(runs)
    for what, colour in zip(next(iter(runs.values()))["memory"], PARTS, strict=True):
        heights = [run["memory"][what] / 1e6 for run in runs.values()]
        axes.bar(list(runs), heights, bottom=bottom, color=colour, width=0.55, label=what)
        bottom = [b + h for b, h in zip(bottom, heights, strict=True)]
    for i, total in enumerate(bottom):
        axes.text(i, total, f"{total:.2f} MB", ha="center", va="bottom")
    axes.set(ylabel="MB a process", title="Memory of the head", ylim=(0, 1.3 * max(bottom)))
    axes.legend(ncols=3, loc="upper center", fontsize=9)


def show_traffic(axes, runs, classes: int) -> None:
    """Bytes a step, by formula as lines, counted as a point."""
    counts = [10**e for e in range(2, 7)]
    for kind, colour in (("data parallel", WARM), ("class parallel", MANY)):
        axes.loglog(counts, [traffic(kind, c) / 1e6 for c in counts], color=colour, label=f"{kind}, formula")
    *_, last = runs.values()
    if last["sent"]:
        axes.loglog([classes], [last["sent"] / 1e6], "o", color=MANY, ms=9, label="class parallel, counted")
    axes.set(xlabel="classes", ylabel="MB a step", title=f"Handed to collectives: d = {D}, k = {SUBSPACE}, B = {BATCH}")
    axes.legend(loc="upper left")
    axes.grid(alpha=0.3)


def draw(runs, classes: int):
    """The figure of the page."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    show_losses(axes[0], runs)
    show_memory(axes[1], runs)
    show_traffic(axes[2], runs, classes)
    return figure


def report(runs: dict[str, dict[str, Any]], classes: int, reference: float, quick: bool) -> None:
    """Print the table; save the figure of a full run on several processes."""
    print(table(runs, classes))
    print(f"Class-wise PCA of the inputs, untrained, which these data are made for: {reference:.2f} %.")
    if len(runs) > 1:
        print(remarks(runs, classes))
    figure = draw(runs, classes)
    if len(runs) > 1 and not quick:
        FIGURE.parent.mkdir(exist_ok=True)
        figure.savefig(FIGURE, dpi=130)
        print(f"figure: examples/figures/{FIGURE.name}")
    else:
        figure.canvas.draw()
    plt.close(figure)


def main(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Run, print the table, save the figure; returns what was measured. `quick` takes seconds and proves nothing."""
    torch.set_num_threads(1)  # one core a process
    classes, epochs = (250, 1) if quick else (3000, 4)
    data = generate(classes)
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        dist.init_process_group("gloo")
    runs = {}
    if world == 1 or dist.get_rank() == 0:
        runs["one process"] = train(data, epochs)
    if world > 1:
        dist.barrier()
        runs[f"{world} processes"] = train(data, epochs, init_device_mesh("cpu", (world,)))
    if "one process" in runs:
        report(runs, classes, class_pca(data, classes), quick)
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()
    return runs


# %%
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="few classes, one epoch, no file written")
    main(**vars(parser.parse_args()))
