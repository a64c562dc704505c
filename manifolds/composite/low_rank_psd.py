"""Positive semidefinite matrices of fixed rank: a subspace and a positive definite matrix on it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ..frames import Grassmann
from ..functional.frames import newton_schulz_step
from ..functional.low_rank import aligned, clear_of_rounding, leading_eigenspace, lifted_top, off_the_rim
from ..functional.matrices import congruent, identity_like, sym
from ..functional.nearest_frame import nearest_frame
from ..gyro import is_gyro
from ..operation import in_full_precision, operation
from ..precision import widen
from ..pullback_metric import PullbackMetric
from ..spd import SPD, SPDAffineInvariant
from .canonical_pair import (
    CanonicalPair,
    apart,
    basis_residuals,
    check_matrix,
    joined,
    largest,
    singular_reason,
    velocity_residuals,
)
from .product import Product
from .scaled import Scaled


@final
@dataclass(frozen=True, eq=False)
class LowRankPSD(PullbackMetric):
    r"""Positive semidefinite matrices ``X = U S U^T`` of size n and rank p, by their range and what they are on it:

        dist^2 = dist_Grassmann(span U, span V)^2 + weight dist_spd(S, R)^2

    A point is one vector ``*B,n*p+p*p``: the entries of U, an orthonormal basis, and of S, symmetric positive definite,
    in the *canonical* pair of X, of which the first p rows of U, its top block, are symmetric positive definite too.
    `split` gives the pair, `to_matrix` X; `join` makes a point of any pair, `from_matrix` of any matrix. The dimension
    is np - p(p-1)/2. Tangent vectors are velocities (U', S') of the canonical pair.

    Geodesics, transports, curvature and means are those of the product of `Grassmann` and ``Scaled(spd,
    sqrt(weight))``; the injectivity radius is the smaller of the two, pi/2 where `spd` is complete and p < n. For p = n
    it is the scaled `spd`.

    **Not every matrix has a canonical pair.** Where the top block is singular, the range holds a vector that is zero in
    the first p coordinates, and the pair is not unique: these matrices are no points. They have measure zero; where
    they matter, permute the coordinates. A geodesic of the product may pass such a range, and comes out with another
    canonical basis behind it: distances and S go on, X jumps. `exp_is_defined` is False where the end is one; there
    `expmap` is one of the pairs, and `retr` a point next to it.

    The gyro structure, where `spd` has one, is that of the product too: ``(U, S) (+) (V, R)`` is the canonical pair of
    the subspace ``span U (+) span V`` with ``S (+) R``. It belongs to pairs, not to a quotient of matrices.

    The distance is invariant under congruence of X by O(p) x O(n-p), which rotates the first p and the other
    coordinates, if that of `spd` is by O(p); not by O(n), since S belongs to a basis that the axes define.

    Source: Nguyen 2022, "A Gyrovector Space Approach for Symmetric Positive Semi-definite Matrix Learning" (ECCV);
    Nguyen, Yang and Histace 2024, arXiv:2405.19206. Bonnabel and Sepulchre 2009, arXiv:0807.4462, have the same two
    factors, but align the bases of two points with each other and not with the axes.

    Args:
        n: the size of the matrices.
        p: their rank, from 1 to n.
        spd: the metric of S.
        weight: of its squared distance, positive; a number or a 0-dim tensor, which may be learned.

    Raises ``ValueError`` if these are not what they should be.
    """

    n: int
    p: int
    spd: SPD = dataclasses.field(default_factory=SPDAffineInvariant)
    weight: float | Tensor = 1.0

    ndim: ClassVar[int] = 1
    name: ClassVar[str] = "LowRankPSD"

    def __post_init__(self) -> None:
        for name, size in (("n", self.n), ("p", self.p)):
            if not isinstance(size, int) or isinstance(size, bool):
                raise ValueError(f"LowRankPSD: {name} must be an integer, got {size!r}")
        if not 1 <= self.p <= self.n:
            raise ValueError(f"LowRankPSD: the rank p must be from 1 to n = {self.n}, got {self.p}")
        self._check_metric()

    def _check_metric(self) -> None:
        if not isinstance(self.spd, SPD):
            raise ValueError(f"LowRankPSD: spd must be a metric such as SPDAffineInvariant(), got {self.spd!r}")
        reason = self.spd._shape_complaint((self.p, self.p))
        if reason is not None:
            raise ValueError(f"LowRankPSD: spd has no matrices of size p = {self.p}: {reason}")
        try:
            Scaled(self.spd, self.weight if isinstance(self.weight, bool) else self._scale)
        except (ValueError, TypeError):
            raise ValueError(
                f"LowRankPSD: weight must be a positive finite number or a 0-dim tensor, got {self.weight!r}"
            ) from None

    @property
    def _scale(self) -> float | Tensor:
        if isinstance(self.weight, Tensor):
            return self.weight.sqrt()
        return math.sqrt(self.weight) if self.weight >= 0 else math.nan

    @property
    def _scaled_spd(self) -> SPD | Scaled:
        unscaled = not isinstance(self.weight, Tensor) and self.weight == 1
        return self.spd if unscaled else Scaled(self.spd, self._scale)

    @property
    def codomain(self) -> Product:  # type: ignore[override]
        """The product of subspaces and positive definite matrices."""
        return Product((Grassmann(), self._scaled_spd), ((self.n, self.p), (self.p, self.p)))

    @property
    def chart(self) -> CanonicalPair:  # type: ignore[override]
        """(U, S) -> (span U, S)."""
        return CanonicalPair(self.n, self.p)

    def in_dtype(self, dtype: torch.dtype) -> Any:
        """The same space with its tensor options in `dtype`."""
        spd, weight = self.spd.in_dtype(dtype), self.weight
        if isinstance(weight, Tensor):
            weight = weight.to(dtype)
        if spd is self.spd and weight is self.weight:
            return self
        return dataclasses.replace(self, spd=spd, weight=weight)

    def _gyro_reason(self) -> str:
        lacking = next(m for m in (Grassmann(), self.spd) if not is_gyro(m))
        return f", since {lacking!r} has none"

    # ---- pairs and matrices -----------------------------------------------------------------------------------

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U and S, or U' and S' of a tangent vector, as views of x where memory allows. ``-> *B,n,p and *B,p,p``."""
        self.check_operands("split", [x])
        return self._apart(x)

    def _apart(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return apart(x, self.n, self.p)

    @in_full_precision(points_of="self")
    def join(self, U: Tensor, S: Tensor) -> Tensor:
        """The point of ``U S U^T``: the pair (U, S), of any orthonormal basis U, turned into the canonical one.

        ``*B,n,p; *B,p,p -> *B,n*p+p*p``, broadcast over the batch. Raises ``ValueError`` on other shapes.
        """
        n, p = self.n, self.p
        for name, part, shape in (("U", U, (n, p)), ("S", S, (p, p))):
            check_matrix("LowRankPSD.join", name, part, shape)
        self.check_batches("LowRankPSD.join", [U.shape[:-2], S.shape[:-2]])
        return self._canonical(U, S)

    def _canonical(self, U: Tensor, S: Tensor) -> Tensor:
        U, W = aligned(U)
        return joined(U, congruent(W, S))

    @in_full_precision(points_of="self")
    def from_matrix(self, X: Tensor) -> Tensor:
        """The point of the part of rank p of a positive semidefinite X: of its p largest eigenvalues.

        ``*B,n,n -> *B,n*p+p*p``. First and second derivatives, where eigenvalue p and the next one differ; equal ones
        among the first p do no harm; where those two are the same, the subspace is one of several, and a derivative
        takes it for constant. Of a lower rank S is singular, and there is no point; `projx` gives one next to it.
        Raises ``ValueError`` on other shapes.
        """
        check_matrix("LowRankPSD.from_matrix", "X", X, (self.n, self.n))
        X = sym(X)
        if self.p == self.n:
            return joined(identity_like(X), X)
        U = aligned(leading_eigenspace(X, self.p))[0]
        return joined(U, congruent(U.mT, X))

    @in_full_precision
    def to_matrix(self, x: Tensor) -> Tensor:
        """X = U S U^T, symmetric to the bit. ``-> *B,n,n``."""
        self.check_operands("to_matrix", [x])
        return congruent(*self._apart(x))

    # ---- membership -------------------------------------------------------------------------------------------

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        n, p = self.n, self.p
        if point_shape[-1] == n * p + p * p:
            return None
        return f"points have {n * p} + {p * p} = {n * p + p * p} entries, of U and of S, got {point_shape[-1]}"

    def dimension(self, shape: tuple[int, ...]) -> int:
        """n p - p (p - 1)/2."""
        return self.n * self.p - self.p * (self.p - 1) // 2

    def _point_residual(self, x: Tensor) -> tuple[Tensor, str]:
        U, S = self._apart(x)
        own, formula = self.spd._point_residual(S)
        return largest(*basis_residuals(U), (own, f"{formula} of S"))

    def _point_reason(self, x: Tensor, atol: float | None, rtol: float | None) -> str | None:
        reason = super()._point_reason(x, atol, rtol)
        if reason is not None or x.numel() == 0:
            return reason
        return singular_reason(self._apart(x.detach().to(widen(x)))[0])

    def _vector_residual(self, x: Tensor, u: Tensor) -> tuple[Tensor, str]:
        (U, S), (moved, s) = self._apart(x), self._apart(u)
        own, formula = self.spd._vector_residual(S, s)
        return largest(*velocity_residuals(U, moved), (own, f"{formula} of S'"))

    @operation
    def projx(self, x: Tensor) -> Tensor:
        """Of any U the nearest orthonormal basis, and the canonical pair of that with S, of which `spd` takes its own
        projection. A singular top block is raised by rounding."""
        U, S = self._apart(x)
        U, W = aligned(nearest_frame(U))
        return joined(off_the_rim(U), self.spd.projx(congruent(W, S)))

    @operation
    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """Of U' the horizontal part, with the turn that keeps the top block symmetric; of S' the symmetric part."""
        (U, _), (moved, s) = self._apart(x), self._apart(u)
        _, pull, _ = self.chart.linearized(x)
        return pull(joined(moved - U @ (U.mT @ moved), sym(s)))

    @property
    def restore_every(self) -> int:
        """That of the factor that needs it most often."""
        return min(Grassmann().restore_every, self.spd.restore_every)

    @operation
    def restore(self, x: Tensor) -> Tensor:
        """One Newton-Schulz step of U, and the canonical pair of that with S, which `spd` restores."""
        U, S = self._apart(x)
        U, W = aligned(newton_schulz_step(U))
        return joined(off_the_rim(U), self.spd.restore(congruent(W, S)))

    def round_to(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Of U the nearest numbers, where these have no singular top block; else of a U whose top block is above the
        rounding of `dtype`. Of S what `spd` makes of it."""
        self.check_operands("round_to", [x])
        x = x.to(widen(x, dtype))
        U, S = self._apart(x)
        nearest = U.to(dtype)
        stays = clear_of_rounding(nearest.to(U.dtype))[..., None, None]
        return joined(torch.where(stays, nearest, off_the_rim(U, dtype).to(dtype)), self.spd.round_to(S, dtype))

    def _drawn_in(self, x: Tensor, margin: float) -> Tensor:
        U, S = self._apart(x)
        return joined(lifted_top(U, margin), self.spd._drawn_in(S, margin))

    # ---- what does not follow from the product ----------------------------------------------------------------

    @in_full_precision
    def injectivity_radius(self, x: Tensor | None = None) -> float | Tensor:
        """The smaller of the two factors'; for p = n, where there is one subspace, that of S."""
        if self.p < self.n:
            return super().injectivity_radius(x)
        if x is None:
            return self._scaled_spd.injectivity_radius()
        self.check_operands("injectivity_radius", [x])
        return self._scaled_spd.injectivity_radius(self._apart(x)[1])

    @operation
    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """The retractions of both factors, in the canonical pair; a singular top block is raised by rounding."""
        return self._raised(super().retr(x, u))

    @operation
    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """`retr`, and the transports of both factors."""
        y, w = super().retr_transp(x, u, v)
        return self._raised(y), w

    def _raised(self, x: Tensor) -> Tensor:
        U, S = self._apart(x)
        return joined(off_the_rim(U), S)

    # ---- sampling ---------------------------------------------------------------------------------------------

    def origin(self, *size: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """The span of the first p axes, and the identity."""
        return self.codomain.origin(*self._image_size(size), dtype=dtype, device=device)

    def random(self, *size: int, **kwargs: Any) -> Tensor:
        """A subspace of the rotation-invariant law, and S of the law that `spd` states, independent of it."""
        return super().random(*size, **kwargs)

    def random_uniform(self, *size: int, **kwargs: Any) -> Tensor:
        """There is no invariant law of mass one: raises."""
        raise self._missing("uniform law: its volume is infinite; call random or random_normal")

    def random_normal(self, *size: int, mean: Tensor | None = None, std: float | Tensor = 1.0, **kwargs: Any) -> Tensor:
        """Normal draws in both factors, of spread `std`."""
        if mean is not None:
            self.check_operands("random_normal", [mean])
        return self._carried(self.codomain.random_normal(*self._image_size(size), mean=mean, std=std, **kwargs))
