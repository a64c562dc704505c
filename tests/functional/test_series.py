"""The functions that are smooth at zero: values and derivatives against mpmath, next to zero, at the switches between
branches, and far away."""

import mpmath
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from torchriemann.manifolds.functional import series


@pytest.fixture(autouse=True)
def digits():
    with mpmath.workdps(100):
        yield


NEAR_ZERO = [0.0, 1e-300, 1e-30, 1e-16, 1e-8, 1e-4, 0.01]


def bessel(order):
    """j_n(sqrt z)/z^(n/2), by its power series at 100 digits."""

    def value(z):
        term = total = 1 / mpmath.fac2(2 * order + 1)
        for k in range(1, 121):
            term *= -z / (2 * k * (2 * order + 2 * k + 1))
            total += term
        return total

    return value


def root(function, at_zero):
    return lambda z: function(mpmath.sqrt(z)) if z else mpmath.mpf(at_zero)


def angle(c):
    c = mpmath.mpf(c)
    return mpmath.acos(c) / mpmath.sqrt(1 - c * c) if c != 1 else mpmath.mpf(1)


AROUND_FOUR = [*NEAR_ZERO, 0.5, 2.0, 3.999, 4.0, 4.001, 9.0, 25.0, 100.0]
AROUND_TENTH = [*NEAR_ZERO, 0.0999, 0.1, 0.1001, 0.5, 1.0, 10.0, 1e4]
COSINES = [-0.99, -0.5, 0.0, 0.5, 0.7999, 0.8, 0.8001, 0.9, 0.99, 1 - 1e-8, 1 - 1e-15, 1.0]

# name -> (function, reference, arguments)
FUNCTIONS = {
    "sinc_sqrt": (series.sinc_sqrt, bessel(0), AROUND_FOUR),
    "bessel_1": (lambda z: series.bessel_sqrt(1, z), bessel(1), AROUND_FOUR),
    "bessel_2": (lambda z: series.bessel_sqrt(2, z), bessel(2), AROUND_FOUR),
    "bessel_3": (lambda z: series.bessel_sqrt(3, z), bessel(3), AROUND_FOUR),
    "cos_sqrt": (series.cos_sqrt, root(mpmath.cos, 1), AROUND_FOUR),
    "versine_sqrt": (
        series.versine_sqrt,
        lambda z: -2 * mpmath.sin(mpmath.sqrt(z) / 2) ** 2 / z if z else mpmath.mpf(-1) / 2,
        AROUND_FOUR,
    ),
    "atan_ratio": (series.atan_ratio, root(lambda t: mpmath.atan(t) / t, 1), AROUND_TENTH),
    "angle_over_sine": (series.angle_over_sine, angle, COSINES),
}


def reference(function, z, order):
    """The derivative at 100 digits: one-sided at an end of the domain, where mpmath's own difference would leave it."""
    z = mpmath.mpf(z)
    if order == 0:
        return function(z)
    h = mpmath.mpf(10) ** -20
    if z < 1e-6:  # the smooth function continues to negative z, its formula does not: expand forwards
        weights = {1: (-3, 4, -1), 2: (1, -2, 1)}[order]
        values = [function(z + k * h) for k in range(3)]
        scale = 2 * h if order == 1 else h * h
        return sum(w * v for w, v in zip(weights, values, strict=True)) / scale
    if function is angle and 1 - z < 1e-6:
        weights = {1: (3, -4, 1), 2: (1, -2, 1)}[order]
        values = [function(z - k * h) for k in range(3)]
        scale = 2 * h if order == 1 else h * h
        return sum(w * v for w, v in zip(weights, values, strict=True)) / scale
    return mpmath.diff(function, z, order)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_and_derivatives(name, dtype):
    function, exact, arguments = FUNCTIONS[name]
    z = torch.tensor(arguments, dtype=dtype, requires_grad=True)
    value = function(z)
    (first,) = torch.autograd.grad(value.sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), z)
    eps = torch.finfo(dtype).eps
    for order, got in enumerate((value, first, second)):
        for argument, g in zip(z.detach().tolist(), got.tolist(), strict=True):
            want = reference(exact, argument, order)
            # Where a branch changes over, the closed form has lost a factor 1/z per derivative.
            bound = (8, 64, 512)[order] * eps * max(1, abs(float(want)))
            assert abs(g - float(want)) <= bound, (name, argument, order, g, float(want))


@pytest.mark.parametrize("order", [1, 2])
def test_stated_derivatives_of_angle_over_sine(order):
    c = torch.tensor(COSINES, dtype=torch.float64)
    got = series.angle_over_sine(c, order)
    for argument, g in zip(COSINES, got.tolist(), strict=True):
        want = float(reference(angle, argument, order))
        assert abs(g - want) <= 1e-12 * max(1, abs(want)), (argument, g, want)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradgradcheck(name):
    # Inside each branch and at zero; a difference quotient across a switch would measure rounding.
    points = [0.7, 0.95] if name == "angle_over_sine" else [1e-3, 0.5, 7.0]
    z = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    assert gradcheck(FUNCTIONS[name][0], z, check_forward_ad=True)
    assert gradgradcheck(FUNCTIONS[name][0], z)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_vmap_and_compile(name):
    function, _, arguments = FUNCTIONS[name]
    z = torch.tensor(arguments, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(function)(z), function(z), rtol=0, atol=0)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(z), function(z), rtol=1e-15, atol=1e-15)


def test_safe_sqrt():
    z = torch.tensor([0.0, -1e-20, 4.0], dtype=torch.float64, requires_grad=True)
    root_of = series.safe_sqrt(z)
    (g,) = torch.autograd.grad(root_of.sum(), z)
    assert root_of.tolist() == [0.0, 0.0, 2.0]
    assert g.tolist() == [0.0, 0.0, 0.25]


def test_nan_is_not_hidden():
    # A distance of zero where the logarithm is not a number would be a wrong answer.
    nan = torch.tensor([torch.nan])
    assert series.safe_sqrt(nan).isnan().all()
    assert series.safe_norm(nan).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-20, 1.0, 1e20, 1e30])
def test_safe_norm_at_every_scale(dtype, scale):
    v = torch.tensor([3.0, -4.0, 12.0], dtype=dtype) * scale
    v.requires_grad_()
    length = series.safe_norm(v)
    (g,) = torch.autograd.grad(length, v)
    eps = torch.finfo(dtype).eps
    assert abs(length.item() / (13 * scale) - 1) < 8 * eps
    torch.testing.assert_close(g, torch.tensor([3.0, -4.0, 12.0], dtype=dtype) / 13, rtol=8 * eps, atol=0)


def test_safe_norm_of_zero():
    v = torch.zeros(2, 3, requires_grad=True)
    length = series.safe_norm(v)
    (g,) = torch.autograd.grad(length.sum(), v)
    assert length.tolist() == [0.0, 0.0]
    assert (g == 0).all()
    assert series.safe_norm(torch.zeros(2, 3, 4), dim=(-2, -1), keepdim=True).shape == (2, 1, 1)
