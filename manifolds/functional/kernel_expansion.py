r"""A kernel of two eigenvalues as a polynomial: ``sum_kl A_kl T_k(x) T_l(y)`` with Chebyshev's polynomials on an
interval that holds the eigenvalues. The map ``V -> sum_ij c(x_i, x_j) V'_ij`` is then ``sum_kl A_kl T_k(X) V
T_l(X)``: products of matrices, which torch differentiates to any order, and no eigenvectors, which have no derivative
where eigenvalues meet.

A kernel of width w (see `Cometric`) on an interval of length S is analytic in Bernstein's ellipse of the parameter
``rho = t + (1 + t^2)^(1/2)``, ``t = 4 pi/(w S)``, and degree d leaves rho^-d of the largest value of c: with w = 1
and d = 48 some 1e-14 at a condition of 1e6, where the interval is 17 long, and 1e-8 at one of 1e12. It is for
derivatives; values come from eigenvectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .kernel_cometric import Cometric
from .matrices import identity_like, sym

_DEGREE = {torch.float32: 24, torch.float64: 48}  # of a kernel of width one
_MOST = 4  # times that


def polynomial_map(X: Tensor, V: Tensor, c: Cometric, ends: tuple[Tensor, Tensor]) -> Tensor:
    """``sum_ij c(x_i, x_j) V'_ij`` of symmetric V. X has the batch of `ends`, the least and the largest eigenvalue
    ``*B``, without derivative; V broadcasts."""
    center, half = _interval(*ends)
    degree = _DEGREE[X.dtype] * min(_MOST, max(1, math.ceil(c.width)))
    table = _coefficients(c, center, half, degree)
    T = _polynomials((X - center[..., None, None] * identity_like(X)) / half[..., None, None], degree)
    left = (table @ T.flatten(-2)).unflatten(-1, X.shape[-2:])  # sum_k A_kl T_k(X)
    return sym((left @ V.unsqueeze(-3) @ T).sum(-3))


def polynomial_function(X: Tensor, rate: float, ends: tuple[Tensor, Tensor]) -> Tensor:
    """e^(-r X)."""
    center, half = _interval(*ends)
    degree = _DEGREE[X.dtype]
    angles = _angles(X, degree)
    values = (-rate * (center.unsqueeze(-1) + half.unsqueeze(-1) * angles.cos())).exp()
    coefficients = values @ _transform(angles)
    T = _polynomials((X - center[..., None, None] * identity_like(X)) / half[..., None, None], degree)
    return sym((coefficients.unsqueeze(-2) @ T.flatten(-2)).squeeze(-2).unflatten(-1, X.shape[-2:]))


def _interval(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The center and half the length of an interval that is longer: a derivative of order p of T_k, and with it the
    rounding of the coefficients, is as large as k^(2 p) at its ends, but k^p inside."""
    return 0.5 * (low + high), 0.55 * (high - low) + 1


def _angles(like: Tensor, degree: int) -> Tensor:
    steps = torch.arange(degree + 1, dtype=like.dtype, device=like.device)
    return (steps + 0.5) * (math.pi / (degree + 1))


def _transform(angles: Tensor) -> Tensor:
    """From values at the nodes, the cosines of `angles`, to the coefficients of the interpolating polynomial."""
    count = len(angles)
    k = torch.arange(count, dtype=angles.dtype, device=angles.device)
    return (angles.unsqueeze(-1) * k).cos() * torch.where(k == 0, 1.0, 2.0) / count


def _coefficients(c: Cometric, center: Tensor, half: Tensor, degree: int) -> Tensor:
    """A. ``*B -> *B,d+1,d+1``."""
    angles = _angles(center, degree)
    nodes = center.unsqueeze(-1) + half.unsqueeze(-1) * angles.cos()
    transform = _transform(angles)
    return transform.mT @ c.value(nodes.unsqueeze(-1), nodes.unsqueeze(-2)) @ transform


def _polynomials(Y: Tensor, degree: int) -> Tensor:
    """T_0(Y) .. T_d(Y), twice as many by each product: T_(m + k) = 2 T_m T_k - T_(m - k). ``*B,n,n -> *B,d+1,n,n``."""
    found = torch.stack([identity_like(Y).expand_as(Y), Y], -3)
    while (m := found.shape[-3] - 1) < degree:
        count = min(m, degree - m)
        following = 2 * found[..., m, None, :, :] @ found[..., 1 : count + 1, :, :]
        found = torch.cat([found, following - found[..., m - count : m, :, :].flip(-3)], -3)
    return found
