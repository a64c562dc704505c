r"""Kernel metrics of symmetric matrices X beyond their geodesics: frames, Hessians, curvature. See `kernel_map`.

The metric is the square of a frame. With c^t the kernel to a power and P the map that multiplies the multiples of the
identity by ``(1 + n b)^(-1/2)``, the cometric is L L^T, ``L = c^(1/2) P``: coordinates z of a vector L z are
orthonormal."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .kernel_cometric import Cometric
from .kernel_expansion import Ends, expanded_map
from .kernel_flow import christoffel
from .kernel_map import eigh, hamiltonian_gradient, lowered, raised, raised_along, raised_at
from .matrices import scaled_parts, sym


def to_frame(X: Tensor, W: Tensor, c: Cometric) -> Tensor:
    """L^-1 W: the squared length of W is ``|L^-1 W|^2``. ``*B,n,n``."""
    return scaled_parts(raised(X, W, c.to_power(-0.5)), 1.0, (1 + X.shape[-1] * c.trace) ** 0.5)


def to_frame_at(x: Tensor, Q: Tensor, W: Tensor, c: Cometric) -> Tensor:
    """`to_frame` at Q diag(x) Q^T, of symmetric W; no derivative in x and Q."""
    return scaled_parts(raised_at(x, Q, W, c.to_power(-0.5)), 1.0, (1 + x.shape[-1] * c.trace) ** 0.5)


def from_frame(X: Tensor, Z: Tensor, c: Cometric) -> Tensor:
    """L Z. ``*B,n,n``."""
    return raised(X, scaled_parts(Z, 1.0, (1 + X.shape[-1] * c.trace) ** -0.5), c.to_power(0.5))


def kernel_hessian(X: Tensor, g: Tensor, h: Tensor, U: Tensor, c: Cometric) -> Tensor:
    """The Hessian along U of a function with the Euclidean gradient g and the derivative h of that along U, as a
    vector: the cometric of h, less that of ``V -> <g, Gamma(U, V)>``. ``*B,n,n``."""
    Y, gradient = lowered(X, U, c), raised(X, g, c)
    turned = raised_along(X, U, g, c) - raised_along(X, gradient, Y, c)
    return raised(X, sym(h) + hamiltonian_gradient(X, g, c, Y), c) + 0.5 * turned


def kernel_curvature(X: Tensor, U: Tensor, V: Tensor, c: Cometric) -> Tensor:
    r"""The sectional curvature of the plane of the orthonormal U and V. ``*B,n,n -> *B``.

    With the metric ``g_X``, and vectors that are constant in these coordinates,

        K = D^2 g[U, V](U, V) - 1/2 D^2 g[U, U](V, V) - 1/2 D^2 g[V, V](U, U) + |Gamma(U, V)|^2 - <Gamma(U, U),
        Gamma(V, V)>.

    The second derivatives are those of `kernel_expansion`, exact to rounding.
    """
    metric, (x, _) = c.inverse(X.shape[-1]), eigh(X)
    ends = x[..., 0], x[..., -1]
    bent = _second(X, U, V, U, V, metric, ends)
    bent = bent - 0.5 * (_second(X, U, U, V, V, metric, ends) + _second(X, V, V, U, U, metric, ends))
    across = to_frame(X, christoffel(X, U, V, c), c).square()
    along = to_frame(X, christoffel(X, U, U, c), c) * to_frame(X, christoffel(X, V, V, c), c)
    return bent + (across - along).sum((-2, -1))


def _second(X: Tensor, E: Tensor, F: Tensor, U: Tensor, V: Tensor, c: Cometric, ends: Ends) -> Tensor:
    """The derivative of <U, map of V> in X along E and F. By reverse mode alone: torch's own forward mode does not
    nest."""

    def pulled(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
        value, pull, *_ = torch.func.vjp(function, at)
        return pull(torch.ones_like(value))[0]

    def along(at: Tensor) -> Tensor:
        return (pulled(lambda X: (U * expanded_map(X, V, c, ends)).sum((-2, -1)), at) * E).sum((-2, -1))

    return (pulled(along, X) * F).sum((-2, -1))
