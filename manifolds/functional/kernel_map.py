r"""Kernel metrics of symmetric matrices X, in their cotangent form: the maps, and the derivatives that geodesics take.

With ``c(x, y)`` a kernel of eigenvalues (`Cometric`), ``X = Q diag(x) Q^T`` and ``Y' = Q^T Y Q``, half the squared
length of a covector is ``H(X, Y) = 1/2 sum_ij c(x_i, x_j) Y'_ij^2 - b a/(2 + 2 n b) (sum_i e^(-r x_i) Y'_ii)^2``, and

    (dH/dY)'_ij = c(x_i, x_j) Y'_ij,    (dH/dX)'_ij = sum_k c[x_i, x_j; x_k] Y'_ik Y'_kj,

the latter by first divided differences of c in its first argument, and terms of the trace. Values, and the first
derivatives of dH/dY, are formed in eigenvectors, which is right for every condition and for repeated eigenvalues; all
others by polynomials in X (`kernel_expansion`), to any order and under every transform.

The kernel metrics of positive definite matrices take this form in the matrix logarithm: Thanwerdas and Pennec 2021,
arXiv:2109.05768; Hiai and Petz 2009, arXiv:0809.4974.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .decompositions import eigh
from .kernel_cometric import Cometric as Cometric
from .kernel_expansion import Ends, expanded_change, expanded_map
from .kernel_tables import kernel_differences, kernel_values
from .matrices import sym
from .spectral_functions import EXP
from .tracing import bound_once, derivative_wanted_of_items, function_loses_graph, transforms_or_forward_mode, variation


def raised(X: Tensor, Y: Tensor, c: Cometric) -> Tensor:
    """dH/dY: the cometric applied to a covector. ``*B,n,n``; only symmetric parts are read."""
    X, Y = sym(X), sym(Y)
    x, Q = eigh(X)
    if not derivative_wanted_of_items(X):
        return raised_at(x, Q, Y, c)
    if torch.compiler.is_compiling() or transforms_or_forward_mode():
        return _raised_by_operations(X, Y, c, x, Q)
    return _Raised.apply(*_of_one_batch(X, Y), c)  # type: ignore[return-value]


def lowered(X: Tensor, W: Tensor, c: Cometric) -> Tensor:
    """The metric applied to a vector: the inverse of `raised`. ``*B,n,n``."""
    return raised(X, W, c.inverse(X.shape[-1]))


def hamiltonian_gradient(X: Tensor, Y: Tensor, c: Cometric, other: Tensor | None = None) -> Tensor:
    """dH/dX, quadratic in Y; with `other` the symmetric bilinear form of which that is the diagonal. ``*B,n,n``."""
    return _differentiable(X, Y, Y if other is None else other, c, _gradient, _expanded_gradient)


def raised_along(X: Tensor, E: Tensor, Y: Tensor, c: Cometric) -> Tensor:
    """The derivative of ``raised(X, Y, c)`` in X along E. ``*B,n,n``."""
    return _differentiable(X, E, Y, c, _along, _expanded_along)


# ---- derivatives ----------------------------------------------------------------------------------------------


def _ends(x: Tensor) -> Ends:
    return x[..., 0], x[..., -1]


def _of_one_batch(*matrices: Tensor) -> tuple[Tensor, ...]:
    """Contiguous: a dual number takes the layout of its primal, and cannot be written to a broadcast one."""
    return tuple(m.contiguous() for m in torch.broadcast_tensors(*matrices))


def _raised_by_operations(X: Tensor, Y: Tensor, c: Cometric, x: Tensor, Q: Tensor) -> Tensor:
    return raised_at(x, Q, Y, c) + expanded_change(X, Y, c, _ends(x))


@bound_once
class _Raised(Function):
    """`raised`, of symmetric matrices of one batch, to autograd alone: <Z, raised(X, Y)> is symmetric in Y and Z, and
    `hamiltonian_gradient` half its derivative in X."""

    @staticmethod
    def forward(X: Tensor, Y: Tensor, c: Cometric) -> Tensor:
        return raised_at(*eigh(X), Y, c)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.c = inputs[2]

    @staticmethod
    def backward(ctx: Any, Z: Tensor) -> Any:
        X, Y = ctx.saved_tensors
        of_X, of_Y, _ = ctx.needs_input_grad
        if function_loses_graph(Z):
            value = _raised_by_operations(X, Y, ctx.c, *eigh(X))
            found = torch.autograd.grad(value, (X, Y) if of_Y else (X,), (Z,), create_graph=True)
            return *found, *(None,) * (3 - len(found))
        in_X = 2 * hamiltonian_gradient(X, Y, ctx.c, Z) if of_X else None
        return in_X, raised(X, Z, ctx.c) if of_Y else None, None


def _differentiable(X: Tensor, V: Tensor, Z: Tensor, c: Cometric, exact: Callable, expanded: Callable) -> Tensor:
    """The value of `exact`, bilinear in V and Z, with the derivatives of `expanded` where X has any."""
    X, V, Z = sym(X), sym(V), sym(Z)
    x, Q = eigh(X)
    value = exact(x, Q, V, Z, c)
    if not derivative_wanted_of_items(X):
        return value
    return value.detach() + variation(expanded(*_of_one_batch(X, V, Z), c, _ends(x)))


def _expanded_gradient(X: Tensor, Y: Tensor, Z: Tensor, c: Cometric, ends: Ends) -> Tensor:
    value, pull, *_ = torch.func.vjp(lambda at: (Y * expanded_map(at, Z, c, ends)).sum((-2, -1)), X)
    return 0.5 * sym(pull(torch.ones_like(value))[0])


def _expanded_along(X: Tensor, E: Tensor, Y: Tensor, c: Cometric, ends: Ends) -> Tensor:
    # The derivative along E is the transpose of the pull-back, which is linear: forward modes of torch do not nest.
    _, pull, *_ = torch.func.vjp(lambda at: expanded_map(at, Y, c, ends), X)
    return sym(torch.func.vjp(lambda by: pull(by)[0], torch.zeros_like(X))[1](E)[0])


# ---- in eigenvectors ------------------------------------------------------------------------------------------


def raised_at(x: Tensor, Q: Tensor, Y: Tensor, c: Cometric) -> Tensor:
    """`raised` at Q diag(x) Q^T, of symmetric Y; no derivative in x and Q."""
    Y = Q.mT @ Y @ Q
    value = kernel_values(x, c) * Y
    if c.trace:
        weights = (-c.rate * x).exp()
        total = (weights * Y.diagonal(dim1=-2, dim2=-1)).sum(-1, keepdim=True)
        value = value + torch.diag_embed(c.trace_factor(x.shape[-1]) * total * weights)
    return sym(Q @ value @ Q.mT)


def _gradient(x: Tensor, Q: Tensor, Y: Tensor, Z: Tensor, c: Cometric) -> Tensor:
    Y, Z = Q.mT @ Y @ Q, Q.mT @ Z @ Q
    value = (kernel_differences(x, c) * Y.unsqueeze(-2) * Z.unsqueeze(-3)).sum(-1)
    if c.trace:
        weights, slopes = exponentials(x, c)
        totals = [(weights * V.diagonal(dim1=-2, dim2=-1)).sum(-1)[..., None, None] for V in (Y, Z)]
        value = value + 0.5 * c.trace_factor(x.shape[-1]) * slopes * (totals[0] * Z + totals[1] * Y)
    return sym(Q @ sym(value) @ Q.mT)


def _along(x: Tensor, Q: Tensor, E: Tensor, Y: Tensor, c: Cometric) -> Tensor:
    E, Y = Q.mT @ E @ Q, Q.mT @ Y @ Q
    value = 2 * (kernel_differences(x, c) * E.unsqueeze(-1) * Y.unsqueeze(-3)).sum(-2)
    if c.trace:
        weights, slopes = exponentials(x, c)
        moved = slopes * E
        total = (weights * Y.diagonal(dim1=-2, dim2=-1)).sum(-1)[..., None, None]
        change = torch.diag_embed((moved * Y).sum((-2, -1)).unsqueeze(-1) * weights)
        value = value + c.trace_factor(x.shape[-1]) * (total * moved + change)
    return sym(Q @ sym(value) @ Q.mT)


def exponentials(x: Tensor, c: Cometric) -> tuple[Tensor, Tensor]:
    """e^(-r x) and its divided differences."""
    scaled = -c.rate * x
    return scaled.exp(), -c.rate * EXP.divided_difference(scaled.unsqueeze(-1), scaled.unsqueeze(-2))
