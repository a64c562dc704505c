"""The pencil of two matrices: exact values at any condition, closed derivatives, items that stay apart."""

import mpmath
import pytest
import torch

import torchriemann
from tests.support import spd_truth
from torchriemann.manifolds import SPDAffineInvariant
from torchriemann.manifolds.functional.pencil import pencil_power
from torchriemann.manifolds.kernels.spd import pencil_function, pencil_moments

METRIC = SPDAffineInvariant()
FUNCTIONS = {"log": mpmath.log, "sqrt": mpmath.sqrt, "exp": mpmath.exp, "power -0.7": lambda w: w ** mpmath.mpf(-0.7)}


def drawn(seed, condition, *batch, n=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return METRIC.random_spectrum(*batch, n, n, condition=condition, generator=generator, dtype=torch.float64).to(dtype)


def relative(found, true):
    return float((found.double() - true).norm() / true.norm())


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("condition", [1e4, 1e9])
def test_functions_at_sixty_digits(function, condition):
    x = drawn(0, condition, 2)
    y = drawn(1, condition, 2) if function != "exp" else METRIC.random_tangent(x, torch.Generator().manual_seed(1))
    for found, a, b in zip(pencil_function(x, y, function), x, y, strict=True):
        assert relative(found, spd_truth.function(a, b, FUNCTIONS[function])) < 1e-15 * condition


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
def test_far_and_near_points_in_single_precision(condition):
    """Two independent points of condition 1e6 leave no digit to eigenvalues in float32, nor do two near ones to a
    pencil that is formed in it."""
    x = drawn(2, condition, 3, dtype=torch.float32)
    near = METRIC.expmap(x.double(), 1e-3 * METRIC.random_tangent(x.double(), torch.Generator().manual_seed(0)))
    for y in (drawn(3, condition, 3, dtype=torch.float32), near.float()):
        for found, a, b in zip(METRIC.logmap(x, y), x, y, strict=True):
            assert relative(found, spd_truth.function(a, b, mpmath.log)) < 2e-5
        for leaf in (x, x.clone().requires_grad_()):
            for found, a, b in zip(METRIC.dist(leaf, y).detach(), x, y, strict=True):
                assert abs(float(found) / spd_truth.distance(a, b) - 1) < 1e-6


@pytest.mark.parametrize("function", ["log", "exp", "sqrt", "power 0.3", "positive_linear"])
def test_closed_derivatives_are_those_of_the_plain_formula(function):
    x, y = drawn(4, 30.0, 5), drawn(5, 30.0, 5)
    y[1] = x[1]  # all eigenvalues equal
    x[2], y[2] = torch.eye(3), torch.diag(torch.tensor([1.0, 1.0, 2.0]))
    weights = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = []
    for kernels in (True, False):
        leaves = x.clone().requires_grad_(), y.clone().requires_grad_()
        with torchriemann.use_kernels(kernels):
            loss = (pencil_function(*leaves, function) * weights).sum()
            if function != "exp":
                loss = loss + torch.stack(pencil_moments(*leaves)).sum()
        found.append(torch.autograd.grad(loss, leaves))
    for closed, plain in zip(*found, strict=True):
        torch.testing.assert_close(closed, plain, rtol=1e-10, atol=1e-10)


def test_derivative_in_the_exponent():
    x, y = drawn(6, 30.0, 4), drawn(7, 30.0, 4)
    t = torch.tensor([0.3, -1.2, 0.0, 2.0], dtype=torch.float64)
    for i in range(4):
        torch.testing.assert_close(pencil_power(x, y, t)[i], METRIC.geodesic(x[i], y[i], float(t[i])))
    value, rate = torch.func.jvp(lambda s: pencil_power(x, y, s), (t,), (torch.ones_like(t),))
    quotient = (pencil_power(x, y, t + 1e-5) - pencil_power(x, y, t - 1e-5)) / 2e-5
    torch.testing.assert_close(rate, quotient, rtol=1e-8, atol=1e-8)
    assert value.shape == x.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bad_items_stay_apart(dtype):
    """Not positive definite on either side, singular, NaN: NaN for these, the others to the bit."""
    x, y = drawn(8, 30.0, 7, dtype=dtype), drawn(9, 30.0, 7, dtype=dtype)
    bad_x, bad_y = x.clone(), y.clone()
    bad_x[1], bad_x[2], bad_y[3], bad_y[4] = -x[1], torch.nan, torch.diag(torch.tensor([1.0, 0.0, 2.0])), torch.inf
    bad_y[5, 0, 1] = torch.nan
    good = [0, 6]
    for operation in (METRIC.logmap, METRIC.midpoint, METRIC.dist, lambda a, b: METRIC.parallel_transport(a, b, y)):
        results, gradients = [], []
        for a, b in ((x, y), (bad_x, bad_y)):
            leaves = a.clone().requires_grad_(), b.clone().requires_grad_()
            result = operation(*leaves)
            results.append(result.detach())
            gradients.append(torch.autograd.grad(result[good].sum(), leaves))
        assert results[1][1:6].isnan().all()
        assert torch.equal(results[0][good], results[1][good])
        for g, h in zip(*gradients, strict=True):
            torch.testing.assert_close(g[good], h[good])
            assert h[good].isfinite().all()


def test_results_are_symmetric_and_symmetric_parts_are_read():
    x, y = drawn(10, 100.0, 4, n=7, dtype=torch.float32), drawn(11, 100.0, 4, n=7, dtype=torch.float32)
    skew = torch.randn(7, 7, generator=torch.Generator().manual_seed(0))
    skew = 0.1 * (skew - skew.mT)
    for operation in (METRIC.expmap, METRIC.logmap, METRIC.midpoint, METRIC.gyroadd):
        result = operation(x, y)
        assert torch.equal(result, result.mT)
        torch.testing.assert_close(operation(x + skew, y + skew), result, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
def test_no_scale_is_special(scale):
    x, y = drawn(12, 100.0, 4, dtype=torch.float32), drawn(13, 100.0, 4, dtype=torch.float32)
    torch.testing.assert_close(METRIC.logmap(scale * x, scale * y) / scale, METRIC.logmap(x, y), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(METRIC.dist(scale * x, scale * y), METRIC.dist(x, y), rtol=1e-5, atol=1e-5)
    u = METRIC.logmap(x, y)
    torch.testing.assert_close(METRIC.expmap(scale * x, scale * u) / scale, y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 1, 1), (4, 1, 1)])
def test_empty_batches_and_numbers(shape):
    x, y = METRIC.random(*shape), METRIC.random(*shape)
    assert METRIC.logmap(x, y).shape == shape
    torch.testing.assert_close(METRIC.dist(x, y), (y / x).log().abs().flatten(-2).sum(-1), rtol=1e-5, atol=1e-6)


def test_compiled_where_it_is_ill_conditioned():
    """The traced formula takes its values from the same decomposition."""
    x, y = drawn(14, 1e6, 3, dtype=torch.float32), drawn(15, 1e6, 3, dtype=torch.float32)
    compiled = torch.compile(METRIC.logmap, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, y), METRIC.logmap(x, y), rtol=1e-4, atol=1e-4)
