"""Options of the metrics: powers, and the products of symmetric matrices that are invariant under rotations,
``alpha tr(X Y) + beta tr X tr Y``."""

from __future__ import annotations

from torch import Tensor

from ..functional.matrices import scaled_parts
from ..options import check_finite, is_finite_number


def check_power(owner: str, power: float) -> None:
    """Raise unless `power` is a finite number and not zero."""
    if not is_finite_number(power) or power == 0:
        raise ValueError(f"{owner}: power must be a finite number and not 0, got {power!r}")


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
