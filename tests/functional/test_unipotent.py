"""Logarithms and exponentials of unit triangular matrices, against closed forms and torch's exponential."""

import pytest
import torch

from tests.support.correlation import generator
from torchriemann.manifolds import CorrelationLogEuclideanCholesky
from torchriemann.manifolds.functional.unipotent import unipotent_exp, unipotent_log

F64, F32 = torch.float64, torch.float32


def toeplitz(p, n):
    """(I - Z)^-p with Z the shift, and its logarithm ``p sum Z^k/k``: the factors of smooth processes, for p < 0 of
    moving averages."""
    d = torch.arange(n, dtype=F64).unsqueeze(-1) - torch.arange(n, dtype=F64)
    log = torch.where(d > 0, p / d.clamp_min(1), 0.0)
    column = [1.0]
    for k in range(1, n):
        column.append(column[-1] * (p + k - 1) / k)
    power = torch.where(d > 0, torch.tensor(column, dtype=F64)[d.clamp_min(0).long()], 0.0)
    return power, log


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("n", [2, 3, 9, 16, 64])
@pytest.mark.parametrize("p", [1.0, 0.5, -1.0, 1.5])
def test_functions_of_unipotent_matrices_that_sums_of_powers_lose(p, n, dtype):
    """Of (I - Z)^-1 of 64 rows the sum of powers ends 1e9 off in float64."""
    S, V = (t.to(dtype) for t in toeplitz(p, n))
    bound = 40 * torch.finfo(dtype).eps
    assert (unipotent_log(S)[0] - V).abs().max() < bound * V.abs().max()
    assert (unipotent_exp(V)[0] - S).abs().max() < bound * S.abs().max()


def test_the_exponential_of_a_long_matrix():
    for p in (-8.0, 20.0):
        S, V = toeplitz(p, 64)
        assert (unipotent_exp(V)[0] - S).abs().max() < 1e-14 * S.abs().max()


@pytest.mark.parametrize("n", [2, 4, 7, 20])
def test_derivatives_of_functions_of_unipotent_matrices(n):
    S, E, G = (torch.randn(2, n, n, generator=generator(s), dtype=F64) / n**0.5 for s in (0, 1, 2))
    S, E = S.tril(-1), E.tril(-1)
    V, dV = unipotent_log(S, E)
    back, dS = unipotent_exp(V, dV)
    torch.testing.assert_close(back, S, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(dS, E, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(back + torch.eye(n), torch.linalg.matrix_exp(V), rtol=1e-12, atol=1e-13)
    for f, at, along, found in ((unipotent_log, S, E, dV), (unipotent_exp, V, dV, dS)):
        h = 1e-5
        quotient = (f(at + h * along)[0] - f(at - h * along)[0]) / (2 * h)
        torch.testing.assert_close(found, quotient, rtol=1e-6, atol=1e-8)
    transposed = unipotent_exp(V.mT, G)[1].tril(-1)
    torch.testing.assert_close((transposed * dV).sum(), (G * dS).sum(), rtol=1e-11, atol=1e-12)


def test_sizes_that_change_under_compile():
    """The rule of integration is made by numpy, for a size that the second graph leaves open."""
    torch.compiler.reset()
    m = CorrelationLogEuclideanCholesky()
    compiled = torch.compile(m.chart.forward, backend="eager", fullgraph=True)
    for n in (3, 4, 5):
        x = m.random_normal(2, n, n, std=0.3, generator=generator(), dtype=F64)
        torch.testing.assert_close(compiled(x), m.chart.forward(x))
