"""What `torch.func.vmap` and `torch.compile` do with every operation."""

from __future__ import annotations

import torch
from torch import Tensor

from torchriemann.manifolds.gyro import is_gyro

from . import operations
from .trial import Trial, law


@law("transforms", float64=1e-10, float32=1e-4, examples=2)
def vmap_equals_batching(t: Trial) -> None:
    """torch.func.vmap of every operation, over all arguments and with x held fixed, equals the batched call."""
    x = t.point(())
    fixed = {"x": x, "p": t.near_origin(())} if is_gyro(t.manifold) else {"x": x}
    moving, held = t.arguments((3,)), {**t.arguments(x=x.expand(3, *t.shape)), **fixed}
    for name, letters in operations.seen(t.case).items():
        for at in (moving, held):
            if at is held and len(letters) == 1:
                continue
            dims = tuple(None if at is held and k in fixed else 0 for k in letters)

            def function(*values: Tensor, name=name, letters=letters) -> tuple[Tensor, ...]:
                return operations.call(t, name, dict(zip(letters, values, strict=True)))

            got = torch.func.vmap(function, in_dims=dims)(*(at[k] for k in letters))
            for g, w in zip(got, operations.call(t, name, at), strict=True):
                t.close(g, w, f"vmap of {name}{', x fixed' if at is held else ''}")


@law("transforms", float64=1e-9, examples=1, exact=False)
def vmap_of_derivatives_equals_batching(t: Trial) -> None:
    """torch.func.vmap of `grad` and `jvp` of every operation, and of `jacfwd` and `hessian` in one of its arguments,
    equal the derivatives that autograd takes of the batched call. (One that is not smooth may refuse a second one.)"""
    arguments = t.arguments((2,))
    for name, letters in operations.seen(t.case).items():
        leaves = [arguments[k].detach().clone().requires_grad_() for k in letters]
        outputs = operations.call(t, name, dict(zip(letters, leaves, strict=True)))
        if not outputs[0].requires_grad:
            continue  # answers, and constants
        _hold_derivatives(t, name, letters, leaves, outputs)


def _hold_derivatives(t: Trial, name: str, letters: str, leaves: list[Tensor], outputs: tuple[Tensor, ...]) -> None:
    """Of a random sum of the outputs of each of the two items; those of forward mode along random directions."""
    weights = [t.noise(*o.shape[1:]) for o in outputs]
    along = [t.noise(*a.shape) for a in leaves]
    k = int(torch.randint(len(letters), (), generator=t.generator))

    def total(*values: Tensor) -> Tensor:
        found = operations.call(t, name, dict(zip(letters, values, strict=True)))
        return torch.stack([(w * o).sum() for w, o in zip(weights, found, strict=True)]).sum()

    def moved(values: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
        return torch.func.jvp(total, values, tangents)[1]

    every = sum(((w * o).sum() for w, o in zip(weights, outputs, strict=True)), torch.zeros(()))
    first = torch.autograd.grad(every, leaves, create_graph=True, materialize_grads=True)
    directional = torch.stack([_items(g * d) for g, d in zip(first, along, strict=True)]).sum(0)
    at, tangents, every_argument = tuple(a.detach() for a in leaves), tuple(along), tuple(range(len(letters)))
    got = torch.func.vmap(torch.func.grad(total, every_argument))(*at)
    for letter, g, w in zip(letters, got, first, strict=True):
        t.close(g, w, f"vmap of grad of {name} in {letter}")
    if name not in operations.costly(t.case) or t.case.repeats is not None:
        t.close(torch.func.vmap(moved)(at, tangents), directional, f"vmap of jvp of {name}")
        return
    where = f"{name} in {letters[k]}"
    t.close(torch.func.vmap(torch.func.jacfwd(total, k))(*at), first[k], f"vmap of jacfwd of {where}")
    second, n = torch.zeros_like(leaves[k]), leaves[k][0].numel()
    if first[k].requires_grad:
        try:
            (second,) = torch.autograd.grad((first[k] * along[k]).sum(), leaves[k : k + 1], materialize_grads=True)
        except NotImplementedError as error:
            t.require(name not in operations.smooth(t.case), f"{where} is not twice differentiable: {error}")
            return
    curved = torch.func.vmap(torch.func.hessian(total, k))(*at)
    t.close(curved.reshape(2, n, n) @ along[k].reshape(2, n, 1), second.reshape(2, n, 1), f"vmap of hessian of {where}")


def _items(a: Tensor) -> Tensor:
    """Sums over all but the first dimension."""
    return a.reshape(len(a), -1).sum(1)


@law("transforms", float64=1e-9, examples=1)
def batched_gradients_have_their_graph(t: Trial) -> None:
    """What `torch.autograd.grad(is_grads_batched=True, create_graph=True)`, and with it the vectorized Jacobians of
    torch, gives of exp, log, retr and the distance is differentiated as gradients taken one by one are."""
    arguments = t.arguments(())
    for name in ("expmap", "logmap", "retr", "dist2"):
        if name not in operations.smooth(t.case):
            continue
        letters = operations.OPERATIONS[name]
        leaves = [arguments[k].detach().clone().requires_grad_() for k in letters]
        (output,) = operations.call(t, name, dict(zip(letters, leaves, strict=True)))
        weights = t.noise(2, *output.shape)
        batched = torch.autograd.grad(output, leaves, weights, is_grads_batched=True, create_graph=True)
        single = [torch.autograd.grad(output, leaves, w, create_graph=True) for w in weights]
        stacked = [torch.stack(gradients) for gradients in zip(*single, strict=True)]
        squares = [torch.cat([g.flatten() for g in gradients]).square().sum() for gradients in (batched, stacked)]
        t.require(
            squares[0].requires_grad == squares[1].requires_grad,
            f"of the gradients of {name} only one kind has a graph",
        )
        if not squares[1].requires_grad:
            continue  # of a linear map
        seconds = [torch.autograd.grad(square, leaves, retain_graph=True, materialize_grads=True) for square in squares]
        for letter, got, want in zip(letters, batched, stacked, strict=True):
            t.close(got, want, f"gradient of {name} in {letter}")
        for letter, got, want in zip(letters, *seconds, strict=True):
            t.close(got, want, f"derivative of the gradients of {name} in {letter}")


@law("transforms", float64=1e-10, examples=1)
def compiled_equals_eager(t: Trial) -> None:
    """torch.compile(fullgraph=True) of all operations, in one graph, gives the eager values."""
    names = operations.compiled(t.case)
    if t.case.brief and t.case.repeats is None:  # the law on gradients compiles the others
        names = [name for name in names if name not in operations.trained(t.case)]
    _compare_compiled(t, names, [])


@law("transforms", float64=1e-10, examples=1)
def compiled_gradients_equal_eager_ones(t: Trial) -> None:
    """torch.compile(fullgraph=True) of exp, retr and dist2 in one graph gives the eager values and gradients."""
    if t.case.repeats is None:  # a trace alone is differentiated as the eager code is
        names = operations.trained(t.case)
        _compare_compiled(t, names, ["x", "y", "u"])


def _compare_compiled(t: Trial, names: list[str], learned: list[str]) -> None:
    """One graph, since every graph costs a fixed amount beside its operations. The backend "eager" runs the graph that
    was traced: it finds branches on values and what cannot be traced, at a third of the cost of "aot_eager", which
    takes the graph through functionalisation and autograd as well. A brief row takes its gradients through that."""
    if not names:
        return  # a row may leave compilation to another one
    arguments = t.arguments((2,))
    leaves = {k: a.detach().clone().requires_grad_(k in learned) for k, a in arguments.items()}
    labels = [name for name in names for _ in operations.call(t, name, arguments)]

    def everything(leaves: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return tuple(out for name in names for out in operations.call(t, name, leaves))

    def gradients(outputs: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        loss = sum((o.square().sum() for o in outputs if o.requires_grad), torch.zeros(()))
        return torch.autograd.grad(loss, [leaves[k] for k in learned], allow_unused=True)

    traced = t.case.repeats is not None or t.case.brief and not learned
    backend = "eager" if traced else "aot_eager"
    torch.compiler.reset()
    try:
        outputs = torch.compile(everything, fullgraph=True, backend=backend, dynamic=False)(leaves)
        got = gradients(outputs) if learned else ()
    finally:
        torch.compiler.reset()
    eager = everything(leaves)
    for name, g, w in zip(labels, outputs, eager, strict=True):
        t.close(g, w, f"compiled {name}")
    want = gradients(eager) if learned else ()
    for letter, g, w in zip(learned, got, want, strict=False):
        t.require((g is None) == (w is None), f"the compiled gradient in {letter} is None, or the eager one")
        if g is not None and w is not None:
            t.close(g, w, f"compiled gradient in {letter}")
