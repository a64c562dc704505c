r"""Derivatives of geodesics of kernel metrics.

The equations are linearised at the nodes of the steps that `kernel_steps` took, as matrices in coordinates of symmetric
matrices, and solved by the same method for all directions at once. That is the exact derivative of the numerical flow.

The second derivatives of H are formed in eigenvectors. The kernel is a polynomial in both of its arguments there,
``c(x, y) = sum_kl A_kl T_k(x) T_l(y)`` as in `kernel_expansion`, and its divided differences are those of Chebyshev's
polynomials. `energy` is H of the same polynomial, made of products of matrices, which torch differentiates.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .decompositions import eigh_of_plain
from .kernel_cometric import Cometric
from .kernel_steps import MATRIX, STAGES, WEIGHTS, Path, combined
from .kernel_tables import exponential_coefficients, kernel_coefficients
from .matrices import identity_like, symmetric_from_vector

_MOST_SWEEPS = 40
SOLVED = 2e-15  # relative change in a sweep
_MOST_DEGREE = 192
_EPS = 1e-16


class Expansion(NamedTuple):
    """A kernel as a polynomial on an interval: center and half the length ``*B``, A ``*B,d+1,d+1`` and the
    coefficients of e^(-r x) ``*B,d+1``."""

    center: Tensor
    half: Tensor
    table: Tensor
    exponential: Tensor


def expansion(x: Tensor, c: Cometric, degree: int = 0, accuracy: float = _EPS) -> Expansion:
    """On an interval that holds ascending eigenvalues ``*B,n``; a degree of zero stands for what is so accurate."""
    low, high = x[..., 0], x[..., -1]
    unit = max(1.0, c.width, abs(c.rate))
    center, half = 0.5 * (low + high), 0.55 * (high - low) + 0.5 / unit
    degree = degree or degree_of(half, c, accuracy)
    return Expansion(
        center,
        half,
        kernel_coefficients(center, half, c, degree),
        exponential_coefficients(center, half, c.rate, degree),
    )


def degree_of(half: Tensor, c: Cometric, accuracy: float) -> int:
    """A degree of that relative accuracy, for a kernel on intervals of those half lengths: c is analytic in an ellipse
    of the parameter rho, and e^(-r x) entire."""
    if half.numel() == 0:
        return 1
    longest = float(half.max())
    t = 2 * math.pi / (max(c.width, 1e-3) * longest)
    rho = min(t + math.hypot(1.0, t), 8.0)
    return min(_MOST_DEGREE, math.ceil(-math.log(accuracy) / math.log(rho) + 2 * abs(c.rate) * longest))


# ---- Chebyshev's polynomials: of matrices, and their divided differences --------------------------------------


def _scaled(X: Tensor, e: Expansion) -> Tensor:
    return (X - e.center[..., None, None] * identity_like(X)) / e.half[..., None, None]


def _polynomials(Z: Tensor, degree: int) -> Tensor:
    """T_0(Z) .. T_d(Z), twice as many by each product: T_(m + k) = 2 T_m T_k - T_(m - k). ``*B,n,n -> *B,d+1,n,n``."""
    found = torch.stack([identity_like(Z).expand_as(Z), Z], -3)
    while (m := found.shape[-3] - 1) < degree:
        count = min(m, degree - m)
        following = 2 * found[..., m, None, :, :] @ found[..., 1 : count + 1, :, :]
        found = torch.cat([found, following - found[..., m - count : m, :, :].flip(-3)], -3)
    return found


def energy(Z: Tensor, e: Expansion, c: Cometric) -> Tensor:
    """H(X, Y), a polynomial in X. ``*B,2,n,n -> *B``."""
    X, Y = Z.unbind(-3)
    T = _polynomials(_scaled(X, e), e.table.shape[-1] - 1)
    left = (e.table @ T.flatten(-2)).unflatten(-1, X.shape[-2:])
    # sum_kl A_kl <Y, T_k Y T_l>
    value = ((Y.unsqueeze(-3) @ left) * (T @ Y.unsqueeze(-3))).sum((-3, -2, -1))
    if c.trace:
        sums = (e.exponential * (T * Y.unsqueeze(-3)).sum((-2, -1))).sum(-1)
        value = value + c.trace_factor(X.shape[-1]) * sums.square()
    return 0.5 * value


def _differences(x: Tensor, degree: int) -> tuple[Tensor, Tensor, Tensor]:
    """T_k[x_i], T_k[x_i, x_j] and T_k[x_i, x_j, x_l] by the same products, of which they obey Leibniz's rule.
    ``*B,n -> *B,d+1,n(,n,n)``."""
    one = torch.ones_like(x)
    zero = torch.zeros_like(x)
    pairs = [torch.zeros_like(x.unsqueeze(-1) + x.unsqueeze(-2))]
    pairs.append(pairs[0] + 1)
    triples = torch.zeros_like(pairs[0].unsqueeze(-1) + zero.unsqueeze(-2).unsqueeze(-2))
    f, g, h = torch.stack([one, x], -2), torch.stack(pairs, -3), torch.stack([triples, triples], -4)
    while (m := f.shape[-2] - 1) < degree:
        count = min(m, degree - m)
        F, G, H = f[..., m, None, :], g[..., m, None, :, :], h[..., m, None, :, :, :]
        a, b, d = f[..., 1 : count + 1, :], g[..., 1 : count + 1, :, :], h[..., 1 : count + 1, :, :, :]
        second = F.unsqueeze(-1) * b + G * a.unsqueeze(-2)
        third = F[..., None, None] * d + G.unsqueeze(-1) * b.unsqueeze(-3) + H * a.unsqueeze(-2).unsqueeze(-2)
        back = slice(m - count, m)
        f = torch.cat([f, 2 * F * a - f[..., back, :].flip(-2)], -2)
        g = torch.cat([g, 2 * second - g[..., back, :, :].flip(-3)], -3)
        h = torch.cat([h, 2 * third - h[..., back, :, :, :].flip(-4)], -4)
    return f, g, h


# ---- second derivatives of H ----------------------------------------------------------------------------------


class Curvature(NamedTuple):
    """The second derivatives of H in X, mixed (from X to Y) and in Y, as matrices in `symmetric_vector`. ``*B,m,m``."""

    xx: Tensor
    xy: Tensor
    yy: Tensor

    def hessian(self) -> Tensor:
        """That in (X, Y). ``*B,2m,2m``."""
        return torch.cat([torch.cat([self.xx, self.xy.mT], -1), torch.cat([self.xy, self.yy], -1)], -2)

    def generator(self) -> Tensor:
        """The derivative of (X', Y') in (X, Y). ``*B,2m,2m``."""
        return torch.cat([torch.cat([self.xy, self.yy], -1), torch.cat([-self.xx, -self.xy.mT], -1)], -2)


@functools.cache
def _symmetric_basis(n: int) -> Tensor:
    """An orthonormal basis of symmetric matrices. ``m,n,n``."""
    return symmetric_from_vector(torch.eye(n * (n + 1) // 2, dtype=torch.float64))


def curvature(Z: Tensor, c: Cometric, degree: int = 0, accuracy: float = _EPS) -> tuple[Curvature, Expansion]:
    """The second derivatives of H at (X, Y), and the polynomial of which they are. ``*B,2,n,n``."""
    X, Y = Z.unbind(-3)
    x, Q = eigh_of_plain(X)
    Y = Q.mT @ Y @ Q
    e = expansion(x, c, degree, accuracy)
    f, g, h = _differences((x - e.center.unsqueeze(-1)) / e.half.unsqueeze(-1), e.table.shape[-1] - 1)
    tables = f, g / e.half[..., None, None, None], h / e.half[..., None, None, None, None].square()
    parts = _of_pairs(Y, e, *tables)
    if c.trace:
        parts = tuple(map(torch.add, parts, _of_trace(Y, e, *tables, c.trace_factor(x.shape[-1]))))
    paths, xx, xy, raised = parts
    xx = xx + identity_like(X)[:, :, None] * paths.unsqueeze(-2)  # [i, k; k, l]
    basis = (Q.mT.unsqueeze(-3) @ _symmetric_basis(x.shape[-1]).to(Q.device) @ Q.unsqueeze(-3)).flatten(-2)
    xx, xy, raised = (basis @ m.flatten(-2).flatten(-3, -2) @ basis.mT for m in (xx, xy, raised))
    return Curvature(xx + xx.mT, 2 * xy, raised), e


Parts = tuple[
    Tensor, ...
]  # what stands between k = k in xx, ``*B,n,n,n``; xx, xy and yy in eigenvectors, ``*B,n,n,n,n``


def _of_pairs(Y: Tensor, e: Expansion, f: Tensor, g: Tensor, h: Tensor) -> Parts:
    """Of the sum over c."""
    n = Y.shape[-1]
    left = e.table @ f  # sum_l A_kl T_l(x_j)
    values = f.mT @ left  # c(x_i, x_j)
    pairs = g.flatten(-2).mT  # over k
    first = (pairs @ left).unflatten(-2, (n, n))  # c[x_i, x_k; x_j]
    both = _matrix_of_pairs(pairs @ e.table @ g.flatten(-2), n)  # c[x_i, x_k; x_l, x_j]
    weights = (Y.unsqueeze(-3) * left.unsqueeze(-2)) @ Y.mT.unsqueeze(-3)
    paths = (h * weights.unsqueeze(-2)).sum(-4)  # sum_j c[x_i, x_k, x_l; x_j] Y_ij Y_lj, in the order i, k, l
    xx = 0.5 * both * Y[..., :, None, None, :] * Y[..., None, :, :, None]
    xy = identity_like(Y)[:, None, :, None] * (first * Y.unsqueeze(-3)).mT.unsqueeze(-2)  # [i, j; i, k]
    return paths, xx, xy, _matrix_of_pairs(torch.diag_embed(values.flatten(-2)), n)


def _of_trace(Y: Tensor, e: Expansion, f: Tensor, g: Tensor, h: Tensor, factor: float) -> Parts:
    """Of the trace."""
    n = Y.shape[-1]
    exponential, slopes, curved = (
        (e.exponential.unsqueeze(-2) @ t.flatten(Y.dim() - 1)).squeeze(-2).unflatten(-1, (n,) * (order + 1))
        for order, t in enumerate((f, g, h))
    )
    total = (exponential * Y.diagonal(dim1=-2, dim2=-1)).sum(-1)[..., None, None]
    paths = factor * total.unsqueeze(-1) * curved * Y.unsqueeze(-2)
    unit, along = (t.flatten(-2).unsqueeze(-1) for t in (torch.diag_embed(exponential), slopes * Y))
    mixed = total * torch.diag_embed(slopes.flatten(-2)) + unit * along.mT
    found = 0.5 * along * along.mT, 0.5 * mixed, unit * unit.mT
    return paths, *(_matrix_of_pairs(factor * m, n) for m in found)


def _matrix_of_pairs(m: Tensor, n: int) -> Tensor:
    """``*B,n n,n n -> *B,n,n,n,n``."""
    return m.unflatten(-1, (n, n)).unflatten(-3, (n, n))


# ---- tangents of the flow -------------------------------------------------------------------------------------


def along(path: Path, c: Cometric, degree: int = 0, accuracy: float = _EPS) -> tuple[Curvature, Expansion]:
    """The second derivatives of H at all nodes, ``B,R,8,*``; zero at those of steps that were not taken, on an interval
    of half length one."""
    taken = path.lengths > 0
    at, e = curvature(path.states[taken], c, degree, accuracy)

    def filled(a: Tensor) -> Tensor:
        whole = a.new_zeros((*taken.shape, *a.shape[1:]))
        whole[taken] = a
        return whole

    e = Expansion(*map(filled, e))
    return Curvature(*map(filled, at)), e._replace(half=torch.where(taken.unsqueeze(-1), e.half, 1.0))


def tangents(path: Path, generator: Tensor, start: Tensor, accuracy: float = SOLVED) -> tuple[Tensor, Tensor]:
    """Solutions of ``V' = A V`` along a path, of matrices A at its nodes ``B,R,8,k,k``, from ``B,k,l``: at the nodes
    ``B,R,8,k,l`` and at the end ``B,k,l``."""
    return solved_along(path, lambda r, V: generator[:, r] @ V, start, accuracy)


def solved_along(
    path: Path, slopes: Callable[[int, Tensor], Tensor], start: Tensor, accuracy: float = SOLVED
) -> tuple[Tensor, Tensor]:
    """Solutions of a linear equation by the steps of a path, of which `slopes` is the right side at the nodes of one,
    from ``B,*``: at the nodes ``B,R,8,*`` and at the end ``B,*``."""
    at, nodes = start, start[:, None, None].repeat(1, path.lengths.shape[1], STAGES, *[1] * (start.dim() - 1))
    for r in range(path.lengths.shape[1]):
        h = path.lengths[:, r].reshape(-1, *[1] * start.dim())
        stages, last = at.unsqueeze(1).expand(-1, STAGES, *at.shape[1:]), torch.inf
        for _ in range(_MOST_SWEEPS):
            found = at.unsqueeze(1) + h * combined(MATRIX, slopes(r, stages))
            scale = found.flatten(1).abs().amax(1).reshape(h.shape)
            change = float(((found - stages).abs() / scale).nan_to_num(nan=0.0).amax()) if found.numel() else 0.0
            stages = found
            if change <= accuracy or (change >= last and change < 1e-12):
                break
            last = change
        nodes[:, r] = stages
        at = at + h.squeeze(1) * combined(WEIGHTS.unsqueeze(0), slopes(r, stages)).squeeze(1)
    return nodes, at
