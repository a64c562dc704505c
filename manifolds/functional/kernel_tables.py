"""Tables of a kernel (`Cometric`) at eigenvalues, which have no derivative: each one operation to a compiler."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .kernel_cometric import Cometric
from .operators import Operand, define
from .tracing import values_readable

# Two eigenvalues at most this far apart, in units of the scale of c, take four nodes of Gauss, which leave 1e-18; the
# others a quotient, which loses a digit.
_NEAR = 0.2
_GAUSS = (
    (0.06943184420297371, 0.17392742256872692),
    (0.33000947820757187, 0.32607257743127307),
    (0.6699905217924281, 0.32607257743127307),
    (0.9305681557970263, 0.17392742256872692),
)


def kernel_values(x: Tensor, c: Cometric) -> Tensor:
    """c(x_i, x_j). ``*B,n -> *B,n,n``."""
    return c.value(x.unsqueeze(-1), x.unsqueeze(-2)) if values_readable(x) else _values_operator(x, c.key)


def kernel_differences(x: Tensor, c: Cometric) -> Tensor:
    """c[x_i, x_k; x_j], the divided difference in the first argument. ``*B,n -> *B,n,n,n``, in the order i, k, j."""
    return _differences(x, c) if values_readable(x) else _differences_operator(x, c.key)


def kernel_coefficients(center: Tensor, half: Tensor, c: Cometric, degree: int) -> Tensor:
    """A with ``c(x, y) = sum_kl A_kl T_k(x) T_l(y)`` in Chebyshev's polynomials of the interval with that center and
    half of its length. ``*B -> *B,d+1,d+1``."""
    if values_readable(center):
        return _coefficients(center, half, c, degree)
    return _coefficients_operator(center, half, c.key, degree)


def exponential_coefficients(center: Tensor, half: Tensor, rate: float, degree: int) -> Tensor:
    """Those of e^(-r x). ``*B -> *B,d+1``."""
    angles = _angles(center, degree)
    nodes = center.unsqueeze(-1) + half.unsqueeze(-1) * angles.cos()
    return (-rate * nodes).exp() @ _transform(angles)


def _differences(x: Tensor, c: Cometric) -> Tensor:
    first, second, other = x[..., :, None, None], x[..., None, :, None], x[..., None, None, :]
    gap = first - second
    near = gap.abs() * max(1.0, c.width, abs(c.rate)) <= _NEAR
    table = c.value(x.unsqueeze(-1), x.unsqueeze(-2))
    at_second = table.unsqueeze(-3)
    quotient = (table.unsqueeze(-2) - at_second) / torch.where(near, 1.0, gap)
    step = torch.where(near, gap, 0.0)
    # log c changes by q times the step, c by the factor e^(q step).
    q = sum(weight * c.exponent_derivative(second + node * step - other) for node, weight in _GAUSS) - c.rate
    change = q * step + torch.finfo(x.dtype).tiny  # the number is for the limit
    return torch.where(near, at_second * q * (change.expm1() / change), quotient)


def _coefficients(center: Tensor, half: Tensor, c: Cometric, degree: int) -> Tensor:
    angles = _angles(center, degree)
    nodes = center.unsqueeze(-1) + half.unsqueeze(-1) * angles.cos()
    transform = _transform(angles)
    return transform.mT @ c.value(nodes.unsqueeze(-1), nodes.unsqueeze(-2)) @ transform


def _angles(like: Tensor, degree: int) -> Tensor:
    steps = torch.arange(degree + 1, dtype=like.dtype, device=like.device)
    return (steps + 0.5) * (math.pi / (degree + 1))


def _transform(angles: Tensor) -> Tensor:
    """From values at the nodes, the cosines of `angles`, to the coefficients of the interpolating polynomial."""
    count = len(angles)
    k = torch.arange(count, dtype=angles.dtype, device=angles.device)
    return (angles.unsqueeze(-1) * k).cos() * torch.where(k == 0, 1.0, 2.0) / count


def _defined(
    name: str, plain: Callable[[Tensor, Cometric], Tensor], dimensions: int
) -> Callable[[Tensor, str], Tensor]:
    def shape(x: Tensor, key: str) -> Tensor:
        return x.new_empty((*x.shape[:-1], *[x.shape[-1]] * dimensions))

    run = lambda x, key: plain(x, Cometric.named(key))  # noqa: E731
    return define(name, run, (Operand("eigenvalues", 1),), shape, numbers={"kernel": str})


_values_operator = _defined("kernel_values", kernel_values, 2)
_differences_operator = _defined("kernel_differences", _differences, 3)
_coefficients_operator = define(
    "kernel_coefficients",
    lambda center, half, key, degree: _coefficients(center, half, Cometric.named(key), degree),
    (Operand("center", 0), Operand("half", 0)),
    lambda center, half, key, degree: center.new_empty((*center.shape, degree + 1, degree + 1)),
    numbers={"kernel": str, "degree": int},
)
