"""Points that are stepped together: those of one manifold, shape, dtype and device, as one batch.

A bucket proposes a step without changing anything, and commits it when every bucket has proposed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from itertools import chain
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor

from torchriemann.manifolds.base import Manifold

from ..entries import Entry, State, StateNames, bookkeeping
from ..sharding import is_dtensor, laid_out_as, local, local_gradient

_DTYPE = attrgetter("dtype")


def same_items(current: list, known: list) -> bool:
    """Are the items identical, not merely equal? Written to run a thousand of them in some ten microseconds."""
    return len(current) == len(known) and all(map(is_, current, known))


@dataclasses.dataclass(frozen=True)
class Proposal:
    """New values that nobody has seen yet: `commit` writes them.

    `checked` are the tensors that have to be finite; `name_culprit` names the first parameter for which they are not.
    """

    commit: Callable[[], None]
    checked: list[Tensor]
    name_culprit: Callable[[], str]
    computes_at_commit: bool = False


@dataclasses.dataclass(frozen=True)
class Batch:
    """The points of a bucket that have a gradient: `indices` tell which, None for all of them; `step` is the
    step count in the form that the mathematics takes."""

    indices: list[int] | None
    entries: list[Entry]
    points: Tensor
    grads: Tensor
    state: dict[str, Tensor]
    steps: Tensor
    step: float | Tensor


class PointBucket:
    """``N`` points of one manifold, shape ``*B,P``, dtype and device.

    The state is one stack ``N,*B,...`` a name, whose slices are the ``state[p][name]`` that torch expects; stacking it
    anew would cost more than the step. Points and gradients are stacked at every step and the points copied back, so
    that they stay tensors of their own: assigning ``p.data`` or loading a model needs no care. A bucket of one point
    stacks nothing and has no leading dimension.

    Of DTensors, the part that this process holds is stepped; the entries of ``state`` are DTensors spread alike.
    """

    def __init__(self, entries: list[Entry], group: State, names: StateNames, state: dict[Tensor, State]) -> None:
        self.entries, self.group, self.names = entries, group, names
        self.parameters = [e.parameter for e in entries]
        self.manifold: Manifold = entries[0].manifold
        self.single = len(entries) == 1
        self.sharded = is_dtensor(self.parameters[0])
        self.capturable, self.differentiable = group["capturable"], group["differentiable"]
        self.state = state
        # Entries of `state` exist from the first step on, as in torch: a parameter without gradients has none.
        self.dicts = [state.get(p, {}) for p in self.parameters]
        like = local(self.parameters[0])
        self.shape, self.dtype = like.shape, like.dtype
        self._adopt()

    def _local(self, entries: list[Entry]) -> list[Tensor]:
        return [local(e.parameter) for e in entries] if self.sharded else [e.parameter for e in entries]

    # ---- state: one stack, of which the parameters' entries are views -----------------------------------------

    def _adopt(self) -> None:
        """Gather the state into stacks, zero where a parameter has none, and hand out views where it has."""
        like = local(self.parameters[0])
        clock = like.device if self.capturable else "cpu"
        self.steps = torch.tensor([float(s.get("step", 0.0)) for s in self.dicts], device=clock)
        self.stacks = {name: self._gather(name, kind) for name, kind in self.names.items()}
        self.views = {name: self._slices(s) for name, s in self.stacks.items()}
        self.views["step"] = self.steps.unbind(0)
        self._publish(i for i, s in enumerate(self.dicts) if s)
        # New points go back to the parameters through a buffer whose slices are made once: they cost as much as a copy.
        length = 0 if self.single else len(self.entries)
        self.buffer = torch.empty(length, *self.shape, dtype=like.dtype, device=like.device)
        self.buffer_slices = self.buffer.unbind(0)

    def _slices(self, stack: Tensor) -> tuple[Tensor, ...]:
        slices = (stack,) if self.single else stack.unbind(0)
        return tuple(map(laid_out_as, self.parameters, slices)) if self.sharded else slices

    def _gather(self, name: str, kind: str) -> Tensor:
        point = local(self.parameters[0]).detach()
        blank = torch.zeros_like(point, memory_format=torch.contiguous_format)
        if kind == "scalar":  # the manifold says of which shape
            blank = torch.zeros_like(self.manifold.component_inner(point, blank))
        slots = [local(s.get(name, blank)) for s in self.dicts]
        for entry, slot in zip(self.entries, slots, strict=True):
            if slot.shape != blank.shape:
                raise ValueError(
                    f"{entry.where}: its state {name!r} has shape {tuple(slot.shape)}, expected {tuple(blank.shape)}; "
                    "if the parameter was resized, delete its entry from optimizer.state"
                )
        return (slots[0].clone() if self.single else torch.stack(slots)).to(blank)

    def _publish(self, indices: Iterable[int]) -> None:
        for i in indices:
            self.dicts[i] = self.state[self.parameters[i]]
            self.dicts[i].update({name: views[i] for name, views in self.views.items()})
        self.complete = all(self.dicts)
        self.published = self._values()

    def holds_state(self, names: StateNames) -> bool:
        """Are the state's tensors still our views, and the ones that are asked for?"""
        return self.names == names and same_items(self._values(), self.published)

    def _values(self) -> list[Any]:
        return list(chain.from_iterable(map(dict.values, self.dicts)))

    # ---- a step -----------------------------------------------------------------------------------------------

    def propose(self, update: Callable) -> Proposal | None:
        """The step of the points that have a gradient, by the mathematics of `update`; None if none has."""
        batch = self._batch()
        if batch is None:
            return None
        downhill = -batch.grads if self.group["maximize"] else batch.grads
        moved, new = update(self.group, self.manifold, batch.points, downhill, batch.state, batch.step)
        # On multiples of the step count, so that a resumed run corrects at the same steps.
        moved = self._restored(moved, batch.step % self.manifold.restore_every == 0)
        self._verify({"point": moved, **new}, {"point": batch.points, **batch.state})
        checked = [batch.grads, moved, *new.values()]
        return Proposal(
            lambda: self._commit(batch, moved, {**new, "step": batch.steps}),
            checked,
            lambda: self._name_culprit(batch.entries, checked),
        )

    @bookkeeping
    def _batch(self) -> Batch | None:
        indices, entries, grads = self._with_gradient()
        if not grads:
            return None
        points = self._stacked(self._local(entries), entries, "data")
        if self.differentiable:
            points = points.clone()  # the parameter is written into, and the graph needs what it was
        grad = self._stacked(grads, entries, "grad")
        state, steps = self._select(indices)
        steps = steps + 1
        return Batch(indices, entries, points, grad, state, steps, self._clock(steps, points.dim()))

    def _with_gradient(self) -> tuple[list[int] | None, list[Entry], list[Tensor]]:
        """Indices (None: all), entries and gradients of the parameters that have one."""
        grads = [local_gradient(p) for p in self.parameters] if self.sharded else [p.grad for p in self.parameters]
        if not any(g is None for g in grads):
            return None, self.entries, grads  # type: ignore[return-value]
        indices = [i for i, g in enumerate(grads) if g is not None]
        return indices, [self.entries[i] for i in indices], [grads[i] for i in indices]  # type: ignore[misc]

    def _stacked(self, tensors: list[Tensor], entries: list[Entry], what: str) -> Tensor:
        """All `tensors` as one, or an error that names the first that is not dense, or of another shape or dtype."""
        try:
            stack = tensors[0] if self.single else torch.stack(tensors)
        except RuntimeError:
            stack = None
        if stack is not None and (stack.layout, stack.dtype) == (torch.strided, self.dtype):
            # A stack of float32 and float16 is float32 without a word, so every dtype is looked at.
            if stack.shape[stack.dim() - len(self.shape) :] == self.shape and set(map(_DTYPE, tensors)) == {self.dtype}:
                return stack
        for entry, t in zip(entries, tensors, strict=True):
            if (t.layout, t.dtype, t.shape) != (torch.strided, self.dtype, self.shape):
                raise ValueError(
                    f"{entry.where}: its {what} is {t.dtype} ({t.layout}) of shape {tuple(t.shape)}, expected dense "
                    f"{self.dtype} of shape {tuple(self.shape)}"
                )
        raise ValueError(f"{entries[0].where} and its like: their {what} is on several devices")

    def _restored(self, moved: Tensor, due: bool | Tensor) -> Tensor:
        """`moved`, back on its manifold to rounding where that is `due`."""
        if not (self.capturable or (bool(due.any()) if isinstance(due, Tensor) else due)):
            return moved
        restored = self.manifold.restore(moved)
        return torch.where(due, restored, moved) if isinstance(due, Tensor) else restored

    def _verify(self, new: dict[str, Tensor], old: dict[str, Tensor]) -> None:
        if new.keys() != old.keys():
            raise ValueError(
                f"{self.entries[0].where}: _point_update must give the new state of {sorted(self.names)}, got "
                f"{sorted(new.keys() - {'point'})}"
            )
        for name, value in new.items():
            if (value.shape, value.dtype) != (old[name].shape, old[name].dtype):
                raise ValueError(
                    f"{self.entries[0].where}: {self.manifold!r} gave a new {name} of {value.dtype} and shape "
                    f"{tuple(value.shape)}, expected {old[name].dtype} and {tuple(old[name].shape)}"
                )

    def _select(self, indices: list[int] | None) -> tuple[dict[str, Tensor], Tensor]:
        if indices is None:
            return self.stacks, self.steps
        index = torch.tensor(indices)
        return {n: s.index_select(0, index.to(s.device)) for n, s in self.stacks.items()}, self.steps[index]

    def _clock(self, steps: Tensor, dim: int) -> float | Tensor:
        """The step count: a number if the points share it, so that corrections by it cost nothing. A captured step
        may not look, and reads it from the device again and again."""
        if self.capturable:
            return steps.reshape([]) if self.single else steps.reshape([-1] + [1] * (dim - 1))
        first, last = (steps, steps) if self.single else steps.aminmax()
        if self.single or first == last:
            return float(first)
        return steps.double().reshape([-1] + [1] * (dim - 1))

    @bookkeeping
    def _commit(self, batch: Batch, moved: Tensor, new: dict[str, Tensor]) -> None:
        if self.single:
            self._commit_single(moved, new)
            return
        indices, entries = batch.indices, batch.entries
        self.buffer[: len(moved)].copy_(moved)
        torch._foreach_copy_(self._local(entries), self.buffer_slices[: len(moved)])  # type: ignore[arg-type]
        for name, stack in {**self.stacks, "step": self.steps}.items():
            if indices is None:
                stack.copy_(new[name])
            else:
                stack.index_copy_(0, torch.tensor(indices, device=stack.device), new[name])
        if not self.complete:
            self._publish(range(len(self.parameters)) if indices is None else indices)

    def _commit_single(self, moved: Tensor, new: dict[str, Tensor]) -> None:
        """One point has no stack to fill: the new state takes the place of the old one, without a copy. Unless its
        address has to last, in a captured graph or in a DTensor."""
        if self.capturable or self.sharded:
            local(self.parameters[0]).copy_(moved)
            for name, stack in {**self.stacks, "step": self.steps}.items():
                stack.copy_(new[name])
            if not self.complete:
                self._publish([0])
            return
        parameter = self.parameters[0]
        taken = {t.untyped_storage().data_ptr() for t in (parameter, parameter.grad, moved) if t is not None}
        parameter.copy_(moved)
        self.steps.copy_(new["step"])
        for name in self.names:
            value = new[name]
            # A manifold may hand back what it was given: the state must not be the gradient.
            value = value.clone() if value.untyped_storage().data_ptr() in taken else value
            self.stacks[name], self.views[name] = value, (value,)
        self._publish([0])

    def _name_culprit(self, entries: list[Entry], checked: list[Tensor]) -> str:
        if self.single:
            return entries[0].where
        bad = torch.stack([~t.isfinite().flatten(1).all(1) for t in checked]).any(0)
        return entries[int(bad.nonzero()[0])].where
