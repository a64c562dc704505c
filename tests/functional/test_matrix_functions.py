"""Functions of symmetric matrices: against scipy, the iterative roots against the exact ones, bad items, transforms."""

import mpmath
import pytest
import scipy.linalg
import torch
from torch.autograd import gradcheck, gradgradcheck

from torchriemann.manifolds import matrix_exp, matrix_inverse_sqrt, matrix_log, matrix_power, matrix_sqrt

F64, F32 = torch.float64, torch.float32
ROOTS = {"sqrt": matrix_sqrt, "inverse": matrix_inverse_sqrt}
METHODS = ["eigh", "newton_schulz", "taylor", "pade"]
ITERATIVE = METHODS[1:]
MANY = {"eigh": None, "newton_schulz": None, "taylor": 60, "pade": 8}  # degrees at which nothing is left of NARROW


def matrices(*spectra, seed=0):
    a = torch.tensor(spectra, dtype=F64)
    g = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(*a.shape, a.shape[-1], generator=g, dtype=F64))[0]
    m = (q * a.unsqueeze(-2)) @ q.mT
    return 0.5 * (m + m.mT)


A = matrices([1.0, 1.0, 1.0], [1.0, 1.0, 3.0], [0.2, 1.0, 5.0], [0.7, 0.7 + 1e-9, 2.0])
NARROW = matrices([1.0, 1.0, 1.0], [1.0, 1.0, 1.2], [0.8, 1.0, 1.3], [0.9, 0.9 + 1e-9, 1.1])
W = torch.randn(3, 3, generator=torch.Generator().manual_seed(3), dtype=F64)


def spread(condition, n=8, items=6, dtype=F64):
    """Matrices with logarithmically uniform eigenvalues from 1/condition to 1."""
    places = torch.rand(items, n, generator=torch.Generator().manual_seed(7), dtype=F64)
    places[:, 0], places[:, 1] = 0.0, 1.0
    return matrices(*(condition**-places).tolist(), seed=8).to(dtype)


def error(got, want):
    return ((got.to(F64) - want).norm(dim=(-2, -1)) / want.norm(dim=(-2, -1))).max().item()


SCIPY = {
    "sqrt": (matrix_sqrt, scipy.linalg.sqrtm),
    "inverse": (matrix_inverse_sqrt, lambda a: scipy.linalg.inv(scipy.linalg.sqrtm(a))),
    "log": (matrix_log, scipy.linalg.logm),
    "exp": (matrix_exp, scipy.linalg.expm),
    "power 0.3": (lambda x: matrix_power(x, 0.3), lambda a: scipy.linalg.fractional_matrix_power(a, 0.3)),
    "power -2": (lambda x: matrix_power(x, -2), lambda a: scipy.linalg.fractional_matrix_power(a, -2)),
}


@pytest.mark.parametrize("name", SCIPY)
def test_values_against_scipy(name):
    function, reference = SCIPY[name]
    for stack in (A, matrices([2.0]), matrices([0.5, 0.9, 1.1, 2.0, 2.0, 3.0]), spread(100.0)):
        want = torch.stack([torch.as_tensor(reference(a.numpy()).real) for a in stack]).to(F64)
        size = 1 + want.abs().amax((-2, -1), keepdim=True)  # the logarithm of the identity is zero
        torch.testing.assert_close(function(stack) / size, want / size, rtol=0, atol=1e-12)
        # Only the symmetric part is read.
        skew = torch.triu(torch.ones_like(stack), 1)
        torch.testing.assert_close(function(stack + skew - skew.mT) / size, want / size, rtol=0, atol=1e-12)


@pytest.mark.parametrize("condition, bound", [(1e2, 1e-13), (1e4, 1e-11), (1e6, 1e-9), (1e8, 1e-7)])
@pytest.mark.parametrize("name", ROOTS)
def test_newton_schulz_reaches_rounding(name, condition, bound):
    x = spread(condition)
    with mpmath.workdps(40):
        exact = []
        for a in x.tolist():
            eigenvalues, vectors = mpmath.eigsy(mpmath.matrix(a))
            power = [e ** (0.5 if name == "sqrt" else -0.5) for e in eigenvalues]
            root = vectors * mpmath.diag(power) * vectors.T
            exact.append([[float(root[i, j]) for j in range(8)] for i in range(8)])
    want = torch.tensor(exact, dtype=F64)
    assert error(ROOTS[name](x, "newton_schulz"), want) < bound
    # The derivative of the root loses what that of the inverse does.
    leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    weight = torch.randn(8, 8, generator=torch.Generator().manual_seed(1), dtype=F64)
    (got,) = torch.autograd.grad((ROOTS[name](leaf, "newton_schulz") * weight).sum(), leaf)
    (right,) = torch.autograd.grad((ROOTS[name](other) * weight).sum(), other)
    assert error(got, right) < 10 * bound


@pytest.mark.parametrize(
    "name, method, condition, value, gradient",
    [
        ("sqrt", "newton_schulz", 1e2, 2e-6, 5e-6),
        ("sqrt", "newton_schulz", 1e6, 1e-4, 5e-2),
        ("inverse", "newton_schulz", 1e2, 1e-5, 2e-5),
        ("inverse", "newton_schulz", 1e4, 1e-3, 5e-3),
        ("sqrt", "pade", 1e1, 1e-3, 2e-3),
        ("sqrt", "pade", 1e2, 2e-2, 0.1),
        ("inverse", "pade", 1e1, 5e-3, 1e-2),
        ("sqrt", "taylor", 1e1, 6e-2, 0.2),
    ],
)
def test_errors_in_float32(name, method, condition, value, gradient):  # docs/matrix-functions.md has more of them
    x = spread(condition, n=32, dtype=F32).requires_grad_()
    wide = x.detach().to(F64).requires_grad_()
    weight = torch.randn(32, 32, generator=torch.Generator().manual_seed(1), dtype=F64)
    got, want = ROOTS[name](x, method), ROOTS[name](wide)
    assert error(got.detach(), want.detach()) < value
    slope = torch.autograd.grad((got * weight.float()).sum(), x)[0]
    assert error(slope, torch.autograd.grad((want * weight).sum(), wide)[0]) < gradient


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ROOTS)
def test_derivatives_are_those_of_the_exact_root(name, method):
    def root(x):
        return ROOTS[name](x, method, MANY[method])

    def exact(x):  # divided differences, themselves held against mpmath
        return matrix_power(x, 0.5 if name == "sqrt" else -0.5)

    close = dict(rtol=1e-9, atol=1e-9)
    x = NARROW if method in ("taylor", "pade") else A
    torch.testing.assert_close(root(x), exact(x), **close)
    hessians, slopes, tangents = [], [], []
    for function in (root, exact):

        def loss(x, function=function):
            return (function(x) * W).sum()

        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
        (second,) = torch.autograd.grad((first * W).sum(), leaf)
        batched = torch.func.vmap(torch.func.grad(loss))(x)
        torch.testing.assert_close(batched, first.detach(), **close)
        slopes.append((first.detach(), second))
        hessians.append(torch.func.vmap(torch.func.hessian(loss))(x))
        tangents.append(torch.func.jvp(function, (x,), (W.expand_as(x),))[1])
    torch.testing.assert_close(slopes[0], slopes[1], **close)
    torch.testing.assert_close(hessians[0], hessians[1], **close)
    torch.testing.assert_close(tangents[0], tangents[1], **close)
    torch.testing.assert_close(torch.func.vmap(root)(x[None].expand(2, -1, -1, -1))[1], root(x), **close)


@pytest.mark.parametrize("name", ["sqrt", "inverse"])
def test_derivative_of_an_approximation_is_near_the_difference_quotient(name):
    h, x = 1e-6, spread(2.0)
    for method in ITERATIVE:
        _, slope = torch.func.jvp(lambda x, m=method: ROOTS[name](x, m), (x,), (x @ x,))
        quotient = (ROOTS[name](x + h * x @ x, method) - ROOTS[name](x - h * x @ x, method)) / (2 * h)
        assert error(slope, quotient) < {"newton_schulz": 1e-8, "taylor": 0.05, "pade": 1e-4}[method]


def test_third_derivatives_of_iterations_raise():
    x = A.clone().requires_grad_()
    (first,) = torch.autograd.grad(matrix_sqrt(x, "newton_schulz").square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad((first * W).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="third"):
        torch.autograd.grad(second.sum(), x)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ROOTS)
def test_a_bad_item_is_nan_alone(name, method):
    function = lambda x: ROOTS[name](x, method)  # noqa: E731
    bad = torch.stack([
        torch.full((3, 3), torch.nan),
        torch.diag(torch.tensor([1.0, torch.inf, 1.0])),
        torch.diag(torch.tensor([1.0, 2.0, -0.5])),
        -torch.eye(3),
    ]).to(F64)  # fmt: skip
    x = torch.cat([A[1:3], bad, A[2:]]).requires_grad_()
    good = torch.cat([A[1:3], A[2:]]).requires_grad_()
    value, want = function(x), function(good)
    assert value[2:6].isnan().any(-1).any(-1).all()
    (gradient,) = torch.autograd.grad((value * W).sum(), x)
    (right,) = torch.autograd.grad((want * W).sum(), good)
    keep = [0, 1, 6, 7]
    torch.testing.assert_close(value[keep], want, rtol=0, atol=1e-13)
    torch.testing.assert_close(gradient[keep], right, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        torch.func.vmap(function)(x.detach()), value.detach(), rtol=0, atol=1e-13, equal_nan=True
    )


@pytest.mark.parametrize("method", METHODS)
def test_sizes_and_scales(method):
    for shape in ((0, 3, 3), (2, 0, 3, 3)):
        x = torch.zeros(shape, requires_grad=True)
        value = matrix_sqrt(x, method)
        assert value.shape == torch.autograd.grad(value.sum(), x)[0].shape == shape
    one = torch.tensor([[[4.0]], [[1e-30]], [[1e30]]], requires_grad=True)
    value = matrix_sqrt(one, method)
    torch.testing.assert_close(value, one.sqrt(), rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.autograd.grad(value.sum(), one)[0], 0.5 / one.sqrt(), rtol=1e-6, atol=0)
    torch.testing.assert_close(matrix_inverse_sqrt(one, method), one.rsqrt(), rtol=1e-6, atol=0)
    x = A[2].float()
    for scale in (1e-30, 1e-10, 1e10, 1e30):
        root = scale**0.5
        for function, factor in ((matrix_sqrt, root), (matrix_inverse_sqrt, 1 / root)):
            leaf = (scale * x).requires_grad_()
            got, want = function(leaf, method), factor * function(x, method)
            tolerance = 5e-4 if method == "pade" else 2e-5
            torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance * factor)
            if not 1e-37 < factor / scale < 1e37:  # the derivative is no number
                continue
            (slope,) = torch.autograd.grad((got * W.float()).sum(), leaf)
            still = x.clone().requires_grad_()
            (right,) = torch.autograd.grad((function(still, method) * W.float()).sum(), still)
            torch.testing.assert_close(slope / (factor / scale), right, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("method", METHODS)
def test_semidefinite_matrices_have_roots(method, dtype):
    g = torch.Generator().manual_seed(2)
    half = torch.randn(20, 8, 3, generator=g, dtype=dtype)
    x = torch.cat([half @ half.mT, torch.zeros(1, 8, 8, dtype=dtype)]).requires_grad_()  # eigenvalues of -1e-17
    root = matrix_sqrt(x, method)
    (gradient,) = torch.autograd.grad(root.sum(), x)
    assert root.isfinite().all() and gradient.isfinite().all() and (root[-1] == 0).all()
    if method in ("eigh", "newton_schulz"):  # the iteration knows zero to sqrt(eps)
        bound = 50 * torch.finfo(dtype).eps if method == "eigh" else torch.finfo(dtype).eps ** 0.5
        assert ((root @ root - x).norm(dim=(1, 2)) <= bound * x.norm(dim=(1, 2))).all()
    if method == "eigh":  # of a projector: zero within the null space, one half on the other, one across
        projector = torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=dtype)).requires_grad_()
        (gradient,) = torch.autograd.grad(matrix_sqrt(projector).sum(), projector)
        want = torch.ones(4, 4, dtype=dtype)
        want[:2, :2], want[2:, 2:] = 0.5, 0.0
        torch.testing.assert_close(gradient, want)


@pytest.mark.parametrize("dtype", [F64, F32])
def test_a_null_space_that_is_rounded_has_derivative_zero(dtype):
    g = torch.Generator().manual_seed(0)
    half, W = torch.randn(4, 64, 20, generator=g, dtype=F64), torch.randn(64, 64, generator=g, dtype=F64)
    for made in ((half @ half.mT).to(dtype), half.to(dtype) @ half.to(dtype).mT):  # zeros of both signs
        a, Q = torch.linalg.eigh(half @ half.mT)
        kept = torch.where(torch.arange(64) < 44, 0.0, a).sqrt()
        total = kept.unsqueeze(-1) + kept.unsqueeze(-2)
        slopes = torch.where(total == 0, 0.0, 1 / torch.where(total == 0, 1.0, total))
        want = Q @ (slopes * (Q.mT @ (0.5 * (W + W.mT)) @ Q)) @ Q.mT
        for scale in (1e-20, 1.0, 1e20):
            leaf = (scale * made).requires_grad_()
            (got,) = torch.autograd.grad((matrix_sqrt(leaf) * W.to(dtype)).sum(), leaf)
            close = 50 * torch.finfo(dtype).eps ** 0.5  # of eigenvalues of eps the roots are sqrt(eps)
            assert error(got.double() * scale**0.5, want) < close
            null = Q[..., :44]
            assert (null.mT @ got.double() @ null).norm() * scale**0.5 < close * want.norm()


def test_second_derivatives_along_matrices_of_one_rank():
    g = torch.Generator().manual_seed(1)
    half, by, G = (torch.randn(8, k, generator=g, dtype=F64) for k in (3, 3, 8))

    def slope(x):
        return torch.autograd.grad((matrix_sqrt(x) * G).sum(), x, create_graph=True)[0]

    def at(t):
        return ((half + t * by) @ (half + t * by).mT).detach().requires_grad_()

    K, h = half @ by.mT + by @ half.mT, 1e-3  # null roots of 1e-8, over h
    W = torch.randn(8, 8, generator=g, dtype=F64)
    x = at(0.0)
    (second,) = torch.autograd.grad((slope(x) * W).sum(), x)
    quotient = ((slope(at(h)) - slope(at(-h))) / (2 * h) * W).sum().detach()
    torch.testing.assert_close((second * K).sum(), quotient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype, condition", [(F32, 1e6), (F64, 1e12)])
@pytest.mark.parametrize("n", [2, 16, 64])
def test_small_eigenvalues_are_no_null_space(dtype, condition, n):
    a = torch.ones(n, dtype=dtype)
    a[0] = 1 / condition  # the others as large as can be: the norm is sqrt(n)
    x = torch.diag(a).requires_grad_()
    (got,) = torch.autograd.grad(matrix_sqrt(x).diagonal().sum(), x)
    torch.testing.assert_close(got.diagonal(), 0.5 / a.sqrt(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_a_result_does_not_depend_on_the_neighbours(method):
    x = torch.cat([spread(1e5), spread(3.0)])
    weight = torch.arange(64.0, dtype=F64).reshape(8, 8) / 64
    together = x.clone().requires_grad_()
    for name, function in ROOTS.items():
        (all_slopes,) = torch.autograd.grad((function(together, method) * weight).sum(), together)
        for i in (0, 8):
            alone = x[i].clone().requires_grad_()
            (slope,) = torch.autograd.grad((function(alone, method) * weight).sum(), alone)
            assert error(all_slopes[i], slope) < 1e-12, name


@pytest.mark.parametrize("method", ["newton_schulz", "pade"])
def test_compiled(method):
    def everything(x, stack):
        loss = lambda x: (matrix_inverse_sqrt(x, method) * W).sum()  # noqa: E731
        return torch.func.hessian(loss)(x), torch.func.vmap(lambda x: matrix_sqrt(x, method))(stack)

    torch.compiler.reset()
    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager", dynamic=False)
    x, close = (
        NARROW[1].clone(),
        1e-6 if method == "pade" else 1e-11,
    )  # compiled transforms differentiate the exact root
    torch.testing.assert_close(compiled(x, A), everything(x, A), rtol=close, atol=close)
    both = lambda x: matrix_sqrt(x, method) + matrix_inverse_sqrt(x, method)  # noqa: E731
    for backend in ("aot_eager", "eager"):
        torch.compiler.reset()
        seconds = []
        for function in (torch.compile(both, fullgraph=True, backend=backend), both):
            x = A.clone().requires_grad_()
            value = function(x)
            again = backend == "eager"
            (first,) = torch.autograd.grad((value * W).sum(), x, create_graph=again)
            second = torch.autograd.grad((first * W).sum(), x)[0] if again else None
            seconds.append((value.detach(), first.detach(), second))
        torch.testing.assert_close(*seconds, rtol=1e-12, atol=1e-12)
    torch.compiler.reset()


def test_precision_is_float32_at_least():
    x = A[2].bfloat16()
    for function in (matrix_sqrt, matrix_log, matrix_exp, lambda x: matrix_power(x, 0.3)):
        assert function(x).dtype == torch.bfloat16
        torch.testing.assert_close(function(x), function(x.float()).bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(
            matrix_sqrt(A.float(), "pade"), matrix_sqrt(A.float(), "pade").float(), rtol=0, atol=0
        )


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: matrix_log(torch.ones(3)), r"matrix_log: x must be real matrices \*B,n,n, n > 0, got shape \(3,\)"),
        (lambda: matrix_power(torch.ones(2, 3), 2.0), "matrix_power: x must be real matrices"),
        (lambda: matrix_exp(torch.eye(2, dtype=torch.int64)), "int64"),
        (lambda: matrix_sqrt(A, "svd"), "method must be one of eigh, newton_schulz, taylor, pade, got 'svd'"),
        (lambda: matrix_sqrt(A, "newton_schulz", 3), "degree must be 1 to 1000 with taylor or 1 to 8 with pade, got 3"),
        (lambda: matrix_inverse_sqrt(A, "pade", 0), "matrix_inverse_sqrt: degree"),
        (lambda: matrix_sqrt(A, "taylor", 2.5), "matrix_sqrt: degree must be a whole number, got 2.5"),
        (lambda: matrix_power(A, float("nan")), "matrix_power: p must be a real number, got nan"),
        (lambda: matrix_power(A, float("inf")), "matrix_power: p must be finite"),
        (lambda: matrix_power(A, "2"), "matrix_power: p must be a real number, got '2'"),
        (lambda: matrix_power(A, torch.tensor(0.5, requires_grad=True)), "without a derivative"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ROOTS)
def test_derivatives_by_gradcheck(name, method):
    function = lambda x: ROOTS[name](x, method, MANY[method])  # noqa: E731
    for a in NARROW if method in ("taylor", "pade") else A:
        x = a.clone().requires_grad_()
        assert gradcheck(function, x, check_forward_ad=True, atol=1e-6)
        assert gradgradcheck(function, x, atol=1e-5)
