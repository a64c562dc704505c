r"""A retraction of symmetric matrices with a kernel metric, of second order and for vectors of any length.

    R_X(U) = X + U - N(U),    N(U) = 1/2 Gamma(U, U)/(1 + q),    q = |Gamma(U, U)|^2/(4 |U|^2)

in Frobenius norms. The geodesic is ``X + U - 1/2 Gamma(U, U)`` up to third order, which a long vector would send back
and far away; here ``|N| <= |U|/2``. N is three times continuously differentiable at U = 0, where q is set to zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .kernel_cometric import Cometric
from .kernel_flow import christoffel
from .matrices import sym, symmetric_from_vector, symmetric_vector
from .operators import Operand, define
from .series import safe_norm
from .tracing import derivative_wanted_of_items, values_readable

_ROUNDS = 30


def kernel_retraction(X: Tensor, U: Tensor, c: Cometric) -> Tensor:
    """R_X(U). ``*B,n,n``."""
    U = sym(U)
    return X + U - _bent(U, christoffel(X, U, U, c))


def _bent(U: Tensor, gamma: Tensor) -> Tensor:
    """N(U)."""
    size = safe_norm(U, (-2, -1), keepdim=True)
    ratio = 0.5 * safe_norm(gamma, (-2, -1), keepdim=True) / torch.where(size > 0, size, 1.0)
    return 0.5 * gamma / (1 + ratio.square())


def inverse_kernel_retraction(X: Tensor, Y: Tensor, c: Cometric) -> Tensor:
    """The U with ``R_X(U) = Y`` that Newton's method finds from Y - X; NaN where it finds none. ``*B,n,n``."""
    X, Y = (m.contiguous() for m in torch.broadcast_tensors(sym(X), sym(Y)))
    plain = X.detach(), Y.detach()
    U, inverse = _search(*plain, c) if values_readable(X) and values_readable(Y) else _operator(*plain, c.key)
    if derivative_wanted_of_items(X) or derivative_wanted_of_items(Y):
        # Of the equation with a constant inverse of its derivative: each step makes one more derivative right.
        for _ in range(2):
            U = U - _solved(inverse, kernel_retraction(X, U, c) - Y)
    return U


def _solved(inverse: Tensor, residual: Tensor) -> Tensor:
    return symmetric_from_vector((inverse @ symmetric_vector(residual).unsqueeze(-1)).squeeze(-1))


def _search(X: Tensor, Y: Tensor, c: Cometric) -> tuple[Tensor, Tensor]:
    """U, and the inverse of the derivative of R_X there in the coordinates of `symmetric_vector`. ``*B,n,n``."""
    U = Y - X
    tolerance = 16 * torch.finfo(X.dtype).eps * (1 + X.flatten(-2).norm(dim=-1) + U.flatten(-2).norm(dim=-1))
    inverse, found = _inverse_derivative(X, U, c), torch.zeros_like(tolerance, dtype=torch.bool)
    size = torch.full_like(tolerance, torch.inf)
    for _ in range(_ROUNDS):
        step = _solved(inverse, kernel_retraction(X, U, c) - Y)
        size = step.flatten(-2).norm(dim=-1)
        U = torch.where(found[..., None, None], U, U - step)
        found = found | (size <= tolerance)
        inverse = _inverse_derivative(X, U, c)
        if bool((found | size.isnan()).all()):
            break
    return torch.where(found[..., None, None], U, torch.nan), inverse


def _inverse_derivative(X: Tensor, U: Tensor, c: Cometric) -> Tensor:
    d = U.shape[-1] * (U.shape[-1] + 1) // 2
    basis = symmetric_from_vector(torch.eye(d, dtype=U.dtype, device=U.device))
    gamma = christoffel(X, U, U, c).unsqueeze(-3)
    moved = christoffel(X.unsqueeze(-3), U.unsqueeze(-3), basis, c)
    square = U.square().sum((-2, -1), keepdim=True).unsqueeze(-3)
    square = torch.where(square > 0, square, 1.0)
    q = gamma.square().sum((-2, -1), keepdim=True) / (4 * square)
    change = (gamma * moved).sum((-2, -1), keepdim=True) / square
    change = change - 2 * q * (U.unsqueeze(-3) * basis).sum((-2, -1), keepdim=True) / square
    bent = moved / (1 + q) - 0.5 * gamma * change / (1 + q).square()
    derivative = symmetric_vector(basis - bent).mT
    return torch.linalg.inv_ex(derivative)[0]


def _shapes(X: Tensor, Y: Tensor, key: str) -> tuple[Tensor, Tensor]:
    d = X.shape[-1] * (X.shape[-1] + 1) // 2
    return X.new_empty(X.shape), X.new_empty((*X.shape[:-2], d, d))


_operator = define(
    "inverse_kernel_retraction",
    lambda X, Y, key: _search(X, Y, Cometric.named(key)),
    (Operand("start", 2), Operand("end", 2)),
    _shapes,
    numbers={"kernel": str},
    count=2,
)
