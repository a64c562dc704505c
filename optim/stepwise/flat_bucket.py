"""Parameters of flat space, stepped as lists by torch's own functions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..entries import Entry, State, StateNames
from ..sharding import local
from .point_bucket import Proposal


class FlatBucket:
    """The parameters of a group that live in flat space: torch's own functions step them, in place at commit; with
    `check_finite` copies of them beforehand, so that there is something to look at."""

    def __init__(self, entries: list[Entry], group: State, state: dict[Tensor, State]) -> None:
        self.entries, self.group, self.state = entries, group, state

    def holds_state(self, names: StateNames) -> bool:
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
        if self.group["check_finite"]:
            return self._beforehand(update, entries, parameters, grads)

        def commit() -> None:
            if self.group["differentiable"]:  # torch writes into the state, and the graph needs what it was
                for p in parameters:
                    self.state[p] = _copy(self.state[p])
            update(self.group, parameters, grads, [self.state[p] for p in parameters])

        def name_culprit() -> str:
            return next(e.where for e, g in zip(entries, grads, strict=True) if not local(g).isfinite().all())

        return Proposal(commit, [local(g) for g in grads], name_culprit, computes_at_commit=True)

    def _beforehand(
        self, update: Callable, entries: list[Entry], parameters: list[Tensor], grads: list[Tensor]
    ) -> Proposal:
        new = [p.detach().clone() for p in parameters]
        states = [_copy(self.state.get(p, {})) for p in parameters]
        update(self.group, new, grads, states)
        found = [[local(t) for t in (p, *filter(_is_tensor, s.values()))] for p, s in zip(new, states, strict=True)]

        def commit() -> None:
            for p, value, state in zip(parameters, new, states, strict=True):
                p.copy_(value)
                self.state[p] = state

        def name_culprit() -> str:
            return next(
                e.where for e, ts in zip(entries, found, strict=True) if not all(t.isfinite().all() for t in ts)
            )

        return Proposal(commit, [t for tensors in found for t in tensors], name_culprit)

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


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _copy(state: State) -> State:
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}
