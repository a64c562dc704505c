r"""A kernel of two eigenvalues as a polynomial: ``sum_kl A_kl T_k(x) T_l(y)`` with Chebyshev's polynomials on an
interval that holds the eigenvalues. The map ``Y -> sum_ij c(x_i, x_j) Y'_ij`` of symmetric matrices is then ``sum_kl
A_kl T_k(X) Y T_l(X)``: products of matrices, which torch differentiates to any order, and no eigenvectors, which have
no derivative where eigenvalues meet.

A kernel of width w (see `Cometric`) on an interval of length S is analytic in Bernstein's ellipse of the parameter
``rho = t + (1 + t^2)^(1/2)``, ``t = 4 pi/(w S)``, and degree d leaves rho^-d of the largest value of c: with w = 1
and d = 48 some 1e-14 at a condition of 1e6, where the interval is 17 long, and 1e-8 at one of 1e12. It is for
derivatives; values come from eigenvectors.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .kernel_cometric import Cometric
from .kernel_tables import exponential_coefficients, kernel_coefficients
from .matrices import identity_like, sym

_DEGREE = {torch.float32: 24, torch.float64: 48}  # of a kernel of width one
_MOST = 4  # times that

Ends = tuple[Tensor, Tensor]


def expanded_map(X: Tensor, Y: Tensor, c: Cometric, ends: Ends) -> Tensor:
    """The map of `Cometric`, of symmetric Y. X has the batch of `ends`, the least and the largest eigenvalue ``*B``,
    without derivative; Y broadcasts."""
    return _applied(_parts(X, c, ends), Y, c)


def expanded_change(X: Tensor, Y: Tensor, c: Cometric, ends: Ends) -> Tensor:
    """`expanded_map`, less itself at X without derivative: zero, and all its derivatives but those in Y alone."""
    parts = _parts(X, c, ends)
    return _applied(parts, Y, c) - _applied([p.detach() for p in parts], Y, c)


def _parts(X: Tensor, c: Cometric, ends: Ends) -> list[Tensor]:
    """The sums over k of A_kl T_k(X), the T_l(X), and e^(-r X) where there is a trace."""
    low, high = ends
    # Longer than the spectrum: a derivative of order p of T_k, and with it the rounding of the coefficients, is as
    # large as k^(2 p) at the ends of the interval, but k^p inside.
    center, half = 0.5 * (low + high), 0.55 * (high - low) + 1
    degree = _DEGREE[X.dtype] * min(_MOST, max(1, math.ceil(c.width)))
    T = _polynomials((X - center[..., None, None] * identity_like(X)) / half[..., None, None], degree)
    parts = [_combined(kernel_coefficients(center, half, c, degree), T), T]
    if c.trace:
        coefficients = exponential_coefficients(center, half, c.rate, degree)
        parts.append(_combined(coefficients.unsqueeze(-2), T).squeeze(-3))
    return parts


def _combined(coefficients: Tensor, T: Tensor) -> Tensor:
    return (coefficients @ T.flatten(-2)).unflatten(-1, T.shape[-2:])


def _applied(parts: list[Tensor], Y: Tensor, c: Cometric) -> Tensor:
    value = sym((parts[0] @ Y.unsqueeze(-3) @ parts[1]).sum(-3))
    if c.trace:
        B = sym(parts[2])
        value = value + c.trace_factor(Y.shape[-1]) * (B * Y).sum((-2, -1), keepdim=True) * B
    return value


def _polynomials(Y: Tensor, degree: int) -> Tensor:
    """T_0(Y) .. T_d(Y), twice as many by each product: T_(m + k) = 2 T_m T_k - T_(m - k). ``*B,n,n -> *B,d+1,n,n``."""
    found = torch.stack([identity_like(Y).expand_as(Y), Y], -3)
    while (m := found.shape[-3] - 1) < degree:
        count = min(m, degree - m)
        following = 2 * found[..., m, None, :, :] @ found[..., 1 : count + 1, :, :]
        found = torch.cat([found, following - found[..., m - count : m, :, :].flip(-3)], -3)
    return found
