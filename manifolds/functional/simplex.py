"""Probability vectors, whose roots are unit vectors: the nearest ones, ends of geodesics, a retraction that stays."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .rows import dot
from .signed_trigonometry import cos_k, sin_ratio_k


def over_sum(x: Tensor, floor: float) -> Tensor:
    """x over its sum, with entries of at least `floor`. ``*B,n``."""
    return (x / x.sum(-1, keepdim=True)).clamp_min(floor)


def off_faces(x: Tensor, floor: float) -> Tensor:
    """x over its sum, of which entries below `floor` were raised to it first."""
    return over_sum(x.clamp_min(floor), floor)


def nearest_probabilities(x: Tensor, floor: float) -> Tensor:
    """The nearest vector to any `x` in Euclidean distance among those of sum one with entries of at least `floor`.

    ``p_i = floor + max(x_i - tau, 0)``. For every k the k largest entries ask for a tau of at least (their sum less
    what there is to distribute)/k, and those that stay above zero for no more: tau is the largest of these numbers
    (Held, Wolfe and Crowder 1974, doi 10.1007/BF01580223; Duchi et al. 2008, doi 10.1145/1390156.1390191).
    """
    n = x.shape[-1]
    excess = x.sum(-1, keepdim=True) - 1
    shifted = x - excess / n  # this one already where all stay above, but for large numbers
    near = (shifted.detach() >= floor).all(-1, keepdim=True) & (excess.detach().abs() < 1)
    x = x - x.detach().amax(-1, keepdim=True)  # the same nearest vector; sums of large numbers would lose its digits
    counts = torch.arange(1, n + 1, dtype=x.dtype, device=x.device)
    sums = x.sort(-1, descending=True).values.cumsum(-1)
    tau = ((sums - (1 - n * floor)) / counts).amax(-1, keepdim=True)
    return torch.where(near, shifted, over_sum((x - tau).clamp_min(0) + floor, floor))


def positive_step(x: Tensor, u: Tensor) -> Tensor:
    """``x f(u/x)`` of x > 0, with f(a) = (1 + 2a + sqrt((1 + 2a)^2 + 3))/3 = 1 + a + a^2/4 + O(a^3): positive and
    increasing in u. Homogeneous, so that u/x, which overflows next to a face, is not formed. For negative x + 2u the
    reciprocal of a sum, where the root cancels."""
    t = x + 2 * u
    above = t >= 0
    g = torch.hypot(t, math.sqrt(3) * x) + torch.where(above, t, -t)
    return torch.where(above, g / 3, x * (x / g))


# ---- roots ----------------------------------------------------------------------------------------------------


def positive_root(x: Tensor) -> Tensor:
    """sqrt(x), NaN where x is not positive."""
    return torch.where(x > 0, x, torch.nan).sqrt()


def roots_apart(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The difference of the roots less its part along their sum, which is the rounding of sum(x) and sum(y), and the
    square of the sum. ``-> *B,n; *B,1``."""
    total = x.sqrt() + y.sqrt()
    chord = (y - x) / torch.where(total == 0, 1.0, total)  # keeps the digits that y - x has
    square = dot(total, total)
    return chord - dot(chord, total) / square * total, square


def geodesic_end(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """With the root a of x and its velocity w = u/(2a): the root ``cos(r) a + sin(r)/r w`` of the end, whether the way
    there is inside, w, and r^2. ``-> *B,n; *B,1; *B,n; *B,1``."""
    a = positive_root(x)
    w = u / (2 * a)
    z = dot(w, w)
    end = cos_k(z, 1) * a + sin_ratio_k(z, 1) * w
    return end, inside_rounding(end, a, z), w, z


def inside_rounding(root: Tensor, terms: Tensor, z: Tensor) -> Tensor:
    """Whether an arc of the squared length z ends in the orthant: no entry of `root` is negative by more than the
    rounding of its `terms`, and the arc is shorter than a right angle, beyond which it may come back. ``-> *B,1``."""
    slack = 16 * torch.finfo(root.dtype).eps
    return (root > -slack * terms).all(-1, keepdim=True) & (z < (1 + slack) * 0.25 * math.pi**2)


def squared_inside(root: Tensor, inside: Tensor) -> Tensor:
    """The point with that `root`, no entry below the least normal number; NaN where it is not `inside`."""
    return torch.where(inside, root.square().clamp_min(torch.finfo(root.dtype).tiny), torch.nan)
