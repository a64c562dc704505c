r"""Scalar functions of a symmetric matrix, with exact derivatives.

For ``A = Q diag(a) Q^T`` and ``F = Q f(a) Q^T`` the Daleckii-Krein formulas are

    D F[G]     = Q (f[a_i, a_j] * G') Q^T,                                      G' = Q^T G Q,
    D^2 F[G,K] = Q (sum_k f[a_i, a_k, a_j] (G'_ik K'_kj + K'_ik G'_kj)) Q^T.

Divided differences (`MatrixFunction`) are no special case at equal and nearly equal eigenvalues, so the derivatives are
finite and right at the identity. autograd's own rule for `eigh` divides by ``a_i - a_j`` and gives NaN there.

First and second derivatives are supported; a third one raises, but where compiled transforms take it, which is wrong
and not noticed. Second derivatives of functions without a scale, as powers and the logarithm, are formed of eigenvalues
divided by the largest, so that they reach as far as numbers do. A matrix that is not finite, or of which LAPACK finds
no eigenvalues, gives NaN, and no other matrix of the batch does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .decompositions import eigh, eigh_of_plain
from .definite import definite_eigh, inside_or_nan
from .matrices import sym
from .matrix_function import MatrixFunction
from .operators import Operand, define
from .second_products import second_product
from .self_adjoint import SelfAdjointMap
from .spectral_functions import named
from .tracing import transforms_or_forward_mode, variation


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


def differences_scale(f: MatrixFunction, a: Tensor) -> Tensor:
    """What the eigenvalues are divided by before second differences are formed, which go with a power of them that
    may leave the range of numbers though the derivative does not. ``*B,n -> *B,1``; one where `f` has a scale."""
    size = a.abs().amax(-1, keepdim=True) if a.shape[-1] and f.degree is not None else torch.ones_like(a[..., :1])
    return torch.where(size == 0, 1.0, size)


def scaled_second_differences(f: MatrixFunction, a: Tensor, t: Tensor) -> Tensor:
    """t^2 f[a_i, a_k, a_j], for the scale t of `f`. ``*B,n -> *B,n,n,n``."""
    (second,) = second_differences(a / t, [f], [differences(f, a / t)])
    return second * t[..., None, None] ** f.degree if f.degree else second


def _value(a: Tensor, Q: Tensor, f: MatrixFunction) -> Tensor:
    """Q f(a) Q^T."""
    return (Q * f.value(a).unsqueeze(-2)) @ Q.mT


def first_derivative(G: Tensor, a: Tensor, Q: Tensor, f: MatrixFunction) -> Tensor:
    """D F[sym G]."""
    inner = Q.mT @ sym(G) @ Q
    if f.degree is None or 0 <= f.degree <= 2:
        return Q @ (differences(f, a) * inner) @ Q.mT
    # With a power beyond one the differences would leave the range of numbers before the derivative does.
    t = differences_scale(f, a)
    return Q @ (differences(f, a / t) * (inner / t.unsqueeze(-1)) * t.unsqueeze(-1) ** f.degree) @ Q.mT


def second_derivative(G: Tensor, K: Tensor, a: Tensor, Q: Tensor, f: MatrixFunction) -> Tensor:
    """D^2 F[sym G, sym K]."""
    t = differences_scale(f, a)
    g, k = (Q.mT @ (sym(x) / t.unsqueeze(-1)) @ Q for x in (G, K))
    product = second_product(f)
    if product is None:
        half = (scaled_second_differences(f, a, t) * (g.unsqueeze(-1) * k.unsqueeze(-3))).sum(-2)  # [i, k, j]
    else:
        half = product(a / t, g, k) * t.unsqueeze(-1) ** (f.degree or 0.0)
    # The differences do not change with i and j: the term with g and k exchanged is the transpose of this one.
    return Q @ (half + half.mT) @ Q.mT


NO_THIRD = "spectral functions have first and second derivatives, not third ones"


def symmetric_functions(A: Tensor, *functions: MatrixFunction, definite: bool = False) -> tuple[Tensor, ...]:
    """f(A) for each f of `functions`, from one eigendecomposition. ``*B,n,n -> *B,n,n`` each.

    Only the symmetric part of `A` is read. `definite`: NaN where that is not positive definite.
    """
    A = sym(A)
    if torch.compiler.is_compiling() and transforms_or_forward_mode():
        return taylor_polynomials(inside_or_nan(A) if definite else A, ",".join(f.key for f in functions))
    A, a, Q = decomposed(A, any(f.positive_domain for f in functions), definite)
    return tuple(spectral_function_of(A, f, a, Q) for f in functions)


def symmetric_function(A: Tensor, f: MatrixFunction, definite: bool = False) -> Tensor:
    """f(A). ``*B,n,n -> *B,n,n``."""
    return symmetric_functions(A, f, definite=definite)[0]


def decomposed(A: Tensor, positive: bool, definite: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Symmetric A and its `eigh`; `definite`: with NaN for what is not positive definite."""
    return definite_eigh(A, positive) if definite else (A, *eigh(A, positive))


def function_at(A: Tensor, a: Tensor, Q: Tensor, f: MatrixFunction) -> Tensor:
    """f(A) of a symmetric A for a decomposition a, Q that is known, to more digits perhaps than A tells: a is monotone,
    and neither has a derivative. ``*B,n,n, *B,n, *B,n,n -> *B,n,n``."""
    if torch.compiler.is_compiling() and transforms_or_forward_mode():
        return _polynomials(A, Q, *coefficients_at(a, f.key))[..., 0, :, :]
    return spectral_function_of(A, f, a, Q)


# ---- under a compiler, where transforms differentiate ---------------------------------------------------------


def taylor_polynomials(A: Tensor, keys: str) -> tuple[Tensor, ...]:
    """The second-order Taylor polynomials at A, in a difference whose value is zero.

    Dynamo knows no custom jvp. These have the same values and the same first and second derivatives through plain
    autograd, and all that iterates is one operator, of a tensor without derivative.
    """
    return _polynomials(A, *coefficients(A.detach(), keys)).unbind(-3)


def _polynomials(A: Tensor, Q: Tensor, value: Tensor, first: Tensor, second: Tensor, scale: Tensor) -> Tensor:
    e = (Q.mT @ variation(A) @ Q).unsqueeze(-3)  # one for all functions
    e = e / scale.unsqueeze(-1)
    curved = (second * (e.unsqueeze(-1) * e.unsqueeze(-3))).sum(-2)
    Q = Q.unsqueeze(-3)
    return Q @ (torch.diag_embed(value) + first * e + curved) @ Q.mT


def _coefficients_of_plain(A: Tensor, keys: str) -> tuple[Tensor, ...]:
    """Q, and f(a), t f[a_i, a_j], t^2 f[a_i, a_k, a_j] and t, with one dimension for the functions after the batch."""
    a, Q = eigh_of_plain(A, any(named(key).positive_domain for key in keys.split(",")))
    return Q, *_coefficients_of_values(a, keys)


def _coefficients_of_values(a: Tensor, keys: str) -> tuple[Tensor, ...]:
    functions, place = [named(key) for key in keys.split(",")], a.dim() - 1
    scales = [differences_scale(f, a) for f in functions]
    values, pairs = [f.value(a) for f in functions], list(zip(functions, scales, strict=True))
    first = [differences(f, a / t) * t.unsqueeze(-1) ** (f.degree or 0.0) for f, t in pairs]
    second = [scaled_second_differences(f, a, t) for f, t in pairs]
    return tuple(torch.stack(table, place) for table in (values, first, second, scales))


def _coefficient_shapes(A: Tensor, keys: str) -> tuple[Tensor, ...]:
    return A.new_empty(A.shape), *_shapes_at(A[..., 0], keys)


def _shapes_at(a: Tensor, keys: str) -> tuple[Tensor, ...]:
    functions = [named(key) for key in keys.split(",")]  # an unknown name raises where it is compiled
    batch, n = (*a.shape[:-1], len(functions)), a.shape[-1]
    return *(a.new_empty((*batch, *[n] * order)) for order in (1, 2, 3)), a.new_empty((*batch, 1))


coefficients = define(
    "spectral_coefficients",
    _coefficients_of_plain,
    (Operand("matrices", 2),),
    _coefficient_shapes,
    numbers={"functions": str},
    count=5,
)
coefficients_at = define(
    "spectral_coefficients_at",
    _coefficients_of_values,
    (Operand("eigenvalues", 1),),
    _shapes_at,
    numbers={"functions": str},
    count=4,
)

spectral_function_of = SelfAdjointMap(
    "spectral_function",
    (1, 2),
    _value,
    first_derivative,
    second_derivative,
    lambda A, f: taylor_polynomials(A, f.key)[0],
    NO_THIRD,
    key=lambda f: f.key,
    named=named,
)
