"""capturable, differentiable, torch.compile(step) and gradient scaling: each gives the plain step, or raises."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.optim.test_optim import spheres
from torchriemann import Grassmann, ManifoldParameter, Sphere, Stiefel
from torchriemann.layers import GrassmannClassifier
from torchriemann.optim import RiemannianAdam, RiemannianSGD, param_groups

OPTIMIZERS = {
    "sgd": lambda params, **flags: RiemannianSGD(params, lr=0.1, **flags),
    "momentum": lambda params, **flags: RiemannianSGD(params, lr=0.1, momentum=0.9, weight_decay=0.1, **flags),
    "adam": lambda params, **flags: RiemannianAdam(params, lr=0.1, weight_decay=0.1, **flags),
    "amsgrad": lambda params, **flags: RiemannianAdam(params, lr=0.1, amsgrad=True, **flags),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


MANIFOLDS = (Sphere(), Stiefel(), Grassmann("qr"))


def parameters(dtype=torch.float64, manifolds=MANIFOLDS) -> list[nn.Parameter]:
    """Three points of each manifold, one of another shape, and two flat ones."""
    g = torch.Generator().manual_seed(0)
    sizes = {Sphere: [(5,)] * 3 + [(2, 4)], Stiefel: [(6, 3)] * 3 + [(5, 2)], Grassmann: [(6, 3)] * 3 + [(2, 5, 2)]}
    points = [
        ManifoldParameter(m.random(*size, generator=g, dtype=dtype), m) for m in manifolds for size in sizes[type(m)]
    ]
    return [*points, *(nn.Parameter(torch.randn(size, generator=g, dtype=dtype)) for size in ((4, 3), (4,)))]


def give_gradients(params, seed):
    g = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=g, dtype=p.dtype)


def farthest(one, two) -> float:
    return max(float((a.detach() - b.detach()).abs().max()) for a, b in zip(one, two, strict=True))


# ---- torch.compile --------------------------------------------------------------------------------------------------


def hold_compiled_to_eager(make, backend, manifolds):
    torch._dynamo.reset()
    ours, compiled = parameters(manifolds=manifolds), parameters(manifolds=manifolds)
    eager, other = make(ours), make(compiled)
    points = len(ours) - 2
    step = torch.compile(other.step, backend=backend)
    for i in range(66):  # beyond the step at which membership is restored
        give_gradients(ours, i)
        give_gradients(compiled, i)
        eager.step()
        step()
        assert farthest(ours[:points], compiled[:points]) <= 1e-13
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        if i == 2:
            settled = graphs
    # Before 2.13 dynamo keeps the count of steps as a constant, compiles a few times and goes on without.
    constant_steps = torch.__version__ < (2, 13)
    assert settled > 0 and (constant_steps or graphs <= settled + 2 * len(manifolds)), "recompiled along the way"
    # torch's compiled Adam computes 1 - beta^t from a float32 step, its eager one in float64.
    assert farthest(ours[points:], compiled[points:]) <= 1e-4


@pytest.mark.parametrize("name, manifold", [("momentum", Stiefel(1.0, "qr")), ("adam", Sphere())])
def test_a_compiled_step_is_the_eager_step(name, manifold):
    hold_compiled_to_eager(OPTIMIZERS[name], "aot_eager", (manifold,))


@pytest.mark.slow
@every_optimizer
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_step_is_the_eager_step_everywhere(make, backend):
    hold_compiled_to_eager(make, backend, MANIFOLDS)


# ---- capturable -----------------------------------------------------------------------------------------------------


@every_optimizer
@pytest.mark.parametrize("tensor_lr", [False, True])
def test_capturable_is_the_plain_step(make, tensor_lr):
    ours, captured = parameters(), parameters()
    plain, other = make(ours), make(captured, capturable=True)
    if tensor_lr:
        for group in other.param_groups:
            group["lr"] = torch.tensor(group["lr"], dtype=torch.float64)
    for i in range(70):
        give_gradients(ours, i)
        give_gradients(captured, i)
        if i % 3 == 0:  # points of one batch that differ in their step counts
            ours[0].grad = captured[0].grad = None
        plain.step()
        other.step()
        assert farthest(ours, captured) <= 1e-13


@every_optimizer
def test_capturable_writes_in_place(make):
    """A replayed graph finds parameters and state where they were when it was captured."""
    params = parameters()
    optimizer = make(params, capturable=True)

    def addresses():
        state = [t.data_ptr() for p in params for t in optimizer.state[p].values() if isinstance(t, Tensor)]
        return [p.data_ptr() for p in params] + state

    give_gradients(params, 0)
    optimizer.step()
    before = addresses()
    for i in range(1, 4):
        give_gradients(params, i)
        optimizer.step()
    assert addresses() == before


class NothingRead(TorchDispatchMode):
    """Fails where a number is taken out of a tensor: on a GPU that waits for the device, and cannot be captured."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), func
        return func(*args, **(kwargs or {}))


@every_optimizer
@pytest.mark.parametrize("tensor_lr", [False, True])
def test_capturable_reads_nothing_back(make, tensor_lr, monkeypatch):
    # On a CPU iterations may look at their residual, and torch's own flat Adam reads its step count.
    for module in ("frames", "polar"):
        monkeypatch.setattr(f"torchriemann.manifolds.functional.{module}.free_to_look", lambda gram: False)
    params = parameters()[:-2]
    optimizer = make(params, capturable=True)
    if tensor_lr:
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(0.1, dtype=torch.float64)
    give_gradients(params, 0)
    optimizer.step()  # state and plan come with the first step, as in torch
    give_gradients(params, 1)
    with NothingRead():
        with pytest.raises(AssertionError):
            float(params[0].sum())
        optimizer.step()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="captures a CUDA graph")
@every_optimizer
def test_a_captured_graph_replays_the_plain_step(make):
    ours, captured = parameters(torch.float32), parameters(torch.float32)
    for params in (ours, captured):
        for p in params:
            p.data = p.data.cuda()
            p.grad = torch.zeros_like(p)
    plain, other = make(ours), make(captured, capturable=True)

    def fill(i):
        g = torch.Generator().manual_seed(i)
        for p, q in zip(ours, captured, strict=True):
            value = torch.randn(p.shape, generator=g).cuda()
            p.grad.copy_(value)
            q.grad.copy_(value)

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for i in range(3):
            fill(i)
            plain.step()
            other.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        other.step()
    for i in range(3, 70):
        fill(i)
        plain.step()
        graph.replay()
    assert farthest(ours, captured) <= 1e-3


# ---- differentiable -------------------------------------------------------------------------------------------------


def trained(make, manifold, start, lr, grads):
    """The point after a step along each of `grads`, as a function of all of them."""
    p = start.clone() if manifold is None else manifold.projx(start)
    optimizer = make([{"params": [p], "manifold": manifold}], differentiable=True)
    optimizer.param_groups[0]["lr"] = lr
    for g in grads:
        p.grad = g
        optimizer.step()
    return p


@every_optimizer
@pytest.mark.parametrize("manifold, size", [(Sphere(), (4,)), (Stiefel(), (4, 2)), (None, (3,))], ids=repr)
def test_differentiable_steps_have_the_right_derivatives(make, manifold, size):
    g = torch.Generator().manual_seed(1)
    start, *grads = (torch.randn(size, generator=g, dtype=torch.float64, requires_grad=True) for _ in range(4))
    lr = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)

    def run(start, lr, *grads):
        return trained(make, manifold, start, lr, grads)

    assert torch.autograd.gradcheck(run, (start, lr, *grads), atol=1e-6)


@every_optimizer
def test_differentiable_is_the_plain_step(make):
    g = torch.Generator().manual_seed(1)
    grads = [torch.randn(5, 2, generator=g, dtype=torch.float64) for _ in range(4)]
    start = Stiefel().random(5, 2, generator=g, dtype=torch.float64)
    leaf = ManifoldParameter(start.clone(), Stiefel())
    optimizer = make([leaf])
    for g in grads:
        leaf.grad = g
        optimizer.step()
    lr = torch.tensor(0.1, dtype=torch.float64)
    assert farthest([leaf], [trained(make, Stiefel(), start, lr, grads)]) <= 1e-15


def test_a_learning_rate_learns_through_the_steps():
    """Hypergradient descent: the loss after two steps falls along its derivative with respect to the step length."""
    target = Sphere().random(6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    start = Sphere().random(6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    def loss_after(lr):
        p = start.clone().requires_grad_().clone()
        optimizer = RiemannianSGD([{"params": [p], "manifold": Sphere()}], lr=lr, differentiable=True)
        for _ in range(2):
            p.grad = -target  # of -<x, target>
            optimizer.step()
        return -(p @ target)

    lr = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    first = loss_after(lr)
    (slope,) = torch.autograd.grad(first, lr)
    assert slope < 0 and loss_after((lr - 0.1 * slope).detach()) < first


# ---- gradient scaling -----------------------------------------------------------------------------------------------


def scaled_training(scaler, optimizer, model, losses):
    for loss in losses:
        optimizer.zero_grad()
        scaler.scale(loss(model)).backward()
        scaler.step(optimizer)
        scaler.update()


@every_optimizer
def test_grad_scaler_scales_and_skips(make):
    torch.manual_seed(0)
    x, y = torch.randn(16, 8), torch.randint(3, (16,))
    model = nn.Sequential(nn.Linear(8, 6), GrassmannClassifier(6, 3, 2))
    twin = copy.deepcopy(model)

    def loss(m):
        return nn.functional.cross_entropy(m(x), y)

    def overflow(m):
        return loss(m) * torch.tensor(float("inf"))

    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer, plain = make(param_groups(model)), make(param_groups(twin))
    scaled_training(scaler, optimizer, model, [loss, overflow, loss])
    scaled_training(torch.amp.GradScaler("cpu", enabled=False), plain, twin, [loss, loss])
    assert scaler.get_scale() == 512.0
    assert farthest(model.parameters(), twin.parameters()) <= 2e-5


def test_nothing_of_the_flags_is_loaded_from_another_program():
    source, target = spheres(2), spheres(2)
    saved = RiemannianAdam(source, capturable=True)
    give_gradients(source, 0)
    saved.step()
    plain = RiemannianAdam(target)
    plain.load_state_dict(saved.state_dict())
    assert not plain.param_groups[0]["capturable"]
    for params, optimizer in ((source, saved), (target, plain)):
        with torch.no_grad():
            for p, q in zip(params, source, strict=True):
                p.copy_(q)
        give_gradients(params, 1)
        optimizer.step()
