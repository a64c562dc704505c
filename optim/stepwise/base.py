"""What the Riemannian optimizers share: manifolds of parameters, stacked state, and steps that happen whole or not."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchriemann.manifolds.base import Manifold

from .. import foreign, groups, labels
from ..entries import Entry, State, StateNames, bookkeeping, check_number, same_points
from ..optimizer import MANIFOLDS, ManifoldOptimizer
from ..regroup import regrouped
from ..sharding import everywhere, is_dtensor, local
from . import flags
from .flags import EagerFlags, StepFlags
from .flat_bucket import FlatBucket
from .flat_updates import FLAT_UPDATES
from .point_bucket import PointBucket, Proposal, same_items


class RiemannianOptimizer(ManifoldOptimizer, abc.ABC):
    """An optimizer that makes one step at a time, of points in batches and of flat parameters as torch does.

    A step is atomic. Shapes, labels, dtypes and options are checked, then the new values of all points are computed,
    then everything is written: an error leaves parameters and state as they were. Flat parameters are stepped in place
    by torch's functions, before any point is written; with `check_finite` copies of them are, beforehand.
    """

    _flags: ClassVar[type] = StepFlags  # those that the constructor takes
    _flat: ClassVar[str] = "sgd"  # whose update flat parameters get: a key of FLAT_UPDATES

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            flags.spell_out(cls.__init__, cls._flags)

    def __init__(self, params: Any, options: State, given: EagerFlags) -> None:
        self._plan: list[PointBucket | FlatBucket] | None = None
        name = type(self).__name__
        if self._flat not in FLAT_UPDATES:
            raise ValueError(f"{name}: _flat must be one of {', '.join(FLAT_UPDATES)}, got {self._flat!r}")
        defaults = {**options, **flags.with_defaults(name, self._flags, given)}
        self._check_options(defaults)
        flags.check_flags(name, self._flags, defaults)
        super().__init__(params, defaults)

    # ---- what an optimizer states: beside its options the names of its state, and what it does to points -------

    @abc.abstractmethod
    def _state_names(self, group: State) -> StateNames:
        """The tensors that a point's state holds beside "step"; they start at zero."""

    @abc.abstractmethod
    def _point_update(
        self,
        group: State,
        manifold: Manifold,
        points: Tensor,
        grads: Tensor,
        state: dict[str, Tensor],
        step: float | Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """New points and new state of a batch of points, writing into nothing.

        `points`, `grads` and the vectors of the state are ``*B,P``, its scalars ``*B,1(,1)``; `grads` are the
        Euclidean gradients of what is to be made small, also where the user maximizes. `step` counts from one, a
        number or broadcastable to the points.
        """

    # ---- what an optimizer may state ---------------------------------------------------------------------------

    def _check_options(self, options: State) -> None:
        """Raise ``ValueError`` unless the numbers among the options of the optimizer, or of a group, make sense."""
        name = type(self).__name__
        for option in ("lr", "momentum", "dampening", "eps", "weight_decay"):
            if option in options:
                check_number(name, option, options[option], tensor=option == "lr")
        betas = options.get("betas", (0.0, 0.0))
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"{name}: betas must be a pair of numbers, got {betas!r}")
        for i, beta in enumerate(betas):
            check_number(name, f"betas[{i}]", beta, below=1.0)

    def _flat_update(self, group: State, params: list[Tensor], grads: list[Tensor], states: list[State]) -> None:
        """Step parameters of flat space in place, by torch's optimizer that `_flat` names."""
        FLAT_UPDATES[self._flat]({option: group[option] for option in self.defaults}, params, grads, states)

    def _import_state(self, entry: Entry, state: State, geoopt: bool) -> None:
        """Bring the state of a point that torch's optimizer of that name saved, or geoopt's, into the form of this
        one: as it is, unless an optimizer says otherwise."""

    # ---- groups -----------------------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its key ``"manifold"``, if there, is the manifold of all its parameters (None: flat)."""
        super().add_param_group(param_group)
        self._plan = None

    def _check_group(self, group: State) -> None:
        name = type(self).__name__
        self._check_options(group)
        flags.check_flags(name, self._flags, group)
        if group["differentiable"] != self.defaults["differentiable"]:
            raise ValueError(
                f"{name}: a step is differentiable as a whole or not at all, but a group says "
                f"differentiable={group['differentiable']}; give the flag to the constructor"
            )

    def _entries(self, index: int) -> list[Entry]:
        entries = super()._entries(index)
        for entry in entries if self.param_groups[index]["capturable"] else ():
            if not groups.is_flat(entry.manifold):
                foreign.check_capturable(entry.manifold, entry.where)
        return entries

    # ---- the plan: which parameters are stepped together ------------------------------------------------------

    @bookkeeping
    def _buckets(self) -> list[PointBucket | FlatBucket]:
        if self._plan is None or not self._plan_is_current(self._plan):
            self._plan = None
            self._plan = [b for i in range(len(self.param_groups)) for b in self._plan_group(i)]
            self._planned = [list(group["params"]) for group in self.param_groups]
            self._idle = self._without_bucket(self._plan)
            self._known_state = list(self.state.values())
        return self._plan

    def _plan_is_current(self, plan: list[PointBucket | FlatBucket]) -> bool:
        """Cheap: nobody replaced a parameter, a piece of state or a group, and no frozen parameter got a gradient."""
        return (
            all(same_items(g["params"], known) for g, known in zip(self.param_groups, self._planned, strict=True))
            and same_items(list(self.state.values()), self._known_state)
            and all(b.state is self.state and b.holds_state(self._state_names(b.group)) for b in plan)
            and all(p.grad is None for p in self._idle)
        )

    def _plan_group(self, index: int) -> list[PointBucket | FlatBucket]:
        group = self.param_groups[index]
        entries = self._entries(index)
        flat = [e for e in entries if groups.is_flat(e.manifold)]
        active = [e for e in entries if e.parameter.grad is not None or self.state.get(e.parameter)]
        self._check_first_step(group, active)
        together = group["foreach"] is not False and not group["differentiable"]
        names = self._state_names(group)
        for kind in names.values():
            if kind not in ("vector", "scalar"):
                raise ValueError(f"{type(self).__name__}: _state_names must say vector or scalar, got {kind!r}")
        # torch's foreach functions do not take plain tensors and DTensors in one list.
        lists = [[e for e in flat if is_dtensor(e.parameter) is sharded] for sharded in (False, True)]
        buckets: list[PointBucket | FlatBucket] = [
            FlatBucket(entries, group, self.state) for entries in lists if entries
        ]
        batches = same_points(active, together=together)
        return buckets + [PointBucket(batch, group, names, self.state) for batch in batches]

    def _check_first_step(self, group: State, entries: list[Entry]) -> None:
        new = [e for e in entries if not self.state.get(e.parameter) and labels.readable(e.parameter)]
        # torch.distributed.checkpoint makes state by a step of length zero, before there are values.
        if new and group["lr"] != 0:
            for entry in new:
                self._check_start(entry)

    def _without_bucket(self, plan: list[PointBucket | FlatBucket]) -> list[Tensor]:
        placed = {id(e.parameter) for bucket in plan for e in bucket.entries}
        return [p for group in self.param_groups for p in group["params"] if id(p) not in placed]

    # ---- a step -----------------------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, whole or not at all.

        Args:
            closure: reevaluates the model and returns the loss, as in torch.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # A labelled parameter is a subclass of Tensor: asking each for its own version of stack and copy costs a fifth
        # of a step of many small points.
        with torch.set_grad_enabled(self.defaults["differentiable"]), torch._C.DisableTorchFunctionSubclass():
            self._propose_and_commit()
        return loss

    def _propose_and_commit(self) -> None:
        proposals = []
        for bucket in self._buckets():
            update = self._flat_update if isinstance(bucket, FlatBucket) else self._point_update
            proposal = bucket.propose(update)
            if proposal is not None:
                proposals.append((bucket.group, proposal))
        self._check_finite([p for group, p in proposals if group["check_finite"]])
        # First the flat ones, which torch's functions compute now: should they raise, no point has moved.
        for _, proposal in sorted(proposals, key=lambda pair: not pair[1].computes_at_commit):
            proposal.commit()
        if len(self.state) != len(self._known_state):
            self._known_state = list(self.state.values())

    def _check_finite(self, proposals: Sequence[Proposal]) -> None:
        parameters = [p for group in self.param_groups if group["check_finite"] for p in group["params"]]
        if not parameters:
            return
        # Also without a gradient here: processes that share a parameter have to vote together.
        answers = [t.isfinite().all().cpu() for p in proposals for t in p.checked]
        finite = torch.stack(answers).all() if answers else torch.ones((), dtype=torch.bool)
        if bool(everywhere(finite.to(local(parameters[0]).device), parameters)):
            return
        culprits = (p.name_culprit() for p in proposals if not all(t.isfinite().all() for t in p.checked))
        where = next(culprits, f"{type(self).__name__}: a shard of another process")
        raise ValueError(f"{where} would become infinite or NaN in this step; nothing was changed")

    # ---- state ------------------------------------------------------------------------------------------------

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, also that of the torch.optim or geoopt optimizer of the same name.

        Raises ``ValueError`` if it was saved for other manifolds.
        """
        ours = [{flag: group[flag] for flag in flags.NOT_SAVED} for group in self.param_groups]
        state_dict = regrouped(state_dict, self.param_groups)
        super().load_state_dict(state_dict)
        for group, own in zip(self.param_groups, ours, strict=True):
            group.update(own)
        for p, state in self.state.items():  # torch would go on to share tensors with `state_dict`
            self.state[p] = _cloned(state)
        for i, saved in enumerate(state_dict["param_groups"]):
            if MANIFOLDS not in saved:  # not one of ours
                self._import_group(i, geoopt="stabilize" in saved)

    def _import_group(self, index: int, geoopt: bool) -> None:
        for entry in self._entries(index):
            if not groups.is_flat(entry.manifold) and self.state.get(entry.parameter):
                with torch.no_grad():
                    self._import_state(entry, self.state[entry.parameter], geoopt)

    def __getstate__(self) -> dict[str, Any]:
        # Cloned: a pickled view carries the whole stack, and a thousand of them a thousand stacks.
        state = type(self.state)(dict, {p: _cloned(entry) for p, entry in self.state.items()})
        return {**super().__getstate__(), "state": state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._plan = None


def _cloned(state: State) -> State:
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}


def move_and_transport(
    manifold: Manifold, points: Tensor, u: Tensor, v: Tensor, shrink: float | Tensor | None
) -> tuple[Tensor, Tensor]:
    """``manifold.retr_transp(points, u, v)``, from points that decoupled weight decay has first drawn towards the
    origin by the factor `shrink`, where the manifold has such a thing."""
    if shrink is not None:
        drawn = manifold.decay(points, shrink)
        if drawn is not points:
            u, v, points = manifold.transp(points, drawn, u), manifold.transp(points, drawn, v), drawn
    return manifold.retr_transp(points, u, v)
