"""Logarithm, exponential and powers: divided differences and matrices with their gradients against mpmath."""

import functools
import random

import mpmath
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from torchriemann.manifolds.functional.elementary_functions import Power
from torchriemann.manifolds.functional.spectral import symmetric_function
from torchriemann.manifolds.functional.spectral_functions import EXP, FUNCTIONS, INVERSE_SQRT, LOG, SQRT, named

F64, F32 = torch.float64, torch.float32
EXPONENTS = (0.3, 0.5, -0.5, 0.999, 1.001, 1 + 1e-9, 1.3, 1.5, 2.0, 3.0, 7.5, -1.0, -2.0, -10.0, 1e-3, -1e-3)


@pytest.fixture(autouse=True)
def digits():
    with mpmath.workdps(80):
        yield


def exact_log(x, k):
    return mpmath.log(x) if k == 0 else (-1) ** (k - 1) * mpmath.factorial(k - 1) / x**k


def exact_power(p):
    p = mpmath.mpf(p)
    return lambda x, k: mpmath.ff(p, k) * x ** (p - k)


FAMILY = {
    "log": (LOG, exact_log),
    "exp": (EXP, lambda x, k: mpmath.exp(x)),
    "sqrt": (SQRT, exact_power(0.5)),
    "inverse_sqrt": (INVERSE_SQRT, exact_power(-0.5)),
    **{f"power {p}": (Power(p), exact_power(p)) for p in EXPONENTS},
}


def divided(derivative, *points):
    """The divided difference, confluent where points coincide."""
    points = sorted(mpmath.mpf(p) for p in points)
    k = len(points) - 1
    if points[0] == points[-1]:
        return derivative(points[0], k) / mpmath.factorial(k)
    return (divided(derivative, *points[1:]) - divided(derivative, *points[:-1])) / (points[-1] - points[0])


def draw_positive(rng, dtype):
    """Three numbers: equal, nearly equal, within a factor, and from anywhere in the range of the dtype."""
    most = 300 if dtype == F64 else 37
    scale = rng.choice([most, 10, 3, 1])
    base = 10 ** rng.uniform(-scale, scale)
    near = (
        lambda: base,
        lambda: base * (1 + rng.choice([-1, 1]) * 10 ** rng.uniform(-16, -1)),
        lambda: base * 2 ** rng.uniform(-1, 1),
        lambda: base * 10 ** rng.uniform(-4, 4),
        lambda: 10 ** rng.uniform(-scale, scale),
    )
    return rng.sample([base, rng.choice(near)(), rng.choice(near)()], 3)


def draw_real(rng, dtype):
    base = rng.uniform(-5, 5) * rng.choice([1e-3, 1, 10])
    return rng.sample([base, *(base + rng.choice([-1, 0, 1]) * 10 ** rng.uniform(-16, 1.5) for _ in range(2))], 3)


def representable(x, dtype):
    limits = torch.finfo(dtype)
    return 16 * limits.tiny <= abs(x) <= 0.1 * limits.max


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("name", FAMILY)
def test_divided_differences(name, dtype):
    f, derivative = FAMILY[name][0], functools.cache(FAMILY[name][1])
    rng = random.Random(name)
    draw = draw_real if name == "exp" else draw_positive
    points = torch.tensor([draw(rng, dtype) for _ in range(150)], dtype=F64).to(dtype)
    points = points[(points.isfinite() & (points != 0)).all(-1)]
    first = f.divided_difference(points[:, 0], points[:, 1])
    second = f.second_divided_difference(*points.unbind(-1))
    eps, checked = torch.finfo(dtype).eps, 0
    # float32 has an exponent rounded to float32 in torch: off by eps log(x) p.
    first_bound = 1e-14 if dtype == F64 else (64 if isinstance(f, Power) else 8) * eps
    for p, a, b in zip(points.double().tolist(), first.tolist(), second.tolist(), strict=True):
        want = divided(derivative, *p[:2])
        if representable(want, dtype):
            assert abs(a / want - 1) <= first_bound, (p[:2], a, want)
        # The second difference is asked for where first and second derivatives are numbers.
        others = [divided(derivative, *q) for x in p for q in ((x, x), (x, x, x), (x, min(p)), (x, max(p)))]
        want = divided(derivative, *p)
        if all(representable(w, dtype) for w in (*others, want)):
            checked += 1
            assert abs(b / want - 1) <= 200 * eps, (p, b, want)
    assert checked > 50


def test_logarithm_of_eeg_in_volts():
    # A quadrature that is right on the scale of one is 60 % off here.
    points = [torch.tensor(x, dtype=F64) for x in (1e-10, 5e-4)]
    want = divided(exact_log, 1e-10, 5e-4)
    for a, b in (points, points[::-1]):
        assert abs(LOG.divided_difference(a, b).item() / want - 1) <= 4e-16


@pytest.mark.parametrize("p, slope, bend", [(0.0, 0.0, 0.0), (1.0, 1.0, 0.0), (2.0, 3.0, 1.0)])
def test_polynomials_are_exact(p, slope, bend):
    a, b = torch.tensor([1.0, 1e-300, 0.0], dtype=F64), torch.tensor([2.0, 1e-300, 0.0], dtype=F64)
    c = torch.tensor([2.5, 1e-300, 0.0], dtype=F64)
    f = Power(p)
    torch.testing.assert_close(f.divided_difference(a, b)[0].item(), slope, rtol=1e-15, atol=0)
    torch.testing.assert_close(
        f.second_divided_difference(a, b, c), torch.full_like(a, bend), rtol=1e-14, atol=1e-15 * bend
    )
    assert f.divided_difference(a, b).isfinite().all()


def test_eigenvalues_that_are_not_positive():
    zero, one, minus = (torch.tensor(x, dtype=F64) for x in (0.0, 1.0, -1.0))
    assert LOG.divided_difference(zero, zero) == LOG.divided_difference(zero, one) == torch.inf
    assert SQRT.divided_difference(zero, one) == 1 and SQRT.divided_difference(zero, zero) == torch.inf
    assert Power(0.25).divided_difference(zero, one) == 1
    assert Power(2.0).second_divided_difference(zero, zero, zero) == 1
    for f in (LOG, SQRT, INVERSE_SQRT, Power(0.3)):
        for pair in ((minus, minus), (minus, one)):
            assert f.divided_difference(*pair).isnan()
    A = torch.stack([torch.diag(torch.tensor(d, dtype=F64)) for d in ([1.0, 2.0], [-1.0, 1.0], [0.0, 1.0])])
    values = symmetric_function(A, LOG)
    assert values[0].isfinite().all() and values[1].isnan().any() and not values[2].isfinite().all()


# ---- matrices -------------------------------------------------------------------------------------------------

SPECTRA = {
    "identity": [1.0, 1.0, 1.0],
    "repeated": [1.0, 1.0, 3.0],
    "nearly repeated": [1.0, 1.0 + 1e-9, 3.0, 3.0 + 1e-14],
    "apart": [0.2, 1.0, 7.0],
}


def orthogonal(n, seed):
    """An orthogonal matrix of mpmath's precision: Gram-Schmidt of a random one."""
    rng = random.Random(seed)
    return mpmath.qr(mpmath.matrix([[rng.gauss(0, 1) for _ in range(n)] for _ in range(n)]))[0]


def to_torch(m):
    return torch.tensor([[float(m[i, j]) for j in range(m.cols)] for i in range(m.rows)], dtype=F64)


MATRIX_FUNCTIONS = ["log", "sqrt", "inverse_sqrt", "power 0.3", "power -2.0", "power 1.5"]


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("name", MATRIX_FUNCTIONS)
def test_values_and_gradients_at_every_scale(name, spectrum, scale):
    f, derivative = FAMILY[name]
    a = [mpmath.mpf(scale) * mpmath.mpf(x) for x in SPECTRA[spectrum]]
    n = len(a)
    Q = orthogonal(n, spectrum)
    A = to_torch(Q * mpmath.diag(a) * Q.T).requires_grad_()
    G = mpmath.matrix([[mpmath.mpf(random.Random(9 * i + j).gauss(0, 1)) for j in range(n)] for i in range(n)])
    inner = Q.T * (G + G.T) / 2 * Q
    want = to_torch(Q * mpmath.diag([derivative(x, 0) for x in a]) * Q.T)
    slope = mpmath.matrix([[divided(derivative, a[i], a[j]) * inner[i, j] for j in range(n)] for i in range(n)])
    want_gradient = to_torch(Q * slope * Q.T)
    value = symmetric_function(A, f)
    (gradient,) = torch.autograd.grad((value * to_torch(G)).sum(), A)
    assert (value - want).norm() <= 1e-12 * want.norm()
    assert (gradient - want_gradient).norm() <= 1e-12 * want_gradient.norm()


@pytest.mark.parametrize("spectrum", [[1.0, 1.0, 1.0], [0.5, 0.5, 2.0], [1.0, 1.0 + 1e-9, 3.0]])
@pytest.mark.parametrize("name", ["log", "exp", "sqrt", "inverse_sqrt", "power 0.3", "power -2.0"])
def test_two_derivatives_at_repeated_eigenvalues(name, spectrum):
    f, _ = FAMILY[name]
    Q = to_torch(orthogonal(3, 3))
    A = ((Q * torch.tensor(spectrum, dtype=F64)) @ Q.mT).requires_grad_()
    function = lambda A: symmetric_function(A, f)  # noqa: E731
    assert gradcheck(function, A, check_forward_ad=True, atol=1e-7)
    assert gradgradcheck(function, A, atol=1e-6)


def test_named():
    assert all(named(key) is f for key, f in FUNCTIONS.items())
    for p in (0.3, -2.0, 1e-17, 1 / 3):
        assert named(Power(p).key) == Power(p)
    with pytest.raises(ValueError, match="key must be one of"):
        named("gamma")
