"""Kernels of two eigenvalues, against their definitions in many digits, and what means are."""

import mpmath
import pytest
import torch
from mpmath import mpf

from torchriemann.manifolds import (
    ArithmeticMean,
    BogoliubovKuboMori,
    GeometricMean,
    HarmonicMean,
    HoelderMean,
    KernelFunction,
    LogarithmicMean,
    MixedPowerAffine,
    MixedPowerEuclidean,
    StolarskyMean,
)
from torchriemann.manifolds.functional.kernel_cometric import Cometric
from torchriemann.manifolds.functional.kernel_tables import kernel_differences

F64 = torch.float64


def quotient(x, y, r):
    """The divided difference of z^r/r, of log z at r = 0, times x - y."""
    return (x**r - y**r) / r if r else mpmath.log(x) - mpmath.log(y)


def stolarsky(p, q):
    return lambda x, y: (quotient(x, y, p) / quotient(x, y, q)) ** (1 / (p - q))


def mixed(p, q):
    return lambda x, y: (x - y) ** 2 / quotient(x, y, p) / quotient(x, y, q)


def logarithmic(x, y):
    return (x - y) / (mpmath.log(x) - mpmath.log(y))


DEFINITIONS = [
    (ArithmeticMean(scale=4.0), lambda x, y: 2 * (x + y)),
    (GeometricMean(power=2.0), lambda x, y: x * y),
    (HarmonicMean(power=0.5), lambda x, y: (2 * x * y / (x + y)) ** mpf(0.5)),
    (LogarithmicMean(power=1.7), lambda x, y: logarithmic(x, y) ** mpf(1.7)),
    (HoelderMean(-1.5), lambda x, y: ((x ** mpf(-1.5) + y ** mpf(-1.5)) / 2) ** (1 / mpf(-1.5))),
    (StolarskyMean(3.0, -0.5, power=2.0), lambda x, y: stolarsky(mpf(3), mpf(-0.5))(x, y) ** 2),
    (StolarskyMean(0.0, 1.0), stolarsky(mpf(0), mpf(1))),
    (MixedPowerEuclidean(0.5, -1.0), mixed(mpf(0.5), mpf(-1))),
    (MixedPowerEuclidean(0.0, 1.0, scale=3.0), lambda x, y: 3 * mixed(mpf(0), mpf(1))(x, y)),
    (MixedPowerAffine(2.0, 0.25), lambda x, y: (x * y) ** mpf(1.125) * mixed(mpf(2), mpf(0.25))(x, y)),
    (BogoliubovKuboMori(), logarithmic),
]
MEANS = [
    ArithmeticMean(), GeometricMean(), HarmonicMean(), LogarithmicMean(), HoelderMean(3.0), HoelderMean(-0.2),
    HoelderMean(0.0), StolarskyMean(3.0, 0.5), StolarskyMean(-2.0, -1.0),
]  # fmt: skip


@pytest.mark.parametrize(("phi", "definition"), DEFINITIONS, ids=[repr(phi) for phi, _ in DEFINITIONS])
def test_kernels_and_derivatives_in_many_digits(phi, definition):
    x = torch.tensor([1e-6, 0.3, 1.0, 1.0 + 1e-7, 1.3, 1e5], dtype=F64)
    pairs = torch.cartesian_prod(x, x)
    found = torch.stack([
        f(*pairs.unbind(-1)) for f in (phi.value, phi.derivative, phi.second_derivative, phi.mixed_derivative)
    ])  # fmt: skip
    with mpmath.workdps(90):
        for (a, b), values in zip(pairs.tolist(), found.mT.tolist(), strict=True):
            # At equal arguments the limit.
            a, b = mpf(a), mpf(b) * (1 + mpf(10) ** -25 if a == b else 1)
            h = min(a, b) * mpf(10) ** -12
            exact = [
                definition(a, b),
                (definition(a + h, b) - definition(a - h, b)) / (2 * h),
                (definition(a + h, b) - 2 * definition(a, b) + definition(a - h, b)) / h**2,
                (definition(a + h, b + h) - definition(a + h, b - h)) / (4 * h**2)
                - (definition(a - h, b + h) - definition(a - h, b - h)) / (4 * h**2),
            ]
            units = [1, 1 / a, 1 / a**2, 1 / a / b]  # a derivative that nearly vanishes is as good as the value
            for value, truth, unit in zip(values, exact, units, strict=True):
                assert abs(value - truth) < 5e-15 * max(abs(truth), unit * exact[0]), (a, b)


@pytest.mark.parametrize("m", MEANS, ids=repr)
def test_means_are_means(m):
    """Between the two numbers, symmetric, homogeneous and monotone; equal to x where both are."""
    x = torch.logspace(-3, 3, 25, dtype=F64)
    table = m.value(x.unsqueeze(-1), x)
    low, high = torch.minimum(x.unsqueeze(-1), x), torch.maximum(x.unsqueeze(-1), x)
    assert ((table >= low * (1 - 1e-13)) & (table <= high * (1 + 1e-13))).all()
    assert torch.allclose(table.diagonal(), x, rtol=1e-14, atol=0)
    assert torch.allclose(table, table.mT, rtol=1e-14, atol=0)
    assert torch.allclose(m.value(7 * x.unsqueeze(-1), 7 * x), 7 * table, rtol=1e-13, atol=0)
    assert (table.diff(dim=0) >= -1e-14 * table[1:]).all()  # as rounding allows
    assert (m.derivative(x.unsqueeze(-1), x) >= 0).all()


def test_names_of_one_mean_agree():
    x = torch.logspace(-3, 3, 13, dtype=F64)
    for one, other in (
        (StolarskyMean(2.0, 1.0), ArithmeticMean()),
        (StolarskyMean(1.0, 0.0), LogarithmicMean()),
        (StolarskyMean(1.0, -1.0), GeometricMean()),
        (HoelderMean(1.0), ArithmeticMean()),
        (HoelderMean(-1.0), HarmonicMean()),
        (HoelderMean(0.0), GeometricMean()),
        (MixedPowerEuclidean(0.0, 1.0), BogoliubovKuboMori()),
        (MixedPowerAffine(1.0, 1.0), GeometricMean(power=2.0)),
        (LogarithmicMean(), BogoliubovKuboMori()),
    ):
        pair = (x.unsqueeze(-1), x)
        assert torch.allclose(one.value(*pair), other.value(*pair), rtol=1e-13, atol=0), (one, other)
        assert one.degree == other.degree


def test_kernels_are_values():
    assert LogarithmicMean(power=1.5) == LogarithmicMean(power=1.5) != LogarithmicMean(power=1.6)
    assert hash(HoelderMean(2.0)) == hash(HoelderMean(2.0))
    assert LogarithmicMean() != BogoliubovKuboMori()
    assert [phi.is_complete for phi in (GeometricMean(), GeometricMean(power=2.0), MixedPowerAffine(3.0, 0.1))] == [
        False, True, True,
    ]  # fmt: skip
    assert Cometric.named(LogarithmicMean(power=0.3, beta=0.1).cometric.key) == (
        LogarithmicMean(power=0.3, beta=0.1).cometric
    )


def test_what_is_not_positive_is_nan_and_touches_no_other():
    x = torch.tensor([1.0, -1.0, 0.0, torch.nan], dtype=F64)
    for phi in MEANS:
        assert phi.value(x, x.new_tensor(2.0)).isnan().tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogarithmicMean(scale=0.0), "LogarithmicMean: scale must be positive, got 0.0"),
        (lambda: BogoliubovKuboMori(scale=torch.tensor(1.0)), "BogoliubovKuboMori: scale must be a finite number"),
        (lambda: ArithmeticMean(beta=float("nan")), "ArithmeticMean: beta must be a finite number, got nan"),
        (lambda: GeometricMean(power=float("inf")), "GeometricMean: power must be a finite number, got inf"),
        (lambda: HoelderMean("2"), "HoelderMean: p must be a finite number, got '2'"),
        (lambda: HoelderMean(True), "HoelderMean: p must be a finite number, got True"),
        (lambda: StolarskyMean(1.0, 1), "StolarskyMean: p and q must be different, got 1.0 and 1"),
        (lambda: MixedPowerAffine(None, 1.0), "MixedPowerAffine: p must be a finite number, got None"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


def test_kernel_functions_are_abstract():
    with pytest.raises(TypeError):
        KernelFunction()  # type: ignore[abstract]


def test_divided_differences_in_many_digits():
    """Of eigenvalues that are equal, nearly so, at the switch and far apart."""
    c = Cometric(2.0, 1.0, ((0.3, 1.0), (-1.3, 0.5)), 0.2)

    def exact(x, y):
        def log_sinhc(z):
            return mpmath.log(mpmath.sinh(z) / z) if z else mpf(0)

        return 2 * mpmath.exp(-x - y + mpf(0.3) * log_sinhc(x - y) - mpf(1.3) * log_sinhc((x - y) / 2))

    x = torch.tensor([-3.0, -1.0 - 1e-7, -1.0, 0.5, 0.59, 0.6001, 3.2], dtype=F64)
    found = kernel_differences(x, c)
    with mpmath.workdps(40):
        for i, a in enumerate(map(mpf, x.tolist())):
            for k, b in enumerate(map(mpf, x.tolist())):
                b = b + mpf(10) ** -15 if a == b else b
                for j, d in enumerate(map(mpf, x.tolist())):
                    truth = (exact(a, d) - exact(b, d)) / (a - b)
                    assert abs(found[i, k, j].item() - truth) < 1e-14 * abs(truth)
