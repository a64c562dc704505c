"""The derivatives of `cholesky_geodesics`: one triangular solve, for the rest products.

A derivative of a factor is ``dL = L phi`` with ``phi = half(L^-1 dx L^-T)``, so that a gradient ``L^T G`` in phi, of
which the lower triangle counts, is one of ``sym(L^-T half(L^T G) L^-1)`` in x.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .cholesky import pulled_back
from .cholesky_geodesics import growth_slope
from .matrices import sym
from .triangular import diagonal, half, lower_inverse, stacked, with_diagonal


def _of_both(at_L: Tensor, at_K: Tensor, L: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients in x and y, of lower triangular ones in L and K."""
    both = stacked(L, K)
    x, y = pulled_back(both.mT @ stacked(at_L, at_K), lower_inverse(both)).unbind()
    return x, y


def cholesky_difference_backward(
    G: Tensor, x: Tensor, y: Tensor, root: Tensor, power: float, L: Tensor, K: Tensor, D: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of `cholesky_difference`."""
    g, d, end = diagonal(G), diagonal(L), diagonal(K)
    at_d, at_end = (g * root * e ** (power - 1) for e in (d, end))
    return *_of_both(with_diagonal(-G, -at_d), with_diagonal(G, at_end), L, K), g * diagonal(D) / root


def cholesky_dist_backward(
    g: Tensor, x: Tensor, y: Tensor, root: Tensor, power: float, L: Tensor, K: Tensor, D: Tensor, length: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of `cholesky_dist`, zero where the distance is."""
    g = g / torch.where(length == 0, torch.inf, length)
    return cholesky_difference_backward(g[..., None, None] * D, x, y, root, power, L, K, D)


def cholesky_log_backward(
    G: Tensor, x: Tensor, y: Tensor, power: float, retraction: bool, L: Tensor, K: Tensor, X: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of `cholesky_log`. X itself is a function of L and K; on the diagonal it is ``L s(log K/L)``."""
    G = G + G.mT
    at_X, at_L = (L.mT @ G).mT, (X.mT @ G).mT
    g, d, end = diagonal(at_X), diagonal(L), diagonal(K)
    s = diagonal(X) / d
    slope = 1 / growth_slope(s, power, retraction)
    at_L = with_diagonal(at_L - at_X, diagonal(at_L) + g * (s - slope))
    return _of_both(at_L, with_diagonal(at_X, g * slope * d / end), L, K)


def cholesky_exp_backward(
    G: Tensor,
    x: Tensor,
    u: Tensor,
    power: float,
    retraction: bool,
    L: Tensor,
    inverse: Tensor,
    Z: Tensor,
    K: Tensor,
) -> tuple[Tensor, Tensor]:
    """The gradients of `cholesky_exp`. With dL = L phi, dZ = -phi Z - Z phi^T + L^-1 du L^-T."""
    at_K = (K.mT @ (G + G.mT)).mT
    h, end = half(Z), diagonal(K) * diagonal(at_K)
    below = L.mT @ with_diagonal(at_K, torch.zeros_like(end))
    at_Z = half(below) + torch.diag_embed(0.5 * end * growth_slope(diagonal(h), power, retraction))
    at_Z = sym(at_Z)
    at_phi = below + below @ h.mT - 2 * at_Z @ Z + torch.diag_embed(end)
    return pulled_back(at_phi, inverse), sym(inverse.mT @ (at_Z @ inverse))
