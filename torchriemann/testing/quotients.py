"""Laws that hold derivatives against difference quotients.

All that an operation is asked is asked in one call: arguments in general position and degenerate ones, and in each of
its arguments a step forwards and one backwards, are items of one leading batch. A quotient is compared item by item.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from . import operations
from .trial import Trial, law

POINTS, VECTORS = "xyrpqs", {"u": "x", "v": "x", "w": "p"}  # vectors, and where they are tangent
STEP = 1e-5  # of a central quotient in float64: rounding 1e-11 and truncation 1e-10, times values and third derivatives

Function = Callable[..., tuple[Tensor, ...]]


def on_chart(t: Trial, name: str, letters: str) -> Function:
    """The operation as a function of ambient tensors, which are first made points and tangent vectors: what it does
    off the manifold is nobody's business."""
    m = t.manifold

    def function(*raw: Tensor) -> tuple[Tensor, ...]:
        made: dict[str, Tensor] = {}
        for letter, value in zip(letters, raw, strict=True):
            if letter in POINTS:
                made[letter] = m.projx(value)
            elif letter in VECTORS:
                made[letter] = m.proju(made[VECTORS[letter]], value)
            elif letter in "ab":
                made[letter] = m.proju(m.origin(*value.shape, dtype=value.dtype), value)
            else:
                made[letter] = value
        return operations.call(t, name, made)

    return function


def _places(t: Trial) -> dict[str, dict[str, Tensor]]:
    """Arguments in general position, and at each degenerate vector."""
    general = t.arguments()
    x = general["x"]
    places = {"general position": general}
    for label, u in t.degenerate(x).items():
        y = x if label == "zero" else t.manifold.expmap(x, u)
        places[label] = {**general, "u": u, "y": y}
    return places


# ---- quotients ------------------------------------------------------------------------------------------------


def hold_first(t: Trial, function: Function, inputs: list[Tensor], what: str, labels: list[str]) -> None:
    """Reverse and forward derivatives of `function` are its difference quotients, along one direction in each input; up
    to 1e-6 + 1e-5 of the quotient. The first dimension of the inputs goes over `labels`, the others are a batch of one
    dimension and the point."""
    along = [_unit(t, a) for a in inputs]
    leaves = [a.detach().clone().requires_grad_() for a in inputs]
    outputs = function(*leaves)
    weights = [t.noise(*o.shape) for o in outputs]
    gradients = _gradient(outputs, weights, leaves)
    with torch.no_grad():
        ahead, behind = _steps(function, inputs, along)
    tangents = [torch.zeros(len(inputs), *a.shape, dtype=a.dtype) for a in inputs]
    for j, d in enumerate(along):
        tangents[j][j] = d
    forward = torch.func.jvp(function, tuple(a.expand(len(inputs), *a.shape).clone() for a in inputs), tuple(tangents))[
        1
    ]
    quotients = [(a - b) / (2 * STEP) for a, b in zip(ahead, behind, strict=True)]
    for i, (derivative, quotient) in enumerate(zip(forward, quotients, strict=True)):
        _compare(t, derivative.movedim(0, 1), quotient.movedim(0, 1), f"forward derivative {i} of {what}", labels, 1.0)
    reverse = torch.stack([_items(g * d) for g, d in zip(gradients, along, strict=True)], 1)
    products = [_items(q * w, 3) for q, w in zip(quotients, weights, strict=True)]
    quotient = torch.stack(products).sum(0).movedim(0, 1)
    _compare(t, reverse, quotient, f"gradient of {what}", labels, 1.0)


def hold_second(t: Trial, function: Function, inputs: list[Tensor], what: str, labels: list[str]) -> None:
    """The gradient of a random sum of gradients of `function` is their difference quotient, along one direction in each
    input and in the weights of the outputs, up to 1e-5 + 1e-4 of the quotient."""
    count = len(inputs)
    probes = [_unit(t, a) for a in inputs]

    def projected(*values: Tensor) -> tuple[Tensor]:
        # Also where gradients are off around it: a gradient is differentiated.
        again = values[0].requires_grad
        with torch.enable_grad():
            leaves = [v if again else v.detach().clone().requires_grad_() for v in values]
            gradients = _gradient(function(*leaves[:count]), leaves[count:], leaves[:count], again)
        products = [_items(g * p, g.dim() - p.dim() + 2) for g, p in zip(gradients, probes, strict=True)]
        return (torch.stack(products).sum(0),)

    with torch.no_grad():
        every = [*inputs, *(t.noise(*o.shape) for o in function(*inputs))]
        along = [_unit(t, a) for a in every]
    leaves = [a.detach().clone().requires_grad_() for a in every]
    got = _gradient(projected(*leaves), [torch.ones(())], leaves)
    ahead, behind = _steps(projected, every, along)
    quotient = ((ahead[0] - behind[0]) / (2 * STEP)).movedim(0, 1)
    derivative = torch.stack([_items(g * d) for g, d in zip(got, along, strict=True)], 1)
    _compare(t, derivative, quotient, f"second gradient of {what}", labels, 10.0)


def _steps(function: Function, inputs: list[Tensor], along: list[Tensor]) -> list[list[Tensor]]:
    """Values a step ahead and a step behind: of each output ``k,labels,*``, the first dimension over the inputs."""
    moved = []
    for j, (a, d) in enumerate(zip(inputs, along, strict=True)):
        both = a.detach().expand(2, len(inputs), *a.shape).clone()
        both[0, j] += STEP * d
        both[1, j] -= STEP * d
        moved.append(both.flatten(0, 1))
    outputs = function(*moved)
    return [[o.detach()[: len(inputs)] for o in outputs], [o.detach()[len(inputs) :] for o in outputs]]


def _gradient(
    outputs: tuple[Tensor, ...], weights: list[Tensor], inputs: list[Tensor], create_graph: bool = False
) -> list[Tensor]:
    """Of the weighted sum of the outputs; zero for inputs that it does not depend on."""
    total = sum(((o * w).sum() for o, w in zip(outputs, weights, strict=True)), torch.zeros(()))
    if not total.requires_grad:
        return [torch.zeros_like(a) for a in inputs]
    found = torch.autograd.grad(total, inputs, create_graph=create_graph, allow_unused=True)
    return [torch.zeros_like(a) if g is None else g for a, g in zip(inputs, found, strict=True)]


def _items(a: Tensor, batch: int = 2) -> Tensor:
    """Sums over all but the batch dimensions."""
    return a.flatten(batch).sum(batch) if a.dim() > batch else a


def _unit(t: Trial, a: Tensor) -> Tensor:
    """A random direction, of length about one for each item."""
    return t.noise(*a.shape) / max(1, a[0, 0].numel()) ** 0.5


def _compare(t: Trial, got: Tensor, want: Tensor, what: str, labels: list[str], factor: float) -> None:
    """|got - want| <= factor (1e-6 + 1e-5 |want|) everywhere; NaN is no number."""
    excess = (got - want).abs() / (factor * (1e-6 + 1e-5 * want.abs()))
    worst = excess.reshape(len(labels), -1).nan_to_num(torch.inf).amax(1)
    i = int(worst.argmax())
    if not worst[i] <= 1:
        t.fail(f"{what} at {labels[i]} misses its difference quotient by {float(worst[i]):.3g} tolerances")


def _hold_everywhere(t: Trial, hold: Callable[..., None]) -> None:
    places = _places(t)
    for name, letters in operations.smooth(t.case).items():
        # Without an argument that is degenerate, an operation sees but the general position.
        labels = list(places) if set("uy") & set(letters) else ["general position"]
        inputs = [torch.stack([places[label][k] for label in labels]).detach() for k in letters]
        try:
            hold(t, on_chart(t, name, letters), inputs, name, labels)
        except (RuntimeError, NotImplementedError) as error:
            t.fail(f"{name}: {str(error).strip()[:1500]}")


@law("derivatives", examples=1)
def gradients_match_finite_differences(t: Trial) -> None:
    """Reverse and forward derivatives of the smooth operations, in general position and at degenerate arguments, are
    central difference quotients along a random direction in each argument, atol 1e-6, rtol 1e-5."""
    t.batch = (3,)
    _hold_everywhere(t, hold_first)


@law("derivatives", examples=1)
def second_gradients_match_finite_differences(t: Trial) -> None:
    """So are the gradients of a random sum of their gradients, atol 1e-5, rtol 1e-4."""
    t.batch = (3,)
    _hold_everywhere(t, hold_second)


def full_gradcheck(t: Trial) -> None:
    """torch's gradcheck, of both modes, and gradgradcheck of every entry of the Jacobians, without batch: minutes."""
    t.batch = ()
    for label, arguments in _places(t).items():
        for name, letters in operations.smooth(t.case).items():
            if label != "general position" and not set("uy") & set(letters):
                continue
            inputs = tuple(arguments[letter].detach().clone().requires_grad_() for letter in letters)
            try:
                gradcheck(on_chart(t, name, letters), inputs, check_forward_ad=True, atol=1e-6, rtol=1e-5)
                gradgradcheck(on_chart(t, name, letters), inputs, atol=1e-5, rtol=1e-4)
            except (RuntimeError, NotImplementedError) as error:
                t.fail(f"{name} at {label}: {str(error).strip()[:1500]}")


@law("derivatives", float64=1e-8, examples=2, exact=False)
def forward_derivatives_match_finite_differences(t: Trial) -> None:
    """jvp of every operation = a five-point difference quotient (h = 1e-3). A tangent that is dropped silently gives
    a wrong derivative without an error, and reverse mode would not show it. Relative to the larger of one and the
    derivative; at a distance of at least half the reach, since d and |u| have no bounded derivatives near zero."""
    t.scale, h = max(t.scale, 0.5), 1e-3
    arguments = t.arguments()
    seen = operations.seen(t.case)
    for name, letters in operations.costly(t.case).items():
        if name in (*operations.ANSWERS, "basis", "to_coordinates", "from_coordinates") or name not in seen:
            continue
        function = on_chart(t, name, letters)
        at = tuple(arguments[letter] for letter in letters)
        along = tuple(t.noise(*a.shape) / a[0].numel() ** 0.5 if a.dim() else t.noise() for a in at)
        got = torch.func.jvp(function, at, along)[1]
        shifted = function(
            *(torch.stack([a + k * h * d for k in (1, -1, 2, -2)]) for a, d in zip(at, along, strict=True))
        )
        for i, (derivative, values) in enumerate(zip(got, shifted, strict=True)):
            quotient = (8 * (values[0] - values[1]) - (values[2] - values[3])) / (12 * h)
            t.close(derivative, quotient, f"jvp of {name}, output {i}")
