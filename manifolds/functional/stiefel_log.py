r"""The logarithm of the Stiefel manifold for every metric of the one-parameter family.

Forward. The problem is reduced to m x m blocks, m = p + min(p, n - p), in an orthonormal basis [x, Q] that holds y.
A quick iteration serves near points: for beta = 1/2 matrix completion, else shooting. A geodesic shorter than the
injectivity radius is the shortest. Where none is found, Newton's method finds geodesics from several starts, and the
shortest is taken. All this is one operator to the compiler and to functorch, so it may look at its residuals and stop.

Derivatives. The solved equation ``exp_x(u) = y`` is differentiated, not the iteration: two Newton steps with the
constant inverse of d exp_x at the solution. One step is right to first order, the second to second order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .frames import matrix_exp, newton_schulz_step, so_log
from .matrices import identity_like, skew, sym
from .operators import Operand, define
from .stiefel_differential import DexpInverse
from .stiefel_geodesic import geodesic_end
from .stiefel_search import direct, long_from, shortest, turns
from .tracing import derivative_wanted, variation


def logarithm(x: Tensor, y: Tensor, beta: float, radius: float) -> Tensor:
    """The shortest u with exp_x(u) = y; see `Stiefel.logmap`. `radius` bounds that of injectivity below. ``*B,n,p``."""
    x, y = torch.broadcast_tensors(x, y)
    frame, a, b = solve(x.detach(), y.detach(), beta, radius)
    u = frame @ torch.cat([a, b], -2)
    if not derivative_wanted(x) and not derivative_wanted(y):
        return u
    # LAPACK raises on NaN; u itself keeps it.
    inverse = DexpInverse(frame, a.nan_to_num(nan=0.0), b.nan_to_num(nan=0.0), beta)
    for _ in range(2):
        correction = inverse(y - geodesic_end(x, u, beta))
        # Value zero: next to a conjugate point the inverse enlarges rounding errors.
        moved = u + variation(correction)
        projected = moved - x @ sym(x.mT @ moved)
        u = u.detach() + variation(projected)
    return u


def _solve(x: Tensor, y: Tensor, beta: float, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """An orthonormal [x, Q], the skew A and B with log = x A + Q B; NaN where no geodesic was found."""
    n, p = x.shape[-2:]
    batch, q = x.shape[:-2], min(p, n - p)
    x, y, usable = _orthonormal(x.reshape(-1, n, p), y.reshape(-1, n, p))
    if p == n:
        frame, b = x.clone(), x.new_zeros(len(x), 0, p)
        overlap = x.mT @ y
        a = so_log(overlap)
        # At an angle of pi `so_log` is no logarithm, and between the components there is none.
        off = (matrix_exp(a) - overlap).abs().amax((-2, -1), keepdim=True)
        a = torch.where(off < 10 * torch.finfo(a.dtype).eps ** 0.5, a, torch.nan)
    else:
        frame, target = _reduced(x, y)
        a, b, size = direct(target, beta)
        far = (~(size < long_from(target, radius))).nonzero().squeeze(-1)
        if len(far) > 0:
            a[far], b[far] = _searched(x[far], y[far], frame[far], beta, radius)
    a = torch.where(usable, a, torch.nan)
    shapes = ((n, p + q), (p, p), (q, p))
    return tuple(z.reshape(*batch, *s) for z, s in zip((frame, a, b), shapes, strict=True))  # type: ignore


def _orthonormal(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both without what rounding left, and where they are frames; elsewhere some frame, on which nothing raises.

    Points rounded to half precision are off by 1e-2, where no residual would vanish; two steps leave 1e-9.
    """
    usable = torch.ones_like(x[:, :1, :1], dtype=torch.bool)
    frames = []
    for z in (x, y):
        z = newton_schulz_step(newton_schulz_step(z))
        off = (z.mT @ z - identity_like(z)).abs().amax((-2, -1), keepdim=True)
        usable = usable & (off < torch.finfo(z.dtype).eps ** 0.5)  # False of NaN
        frames.append(z)
    some = torch.eye(*x.shape[-2:], dtype=x.dtype, device=x.device)
    return torch.where(usable, frames[0], some), torch.where(usable, frames[1], some), usable


def _reduced(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """[x, Q] and y in this basis."""
    n, p = x.shape[-2:]
    overlap = x.mT @ y
    # Householder QR of both at once: its later columns are normal to x whatever the rank of y - x M.
    q = torch.linalg.qr(torch.cat([x, y - x @ overlap], -1))[0][..., p : p + min(p, n - p)]
    return torch.cat([x, q], -1), torch.cat([overlap, q.mT @ y], -2)


def _searched(x: Tensor, y: Tensor, frame: Tensor, beta: float, radius: float) -> tuple[Tensor, Tensor]:
    """(A, B) in [x, Q] of the shortest geodesic found, in double precision.

    It is looked for from whichever of the two points comes first in the order of their entries, so that both find the
    same one and distances are symmetric.
    """
    dtype, p = x.dtype, x.shape[-1]
    x, y = (newton_schulz_step(z.double()) for z in (x, y))
    one, two = x.flatten(-2), y.flatten(-2)
    differing = (one != two).int().argmax(-1, keepdim=True)
    swap = (one.gather(-1, differing) > two.gather(-1, differing)).unsqueeze(-1)
    basis, target = _reduced(torch.where(swap, y, x), torch.where(swap, x, y))
    a, b = shortest(target, beta, radius)
    moved, turn = turns(a, b, beta)
    leaving = torch.cat([a, b], -2)
    u = basis @ torch.where(swap, -(moved @ leaving @ turn), leaving)
    return skew(x.mT @ u).to(dtype), (frame[..., p:].mT @ u.to(dtype))


def _empty(x: Tensor, y: Tensor, beta: float, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    n, p = x.shape[-2:]
    batch, q = x.shape[:-2], min(p, n - p)
    return x.new_empty(*batch, n, p + q), x.new_empty(*batch, p, p), x.new_empty(*batch, q, p)


solve = define(
    "stiefel_log",
    _solve,
    (Operand("x", 2), Operand("y", 2)),
    _empty,
    numbers={"beta": float, "radius": float},
    count=3,
)
