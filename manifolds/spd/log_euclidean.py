"""The log-Euclidean metric of positive definite matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from ..euclidean import Euclidean
from .charts import LogarithmVector
from .options import check_product, product_complaint
from .spectral_metric import SpectralMetric


@final
@dataclass(frozen=True, eq=False)
class SPDLogEuclidean(SpectralMetric):
    r"""Positive definite matrices ``*B,n,n`` with the metric that the matrix logarithm carries over from the symmetric
    matrices with ``alpha |X|^2 + beta (tr X)^2``:

        dist(x, y)^2 = alpha |log x - log y|^2 + beta (log det x - log det y)^2

    Flat and complete: the injectivity radius is infinite. Invariant under orthogonal congruence, inversion and
    ``x -> s x``. A gyro manifold with a commutative addition, ``exp(log x + log y)``, whose multiples are the matrix
    powers. Means are closed: ``exp(mean of log)``, of which the determinant is the geometric mean of determinants.

    Each operation takes one eigendecomposition a point; so does `logmap`, whose second derivative of the exponential
    shares that of its first point. In float64 a round trip is right to some ``eps cond(x)``.

    Args:
        alpha: of the Frobenius product, positive.
        beta: of the product of traces, above ``-alpha/n``, which is checked where n is known. Neither changes
            geodesics, transport or means.

    Arsigny, Fillard, Pennec and Ayache 2006, "Log-Euclidean metrics for fast and simple calculus on diffusion tensors";
    Thanwerdas and Pennec 2021, arXiv:2109.05768, for alpha and beta.

    Raises ``ValueError`` if alpha is not positive, or one of the two no finite number.
    """

    alpha: float = 1.0
    beta: float = 0.0

    name: ClassVar[str] = "SPDLogEuclidean"

    def __post_init__(self) -> None:
        check_product("SPDLogEuclidean", self.alpha, self.beta)

    @property
    def codomain(self) -> Euclidean:  # type: ignore[override]
        """The coordinates of symmetric matrices."""
        return Euclidean()

    @property
    def chart(self) -> LogarithmVector:  # type: ignore[override]
        """The logarithm, in coordinates."""
        return LogarithmVector(self.alpha, self.beta)

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        return super()._shape_complaint(point_shape) or product_complaint(self.alpha, self.beta, point_shape[-1])
