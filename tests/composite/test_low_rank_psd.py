"""Positive semidefinite matrices of fixed rank against numpy and scipy."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from tests.support.low_rank import F64, generator, noise, points, semidefinite
from torchriemann.manifolds import (
    Grassmann,
    LowRankPSD,
    Product,
    Scaled,
    SPDAffineInvariant,
    SPDBuresWasserstein,
    SPDLogCholesky,
    SPDLogEuclidean,
    SPDPowerCholesky,
    SPDPowerEuclidean,
)
from torchriemann.manifolds.gyro import is_gyro

METRICS = [
    SPDAffineInvariant(),
    SPDLogEuclidean(),
    SPDPowerEuclidean(0.5),
    SPDLogCholesky(),
    SPDPowerCholesky(0.5),
    SPDBuresWasserstein(),
]


def pair_of(X, p):
    """The canonical pair of the part of rank p, by numpy and scipy."""
    values, vectors = np.linalg.eigh(X)
    W, _ = scipy.linalg.polar(vectors[:p, -p:], side="left")
    U = vectors[:, -p:] @ W.T
    return U, U.T @ X @ U


def spd_distance(S, R):
    return math.sqrt(sum(math.log(w) ** 2 for w in scipy.linalg.eigvalsh(R, S)))


# ---- pairs and matrices ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, p", [(5, 2), (4, 3), (3, 1), (3, 3)])
def test_the_pair_of_a_matrix_is_that_of_numpy(n, p):
    m = LowRankPSD(n, p)
    X = semidefinite(n, n, 4)
    x = m.from_matrix(X)
    m.assert_check_point_on_manifold(x)
    for one, U, S in zip(X.numpy(), *m.split(x), strict=True):
        want_U, want_S = pair_of(one, p)
        np.testing.assert_allclose(U, want_U, atol=1e-13)
        np.testing.assert_allclose(S, want_S, atol=1e-12)
    values, vectors = torch.linalg.eigh(X)
    best = (vectors[..., -p:] * values[..., None, -p:]) @ vectors[..., -p:].mT
    torch.testing.assert_close(m.to_matrix(x), best, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(m.from_matrix(best), x, rtol=1e-12, atol=1e-12)


def test_join_takes_any_pair_and_split_gives_the_canonical_one():
    m = LowRankPSD(6, 3)
    U, S = Grassmann().random(5, 6, 3, generator=generator(), dtype=F64), semidefinite(3, 4, 5)
    q = torch.linalg.qr(noise(5, 3, 3))[0]
    x = m.join(U, S)
    m.assert_check_point_on_manifold(x)
    torch.testing.assert_close(m.join(U @ q, q.mT @ S @ q), x)
    torch.testing.assert_close(m.to_matrix(x), U @ S @ U.mT)
    torch.testing.assert_close(m.join(*m.split(x)), x)
    assert m.join(U[0], S).shape == x.shape


@pytest.mark.parametrize("equal", [False, True], ids=["apart", "equal among the first"])
def test_derivatives_of_the_pair_of_a_matrix(equal):
    """First and second ones, by quotients of the matrix of the pair, and of the pair itself."""
    m = LowRankPSD(5, 2)
    q = torch.linalg.qr(noise(5, 5))[0]
    X = (q * torch.tensor([3.0, 3.0 if equal else 5.0, 1.0, 0.5, 0.0], dtype=F64)) @ q.mT
    direction, weights = semidefinite(5, 5, seed=1), noise(14, seed=2)

    def along(t):
        return (m.from_matrix(X + t * direction) * weights).sum()

    zero, h = torch.zeros((), dtype=F64, requires_grad=True), 1e-3
    (first,) = torch.autograd.grad(along(zero), zero, create_graph=True)
    (second,) = torch.autograd.grad(first, zero)
    two, one, back, far = (along(torch.tensor(k * h, dtype=F64)) for k in (2, 1, -1, -2))
    torch.testing.assert_close(first, (8 * (one - back) - (two - far)) / (12 * h), rtol=1e-8, atol=1e-8)
    curved = (16 * (one + back) - (two + far) - 30 * along(0.0)) / (12 * h * h)
    torch.testing.assert_close(second, curved, rtol=1e-6, atol=1e-6)


# ---- the metric -----------------------------------------------------------------------------------------------


def test_distance_and_geodesic_are_those_of_both_parts_by_scipy():
    n, p, weight, t = 6, 2, 2.0, 0.3
    m = LowRankPSD(n, p, weight=weight)
    x, y = points(m, 3, seed=1), points(m, 3, seed=2)
    X, Y = m.to_matrix(x).numpy(), m.to_matrix(y).numpy()
    between, d = m.to_matrix(m.geodesic(x, y, t)).numpy(), m.dist(x, y)
    for i in range(3):
        (U, S), (V, R) = pair_of(X[i], p), pair_of(Y[i], p)
        angles = scipy.linalg.subspace_angles(U, V)
        want = math.sqrt((angles**2).sum() + weight * spd_distance(S, R) ** 2)
        np.testing.assert_allclose(d[i], want, rtol=1e-12)
        left, cosines, right = np.linalg.svd(U.T @ V)
        first, turned = U @ left, V @ right.T
        across = (turned - first * cosines) / np.sin(np.arccos(cosines))
        basis = first * np.cos(t * np.arccos(cosines)) + across * np.sin(t * np.arccos(cosines))
        W, _ = scipy.linalg.polar(basis[:p], side="left")
        root = scipy.linalg.sqrtm(S)
        inner = scipy.linalg.fractional_matrix_power(np.linalg.solve(root, np.linalg.solve(root, R).T), t)
        canonical = basis @ W.T
        np.testing.assert_allclose(between[i], canonical @ root @ inner @ root @ canonical.T, atol=1e-11)


def test_the_metric_is_that_of_a_weighted_product():
    m = LowRankPSD(5, 2, SPDLogEuclidean(), 2.0)
    by_hand = Product((Grassmann(), Scaled(SPDLogEuclidean(), math.sqrt(2.0))), ((5, 2), (2, 2)))
    x, y = points(m, 4, seed=1), points(m, 4, seed=2)
    torch.testing.assert_close(m.dist(x, y), by_hand.dist(x, y))
    mean = m.frechet_mean(x)
    torch.testing.assert_close(m.split(mean)[1], SPDLogEuclidean().frechet_mean(m.split(x)[1]))
    subspace = Grassmann().frechet_mean(m.split(x)[0])
    assert Grassmann().dist(m.split(mean)[0], subspace) < 1e-12
    assert m.karcher_residual(x, mean) < 1e-11


def test_velocities_are_those_of_the_canonical_pair():
    m = LowRankPSD(6, 3)
    x = points(m, 5)
    u = 0.3 * m.random_tangent(x, generator(1))
    h = 1e-3
    one, back, two, far = (m.expmap(x, k * h * u) for k in (1, -1, 2, -2))
    quotient = (8 * (one - back) - (two - far)) / (12 * h)
    torch.testing.assert_close(quotient, u, rtol=0, atol=1e-9)
    (U, _), (moved, s) = m.split(x), m.split(u)
    torch.testing.assert_close(U.mT @ moved, -(U.mT @ moved).mT)
    torch.testing.assert_close(moved[..., :3, :], moved[..., :3, :].mT)
    assert torch.equal(s, s.mT)


def test_gradient_of_a_function_of_the_matrix():
    m = LowRankPSD(5, 2)
    x = points(m).requires_grad_()
    target = semidefinite(5, 5, seed=3)
    loss = (m.to_matrix(x) - target).square().sum()
    (g,) = torch.autograd.grad(loss, x)
    gradient, u, h = m.egrad2rgrad(x, g), m.random_tangent(x.detach(), generator(4)), 1e-4
    ahead, behind = ((m.to_matrix(m.expmap(x, k * u)) - target).square().sum() for k in (h, -h))
    torch.testing.assert_close(m.inner(x, gradient, u), (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-6)


# ---- invariance -----------------------------------------------------------------------------------------------


def test_invariance_is_that_of_the_first_and_the_other_coordinates_and_no_more():
    n, p = 5, 2
    m = LowRankPSD(n, p)
    X, Y = semidefinite(n, p, seed=1), semidefinite(n, p, seed=2)
    d = m.dist(m.from_matrix(X), m.from_matrix(Y))
    a, b, c = (torch.linalg.qr(noise(k, k, seed=k))[0] for k in (p, n - p, n))
    parts = torch.block_diag(a, b)
    torch.testing.assert_close(m.dist(*(m.from_matrix(parts @ z @ parts.mT) for z in (X, Y))), d)
    moved = m.dist(*(m.from_matrix(c @ z @ c.mT) for z in (X, Y)))
    assert (moved - d).abs() > 0.05  # the ranges are as far apart as they were, S is turned otherwise
    # A metric that knows the order of coordinates keeps only changes of sign of the first p.
    cholesky = LowRankPSD(n, p, SPDLogCholesky())
    d = cholesky.dist(*map(cholesky.from_matrix, (X, Y)))
    for first, kept in ((torch.diag(torch.tensor([1.0, -1.0], dtype=F64)), True), (a, False)):
        parts = torch.block_diag(first, b)
        turned = cholesky.dist(*(cholesky.from_matrix(parts @ z @ parts.mT) for z in (X, Y)))
        assert bool((turned - d).abs() < 1e-12) == kept


# ---- options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_any_metric_of_s(metric):
    m = LowRankPSD(4, 2, metric, 0.7)
    x = points(m, 3)
    u = 0.1 * m.random_tangent(x, generator(1))
    assert m.exp_is_defined(x, u).all()
    y = m.expmap(x, u)
    m.assert_check_point_on_manifold(y)
    torch.testing.assert_close(m.logmap(x, y), u)
    torch.testing.assert_close(m.dist(x, y), m.norm(x, u))
    m.assert_check_point_on_manifold(m.random_normal(50, 12, std=0.5, generator=generator(), dtype=F64))
    far = m.retr(x, 30 * u)
    m.assert_check_point_on_manifold(far)


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_of_full_rank_it_is_the_metric_of_s(metric):
    m = LowRankPSD(3, 3, metric, 4.0)
    X, Y = semidefinite(3, 5, 4, seed=1), semidefinite(3, 5, 4, seed=2)
    x, y = m.from_matrix(X), m.from_matrix(Y)
    torch.testing.assert_close(m.split(x)[0], torch.eye(3, dtype=F64).expand(4, 3, 3))
    torch.testing.assert_close(m.dist(x, y), 2 * metric.dist(X, Y))
    torch.testing.assert_close(m.to_matrix(m.geodesic(x, y, 0.3)), metric.geodesic(X, Y, 0.3))
    torch.testing.assert_close(m.logmap(x, y)[..., 9:].unflatten(-1, (3, 3)), metric.logmap(X, Y))
    assert m.logmap(x, y)[..., :9].abs().max() < 1e-13
    own = torch.as_tensor(metric.injectivity_radius(X), dtype=F64)
    torch.testing.assert_close(torch.as_tensor(m.injectivity_radius(x), dtype=F64), 2 * own)
    assert m.dimension((18,)) == 6
    assert m.basis(x).shape == (4, 6, 18)


def test_sizes_and_radii():
    m = LowRankPSD(5, 2)
    assert m.dimension((14,)) == 9
    assert m.injectivity_radius() == math.pi / 2
    assert float(LowRankPSD(5, 2, SPDPowerEuclidean(1.0)).injectivity_radius(m.origin(14))) == 1.0
    U, S = m.split(m.origin(3, 14))
    assert torch.equal(U, torch.eye(5, 2).expand(3, 5, 2))
    assert torch.equal(S, torch.eye(2).expand(3, 2, 2))
    with pytest.raises(NotImplementedError, match="uniform law"):
        m.random_uniform(14)


def test_a_learned_weight():
    w = torch.tensor(2.0, requires_grad=True)  # in float32, beside points in float64
    m = LowRankPSD(4, 2, weight=w)
    x, y = points(m, 3, seed=1), points(m, 3, seed=2)
    for _ in range(2):  # the graph of one loss is not that of the next
        (g,) = torch.autograd.grad(m.dist2(x, y).sum(), w)
    spd = SPDAffineInvariant().dist2(m.split(x)[1], m.split(y)[1]).sum()
    torch.testing.assert_close(g.double(), spd, rtol=1e-6, atol=0)
    assert m.dist(x, y).dtype == F64
    compiled = torch.compile(lambda w: LowRankPSD(4, 2, weight=w).dist2(x, y).sum(), backend="aot_eager")
    torch.testing.assert_close(compiled(w), m.dist2(x, y).sum())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((3, 4), "rank p must be from 1 to n = 3, got 4"),
        ((3, 0), "rank p must be from 1"),
        ((3.0, 1), "n must be an integer"),
        ((3, 2, Grassmann()), "spd must be a metric"),
        ((3, 2, SPDLogCholesky((1.0, 1.0, 1.0))), "spd has no matrices of size p = 2"),
        ((3, 2, SPDAffineInvariant(), 0.0), "weight must be a positive"),
        ((3, 2, SPDAffineInvariant(), -1.0), "weight must be a positive"),
        ((3, 2, SPDAffineInvariant(), torch.ones(2)), "weight must be a positive"),
        ((3, 2, SPDAffineInvariant(), "one"), "weight must be a positive"),
        ((3, 2, SPDAffineInvariant(), True), "weight must be a positive"),
    ],
)
def test_wrong_options(arguments, message):
    with pytest.raises(ValueError, match=message):
        LowRankPSD(*arguments)


def test_wrong_arguments():
    m = LowRankPSD(4, 2)
    with pytest.raises(
        ValueError, match=r"from_matrix: X must be a tensor \*B,4,4 of floating-point numbers, got \(3, 3\)"
    ):
        m.from_matrix(torch.eye(3))
    with pytest.raises(ValueError, match=r"from_matrix: X must be a tensor .* got \(4, 4\) of torch.int64"):
        m.from_matrix(torch.eye(4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"join: U must be a tensor \*B,4,2"):
        m.join(torch.eye(2), torch.eye(2))
    with pytest.raises(ValueError, match=r"join: batch dimensions"):
        m.join(torch.zeros(2, 4, 2), torch.zeros(3, 2, 2))
    with pytest.raises(ValueError, match=r"points have 8 \+ 4 = 12 entries"):
        m.split(torch.zeros(11))


def test_gyro_operations_are_there_when_both_parts_have_them():
    m = LowRankPSD(4, 2, SPDBuresWasserstein())
    assert not is_gyro(m)
    with pytest.raises(NotImplementedError, match=r"LowRankPSD.* has no gyro structure, since .* has none"):
        m.gyroadd(points(m), points(m))
    assert is_gyro(LowRankPSD(4, 2)) and is_gyro(LowRankPSD(3, 3))


@pytest.mark.parametrize("n, p", [(5, 2), (4, 3), (3, 3), (4, 1)])
def test_sums_are_those_of_both_factors_in_the_canonical_pair(n, p):
    m = LowRankPSD(n, p, weight=2.0)
    z = [0.3 * torch.randn(6, *m.normal_shape((m.n * p + p * p,)), dtype=torch.float64) for _ in range(3)]
    x, y, w = map(m.from_normal, z)
    torch.testing.assert_close(m.to_normal(x), z[0], atol=1e-12, rtol=0)
    (U, S), (V, R) = m.split(x), m.split(y)
    total = m.gyroadd(x, y)
    got, T = m.split(total)
    want = Grassmann().gyroadd(U, V)
    torch.testing.assert_close(got @ got.mT, want @ want.mT, atol=1e-13, rtol=0)
    torch.testing.assert_close(T, SPDAffineInvariant().gyroadd(S, R), atol=1e-12, rtol=1e-12)
    assert m.check_point_on_manifold(total)
    torch.testing.assert_close(m.dist(m.gyroadd(x, y), m.gyroadd(x, w)), m.dist(y, w), atol=1e-12, rtol=0)
    torch.testing.assert_close(m.gyroadd(m.gyroinv(x), total), y, atol=1e-12, rtol=0)
