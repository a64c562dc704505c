"""The Triton kernels against the plain formulas in float64: on a CPU by Triton's interpreter, and on a GPU if there is
one. The cases, and how errors are measured, are in triton_errors.py."""

import importlib
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from torchriemann.manifolds import kernels

triton = pytest.importorskip("triton")
TILE = 512
SCRIPT = Path(__file__).parents[1] / "support" / "triton_errors.py"
OPERATIONS = {space: ("exp", "log", "dist", "transport") for space in ("lorentz", "poincare")} | {
    "sphere": ("exp", "log", "dist", "dist2", "transport")
}
NAMES = [f"{space}_{name}" for space, names in OPERATIONS.items() for name in names]
CASES, FEW = 12, 5  # of each operation

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def bar(name, quantity):
    """The largest error allowed, in units of eps. A tangent vector at radius 4 is rounded by exp(4) eps of its length;
    the gradients of a logarithm have parts that are longer by the distance, 20, than what remains of them."""
    if quantity == "value":
        return 2 * math.exp(4) if name in ("lorentz_exp", "lorentz_transport") else 6
    if quantity == "curvature":
        return 32
    return 8 if "dist" in name else 128


def check(device, *grid):
    environment = {**os.environ, "TRITON_INTERPRET": "1" if device == "cpu" else "0"}
    done = subprocess.run([sys.executable, SCRIPT, device, *grid], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *lines, far = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["name"] for line in lines] == [name for name in NAMES for _ in range(FEW if grid else CASES)]
    too_large = [
        (line["name"], line["case"], quantity, error)
        for line in lines
        for quantity, error in line["errors"].items()
        if not error <= bar(line["name"], quantity)  # in this sense NaN is one
    ]
    assert not too_large
    assert far["least gap"] > 0  # nothing leaves the ball
    assert not far["lost"]


def test_interpreted_on_a_cpu():
    check("cpu", "few")


@pytest.mark.slow
def test_interpreted_on_a_cpu_in_full():
    check("cpu")


def kernels_of(space):
    module = importlib.import_module(f"{kernels.__name__}.triton_{space}")
    return [getattr(module, f"_{name}{pass_}") for name in OPERATIONS[space] for pass_ in ("", "_backward")]


def arguments(kernel, block):
    types = {"_ptr": "*fp32", "_stride": "i32", "high": "fp32", "low": "fp32", "n": "i32", "width": "i32"}
    signature = {
        name: next(
            (kind for end, kind in types.items() if name == end or (end[0] == "_" and name.endswith(end))), "constexpr"
        )
        for name in kernel.arg_names
    }
    return signature, {"OPTION_IS_TENSOR": True, "ROWS": max(1, TILE // block), "BLOCK": block}


def compiled(kernel, block):
    """Machine code, which needs no GPU; of what the interpreter lets pass, the compiler does not."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    options = {"num_warps": 4, "enable_fp_fusion": True}
    return triton.compile(
        ASTSource(kernel, *arguments(kernel, block)), target=GPUTarget("cuda", 80, 32), options=options
    )


@pytest.mark.parametrize("space", OPERATIONS)
def test_compiles_without_a_gpu(space):
    assert compiled(kernels_of(space)[-1], 16).asm["cubin"]


@pytest.mark.slow
@pytest.mark.parametrize("block", [16, 64, 512, 1024])
@pytest.mark.parametrize("space", OPERATIONS)
def test_registers_suffice(space, block, tmp_path):
    for kernel in kernels_of(space):
        file = tmp_path / "kernel.cubin"
        file.write_bytes(compiled(kernel, block).asm["cubin"])
        report = subprocess.run(
            [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file], capture_output=True, text=True, check=True
        )
        stacks = re.findall(r"STACK:(\d+)", report.stdout)  # bytes a thread; a call takes a few without a spill
        assert stacks and all(int(stack) <= 16 for stack in stacks)


@needs_gpu
def test_compiled_on_a_gpu():
    check("cuda")


@needs_gpu
@pytest.mark.parametrize("name", NAMES)
def test_the_host_does_not_wait_for_the_device(name):
    rows = [0.1 * torch.randn(64, 17, device="cuda") for _ in range(3 if name.endswith("transport") else 2)]
    k = 1.0 if name.startswith("sphere") else -1.0
    inputs = [x.requires_grad_() for x in (*rows, torch.tensor(k, device="cuda"))]
    run = getattr(kernels, name)
    torch.autograd.grad(run(*inputs).sum(), inputs)  # compiles
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.autograd.grad(run(*inputs).sum(), inputs)
    finally:
        torch.cuda.set_sync_debug_mode(before)


@needs_gpu
@pytest.mark.parametrize("name", NAMES)
def test_one_launch_a_pass(name):
    rows = [0.1 * torch.randn(64, 17, device="cuda") for _ in range(3 if name.endswith("transport") else 2)]
    run, k = getattr(kernels, name), 1.0 if name.startswith("sphere") else -1.0
    run(*rows, k)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run(*rows, k)
        torch.cuda.synchronize()
    launched = [e for e in profile.events() or () if "CUDA" in str(e.device_type)]
    assert len(launched) == 1


@needs_gpu
def test_what_has_no_kernel_is_computed_all_the_same():
    for dtype, width in ((torch.float64, 17), (torch.float32, 5000)):
        x, y = (0.01 * torch.randn(8, width, device="cuda", dtype=dtype) for _ in range(2))
        value = kernels.poincare_dist(x, y, -1.0)
        torch.testing.assert_close(value.cpu(), kernels.poincare_dist(x.cpu(), y.cpu(), -1.0))
