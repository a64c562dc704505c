"""The metrics of correlation matrices, for tests about all of them."""

import torch
from torch import Tensor

from torchriemann.manifolds import (
    Correlation,
    CorrelationEuclideanCholesky,
    CorrelationLogEuclideanCholesky,
    CorrelationLogScaled,
    CorrelationOffLog,
    CorrelationPolyHyperbolic,
)

METRICS: list[Correlation] = [
    CorrelationEuclideanCholesky(),
    CorrelationLogEuclideanCholesky(),
    CorrelationPolyHyperbolic(),
    CorrelationOffLog(),
    CorrelationLogScaled(),
]

OPERATIONS = {
    "inner": "xuv", "norm": "xu", "egrad2rgrad": "xu", "expmap": "xu", "logmap": "xy", "retr": "xu",
    "inverse_retr": "xy", "transp": "xyv", "parallel_transport": "xyv", "dist": "xy", "dist2": "xy", "midpoint": "xy",
    "basis": "x", "to_normal": "x", "gyroadd": "xy", "decay": "x",
}  # fmt: skip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def arguments(
    manifold: Correlation, *size: int, dtype: torch.dtype = torch.float64, seed: int = 0
) -> dict[str, Tensor]:
    """Points x, y and tangent vectors u, v of length one half."""
    g = generator(seed)
    x, y = (manifold.random_normal(*size, std=0.5, generator=g, dtype=dtype) for _ in range(2))
    u, v = (0.5 * z / manifold.norm(x, z, keepdim=True) for z in (manifold.random_tangent(x, g) for _ in range(2)))
    return {"x": x, "y": y, "u": u, "v": v}


def call(manifold: Correlation, name: str, at: dict[str, Tensor]) -> Tensor:
    """An operation of the table above."""
    if name == "decay":
        return manifold.decay(at["x"], 0.9)
    return getattr(manifold, name)(*(at[k] for k in OPERATIONS[name]))


def of_condition(*size: int, condition: float, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Correlation matrices of covariances of that condition, with eigenvalues at equal ratios and random axes; their
    own condition is below."""
    q = torch.linalg.qr(torch.randn(size, generator=generator(seed), dtype=torch.float64))[0]
    values = condition ** torch.linspace(-1, 0, size[-1], dtype=torch.float64)
    return METRICS[0].correlation((q * values) @ q.mT).to(dtype)
