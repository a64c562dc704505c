"""Frames and rotations that are not finite, long or without a nearest frame, beside others that are none of it."""

import pytest
import torch

from torchriemann.manifolds import Grassmann, Orthogonal, SpecialOrthogonal, Stiefel
from torchriemann.manifolds.functional.nearest_frame import nearest_frame

F64 = torch.float64
BAD = [torch.nan, torch.inf]
G = Grassmann()


def noise(*size, seed=0, dtype=F64):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def points(m, *size, seed=0, dtype=F64):
    return m.random(*size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ---- matrices that LAPACK refuses: larger than those of the laws ----------------------------------------------


def lifted(x, y):
    return 0.1 * G.proju(x, y)


LARGE = {
    "principal_angles": (G, (20, 8), G.principal_angles),
    "dist": (G, (20, 8), G.dist),
    "logmap": (G, (20, 8), G.logmap),
    "parallel_transport": (G, (20, 8), lambda x, y: G.parallel_transport(x, y, lifted(x, y))),
    "logdet_dexp": (G, (20, 8), lambda x, y: G.logdet_dexp(x, lifted(x, y))),
    "basis": (G, (12, 8), lambda x, y: G.basis(x)),
    "chordal_mean": (G, (20, 8), lambda x, y: G.chordal_mean(torch.stack([x, y]))),
    "log_is_unique": (G, (20, 8), lambda x, y: G.log_is_unique(x, y).to(F64)),
    "projx of frames": (G, (20, 8), lambda x, y: G.projx(x + y)),
    "projx of O(n)": (Orthogonal(), (12, 12), lambda x, y: Orthogonal().projx(x + 2 * y)),
    "projx of SO(n)": (SpecialOrthogonal(), (12, 12), lambda x, y: SpecialOrthogonal().projx(x + 2 * y)),
    "dist of SO(n)": (SpecialOrthogonal(), (12, 12), SpecialOrthogonal().dist),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", LARGE)
def test_large_matrices_that_are_not_finite_spoil_themselves_alone(name, bad):
    m, shape, function = LARGE[name]
    x, y = points(m, 4, *shape), points(m, 4, *shape, seed=1)
    wanted = values_and_gradients(function, x, y)
    x[1, 3, 3], y[2] = bad, bad
    kept = torch.tensor([0, 3])
    for got, want in zip(values_and_gradients(function, x, y), wanted, strict=True):
        torch.testing.assert_close(got[kept], want[kept], rtol=0, atol=1e-10)
        assert want[kept].isfinite().all()
    assert name == "log_is_unique" or not function(x, y)[1].isfinite().all()
    vmapped = torch.func.vmap(function)(x, y)
    torch.testing.assert_close(vmapped[kept], function(x, y)[kept], rtol=0, atol=1e-10)


def values_and_gradients(function, x, y):
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    out = function(x, y)
    if not out.requires_grad:
        return [out]
    return [out.detach(), *torch.autograd.grad(out.cos().sum(), (x, y), materialize_grads=True)]


# ---- neighbours that are long themselves ----------------------------------------------------------------------


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("m", [Stiefel(), Stiefel(1.0, "qr"), Stiefel(0.5, "cayley"), G, Grassmann("qr")], ids=repr)
def test_a_long_step_beside_a_bad_one_is_the_step_alone(m, bad):
    for dtype in (torch.float32, F64):
        for length in (1.0, 1e2, 1e4, 1e7, 1e9):
            x = points(m, 3, 6, 3, dtype=dtype)
            u = m.proju(x, noise(3, 6, 1, dtype=dtype) @ noise(3, 1, 3, seed=1, dtype=dtype))
            u = u * torch.tensor([length, 1.0, 1.0], dtype=dtype)[:, None, None]
            want = m.retr(x, u)
            u[1, 2, 2] = bad
            got = m.retr(x, u)
            assert got[1].isnan().any()
            torch.testing.assert_close(
                got[[0, 2]], want[[0, 2]], rtol=0, atol=100 * torch.finfo(dtype).eps, equal_nan=True
            )


# ---- matrices without a nearest frame -------------------------------------------------------------------------

DEGENERATE = {
    "zero": torch.zeros(5, 3),
    "rank one": noise(5, 1) @ noise(1, 3, seed=1),
    "equal columns": noise(5, 1).expand(5, 3),
    "a zero column": noise(5, 3) * torch.tensor([1.0, 0.0, 1.0]),
    "square": noise(4, 2) @ noise(2, 4, seed=1),
    "square zero": torch.zeros(3, 3),
}


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("name", DEGENERATE)
def test_projx_has_derivatives_where_no_frame_is_nearest(name, dtype):
    x = DEGENERATE[name].to(F64)
    manifolds = [Stiefel(), G, *([Orthogonal(), SpecialOrthogonal()] if "square" in name else [])]
    for m in manifolds:
        batch = torch.stack([x, noise(*x.shape, seed=3)]).to(dtype)
        if name in ("rank one", "square"):
            batch[0] = (batch[0] * 64).round() / 64 if dtype == F64 else batch[0]
        leaf = batch.clone().requires_grad_()
        y = m.projx(leaf)
        assert m.check_point_on_manifold(y.detach())
        weight = noise(*x.shape, seed=4).to(dtype)
        (first,) = torch.autograd.grad((y * weight).sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), leaf)
        alone = batch[1].clone().requires_grad_()
        (want,) = torch.autograd.grad((m.projx(alone) * weight).sum(), alone)
        torch.testing.assert_close(first[1].detach(), want, rtol=0, atol=1e3 * torch.finfo(dtype).eps)
        assert first.isfinite().all() and second.isfinite().all()
        if "zero" in name.split() and "column" not in name:
            assert (first[0] == 0).all() and (second[0] == 0).all()


def test_no_derivative_in_the_directions_that_vanish():
    """At rank r, the derivative is that of the map among matrices of rank r."""
    left, right = (torch.linalg.qr(noise(n, 2, seed=n))[0] for n in (6, 3))
    sizes = torch.tensor([2.0, 0.5], dtype=F64)
    x = (left * sizes) @ right.mT
    e, h = left @ noise(2, 2) @ right.mT, 1e-6

    def frame(z):  # of rank two, whose nearest partial isometry is unique
        u, _, v = torch.linalg.svd(z, full_matrices=False)
        return u[:, :2] @ v[:2]

    moved = torch.func.jvp(nearest_frame, (x,), (e,))[1]
    quotient = (frame(x + h * e) - frame(x - h * e)) / (2 * h)
    torch.testing.assert_close(moved, quotient, rtol=0, atol=1e-8)
    across = torch.eye(6, dtype=F64)[:, :3] - left @ (left.mT @ torch.eye(6, dtype=F64)[:, :3])
    across = across - across @ right @ right.mT
    assert torch.func.jvp(nearest_frame, (x,), (across,))[1].abs().max() < 1e-12


@pytest.mark.parametrize("shape", [(5, 3), (4, 4), (6, 1)])
def test_derivatives_of_the_nearest_frame(shape):
    x = noise(2, *shape).requires_grad_()
    assert torch.autograd.gradcheck(nearest_frame, x, check_forward_ad=True, check_batched_grad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(
        nearest_frame, x, check_fwd_over_rev=True, check_batched_grad=True, fast_mode=True
    )
    first = torch.autograd.grad(nearest_frame(x).sin().sum(), x, create_graph=True)[0]
    second = torch.autograd.grad(first.sin().sum(), x, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="third"):
        torch.autograd.grad(second.sum(), x)


@pytest.mark.parametrize("order", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_compiled_nearest_frame_has_its_derivatives_beside_bad_items(order):
    def total(z):
        return nearest_frame(z).sin().sum()

    def everything(x, stack):
        values = [nearest_frame(stack), torch.func.vmap(nearest_frame)(stack), torch.func.grad(total)(stack)]
        return *(v[[0, 2]] for v in values), *([torch.func.hessian(total)(x)] if order == 2 else [])

    stack = noise(3, 4, 2)
    stack[1, 0, 0] = torch.nan
    torch.compiler.reset()
    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(stack[0], stack), everything(stack[0], stack), strict=True):
        assert want.isfinite().all()
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    torch.compiler.reset()
