"""Parameter groups that know manifolds: what every optimizer here shares, first order or full batch."""

from __future__ import annotations

from typing import Any

import torch

from torchriemann.manifolds.parameter import manifold_label

from . import groups, labels
from .entries import Entry
from .regroup import MANIFOLDS as MANIFOLDS
from .regroup import per_parameter, regrouped


class ManifoldOptimizer(torch.optim.Optimizer):
    """A `torch.optim.Optimizer` that resolves the manifold of each parameter and guards it.

    The manifold is that of the group (key ``"manifold"``, as `param_groups` writes it) or the label of the tensor;
    without either the parameter is flat. Manifold objects stay out of ``state_dict``, which holds their repr: a
    parameter that lost its label, or a state that was saved for other manifolds, raises ``ValueError``.
    """

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self._explicit: list[tuple] = []  # a group's manifold, as a tuple of one or none
        super().__init__(params, defaults)

    def _check_group(self, group: dict[str, Any]) -> None:
        """Raise ``ValueError`` if the options of a group are not supported."""

    def _check_start(self, entry: Entry) -> None:
        """Raise ``ValueError`` unless the point is on its manifold. One that only its group calls a point is looked at
        when the group comes, a labelled one at its first step: until then it may be waiting for its values."""
        p, manifold = entry.parameter, entry.manifold
        if groups.is_flat(manifold) or p.numel() == 0 or not labels.readable(p):
            return
        reason = labels.reason_off(manifold, p)
        if reason is not None:
            # One that only its group calls a point has no label to ask.
            mended = labels.mended(entry.where.rpartition("parameter ")[2], "manifold")
            raise ValueError(f"{entry.where} is off {manifold!r}: {reason}{mended}")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its key ``"manifold"``, if there, is the manifold of all its parameters (None: flat)."""
        explicit: tuple = ()
        if isinstance(param_group, dict):
            param_group = dict(param_group)
            explicit = (param_group.pop("manifold"),) if "manifold" in param_group else ()
            recorded = param_group.pop(MANIFOLDS, "")  # in a group of another optimizer
            if not isinstance(recorded, (str, list)):
                raise ValueError(
                    f'{type(self).__name__}: the key of a group\'s manifold is "manifold", got {MANIFOLDS!r}'
                )
        super().add_param_group(param_group)
        self._explicit.append(explicit)
        try:
            for entry in self._entries(len(self.param_groups) - 1):
                if manifold_label(entry.parameter) is None:
                    self._check_start(entry)
        except ValueError:
            self.param_groups.pop()
            self._explicit.pop()
            raise

    def _entries(self, index: int) -> list[Entry]:
        """The parameters of a group with their manifolds, which must be those recorded in the group."""
        group = self.param_groups[index]
        self._check_group(group)
        entries = []
        for i, p in enumerate(group["params"]):
            name = group["param_names"][i] if "param_names" in group else f"{i} of group {index}"
            where = f"{type(self).__name__}: parameter {name}"
            entries.append(Entry(p, groups.resolve(p, self._explicit[index], where), where))
        reprs = [repr(e.manifold) for e in entries]
        recorded = per_parameter(group.get(MANIFOLDS, reprs), len(entries))
        for entry, before, now in zip(entries, recorded, reprs, strict=False):
            if before != now:
                raise ValueError(
                    f"{entry.where} was on {before} and is now on {now}: it lost its label or was replaced; label it "
                    "by torchriemann.manifolds.parameter.relabel(parameter, manifold), or build a new optimizer"
                )
        for entry in entries:
            if entry.manifold is None:
                labels.check_not_lost(entry.parameter, entry.where)
        group[MANIFOLDS] = reprs[0] if len(set(reprs)) == 1 else reprs
        return entries

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state. Parameters that were divided into other groups are told by their names. Raises ``ValueError``
        if it was saved for other manifolds."""
        state_dict = regrouped(state_dict, self.param_groups)
        for i, (group, saved) in enumerate(zip(self.param_groups, state_dict["param_groups"], strict=False)):
            n = len(group["params"])
            ours = per_parameter(group[MANIFOLDS], n)
            theirs = per_parameter(saved.get(MANIFOLDS, ours), n)
            for j, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
                if mine != other:
                    raise ValueError(
                        f"{type(self).__name__}: the state of parameter {j} of group {i} was saved on {other}, but the "
                        f"parameter is on {mine}"
                    )
        super().load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_explicit": self._explicit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        recorded = [g.get(MANIFOLDS) for g in self.__dict__.get("param_groups", [])]
        super().__setstate__(state)
        for i, group in enumerate(self.param_groups):
            for name, default in self.defaults.items():  # a state of another optimizer lacks some
                group.setdefault(name, default)
            if i < len(recorded) and recorded[i] is not None:  # a loaded state may come without
                group[MANIFOLDS] = recorded[i]
