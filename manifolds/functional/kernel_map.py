r"""Kernel metrics of symmetric matrices X, in their cotangent form: the maps, and the derivatives that geodesics take.

With ``c(x, y)`` a kernel of eigenvalues (`Cometric`), ``X = Q diag(x) Q^T`` and ``Y' = Q^T Y Q``, half the squared
length of a covector is ``H(X, Y) = 1/2 sum_ij c(x_i, x_j) Y'_ij^2 - b a/(2 + 2 n b) (sum_i e^(-r x_i) Y'_ii)^2``, and

    (dH/dY)'_ij = c(x_i, x_j) Y'_ij,    (dH/dX)'_ij = sum_k c[x_i, x_j; x_k] Y'_ik Y'_kj,

the latter by first divided differences of c in its first argument, and terms of the trace. Values are formed in
eigenvectors, which is right for every condition and for repeated eigenvalues; derivatives in X by polynomials in X
(`kernel_expansion`), to any order and under every transform.

The kernel metrics of positive definite matrices take this form in the matrix logarithm: Thanwerdas and Pennec 2021,
arXiv:2109.05768; Hiai and Petz 2009, arXiv:0809.4974.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .decompositions import eigh
from .kernel_cometric import Cometric as Cometric
from .kernel_expansion import polynomial_function, polynomial_map
from .matrices import sym
from .spectral_functions import EXP
from .tracing import derivative_wanted

# Two eigenvalues at most this far apart, in units of the scale of c, take four nodes of Gauss, which leave 1e-18; the
# others a quotient, which loses a digit.
_NEAR = 0.2
_GAUSS = (
    (0.06943184420297371, 0.17392742256872692),
    (0.33000947820757187, 0.32607257743127307),
    (0.6699905217924281, 0.32607257743127307),
    (0.9305681557970263, 0.17392742256872692),
)


def raised(X: Tensor, Y: Tensor, c: Cometric) -> Tensor:
    """dH/dY: the cometric applied to a covector. ``*B,n,n``; only symmetric parts are read."""
    return _differentiable(X, (Y,), c, _raised_in_eigenvectors, _raised_by_polynomials)


def lowered(X: Tensor, W: Tensor, c: Cometric) -> Tensor:
    """The metric applied to a vector: the inverse of `raised`. ``*B,n,n``."""
    return raised(X, W, c.inverse(X.shape[-1]))


def hamiltonian_gradient(X: Tensor, Y: Tensor, c: Cometric, other: Tensor | None = None) -> Tensor:
    """dH/dX, quadratic in Y; with `other` the symmetric bilinear form of which that is the diagonal. ``*B,n,n``."""
    other = Y if other is None else other
    return _differentiable(X, (Y, other), c, _gradient_in_eigenvectors, _gradient_by_polynomials)


def raised_along(X: Tensor, E: Tensor, Y: Tensor, c: Cometric) -> Tensor:
    """The derivative of ``raised(X, Y, c)`` in X along E. ``*B,n,n``."""
    return _differentiable(X, (E, Y), c, _along_in_eigenvectors, _along_by_polynomials)


# ---- values in eigenvectors, derivatives by polynomials -------------------------------------------------------


def _differentiable(X: Tensor, others: tuple[Tensor, ...], c: Cometric, exact: Callable, expanded: Callable) -> Tensor:
    """The value of `exact`, multilinear in `others`, whose derivatives in these are its own, and whose derivatives in X
    are those of `expanded`."""
    X, others = sym(X), tuple(map(sym, others))
    x, Q = eigh(X)
    value = exact(x, Q, others, c)
    if not derivative_wanted(X):
        return value
    ends = x[..., 0], x[..., -1]
    # A difference that is zero: nothing but derivatives in X, and mixed ones.
    return value + (expanded(X, others, c, ends) - expanded(X.detach(), others, c, ends))


# ---- in eigenvectors ------------------------------------------------------------------------------------------


def _trace_factor(c: Cometric, n: int) -> float:
    return -c.trace * c.scale / (1 + n * c.trace)


def _raised_in_eigenvectors(x: Tensor, Q: Tensor, others: tuple[Tensor, ...], c: Cometric) -> Tensor:
    (Y,) = _rotated(Q, others)
    value = c.value(x.unsqueeze(-1), x.unsqueeze(-2)) * Y
    if c.trace:
        weights = (-c.rate * x).exp()
        sums = (weights * Y.diagonal(dim1=-2, dim2=-1)).sum(-1, keepdim=True)
        value = value + torch.diag_embed(_trace_factor(c, x.shape[-1]) * sums * weights)
    return sym(Q @ value @ Q.mT)


def _gradient_in_eigenvectors(x: Tensor, Q: Tensor, others: tuple[Tensor, ...], c: Cometric) -> Tensor:
    Y, Z = _rotated(Q, others)
    value = (_differences(x, c) * Y.unsqueeze(-2) * Z.unsqueeze(-3)).sum(-1)
    if c.trace:
        weights, slopes = _exponentials(x, c)
        sums = [(weights * V.diagonal(dim1=-2, dim2=-1)).sum(-1)[..., None, None] for V in (Y, Z)]
        value = value + 0.5 * _trace_factor(c, x.shape[-1]) * slopes * (sums[0] * Z + sums[1] * Y)
    return sym(Q @ sym(value) @ Q.mT)


def _along_in_eigenvectors(x: Tensor, Q: Tensor, others: tuple[Tensor, ...], c: Cometric) -> Tensor:
    E, Y = _rotated(Q, others)
    value = 2 * (_differences(x, c) * E.unsqueeze(-1) * Y.unsqueeze(-3)).sum(-2)
    if c.trace:
        weights, slopes = _exponentials(x, c)
        moved = slopes * E
        sums = (weights * Y.diagonal(dim1=-2, dim2=-1)).sum(-1)[..., None, None]
        along = torch.diag_embed((moved * Y).sum((-2, -1)).unsqueeze(-1) * weights)
        value = value + _trace_factor(c, x.shape[-1]) * (sums * moved + along)
    return sym(Q @ sym(value) @ Q.mT)


def _rotated(Q: Tensor, others: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(Q.mT @ V @ Q for V in others)


def _differences(x: Tensor, c: Cometric) -> Tensor:
    """c[x_i, x_k; x_j]. ``*B,n -> *B,n,n,n``, in the order i, k, j."""
    first, second, other = x[..., :, None, None], x[..., None, :, None], x[..., None, None, :]
    gap = first - second
    near = gap.abs() * max(1.0, c.width, abs(c.rate)) <= _NEAR
    table = c.value(x.unsqueeze(-1), x.unsqueeze(-2))
    quotient = (table.unsqueeze(-2) - table.unsqueeze(-3)) / torch.where(near, 1.0, gap)
    step = torch.where(near, gap, 0.0)
    mean = sum(weight * c.derivative(second + node * step, other) for node, weight in _GAUSS)
    return torch.where(near, mean, quotient)


def _exponentials(x: Tensor, c: Cometric) -> tuple[Tensor, Tensor]:
    """e^(-r x) and its divided differences."""
    weights = (-c.rate * x).exp()
    scaled = -c.rate * x
    return weights, -c.rate * EXP.divided_difference(scaled.unsqueeze(-1), scaled.unsqueeze(-2))


# ---- by polynomials -------------------------------------------------------------------------------------------

Ends = tuple[Tensor, Tensor]


def _raised_by_polynomials(X: Tensor, others: tuple[Tensor, ...], c: Cometric, ends: Ends) -> Tensor:
    (Y,) = others
    value = polynomial_map(X, Y, c, ends)
    if c.trace:
        B = polynomial_function(X, c.rate, ends)
        value = value + _trace_factor(c, X.shape[-1]) * (B * Y).sum((-2, -1), keepdim=True) * B
    return value


def _gradient_by_polynomials(X: Tensor, others: tuple[Tensor, ...], c: Cometric, ends: Ends) -> Tensor:
    Y, Z = others
    X = X.expand(torch.broadcast_shapes(X.shape, Y.shape, Z.shape))

    def energy(at: Tensor) -> Tensor:
        return 0.5 * (Y * _raised_by_polynomials(at, (Z,), c, ends)).sum((-2, -1))

    value, pull, *_ = torch.func.vjp(energy, X)
    return sym(pull(torch.ones_like(value))[0])


def _along_by_polynomials(X: Tensor, others: tuple[Tensor, ...], c: Cometric, ends: Ends) -> Tensor:
    E, Y = others
    X = X.expand(torch.broadcast_shapes(X.shape, E.shape, Y.shape))

    def pulled(by: Tensor) -> Tensor:  # linear in it: the derivative is the transpose of this map
        _, pull, *_ = torch.func.vjp(lambda at: _raised_by_polynomials(at, (Y,), c, ends), X)
        return pull(by)[0]

    return sym(torch.func.vjp(pulled, torch.zeros_like(X))[1](E)[0])
