"""Laws of what layers compute: batches, precision, derivatives, transforms and wrong arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torchriemann.manifolds.parameter import named_manifolds

from .layers import LayerTrial, floating, layer_law


class _Bound(nn.Module):
    """A layer as a module of tensors alone: the constants among its arguments, such as a manifold, are bound."""

    def __init__(self, layer: Any, arguments: tuple) -> None:
        super().__init__()
        self.layer, self.constants = layer, [None if isinstance(a, Tensor) else a for a in arguments]

    def forward(self, *tensors: Tensor) -> Any:
        rest = iter(tensors)
        return self.layer(*(next(rest) if c is None else c for c in self.constants))


def _tensors(arguments: tuple) -> list[Tensor]:
    return [a for a in arguments if isinstance(a, Tensor)]


def _with_tensors(arguments: tuple, change: Any) -> tuple:
    return tuple(change(a) if isinstance(a, Tensor) else a for a in arguments)


def _items(t: LayerTrial, arguments: tuple) -> tuple[tuple[int, ...], list[tuple]]:
    """The batch of the arguments, and those of its single items. Dimensions beyond those of an unbatched call are
    batch."""
    single = t.arguments(())
    own = [a.dim() if isinstance(a, Tensor) else 0 for a in single]
    lead = [a.shape[: a.dim() - k] for a, k in zip(arguments, own, strict=True) if isinstance(a, Tensor)]
    batch = torch.broadcast_shapes(*lead)
    flat = [
        a.expand((*batch, *a.shape[a.dim() - k :])).reshape(-1, *a.shape[a.dim() - k :]) if isinstance(a, Tensor) else a
        for a, k in zip(arguments, own, strict=True)
    ]
    count = torch.Size(batch).numel()
    return batch, [tuple(a[i] if isinstance(a, Tensor) else a for a in flat) for i in range(count)]


@layer_law("input", tolerance=16)
def batches_are_items_side_by_side(t: LayerTrial) -> None:
    """For every batch shape that the layer takes the result is that of the single items, in dtype and device too."""
    for dtype in (torch.float64, torch.float32):
        layer = t.layer(dtype=dtype)
        for batch in t.case.batches:
            arguments = t.arguments(batch, dtype)
            batch, items = _items(t, arguments)
            singles = [torch.stack(r) for r in zip(*(t.call(layer, i) for i in items), strict=True)]
            want = [s.reshape((*batch, *s.shape[1:])) for s in singles]
            t.close(t.call(layer, arguments), want, f"batch {tuple(batch)}, {dtype}")


@layer_law("input")
def empty_batches_give_empty_results(t: LayerTrial) -> None:
    """A batch of no items gives results of no items, of the right shape, and gradients that are finite."""
    layer, single = t.layer(), t.call(t.layer(), t.arguments(()))
    for batch in t.case.empty:
        arguments = _with_tensors(t.arguments(batch), lambda a: a.requires_grad_(a.is_floating_point()))
        results = t.call(layer, arguments)
        for got, like in zip(results, single, strict=True):
            t.require(got.shape == (*batch, *like.shape), f"batch {batch} gives the shape {tuple(got.shape)}")
            t.require(got.dtype == like.dtype, f"batch {batch} gives {got.dtype}")
        leaves = [*floating(arguments), *_learned(layer).values()]
        total = torch.stack([r.sum() for r in results]).sum()
        t.finite(torch.autograd.grad(total, leaves, materialize_grads=True), f"a gradient of the batch {batch}")


@layer_law("input", tolerance=16)
def strides_do_not_matter(t: LayerTrial) -> None:
    """Transposed and strided memory give what contiguous memory gives."""
    layer, arguments = t.layer(), t.arguments(t.case.batches[-1])
    want = t.call(layer, arguments)

    def strided(a: Tensor) -> Tensor:
        return torch.stack([a, torch.full_like(a, 7)], -1)[..., 0]

    for change in (strided, lambda a: a.movedim(0, -1).contiguous().movedim(-1, 0)):
        t.close(t.call(layer, _with_tensors(arguments, change)), want, "non-contiguous arguments")


@layer_law("any")
def arguments_are_never_written(t: LayerTrial) -> None:
    """A call changes neither its arguments nor the parameters."""
    layer, arguments = t.layer(), t.arguments()
    held = [*_tensors(arguments), *_learned(layer).values()]
    before = [(h.detach().clone(), h._version) for h in held]
    t.call(layer, arguments)
    for h, (value, version) in zip(held, before, strict=True):
        t.require(
            h._version == version and torch.equal(h.detach(), value), "a call wrote to an argument or a parameter"
        )


@layer_law("any")
def half_precision_is_computed_in_single(t: LayerTrial) -> None:
    """bfloat16 and float16 arguments give results in their dtype, which are those of float32 rounded."""
    layer = t.layer(dtype=torch.float32)
    for half in (torch.bfloat16, torch.float16) if t.takes_tensors else ():
        arguments = t.arguments(dtype=half)
        wide = _with_tensors(arguments, lambda a: a.float() if a.is_floating_point() else a)
        try:
            got = t.call(layer, arguments)
        except Exception as error:
            t.fail(
                f"{half} arguments of a float32 layer: {type(error).__name__}: {error}; mark forward as "
                "in_full_precision, and read a point there by self.point(name, x.dtype)"
            )
        else:
            t.close(got, [w.to(half) for w in t.call(layer, wide)], f"{half} arguments")


@layer_law("any")
def autocast_changes_nothing(t: LayerTrial) -> None:
    """Under torch.autocast a float32 call gives what it gives without, in float32."""
    layer, arguments = t.layer(dtype=torch.float32), t.arguments(dtype=torch.float32)
    want = t.call(layer, arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = t.call(layer, arguments)
    t.close(got, want, "under autocast")


# ---- derivatives ----------------------------------------------------------------------------------------------


def _learned(layer: Any) -> dict[str, Tensor]:
    return dict(layer.named_parameters()) if isinstance(layer, nn.Module) else {}


def _weighted(t: LayerTrial, layer: Any, parameters: dict[str, Tensor], arguments: tuple, weights: list) -> Tensor:
    """A number of all results, so that its derivative sees every one."""
    out = functional_call(layer, parameters, arguments) if parameters else layer(*arguments)
    results = out if isinstance(out, (tuple, list)) else (out,)
    if not weights:
        draw = LayerTrial(t.case, t.seed + 1)
        weights.extend(draw.noise(*r.shape) for r in results)
    return sum(((r * w.to(r.dtype)).sum() for r, w in zip(results, weights, strict=True)), torch.zeros(()))


@layer_law("any")
def gradients_are_finite(t: LayerTrial) -> None:
    """Where the layer starts and elsewhere, in float64 and float32, every parameter and every argument has a gradient,
    and it is finite."""
    for dtype in (torch.float64, torch.float32):
        for where, layer in (("at the start", t.start(dtype=dtype)), ("elsewhere", t.layer(dtype=dtype))):
            arguments = _with_tensors(t.arguments(dtype=dtype), lambda a: a.requires_grad_(a.is_floating_point()))
            leaves = {**_learned(layer), **{f"argument {i}": a for i, a in enumerate(floating(arguments))}}
            if not leaves:
                continue
            value = _weighted(t, layer, {}, arguments, [])
            gradients = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
            for name, gradient in zip(leaves, gradients, strict=True):
                t.finite([gradient], f"{dtype}, {where}: the gradient of {name}")


def _difference(along: Callable[[float], Tensor], h: float) -> Tensor:
    """The derivative at 0 of a number along a curve, to O(h^4)."""
    return (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)


@layer_law("any", tolerance=1e8)
def gradients_are_those_of_finite_differences(t: LayerTrial) -> None:
    """In float64 the derivative along a curve is the inner product of gradient and velocity, for every parameter and
    every argument by itself. The curves of points are geodesics of their manifold. (Differences of fourth order, with
    the best of three steps: a kink may lie within the longest.)"""
    layer, arguments, weights = t.layer(), t.arguments(), []
    manifolds = {n: m for n, _, m in named_manifolds(layer)} if isinstance(layer, nn.Module) else {}
    learned = {name: p.detach().clone() for name, p in _learned(layer).items()}
    given = {i: a for i, a in enumerate(arguments) if isinstance(a, Tensor) and a.is_floating_point()}

    def value(name: str | int, moved: Tensor) -> Tensor:
        if isinstance(name, str):
            return _weighted(t, layer, {**learned, name: moved}, arguments, weights)
        return _weighted(t, layer, learned, (*arguments[:name], moved, *arguments[name + 1 :]), weights)

    leaves: dict[Any, Tensor] = {**learned, **given}
    draw = LayerTrial(t.case, t.seed + 2)  # not as the arguments are: along itself an argument may change nothing
    for name, at in leaves.items():
        m = manifolds[name] if isinstance(name, str) else t.case.points.get(name)
        v = draw.noise(*at.shape) if m is None else m.proju(at, draw.noise(*at.shape))
        leaf = at.clone().requires_grad_()
        slope = (torch.autograd.grad(value(name, leaf), leaf)[0] * v).sum()

        def along(h: float, name: Any = name, at: Tensor = at, v: Tensor = v, m: Any = m) -> Tensor:
            return value(name, at + h * v if m is None else m.expmap(at, h * v)).detach()

        found = torch.stack([_difference(along, h) for h in (2e-3, 2e-4, 2e-5)])
        best = found[(found - slope).abs().argmin()]
        t.close([slope], [best], f"the derivative in {name if isinstance(name, str) else f'argument {name}'}")


# ---- transforms -----------------------------------------------------------------------------------------------


@layer_law("any", tolerance=16, once=True)
def compiled_equals_eager(t: LayerTrial) -> None:
    """torch.compile takes the layer as one graph, in whose results and gradients nothing changes."""
    layer, arguments = t.layer(dtype=torch.float32), t.arguments(dtype=torch.float32)
    arguments = _with_tensors(arguments, lambda a: a.requires_grad_(a.is_floating_point()))
    leaves = [*_learned(layer).values(), *floating(arguments)]
    bound, tensors = _Bound(layer, arguments), _tensors(arguments)
    torch._dynamo.reset()
    compiled: Any = torch.compile(bound, fullgraph=True, backend=t.case.backend)
    weights: list[Tensor] = []
    got, want = (_weighted(t, f, {}, tuple(tensors), weights) for f in (compiled, bound))
    t.close(t.call(compiled, tuple(tensors)), t.call(bound, tuple(tensors)), "compiled")
    if leaves:
        t.close(
            torch.autograd.grad(got, leaves), torch.autograd.grad(want, leaves), "the gradient of the compiled layer"
        )


@layer_law("any", tolerance=16, once=True)
def exported_equals_eager(t: LayerTrial) -> None:
    """torch.export takes the layer, and the program computes the same."""
    arguments = t.arguments(dtype=torch.float32)
    bound, tensors = _Bound(t.layer(dtype=torch.float32), arguments), tuple(_tensors(arguments))
    with torch.no_grad():
        program = torch.export.export(bound, tensors)
    t.close(t.call(program.module(), tensors), t.call(bound, tensors), "exported")


@layer_law("module", tolerance=16)
def stacked_states_are_states_side_by_side(t: LayerTrial) -> None:
    """torch.func.vmap over the stacked states of three layers gives the results of the three."""
    layers, arguments = [t.layer(i) for i in range(3)], t.arguments()
    bound = [_Bound(layer, arguments) for layer in layers]
    state = torch.func.stack_module_state(bound)
    if not any(state):
        return
    tensors = tuple(_tensors(arguments))
    got = torch.func.vmap(lambda s: t.call(lambda *a: functional_call(bound[0], s, a), tensors))(state)
    want = [torch.stack(r) for r in zip(*(t.call(b, tensors) for b in bound), strict=True)]
    t.close(got, want, "vmap over states")


@layer_law("input", tolerance=16)
def vmap_equals_batching(t: LayerTrial) -> None:
    """torch.func.vmap over the items of a batch gives the result of the batch."""
    layer, arguments = t.layer(), t.arguments((3,))
    bound, tensors = _Bound(layer, arguments), tuple(_tensors(arguments))
    t.close(torch.func.vmap(lambda *a: t.call(bound, a))(*tensors), t.call(bound, tensors), "vmap over the batch")


# ---- arguments and results ------------------------------------------------------------------------------------


@layer_law("input")
def wrong_arguments_are_rejected(t: LayerTrial) -> None:
    """ValueError that names the class of the layer for integers, for a number, for another size of the last dimension,
    and for what the row calls wrong."""
    layer, arguments = t.layer(), t.arguments()
    first = next(i for i, a in enumerate(arguments) if isinstance(a, Tensor) and a.is_floating_point())
    x = arguments[first]
    wrong = {
        "an integer tensor": torch.ones_like(x, dtype=torch.int64),
        "a 0-dim tensor": torch.ones((), dtype=x.dtype),
        "one entry too many": torch.cat([x, x[..., :1]], -1),
        "no tensor": None,
    }
    calls = {what: tuple(w if i == first else a for i, a in enumerate(arguments)) for what, w in wrong.items()}
    for what, bad in {**calls, **(t.case.bad(arguments) if t.case.bad else {})}.items():
        try:
            layer(*bad)
        except ValueError as error:
            t.require(type(layer).__name__ in str(error), f"the error about {what} does not name the class: {error}")
        except Exception as error:
            t.fail(f"{what} raises {type(error).__name__}, not ValueError: {error}")
        else:
            t.fail(f"{what} is accepted")


@layer_law("image")
def results_are_points(t: LayerTrial) -> None:
    """The results lie on the manifold that the row names, in float64, float32 and bfloat16."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        for result in t.call(t.layer(dtype=dtype), t.arguments(dtype=dtype)):
            good, reason = t.case.image.check_point_on_manifold(result.detach(), explain=True)
            t.require(good, f"a result in {dtype} is no point: {reason}")
