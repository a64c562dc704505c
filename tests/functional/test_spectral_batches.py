"""A matrix that is no good spoils itself alone; compiled functions are the eager ones, with both derivatives."""

import pytest
import torch

from torchriemann.manifolds.functional import decompositions, singular_values, spectral
from torchriemann.manifolds.functional.elementary_functions import Power
from torchriemann.manifolds.functional.matrix_function import QuadratureFunction
from torchriemann.manifolds.functional.singular_values import polar_factor, singular_value_function
from torchriemann.manifolds.functional.spectral import symmetric_function, symmetric_functions
from torchriemann.manifolds.functional.spectral_functions import (
    ANGLE_OVER_SINE,
    COS_SQRT,
    EXP,
    LOG,
    SINC_SQRT,
    UPPER_PROJECTOR,
)
from torchriemann.manifolds.functional.spectral_functions import FUNCTIONS as FUNCTIONS_BY_KEY

F64 = torch.float64
FUNCTIONS = {
    "log": lambda A: symmetric_function(A, LOG),
    "power": lambda A: symmetric_function(A, Power(0.3)),
    "step": lambda A: symmetric_function(A - 0.7 * torch.eye(3, dtype=A.dtype), UPPER_PROJECTOR),
    "two": lambda A: torch.cat(symmetric_functions(A, COS_SQRT, SINC_SQRT), -1),
    "polar": polar_factor,
    "angle": lambda A: singular_value_function(A, ANGLE_OVER_SINE),
}


def matrices(*spectra, seed=0):
    g = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(len(spectra), 3, 3, generator=g, dtype=F64))[0]
    return (q * torch.tensor(spectra, dtype=F64)[:, None]) @ q.mT


A = matrices([0.9, 0.9, 0.3], [0.9, 0.5, 0.2], [0.8, 0.8, 0.8])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_matrix_that_is_not_finite_is_nan_alone(name, bad):
    function = FUNCTIONS[name]
    spoiled = A.clone()
    spoiled[1, 2, 2] = bad
    leaf = spoiled.requires_grad_()
    value = function(leaf)
    first = torch.autograd.grad(value.square().sum(), leaf, create_graph=True)[0]
    second = torch.autograd.grad(first.square().sum(), leaf)[0]
    good = A.clone().requires_grad_()
    want = function(good)
    want_first = torch.autograd.grad(want.square().sum(), good, create_graph=True)[0]
    want_second = torch.autograd.grad(want_first.square().sum(), good)[0]
    for got, right in ((value, want), (first, want_first), (second, want_second)):
        assert got[1].isnan().all()
        torch.testing.assert_close(got[[0, 2]], right[[0, 2]], rtol=0, atol=1e-13 * (1 + right.abs().max().item()))
    vmapped = torch.func.vmap(function)(spoiled.detach())
    torch.testing.assert_close(vmapped, value.detach(), rtol=0, atol=1e-14, equal_nan=True)


@pytest.mark.parametrize("decomposition", ["eigh", "svd"])
def test_a_decomposition_that_fails_is_nan_alone(monkeypatch, decomposition):
    real = getattr(torch.linalg, decomposition)

    def failing(A):
        if (A[..., 0, 1] == A[..., 1, 2]).logical_and(A[..., 0, 1] != 0).any():
            raise torch.linalg.LinAlgError("did not converge")  # pyright: ignore[reportPrivateImportUsage]
        return real(A)

    spoiled = A.clone()
    spoiled[1] = 1.0
    function = FUNCTIONS["two" if decomposition == "eigh" else "polar"]
    monkeypatch.setattr(torch.linalg, decomposition, failing)
    for value in (function(spoiled), torch.func.vmap(function)(spoiled)):
        assert value[1].isnan().all()
        torch.testing.assert_close(value[[0, 2]], function(A)[[0, 2]], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["eigh", "svd"])
def test_scaling_where_the_device_does_not(monkeypatch, name):
    decompose = getattr(decompositions, name)
    factors = torch.tensor([1.0, 1e-300, 1e300, 0.0, torch.nan], dtype=F64)
    results = []
    for devices in (("cpu",), ()):
        monkeypatch.setattr(decompositions, "_SCALE_BY_THEMSELVES", devices)
        values = next(r for r in decompose(factors[:, None, None] * A[0]) if r.dim() == 2)
        assert values[-1].isnan().all()
        results.append(values[:3] / factors[:3, None])
        assert (values[3] == 0).all()
    torch.testing.assert_close(*results, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_the_whole_range_of_numbers(dtype):
    small, large = (1e-300, 1e300) if dtype == F64 else (1e-37, 1e37)
    B = A.to(dtype)
    for scale in (small, large):
        logarithm = symmetric_function(B * scale, LOG)
        want = symmetric_function(B, LOG) + torch.tensor(scale, dtype=F64).log().to(dtype) * torch.eye(3, dtype=dtype)
        torch.testing.assert_close(logarithm, want, rtol=0, atol=4e3 * torch.finfo(dtype).eps)
        tolerance = 30 * torch.finfo(dtype).eps
        torch.testing.assert_close(polar_factor(B * scale), polar_factor(B), rtol=0, atol=tolerance)


# ---- compiled -------------------------------------------------------------------------------------------------


def curved(function, W):
    """A scalar function whose Hessian is that of the matrix function in direction W."""
    return lambda A: (function(A) * W).sum()


@pytest.mark.parametrize("name", ["power", "two", "angle"])
def test_compiled_equals_eager(name):
    function = FUNCTIONS[name]
    W = torch.randn(function(A[0]).shape, generator=torch.Generator().manual_seed(4), dtype=F64)
    D = matrices([1.0, -1.0, 0.5], seed=5)[0].clone()

    def everything(x, stack):
        hessian = torch.func.hessian(curved(function, W))(x)
        tangent = torch.func.jvp(function, (x,), (D,))[1]
        return hessian, tangent, torch.func.vmap(function)(stack)

    torch.compiler.reset()
    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager", dynamic=False)
    for x in (A[0].clone(), A[1].clone()):
        for got, want in zip(compiled(x, A), everything(x, A), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    torch.compiler.reset()


def test_graphs_are_small():
    counts = []

    def count(graph, _):
        counts.append(len(graph.graph.nodes))
        return graph.forward

    torch.compiler.reset()
    for function in (FUNCTIONS["two"], FUNCTIONS["angle"]):
        torch.compile(function, fullgraph=True, backend=count)(A)
    torch.compiler.reset()
    assert max(counts) < 70


def test_a_function_without_a_name_is_refused_when_compiled():
    unknown = QuadratureFunction("cube", lambda z: z**3, lambda z: 3 * z**2, lambda z: 6 * z, quadrature_gap=1.0)
    torch.testing.assert_close(symmetric_function(A, unknown), A @ A @ A, rtol=0, atol=1e-14)
    torch.compiler.reset()
    with pytest.raises(Exception, match="has to stand in spectral_functions"):
        torch.compile(lambda A: symmetric_function(A, unknown), fullgraph=True, backend="eager")(A)
    torch.compiler.reset()


# Plain autograd, also where a backend leaves the graph to it and where dynamo traces `torch.autograd.grad`.
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", ["log", "polar", "angle"])
def test_second_derivatives_of_compiled_code(name, inside):
    function = FUNCTIONS[name]
    weight = torch.arange(9.0, dtype=F64).reshape(3, 3)
    x = A.clone().requires_grad_()

    def first(value, x):
        return torch.autograd.grad((value * weight).sum(), x, create_graph=True)[0]

    def inner(x):
        return first(function(x), x)

    torch.compiler.reset()
    if inside:
        if getattr(torch._dynamo.config, "trace_autograd_ops", None) is None:
            pytest.skip("this torch has no such option")
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            gradient = torch.compile(inner, fullgraph=True, backend="aot_eager")(x)
    else:
        gradient = first(torch.compile(function, fullgraph=True, backend="eager")(x), x)
    (second,) = torch.autograd.grad((gradient * weight).sum(), x, create_graph=not inside)
    (want,) = torch.autograd.grad((inner(x) * weight).sum(), x)
    torch.testing.assert_close(second, want, rtol=1e-12, atol=1e-12)
    if not inside:
        with pytest.raises(NotImplementedError, match="third"):
            torch.autograd.grad(second.sum(), x)
    torch.compiler.reset()


def test_compiled_code_forms_no_second_differences_that_nobody_asks_for(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("second differences are n^3 numbers a matrix")

    monkeypatch.setattr(spectral, "second_differences", refuse)
    monkeypatch.setattr(singular_values, "second_differences", refuse)
    x = A.clone().requires_grad_()
    torch.compiler.reset()
    for name in ("two", "angle"):
        torch.compile(FUNCTIONS[name], fullgraph=True, backend="aot_eager")(x).sum().backward()
    torch.compiler.reset()
    assert x.grad is not None and x.grad.isfinite().all()


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e26, 1e30])
@pytest.mark.parametrize("name", ["log", "power", "polar"])
def test_second_derivatives_reach_as_far_as_numbers(name, scale):  # f'' at an eigenvalue of 1e-20 is no float32
    function = FUNCTIONS[name]
    weight = torch.arange(9.0, dtype=F64).reshape(3, 3) / 9
    seconds = []
    for dtype in (torch.float32, F64):
        x = (scale * A).float().to(dtype).requires_grad_()
        (first,) = torch.autograd.grad((function(x) * weight.to(dtype)).sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad((first * (scale * weight).to(dtype)).sum(), x)[0].to(F64))
    assert (seconds[0] - seconds[1]).norm() <= 1e-5 * seconds[1].norm()


def test_exponential_and_logarithm_are_inverse_under_vmap_of_grad():
    def back(A):
        return (symmetric_function(symmetric_function(A, LOG), EXP) * torch.arange(9.0, dtype=F64).reshape(3, 3)).sum()

    got = torch.func.vmap(torch.func.grad(back))(A)
    weight = torch.arange(9.0, dtype=F64).reshape(3, 3)
    torch.testing.assert_close(got, (0.5 * (weight + weight.mT)).expand_as(got), rtol=0, atol=1e-12)


@pytest.mark.parametrize("f", FUNCTIONS_BY_KEY.values(), ids=lambda f: f.key)
def test_float64_is_taken_for_functions_of_positive_numbers_alone(f, monkeypatch):
    """A small eigenvalue costs entire functions and steps no second decomposition."""
    dtypes = []
    whole = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda a: dtypes.append(a.dtype) or whole(a))
    symmetric_function(torch.diag(torch.tensor([1e-6, 0.5, 1.0])), f)
    assert dtypes == [torch.float32] + [F64] * f.positive_domain
    assert f.positive_domain == bool(f.value(torch.tensor([-0.5], dtype=F64)).isnan().any())
