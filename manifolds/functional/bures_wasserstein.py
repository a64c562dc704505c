r"""The Bures-Wasserstein geometry of positive definite matrices: Lyapunov equations, Procrustes distances, geodesics.

S = `lyapunov` (P, V) solves ``P S + S P = V``; the metric is ``1/2 tr(S_V W)``, the geodesic with velocity V is
``(I + tS) P (I + tS)``. The optimal transport map from P to Q is the positive definite T with ``T P T = Q``; S = T - I
belongs to the logarithm ``S P + P S``, and the squared distance is tr(S P S). Sources: Bhatia, Jain and Lim 2019, "On
the Bures-Wasserstein distance between positive definite matrices", arXiv:1712.01504; Malago, Montrucchio and Pistone
2018, "Wasserstein Riemannian geometry of Gaussian densities", arXiv:1801.09269.

Stable forms. With ``P = L L^T``, ``Q = K K^T`` and ``K^T L = A diag(s) B^T``,

    E = L B,  F = E^-T,  D = K A - E:    P = E E^T,  T = F diag(s) F^T,  dist = |D|,  S = D F^T

(orthogonal Procrustes). No difference of traces is formed, of which in float32 nothing is left below distances of 1e-3.

Derivatives. All that iterates is a constant; what it solves is improved by steps of Newton's method with these
constants for the derivative, whose values are zero: two steps give a first and a second derivative under every
transform, at equal eigenvalues too. A third derivative is not right. An item that is not positive definite is NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .cholesky import factor_of_plain
from .decompositions import eigh, eigh_of_plain, svd_of_plain
from .matrices import identity_like, sym
from .operators import Operand, define
from .series import safe_sqrt
from .tracing import derivative_wanted, values_readable, variation

_ORDERS = 2  # of derivatives that are right


def identity_plus(s: Tensor) -> Tensor:
    """I + S."""
    return s + identity_like(s)


def _mark(info: Tensor, like: Tensor) -> Tensor:
    """One for matrices that have a factor, NaN for others. ``*B -> *B,1,1``."""
    return torch.where(info == 0, 1.0, torch.nan)[..., None, None].to(like.dtype)


# ---- Lyapunov equations ---------------------------------------------------------------------------------------


def sylvester_frame(p: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvectors of P, and the sums of eigenvalues by which `sylvester` divides. No derivative."""
    a, q = eigh(p, positive=True)
    # What Cholesky's method accepts is positive; eigenvalues are off by eps of the largest.
    a = torch.maximum(a, torch.finfo(a.dtype).eps * a[..., -1:])
    info = torch.linalg.cholesky_ex(p.detach().double()).info
    return q, (a.unsqueeze(-1) + a.unsqueeze(-2)) * _mark(info, a)


def sylvester(v: Tensor, q: Tensor, sums: Tensor) -> Tensor:
    """S of ``P S + S P = V`` for any square V, P in its frame."""
    return q @ ((q.mT @ v @ q) / sums) @ q.mT


def lyapunov(p: Tensor, v: Tensor) -> Tensor:
    """S of ``P S + S P = V``, any square V; of P the symmetric part is read. ``*B,n,n``."""
    p = sym(p)
    return lyapunov_in_frame(p, v, *sylvester_frame(p))


def lyapunov_in_frame(p: Tensor, v: Tensor, q: Tensor, sums: Tensor) -> Tensor:
    """`lyapunov` of symmetric P whose frame is known."""
    s = sylvester(v, q, sums)
    for _ in range(_ORDERS if derivative_wanted(p) else 0):
        s = s + sylvester(variation(v - p @ s - s @ p), q, sums)
    return s


def lyapunov_saving(p: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """`lyapunov`, and what its backward pass reads."""
    p = sym(p)
    q, sums = sylvester_frame(p)
    s = lyapunov_in_frame(p, v, q, sums)
    return s, q, sums, s


def lyapunov_backward(g: Tensor, p: Tensor, v: Tensor, q: Tensor, sums: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Y of ``P Y + Y P = G`` in V, and -Y S^T - S^T Y in P."""
    y = sylvester(g, q, sums)
    return -sym(y @ s.mT + s.mT @ y), y


# ---- two points -----------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """E, F, s and D of two points over a common `unit`, ``*B,1,1``: constants of order one in every unit."""

    e: Tensor
    f: Tensor
    s: Tensor
    d: Tensor
    unit: Tensor

    @property
    def sums(self) -> Tensor:
        """s_i + s_j."""
        return self.s.unsqueeze(-1) + self.s.unsqueeze(-2)

    def swapped(self) -> Pair:
        """That of Q and P."""
        s = self.s.unsqueeze(-2)
        return Pair(self.f * s, self.e / s, self.s, -self.d, self.unit)

    def displacement(self) -> Tensor:
        """T - I = D F^T."""
        return sym(self.d @ self.f.mT)


def _pair(p: Tensor, q: Tensor) -> tuple[Tensor, ...]:
    """The five parts of `Pair`, of plain tensors."""
    size = p.diagonal(dim1=-2, dim2=-1).amax(-1)[..., None, None]
    unit = size / torch.frexp(size).mantissa  # a power of two, by which division rounds nothing
    root, other = factor_of_plain(p / unit), factor_of_plain(q / unit)
    overlap = other.mT @ root
    if p.dtype == torch.float64:
        a, s, b = svd_of_plain(overlap)
        s = _at_least_rounding(s)
        image = other @ a
    else:  # what float64 loses by squaring float32 does not have, and singular values take longer
        w, b = eigh_of_plain(overlap.mT @ overlap)
        s = _at_least_rounding(w).sqrt()
        image = None
    e, f = root @ b, torch.linalg.solve_triangular(root.mT, b, upper=True)
    d = (f * s.unsqueeze(-2) if image is None else image) - e
    d = d * (p != q).flatten(-2).any(-1)[..., None, None]  # of equal points not what rounding leaves
    return *(part.to(p.dtype) for part in (e, f, s, d)), unit.expand(*d.shape[:-2], 1, 1).clone()


def _at_least_rounding(s: Tensor) -> Tensor:
    return torch.maximum(s, torch.finfo(s.dtype).eps * s.amax(-1, keepdim=True))


def _pair_shapes(p: Tensor, q: Tensor) -> tuple[Tensor, ...]:
    shape = torch.broadcast_shapes(p.shape, q.shape)
    return tuple(p.new_empty(size) for size in (shape, shape, shape[:-1], shape, (*shape[:-2], 1, 1)))


_pair_operator = define(
    "bures_wasserstein_pair", _pair, (Operand("first", 2), Operand("second", 2)), _pair_shapes, count=5
)


def pair_of(p: Tensor, q: Tensor) -> Pair:
    """`Pair` of symmetric P and Q."""
    p, q = p.detach(), q.detach()
    return Pair(*(_pair if values_readable(p) and values_readable(q) else _pair_operator)(p, q))


def _displaced(p: Tensor, q: Tensor, pair: Pair, orders: int) -> Tensor:
    """T - I with as many derivatives: of T P T = Q, ``dT = F ((E^T (dQ - T dP T) E)_ij/(s_i + s_j)) F^T``."""
    s = pair.displacement()
    for _ in range(orders):
        t = identity_plus(s)
        change = variation(q - t @ p @ t) / pair.unit
        s = s + pair.f @ ((pair.e.mT @ change @ pair.e) / pair.sums) @ pair.f.mT
    return s


def _wanted(p: Tensor, q: Tensor) -> bool:
    return derivative_wanted(p) or derivative_wanted(q)


def bures_displacement(p: Tensor, q: Tensor) -> Tensor:
    """T - I, with T the optimal transport map from P to Q: ``T P T = Q``. ``*B,n,n``."""
    p, q = sym(p), sym(q)
    return sym(_displaced(p, q, pair_of(p, q), _ORDERS if _wanted(p, q) else 0))


def bures_displacement_saving(p: Tensor, q: Tensor) -> tuple[Tensor, ...]:
    """`bures_displacement`, and what its backward pass reads."""
    p, q = sym(p), sym(q)
    pair = pair_of(p, q)
    return sym(_displaced(p, q, pair, _ORDERS if _wanted(p, q) else 0)), pair.e, pair.f, pair.s, pair.unit


def bures_displacement_backward(
    g: Tensor, p: Tensor, q: Tensor, e: Tensor, f: Tensor, s: Tensor, unit: Tensor
) -> tuple[Tensor, Tensor]:
    """``Y = E ((F^T G F)_ij/(s_i + s_j)) E^T`` in Q, and -T Y T in P, where T E = F diag(s)."""
    inner = (f.mT @ (sym(g) / unit) @ f) / (s.unsqueeze(-1) + s.unsqueeze(-2))
    image = f * s.unsqueeze(-2)
    return -sym(image @ inner @ image.mT), sym(e @ inner @ e.mT)


# ---- distance -------------------------------------------------------------------------------------------------


def bures_dist2(p: Tensor, q: Tensor) -> Tensor:
    """The squared distance. ``*B,n,n -> *B``."""
    p, q = sym(p), sym(q)
    return _squared_by(p, q, pair_of(p, q))


def _squared_by(p: Tensor, q: Tensor, pair: Pair) -> Tensor:
    square = pair.d.square().sum((-2, -1)) * pair.unit[..., 0, 0]
    if not _wanted(p, q):
        return square
    # I - T and I - T^-1 are the gradients, so the mean of them here and there makes it right to the second order.
    for at, other, parts in ((p, q, pair), (q, p, pair.swapped())):
        s = _displaced(at, other, parts, _ORDERS - 1)
        square = square - 0.5 * ((s + s.detach()) * variation(at)).sum((-2, -1))
    return square


def bures_dist(p: Tensor, q: Tensor) -> Tensor:
    """The distance. ``*B,n,n -> *B``."""
    return safe_sqrt(bures_dist2(p, q))


def bures_dist2_saving(p: Tensor, q: Tensor) -> tuple[Tensor, ...]:
    """`bures_dist2`, and its gradients I - T and I - T^-1."""
    p, q = sym(p), sym(q)
    pair = pair_of(p, q)
    return _squared_by(p, q, pair), -pair.displacement(), -pair.swapped().displacement()


def bures_dist_saving(p: Tensor, q: Tensor) -> tuple[Tensor, ...]:
    """`bures_dist`, and its gradients: those of the square over twice the distance, or over their own dual norms where
    rounding made these larger, at coincident points."""
    square, *gradients = bures_dist2_saving(p, q)
    return safe_sqrt(square), *[_scaled(g, at, square) for g, at in zip(gradients, (p, q), strict=True)]


def _scaled(g: Tensor, at: Tensor, square: Tensor) -> Tensor:
    length = (g @ sym(at) * g).sum((-2, -1)).detach()  # the square of half the dual norm
    # Where the distance is no rounding the two agree, and its own is that of all derivatives.
    length = torch.where(length > (1 + torch.finfo(g.dtype).eps ** 0.5) * square, length, square.detach())
    known = length > 0
    return torch.where(known, 0.5 / torch.where(known, length, 1.0).sqrt(), 0.0 * length)[..., None, None] * g


def gradients_backward(g: Tensor, p: Tensor, q: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Of a number whose gradients are saved."""
    g = g[..., None, None]
    return g * first, g * second


# ---- geodesics ------------------------------------------------------------------------------------------------


def bures_domain(s: Tensor) -> Tensor:
    """Whether I + S is positive definite: the domain of the exponential map. ``*B,n,n -> *B`` (bool)."""
    return torch.linalg.cholesky_ex(identity_plus(s.detach())).info == 0  # of the lower triangle


def bures_moved(p: Tensor, s: Tensor) -> Tensor:
    """(I + S) P (I + S), NaN where I + S is not positive definite: there the geodesic has left the cone."""
    a = identity_plus(s)
    return sym(a @ sym(p) @ a) * _mark(torch.linalg.cholesky_ex(a.detach()).info, a)
