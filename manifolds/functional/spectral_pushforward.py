"""A spectral function with its derivatives along given directions, as results that are differentiated twice themselves.

The derivatives of ``D f(A)[V]`` in A are those of second and third order of f(A), the latter

    D^3 F[G,H,K] = Q (sum_kl f[a_i, a_k, a_l, a_j] sum_perm X'_ik Y'_kl Z'_lj) Q^T

with the inner sum over the six orders X, Y, Z of G, H, K (see `spectral` for the others).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .definite import inside_or_nan
from .elementary_functions import SmoothFunction
from .matrices import sym
from .spectral import (
    coefficients,
    coefficients_at,
    decomposed,
    differences,
    first_derivative,
    second_derivative,
    second_differences,
    spectral_function_of,
    symmetric_function,
    taylor_polynomials,
)
from .tracing import (
    bound_once,
    derivative_wanted,
    function_loses_graph,
    last_derivative,
    transforms_or_forward_mode,
    variation,
)

NO_FOURTH = "derivatives of spectral functions have first and second derivatives, not third ones"


def function_and_derivatives(
    A: Tensor, f: SmoothFunction, *directions: Tensor, definite: bool = False
) -> tuple[Tensor, ...]:
    """f(A), and D f(A)[V] for each V of `directions`, from one eigendecomposition. ``*B,n,n`` each.

    Twice differentiable; in compiled code the derivatives are once. Only symmetric parts are read. `definite`: NaN
    where A is not positive definite.
    """
    A = sym(A)
    directions = tuple(map(sym, directions))
    if torch.compiler.is_compiling() and transforms_or_forward_mode():
        A = inside_or_nan(A) if definite else A
        Q, _, first, second, scale = coefficients(A.detach(), f.key)
        value = taylor_polynomials(A, f.key)[0]
        return value, *(_derivative_by_taylor(A, Q, first, second, scale, v) for v in directions)
    A, a, Q = decomposed(A, f.positive_domain, definite)
    value = spectral_function_of(A, f, a, Q)
    shapes = {v.shape for v in directions}
    if len(directions) > 1 and len(shapes) == 1 and directions[0].dim() >= A.dim():
        # Side by side, and so are their derivatives.
        return value, *_pushed(A, a, Q, torch.stack(directions), f).unbind(0)
    return value, *(_pushed(A, a, Q, v, f) for v in directions)


def function_and_inverse(
    A: Tensor, f: SmoothFunction, inverse: SmoothFunction, definite: bool = False
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """f(A), and the inverse of D f(A), which is the derivative of the function `inverse` of f at f(A): a self-adjoint
    map. From one eigendecomposition, whose vectors are those of f(A) too. `definite`: NaN where A is not positive
    definite."""
    A = sym(A)
    if torch.compiler.is_compiling():
        value = symmetric_function(A, f, definite)
        return value, lambda w: function_and_derivatives(value, inverse, w)[1]
    A, a, Q = decomposed(A, f.positive_domain, definite)
    value = spectral_function_of(A, f, a, Q)
    return value, lambda w: _pushed(value, f.value(a), Q, sym(w), inverse)


def derivative_at(A: Tensor, a: Tensor, Q: Tensor, v: Tensor, f: SmoothFunction) -> Tensor:
    """D f(A)[V] of a symmetric A for a decomposition a, Q that is known, to more digits perhaps than A tells: a is
    monotone, and neither has a derivative. ``*B,n,n, *B,n, *B,n,n, *B,n,n -> *B,n,n``."""
    if torch.compiler.is_compiling() and transforms_or_forward_mode():
        _, first, second, scale = coefficients_at(a, f.key)
        return _derivative_by_taylor(A, Q, first, second, scale, sym(v))
    return _pushed(A, a, Q, sym(v), f)


def _pushed(A: Tensor, a: Tensor, Q: Tensor, v: Tensor, f: SmoothFunction) -> Tensor:
    batch = torch.broadcast_shapes(A.shape, v.shape)
    A, a, Q, v = A.expand(batch), a.expand(batch[:-1]), Q.expand(batch), v.expand(batch)
    if torch.compiler.is_compiling():
        return spectral_function_of.derivative(v, A, f, a, Q)
    if not (derivative_wanted(A) or derivative_wanted(v)):
        return first_derivative(v, a, Q, f)
    return _Pushed.apply(A, a, Q, v, f)  # type: ignore[return-value]


@bound_once
class _Sum(Function):
    """Of tensors, None standing for zero: by autograd's operations a `jvp`, in which forward mode is switched off,
    would lose the derivative of an outer level."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:
        return x + y

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> Any:
        return G, G

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        return sum_with_derivatives(*tangents)


def sum_with_derivatives(*terms: Tensor | None) -> Tensor:
    return functools.reduce(_Sum.apply, [t for t in terms if t is not None])  # type: ignore[arg-type]


@bound_once
class _Pushed(Function):
    """The self-adjoint map V -> D F[sym V] as a function of A and V."""

    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor, a: Tensor, Q: Tensor, V: Tensor, f: SmoothFunction) -> Tensor:
        return first_derivative(V, a, Q, f)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.save_for_forward(*inputs[:4])
        ctx.f = inputs[4]

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> Any:
        A, a, Q, V = ctx.saved_tensors
        if function_loses_graph(G):
            value = _pushed_taylor(A, a, Q, V, ctx.f)
            in_A, in_V = torch.autograd.grad(value, (A, V), (G,), create_graph=True)
            return in_A, None, None, in_V, None
        in_A = _Curved.apply(A, a, Q, V, G, ctx.f) if ctx.needs_input_grad[0] else None
        return in_A, None, None, _Pushed.apply(A, a, Q, G, ctx.f), None

    @staticmethod
    def jvp(ctx: Any, dA: Tensor | None, _a: Any, _q: Any, dV: Tensor | None, _f: Any) -> Any:
        A, a, Q, V = ctx.saved_tensors
        curved = None if dA is None else _Curved.apply(A, a, Q, V, dA, ctx.f)
        return sum_with_derivatives(curved, None if dV is None else _Pushed.apply(A, a, Q, dV, ctx.f))


@bound_once
class _Curved(Function):
    """D^2 F[sym G, sym H] as a function of A, G and H."""

    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor, a: Tensor, Q: Tensor, G: Tensor, H: Tensor, f: SmoothFunction) -> Tensor:
        return second_derivative(G, H, a, Q, f)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:5])
        ctx.save_for_forward(*inputs[:5])
        ctx.f = inputs[5]

    @staticmethod
    def backward(ctx: Any, K: Tensor) -> Any:
        A, a, Q, G, H = ctx.saved_tensors
        curved = last_derivative(third_derivative(a, Q, G, H, K, ctx.f), NO_FOURTH, A)
        in_G, in_H = (_Curved.apply(A, a, Q, other, K, ctx.f) for other in (H, G))
        return curved, None, None, in_G, in_H, None

    @staticmethod
    def jvp(ctx: Any, dA: Tensor | None, _a: Any, _q: Any, dG: Tensor | None, dH: Tensor | None, _f: Any) -> Any:
        A, a, Q, G, H = ctx.saved_tensors
        third = None if dA is None else last_derivative(third_derivative(a, Q, G, H, dA, ctx.f), NO_FOURTH, A, G, H, dA)
        moved = [_Curved.apply(A, a, Q, d, other, ctx.f) for d, other in ((dG, H), (dH, G)) if d is not None]
        return sum_with_derivatives(third, *moved)


def _contracted(a: Tensor, f: SmoothFunction, triples: Iterable[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """sum_kl f[a_i, a_k, a_l, a_j] X_ik Y_kl Z_lj, added up over the triples X, Y, Z."""
    triples = list(triples)
    total = torch.zeros_like(triples[0][0])
    for k in range(a.shape[-1]):  # n^4 numbers at once would be too many
        points = a[..., :, None, None], a[..., k, None, None, None], a[..., None, :, None], a[..., None, None, :]
        products = [x[..., :, k, None, None] * y[..., None, k, :, None] * z.unsqueeze(-3) for x, y, z in triples]
        total = total + (f.third_divided_difference(*points) * torch.stack(products).sum(0)).sum(-2)
    return total


def third_derivative(a: Tensor, Q: Tensor, G: Tensor, H: Tensor, K: Tensor, f: SmoothFunction) -> Tensor:
    """D^3 F[sym G, sym H, sym K]."""
    rotated = [Q.mT @ sym(m) @ Q for m in (G, H, K)]
    orders = [(rotated[i], rotated[j], rotated[k]) for i, j, k in itertools.permutations(range(3))]
    return Q @ _contracted(a, f, orders) @ Q.mT


def _pushed_taylor(A: Tensor, a: Tensor, Q: Tensor, V: Tensor, f: SmoothFunction) -> Tensor:
    """D F[V] to second order around A, by operations of torch alone (see `spectral.taylor_polynomials`)."""
    first = differences(f, a)
    (second,) = second_differences(a, [f], [first])
    e, w = Q.mT @ variation(A) @ Q, Q.mT @ sym(V) @ Q
    pairs = e.unsqueeze(-1) * w.unsqueeze(-3) + w.unsqueeze(-1) * e.unsqueeze(-3)
    third = _contracted(a, f, ((e, e, w), (e, w, e), (w, e, e)))
    return Q @ (first * w + (second * pairs).sum(-2) + third) @ Q.mT


def _derivative_by_taylor(A: Tensor, Q: Tensor, first: Tensor, second: Tensor, scale: Tensor, v: Tensor) -> Tensor:
    """Of first order around A, whose value is that at A: see `spectral.taylor_polynomials`."""
    first, second = first.squeeze(-3), second.squeeze(-4)
    e, w = Q.mT @ variation(A) @ Q / scale, Q.mT @ v @ Q / scale
    pairs = e.unsqueeze(-1) * w.unsqueeze(-3) + w.unsqueeze(-1) * e.unsqueeze(-3)
    return Q @ (first * w + (second * pairs).sum(-2)) @ Q.mT
