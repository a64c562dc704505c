r"""Scalar functions of a symmetric matrix, and singular-value functions of a square one, with exact derivatives.

For ``A = Q diag(a) Q^T`` and ``F = Q f(a) Q^T`` the Daleckii-Krein formulas are

    D F[G]     = Q (f[a_i, a_j] * G') Q^T,                                      G' = Q^T G Q,
    D^2 F[G,K] = Q (sum_k f[a_i, a_k, a_j] (G'_ik K'_kj + K'_ik G'_kj)) Q^T.

Divided differences come from Gauss quadrature of f' and f'' (Hermite-Genocchi), so equal and nearly equal eigenvalues
are no special case: the derivatives are finite and right at the identity. autograd's own rule for `eigh` divides by
``a_i - a_j`` and gives NaN there.

A singular-value function ``M = U diag(c) V^T -> U f(c) V^T`` is f, continued to an odd function, of the symmetric
dilation [[0, M], [M^T, 0]] with eigenvalues +-c; its derivative multiplies the symmetric part of ``U^T G V`` by
``f[c_i, c_j]`` and the skew part by ``(f_i + f_j)/(c_i + c_j)``.

First and second derivatives are supported; a third one raises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from .series import angle_over_sine, bessel_sqrt, cos_sqrt, sinc_sqrt, versine_sqrt
from .tracing import LastDerivative


def _gauss(n: int) -> list[tuple[float, ...]]:
    """(node, weight) of Gauss-Legendre quadrature on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return [(float(0.5 + 0.5 * t), float(0.5 * w)) for t, w in zip(nodes, weights, strict=True)]


_LINE = _gauss(12)
_TRIANGLE_SIDE = 6
# (s, t, weight) on the triangle a + s (b - a + t (c - b)), whose area element is s ds dt.
_TRIANGLE = [(s, t, ws * s * wt) for s, ws in _gauss(_TRIANGLE_SIDE) for t, wt in _gauss(_TRIANGLE_SIDE)]


@dataclass(frozen=True)
class SpectralFunction:
    """A scalar function with its first two derivatives, acting on tensors of eigenvalues.

    `reach` is the gap up to which 12-point quadrature of `first` is exact to rounding; beyond it the difference
    quotient loses nothing.
    """

    value: Callable[[Tensor], Tensor]
    first: Callable[[Tensor], Tensor]
    second: Callable[[Tensor], Tensor]
    reach: float

    def slope(self, a: Tensor, b: Tensor) -> Tensor:
        """First divided difference f[a, b]."""
        far = (b - a).abs() > self.reach
        quotient = (self.value(b) - self.value(a)) / torch.where(far, b - a, 1.0)
        nodes, weights = _on_leading_dimension(_LINE, quotient)
        return torch.where(far, quotient, (weights * self.first(a + nodes * (b - a))).sum(0))

    def bend(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """Second divided difference f[a, b, c]."""
        low, middle, high = _sorted(a, b, c)
        # Beyond a tenth of the reach the quotient of slopes loses at most a digit; within it the 6 x 6 rule on the
        # triangle is exact to rounding.
        far = high - low > 0.1 * self.reach
        quotient = (self.slope(middle, high) - self.slope(low, middle)) / torch.where(far, high - low, 1.0)
        near = torch.zeros_like(quotient)
        # Eagerly one node of the outer rule at a time, or 36 copies of n^3 numbers would stand in memory. A compiler
        # fuses the sum and wants the smaller graph.
        chunk = len(_TRIANGLE) if torch.compiler.is_compiling() else _TRIANGLE_SIDE
        for start in range(0, len(_TRIANGLE), chunk):
            s, t, weights = _on_leading_dimension(_TRIANGLE[start : start + chunk], quotient)
            inner = self.second(low + s * (middle - low + t * (high - middle)))
            near = near + (weights * inner).sum(0)
        return torch.where(far, quotient, near)


def _on_leading_dimension(rule: list[tuple[float, ...]], like: Tensor) -> tuple[Tensor, ...]:
    """The columns of a rule (nodes, weights) as tensors that broadcast against `like` along a new first dimension."""
    columns = torch.tensor(rule, dtype=like.dtype, device=like.device).unbind(-1)
    return tuple(c.reshape((-1,) + (1,) * like.dim()) for c in columns)


@dataclass(frozen=True)
class StepFunction:
    """One on positive eigenvalues and zero on the others: the spectral projector of the upper eigenspace.

    Differentiable as long as no eigenvalue is zero; eigenvalues on one side may repeat.
    """

    def value(self, a: Tensor) -> Tensor:
        """1 where a > 0."""
        return (a > 0).to(a.dtype)

    def slope(self, a: Tensor, b: Tensor) -> Tensor:
        """1/|b - a| across zero, 0 on one side."""
        across = (a > 0) != (b > 0)
        return torch.where(across, 1 / torch.where(across, (b - a).abs(), 1.0), 0.0)

    def bend(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """Second divided difference."""
        low, middle, high = _sorted(a, b, c)
        across = (low > 0) != (high > 0)
        chord = (self.slope(middle, high) - self.slope(low, middle)) / torch.where(across, high - low, 1.0)
        return torch.where(across, chord, 0.0)


@dataclass(frozen=True)
class _Odd:
    """sign(x) f(|x|), the continuation of `f` to the eigenvalues of a symmetric dilation."""

    f: SpectralFunction

    def value(self, a: Tensor) -> Tensor:
        return torch.where(a < 0, -1.0, 1.0) * self.f.value(a.abs())

    def slope(self, a: Tensor, b: Tensor) -> Tensor:
        across = (a < 0) != (b < 0)
        chord = (self.f.value(a.abs()) + self.f.value(b.abs())) / torch.where(across, a.abs() + b.abs(), 1.0)
        return torch.where(across, chord, self.f.slope(a.abs(), b.abs()))

    def bend(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        low, middle, high = _sorted(a, b, c)
        across = (low < 0) != (high < 0)
        chord = (self.slope(middle, high) - self.slope(low, middle)) / torch.where(across, high - low, 1.0)
        same_side = torch.where(low < 0, -1.0, 1.0) * self.f.bend(a.abs(), b.abs(), c.abs())
        return torch.where(across, chord, same_side)


def _sorted(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    low, high = torch.minimum(torch.minimum(a, b), c), torch.maximum(torch.maximum(a, b), c)
    return low, torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c)), high


def _sym(m: Tensor) -> Tensor:
    return 0.5 * (m + m.mT)


def _second(a: Tensor, Q: Tensor, G: Tensor, K: Tensor, f: SpectralFunction | StepFunction | _Odd) -> Tensor:
    """D^2 F[G, K] for symmetric G, K."""
    g, k = Q.mT @ G @ Q, Q.mT @ K @ Q
    bend = f.bend(a[..., :, None, None], a[..., None, :, None], a[..., None, None, :])  # [i, k, j]
    inner = (bend * (g.unsqueeze(-1) * k.unsqueeze(-3) + k.unsqueeze(-1) * g.unsqueeze(-3))).sum(-2)
    return Q @ inner @ Q.mT


_NO_THIRD = "spectral functions have first and second derivatives, not third ones"


def _last(second: Tensor, *anchors: Tensor) -> Tensor:
    """A second derivative formed in a `jvp`, where forward mode is switched off: an outer level that moves one of the
    `anchors` is told so, for which it would be a constant."""
    for anchor in anchors:
        second = LastDerivative.apply(anchor, second, _NO_THIRD)  # type: ignore[assignment]
    return second


class _SymmetricValue(Function):
    """Q f(a) Q^T as a function of A, where (a, Q) is the eigendecomposition of A."""

    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor, a: Tensor, Q: Tensor, f: SpectralFunction | StepFunction) -> Tensor:
        return (Q * f.value(a).unsqueeze(-2)) @ Q.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.save_for_forward(*inputs[:3])
        ctx.f = inputs[3]

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> Any:
        A, a, Q = ctx.saved_tensors
        return _SymmetricSlope.apply(A, a, Q, G, ctx.f), None, None, None

    @staticmethod
    def jvp(ctx: Any, dA: Tensor, *_: Any) -> Any:
        A, a, Q = ctx.saved_tensors
        return _SymmetricSlope.apply(A, a, Q, dA, ctx.f)


class _SymmetricSlope(Function):
    """The self-adjoint map G -> D F[sym G] as a function of A and G."""

    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor, a: Tensor, Q: Tensor, G: Tensor, f: SpectralFunction | StepFunction) -> Tensor:
        return Q @ (f.slope(a.unsqueeze(-1), a.unsqueeze(-2)) * (Q.mT @ _sym(G) @ Q)) @ Q.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.save_for_forward(*inputs[:4])
        ctx.f = inputs[4]

    @staticmethod
    def backward(ctx: Any, H: Tensor) -> Any:
        A, a, Q, G = ctx.saved_tensors
        curved = LastDerivative.apply(A, _second(a, Q, _sym(G), _sym(H), ctx.f), _NO_THIRD)
        return curved, None, None, _SymmetricSlope.apply(A, a, Q, H, ctx.f), None

    @staticmethod
    def jvp(ctx: Any, dA: Tensor | None, _a: Any, _q: Any, dG: Tensor | None, _f: Any) -> Any:
        A, a, Q, G = ctx.saved_tensors
        change = torch.zeros_like(G)
        if dA is not None:
            change = change + _last(_second(a, Q, _sym(G), _sym(dA), ctx.f), A, G, dA)
        if dG is not None:
            change = change + _SymmetricSlope.apply(A, a, Q, dG, ctx.f)
        return change


def symmetric_functions(A: Tensor, *functions: SpectralFunction | StepFunction) -> tuple[Tensor, ...]:
    """f(A) for each f of `functions`, from one eigendecomposition. ``*B,n,n -> *B,n,n`` each.

    Only the symmetric part of `A` is read.
    """
    A = _sym(A)
    a, Q = torch.linalg.eigh(A.detach())
    if not torch.compiler.is_compiling():
        return tuple(_SymmetricValue.apply(A, a, Q, f) for f in functions)  # type: ignore[misc]
    # Dynamo knows no custom jvp. The second-order Taylor polynomial at A, in a difference whose value is zero, has
    # the same value and the same first and second derivatives through plain autograd.
    E = A - A.detach()
    return tuple(
        Q @ (torch.diag_embed(f.value(a)) + f.slope(a.unsqueeze(-1), a.unsqueeze(-2)) * (Q.mT @ E @ Q)) @ Q.mT
        + 0.5 * _second(a, Q, E, E, f)
        for f in functions
    )


def symmetric_function(A: Tensor, f: SpectralFunction | StepFunction) -> Tensor:
    """f(A). ``*B,n,n -> *B,n,n``."""
    return symmetric_functions(A, f)[0]


# ---- singular values ------------------------------------------------------------------------------------------


def _dilation(M: Tensor) -> Tensor:
    zero = torch.zeros_like(M)
    return torch.cat([torch.cat([zero, M], -1), torch.cat([M.mT, zero], -1)], -2)


def _singular_slope(U: Tensor, c: Tensor, V: Tensor, G: Tensor, f: SpectralFunction) -> Tensor:
    ci, cj, fc = c.unsqueeze(-1), c.unsqueeze(-2), f.value(c)
    g = U.mT @ G @ V
    # The diagonal of the skew part is zero: keep 0/0 and the overflow of a vanishing singular value out of it.
    total = torch.where(ci + cj > 16 * torch.finfo(c.dtype).tiny, ci + cj, 1.0)
    across = (fc.unsqueeze(-1) + fc.unsqueeze(-2)) / total
    return U @ (f.slope(ci, cj) * _sym(g) + across * (0.5 * (g - g.mT))) @ V.mT


def _singular_second(U: Tensor, c: Tensor, V: Tensor, G: Tensor, K: Tensor, f: SpectralFunction) -> Tensor:
    eigenvalues = torch.cat([c, -c], -1)
    Q = torch.cat([torch.cat([U, U], -1), torch.cat([V, -V], -1)], -2) * 0.5**0.5
    n = c.shape[-1]
    return _second(eigenvalues, Q, _dilation(G), _dilation(K), _Odd(f))[..., :n, n:]


class _SingularValue(Function):
    """U f(c) V^T as a function of the square matrix M = U diag(c) V^T."""

    generate_vmap_rule = True

    @staticmethod
    def forward(M: Tensor, U: Tensor, c: Tensor, V: Tensor, f: SpectralFunction) -> Tensor:
        return (U * f.value(c).unsqueeze(-2)) @ V.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.save_for_forward(*inputs[:4])
        ctx.f = inputs[4]

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> Any:
        return _SingularSlope.apply(*ctx.saved_tensors, G, ctx.f), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, dM: Tensor, *_: Any) -> Any:
        return _SingularSlope.apply(*ctx.saved_tensors, dM, ctx.f)


class _SingularSlope(Function):
    """The self-adjoint derivative of `_SingularValue` in direction G, as a function of M and G."""

    generate_vmap_rule = True

    @staticmethod
    def forward(M: Tensor, U: Tensor, c: Tensor, V: Tensor, G: Tensor, f: SpectralFunction) -> Tensor:
        return _singular_slope(U, c, V, G, f)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:5])
        ctx.save_for_forward(*inputs[:5])
        ctx.f = inputs[5]

    @staticmethod
    def backward(ctx: Any, H: Tensor) -> Any:
        M, U, c, V, G = ctx.saved_tensors
        curved = LastDerivative.apply(M, _singular_second(U, c, V, G, H, ctx.f), _NO_THIRD)
        return curved, None, None, None, _SingularSlope.apply(M, U, c, V, H, ctx.f), None

    @staticmethod
    def jvp(ctx: Any, dM: Tensor | None, _u: Any, _c: Any, _v: Any, dG: Tensor | None, _f: Any) -> Any:
        M, U, c, V, G = ctx.saved_tensors
        change = torch.zeros_like(G)
        if dM is not None:
            change = change + _last(_singular_second(U, c, V, G, dM, ctx.f), M, G, dM)
        if dG is not None:
            change = change + _SingularSlope.apply(M, U, c, V, dG, ctx.f)
        return change


def singular_value_function(M: Tensor, f: SpectralFunction) -> Tensor:
    """U f(c) V^T for a square ``M = U diag(c) V^T``. ``*B,n,n -> *B,n,n``.

    `f` is used on [0, inf) only; where it does not vanish at zero the result jumps at singular `M`.
    """
    U, c, Vh = torch.linalg.svd(M.detach())
    V = Vh.mT
    if not torch.compiler.is_compiling():
        return _SingularValue.apply(M, U, c, V, f)  # type: ignore[return-value]
    E = M - M.detach()  # as in symmetric_function
    value = (U * f.value(c).unsqueeze(-2)) @ V.mT
    return value + _singular_slope(U, c, V, E, f) + 0.5 * _singular_second(U, c, V, E, E, f)


# ---- the functions that manifolds use -------------------------------------------------------------------------


def _versine_first(z: Tensor) -> Tensor:
    return bessel_sqrt(0, z / 4) * bessel_sqrt(1, z / 4) / 8


def _versine_second(z: Tensor) -> Tensor:
    y = z / 4
    return -(bessel_sqrt(1, y).square() + bessel_sqrt(0, y) * bessel_sqrt(2, y)) / 64


COS_SQRT = SpectralFunction(
    cos_sqrt, lambda z: -0.5 * bessel_sqrt(0, z), lambda z: 0.25 * bessel_sqrt(1, z), reach=10.0
)
SINC_SQRT = SpectralFunction(
    sinc_sqrt, lambda z: -0.5 * bessel_sqrt(1, z), lambda z: 0.25 * bessel_sqrt(2, z), reach=10.0
)
VERSINE_SQRT = SpectralFunction(versine_sqrt, _versine_first, _versine_second, reach=10.0)

ANGLE_OVER_SINE = SpectralFunction(
    angle_over_sine, lambda c: angle_over_sine(c, 1), lambda c: angle_over_sine(c, 2), reach=1.0
)
UPPER_PROJECTOR = StepFunction()
POLAR_FACTOR = SpectralFunction(torch.ones_like, torch.zeros_like, torch.zeros_like, reach=1.0)


def polar_factor(M: Tensor) -> Tensor:
    """The orthogonal polar factor of a square matrix: the nearest orthogonal matrix. ``*B,n,n -> *B,n,n``."""
    return singular_value_function(M, POLAR_FACTOR)
