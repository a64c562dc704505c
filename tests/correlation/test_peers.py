"""The metrics of correlation matrices against geomstats where that is right, and right where it is not. What is said of
it holds for geomstats 2.8.0, by its numpy backend and, in a process of its own, by its torch backend."""

import json
import logging
import os
import subprocess
import sys
from functools import cache

import geomstats.backend  # noqa: F401  (geomstats reads its backend at import)
import numpy as np
import pytest
import torch
from geomstats.geometry import full_rank_correlation_matrices as peers
from scipy.linalg import logm
from scipy.optimize import minimize

from torchriemann.manifolds import (
    CorrelationEuclideanCholesky,
    CorrelationLogEuclideanCholesky,
    CorrelationLogScaled,
    CorrelationOffLog,
    CorrelationPolyHyperbolic,
)

F64 = torch.float64
EUCLIDEAN, LOG = CorrelationEuclideanCholesky(), CorrelationLogEuclideanCholesky()
OFF, SCALED, POLY = CorrelationOffLog(), CorrelationLogScaled(), CorrelationPolyHyperbolic()
NAMES = {
    EUCLIDEAN: "EuclideanCholeskyMetric",
    LOG: "LogEuclideanCholeskyMetric",
    OFF: "OffLogMetric",
    SCALED: "LogScaledMetric",
    POLY: "PolyHyperbolicCholeskyMetric",
}
# The forms that make the Frobenius norm of the image, which is ours: theirs by default is the sum of three terms. For
# n = 2 and 3 it wants the term of the square zero, and the others say the same.
FORMS = {
    OFF: {
        2: {"alpha": 0.0, "beta": 0.0, "gamma": 0.5},
        3: {"alpha": 0.0, "beta": 2.0, "gamma": -0.5},
        5: {"alpha": 1.0, "beta": 0.0, "gamma": 0.0},
    },
    SCALED: {
        2: {"alpha": 0.0, "delta": 0.0, "zeta": 1.0},
        3: {"alpha": 0.0, "delta": 3.0, "zeta": -0.5},
        5: {"alpha": 1.0, "delta": 0.0, "zeta": 0.0},
    },
}
metrics = pytest.mark.parametrize("m", NAMES, ids=repr)


@cache
def peer(m, n=5):
    """Its metric, of one scale with ours."""
    space = peers.FullRankCorrelationMatrices(n, equip=False)
    return getattr(peers, NAMES[m])(space, **FORMS.get(m, {}).get(n, {}))


def draw(count=6, n=5, seed=0):
    """Points x, y of condition 30 or so, and tangent vectors u, v at x."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, count, n, 2 * n, generator=g, dtype=F64)
    x, y = EUCLIDEAN.correlation(noise @ noise.mT)
    u, v = (EUCLIDEAN.proju(x, 0.3 * torch.randn(count, n, n, generator=g, dtype=F64)) for _ in range(2))
    return x, y, u, v


def spectrum(condition, count=10, n=6, seed=0):
    """Correlation matrices of matrices of that condition: of nearly that one."""
    g = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(count, n, n, generator=g, dtype=F64))[0]
    w = torch.logspace(0, -np.log10(condition), n, dtype=F64)
    return EUCLIDEAN.correlation((q * w) @ q.mT)


def close(got, want, bound=1e-9):
    want = torch.tensor(np.array(want))
    assert got.shape == want.shape
    assert (got - want).abs().max() <= bound * max(1.0, want.abs().max().item())


def largest(x):
    return float(torch.as_tensor(x).abs().max())


# ---- where they agree -------------------------------------------------------------------------------------------


@metrics
@pytest.mark.parametrize("n", [2, 3, 5])
def test_geomstats(m, n):
    theirs, (x, y, u, v) = peer(m, n), draw(n=n)
    a, b, d, e = (z.numpy() for z in (x, y, u, v))
    close(m.dist(x, y), theirs.dist(a, b).reshape(6))
    close(m.logmap(x, y), theirs.log(b, a))
    close(m.expmap(x, u), theirs.exp(d, a))
    close(m.inner(x, u, v), theirs.inner_product(d, e, a).reshape(6))
    close(m.geodesic(x, y, 0.3), np.stack([theirs.geodesic(p, q)(0.3).squeeze(0) for p, q in zip(a, b, strict=True)]))
    if m is not POLY:  # which has none there
        close(m.parallel_transport(x, y, v), theirs.parallel_transport(e, a, end_point=b))


def test_forms():
    """The options are theirs, by the names of the paper; theirs are ones by default."""
    space = peers.FullRankCorrelationMatrices(5, equip=False)
    x, y, _, _ = draw()
    a, b = x.numpy(), y.numpy()
    close(CorrelationOffLog(1.0, 1.0, 1.0).dist(x, y), peers.OffLogMetric(space).dist(a, b))
    close(CorrelationLogScaled(1.0, 1.0, 1.0).dist(x, y), peers.LogScaledMetric(space).dist(a, b))
    close(CorrelationOffLog(0.5, 0.3, 0.2).dist(x, y), peers.OffLogMetric(space, 0.5, 0.3, 0.2).dist(a, b))
    close(CorrelationLogScaled(0.5, 0.3, 0.2).dist(x, y), peers.LogScaledMetric(space, 0.5, 0.3, 0.2).dist(a, b))


# ---- where they do not ------------------------------------------------------------------------------------------


@metrics
@pytest.mark.parametrize("condition", [1e4, 1e8])
def test_round_trips_of_ill_conditioned_matrices(m, condition):
    x, y = spectrum(condition), spectrum(condition, seed=1)
    bound = 100 * torch.finfo(F64).eps * condition
    assert largest(m.expmap(x, m.logmap(x, y)) - y) < bound
    assert largest(m.expmap(x, torch.zeros_like(x)) - x) < bound


def test_round_trips_of_the_peer(caplog):
    """The poly-hyperbolic logarithm loses digits with the square of the condition. The fixed point of the off-log
    metric ends after 100 rounds, which is too soon from condition 1e4 on, and says so in the log."""
    caplog.set_level(logging.CRITICAL)
    for condition, poly, off in ((1e4, 1e-10, 1e-13), (1e8, 1e-4, 1e-7)):
        x, y = spectrum(condition), spectrum(condition, seed=1)
        a, b = x.numpy(), y.numpy()
        theirs = peer(POLY, 6)
        assert largest(theirs.exp(theirs.log(b, a), a) - b) > poly > 10 * largest(POLY.expmap(x, POLY.logmap(x, y)) - y)
        back = OFF.chart.inverse(OFF.chart.forward(x))
        diffeo = peers.OffLogMetric(peers.FullRankCorrelationMatrices(6, equip=False)).diffeo
        assert largest(diffeo.inverse(diffeo(a)) - a) > off and largest(back - x) < 1e-15 * condition


def scaling(c):
    """The diagonal x > 0 with x_i (c x)_i = 1, which minimises 1/2 x^T c x - sum_i log x_i over it, by scipy."""

    def value(z):  # with x = e^z, and its gradient
        x = np.exp(z)
        return x @ c @ x / 2 - z.sum(), x * (c @ x) - 1

    return np.exp(minimize(value, np.zeros(len(c)), jac=True, method="BFGS", options={"gtol": 1e-12}).x)


def test_row_sums_of_the_peer_are_made_one_by_negative_factors():
    """Its method of Newton takes whole steps from one, which may leave the positive numbers; there are other solutions
    there, to which it converges without a word. Of 200 well conditioned 32 x 32 matrices five, and one of 10 x 10."""
    noise = torch.randn(200, 32, 64, generator=torch.Generator().manual_seed(0), dtype=F64)
    x = SCALED.correlation(noise @ noise.mT)
    theirs = peers.LogScaledMetric(peers.FullRankCorrelationMatrices(32, equip=False), 1.0, 0.0, 0.0)
    factors = theirs.diffeo.unique_diag_mat(x.numpy())
    wrong = torch.tensor((factors < 0).any(-1))
    assert wrong.sum() == 5 and torch.linalg.cond(x).max() < 50
    assert largest(factors * np.einsum("bij,bj->bi", x.numpy(), factors) - 1) < 1e-9
    one = torch.eye(32, dtype=F64)
    off = torch.from_numpy(theirs.dist(x.numpy(), one.numpy())) / SCALED.dist(x, one) - 1
    assert largest(off[~wrong]) < 1e-9 and off[wrong].abs().min() > 0.01
    scale = np.stack([scaling(c) for c in x[wrong].numpy()])
    images = np.stack([logm(np.diag(d) @ c @ np.diag(d)) for d, c in zip(scale, x[wrong].numpy(), strict=True)])
    close(SCALED.dist(x[wrong], one), np.linalg.norm(images, axis=(1, 2)), 1e-7)


def test_distances_of_near_points():
    """By the arc cosine there those of the poly-hyperbolic metric are lost from 1e-8 on."""
    x, _, u, _ = draw()
    for h in (1e-6, 1e-8):
        for m in NAMES:
            near = m.dist(x, x + h * u) / (h * m.norm(x, u)) - 1
            assert largest(near) < 10 * (h + 1e-15 / h), m
    theirs = peer(POLY)
    a, b = x.numpy(), (x + 1e-8 * u).numpy()
    assert largest(theirs.dist(a, b) / theirs.norm(1e-8 * u.numpy(), a) - 1) > 0.01


def test_batches():
    """Of more than one dimension the log-scaled metric has none there; ours broadcast."""
    x, y, _, _ = draw()
    a, b = (z.reshape(2, 3, 5, 5).numpy() for z in (x, y))
    with pytest.raises(AttributeError, match="shape"):
        peer(SCALED).dist(a, b)
    for m in NAMES:
        assert torch.equal(m.dist(x.reshape(2, 3, 5, 5), y.reshape(2, 3, 5, 5)).flatten(), m.dist(x, y))


def test_one_item_that_is_no_point(caplog):
    """Costs the whole batch there, but under the off-log metric."""
    caplog.set_level(logging.CRITICAL)
    x, y, _, _ = draw()
    bad = x.clone()
    bad[1] = 2 - torch.eye(5, dtype=F64)  # all correlations are 2
    for m in NAMES:
        others = torch.arange(6) != 1
        found = m.dist(bad, y)
        assert found[1].isnan() and torch.equal(found[others], m.dist(x, y)[others])
        if m is not OFF:
            with pytest.raises(np.linalg.LinAlgError):
                peer(m).dist(bad.numpy(), y.numpy())


def test_transport_under_the_poly_hyperbolic_metric():
    x, y, u, v = draw()
    with pytest.raises(NotImplementedError, match="ladder"):
        peer(POLY).parallel_transport(v.numpy(), x.numpy(), end_point=y.numpy())
    moved = [POLY.parallel_transport(x, y, w) for w in (u, v)]
    assert largest(POLY.inner(y, *moved) - POLY.inner(x, u, v)) < 1e-10
    # It takes the velocity of a geodesic along.
    assert largest(POLY.parallel_transport(x, y, POLY.logmap(x, y)) + POLY.logmap(y, x)) < 1e-9


# ---- derivatives -------------------------------------------------------------------------------------------------

# Run with the torch backend of the peer: for each metric the error of exp(log), whether gradients are finite at the
# identity and of the squared distance of a point to itself, and whether vmap takes it.
TORCH = """
import json, logging, sys, warnings
warnings.simplefilter("ignore"); logging.disable(logging.WARNING)
import torch
from geomstats.geometry import full_rank_correlation_matrices as peers

names, forms, x, y = json.load(sys.stdin)
x, y = torch.tensor(x), torch.tensor(y)
space = peers.FullRankCorrelationMatrices(5, equip=False)
for name in names:
    m = getattr(peers, name)(space, **forms.get(name, {}))
    def finite(f, at):
        at = at.clone().requires_grad_()
        return bool(torch.autograd.grad(f(at).sum(), at)[0].isfinite().all())
    try:
        torch.func.vmap(m.dist)(x, y)
        mapped = True
    except RuntimeError:
        mapped = False
    one = torch.eye(5).expand_as(x)
    print(json.dumps({
        "name": name, "vmap": mapped, "error": float((m.exp(m.log(y, x), x) - y).abs().max()),
        "identity": finite(lambda p: m.dist(p, y), one), "same": finite(lambda p: m.squared_dist(p, x), x),
        "dtype": str(m.dist(x.float(), y.float()).dtype),
    }))
"""


def test_derivatives_and_transforms_by_the_torch_backend():
    x, y, _, _ = draw()
    forms = {NAMES[m]: FORMS[m][5] for m in FORMS}
    given = json.dumps([list(NAMES.values()), forms, x.tolist(), y.tolist()])
    environment = {**os.environ, "GEOMSTATS_BACKEND": "pytorch", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", TORCH]
    done = subprocess.run(command, input=given, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {r["name"]: r for r in map(json.loads, done.stdout.splitlines())}

    def say(key):
        return {m for m in NAMES if found[NAMES[m]][key]}

    assert say("identity") == say("vmap") == {EUCLIDEAN, LOG, POLY}  # NaN, and an error, of the others
    assert say("same") == {EUCLIDEAN, LOG, OFF, SCALED}
    assert {m for m in NAMES if found[NAMES[m]]["error"] < 1e-10} == {EUCLIDEAN, LOG, POLY}
    assert {m for m in NAMES if found[NAMES[m]]["dtype"] == "torch.float32"} == {EUCLIDEAN, LOG, OFF}


@metrics
def test_derivatives_and_transforms_of_ours(m):
    x, y, u, _ = draw()
    assert largest(m.expmap(x, m.logmap(x, y)) - y) < 1e-12
    torch.testing.assert_close(torch.func.vmap(m.dist)(x, y), m.dist(x, y))
    assert m.dist(x.float(), y.float()).dtype == torch.float32
    one = torch.eye(5, dtype=F64).repeat(6, 1, 1)
    slope = torch.func.jvp(lambda p: m.dist(p, y), (one,), (u,))[1]
    h = 1e-6
    assert largest(slope - (m.dist(one + h * u, y) - m.dist(one - h * u, y)) / (2 * h)) < 1e-8
    assert not torch.func.grad(lambda p: m.dist2(p, x).sum())(x).any()
