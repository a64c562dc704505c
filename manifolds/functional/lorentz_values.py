r"""Distance, exponential and logarithm of the Lorentz model where nobody asks for a graph, in few launches.

Names as in `lorentz`, whose formulas these are; times here are whole, ``T = sqrt(R^2 + |s|^2)``, since R cancels. Each
function returns its result and what a backward pass reads, and works with full rows, whose times may be anything: full
rows need no copy of the space parts, and the time of the result is set at the end.

The points of a pair meet in ``q = y - (T_y/T_x) x`` and ``shift = T_y/T_x - 1``: with both from the difference of the
coordinates where T_y is above half of T_x, ``4 S = (shift^2 - K|q|^2)/(T_y/T_x)`` has the error of the rounded
coordinates. The logarithm is ``f (q + (shift - 2S) x)``, f = r/sinh(r).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .rows import dot, times_added
from .tracing import eager_without_derivative


def space(x: Tensor) -> Tensor:
    """The n space coordinates of points or vectors."""
    return x[..., 1:]


def radius(K: float | Tensor) -> float | Tensor:
    """R. The derivative of ``(-K)^(-1/2)`` in torch's hands has R^3, which may overflow, as a factor; of this, R^2."""
    return 1 / (-K) ** 0.5


def without_graph(K: float | Tensor, *rows: Tensor) -> bool:
    """Whether the formulas here may stand, which nobody can differentiate: eager, without a derivative."""
    if isinstance(K, Tensor) and not eager_without_derivative(K):
        return False
    for r in rows:
        if not eager_without_derivative(r):
            return False
    return True


def squared_norm(a: Tensor) -> Tensor:
    """`square` without a graph: one launch over the rows."""
    return torch.linalg.vector_norm(a, dim=-1, keepdim=True).square()


def _pair(x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """q, T_x, T_y, T_y/T_x, shift and 4 S."""
    xs, ys = space(x), space(y)
    R2 = -1 / K
    tx, ty = (squared_norm(xs) + R2).sqrt(), (squared_norm(ys) + R2).sqrt()
    ratio = ty / tx
    # One, or zero where the difference y - x would lose the digits of y.
    alike = ratio.round().clamp(max=1)
    difference = torch.addcmul(y, x, alike, value=-1)
    total = torch.addcmul(y, x, alike)
    near = space(total.mul_(difference)).sum(-1, keepdim=True) / (tx * (tx + ty))
    towards = torch.lerp(ratio, near, alike)  # which is exactly one of the two
    shift = towards + (alike - 1)
    q = shifted(difference, x, towards, -1)
    S4 = times_added(shift.square(), squared_norm(space(q)), -K) / ratio
    return q, tx, ty, ratio, shift, S4


def shifted(a: Tensor, b: Tensor, c: Tensor, value: float = 1) -> Tensor:
    """a + value c b, in the place of `a` where that can be."""
    return a.addcmul_(b, c, value=value) if eager_without_derivative(a) else torch.addcmul(a, b, c, value=value)


def dist_and_saved(x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """``2R asinh(sqrt S)``, and what `_pair` returns."""
    pair = _pair(x, y, K)
    half = (0.5 * pair[-1].sqrt()).asinh()
    return (half * (2 * radius(K))).squeeze(-1), *pair


def log_and_saved(x: Tensor, y: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """``f (q + (shift - 2S) x)``, and what `_pair` returns, and f."""
    q, tx, ty, ratio, shift, S4 = _pair(x, y, K)
    # asinh(r)/r by itself, at zero by that of a number next to it.
    root = (0.5 * S4.sqrt()).clamp_min(torch.finfo(S4.dtype).tiny)
    f = root.asinh() / (root * torch.rsub(S4, 1, alpha=-0.25).sqrt())
    along = f * torch.sub(shift, S4, alpha=0.5)
    u = _with_time(shifted(f * q, x, along), along * tx)
    return u, q, tx, ty, ratio, shift, S4, f


def exp_and_saved(x: Tensor, u: Tensor, K: float | Tensor) -> tuple[Tensor, ...]:
    """``C x + H u`` with C = cosh(r), H = sinh(r)/r; p = u - lean x, lean = <s, u>/T^2, r^2, C, H and the time."""
    s, R2 = space(x), -1 / K
    lean = dot(s, space(u)) / (squared_norm(s) + R2)
    p = torch.addcmul(u, x, lean, value=-1)
    z = times_added(lean.square(), squared_norm(space(p)), -K).clamp_min(torch.finfo(p.dtype).tiny)
    r = z.sqrt()
    C, H = r.cosh(), r.sinh() / r
    y = shifted(H * u, x, C)
    time = (squared_norm(space(y)) + R2).sqrt()
    return _with_time(y, time), p, lean, z, C, H, time


def _with_time(rows: Tensor, time: Tensor) -> Tensor:
    if not eager_without_derivative(rows):
        return torch.cat([time, space(rows)], -1)
    rows[..., :1] = time
    return rows
