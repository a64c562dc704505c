"""The kernel metrics of positive definite matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..functional.definite import definite_eigh
from ..functional.kernel_map import raised_at
from ..functional.kernel_metric import to_frame_at
from ..functional.matrices import sym
from ..functional.tracing import eager_without_derivative
from ..operation import in_full_precision, operation
from .charts import MatrixLogarithm
from .kernel_coordinates import KernelCoordinates
from .kernel_functions import KernelFunction
from .retracting import RetractingSPD


@final
@dataclass(frozen=True, eq=False)
class SPDKernel(RetractingSPD):
    r"""Positive definite matrices ``*B,n,n`` with the metric of a kernel phi of two eigenvalues,

        <v, v>_x = sum_ij v'_ij^2/phi(l_i, l_j) + beta (sum_i v'_ii/phi(l_i, l_i)^(1/2))^2,

    in eigenvectors of x, of eigenvalues l. Kernels are the classes under `KernelFunction`, with phi's own ``scale`` and
    ``beta``: ``SPDKernel(phi=LogarithmicMean(power=1.5))``. Most metrics of covariance matrices are members, and those
    with a class of their own have closed operations there: `SPDAffineInvariant` is ``GeometricMean(power=2.0)``,
    `SPDLogEuclidean` ``LogarithmicMean(power=2.0)``, `SPDBuresWasserstein` ``ArithmeticMean(scale=4.0)``,
    `SPDPowerEuclidean` ``MixedPowerEuclidean(p, p)``. Invariant under orthogonal congruence; a kernel of degree theta
    has ``dist(s x, s y) = s^(1 - theta/2) dist(x, y)`` for a number s > 0, so that at degree 2 that is an isometry.

    **Complete where the degree of phi is 2, and only there.** At 2 the length of v is at least a multiple of that of
    the diagonal of log x as it moves, so that along a curve of finite length all log l_i stay bounded (Weyl). At any
    other degree ``x = t I`` reaches 0 or infinity, at which there is no point, on a way of finite length. There
    `exp_is_defined` tells how far geodesics go, and `expmap` is NaN beyond.

    Inner products, gradients, norms and frames are closed, of one eigendecomposition. Geodesics solve Hamilton's
    equations in the matrix logarithm, where the cometric is ``a e^(-r (X_i + X_j)) e^(K(X_i - X_j))``, r = 1 - theta/2,
    with steps that are as long as accuracy allows; beside closed members their ends are right to some 1e-14 in float64.
    One that takes more than 100 steps is NaN: so are unit lengths of the squared harmonic mean at condition 1e6.
    `logmap` shoots with the derivative of that, and is NaN where it does not arrive. Parallel transport solves its
    equation along the same steps. Distances, means and the volume follow from these.
    `retr` is closed and of second order, a point for every vector short of overflow; `inverse_retr` takes Newton's
    method. `transp` keeps the coordinates in `basis`: an isometry, not parallel. Curvature comes from second
    derivatives of the metric, exact to rounding.

    Unknown, so that these raise: the injectivity radius and the cut locus, and with them a gyro structure.

    Args:
        phi: the kernel.

    Thanwerdas and Pennec 2021, "O(n)-invariant Riemannian metrics on SPD matrices" (arXiv:2109.05768); Hiai and Petz
    2009, "Riemannian metrics on positive definite matrices related to means" (arXiv:0809.4974).

    Raises ``ValueError`` if `phi` is no kernel.
    """

    phi: KernelFunction

    name: ClassVar[str] = "SPDKernel"

    def __post_init__(self) -> None:
        if not isinstance(self.phi, KernelFunction):
            raise ValueError(f"SPDKernel: phi must be a kernel such as LogarithmicMean(), got {self.phi!r}")

    @property
    def codomain(self) -> KernelCoordinates:  # type: ignore[override]
        """The symmetric matrices with the metric of the logarithm."""
        return KernelCoordinates(self.phi)

    @property
    def chart(self) -> MatrixLogarithm:  # type: ignore[override]
        """log x."""
        return MatrixLogarithm()

    @property
    def is_complete(self) -> bool:
        """Whether geodesics go on forever: where the degree of phi is 2."""
        return self.phi.is_complete

    @property
    def has_gyro_structure(self) -> bool:
        """False: that takes shortest geodesics which are unique."""
        return False

    def _gyro_reason(self) -> str:
        return ": whether shortest geodesics are unique is not known of all kernels"

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        return super()._shape_complaint(point_shape) or self.phi.complaint(point_shape[-1])

    def injectivity_radius(self, x: Tensor | None = None) -> float | Tensor:
        """Not known: raises."""
        raise self._missing("injectivity_radius: it is not known of all kernels")

    def log_is_unique(self, x: Tensor, y: Tensor, *, margin: float = 0.0) -> Tensor:
        """Not known: raises."""
        raise self._missing("log_is_unique: the cut locus is not known of all kernels")

    # ---- the metric: where no derivative is wanted by phi itself, from one eigendecomposition -------------------

    @operation
    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """The sum over pairs of eigenvectors."""
        vectors = (u,) if v is None else (u, v)
        if not all(map(eager_without_derivative, (x, *vectors))):
            return super().inner(x, u, v, keepdim=keepdim)
        found = self._frame_coordinates(x, *vectors)
        return self._with_keepdim((found[0] * found[-1]).sum((-2, -1)).to(x.dtype), keepdim)

    @operation
    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        """Its root."""
        if not (eager_without_derivative(x) and eager_without_derivative(u)):
            return super().norm(x, u, keepdim=keepdim)
        (found,) = self._frame_coordinates(x, u)
        return torch.linalg.vector_norm(found, dim=(-2, -1), keepdim=keepdim).to(x.dtype)

    @operation
    def egrad2rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        """The entries of g in eigenvectors times phi(l_i, l_j), less ``beta/(1 + n beta) (sum_i phi(l_i, l_i)^(1/2)
        g'_ii) phi(l_i, l_i)^(1/2)`` on the diagonal."""
        if not (eager_without_derivative(x) and eager_without_derivative(g)):
            return super().egrad2rgrad(x, g)
        _, a, Q = definite_eigh(sym(x).double(), True)
        return raised_at(a.log(), Q, sym(g).double(), self.phi.of_logarithms).to(x.dtype)

    def _frame_coordinates(self, x: Tensor, *vectors: Tensor) -> list[Tensor]:
        """In float64: float32 finds small eigenvalues, and what vectors have there, to eps of the largest only."""
        _, a, Q = definite_eigh(sym(x).double(), True)
        return [to_frame_at(a.log(), Q, sym(v).double(), self.phi.of_logarithms) for v in vectors]

    @operation
    def to_coordinates(self, x: Tensor, u: Tensor) -> Tensor:
        """Those in `basis`, in closed form."""
        return self.codomain.to_coordinates(*self.chart.differential(x, u))

    @in_full_precision
    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        """The tangent vector with coordinates `z` in `basis`, in closed form."""
        self.check_operands("from_coordinates", [x])
        at, pull, _ = self.chart.linearized(x)
        return pull(self.codomain.from_coordinates(at, z))

    # ---- geodesics --------------------------------------------------------------------------------------------

    @operation
    def exp_is_defined(self, x: Tensor, u: Tensor) -> Tensor:
        """Where the geodesic is followed to its end."""
        return self.codomain.exp_is_defined(*self.chart.differential(x, u))
