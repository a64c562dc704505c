"""What correlation matrices are, whatever their metric."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from ..functional.broadcasting import over_batch
from ..functional.cone import raised
from ..functional.correlation import hollow, inside_correlations, lifted_correlation, unit_diagonal, unit_rows
from ..functional.definite import outside_reason, positive_definite
from ..functional.matrices import check_number, sym
from ..functional.triangular import diagonal
from ..operation import in_full_precision, operation
from ..precision import widen
from ..pullback_metric import PullbackMetric

_MEND = (
    "where that is rounding call projx(x), for a matrix of low rank add a part of the identity and take the correlation"
)


class Correlation(PullbackMetric, abc.ABC):
    r"""Correlation matrices: symmetric positive definite with ones on the diagonal. Points are ``*B,n,n``, n > 1,
    tangent vectors symmetric matrices with zeros on the diagonal; the dimension is n(n-1)/2.

    Every metric here is carried over by a chart onto all of flat or hyperbolic space: complete, with unique geodesics,
    closed means in flat ones, and a gyro structure with the identity as origin (Thanwerdas and Pennec 2022,
    "Theoretically and computationally convenient geometries on full-rank correlation matrices", arXiv:2201.06282;
    Thanwerdas 2024, "Permutation-invariant log-Euclidean geometries on full-rank correlation matrices", doi
    10.1137/22M1538144).

    Operations read the symmetric part of their arguments off the diagonal, for which they take ones or zeros, and what
    they return is symmetric with exact ones, or zeros, there. A point that they return is positive definite as it is
    stored, however near to singular matrices: a chart's way back ends in `lifted_correlation`. An item that is not
    positive definite, or not finite, gives NaN; no other item is touched by it, in value or gradient.
    """

    ndim: ClassVar[int] = 2
    _point_mend: ClassVar[str] = "call correlation(x) if it is a covariance matrix, else projx(x)"

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        n, m = point_shape
        if not n == m > 1:
            return f"points are square matrices of at least two rows, got {n} x {m}"
        return self.chart.complaint(point_shape)

    def _point_residual(self, x: Tensor) -> tuple[Tensor, str]:
        definite = positive_definite(x)
        if bool(definite.all()):
            asymmetry, on_diagonal = (x - x.mT).abs().amax(), (diagonal(x) - 1).abs().amax()
            if asymmetry > on_diagonal:
                return asymmetry, "max|x - x^T|"
            return on_diagonal, "max|x_ii - 1|"
        values = torch.linalg.eigvalsh(sym(torch.where(x.isfinite(), x, 0.0)).double())
        low = torch.where(x.isfinite().flatten(-2).all(-1), 1 - values[..., 0], torch.nan)
        return (
            torch.where(definite, 0.0, low).amax().to(x.dtype),
            "1 - min eigenvalue, of an item that is not positive definite,",
        )

    def _outside_reason(self, x: Tensor) -> str | None:
        return outside_reason(x, _MEND)

    def _vector_residual(self, x: Tensor, u: Tensor) -> tuple[Tensor, str]:
        asymmetry, on_diagonal = (u - u.mT).abs().amax(), diagonal(u).abs().amax()
        return torch.maximum(asymmetry, on_diagonal), "the larger of max|u - u^T| and max|u_ii|"

    def dimension(self, shape: tuple[int, ...]) -> int:
        """n (n - 1)/2."""
        return shape[-1] * (shape[-1] - 1) // 2

    @in_full_precision(points_of="self")
    def correlation(self, x: Tensor) -> Tensor:
        """The correlation matrix ``D^-1/2 x D^-1/2`` of a covariance matrix x with the diagonal D. ``*B,n,n``.

        NaN of an item with an entry on the diagonal that is not positive and finite. A singular covariance gives a
        singular matrix, which is no point: `projx` gives one.
        """
        self.check_operands("correlation", [x])
        return unit_diagonal(sym(x))

    @operation
    def projx(self, x: Tensor) -> Tensor:
        """The correlation matrix of the symmetric part; where that is not positive definite, of the nearest matrix with
        eigenvalues of at least 16 n eps of the largest magnitude among them."""
        return lifted_correlation(unit_diagonal(raised(sym(x))))

    @operation
    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """The symmetric part, with zeros on the diagonal."""
        return over_batch(hollow(u), x).clone()

    @property
    def restore_every(self) -> int:
        """1: next to singular matrices rounding alone leaves the space."""
        return 1

    @operation
    def restore(self, x: Tensor) -> Tensor:
        """The correlation matrix of the symmetric part, lifted into the cone where that is outside by no more than
        rounding."""
        return lifted_correlation(unit_diagonal(sym(x)))

    def round_to(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The nearest numbers; where these are not positive definite, those of the matrix with its entries off the
        diagonal drawn to zero by n eps, which are."""
        self.check_operands("round_to", [x])
        x = x.to(widen(x, dtype))
        nearest = x.to(dtype)
        drawn = hollow(x) / (1 + x.shape[-1] * torch.finfo(dtype).eps) + torch.diag_embed(diagonal(x))
        return torch.where(positive_definite(nearest)[..., None, None], nearest, drawn.to(dtype))

    def _drawn_in(self, x: Tensor, margin: float) -> Tensor:
        return inside_correlations(x, margin)

    @operation
    def log_is_unique(self, x: Tensor, y: Tensor, *, margin: float = 0.0) -> Tensor:
        """Everywhere."""
        return self._everywhere(x, y)

    @operation
    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """The distance of the images."""
        return self._with_keepdim(self.codomain.dist(*of_both(self.chart.forward, x, y)), keepdim)

    @operation
    def dist2(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """The squared distance of the images."""
        return self._with_keepdim(self.codomain.dist2(*of_both(self.chart.forward, x, y)), keepdim)

    # ---- sampling ---------------------------------------------------------------------------------------------

    def origin(self, *size: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """The identity."""
        self._raise(self._shape_reason(size))
        return torch.eye(size[-1], dtype=dtype, device=device).expand(size).clone()

    def random_uniform(
        self,
        *size: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """There is no invariant law of mass one: raises."""
        raise self._missing("uniform law: its volume is infinite; call random, random_lkj or random_normal")

    def random(
        self,
        *size: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Uniform in the entries, whatever the metric: `random_lkj` with the concentration 1."""
        return self.random_lkj(*size, generator=generator, dtype=dtype, device=device)

    def random_lkj(
        self,
        *size: int,
        concentration: float = 1.0,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """The law with a density in the entries proportional to ``det(x)^(concentration - 1)``; every entry follows
        Beta(a, a) on (-1, 1) with ``a = concentration + n/2 - 1`` (Lewandowski, Kurowicka and Joe 2009,
        doi 10.1016/j.jmva.2009.04.008).

        Raises ``ValueError`` unless the concentration is a positive finite number.
        """
        self._raise(self._shape_reason(size))
        where = f"{type(self).__name__}.random_lkj"
        check_number(where, "concentration", concentration)
        if not 0 < concentration < torch.inf:
            raise ValueError(f"{where}: concentration must be a positive finite number, got {concentration}")
        noise = torch.randn(size, generator=generator, dtype=dtype, device=device)
        # Of row i of the factor, i entries squared make up Beta(i/2, a) with a = concentration + (n - 1 - i)/2: the
        # share that a sum of i squares has beside twice a gamma variable of shape a.
        shapes = concentration + 0.5 * torch.arange(size[-1] - 1, -1, -1, dtype=torch.float64, device=device)
        # Of torch's sampler the public form takes no generator.
        draw = torch._standard_gamma  # pyright: ignore[reportPrivateImportUsage]
        last = 2 * draw(shapes.to(widen(noise)).expand(size[:-1]), generator)
        return self._with_unit_rows(noise, last.to(noise.dtype))

    @in_full_precision(points_of="self")
    def _with_unit_rows(self, noise: Tensor, last: Tensor) -> Tensor:
        return lifted_correlation(unit_rows(noise, last))


def of_both(function: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The results of two batches of matrices; of one shape they are taken as one, in half of the launches."""
    if x.shape != y.shape:
        return function(x), function(y)
    first, second = function(torch.stack([x, y])).unbind()
    return first, second
