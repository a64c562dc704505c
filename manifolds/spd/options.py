"""Options of the metrics: powers, and the products of symmetric matrices that are invariant under rotations,
``alpha tr(X Y) + beta tr X tr Y``."""

from __future__ import annotations

from torch import Tensor

from ..functional.matrices import scaled_parts
from ..functional.tracing import values_at_hand
from ..options import check_finite, is_finite_number


def check_power(owner: str, power: float) -> None:
    """Raise unless `power` is a finite number and not zero."""
    if not is_finite_number(power) or power == 0:
        raise ValueError(f"{owner}: power must be a finite number and not 0, got {power!r}")


def check_learned_power(owner: str, power: float | Tensor) -> None:
    """As `check_power`, or a tensor of such a number, which may be learned: on an accelerator it is not looked at."""
    if not isinstance(power, Tensor):
        check_power(owner, power)
    elif power.dim() or not power.is_floating_point():
        raise ValueError(
            f"{owner}: power must be a number, or a floating-point tensor without dimensions, got {power.dtype} of the "
            f"shape {tuple(power.shape)}"
        )
    elif values_at_hand(power) and not power.requires_grad:
        check_power(owner, float(power))


def check_product(owner: str, alpha: float, beta: float) -> None:
    """Raise unless `alpha` and `beta` are finite numbers, and `alpha` is positive."""
    check_finite(owner, alpha=alpha, beta=beta)
    if not alpha > 0:
        raise ValueError(f"{owner}: alpha must be positive, got {alpha!r}")


def product_complaint(alpha: float, beta: float, n: int) -> str | None:
    """Why the product of n x n matrices is none, or None: of the identity by itself it is n (alpha + n beta)."""
    if beta > -alpha / n:
        return None
    return f"beta must be above -alpha/n = {-alpha / n:.4g} for {n} x {n} matrices, got {beta!r}"


def to_frobenius(X: Tensor, alpha: float, beta: float) -> Tensor:
    """phi(X) with ``|phi(X)|^2 = alpha |X|^2 + beta (tr X)^2``: sqrt(alpha) times the traceless part,
    sqrt(alpha + n beta) times the multiple of the identity. Self-adjoint."""
    return scaled_parts(X, alpha**0.5, (alpha + X.shape[-1] * beta) ** 0.5)


def from_frobenius(Y: Tensor, alpha: float, beta: float) -> Tensor:
    """The inverse of `to_frobenius`."""
    return scaled_parts(Y, alpha**-0.5, (alpha + Y.shape[-1] * beta) ** -0.5)
