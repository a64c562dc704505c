# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportArgumentType=false
"""Triton kernels of the sphere.

The formulas are those of `functional.sphere`, the derivatives those of `functional.sphere_backward`, notation as there:
x and y seen from their sum M, of the length m, with `off` the part of y - x across it and `along` that on it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_rows import (
    backward_launcher,
    divide,
    dot,
    forward_launcher,
    load,
    load_option,
    load_row,
    store_packed,
    tile,
)


@triton.jit
def arctangent(y, x):
    """The angle of (x, y), y >= 0, from 0 to pi; 0 where both are zero."""
    size = tl.abs(x)
    a = divide(tl.minimum(y, size), tl.maximum(y, size))
    # tan(pi/8): an eighth of a turn less from there on.
    large = a > 0.41421356
    t = tl.where(large, (a - 1) / (a + 1), a)
    z = t * t
    p = 8.05374449538e-2 * z - 1.38776856032e-1
    p = p * z + 1.99777106478e-1
    p = p * z - 3.33329491539e-1
    angle = p * z * t + t + tl.where(large, 0.78539816, 0.0)
    angle = tl.where(y > size, 1.57079633 - angle, angle)
    return tl.where(x < 0, 3.14159265 - angle, angle)


@triton.jit
def hypotenuse(x, y):
    """sqrt(x^2 + y^2), of which no square overflows."""
    largest = tl.maximum(tl.abs(x), tl.abs(y))
    ratio = divide(tl.minimum(tl.abs(x), tl.abs(y)), largest)
    return largest * tl.sqrt(1 + ratio * ratio)


@triton.jit
def length(x):
    """|x| of each row, by squares in float64: those of float32 are numbers there."""
    wide = x.to(tl.float64)
    return tl.sqrt(tl.sum(wide * wide, axis=1)).to(tl.float32)


@triton.jit
def between(x, y, R, column):
    """M, off, m, |off|, m - along and m + along. Of a point and its antipode M is a short vector along an axis."""
    total = x + y
    least = 1e-11 * R
    cut = length(total) < least
    first = tl.sum(tl.where((column == 0)[None, :], x, 0.0), axis=1)
    axis = tl.where(tl.abs(first) > 0.7 * R, 1, 0)
    total += tl.where(cut[:, None] & (column[None, :] == axis[:, None]), least[:, None], 0.0)
    m = length(total)
    chord = y - x
    along = dot(chord, total) / m
    off = chord - (along / m)[:, None] * total
    return total, off, m, length(off), m - along, m + along


@triton.jit
def way(x, y, R, column):
    """The unit tangent at x towards y, zero where they coincide; m, |off|, m - along, m + along; theta; 2|x|, 2|y|, and
    sine and cosine of theta."""
    total, off, m, across, at_x, at_y = between(x, y, R, column)
    x_length = hypotenuse(at_x, across)
    y_length = hypotenuse(at_y, across)
    tangent = (across / m / x_length)[:, None] * total + divide(at_x / x_length, across)[:, None] * off
    theta = arctangent(across, at_x) + arctangent(across, at_y)
    sine = 2 * (across / x_length) * (m / y_length)
    cosine = (at_x / x_length) * (at_y / y_length) - (across / x_length) * (across / y_length)
    return tangent, theta, x_length, y_length, sine, cosine


@triton.jit
def cosine_sine(r):
    """Of -pi <= r <= pi, by a quarter of it and doubling twice: the device's own have room on the stack for angles of
    any size."""
    s = r * 0.25
    z = s * s
    p = tl.full(z.shape, 1.0, tl.float32)
    for i in tl.static_range(5):  # leaves 1e-11
        p = 1 - z * p * (1.0 / ((10 - 2 * i) * (11 - 2 * i)))
    s = s * p
    c = tl.sqrt(1 - s * s)
    for _ in tl.static_range(2):
        s, c = 2 * s * c, 1 - 2 * s * s
    return c, s


@triton.jit
def turn(u, k):
    """cos(t), sin(t)/t and twice the derivative of that in t^2, t = sqrt(K) |u|; whole turns are taken off in
    float64."""
    wide = u.to(tl.float64)
    t = tl.sqrt(k * tl.sum(wide * wide, axis=1))
    r = (t - 6.283185307179586 * tl.floor(t / 6.283185307179586 + 0.5)).to(tl.float32)
    t = t.to(tl.float32)
    small = t < 1.0
    w = tl.where(small, 1.0, t)
    z = tl.where(small, t * t, 0.0)
    p = tl.full(z.shape, 1.0, tl.float32)
    q = tl.full(z.shape, 1.0, tl.float32)
    for i in tl.static_range(6):  # leaves 1e-11 at t = 1
        p = 1 - z * p * (1.0 / ((12 - 2 * i) * (13 - 2 * i)))
        q = 1 - z * q * (1.0 / ((12 - 2 * i) * (15 - 2 * i)))
    cosine, sine = cosine_sine(r)
    ratio = tl.where(small, p, sine / w)
    return cosine, ratio, tl.where(small, q * (-1.0 / 3.0), (cosine - ratio) / w / w)


@triton.jit
def _exp(
    x_ptr, u_ptr, y_ptr, k_ptr, x_stride, u_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    k = load_option(k_ptr, high, low, OPTION_IS_TENSOR)
    x = load_row(x_ptr, x_stride, row, column, mask)
    u = load_row(u_ptr, u_stride, row, column, mask)
    cosine, ratio, bend = turn(u, k)
    store_packed(y_ptr, row, column, width, mask, cosine[:, None] * x + ratio[:, None] * u)


@triton.jit
def _exp_backward(
    g_ptr, x_ptr, u_ptr, gx_ptr, gu_ptr, gk_ptr, k_ptr, g_stride, x_stride, u_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    k = load_option(k_ptr, high, low, OPTION_IS_TENSOR)
    g = load_row(g_ptr, g_stride, row, column, mask)
    x = load_row(x_ptr, x_stride, row, column, mask)
    u = load_row(u_ptr, u_stride, row, column, mask)
    cosine, ratio, bend = turn(u, k)
    through = bend * dot(g, u) - ratio * dot(g, x)
    store_packed(gx_ptr, row, column, width, mask, cosine[:, None] * g)
    store_packed(gu_ptr, row, column, width, mask, ratio[:, None] * g + (k.to(tl.float32) * through)[:, None] * u)
    if OPTION_IS_TENSOR:
        tl.store(gk_ptr + row, 0.5 * through * dot(u, u), mask=live)


@triton.jit
def _log(
    x_ptr, y_ptr, u_ptr, k_ptr, x_stride, y_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    R = tl.full((ROWS,), 1.0, tl.float32) / tl.sqrt(load_option(k_ptr, high, low, OPTION_IS_TENSOR)).to(tl.float32)
    x = load_row(x_ptr, x_stride, row, column, mask)
    y = load_row(y_ptr, y_stride, row, column, mask)
    tangent, theta, x_length, y_length, sine, cosine = way(x, y, R, column)
    store_packed(u_ptr, row, column, width, mask, (R * theta)[:, None] * tangent)


@triton.jit
def _log_backward(
    g_ptr, x_ptr, y_ptr, gx_ptr, gy_ptr, gk_ptr, k_ptr, g_stride, x_stride, y_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    R = tl.full((ROWS,), 1.0, tl.float32) / tl.sqrt(load_option(k_ptr, high, low, OPTION_IS_TENSOR)).to(tl.float32)
    g = load_row(g_ptr, g_stride, row, column, mask)
    x = load_row(x_ptr, x_stride, row, column, mask)
    y = load_row(y_ptr, y_stride, row, column, mask)
    tangent, theta, x_length, y_length, sine, cosine = way(x, y, R, column)
    e = (2 / x_length)[:, None] * x
    F = tl.where(sine == 0, 1.0, tl.minimum(divide(theta, sine), 33554432.0))  # at the antipode a number
    gt = dot(g, tangent)
    ge = dot(g, e)
    h = F[:, None] * (g - gt[:, None] * tangent - ge[:, None] * e)
    gx = cosine[:, None] * h + (gt + theta * ge)[:, None] * tangent
    gy = h + gt[:, None] * (cosine[:, None] * tangent - sine[:, None] * e)
    # Where the points coincide there is no tangent to take away, and none to turn.
    store_packed(gx_ptr, row, column, width, mask, (-2 * R / x_length)[:, None] * gx)
    store_packed(gy_ptr, row, column, width, mask, (2 * R / y_length)[:, None] * gy)
    if OPTION_IS_TENSOR:
        tl.store(gk_ptr + row, -0.5 * gt * theta * R * R * R, mask=live)


@triton.jit
def _dist(
    x_ptr, y_ptr, d_ptr, k_ptr, x_stride, y_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    R = tl.full((ROWS,), 1.0, tl.float32) / tl.sqrt(load_option(k_ptr, high, low, OPTION_IS_TENSOR)).to(tl.float32)
    x = load_row(x_ptr, x_stride, row, column, mask)
    y = load_row(y_ptr, y_stride, row, column, mask)
    total, off, m, across, at_x, at_y = between(x, y, R, column)
    tl.store(d_ptr + row, R * (arctangent(across, at_x) + arctangent(across, at_y)), mask=live)


@triton.jit
def _dist2(
    x_ptr, y_ptr, d_ptr, k_ptr, x_stride, y_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    R = tl.full((ROWS,), 1.0, tl.float32) / tl.sqrt(load_option(k_ptr, high, low, OPTION_IS_TENSOR)).to(tl.float32)
    x = load_row(x_ptr, x_stride, row, column, mask)
    y = load_row(y_ptr, y_stride, row, column, mask)
    total, off, m, across, at_x, at_y = between(x, y, R, column)
    d = R * (arctangent(across, at_x) + arctangent(across, at_y))
    tl.store(d_ptr + row, d * d, mask=live)


@triton.jit
def _dist_gradients(
    g_ptr, x_ptr, y_ptr, gx_ptr, gy_ptr, gk_ptr, k_ptr, g_stride, x_stride, y_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, SQUARED: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    R = tl.full((ROWS,), 1.0, tl.float32) / tl.sqrt(load_option(k_ptr, high, low, OPTION_IS_TENSOR)).to(tl.float32)
    x = load_row(x_ptr, x_stride, row, column, mask)
    y = load_row(y_ptr, y_stride, row, column, mask)
    g = load(g_ptr, row * g_stride, live)
    total, off, m, across, at_x, at_y = between(x, y, R, column)
    d = R * (arctangent(across, at_x) + arctangent(across, at_y))
    if SQUARED:
        g = 2 * g * d
    x_length = hypotenuse(at_x, across)
    y_length = hypotenuse(at_y, across)
    along = (across / m)[:, None] * total
    unit = divide(1.0, across)[:, None] * off
    gx = (-2 * R * g / x_length / x_length)[:, None] * (along + at_x[:, None] * unit)
    gy = (2 * R * g / y_length / y_length)[:, None] * (at_y[:, None] * unit - along)
    store_packed(gx_ptr, row, column, width, mask, gx)
    store_packed(gy_ptr, row, column, width, mask, gy)
    if OPTION_IS_TENSOR:
        tl.store(gk_ptr + row, -0.5 * g * d * R * R, mask=live)


@triton.jit
def _dist_backward(
    g_ptr, x_ptr, y_ptr, gx_ptr, gy_ptr, gk_ptr, k_ptr, g_stride, x_stride, y_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    _dist_gradients(
        g_ptr, x_ptr, y_ptr, gx_ptr, gy_ptr, gk_ptr, k_ptr, g_stride, x_stride, y_stride, high, low, n, width,
        OPTION_IS_TENSOR, ROWS, BLOCK, False,
    )  # fmt: skip


@triton.jit
def _dist2_backward(
    g_ptr, x_ptr, y_ptr, gx_ptr, gy_ptr, gk_ptr, k_ptr, g_stride, x_stride, y_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    _dist_gradients(
        g_ptr, x_ptr, y_ptr, gx_ptr, gy_ptr, gk_ptr, k_ptr, g_stride, x_stride, y_stride, high, low, n, width,
        OPTION_IS_TENSOR, ROWS, BLOCK, True,
    )  # fmt: skip


@triton.jit
def _transport(
    x_ptr, y_ptr, v_ptr, w_ptr, k_ptr, x_stride, y_stride, v_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    R = tl.full((ROWS,), 1.0, tl.float32) / tl.sqrt(load_option(k_ptr, high, low, OPTION_IS_TENSOR)).to(tl.float32)
    x = load_row(x_ptr, x_stride, row, column, mask)
    y = load_row(y_ptr, y_stride, row, column, mask)
    v = load_row(v_ptr, v_stride, row, column, mask)
    tangent, theta, x_length, y_length, sine, cosine = way(x, y, R, column)
    vt = dot(v, tangent)
    w = v + (vt * (cosine - 1))[:, None] * tangent - (2 * vt * sine / x_length)[:, None] * x
    store_packed(w_ptr, row, column, width, mask, w)


@triton.jit
def _transport_backward(
    g_ptr, x_ptr, y_ptr, v_ptr, gx_ptr, gy_ptr, gv_ptr, gk_ptr, k_ptr,
    g_stride, x_stride, y_stride, v_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    R = tl.full((ROWS,), 1.0, tl.float32) / tl.sqrt(load_option(k_ptr, high, low, OPTION_IS_TENSOR)).to(tl.float32)
    g = load_row(g_ptr, g_stride, row, column, mask)
    x = load_row(x_ptr, x_stride, row, column, mask)
    y = load_row(y_ptr, y_stride, row, column, mask)
    v = load_row(v_ptr, v_stride, row, column, mask)
    tangent, theta, x_length, y_length, sine, cosine = way(x, y, R, column)
    e = (2 / x_length)[:, None] * x
    gt = dot(g, tangent)
    ge = dot(g, e)
    vt = dot(v, tangent)
    back = cosine < 0
    half = tl.where(back, 1 - cosine, sine) / tl.where(back, tl.maximum(sine, 3e-8), 1 + cosine)
    in_v = ge + half * gt
    in_g = vt * half
    h = in_v[:, None] * v + in_g[:, None] * g
    h -= dot(h, tangent)[:, None] * tangent + dot(h, e)[:, None] * e
    turned = vt * (sine * gt + cosine * ge)
    across = g - gt[:, None] * tangent - ge[:, None] * e
    lift = turned + sine * (in_v * dot(v, e) + in_g * ge) - vt * sine * gt
    gx = cosine[:, None] * h - (vt * sine)[:, None] * across + lift[:, None] * tangent
    gy = -h - turned[:, None] * (cosine[:, None] * tangent - sine[:, None] * e)
    gv = g + ((cosine - 1) * gt - sine * ge)[:, None] * tangent
    store_packed(gx_ptr, row, column, width, mask, (2 / x_length)[:, None] * gx)
    store_packed(gy_ptr, row, column, width, mask, (2 / y_length)[:, None] * gy)
    store_packed(gv_ptr, row, column, width, mask, gv)
    if OPTION_IS_TENSOR:
        tl.store(gk_ptr + row, 0.0, mask=live)


LAUNCHERS = {
    "sphere_exp": (forward_launcher(_exp), backward_launcher(_exp_backward)),
    "sphere_log": (forward_launcher(_log), backward_launcher(_log_backward)),
    "sphere_dist": (forward_launcher(_dist, scalar=True), backward_launcher(_dist_backward, scalar=True)),
    "sphere_dist2": (forward_launcher(_dist2, scalar=True), backward_launcher(_dist2_backward, scalar=True)),
    "sphere_transport": (forward_launcher(_transport), backward_launcher(_transport_backward)),
}
