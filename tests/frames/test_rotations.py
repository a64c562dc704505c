"""Conversions of rotations of space against scipy, mpmath and finite differences."""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch.autograd import gradcheck, gradgradcheck

from torchriemann.manifolds import (
    SpecialOrthogonal,
    axis_angle_from_rotation,
    quaternion_from_rotation,
    rotation_from_axis_angle,
    rotation_from_quaternion,
)

F64 = torch.float64
EPS = torch.finfo(F64).eps
ANGLES = (1e-300, 1e-12, 1e-9, 1e-4, 0.3, 1.0, 1.5707, math.pi / 2, 1.6, 2.5, 3.13, math.pi - 1e-6, math.pi - 1e-12)


def noise(*size, seed=0, dtype=F64):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def axes(count=40):
    """Random directions and those where entries vanish or tie."""
    special = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [1, 1, 0], [0, 1, -1], [1, 1, 1], [-1, 1, 1], [1, 1e-9, 0]]
    v = torch.cat([noise(count, 3), torch.tensor(special, dtype=F64)])
    return v / v.norm(dim=-1, keepdim=True)


def exactly(axis, angle):
    """Half-angle quaternion and matrix of a rotation vector, in 50 digits."""
    with mpmath.workdps(50):
        v = [mpmath.mpf(a) * mpmath.mpf(angle) for a in axis.tolist()]
        t = mpmath.sqrt(sum(c * c for c in v))
        k = mpmath.matrix([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
        r = mpmath.eye(3) + mpmath.sin(t) / t * k + (1 - mpmath.cos(t)) / t**2 * (k * k)
        q = [mpmath.cos(t / 2)] + [mpmath.sin(t / 2) / t * c for c in v]
        matrix = torch.tensor([[float(r[i, j]) for j in range(3)] for i in range(3)], dtype=F64)
        return torch.tensor([float(c) for c in q], dtype=F64), matrix


def every_rotation():
    """(rotation vectors, quaternions, matrices), exact to rounding."""
    found = [(angle * a, *exactly(a, angle)) for angle in ANGLES for a in axes(6)]
    return tuple(torch.stack(parts) for parts in zip(*found, strict=True))


V, Q, R = every_rotation()


def largest(t):
    return t.detach().abs().max().item()


def relative(got, want):
    """Largest error in units of the largest entry of the exact vector, which may be 1e-300."""
    return ((got - want).abs().amax(-1) / want.abs().amax(-1)).max().item()


# ---- values ----------------------------------------------------------------------------------------------------


def test_matrices_to_rounding():
    assert largest(rotation_from_axis_angle(V) - R) < 8 * EPS
    assert largest(rotation_from_quaternion(Q) - R) < 8 * EPS


def test_vectors_and_quaternions_to_rounding():
    """The matrix is rounded: next to pi the sign of the vector may be the other one, and nothing else is lost."""
    q, v = quaternion_from_rotation(R), axis_angle_from_rotation(R)
    assert largest(q.norm(dim=-1) - 1) < 4 * EPS and (q[:, 0] >= 0).all()
    assert largest(q - Q) < 4 * EPS
    assert relative(v, V) < 8 * EPS


def test_small_vectors_keep_their_digits():
    small = V.abs().amax(-1) < 1e-8
    assert small.sum() > 20
    assert relative(axis_angle_from_rotation(R[small]), V[small]) < 4 * EPS
    assert relative(quaternion_from_rotation(R[small])[:, 1:], Q[small][:, 1:]) < 4 * EPS


@pytest.mark.parametrize("axis", axes(5), ids=lambda a: np.round(a.numpy(), 2))
def test_half_turns(axis):
    r = 2 * axis[:, None] * axis - torch.eye(3, dtype=F64)
    v, q = axis_angle_from_rotation(r), quaternion_from_rotation(r)
    assert abs(v.norm().item() - math.pi) < 8 * EPS
    assert largest(rotation_from_axis_angle(v) - r) < 8 * EPS
    assert largest(rotation_from_quaternion(q) - r) < 8 * EPS
    assert q[0] >= 0


def test_against_scipy():
    v = 3 * noise(200, 3)
    q = noise(200, 4)
    r = rotation_from_axis_angle(v)
    assert largest(r - torch.from_numpy(Rotation.from_rotvec(v.numpy()).as_matrix())) < 16 * EPS
    scalar_last = torch.roll(q, -1, -1).numpy()
    assert largest(rotation_from_quaternion(q) - torch.from_numpy(Rotation.from_quat(scalar_last).as_matrix())) < 1e-14
    peer = Rotation.from_matrix(r.numpy())
    assert largest(axis_angle_from_rotation(r) - torch.from_numpy(peer.as_rotvec())) < 1e-13
    scalar_first = np.roll(peer.as_quat(canonical=True), 1, -1)
    assert largest(quaternion_from_rotation(r) - torch.from_numpy(scalar_first)) < 1e-14


def test_agrees_with_the_group():
    v = noise(50, 3)
    x = SpecialOrthogonal().origin(50, 3, 3, dtype=F64)
    assert SpecialOrthogonal().check_point_on_manifold(rotation_from_axis_angle(v))
    y = rotation_from_axis_angle(v)
    assert largest(SpecialOrthogonal().dist(x, y) - axis_angle_from_rotation(y).norm(dim=-1)) < 1e-14


def test_quaternions_of_any_length():
    q = noise(20, 4)
    for size in (1e-200, 1e-30, 1e30, 1e200):
        assert largest(rotation_from_quaternion(size * q) - rotation_from_quaternion(q)) < 8 * EPS
    assert largest(rotation_from_quaternion(-q) - rotation_from_quaternion(q)) < 8 * EPS
    assert rotation_from_quaternion(torch.zeros(4)).isnan().all()
    assert rotation_from_quaternion(1e-30 * q.float()).isfinite().all()


def test_long_rotation_vectors_wrap():
    axis = axes(5)
    got = axis_angle_from_rotation(rotation_from_axis_angle((2 * math.pi + 0.5) * axis))
    assert largest(got - 0.5 * axis) < 1e-14
    got = axis_angle_from_rotation(rotation_from_axis_angle((math.pi + 0.5) * axis))
    assert largest(got + (math.pi - 0.5) * axis) < 1e-14


# ---- derivatives -----------------------------------------------------------------------------------------------

# Away from a half turn, where the shortest vector jumps; zero and the ties between the four forms are among them.
PLACES = torch.cat(
    [torch.zeros(1, 3, dtype=F64), 1e-9 * axes(1)[:1], *(t * axes(2)[1:9:2] for t in (0.5, math.pi / 2, 2.9))]
)


def test_derivatives_of_the_matrices():
    v = PLACES.clone().requires_grad_()
    assert gradcheck(rotation_from_axis_angle, v, check_forward_ad=True)
    assert gradgradcheck(rotation_from_axis_angle, v)
    q = noise(6, 4).requires_grad_()
    assert gradcheck(rotation_from_quaternion, q, check_forward_ad=True)
    assert gradgradcheck(rotation_from_quaternion, q)


@pytest.mark.parametrize("inverse", [axis_angle_from_rotation, quaternion_from_rotation])
def test_derivatives_of_the_inverses(inverse):
    """Along rotations, for off them the four forms differ: a chart at each place."""
    base = rotation_from_axis_angle(PLACES)

    def chart(w):
        return inverse(base @ rotation_from_axis_angle(w))

    w = torch.zeros_like(PLACES).requires_grad_()
    assert gradcheck(chart, w, check_forward_ad=True)
    assert gradgradcheck(chart, w)


def test_third_derivative_at_the_identity():
    """R(t e) = cos t, ..: the third derivative at zero is -[e]."""
    e = axes(1)[0]

    def entries(t):
        return rotation_from_axis_angle(t * e)

    derivative = entries
    for _ in range(3):
        derivative = torch.func.jacfwd(derivative)
    cross = torch.linalg.cross(e.expand(3, 3), torch.eye(3, dtype=F64)).mT
    assert largest(derivative(torch.zeros((), dtype=F64)) + cross) < 1e-14


def test_gradients_are_finite_at_every_rotation():
    half_turns = 2 * axes(5)[:, :, None] * axes(5)[:, None, :] - torch.eye(3, dtype=F64)
    r = torch.cat([R, half_turns, torch.eye(3, dtype=F64)[None]]).requires_grad_()
    for inverse in (axis_angle_from_rotation, quaternion_from_rotation):
        (g,) = torch.autograd.grad(inverse(r).sum(), r)
        assert g.isfinite().all()


# ---- behaviour -------------------------------------------------------------------------------------------------

ALL = {
    rotation_from_quaternion: (4,),
    rotation_from_axis_angle: (3,),
    quaternion_from_rotation: (3, 3),
    axis_angle_from_rotation: (3, 3),
}
conversions = pytest.mark.parametrize("function, shape", ALL.items(), ids=lambda a: getattr(a, "__name__", None))


def arguments(shape, batch=(2, 3), dtype=torch.float32):
    if shape == (3, 3):
        return rotation_from_axis_angle(noise(*batch, 3, dtype=dtype))
    return noise(*batch, *shape, dtype=dtype)


@conversions
def test_batches_transforms_and_compilation(function, shape):
    x = arguments(shape, (6,), F64)
    want = function(x)
    assert function(x.reshape(2, 3, *shape)).shape == (2, 3, *want.shape[1:])
    assert function(x[:0]).shape == (0, *want.shape[1:])
    assert largest(torch.stack([function(a) for a in x]) - want) < 1e-15
    assert largest(torch.func.vmap(function)(x) - want) < 1e-15
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")(x)
    torch.compiler.reset()
    assert largest(compiled - want) < 1e-15


@conversions
def test_half_precision_and_autocast(function, shape):
    x = arguments(shape)
    for dtype in (torch.bfloat16, torch.float16):
        half = function(x.to(dtype))
        assert half.dtype == dtype
        assert torch.equal(half, function(x.to(dtype).float()).to(dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(function(x), function(x.clone()))
        inside = function(x)
    assert inside.dtype == torch.float32 and torch.equal(inside, function(x))


@conversions
def test_errors_name_the_function_and_the_shape(function, shape):
    for wrong in (torch.zeros(5), torch.zeros(*shape, dtype=torch.int64), [1.0]):
        with pytest.raises(ValueError, match=f"{function.__name__}: expected a floating-point tensor .*got"):
            function(wrong)
