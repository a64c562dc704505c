"""A curvature that is learned."""

from __future__ import annotations

import math
from typing import Any, ClassVar, TypeGuard

import torch
from torch import Tensor, nn

from ..base import has_values


class Curvature(nn.Module):
    r"""A sectional curvature K of fixed sign, learned through log|K|: it can neither change sign nor reach zero.

    Calling it gives K as a 0-dim tensor, of which a layer builds its manifold in ``forward``. A manifold built once in
    ``__init__`` would keep the number of that day, and a Python float makes ``torch.compile`` compile anew for every
    value. Points belong in normal coordinates, which follow the curvature; a `ManifoldParameter` does not, and refuses.

    With the bounds `min` and `max` K stays between them, to the rounding of its dtype: log|K| is ``log_magnitude``
    reflected at them. Inside, nothing differs from a curvature without bounds. A step that would leave lands as far
    inside, so that K hovers within a step (momentum included) of a bound towards which a loss draws it. The derivative
    is that of the reflection, of the same size on both sides and at the bound itself: it never vanishes, as that of a
    sigmoid does, and the parameter does not run away behind a bound, as one that is clamped does.

    `optim.param_groups` exempts ``log_magnitude`` from weight decay, which would draw K to 1 or -1.

    Args:
        initial: K at the start, not zero; its sign stays.
        learnable: whether ``log_magnitude`` is a parameter; otherwise it is a buffer.
        min, max: bounds of K itself, so ``min=-10.0, max=-0.1`` about -1; either may be None.

    Attributes:
        log_magnitude: log|K| (before reflection), 0-dim.
        sign: 1 or -1, 0-dim, a buffer: so a checkpoint says of which sign its curvature is.
        bounds: `min` and `max`, infinite where there is none, a buffer of two; only with bounds.

    Raises ``ValueError`` if `initial` is zero or not finite, if the bounds are not of its sign or not around it, and
    for a checkpoint of the other sign, of other bounds, or (one without bounds) of a K beyond them.

    >>> class Embedding(nn.Module):
    ...     def __init__(self, count, dim):
    ...         super().__init__()
    ...         self.curvature = Curvature(-1.0)
    ...         self.z = nn.Parameter(0.1 * torch.randn(count, dim))
    ...
    ...     def forward(self, i, j):
    ...         manifold = Lorentz(self.curvature())
    ...         return manifold.dist(manifold.from_normal(self.z[i]), manifold.from_normal(self.z[j]))
    """

    log_magnitude: Tensor
    sign: Tensor
    bounds: Tensor

    min: float | None = None  # here for modules that were pickled before there were bounds
    max: float | None = None
    _low: float = -math.inf  # of log|K|
    _high: float = math.inf

    without_weight_decay: ClassVar[tuple[str, ...]] = ("log_magnitude",)

    def __init__(
        self,
        initial: float = -1.0,
        learnable: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        min: float | None = None,
        max: float | None = None,
    ) -> None:
        super().__init__()
        if not _is_number(initial) or initial == 0:
            raise ValueError(
                f"Curvature: initial must be a finite number other than zero, which has no logarithm, got {initial!r}"
            )
        self.initial, self.learnable, self.min, self.max = initial, learnable, min, max
        self._low, self._high = _log_bounds(initial, min, max)
        log_magnitude = torch.empty((), device=device, dtype=dtype)
        if learnable:
            self.log_magnitude = nn.Parameter(log_magnitude)
        else:
            self.register_buffer("log_magnitude", log_magnitude)
        self.register_buffer("sign", torch.empty_like(log_magnitude))
        if min is not None or max is not None:
            self.register_buffer("bounds", log_magnitude.new_empty(2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Return to the initial curvature."""
        with torch.no_grad():
            self.log_magnitude.fill_(math.log(abs(self.initial)))
            self.sign.fill_(math.copysign(1.0, self.initial))
            if "bounds" in self._buffers:
                self.bounds.copy_(self._stated_bounds())

    def forward(self) -> Tensor:
        """K, a 0-dim tensor."""
        return self.sign * self._reflected(self.log_magnitude).exp()

    def _reflected(self, x: Tensor) -> Tensor:
        """`x` reflected at the bounds of log|K| as often as it takes. The slope is 1 or -1, at the bounds too."""
        low, high = self._low, self._high
        if math.isfinite(low) and math.isfinite(high):
            x = low + torch.remainder(x - low, 2 * (high - low))
        if math.isfinite(high):
            x = torch.where(x < high, x, 2 * high - x)
        if math.isfinite(low):
            x = torch.where(x < low, 2 * low - x, x)
        return x

    def _stated_bounds(self) -> Tensor:
        """`min` and `max`."""
        low = -math.inf if self.min is None else self.min
        return torch.tensor([low, math.inf if self.max is None else self.max], dtype=torch.float64)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args) -> None:
        stored, sign = state_dict.get(prefix + "sign"), math.copysign(1.0, self.initial)
        if _readable(stored, 1) and stored.item() != sign:
            raise ValueError(
                f"Curvature: {prefix}sign must be {sign:+.0f}, as that of initial={self.initial}, got "
                f"{stored.item():+.0f} from the checkpoint; construct the module with an initial curvature of that sign"
            )
        if "bounds" in self._buffers or prefix + "bounds" in state_dict:
            self._check_stored_bounds(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
        if "bounds" in self._buffers and not self.bounds.is_meta:
            self.bounds.copy_(self._stated_bounds())

    def _check_stored_bounds(self, state_dict: dict[str, Any], prefix: str) -> None:
        stored, x = state_dict.get(prefix + "bounds"), state_dict.get(prefix + "log_magnitude")
        if _readable(stored, 2):
            # Coarse, since the numbers may have been in bfloat16 once.
            if not torch.allclose(stored.double().cpu(), self._stated_bounds(), rtol=2**-7, atol=0):
                raise ValueError(
                    f"Curvature: {prefix}bounds must be min={self.min} and max={self.max}, got {_shown(stored)} from "
                    "the checkpoint; construct the module with these"
                )
        elif stored is None and _readable(x, 1):  # of a curvature without bounds
            near = 4 * torch.finfo(x.dtype).eps * (1 + abs(x.item()))
            if not self._low - near <= x.item() <= self._high + near:
                raise ValueError(
                    f"Curvature: {prefix}log_magnitude of the checkpoint, which has no bounds, is that of "
                    f"K={math.copysign(math.exp(x.item()), self.initial):.6g}, beyond min={self.min}, max={self.max}; "
                    "construct the module with wider bounds, or load it into one without"
                )
            state_dict[prefix + "bounds"] = self._stated_bounds().to(x.dtype)

    def extra_repr(self) -> str:
        """K as it is, to six digits (`initial` where there is no number), for ``print(module)``."""
        known = has_values(self.log_magnitude) and has_values(self.sign)
        k = f"curvature={float(f'{self().item():.6g}')}" if known else f"initial={self.initial}"
        bounds = f", min={self.min}, max={self.max}" if "bounds" in self._buffers else ""
        return f"{k}, learnable={self.learnable}{bounds}"


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x)


def _readable(stored: Any, count: int) -> TypeGuard[Tensor]:
    """Is `stored` a tensor of `count` numbers? One on the meta device has none."""
    return isinstance(stored, Tensor) and not stored.is_meta and stored.numel() == count


def _shown(bounds: Tensor) -> str:
    """Bounds for messages, to six digits, as their dtype may round them."""
    shown = (f"{bound:.6g}" if math.isfinite(bound) else "None" for bound in bounds.tolist())
    return "min={} and max={}".format(*shown)


def _log_bounds(initial: float, low: float | None, high: float | None) -> tuple[float, float]:
    """The bounds of log|K| for those of K, infinite where there is none. Raises ``ValueError`` unless `initial` lies
    between them, and they are of its sign."""
    for name, bound in (("min", low), ("max", high)):
        if bound is not None and not (_is_number(bound) and bound * initial > 0):
            sign = "negative" if initial < 0 else "positive"
            raise ValueError(
                f"Curvature: {name} must be a {sign} finite number, as initial={initial}, or None, got {bound!r}"
            )
    ends = (low, high) if initial > 0 else (high, low)
    log_low, log_high = (s * math.inf if e is None else math.log(abs(e)) for s, e in zip((-1, 1), ends, strict=True))
    if not log_low <= math.log(abs(initial)) <= log_high or log_low == log_high:
        raise ValueError(
            f"Curvature: initial must lie between min and max, and min below max, got initial={initial}, min={low}, "
            f"max={high}"
        )
    return log_low, log_high
