"""Low-rank positive semidefinite matrices for tests, from seeds."""

import torch

F64 = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def points(m, *batch, seed=0, dtype=F64):
    return m.random(*batch, m.n * m.p + m.p**2, generator=generator(seed), dtype=dtype)


def noise(*size, seed=0):
    return torch.randn(*size, generator=generator(seed), dtype=F64)


def semidefinite(n, rank, *batch, seed=0):
    factor = noise(*batch, n, rank, seed=seed)
    return factor @ factor.mT
