"""The Cholesky metrics of correlation matrices, against many digits, their definition, a product of hyperboloids."""

import mpmath
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests.support.correlation import generator, of_condition
from torchriemann.manifolds import (
    CorrelationEuclideanCholesky,
    CorrelationLogEuclideanCholesky,
    CorrelationPolyHyperbolic,
    Lorentz,
    Product,
)
from torchriemann.manifolds.correlation.lorentz_rows import LorentzRows
from torchriemann.testing import Launches

F64, F32 = torch.float64, torch.float32
FLAT, LOG, POLY = CorrelationEuclideanCholesky(), CorrelationLogEuclideanCholesky(), CorrelationPolyHyperbolic()
METRICS = [FLAT, LOG, POLY]
every_metric = pytest.mark.parametrize("m", METRICS, ids=lambda m: m.name)


def unit_factor(x):
    """Theta, by torch alone."""
    L = torch.linalg.cholesky(x)
    return L / L.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)


# ---- many digits ----------------------------------------------------------------------------------------------


def exact_factor(x):
    """Theta of the numbers that are stored."""
    L = mpmath.cholesky(mpmath.matrix(x.tolist()), tol=0)
    n = L.rows
    return mpmath.matrix([[L[i, j] / L[i, i] if j <= i else 0 for j in range(n)] for i in range(n)])


def exact_log(theta):
    n = theta.rows
    S, P = theta - mpmath.eye(n), mpmath.zeros(n)
    power = S.copy()
    for k in range(1, n):
        P += power * (mpmath.mpf((-1) ** (k + 1)) / k)
        power = power * S
    return P


def exact_dist(m, x, y):
    a, b = exact_factor(x), exact_factor(y)
    n = a.rows
    if m == LOG:
        a, b = exact_log(a), exact_log(b)
    if m != POLY:
        return mpmath.sqrt(sum((a[i, j] - b[i, j]) ** 2 for i in range(n) for j in range(i)))
    total = mpmath.mpf(0)
    for i in range(1, n):
        s, t = [a[i, j] for j in range(i)], [b[i, j] for j in range(i)]
        time = [mpmath.sqrt(1 + sum(c * c for c in row)) for row in (s, t)]
        total += mpmath.acosh(time[0] * time[1] - sum(c * d for c, d in zip(s, t, strict=True))) ** 2
    return mpmath.sqrt(total)


@every_metric
@pytest.mark.parametrize("condition", [1e2, 1e10])
def test_distances_and_round_trips(m, condition):
    x, y = (of_condition(8, 8, condition=condition, seed=s) for s in (0, 1))
    bound = 8 * torch.finfo(F64).eps * float(torch.linalg.cond(x) + torch.linalg.cond(y))
    with mpmath.workdps(80):
        assert abs(m.dist(x, y) / float(exact_dist(m, x, y)) - 1) < bound
    assert (m.expmap(x, m.logmap(x, y)) - y).abs().max() < bound
    z = m.to_normal(x)
    assert (m.to_normal(m.from_normal(z)) - z).abs().max() < bound * z.abs().max()
    assert (m.from_normal(z) - x).abs().max() < 1e-13


@every_metric
def test_digits_that_the_docstrings_promise(m):
    for condition, bound in ((1e2, 2e-14), (1e4, 1e-10), (1e6, 4e-8)):
        x, y = (of_condition(40, 6, 6, condition=condition, seed=s) for s in (0, 1))
        assert (m.expmap(x, m.logmap(x, y)) - y).abs().max() < bound
    x = of_condition(40, 6, 6, condition=1e12)
    assert (m.from_normal(m.to_normal(x)) - x).abs().max() < 1e-13


@every_metric
def test_near_points_keep_their_digits(m):
    x = of_condition(5, 5, condition=30.0)
    noise = torch.randn(5, 5, generator=generator(9), dtype=F64)
    y = m.proju(x, x + 1e-8 * noise) + torch.eye(5)
    with mpmath.workdps(80):
        dist = float(exact_dist(m, x, y))
    assert abs(m.dist(x, y) / dist - 1) < 1e-6
    assert abs(m.dist2(x, y) / dist**2 - 1) < 2e-6
    assert abs(m.norm(x, m.logmap(x, y)) / dist - 1) < 1e-6
    assert m.dist(x, x) == 0


# ---- the definition -------------------------------------------------------------------------------------------


def coordinates(m, x):
    """Of one of the flat metrics, by torch alone."""
    theta = unit_factor(x)
    if m == FLAT:
        return theta.tril(-1)
    n = x.shape[-1]
    S = theta.tril(-1)
    return sum((-1) ** (k + 1) / k * torch.linalg.matrix_power(S, k) for k in range(1, n))


@pytest.mark.parametrize("m", [FLAT, LOG], ids=lambda m: m.name)
def test_flat_metrics_are_those_of_their_coordinates(m):
    x, y = (m.random_normal(6, 4, 4, std=0.5, generator=generator(s), dtype=F64) for s in (0, 1))
    u, v = (m.random_tangent(x, generator(s)) for s in (3, 4))
    at, X = torch.func.jvp(lambda x: coordinates(m, x), (x,), (u,))
    Y = torch.func.jvp(lambda x: coordinates(m, x), (x,), (v,))[1]
    torch.testing.assert_close(m.inner(x, u, v), (X * Y).sum((-2, -1)), rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(m.dist(x, y), (at - coordinates(m, y)).flatten(1).norm(dim=1), rtol=1e-11, atol=0)
    mean = coordinates(m, m.frechet_mean(x))
    torch.testing.assert_close(mean, at.mean(0), rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(coordinates(m, m.geodesic(x, y, 0.3)), 0.7 * at + 0.3 * coordinates(m, y))
    torch.testing.assert_close(coordinates(m, m.gyroadd(x, y)), at + coordinates(m, y))
    inverse = unit_factor(m.gyroinv(x))
    torch.testing.assert_close(inverse, 2 * torch.eye(4) - unit_factor(x) if m == FLAT else unit_factor(x).inverse())


def lorentz_points(x):
    """By torch alone: one point of a hyperboloid a row, side by side."""
    L = torch.linalg.cholesky(x)
    one = torch.ones_like(L[..., :1, 0])
    return torch.cat([torch.cat([one, L[..., i, :i]], -1) / L[..., i, i, None] for i in range(1, x.shape[-1])], -1)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_poly_hyperbolic_metric_is_that_of_a_product_of_hyperboloids(n):
    p = Product((Lorentz(),) * (n - 1), tuple((i + 1,) for i in range(1, n)))
    x, y, z = (POLY.random_normal(6, n, n, std=0.4, generator=generator(s), dtype=F64) for s in range(3))
    u, v = (0.5 * POLY.random_tangent(x, generator(s)) for s in (3, 4))
    X, Y, Z = map(lorentz_points, (x, y, z))
    U, V = (torch.func.jvp(lorentz_points, (x,), (w,))[1] for w in (u, v))

    def close(a, b):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)

    def moved(at, w):
        return torch.func.jvp(lorentz_points, (at,), (w,))[1]

    assert POLY.dimension((n, n)) == p.dimension((p.size,)) == n * (n - 1) // 2
    for name in ("dist", "dist2"):
        close(getattr(POLY, name)(x, y), getattr(p, name)(X, Y))
    close(POLY.inner(x, u, v), p.inner(X, U, V))
    close(POLY.norm(x, u), p.norm(X, U))
    close(lorentz_points(POLY.expmap(x, u)), p.expmap(X, U))
    close(moved(x, POLY.logmap(x, y)), p.logmap(X, Y))
    close(moved(y, POLY.parallel_transport(x, y, v)), p.parallel_transport(X, Y, V))
    close(POLY.logdet_dexp(x, u), p.logdet_dexp(X, U))
    close(lorentz_points(POLY.gyroadd(x, y)), p.gyroadd(X, Y))
    close(lorentz_points(POLY.gyroinv(x)), p.gyroinv(X))
    close(lorentz_points(POLY.gyration(x, y, z)), p.gyration(X, Y, Z))
    close(lorentz_points(POLY.gyroscale(0.6, x)), p.gyroscale(0.6, X))
    close(lorentz_points(POLY.decay(x, 0.9)), p.decay(X, 0.9))
    close(lorentz_points(POLY.geodesic(x, y, 0.3)), p.geodesic(X, Y, 0.3))
    close(lorentz_points(POLY.frechet_mean(x)), p.frechet_mean(X))
    close(POLY.frechet_variance(x), p.frechet_variance(X))
    t = POLY.to_normal(x)
    assert t.shape == (6, n * (n - 1) // 2)
    close(t, p.to_normal(X))
    close(lorentz_points(POLY.from_normal(t)), X)
    close(moved(POLY.origin(6, n, n, dtype=F64), POLY.tangent_from_normal(t)), p.tangent_from_normal(t))
    close(POLY.logmap_frame(x, y), p.logmap_frame(X, Y))
    close(POLY.transport_frame(x, y, t), p.transport_frame(X, Y, t))
    close(lorentz_points(POLY.expmap_frame(x, t)), p.expmap_frame(X, t))
    close(moved(x, POLY.tangent_from_frame(x, t)), p.tangent_from_frame(X, t))
    close(POLY.hyperplane_dist(x, t[0], 0.2), p.hyperplane_dist(X, t[0], 0.2))
    basis, others = POLY.basis(x), p.basis(X)
    close(torch.stack([moved(x, b) for b in basis.unbind(1)], 1), others)
    if n > 2:
        close(POLY.sectional_curvature(x, u, v), p.sectional_curvature(X, U, V))
    else:
        assert POLY.closed_factors((n, n)) == ()


def test_tangent_vectors_and_volumes_of_the_rows():
    """Coordinates in the basis are independent and standard normal, of an odd factor of zeros nothing is drawn."""
    m, size = LorentzRows(), (4000, 3, 4)
    x = m.random(*size, generator=generator(), dtype=F64)
    assert m.check_point_on_manifold(x) and (x.triu(2) == 0).all()
    u = m.random_tangent(x, generator(1))
    assert m.check_vector_on_tangent(x, u)
    z = m.to_coordinates(x, u)
    assert z.shape == (4000, 6) and (torch.cov(z.T) - torch.eye(6)).abs().max() < 0.1
    torch.testing.assert_close(m.dist(x, m.expmap(x, u)), m.norm(x, u))
    spoiled = x.clone()
    spoiled[0, 0, 3] = 0.5
    assert not m.check_point_on_manifold(spoiled) and m.check_point_on_manifold(m.projx(spoiled))
    with pytest.raises(ValueError, match="m rows of m \\+ 1"):
        m.dist(torch.ones(3, 3), torch.ones(3, 3))
    narrow, U = (t[:5] for t in (x, u))
    jacobian = super(LorentzRows, m).logdet_dexp  # the product over rows of three dimensions each
    assert (m.logdet_dexp(narrow, U) < jacobian(narrow, U)).all()


# ---- derivatives ----------------------------------------------------------------------------------------------

MAPS = {
    "dist2": lambda m, x, y: m.dist2(x, y),
    "logmap": lambda m, x, y: m.logmap(x, y),
    "expmap": lambda m, x, y: m.expmap(x, m.proju(x, y - torch.eye(y.shape[-1], dtype=y.dtype))),
}


def derivatives_hold(m, name, places, fast):
    def f(x, y):
        return MAPS[name](m, x, y)

    for x, y in places:
        given = (x.requires_grad_(), y.requires_grad_())
        assert gradcheck(f, given, check_forward_ad=True, fast_mode=fast, rtol=1e-4)
        assert gradgradcheck(f, given, check_fwd_over_rev=fast, fast_mode=fast, rtol=1e-4)


def places(m, n):
    """Two independent points, and the identity twice, where all factors are unit ones."""
    x, y = (m.random_normal(n, n, std=0.5, generator=generator(s), dtype=F64) for s in (0, 1))
    return [(x, y), (torch.eye(n, dtype=F64), torch.eye(n, dtype=F64))]


@every_metric
@pytest.mark.parametrize("name", MAPS)
def test_derivatives_by_finite_differences(m, name):
    derivatives_hold(m, name, places(m, 3), True)


@pytest.mark.slow
@every_metric
@pytest.mark.parametrize("name", MAPS)
def test_all_derivatives_by_finite_differences(m, name):
    for n in (2, 4):
        derivatives_hold(m, name, places(m, n), False)


# ---- sizes, dtypes, launches ----------------------------------------------------------------------------------


@every_metric
@pytest.mark.parametrize("n", [2, 17, 64])
def test_any_size(m, n):
    x, y = (m.random_normal(3, n, n, std=n**-0.5, generator=generator(s), dtype=F32) for s in (0, 1))
    wide = m.dist(x.double(), y.double())
    torch.testing.assert_close(m.dist(x, y).double(), wide, rtol=2e-5, atol=0)
    assert (m.expmap(x, m.logmap(x, y)) - y).abs().max() < 1e-4


@every_metric
def test_half_precision(m):
    x, y = (m.random_normal(5, 4, 4, std=0.3, generator=generator(s), dtype=torch.bfloat16) for s in (0, 1))
    for name in ("dist", "logmap", "midpoint"):
        wide = getattr(m, name)(x.double(), y.double())
        found = getattr(m, name)(x, y)
        assert found.dtype == torch.bfloat16 and (found.double() - wide).abs().max() < 2e-2 * wide.abs().max()


# Measured: 14, 25, 43 of the first, 25, 106, 90, 81, 147, 131.
MOST = {
    FLAT: {"dist": 16, "logmap": 28, "expmap": 46},
    LOG: {"dist": 28, "logmap": 115, "expmap": 100},
    POLY: {"dist": 90, "logmap": 160, "expmap": 145},
}


@every_metric
@pytest.mark.parametrize("name", ["dist", "logmap", "expmap"])
def test_launches(m, name):
    """A batch serves all rows of the poly-hyperbolic metric."""
    x, y = (m.random_normal(3, 9, 9, std=0.3, generator=generator(s), dtype=F32) for s in (0, 1))
    with Launches() as launches:
        getattr(m, name)(x, y)
    assert launches.count <= MOST[m][name], launches.count
