"""Retractions of short and long steps: the series near the identity, where they end, and the closed derivative."""

import mpmath
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from torchriemann.manifolds import Grassmann, Orthogonal, Stiefel
from torchriemann.manifolds.functional.near_identity import (
    inverse_root_near_identity,
    inverse_triangle_near_identity,
)
from torchriemann.manifolds.kernels.frames import polar_step

F32, F64 = torch.float32, torch.float64
# Of u: on both sides of where each term begins, and where the series ends.
LENGTHS = (0.0, 1e-9, 1e-6, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def step(length, shape=(3, 9, 4), dtype=F64):
    """Points and tangent vectors of that spectral norm."""
    m = Stiefel()
    x = m.random_uniform(*shape, generator=generator(), dtype=dtype)
    u = m.random_tangent(x, generator=generator(1))
    return x, u * (length / torch.linalg.matrix_norm(u, 2, keepdim=True))


def near_identity(distance, n=5, dtype=F64):
    """A symmetric matrix I + E with |E| that distance."""
    e = torch.randn(2, n, n, generator=generator(), dtype=dtype)
    e = e + e.mT
    return torch.eye(n, dtype=dtype) + distance / torch.linalg.vector_norm(e, dim=(-2, -1), keepdim=True) * e


def largest(t):
    return t.detach().abs().max().item()


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("distance", [0.0, 1e-12, 1e-8, 1e-6, 1e-4, 1e-3, 5e-3, 0.02])
def test_the_inverse_root_is_that_of_forty_digits(distance, dtype):
    gram = near_identity(distance, dtype=dtype)
    root = inverse_root_near_identity(gram)
    if root is None:
        assert distance >= 5e-3 and dtype == F64
        return
    with mpmath.workdps(40):
        for a, got in zip(gram.double(), root.double(), strict=True):
            wanted = mpmath.inverse(mpmath.sqrtm(mpmath.matrix(a.tolist())))
            error = mpmath.matrix(got.tolist()) - wanted
            assert max(abs(e) for e in error) < torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [F32, F64])
def test_the_triangle_is_the_one_of_cholesky(dtype):
    eps = torch.finfo(dtype).eps
    for distance in (0.0, 1e-10, 0.3 * eps**0.5):
        gram = near_identity(distance, dtype=dtype)
        inverse = inverse_triangle_near_identity(gram)
        assert inverse is not None and torch.equal(inverse, inverse.triu())
        wanted = torch.linalg.cholesky(gram.double(), upper=True)
        assert largest(inverse.double() @ wanted - torch.eye(5, dtype=F64)) < eps
    assert inverse_triangle_near_identity(near_identity(eps**0.5, dtype=dtype)) is None


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
def test_what_is_not_near_is_left_to_others(bad):
    gram = near_identity(1e-6, dtype=F32)
    gram[1, 2, 2] = bad
    assert inverse_root_near_identity(gram) is None
    assert inverse_triangle_near_identity(gram) is None


def in_forty_digits(w, retraction):
    """The frame of w = x + u, rounded to float64."""
    with mpmath.workdps(40):
        w = mpmath.matrix(w.tolist())
        gram = w.T * w
        if retraction == "polar":
            values, q = mpmath.eigsy(gram)
            inverse = q * mpmath.diag([1 / mpmath.sqrt(v) for v in values]) * q.T
        else:
            inverse = mpmath.inverse(mpmath.cholesky(gram)).T
        return torch.tensor([[float(e) for e in row] for row in (w * inverse).tolist()], dtype=F64)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("retraction", ["polar", "qr"])
def test_steps_of_every_length_end_on_the_manifold_at_the_right_point(retraction, dtype):
    bound = 8 * torch.finfo(dtype).eps
    for length in LENGTHS:
        x, u = step(length, dtype=dtype)
        wanted = torch.stack([in_forty_digits(w, retraction) for w in (x + u).double()])
        for m in (Stiefel(retraction=retraction), Grassmann(retraction)):
            y = m.retr(x, u).double()
            assert largest(y.mT @ y - torch.eye(4, dtype=F64)) < bound
            assert largest(y - wanted) < bound


def test_a_thousand_steps_do_not_drift():
    m, (x, u) = Stiefel(), step(1e-3, dtype=F32)
    for _ in range(1000):
        x, u = m.retr_transp(x, u, u)
    assert largest(x.mT @ x - torch.eye(4)) < 8 * torch.finfo(F32).eps


@pytest.mark.parametrize("length", [0.0, 1e-4, 0.1, 3.0, 1e3])
def test_the_closed_derivative_of_the_polar_retraction(length):
    x, u = step(length)
    w = (x + u).requires_grad_()
    assert gradcheck(polar_step, (w,), atol=1e-5 / (1 + length))
    cotangent = torch.randn(w.shape, generator=generator(2), dtype=F64)
    (closed,) = torch.autograd.grad(polar_step(w), w, cotangent)
    plain = torch.func.vjp(polar_step, w.detach())[1](cotangent)[0]
    assert largest(closed - plain) < 1e-12 / (1 + length)
    if length < 100:
        assert gradgradcheck(polar_step, (w,), fast_mode=True)


def test_a_step_too_long_for_its_gram_matrix_has_the_derivative_of_the_nearest_frame():
    x, u = step(1e8)
    w = (x + u).requires_grad_()
    cotangent = torch.randn(w.shape, generator=generator(2), dtype=F64)
    (closed,) = torch.autograd.grad(polar_step(w), w, cotangent)
    (wanted,) = torch.autograd.grad(Stiefel().projx(w), w, cotangent)
    assert largest(closed - wanted) < 1e-12 * largest(wanted)


@pytest.mark.parametrize("m", [Stiefel(), Stiefel(0.5), Grassmann(), Orthogonal()], ids=repr)
def test_a_third_derivative_of_the_polar_retraction(m):
    x = m.random_uniform(4, 4 if m == Orthogonal() else 2, generator=generator(), dtype=F64)
    u = 0.1 * m.random_tangent(x, generator=generator(1))
    v = m.random_tangent(x, generator=generator(2))

    def third(t):
        def value(t):
            return m.retr(x, u + t * v)[0, 1]

        return torch.func.grad(torch.func.grad(torch.func.grad(value)))(t)

    def second(t):
        s = torch.tensor(t, dtype=F64, requires_grad=True)
        value = m.retr(x, u + s * v)[0, 1]
        (first,) = torch.autograd.grad(value, s, create_graph=True)
        (again,) = torch.autograd.grad(first, s, create_graph=True)
        return again, s

    again, s = second(0.0)
    (by_autograd,) = torch.autograd.grad(again, s)
    wanted = (second(1e-5)[0] - second(-1e-5)[0]).detach() / 2e-5
    assert abs(float(by_autograd - wanted)) < 1e-6
    assert abs(float(third(torch.zeros((), dtype=F64)) - wanted)) < 1e-6
