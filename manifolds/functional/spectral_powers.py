r"""Powers with an exponent for each matrix, and moments of logarithms, of positive definite matrices A = Q diag(a) Q^T
of which the decomposition is known.

With G' = Q^T G Q the derivatives of A^t are

    grad_A = Q (x^t[a_i, a_j] * G') Q^T,    x^t[m, M] = max(m^t, M^t) sign(t) (1 - (M/m)^(-|t|)) / (M - m),
    grad_t = sum_i G'_ii a_i^t log a_i,

and those of sum (log a)^2 and sum log a are Q diag(2 log(a)/a) Q^T and Q diag(1/a) Q^T. a and Q count as known of A:
they get no derivative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .matrices import sym
from .spectral import function_at
from .spectral_functions import EXP, LOG
from .tracing import derivative_wanted


def power_at(A: Tensor, a: Tensor, Q: Tensor, t: Tensor) -> Tensor:
    """A^t. ``*B,n,n; *B,n; *B,n,n; *B -> *B,n,n``."""
    t = t.unsqueeze(-1)
    if not (derivative_wanted(A) or derivative_wanted(t)):
        return _rebuilt(a**t, Q)
    logarithm = t.unsqueeze(-1) * function_at(A, a, Q, LOG)
    return function_at(logarithm, (t * a.log()).detach(), Q, EXP)


def power_at_backward(G: Tensor, A: Tensor, a: Tensor, Q: Tensor, t: Tensor) -> tuple[Tensor, ...]:
    """The gradients of `power_at`."""
    logarithms = a.log()
    powers = (t.unsqueeze(-1) * logarithms).exp()
    inner = Q.mT @ sym(G) @ Q
    of_t = (inner.diagonal(dim1=-2, dim2=-1) * powers * logarithms).sum(-1)
    return Q @ (_differences(a, powers, t) * inner) @ Q.mT, torch.zeros_like(a), torch.zeros_like(Q), of_t


def _differences(a: Tensor, powers: Tensor, t: Tensor) -> Tensor:
    """x^t[a_i, a_j] to rounding, of a and their powers. ``*B,n; *B,n; *B -> *B,n,n``."""
    t = t[..., None, None]
    low = torch.minimum(a.unsqueeze(-1), a.unsqueeze(-2))
    # What is added to the gap rounding takes away, unless it is zero and the quotient needs its limit.
    gap = torch.add((a.unsqueeze(-1) - a.unsqueeze(-2)).abs(), low, alpha=torch.finfo(a.dtype).eps ** 3)
    change = torch.expm1(-t.abs() * (gap / low).log1p()) / gap
    return -t.sign() * torch.maximum(powers.unsqueeze(-1), powers.unsqueeze(-2)) * change


def log_moments_at(A: Tensor, a: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    """sum (log a)^2 and sum log a. ``*B,n,n; *B,n; *B,n,n -> *B`` each."""
    if not derivative_wanted(A):
        logarithms = a.log()
        return logarithms.square().sum(-1), logarithms.sum(-1)
    S = function_at(A, a, Q, LOG)
    return S.square().sum((-2, -1)), S.diagonal(dim1=-2, dim2=-1).sum(-1)


def log_moments_at_backward(g: Tensor, h: Tensor, A: Tensor, a: Tensor, Q: Tensor) -> tuple[Tensor, ...]:
    """The gradients of `log_moments_at`."""
    slopes = (2 * g.unsqueeze(-1) * a.log() + h.unsqueeze(-1)) / a
    return _rebuilt(slopes, Q), torch.zeros_like(a), torch.zeros_like(Q)


def _rebuilt(values: Tensor, Q: Tensor) -> Tensor:
    """Q diag(values) Q^T."""
    return (Q * values.unsqueeze(-2)) @ Q.mT
