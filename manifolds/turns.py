"""Closed geodesics: which factors of a space have them, and what their turns add to a wrapped density."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .functional.rows import unit_vector
from .functional.series import safe_norm

# Turns around a sphere in either direction that the density counts. What is left out has a radius of 7 pi/sqrt(K) and
# more, which is below 1e-16 of the mass up to a standard deviation of 2.5/sqrt(K).
TURNS = 3
_TOGETHER = 4  # closed factors whose turns are counted together: 7^4 terms


@dataclass(frozen=True)
class ClosedFactor:
    """`repeats` spaces of curvature K > 0 side by side, each with `size` of the flattened normal coordinates, from
    `offset` on. Of a K that is a tensor the sign may be open."""

    offset: int
    size: int
    curvature: float | Tensor
    repeats: int = 1


@dataclass(frozen=True)
class _Lines:
    """The lines on which the preimages of points lie, one a factor: directions ``*B,r,s``, signed radii ``*B,r``,
    periods, and where they are closed."""

    direction: Tensor
    radius: Tensor
    period: Tensor
    closed: Tensor
    size: int

    def log_volume(self, turned: Tensor) -> Tensor:
        """log of the volume factor at the radius over that at `turned`: |r/r_k|^(d-1), because |sin| is periodic."""
        if self.size == 1:
            return torch.zeros_like(turned)
        length = torch.where(self.closed & (self.radius > 0), self.radius, 1.0)
        return (self.size - 1) * (turned.abs() / length).log()


def _own(z: Tensor, factor: ClosedFactor) -> Tensor:
    """The coordinates of the factor, ``*B,r,s``."""
    return z.narrow(-1, factor.offset, factor.size * factor.repeats).unflatten(-1, (factor.repeats, factor.size))


def _lines(z: Tensor, factor: ClosedFactor) -> _Lines:
    z = _own(z, factor)
    r = safe_norm(z)
    zero = (r == 0).unsqueeze(-1)
    direction = torch.where(zero, unit_vector(0, z), z / torch.where(zero, 1.0, r.unsqueeze(-1)))
    k = torch.as_tensor(factor.curvature, dtype=z.dtype, device=z.device)
    # For K <= 0 no geodesic closes, next to zero none that matters (and the derivative of the period overflows), and
    # one of no length has no direction.
    curved = k > torch.finfo(z.dtype).tiny ** 0.5
    period = 2 * math.pi * torch.where(curved, k, 1.0).rsqrt()
    return _Lines(direction, r, period, curved & ((r > 0) | (factor.size == 1)), factor.size)


def log_turns(z: Tensor, factors: Sequence[ClosedFactor], scale: Tensor) -> Tensor:
    r"""log of the density, all turns counted, over that of the shortest geodesic, of independent coordinates with
    standard deviations `scale`. ``*B,d; *B,d -> *B``.

    The preimages of a point under the exponential map lie on the line of z, at the signed radii
    ``r_k = r + 2 pi k/sqrt(K)``. There the normal density is ``exp((r^2 - r_k^2) w/2)`` times that at r, with w the
    squared length of the whitened direction. The sums over the factors' turns are a product.
    """
    total = torch.zeros_like(z[..., 0])
    for factor in factors:
        line = _lines(z, factor)
        r = line.radius
        precision = (line.direction / _own(scale, factor)).square().sum(-1)
        logs = [torch.zeros_like(r)]
        for k in range(-TURNS, TURNS + 1):
            if k != 0:
                turned = r + k * line.period
                log = 0.5 * (r - turned) * (r + turned) * precision + line.log_volume(turned)
                logs.append(torch.where(line.closed, log, -torch.inf))
        total = total + torch.logsumexp(torch.stack(logs), 0).sum(-1)
    return total


def log_turns_together(z: Tensor, factors: Sequence[ClosedFactor], whiten: Callable[[Tensor], Tensor]) -> Tensor:
    """The same of coordinates that depend on each other, ``whiten(z)`` having independent ones of deviation one: the
    sum over the turns of all factors at once. ``*B,d -> *B``."""
    count = sum(factor.repeats for factor in factors)
    if count > _TOGETHER:
        raise NotImplementedError(
            f"WrappedNormal: with scale_tril the turns around {count} closed factors would be {2 * TURNS + 1}^{count} "
            f"terms, at most {_TOGETHER} factors are counted; give scale, or one law a factor"
        )
    whole, axes, volumes, valid = whiten(z), [], [], []
    turns = torch.tensor(list(itertools.product(range(-TURNS, TURNS + 1), repeat=count)), dtype=z.dtype)
    turns = turns.to(z.device).reshape(-1, count, *(1,) * (z.dim() - 1))  # k,F,*1
    for factor in factors:
        line = _lines(z, factor)
        for i in range(factor.repeats):
            k = turns[:, len(axes)]
            turned = line.radius[..., i] + k * line.period
            one = _Lines(line.direction, line.radius[..., i], line.period, line.closed[..., i], line.size)
            volumes.append(torch.where(k == 0, 0.0, one.log_volume(turned)))
            valid.append((k == 0) | one.closed)
            before = factor.offset + i * factor.size
            padding = (before, z.shape[-1] - before - factor.size)
            axes.append(whiten(line.period * torch.nn.functional.pad(line.direction[..., i, :], padding)))
    shift = sum((turns[:, i].unsqueeze(-1) * axis for i, axis in enumerate(axes)), torch.zeros_like(whole))
    logs = -0.5 * (shift * (2 * whole + shift)).sum(-1) + sum(volumes)
    return torch.logsumexp(torch.where(torch.stack(valid).all(0), logs, -torch.inf), 0)
