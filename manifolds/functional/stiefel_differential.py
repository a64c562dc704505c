r"""The differential of the exponential map of the Stiefel manifold, and its inverse, in the reduced problem.

With W = [[2 beta A, -B^T], [B, 0]], P = (1 - 2 beta) A and X the first p columns of the identity, exp_x(u) is e^W X e^P
in an orthonormal basis [x, Q], and

    e^-W d(e^W X e^P) e^-P = int_0^1 e^-sW dW e^sW ds X + X int_0^1 e^sP dP e^-sP ds,

a dense system for the p(p-1)/2 entries of dA and the p min(p, n - p) of dB. On skew matrices ``S -> R S R^T`` has the
2 x 2 minors of R as its matrix; the integrals are sums over the nodes of Gauss. Directions normal to [x, Q] separate:
there d exp is right multiplication by a p x p matrix.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from .decompositions import eigh_of_plain
from .frames import block
from .matrices import skew
from .operators import Operand, define


def generator(a: Tensor, b: Tensor, beta: float) -> Tensor:
    """W. ``*B,p,p and *B,q,p -> *B,p+q,p+q``."""
    corner = a.new_zeros((*a.shape[:-2], b.shape[-2], b.shape[-2]))
    return block([[2 * beta * a, -b.mT], [b, corner]])


def coordinates(v: Tensor) -> Tensor:
    """The entries above the diagonal of the skew upper block, then those of the lower block. ``*B,m,p``."""
    p = v.shape[-1]
    rows, columns = torch.triu_indices(p, p, 1, device=v.device)
    return torch.cat([skew(v[..., :p, :])[..., rows, columns], v[..., p:, :].flatten(-2)], -1)


def from_coordinates(z: Tensor, p: int) -> tuple[Tensor, Tensor]:
    """(A, B) of `coordinates`."""
    rows, columns = torch.triu_indices(p, p, 1, device=z.device)
    k = p * (p - 1) // 2
    flat = torch.zeros_like(z[..., :1]).expand(*z.shape[:-1], p * p)
    upper = flat.index_copy(-1, rows * p + columns, z[..., :k]).unflatten(-1, (p, p))
    return upper - upper.mT, z[..., k:].unflatten(-1, (-1, p))


# ---- the dense system -------------------------------------------------------------------------------------------


@functools.cache
def _gauss(count: int) -> tuple[list[float], list[float]]:
    """Nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (0.5 + 0.5 * nodes).tolist(), (0.5 * weights).tolist()


def _node_count(frequency: float, tolerance: float) -> int:
    """As many nodes as integrate e^(i f s) to the tolerance (Davis and Rabinowitz 1984, eq. 2.7.12)."""
    log = math.log(max(frequency, 1e-3))
    for n in range(2, 64):
        error = 2 * n * log + 4 * math.lgamma(n + 1) - math.log(2 * n + 1) - 3 * math.lgamma(2 * n + 1)
        if error < math.log(tolerance):
            return n
    return 64


def _rotations(k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """e^-K, the weights of the nodes s and all e^-sK, of skew matrices. ``N,m,m -> N,m,m and S and N,S,m,m``.

    cos(s t) - K sin(s t)/t in the eigenvectors of K^T K: both are entire functions of the eigenvalue t^2.
    """
    square, q = eigh_of_plain(k.mT @ k)
    t = square.clamp(min=0.0).sqrt()
    largest = float(t.amax()) if t.numel() > 0 else 0.0
    nodes, weights = _gauss(_node_count(2 * largest, torch.finfo(k.dtype).eps))
    s = t.new_tensor([*nodes, 1.0])[:, None]
    angle = s * t[:, None]
    cosine, sine = angle.cos(), s * torch.sinc(angle / math.pi)
    left = q[:, None] * cosine[:, :, None] - (k @ q)[:, None] * sine[:, :, None]
    turns = (left.flatten(1, 2) @ q.mT).unflatten(1, left.shape[1:3])
    return turns[:, -1], t.new_tensor(weights), turns[:, :-1]


# Numbers in the products of entries at a time: more fill the memory and leave the cache.
_CHUNK = 2**16


def _mean_minors(turns: Tensor, weights: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """sum_s w_s (r_ic r_jd - r_id r_jc): rows are the pairs (c, d), columns (i, j). ``N,S,m,m -> N,K,K``."""
    m, k = turns.shape[-1], len(first)
    c, d, i, j = first[:, None], second[:, None], first, second
    straight = ((i * m + c) * m + j) * m + d
    crossed = ((i * m + d) * m + j) * m + c
    means = turns.new_empty(len(turns), k, k)
    size = max(1, _CHUNK // m**4)
    for part, mean in zip(turns.flatten(2).split(size), means.split(size), strict=True):
        products = ((part * weights[:, None]).mT @ part).flatten(1)
        mean.copy_(products[:, straight] - products[:, crossed])
    return means


def system(a: Tensor, b: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """e^-W, e^-P, the matrix whose row k holds the coordinates of the image of the k-th basis vector, and
    int_0^1 e^(sW) ds on x. ``N,...``."""
    q, p = b.shape[-2:]
    rows, columns = torch.triu_indices(p, p, 1, device=a.device)
    k, grid = len(rows), torch.arange(q * p, device=a.device)
    first = torch.cat([rows, p + torch.div(grid, p, rounding_mode="floor")])
    second = torch.cat([columns, grid % p])
    back, weights, turns = _rotations(generator(a, b, beta))
    matrix = _mean_minors(turns, weights, first, second)
    mean = (weights[:, None, None] * turns[..., :p, :p].mT).sum(1)
    if beta == 0.5:
        return back, torch.eye(p, dtype=a.dtype, device=a.device).expand_as(a), matrix, mean
    matrix[:, :k] *= 2 * beta
    turn, weights, turns = _rotations((2 * beta - 1) * a)
    matrix[:, :k, :k] += (1 - 2 * beta) * _mean_minors(turns, weights, rows, columns)
    return back, turn.mT, matrix, mean


# ---- its inverse ------------------------------------------------------------------------------------------------


def _inverses(a: Tensor, b: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch = a.shape[:-2]
    count = math.prod(batch)
    a, b = a.reshape(count, *a.shape[-2:]), b.reshape(count, *b.shape[-2:])
    back, turn_back, matrix, mean = system(a, b, beta)
    results = back, turn_back, torch.linalg.inv_ex(matrix)[0], turn_back @ torch.linalg.inv_ex(mean)[0]
    return tuple(z.reshape(*batch, *z.shape[-2:]) for z in results)  # type: ignore


def _shapes(a: Tensor, b: Tensor, beta: float) -> tuple[Tensor, ...]:
    q, p = b.shape[-2:]
    sizes = (p + q, p, p * (p - 1) // 2 + p * q, p)
    return tuple(a.new_empty((*a.shape[:-2], m, m)) for m in sizes)


_inverse_operator = define(
    "stiefel_dexp_inverse",
    _inverses,
    [Operand("a", 2), Operand("b", 2)],
    _shapes,
    numbers={"beta": float},
    count=4,
)


class DexpInverse:
    """The inverse of d(exp_x)_u as a constant linear map from ambient vectors at exp_x(u) to tangent vectors at x."""

    def __init__(self, frame: Tensor, a: Tensor, b: Tensor, beta: float) -> None:
        self.frame, self.p = frame, a.shape[-1]
        self.back, self.turn_back, self.inverse, self.normal = _inverse_operator(a, b, beta)

    def __call__(self, r: Tensor) -> Tensor:
        inside = self.frame.mT @ r
        z = (coordinates(self.back @ inside @ self.turn_back).unsqueeze(-2) @ self.inverse).squeeze(-2)
        u = self.frame @ torch.cat(from_coordinates(z, self.p), -2)
        return u if self.frame.shape[-1] == r.shape[-2] else u + (r - self.frame @ inside) @ self.normal
