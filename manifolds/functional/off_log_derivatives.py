r"""The correlation matrix C with ``off(log C) = H``, with derivatives in H.

With E, E2, E3 the derivatives of exp at ``log C = Q diag(a) Q^T`` and J as in `off_log`, the derivative of log C along
a hollow G is ``G^ = G - diag(J^-1 diag E[G])``: what it takes to leave the diagonal of C at one. So with
``R(X) = X - E[diag(J^-1 diag X)]``, which drops the diagonal,

    T1[G] = E[G^],    T2[G, K] = R(E2[G^, K^]),
    T3[G, K, L] = R(E3[G^, K^, L^] - E2[G^, diag(J^-1 diag E2[K^, L^])] - ... ),

the last term once for each of the three. C is a gradient, that of the minimum in `off_log`: all ``sum(T[G, ...] * K)``
are symmetric in all their arguments, so that a backward pass is a derivative again, and one `Function` is all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .matrices import identity_like, sym
from .off_log import diagonal_of_log, jacobian_inverse
from .spectral import first_derivative, function_at, second_derivative
from .spectral_functions import EXP
from .spectral_pushforward import derivative_at, sum_with_derivatives, third_derivative
from .tracing import bound_once, derivative_wanted, function_loses_graph, last_derivative, variation
from .triangular import diagonal

NO_FOURTH = "correlation matrices have three derivatives in their logarithms off the diagonal, not four"


def correlation_from_off(H: Tensor, *directions: Tensor) -> tuple[Tensor, ...]:
    """C and its derivatives along hollow `directions`, with what rounding leaves on the diagonals. ``*B,n,n`` each; NaN
    where H is not finite. The derivatives are differentiated twice; in compiled code once."""
    _, a, Q = diagonal_of_log(H.detach())
    if not directions and not derivative_wanted(H):
        return (_correlation(a, Q),)
    inverse = jacobian_inverse(a, Q)
    return tuple(_derivative(H, a, Q, inverse, *v) for v in ((), *((u,) for u in directions)))


def tangent_map(H: Tensor, a: Tensor, Q: Tensor) -> Callable[[Tensor], Tensor]:
    """T1 at H, for a known decomposition a, Q of log C, which has no derivative. Self-adjoint; it reads the symmetric
    part off the diagonal."""
    inverse = jacobian_inverse(a, Q)
    return lambda G: _derivative(H, a, Q, inverse, G)


def tangent_map_from_off(H: Tensor) -> Callable[[Tensor], Tensor]:
    """The same, of H alone."""
    return tangent_map(H, *diagonal_of_log(H.detach())[1:])


def _derivative(H: Tensor, a: Tensor, Q: Tensor, inverse: Tensor, *directions: Tensor) -> Tensor:
    """C, or T1 along one direction, which may have a larger batch."""
    directions = tuple(map(sym, directions))
    if torch.compiler.is_compiling():
        return _by_torch(H, a, Q, inverse, *directions)
    if not any(map(derivative_wanted, (H, *directions))):
        return _value(a, Q, inverse, *directions)
    batch = torch.broadcast_shapes(H.shape, *(v.shape for v in directions))
    tensors = [t.expand(batch) for t in (H, Q, inverse, *directions)]
    return _Derivative.apply(tensors[0], a.expand(batch[:-1]), *tensors[1:])  # type: ignore[return-value]


# ---- closed forms ---------------------------------------------------------------------------------------------


def _solved(inverse: Tensor, X: Tensor) -> Tensor:
    """diag(J^-1 diag X)."""
    return torch.diag_embed((inverse @ diagonal(X).unsqueeze(-1)).squeeze(-1))


def _correlation(a: Tensor, Q: Tensor) -> Tensor:
    """exp, of which small numbers off the diagonal keep their digits."""
    return sym((Q * a.expm1().unsqueeze(-2)) @ Q.mT) + identity_like(Q)


def _value(a: Tensor, Q: Tensor, inverse: Tensor, *directions: Tensor) -> Tensor:
    """C, T1, T2 or T3: as many directions, as many derivatives."""

    def E(X: Tensor) -> Tensor:
        return first_derivative(X, a, Q, EXP)

    def E2(X: Tensor, Y: Tensor) -> Tensor:
        return second_derivative(X, Y, a, Q, EXP)

    if not directions:
        return _correlation(a, Q)
    moved = [G - _solved(inverse, E(G)) for G in directions]
    if len(moved) == 1:
        return sym(E(moved[0]))
    if len(moved) == 2:
        curved = E2(*moved)
    else:
        one, two, three = moved
        curved = third_derivative(a, Q, one, two, three, EXP)
        for X, Y, Z in ((one, two, three), (two, three, one), (three, one, two)):
            curved = curved - E2(X, _solved(inverse, E2(Y, Z)))
    return sym(curved - E(_solved(inverse, curved)))


@bound_once
class _Derivative(Function):
    """`_value` as a function of H, which is not read, and the directions."""

    generate_vmap_rule = True

    @staticmethod
    def forward(H: Tensor, a: Tensor, Q: Tensor, inverse: Tensor, *directions: Tensor) -> Tensor:
        return _value(a, Q, inverse, *directions)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, K: Tensor) -> Any:
        parts, directions = ctx.saved_tensors[:4], ctx.saved_tensors[4:]
        if function_loses_graph(K) and len(directions) < 2:
            moving = parts[0], *directions
            pulled = torch.autograd.grad(_by_torch(*parts, *directions), moving, (K,), create_graph=True)
            return pulled[0], None, None, None, *pulled[1:]
        of_H, *of_directions = (ctx.needs_input_grad[i] for i in (0, *range(4, 4 + len(directions))))
        pulled = [
            _Derivative.apply(*parts, *directions[:i], K, *directions[i + 1 :]) if wanted else None
            for i, wanted in enumerate(of_directions)
        ]
        return _further(parts, (*directions, K), parts[0]) if of_H else None, None, None, None, *pulled

    @staticmethod
    def jvp(ctx: Any, dH: Tensor | None, _a: Any, _q: Any, _inverse: Any, *changes: Tensor | None) -> Any:
        parts, directions = ctx.saved_tensors[:4], ctx.saved_tensors[4:]
        moved = [
            _Derivative.apply(*parts, *directions[:i], d, *directions[i + 1 :])
            for i, d in enumerate(changes)
            if d is not None
        ]
        curved = None if dH is None else _further(parts, (*directions, dH), parts[0], *directions, dH)
        return sum_with_derivatives(curved, *moved)


def _further(parts: tuple[Tensor, ...], directions: tuple[Tensor, ...], *anchors: Tensor) -> Tensor:
    """The derivative of the next order; of the third one a further one in the anchors raises."""
    if len(directions) < 3:
        return _Derivative.apply(*parts, *directions)  # type: ignore[return-value]
    return last_derivative(_value(*parts[1:], *directions), NO_FOURTH, *anchors)


# ---- by operations of torch ---------------------------------------------------------------------------------------


def _by_torch(H: Tensor, a: Tensor, Q: Tensor, inverse: Tensor, *directions: Tensor) -> Tensor:
    """C or T1 by spectral functions, for compilers and an older vmap, which know no such Function.

    Newton's method from the solution, with a constant matrix J: the first step has the first derivative of a solution,
    the second the second one as well."""
    log, steps = (Q * a.unsqueeze(-2)) @ Q.mT + variation(H), range(2 if derivative_wanted(H) else 0)
    for _ in steps:
        log = log - _solved(inverse, variation(function_at(log, a, Q, EXP)))
    if not directions:
        return sym(function_at(log, a, Q, EXP))
    (G,) = directions
    moved = G - _solved(inverse, derivative_at(log, a, Q, G, EXP))
    for _ in steps:
        moved = moved - _solved(inverse, variation(derivative_at(log, a, Q, moved, EXP)))
    return sym(derivative_at(log, a, Q, moved, EXP))
