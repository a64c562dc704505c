"""What is stepped together: same-shaped points of one manifold as one batch, flat parameters as lists.

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

State = dict[str, Any]

# Rounding moves a point off its manifold by about eps a step, at random: 64 steps stay below 1e-6 in float32, and one
# correction in 64 costs nothing. It falls on multiples of the step count, so a resumed run corrects at the same steps.
RESTORE_EVERY = 64

_DTYPE = attrgetter("dtype")


def same_items(current: list, known: list) -> bool:
    """Are the items identical, not merely equal? Written to run a thousand of them in some ten microseconds."""
    return len(current) == len(known) and all(map(is_, current, known))


@dataclasses.dataclass(frozen=True)
class Entry:
    """One parameter of an optimizer, its manifold, and how messages call it."""

    parameter: Tensor
    manifold: Any
    where: str


@dataclasses.dataclass(frozen=True)
class Proposal:
    """New values that nobody has seen yet: `commit` writes them.

    `checked` are the tensors that have to be finite; `blame` names the first parameter for which they are not.
    """

    commit: Callable[[], None]
    checked: list[Tensor]
    blame: Callable[[], str]


class PointBucket:
    """``N`` points of one manifold, shape ``*B,P``, dtype and device.

    The state is one stack ``N,*B,...`` a name, whose slices are the ``state[p][name]`` that torch expects; stacking it
    anew would cost more than the step. Points and gradients are stacked at every step and the points copied back, so
    that they stay tensors of their own: assigning ``p.data`` or loading a model needs no care. A bucket of one point
    stacks nothing and has no leading dimension.
    """

    def __init__(self, entries: list[Entry], group: State, names: tuple[str, ...], state: dict[Tensor, State]) -> None:
        self.entries, self.group, self.names = entries, group, names
        self.parameters = [e.parameter for e in entries]
        self.manifold = entries[0].manifold
        self.alone = len(entries) == 1
        self.state = state
        # Entries of `state` exist from the first step on, as in torch: a parameter without gradients has none.
        self.dicts = [state.get(p, {}) for p in self.parameters]
        like = self.parameters[0]
        self.shape, self.dtype = like.shape, like.dtype
        self._adopt()

    # ---- state: one stack, of which the parameters' entries are views -----------------------------------------

    def _adopt(self) -> None:
        """Gather the state into stacks, zero where a parameter has none, and hand out views where it has."""
        self.steps = torch.tensor([float(s.get("step", 0.0)) for s in self.dicts])
        self.stacks = {name: self._gather(name) for name in self.names}
        self.views = {name: self._slices(s) for name, s in self.stacks.items()}
        self.views["step"] = self.steps.unbind(0)
        self._publish(i for i, s in enumerate(self.dicts) if s)
        # New points go back to the parameters through a buffer whose slices are made once: they cost as much as a copy.
        like = self.parameters[0]
        length = 0 if self.alone else len(self.entries)
        self.buffer = torch.empty(length, *self.shape, dtype=like.dtype, device=like.device)
        self.buffer_slices = self.buffer.unbind(0)

    def _slices(self, stack: Tensor) -> tuple[Tensor, ...]:
        return (stack,) if self.alone else stack.unbind(0)

    def _gather(self, name: str) -> Tensor:
        blank = torch.zeros_like(self.parameters[0], memory_format=torch.contiguous_format)
        if name.endswith("exp_avg_sq"):
            # One scalar a point (a factor, on geoopt's products): the manifold says of which shape.
            blank = torch.zeros_like(self.manifold.component_inner(self.parameters[0], blank))
        slots = [s.get(name, blank) for s in self.dicts]
        for entry, slot in zip(self.entries, slots, strict=True):
            if slot.shape != blank.shape:
                raise ValueError(
                    f"{entry.where}: its state {name!r} has shape {tuple(slot.shape)}, expected {tuple(blank.shape)}; "
                    "if the parameter was resized, delete its entry from optimizer.state"
                )
        return (slots[0].clone() if self.alone else torch.stack(slots)).to(blank)

    def _publish(self, indices: Iterable[int]) -> None:
        for i in indices:
            self.dicts[i] = self.state[self.parameters[i]]
            self.dicts[i].update({name: views[i] for name, views in self.views.items()})
        self.complete = all(self.dicts)
        self.published = self._values()

    def holds_state(self, names: tuple[str, ...]) -> bool:
        """Are the state's tensors still our views, and the ones that are asked for?"""
        return self.names == names and same_items(self._values(), self.published)

    def _values(self) -> list[Any]:
        return list(chain.from_iterable(map(dict.values, self.dicts)))

    # ---- a step -----------------------------------------------------------------------------------------------

    def propose(self, update: Callable) -> Proposal | None:
        """The step of the points that have a gradient, by the mathematics of `update`; None if none has."""
        chosen, entries, grads = self._with_gradient()
        if not grads:
            return None
        points = self._stacked([e.parameter for e in entries], entries, "data")
        grad = self._stacked(grads, entries, "grad")
        foreign = not isinstance(self.manifold, Manifold)
        if foreign and self.alone:
            grad = grad.clone()  # some of geoopt's manifolds write into the gradient that they are given
        old, steps = self._select(chosen)
        steps = steps + 1
        step = self._clock(steps, points.dim())
        moved, new = update(self.group, self.manifold, points, grad, old, step)
        due = step % RESTORE_EVERY == 0
        if due.any() if isinstance(due, Tensor) else due:
            moved = self.manifold.projx(moved) if foreign else self.manifold.restore(moved)
        self._verify({"point": moved, **new}, {"point": points, **old})
        checked = [grad, moved, *new.values()]
        return Proposal(
            lambda: self._commit(chosen, entries, moved, {**new, "step": steps}),
            checked,
            lambda: self._blame(entries, checked),
        )

    def _with_gradient(self) -> tuple[list[int] | None, list[Entry], list[Tensor]]:
        """Indices (None: all), entries and gradients of the parameters that have one."""
        grads = [p.grad for p in self.parameters]
        if not any(g is None for g in grads):
            return None, self.entries, grads  # type: ignore[return-value]
        chosen = [i for i, g in enumerate(grads) if g is not None]
        return chosen, [self.entries[i] for i in chosen], [grads[i] for i in chosen]  # type: ignore[misc]

    def _stacked(self, tensors: list[Tensor], entries: list[Entry], what: str) -> Tensor:
        """All `tensors` as one, or an error that names the first that is not dense, or of another shape or dtype."""
        try:
            stack = tensors[0] if self.alone else torch.stack(tensors)
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

    def _verify(self, new: dict[str, Tensor], old: dict[str, Tensor]) -> None:
        for name, value in new.items():
            if (value.shape, value.dtype) != (old[name].shape, old[name].dtype):
                raise ValueError(
                    f"{self.entries[0].where}: {self.manifold!r} gave a new {name} of {value.dtype} and shape "
                    f"{tuple(value.shape)}, expected {old[name].dtype} and {tuple(old[name].shape)}"
                )

    def _select(self, chosen: list[int] | None) -> tuple[dict[str, Tensor], Tensor]:
        if chosen is None:
            return self.stacks, self.steps
        index = torch.tensor(chosen)
        return {n: s.index_select(0, index.to(s.device)) for n, s in self.stacks.items()}, self.steps[index]

    def _clock(self, steps: Tensor, dim: int) -> float | Tensor:
        """The step count: a number if the points share it, so that corrections by it cost nothing."""
        first, last = (steps, steps) if self.alone else steps.aminmax()
        if self.alone or first == last:
            return float(first)
        return steps.double().reshape([-1] + [1] * (dim - 1))

    def _commit(self, chosen: list[int] | None, entries: list[Entry], moved: Tensor, new: dict[str, Tensor]) -> None:
        if self.alone:
            self._commit_alone(moved, new)
            return
        self.buffer[: len(moved)].copy_(moved)
        torch._foreach_copy_([e.parameter for e in entries], self.buffer_slices[: len(moved)])  # type: ignore[arg-type]
        for name, stack in {**self.stacks, "step": self.steps}.items():
            if chosen is None:
                stack.copy_(new[name])
            else:
                stack.index_copy_(0, torch.tensor(chosen, device=stack.device), new[name])
        if not self.complete:
            self._publish(range(len(self.parameters)) if chosen is None else chosen)

    def _commit_alone(self, moved: Tensor, new: dict[str, Tensor]) -> None:
        """One point has no stack to fill: the new state takes the place of the old one, without a copy."""
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

    def _blame(self, entries: list[Entry], checked: list[Tensor]) -> str:
        if self.alone:
            return entries[0].where
        bad = torch.stack([~t.isfinite().flatten(1).all(1) for t in checked]).any(0)
        return entries[int(bad.nonzero()[0])].where


class FlatBucket:
    """The parameters of a group that live in flat space: torch's own functions step them, in place at commit."""

    def __init__(self, entries: list[Entry], group: State, state: dict[Tensor, State]) -> None:
        self.entries, self.group, self.state = entries, group, state

    def holds_state(self, names: tuple[str, ...]) -> bool:
        """Always: nothing of the state is kept here."""
        return True

    def propose(self, update: Callable) -> Proposal | None:
        """All that could fail is looked at now; `update` runs at commit."""
        entries = [e for e in self.entries if e.parameter.grad is not None]
        for entry in entries:
            self._check(entry)
        if not entries:
            return None
        parameters = [e.parameter for e in entries]
        grads: list[Tensor] = [p.grad for p in parameters]  # type: ignore[misc]

        def commit() -> None:
            update(self.group, parameters, grads, [self.state[p] for p in parameters])

        def blame() -> str:
            return next(e.where for e, g in zip(entries, grads, strict=True) if not g.isfinite().all())

        return Proposal(commit, grads, blame)

    def _check(self, entry: Entry) -> None:
        p, grad = entry.parameter, entry.parameter.grad
        assert grad is not None
        if grad.layout != torch.strided:
            raise ValueError(f"{entry.where}: its gradient is {grad.layout}; only dense tensors are supported")
        if not p.is_floating_point():
            raise ValueError(f"{entry.where} must be a real floating-point tensor, got {p.dtype}")
        for what, t in {"grad": grad, **self.state.get(p, {})}.items():
            if what != "step" and isinstance(t, Tensor) and (t.shape, t.dtype) != (p.shape, p.dtype):
                raise ValueError(
                    f"{entry.where}: its {what} is {t.dtype} of shape {tuple(t.shape)}, expected {p.dtype} of shape "
                    f"{tuple(p.shape)}"
                )
