"""Gyro structure: against complex Moebius addition and many digits, at degenerate points, of products; and defects."""

import math

import mpmath
import pytest
import torch
from torch.autograd import gradcheck

from tests.laws.test_laws_catch import ROUND, Delegate
from torchriemann.manifolds import Euclidean, Oblique, Power, Product, Scaled, Sphere, Stiefel
from torchriemann.manifolds.constant_curvature.lorentz import Lorentz
from torchriemann.manifolds.constant_curvature.stereographic import PoincareBall, Stereographic
from torchriemann.manifolds.gyro import GyroManifold, is_gyro
from torchriemann.testing import GYRO_OPERATIONS, Case, Trial, check_law

F64 = torch.float64


def normals(*shape, length=0.8, seed=0, dtype=F64):
    z = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return (length * z / z.norm(dim=-1, keepdim=True)).to(dtype)


def close(got, want, atol=1e-14, rtol=0.0):
    torch.testing.assert_close(got, want, atol=atol, rtol=rtol)


# ---- against other formulas -----------------------------------------------------------------------------------


def complex_point(m, x):
    """Stereographic coordinate of a point of a two-dimensional model, in units of the radius of curvature."""
    t, s = m.to_cosine_sine(x)
    return torch.view_as_complex((abs(m.curvature) ** 0.5 * s / (1 + t)).contiguous())


@pytest.mark.parametrize("m", [Sphere(), Sphere(0.3), Lorentz(-2.0), PoincareBall(-0.5)], ids=repr)
def test_two_dimensions_add_as_complex_numbers_do(m):
    # Ungar: a (+) b = (a + b)/(1 +- conj(a) b), and gyr[a, b] is the factor (1 +- a conj(b))/(1 +- conj(a) b).
    sign = -math.copysign(1, m.curvature)
    x, y, z = (m.from_normal(normals(20, 2, length=0.8 / abs(m.curvature) ** 0.5, seed=s)) for s in range(3))
    a, b, c = (complex_point(m, p) for p in (x, y, z))
    close(complex_point(m, m.gyroadd(x, y)), (a + b) / (1 + sign * a.conj() * b))
    close(complex_point(m, m.gyration(x, y, z)), (1 + sign * a * b.conj()) / (1 + sign * a.conj() * b) * c)
    w = normals(20, 2, seed=5)
    turn = (1 - sign * b * a.conj()) / (1 - sign * b.conj() * a)  # gyr[y, -x]
    close(torch.view_as_complex(m.transport_frame(x, y, w)), turn * torch.view_as_complex(w))


@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("length", [1e-30, 1e-8, 0.3, math.pi / 2, 3.0, 3.1415])
def test_normal_coordinates_of_the_sphere_keep_their_digits(dtype, length):
    m, eps = Sphere(), torch.finfo(dtype).eps
    x = m.from_normal(normals(50, 3, length=length, dtype=dtype))
    with mpmath.workdps(40):
        for row, z in zip(x.double().tolist(), m.to_normal(x).double().tolist(), strict=True):
            sine = mpmath.sqrt(sum(mpmath.mpf(a) ** 2 for a in row[1:]))
            want = mpmath.atan2(sine, mpmath.mpf(row[0])) / sine
            for got, s in zip(z, row[1:], strict=True):
                assert abs(got - want * s) <= 8 * eps * length


def test_frame_logarithm_of_near_points_keeps_its_digits():
    m = Sphere()
    x = m.from_normal(normals(200, 3, length=1.2))
    z = normals(200, 3, length=1e-9, seed=1)
    y = m.expmap_frame(x, z)
    close(m.logmap_frame(x, y).norm(dim=-1), m.dist(x, y), atol=1e-23, rtol=1e-14)


# ---- degenerate points ----------------------------------------------------------------------------------------


def test_antipode_of_the_origin_has_coordinates_and_a_gradient():
    m = Sphere(4.0)
    x = (-m.origin(2, 4, dtype=F64)).requires_grad_()
    z = m.to_normal(x)
    close(z.detach(), m.normal_from_tangent(m.logmap0(x)).detach())
    close(m.dist0(x).detach(), torch.full((2,), math.pi / 2, dtype=F64))
    assert torch.autograd.grad(z.sum(), x)[0].isfinite().all()
    close(m.from_normal(z).detach(), x.detach())


def test_point_of_a_sphere_of_two_points():
    m = Sphere()
    x = torch.tensor([[1.0], [1.0]], dtype=F64)
    assert m.to_normal(x).shape == (2, 0) and torch.equal(m.from_normal(m.to_normal(x)), x)
    assert torch.equal(m.gyroadd(x, x), x)


@pytest.mark.parametrize("name, bound", [("from_normal", 1e-5), ("gyroadd", 1e-5), ("transport_frame", 1e-5)])
def test_curvature_has_a_gradient(name, bound):
    z = [normals(4, 3, length=0.7, seed=s) for s in range(3)]

    def value(k):
        m = Sphere(k)
        x, y = m.from_normal(z[0]), m.from_normal(z[1])
        out = {"from_normal": lambda: x, "gyroadd": lambda: m.gyroadd(x, y)}
        return out.get(name, lambda: m.transport_frame(x, y, z[2]))() * torch.arange(1, 1 + z[0].shape[-1] // 3)

    for k in (0.2, 1.0, 2.5):
        assert gradcheck(value, torch.tensor(k, dtype=F64, requires_grad=True), rtol=bound)


# ---- products -------------------------------------------------------------------------------------------------


def mixed(k, scale):
    """Negative, zero, positive and open curvature side by side, one of them in another unit."""
    factors = (Lorentz(k[0]), Euclidean(), Scaled(Sphere(k[1]), scale), Stereographic(k[2]), Power(Sphere(k[1]), 2))
    return Product(factors, ((3,), (2,), (4,), (2,), (2, 3)))


def test_product_of_mixed_curvature():
    m = mixed((-0.7, 0.5, -0.2), 1.5)
    assert is_gyro(m) and m.normal_shape((m.size,)) == (m.dimension((m.size,)),) == (13,)
    z = [normals(6, 13, length=0.9, seed=s) for s in range(3)]
    x, y, p = map(m.from_normal, z)
    close(m.dist0(x), torch.full((6,), 0.9, dtype=F64))
    close(m.to_normal(x), z[0])
    close(m.gyroadd(x, m.gyroadd(y, p)), m.gyroadd(m.gyroadd(x, y), m.gyration(x, y, p)), atol=1e-13)
    for name in ("gyroadd", "gyroinv", "gyration", "logmap_frame", "to_normal", "logmap0", "dist0"):
        points = {"gyroadd": (x, y), "logmap_frame": (x, y), "gyration": (x, y, p)}.get(name, (x,))
        close(getattr(m, name)(*points), getattr(GyroManifold, name)(m, *points), atol=1e-13)
    close(m.transport_frame(x, y, z[2]), GyroManifold.transport_frame(m, x, y, z[2]), atol=1e-13)
    close(m.expmap_frame(x, z[2]), m.expmap(x, m.tangent_from_frame(x, z[2])), atol=1e-13)
    parts = m.split(m.gyroscale(torch.linspace(-1, 1, 6, dtype=F64), y))
    close(parts[0], Lorentz(-0.7).gyroscale(torch.linspace(-1, 1, 6, dtype=F64), m.split(y)[0]))
    close(parts[1], torch.linspace(-1, 1, 6, dtype=F64)[:, None] * m.split(y)[1])


def test_learned_curvatures_and_weights_of_a_product():
    k = torch.tensor([-0.7, 0.5, 0.0], dtype=F64)
    z = [normals(3, 13, length=0.8, seed=s) for s in range(3)]

    def value(k, scale):
        m = mixed(k.unbind(), scale)
        x, y = m.from_normal(z[0]), m.from_normal(z[1])
        w = m.to_normal(m.gyroscale(0.5, m.gyroadd(x, y)))
        return m.dist(x, y), w, m.transport_frame(x, y, z[2])

    inputs = (k.requires_grad_(), torch.tensor(1.5, dtype=F64, requires_grad=True))
    assert gradcheck(value, inputs, rtol=1e-6)
    gradients = torch.autograd.grad(value(*inputs)[0].sum(), inputs)
    assert all((g != 0).all() for g in gradients)


def test_a_factor_without_gyro_structure_is_named():
    m = Product((Sphere(), Power(Stiefel(), 2)), ((3,), (2, 4, 2)))
    x = m.origin(3, m.size)
    assert not is_gyro(m) and not is_gyro(Stiefel()) and is_gyro(Oblique(3)) and is_gyro(Scaled(Euclidean(), 2.0))
    z = torch.zeros(3, 12)
    points, last = {"pq": (x, x), "p": (x,), "a": (x,), "ab": (x, x)}, {"n": (z,), "pn": (x, z), "pqn": (x, x, z)}
    known = {**points, **last, "pw": (x, x), "pt": (x, 0.5), "pqs": (x, x, x), "tp": (0.5, x)}
    for name, letters in GYRO_OPERATIONS.items():
        if name == "inner0":  # the metric at the origin, which every manifold has
            continue
        with pytest.raises(NotImplementedError, match=r"factor 1, .*Stiefel"):
            getattr(m, name)(*known[letters])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m, x: m.from_normal(torch.tensor(1.0)), "Sphere.from_normal: normal coordinates need 1"),
        (lambda m, x: m.from_normal(torch.ones(3, dtype=torch.int64)), "Sphere.from_normal: normal coordinates must"),
        (lambda m, x: m.expmap_frame(x, torch.zeros(3)), r"normal coordinates of points \(2, 3\) end in \(2,\)"),
        (lambda m, x: m.transport_frame(x, x, torch.zeros(3, 2)), "do not broadcast"),
        (lambda m, x: m.gyroscale(x, 0.5), "Sphere.gyroscale: expected t, x in this order"),
        (lambda m, x: m.gyroscale(torch.ones(3), x), "do not broadcast"),
    ],
)
def test_wrong_arguments(call, message):
    m = Sphere()
    with pytest.raises(ValueError, match=message):
        call(m, m.origin(2, 3))


def test_wrong_normal_coordinates_of_composites():
    for m, z in ((Product((Sphere(), Euclidean()), ((3,), (2,))), torch.zeros(3)), (Oblique(3), torch.zeros(2, 4))):
        with pytest.raises(ValueError, match=f"{m.name}.from_normal"):
            m.from_normal(z)


# ---- the laws catch what they are for -------------------------------------------------------------------------


class Gyro(Delegate, GyroManifold):
    """The unit sphere with nothing but the primitives."""

    def normal_shape(self, point_shape):
        return ROUND.normal_shape(point_shape)

    def tangent_from_normal(self, z):
        return ROUND.tangent_from_normal(z)

    def normal_from_tangent(self, u):
        return ROUND.normal_from_tangent(u)


class AddsCoordinates(Gyro):
    def gyroadd(self, x, y):
        return self.from_normal(self.to_normal(x) + self.to_normal(y))


class AddsTheOtherWayRound(Gyro):
    def gyroadd(self, x, y):
        return ROUND.gyroadd(y, x)


class ForgetsTheGyration(Gyro):
    def gyration(self, x, y, z):
        return z


class TurnsBackwards(Gyro):
    def gyration(self, x, y, z):
        return ROUND.gyration(y, x, z)


class StereographicCoordinates(Gyro):  # twice as long at the origin, and not by arc length
    def tangent_from_normal(self, z):
        return 2 * ROUND.tangent_from_normal(z)

    def normal_from_tangent(self, u):
        return ROUND.normal_from_tangent(u) / 2


class ScalesTheChord(Gyro):
    def gyroscale(self, t, x):
        t = torch.as_tensor(t, dtype=x.dtype).unsqueeze(-1)
        return ROUND.projx(ROUND.origin(*x.shape, dtype=x.dtype) * (1 - t) + t * x)


class TransportsByProjection(Gyro):
    def transport_frame(self, x, y, z):
        return ROUND.frame_from_tangent(y, ROUND.transp(x, y, ROUND.tangent_from_frame(x, z)))


class NanAtTheOrigin(Gyro):
    def to_normal(self, x):
        s = x[..., 1:]
        length = s.square().sum(-1, keepdim=True).sqrt()
        return torch.where(length > 0, torch.atan2(length, x[..., :1]) / length * s, s)


CAUGHT = [
    (AddsCoordinates, "left_translations_are_isometries"),
    (AddsCoordinates, "closed_gyro_forms_agree_with_derived_ones"),
    (AddsCoordinates, "frames_are_transported_from_the_origin"),
    (AddsTheOtherWayRound, "gyro_addition_has_identity_and_inverses"),
    (AddsTheOtherWayRound, "geodesics_are_gyrolines"),
    (ForgetsTheGyration, "gyro_addition_is_gyroassociative"),
    (ForgetsTheGyration, "gyro_addition_is_gyrocommutative"),
    (TurnsBackwards, "gyro_addition_is_gyroassociative"),
    (TurnsBackwards, "gyro_addition_is_gyrocommutative"),
    (StereographicCoordinates, "normal_coordinates_are_orthonormal"),
    (ScalesTheChord, "gyro_scaling_is_that_of_a_gyrovector_space"),
    (TransportsByProjection, "transport_of_frames_is_parallel"),
    (NanAtTheOrigin, "gyro_derivatives_exist_at_the_origin"),
]


def row(manifold):
    return Case(manifold, ((4,),), order=2)


@pytest.mark.parametrize("broken, name", CAUGHT, ids=lambda value: getattr(value, "__name__", value))
def test_defect_is_caught(broken, name):
    draw = {"seed": 1, "scale": 1.0, "batch": (2,)}
    with pytest.raises(AssertionError, match=name):
        check_law(row(broken()), name, **draw)
    if name != "gyro_derivatives_exist_at_the_origin":  # costly, and held by the rows of the table
        check_law(row(Gyro()), name, **draw)


def test_gyro_laws_are_not_about_other_manifolds():
    from torchriemann.testing import applying

    def about(manifold, shape):
        return any(entry.subject == "gyro structure" for entry in applying(Case(manifold, (shape,))))

    assert about(Sphere(), (3,)) and about(Oblique(2), (2, 3)) and not about(Stiefel(), (4, 2))
    assert not about(Power(Stiefel(), 2), (2, 4, 2))


def test_points_of_a_trial_stay_off_the_cut_locus():
    trial = Trial(row(Sphere()), (4,), scale=1.0)
    assert trial.gyro_length == pytest.approx(0.3 * math.pi)
    close(Sphere().dist0(trial.near_origin()), torch.full((3,), trial.gyro_length, dtype=F64))
    assert trial.normal().shape == (3, 3)
