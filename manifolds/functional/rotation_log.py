r"""The logarithm of rotations, and the rotation nearest to a matrix.

Forward. ``V = x^T y`` has the symmetric part cos and the skew part sin of its angles; an eigendecomposition of the
symmetric part and one sine an eigenvector give ``log V`` in real arithmetic. Next to a half turn the eigenvectors of
planes with nearly equal cosines mix. There ``V = V' (I - 2P)`` with P the span of the planes that turn by much: V' has
no large angle, ``log V = log V' + pi J``, and J, the quarter turn of each of those planes, is minus the orthogonal
polar factor of ``log V'`` on P. At a half turn exactly any pairing of the eigenvectors of -1 is a quarter turn. The
work looks at its numbers, so it is one operator to the compiler and to functorch.

Derivatives. The equation ``exp(A) = V`` is differentiated, in two Newton steps with the constant inverse of d exp:
the first is right to first order, the second to second order.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .decompositions import eigh_of_plain, svd, svd_of_plain
from .frames import matrix_exp
from .matrices import identity_like, skew, sym
from .operators import Operand, define
from .series import bessel_sqrt, cos_sqrt, sinc_sqrt
from .tracing import derivative_wanted, variation


def relative_log(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """A skew with exp(A) = x^T y and angles up to pi, and where there is none because det(x^T y) < 0.

    ``*B,n,n and *B,n,n -> *B,n,n and *B,1,1 (bool)``. A is zero where there is no logarithm, NaN for NaN and
    for matrices that are far from orthogonal.
    """
    x, y = torch.broadcast_tensors(x, y)
    a, apart = solve(x.detach(), y.detach())
    if not derivative_wanted(x) and not derivative_wanted(y):
        return a, apart
    at = a.nan_to_num(nan=0.0)  # a itself keeps it
    inverse, back = DexpInverse(at), matrix_exp(-at)
    v = x.mT @ y
    for moved in (lambda _: v.detach(), matrix_exp):
        correction = inverse(back @ (v - moved(a)))
        # Value zero: next to a half turn the inverse enlarges rounding errors.
        a = a + variation(correction)
    return a, apart


def _solve(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The values of `relative_log`."""
    n, batch = x.shape[-1], x.shape[:-2]
    x, y = x.reshape(-1, n, n), y.reshape(-1, n, n)
    identity, v = identity_like(x), x.mT @ y
    # No logarithm of what is no rotation, least of all of NaN, on which LAPACK raises for the whole batch.
    usable = (v.mT @ v - identity).abs().amax((-2, -1), keepdim=True) < 0.5
    x, y, v = (torch.where(usable, z, identity) for z in (x, y, v))
    change = y - x
    # The skew part from y - x, which is exact for near points: x^T y would be off by the rounding of one.
    turning, still = skew(x.mT @ change), (change == 0).all(-1).all(-1)[:, None, None]
    # Two Newton-Schulz steps: points rounded to half precision are off by 1e-2.
    for _ in range(2):
        off = 0.5 * (identity - v.mT @ v)
        turning, v = turning + skew((v - identity) @ off), v + v @ off
    apart = torch.linalg.det(v)[:, None, None] < 0
    a = rotation_log(torch.where(apart, identity, v), torch.where(apart | still, 0.0, turning))
    a = torch.where(usable, a, torch.nan)
    return a.reshape(*batch, n, n), apart.reshape(*batch, 1, 1)


def _empty(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty((*x.shape[:-2], 1, 1), dtype=torch.bool)


solve = define("relative_log", _solve, (Operand("x", 2), Operand("y", 2)), _empty, count=2)


# ---- values ---------------------------------------------------------------------------------------------------

_LARGE = -0.8  # cosine from which on planes are looked at once more


def rotation_log(v: Tensor, turning: Tensor) -> Tensor:
    """The skew logarithm of rotations v with skew part `turning`, angles up to pi. Reads values. ``N,n,n``."""
    cosine, q = eigh_of_plain(sym(v))
    log = _sum_of_planes(turning, cosine, q)
    large = (cosine[:, :1] < _LARGE).any(-1).nonzero().squeeze(-1)
    if len(large) > 0:
        log[large] = _with_half_turns(turning[large], cosine[large], q[large])
    return log


def _sum_of_planes(turning: Tensor, cosine: Tensor, q: Tensor) -> Tensor:
    """sum_q t/sin(t) K q q^T: with K the skew part |K q| = sin(t), of full accuracy where sqrt(1 - cos^2) has none."""
    pushed = turning @ q
    sine = pushed.square().sum(-2).sqrt()
    turned = sine > torch.finfo(sine.dtype).tiny ** 0.5  # below it squares underflow
    ratio = torch.where(turned, torch.atan2(sine, cosine) / torch.where(turned, sine, 1.0), 1.0)
    # K itself and what the ratio adds to it: of small angles K alone, without the rounding of two products.
    return turning + skew((pushed * (ratio - 1).unsqueeze(-2)) @ q.mT)


def _with_half_turns(turning: Tensor, cosine: Tensor, q: Tensor) -> Tensor:
    """log V' + pi J, with P the planes on the far side of the widest gap between cosines."""
    far = cosine < _widest_gap(cosine)
    sign = torch.where(far, -1.0, 1.0).to(cosine.dtype)
    log = _sum_of_planes(skew((turning @ q * sign.unsqueeze(-2)) @ q.mT), sign * cosine, q)
    return skew(log + math.pi * _quarter_turns(log, q, far))


def _widest_gap(cosine: Tensor) -> Tensor:
    """The middle of the widest gap between ascending cosines, within [-0.8, 0.3]. ``N,n -> N,1``.

    It is at least 1/n wide, so that rounding cannot separate the two eigenvectors of a plane, nor equal planes.
    """
    low, high = _LARGE, 0.3
    edges = torch.nn.functional.pad(cosine.clamp(low, high), (0, 1), value=high)
    edges = torch.cat([torch.full_like(edges[:, :1], low), edges], -1)
    widest = edges.diff(dim=-1).argmax(-1, keepdim=True)
    return 0.5 * (edges.gather(-1, widest) + edges.gather(-1, widest + 1))


_POLISHING = 6  # a deviation up to 0.3 squares at every step


def _quarter_turns(log: Tensor, q: Tensor, far: Tensor) -> Tensor:
    """J with J^2 = -P, P = q far q^T, and log J >= 0 on P; zero elsewhere."""
    n, eps = log.shape[-1], torch.finfo(log.dtype).eps
    block = far.unsqueeze(-1) & far.unsqueeze(-2)
    inside = torch.where(block, q.mT @ log @ q, 0.0)
    # The rest gets more than the largest angle of the block, whose planes then come last among the singular vectors,
    # by pairs; not much more, for the sake of digits.
    weight = torch.linalg.matrix_norm(inside, keepdim=True) + eps
    left, angle, right = svd_of_plain(torch.where(torch.diag_embed(~far), weight, inside))
    last = far.flip(-1)
    # Planes that turn by less than rounding have no direction of their own.
    lost = (angle < 16 * n * eps) & last
    left = torch.where(lost.unsqueeze(-2), right @ _pairing(n, right), left)
    j = -skew((left * last.unsqueeze(-2).to(left.dtype)) @ right.mT)
    for _ in range(_POLISHING):
        j = 1.5 * j + 0.5 * (j @ j @ j)
    return q @ j @ q.mT


def _pairing(n: int, like: Tensor) -> Tensor:
    """The quarter turn that pairs the last axis with the one before it, and so on upwards."""
    pairs = torch.zeros(n, n, dtype=like.dtype, device=like.device)
    second = torch.arange(n - 1, 0, -2, device=like.device)
    pairs[second, second - 1], pairs[second - 1, second] = -1.0, 1.0
    return pairs


# ---- derivatives ----------------------------------------------------------------------------------------------


def half_cotangent(z: Tensor) -> Tensor:
    """t/2 cot(t/2) for t = sqrt(z) in [0, 2 pi), one at zero."""
    # The floor bounds derivatives at a half turn, where there are none, by those at a distance of pi sqrt(eps).
    sine = sinc_sqrt(z / 4)
    return cos_sqrt(z / 4) / sine.clamp(min=torch.finfo(z.dtype).eps ** 0.5)


def _half_cotangent_derivative(z: Tensor) -> Tensor:
    return (cos_sqrt(z / 4) * bessel_sqrt(1, z / 4) / sinc_sqrt(z / 4).square() - 1) / 8


# Nodes and weights on [0, 1]: the error of four is below 1e-16 for intervals of length 1, 29 away from the pole.
_GAUSS = [(0.5 + 0.5 * float(t), 0.5 * float(w)) for t, w in zip(*np.polynomial.legendre.leggauss(4), strict=True)]


def half_cotangents(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """f(low), f(high) and (f(high) - f(low))/(high - low) of f = `half_cotangent`, for low = (s - t)^2 and
    high = (s + t)^2 with 0 <= s, t <= pi. Where they are close the third is the mean derivative."""
    # Stacked, for a compiler writes out the series once a call.
    f_low, f_high = half_cotangent(torch.stack([low, high])).unbind(0)
    gap = high - low
    far = gap > 1
    start, short = torch.where(far, 0.0, low), torch.where(far, 0.0, gap)
    derivatives = _half_cotangent_derivative(torch.stack([start + node * short for node, _ in _GAUSS])).unbind(0)
    near = sum((w * s for (_, w), s in zip(_GAUSS, derivatives, strict=True)), torch.zeros_like(gap))
    return f_low, f_high, torch.where(far, (f_high - f_low) / torch.where(far, gap, 1.0), near)


def _dexp_inverse(a: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Q, Q^T A Q and the two tables of `DexpInverse`, with Q the eigenvectors of A^2."""
    square, q = eigh_of_plain(a.mT @ a)
    square = square.clamp(min=0.0)
    k, l = square.unsqueeze(-1), square.unsqueeze(-2)
    product = (k * l).sqrt()
    low, high = (k + l - 2 * product).clamp(min=0.0), k + l + 2 * product
    f_low, f_high, quotient = half_cotangents(low, high)
    return q, q.mT @ a @ q, 0.5 * (f_low + f_high), 2 * quotient


_inverse_operator = define(
    "rotation_dexp_inverse",
    _dexp_inverse,
    [Operand("a", 2)],
    lambda a: tuple(a.new_empty(a.shape) for _ in range(4)),
    count=4,
)


class DexpInverse:
    """``E -> dA`` with ``d exp(A)[dA] = exp(A) E``, for a constant skew A with angles below pi and skew E.

    ``dA = E + [A, E]/2 + ...  = ad/2 E + (ad/2) coth(ad/2) E``. In the eigenvectors of A^2, of eigenvalues -t^2, ad has
    on a pair of planes the eigenvalues i(t_k - t_l), on what commutes with their turns, and i(t_k + t_l) on the rest;
    with g(t) = t/2 cot(t/2) the even part is ``(g(t_k - t_l) + g(t_k + t_l))/2 E`` plus
    ``(g(t_k + t_l) - g(t_k - t_l))/(2 t_k t_l) A E A``, a divided difference without a singularity.
    """

    def __init__(self, a: Tensor) -> None:
        self.a = a
        self.q, self.turned, self.plain, self.crossed = _inverse_operator(a)

    def __call__(self, e: Tensor) -> Tensor:
        """dA; only the skew part of `e` is read. ``*B,n,n``."""
        e = skew(e)
        inner = self.q.mT @ e @ self.q
        even = self.plain * inner + self.crossed * (self.turned @ inner @ self.turned)
        return skew(self.q @ even @ self.q.mT) + skew(self.a @ e)


# ---- the nearest rotation -------------------------------------------------------------------------------------


def nearest_rotation(m: Tensor) -> Tensor:
    """U diag(1, .., 1, det(U V^T)) V^T for M = U S V^T: the rotation nearest to M. ``*B,n,n -> *B,n,n``.

    (Kabsch 1976, doi 10.1107/S0567739476001873; Umeyama 1991, doi 10.1109/34.88573.) First and second derivatives
    where the rotation is unique, which it is unless the smallest singular value of a matrix with negative determinant
    is repeated, or two are zero: ``Q^T M`` is symmetric there, with eigenvalues s_k of positive sums, and Q moves by
    ``Q Z (E_kl - E_lk)/(s_k + s_l) Z^T`` with E = Z^T Q^T dM Z.
    """
    size = m.detach().abs().amax((-2, -1), keepdim=True)
    m = m / torch.where(size == 0, 1.0, size)  # squares of huge numbers overflow
    left, s, z = svd(m)
    sign = torch.where(torch.linalg.det(left @ z.mT) < 0, -1.0, 1.0).to(s.dtype)[..., None]
    last = torch.nn.functional.pad(sign, (s.shape[-1] - 1, 0), value=1.0)
    q, s = (left * last.unsqueeze(-2)) @ z.mT, s * last
    if not derivative_wanted(m):
        return q.contiguous()
    total = s.unsqueeze(-1) + s.unsqueeze(-2)
    known = total > 4 * torch.finfo(s.dtype).eps
    weight = torch.where(known, 2 / torch.where(known, total, 1.0), 0.0)
    for _ in range(2):
        turn = skew(z @ (weight * skew(z.mT @ (q.mT @ m) @ z)) @ z.mT)
        turn = variation(turn)
        q = q + q @ (turn + 0.5 * turn @ turn)  # a rotation to second order
    return q
