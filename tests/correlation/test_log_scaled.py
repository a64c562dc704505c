"""The log-scaled metric of correlation matrices against mpmath, scipy and geomstats, next to singular matrices, and in
what it leaves invariant."""

import mpmath
import numpy as np
import pytest
import scipy.optimize
import torch

from torchriemann.manifolds import CorrelationLogScaled
from torchriemann.manifolds.functional import log_scaling as formulas
from torchriemann.manifolds.functional.correlation import unit_diagonal
from torchriemann.manifolds.functional.zero_sum_matrices import zero_sum_basis

m = CorrelationLogScaled()
GENERAL = CorrelationLogScaled(0.5, 0.3, 0.2)
EPS = torch.finfo(torch.float64).eps


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def correlations(n, condition, batch=8, seed=0):
    """Of covariances of that condition, of which the eigenvalues lie evenly on a logarithmic scale, one beside equal
    ones, and half of each."""
    g = generator(seed)
    places = torch.linspace(0, 1, n, dtype=torch.float64)
    spectra = [places, (places > 0).double(), (places == 1).double(), (places > 0.5).double()]
    frames = torch.linalg.qr(torch.randn(len(spectra), batch, n, n, generator=g, dtype=torch.float64))[0]
    values = condition ** -torch.stack(spectra)[:, None, None]
    return unit_diagonal((frames * values) @ frames.mT).flatten(0, 1)


def blocks(*entries):
    """2 x 2 blocks with these entries off the diagonal: M has the product of what the conditions of two of them are."""
    return torch.block_diag(*(torch.tensor([[1.0, r], [r, 1.0]], dtype=torch.float64) for r in entries))


def condition(x):
    values = torch.linalg.eigvalsh(x)
    return values[..., -1] / values[..., 0]


def image(x):
    """S of the standard metric."""
    F = zero_sum_basis(x.shape[-1], x)
    return F @ formulas.log_scaling(x)[0] @ F.mT


def exact_image(x):
    """S to 40 digits, of row sums that Newton's method in log x makes one to 30: x is the only positive solution."""
    with mpmath.workdps(40):
        n = len(x)
        C, ones = mpmath.matrix(x.tolist()), mpmath.ones(n, 1)
        y = mpmath.matrix([mpmath.log(v) for v in (n**0.5 * formulas.scaled(x).R[:, 0]).tolist()])
        for _ in range(20):
            D = mpmath.diag([mpmath.exp(v) for v in y])
            M = D * C * D
            sums = M * ones
            y += mpmath.lu_solve(M + mpmath.diag(list(sums)), ones - sums)
        assert max(abs(v - 1) for v in sums) < mpmath.mpf(10) ** -20
        values, vectors = mpmath.eigsy(M)
        S = vectors * mpmath.diag([mpmath.log(v) for v in values]) * vectors.T
        return torch.tensor([[float(S[i, j]) for j in range(n)] for i in range(n)], dtype=torch.float64)


# ---- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, cond", [(3, 1e2), (4, 1e8), (4, 1e12)])
def test_logarithm_is_that_of_mpmath(n, cond):
    for x in correlations(n, cond, 1):
        off = image(x) - exact_image(x)
        assert off.abs().max() < 10 * EPS * condition(x)


def test_logarithm_of_blocks_is_right_where_the_scaled_matrix_has_the_square_of_the_condition():
    near = 1 - 2.0**-24
    x = blocks(near, -near)
    expected = torch.block_diag(
        *(torch.tensor([[-1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) * np.arctanh(r) for r in (near, -near))
    )
    assert (image(x) - expected).abs().max() < 10 * EPS * condition(x)
    assert (m.chart.inverse(m.chart.forward(x)) - x).abs().max() < 10 * EPS * condition(x)
    single = image(x.float())
    assert single.dtype == torch.float32 and (single - expected).abs().max() < 1e-6 * expected.abs().max()


def test_of_two_rows_it_is_the_inverse_hyperbolic_tangent():
    r = torch.linspace(-0.999, 0.999, 9, dtype=torch.float64)
    x = torch.stack([torch.ones_like(r), r, r, torch.ones_like(r)], -1).unflatten(-1, (2, 2))
    torch.testing.assert_close(formulas.log_scaling(x)[0].flatten(), -2 * r.atanh())
    general = m.dist(x[:1], x) * (0.5 + 0.3 / 2 + 0.2) ** 0.5
    torch.testing.assert_close(GENERAL.dist(x[:1], x), general)


def test_row_sums_are_one_and_those_of_the_logarithm_zero():
    x = correlations(6, 1e4)
    R = formulas.scaled(x).R
    scale = 6**0.5 * R[..., 0]
    assert ((x * scale.unsqueeze(-1) * scale.unsqueeze(-2)).sum(-1) - 1).abs().max() < 1e-10
    S = image(x)
    assert S.sum(-1).abs().max() < 20 * EPS * S.abs().max()
    best = scipy.optimize.root(lambda y: np.exp(y) * (x[0].numpy() @ np.exp(y)) - 1, np.zeros(6), tol=1e-13)
    torch.testing.assert_close(scale[0].log(), torch.as_tensor(best.x), rtol=1e-9, atol=1e-9)


def test_distances_and_exponentials_are_those_of_geomstats():
    space_of = pytest.importorskip("geomstats.geometry.full_rank_correlation_matrices")
    space = space_of.FullRankCorrelationMatrices(4, equip=False)
    space.equip_with_metric(space_of.LogScaledMetric, alpha=0.5, delta=0.3, zeta=0.2)
    x, y = correlations(4, 20.0, 1), correlations(4, 20.0, 1, seed=1)
    u = GENERAL.logmap(x, y)
    distances = space.metric.dist(x.numpy(), y.numpy())
    torch.testing.assert_close(GENERAL.dist(x, y), torch.as_tensor(distances), rtol=1e-5, atol=0)
    ends = space.metric.exp(0.5 * u.numpy(), x.numpy())
    torch.testing.assert_close(GENERAL.expmap(x, 0.5 * u), torch.as_tensor(ends), rtol=0, atol=1e-5)


# ---- the scale ----------------------------------------------------------------------------------------------------

ROUNDS = {1e2: 9, 1e4: 11, 1e8: 13, 1e12: 14}


@pytest.mark.parametrize("cond", ROUNDS)
def test_newton_takes_few_rounds(cond, monkeypatch):
    """The damped step alone takes 22, 41, 78 and 116 on these."""
    monkeypatch.setattr(formulas, "_ROUNDS", ROUNDS[cond])
    for n in (3, 16, 48):
        x = correlations(n, cond, 4)
        assert formulas.scaled_eigh(x)[0].isfinite().all()
        equal = torch.stack(
            [torch.full((n, n), r, dtype=torch.float64) for r in (1 - 1 / cond, (1 / cond - 1) / (n - 1))]
        )
        assert formulas.scaled_eigh(unit_diagonal(equal + torch.eye(n) * (1 - equal)))[0].isfinite().all()


def test_no_draw_fails():
    """200 draws of each of six conditions."""
    for cond in (1.0, 1e2, 1e4, 1e8, 1e12, 1e13):
        x = correlations(5, cond, 50, seed=3)
        assert m.chart.forward(x).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_items_do_not_depend_on_their_neighbours(dtype):
    x = torch.cat([correlations(4, c, 1) for c in (3.0, 1e2, 1e5)]).to(dtype)
    worse = torch.stack([torch.full((4, 4), torch.nan), torch.ones(4, 4), -2 * torch.ones(4, 4) + 3 * torch.eye(4)])
    together = m.chart.forward(torch.cat([worse.to(dtype), x]))
    assert together[:3].isnan().all()
    good = correlations(4, 10.0, 1)[:1].expand(3, 4, 4).to(dtype)
    # To the bit in a batch as large, whose products of matrices are rounded alike.
    assert torch.equal(m.chart.forward(torch.cat([good, x]))[3:], together[3:])
    for item, found in zip(x, together[3:], strict=True):
        alone = m.chart.forward(item)
        assert (alone - found).abs().max() <= 4 * torch.finfo(dtype).eps * found.abs().max()


# ---- accuracy -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cond", [1e2, 1e4, 1e8, 1e12])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_round_trips_are_right_to_eps_times_the_condition(cond, dtype):
    if dtype == torch.float32:
        cond = cond**0.5
    x = correlations(6, cond).to(dtype)
    bar = torch.finfo(dtype).eps * condition(x.double())
    y = m.chart.forward(x)
    back = m.chart.inverse(y)
    assert ((back - x).abs().amax((-2, -1)) / bar).max() < 10
    assert ((m.chart.forward(back) - y).norm(dim=-1) / bar).max() < 100
    u = m.proju(x, torch.randn(x.shape, generator=generator(), dtype=torch.float64).to(dtype))
    _, w = m.chart.differential(x, u)
    for found in (m.chart.linearized(x).pull(w), m.chart.inverse_differential(y, w)[1]):
        assert ((found - u).abs().amax((-2, -1)) / bar).max() < 300


# ---- invariance ---------------------------------------------------------------------------------------------------


def test_inversion_is_minus():
    """C -> cor(C^-1) is gyroinv and an isometry."""
    x, y = correlations(5, 50.0), correlations(5, 50.0, seed=1)
    inverse = [unit_diagonal(torch.linalg.inv(p)) for p in (x, y)]
    torch.testing.assert_close(m.chart.forward(inverse[0]), -m.chart.forward(x), rtol=0, atol=1e-11)
    torch.testing.assert_close(GENERAL.gyroinv(x), inverse[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(GENERAL.dist(*inverse), GENERAL.dist(x, y), rtol=1e-11, atol=0)


def test_means_commute_with_permutations():
    x, order = correlations(5, 50.0), [3, 0, 4, 1, 2]
    mean = GENERAL.frechet_mean(x)
    permuted = GENERAL.frechet_mean(x[..., order, :][..., order])
    torch.testing.assert_close(mean[order][:, order], permuted, rtol=0, atol=1e-12)


# ---- the quadratic form -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_coordinates_are_orthonormal_for_the_form(n):
    x, y = correlations(n, 10.0, 1), correlations(n, 10.0, 1, seed=1)
    S = image(x) - image(y)
    for alpha, delta, zeta in ((1.0, 0.0, 0.0), (0.5, 0.3, 0.2), (2.0, -0.5, 0.1), (1.0, 0.0, -0.1)):
        metric = CorrelationLogScaled(alpha, delta, zeta)
        entries = S.diagonal(dim1=-2, dim2=-1)
        form = alpha * S.square().sum((-2, -1)) + delta * entries.square().sum(-1) + zeta * entries.sum(-1) ** 2
        torch.testing.assert_close(metric.dist2(x, y), form, rtol=1e-11, atol=0)
        torch.testing.assert_close(metric.chart.inverse(metric.chart.forward(x)), x, rtol=0, atol=1e-13)


@pytest.mark.parametrize("alpha, delta, zeta", [(1.0, -1.3, 0.0), (1.0, 0.0, -0.4), (-1.0, 5.0, 0.0), (-1.0, 0.0, 2.0)])
@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_a_form_that_is_not_positive_raises_where_it_is_none(alpha, delta, zeta, n):
    """Against the least eigenvalue of the form on a basis of symmetric matrices."""
    F = zero_sum_basis(n, torch.zeros((), dtype=torch.float64))
    units = torch.eye((n - 1) ** 2, dtype=torch.float64).unflatten(-1, (n - 1, n - 1))
    i, j = torch.tril_indices(n - 1, n - 1)
    S = F @ (units + units.mT)[i * (n - 1) + j] @ F.mT
    entries = S.diagonal(dim1=-2, dim2=-1)
    trace = entries.sum(-1)
    gram = alpha * torch.einsum("aij,bij->ab", S, S) + delta * entries @ entries.mT + zeta * torch.outer(trace, trace)
    positive = bool(torch.linalg.eigvalsh(gram)[0] > 1e-12)
    metric, x = CorrelationLogScaled(alpha, delta, zeta), torch.eye(n, dtype=torch.float64)
    if positive:
        assert metric.dist(x, x) == 0
    else:
        with pytest.raises(ValueError, match=f"CorrelationLogScaled.*the form is not positive: .* {n} x {n} matrices"):
            metric.dist(x, x)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), True, "1", None])
def test_options_are_finite_numbers(bad):
    for name in ("alpha", "delta", "zeta"):
        with pytest.raises(ValueError, match=f"CorrelationLogScaled: {name} must be a finite number, got"):
            CorrelationLogScaled(**{name: bad})


# ---- derivatives --------------------------------------------------------------------------------------------------


def special_points():
    """The identity, equal correlations of either sign, of which eigenvalues repeat, and blocks."""
    identity, ones = torch.eye(4, dtype=torch.float64), torch.ones(4, 4, dtype=torch.float64)
    return torch.stack([identity, 0.6 * ones + 0.4 * identity, 1.2 * identity - 0.2 * ones, blocks(0.5, -0.3)])


def test_derivatives_are_those_of_difference_quotients_at_repeated_eigenvalues():
    x = special_points()
    g = generator()
    u, v = (m.proju(x, torch.randn(x.shape, generator=g, dtype=torch.float64)) for _ in range(2))

    def forward(p):
        return formulas.log_scaling(p)[0]

    def quotient(f, direction, h):
        return (f(x + h * direction) - f(x - h * direction)) / (2 * h)

    Z, pushed = formulas.log_scaling(x, u)
    torch.testing.assert_close(pushed, quotient(forward, u, 1e-5), rtol=0, atol=1e-8)
    torch.testing.assert_close(torch.func.jvp(forward, (x,), (u,)), (Z, pushed))
    second = quotient(lambda p: formulas.log_scaling(p, u)[1], v, 1e-5)
    nested = torch.func.jvp(lambda p: torch.func.jvp(forward, (p,), (u,))[1], (x,), (v,))[1]
    torch.testing.assert_close(nested, second, rtol=0, atol=1e-7)
    torch.testing.assert_close(torch.func.jvp(lambda p: formulas.log_scaling(p, u)[1], (x,), (v,))[1], nested)
    third = quotient(lambda p: torch.func.jvp(lambda q: formulas.log_scaling(q, u)[1], (p,), (v,))[1], u, 1e-4)
    closed = torch.func.jvp(
        lambda p: torch.func.jvp(lambda q: formulas.log_scaling(q, u)[1], (p,), (v,))[1], (x,), (u,)
    )
    torch.testing.assert_close(closed[1], third, rtol=0, atol=1e-5)


def test_the_adjoint_is_the_transpose_of_the_inverse_differential():
    x = correlations(5, 30.0)
    g = torch.randn(x.shape, generator=generator(), dtype=torch.float64)
    y = GENERAL.chart.forward(x)
    v = torch.randn(y.shape, generator=generator(1), dtype=torch.float64)
    expected = (GENERAL.chart.inverse_differential(y, v)[1] * g).sum((-2, -1))
    for adjoint in (GENERAL.chart.inverse_adjoint(y, g), GENERAL.chart.linearized(x).adjoint(g)):
        torch.testing.assert_close((adjoint * v).sum(-1), expected)
    # The gradient that autograd finds of the inverse.
    y.requires_grad_()
    (found,) = torch.autograd.grad((GENERAL.chart.inverse(y) * g).sum(), y)
    torch.testing.assert_close(found, GENERAL.chart.inverse_adjoint(y.detach(), g))


@pytest.mark.slow
@pytest.mark.parametrize("which", range(4))
def test_gradcheck(which):
    x = special_points()[which].requires_grad_()
    u = torch.randn(4, 4, generator=generator(), dtype=torch.float64, requires_grad=True)
    for f, given in (
        (lambda p: formulas.log_scaling(p)[0], (x,)),
        (lambda p, v: formulas.log_scaling(p, v)[1], (x, u)),
        (lambda p: GENERAL.chart.linearized(p).pull(torch.ones(6, dtype=torch.float64)), (x,)),
        (lambda p, v: GENERAL.chart.linearized(p).adjoint(v), (x, u)),
    ):
        assert torch.autograd.gradcheck(f, given, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(f, given)
