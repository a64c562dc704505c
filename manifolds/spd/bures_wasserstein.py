"""The Bures-Wasserstein metric, of optimal transport between Gaussians, generalised by a base and a power."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ..chart import Chart
from ..functional.definite import positive_definite
from ..functional.tracing import values_at_hand
from ..kernels.cholesky import cholesky
from .bures_wasserstein_metric import BuresWassersteinMetric
from .charts import MatrixPower
from .options import check_learned_power
from .retracting import RetractingSPD
from .whitening import Whitening


@final
@dataclass(frozen=True, eq=False)
class SPDBuresWasserstein(RetractingSPD):
    r"""Symmetric positive definite matrices with the metric of optimal transport between centred Gaussians:
    ``<u, v>_x = 1/2 tr(S v)``, x S + S x = u, and ``dist^2 = tr x + tr y - 2 tr (x^1/2 y x^1/2)^1/2``.

    With a `base` M = N N^T, ``n,n`` or a batch of points, it is that metric after ``x -> N^-1 x N^-T`` (generalised
    Bures-Wasserstein, Han et al., arXiv:2110.10464); any root gives the same. M = x makes it a quarter of the
    affine-invariant metric at x. With a `power` p, not 0, it is ``p^-2`` times the metric at ``x^p``, the power before
    the base (arXiv:2504.00660): half of the alpha-Procrustes distance with alpha = p/2, and log-Euclidean, of a quarter
    of the metric, for p -> 0. `base`, and a `power` in a tensor without dimensions, may want gradients: they are
    learned by the module that makes the manifold, such as `layers.BuresWassersteinBatchNorm`.

    Incomplete: a geodesic ends at a singular matrix, ``exp_is_defined`` says before which u. Injectivity radius
    ``sqrt(lambda_min(x))`` (of the image), curvature at least 0. No gyro manifold: a sum of logarithms is not always
    one.

    `retr` is a point for every u, of second order. `transp` is the identity, which costs nothing; parallel transport
    has no closed form, and is integrated to 1e-10 between points of condition 100, isometric to 1e-13.

    Source: Bhatia, Jain and Lim, arXiv:1712.01504; Malago, Montrucchio and Pistone, arXiv:1801.09269.

    Raises ``ValueError`` if `base` is not a positive definite matrix (on an accelerator its numbers are not looked at)
    or `power` not a number other than 0, or a floating-point tensor of one without dimensions.
    """

    base: Tensor | None = None
    power: float | Tensor = 1

    name: ClassVar[str] = "SPDBuresWasserstein"
    codomain: ClassVar[BuresWassersteinMetric] = BuresWassersteinMetric()

    def __post_init__(self) -> None:
        check_learned_power("SPDBuresWasserstein", self.power)
        base = self.base
        if base is None:
            return
        if not isinstance(base, Tensor) or not base.is_floating_point():
            raise ValueError(f"SPDBuresWasserstein: base must be a floating-point tensor or None, got {base!r}")
        self._raise(self._shape_reason(base.shape))
        # What is learned is made again in every forward: its numbers are not looked at.
        if values_at_hand(base) and not base.requires_grad and not bool(positive_definite(base).all()):
            raise ValueError("SPDBuresWasserstein: base is not positive definite; give projx of it, or another")

    @property
    def chart(self) -> Chart:  # type: ignore[override]
        """To the plain metric."""
        if self.base is None and not isinstance(self.power, Tensor) and self.power == 1:
            return MatrixPower(1)
        return Whitening(self.power, None if self.base is None else cholesky(self.base))

    def _gyro_reason(self) -> str:
        return ": its geodesics end, so that not every sum of two logarithms is one"

    def in_dtype(self, dtype: torch.dtype) -> Any:
        """The same metric with its base and a power that is a tensor in `dtype`."""
        base, power = (v.to(dtype) if isinstance(v, Tensor) else v for v in (self.base, self.power))
        if base is self.base and power is self.power:
            return self
        return dataclasses.replace(self, base=base, power=power)

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        complaint = super()._shape_complaint(point_shape)
        if complaint is None and self.base is not None and point_shape != tuple(self.base.shape[-2:]):
            n, m = self.base.shape[-2:]
            return f"points are as large as the base, {n} x {m}, got {point_shape[0]} x {point_shape[1]}"
        return complaint
