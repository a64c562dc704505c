"""The Bures-Wasserstein metric against 50 digits, scipy, peers, closed forms and its own definition."""

import math

import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch
from torch.autograd import gradcheck, gradgradcheck

from torchriemann.manifolds import SPDBuresWasserstein
from torchriemann.manifolds.functional.matrices import sym

METRIC = SPDBuresWasserstein()
F64 = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(n: int, condition: float, count: int = 6, seed: int = 0, dtype: torch.dtype = F64) -> torch.Tensor:
    return METRIC.random_spectrum(count, n, n, condition=condition, generator=seeded(seed), dtype=dtype)


def symmetric(n: int, count: int = 6, seed: int = 5) -> torch.Tensor:
    return sym(torch.randn(count, n, n, generator=seeded(seed), dtype=F64))


def radius_at(x: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(METRIC.injectivity_radius(x))


# ---- independent truth ----------------------------------------------------------------------------------------


def mp_root(a):
    values, vectors = mpmath.eigsy(a)
    return vectors * mpmath.diag([mpmath.sqrt(v) for v in values]) * vectors.T


def mp_transport_map(p, q):
    root = mp_root(p)
    inverse = mpmath.inverse(root)
    return inverse * mp_root(root * q * root) * inverse


def as_mp(a: torch.Tensor):
    return mpmath.matrix(a.tolist())


def as_torch(a) -> torch.Tensor:
    return torch.tensor([[float(a[i, j]) for j in range(a.cols)] for i in range(a.rows)], dtype=F64)


@pytest.mark.parametrize("condition", [10.0, 1e4, 1e8])
def test_fifty_digits(condition):
    n = 3
    x, y, u = points(n, condition, 2), points(n, condition, 2, seed=1), 0.3 * symmetric(n, 2)
    u = METRIC.norm(x, u, keepdim=True).reciprocal() * radius_at(x)[:, None, None] * u
    got = METRIC.logmap(x, y), METRIC.dist(x, y), METRIC.expmap(x, 0.8 * u), METRIC.midpoint(x, y)
    size = x.abs().amax()
    with mpmath.workdps(50):
        for i in range(2):
            p, q, eye = as_mp(x[i]), as_mp(y[i]), mpmath.eye(n)
            t = mp_transport_map(p, q)
            log, s = t * p + p * t - 2 * p, t - eye
            square = sum((s * p * s)[k, k] for k in range(n))
            half = (eye + t) / 2
            assert (got[0][i] - as_torch(log)).abs().max() < 1e-14 * condition**0.5 * size * t_size(t)
            assert abs(float(got[1][i]) / float(mpmath.sqrt(square)) - 1) < 1e-13
            assert (got[3][i] - as_torch(half * p * half)).abs().max() < 1e-14 * condition**0.5 * size
            values, vectors = mpmath.eigsy(p)
            inner = vectors.T * as_mp(0.8 * u[i]) * vectors
            for j in range(n):
                for k in range(n):
                    inner[j, k] /= values[j] + values[k]
            move = eye + vectors * inner * vectors.T
            assert (got[2][i] - as_torch(move * p * move)).abs().max() < 1e-14 * size


def t_size(t) -> float:
    return max(1.0, float(mpmath.mnorm(t)))


def test_the_trace_formula_and_the_optimal_coupling():
    x, y = points(5, 100.0), points(5, 100.0, seed=1)
    for p, q, square in zip(x.numpy(), y.numpy(), METRIC.dist2(x, y).numpy(), strict=True):
        root = scipy.linalg.sqrtm(p)
        cross = np.real(scipy.linalg.sqrtm(root @ q @ root))
        assert abs(np.trace(p) + np.trace(q) - 2 * np.trace(cross) - square) < 1e-12
        # The coupling with covariance x T carries N(0, x) to N(0, y), and costs that.
        t = np.linalg.inv(root) @ cross @ np.linalg.inv(root)
        assert np.allclose(t @ p @ t, q, atol=1e-12)


def test_geomstats():
    spd = pytest.importorskip("geomstats.geometry.spd_matrices")
    metric = spd.SPDBuresWassersteinMetric(spd.SPDMatrices(4, equip=False))
    x, y, u = points(4, 20.0), points(4, 20.0, seed=1), 0.05 * symmetric(4)
    assert np.allclose(metric.squared_dist(x.numpy(), y.numpy()), METRIC.dist2(x, y).numpy(), atol=1e-10)
    assert np.allclose(metric.inner_product(u.numpy(), u.numpy(), x.numpy()), METRIC.inner(x, u).numpy(), atol=1e-10)
    assert np.allclose(metric.exp(u.numpy(), x.numpy()), METRIC.expmap(x, u).numpy(), atol=1e-10)
    assert np.allclose(metric.log(y.numpy(), x.numpy()), METRIC.logmap(x, y).numpy(), atol=1e-10)


def test_pyriemann():
    base = pytest.importorskip("pyriemann.utils.distance")
    mean = pytest.importorskip("pyriemann.utils.mean")
    x, y = points(4, 50.0), points(4, 50.0, seed=1)
    for p, q, d in zip(x.numpy(), y.numpy(), METRIC.dist(x, y).numpy(), strict=True):
        assert abs(base.distance_wasserstein(p, q) - d) < 1e-10
    assert np.allclose(mean.mean_wasserstein(x.numpy(), tol=1e-12, maxiter=200), METRIC.frechet_mean(x), atol=1e-9)


# ---- accuracy -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4, 1e6, 1e8])
def test_round_trips(condition):
    for n in (1, 2, 5, 9):
        x, y = points(n, condition, 20), points(n, condition, 20, seed=1)
        back = METRIC.expmap(x, METRIC.logmap(x, y))
        size = y.abs().amax((-2, -1), keepdim=True)
        assert ((back - y) / size).abs().max() < 1e-13 * condition
        back = METRIC.retr(x, METRIC.inverse_retr(x, y))
        assert ((back - y) / size).abs().max() < 1e-13 * condition


def test_close_points_in_float32():
    """2e-5 sqrt(tr x) apart: right to 10 % of the distance of the points before rounding, and to 1e-6 of that of the
    numbers; the trace formula has nothing left."""
    x, u = points(8, 100.0, 50), symmetric(8, 50)
    size = x.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt()[:, None, None]
    y = METRIC.expmap(x, 2e-5 * size * u / METRIC.norm(x, u, keepdim=True))
    narrow = x.float(), y.float()
    got = METRIC.dist(*narrow).double()
    assert (got / METRIC.dist(x, y) - 1).abs().max() < 0.1
    assert (got / METRIC.dist(*(a.double() for a in narrow)) - 1).abs().max() < 1e-6


def test_float32_at_condition_1e6():
    x, y = points(8, 1e6, 50, dtype=torch.float32), points(8, 1e6, 50, seed=1, dtype=torch.float32)
    want = METRIC.dist(x.double(), y.double())
    assert (METRIC.dist(x, y).double() / want - 1).abs().max() < 1e-6


@pytest.mark.parametrize("condition", [1e4, 1e7])
def test_volumes_and_curvatures_in_float32(condition):
    x = points(5, condition, 50, dtype=torch.float32)
    u, v = (METRIC.random_tangent(x, seeded(i)) for i in (3, 4))
    u = 0.3 * radius_at(x)[:, None, None] * u / METRIC.norm(x, u, keepdim=True)
    for name, given, error in (("logdet_dexp", (x, u), 1e-4), ("sectional_curvature", (x, u, v), 1e-4)):
        operation = getattr(METRIC, name)
        want = operation(*(a.double() for a in given))
        assert (operation(*given).double() - want).abs().max() < error * want.abs().max()


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_units(scale, dtype):
    """The metric is of degree one in the unit of x: values and first and second derivatives have no other scale."""
    tolerance = 3e-4 if dtype == torch.float32 else 1e-11
    x, y, u, v = (
        a.to(dtype) for a in (points(4, 30.0), points(4, 30.0, seed=1), 0.01 * symmetric(4), symmetric(4, 6, 9))
    )

    def derivatives(factor: float) -> list[torch.Tensor]:
        leaf = (factor * x).requires_grad_()
        found = []
        for value, power in (
            ((METRIC.expmap(leaf, factor * u) * v).sum(), 1),
            ((METRIC.logmap(leaf, factor * y) * v).sum(), 1),
            (METRIC.dist2(leaf, factor * y).sum(), 1),
            ((METRIC.parallel_transport(leaf, factor * y, factor * u) * v).sum(), 1),
        ):
            (g,) = torch.autograd.grad(value, leaf, create_graph=True)
            (h,) = torch.autograd.grad((g * v).sum(), leaf, retain_graph=True)
            found += [value.detach() / factor**power, g.detach(), h * factor]
        return [*found, METRIC.dist(factor * x, factor * y) / factor**0.5]

    for got, want in zip(derivatives(scale), derivatives(1.0), strict=True):
        assert (got - want).abs().max() <= tolerance * want.abs().max()


# ---- derivatives ----------------------------------------------------------------------------------------------

SPECTRA = {
    "general": [0.5, 1.0, 1.7, 3.0],
    "identity": [1.0, 1.0, 1.0, 1.0],
    "pairs": [1.0, 1.0, 2.0, 2.0],
    "gaps of 1e-6": [1.0, 1.0 + 1e-6, 2.0, 2.0 + 1e-6],
}
FUNCTIONS = {
    "expmap": lambda x, u, y: METRIC.expmap(x, 0.1 * u),
    "logmap": lambda x, u, y: METRIC.logmap(x, y + 0.1 * u),
    "dist2": lambda x, u, y: METRIC.dist2(x, y + 0.1 * u),
    "retr": lambda x, u, y: METRIC.retr(x, u),
    "inverse_retr": lambda x, u, y: METRIC.inverse_retr(x, y + 0.1 * u),
    "inner": lambda x, u, y: METRIC.inner(x, u),
}


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("coincident", [True, False])
def test_derivatives_along_a_line(spectrum, coincident):
    """First and second derivatives, in reverse and in forward mode, are difference quotients along a random line."""
    x = torch.diag(torch.tensor(SPECTRA[spectrum], dtype=F64))
    y = x if coincident else points(4, 10.0, 1)[0]
    u, dx, du = 0.3 * symmetric(4, 3)
    if coincident:
        u = torch.zeros_like(u)
    for name, function in FUNCTIONS.items():
        if "retr" in name and coincident:
            continue  # their third derivatives jump

        def along(t, function=function):
            return function(x + t * dx, u + t * du, y)

        zero, h = torch.zeros((), dtype=F64), 1e-3
        weights = torch.randn(along(zero).shape, generator=seeded(2), dtype=F64)
        value = lambda t, along=along, weights=weights: (along(t) * weights).sum()  # noqa: E731
        first, second = torch.func.grad(value), torch.func.grad(torch.func.grad(value))
        ahead, behind, far, back = (value(torch.tensor(k * h, dtype=F64)) for k in (1, -1, 2, -2))
        quotient = (8 * (ahead - behind) - (far - back)) / (12 * h)
        curved = (16 * (ahead + behind) - (far + back) - 30 * value(zero)) / (12 * h * h)
        assert abs(first(zero) - quotient) < 1e-9 * (1 + quotient.abs()), name
        assert abs(torch.func.jvp(value, (zero,), (zero + 1,))[1] - quotient) < 1e-9 * (1 + quotient.abs()), name
        assert abs(second(zero) - curved) < 1e-7 * (1 + curved.abs()), name


@pytest.mark.slow
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_full_gradchecks(spectrum):
    x = torch.diag(torch.tensor(SPECTRA[spectrum][:3], dtype=F64))
    u, y = symmetric(3, 1)[0], points(3, 10.0, 1)[0]
    for function, other in (
        (METRIC.expmap, 0.1 * u),
        (METRIC.logmap, y),
        (METRIC.logmap, x.clone()),
        (METRIC.dist2, y),
        (METRIC.dist2, x.clone()),
        (METRIC.dist, y),
        (METRIC.inner, u),
        (lambda a, b: METRIC.parallel_transport(a, b, u), y),
    ):
        leaves = [x.clone().requires_grad_(), other.clone().requires_grad_()]
        assert gradcheck(function, leaves, check_forward_ad=True, atol=1e-6, rtol=1e-4)
        assert gradgradcheck(function, leaves, atol=1e-5, rtol=1e-4)


def test_gradient_of_the_square_is_one_minus_the_transport_map():
    x, y = points(4, 10.0).requires_grad_(), points(4, 10.0, seed=1).requires_grad_()
    gx, gy = torch.autograd.grad(METRIC.dist2(x, y).sum(), (x, y))
    t, eye = torch.eye(4, dtype=F64) - gx, torch.eye(4, dtype=F64)
    assert (t @ x @ t - y).abs().max() < 1e-13
    assert ((eye - gy) @ t - eye).abs().max() < 1e-13


# ---- bad items ------------------------------------------------------------------------------------------------


def bad_items(n: int) -> torch.Tensor:
    eye = torch.eye(n, dtype=F64)
    indefinite, singular, nan, infinite = eye.clone(), eye.clone(), eye.clone(), eye.clone()
    indefinite[0, 0], singular[-1, -1], nan[0, -1], infinite[0, 0] = -1.0, 0.0, torch.nan, torch.inf
    return torch.stack([indefinite, singular, nan, infinite, -eye])


@pytest.mark.parametrize("n", [1, 3])
def test_bad_items_are_nan_and_neighbours_are_not_touched(n):
    good, other, u = points(n, 10.0, 3), points(n, 10.0, 3, seed=1), 0.02 * symmetric(n, 8)
    x = torch.cat([good, bad_items(n)])
    y = torch.cat([other, other[:1].expand(5, n, n)])
    for name, arguments in {
        "inner": (x, u),
        "expmap": (x, u),
        "retr": (x, u),
        "logmap": (x, y),
        "dist": (x, y),
        "dist2": (y, x),
        "parallel_transport": (x, y, u),
        "inverse_retr": (y, x),
    }.items():
        leaves = [a.clone().requires_grad_() for a in arguments]
        alone = [a[:3].clone().requires_grad_() for a in arguments]
        got, want = getattr(METRIC, name)(*leaves), getattr(METRIC, name)(*alone)
        assert torch.allclose(got[:3], want, rtol=1e-12, atol=1e-14), name
        assert got[3:].flatten(1).isnan().all() if got.dim() > 1 else got[3:].isnan().all(), name
        for a, b in zip(torch.autograd.grad(got.sum(), leaves), torch.autograd.grad(want.sum(), alone), strict=True):
            assert torch.allclose(a[:3], b, rtol=1e-10, atol=1e-12), name


# ---- the domain -----------------------------------------------------------------------------------------------


def test_the_domain_of_the_exponential_map():
    """Along the eigenvector of the least eigenvalue geodesics end at the injectivity radius, NaN beyond."""
    x = points(4, 10.0)
    radius = radius_at(x)
    vector = torch.linalg.eigh(x)[1][..., :1]
    u = -vector @ vector.mT
    u = u / METRIC.norm(x, u, keepdim=True) * radius[:, None, None]
    assert METRIC.exp_is_defined(x, 0.999 * u).all() and not METRIC.exp_is_defined(x, 1.001 * u).any()
    near = METRIC.expmap(x, 0.999 * u)
    assert METRIC.check_point_on_manifold(near)
    assert torch.allclose(METRIC.logmap(x, near), 0.999 * u, atol=1e-11)
    assert METRIC.expmap(x, 1.001 * u).isnan().all()
    assert METRIC.expmap_transp(x, 1.001 * u, u)[1].isnan().all()
    METRIC.assert_check_exp_is_defined(x, 0.999 * u)
    with pytest.raises(ValueError, match="SPDBuresWasserstein.*6 of 6 items; shorten u"):
        METRIC.assert_check_exp_is_defined(x, 1.001 * u)
    mixed = METRIC.expmap(x, u * torch.tensor([0.5, 2.0, 0.5, 2.0, 0.5, 2.0], dtype=F64)[:, None, None])
    assert mixed.isnan().flatten(1).all(1).tolist() == [False, True] * 3


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_retraction_never_leaves_the_cone(dtype):
    x, v = METRIC.random(20, 3, 3, generator=seeded(), dtype=dtype), symmetric(3, 20).to(dtype)
    v = v / METRIC.norm(x, v, keepdim=True)
    for length in (0.0, 1e-30, 1e-8, 1.0, 10.0, 1e3):
        for u in (length * v, -length * x):
            y = METRIC.retr(x, u)
            assert y.isfinite().all()
            assert METRIC.check_point_on_manifold(y)


def test_draws_beyond_the_domain_are_drawn_again():
    x = METRIC.random_normal(2000, 2, 2, std=0.6, generator=seeded(), dtype=F64)
    assert METRIC.check_point_on_manifold(x)
    assert not METRIC.exp_is_defined(torch.eye(2, dtype=F64), 0.6 * METRIC.random_tangent(x)).all()


# ---- means ----------------------------------------------------------------------------------------------------


def test_means():
    """The fixed point of M = sum w (M^1/2 x M^1/2)^1/2, by scipy; equivariant under changes of unit."""
    x, w = points(4, 100.0, 8), torch.rand(8, generator=seeded(), dtype=F64)
    mean = METRIC.frechet_mean(x, w)
    root = np.real(scipy.linalg.sqrtm(mean.numpy()))
    weights = (w / w.sum()).numpy()
    again = sum(a * np.real(scipy.linalg.sqrtm(root @ p @ root)) for a, p in zip(weights, x.numpy(), strict=True))
    assert np.allclose(again, mean.numpy(), atol=1e-12)
    assert torch.allclose(METRIC.frechet_mean(1e-10 * x, w), 1e-10 * mean, rtol=1e-11)
    close = METRIC.expmap(mean.expand(5, 4, 4), 1e-7 * symmetric(4, 5))
    assert METRIC.karcher_residual(close, METRIC.frechet_mean(close)) < 1e-13
    mapped = torch.func.vmap(lambda p: METRIC.frechet_mean(p, max_iter=20))(torch.stack([x, 2 * x]))
    assert torch.allclose(mapped[1], METRIC.frechet_mean(2 * x), rtol=1e-6)


def test_a_mean_that_is_not_reached_warns():
    with pytest.warns(RuntimeWarning, match="^SPDBuresWasserstein.frechet_mean: not converged after 2 iterations"):
        METRIC.frechet_mean(points(4, 1e4, 8), max_iter=2)
    lost = points(4, 1e4, 8).index_fill(0, torch.tensor([1]), torch.nan)
    with pytest.warns(RuntimeWarning, match="^SPDBuresWasserstein.frechet_variance: .* is NaN"):
        METRIC.frechet_variance(lost)


def test_commuting_points_are_those_of_their_roots():
    """The metric of diagonal matrices is flat in the square roots."""
    a, b = (torch.rand(5, 3, generator=seeded(i), dtype=F64) + 0.1 for i in range(2))
    x, y = torch.diag_embed(a), torch.diag_embed(b)
    assert torch.allclose(METRIC.dist(x, y), (a.sqrt() - b.sqrt()).norm(dim=-1), rtol=1e-13)
    assert torch.allclose(METRIC.midpoint(x, y), torch.diag_embed(((a.sqrt() + b.sqrt()) / 2).square()), atol=1e-14)
    assert METRIC.sectional_curvature(x, torch.diag_embed(a), torch.diag_embed(b)).abs().max() < 1e-14
    assert math.isclose(float(radius_at(x)[0]), float(a[0].min().sqrt()), rel_tol=1e-14)
