r"""Geodesics and parallel transport of the Stiefel manifold for every metric of the one-parameter family.

A tangent vector at x is ``u = x A + H`` with A = x^T u skew and x^T H = 0; the metric is beta |A|^2 + |H|^2. All work
beyond a few products with n x p matrices is done on 2p x 2p blocks in the (not orthonormal) basis [x, H], so nothing
is factorised and everything is differentiable at u = 0.
"""

from __future__ import annotations

import torch
from scipy.special import jv
from torch import Tensor

from .frames import block, matrix_exp
from .matrices import identity_like, skew
from .operators import Operand, define
from .tracing import derivative_wanted, values_readable


def _scaled_normal_part(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(A, H/s, s), s = max(1, |H|): with a long H the Gram matrix in the generator would cost squarings and digits."""
    overlap = x.mT @ u
    a, h = skew(overlap), u - x @ overlap
    # Detached: the result does not depend on s.
    s = h.detach().square().sum((-2, -1), keepdim=True).sqrt().clamp(min=1.0)
    return a, h / s, s


def _turn(a: Tensor, beta: float) -> Tensor:
    """exp((1 - 2 beta) A)."""
    return matrix_exp((1 - 2 * beta) * a) if beta != 0.5 else identity_like(a).expand_as(a)


def geodesic_end(x: Tensor, u: Tensor, beta: float) -> Tensor:
    """[x H] exp([[2 beta A, -H^T H], [I, 0]])[:, :p] exp((1 - 2 beta) A).

    Zimmermann and Hueper, arXiv:2103.12046, there with a thin QR of H, whose derivatives do not exist at H = 0.
    """
    p = x.shape[-1]
    if p == x.shape[-2]:
        return x @ matrix_exp(skew(x.mT @ u))
    a, h, s = _scaled_normal_part(x, u)
    identity = identity_like(a).expand_as(a)
    generator = block([[2 * beta * a, -s * (h.mT @ h)], [s * identity, torch.zeros_like(a)]])
    first = matrix_exp(generator)[..., :p] @ _turn(a, beta)
    return x @ first[..., :p, :] + h @ first[..., p:, :]


# exp(L) = J_0(r) + 2 sum_k J_k(r) c_k(L/r), c_k the Chebyshev polynomials turned to the imaginary axis, converges
# like a Bessel function's tail and without growth of rounding for a skew-adjoint L with |L| <= r.
_RADIUS = 16.0


def _chebyshev(radius: float) -> list[float]:
    coefficients = [float(jv(k, radius)) * (1 if k == 0 else 2) for k in range(48)]  # J_48(16) = 2e-18
    return coefficients[: 1 + max(k for k, c in enumerate(coefficients) if k < 2 or abs(c) > 1e-17)]


_LONGEST = _chebyshev(_RADIUS)


def _series(bound: Tensor) -> tuple[float, list[float]]:
    """A radius that covers `bound` up to 16, and the coefficients; short for short vectors where values can be read."""
    if not values_readable(bound) or bound.numel() == 0 or not bool(bound.max() < _RADIUS):
        return _RADIUS, _LONGEST
    radius = max(float(bound.max()), 0.1)
    return radius, _chebyshev(radius)


def norm_bound(a: Tensor, h: Tensor, beta: float) -> Tensor:
    """max(|1/2 - 2 beta|, beta/sqrt 2) |A| + sqrt(beta) |H|, not less than the norm of L below. ``*B,1,1``."""
    turning, normal = (m.detach().square().sum((-2, -1), keepdim=True).sqrt() for m in (a, h))
    return max(abs(0.5 - 2 * beta), beta * 0.5**0.5) * turning + beta**0.5 * normal


def skew_adjoint_exp(left: Tensor, below: Tensor, right: Tensor, start: Tensor, bound: Tensor) -> Tensor:
    """exp(L) of a pair (b, h), b skew p x p, stacked in `start` ``*B,p+q,p``, for the map L with imaginary spectrum
    within `bound`

        L(b, h) = (skew(left (b, h)), below b + h right),  left ``*B,p,p+q``, below ``*B,q,p``, right ``*B,p,p``.

    To a compiler it is one operator where no derivative is wanted.
    """
    operands = (left, below, right, start)
    if torch.compiler.is_compiling() and not any(map(derivative_wanted, operands)):
        return _series_operator(*(z.detach() for z in operands), bound)
    return _chebyshev_sum(*operands, bound)


def _chebyshev_sum(left: Tensor, below: Tensor, right: Tensor, start: Tensor, bound: Tensor) -> Tensor:
    radius, coefficients = _series(bound)
    p, shape, scale = start.shape[-1], start.shape, 2 / radius
    corner = below.new_zeros((*below.shape[:-1], below.shape[-2]))
    # L z without the transposed half of skew, which is z^T left^T.
    plain = torch.cat([0.5 * left, torch.cat([below, corner], -1).expand(*left.shape[:-2], -1, -1)], -2)
    # In three dimensions a product is one node of a graph.
    plain, flip, turn, old = (
        m.expand(*shape[:-2], *m.shape[-2:]).reshape(-1, *m.shape[-2:])
        for m in (scale * plain, -0.5 * scale * left.mT, scale * right, start)
    )

    def doubled(z: Tensor) -> Tensor:
        """2/r L z, without the product with `plain`."""
        return torch.cat([torch.bmm(z.mT, flip), torch.bmm(z[:, p:], turn)], -2)

    new = 0.5 * torch.baddbmm(doubled(old), plain, old)
    total = coefficients[0] * old + coefficients[1] * new
    for c in coefficients[2:]:
        old, new = new, torch.baddbmm(old + doubled(new), plain, new)
        total = total.add(new, alpha=c)
    return total.reshape(shape)


_series_operator = define(
    "skew_adjoint_exp",
    _chebyshev_sum,
    [Operand(name, 2) for name in ("left", "below", "right", "start", "bound")],
    lambda left, below, right, start, bound: start.new_empty(start.shape),
)


def geodesic_transport(x: Tensor, u: Tensor, v: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    r"""The end of the geodesic and the parallel transport of v along it: ``exp(M) (exp(L) v) exp((1 - 2 beta) A)``.

    M = H x^T - x H^T + 2 beta x A x^T moves the frame; L, skew-adjoint in the metric, is on v = x a + h

        L(a, h) = ((1/2 - 2 beta) [A, a] + skew(H^T h), beta (h A - H a)).

    Source: arXiv:2408.06054, rewritten in these coordinates. h stays in the span of h(0) and H, so that L acts on
    p x p matrices only. NaN where |L| may exceed 16 (|u| = 8.8 at beta 1, 16 at beta 1/2), beyond the series' reach.
    """
    x, u = torch.broadcast_tensors(
        x, u
    )  # not with v: many vectors go along one geodesic at the cost of its exponentials
    p = x.shape[-1]
    a, h, s = _scaled_normal_part(x, u)
    overlap = x.mT @ v
    normal = v - x @ overlap
    gram, pull = h.mT @ h, h.mT @ normal
    identity, zero = identity_like(a).expand_as(a), torch.zeros_like(a)
    # h stands for normal h[:p] + (H/s) h[p:].
    left = torch.cat([(1 - 4 * beta) * a.expand_as(pull), s * pull, s * gram.expand_as(pull)], -1)
    below = torch.cat([zero, -beta * s * identity], -2)
    bound = norm_bound(a, s * h, beta)
    start = torch.cat([skew(overlap), identity.expand_as(overlap), zero.expand_as(overlap)], -2)
    moved = skew_adjoint_exp(left, below, beta * a, start, bound)
    b, mixed = moved[..., :p, :], moved[..., p:, :]
    along, across = mixed[..., :p, :], mixed[..., p:, :]
    # The third block column gives (exp(B) - 1)/B, by which exp(M) acts on v's own normal part.
    moved = matrix_exp(block([[2 * beta * a, -s * gram, identity], [s * identity, zero, zero], [zero, zero, zero]]))
    moved = moved[..., : 2 * p, :]
    turn = _turn(a, beta)
    mixed = moved @ torch.cat([b, across, -s * (pull @ along)], -2) @ turn
    first = moved[..., :p] @ turn
    y = x @ first[..., :p, :] + h @ first[..., p:, :]
    w = x @ mixed[..., :p, :] + h @ mixed[..., p:, :] + normal @ (along @ turn)
    return y, torch.where(bound <= _RADIUS, w, torch.nan)
