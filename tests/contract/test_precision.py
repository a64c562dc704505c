"""The policy of precision: what it promotes, what it casts, and that it is stated once."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from torchriemann.manifolds import Lorentz, Sphere
from torchriemann.manifolds.operation import operation
from torchriemann.manifolds.precision import in_full_precision, widen

ROOT = Path(__file__).resolve().parents[2]
F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64


@in_full_precision
def seen(*args, **kwargs):
    """What arrives inside: the dtypes, and whether autocast is on; and a number, to see what it is cast to."""
    dtypes = [a.dtype for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
    return torch.ones(3, dtype=dtypes[0] if dtypes else F32), dtypes, torch.is_autocast_enabled("cpu")


def ones(dtype, *size, device=None):
    return torch.ones(size, dtype=dtype, device=device)


@pytest.mark.parametrize(
    ("given", "inside", "outside"),
    [
        ((BF16,), F32, BF16),
        ((F16,), F32, F16),
        ((F32,), F32, F32),
        ((F64,), F64, F64),
        ((BF16, F16), F32, F32),  # as torch promotes them
        ((BF16, F32), F32, F32),
        ((F64, BF16), F64, F64),
        ((F32, F64), F64, F64),
    ],
)
def test_arguments_come_in_one_dtype_and_results_go_in_the_callers(given, inside, outside):
    for result, dtypes, _ in (
        seen(*(ones(d, 2) for d in given)),
        seen(**{f"t{i}": ones(d, 2) for i, d in enumerate(given)}),
    ):
        assert dtypes == [inside] * len(given) and result.dtype == outside
    assert widen(*given) == widen(*(ones(d, 2) for d in given)) == inside


def test_numbers_in_tensors_promote_nothing_unless_there_is_nothing_else():
    assert seen(ones(F32, 2), ones(F64))[0].dtype == F32
    assert seen(ones(BF16, 2), ones(F64))[:2][1] == [F32, F32]
    assert seen(ones(F64), ones(F32))[0].dtype == F64


def test_what_is_no_real_number_is_left_alone():
    assert seen(ones(torch.int64, 2), "a", None)[1] == [torch.int64]
    assert seen(ones(torch.complex64, 2), ones(BF16, 2))[1] == [torch.complex64, F32]
    assert seen()[1] == [] and seen("a", b=1)[1] == []


def test_tuples_are_cast_too():
    @in_full_precision
    def f(x, pair):
        assert pair[0].dtype == x.dtype == F32
        return x, (pair[0], "a")

    x, (y, a) = f(ones(BF16, 2), (ones(BF16, 2), 1))
    assert x.dtype == y.dtype == BF16 and a == "a"


def test_autocast_is_off_inside_and_on_again_outside():
    with torch.autocast("cpu", BF16):
        result, dtypes, on = seen(ones(F32, 2))
        assert torch.is_autocast_enabled("cpu")
    assert not on and dtypes == [F32] and result.dtype == F32


def test_meta_tensors():
    with torch.autocast("cpu", BF16):
        assert seen(ones(BF16, 2, device="meta"))[:2][1] == [F32]


@pytest.mark.parametrize("position", [0, 1, "keyword"])
def test_a_manifold_comes_in_the_dtype_wherever_it_stands(position):
    @in_full_precision
    def inside(*args, **kwargs):
        (m,) = [a for a in (*args, *kwargs.values()) if not isinstance(a, torch.Tensor)]
        return m.curvature.dtype

    m = Sphere(torch.tensor(2.0))
    for given, wanted in ((F64, F64), (F32, F32), (BF16, F32)):
        x = ones(given, 2)
        got = inside(x, m=m) if position == "keyword" else inside(*((m, x) if position == 0 else (x, m)))
        assert got == wanted
    assert m.curvature.dtype == F32


def test_an_operation_takes_its_options_in_the_dtype_of_the_points():
    @operation
    def probe(self, x, *, option=None):
        return x, self.curvature.dtype, option

    k, option = torch.tensor(1.0, dtype=F32), ones(F64, 2)
    assert probe(Sphere(k), ones(F64, 3))[1] == F64
    x, inside, _ = probe(Sphere(k), ones(BF16, 3), option=option)  # an option promotes nothing
    assert x.dtype == BF16 and inside == F32


class Scale(nn.Module):
    def __init__(self, dtype, buffer=None):
        super().__init__()
        self.weight = nn.Parameter(ones(dtype, 2))
        self.register_buffer("count", ones(buffer or dtype, 2))

    @in_full_precision
    def forward(self, x):
        self.inside = x.dtype
        return x * self.weight.to(x.dtype)

    @in_full_precision
    def norm(self):
        return self.weight.to(widen(self.weight)).norm()


@pytest.mark.parametrize(
    ("weight", "buffer", "x", "inside"),
    [
        (F32, F32, BF16, F32),
        (F64, F64, F32, F64),
        (BF16, BF16, BF16, F32),
        (BF16, F32, F64, F64),
        (F32, F64, F32, F64),
        (F32, torch.int64, F32, F32),
    ],
)
def test_a_module_computes_in_the_wider_of_its_own_dtype_and_the_inputs(weight, buffer, x, inside):
    module = Scale(weight, buffer)
    y = module(ones(x, 2))
    assert module.inside == inside and y.dtype == x


def test_a_module_without_an_argument_answers_in_its_own_dtype():
    assert Scale(BF16).norm().dtype == BF16 and Scale(F64).norm().dtype == F64


def test_gradients_come_in_the_dtype_of_what_they_are_of():
    x = ones(BF16, 3).requires_grad_()
    k = torch.tensor(-0.5, dtype=F64, requires_grad=True)
    Lorentz(k).from_normal(x).sum().backward()
    assert x.grad.dtype == BF16 and k.grad.dtype == F64 and k.grad.isfinite()


POLICY = re.compile(r"promote_types\(.*float32\)|torch\.autocast\(|is_autocast_enabled|to\(torch\.float32\)")


def test_the_policy_is_stated_once():
    """Whoever needs it takes `widen` or `in_full_precision`."""
    sources = [p for folder in ("manifolds", "layers", "optim") for p in sorted((ROOT / folder).rglob("*.py"))]
    assert len(sources) > 50
    stated = {p.relative_to(ROOT).as_posix() for p in sources if POLICY.search(p.read_text())}
    assert stated == {"manifolds/precision.py"}
    halves = [p.relative_to(ROOT).as_posix() for p in sources if re.search(r"^HALF_DTYPES =", p.read_text(), re.M)]
    assert halves == ["manifolds/precision.py"]
