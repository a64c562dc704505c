"""Laws of normal coordinates, gyro-operations and frames of manifolds that have them.

Points are near the origin (`Trial.gyro_length`): farther out a gyro-sum meets the cut locus, or loses its digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchriemann.manifolds.gyro import GyroManifold
from torchriemann.manifolds.precision import GIVING_POINTS

from . import operations
from .quotients import hold_first, hold_second
from .trial import Law, Trial
from .trial import law as plain_law


def law(**options: Any) -> Callable[[Callable[[Trial], None]], Law]:
    """A law that is about gyro manifolds."""
    return plain_law("gyro structure", about=GyroManifold, **options)


def _setting(t: Trial, count: int) -> tuple[GyroManifold, list[Tensor]]:
    """The manifold, and as many points."""
    assert isinstance(t.manifold, GyroManifold)
    return t.manifold, [t.near_origin() for _ in range(count)]


def _dot(m: GyroManifold, a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(tuple(range(-m.normal_ndim, 0)))


def _number(t: Trial) -> Tensor:
    """One of [0, 1) for each item."""
    return torch.rand(t.batch, generator=t.generator, dtype=t.dtype)


# ---- coordinates at the origin --------------------------------------------------------------------------------


@law(float64=1e-9, float32=1e-4)
def normal_coordinates_are_orthonormal(t: Trial) -> None:
    """<a, b> of normal coordinates is inner0 of the tangent vectors, |z| = dist(origin, from_normal(z)) = dist0; the
    coordinates are as many as the dimension, and the maps to and from them are linear and inverse to each other."""
    m, (x,) = _setting(t, 1)
    a, b = t.normal(), t.normal()
    u, v = m.tangent_from_normal(a), m.tangent_from_normal(b)
    count = math.prod(m.normal_shape(t.shape))
    t.require(count == m.dimension(t.shape), f"{count} coordinates in dimension {m.dimension(t.shape)}")
    t.close(m.inner0(u, v), _dot(m, a, b), "inner0 = <a, b>")
    t.close(m.tangent_from_normal(a - 2 * b), u - 2 * v, "tangent_from_normal is linear")
    t.close(m.normal_from_tangent(u), a, "normal_from_tangent inverts")
    point, length = m.from_normal(a), _dot(m, a, a).sqrt()
    t.is_point(point, "from_normal")
    t.close(m.dist(m.origin(*point.shape, dtype=t.dtype), point), length, "dist(origin, from_normal(z)) = |z|")
    t.close(m.dist0(point), length, "dist0 = |z|")
    t.close(m.to_normal(point), a, "to_normal inverts from_normal")
    t.same(m.from_normal(m.to_normal(x)), x, "from_normal inverts to_normal")


@law(float64=1e-10, float32=1e-4)
def operations_at_the_origin_are_those_there(t: Trial) -> None:
    """expmap0, logmap0, inner0, dist0 are expmap, logmap, inner, dist at the origin, which has normal coordinates 0."""
    m, (x,) = _setting(t, 1)
    o = m.origin(*x.shape, dtype=t.dtype)
    u, v = t.tangent(o, t.gyro_length), t.direction(o)
    t.same(m.expmap0(u), m.expmap(o, u), "expmap0")
    t.close(m.logmap0(x), m.logmap(o, x), "logmap0")
    t.close(m.inner0(u, v), m.inner(o, u, v), "inner0")
    t.close(m.inner0(u, keepdim=True), m.inner(o, u, keepdim=True), "inner0(u, keepdim=True)")
    t.close(m.dist0(x), m.dist(o, x), "dist0")
    t.close(m.dist0(x, keepdim=True), m.dist(o, x, keepdim=True), "dist0(keepdim=True)")
    t.small(m.to_normal(o), "to_normal(origin) = 0")
    t.same(m.from_normal(torch.zeros_like(t.normal())), o, "from_normal(0)")


# ---- the gyrogroup --------------------------------------------------------------------------------------------


@law(float64=1e-10, float32=1e-3)
def gyro_addition_has_identity_and_inverses(t: Trial) -> None:
    """e + x = x + e = x, (-x) + x = x + (-x) = e, -(-x) = x, (-x) + (x + y) = y."""
    m, (x, y) = _setting(t, 2)
    o = m.origin(*x.shape, dtype=t.dtype)
    minus = m.gyroinv(x)
    t.is_point(m.gyroadd(x, y), "the sum")
    t.same(m.gyroadd(o, x), x, "e + x = x")
    t.same(m.gyroadd(x, o), x, "x + e = x")
    t.same(m.gyroadd(minus, x), o, "(-x) + x = e")
    t.same(m.gyroadd(x, minus), o, "x + (-x) = e")
    t.same(m.gyroinv(minus), x, "-(-x) = x")
    t.same(m.gyroadd(minus, m.gyroadd(x, y)), y, "left cancellation")


@law(float64=1e-10, float32=1e-3)
def gyro_addition_is_gyroassociative(t: Trial) -> None:
    """x + (y + z) = (x + y) + gyr[x, y] z, and -(x + y) = gyr[x, y]((-y) + (-x))."""
    m, (x, y, z) = _setting(t, 3)
    xy = m.gyroadd(x, y)
    t.same(m.gyroadd(xy, m.gyration(x, y, z)), m.gyroadd(x, m.gyroadd(y, z)), "gyroassociativity")
    backwards = m.gyroadd(m.gyroinv(y), m.gyroinv(x))
    t.same(m.gyration(x, y, backwards), m.gyroinv(xy), "the inverse of a sum")


@law(float64=1e-10, float32=1e-3)
def gyro_addition_is_gyrocommutative(t: Trial) -> None:
    """x + y = gyr[x, y](y + x)."""
    m, (x, y) = _setting(t, 2)
    t.same(m.gyration(x, y, m.gyroadd(y, x)), m.gyroadd(x, y), "gyrocommutativity")


@law(float64=1e-10, float32=1e-3)
def gyrations_are_rotations(t: Trial) -> None:
    """gyr[x, y] keeps sums, the distance from the origin and angles there, and is undone by gyr[y, x]; it is the
    identity for x = e, y = e and y = -x (pseudo-reduction)."""
    m, (x, y, z, w) = _setting(t, 4)
    o, turned = m.origin(*x.shape, dtype=t.dtype), m.gyration(x, y, z)
    t.same(m.gyration(x, y, m.gyroadd(z, w)), m.gyroadd(turned, m.gyration(x, y, w)), "an automorphism")
    t.close(m.dist0(turned), m.dist0(z), "|gyr[x, y] z| = |z|")
    a, b = m.to_normal(z), m.to_normal(w)
    t.close(_dot(m, m.to_normal(turned), m.to_normal(m.gyration(x, y, w))), _dot(m, a, b), "angles")
    t.same(m.gyration(y, x, turned), z, "gyr[y, x] gyr[x, y] z = z")
    for label, pair in (("e, y", (o, y)), ("x, e", (x, o)), ("-x, x", (m.gyroinv(x), x)), ("x, x", (x, x))):
        t.same(m.gyration(*pair, z), z, f"gyr[{label}] = 1")


@law(float64=1e-10, float32=1e-3)
def gyrations_obey_left_reduction(t: Trial) -> None:
    """gyr[x, y] = gyr[x + y, y]: what makes a gyrogroup of a left gyrogroup. (On a Grassmann for
    points as near as these: while the largest principal angle of x and twice that of y add up to less than pi/2.)"""
    m, (x, y, z) = _setting(t, 3)
    t.same(m.gyration(m.gyroadd(x, y), y, z), m.gyration(x, y, z), "left reduction")


@law(float64=1e-10, float32=1e-3)
def gyro_scaling_is_that_of_a_gyrovector_space(t: Trial) -> None:
    """(r + s) x = (r x) + (s x), (r s) x = r (s x), 1 x = x, 0 x = e, -1 x = -x, |r x| = |r| |x|, and gyrations commute
    with it; for numbers and for one number an item."""
    m, (x, y, z) = _setting(t, 3)
    r, s = _number(t), 0.5 * _number(t)
    for a, b in ((r, s), (0.7, -0.4)):
        ax, bx = m.gyroscale(a, x), m.gyroscale(b, x)
        t.same(m.gyroadd(ax, bx), m.gyroscale(a + b, x), "(r + s) x")
        t.same(m.gyroscale(a, bx), m.gyroscale(a * b, x), "(r s) x")
        t.close(m.dist0(bx), abs(b) * m.dist0(x), "|s x| = |s| |x|")
        t.same(m.gyration(y, z, ax), m.gyroscale(a, m.gyration(y, z, x)), "gyr r x = r gyr x")
    o = m.origin(*x.shape, dtype=t.dtype)
    for number, want in ((1.0, x), (0.0, o), (-1.0, m.gyroinv(x))):
        t.same(m.gyroscale(number, x), want, f"{number} x")


# ---- and the geometry -----------------------------------------------------------------------------------------


@law(float64=1e-10, float32=1e-3)
def left_translations_are_isometries(t: Trial) -> None:
    """d(x + y, x + z) = d(y, z) = d(-y, -z), d(gyr[x, y] z, gyr[x, y] w) = d(z, w), d(x, y) = |(-x) + y|."""
    m, (x, y, z, w) = _setting(t, 4)
    d = m.dist(y, z)
    t.close(m.dist(m.gyroadd(x, y), m.gyroadd(x, z)), d, "left translation")
    t.close(m.dist(m.gyroinv(y), m.gyroinv(z)), d, "inversion")
    t.close(m.dist(m.gyration(x, y, z), m.gyration(x, y, w)), m.dist(z, w), "gyration")
    t.close(m.dist0(m.gyroadd(m.gyroinv(y), z)), d, "d(y, z) = |(-y) + z|")


@law(float64=1e-10, float32=1e-3)
def geodesics_are_gyrolines(t: Trial) -> None:
    """geodesic(x, y, s) = x + s ((-x) + y)."""
    m, (x, y) = _setting(t, 2)
    apart = m.gyroadd(m.gyroinv(x), y)
    for s in (_number(t), 0.5):
        t.same(m.gyroadd(x, m.gyroscale(s, apart)), m.geodesic(x, y, s), "gyroline")


@law(float64=1e-10, float32=1e-3)
def frames_are_transported_from_the_origin(t: Trial) -> None:
    """tangent_from_frame(x, z) is the transport of z from the origin, an isometry with inverse frame_from_tangent;
    expmap_frame and logmap_frame are exp and log in these coordinates."""
    m, (x, y) = _setting(t, 2)
    o, z, w = m.origin(*x.shape, dtype=t.dtype), t.normal(), t.normal()
    u = m.tangent_from_frame(x, z)
    t.is_tangent(x, u, "tangent_from_frame")
    t.close(u, m.parallel_transport(o, x, m.tangent_from_normal(z)), "transported from the origin")
    t.close(m.inner(x, u, m.tangent_from_frame(x, w)), _dot(m, z, w), "an isometry")
    t.close(m.frame_from_tangent(x, u), z, "frame_from_tangent")
    t.same(m.expmap_frame(x, z), m.expmap(x, u), "expmap_frame")
    t.close(m.logmap_frame(x, y), m.frame_from_tangent(x, m.logmap(x, y)), "logmap_frame")
    t.close(m.logmap_frame(x, m.expmap_frame(x, z)), z, "logmap_frame inverts expmap_frame")
    t.small(m.logmap_frame(x, x), "logmap_frame(x, x) = 0")


@law(float64=1e-10, float32=1e-3)
def transport_of_frames_is_parallel(t: Trial) -> None:
    """transport_frame is parallel_transport in frame coordinates: linear, a rotation, undone by the way back; it sends
    log_x y to -log_y x, and from the origin changes nothing."""
    m, (x, y) = _setting(t, 2)
    o, z, w = m.origin(*x.shape, dtype=t.dtype), t.normal(), t.normal()
    moved = m.transport_frame(x, y, z)
    want = m.frame_from_tangent(y, m.parallel_transport(x, y, m.tangent_from_frame(x, z)))
    t.close(moved, want, "parallel transport")
    t.close(_dot(m, moved, m.transport_frame(x, y, w)), _dot(m, z, w), "a rotation")
    t.close(m.transport_frame(x, y, z - 2 * w), moved - 2 * m.transport_frame(x, y, w), "linear")
    t.close(m.transport_frame(y, x, moved), z, "there and back")
    t.close(m.transport_frame(x, y, m.logmap_frame(x, y)), -m.logmap_frame(y, x), "log_x y goes to -log_y x")
    t.close(m.transport_frame(o, y, z), z, "from the origin")
    t.close(m.transport_frame(x, x, z), z, "from x to x")


# ---- closed forms and derivatives -----------------------------------------------------------------------------


@law(float64=1e-9, float32=1e-3, examples=3)
def closed_gyro_forms_agree_with_derived_ones(t: Trial) -> None:
    """Every gyro-operation that the manifold overrides equals what `GyroManifold` derives from the contract."""
    arguments = t.gyro_arguments()
    arguments["t"] = _number(t)
    for name, letters in operations.GYRO_OPERATIONS.items():
        derived = getattr(GyroManifold, name)
        if getattr(type(t.manifold), name) is derived or name in ("tangent_from_normal", "normal_from_tangent"):
            continue
        (got,) = operations.call(t, name, arguments)
        want = derived(t.manifold, *(arguments[letter] for letter in letters))
        (t.same if name in GIVING_POINTS else t.close)(got, want, name)


@law(examples=1)
def gyro_derivatives_exist_at_the_origin(t: Trial) -> None:
    """First and second derivatives of the smooth gyro-operations are difference quotients at the origin, where lengths
    and angles vanish, and where all points are equal (along random directions, atol 1e-6 and 1e-5)."""
    t.batch = (3,)
    m, (x,) = _setting(t, 1)
    o, z = m.origin(*x.shape, dtype=t.dtype), t.normal()
    letters, labels = operations.GYRO_OPERATIONS, ["the origin", "equal points"]
    points, coordinates = torch.stack([o, x]), torch.stack([torch.zeros_like(z), z])
    for name in operations.GYRO_SMOOTH:

        def function(*raw: Tensor, name=name) -> tuple[Tensor, ...]:
            made = {k: a if k == "n" else m.projx(a) for k, a in zip(letters[name], raw, strict=True)}
            return operations.call(t, name, made)

        inputs = [coordinates if k == "n" else points for k in letters[name]]
        try:
            hold_first(t, function, inputs, name, labels)
            hold_second(t, function, inputs, name, labels)
        except RuntimeError as error:
            t.fail(f"{name}: {str(error).strip()[:1500]}")
