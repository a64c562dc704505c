"""What single bad items of a batch do: numbers that are not finite, and matrices without a nearest point."""

from __future__ import annotations

import torch
from torch import Tensor

from . import operations
from .trial import Trial, law

BAD = (torch.nan, torch.inf)


@law("bad items", float64=1e-9, float32=1e-3, examples=1)
def bad_items_leave_their_neighbours(t: Trial) -> None:
    """In a batch with items that hold a NaN or an infinity, in each argument in turn, every operation gives the other
    items what it gives them without these: values, under vmap too, and gradients (first and second ones of the smooth
    operations). An item with a NaN is not finite, or as if the NaN were not read."""
    good = t.arguments((2,))
    for name, letters in operations.operations_of(t.case).items():
        spoiled = [(letter, bad) for letter in letters for bad in BAD]
        # Of one size with and without bad items: products of matrices may be rounded otherwise in a smaller batch.
        sound = {k: torch.cat([good[k], good[k][:1].expand(len(spoiled), *good[k].shape[1:])]) for k in letters}
        batch = {k: a.clone() for k, a in sound.items()}
        for i, (letter, bad) in enumerate(spoiled):
            batch[letter][2 + i].view(-1)[-1] = bad  # the last entry: not every space reads the first
        wanted, got = (_values_and_gradients(t, name, arguments) for arguments in (sound, batch))
        for what in wanted:
            for g, w in zip(got[what], wanted[what], strict=True):
                t.close(g[:2], w[:2], f"{what} of {name} beside bad items")
        for i, (letter, bad) in enumerate(spoiled):
            if bad != bad:
                fine = all(_is_finite(out[2 + i]) for out in got["values"])
                read = any(not torch.equal(out[2 + i], out[0]) for out in got["values"])
                t.require(not fine or not read, f"{name} of NaN in {letter} is finite")


def _is_finite(result: Tensor) -> bool:
    return bool(result.all() if result.dtype == torch.bool else result.isfinite().all())


def _values_and_gradients(t: Trial, name: str, arguments: dict[str, Tensor]) -> dict[str, list[Tensor]]:
    """The results, and the gradients of their weighted sums over all items; the weights are those of the name."""
    leaves = {k: a.detach().clone().requires_grad_() for k, a in arguments.items()}
    outputs, smooth = operations.call(t, name, leaves), name in operations.smooth(t.case)
    found = {"values": [out.detach() for out in outputs]}
    found["values under vmap"] = list(torch.func.vmap(lambda at: operations.call(t, name, at))(arguments))
    for what in ("gradients", "second gradients") if smooth else ("gradients",):
        terms = [(out * _weights(t, out)).sum() for out in outputs if out.requires_grad]
        if not terms:
            break
        total = torch.stack(terms).sum()
        outputs = torch.autograd.grad(total, list(leaves.values()), create_graph=smooth, materialize_grads=True)
        found[what] = [g.detach() for g in outputs]
    return found


def _weights(t: Trial, a: Tensor) -> Tensor:
    """Numbers that are the same for every item, and not zero."""
    return torch.linspace(1, 2, max(1, a[0].numel()), dtype=t.dtype).reshape(a.shape[1:])


@law("bad items", float64=0.0, float32=0.0, examples=2)
def projection_of_degenerate_tensors_has_derivatives(t: Trial) -> None:
    """projx of zero, of equal columns (or entries) and of all but one column (or entry) zero is a point, with finite
    first and second derivatives."""
    x = t.ambient((1,))
    single = torch.zeros_like(x)
    single[..., :1] = x[..., :1]
    x = torch.cat([torch.zeros_like(x), x[..., :1].expand_as(x), single]).requires_grad_()
    y = t.manifold.projx(x)
    t.is_point(y.detach(), "projx of degenerate tensors")
    (first,) = torch.autograd.grad((y * t.noise(*y.shape)).sum(), x, create_graph=True)
    t.require(first.isfinite().all(), "the derivative of projx is not finite")
    if first.requires_grad:
        (second,) = torch.autograd.grad((first * t.noise(*x.shape)).sum(), x)
        t.require(second.isfinite().all(), "the second derivative of projx is not finite")
