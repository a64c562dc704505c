"""What holds of correlation matrices whatever their metric: sampling, projection, rounding, membership."""

import math

import pytest
import scipy.stats
import torch

from tests.support.correlation import METRICS, generator, of_condition
from torchriemann import ManifoldParameter
from torchriemann.manifolds import CorrelationEuclideanCholesky
from torchriemann.manifolds.functional.definite import positive_definite

F64, F32 = torch.float64, torch.float32
every_metric = pytest.mark.parametrize("m", METRICS, ids=lambda m: m.name)
M = METRICS[0]


def is_point(x):
    """To the bit: symmetric, with ones on the diagonal, and positive definite as stored."""
    ones = x.diagonal(dim1=-2, dim2=-1) == 1
    return bool(torch.equal(x, x.mT) and ones.all() and positive_definite(x).all())


# ---- the law of Lewandowski, Kurowicka and Joe ----------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("concentration", [0.5, 1.0, 3.0])
def test_the_law_of_samples(n, concentration):
    x = M.random_lkj(20000, n, n, concentration=concentration, generator=generator(3), dtype=F64)
    a = concentration + n / 2 - 1
    for i, j in {(1, 0), (n - 1, 0), (n - 1, n - 2)}:
        found = scipy.stats.kstest((0.5 + 0.5 * x[:, i, j]).numpy(), scipy.stats.beta(a, a).cdf)
        assert found.pvalue > 1e-3, (i, j)
        assert abs(x[:, i, j].square().mean() * (2 * a + 1) - 1) < 0.05
    # The squares on the diagonal of the factor are independent, Beta(b_i, i/2).
    squares = torch.linalg.cholesky(x).diagonal(dim1=-2, dim2=-1).square()
    for i in range(1, n):
        b = concentration + (n - 1 - i) / 2
        assert scipy.stats.kstest(squares[:, i].numpy(), scipy.stats.beta(b, i / 2).cdf).pvalue > 1e-3
    assert torch.corrcoef(squares[:, 1:].T).reshape(n - 1, n - 1).fill_diagonal_(0).abs().max() < 0.03


def test_samples_of_a_density_in_three_rows():
    """Of concentration one, the share of the cube that is positive definite is pi^2/16 (Rousseeuw and Molenberghs
    1994), and by its own density the mean of the determinant is that over uniform entries."""
    entries = 2 * torch.rand(200000, 3, generator=generator(4), dtype=F64) - 1
    a, b, c = entries.T
    det = 1 - a * a - b * b - c * c + 2 * a * b * c
    inside = det[det > 0]
    assert abs(len(inside) / len(det) - math.pi**2 / 16) < 5e-3
    for concentration in (1.0, 3.0):
        weights = inside ** (concentration - 1)
        want = (weights * inside).sum() / weights.sum()
        x = M.random_lkj(20000, 3, 3, concentration=concentration, generator=generator(5), dtype=F64)
        assert abs(torch.linalg.det(x).mean() / want - 1) < 0.02


@every_metric
@pytest.mark.parametrize("dtype", [F64, F32, torch.bfloat16, torch.float16])
def test_samples_are_points(m, dtype):
    for concentration in (0.01, 1.0):
        x = m.random_lkj(500, 4, 4, concentration=concentration, generator=generator(), dtype=dtype)
        assert x.dtype == dtype and is_point(x) and m.check_point_on_manifold(x)
    assert torch.equal(m.random(3, 4, 4, generator=generator(), dtype=dtype), METRICS[0].random(
        3, 4, 4, generator=generator(), dtype=dtype
    ))  # fmt: skip
    assert is_point(m.random_normal(50, 4, 4, std=1.0, generator=generator(), dtype=dtype))


@pytest.mark.parametrize("concentration", [0, 0.0, -1.0, math.nan, math.inf, "1", True, None, torch.ones(2)])
def test_the_concentration_is_a_positive_number(concentration):
    with pytest.raises(ValueError, match="CorrelationEuclideanCholesky.random_lkj: concentration"):
        M.random_lkj(3, 3, concentration=concentration)


def test_the_concentration_may_be_any_positive_number():
    for given in (2, 1e-3, 1e6, torch.tensor(2.0)):
        assert is_point(M.random_lkj(20, 3, 3, concentration=given, generator=generator(), dtype=F64))
    near = M.random_lkj(20, 3, 3, concentration=1e6, generator=generator(), dtype=F64)
    assert (near - torch.eye(3)).abs().max() < 1e-2


@every_metric
def test_normal_samples_have_their_deviation(m):
    mean = m.random_normal(3, 3, std=0.5, generator=generator(7), dtype=F64)
    for std in (0.1, 0.7):
        x = m.random_normal(4000, 3, 3, mean=mean, std=std, generator=generator(8), dtype=F64)
        squares = m.dist2(x, mean) / std**2
        assert scipy.stats.kstest(squares.numpy(), scipy.stats.chi2(3).cdf).pvalue > 1e-3
    with pytest.raises(ValueError, match=f"{m.name}.random_normal: std must broadcast"):
        m.random_normal(4, 3, 3, std=torch.ones(3))


def test_there_is_no_uniform_law():
    with pytest.raises(NotImplementedError, match="random_lkj"):
        M.random_uniform(3, 3)


# ---- projection, restoration, rounding ------------------------------------------------------------------------

DEGENERATE = {
    "zero": torch.zeros(3, 3, dtype=F64),
    "ones": torch.ones(3, 3, dtype=F64),
    "negative": -torch.eye(3, dtype=F64),
    "opposite": torch.tensor([[1.0, 1.0, -1.0], [1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]], dtype=F64),
    "a zero on the diagonal": torch.diag(torch.tensor([1.0, 0.0, 2.0], dtype=F64)),
    "asymmetric": torch.tensor([[0.0, 9.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=F64),
    "large": 1e300 * torch.ones(3, 3, dtype=F64),
    "small": -1e-300 * torch.ones(3, 3, dtype=F64),
}


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("name", DEGENERATE)
def test_the_projection_is_a_point(name, dtype):
    x = DEGENERATE[name]
    if dtype == F32:
        x = (x.sign() * x.abs().clamp(1e-30, 1e30) * (x != 0)).to(F32)
    y = M.projx(x)
    assert is_point(y) and torch.equal(M.projx(y), y)


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("n", [2, 5, 20])
def test_projections_of_noise_and_of_points(n, dtype):
    noise = torch.randn(300, n, n, generator=generator(), dtype=dtype)
    y = M.projx(noise)
    assert is_point(y) and torch.equal(M.projx(y), y) and torch.equal(M.restore(y), y)
    x = M.random(300, n, n, generator=generator(), dtype=dtype)
    assert torch.equal(M.projx(x), x) and torch.equal(M.restore(x), x)
    scales = torch.logspace(-3, 3, n)
    covariances = scales.unsqueeze(-1) * (noise @ noise.mT + n * torch.eye(n)) * scales
    torch.testing.assert_close(M.projx(covariances), M.correlation(covariances), rtol=0, atol=0)


def test_restoration_mends_drift():
    x = of_condition(100, 5, 5, condition=1e7, dtype=F32)
    drifted = x * (1 + 3e-7 * torch.randn(100, 5, 5, generator=generator()))
    mended = M.restore(drifted)
    assert is_point(mended) and (mended - x).abs().max() < 1e-4
    singular = (1 - 1e-8) * torch.ones(4, 4) + 1e-8 * torch.eye(4)
    assert is_point(M.restore(singular))


@every_metric
@pytest.mark.parametrize("dtype", [F32, torch.bfloat16, torch.float16])
def test_rounding_next_to_singular_matrices(m, dtype):
    near = torch.cat([
        of_condition(200, 6, 6, condition=1e12),
        0.5 + 0.5 * of_condition(50, 6, 6, condition=1e3),
        M.correlation(torch.ones(1, 6, 6, dtype=F64) + 1e-12 * torch.eye(6)),
    ])  # fmt: skip
    assert is_point(near)
    y = m.round_to(near, dtype)
    assert y.dtype == dtype and is_point(y) and m.check_point_on_manifold(y)
    assert (y.double() - near).abs().max() < 10 * torch.finfo(dtype).eps
    assert torch.equal(m.round_to(y, dtype), y)
    # What may be rounded to the nearest numbers is.
    tame = m.random_normal(50, 6, 6, std=0.1, generator=generator(), dtype=F64)
    assert torch.equal(m.round_to(tame, dtype), tame.to(dtype))
    assert is_point(m.midpoint(y, y[:1]))


# ---- covariances ----------------------------------------------------------------------------------------------


def test_the_correlation_of_a_covariance():
    a = torch.randn(50, 4, 4, generator=generator(), dtype=F64)
    c = a @ a.mT + 0.1 * torch.eye(4)
    x = M.correlation(c)
    d = c.diagonal(dim1=-2, dim2=-1).sqrt()
    torch.testing.assert_close(x, c / (d.unsqueeze(-1) * d.unsqueeze(-2)), rtol=1e-14, atol=1e-15)
    assert is_point(x) and torch.equal(M.correlation(x), x)
    scales = torch.tensor([1e150, 1e-150, 1.0, 1e100], dtype=F64)
    torch.testing.assert_close(M.correlation(scales.unsqueeze(-1) * c * scales), x, rtol=1e-13, atol=1e-15)
    for power in (-300, 300):
        torch.testing.assert_close(M.correlation(10.0**power * c), x, rtol=1e-13, atol=1e-15)
    samples = torch.randn(30, 4, generator=generator(), dtype=F64)
    torch.testing.assert_close(M.correlation(torch.cov(samples.T)), torch.corrcoef(samples.T))
    assert is_point(M.correlation(c.bfloat16())) and M.correlation(c.bfloat16()).dtype == torch.bfloat16


def test_the_gradient_of_the_correlation():
    a = torch.randn(3, 3, 3, generator=generator(), dtype=F64)
    c = (a @ a.mT).requires_grad_()
    assert torch.autograd.gradcheck(M.correlation, c) and torch.autograd.gradgradcheck(M.correlation, c)
    g = torch.randn(3, 3, 3, generator=generator(1), dtype=F64)
    (plain,) = torch.autograd.grad((g * M.correlation(c)).sum(), c)
    for scale in (1e-200, 1e200):
        moved = (scale * c.detach()).requires_grad_()
        (found,) = torch.autograd.grad((g * M.correlation(moved)).sum(), moved)
        torch.testing.assert_close(scale * found, plain, rtol=1e-11, atol=1e-12)


def test_covariances_without_a_correlation():
    bad = [torch.diag(torch.tensor(d, dtype=F64)) for d in ([1.0, 0.0], [1.0, -1.0], [1.0, math.nan], [math.inf, 1.0])]
    x = torch.stack([torch.eye(2, dtype=F64), *bad]).requires_grad_()
    y = M.correlation(x)
    assert torch.equal(y[0], torch.eye(2, dtype=F64)) and y[1:].isnan().all()
    (g,) = torch.autograd.grad(y[:, 0, 1].sum(), x)
    assert g[0].isfinite().all()
    for wrong in (torch.ones(2, 3), torch.ones(1, 1), torch.ones(2, 2, dtype=torch.int64), "x"):
        with pytest.raises(ValueError, match="CorrelationEuclideanCholesky.correlation"):
            M.correlation(wrong)


# ---- messages -------------------------------------------------------------------------------------------------


@every_metric
def test_messages_say_what_to_do(m):
    spread = torch.diag(torch.tensor([1.0, 2.0, 3.0]))
    cases = {
        r"max\|x_ii - 1\| = 2 .*call correlation\(x\) if it is a covariance matrix, else projx": spread,
        r"max\|x - x\^T\| = 0.5 .*projx": torch.eye(3) + 0.5 * torch.ones(3, 3).triu(1),
        "not positive definite.*projx.*part of the identity": torch.ones(3, 3),
        r"not positive definite: item \(1,\)": torch.stack([torch.eye(3), 2 * torch.ones(3, 3) - torch.eye(3)]),
        "remove its NaN": torch.full((3, 3), math.nan),
        "at least two rows, got 1 x 1": torch.ones(1, 1),
        "square matrices of at least two rows, got 2 x 3": torch.ones(2, 3),
        "floating-point tensor, got torch.int64": torch.eye(3, dtype=torch.int64),
    }
    for message, x in cases.items():
        with pytest.raises(ValueError, match=rf"{m.name}: .*{message}"):
            m.assert_check_point_on_manifold(x)
        with pytest.raises(ValueError, match=m.name):
            ManifoldParameter(x, m)
    with pytest.raises(ValueError, match=r"max\|u_ii\| = 3 .*proju"):
        m.assert_check_vector_on_tangent(torch.eye(3), spread)
    assert m.check_point_on_manifold(m.correlation(spread)) and m.check_point_on_manifold(m.projx(spread))
    mended = ManifoldParameter.project(torch.ones(3, 3), m)
    assert is_point(mended.detach())


@every_metric
def test_the_origin_and_decay(m):
    one = m.origin(2, 3, 3, dtype=F64)
    assert torch.equal(one, torch.eye(3, dtype=F64).expand(2, 3, 3))
    x = m.random_normal(5, 3, 3, std=0.5, generator=generator(), dtype=F64)
    torch.testing.assert_close(m.dist(one[0], m.decay(x, 0.9)), 0.9 * m.dist(one[0], x), rtol=1e-11, atol=0)
    torch.testing.assert_close(m.decay(x, 0.9), m.geodesic(one[0], x, 0.9), rtol=1e-11, atol=1e-12)
    assert m.dimension((7, 5, 5)) == 10 and m.injectivity_radius() == math.inf
    with pytest.raises(ValueError, match="at least two rows"):
        m.origin(1, 1)


def test_what_is_read():
    """Symmetric parts off the diagonal: what else there is has no influence, and no derivative."""
    m = CorrelationEuclideanCholesky()
    x, y = (m.random(3, 3, generator=generator(s), dtype=F64) for s in (0, 1))
    other = (
        x + torch.diag(torch.tensor([0.5, -0.2, 3.0], dtype=F64)) + torch.tensor([[0, 1, 2], [-1, 0, 3], [-2, -3, 0]])
    )
    torch.testing.assert_close(m.dist(other, y), m.dist(x, y), rtol=1e-12, atol=0)
    (g,) = torch.autograd.grad(m.dist(x.requires_grad_(), y), x)
    assert torch.equal(g, g.mT) and torch.equal(g.diagonal(), torch.zeros(3, dtype=F64))
