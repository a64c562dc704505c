"""A pair without batch dimensions is computed as in a batch, also where its eigenvalues lie far apart."""

import pytest
import torch

from torchriemann.manifolds import (
    SPDAffineInvariant,
    SPDBuresWasserstein,
    SPDLogCholesky,
    SPDLogEuclidean,
    SPDPowerCholesky,
    SPDPowerEuclidean,
)

METRICS = [
    SPDAffineInvariant(),
    SPDBuresWasserstein(),
    SPDLogCholesky(),
    SPDLogEuclidean(),
    SPDPowerCholesky(0.5),
    SPDPowerEuclidean(0.5),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("manifold", METRICS, ids=lambda m: type(m).__name__)
def test_single_pair(manifold, dtype):
    turn = torch.tensor([[0.6, 0.8], [-0.8, 0.6]], dtype=dtype)
    x = torch.diag(torch.tensor([100.0, 1e-3], dtype=dtype))
    y, t = turn @ x @ turn.mT, torch.tensor(0.3, dtype=dtype)
    for name, rest in (("dist", []), ("logmap", []), ("midpoint", []), ("geodesic", [t]), ("parallel_transport", [y])):
        operation, given = getattr(manifold, name), [x, y, *rest]
        of_batch = operation(*(z.unsqueeze(0) for z in given))
        # One product may be rounded otherwise than a batch of them, which roots of condition 1e5 take up.
        bound = max(1e-7, 1e5**0.5 * torch.finfo(dtype).eps)
        torch.testing.assert_close(
            operation(*given), of_batch[0], rtol=bound, atol=bound, msg=lambda text, name=name: f"{name}: {text}"
        )
