"""Probability vectors, for tests of them."""

import torch

from torchriemann import Simplex

M, F64, F32 = Simplex(), torch.float64, torch.float32


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def close(got, want, bound=1e-14):
    torch.testing.assert_close(got, want, rtol=bound, atol=bound)
