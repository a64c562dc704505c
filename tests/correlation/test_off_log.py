"""The off-log metric: its chart against many digits, the solver, the forms of permutations."""

import itertools
import math
from functools import cache

import geomstats.backend  # noqa: F401  (geomstats reads its backend at import)
import mpmath
import pytest
import torch
from geomstats.geometry.full_rank_correlation_matrices import OffLogDiffeo

from torchriemann.manifolds import CorrelationOffLog
from torchriemann.manifolds.functional.hollow_matrices import form_factors, hollow_from_vector, hollow_vector
from torchriemann.manifolds.functional.off_log import diagonal_of_log

F64, F32 = torch.float64, torch.float32
EPS = torch.finfo(F64).eps
PLAIN, FORM = CorrelationOffLog(), CorrelationOffLog(2.0, 0.3, -0.1)
both = pytest.mark.parametrize("m", [PLAIN, FORM], ids=repr)
CONDITIONS = (1e2, 1e4, 1e8, 1e12)


def draw(*size, seed=0, scale=1.0, dtype=F64):
    return scale * torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def points(count, n, condition, seed=0):
    """Of about that condition number, eigenvalues spread on a logarithmic scale."""
    q = torch.linalg.qr(draw(count, n, n, seed=seed))[0]
    places = torch.rand(count, n, generator=torch.Generator().manual_seed(seed), dtype=F64)
    places[:, 0], places[:, 1] = 0, 1
    return PLAIN.correlation((q * (condition ** (places - 0.5)).unsqueeze(-2)) @ q.mT)


def hollow(count, n, scale, seed=0):
    H = draw(count, n, n, seed=seed, scale=scale).tril(-1)
    return H + H.mT


def off(x):
    return x - torch.diag_embed(x.diagonal(dim1=-2, dim2=-1))


# ---- many digits ----------------------------------------------------------------------------------------------


def exponential(H, D):
    n = H.rows
    w, Q = mpmath.eigsy(mpmath.matrix(n, n) + H + mpmath.diag(D))
    return Q * mpmath.diag([mpmath.exp(v) for v in w]) * Q.T


@cache
def exact(n, condition, scale=1.0):
    """H, as it is stored, and C to 30 digits: the fixed point of Archakov and Hansen, by the secant method of Anderson
    with n differences, which needs no derivative."""
    x = points(1, n, condition, seed=n)[0]
    H64 = scale * hollow_from_vector(PLAIN.chart.forward(x))
    with mpmath.workdps(40):
        H = mpmath.matrix(H64.tolist())
        D = mpmath.matrix(diagonal_of_log(H64)[0].tolist())  # a start: what is found is the only solution
        before = None
        slopes = mpmath.eye(n)
        for _ in range(60):
            C = exponential(H, list(D))
            r = mpmath.matrix([mpmath.log(C[i, i]) for i in range(n)])
            if before is not None:  # Broyden's update of the inverse of the derivative
                d, e = D - before[0], r - before[1]
                moved = slopes * e
                slopes += (d - moved) * (d.T * slopes) / (d.T * moved)[0]
            if mpmath.norm(r) < mpmath.mpf(10) ** -30:
                return H64, torch.tensor(C.tolist(), dtype=F64)
            before = D, r
            D = D - slopes * r
    raise AssertionError("the reference does not converge")


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_way_back_against_many_digits(n, condition):
    H, C = exact(n, condition)
    x = PLAIN.chart.inverse(hollow_vector(H))
    assert (x - C).abs().max() <= 20 * EPS  # whatever the condition
    single = PLAIN.chart.inverse(hollow_vector(H.float()))
    # H is rounded, by half an eps of numbers up to 14; and what is singular in float32 may be lifted off the rim.
    eps = torch.finfo(F32).eps
    lift = 4 * n**2 if condition * eps > 1 else 0
    assert (single.double() - C).abs().max() <= (20 + lift) * eps


@pytest.mark.parametrize("scale, n", [(1e-12, 3), (1e-3, 4), (8.0, 4)])
def test_small_and_large_logarithms_against_many_digits(scale, n):
    H, C = exact(n, 1e8, scale)
    x = PLAIN.chart.inverse(hollow_vector(H))
    assert off(x - C).abs().max() <= 100 * EPS * off(C).abs().max()


def test_single_precision_is_right_to_its_rounding():
    H = hollow(50, 6, 1.0).float()
    x = PLAIN.chart.inverse(hollow_vector(H))
    exact = PLAIN.chart.inverse(hollow_vector(H.double()))
    assert x.dtype == F32 and (x.double() - exact).abs().max() <= 4 * torch.finfo(F32).eps


def test_two_rows_are_hyperbolic_tangents():
    """off(log C) is atanh of the correlation."""
    z = torch.linspace(-15, 15, 31, dtype=F64)
    x = PLAIN.chart.inverse(math.sqrt(2) * z.unsqueeze(-1))
    assert (x[:, 0, 1] - z.tanh()).abs().max() <= 4 * EPS
    m = CorrelationOffLog(-0.5, 1.0, 0.75)  # of two rows alpha + beta + 2 gamma counts: 2
    a, b = torch.tensor([0.3, -0.2], dtype=F64), torch.tensor([0.9, 0.4], dtype=F64)
    x, y = (torch.stack([torch.stack([r * 0 + 1, r], -1), torch.stack([r, r * 0 + 1], -1)], -2) for r in (a, b))
    assert torch.allclose(m.dist(x, y), 2 * (a.atanh() - b.atanh()).abs(), rtol=1e-14)


@pytest.mark.parametrize("n", [3, 7, 40])
def test_equal_correlations_have_equal_logarithms(n):
    """All eigenvalues but one are the same: log C has (log(1 + (n - 1) r) - log(1 - r))/n off the diagonal."""
    r = torch.tensor([-0.9 / (n - 1), 0.0, 1e-9, 0.5, 1 - 1e-6], dtype=F64)
    h = (torch.log1p((n - 1) * r) - torch.log1p(-r)) / n
    y = hollow_vector(h[:, None, None].expand(-1, n, n))
    x = PLAIN.chart.inverse(y)
    assert (off(x) - off(r[:, None, None].expand(-1, n, n))).abs().max() <= 1e-14
    assert torch.allclose(PLAIN.chart.forward(x), y, atol=1e-8)  # eps times the condition number


def test_against_geomstats():
    x, y = points(6, 4, 20.0), points(6, 4, 20.0, seed=1)
    u = off(draw(6, 4, 4, seed=2))
    u = u + u.mT
    diffeo = OffLogDiffeo()
    H = torch.as_tensor(diffeo(x.numpy()))
    assert torch.allclose(PLAIN.chart.forward(x), hollow_vector(H), atol=1e-12)
    moved = torch.as_tensor(diffeo.tangent(u.numpy(), base_point=x.numpy()))
    assert torch.allclose(PLAIN.norm(x, u), moved.square().sum((-2, -1)).sqrt(), atol=1e-11)
    half = torch.as_tensor(diffeo.inverse((0.5 * (H + torch.as_tensor(diffeo(y.numpy())))).numpy()))
    assert torch.allclose(PLAIN.midpoint(x, y), half, atol=1e-10)  # where its iteration stops


# ---- round trips ----------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("condition", CONDITIONS)
def test_round_trips_are_as_the_condition(m, condition):
    f, x = m.chart, points(20, 6, condition)
    spread = EPS * torch.linalg.cond(x)
    y, v = f.forward(x), draw(20, 15, seed=1)
    v = v / torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    z, u = f.inverse_differential(y, v)
    assert (z - x).abs().max() <= 100 * EPS  # the way back does not know the condition
    assert (torch.linalg.vector_norm(f.forward(z) - y, dim=-1) / spread).max() <= 10
    assert (torch.linalg.vector_norm(f.differential(z, u)[1] - v, dim=-1) / spread).max() <= 10
    at = f.linearized(x)
    assert torch.allclose(at.pull(v), u, atol=1e-12) and torch.equal(at.image, y)
    g = draw(20, 6, 6, seed=2)
    assert torch.allclose(at.adjoint(g), f.inverse_adjoint(y, g), atol=1e-12)
    assert torch.allclose((at.adjoint(g) * v).sum(-1), (g * u).sum((-2, -1)), atol=1e-12)


@pytest.mark.parametrize("n", [5, 40])
def test_what_is_next_to_singular_stays_a_point(n):
    """Beyond a condition of 1/eps the smallest eigenvalues are lost to the rounding of entries, and `retr` puts them
    back."""
    x, H = PLAIN.origin(4, n, n, dtype=F64), hollow(4, n, 30.0)
    y = PLAIN.retr(x, H)
    assert PLAIN.check_point_on_manifold(y) and y.abs().max() <= 1
    assert PLAIN.logmap(x, y).isfinite().all() and PLAIN.dist(x, y).isfinite().all()


# ---- the solver -----------------------------------------------------------------------------------------------


@pytest.fixture
def decompositions(monkeypatch):
    """How many eigendecompositions a call makes, of batches."""
    made, eigh = [], torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda A: made.append(A) or eigh(A))

    def count(call, *arguments):
        made.clear()
        call(*arguments)
        return len(made)

    return count


@pytest.mark.parametrize("n", [3, 4, 6, 10, 24])
def test_newton_takes_few_decompositions(n, decompositions):
    """Two hundred draws, five conditions: how many it takes to the rounding, of which a batch takes the most."""
    for condition, most in ((1e2, 6), (1e4, 7), (1e8, 9), (1e12, 12)):
        y = PLAIN.chart.forward(points(40, n, condition, seed=n))
        H = hollow_from_vector(y)
        assert decompositions(diagonal_of_log, H) <= most
        shift, a, Q = diagonal_of_log(H)
        diagonal = (Q.square() * a.exp().unsqueeze(-2)).sum(-1)
        assert diagonal.log().abs().max() <= 16 * EPS * (1 + a.abs().max())
        assert torch.allclose((Q * a.unsqueeze(-2)) @ Q.mT, H + torch.diag_embed(shift), atol=1e-12)


def test_no_way_back_where_none_is_needed(decompositions):
    x, y = points(3, 4, 20.0), points(3, 4, 20.0, seed=1)
    u, g = PLAIN.logmap(x, y), draw(3, 4, 4)
    back = decompositions(PLAIN.chart.inverse, PLAIN.chart.forward(x))
    for name, arguments, expected in (
        ("dist", (x, y), 1),  # of both at once
        ("logmap", (x, y), 2),
        ("inner", (x, u, u), 1),
        ("egrad2rgrad", (x, g), 1),
        ("ehess2rhess", (x, g, g, u), 2),
        ("parallel_transport", (x, y, u), 2),
        ("to_normal", (x,), 1),
    ):
        assert decompositions(getattr(PLAIN, name), *arguments) == expected, name
    for name, arguments, points_read in (
        ("expmap", (x, u), 1),
        ("expmap_transp", (x, u, u), 1),
        ("geodesic", (x, y, 0.5), 2),
        ("frechet_mean", (torch.stack([x, y]),), 1),
    ):
        assert decompositions(getattr(PLAIN, name), *arguments) - points_read in range(1, back + 2), name


def unsolved(H):
    shift, a, Q = diagonal_of_log(H)
    residual = (Q.square() * a.exp().unsqueeze(-2)).sum(-1).log()
    return (residual.abs().amax(-1) / (1 + a.abs().amax(-1))).max()


@pytest.mark.parametrize("n, count", [(3, 50), (8, 30), (24, 8), (64, 2)])
def test_logarithms_of_any_size_are_solved(n, count, decompositions):
    """Condition numbers up to e^2000, at which D = 0 is no start."""
    for scale, most in ((1.0, 9), (10.0, 20), (100.0, 60)):
        H = hollow(count, n, scale)
        assert unsolved(H) <= 100 * EPS
        assert decompositions(diagonal_of_log, H) <= most


def test_what_has_no_solution_in_numbers_is_nan_alone():
    y = PLAIN.chart.forward(points(4, 3, 20.0)).clone()
    alone = PLAIN.chart.inverse(y[:1])
    y[1, 0], y[2, 1], y[3] = torch.nan, torch.inf, 1e300
    y.requires_grad_()
    x, u = PLAIN.chart.inverse_differential(y, torch.ones_like(y))
    assert torch.equal(x[0], alone[0]) and x[1:].isnan().all()
    assert hollow_vector(u[1:]).isnan().all()
    (g,) = torch.autograd.grad(x[0].sum() + u[0].sum(), y)
    assert g[0].isfinite().all() and g[0].any()


@pytest.mark.parametrize("n", [4, 30])
def test_items_do_not_depend_on_their_neighbours(n):
    """Hard ones take more rounds; the others are left alone."""
    y = torch.cat([PLAIN.chart.forward(points(1, n, c, seed=n)) for c in CONDITIONS])
    H = torch.cat([hollow_from_vector(y), hollow(1, n, 100.0)])
    for one, every in zip([diagonal_of_log(h) for h in H], zip(*diagonal_of_log(H), strict=True), strict=True):
        for alone, beside in zip(one[:2], every[:2], strict=True):
            assert (alone - beside).abs().max() <= 100 * EPS * (1 + every[1].abs().max())


# ---- the form -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_the_form_has_the_stated_factors(n):
    """Of all hollow matrices the form is a matrix, whose eigenvalues are the three factors."""
    alpha, beta, gamma = 2.0, 0.3, -0.05
    units = hollow_from_vector(torch.eye(n * (n - 1) // 2, dtype=F64))
    sums, totals = units.sum(-1), units.sum((-2, -1))
    matrix = alpha * units.flatten(1) @ units.flatten(1).T + beta * sums @ sums.T + gamma * torch.outer(totals, totals)
    first, middle, last = form_factors(alpha, beta, gamma, n)
    expected = [first] * (n * (n - 3) // 2) + [middle] * (n - 1 if n > 2 else 0) + [last]
    assert torch.allclose(torch.linalg.eigvalsh(matrix), torch.tensor(sorted(expected), dtype=F64), atol=1e-13)
    m = CorrelationOffLog(alpha, beta, gamma)
    x, y = points(5, n, 10.0), points(5, n, 10.0, seed=1)
    z = hollow_vector(hollow_from_vector(PLAIN.chart.forward(x) - PLAIN.chart.forward(y)))
    assert torch.allclose(m.dist2(x, y), ((z @ matrix) * z).sum(-1), rtol=1e-12)


def test_forms_of_few_rows_have_fewer_conditions():
    """Of three rows alpha alone may be negative, of two beta and gamma make up for it as well."""
    m = CorrelationOffLog(-0.5, 1.5, 0.0)
    assert m.dist(points(1, 3, 10.0), points(1, 3, 10.0, seed=1)) > 0
    x, y = points(2, 3, 10.0), points(2, 3, 10.0, seed=1)
    assert torch.allclose(m.expmap(x, m.logmap(x, y)), y, atol=1e-12)
    with pytest.raises(ValueError, match=r"alpha must be so for 4 x 4 matrices, got -0.5"):
        m.origin(4, 4)
    with pytest.raises(ValueError, match=r"alpha \+ \(n - 2\)/2 beta must be so for 5 x 5 matrices, got -0.5"):
        CorrelationOffLog(1.0, -1.0, 1.0).dist(points(1, 5, 10.0), points(1, 5, 10.0))
    with pytest.raises(ValueError, match=r"alpha \+ \(n - 1\)\(beta \+ n gamma\) must be so for 3 x 3 matrices, got 0"):
        CorrelationOffLog(1.0, -0.5, 0.0).random(3, 3)
    # alpha itself is positive: what is not is named, of as few rows as there are.
    with pytest.raises(ValueError, match=r"alpha \+ \(n - 2\)/2 beta must be so for 3 x 3 matrices, got -0.5"):
        CorrelationOffLog(1.0, -3.0, 3.0).random(3, 3)
    with pytest.raises(ValueError, match=r"alpha \+ \(n - 1\)\(beta \+ n gamma\) must be so for 2 x 2"):
        CorrelationOffLog(1.0, -2.0, 0.0).random(2, 2)


@pytest.mark.parametrize("name", ["alpha", "beta", "gamma"])
@pytest.mark.parametrize("value", [math.nan, math.inf, "1", True, None])
def test_options_are_finite_numbers(name, value):
    with pytest.raises(ValueError, match=f"CorrelationOffLog: {name} must be a finite number, got"):
        CorrelationOffLog(**{name: value})


@both
def test_permutations_move_everything_along(m):
    x, y, w = points(1, 4, 50.0)[0], points(1, 4, 50.0, seed=1)[0], points(5, 4, 50.0, seed=2)
    for order in itertools.islice(itertools.permutations(range(4)), 1, None, 5):
        p, q, many = (t[..., order, :][..., order] for t in (x, y, w))
        assert torch.allclose(m.dist(p, q), m.dist(x, y), rtol=1e-12)
        for of, to in (
            (m.midpoint(x, y), m.midpoint(p, q)),
            (m.logmap(x, y), m.logmap(p, q)),
            (m.frechet_mean(w), m.frechet_mean(many)),
        ):
            assert torch.allclose(of[order, :][:, order], to, atol=1e-12)


def test_meta_tensors_have_shapes():
    x, u = (torch.empty(2, 3, 3, device="meta") for _ in range(2))
    assert PLAIN.expmap(x, u).shape == PLAIN.logmap(x, u).shape == PLAIN.egrad2rgrad(x, u).shape == (2, 3, 3)
    assert PLAIN.chart.inverse(torch.empty(0, 3)).shape == (0, 3, 3)
