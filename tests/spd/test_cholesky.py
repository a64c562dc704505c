"""Log-Cholesky and power-Cholesky metrics, against many digits, their definition, and the ends of their domain."""

import mpmath
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from torchriemann.manifolds import SPDLogCholesky, SPDPowerCholesky
from torchriemann.manifolds.kernels import cholesky_difference, cholesky_dist, cholesky_exp, cholesky_log
from torchriemann.testing import Launches

F64, F32 = torch.float64, torch.float32
WEIGHTS = (0.5, 2.0, 3.0)
METRICS = [SPDLogCholesky(), SPDLogCholesky(WEIGHTS), SPDPowerCholesky(0.5), SPDPowerCholesky(-0.7, WEIGHTS)]
every_metric = pytest.mark.parametrize("m", METRICS, ids=repr)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def points(m, *batch, n=3, condition=10.0, seed=0, dtype=F64):
    return m.random_spectrum(*batch, n, n, condition=condition, generator=generator(seed), dtype=dtype)


def vector(m, x, seed=2, length=0.3):
    """As long as the geodesics from x allow."""
    radius = torch.as_tensor(m.injectivity_radius(x), dtype=x.dtype).clamp_max(1.0)
    u = m.random_tangent(x, generator(seed))
    return u * (length * radius / m.norm(x, u)).reshape(*x.shape[:-2], 1, 1)


# ---- the definition -------------------------------------------------------------------------------------------


def exact(m, x, y):
    """The distance and the logarithm, in the digits of mpmath, of the numbers that are stored."""
    n, p = x.shape[-1], m.power
    w = (1.0,) * n if m.weights is None else m.weights
    L, K = (mpmath.cholesky(mpmath.matrix(z.tolist()), tol=0) for z in (x, y))
    X, total = mpmath.zeros(n), mpmath.mpf(0)
    for i in range(n):
        for j in range(i):
            X[i, j] = K[i, j] - L[i, j]
            total += X[i, j] ** 2
        delta = mpmath.log(K[i, i] / L[i, i])
        s = delta if p == 0 else mpmath.expm1(p * delta) / p
        X[i, i] = L[i, i] * s
        total += w[i] * (L[i, i] ** p * s) ** 2
    u = L * X.T + X * L.T
    return mpmath.sqrt(total), torch.tensor(u.tolist(), dtype=F64)


@every_metric
@pytest.mark.parametrize("condition", [1e2, 1e14])
def test_against_many_digits(m, condition):
    x, y = points(m, condition=condition), points(m, condition=condition, seed=1)
    with mpmath.workdps(60):
        dist, u = exact(m, x, y)
    # A factor has an error of eps times the condition number.
    bound = 8 * torch.finfo(F64).eps * condition
    assert abs(m.dist(x, y) / float(dist) - 1) < bound
    torch.testing.assert_close(m.logmap(x, y), u, rtol=0, atol=float(max(bound, 1e-15) * u.abs().max()))
    assert (m.expmap(x, m.logmap(x, y)) - y).abs().max() < 1e-13 * condition * y.abs().max()


@every_metric
@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_near_points_keep_their_digits(m, scale):
    x = scale * points(m)
    L, noise = torch.linalg.cholesky(x), torch.randn(3, 3, generator=generator(9), dtype=F64)
    y = x + 1e-8 * L @ (noise + noise.mT) @ L.mT
    with mpmath.workdps(60):
        dist, _ = exact(m, x, y)
    assert abs(m.dist(x, y) / float(dist) - 1) < 1e-7
    assert abs(m.dist2(x, y) / float(dist) ** 2 - 1) < 2e-7
    assert m.dist(x, x) == 0


@every_metric
def test_inner_is_that_of_the_derivative_of_the_factor(m):
    x = points(m, 5)
    u, v = (m.random_tangent(x, generator(s)) for s in (3, 4))
    L, X = torch.func.jvp(torch.linalg.cholesky, (x,), (u,))
    Y = torch.func.jvp(torch.linalg.cholesky, (x,), (v,))[1]
    d = L.diagonal(dim1=-2, dim2=-1)
    w = torch.ones(3, dtype=F64) if m.weights is None else torch.tensor(m.weights, dtype=F64)
    on = w * d ** (2 * m.power - 2) * (X * Y).diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(m.inner(x, u, v), (X * Y).tril(-1).sum((-2, -1)) + on.sum(-1), rtol=1e-12, atol=1e-12)


@every_metric
def test_geodesics_obey_their_equation(m):
    """d/dt dE/dv = dE/dx, where E(x, v) is half of <v, v>_x; by differences of the exponential map alone."""
    x, h = points(m), 1e-3
    u = vector(m, x)

    def at(t):
        return m.expmap(x, t * u)

    def momenta(t):
        y = at(t).requires_grad_()
        v = ((at(t - 2 * h) - at(t + 2 * h) + 8 * (at(t + h) - at(t - h))) / (12 * h)).requires_grad_()
        return torch.autograd.grad(0.5 * m.inner(y, v), (y, v))

    change = (momenta(0.5 - 2 * h)[1] - momenta(0.5 + 2 * h)[1] + 8 * (momenta(0.5 + h)[1] - momenta(0.5 - h)[1])) / (
        12 * h
    )
    force = momenta(0.5)[0]
    assert force.abs().max() > 1e-3
    torch.testing.assert_close(change, force, rtol=1e-6, atol=1e-8)


def test_the_mean_is_that_of_the_factors():
    x = points(METRICS[0], 7)
    L = torch.linalg.cholesky(x)
    d = L.diagonal(dim1=-2, dim2=-1)
    for m, mean in ((SPDLogCholesky(), d.log().mean(0).exp()), (SPDPowerCholesky(0.5), d.sqrt().mean(0).square())):
        K = L.mean(0).tril(-1) + torch.diag(mean)
        torch.testing.assert_close(m.frechet_mean(x), K @ K.mT, rtol=1e-13, atol=1e-13)


def test_power_zero_is_the_log_metric():
    x, y = points(METRICS[0], 4), points(METRICS[0], 4, seed=1)
    log, u = SPDLogCholesky(), SPDLogCholesky().logmap(x, y)
    off = []
    for power in (1e-3, 1e-4):
        m = SPDPowerCholesky(power)
        off.append((m.dist(x, y) - log.dist(x, y)).abs().max())
        assert (m.logmap(x, y) - u).abs().max() < 10 * power
        assert (m.expmap(x, u) - y).abs().max() < 10 * power
        torch.testing.assert_close(m.expmap(x, m.logmap(x, y)), y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(off[0] / off[1], torch.tensor(10.0, dtype=F64), rtol=0.05, atol=0)


# ---- domain, retraction, gyro-structure -----------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.5, -0.7, 2.0])
def test_the_domain_of_the_exponential_map(power):
    m = SPDPowerCholesky(power)
    x = points(m, 6, condition=100.0)
    L = torch.linalg.cholesky(x)
    d = L.diagonal(dim1=-2, dim2=-1)
    radius = torch.as_tensor(m.injectivity_radius(x))
    torch.testing.assert_close(radius, (d**power).amin(-1) / abs(power))
    assert m.injectivity_radius() == 0
    first = torch.nn.functional.one_hot((d**power).argmin(-1), 3).to(F64)
    X = torch.diag_embed(-first * d ** (1 - power) * (1 if power > 0 else -1))  # of length one, to the rim
    u = radius[:, None, None] * (L @ X.mT + X @ L.mT)
    torch.testing.assert_close(m.norm(x, u), radius)
    for length, inside in ((0.999, True), (1.001, False), (3.0, False)):
        end = m.expmap(x, length * u)
        assert (m.exp_is_defined(x, length * u) == inside).all()
        assert (end.isfinite() if inside else end.isnan()).all()
    mixed = torch.cat([0.5 * u[:3], 2 * u[3:]]).requires_grad_()
    (gradient,) = torch.autograd.grad(m.expmap(x, mixed).sum(), mixed)
    assert gradient[:3].isfinite().all() and gradient[3:].isnan().all()
    with pytest.raises(ValueError, match="retr"):
        m.assert_check_exp_is_defined(x, mixed)


@pytest.mark.parametrize("power", [0.5, -0.7])
@pytest.mark.parametrize("dtype", [F64, F32])
def test_the_retraction_never_leaves_the_cone(power, dtype):
    m = SPDPowerCholesky(power)
    x = points(m, 200, condition=1e3, dtype=dtype)
    u = torch.randn(200, 3, 3, generator=generator(5), dtype=dtype)
    for length in (0.1, 10.0, 1e4):
        assert m.check_point_on_manifold(m.retr(x, length * u))
    y = points(m, 200, seed=6)
    x = points(m, 200, seed=7)
    torch.testing.assert_close(m.retr(x, m.inverse_retr(x, y)), y, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("power", [0.5, -0.7])
def test_the_retraction_is_of_second_order(power):
    m = SPDPowerCholesky(power)
    x = points(m, 4)
    u = vector(m, x)
    off = [m.dist(m.expmap(x, h * u), m.retr(x, h * u)) for h in (0.02, 0.01)]
    differ = off[1] > 0  # where an entry of the diagonal approaches the rim
    assert differ.sum() > 1
    assert ((off[0] / off[1])[differ].log2() - 3).abs().max() < 0.1


def test_gyro_structure():
    m = SPDLogCholesky()
    x, y = points(m, 4), points(m, 4, seed=1)
    L, K = torch.linalg.cholesky(x), torch.linalg.cholesky(y)
    d, e = (z.diagonal(dim1=-2, dim2=-1) for z in (L, K))

    def close(actual, lower, diagonal):
        F = lower.tril(-1) + torch.diag_embed(diagonal)
        torch.testing.assert_close(actual, F @ F.mT, rtol=1e-12, atol=1e-12)

    close(m.gyroadd(x, y), L + K, d * e)
    close(m.gyroinv(x), -L, 1 / d)
    close(m.gyroscale(0.7, x), 0.7 * L, d**0.7)
    torch.testing.assert_close(m.gyration(x, y, x), x, rtol=1e-12, atol=1e-12)
    z = m.to_normal(x)
    assert z.shape == (4, 6)
    torch.testing.assert_close(z.norm(dim=-1), m.dist0(x))
    power = SPDPowerCholesky(0.5)
    assert not power.has_gyro_structure
    for call in (lambda: power.gyroadd(x, y), lambda: power.to_normal(x), lambda: power.gyroscale(0.5, x)):
        with pytest.raises(NotImplementedError, match="no gyro structure.*may be negative"):
            call()


# ---- options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "weights", [(1.0, -1.0), (1.0, 0.0), (1.0, float("inf")), (), [1.0, 1.0], 2.0, ("a",), (True, 1.0)], ids=repr
)
def test_wrong_weights(weights):
    for make in (SPDLogCholesky, lambda w: SPDPowerCholesky(0.5, w)):
        with pytest.raises(ValueError, match="Cholesky: weights"):
            make(weights)


@pytest.mark.parametrize("weights", [torch.ones(2, 2), torch.ones(2, dtype=torch.int64), torch.tensor([1.0, -1.0])])
def test_wrong_tensors_of_weights(weights):
    with pytest.raises(ValueError, match="SPDLogCholesky: weights"):
        SPDLogCholesky(weights)


def test_wrong_power_and_size():
    for power in (0, 0.0, float("nan"), float("inf"), True, "1", torch.tensor(0.5)):
        with pytest.raises(ValueError, match="SPDPowerCholesky: power"):
            SPDPowerCholesky(power)
    with pytest.raises(ValueError, match="3 weights"):
        SPDLogCholesky(WEIGHTS).dist(torch.eye(2), torch.eye(2))


def test_weights_are_learned():
    weights = torch.tensor(WEIGHTS, requires_grad=True)
    x, y = points(METRICS[0], 4), points(METRICS[0], 4, seed=1)
    wide = weights.detach().double().requires_grad_()
    for power in (0.0, 0.5):

        def make(w, power=power):
            return SPDPowerCholesky(power, w) if power else SPDLogCholesky(w)

        for name in ("dist", "dist2"):
            assert gradcheck(lambda w, name=name, make=make: getattr(make(w), name)(x, y), wide)
        assert gradgradcheck(lambda w, make=make: make(w).dist(x, y), wide)
        make(weights).dist(x, y).sum().backward()
        assert make(weights).dist(x, y).dtype == F64
        by_numbers = make(tuple(weights.tolist()))
        torch.testing.assert_close(make(weights).dist(x, y), by_numbers.dist(x, y))
    assert weights.grad.isfinite().all()


@every_metric
def test_half_precision(m):
    x, y = points(m, 5, dtype=torch.bfloat16), points(m, 5, seed=1, dtype=torch.bfloat16)
    for name in ("dist", "logmap", "retr", "expmap"):
        given = (x, m.logmap(x, y)) if name in ("retr", "expmap") else (x, y)
        wide = getattr(m, name)(*[g.double() for g in given])
        found = getattr(m, name)(*given)
        assert found.dtype == torch.bfloat16
        assert ((found.double() - wide).abs().max() / wide.abs().max()) < 2e-2
    assert m.check_point_on_manifold(m.expmap(x, m.logmap(x, y)))


# ---- derivatives ----------------------------------------------------------------------------------------------

PLACES = [torch.eye(4), torch.diag(torch.tensor([1.0, 1.0, 2.0, 2.0]))]
OPERATIONS = {
    "difference": lambda x, y, p: cholesky_difference(x, y, torch.ones(4, dtype=F64), p),
    "dist": lambda x, y, p: cholesky_dist(x, y, torch.ones(4, dtype=F64), p),
    "log": lambda x, y, p: cholesky_log(x, y, p, False),
    "inverse_retr": lambda x, y, p: cholesky_log(x, y, p, True),
    "exp": lambda x, u, p: cholesky_exp(x, u, p, False),
    "retr": lambda x, u, p: cholesky_exp(x, u, p, True),
}


def scaled(name, power, scale):
    """The operation at matrices times `scale`, as a function of matrices of size one."""
    root = scale**0.5 if name in ("log", "inverse_retr", "exp", "retr") else scale**0.25

    def f(x, y):
        return OPERATIONS[name](scale * x, scale * y, power) / root**2

    return f


def derivatives_hold(name, power, scale, place, fast):
    change = 0.1 * torch.randn(4, 4, generator=generator(8), dtype=F64)
    x = place.to(F64)[None].requires_grad_()
    y = (change if name in ("exp", "retr") else place.to(F64) + change @ change.mT)[None].requires_grad_()
    f = scaled(name, power, scale)
    small = f(x, y).abs().max().item()
    options = {"fast_mode": fast, "atol": 1e-4 * max(small, 1e-12), "rtol": 1e-4}
    assert gradcheck(f, (x, y), check_forward_ad=True, **options)
    assert gradgradcheck(f, (x, y), check_fwd_over_rev=True, **options)


@pytest.mark.parametrize("power", [0.0, 0.5, -0.7])
@pytest.mark.parametrize("name", OPERATIONS)
def test_derivatives_by_finite_differences(name, power):
    for place in PLACES:
        derivatives_hold(name, power, 1.0, place, True)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-10, 1e10])
@pytest.mark.parametrize("power", [0.0, 0.5, -0.7])
@pytest.mark.parametrize("name", OPERATIONS)
def test_derivatives_at_any_scale(name, power, scale):
    for place in PLACES:
        derivatives_hold(name, power, scale, place, False)


@pytest.mark.parametrize(("name", "most"), [("dist", 40), ("logmap", 25), ("expmap", 35)])
def test_launches(name, most):
    m = SPDLogCholesky()
    x, y = points(m, 3, dtype=F32), points(m, 3, seed=1, dtype=F32)
    with Launches() as launches:
        getattr(m, name)(x, y)
    assert launches.count <= most
