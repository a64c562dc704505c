"""What full-batch solvers are made of: the line search on exact functions, and the product point on many manifolds."""

import geoopt
import numpy as np
import pytest
import scipy.optimize
import torch

from tests.support.problems import noise
from torchriemann.manifolds import Grassmann, Oblique, SpecialOrthogonal, Sphere, Stiefel
from torchriemann.optim.entries import Entry
from torchriemann.optim.foreign import as_manifold
from torchriemann.optim.solvers.line_search import Trial, strong_wolfe
from torchriemann.optim.solvers.product_point import ProductPoint

# ---- line search ----------------------------------------------------------------------------------------------

FUNCTIONS = {
    "parabola": (lambda t: (t - 3) ** 2, lambda t: 2 * (t - 3)),
    "quartic": (lambda t: (t - 0.2) ** 4 - t, lambda t: 4 * (t - 0.2) ** 3 - 1),
    "rational": (lambda t: -t / (t * t + 2), lambda t: (t * t - 2) / (t * t + 2) ** 2),  # More and Thuente 1994, 5.1
    "power": (lambda t: (t + 0.004) ** 5 - 2 * (t + 0.004) ** 4, lambda t: 5 * (t + 0.004) ** 4 - 8 * (t + 0.004) ** 3),
    "waves": (lambda t: -t + 0.9 * np.sin(3 * t) / 3 + 0.05 * t * t, lambda t: -1 + 0.9 * np.cos(3 * t) + 0.1 * t),
}


@pytest.mark.parametrize("first", [1e-3, 0.1, 1.0, 10.0, 1e3])
@pytest.mark.parametrize("c2", [0.9, 0.1])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_line_search_satisfies_the_strong_wolfe_conditions(name, c2, first):
    f, slope = FUNCTIONS[name]
    calls = []

    def evaluate(t):
        calls.append(t)
        return Trial(t, f(t), slope(t))

    trial, found = strong_wolfe(evaluate, Trial(0.0, f(0.0), slope(0.0)), first, c2=c2)
    assert found and trial.t in calls
    assert trial.value <= f(0.0) + 1e-4 * trial.t * slope(0.0)
    assert abs(trial.slope) <= c2 * abs(slope(0.0))
    # The peer's own answer from the same conditions exists, so ours is not luck; it may take other trials.
    peer = scipy.optimize.line_search(
        lambda x: f(float(x[0])), lambda x: np.array([slope(float(x[0]))]), np.zeros(1), np.ones(1), c2=c2, maxiter=50
    )
    assert peer[0] is not None and len(calls) <= 25


def test_line_search_ends_where_there_is_nothing_to_find():
    evaluate = lambda t: Trial(t, 1.0 + t, 1.0)  # noqa: E731  the slope at zero is a lie
    start = Trial(0.0, 1.0, -1.0)
    assert strong_wolfe(evaluate, start, 1.0) == (start, False)
    unbounded, found = strong_wolfe(lambda t: Trial(t, -t, -1.0), Trial(0.0, 0.0, -1.0), 1.0, max_trials=5)
    assert not found and unbounded.t == 1e4  # the best of what was seen
    nothing, found = strong_wolfe(lambda t: Trial(t, float("nan"), float("nan")), start, 1.0)
    assert not found and nothing is start


def test_line_search_comes_back_from_where_there_is_no_value():
    def evaluate(t):
        bad = t >= 0.01
        return Trial(t, float("nan") if bad else (t - 0.007) ** 2, float("inf") if bad else 2 * (t - 0.007))

    trial, found = strong_wolfe(evaluate, Trial(0.0, 0.007**2, -0.014), 1.0, c2=0.1)
    assert found and 0.006 < trial.t < 0.008


def test_line_search_trusts_slopes_where_values_are_rounding():
    def evaluate(t):
        return Trial(t, 1.0 + 1e-15, 1e-12 * (t - 1))

    start = Trial(0.0, 1.0, -1e-12)
    trial, found = strong_wolfe(evaluate, start, 0.3, c2=0.1, noise=1e-14)
    assert found and abs(trial.t - 1) < 0.1
    assert strong_wolfe(evaluate, start, 0.3, c2=0.1) == (start, False)


# ---- the geometry under the solvers ---------------------------------------------------------------------------

PLACES = {
    "sphere": (Sphere(), (7,)),
    "small sphere": (Sphere(4.0), (3, 7)),
    "grassmann": (Grassmann(), (7, 3)),
    "grassmann qr": (Grassmann("qr"), (2, 7, 3)),
    "stiefel": (Stiefel(), (7, 3)),
    "canonical cayley": (Stiefel(0.5, "cayley", "isometric"), (7, 3)),
    "stiefel qr": (Stiefel(1.0, "qr"), (7, 3)),
    "stiefel square": (Stiefel(), (4, 4)),
    "rotations": (SpecialOrthogonal(), (4, 4)),
    "oblique": (Oblique(3), (3, 5)),
    "geoopt sphere": (geoopt.Sphere(), (7,)),
    "geoopt canonical": (geoopt.CanonicalStiefel(), (7, 3)),
    "geoopt ball": (geoopt.PoincareBall(), (4,)),
}


def place(name, geodesic):
    """Two parameters there, a flat one, and vectors at them."""
    manifold, shape = PLACES[name]
    ball = isinstance(manifold, geoopt.PoincareBall)  # which draws in its own dtype
    points = [0.3 * noise(*shape, seed=i) if ball else manifold.random(*shape, dtype=torch.float64) for i in range(2)]
    params = [geoopt.ManifoldParameter(p, manifold=manifold) for p in points] + [torch.nn.Parameter(noise(2, 2))]
    entries = [Entry(p, as_manifold(getattr(p, "manifold", None), "p"), "p") for p in params]
    point = ProductPoint(entries, geodesic=geodesic)
    x = point.read()
    v = torch.stack([point.rgrad(x, row) for row in noise(3, len(x), seed=5)])
    return point, x, v


@pytest.mark.parametrize("geodesic", [True, False], ids=["parallel", "retraction"])
@pytest.mark.parametrize("name", PLACES)
def test_slope_along_the_curve_by_finite_differences(name, geodesic):
    torch.manual_seed(0)
    point, x, v = place(name, geodesic)
    weights = noise(len(x), seed=7)
    with torch.no_grad():
        d = 0.5 * v[0]
        y, slope = point.arc(x, d, 0.8)
        h = 1e-6
        ends = [float((weights * point.move(x, (0.8 + s) * d).sin()).sum()) for s in (h, -h)]
        assert slope(weights * y.cos()) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6, abs=1e-8)
        assert (y - point.move(x, 0.8 * d)).abs().max() < 1e-14


@pytest.mark.parametrize("geodesic", [True, False], ids=["parallel", "retraction"])
@pytest.mark.parametrize("name", PLACES)
def test_transport_keeps_lengths_and_tangency(name, geodesic):
    torch.manual_seed(0)
    point, x, v = place(name, geodesic)
    with torch.no_grad():
        y = point.move(x, 0.3 * v[0])
        w = point.transport_along(x, 0.3 * v[0], v)
        assert (point.project(y, w) - w).abs().max() < 1e-12
        if name == "geoopt canonical":  # whose own projection is not the identity there
            frame, tangent = point.unpack(y)[0], point.unpack(w)[0]
            assert (frame.mT @ tangent + tangent.mT @ frame).abs().max() < 1e-12
        for a, b in zip(v, w, strict=True):
            assert point.norm(y, b) == pytest.approx(point.norm(x, a), rel=1e-12)
        if geodesic and not name.startswith("geoopt"):  # an isometry: angles too
            assert point.inner(y, w[1], w[2]) == pytest.approx(point.inner(x, v[1], v[2]), rel=1e-11, abs=1e-12)


@pytest.mark.parametrize("name", PLACES)
def test_lowered_vectors_are_the_metric(name):
    torch.manual_seed(0)
    point, x, v = place(name, False)
    with torch.no_grad():
        lowered = point.lower(x, v)
        for i in range(3):
            assert float(lowered[i] @ v[0]) == pytest.approx(point.inner(x, v[i], v[0]), rel=1e-12)
        gradient = noise(len(x), seed=9)
        assert float(gradient @ v[0]) == pytest.approx(point.inner(x, point.rgrad(x, gradient), v[0]), rel=1e-12)
