"""The affine-invariant metric of positive definite matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from .affine_invariant_metric import AffineInvariantMetric
from .charts import MatrixPower
from .options import check_power, check_product, product_complaint
from .retracting import RetractingSPD


@final
@dataclass(frozen=True, eq=False)
class SPDAffineInvariant(RetractingSPD):
    r"""Positive definite matrices ``*B,n,n`` with the metric that is invariant under congruences ``x -> a x a^T``:

        <u, v>_x = alpha tr(x^-1 u x^-1 v) + beta tr(x^-1 u) tr(x^-1 v),
        dist(x, y)^2 = alpha sum_i (log w_i)^2 + beta (sum_i log w_i)^2,    w the eigenvalues of x^-1 y,

    and with a power p that of ``x^p`` over p^2, invariant only under orthogonal ones: p = 1 is twice the metric of
    Fisher and Rao of centred normal laws, and for p -> 0 it tends to the log-Euclidean one. Complete, of curvature
    between ``-p^2/(2 alpha)`` and 0, with unique geodesics: the injectivity radius is infinite. Inversion is an
    isometry.

    With x = L L^T, ``L^-1 y L^-T = U diag(w) U^T`` and A = L U, every operation is ``A diag(f(w)) A^T``: exp, log,
    powers; one Cholesky factor and one eigendecomposition a pair, and a closed backward pass without either.
    `parallel_transport` is an isometry to rounding at any condition; `transp` and `retr_transp` are it, and `retr` is
    the exponential map. A gyro manifold: ``x (+) y = x^(1/2) y x^(1/2)`` (of powers: that of x^p), inverse ``x^-1``,
    multiples ``x^t``. Means have no closed form: `frechet_mean` takes Newton's steps from the midpoint of arithmetic
    and harmonic mean, three or four as a rule. `hyperplane_dist` has none either, and raises.

    Accuracy. A round trip in float64 is right to some ``eps cond(x)``, a distance to eps times the root of the
    condition of x^-1 y. In float32 x^-1 y is formed in float64: logarithms of near points of any condition keep their
    digits, and distances are right to 1e-6 of themselves. A power takes what the condition of x^p takes.

    Args:
        power: p, not zero.
        alpha: of the first term, positive.
        beta: of the product of traces, above ``-alpha/n``, which is checked where n is known. alpha and beta change
            lengths; geodesics, transport and means they leave alone.

    Pennec, Fillard and Ayache 2006, "A Riemannian framework for tensor computing"; Thanwerdas and Pennec 2021,
    arXiv:2109.05768, for the powers, alpha and beta.

    Raises ``ValueError`` if power is zero, alpha not positive, or one of the three no finite number.
    """

    power: float = 1.0
    alpha: float = 1.0
    beta: float = 0.0

    name: ClassVar[str] = "SPDAffineInvariant"

    def __post_init__(self) -> None:
        check_power("SPDAffineInvariant", self.power)
        check_product("SPDAffineInvariant", self.alpha, self.beta)

    @property
    def codomain(self) -> AffineInvariantMetric:  # type: ignore[override]
        """The metric of powers, over p^2."""
        return AffineInvariantMetric(self.alpha / self.power**2, self.beta / self.power**2)

    @property
    def chart(self) -> MatrixPower:  # type: ignore[override]
        """x^p."""
        return MatrixPower(self.power)

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        return super()._shape_complaint(point_shape) or product_complaint(self.alpha, self.beta, point_shape[-1])

    def hyperplane_dist(self, x: Tensor, normal: Tensor, offset: Tensor | float = 0.0) -> Tensor:
        """There is no closed form: raises."""
        raise self._missing("hyperplane_dist: no closed form is known")
