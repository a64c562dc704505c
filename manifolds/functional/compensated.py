r"""The conformal gap of a point of a ball, which measures how near it is to the rim, in twice the digits.

(Dekker 1971, doi 10.1007/BF01397083, for the product with its error; Rump, Ogita and Oishi 2008,
doi 10.1137/050645671, for sums of leading bits without rounding.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from .tracing import derivative_wanted, eager_without_derivative, values_readable

_BLOCK = 65536  # entries that are widened at a time: what a cache holds


def _halves(a: Tensor) -> tuple[Tensor, Tensor]:
    # The leading half of the bits: products of halves are exact.
    bits = {torch.float64: 27, torch.float32: 12}[a.dtype]
    t = (2.0**bits + 1) * a
    high = t - (t - a)
    return high, a - high


def two_product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """p = fl(a b) and e with p + e = a b exactly, short of overflow and underflow."""
    p = a * b
    a_high, a_low = _halves(a)
    b_high, b_low = (a_high, a_low) if b is a else _halves(b)
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


def _wide_square(x: Tensor) -> Tensor:
    """|x|^2 of single precision in double. A double copy of all of x would cost twice the time of blocks of it."""
    if not values_readable(x):
        return x.double().square().sum(-1, keepdim=True)
    if x.numel() <= _BLOCK:
        return torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float64).square_()
    rows = x.reshape(-1, x.shape[-1])
    blocks = rows.split(max(1, _BLOCK // max(1, x.shape[-1])))
    lengths = [torch.linalg.vector_norm(b, dim=-1, keepdim=True, dtype=torch.float64) for b in blocks]
    return torch.cat(lengths).square_().reshape(*x.shape[:-1], 1)


def _double_square(x: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
    """|x|^2 as a sum of two numbers, for |x|^2 up to `bound`, a power of two: the leading bits of the squares, all
    multiples of the last bit of `bound`, add up without rounding."""
    p, e = two_product(x, x)
    leading = (p + bound) - bound
    return leading.sum(-1, keepdim=True), ((p - leading) + e).sum(-1, keepdim=True)


def accurate_gap(x: Tensor, K: float | Tensor) -> Tensor:
    """The value of `conformal_gap`, as a constant."""
    if x.dtype != torch.float64:
        wide = _wide_square(x)
        gap = 1 + K.double() * wide if isinstance(K, Tensor) else torch.rsub(wide, 1, alpha=-K)
        return gap.to(x.dtype)
    K = torch.as_tensor(K, dtype=torch.float64, device=x.device)
    bound = torch.exp2(torch.ceil(-torch.log2(K.abs())))  # 1/|K| or up to twice that
    high, low = _double_square(x, torch.where(K == 0, 1.0, bound))
    product, error = two_product(K, high)
    return (1 + product) + (error + K * low)


def conformal_gap(x: Tensor, K: float | Tensor, sign: int = 0) -> Tensor:
    r"""1 + K |x|^2 to a few eps of itself, however near x is to the rim of the ball |x| < 1/sqrt(-K). ``-> *B,1``.

    The value is computed with twice the digits; derivatives are those of the polynomial, of which the rounding knows
    nothing. For K > 0 (`sign` 1) nothing cancels and one precision is enough.
    """
    fixed = K.detach() if isinstance(K, Tensor) else K
    plainly = eager_without_derivative(x) and not (isinstance(K, Tensor) and derivative_wanted(K))
    if plainly and sign <= 0:
        return accurate_gap(x, fixed)
    plain = 1 + K * (x * x).sum(-1, keepdim=True)
    return plain if sign > 0 else plain + (accurate_gap(x.detach(), fixed) - plain.detach())
