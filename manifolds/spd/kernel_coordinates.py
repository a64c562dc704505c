"""Logarithms of positive definite matrices with a kernel metric: its operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ..base import Manifold
from ..functional.broadcasting import over_batch
from ..functional.kernel_flow import flow, logarithm
from ..functional.kernel_map import Cometric, raised
from ..functional.kernel_metric import from_frame, kernel_curvature, kernel_hessian, to_frame
from ..functional.kernel_retraction import inverse_kernel_retraction, kernel_retraction
from ..functional.kernel_transport import transport
from ..functional.matrices import sym, symmetric_from_vector, symmetric_vector
from ..functional.series import safe_norm
from ..operation import in_full_precision, operation
from .kernel_functions import KernelFunction


@final
@dataclass(frozen=True, eq=False)
class KernelCoordinates(Manifold):
    """Symmetric matrices ``*B,n,n`` with the metric that the matrix logarithm makes of that of `phi`."""

    phi: KernelFunction

    ndim: ClassVar[int] = 2
    name: ClassVar[str] = "KernelCoordinates"

    @property
    def cometric(self) -> Cometric:
        """The inverse of the metric."""
        return self.phi.cometric

    @property
    def retraction_order(self) -> int:
        """2."""
        return 2

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        n, m = point_shape
        return None if n == m > 0 else f"points are square matrices of at least one row, got {n} x {m}"

    def _point_residual(self, x: Tensor) -> tuple[Tensor, str]:
        return (x - x.mT).abs().amax(), "max|x - x^T|"

    def _vector_residual(self, x: Tensor, u: Tensor) -> tuple[Tensor, str]:
        return (u - u.mT).abs().amax(), "max|u - u^T|"

    def dimension(self, shape: tuple[int, ...]) -> int:
        """n (n + 1)/2."""
        return shape[-1] * (shape[-1] + 1) // 2

    @operation
    def projx(self, x: Tensor) -> Tensor:
        """The symmetric part."""
        return sym(x)

    @operation
    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """The symmetric part."""
        return over_batch(sym(u), x).clone()

    # ---- metric -----------------------------------------------------------------------------------------------

    @operation
    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """The dot product of coordinates in orthonormal frames."""
        first = to_frame(x, u, self.cometric)
        second = first if v is None else to_frame(x, v, self.cometric)
        return self._with_keepdim((first * second).sum((-2, -1)), keepdim)

    @operation
    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        """The length of these coordinates."""
        return safe_norm(to_frame(x, u, self.cometric), (-2, -1), keepdim)

    @operation
    def egrad2rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        """The cometric applied to g."""
        return raised(x, g, self.cometric)

    @operation
    def ehess2rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor:
        """The cometric applied to ``h - <g, Gamma(u, .)>``."""
        return kernel_hessian(x, g, h, u, self.cometric)

    @operation
    def sectional_curvature(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """By second derivatives of the metric, in float64."""
        at, *plane = (sym(m).double().contiguous() for m in torch.broadcast_tensors(x, u, v))
        return kernel_curvature(at, *self._orthonormal(at, *plane), self.cometric).to(x.dtype)

    @operation
    def basis(self, x: Tensor) -> Tensor:
        """The frame of the symmetric matrices of one and two entries."""
        flat = torch.eye(self.dimension(x.shape), dtype=x.dtype, device=x.device)
        return from_frame(x.unsqueeze(-3), symmetric_from_vector(flat), self.cometric)

    @operation
    def to_coordinates(self, x: Tensor, u: Tensor) -> Tensor:
        """Those in `basis`."""
        return symmetric_vector(to_frame(x, u, self.cometric))

    @in_full_precision
    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        """The vector with coordinates `z` in `basis`."""
        return from_frame(x, symmetric_from_vector(z), self.cometric)

    def random_tangent(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal coordinates in `basis`."""
        noise = torch.randn(
            (*x.shape[:-2], self.dimension(x.shape)), generator=generator, dtype=x.dtype, device=x.device
        )
        return self.from_coordinates(x, noise)

    # ---- geodesics and transports -----------------------------------------------------------------------------

    @operation
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """By Hamilton's equations."""
        x, u = torch.broadcast_tensors(x, u)
        return flow(x, u, self.cometric)

    @operation
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """By shooting."""
        x, y = torch.broadcast_tensors(x, y)
        return logarithm(x, y, self.cometric)

    @operation
    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The end of the geodesic, and the vector transported along it."""
        x, u, v = torch.broadcast_tensors(x, u, v)
        return transport(x, u, v, self.cometric)

    @operation
    def exp_is_defined(self, x: Tensor, u: Tensor) -> Tensor:
        """Where the flow is followed to its end."""
        return self.expmap(x, u).isfinite().flatten(-2).all(-1)

    @operation
    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """``x + u - N(u)``, see `kernel_retraction`."""
        return kernel_retraction(x, u, self.cometric)

    @operation
    def inverse_retr(self, x: Tensor, y: Tensor) -> Tensor:
        """By Newton's method."""
        return inverse_kernel_retraction(x, y, self.cometric)

    @operation
    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """The vector with the same coordinates in `basis`: an isometry."""
        return from_frame(y, to_frame(x, v, self.cometric), self.cometric)

    # ---- what has no law here ---------------------------------------------------------------------------------

    def random_uniform(self, *size: int, **kwargs: Any) -> Tensor:
        """There is none: raises."""
        raise self._missing("uniform law: its volume is infinite")

    def origin(self, *size: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """Zero, the logarithm of the identity."""
        self._raise(self._shape_reason(size))
        return torch.zeros(size, dtype=dtype, device=device)
