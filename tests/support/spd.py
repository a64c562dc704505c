"""The metrics of positive definite matrices, for tests about all of them, and how each behaves under ``x -> s x``."""

import dataclasses

import torch
from torch import Tensor

from torchriemann.manifolds import (
    SPD,
    SPDAffineInvariant,
    SPDBuresWasserstein,
    SPDLogCholesky,
    SPDLogEuclidean,
    SPDPowerCholesky,
    SPDPowerEuclidean,
)


@dataclasses.dataclass(frozen=True)
class Metric:
    """`degree` k: dist(s x, s y) = s^k dist(x, y), and u is at x what s u is at s x; None where nothing of the kind
    holds."""

    manifold: SPD
    degree: float | None

    def __repr__(self) -> str:
        return repr(self.manifold)


METRICS = [
    Metric(SPDAffineInvariant(), 0.0),
    Metric(SPDAffineInvariant(0.5, 2.0, -0.2), 0.0),
    Metric(SPDLogEuclidean(), 0.0),
    Metric(SPDLogEuclidean(2.0, -0.2), 0.0),
    Metric(SPDPowerEuclidean(0.5), 0.5),
    Metric(SPDPowerEuclidean(1.0), 1.0),
    Metric(SPDPowerEuclidean(-1.0), -1.0),
    Metric(SPDLogCholesky(), None),
    Metric(SPDPowerCholesky(0.5), None),
    Metric(SPDPowerCholesky(1.0), 0.5),
    Metric(SPDPowerCholesky(-0.7), None),
    Metric(SPDBuresWasserstein(), 0.5),
    Metric(SPDBuresWasserstein(power=0.5), 0.25),
]

OPERATIONS = {
    "inner": "xuv", "norm": "xu", "egrad2rgrad": "xu", "expmap": "xu", "logmap": "xy", "retr": "xu",
    "inverse_retr": "xy", "transp": "xyv", "parallel_transport": "xyv", "dist": "xy", "dist2": "xy", "midpoint": "xy",
    "exp_is_defined": "xu", "injectivity_radius": "x", "decay": "x", "basis": "x",
}  # fmt: skip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def arguments(manifold: SPD, *size: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, Tensor]:
    """Points x, y and tangent vectors u, v, short beside the injectivity radius."""
    g = generator(seed)
    x, y = (manifold.random(*size, generator=g, dtype=dtype) for _ in range(2))
    radius = torch.as_tensor(manifold.injectivity_radius(x), dtype=dtype).clamp_max(1.0)
    length = (0.3 * radius).expand(x.shape[:-2])[..., None, None]
    u, v = (z / manifold.norm(x, z, keepdim=True) * length for z in (manifold.random_tangent(x, g) for _ in range(2)))
    return {"x": x, "y": y, "u": u, "v": v}


def call(manifold: SPD, name: str, at: dict[str, Tensor]) -> Tensor:
    """An operation of the table above."""
    if name == "decay":
        return manifold.decay(at["x"], 0.9)
    return torch.as_tensor(getattr(manifold, name)(*(at[k] for k in OPERATIONS[name])))
