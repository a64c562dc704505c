r"""Singular-value functions of a square matrix, with exact derivatives: ``M = U diag(c) V^T -> U f(c) V^T``.

It is f, continued to an odd function, of the symmetric dilation [[0, M], [M^T, 0]] with eigenvalues +-c, so the
formulas of `spectral` apply. With S and K the symmetric and the skew part of ``U^T G V`` they come to

    D F[G] = U (f[c_i, c_j] * S + (f_i + f_j)/(c_i + c_j) * K) V^T,

and in the second derivative only two kinds of second differences are left, ``f[c_i, c_k, c_j]`` and
``f[c_i, -c_k, c_j]``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .decompositions import svd, svd_of_plain
from .matrices import skew, sym
from .matrix_function import MatrixFunction
from .operators import Operand, define
from .self_adjoint import SelfAdjointMap
from .spectral import NO_THIRD, differences, differences_scale, second_differences
from .spectral_functions import POLAR_FACTOR, named
from .tracing import transforms_or_forward_mode, variation


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


def _tables(f: MatrixFunction, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """t^2 f[c_i, c_k, c_j], t^2 f[c_i, -c_k, c_j] and t, as for symmetric matrices."""
    t = differences_scale(f, c)
    d = c / t
    first = differences(f, d)
    (alike,), apart = second_differences(d, [f], [first]), _second_across(first, _across(f, d), d)
    power = t[..., None, None] ** f.degree if f.degree else 1.0
    return power * alike, power * apart, t


def _value(U: Tensor, c: Tensor, V: Tensor, f: MatrixFunction) -> Tensor:
    """U f(c) V^T."""
    return (U * f.value(c).unsqueeze(-2)) @ V.mT


def _first(G: Tensor, U: Tensor, c: Tensor, V: Tensor, f: MatrixFunction) -> Tensor:
    """D F[G]."""
    g = U.mT @ G @ V
    return U @ (differences(f, c) * sym(g) + _across(f, c) * skew(g)) @ V.mT


def _second(G: Tensor, H: Tensor, U: Tensor, c: Tensor, V: Tensor, f: MatrixFunction) -> Tensor:
    """D^2 F[G, H]."""
    alike, apart, t = _tables(f, c)
    g, h = (U.mT @ (x / t.unsqueeze(-1)) @ V for x in (G, H))
    return U @ (_second_inner(alike, apart, g, h) + _second_inner(alike, apart, h, g)) @ V.mT


def singular_value_function(M: Tensor, f: MatrixFunction) -> Tensor:
    """U f(c) V^T for a square ``M = U diag(c) V^T``. ``*B,n,n -> *B,n,n``.

    `f` is used on [0, inf) only; where it does not vanish at zero the result jumps at singular `M`. Matrices that are
    not finite give NaN, as in `symmetric_functions`.
    """
    if torch.compiler.is_compiling() and transforms_or_forward_mode():
        return _taylor(M, f.key)
    return _singular_value_function(M, f, *svd(M))


def polar_factor(M: Tensor) -> Tensor:
    """The orthogonal polar factor of a square matrix: the nearest orthogonal matrix. ``*B,n,n -> *B,n,n``."""
    return singular_value_function(M, POLAR_FACTOR)


def polar_factor_with_values(M: Tensor) -> tuple[Tensor, Tensor]:
    """`polar_factor`, and the singular values, descending, without a derivative. ``*B,n,n -> *B,n,n and *B,n``."""
    U, c, V = svd(M)
    if torch.compiler.is_compiling() and transforms_or_forward_mode():
        return _taylor(M, POLAR_FACTOR.key), c
    return _singular_value_function(M, POLAR_FACTOR, U, c, V), c


# ---- under a compiler, where transforms differentiate ---------------------------------------------------------


def _taylor(M: Tensor, key: str) -> Tensor:
    """The second-order Taylor polynomial at M, as for symmetric matrices."""
    U, V, value, first, across, alike, apart, t = _coefficients(M.detach(), key)
    e = U.mT @ variation(M) @ V
    linear, small = first * sym(e) + across * skew(e), e / t.unsqueeze(-1)
    return U @ (torch.diag_embed(value) + linear + _second_inner(alike, apart, small, small)) @ V.mT


def _coefficients_of_plain(M: Tensor, key: str) -> tuple[Tensor, ...]:
    """U, V, f(c), f[c_i, c_j], f[c_i, -c_j], and the tables of the second derivative with their scale."""
    U, c, V = svd_of_plain(M)
    f = named(key)
    return U, V, f.value(c), differences(f, c), _across(f, c), *_tables(f, c)


def _coefficient_shapes(M: Tensor, key: str) -> tuple[Tensor, ...]:
    named(key)  # an unknown name raises where it is compiled
    batch, n = M.shape[:-2], M.shape[-1]
    tables = (M.new_empty((*batch, *[n] * order)) for order in (2, 2, 1, 2, 2, 3, 3))
    return *tables, M.new_empty((*batch, 1))


_coefficients = define(
    "singular_value_coefficients",
    _coefficients_of_plain,
    (Operand("matrices", 2),),
    _coefficient_shapes,
    numbers={"function": str},
    count=8,
)

_singular_value_function = SelfAdjointMap(
    "singular_value_function",
    (2, 1, 2),
    _value,
    _first,
    _second,
    lambda M, f: _taylor(M, f.key),
    NO_THIRD,
    key=lambda f: f.key,
    named=named,
)
