"""The logarithm of rotations and its derivatives against rotations that mpmath makes, and against scipy."""

import math

import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch
from torch.autograd import gradcheck, gradgradcheck

from torchriemann.manifolds import Orthogonal, SpecialOrthogonal
from torchriemann.manifolds.functional.rotation_log import DexpInverse, half_cotangents

F64 = torch.float64
EPS = torch.finfo(F64).eps
SIZES = range(2, 9)
BOTH = (Orthogonal(), SpecialOrthogonal())

both = pytest.mark.parametrize("m", BOTH, ids=lambda m: m.name)
every_size = pytest.mark.parametrize("n", SIZES)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def point(*size, seed=0, dtype=F64):
    return SpecialOrthogonal().random_uniform(*size, generator=generator(seed), dtype=dtype)


def tangent(x, length, seed=1):
    m = SpecialOrthogonal()
    u = m.random_tangent(x, generator=generator(seed))
    return u * (length / m.norm(x, u, keepdim=True))


def largest(t):
    return t.detach().abs().max().item()


def floats(m):
    return torch.tensor([[float(m[i, j]) for j in range(m.cols)] for i in range(m.rows)], dtype=F64)


def exact_pair(n, angles):
    """(V, A) with V = exp(A) turning random planes by the given angles, each correctly rounded from 60 digits."""
    with mpmath.workdps(60):
        noise = torch.randn(n, n, generator=generator(n), dtype=F64)
        q = mpmath.qr(mpmath.matrix(noise.tolist()))[0]
        v, a = mpmath.eye(n), mpmath.zeros(n)
        for k, angle in enumerate(angles[: n // 2]):
            i, j = 2 * k, 2 * k + 1
            v[i, i] = v[j, j] = mpmath.cos(angle)
            v[j, i], v[i, j] = mpmath.sin(angle), -mpmath.sin(angle)
            a[j, i], a[i, j] = mpmath.mpf(angle), -mpmath.mpf(angle)
        return floats(q * v * q.T), floats(q * a * q.T)


def high_precision_exp(a):
    with mpmath.workdps(40):
        return floats(mpmath.expm(mpmath.matrix(a.tolist())))


def log(v):
    return SpecialOrthogonal().logmap(torch.eye(v.shape[-1], dtype=v.dtype), v)


# ---- the logarithm ---------------------------------------------------------------------------------------------

NEAR = math.pi - 1e-6
ANGLES = {
    "all 3.13": ((3.13,) * 4, 1e-12),
    "one 3.13": ((3.13, 0.0, 0.0, 0.0), 1e-12),
    "up to 3.13": ((3.13, 2.5, 1.0, 3.13), 1e-12),
    "all pi - 1e-6": ((NEAR,) * 4, 1e-8),
    "one pi - 1e-6": ((NEAR, 1e-9, 1.0, 2.0), 1e-8),
    "two close to pi and to each other": ((NEAR, NEAR - 1e-6, 0.5, 3.0), 1e-8),
    "right angles": ((math.pi / 2,) * 4, 1e-14),
    "every size": ((1e-9, 1e-4, 0.1, 2.9), 1e-13),
    "equal": ((1.3, 1.3, 1.3, 1.3), 1e-14),
}


@every_size
@pytest.mark.parametrize("angles, bound", ANGLES.values(), ids=ANGLES.keys())
def test_log_of_exact_rotations(n, angles, bound):
    v, a = exact_pair(n, angles)
    assert largest(log(v) - a) < bound
    length = math.sqrt(sum(t * t for t in angles[: n // 2]))
    assert SpecialOrthogonal().dist(torch.eye(n, dtype=F64), v).item() == pytest.approx(length, rel=1e-14)


@every_size
@pytest.mark.parametrize("angle", [1e-3, 1e-9, 1e-15, 1e-30])
def test_small_angles_keep_their_digits(n, angle):
    v, a = exact_pair(n, (angle, 0.5 * angle, angle, 2 * angle))
    assert largest(log(v) - a) < 1e-15 * angle
    got = SpecialOrthogonal().dist(torch.eye(n, dtype=F64), v).item()
    assert got == pytest.approx(a.norm().item() / math.sqrt(2), rel=1e-14)


@every_size
@pytest.mark.parametrize(
    "gaps",
    [(0.0,) * 4, (0.0, 1e-6, 0.5, 2.0), (1e-15, 0.0, 1e-12, 1e-9), (1e-10,) * 4, (1e-13, 1e-7, 0.1, 0.0)],
    ids=str,
)
def test_log_at_and_next_to_a_half_turn_is_one(n, gaps):
    """At pi a fixed choice, next to it the nearest that the rounded matrix knows: a logarithm to rounding always."""
    v, _ = exact_pair(n, tuple(math.pi - g for g in gaps))
    a = log(v)
    assert largest(a + a.mT) == 0
    assert largest(high_precision_exp(a) - v) < 1e-14
    assert torch.linalg.matrix_norm(a, 2).item() < math.pi * (1 + 16 * EPS)
    assert torch.equal(a, log(v))


def test_log_at_a_half_turn_of_exact_matrices():
    for signs in ((-1, -1), (-1, -1, 1), (-1, -1, -1, -1), (1, -1, 1, -1, 1), (-1,) * 8):
        v = torch.diag(torch.tensor(signs, dtype=F64))
        assert largest(high_precision_exp(log(v)) - v) < 1e-14


def test_log_of_many_random_pairs():
    m = SpecialOrthogonal()
    for n in (3, 4, 7):
        x, y = point(2000, n, n), point(2000, n, n, seed=1)
        assert largest(m.expmap(x, m.logmap(x, y)) - y) < 1e-14


def test_log_in_single_precision():
    m = SpecialOrthogonal()
    for n in SIZES:
        for angles, _ in ANGLES.values():
            v = exact_pair(n, angles)[0].float()
            a = m.logmap(torch.eye(n), v)
            assert largest(high_precision_exp(a.double()) - v) < 3e-6
        v, a = exact_pair(n, (1e-9, 2e-9, 1e-9, 0.0))
        assert largest(m.logmap(torch.eye(n), v.float()) - a) < 1e-15


def test_log_of_a_point_off_by_rounding_to_half_precision():
    m = SpecialOrthogonal()
    x = point(20, 5, 5, dtype=torch.float32)
    y = m.expmap(x, tangent(x, 1.0))
    for dtype, bound in ((torch.bfloat16, 0.03), (torch.float16, 0.004)):
        got = m.logmap(x.to(dtype), y.to(dtype))
        assert got.dtype == dtype and largest(got.float() - m.logmap(x, y)) < bound


def test_log_of_no_rotation_is_nan():
    m, x = SpecialOrthogonal(), point(3, 4, 4)
    y = x.clone()
    y[1] *= 1e100
    assert m.logmap(x, y).isnan().reshape(3, -1).all(-1).tolist() == [False, True, False]
    assert m.dist(x, 2 * x).isnan().all()


def test_nan_stays_in_its_own_item():
    for m in BOTH:
        x = point(3, 4, 4)
        y = m.expmap(x, tangent(x, 1.0)).requires_grad_()
        with torch.no_grad():
            y[1, 0, 0] = math.nan
        for out in (m.logmap(x, y), m.dist(x, y), m.dist2(x, y)):
            assert out.isnan().reshape(3, -1).all(-1).tolist() == [False, True, False]
        assert m.log_is_unique(x, y).tolist() == [True, False, True]
        (g,) = torch.autograd.grad(m.dist(x, y)[[0, 2]].sum(), y)
        assert g[[0, 2]].isfinite().all()


# ---- derivatives of the logarithm --------------------------------------------------------------------------------


def test_half_cotangents_and_their_divided_difference():
    def function(t):
        return t / 2 * mpmath.cot(t / 2) if t else mpmath.mpf(1)

    angles = [0.0, 1e-9, 1e-3, 0.1, 0.3, 0.32, 1.0, 2.0, 3.0, 3.13]
    for s in angles:
        for t in angles[1:]:
            low, high = torch.tensor((s - t) ** 2, dtype=F64), torch.tensor((s + t) ** 2, dtype=F64)
            with mpmath.workdps(60):
                f_low, f_high = function(mpmath.sqrt(low.item())), function(mpmath.sqrt(high.item()))
                slope = (f_high - f_low) / (mpmath.mpf(high.item()) - low.item()) if high > low else None
            got = [z.item() for z in half_cotangents(low, high)]
            assert got[:2] == pytest.approx([float(f_low), float(f_high)], rel=1e-12)
            if slope is not None:
                assert got[2] == pytest.approx(float(slope), rel=1e-12, abs=1e-15)
    zero = torch.zeros((), dtype=F64)
    assert [z.item() for z in half_cotangents(zero, zero)] == pytest.approx([1, 1, -1 / 12], rel=1e-15)


@pytest.mark.parametrize("angles", [(0.0,) * 4, (0.7, 0.7, 2.0, 2.0), (3.13, 3.0, 1e-9, 1e-5), (3.1,) * 4], ids=str)
@pytest.mark.parametrize("n", [2, 3, 4, 7, 8])
def test_inverse_of_the_differential_of_exp(n, angles):
    """d exp(A)[dA] is the corner of exp([[A, dA], [0, A]]) (Mathias 1996)."""
    _, a = exact_pair(n, angles)
    da = torch.randn(n, n, generator=generator(5), dtype=F64)
    da = da - da.mT
    both = np.block([[a.numpy(), da.numpy()], [np.zeros((n, n)), a.numpy()]])
    e = torch.from_numpy(scipy.linalg.expm(both)[:n, n:])
    v = torch.from_numpy(scipy.linalg.expm(a.numpy()))
    gap = min(1.0, math.pi - max(angles))
    assert largest(DexpInverse(a)(v.mT @ e) - da) < 1e-13 / gap**2


@pytest.mark.parametrize("gap", [0.01, 1e-4, 1e-6])
def test_derivative_of_the_log_next_to_a_half_turn(gap):
    """A function of the symmetric part alone would leave no digit."""
    m, x = SpecialOrthogonal(), point(5, 5)
    a = exact_pair(5, (math.pi - gap, 1.0))[1]
    v = tangent(x, 1.0)
    y, dy = torch.func.jvp(lambda u: m.expmap(x, u), (x @ a,), (v,))
    back = torch.func.jvp(lambda z: m.logmap(x, z), (y,), (dy,))[1]
    assert largest(back - v) < 1e-14 / gap


@both
@pytest.mark.parametrize("angles", [(0.0, 0.0), (1.0, 1.0), (0.5, 0.5 + 1e-9), (3.0, 0.0), (2.9, 2.9)], ids=str)
def test_first_and_second_derivatives(m, angles):
    x = point(2, 4, 4)
    y = x @ exact_pair(4, angles)[0]
    a, b = x.clone().requires_grad_(), y.clone().requires_grad_()

    def on_manifold(function):
        return lambda a, b: function(m.projx(a), m.projx(b))

    for function in (m.logmap, m.dist2):
        assert gradcheck(on_manifold(function), (a, b), fast_mode=True, check_forward_ad=True)
        assert gradgradcheck(on_manifold(function), (a, b), fast_mode=True, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("n", [3, 4, 8])
def test_gradient_of_the_distance_has_unit_length_up_to_the_cut_locus(n):
    m, x = SpecialOrthogonal(), point(n, n)
    for angle in (1e-12, 1e-9, 1e-3, 1.0, 3.13, NEAR, math.pi - 1e-9):
        y = (x @ exact_pair(n, (angle, 0.7 * angle, 0.1 * angle, 0.0))[0]).requires_grad_()
        (g,) = torch.autograd.grad(m.dist(x, y), y)
        assert m.norm(y, m.egrad2rgrad(y, g)).item() == pytest.approx(1, abs=1e-6), angle
    y = (x @ exact_pair(n, (math.pi,) * 4)[0]).requires_grad_()
    (g,) = torch.autograd.grad(m.dist(x, y), y)
    assert g.isfinite().all()


def test_distance_at_the_same_point_is_zero_with_zero_gradient():
    for m in BOTH:
        for dtype in (torch.float32, F64):
            x = m.random(10, 5, 5, generator=generator(), dtype=dtype).requires_grad_()
            y = x.detach().clone().requires_grad_()
            d = m.dist(x, y)
            assert (d == 0).all() and (m.logmap(x, y) == 0).all()
            for g in torch.autograd.grad(d.sum(), (x, y)):
                assert (g == 0).all()
