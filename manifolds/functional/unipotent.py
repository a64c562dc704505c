r"""Logarithms of lower triangular matrices with ones on the diagonal, exponentials of those with zeros there.

The powers of a strictly lower triangular S of n rows are zero from the n-th on, so that both functions are polynomials:
nothing is truncated here, whatever the norm. The alternating sum of powers of S in the logarithm would lose all digits
(of the factor of an autoregression of 64 values, in float64); the rule of integration has positive weights.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from .matrices import identity_like
from .triangular import lower_inverse


@functools.cache
def _rule(n: int) -> tuple[list[float], list[float]]:
    """Nodes and weights on [0, 1] that integrate polynomials of degree n - 2."""
    nodes, weights = np.polynomial.legendre.leggauss(max(1, n // 2))
    return (0.5 + 0.5 * nodes).tolist(), (0.5 * weights).tolist()


def _gauss(n: int) -> tuple[list[float], list[float]]:
    return _rule(n)


# Dynamo calls it and keeps the numbers: it would trace numpy. As `tracing.transforms_are_on` says of itself.
_gauss._dynamo_marked_constant = True  # type: ignore[attr-defined]


def unipotent_log(S: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
    """``log(I + S)`` of a strictly lower triangular S, and its derivatives along such `vectors`. ``*B,n,n``.

    ``log(I + S)`` is the integral of ``S (I + t S)^-1`` over t from 0 to 1, and the derivative along E that of
    ``(I + t S)^-1 E (I + t S)^-1``. Both are polynomials in t of degree n - 2, which n/2 nodes of Gauss integrate
    exactly.
    """
    rule = _gauss(len(range(S.shape[-1])))  # a number also where dynamo leaves the size open
    nodes, weights = (torch.tensor(g, dtype=S.dtype, device=S.device)[:, None, None] for g in rule)
    resolvents = lower_inverse(identity_like(S) + nodes * S.unsqueeze(-3))  # *B,m,n,n
    weighted = weights * resolvents
    log = S @ weighted.sum(-3)
    if not vectors:
        return (log,)
    left, right = _side_by_side(resolvents), _side_by_side(weighted)
    return log, *(left @ _apart(E @ right).flatten(-3, -2) for E in vectors)


def _side_by_side(matrices: Tensor) -> Tensor:
    """``*B,m,n,n -> *B,n,m n``."""
    return matrices.transpose(-3, -2).flatten(-2)


def _apart(row: Tensor) -> Tensor:
    """``*B,n,m n -> *B,m,n,n``."""
    return row.unflatten(-1, (-1, row.shape[-2])).transpose(-3, -2)


def unipotent_exp(V: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
    """``exp(V) - I`` of a strictly lower triangular V, and its derivatives along such `vectors`. ``*B,n,n``.

    The polynomial of degree n - 1 at V/2^s by some 2 sqrt(n) products (Paterson and Stockmeyer 1973,
    doi 10.1137/0202007), then s times ``2 Y + Y^2``. Scaling keeps small what cancels in the exponential of a long V.

    The transpose of the derivative, as of a linear map, is the derivative at V^T: of V^T and any matrix the second
    result is right below the diagonal.
    """
    degree = V.shape[-1] - 1
    squarings = max(0, degree.bit_length() - 2)
    powers = [tuple(0.5**squarings * A for A in (V, *vectors))]
    span = max(1, math.isqrt(degree))
    while len(powers) < span:
        powers.append(_times(powers[-1], powers[0]))
    blocks = _blocks(powers, degree)
    Y = blocks[-1]
    for j in range(len(blocks) - 2, -1, -1):
        share = math.factorial(j * span) / math.factorial((j + 1) * span)
        Y = tuple(B + share * P for B, P in zip(blocks[j], _times(powers[-1], Y), strict=True))
    for _ in range(squarings):
        Y = tuple(2 * A + P for A, P in zip(Y, _times(Y, Y), strict=True))
    return Y


def _times(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The product of two matrices that have their derivatives with them, and its derivatives."""
    A, B = a[0], b[0]
    return A @ B, *(dA @ B + A @ dB for dA, dB in zip(a[1:], b[1:], strict=True))


def _blocks(powers: list[tuple[Tensor, ...]], degree: int) -> list[tuple[Tensor, ...]]:
    """The sums ``(j q)! sum_i V^i/(j q + i)!`` over i = 1 .. q of the powers V .. V^q, up to that degree."""
    q = len(powers)
    shares = [[_share(j * q, i, degree) for i in range(1, q + 1)] for j in range(-(-degree // q))]
    table = torch.tensor(shares, dtype=powers[0][0].dtype, device=powers[0][0].device)
    by_matrix = (torch.stack(same, -3) for same in zip(*powers, strict=True))
    sums = [(table @ same.flatten(-2)).unflatten(-1, same.shape[-2:]) for same in by_matrix]
    return [tuple(s[..., j, :, :] for s in sums) for j in range(len(shares))]


def _share(before: int, i: int, degree: int) -> float:
    return math.factorial(before) / math.factorial(before + i) if before + i <= degree else 0.0
