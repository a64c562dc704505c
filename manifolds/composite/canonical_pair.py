"""The chart of positive semidefinite matrices of rank p: a subspace and a positive definite matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..chart import Chart, Linearized
from ..functional.low_rank import (
    aligned,
    clear_of_rounding,
    least_cosine,
    stays_aligned,
    stays_aligned_adjoint,
    top_block,
)
from ..functional.matrices import identity_like


def joined(U: Tensor, S: Tensor) -> Tensor:
    """U and S as one vector, broadcast over the batch. ``*B,n,p; *B,p,p -> *B,n*p+p*p``."""
    batch = torch.broadcast_shapes(U.shape[:-2], S.shape[:-2])
    return torch.cat([part.expand(batch + part.shape[-2:]).flatten(-2) for part in (U, S)], -1)


def apart(x: Tensor, n: int, p: int) -> tuple[Tensor, Tensor]:
    """U and S of one vector, as views where memory allows."""
    u, s = x.split([n * p, p * p], -1)
    return u.unflatten(-1, (n, p)), s.unflatten(-1, (p, p))


@dataclass(frozen=True, eq=False)
class CanonicalPair(Chart):
    """(U, S) -> (span U, S). Of the image the basis is free and S is not: it belongs to the canonical basis, into which
    `inverse` brings any other one."""

    n: int
    p: int

    def _apart(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return apart(x, self.n, self.p)

    def forward(self, x: Tensor) -> Tensor:
        """x itself."""
        return x

    def inverse(self, y: Tensor) -> Tensor:
        """The canonical basis of the span, and S."""
        Y, S = self._apart(y)
        return joined(aligned(Y)[0], S)

    def differential(self, x: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """x, and of the vectors the horizontal part ``(I - U U^T) U'``, beside S'."""
        U, _ = self._apart(x)
        parts = map(self._apart, vectors)
        return x, *(joined(u - U @ (U.mT @ u), s) for u, s in parts)

    def inverse_differential(self, y: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
        """`inverse`, and the velocities of the canonical pair."""
        Y, S = self._apart(y)
        U, W = aligned(Y)
        parts = map(self._apart, vectors)
        return joined(U, S), *(joined(stays_aligned(U, u @ W.mT), s) for u, s in parts)

    def inverse_adjoint(self, y: Tensor, g: Tensor) -> Tensor:
        """The transpose of that."""
        U, W = aligned(self._apart(y)[0])
        gU, gS = self._apart(g)
        return joined(stays_aligned_adjoint(U, gU) @ W, gS)

    def linearized(self, x: Tensor) -> Linearized:
        """At a point, whose basis is canonical."""
        U, _ = self._apart(x)

        def pull(v: Tensor) -> Tensor:
            u, s = self._apart(v)
            return joined(stays_aligned(U, u), s)

        def adjoint(g: Tensor) -> Tensor:
            u, s = self._apart(g)
            return joined(stays_aligned_adjoint(U, u), s)

        return Linearized(x, pull, adjoint)

    def inverse_is_defined(self, y: Tensor) -> Tensor:
        """Where the top block is not singular."""
        return clear_of_rounding(aligned(self._apart(y)[0])[0])


def check_matrix(where: str, name: str, x: object, shape: tuple[int, int]) -> None:
    """Raise ``ValueError`` unless x holds floating-point matrices of that shape."""
    if isinstance(x, Tensor) and x.is_floating_point() and tuple(x.shape[-2:]) == shape:
        return
    got = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
    raise ValueError(f"{where}: {name} must be a tensor *B,{shape[0]},{shape[1]} of floating-point numbers, got {got}")


# ---- membership -----------------------------------------------------------------------------------------------

Residual = tuple[Tensor, str]


def largest(*residuals: Residual) -> Residual:
    """The largest residual with its formula; NaN is larger than any."""
    return max(residuals, key=lambda r: math.inf if math.isnan(float(r[0])) else float(r[0]))


def basis_residuals(U: Tensor) -> tuple[Residual, ...]:
    """How far a basis is from a canonical one."""
    top = top_block(U)
    return (
        ((U.mT @ U - identity_like(U)).abs().amax(), "max|U^T U - I|"),
        ((top - top.mT).abs().amax(), "max|T - T^T| of the top block T of U"),
        (-least_cosine(U).amin().clamp(max=0.0), "-min eigenvalue of the top block of U"),
    )


def velocity_residuals(U: Tensor, moved: Tensor) -> tuple[Residual, ...]:
    """How far U' is from a velocity of the canonical basis U."""
    top, turn = top_block(moved), U.mT @ moved
    return (
        ((turn + turn.mT).abs().amax(), "max|U^T U' + U'^T U|"),
        ((top - top.mT).abs().amax(), "max|T - T^T| of the top block T of U'"),
    )


def singular_reason(U: Tensor) -> str | None:
    """Why a canonical basis is none that rounding leaves canonical, and what to do; or None."""
    if bool(clear_of_rounding(U).all()):
        return None
    return (
        f"the first {U.shape[-1]} rows of U are singular: min eigenvalue = {float(least_cosine(U).amin()):.2g}, so "
        "there is no canonical pair; permute the coordinates of the matrices, all alike, or call projx(x) for a "
        "point next to it"
    )
