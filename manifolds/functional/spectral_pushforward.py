"""A spectral function with its derivatives along given directions, as differentiable results themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from .decompositions import eigh
from .matrices import sym
from .matrix_function import MatrixFunction
from .spectral import coefficients, spectral_function_of, taylor_polynomials
from .tracing import transforms_or_forward_mode


def function_and_derivatives(A: Tensor, f: MatrixFunction, *directions: Tensor) -> tuple[Tensor, ...]:
    """f(A), and D f(A)[V] for each V of `directions`, from one eigendecomposition. ``*B,n,n`` each.

    Differentiable: the value twice, the derivatives once. Only symmetric parts are read.
    """
    A = sym(A)
    directions = tuple(map(sym, directions))
    if torch.compiler.is_compiling() and transforms_or_forward_mode():
        return taylor_polynomials(A, f.key)[0], *_derivatives_by_taylor(A, f.key, directions)
    a, Q = eigh(A)
    found = []
    for v in directions:
        batch = torch.broadcast_shapes(A.shape, v.shape)
        parts = a.expand(batch[:-1]), Q.expand(batch)
        found.append(spectral_function_of.derivative(v.expand(batch), A.expand(batch), f, *parts))
    return spectral_function_of(A, f, a, Q), *found


def _derivatives_by_taylor(A: Tensor, key: str, directions: tuple[Tensor, ...]) -> list[Tensor]:
    """Of first order around A, whose value is that at A: see `spectral.taylor_polynomials`."""
    Q, _, first, second, scale = coefficients(A.detach(), key)
    first, second = first.squeeze(-3), second.squeeze(-4)
    e = Q.mT @ (A - A.detach()) @ Q
    found = []
    for v in directions:
        w = Q.mT @ v @ Q
        small_e, small_w = e / scale, w / scale
        pairs = small_e.unsqueeze(-1) * small_w.unsqueeze(-3) + small_w.unsqueeze(-1) * small_e.unsqueeze(-3)
        found.append(Q @ (first * w + (second * pairs).sum(-2)) @ Q.mT)
    return found
