"""Powers with an exponent for each matrix, and moments of logarithms, of a decomposition that is known."""

import mpmath
import pytest
import torch

import torchriemann
from torchriemann.manifolds import SPDAffineInvariant
from torchriemann.manifolds.functional.matrices import sym
from torchriemann.manifolds.functional.spectral import decomposed
from torchriemann.manifolds.kernels.spd import log_moments_at, power_at

EXPONENTS = torch.tensor([0.3, -1.2, 0.0, 2.0, 1.0], dtype=torch.float64)


def drawn(condition, *batch, n=3):
    generator = torch.Generator().manual_seed(0)
    spectra = {"condition": condition, "generator": generator, "dtype": torch.float64}
    return SPDAffineInvariant().random_spectrum(*batch, n, n, **spectra)


def with_close_eigenvalues():
    x = drawn(30.0, 5)
    x[1] = 2 * torch.eye(3)
    x[2] = torch.diag(torch.tensor([1.0, 1.0 + 1e-9, 2.0]))
    return x


def power(x, t):
    return power_at(*decomposed(sym(x), True, True), t)


def moments(x):
    return torch.stack(log_moments_at(*decomposed(sym(x), True, True)))


@pytest.mark.parametrize("condition", [1e2, 1e6])
def test_values_at_forty_digits(condition):
    x = drawn(condition, 5)
    with mpmath.workdps(40):
        for A, t, found, of_logarithms in zip(x, EXPONENTS, power(x, EXPONENTS), moments(x).T, strict=True):
            values, Q = mpmath.eigsy(mpmath.matrix(A.tolist()))
            true = Q * mpmath.diag([w ** mpmath.mpf(float(t)) for w in values]) * Q.T
            exact = torch.tensor([[float(e) for e in row] for row in true.tolist()], dtype=torch.float64)
            assert (found - exact).norm() < 1e-15 * condition * exact.norm()
            logarithms = [mpmath.log(w) for w in values]
            for got, want in zip(of_logarithms, (sum(v * v for v in logarithms), sum(logarithms)), strict=True):
                assert abs(float(got) - float(want)) < 1e-14 * condition


def test_closed_derivatives_are_those_of_the_plain_formula():
    x, w = with_close_eigenvalues(), torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(1)).double()
    found = []
    for kernels in (True, False):
        leaves = x.clone().requires_grad_(), EXPONENTS.clone().requires_grad_()
        with torchriemann.use_kernels(kernels):
            loss = (w * power(*leaves)).sum() + (w[0, 0, :2, None] * moments(leaves[0])).sum()
        found.append(torch.autograd.grad(loss, leaves))
    for closed, plain in zip(*found, strict=True):
        torch.testing.assert_close(closed, plain, rtol=1e-10, atol=1e-10)


def test_derivatives_are_limits_of_differences():
    x, t = with_close_eigenvalues().requires_grad_(), EXPONENTS.clone().requires_grad_()
    assert torch.autograd.gradcheck(power, (x, t), check_forward_ad=True)
    assert torch.autograd.gradcheck(moments, x, check_forward_ad=True)
    # Where eigenvalues coincide the differences of second derivatives lose their digits.
    x, t = drawn(5.0, 2).requires_grad_(), EXPONENTS[:2].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(power, (x, t))
    assert torch.autograd.gradgradcheck(moments, x)


def test_an_item_that_is_not_definite_leaves_the_others_alone():
    x = drawn(10.0, 3)
    x[1] -= 2 * torch.eye(3)
    leaf, others = x.clone().requires_grad_(), x[::2].clone().requires_grad_()
    t = EXPONENTS[:3]
    value, other = power(leaf, t), power(others, t[::2])
    assert value[1].isnan().all() and moments(leaf)[:, 1].isnan().all()
    torch.testing.assert_close(value[::2], other)
    torch.testing.assert_close(
        torch.autograd.grad(value[::2].sum(), leaf)[0][::2], torch.autograd.grad(other.sum(), others)[0]
    )
