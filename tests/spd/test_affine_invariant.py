"""The affine-invariant metric: against sixty digits and other libraries, means, wrapped normal laws."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests.support import spd_truth
from torchriemann.manifolds import SPDAffineInvariant, SPDLogEuclidean
from torchriemann.manifolds.wrapped_normal import WrappedNormal

METRIC = SPDAffineInvariant()
FLOAT64 = torch.float64


def generator(seed):
    return torch.Generator().manual_seed(seed)


def drawn(seed, condition, *batch, n=3):
    return METRIC.random_spectrum(*batch, n, n, condition=condition, generator=generator(seed), dtype=FLOAT64)


# ---- options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"power": 0}, "power must be a finite number and not 0"),
        ({"power": math.inf}, "power must be a finite number"),
        ({"alpha": 0.0}, "alpha must be positive"),
        ({"alpha": -1.0}, "alpha must be positive"),
        ({"beta": math.nan}, "beta must be a finite number"),
        ({"alpha": torch.ones(())}, "alpha must be a finite number"),
    ],
)
def test_options_that_are_no_metric(options, said):
    with pytest.raises(ValueError, match=f"SPDAffineInvariant: {said}"):
        SPDAffineInvariant(**options)


def test_beta_is_checked_where_the_size_is_known():
    manifold = SPDAffineInvariant(beta=-0.3)
    x = manifold.random(3, 3)
    assert manifold.norm(x, x).isfinite()
    with pytest.raises(ValueError, match=r"SPDAffineInvariant.norm: beta must be above -alpha/n = -0.25 for 4 x 4"):
        manifold.norm(torch.eye(4), torch.eye(4))


def test_frame_coordinates_in_float32_bear_the_condition_of_the_point():
    base, y = drawn(0, 10.0, 20, n=6).float(), drawn(1, 1e6, 20, n=6).float()
    want = METRIC.logmap_frame(base.double(), y.double())
    assert (METRIC.logmap_frame(base, y) - want).abs().max() < 3e-5  # 1e-1, were the product rounded


def test_distances_to_hyperplanes_have_no_closed_form():
    with pytest.raises(NotImplementedError, match="SPDAffineInvariant.*hyperplane_dist"):
        METRIC.hyperplane_dist(torch.eye(2), torch.ones(3))


# ---- independent truth ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", [1e4, 1e9])
def test_transport_and_distance_at_sixty_digits(condition):
    x, y = drawn(0, condition, 2), drawn(1, condition, 2)
    u = METRIC.random_tangent(x, generator(2))
    moved, distances = METRIC.parallel_transport(x, y, u), METRIC.dist(x, y)
    for i in range(2):
        true = spd_truth.transport(x[i], y[i], u[i])
        assert (moved[i] - true).norm() < 1e-15 * condition * true.norm()
        assert abs(float(distances[i]) / spd_truth.distance(x[i], y[i]) - 1) < 1e-17 * condition + 1e-15


@pytest.mark.parametrize("n", [4, 12])
def test_transport_is_isometric_at_condition_1e4(n):
    x, y = drawn(3, 1e4, 300, n=n), drawn(4, 1e4, 300, n=n)
    u = METRIC.random_tangent(x, generator(5))
    assert (METRIC.norm(y, METRIC.parallel_transport(x, y, u)) / METRIC.norm(x, u) - 1).abs().max() < 1e-12


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6, 1e9])
def test_round_trips_lose_what_the_condition_takes(condition):
    x = drawn(6, condition, 100, n=6)
    u = METRIC.random_tangent(x, generator(7))
    error = METRIC.logmap(x, METRIC.expmap(x, u)) - u
    assert (error.norm(dim=(-2, -1)) / u.norm(dim=(-2, -1))).max() < 1e-13 * condition


def test_distance_in_single_precision_at_condition_1e6():
    x, y = (drawn(seed, 1e6, 200, n=8).float() for seed in (8, 9))
    true = METRIC.dist(x.double(), y.double())
    for leaf in (x, x.clone().requires_grad_()):
        assert (METRIC.dist(leaf, y).double() / true - 1).detach().abs().max() < 1e-6


def test_geomstats_agrees():
    spd_matrices = pytest.importorskip("geomstats.geometry.spd_matrices", exc_type=ImportError)
    metric = spd_matrices.SPDAffineMetric(spd_matrices.SPDMatrices(3, equip=False))
    x, y, u = drawn(10, 30.0, 4), drawn(11, 30.0, 4), METRIC.random_tangent(drawn(10, 30.0, 4), generator(0))
    a, b, v = x.numpy(), y.numpy(), u.numpy()
    for ours, theirs in (
        (METRIC.expmap(x, u), metric.exp(v, a)),
        (METRIC.logmap(x, y), metric.log(b, a)),
        (METRIC.dist2(x, y), metric.squared_dist(a, b)),
        (METRIC.parallel_transport(x, y, u), metric.parallel_transport(v, a, end_point=b)),
        (METRIC.inner(x, u), metric.inner_product(v, v, a)),
    ):
        torch.testing.assert_close(ours, torch.as_tensor(theirs), rtol=1e-10, atol=1e-10)


def test_small_powers_tend_to_the_log_euclidean_metric():
    x, y = drawn(12, 30.0, 20), drawn(13, 30.0, 20)
    errors = [
        (SPDAffineInvariant(power, 2.0, 0.3).dist(x, y) / SPDLogEuclidean(2.0, 0.3).dist(x, y) - 1).abs().max()
        for power in (0.02, 0.01)
    ]
    assert errors[1] < 1e-4
    assert 3.9 < errors[0] / errors[1] < 4.1  # of second order


def test_the_curvature_of_three_matrices():
    """Of diagonal matrices none, and the least, -1/2, of diag(1, -1) and its off-diagonal neighbour."""
    x = torch.eye(2, dtype=FLOAT64)
    d, e = torch.diag(torch.tensor([1.0, -1.0], dtype=FLOAT64)), torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=FLOAT64)
    assert abs(METRIC.sectional_curvature(x, d, e) + 0.5) < 1e-14
    assert abs(METRIC.sectional_curvature(x, d, x)) < 1e-14
    assert abs(SPDAffineInvariant(2.0, alpha=3.0).sectional_curvature(x, d, e) + 4 / 6) < 1e-13


def test_powers_of_what_is_not_positive_definite_are_nan():
    x, y = drawn(14, 30.0, 3), drawn(15, 30.0, 3)
    x[1] = -x[1]
    for power in (2.0, -1.0, 0.5):
        found = SPDAffineInvariant(power).dist(x, y).isnan()
        assert found.tolist() == [False, True, False]


# ---- derivatives ----------------------------------------------------------------------------------------------


def special(position):
    q = torch.linalg.qr(torch.randn(4, 4, generator=generator(16), dtype=FLOAT64))[0]
    values, scale = {
        "identity": ([1.0, 1.0, 1.0, 1.0], 1.0),
        "repeated": ([1.0, 1.0, 2.0, 2.0], 1.0),
        "gap 1e-6": ([1.0, 1.0 + 1e-6, 2.0, 3.0], 1.0),
        "tiny": ([0.5, 1.0, 2.0, 3.0], 1e-10),
        "huge": ([0.5, 1.0, 2.0, 3.0], 1e10),
    }[position]
    return (q * torch.tensor(values, dtype=FLOAT64)) @ q.mT, scale


def held(manifold, x, scale, names):
    """First and second derivatives are difference quotients, in units of the scale."""
    y, u = x.roll((1, 1), (0, 1)), 0.3 * (x - x.mean() * torch.eye(4, dtype=FLOAT64))
    calls = {
        "log": (lambda a, b: manifold.logmap(scale * a, scale * b) / scale, y),
        "log of itself": (lambda a, b: manifold.logmap(scale * a, scale * b) / scale, x),
        "exp": (lambda a, b: manifold.expmap(scale * a, scale * b) / scale, u),
        "dist2": (lambda a, b: manifold.dist2(scale * a, scale * b), x),
        "transport": (lambda a, b: manifold.parallel_transport(scale * a, scale * b, scale * u) / scale, y),
    }
    for name in names:
        function, other = calls[name]

        def of_symmetric(a, b, function=function):
            return function(0.5 * (a + a.mT), 0.5 * (b + b.mT))

        leaves = tuple(t.clone().requires_grad_() for t in (x, other))
        gradcheck(of_symmetric, leaves, check_forward_ad=True, fast_mode=True)
        gradgradcheck(of_symmetric, leaves, fast_mode=True)


@pytest.mark.parametrize("position", ["repeated", "tiny"])
def test_derivatives_where_eigenvalues_meet(position):
    held(METRIC, *special(position), ("log", "dist2"))


@pytest.mark.slow
@pytest.mark.parametrize("position", ["identity", "repeated", "gap 1e-6", "tiny", "huge"])
@pytest.mark.parametrize("options", [{}, {"power": 0.5}, {"alpha": 2.0, "beta": -0.2}], ids=str)
def test_derivatives_in_special_position(position, options):
    names = ("log", "log of itself", "exp", "dist2", "transport")
    held(SPDAffineInvariant(**options), *special(position), names)


# ---- means and laws of points ---------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"power": 0.5}, {"alpha": 2.0, "beta": 0.5}], ids=str)
def test_the_mean_is_found_from_far_points(options):
    manifold = SPDAffineInvariant(**options)
    x = drawn(17, 1e3, 20, n=4)
    assert manifold.karcher_residual(x, manifold.frechet_mean(x)) < 1e-10


def test_the_mean_goes_with_congruence_and_inversion():
    x, a = drawn(18, 1e3, 12, n=4), torch.randn(4, 4, generator=generator(19), dtype=FLOAT64)
    mean = METRIC.frechet_mean(x)
    torch.testing.assert_close(METRIC.frechet_mean(a @ x @ a.mT), a @ mean @ a.mT, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(METRIC.frechet_mean(x.inverse()), mean.inverse(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"power": 0.5}, {"alpha": 2.0, "beta": 0.5}], ids=str)
def test_wrapped_normal_densities_integrate_to_one(options):
    """Seen from another law: the mean ratio of two densities is one."""
    manifold = SPDAffineInvariant(**options)
    locations = drawn(20, 2.0, 2, n=2)
    wide, narrow = WrappedNormal(manifold, locations[0], 1.0), WrappedNormal(manifold, locations[1], 0.5)
    torch.manual_seed(0)
    x = wide.sample((40_000,))
    ratios = (narrow.log_prob(x) - wide.log_prob(x)).exp()
    assert abs(ratios.mean() - 1) < 5 * ratios.std() / 200
    assert ratios.std() < 6


def test_radii_are_clipped():
    x = drawn(21, 1e4, 10)
    clipped = METRIC.clip_radius(x, 1.5)
    torch.testing.assert_close(METRIC.dist0(clipped), METRIC.dist0(x).clamp(max=1.5))


def test_decay_is_a_power():
    x = drawn(22, 100.0, 4)
    torch.testing.assert_close(METRIC.decay(x, 0.5) @ METRIC.decay(x, 0.5), x)
    torch.testing.assert_close(METRIC.dist0(METRIC.decay(x, torch.tensor(0.9))), 0.9 * METRIC.dist0(x))
