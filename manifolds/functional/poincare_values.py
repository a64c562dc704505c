r"""Distance, exponential, logarithm and transport of the Poincare ball where nobody asks for a graph, in few launches.

Names as in `poincare`, whose formulas these are. Each function returns its result and what a backward pass reads. What
belongs to one row is a scalar of float64 where that saves a launch or a digit: a gap and its uses, and lengths, whose
squares of float32 may overflow.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import threshold

from .compensated import accurate_gap
from .lorentz_values import shifted, squared_norm, without_graph
from .rows import dot, times_added

__all__ = ["dist_and_saved", "exp_and_saved", "log_and_saved", "transport_and_saved", "without_graph"]


def gap_of(x: Tensor, K: float | Tensor) -> Tensor:
    """The conformal gap, NaN outside the ball."""
    return threshold(accurate_gap(x, K), 0.0, torch.nan)


def _root(K: float | Tensor) -> float | Tensor:
    return (-K) ** 0.5


def _smallest(dtype: torch.dtype) -> float:
    """Of which the square is a number."""
    return torch.finfo(dtype).tiny ** 0.5


def _pair(x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """D = y - x, om(x), om(y), |D| and sqrt(om(x) om(y))."""
    om_x, om_y = gap_of(x, K), gap_of(y, K)
    d = y - x
    return d, om_x, om_y, torch.linalg.vector_norm(d, dim=-1, keepdim=True), (om_x * om_y).sqrt()


def dist_and_saved(x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """``2/sqrt(-K) asinh(r)``, D, the gaps, and r with r = sqrt(-K) |D|/sqrt(om(x) om(y))."""
    d, om_x, om_y, length, root = _pair(x, y, K)
    r = length / root * _root(K)
    return (r.asinh() * (2 / _root(K))).squeeze(-1), d, om_x, om_y, r


def log_and_saved(x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """``e/om(y) (om(x) D + K|D|^2 x)``, e = asinh(r)/(r sqrt(1 + r^2)); D, the gaps, |D|^2, r^2, e, and the factors of D
    and K x."""
    d, om_x, om_y, length, root = _pair(x, y, K)
    r = (length / root * _root(K)).clamp_min(_smallest(x.dtype))
    r2, dd = r * r, length * length
    e = r.asinh() / (r * (1 + r2).sqrt())
    over = e / om_y
    on_d, on_x = over * om_x, over * dd
    u = on_d * d
    u = shifted(u, x, on_x, K) if not isinstance(K, Tensor) else shifted(u, x, on_x * K)
    return u, d, om_x, om_y, dd, r2, e, on_d, on_x
