r"""Scalar functions of a symmetric matrix, with exact derivatives.

For ``A = Q diag(a) Q^T`` and ``F = Q f(a) Q^T`` the Daleckii-Krein formulas are

    D F[G]     = Q (f[a_i, a_j] * G') Q^T,                                      G' = Q^T G Q,
    D^2 F[G,K] = Q (sum_k f[a_i, a_k, a_j] (G'_ik K'_kj + K'_ik G'_kj)) Q^T.

Divided differences (`MatrixFunction`) are no special case at equal and nearly equal eigenvalues, so the derivatives are
finite and right at the identity. autograd's own rule for `eigh` divides by ``a_i - a_j`` and gives NaN there.

First and second derivatives are supported; a third one raises, but in compiled code, where it is wrong and not noticed.
A second one is formed with f'' at the eigenvalues, which has to be a number of the dtype. A matrix that is not finite,
or of which LAPACK finds no eigenvalues, gives NaN, and no other matrix of the batch does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .decompositions import eigh, eigh_of_plain
from .matrices import sym
from .matrix_function import MatrixFunction
from .operators import Operand, define
from .spectral_functions import named
from .tracing import LastDerivative, function_loses_graph


def differences(f: MatrixFunction, a: Tensor) -> Tensor:
    """f[a_i, a_j]. ``*B,n -> *B,n,n``."""
    return f.divided_difference(a.unsqueeze(-1), a.unsqueeze(-2))


def second_differences(a: Tensor, functions: Sequence[MatrixFunction], first: Sequence[Tensor]) -> list[Tensor]:
    """f[a_i, a_k, a_j] of sorted a, given f[a_i, a_j], for each function. ``*B,n -> *B,n,n,n``.

    A symmetric function of its arguments: each set of three is computed once.
    """
    n = a.shape[-1]
    triples = torch.combinations(torch.arange(n, device=a.device), 3, with_replacement=True)
    place = triples.new_empty(n, n, n)  # of each i, k, j among the triples
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        place[triples[:, order].unbind(-1)] = torch.arange(len(triples), device=a.device)
    i, k, j = triples.unbind(-1)  # i <= k <= j
    points = a[..., i], a[..., k], a[..., j]
    return [
        f.second_divided_difference(*points, (d[..., i, k], d[..., k, j]))[..., place]
        for f, d in zip(functions, first, strict=True)
    ]


def _second(a: Tensor, Q: Tensor, G: Tensor, K: Tensor, f: MatrixFunction) -> Tensor:
    """D^2 F[G, K] for symmetric G, K."""
    g, k = Q.mT @ G @ Q, Q.mT @ K @ Q
    pairs = g.unsqueeze(-1) * k.unsqueeze(-3) + k.unsqueeze(-1) * g.unsqueeze(-3)  # [i, k, j]
    (second,) = second_differences(a, [f], [differences(f, a)])
    return Q @ (second * pairs).sum(-2) @ Q.mT


NO_THIRD = "spectral functions have first and second derivatives, not third ones"


def last(second: Tensor, *anchors: Tensor) -> Tensor:
    """A second derivative formed in a `jvp`, where forward mode is switched off: an outer level that moves one of the
    `anchors` is told so, for which it would be a constant."""
    for anchor in anchors:
        second = LastDerivative.apply(anchor, second, NO_THIRD)  # type: ignore[assignment]
    return second


class _Value(Function):
    """Q f(a) Q^T as a function of A, where (a, Q) is the eigendecomposition of A."""

    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor, a: Tensor, Q: Tensor, f: MatrixFunction) -> Tensor:
        return (Q * f.value(a).unsqueeze(-2)) @ Q.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.save_for_forward(*inputs[:3])
        ctx.f = inputs[3]

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> Any:
        A, a, Q = ctx.saved_tensors
        if function_loses_graph(G):
            return *torch.autograd.grad(_taylor(A, ctx.f.key), A, (G,), create_graph=True), None, None, None
        return _Derivative.apply(A, a, Q, G, ctx.f), None, None, None

    @staticmethod
    def jvp(ctx: Any, dA: Tensor, *_: Any) -> Any:
        A, a, Q = ctx.saved_tensors
        return _Derivative.apply(A, a, Q, dA, ctx.f)


class _Derivative(Function):
    """The self-adjoint map G -> D F[sym G] as a function of A and G."""

    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor, a: Tensor, Q: Tensor, G: Tensor, f: MatrixFunction) -> Tensor:
        return Q @ (differences(f, a) * (Q.mT @ sym(G) @ Q)) @ Q.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.save_for_forward(*inputs[:4])
        ctx.f = inputs[4]

    @staticmethod
    def backward(ctx: Any, H: Tensor) -> Any:
        A, a, Q, G = ctx.saved_tensors
        curved = LastDerivative.apply(A, _second(a, Q, sym(G), sym(H), ctx.f), NO_THIRD)
        return curved, None, None, _Derivative.apply(A, a, Q, H, ctx.f), None

    @staticmethod
    def jvp(ctx: Any, dA: Tensor | None, _a: Any, _q: Any, dG: Tensor | None, _f: Any) -> Any:
        A, a, Q, G = ctx.saved_tensors
        change = torch.zeros_like(G)
        if dA is not None:
            change = change + last(_second(a, Q, sym(G), sym(dA), ctx.f), A, G, dA)
        if dG is not None:
            change = change + _Derivative.apply(A, a, Q, dG, ctx.f)
        return change


def symmetric_functions(A: Tensor, *functions: MatrixFunction) -> tuple[Tensor, ...]:
    """f(A) for each f of `functions`, from one eigendecomposition. ``*B,n,n -> *B,n,n`` each.

    Only the symmetric part of `A` is read.
    """
    A = sym(A)
    if torch.compiler.is_compiling():
        return _taylor(A, ",".join(f.key for f in functions))
    a, Q = eigh(A)
    return tuple(_Value.apply(A, a, Q, f) for f in functions)  # type: ignore[misc]


def symmetric_function(A: Tensor, f: MatrixFunction) -> Tensor:
    """f(A). ``*B,n,n -> *B,n,n``."""
    return symmetric_functions(A, f)[0]


def function_at(A: Tensor, a: Tensor, Q: Tensor, f: MatrixFunction) -> Tensor:
    """f(A) of a symmetric A for a decomposition a, Q that is known, to more digits perhaps than A tells: a is monotone,
    and neither has a derivative. ``*B,n,n, *B,n, *B,n,n -> *B,n,n``."""
    if torch.compiler.is_compiling():
        return _polynomial(A, Q, *_coefficients_at(a, f.key))[..., 0, :, :]
    return _Value.apply(A, a, Q, f)  # type: ignore[return-value]


# ---- under a compiler -----------------------------------------------------------------------------------------


def _taylor(A: Tensor, keys: str) -> tuple[Tensor, ...]:
    """The second-order Taylor polynomials at A, in a difference whose value is zero.

    Dynamo knows no custom jvp. These have the same values and the same first and second derivatives through plain
    autograd, and all that iterates is one operator, of a tensor without derivative.
    """
    return _polynomial(A, *_coefficients(A.detach(), keys)).unbind(-3)


def _polynomial(A: Tensor, Q: Tensor, value: Tensor, first: Tensor, second: Tensor) -> Tensor:
    e = (Q.mT @ (A - A.detach()) @ Q).unsqueeze(-3)  # one for all functions
    curved = (second * (e.unsqueeze(-1) * e.unsqueeze(-3))).sum(-2)
    Q = Q.unsqueeze(-3)
    return Q @ (torch.diag_embed(value) + first * e + curved) @ Q.mT


def _coefficients_of_plain(A: Tensor, keys: str) -> tuple[Tensor, ...]:
    """Q, and f(a), f[a_i, a_j], f[a_i, a_k, a_j], with one dimension for the functions after the batch."""
    a, Q = eigh_of_plain(A)
    return Q, *_coefficients_of_values(a, keys)


def _coefficients_of_values(a: Tensor, keys: str) -> tuple[Tensor, ...]:
    functions, place = [named(key) for key in keys.split(",")], a.dim() - 1
    values, first = [f.value(a) for f in functions], [differences(f, a) for f in functions]
    second = second_differences(a, functions, first)
    return torch.stack(values, place), torch.stack(first, place), torch.stack(second, place)


def _coefficient_shapes(A: Tensor, keys: str) -> tuple[Tensor, ...]:
    return A.new_empty(A.shape), *_shapes_at(A[..., 0], keys)


def _shapes_at(a: Tensor, keys: str) -> tuple[Tensor, ...]:
    functions = [named(key) for key in keys.split(",")]  # an unknown name raises where it is compiled
    batch, n = (*a.shape[:-1], len(functions)), a.shape[-1]
    return tuple(a.new_empty((*batch, *[n] * order)) for order in (1, 2, 3))


_coefficients = define(
    "spectral_coefficients",
    _coefficients_of_plain,
    (Operand("matrices", 2),),
    _coefficient_shapes,
    numbers={"functions": str},
    count=4,
)
_coefficients_at = define(
    "spectral_coefficients_at",
    _coefficients_of_values,
    (Operand("eigenvalues", 1),),
    _shapes_at,
    numbers={"functions": str},
    count=3,
)
