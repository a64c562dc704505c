"""The power-Euclidean metrics of positive definite matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from ..euclidean import Euclidean
from ..functional.cone import lifted
from ..functional.decompositions import eigenvalues
from ..functional.definite import inside_or_nan
from ..functional.matrices import sym
from ..kernels.spd import pencil_function
from ..operation import in_full_precision, operation
from .charts import MatrixPower, PowerVector
from .options import check_power
from .spectral_metric import SpectralMetric


@final
@dataclass(frozen=True, eq=False)
class SPDPowerEuclidean(SpectralMetric):
    r"""Positive definite matrices ``*B,n,n`` with the metric that ``x -> x^p/p`` carries over from the symmetric
    matrices with the Frobenius product: ``dist(x, y) = |x^p - y^p|/|p|``.

    At ``p = 1`` it is the cone in flat space, without any eigendecomposition; at ``p = 1/2`` a distance of roots
    (Dryden, Pennec and Peyrat 2010); for p -> 0 it becomes the log-Euclidean metric. Flat, invariant under orthogonal
    congruence, with ``dist(s x, s y) = s^p dist(x, y)``. Means are closed: the p-th power means.

    **Incomplete.** The images fill a cone. A straight line ends at singular matrices for ``p > 0``, at infinite ones
    for ``p < 0``: `exp_is_defined` says where ``x^p + D(x^p)[u]`` is positive definite, and `expmap` is NaN beyond. The
    injectivity radius at x is the distance to the rim, ``min(lambda^p)/|p|`` over the eigenvalues; that of the whole
    space is 0. `retr` never leaves: with ``x^p = A A^T`` and ``D(x^p)[u] = A diag(theta) A^T`` it is the p-th root of
    ``A diag(f(theta)) A^T``, f(s) = 1 + s for s >= 0 and 1/(1 - s + s^2) below: of second order. No gyro structure.

    In float64 a round trip is right to some ``eps cond(x)^max(1, |p - 1|)``.

    Args:
        power: p, not zero.

    Dryden, Pennec and Peyrat 2010, "Power Euclidean metrics for covariance matrices with application to diffusion
    tensor imaging" (arXiv:1009.3045); Thanwerdas and Pennec 2021, arXiv:2109.05768.

    Raises ``ValueError`` if the power is zero, or no finite number.
    """

    power: float

    name: ClassVar[str] = "SPDPowerEuclidean"

    def __post_init__(self) -> None:
        check_power("SPDPowerEuclidean", self.power)

    @property
    def codomain(self) -> Euclidean:  # type: ignore[override]
        """The coordinates of symmetric matrices."""
        return Euclidean()

    @property
    def chart(self) -> PowerVector:  # type: ignore[override]
        """The power, in coordinates."""
        return PowerVector(self.power)

    @property
    def retraction_order(self) -> int:
        """2."""
        return 2

    @property
    def has_gyro_structure(self) -> bool:
        """False: as seen from the identity the sum of x and y is that of ``x^p + y^p - I``."""
        return False

    def _gyro_reason(self) -> str:
        return ": x^p + y^p - I, a sum as seen from the identity, may leave the cone"

    @in_full_precision
    def injectivity_radius(self, x: Tensor | None = None) -> float | Tensor:
        """The distance to the rim, ``min(lambda^p)/|p|``; 0 of the whole space."""
        if x is None:
            return 0.0
        self.check_operands("injectivity_radius", [x])
        # In float64: float32 finds the least eigenvalue to eps of the largest only.
        values = eigenvalues(inside_or_nan(x).double())[..., 0 if self.power > 0 else -1]
        return (values**self.power / abs(self.power)).to(x.dtype)

    # ---- the retraction ---------------------------------------------------------------------------------------

    @property
    def _power(self) -> MatrixPower:
        return MatrixPower(self.power)

    def _retracted(self, z: Tensor, h: Tensor) -> Tensor:
        """A diag(f(theta)) A^T, inside of the cone as numbers too."""
        return lifted(pencil_function(z, h, "positive_linear"))

    @operation
    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """The p-th root of ``A diag(f(theta)) A^T``."""
        return lifted(sym(self._power.inverse(self._retracted(*self._power.differential(x, u)))))

    @operation
    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """`retr`, and the parallel transport to its end."""
        z, h, w = self._power.differential(x, u, v)
        y, v = self._power.inverse_differential(self._retracted(z, h), w)
        return lifted(sym(y)), sym(v)

    @operation
    def inverse_retr(self, x: Tensor, y: Tensor) -> Tensor:
        """D(x^p)^-1 of ``A diag(f^-1(w)) A^T``, with ``x^p = A A^T`` and ``y^p = A diag(w) A^T``."""
        z, pull, _ = self._power.linearized(x)
        return pull(pencil_function(z, self._power.forward(y), "inverse positive_linear"))
