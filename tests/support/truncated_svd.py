"""Truncated singular value decompositions, for tests of them."""

import numpy as np
import pytest
import torch

from torchriemann.manifolds import ProductSVD

F64, F32 = torch.float64, torch.float32
KINDS = [lambda svd: svd, ProductSVD.of]
either = pytest.mark.parametrize("kind", KINDS, ids=["TruncatedSVD", "ProductSVD"])


def noise(*size, seed=0, dtype=F64):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def low_rank(n, m, rank, *batch, seed=0):
    return noise(*batch, n, rank, seed=seed) @ noise(*batch, rank, m, seed=seed + 1)


def drift(svd):
    """The larger loss of orthonormality, in eps."""
    off = [(f.mT @ f - torch.eye(f.shape[-1], dtype=f.dtype)).abs().max() for f in (svd.u, svd.v)]
    return float(max(off)) / torch.finfo(svd.s.dtype).eps


def decomposes(svd, x, atol=1e-12):
    """The factors are those of numpy's decomposition of the whole, cut off."""
    k = svd.s.shape[-1]
    u, s, vt = np.linalg.svd(x.numpy(), full_matrices=False)
    np.testing.assert_allclose(svd.s, s[..., :k], atol=atol)
    best = (u[..., :k] * s[..., None, :k]) @ vt[..., :k, :]
    np.testing.assert_allclose(svd.to_matrix(), best, atol=10 * atol)
    assert drift(svd) < 60
