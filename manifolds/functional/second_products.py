r"""Sums of second divided differences, ``sum_k f[a_i, a_k, a_j] g_ik h_kj``, by products of matrices.

A table of the n^3 differences takes n^3/6 evaluations of long polynomials. For roots and whole powers a difference is a
product of factors of two indices. For the others let ``D = f[a_i, a_k]``. Where a_i and a_j are apart,

    sum_k f[a_i, a_k, a_j] g_ik h_kj = (g (D * h) - (D * g) h)_ij/(a_j - a_i),

and next to each other the difference of D at a_i and at a_j is that of its derivatives at both (Obreschkoff's formula,
"Neue Quadraturformeln", 1940; of order 2M in d = a_j - a_i)

    f[a_i, a_k, a_j] = sum_(m < M) b_m (d^m f[a_i, .. a_i, a_k] + (-d)^m f[a_j, .. a_j, a_k]),

with a_i, a_j taken m + 2 times and ``b_m = C(M, m + 1)/C(2M, m + 1)``. These confluent differences are tables of two
indices, by Taylor's formula where a_k is near and by the definition where not; the digits that this loses at high m,
d^m makes up for. No case depends on the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .elementary_functions import Exponential, InverseSquareRoot, Logarithm, SquareRoot
from .matrix_function import MatrixFunction
from .whole_powers import Reciprocal, Square

Product = Callable[[Tensor, Tensor, Tensor], Tensor]

# M: of steps of 1/8 of the distance to a singularity it leaves 5e-10 and 6e-17, of steps of 1 in exp as much.
_ORDERS = {torch.float32: 4, torch.float64: 7}
_TERMS = {torch.float32: 12, torch.float64: 22}  # of Taylor's formula: 8^-10 and 8^-20, 1/12! and 1/22!


def second_product(f: MatrixFunction) -> Product | None:
    """The sum as a function of a, g and h, for symmetric g and h; None where it takes the table."""
    if isinstance(f, SquareRoot):
        return _of_square_root
    if isinstance(f, InverseSquareRoot):
        return _of_inverse_square_root
    if isinstance(f, Square):
        return lambda a, g, h: g @ h
    if isinstance(f, Reciprocal):
        return lambda a, g, h: (g / a.unsqueeze(-1) / a.unsqueeze(-2)) @ (h / a.unsqueeze(-2))
    if isinstance(f, Logarithm):
        return _Expansion(f, tuple((-1.0) ** (q + 1) / q for q in range(1, 40)), 1 / 8, relative=True)
    if isinstance(f, Exponential):
        return _Expansion(f, tuple(1 / math.factorial(q) for q in range(1, 40)), 1.0, relative=False)
    return None


def _of_square_root(a: Tensor, g: Tensor, h: Tensor) -> Tensor:
    root = a.sqrt()
    sums = root.unsqueeze(-1) + root.unsqueeze(-2)
    return -((g / sums) @ (h / sums)) / sums


def _of_inverse_square_root(a: Tensor, g: Tensor, h: Tensor) -> Tensor:
    """(A + B + C)/(A B C (A + B)(B + C)(C + A)) of the roots: 1/(A C) of 1/(B (A + B)(B + C)), and of that with the
    factor B over C + A."""
    root = a.sqrt()
    row, column = root.unsqueeze(-1), root.unsqueeze(-2)
    sums = row + column
    g, h = g / sums / row, h / sums / column
    return (g / column) @ h + (g @ h) / sums


@dataclass(frozen=True)
class _Expansion:
    """The second way. `coefficients`: f^(q)/q! from q = 1, of log in units of a, of exp in those of e^a; `width`: what
    is near, in units of a or of one."""

    f: MatrixFunction
    coefficients: tuple[float, ...]
    width: float
    relative: bool

    def __call__(self, a: Tensor, g: Tensor, h: Tensor) -> Tensor:
        D = self.f.divided_difference(a.unsqueeze(-1), a.unsqueeze(-2))
        unit = a.unsqueeze(-1) if self.relative else torch.ones_like(a).unsqueeze(-1)
        gap = a.unsqueeze(-2) - a.unsqueeze(-1)  # [i, j]: a_j - a_i
        step = gap / unit
        close = step.abs() <= self.width
        near = torch.where(close, step, 0.0)
        tables = self._confluent(a, D * unit, step, close, near) / unit.unsqueeze(-3)
        at_i = self._at_one_end(tables, near, g, h) / unit
        at_j = self._at_one_end(tables, near, h, g) / unit
        both = close & close.mT
        apart = (g @ (D * h) - (D * g) @ h) / torch.where(both, torch.inf, gap)
        return torch.where(both, at_i + at_j.mT, apart)

    def _confluent(self, a: Tensor, first: Tensor, step: Tensor, close: Tensor, near: Tensor) -> Tensor:
        """f[a_i, .. a_i, a_k] with a_i taken m + 2 times and k once, in units. ``-> *B,M,n,n``."""
        order, terms = _ORDERS[a.dtype], _TERMS[a.dtype]
        size = torch.ones_like(a[..., :1]) if self.relative else a.exp()
        c = [q * size.unsqueeze(-1) for q in self.coefficients[: order + terms]]
        value, tables = c[-1].expand_as(near), []
        for q in reversed(range(1, len(c) - 1)):  # each is the coefficient, and the step times the next
            value = torch.addcmul(c[q], near, value)
            if q <= order:
                tables.append(value)
        far, table = torch.where(close, torch.inf, step), first
        for q in range(order):  # and the other way
            table = (table - c[q]) / far
            tables[order - 1 - q] = torch.where(close, tables[order - 1 - q], table)
        return torch.stack(tables[::-1], -3)

    @staticmethod
    def _at_one_end(tables: Tensor, near: Tensor, g: Tensor, h: Tensor) -> Tensor:
        """sum_m b_m d^m sum_k f[a_i, .. a_i, a_k] g_ik h_kj."""
        order, n = tables.shape[-3:-1]
        rows = tables * g.unsqueeze(-3)
        # An older vmap knows no flatten, and an empty batch leaves no size to be found.
        product = rows.reshape(*rows.shape[:-3], order * n, n) @ h
        parts = product.reshape(*product.shape[:-2], order, n, n).unbind(-3)
        total = torch.zeros_like(parts[0])
        for m in reversed(range(order)):
            total = torch.add(total * near, parts[m], alpha=math.comb(order, m + 1) / math.comb(2 * order, m + 1))
        return total
