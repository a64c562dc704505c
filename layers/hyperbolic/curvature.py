"""A curvature that is learned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..base import has_values


class Curvature(nn.Module):
    r"""A sectional curvature K of fixed sign, learned through log|K|: it can neither change sign nor reach zero.

    Calling it gives K as a 0-dim tensor, of which a layer builds its manifold in ``forward``. A manifold built once in
    ``__init__`` would keep the number of that day, and a Python float makes ``torch.compile`` compile anew for every
    value. Points belong in normal coordinates, which follow the curvature; a `ManifoldParameter` does not, and refuses.

    Args:
        initial: K at the start, not zero; its sign stays.
        learnable: whether ``log_magnitude`` is a parameter; otherwise it is a buffer.

    Attributes:
        log_magnitude: log|K|, 0-dim.
        sign: 1 or -1, 0-dim, a buffer: so a checkpoint says of which sign its curvature is.

    Raises ``ValueError`` if `initial` is zero or not finite, and for a checkpoint of the other sign.

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

    def __init__(
        self,
        initial: float = -1.0,
        learnable: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        number = isinstance(initial, (int, float)) and not isinstance(initial, bool)
        if not number or initial == 0 or not math.isfinite(initial):
            raise ValueError(
                f"Curvature: initial must be a finite number other than zero, which has no logarithm, got {initial!r}"
            )
        self.initial = initial
        self.learnable = learnable
        log_magnitude = torch.empty((), device=device, dtype=dtype)
        if learnable:
            self.log_magnitude = nn.Parameter(log_magnitude)
        else:
            self.register_buffer("log_magnitude", log_magnitude)
        self.register_buffer("sign", torch.empty_like(log_magnitude))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Return to the initial curvature."""
        with torch.no_grad():
            self.log_magnitude.fill_(math.log(abs(self.initial)))
            self.sign.fill_(math.copysign(1.0, self.initial))

    def forward(self) -> Tensor:
        """K, a 0-dim tensor."""
        return self.sign * self.log_magnitude.exp()

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args) -> None:
        stored, sign = state_dict.get(prefix + "sign"), math.copysign(1.0, self.initial)
        if isinstance(stored, Tensor) and not stored.is_meta and stored.numel() == 1 and stored.item() != sign:
            raise ValueError(
                f"Curvature: {prefix}sign must be {sign:+.0f}, as that of initial={self.initial}, got "
                f"{stored.item():+.0f} from the checkpoint; construct the module with an initial curvature of that sign"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """K as it is, to six digits (`initial` where there is no number), for ``print(module)``."""
        known = has_values(self.log_magnitude) and has_values(self.sign)
        k = f"curvature={float(f'{self().item():.6g}')}" if known else f"initial={self.initial}"
        return f"{k}, learnable={self.learnable}"
