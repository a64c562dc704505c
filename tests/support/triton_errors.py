"""Runs the Triton kernels and prints their errors: `python triton_errors.py cuda`, or on a CPU by the interpreter of
Triton, `TRITON_INTERPRET=1 python triton_errors.py cpu`. That choice holds for a whole process, hence a script. With
`few` after that, a part of the cases: one width a tile holds exactly and one it does not, and each kind of operand.

Every line printed is a JSON object: the case, and the largest error of the value and of each gradient, row by row
relative to the largest entry of the row, in units of the dtype's eps; gradients on the sphere relative to that of the
cotangent if that is larger, since they may be what is left of it. The reference is the plain formula in float64, and
autograd through it. A last line tells of exponentials in the ball that go as far as float32 does.
"""

import json
import math
import sys

import torch

from torchriemann.manifolds import kernels
from torchriemann.manifolds.functional import lorentz, poincare, sphere
from torchriemann.manifolds.kernels import triton_rows
from torchriemann.manifolds.kernels.switch import AUTO, TRITON, forced

DEVICE, FEW = sys.argv[1], sys.argv[2:] == ["few"]
SPACES = {"lorentz": lorentz, "poincare": poincare, "sphere": sphere}
OPERATIONS = {space: ("exp", "log", "dist", "transport") for space in SPACES} | {
    "sphere": ("exp", "log", "dist", "dist2", "transport")
}
NAMES = [f"{space}_{name}" for space, names in OPERATIONS.items() for name in names]
WIDTHS = (3, 64) if FEW else (2, 3, 5, 33, 64, 129)
LENGTHS = (0.0, 1e-8, 1e-3, 1.0, 20.0)


def plain(name):
    return getattr(SPACES[name.split("_")[0]], name)


def of_space(name, k):
    """The curvature `k` < 0, or on a sphere its opposite."""
    return -k if name.startswith("sphere") else k


def directions(generator, rows, width):
    e = torch.randn(rows, width, dtype=torch.float64, generator=generator)
    return e / e.norm(dim=-1, keepdim=True)


def points(space, generator, lengths, width, k):
    """Points at these distances from the origin, times sqrt(|K|)."""
    radius = torch.as_tensor(lengths, dtype=torch.float64)[:, None]
    if space == "sphere":
        radius = radius.clamp(max=3.1)
        return torch.cat([radius.cos(), radius.sin() * directions(generator, len(lengths), width - 1)], -1) / k**0.5
    e = directions(generator, len(lengths), width) / math.sqrt(-k)
    if space == "poincare":
        return (radius.clamp(max=14) / 2).tanh() * e  # the last that float32 tells from the rim
    return torch.cat([torch.full_like(radius, float("nan")), radius.sinh() * e], -1)  # the time is never read


def vectors(x, space, generator, lengths, width, k):
    """Tangent vectors at x of these lengths, times sqrt(|K|)."""
    if space == "sphere":
        e = directions(generator, len(lengths), width)
        e = e - k * (x * e).sum(-1, keepdim=True) * x
        return torch.as_tensor(lengths, dtype=torch.float64)[:, None] * e / e.norm(dim=-1, keepdim=True) / k**0.5
    e = torch.as_tensor(lengths, dtype=torch.float64)[:, None] * directions(generator, len(lengths), width)
    e = e / math.sqrt(-k)
    if space == "poincare":
        return e * (1 + k * x.square().sum(-1, keepdim=True)) / 2
    s = x[:, 1:]
    t = (s.square().sum(-1, keepdim=True) - 1 / k).sqrt()
    along = (s * e).sum(-1, keepdim=True) * math.sqrt(-k)
    return torch.cat([along, e + along / (t + 1 / math.sqrt(-k)) * s], -1)


def operands(name, seed, width, k, lengths=LENGTHS):
    """Every pair of lengths, in directions at random, as far as float32 can tell the rows of a case apart.

    At radius r a tangent vector in Lorentz coordinates is rounded by exp(r) eps of its length: such rows have bases up
    to radius 4. A point of the ball ends at radius 16, and so do the exponentials.
    """
    space, kind = name.split("_")
    generator = torch.Generator().manual_seed(seed)
    first, second = zip(*[(a, b) for a in lengths for b in lengths], strict=True)
    if space == "lorentz" and kind in ("exp", "transport"):
        first = [min(a, 4.0) for a in first]
    x = points(space, generator, first, width, k)
    if kind == "exp":
        if space == "poincare":
            second = [min(b, 15 - min(a, 14.0)) for a, b in zip(first, second, strict=True)]
        return [x, vectors(x, space, generator, second, width, k)]
    y = points(space, generator, second, width, k)
    return [x, y] if kind != "transport" else [x, y, vectors(x, space, generator, [1.0] * len(first), width, k)]


def error(actual, expected, least=None):
    info = torch.finfo(actual.dtype)
    difference, scale = (actual.double() - expected).abs(), expected.abs()
    if least is not None:
        scale = torch.maximum(scale, least.double().abs().expand_as(scale))
    if expected.dim() > 1:
        difference, scale = difference.amax(-1), scale.amax(-1)
    # The reference's own rounding, where it should be zero, and that of numbers next to zero.
    none, eps = difference < max(1e-15, info.tiny * info.eps), info.eps
    return (torch.where(none, 0.0, difference) / torch.where(none, 1.0, scale) / eps).max().item()


def compare(name, tensors, k, **case):
    """Print the errors of one call of the kernel, and of its backward pass."""
    tensors = [t.to(DEVICE) for t in tensors]
    k = k if isinstance(k, float) else k.to(DEVICE)
    inputs = [t.detach().requires_grad_() for t in tensors]
    wide = [t.detach().double().requires_grad_() for t in tensors]
    shape = torch.broadcast_shapes(*[t.shape for t in tensors])
    # One curvature a row, for its gradient row by row.
    rows = torch.full(shape[:-1], float(k), dtype=torch.float64, device=DEVICE, requires_grad=True)
    flat = [t.expand(shape).reshape(-1, shape[-1]) for t in wide]
    expected = torch.vmap(plain(name))(*flat, rows.reshape(-1)).reshape(
        shape[:-1] + (() if "dist" in name else shape[-1:])
    )
    expected = expected + 0 * rows.sum()  # the transport of the sphere depends on no curvature
    k = k if isinstance(k, float) else k.detach().requires_grad_()
    with forced(TRITON if DEVICE == "cpu" else AUTO):
        value = getattr(kernels, name)(*inputs, k)
        generator = torch.Generator().manual_seed(1)
        g = torch.randn(value.shape, dtype=torch.float64, generator=generator).to(value)
        gradients = torch.autograd.grad(value, [*inputs, k] if isinstance(k, torch.Tensor) else inputs, g)
    slopes = torch.autograd.grad(expected, [*wide, rows], g.double())
    errors = {"value": error(value.detach(), expected.detach())}
    least = g if name.startswith("sphere") and value.shape == shape else None
    for label, a, b in zip(("first", "second", "third"), gradients[: len(wide)], slopes, strict=False):
        errors[label] = error(a, b, least if least is not None and a.shape == shape else None)
    if isinstance(k, torch.Tensor):
        single = torch.finfo(torch.float32).eps
        errors["curvature"] = (
            abs(gradients[-1].item() - slopes[-1].sum().item()) / max(slopes[-1].abs().sum().item(), 1e-300) / single
        )
    print(json.dumps({"name": name, **case, "dtype": str(value.dtype), "errors": errors}), flush=True)


def far_exponentials():
    """Print the least conformal gap of exponentials of long vectors, also of those whose square overflows, and whether
    any of them or of their gradients is not finite."""
    least, lost = math.inf, False
    for width, k in ((3, -1.0),) if FEW else ((2, -0.7), (3, -1.0), (7, -1.0), (33, -2.3)):
        generator = torch.Generator().manual_seed(width)
        radii = [a for a in (0.0, 1.0, 10.0, 14.0) for _ in range(150 if FEW else 600)]
        x = points("poincare", generator, radii, width, k)
        for length in (20.0, 60.0, 1e4, 1e18, 1e22):
            u = length * directions(generator, len(radii), width)
            inputs = [a.float().to(DEVICE).requires_grad_() for a in (x, u)]
            curvature = torch.tensor(k, device=DEVICE, requires_grad=True)
            with forced(TRITON if DEVICE == "cpu" else AUTO):
                y = kernels.poincare_exp(*inputs, curvature)
                gradients = torch.autograd.grad(y.sum(), (*inputs, curvature))
            lost |= not all(a.isfinite().all().item() for a in (y, *gradients))
            least = min(least, (1 + curvature.double() * y.double().square().sum(-1)).min().item())
    print(json.dumps({"least gap": least, "lost": lost}), flush=True)


def main():
    if DEVICE == "cpu":
        triton_rows.TILE = 4096  # the interpreter takes its time by program: fewer, larger ones
    for name in NAMES:
        for width in WIDTHS:
            k = of_space(name, torch.tensor(-0.7 if width % 2 else -2.3))
            tensors = [t.float() for t in operands(name, width, width, float(k))]
            compare(name, tensors, k, case=f"width {width}")
        for dtype in (torch.bfloat16,) if FEW else (torch.bfloat16, torch.float16):
            k = of_space(name, -1.3)
            tensors = [t.to(dtype) for t in operands(name, 0, 33, k, (0.0, 1e-3, 1.0, 3.0))]
            compare(name, tensors, torch.tensor(k), case=f"{dtype}")
        k = of_space(name, -0.7)
        tensors = [t.float() for t in operands(name, 1, 5, k)]
        compare(name, tensors, k, case="a number as curvature")
        if not FEW:
            compare(name, [t.t().contiguous().t() for t in tensors], torch.tensor(k), case="columns apart")
            rows = [torch.stack([t, t])[0:1, ::2] for t in tensors]
            compare(name, rows, torch.tensor(k), case="every second row")
        compare(name, [tensors[0][:, None], *[t[None, :3] for t in tensors[1:]]], torch.tensor(k), case="broadcast")
    far_exponentials()
    assert all(f"{kernels.__name__}.triton_{space}" in sys.modules for space in SPACES)


if __name__ == "__main__":
    main()
