"""The seam by a kernel of its own: a matrix and a vector, two results, an option, a number, and a saved result."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.utils._pytree import tree_leaves

from torchriemann.manifolds import kernels
from torchriemann.manifolds.kernels.dispatch import Kernel, Operand, fused
from torchriemann.manifolds.kernels.switch import AUTO, OPERATOR, TRITON, forced

CALLS = Counter()


def response(A, b, scale, shift):
    """tanh(scale A b) and <b, A b>/2 + shift |b|^2."""
    return response_saving(A, b, scale, shift)[:2]


def response_saving(A, b, scale, shift):
    pushed = (A @ b.unsqueeze(-1)).squeeze(-1)
    return (scale * pushed).tanh(), 0.5 * (b * pushed).sum(-1) + shift * b.square().sum(-1), pushed


def response_backward(g, h, A, b, scale, shift, pushed=None):
    CALLS["closed"] += 1
    if pushed is None:
        CALLS["recomputed"] += 1
        pushed = (A @ b.unsqueeze(-1)).squeeze(-1)
    g = g * (1 - (scale * pushed).tanh().square())
    column = (scale * g + 0.5 * h.unsqueeze(-1) * b).unsqueeze(-1)
    to_b = (A.mT @ column).squeeze(-1) + h.unsqueeze(-1) * (0.5 * pushed + 2 * shift * b)
    return column * b.unsqueeze(-2), to_b, (g * pushed).sum(-1)


def make(name, recomputes):
    """The operation with a fused kernel, for whose sources two functions stand."""

    def forward(A, b, scale, value, shift):
        CALLS["fused forward"] += 1
        return response_saving(A, b, value if scale is None else scale, shift)[: 2 if recomputes else 3]

    def backward(g, h, A, b, *others):
        CALLS["fused backward"] += 1
        *saved, scale, value, shift = others
        *gradients, items = response_backward(g, h, A, b, value if scale is None else scale, shift, *saved)
        return *gradients, items.new_empty(0) if scale is None else items

    return fused(
        Kernel(
            name,
            response,
            response_backward,
            (Operand("A", 2), Operand("b", 1)),
            options=("scale",),
            numbers={"shift": float},
            results=2,
            saving=response_saving,
            saved=1,
            recomputes=recomputes,
            launchers=lambda: {name: (forward, backward)},
            dtypes=(torch.float64,),
            takes=lambda A, b: A.shape[-1] <= 8,
        )
    )


FUSED = {name: make(f"test_response_{name}", name == "recomputed") for name in ("saved", "recomputed")}
fused_response = FUSED["saved"]


def draw(*size, seed=0, dtype=torch.float64):
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


A, B, SCALE = draw(4, 3, 3), draw(4, 3, seed=1), torch.tensor(0.7, dtype=torch.float64)


def call(f, shift=0.3):
    return lambda *arguments: f(*arguments, shift)


def loss(f):
    def total(*arguments):
        first, second = f(*arguments, 0.3)
        return first.sin().sum() + second.cos().sum()

    return total


def close(actual, expected, tolerance=1e-12):
    actual, expected = tree_leaves(actual), tree_leaves(expected)
    assert len(actual) == len(expected) > 0
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


ALL = (0, 1, 2)
TANGENTS = (A.cos(), B.cos(), torch.ones_like(SCALE))
TABLE = {
    "value": lambda f: f(A, B, SCALE, 0.3),
    "value, a number as option": lambda f: f(A, B, 0.7, 0.3),
    "value of broadcast batches": lambda f: f(A[:, None], draw(5, 3), SCALE, 0.3),
    "gradient": lambda f: grad(loss(f), ALL)(A, B, SCALE),
    "gradient, a number as option": lambda f: grad(lambda *a: loss(f)(*a, 0.7), (0, 1))(A, B),
    "gradient of broadcast batches": lambda f: grad(loss(f), ALL)(A[:, None], draw(5, 3), SCALE),
    "jacrev": lambda f: jacrev(call(f), ALL)(A, B, SCALE),
    "jacfwd": lambda f: jacfwd(call(f), ALL)(A, B, SCALE),
    "hessian": lambda f: hessian(loss(f), ALL)(A, B, SCALE),
    "jacrev of jacrev": lambda f: jacrev(jacrev(loss(f), ALL), ALL)(A, B, SCALE),
    "jvp": lambda f: jvp(call(f), (A, B, SCALE), TANGENTS),
    "jvp of jvp": lambda f: jvp(lambda *a: jvp(call(f), a, TANGENTS)[1], (A, B, SCALE), TANGENTS),
    "jvp of gradient": lambda f: jvp(grad(loss(f), ALL), (A, B, SCALE), TANGENTS),
    "vmap": lambda f: vmap(call(f), (0, 0, None))(A, B, SCALE),
    "vmap over the vector": lambda f: vmap(call(f), (None, 0, None))(A[0], B, SCALE),
    "vmap over the vector of a batch": lambda f: vmap(call(f), (None, 1, None))(A, draw(4, 5, 3), SCALE),
    "vmap over the option": lambda f: vmap(call(f), (None, None, 0))(A, B, SCALE * torch.arange(1, 4)),
    "vmap of vmap": lambda f: vmap(vmap(call(f), (None, 0, None)), (0, None, None))(A, B, SCALE),
    "vmap of gradient": lambda f: vmap(grad(loss(f), ALL), (0, 0, None))(A, B, SCALE),
    "vmap of gradient over the option": lambda f: vmap(grad(loss(f), ALL), (None, None, 0))(A, B, SCALE * B[:, 0]),
    "vmap of hessian": lambda f: vmap(hessian(loss(f), ALL), (0, 0, None))(A, B, SCALE),
    "gradient of vmap": lambda f: grad(lambda *a: vmap(call(f), (0, 0, None))(*a)[0].sin().sum(), ALL)(A, B, SCALE),
}


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("path", [AUTO, OPERATOR])
@pytest.mark.parametrize("transform", TABLE)
def test_transform_gives_the_plain_answer(transform, path, name):
    with forced(path):
        actual = TABLE[transform](FUSED[name])
    close(actual, TABLE[transform](response))


@pytest.mark.parametrize("transform", ["value", "gradient", "jvp", "vmap of gradient"])
def test_compiled_transform(transform):
    compiled = torch.compile(lambda: TABLE[transform](fused_response), backend="aot_eager", fullgraph=True)
    close(compiled(), TABLE[transform](response))


def leaves():
    return [t.clone().requires_grad_() for t in (A[:2], B[:2], SCALE)]


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("path", [AUTO, OPERATOR])
def test_derivatives_by_finite_differences(path, name):
    f = call(FUSED[name])
    with forced(path):
        assert gradcheck(f, leaves(), check_forward_ad=True, check_batched_grad=True)
        assert gradgradcheck(f, leaves(), check_fwd_over_rev=True)


@pytest.mark.parametrize(
    "name, path, recomputed",
    [("saved", AUTO, 0), ("saved", OPERATOR, 0), ("recomputed", AUTO, 0), ("recomputed", OPERATOR, 1)],
)
def test_who_reads_what_was_saved(name, path, recomputed):
    inputs = leaves()
    CALLS.clear()
    with forced(path):
        torch.autograd.grad(loss(FUSED[name])(*inputs), inputs)
    assert CALLS == Counter({"closed": 1, "recomputed": recomputed})


def test_second_derivatives_go_by_the_plain_formula():
    CALLS.clear()
    inputs = leaves()
    value = sum(r.sum() for r in fused_response(*inputs, 0.3))
    first = torch.autograd.grad(value, inputs, create_graph=True)
    assert CALLS["closed"] == 1
    torch.autograd.grad(sum(g.sin().sum() for g in first), inputs)
    assert CALLS["closed"] == 1


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("scale", [SCALE, 0.7], ids=["tensor", "number"])
def test_operators_keep_the_rules_of_the_dispatcher(scale, name):
    options = (None, scale, 0.3) if isinstance(scale, float) else (scale, 0.0, 0.3)
    forward, backward = (getattr(torch.ops.torchriemann, f"test_response_{name}{end}") for end in ("", "_backward"))
    u, e, *saved = forward(A, B, *options)
    for operator, arguments in ((forward, (A, B, *options)), (backward, (u, e, A, B, *saved, *options))):
        assert set(torch.library.opcheck(operator.default, arguments).values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("scale", [SCALE, 0.7], ids=["tensor", "number"])
def test_a_fused_kernel_runs_both_passes(scale, name):
    pytest.importorskip("triton")
    inputs = leaves()
    inputs[2] = scale if isinstance(scale, float) else inputs[2]
    wanted = [t for t in inputs if isinstance(t, torch.Tensor)]
    CALLS.clear()
    with forced(TRITON):
        actual = torch.autograd.grad(loss(FUSED[name])(*inputs), wanted)
    assert CALLS["fused forward"] == CALLS["fused backward"] == 1
    close(actual, torch.autograd.grad(loss(response)(*inputs), wanted))


@pytest.mark.parametrize("size, dtype", [(9, torch.float64), (3, torch.float32)], ids=["too large", "another dtype"])
def test_what_the_fused_kernel_does_not_take(size, dtype):
    matrix, vector = draw(2, size, size, dtype=dtype), draw(2, size, dtype=dtype)
    CALLS.clear()
    with forced(TRITON):
        value = fused_response(matrix, vector, 0.7, 0.3)
    assert CALLS["fused forward"] == 0
    close(value, response(matrix, vector, 0.7, 0.3))


def test_one_operand_alone():
    cube = fused(Kernel("test_cube", lambda x: x**3, lambda g, x: (3 * g * x**2,), (Operand("x", 0),)))
    x, g = B.clone().requires_grad_(), B.cos()
    for path in (AUTO, OPERATOR):
        with forced(path):
            assert gradcheck(cube, x, check_forward_ad=True) and gradgradcheck(cube, x)
            close(vmap(grad(lambda t: cube(t).sum()))(B), 3 * B**2)
    operator = torch.ops.torchriemann.test_cube_backward.default
    assert set(torch.library.opcheck(operator, (g, B)).values()) == {"SUCCESS"}


def test_halves_save_in_float32():
    inputs = [t.to(torch.bfloat16).requires_grad_() for t in (A, B)]
    wide = [t.detach().float().requires_grad_() for t in inputs]
    first, second = fused_response(*inputs, 0.7, 0.3)
    assert first.dtype == second.dtype == torch.bfloat16
    gradients = torch.autograd.grad(first.sum(), inputs)
    expected = torch.autograd.grad(response(*wide, 0.7, 0.3)[0].sum(), wide)
    close(gradients, [g.to(torch.bfloat16) for g in expected], 0)


def test_one_result_alone_may_be_differentiated():
    inputs = leaves()
    value = fused_response(*inputs, 0.3)[1].sum()
    close(torch.autograd.grad(value, inputs[:2]), torch.autograd.grad(response(*inputs, 0.3)[1].sum(), inputs[:2]))


def test_the_seam_knows_no_space():
    folder = Path(kernels.__file__).parent
    spaces = ("lorentz", "poincare", "sphere")
    of_constant_curvature = {f"{start}{space}.py" for start in ("", "triton_") for space in spaces}
    of_constant_curvature |= {"klein.py", "projected_sphere.py"}
    files = {file.name: file.read_text() for file in folder.glob("*.py")}
    assert {"kernel.py", "differentiable.py", "dispatch.py"} | of_constant_curvature < set(files)
    assert {name for name, text in files.items() if "curvature" in text.lower()} <= of_constant_curvature
