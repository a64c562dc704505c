"""Positive semidefinite matrices of fixed rank: where pairs end, lower precision, bad items, a training loop."""

import math

import pytest
import torch

from tests.support.low_rank import F64, noise, points, semidefinite
from torchriemann.manifolds import LowRankPSD, ManifoldParameter
from torchriemann.optim import RiemannianSGD


def singular(m):
    """The axes p+1 and further, and one point beside."""
    U = torch.eye(m.n, dtype=F64).roll(m.p, 0)[:, : m.p]
    wrong = torch.cat([U.flatten(), torch.eye(m.p, dtype=F64).flatten()])
    return torch.stack([wrong, points(m)])


@pytest.mark.parametrize("p", [1, 2])
def test_a_singular_top_block_is_no_point_and_says_what_to_do(p):
    m = LowRankPSD(5, p)
    x = singular(m)
    answer, reason = m.check_point_on_manifold(x, explain=True)
    assert not answer
    assert "first" in reason and "permute the coordinates" in reason
    assert m.check_point_on_manifold(m.projx(x))
    assert m.check_point_on_manifold(m.restore(x))
    assert m.check_point_on_manifold(m.round_to(x, torch.bfloat16))
    assert (m.projx(x) - x).abs().max() < 1e-14
    # Operations are finite there, and leave the other item alone.
    y = points(m, 2, seed=1)
    leaf = x.clone().requires_grad_()
    outputs = [m.logmap(leaf, y), m.expmap(leaf, m.proju(leaf, y)), m.dist(leaf, y), m.parallel_transport(leaf, y, y)]
    (first,) = torch.autograd.grad(sum(out.square().sum() for out in outputs), leaf, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), leaf)
    assert all(out.isfinite().all() for out in (*outputs, first, second))
    alone = torch.autograd.grad(m.logmap(leaf[1], y[1]).square().sum(), leaf)[0]
    together = torch.autograd.grad(m.logmap(leaf, y).square().sum(), leaf)[0]
    torch.testing.assert_close(together[1], alone[1])


@pytest.mark.parametrize("p", [1, 2])
def test_geodesics_pass_singular_top_blocks(p):
    """A quarter turn of the first axis into the last one: there is no pair at its end, and another one behind it."""
    m = LowRankPSD(4, p)
    U, S = torch.eye(4, p, dtype=F64), torch.eye(p, dtype=F64) + 0.3 * torch.ones(p, p, dtype=F64)
    x = m.join(U, S)
    moved = torch.zeros(4, p, dtype=F64)
    moved[3, 0] = math.pi / 2
    u = torch.cat([moved.flatten(), torch.zeros(p * p, dtype=F64)])
    times = torch.tensor([0.9, 1.0, 1.1], dtype=F64)
    ends = m.expmap(x, times.unsqueeze(-1) * u)
    assert m.exp_is_defined(x, times.unsqueeze(-1) * u).tolist() == [True, False, True]
    assert m.check_point_on_manifold(ends[[0, 2]])
    assert m.check_point_on_manifold(m.retr(x, u))
    torch.testing.assert_close(m.dist(x, ends), math.pi / 2 * torch.tensor([0.9, 1.0, 0.9], dtype=F64))
    torch.testing.assert_close(m.split(ends)[1], S.expand(3, p, p))
    a, b = m.to_matrix(m.expmap(x, torch.tensor([[1 - 1e-9], [1 + 1e-9]], dtype=F64) * u))
    jump = (a - b).abs().max()
    assert jump < 1e-8 if p == 1 else jump > 0.5


def test_equal_and_vanishing_cosines_have_derivatives():
    """A top block with equal singular values, one of them zero, and the identity: velocities against quotients."""
    m = LowRankPSD(6, 3)
    for cosines in ([1.0, 1.0, 1.0], [0.6, 0.6, 0.6], [0.8, 0.8, 1e-4]):
        c = torch.tensor(cosines, dtype=F64)
        U = torch.cat([torch.diag(c), torch.diag((1 - c * c).sqrt())])
        x = m.join(U, semidefinite(3, 4))
        u = m.proju(x, noise(27, seed=5))
        h = 1e-6
        quotient = (m.expmap(x, h * u) - m.expmap(x, -h * u)) / (2 * h)
        torch.testing.assert_close(quotient, u, rtol=0, atol=1e-7)


# ---- dtypes and bad items -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision(dtype):
    m = LowRankPSD(5, 2)
    x, y = points(m, 200, seed=1), points(m, 200, seed=2)
    low, other = m.round_to(x, dtype), m.round_to(y, dtype)
    m.assert_check_point_on_manifold(low)
    m.assert_check_point_on_manifold(points(m, 200, dtype=dtype))
    half = m.geodesic(low, other, 0.5)
    assert half.dtype == dtype
    m.assert_check_point_on_manifold(half)
    want = m.dist(low.double(), other.double())
    assert ((m.dist(low, other).double() - want).abs() <= 8 * torch.finfo(dtype).eps * (1 + want)).all()


def test_a_bad_item_and_an_empty_batch():
    m = LowRankPSD(4, 2)
    x, y = points(m, 3, seed=1), points(m, 3, seed=2)
    want = m.logmap(x, y)
    x[1, 0] = torch.nan
    got = m.logmap(x, y)
    assert got[1].isnan().any()
    assert torch.equal(got[[0, 2]], want[[0, 2]])
    assert m.from_matrix(torch.zeros(0, 4, 4)).shape == (0, 12)
    assert m.to_matrix(x[:0]).shape == (0, 4, 4)
    X = semidefinite(4, 4, 3)
    X[1, 0, 0] = torch.nan
    assert m.from_matrix(X)[[0, 2]].isfinite().all()
    assert m.from_matrix(X)[1].isnan().any()
    assert not m.check_point_on_manifold(m.from_matrix(torch.zeros(4, 4)))  # of rank zero


@pytest.mark.parametrize(
    "diagonal", [(1, 0, 0, 0), (0, 0, 0, 3), (0, 0, 0, 0), (1, 1, 1, 1), (2, 1, 1, 0), (-1, -1, -1, -1)]
)
def test_matrices_without_a_gap_behind_eigenvalue_p(diagonal):
    """Of lower rank, or with equal eigenvalues: one of the best approximations, with derivatives that are numbers."""
    m = LowRankPSD(4, 2)
    X = torch.diag(torch.tensor(diagonal, dtype=F64)).requires_grad_()
    x = m.projx(m.from_matrix(X))
    assert m.check_point_on_manifold(x.detach())
    eigenvalues = torch.linalg.eigvalsh(m.to_matrix(x)).detach()
    if max(diagonal) > 0:
        want = torch.tensor([0, 0, *sorted(diagonal)[2:]], dtype=F64)
        torch.testing.assert_close(eigenvalues, want, rtol=0, atol=1e-13)
    (first,) = torch.autograd.grad(m.to_matrix(x).sum(), X, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), X)
    assert first.abs().max() < 2 and second.abs().max() < 10


def test_an_optimizer_finds_a_matrix_of_that_rank():
    m = LowRankPSD(6, 2)
    target = semidefinite(6, 2, seed=7) / 4
    start = m.from_matrix(target + 0.3 * semidefinite(6, 6, seed=8) / 6)
    first = (m.to_matrix(start) - target).square().sum()
    x = ManifoldParameter(start, m)
    optimizer = RiemannianSGD([x], lr=0.03, momentum=0.9)
    for _ in range(200):
        optimizer.zero_grad()
        loss = (m.to_matrix(x) - target).square().sum()
        loss.backward()
        optimizer.step()
    m.assert_check_point_on_manifold(x.detach())
    assert loss.detach() < 1e-4 * first
