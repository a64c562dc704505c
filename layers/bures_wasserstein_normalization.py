"""Batch normalisation by a Bures-Wasserstein metric that is learned."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from torchriemann.manifolds import SPDBuresWasserstein, SPDLogEuclidean
from torchriemann.manifolds.options import is_finite_number
from torchriemann.manifolds.precision import widen

from .normalization import GyroBatchNorm


class BuresWassersteinBatchNorm(GyroBatchNorm):
    r"""Batch normalisation of positive definite matrices by a generalised Bures-Wasserstein metric, of which the base
    and the power are learned with the rest.

    It is `GyroBatchNorm` in tangent form with ``SPDBuresWasserstein(base, power)`` of today: the plain metric in the
    images :math:`M^{-1/2} x^p M^{-1/2}`, over p^2. What it knows is kept as points x, which no change of the metric
    moves: the running mean, which moves along geodesics of today, and B, which is
    :math:`(I + Z)^2` with Z the symmetric matrix of its coordinates in the plain metric.

    Wang et al., "Learning to Normalize on the SPD Manifold under Bures-Wasserstein Geometry", CVPR 2025
    (arXiv:2504.00660), carry logarithms from M to B in two legs over the matrix whose image is the identity; here it is
    one, along the geodesic from M to B. Mean and dispersion are the same, and the outputs differ by a rotation about B.

    Args:
        point_shape: ``(n, n)``.
        power: p at the start, positive.
        num_channels, eps, momentum, affine, track_running_stats, karcher_steps, stats_grad, num_domains, sync,
            process_group: as those of `GyroBatchNorm`. All channels and domains have one metric.

    Shape: as that of `GyroBatchNorm`.

    Attributes:
        base: coordinates of the base M, ``n(n+1)/2``: those of its logarithm. ``layer.point("base")`` is M, the
            identity at first; ``layer.set_point("base", matrix)`` sets it. A multiple of M does what s does, but for
            eps.
        log_power: log p, ``1``. To keep one of the two as it is, say ``layer.log_power.requires_grad_(False)``.
        scale, bias, running_mean, running_var, num_batches_tracked: those of `GyroBatchNorm`.

    Limits. Geodesics end at singular matrices: a scaled deviation that goes beyond is taken along the retraction, and
    the layer warns once, as `GyroBatchNorm` does.

    Raises ``ValueError`` as `GyroBatchNorm` does, and if `power` is no positive number.

    >>> norm = BuresWassersteinBatchNorm((8, 8), num_channels=4, power=0.5)
    >>> x = SPDBuresWasserstein().random(32, 4, 8, 8)
    >>> norm(x).shape
    torch.Size([32, 4, 8, 8])
    """

    base: nn.Parameter
    log_power: nn.Parameter

    def __init__(
        self,
        point_shape: tuple[int, ...],
        num_channels: int | None = None,
        power: float = 1.0,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        karcher_steps: int | None = 1,
        stats_grad: str = "last_step",
        num_domains: int | None = None,
        sync: bool = True,
        process_group: Any = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            SPDBuresWasserstein(), point_shape, num_channels, eps, momentum, affine, track_running_stats,
            karcher_steps, stats_grad, "tangent", num_domains, sync, process_group, device, dtype,
        )  # fmt: skip
        if not is_finite_number(power) or power <= 0:
            raise ValueError(f"BuresWassersteinBatchNorm: power must be a positive number, got {power!r}")
        self.power = power
        self.register_point("base", SPDLogEuclidean(), point_shape, "tangent", device=device, dtype=dtype)
        self.log_power = nn.Parameter(torch.full((1,), math.log(power), device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """As `GyroBatchNorm`, and the metric as at the start."""
        super().reset_parameters()
        self.set_point("base")
        with torch.no_grad():
            self.log_power.fill_(math.log(self.power))

    def metric(self) -> SPDBuresWasserstein:
        """The metric of today, which has derivatives in `base` and `log_power`."""
        dtype = widen(self.base, self.log_power)
        power: Tensor = self.log_power.to(dtype).exp().squeeze(0)
        return SPDBuresWasserstein(self.point("base", dtype), power)
