"""Functions of symmetric matrices and of singular values: quadrature of divided differences against mpmath, derivatives
at repeated eigenvalues, transforms. Logarithm, exponential and powers have files of their own."""

import mpmath
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from torchriemann.manifolds.functional.singular_values import polar_factor, singular_value_function
from torchriemann.manifolds.functional.spectral import symmetric_function
from torchriemann.manifolds.functional.spectral_functions import (
    ANGLE_OVER_SINE,
    COS_SQRT,
    POLAR_FACTOR,
    SINC_SQRT,
    VERSINE_SQRT,
)


@pytest.fixture(autouse=True)
def digits():
    with mpmath.workdps(60):
        yield


ULP = 2.0**-52
GAPS = [0.0, ULP, 1e-12, 1e-8, 1e-4, 5e-3, 7e-3, 0.05, 0.07, 0.29, 0.31, 0.9, 2.9, 3.1, 10.0]
ENTIRE = {
    "cos": (COS_SQRT, lambda z: mpmath.cos(mpmath.sqrt(z))),
    "sinc": (SINC_SQRT, lambda z: mpmath.sinc(mpmath.sqrt(z))),
    "versine": (VERSINE_SQRT, lambda z: (mpmath.cos(mpmath.sqrt(z)) - 1) / z),
}


def angle(c):
    return mpmath.acos(c) / mpmath.sqrt(1 - c * c)


CASES = [(name, f, exact, low) for name, (f, exact) in ENTIRE.items() for low in (0.25, 2.0, 5.0)]
ANGLE = [("angle", ANGLE_OVER_SINE, angle, low) for low in (0.05, 0.5, 0.9)]


def tensor(*values):
    return [torch.tensor(float(v), dtype=torch.float64) for v in values]


def divided(f, *points):
    """The divided difference, confluent where points coincide."""
    points = sorted(mpmath.mpf(p) for p in points)
    if points[0] == points[-1]:
        k = len(points) - 1
        return mpmath.diff(f, points[0], k) / mpmath.factorial(k)
    return (divided(f, *points[1:]) - divided(f, *points[:-1])) / (points[-1] - points[0])


@pytest.mark.parametrize("name, f, exact, low", CASES + ANGLE)
def test_first_divided_differences(name, f, exact, low):
    for gap in GAPS:
        high = low + gap
        if name == "angle" and high >= 1:
            continue
        want = divided(exact, low, high)
        for a, b in ((low, high), (high, low)):
            got = f.divided_difference(*tensor(a, b)).item()
            assert abs(got - want) <= 2e-15 * max(1, abs(want)) * (20 if name == "angle" else 1), (gap, got, want)


@pytest.mark.parametrize("name, f, exact, low", CASES + ANGLE)
def test_second_divided_differences(name, f, exact, low):
    for gap in GAPS:
        for part in (0.0, 0.3, 1.0):
            points = low, low + part * gap, low + gap
            if name == "angle" and points[2] >= 1:
                continue
            want = divided(exact, *points)
            got = [f.second_divided_difference(*tensor(*order)).item() for order in (points, points[::-1])]
            bound = 1e-13 * max(1, abs(want)) * (10 if name == "angle" else 1)
            assert all(abs(g - want) <= bound for g in got), (points, got, want)


def symmetric(eigenvalues, seed=0):
    a = torch.as_tensor(eigenvalues, dtype=torch.float64)
    g = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(len(a), len(a), generator=g, dtype=torch.float64))[0]
    return (q * a) @ q.mT


SPECTRA = {
    "zero": [0.0, 0.0, 0.0],
    "identity": [1.0, 1.0, 1.0, 1.0],
    "pairs": [1.0, 1.0, 2.0, 2.0],
    "nearly a pair": [1.0, 1.0 + 1e-9, 3.0],
    "apart": [0.1, 1.0, 7.0],
    "beyond the quadrature": [0.5, 3.0, 20.0],
}


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("name", ENTIRE)
def test_derivatives_of_symmetric_functions(name, spectrum):
    f, _ = ENTIRE[name]
    A = symmetric(SPECTRA[spectrum]).requires_grad_()

    def function(A):
        return symmetric_function(A, f)

    assert gradcheck(function, A, check_forward_ad=True, atol=1e-7)
    assert gradgradcheck(function, A, atol=1e-6)


@pytest.mark.parametrize("name", ENTIRE)
def test_values_of_symmetric_functions(name):
    f, exact = ENTIRE[name]
    A = symmetric(SPECTRA["apart"])
    A = 0.5 * (A + A.mT)
    eigenvalues, vectors = mpmath.eigsy(mpmath.matrix(A.tolist()))
    want = vectors * mpmath.diag([exact(a) for a in eigenvalues]) * vectors.T
    want = torch.tensor([[float(want[i, j]) for j in range(3)] for i in range(3)], dtype=torch.float64)
    torch.testing.assert_close(symmetric_function(A, f), want, rtol=1e-14, atol=1e-14)
    assert torch.equal(symmetric_function(A, f), symmetric_function(A + (A - A.mT), f))


SINGULAR = {
    "identity": [1.0, 1.0, 1.0],
    "pairs": [0.9, 0.9, 0.5, 0.5],
    "apart": [0.95, 0.6, 0.2],
    "one small": [0.9, 0.5, 1e-5],
}


def square(values, seed=1):
    c = torch.as_tensor(values, dtype=torch.float64)
    g = torch.Generator().manual_seed(seed)
    u, v = (torch.linalg.qr(torch.randn(len(c), len(c), generator=g, dtype=torch.float64))[0] for _ in range(2))
    return (u * c) @ v.mT


@pytest.mark.parametrize("spectrum", SINGULAR)
def test_derivatives_of_singular_value_functions(spectrum):
    M = square(SINGULAR[spectrum]).requires_grad_()

    def function(M):
        return singular_value_function(M, ANGLE_OVER_SINE)

    assert gradcheck(function, M, check_forward_ad=True, atol=1e-6, eps=1e-8 if spectrum == "one small" else 1e-6)
    if spectrum != "one small":
        assert gradgradcheck(function, M, atol=1e-5)


@pytest.mark.parametrize("values", [[1.0, 1.0], [3.0, 3.0, 0.5], [2.0, 1.0, 0.7]])
def test_polar_factor(values):
    M = square(values).requires_grad_()
    Q = polar_factor(M)
    torch.testing.assert_close(Q.mT @ Q, torch.eye(len(values), dtype=Q.dtype), rtol=0, atol=1e-14)
    stretch = Q.mT @ M
    torch.testing.assert_close(stretch, stretch.mT, rtol=0, atol=1e-14)
    assert (torch.linalg.eigvalsh(stretch) > 0).all()
    assert gradcheck(polar_factor, M, check_forward_ad=True)
    assert gradgradcheck(polar_factor, M)


@pytest.mark.parametrize(
    "function",
    [lambda A: symmetric_function(A, COS_SQRT), lambda A: singular_value_function(A, ANGLE_OVER_SINE)],
    ids=["symmetric", "singular"],
)
def test_third_derivative_raises(function):
    A = symmetric([0.5, 0.6, 0.9]).requires_grad_()
    first = torch.autograd.grad(function(A).square().sum(), A, create_graph=True)[0]
    second = torch.autograd.grad(first.square().sum(), A, create_graph=True)[0]
    with pytest.raises((NotImplementedError, RuntimeError), match="differentiable|third"):
        torch.autograd.grad(second.square().sum(), A)


@pytest.mark.parametrize(
    "function",
    [lambda A: symmetric_function(A, COS_SQRT), lambda A: singular_value_function(A, ANGLE_OVER_SINE)],
    ids=["symmetric", "singular"],
)
def test_third_derivative_in_a_direction_raises(function):  # not a silent zero
    A = symmetric([0.5, 0.6, 0.9])
    one = torch.ones((), dtype=A.dtype)

    def curved(t):
        return torch.func.jvp(torch.func.grad(lambda A: function(A).square().sum()), (A,), (t * A,))[1]

    with pytest.raises(NotImplementedError, match="third"):
        torch.func.jvp(curved, (one,), (one,))


TRANSFORMED = {
    "symmetric": lambda A: symmetric_function(A, SINC_SQRT),
    "singular": lambda A: singular_value_function(A, ANGLE_OVER_SINE),
    "polar": lambda A: singular_value_function(A, POLAR_FACTOR),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transforms(name):
    function = TRANSFORMED[name]
    A = torch.stack([symmetric([0.9, 0.9, 0.3], seed) for seed in range(3)])
    D = torch.stack([symmetric([1.0, -1.0, 0.5], seed + 5) for seed in range(3)])
    torch.testing.assert_close(torch.func.vmap(function)(A), function(A), rtol=0, atol=1e-13)

    h = 1e-4
    quotient = (8 * (function(A + h * D) - function(A - h * D)) - function(A + 2 * h * D) + function(A - 2 * h * D)) / (
        12 * h
    )
    value, tangent = torch.func.jvp(function, (A,), (D,))
    torch.testing.assert_close(value, function(A))
    torch.testing.assert_close(tangent, quotient, rtol=0, atol=1e-10)
    batched = torch.func.vmap(lambda a, d: torch.func.jvp(function, (a,), (d,))[1])(A, D)
    torch.testing.assert_close(batched, tangent, rtol=0, atol=1e-12)
    twice = torch.func.jvp(lambda a: torch.func.jvp(function, (a,), (D,))[1], (A,), (D,))[1]
    second = (function(A + h * D) - 2 * function(A) + function(A - h * D)) / h**2
    torch.testing.assert_close(twice, second, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", TRANSFORMED)
def test_compiled(name):
    function = TRANSFORMED[name]
    A = symmetric([0.9, 0.9, 0.3]).requires_grad_()
    W = symmetric([1.0, -1.0, 0.5])
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    out, want = compiled(A), function(A)
    torch.testing.assert_close(out, want, rtol=0, atol=1e-13)
    got = torch.autograd.grad((out * W).sum(), A)[0]
    torch.testing.assert_close(got, torch.autograd.grad((want * W).sum(), A)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 3, 3)])
def test_empty_batch(shape):
    A = torch.zeros(shape, requires_grad=True)
    assert symmetric_function(A, COS_SQRT).shape == shape
    assert torch.autograd.grad(singular_value_function(A, ANGLE_OVER_SINE).sum(), A)[0].shape == shape
