"""A spectral function with its derivatives along given directions, as differentiable results themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from .decompositions import eigh
from .matrices import sym
from .matrix_function import MatrixFunction
from .spectral import _coefficients, _Derivative, _taylor, _Value


def function_and_derivatives(A: Tensor, f: MatrixFunction, *directions: Tensor) -> tuple[Tensor, ...]:
    """f(A), and D f(A)[V] for each V of `directions`, from one eigendecomposition. ``*B,n,n`` each.

    Differentiable: the value twice, the derivatives once. Only symmetric parts are read.
    """
    A = sym(A)
    directions = tuple(map(sym, directions))
    if torch.compiler.is_compiling():
        return _taylor(A, f.key)[0], *_derivatives_by_taylor(A, f.key, directions)
    a, Q = eigh(A)
    found = []
    for v in directions:
        batch = torch.broadcast_shapes(A.shape, v.shape)
        at = (A.expand(batch), a.expand(batch[:-1]), Q.expand(batch))
        found.append(_Derivative.apply(*at, v.expand(batch), f))
    return _Value.apply(A, a, Q, f), *found  # type: ignore[return-value]


def _derivatives_by_taylor(A: Tensor, key: str, directions: tuple[Tensor, ...]) -> list[Tensor]:
    """Of first order around A, whose value is that at A: see `spectral._taylor`."""
    Q, _, first, second = _coefficients(A.detach(), key)
    first, second = first.squeeze(-3), second.squeeze(-4)
    e = Q.mT @ (A - A.detach()) @ Q
    found = []
    for v in directions:
        w = Q.mT @ v @ Q
        pairs = e.unsqueeze(-1) * w.unsqueeze(-3) + w.unsqueeze(-1) * e.unsqueeze(-3)
        found.append(Q @ (first * w + (second * pairs).sum(-2)) @ Q.mT)
    return found
