"""Mean and dispersion that a layer keeps of the batches it has seen."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from torchriemann.manifolds import Manifold
from torchriemann.manifolds.checks import described
from torchriemann.manifolds.functional.tracing import values_readable
from torchriemann.manifolds.precision import widen
from torchriemann.manifolds.weights import per_point

from .base import ManifoldModule, has_values
from .deviations import Deviations
from .points import back_inside, in_dtype

Domain = int | Tensor | None
_POINTS, _NUMBERS = "running_mean", "running_var"


class RunningStatistics(ManifoldModule):
    """A module with the buffers `running_mean`, points of `manifold`, `running_var` and `num_batches_tracked`.

    They are kept in float32 at least, also by ``.half()``: a step of momentum .1 is lost in the rounding of a half
    dtype. Points that a conversion takes off the manifold are brought back.
    """

    manifold: Manifold
    momentum: float | None
    num_domains: int | None
    running_mean: Tensor  # the three are None if they are not tracked
    running_var: Tensor
    num_batches_tracked: Tensor

    def register_statistics(self, shape: tuple[int, ...], tracked: bool, device, dtype: torch.dtype | None) -> None:
        """Register the buffers, the mean of `shape` ``(D,)(C,)P``; as None unless `tracked`."""
        if not tracked:
            for name in (_POINTS, _NUMBERS, "num_batches_tracked"):
                self.register_buffer(name, None)
            return
        dtype = widen(torch.get_default_dtype() if dtype is None else dtype)
        mean = self.manifold.origin(*shape, device=device, dtype=dtype)
        self.register_buffer(_POINTS, mean)
        self.register_buffer(_NUMBERS, mean.new_ones(shape[: -self.manifold.ndim]))
        domains = () if self.num_domains is None else (self.num_domains,)
        self.register_buffer("num_batches_tracked", torch.zeros(domains, dtype=torch.long, device=mean.device))

    def reset_running_stats(self) -> None:
        """The origin as the mean, one as the dispersion, no batch seen."""
        if self.running_mean is None:
            return
        with torch.no_grad():
            mean = self.running_mean
            mean.copy_(self.manifold.origin(*mean.shape, dtype=mean.dtype, device=mean.device))
            self.running_var.fill_(1.0)
            self.num_batches_tracked.zero_()

    def statistics_of(self, domain: Domain, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """What is kept of a domain, of all if `domain` is None or a tensor: the mean, a point in `dtype`, and the
        dispersion."""
        mean, variance = self.running_mean, self.running_var
        if isinstance(domain, int):
            mean, variance = mean[domain], variance[domain]
        mean = mean.clone() if mean.dtype == dtype else in_dtype(self.manifold, mean, dtype)
        return mean, variance.to(dtype)

    @torch.no_grad()
    def follow(self, mean: Tensor, variance: Tensor, count: Tensor, domain: Domain, space: Deviations) -> None:
        """Move towards the statistics of a batch, the mean along the geodesic to its mean, in the form of `space`, by
        `momentum`, or with None so that all batches of a domain count alike. What had no item, ``count == 0``, stays.
        """
        seen = self.num_batches_tracked if not isinstance(domain, int) else self.num_batches_tracked[domain]
        there = (count > 0).flatten(seen.dim()).any(-1) if count.dim() > seen.dim() else count > 0
        seen.add_(there)
        weight: float | Tensor = self.momentum if self.momentum is not None else 1.0 / seen.clamp(min=1).to(mean.dtype)
        if isinstance(weight, Tensor):
            weight = weight.reshape(weight.shape + (1,) * (count.dim() - weight.dim()))
        old, spread = self.statistics_of(domain, mean.dtype)
        moved = self.manifold.restore(space.leave(space.geodesic(space.enter(old), mean, weight)))
        self.keep(moved, spread + weight * (variance - spread), count > 0, domain)

    @torch.no_grad()
    def keep(self, mean: Tensor, variance: Tensor, known: Tensor, domain: Domain) -> None:
        """Take these statistics where they are `known` and finite. The `mean` is a point to rounding in its dtype."""
        into_mean, into_variance = self.running_mean, self.running_var
        if isinstance(domain, int):
            into_mean, into_variance = into_mean[domain], into_variance[domain]
        m = self.manifold
        good = known & variance.isfinite() & mean.isfinite().flatten(-m.ndim).all(-1)
        rounded = mean if mean.dtype == into_mean.dtype else m.round_to(mean, into_mean.dtype)
        into_mean.copy_(torch.where(per_point(m, good), rounded, into_mean))
        taken = torch.where(good, variance.to(into_variance.dtype), into_variance)
        # With a dimension more: torch.compile (2.13) forgets what is copied into a tensor without one.
        into_variance.unsqueeze(0).copy_(taken.unsqueeze(0))

    def check_domain(self, domain: Domain, shape: tuple[int, ...]) -> None:
        """Raise unless `domain` is an index or, for leading dimensions `shape` of a batch, a tensor of indices."""
        where, number = type(self).__name__, self.num_domains
        if number is None:
            if domain is not None:
                raise ValueError(f"{where}: domain must be None without num_domains, got {described(domain)}")
            return
        between = f"between 0 and num_domains - 1 = {number - 1}"
        if not isinstance(domain, Tensor) or domain.dtype != torch.long:
            if not isinstance(domain, int) or isinstance(domain, bool):
                got = domain.dtype if isinstance(domain, Tensor) else described(domain)
                raise ValueError(
                    f"{where}: domain must be an int or a tensor of torch.long {between}, since "
                    f"num_domains={number}; got {got}"
                )
            if not 0 <= domain < number:
                raise ValueError(f"{where}: domain must lie {between}, got {domain}")
            return
        if tuple(domain.shape) != shape[: domain.dim()]:
            raise ValueError(
                f"{where}: domain must have the first of the leading dimensions {shape} of x, got {tuple(domain.shape)}"
            )
        if values_readable(domain) and domain.numel():
            low, high = int(domain.min()), int(domain.max())
            if low < 0 or high >= number:
                raise ValueError(f"{where}: domain must lie {between}, got {low if low < 0 else high}")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True):
        before = {name: self._buffers.get(name) for name in (_POINTS, _NUMBERS)}
        super()._apply(fn, recurse)
        for name, old in before.items():
            new = self._buffers.get(name)
            if old is not None and new is not None and new.dtype != old.dtype:
                self._buffers[name] = self._converted(name, old, new)
        return self

    def _converted(self, name: str, old: Tensor, new: Tensor) -> Tensor:
        """`new`, which torch made of `old` in another dtype, in float32 at least, the points on the manifold."""
        dtype = widen(new)
        if not has_values(new):
            return new.to(dtype)
        old = old.to(new.device)
        return old.to(dtype) if name == _NUMBERS else back_inside(self.manifold, in_dtype(self.manifold, old, dtype))
