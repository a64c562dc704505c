"""What operations give in the dtypes of few digits, and of points that are rounded to them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from torchriemann.manifolds.gyro import GyroManifold
from torchriemann.manifolds.precision import GIVING_POINTS, HALF_DTYPES

from . import operations
from .trial import Trial, law

_POINTS = "xyrpqs"  # the letters of arguments that are points


@law("precision", float64=0.0, examples=1)
def half_precision_is_computed_in_single(t: Trial) -> None:
    """bfloat16 and float16 arguments: no operation raises, the result has the caller's dtype and is finite, and one
    that is a point is a point in that dtype; so are random points, and those that `round_to` rounds."""
    t.scale = max(t.scale, 0.5)  # smaller vectors may round to zero, which spans no plane
    m, arguments = t.manifold, t.arguments((3,))
    for dtype in HALF_DTYPES:
        half = {k: m.round_to(a, dtype) if k in _POINTS else a.to(dtype) for k, a in arguments.items()}
        for name in operations.operations_of(t.case):
            outputs = operations.call(t, name, half)
            for out in outputs:
                t.require(out.dtype in (dtype, torch.bool), f"{name} of {dtype} gives {out.dtype}")
                t.require(out.isfinite().all(), f"{name} of {dtype} is not finite")
            if name in GIVING_POINTS:
                t.is_point(outputs[0], f"{name} of {dtype}")
        size, drawn = (3, *t.shape), {"generator": t.generator}
        for label, x in (
            ("random", m.random(*size, **drawn, dtype=dtype)),
            ("a random point rounded", m.round_to(m.random(*size, **drawn, dtype=torch.float32), dtype)),
            ("projx of noise", m.projx(half["g"])),
        ):
            t.require(x.dtype == dtype, f"{label} is {x.dtype} instead of {dtype}")
            t.is_point(x, f"{label}, {dtype},")


@law("precision", float64=0.0, examples=1)
def tangents_have_the_dtype_of_their_values(t: Trial) -> None:
    """`torch.func.jvp` of what a loss is trained through, in float32: torch itself has operations that give tangents in
    float64 there."""
    arguments = {
        k: t.manifold.round_to(a, torch.float32) if k in _POINTS else a.float() for k, a in t.arguments().items()
    }
    for name, letters in operations.smooth(t.case).items():
        at = tuple(arguments[k] for k in letters)

        def function(*values: Tensor, name=name, letters=letters) -> tuple[Tensor, ...]:
            return operations.call(t, name, dict(zip(letters, values, strict=True)))

        values, tangents = torch.func.jvp(function, at, tuple(t.noise(*a.shape).float() for a in at))[:2]
        for value, tangent in zip(values, tangents, strict=True):
            t.require(tangent.dtype == value.dtype, f"of {name}: {tangent.dtype} of {value.dtype}")


@law("precision", float64=0.0, examples=1, about=GyroManifold)
def far_results_are_points_in_their_dtype(t: Trial) -> None:
    """Of points up to four times as far from the origin as the row reaches, operations in bfloat16 and float16 give
    points in that dtype, and so does `round_to`, to float32 too: they have finite normal coordinates and distances.
    What is in the dtype already is not moved. Under vmap operations give the same. Gradients are finite in bfloat16;
    in float16 the gradient of a distance in a point next to a rim may be larger than any number."""
    m: Any = t.manifold
    o = m.origin(*t.shape, dtype=t.dtype)
    for dtype in (*HALF_DTYPES, torch.float32):
        z = [_far(t, o) for _ in range(3)]
        points = [m.round_to(m.from_normal(a), dtype) for a in z]
        for x in points:
            _holds(t, m, x, f"round_to {dtype}")
            t.require(torch.equal(m.round_to(x, dtype), x), f"round_to moves a point that is in {dtype}")
            t.require(torch.equal(m.round_to(x.to(t.dtype), dtype), x), f"round_to moves a point of {dtype} in another")
        if dtype not in HALF_DTYPES:
            continue
        n, u = z[0].to(dtype), m.tangent_from_normal(z[0]).to(dtype)
        near = m.round_to(o, dtype).expand_as(points[0])
        r = torch.tensor(0.7, dtype=dtype).expand(3)
        made = dict(zip("pqs", points, strict=True))
        made = {**made, "n": n, "a": u, "u": u, "v": u, "x": near, "y": points[1], "t": r}
        every = operations.operations_of(t.case)
        for name in (name for name in every if name in GIVING_POINTS):
            (x, *_), arguments = operations.call(t, name, made), [made[k] for k in every[name]]
            _holds(t, m, x, f"{name} of {dtype}")
            mapped = torch.func.vmap(getattr(m, name))(*arguments)
            mapped = mapped[0] if isinstance(mapped, tuple) else mapped
            t.require(torch.equal(mapped, x), f"{name} of {dtype} is not the same under vmap")
        if dtype == torch.bfloat16:
            leaf = n.clone().requires_grad_()
            (g,) = torch.autograd.grad(m.dist0(m.from_normal(leaf)).sum(), leaf)
            t.require(g.isfinite().all(), f"the gradient of dist0(from_normal(z)) of {dtype} is not finite")


def _far(t: Trial, o: Tensor) -> Tensor:
    """Normal coordinates of three points; where there is a cut locus, as near as sums allow."""
    t.scale = 1.0
    z = t.normal((3,))
    if not math.isinf(float(torch.as_tensor(t.manifold.injectivity_radius(o)).detach().min())):
        return z
    return z * torch.tensor([1.0, 2.0, 4.0], dtype=t.dtype).reshape(3, *(1,) * (z.dim() - 1))


def _holds(t: Trial, m: GyroManifold, x: Tensor, what: str) -> None:
    t.is_point(x, what)
    t.require(m.dist0(x).isfinite().all(), f"{what}: its distance from the origin is not finite")
    t.require(m.to_normal(x).isfinite().all(), f"{what}: its normal coordinates are not finite")
