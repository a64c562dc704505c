"""The seam of the fused kernels: every transform of torch gives the plain formula's answer, on either path."""

import functools
import itertools
import math
from collections import Counter

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import functional_call, functionalize, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import torchriemann
from torchriemann.manifolds import kernels
from torchriemann.manifolds.functional import lorentz, poincare
from torchriemann.manifolds.kernels.switch import AUTO, OPERATOR, PLAIN, current_path, forced

NAMES = [f"{space}_{name}" for space in ("lorentz", "poincare") for name in ("exp", "log", "dist", "transport")]
DTYPE = torch.float64
K = -0.7


def plain(name):
    return getattr({"lorentz": lorentz, "poincare": poincare}[name.split("_")[0]], name)


def fused(name):
    return getattr(kernels, name)


def space_parts(*size, scale=1.0, seed=0, dtype=DTYPE):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*size, dtype=torch.float64, generator=generator).to(dtype)


def operands(name, *batch, n=3, dtype=DTYPE):
    """Points, and a vector where the operation takes one: rows of n + 1, or of n numbers in the ball."""
    count = 3 if name.endswith("transport") else 2
    if name.startswith("lorentz"):
        rows = [space_parts(*batch, n + 1, seed=i, dtype=dtype) for i in range(count)]
        for x in rows:
            x[..., 0] = float("nan")  # a time is never read
        return rows
    rows = [space_parts(*batch, n, seed=i, dtype=dtype) for i in range(count)]
    return [0.9 * x / (1 + x.norm(dim=-1, keepdim=True)) for x in rows]


def finite(rows):
    """The same with a number as time, though a wrong one: compiled formulas take it times zero."""
    return [x.nan_to_num(77.0) for x in rows]


def loss(f):
    return lambda *arguments: f(*arguments).sin().sum()


def curvature(dtype=DTYPE):
    return torch.tensor(K, dtype=dtype)


def close(actual, expected, tolerance=1e-10):
    actual, expected = tree_leaves(actual), tree_leaves(expected)
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# Each entry takes the operation, its tensors (4 rows each) and the curvature.
TABLE = {
    "value": lambda f, t, k: f(*t, k),
    "gradient": lambda f, t, k: grad(loss(f), tuple(range(len(t) + 1)))(*t, k),
    "gradient, fixed curvature": lambda f, t, k: grad(lambda *s: loss(f)(*s, K), tuple(range(len(t))))(*t),
    "vmap": lambda f, t, k: vmap(f, (0,) * len(t) + (None,))(*t, k),
    "vmap over one argument": lambda f, t, k: vmap(lambda x: f(x, *[s[0] for s in t[1:]], k))(t[0]),
    "vmap over columns": lambda f, t, k: vmap(f, (1,) * len(t) + (None,))(*[s.T for s in t], k),
    "vmap over the curvature": lambda f, t, k: vmap(f, (None,) * len(t) + (0,))(*t, curvatures(k)),
    "vmap of vmap": lambda f, t, k: vmap(lambda *s: vmap(lambda q: f(*s, q))(curvatures(k)))(*t),
    "vmap of gradient": lambda f, t, k: vmap(grad(loss(f), tuple(range(len(t) + 1))), (0,) * len(t) + (None,))(*t, k),
    "vmap of gradient, curvature": lambda f, t, k: vmap(grad(loss(f), len(t)), (None,) * len(t) + (0,))(
        *t, curvatures(k)
    ),
    "gradient of vmap": lambda f, t, k: grad(
        lambda k, *s: vmap(lambda *r: f(*r, k))(*s).sin().sum(), tuple(range(len(t) + 1))
    )(k, *t),
    "jvp": lambda f, t, k: jvp(f, (*t, k), directions(t, k)),
    "jvp of vmap": lambda f, t, k: jvp(lambda *s: vmap(lambda *r: f(*r, s[-1]))(*s[:-1]), (*t, k), directions(t, k)),
    "jvp of jvp": lambda f, t, k: slope(slope(f, t, k), t, k)(*t, k),
    "jvp of vmap of jvp": lambda f, t, k: slope(over_rows(slope(f, row(t), k)), t, k)(*t, k),
    "vmap of jvp of jvp": lambda f, t, k: over_rows(slope(slope(f, row(t), k), row(t), k))(*t, k),
    "jvp of gradient of jvp": lambda f, t, k: slope(grad(lambda *a: slope(loss(f), t, k)(*a), len(t)), t, k)(*t, k),
    "jvp of jvp of gradient": lambda f, t, k: slope(slope(grad(loss(f), (0, len(t))), t, k), t, k)(*t, k),
    "jvp of jvp of a pullback": lambda f, t, k: slope(slope(pullback(f, t, k), t, k), t, k)(*t, k),
    "jacfwd of jacfwd": lambda f, t, k: jacfwd(jacfwd(loss(f), (0, len(t))), (0, len(t)))(*t, k),
    "vmap of jvp": lambda f, t, k: vmap(lambda *s: jvp(lambda *r: f(*r, k), s, s[::-1]))(*t),
    "dual numbers": lambda f, t, k: dual(f, t, k),
    "dual numbers in vmap": lambda f, t, k: dual(lambda *s: vmap(lambda *r: f(*r, s[-1]))(*s[:-1]), t, k),
    "dual numbers in gradient": lambda f, t, k: dual(lambda *s: grad(loss(f), len(t))(*s), t, k),
    "jacrev": lambda f, t, k: jacrev(f, tuple(range(len(t) + 1)))(*t, k),
    "jacfwd": lambda f, t, k: jacfwd(f, tuple(range(len(t) + 1)))(*t, k),
    "vmap of jacrev": lambda f, t, k: vmap(jacrev(f), (0,) * len(t) + (None,))(*t, k),
    "hessian": lambda f, t, k: hessian(loss(f), (0, len(t)))(*t, k),
    "jacrev of jacrev": lambda f, t, k: jacrev(jacrev(loss(f), (1, len(t))), (1, len(t)))(*t, k),
    "jacrev of jacfwd": lambda f, t, k: jacrev(jacfwd(loss(f), len(t)), 0)(*t, k),
    "third derivative": lambda f, t, k: grad(
        lambda x: grad(lambda x: grad(lambda x: loss(f)(x, *t[1:], k))(x).sin().sum())(x).sin().sum()
    )(t[0]),
    "double backward": lambda f, t, k: twice(f, t, k),
    "functionalize": lambda f, t, k: functionalize(grad(loss(f), (0, len(t))))(*t, k),
    "batched gradient": lambda f, t, k: batched_gradient(f, t, k),
}


def curvatures(k):
    return k * torch.linspace(0.5, 2, 3, dtype=k.dtype)


def directions(t, k):
    return (*[x.nan_to_num().flip(-1).cos() for x in t], torch.ones_like(k))


def row(t):
    return [x[0] for x in t]


def over_rows(f):
    return lambda *a: vmap(f, (0,) * (len(a) - 1) + (None,))(*a)


def slope(f, t, k):
    """The derivative of `f` in `directions`."""
    return lambda *a: jvp(f, a, directions(t, k))[1]


def pullback(f, t, k):
    value, pull = vjp(f, *t, k)
    return lambda *a: pull(value * a[-1])[-1] * a[-1]


def dual(f, t, k):
    with forward_ad.dual_level():
        made = [forward_ad.make_dual(a, b) for a, b in zip((*t, k), directions(t, k), strict=True)]
        return tuple(forward_ad.unpack_dual(f(*made)))


def leaves(t, k):
    return [a.clone().requires_grad_() for a in (*t, k)]


def twice(f, t, k):
    inputs = leaves(t, k)
    first = torch.autograd.grad(loss(f)(*inputs), inputs, create_graph=True)
    return torch.autograd.grad(sum(a.sin().sum() for a in first), inputs)


def batched_gradient(f, t, k):
    inputs = leaves(t, k)
    value = f(*inputs)
    return torch.autograd.grad(
        value, inputs, torch.stack([value.detach(), value.detach().cos()]), is_grads_batched=True
    )


@functools.cache
def plain_answer(name, transform):
    return TABLE[transform](plain(name), operands(name, 4), curvature())


@pytest.mark.parametrize("path", [AUTO, OPERATOR])
@pytest.mark.parametrize("transform", TABLE)
@pytest.mark.parametrize("name", NAMES)
def test_transform_gives_the_plain_answer(name, transform, path):
    with forced(path):
        actual = TABLE[transform](fused(name), operands(name, 4), curvature())
    close(actual, plain_answer(name, transform))


@pytest.mark.parametrize("path", [AUTO, OPERATOR])
@pytest.mark.parametrize("name", NAMES)
def test_derivatives_by_finite_differences(name, path):  # a dropped tangent is silent otherwise
    tensors = operands(name, 2)
    skip = 1 if name.startswith("lorentz") else 0

    def f(*values):
        rows = [torch.cat([x[..., :skip].detach(), s], -1) for x, s in zip(tensors, values[:-1], strict=True)]
        return fused(name)(*rows, values[-1])

    inputs = leaves([x[..., skip:] for x in tensors], curvature())
    with forced(path):
        assert gradcheck(f, inputs, check_forward_ad=True, check_batched_grad=True)
        assert gradgradcheck(f, inputs, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("path", [AUTO, OPERATOR])
@pytest.mark.parametrize("name", NAMES)
def test_jvp_by_finite_differences(name, path):
    tensors = [x.nan_to_num() for x in operands(name, 3)]
    tangents = directions(tensors, curvature())
    step = 1e-6
    with forced(path):
        _, slope = jvp(fused(name), (*tensors, curvature()), tangents)
        ends = [
            fused(name)(*[a + s * step * b for a, b in zip((*tensors, curvature()), tangents, strict=True)])
            for s in (1, -1)
        ]
    assert slope.abs().max() > 0.1
    close(slope, (ends[0] - ends[1]) / (2 * step), 1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_nested_jvp_by_finite_differences(name):  # of a Function, torch's second level is zero
    tensors = [x.nan_to_num() for x in operands(name, 3)]
    inputs = (*tensors, curvature())
    first = slope(fused(name), tensors, curvature())
    step = 1e-6
    ends = [
        first(*[a + s * step * b for a, b in zip(inputs, directions(tensors, curvature()), strict=True)])
        for s in (1, -1)
    ]
    second = slope(first, tensors, curvature())(*inputs)
    assert second.abs().max() > 0.1
    close(second, (ends[0] - ends[1]) / (2 * step), 1e-6)


@pytest.mark.parametrize("path", [AUTO, OPERATOR])
@pytest.mark.parametrize("operation", ["exp", "log", "dist", "transport"])
def test_batched_gradients_of_the_lorentz_model(operation, path):
    inputs = leaves(operands(f"lorentz_{operation}", 4), curvature())
    with forced(path):
        value = fused(f"lorentz_{operation}")(*inputs)
        several = space_parts(5, *value.shape, seed=7)
        batched = torch.autograd.grad(value, inputs, several, is_grads_batched=True, retain_graph=True)
        one_by_one = [torch.autograd.grad(value, inputs, g, retain_graph=True) for g in several]
    assert batched[0].abs().max() > 0.1
    close(batched, [torch.stack(rows) for rows in zip(*one_by_one, strict=True)], 1e-12)


@pytest.mark.parametrize("name", ["lorentz_exp", "poincare_log"])
def test_compiles_to_the_plain_answer(name):
    tensors = finite(operands(name, 4))
    inputs, expected = leaves(tensors, curvature()), leaves(tensors, curvature())
    compiled = torch.compile(loss(fused(name)), backend="aot_eager", fullgraph=True)
    compiled(*inputs).backward()
    loss(plain(name))(*expected).backward()
    close([a.grad for a in inputs], [a.grad for a in expected])


COMPILED = {
    "gradient": lambda f, t, k: grad(loss(f), (0, len(t)))(*t, k),
    "vmap of jacrev": lambda f, t, k: vmap(jacrev(f), (0,) * len(t) + (None,))(*t, k),
    "jvp": lambda f, t, k: jvp(f, (*t, k), directions(t, k)),
}


@pytest.mark.parametrize("transform", COMPILED)
@pytest.mark.parametrize("name", ["lorentz_dist"])
def test_compiled_transforms(name, transform):
    tensors = finite(operands(name, 4))
    compiled = torch.compile(
        lambda *a: COMPILED[transform](fused(name), a[:-1], a[-1]), backend="aot_eager", fullgraph=True
    )
    close(compiled(*tensors, curvature()), COMPILED[transform](plain(name), tensors, curvature()))


def test_dynamic_shapes_compile_once():
    counts = Counter()

    def backend(graph, _):
        counts["graphs"] += 1
        return graph

    compiled = torch.compile(kernels.lorentz_log, backend=backend, fullgraph=True, dynamic=True)
    for size in (3, 5, 8):
        tensors = finite(operands("lorentz_log", size))
        close(compiled(*tensors, K), plain("lorentz_log")(*tensors, K))
    assert counts["graphs"] == 1


class Distances(torch.nn.Module):
    def forward(self, x, y, k):
        return kernels.poincare_dist(x, y, k)


def test_export_with_a_free_batch():
    tensors = operands("poincare_dist", 4)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(
        Distances(), (*tensors, curvature()), dynamic_shapes={"x": {0: batch}, "y": {0: batch}, "k": None}
    )
    other = operands("poincare_dist", 7)
    close(program.module()(*other, curvature()), plain("poincare_dist")(*other, curvature()))
    assert not any("torchriemann" in str(node.target) for node in program.graph.nodes)  # loads without us


@pytest.mark.parametrize("number", [True, False], ids=["number", "tensor"])
@pytest.mark.parametrize("name", NAMES)
def test_operators_keep_the_rules_of_the_dispatcher(name, number):
    tensors = [x.nan_to_num() for x in operands(name, 4)]
    last = (None, K) if number else (curvature(), 0.0)
    value = getattr(torch.ops.torchriemann, name).default
    slope = getattr(torch.ops.torchriemann, f"{name}_backward").default
    for operator, arguments in ((value, (*tensors, *last)), (slope, (value(*tensors, *last), *tensors, *last))):
        assert set(torch.library.opcheck(operator, arguments).values()) == {"SUCCESS"}


class Calls(TorchDispatchMode):
    """Counts the calls that would be launches, and among them the passes over rows of more than one number."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()
        self.passes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        views = func.is_view or func in (torch.ops.aten.detach.default, torch.ops.aten._unsafe_view.default)
        if not views and func.namespace in ("aten", "torchriemann"):
            self.counts[str(func)] += 1
            self.passes += any(
                t.dim() and t.shape[-1] > 1 for t in tree_leaves((args, out)) if isinstance(t, torch.Tensor)
            )
        return out


@pytest.mark.parametrize("name", NAMES)
def test_one_operator_a_pass(name):
    inputs = leaves(operands(name, 4), curvature())
    with forced(OPERATOR), Calls() as forward:
        value = fused(name)(*inputs)
    with Calls() as backward:
        torch.autograd.grad(value, inputs, torch.ones_like(value))
    expected = {f"torchriemann.{name}.default": 1}
    assert {op: n for op, n in forward.counts.items() if "torchriemann" in op} == expected
    assert {op: n for op, n in backward.counts.items() if "torchriemann" in op} == {
        f"torchriemann.{name}_backward.default": 1
    }


def test_second_derivatives_call_the_operator_once_too():
    inputs = leaves(operands("lorentz_exp", 4), curvature())
    with forced(OPERATOR), Calls() as calls:
        value = kernels.lorentz_exp(*inputs).sum()
        first = torch.autograd.grad(value, inputs, create_graph=True)
        torch.autograd.grad(sum(a.sum() for a in first), inputs)
    assert calls.counts["torchriemann.lorentz_exp.default"] == 1
    assert calls.counts["torchriemann.lorentz_exp_backward.default"] == 1


def test_no_gradient_no_function():
    x, u = operands("lorentz_exp", 4)
    value = kernels.lorentz_exp(x, u.requires_grad_(), K)
    assert type(value.grad_fn).__name__ == "EagerForwardBackward"
    with torch.no_grad():
        assert kernels.lorentz_exp(x, u, K).grad_fn is None
    assert kernels.lorentz_exp(x, u.detach(), K).grad_fn is None


# Passes over all the numbers of the rows, which are what the time of large batches is made of; those over one number a
# row are many more.
PASSES = {
    "lorentz_exp": 12,
    "lorentz_log": 16,
    "lorentz_dist": 12,
    "lorentz_transport": 22,
    "poincare_exp": 9,
    "poincare_log": 7,
    "poincare_dist": 5,
    "poincare_transport": 13,
}


@pytest.mark.parametrize("name", NAMES)
def test_plain_passes_are_few(name):
    tensors = operands(name, 4, dtype=torch.float32)
    with Calls() as calls:
        fused(name)(*tensors, K)
    assert calls.passes <= PASSES[name]


@pytest.mark.parametrize("path", [AUTO, OPERATOR])
@pytest.mark.parametrize("name", NAMES)
def test_batches_broadcast(name, path):
    first, *rest = operands(name, 4)
    last = operands(name, 3, 1)[-1]
    inputs = leaves([first, *rest[:-1], last], curvature())
    expected = leaves([first, *rest[:-1], last], curvature())
    with forced(path):
        value = fused(name)(*inputs)
    assert value.shape[:2] == (3, 4)
    close(value, plain(name)(*expected))
    close(
        torch.autograd.grad(loss(lambda v: v)(value), inputs),
        torch.autograd.grad(loss(plain(name))(*expected), expected),
    )


@pytest.mark.parametrize("path", [AUTO, OPERATOR])
@pytest.mark.parametrize("name", NAMES)
def test_no_rows(name, path):
    inputs = leaves(operands(name, 0), curvature())
    with forced(path):
        value = fused(name)(*inputs)
        value.sum().backward()
    assert value.shape[0] == 0
    assert inputs[-1].grad == 0


@pytest.mark.parametrize("path", [AUTO, OPERATOR])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_halves_are_computed_in_float32(name, dtype, path):
    inputs = leaves(operands(name, 4, dtype=dtype), curvature(torch.float32))
    wide = [a.detach().float().requires_grad_() for a in inputs]
    with forced(path):
        value = fused(name)(*inputs)
    g = torch.ones_like(value)
    assert value.dtype == dtype
    close(value, plain(name)(*wide).to(dtype), 0)
    actual = torch.autograd.grad(value, inputs, g)
    expected = torch.autograd.grad(plain(name)(*wide), wide, g.float())
    eps = torch.finfo(dtype).eps
    close([a.float() for a in actual[:-1]], expected[:-1], 2 * eps)
    close(actual[-1], expected[-1], 1e-5)  # summed in float32


@pytest.mark.parametrize("path", [AUTO, OPERATOR])
def test_autocast_changes_nothing(path):
    tensors = operands("lorentz_exp", 4, dtype=torch.float32)
    with forced(path), torch.autocast("cpu", dtype=torch.bfloat16):
        value = kernels.lorentz_exp(*tensors, K)
    assert value.dtype == torch.float32
    close(value, lorentz.lorentz_exp(*tensors, K), 0)


def test_mixed_dtypes_are_promoted():
    x, u = operands("lorentz_exp", 4)
    value = kernels.lorentz_exp(x.float().requires_grad_(), u, K)
    assert value.dtype == torch.float64
    value.sum().backward()


def test_switch_as_a_context_and_as_a_call():
    assert current_path() == AUTO
    with torchriemann.use_kernels(False):
        assert current_path() != AUTO
        with torchriemann.use_kernels(True):
            assert current_path() == AUTO
        assert current_path() != AUTO
    assert current_path() == AUTO
    torchriemann.use_kernels(False)
    try:
        x, y = leaves(operands("lorentz_dist", 4), curvature())[:2]
        assert "EagerForward" not in type(kernels.lorentz_dist(x, y, K).grad_fn).__name__
    finally:
        torchriemann.use_kernels(True)
    assert "EagerForward" in type(kernels.lorentz_dist(x, y, K).grad_fn).__name__


def test_switch_entered_again():
    off = torchriemann.use_kernels(False)
    with off:
        with off:
            assert current_path() == PLAIN
        assert current_path() == PLAIN
    assert current_path() == AUTO
    with off:
        assert current_path() == PLAIN
    assert current_path() == AUTO


def test_switch_as_a_decorator():
    @torchriemann.use_kernels(False)
    def path(depth):
        return path(depth - 1) if depth else current_path()

    assert current_path() == AUTO
    assert path(0) == path(2) == PLAIN
    assert current_path() == AUTO


@pytest.mark.parametrize("wrong", [0, 1, None, "False", torch.tensor(True)])
def test_switch_takes_a_bool(wrong):
    with pytest.raises(TypeError, match="use_kernels"):
        torchriemann.use_kernels(wrong)
    assert current_path() == AUTO


def test_switch_inside_of_a_compiled_function():
    def switched(x, y):
        with torchriemann.use_kernels(False):
            d = kernels.poincare_dist(x, y, K)
        torchriemann.use_kernels(False)
        return d + torchriemann.use_kernels(False)(kernels.poincare_dist)(x, y, K)

    x, y = operands("poincare_dist", 4)
    actual = torch.compile(switched, backend="eager", fullgraph=True)(x, y)
    close(actual, 2 * plain("poincare_dist")(x, y, K))
    assert current_path() == AUTO


def test_backward_follows_its_forward():
    inputs = leaves(operands("lorentz_dist", 4), curvature())
    with forced(OPERATOR):
        value = kernels.lorentz_dist(*inputs)
    with torchriemann.use_kernels(False), Calls() as calls:
        value.sum().backward()
    assert calls.counts["torchriemann.lorentz_dist_backward.default"] == 1


@pytest.mark.parametrize("space", ["lorentz", "poincare"])
def test_coincident_points_and_the_origin(space):
    x = operands(f"{space}_dist", 4)[0]
    x[0] = 0
    x = x.nan_to_num()
    k = curvature().requires_grad_()
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    d = fused(f"{space}_dist")(a, b, k)
    assert not d.any()
    for gradient in torch.autograd.grad(d.sum(), (a, b, k)):
        assert not gradient.any()
    for name in (f"{space}_log", f"{space}_exp"):
        second = b if name.endswith("log") else torch.zeros_like(b, requires_grad=True)
        gradients = torch.autograd.grad(fused(name)(a, second, k).sum(), (a, second, k))
        assert all(g.isfinite().all() for g in gradients)


def test_distance_keeps_its_gradient_at_large_radius():
    # Of two points that lie 0.01 apart at radius 12, autograd through the formula is the less accurate.
    mpmath = pytest.importorskip("mpmath")
    generator = torch.Generator().manual_seed(0)
    e = torch.nn.functional.normalize(torch.randn(2, 3, dtype=DTYPE, generator=generator), dim=-1)
    x, y = math.sinh(12.0) * e[0], math.sinh(11.9) * torch.nn.functional.normalize(e[0] + 2e-6 * e[1], dim=0)
    rows = [torch.cat([torch.zeros(1, dtype=DTYPE), s]).requires_grad_() for s in (x, y)]
    actual = torch.autograd.grad(kernels.lorentz_dist(*rows, -1.0), rows[0])[0][1:]
    with mpmath.workdps(60):
        s, q = ([mpmath.mpf(v) for v in row.tolist()] for row in (x, y))
        t, w = (mpmath.sqrt(1 + sum(v * v for v in row)) for row in (s, q))
        c = t * w - sum(a * b for a, b in zip(s, q, strict=True))
        exact = [(w / t * a - b) / mpmath.sqrt(c * c - 1) for a, b in zip(s, q, strict=True)]
        off = [mpmath.mpf(v) - b for v, b in zip(actual.tolist(), exact, strict=True)]
        radial = sum(a * b for a, b in zip(off, s, strict=True))
        error = mpmath.sqrt(sum(v * v for v in off) + radial**2)  # in the cotangent norm
    assert error < 1e-9


def test_functional_call_through_a_module():
    class Pull(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.anchor = torch.nn.Parameter(operands("poincare_dist", 4)[0])

        def forward(self, x):
            return kernels.poincare_dist(self.anchor, x, K).sum()

    module, x = Pull(), operands("poincare_dist", 4)[1]
    parameters = dict(module.named_parameters())
    gradient = grad(lambda p: functional_call(module, p, (x,)))(parameters)
    module(x).backward()
    close(gradient["anchor"], module.anchor.grad)


@pytest.mark.parametrize("first, second", list(itertools.product([AUTO, OPERATOR], repeat=2)))
def test_paths_agree_within_one_graph(first, second):
    x, y = leaves(operands("lorentz_log", 4), curvature())[:2]
    with forced(first):
        u = kernels.lorentz_log(x, y, K)
    with forced(second):
        back = kernels.lorentz_exp(x, u, K)
    close(back[..., 1:], y[..., 1:])
    gradient = torch.autograd.grad(back.sum(), y)[0]
    rows = y[..., 1:] / (y[..., 1:].square().sum(-1, keepdim=True) - 1 / K).sqrt()
    close(gradient[..., 1:], 1 + rows)
