"""Mean and dispersion of a batch of points, a channel and a domain each: over one process or several."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchriemann.manifolds.functional.tracing import values_readable
from torchriemann.manifolds.mean_start import mean_guess
from torchriemann.manifolds.weights import per_point

from .deviations import Deviations
from .processes import Processes

STATS_GRADS = ("last_step", "implicit", "detach")


@dataclass(frozen=True)
class Batch:
    """The items ``n,*L,P`` of a batch with channels ``*L``, the domain ``n`` of each unless there is but one, and who
    holds the other items. Statistics have the shape ``(D,)*L``.

    An item with an entry that is not finite has no part in them; the origin stands in its place.
    """

    space: Deviations
    x: Tensor  # as the space has them
    finite: Tensor  # n,*L
    whole: bool  # whether all are finite, if that can be seen
    domain: Tensor | None
    num_domains: int
    processes: Processes

    def of_items(self, statistic: Tensor) -> Tensor:
        """What `statistic` says of each item, ``n,*L,...``, or something that broadcasts to it."""
        return statistic if self.domain is None else statistic[self.domain]

    def around(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """The `mean` of each item, and the items, that mean in place of those that are not finite."""
        at = self.of_items(mean)
        if self.whole:
            return at, self.x
        # At the mean itself every derivative is finite; a derivative of zero times NaN would be NaN.
        return at, torch.where(_beside(self.finite, self.x), self.x, at.detach())

    def total(self, values: Tensor) -> Tensor:
        """The sum of values ``n,*L,...`` over the finite items of every domain, ``(D,)*L,...``."""
        if not self.whole:
            values = torch.where(_beside(self.finite, values), values, 0.0)
        if self.domain is None:
            own = values.sum(0)
        else:
            own = values.new_zeros(self.num_domains, *values.shape[1:]).index_add(0, self.domain, values)
        return self.processes.total(own)

    def count(self) -> Tensor:
        """How many items there are, ``(D,)*L``."""
        return self.total(torch.ones_like(self.finite, dtype=self.x.dtype))

    def step(self, mean: Tensor, count: Tensor) -> Tensor:
        """A Karcher step from `mean`: along the mean deviation from it."""
        log, exp = self.space.log_and_exp(mean)
        at, x = self.around(mean)
        z = self.total((log if at is mean else self.space.log_and_exp(at)[0])(x))
        return exp(z / _beside(count.clamp(min=1), z))


def batch_mean(batch: Batch, count: Tensor, karcher_steps: int | None, stats_grad: str) -> Tensor:
    """The mean of the items, in the form of the space: after that many steps from a first guess, or converged."""
    if batch.space.linear:
        steps: int | None = 1  # from anywhere
    else:
        steps = karcher_steps
        if stats_grad == "implicit":
            return converged_mean(batch)
    with torch.no_grad():
        mean = converged_mean(batch) if steps is None else first_guess(batch)
        for _ in range(0 if steps is None else steps - 1):
            mean = batch.step(mean, count)
        if stats_grad == "detach":
            return mean if steps is None else batch.step(mean, count)
    return batch.step(mean.detach(), count)


def batch_variance(batch: Batch, count: Tensor, squares: Tensor) -> Tensor:
    """The mean of the squared distances of the items, over their number."""
    return batch.total(squares) / count.clamp(min=1)


def first_guess(batch: Batch) -> Tensor:
    """Where the steps begin: near the mean by the manifold's own guess. The items of all processes make it."""
    if batch.space.linear:
        shape = batch.x.shape[1:] if batch.domain is None else (batch.num_domains, *batch.x.shape[1:])
        return batch.x.new_zeros(shape)
    x, weights = _weighted_domains(batch)
    origin = batch.space.manifold.origin(*x.shape[1:], dtype=x.dtype, device=x.device)
    if not len(x):
        return torch.stack([origin] * len(weights)) if batch.domain is not None else origin
    guesses = []
    for w in weights:
        found = mean_guess(batch.space.manifold, x, w)
        good = found.isfinite().flatten(-batch.space.ndim).all(-1)
        guesses.append(torch.where(per_point(batch.space.manifold, good), found, origin))
    return guesses[0] if batch.domain is None else torch.stack(guesses)


def converged_mean(batch: Batch) -> Tensor:
    """The Frechet mean, differentiable by the implicit function theorem. Every process seeks it, among all items."""
    m = batch.space.manifold
    x, weights = _weighted_domains(batch)
    if not len(x):
        return first_guess(batch)
    plain = batch.domain is None and values_readable(batch.finite) and bool(_all_finite(batch))
    means = [m.frechet_mean(x, None if plain else w) for w in weights]
    return means[0] if batch.domain is None else torch.stack(means)


def _all_finite(batch: Batch) -> Tensor:
    return batch.processes.total((~batch.finite).sum()) == 0


def _weighted_domains(batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """The items of all processes, and for every domain the weights ``n,*L`` of its finite ones, all the same where it
    has none."""
    x = batch.processes.gathered(batch.x)
    used = batch.processes.gathered(batch.finite.to(x.dtype))
    if batch.domain is None:
        shares = [used]
    else:
        domain = batch.processes.gathered(batch.domain)
        shares = [torch.where(_beside(domain == d, used), used, 0.0) for d in range(batch.num_domains)]
    totals = [w.sum(0) for w in shares]
    return x, [torch.where(t > 0, w / t.clamp(min=1), 1 / max(len(x), 1)) for w, t in zip(shares, totals, strict=True)]


def check_options(where: str, eps: float, momentum: float | None, karcher_steps: int | None, stats_grad: str) -> None:
    """Raise unless the options of a normalisation are possible."""
    if stats_grad not in STATS_GRADS:
        raise ValueError(f"{where}: stats_grad must be one of {STATS_GRADS}, got {stats_grad!r}")
    if karcher_steps is not None and karcher_steps < 1:
        raise ValueError(
            f"{where}: karcher_steps must be at least 1, or None for a mean to tolerance, got {karcher_steps}"
        )
    if stats_grad == "implicit" and karcher_steps is not None:
        raise ValueError(
            f'{where}: stats_grad="implicit" is the derivative of a converged mean, got karcher_steps={karcher_steps}; '
            'set karcher_steps=None, or stats_grad="last_step"'
        )
    if not eps >= 0:
        raise ValueError(f"{where}: eps must be at least 0, got {eps}")
    if momentum is not None and not 0 <= momentum <= 1:
        raise ValueError(f"{where}: momentum must lie between 0 and 1, or be None, got {momentum}")


def _beside(numbers: Tensor, values: Tensor) -> Tensor:
    """Numbers ``n,*L`` in the shape that broadcasts against values ``n,*L,...``."""
    return numbers.reshape(numbers.shape + (1,) * (values.dim() - numbers.dim()))
