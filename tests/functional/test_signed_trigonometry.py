"""Functions of a signed argument, and the gap of the ball, against numbers of 60 digits."""

import math

import mpmath
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from torchriemann.manifolds.functional import signed_trigonometry
from torchriemann.manifolds.functional.compensated import conformal_gap, two_product


@pytest.fixture(autouse=True)
def digits():
    with mpmath.workdps(60):
        yield


F32, F64 = torch.float32, torch.float64


def root(f):
    return lambda z: f(mpmath.sqrt(z))


def derivative(f):
    return lambda z: mpmath.diff(f, z)


TAN = root(lambda r: mpmath.tan(r) / r)
ATAN = root(lambda r: mpmath.atan(r) / r)
ASIN = root(lambda r: mpmath.asin(r) / r)
EXACT = {
    "cos_k": root(mpmath.cos),
    "sin_ratio_k": root(lambda r: mpmath.sin(r) / r),
    "tan_ratio_k": TAN,
    "tan_ratio_derivative_k": derivative(TAN),
    "sin_ratio_derivative_k": derivative(root(lambda r: mpmath.sin(r) / r)),
    "atan_ratio_k": ATAN,
    "atan_ratio_derivative_k": derivative(ATAN),
    "asin_ratio_k": ASIN,
    "asin_ratio_derivative_k": derivative(ASIN),
    "cot_excess_k": root(lambda r: (1 - r * mpmath.cot(r)) / r**2),
    "log_sin_ratio_k": root(lambda r: mpmath.log(abs(mpmath.sin(r) / r))),
}
# On both sides of every switch between a series and a closed form, and next to zero.
PLACES = [-30.0, -4.0, -1.01, -0.99, -0.26, -0.24, -0.101, -0.099, -1e-3, -1e-8, 1e-8, 1e-3, 0.099, 0.101, 0.26, 0.99]


def places(name):
    return [z for z in PLACES if not name.startswith("atan") or z > -1]


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("name", EXACT)
def test_values_and_two_derivatives(name, dtype):
    z = torch.tensor(places(name), dtype=dtype, requires_grad=True)
    value = getattr(signed_trigonometry, name)(z)
    (first,) = torch.autograd.grad(value.sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), z)
    # The closed forms of derivatives are differences over q: at the switch, 0.1, that costs 20 eps.
    bounds = (40, 600) if "derivative" in name else (16, 200, 3000)
    for order, (got, bound) in enumerate(zip((value, first, second), bounds, strict=False)):
        for at, g in zip(z.detach().tolist(), got.detach().tolist(), strict=True):
            # At 1e-8 a derivative is that at zero; mpmath's difference quotient would leave the real line.
            want = mpmath.re(mpmath.diff(EXACT[name], mpmath.mpf(at), order, h=mpmath.mpf(10) ** -15))
            assert abs(g - want) <= bound * torch.finfo(dtype).eps * max(abs(want), 1e-2), (at, order, g, float(want))


@pytest.mark.parametrize("name", EXACT)
def test_a_known_sign_gives_the_same(name):
    z = torch.tensor(places(name), dtype=F64)
    for sign in (-1, 1):
        mine = z[z * sign > 0]
        assert torch.equal(getattr(signed_trigonometry, name)(mine, sign), getattr(signed_trigonometry, name)(mine))


@pytest.mark.parametrize("name", EXACT)
def test_zero_and_nan(name):
    z = torch.tensor([0.0, math.nan], dtype=F64, requires_grad=True)
    value = getattr(signed_trigonometry, name)(z)
    assert value[0].isfinite() and value[1].isnan()
    assert torch.autograd.grad(value[0], z)[0][0].isfinite()


WITH_DERIVATIVE = ["cos_k", "sin_ratio_k", "tan_ratio_k", "atan_ratio_k", "asin_ratio_k", "sech_square_k"]


def _launches(run):
    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            found.append(function)
            return function(*arguments, **(keywords or {}))

    found = []
    with Count():
        run()
    return len([f for f in found if f is not torch.ops.aten.detach.default])


@pytest.mark.parametrize("name", WITH_DERIVATIVE)
def test_a_value_is_few_launches_with_and_without_a_derivative(name):
    function, z = getattr(signed_trigonometry, name), torch.tensor([-0.3, -0.01])
    learned = z.clone().requires_grad_()
    assert _launches(lambda: function(z, -1)) == _launches(lambda: function(learned, -1)) <= 8


@pytest.mark.parametrize("name", [*WITH_DERIVATIVE, "log_sin_ratio_k"])
def test_every_way_to_differentiate_is_that_of_the_plain_formula(name):
    def function(z):
        return getattr(signed_trigonometry, name)(z, -1)

    z = torch.tensor([-0.9, -0.3, -1e-3, 0.0], dtype=F64)
    learned = z.clone().requires_grad_()
    assert torch.autograd.gradcheck(function, (learned[:3],), check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, (learned[:3],), check_batched_grad=True)
    (first,) = torch.autograd.grad(function(learned).sum(), learned, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), learned)
    one = torch.ones_like(z)
    pushed = torch.func.jvp(lambda z: torch.func.jvp(function, (z,), (one,))[1], (z,), (one,))
    for got, want in (
        (pushed, (first, second)),
        ((torch.vmap(torch.func.grad(function))(z),), (first,)),
        ((torch.vmap(torch.func.hessian(function))(z),), (second,)),
    ):
        for g, w in zip(got, want, strict=True):
            torch.testing.assert_close(g, w.detach(), rtol=1e-12, atol=1e-12)
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(learned).sum(), learned)[0], first.detach())


def test_ends_of_the_inverse_functions():
    q = torch.tensor([1.0, 1.0 + 1e-15], dtype=F64, requires_grad=True)
    value = signed_trigonometry.asin_ratio_k(q)
    torch.testing.assert_close(value.detach(), torch.full((2,), math.pi / 2, dtype=F64), rtol=1e-14, atol=0)
    assert torch.autograd.grad(value.sum(), q)[0].isfinite().all()
    q = torch.tensor([-1.0, -2.0], dtype=F64, requires_grad=True)
    value = signed_trigonometry.atan_ratio_k(q)
    assert value.isposinf().all() and (torch.autograd.grad(value.sum(), q)[0] == 0).all()


@pytest.mark.parametrize("dtype", [F64, F32])
def test_large_arguments(dtype):
    r = torch.tensor([40.0, 1e3, 1e15], dtype=dtype)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(signed_trigonometry.tan_ratio_k(-(r**2)) * r, torch.ones_like(r), rtol=4 * eps, atol=0)
    want = r - torch.log(2 * r)
    torch.testing.assert_close(signed_trigonometry.log_sin_ratio_k(-(r**2)), want, rtol=4 * eps, atol=0)


def test_squared_secant():
    z = torch.tensor([0.0, -1e-3, -0.24, -0.26, -4.0, -900.0, -1e6], dtype=F64, requires_grad=True)
    got = signed_trigonometry.sech_square_k(z)
    for at, g in zip(z.detach().tolist(), got.detach().tolist(), strict=True):
        want = mpmath.sech(mpmath.sqrt(-mpmath.mpf(at))) ** 2
        assert abs(g - want) <= 100 * torch.finfo(F64).eps * want + 1e-300
    assert torch.autograd.grad(got.sum(), z)[0].isfinite().all()


def test_product_with_its_error():
    g = torch.Generator().manual_seed(0)
    for dtype in (F64, F32):
        a, b = (torch.randn(50, generator=g, dtype=dtype) for _ in range(2))
        p, e = two_product(a, b)
        for i in range(50):
            assert mpmath.mpf(p[i].item()) + mpmath.mpf(e[i].item()) == mpmath.mpf(a[i].item()) * mpmath.mpf(
                b[i].item()
            )


@pytest.mark.parametrize("dtype, radii", [(F64, (0.1, 10.0, 30.0, 36.5)), (F32, (0.1, 8.0, 15.0))])
@pytest.mark.parametrize("curvature", [-1.0, -0.3, -7.77])
def test_gap_is_relatively_accurate_at_the_rim(curvature, dtype, radii):
    # 1 - |x|^2 formed in one precision has lost all its digits at radius 17 (float32) or 37.
    g = torch.Generator().manual_seed(0)
    for n in (1, 2, 5, 64, 300):
        for radius in radii:
            u = torch.randn(n, generator=g, dtype=F64)
            x = (u / u.norm() * math.tanh(radius / 2) / math.sqrt(-curvature)).to(dtype)
            want = 1 + mpmath.mpf(curvature) * mpmath.fsum(mpmath.mpf(a) ** 2 for a in x.tolist())
            for k in (curvature, torch.tensor(curvature, dtype=F64)):
                for learned in (False, True):
                    got = conformal_gap(x.clone().requires_grad_(learned), k).item()
                    assert abs(got - want) <= 4 * torch.finfo(dtype).eps * abs(want), (n, radius)


def test_gap_has_the_derivatives_of_the_polynomial():
    x = torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(0)) * 0.2
    x.requires_grad_()
    k = torch.tensor(-0.7, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(conformal_gap, (x, k), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(conformal_gap, (x, k))
    inside = torch.func.vmap(conformal_gap, in_dims=(0, None))(x.detach(), k.detach())
    torch.testing.assert_close(inside, conformal_gap(x, k).detach(), rtol=1e-15, atol=0)
