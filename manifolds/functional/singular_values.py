r"""Singular-value functions of a square matrix, with exact derivatives: ``M = U diag(c) V^T -> U f(c) V^T``.

It is f, continued to an odd function, of the symmetric dilation [[0, M], [M^T, 0]] with eigenvalues +-c, so the
formulas of `spectral` apply. With S and K the symmetric and the skew part of ``U^T G V`` they come to

    D F[G] = U (f[c_i, c_j] * S + (f_i + f_j)/(c_i + c_j) * K) V^T,

and in the second derivative only two kinds of second differences are left, ``f[c_i, c_k, c_j]`` and
``f[c_i, -c_k, c_j]``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .decompositions import svd, svd_of_plain
from .matrices import skew, sym
from .matrix_function import MatrixFunction
from .operators import Operand, define
from .spectral import NO_THIRD, differences, last, second_differences
from .spectral_functions import POLAR_FACTOR, named
from .tracing import LastDerivative, function_loses_graph


def _across(f: MatrixFunction, c: Tensor) -> Tensor:
    """f[c_i, -c_j] = (f_i + f_j)/(c_i + c_j)."""
    values = f.value(c)
    return (values.unsqueeze(-1) + values.unsqueeze(-2)) / _sums(c)


def _sums(c: Tensor) -> Tensor:
    total = c.unsqueeze(-1) + c.unsqueeze(-2)
    # The diagonal of the skew part is zero: keep 0/0 and the overflow of a vanishing singular value out of it.
    return torch.where(total <= 16 * torch.finfo(c.dtype).tiny, 1.0, total)


def _second_across(first: Tensor, across: Tensor, c: Tensor) -> Tensor:
    """f[c_i, -c_k, c_j] = (f[c_i, c_j] - f[-c_k, c_j])/(c_i + c_k), by the larger of c_i and c_j. ``*B,n,n,n``."""
    chord = (first.unsqueeze(-2) - across.unsqueeze(-3)) / _sums(c).unsqueeze(-1)
    smaller_last = c.unsqueeze(-1) >= c.unsqueeze(-2)
    return torch.where(smaller_last.unsqueeze(-2), chord, chord.transpose(-3, -1))


def _second_inner(alike: Tensor, apart: Tensor, g: Tensor, h: Tensor) -> Tensor:
    """sum_k over the rows of the dilation, of U^T D^2F[G, H] V for g = U^T G V, h = U^T H V, halved for g = h."""
    s, k, sh, kh = 0.5 * (g + g.mT), 0.5 * (g - g.mT), 0.5 * (h + h.mT), 0.5 * (h - h.mT)
    row, column = -1, -3  # x_ik y_kj is x.unsqueeze(row) * y.unsqueeze(column), as [i, k, j]
    even = alike * (s.unsqueeze(row) * sh.unsqueeze(column)) - apart * (k.unsqueeze(row) * kh.unsqueeze(column))
    left = apart.transpose(-3, -2) * (k.unsqueeze(row) * sh.unsqueeze(column))
    right = apart.transpose(-2, -1) * (s.unsqueeze(row) * kh.unsqueeze(column))
    return (even + left + right).sum(-2)


def _first(U: Tensor, c: Tensor, V: Tensor, G: Tensor, f: MatrixFunction) -> Tensor:
    g = U.mT @ G @ V
    return U @ (differences(f, c) * sym(g) + _across(f, c) * skew(g)) @ V.mT


def _second(U: Tensor, c: Tensor, V: Tensor, G: Tensor, H: Tensor, f: MatrixFunction) -> Tensor:
    first = differences(f, c)
    (alike,), apart = second_differences(c, [f], [first]), _second_across(first, _across(f, c), c)
    g, h = U.mT @ G @ V, U.mT @ H @ V
    return U @ (_second_inner(alike, apart, g, h) + _second_inner(alike, apart, h, g)) @ V.mT


class _Value(Function):
    """U f(c) V^T as a function of the square matrix M = U diag(c) V^T."""

    generate_vmap_rule = True

    @staticmethod
    def forward(M: Tensor, U: Tensor, c: Tensor, V: Tensor, f: MatrixFunction) -> Tensor:
        return (U * f.value(c).unsqueeze(-2)) @ V.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.save_for_forward(*inputs[:4])
        ctx.f = inputs[4]

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> Any:
        M, U, c, V = ctx.saved_tensors
        if function_loses_graph(G):
            return *torch.autograd.grad(_taylor(M, ctx.f.key), M, G, create_graph=True), None, None, None, None
        return _Derivative.apply(M, U, c, V, G, ctx.f), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, dM: Tensor, *_: Any) -> Any:
        return _Derivative.apply(*ctx.saved_tensors, dM, ctx.f)


class _Derivative(Function):
    """The self-adjoint derivative of `_Value` in direction G, as a function of M and G."""

    generate_vmap_rule = True

    @staticmethod
    def forward(M: Tensor, U: Tensor, c: Tensor, V: Tensor, G: Tensor, f: MatrixFunction) -> Tensor:
        return _first(U, c, V, G, f)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:5])
        ctx.save_for_forward(*inputs[:5])
        ctx.f = inputs[5]

    @staticmethod
    def backward(ctx: Any, H: Tensor) -> Any:
        M, U, c, V, G = ctx.saved_tensors
        curved = LastDerivative.apply(M, _second(U, c, V, G, H, ctx.f), NO_THIRD)
        return curved, None, None, None, _Derivative.apply(M, U, c, V, H, ctx.f), None

    @staticmethod
    def jvp(ctx: Any, dM: Tensor | None, _u: Any, _c: Any, _v: Any, dG: Tensor | None, _f: Any) -> Any:
        M, U, c, V, G = ctx.saved_tensors
        change = torch.zeros_like(G)
        if dM is not None:
            change = change + last(_second(U, c, V, G, dM, ctx.f), M, G, dM)
        if dG is not None:
            change = change + _Derivative.apply(M, U, c, V, dG, ctx.f)
        return change


def singular_value_function(M: Tensor, f: MatrixFunction) -> Tensor:
    """U f(c) V^T for a square ``M = U diag(c) V^T``. ``*B,n,n -> *B,n,n``.

    `f` is used on [0, inf) only; where it does not vanish at zero the result jumps at singular `M`. Matrices that are
    not finite give NaN, as in `symmetric_functions`.
    """
    if torch.compiler.is_compiling():
        return _taylor(M, f.key)
    U, c, V = svd(M)
    return _Value.apply(M, U, c, V, f)  # type: ignore[return-value]


def polar_factor(M: Tensor) -> Tensor:
    """The orthogonal polar factor of a square matrix: the nearest orthogonal matrix. ``*B,n,n -> *B,n,n``."""
    return singular_value_function(M, POLAR_FACTOR)


# ---- under a compiler -----------------------------------------------------------------------------------------


def _taylor(M: Tensor, key: str) -> Tensor:
    """The second-order Taylor polynomial at M, as for symmetric matrices."""
    U, V, value, first, across, alike, apart = _coefficients(M.detach(), key)
    e = U.mT @ (M - M.detach()) @ V
    linear = first * sym(e) + across * skew(e)
    return U @ (torch.diag_embed(value) + linear + _second_inner(alike, apart, e, e)) @ V.mT


def _coefficients_of_plain(M: Tensor, key: str) -> tuple[Tensor, ...]:
    """U, V, f(c), f[c_i, c_j], f[c_i, -c_j], f[c_i, c_k, c_j] and f[c_i, -c_k, c_j]."""
    U, c, V = svd_of_plain(M)
    f = named(key)
    first, across = differences(f, c), _across(f, c)
    return U, V, f.value(c), first, across, *second_differences(c, [f], [first]), _second_across(first, across, c)


def _coefficient_shapes(M: Tensor, key: str) -> tuple[Tensor, ...]:
    named(key)  # an unknown name raises where it is compiled
    batch, n = M.shape[:-2], M.shape[-1]
    return tuple(M.new_empty((*batch, *[n] * order)) for order in (2, 2, 1, 2, 2, 3, 3))


_coefficients = define(
    "singular_value_coefficients",
    _coefficients_of_plain,
    (Operand("matrices", 2),),
    _coefficient_shapes,
    numbers={"function": str},
    count=7,
)
