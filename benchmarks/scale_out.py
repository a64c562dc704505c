"""A Grassmann head over two processes: memory, traffic and time of a training step, by the way it is distributed.

    python benchmarks/scale_out.py [--quick]

A step is forward, cross-entropy, backward and `RiemannianSGD` with momentum, on given features whose gradient is asked
for. All contenders see the same batch; a process of the distributed ones is handed its half of it. "Handed to
collectives" is counted by torch's profiler: the bytes of every tensor that a step gives to gloo, gathered ones in full.
"Peak" is what three steps in fresh processes add to the largest resident size that the process had before: weights,
gradients, state, activations and temporaries.
"""

import os

from common import Contender, Line, environment, fix_allocator, measure, publish, show

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler, which counts the traffic, is talkative
fix_allocator()

import argparse  # noqa: E402
import contextlib  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import resource  # noqa: E402
from collections.abc import Callable  # noqa: E402

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.fsdp import fully_shard  # noqa: E402
from torch.distributed.tensor import DTensor, Shard  # noqa: E402
from torch.distributed.tensor.parallel import loss_parallel, parallelize_module  # noqa: E402
from torch.multiprocessing.spawn import spawn  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402

from torchriemann.layers import GrassmannClassifier  # noqa: E402
from torchriemann.layers.class_parallel import ClassParallel  # noqa: E402
from torchriemann.optim import RiemannianSGD, param_groups  # noqa: E402

WORLD, SOLO = 2, 1
D, SUBSPACE, BATCH, FLOAT = 128, 4, 256, 4
CLASSES = (1000, 4000, 16000)


def class_parallel(head: nn.Module, mesh) -> nn.Module:
    """Every process its classes; features are gathered."""
    return parallelize_module(head, mesh, ClassParallel(input_layouts=Shard(0)))


def fsdp(head: nn.Module, mesh) -> nn.Module:
    """Every process stores its classes, and gathers all of them to compute."""
    fully_shard(head, mesh=mesh)
    return head


def ddp(head: nn.Module, mesh) -> nn.Module:
    """Every process holds all classes."""
    return DistributedDataParallel(head)


def contender(name: str, classes: int, distribute: Callable | None, mesh, threads: int = 1) -> Contender:
    """A head with its optimizer; without `distribute` rank 0 works alone, and the other waits."""
    torch.manual_seed(0)
    head: nn.Module = GrassmannClassifier(D, classes, SUBSPACE)
    x, y = torch.randn(BATCH, D), torch.randint(classes, (BATCH,))
    if distribute is not None:
        head = distribute(head, mesh)
        x = x.chunk(WORLD)[dist.get_rank()]
        y = y if distribute is class_parallel else y.chunk(WORLD)[dist.get_rank()]
    optimizer = RiemannianSGD(param_groups(head), lr=0.1, momentum=0.9)
    works = distribute is not None or dist.get_rank() == 0
    losses = []

    def step() -> None:
        optimizer.zero_grad()
        with loss_parallel() if distribute is class_parallel else contextlib.nullcontext():
            loss = nn.functional.cross_entropy(head(x.clone().requires_grad_()), y)
            loss.backward()
        optimizer.step()
        losses.append(loss.detach())

    def run() -> None:
        torch.set_num_threads(threads)
        if works:
            step()
        dist.barrier()

    def facts() -> dict[str, float]:
        if not works:
            return {}
        loss = batch_loss(losses[-1], of_a_part=distribute in (ddp, fsdp))
        handed = 0.0 if distribute is None else handed_over(step)
        return {"loss": loss, "head_bytes": held(optimizer), "handed_bytes": handed}

    return Contender(name, run, facts)


def batch_loss(loss: Tensor, of_a_part: bool) -> float:
    """The mean over the whole batch."""
    loss = loss.full_tensor() if isinstance(loss, DTensor) else loss.clone()
    if of_a_part:
        dist.all_reduce(loss)
        loss /= WORLD
    return float(loss)


def held(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of weights, gradients and optimizer state in this process."""
    tensors = [t for p, state in optimizer.state.items() for t in (p, p.grad, *state.values()) if isinstance(t, Tensor)]
    return sum((t.to_local() if isinstance(t, DTensor) else t).nbytes for t in tensors)


def handed_over(step: Callable[[], None]) -> float:
    """Bytes that a step hands to gloo."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
        step()
    total = 0
    for event in recorded.events() or []:
        if event.name.startswith("gloo:"):
            copies = WORLD if event.name == "gloo:all_gather" else 1
            total += copies * FLOAT * sum(math.prod(shape) for shape in event.input_shapes)
    return total


WAYS = {
    f"class parallel, {WORLD} processes": class_parallel,
    f"FSDP2, {WORLD} processes": fsdp,
    f"DDP, {WORLD} processes": ddp,
    "one process, 1 thread": None,
    "one process, 2 threads": None,
}


def lines(mesh):
    """One line a number of classes; every other way is compared with class parallel."""
    for classes in CLASSES:
        contenders = [contender(n, classes, way, mesh, threads(n)) for n, way in WAYS.items()]
        name = f"Grassmann head, K = {classes}, d = {D}, k = {SUBSPACE}, B = {BATCH}"
        yield Line(name, contenders, {c.name: None for c in contenders[1:]})


def threads(name: str) -> int:
    """What the name says."""
    return 2 if name.endswith("threads") else 1


def timed(rank: int, port: int, quick: bool) -> None:
    """All lines, on one of the processes; rank 0 leaves the results in the store."""
    store = dist.TCPStore("localhost", port, is_master=False)  # type: ignore
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD)
    results = []
    for entry in lines(init_device_mesh("cpu", (WORLD,))):
        results.append(measure(entry, rounds=3 if quick else 9, block=1 if quick else 3))
        if rank == 0:
            show(results[-1])
            store.set("results", json.dumps(results))
    dist.barrier()
    dist.destroy_process_group()


def peak(rank: int, port: int, world: int, name: str, classes: int) -> None:
    """Three steps of one contender; rank 0 leaves in the store by how many bytes they raised its largest size."""
    store = dist.TCPStore("localhost", port, is_master=False)  # type: ignore
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = contender(name, classes, WAYS[name], init_device_mesh("cpu", (world,)), threads(name)).run
    for _ in range(3):
        run()
    if rank == 0:
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        store.set("peak", str(1024 * kilobytes))
    dist.barrier()
    dist.destroy_process_group()


def in_processes(work: Callable, world: int, key: str, *args) -> str:
    """What `work` leaves in the store under `key`."""
    store = dist.TCPStore("localhost", 0, world + 1, is_master=True, wait_for_workers=False)  # type: ignore
    spawn(work, args=(store.port, *args), nprocs=world)
    return store.get(key).decode()


def table(results) -> str:
    """Markdown: a row a contender."""
    heads = ("classes", "", "ms a step", "head, MB a process", "peak, MB a process", "MB handed to collectives")
    rows = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for classes, result in zip(CLASSES, results, strict=True):
        for name, c in result["contenders"].items():
            sizes = " | ".join(f"{c[what] / 1e6:.1f}" for what in ("head_bytes", "peak_bytes", "handed_bytes"))
            rows.append(f"| {classes} | {name} | {c['median_ms']:.0f} | {sizes} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing written")
    quick = parser.parse_args().quick
    print(environment())
    results = json.loads(in_processes(timed, WORLD, "results", quick))
    if quick:
        return
    for classes, result in zip(CLASSES, results, strict=True):
        for name, values in result["contenders"].items():
            world = SOLO if WAYS[name] is None else WORLD
            values["peak_bytes"] = int(in_processes(peak, world, "peak", world, name, classes))
    publish("scale_out", results)
    print("\n" + table(results))


if __name__ == "__main__":
    main()
