r"""Geodesics of kernel metrics of symmetric matrices.

With the cometric C_X of `kernel_map` and ``H(X, Y) = 1/2 <Y, C_X Y>`` they solve Hamilton's equations ``X' = C_X Y``,
``Y' = -dH/dX``.
"""

from __future__ import annotations

from torch import Tensor

from .kernel_cometric import Cometric
from .kernel_map import hamiltonian_gradient, lowered, raised, raised_along


def spray(X: Tensor, W: Tensor, c: Cometric) -> Tensor:
    """X'' of the geodesic through X with the velocity W, quadratic in W. ``*B,n,n``."""
    Y = lowered(X, W, c)
    return raised_along(X, W, Y, c) - raised(X, hamiltonian_gradient(X, Y, c), c)


def christoffel(X: Tensor, V: Tensor, W: Tensor, c: Cometric) -> Tensor:
    """Gamma(V, W) of the Levi-Civita connection ``D_V W = dW(V) + Gamma(V, W)``, symmetric and bilinear; `spray` is
    ``-Gamma(W, W)``. ``*B,n,n``."""
    Y, Z = lowered(X, V, c), lowered(X, W, c)
    turned = raised_along(X, V, Z, c) + raised_along(X, W, Y, c)
    return raised(X, hamiltonian_gradient(X, Y, c, Z), c) - 0.5 * turned
