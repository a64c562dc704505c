# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false
"""Triton kernels of the Lorentz model.

The formulas are those of `functional.lorentz`; the derivatives are written out beside them. The tile of a row is its
space part s; the time of a point is never read, and that of a result is derived. Notation as there: t^2 = 1/c + |s|^2,
D = y - x, S = sinh^2(r/2) with r = sqrt(c) d, and q(x, y) = y - t_y/t_x x, which is -1/c times the gradient of cosh(r)
in x. The gradient g of a vector (or point) that derives its time from its space part is folded into the space part:
h = g_s + g_t s/t.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_common import (
    asinh_excess,
    asinh_ratio,
    log_ratio,
    log_ratio_relative_derivative,
    sinh_ratio,
    sinh_ratio_derivative,
)
from .triton_rows import backward_launcher, divide, dot, forward_launcher, load, load_option, tile


@triton.jit
def separation(x, y, c):
    """t_x, t_y, t_y - t_x, and the angular part of S beside S itself; then D and the longer of q(x, y), -q(y, x), which
    is formed by taking away the lower of the two points."""
    chord = y - x
    tx = tl.sqrt(dot(x, x) + 1 / c)
    ty = tl.sqrt(dot(y, y) + 1 / c)
    dt = dot(chord, x + y) / (tx + ty)
    lower = tx <= ty
    normal = chord - tl.where(lower, dt / tx, 0.0)[:, None] * x - tl.where(lower, 0.0, dt / ty)[:, None] * y
    angular = 0.25 * c * tl.where(lower, tx / ty, ty / tx) * dot(normal, normal)
    S = angular + dt * (dt / tx / (4 * ty))
    return tx, ty, dt, angular, S, chord, normal


@triton.jit
def normals(x, y, c, tx, ty, dt, S, normal):
    """q(x, y) and q(y, x), each with its part along its point, which is known better than the rounded rows have it."""
    lower = tx <= ty
    qx = tl.where(lower, 1.0, ty / tx)[:, None] * normal
    qy = -tl.where(lower, tx / ty, 1.0)[:, None] * normal
    along_x = (dt / tx - 2 * S) / c
    along_y = (-dt / ty - 2 * S) / c
    qx += ((along_x - dot(qx, x)) / tx / tx)[:, None] * x
    qy += ((along_y - dot(qy, y)) / ty / ty)[:, None] * y
    return qx, qy


@triton.jit
def metric_parts(x, u, c):
    """t, sigma = <s, u>/t^2, p = u - sigma s, and the length r of u in units of the radius."""
    t2 = dot(x, x) + 1 / c
    sigma = dot(x, u) / t2
    p = u - sigma[:, None] * x
    return tl.sqrt(t2), sigma, p, tl.sqrt(c * dot(p, p) + sigma * sigma)


@triton.jit
def store_row(pointer, row, column, width, live, mask, time, space):
    """Write rows of width + 1 numbers, packed: the time, and the tile of the space parts."""
    offset = row * (width + 1)
    tl.store(pointer + offset, time, mask=live)
    tl.store(pointer + offset[:, None] + 1 + column[None, :], space, mask=mask)


@triton.jit
def load_space(pointer, stride, row, column, mask):
    """The tile of the space parts: the first number of every row is passed over."""
    return load(pointer, row[:, None] * stride + 1 + column[None, :], mask)


@triton.jit
def _exp(
    x_ptr, u_ptr, y_ptr, k_ptr, x_stride, u_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    c = -load_option(k_ptr, high, low, OPTION_IS_TENSOR).to(tl.float32)
    x = load_space(x_ptr, x_stride, row, column, mask)
    u = load_space(u_ptr, u_stride, row, column, mask)
    t, sigma, p, r = metric_parts(x, u, c)
    e = tl.exp(r)
    y = (0.5 * (e + 1 / e))[:, None] * x + sinh_ratio(r, e)[:, None] * u
    store_row(y_ptr, row, column, width, live, mask, tl.sqrt(dot(y, y) + 1 / c), y)


@triton.jit
def _exp_backward(
    g_ptr, x_ptr, u_ptr, gx_ptr, gu_ptr, gk_ptr, k_ptr, g_stride, x_stride, u_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    c = -load_option(k_ptr, high, low, OPTION_IS_TENSOR).to(tl.float32)
    x = load_space(x_ptr, x_stride, row, column, mask)
    u = load_space(u_ptr, u_stride, row, column, mask)
    gt = load(g_ptr, row * g_stride, live)
    h = load_space(g_ptr, g_stride, row, column, mask)
    t, sigma, p, r = metric_parts(x, u, c)
    e = tl.exp(r)
    cosh = 0.5 * (e + 1 / e)
    ratio = sinh_ratio(r, e)
    y = cosh[:, None] * x + ratio[:, None] * u
    ty = tl.sqrt(dot(y, y) + 1 / c)
    h += (gt / ty)[:, None] * y
    # The derivative in r^2 = c (|p|^2 + sigma^2/c), whose gradient is 2c p in u, -2c sigma p in x, and |p|^2 in c.
    m = 0.5 * ratio * dot(h, x) + sinh_ratio_derivative(r, cosh, ratio) * dot(h, u)
    gx = cosh[:, None] * h - (2 * c * m * sigma)[:, None] * p
    gu = ratio[:, None] * h + (2 * c * m)[:, None] * p
    store_row(gx_ptr, row, column, width, live, mask, 0.0, gx)
    store_row(gu_ptr, row, column, width, live, mask, 0.0, gu)
    if OPTION_IS_TENSOR:
        tl.store(gk_ptr + row, gt / ty / c * (0.5 / c) - m * dot(p, p), mask=live)


@triton.jit
def _log(
    x_ptr, y_ptr, u_ptr, k_ptr, x_stride, y_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    c = -load_option(k_ptr, high, low, OPTION_IS_TENSOR).to(tl.float32)
    x = load_space(x_ptr, x_stride, row, column, mask)
    y = load_space(y_ptr, y_stride, row, column, mask)
    tx, ty, dt, angular, S, chord, normal = separation(x, y, c)
    a = log_ratio(tl.sqrt(S))
    b = 2 * S * a
    store_row(u_ptr, row, column, width, live, mask, a * dt - b * tx, a[:, None] * chord - b[:, None] * x)


@triton.jit
def _log_backward(
    g_ptr, x_ptr, y_ptr, gx_ptr, gy_ptr, gk_ptr, k_ptr, g_stride, x_stride, y_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    c = -load_option(k_ptr, high, low, OPTION_IS_TENSOR).to(tl.float32)
    x = load_space(x_ptr, x_stride, row, column, mask)
    y = load_space(y_ptr, y_stride, row, column, mask)
    gt = load(g_ptr, row * g_stride, live)
    h = load_space(g_ptr, g_stride, row, column, mask)
    tx, ty, dt, angular, S, chord, normal = separation(x, y, c)
    s = tl.sqrt(S)
    a = log_ratio(s)
    b = 2 * S * a
    h += (gt / tx)[:, None] * x
    hx = dot(h, x)
    # The derivative in cosh(r) = 1 + 2S, of which c q is the falling gradient and 2 angular/c that in c.
    # Of a and of 2 S a, whose derivative is (1 + a)/(1 + S): far out that of a is no number.
    m = 0.5 * (log_ratio_relative_derivative(s, a) * (a * dot(h, chord)) - (1 + a) / (1 + S) * hx)
    qx, qy = normals(x, y, c, tx, ty, dt, S, normal)
    ut = (a * dt - b * tx) / tx / tx  # <x, u>/t_x^3
    gx = (-a - b)[:, None] * h - (c * m)[:, None] * qx
    gx += (gt / tx)[:, None] * (a[:, None] * chord - b[:, None] * x) - (gt * ut)[:, None] * x
    gy = a[:, None] * h - (c * m)[:, None] * qy
    store_row(gx_ptr, row, column, width, live, mask, 0.0, gx)
    store_row(gy_ptr, row, column, width, live, mask, 0.0, gy)
    if OPTION_IS_TENSOR:
        tl.store(gk_ptr + row, -(2 * m * angular + gt * ut / (2 * c)) / c, mask=live)


@triton.jit
def _dist(
    x_ptr, y_ptr, d_ptr, k_ptr, x_stride, y_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    c = -load_option(k_ptr, high, low, OPTION_IS_TENSOR).to(tl.float32)
    x = load_space(x_ptr, x_stride, row, column, mask)
    y = load_space(y_ptr, y_stride, row, column, mask)
    tx, ty, dt, angular, S, chord, normal = separation(x, y, c)
    s = tl.sqrt(S)
    tl.store(d_ptr + row, 2 * s * asinh_ratio(s) / tl.sqrt(c), mask=live)


@triton.jit
def _dist_backward(
    g_ptr, x_ptr, y_ptr, gx_ptr, gy_ptr, gk_ptr, k_ptr, g_stride, x_stride, y_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    c = -load_option(k_ptr, high, low, OPTION_IS_TENSOR).to(tl.float32)
    x = load_space(x_ptr, x_stride, row, column, mask)
    y = load_space(y_ptr, y_stride, row, column, mask)
    g = load(g_ptr, row * g_stride, live)
    tx, ty, dt, angular, S, chord, normal = separation(x, y, c)
    s = tl.sqrt(S)
    sinh = 2 * s * tl.sqrt(1 + S)
    qx, qy = normals(x, y, c, tx, ty, dt, S, normal)
    m = -g * tl.sqrt(c) * divide(1.0, sinh)  # 0 at coincidence
    store_row(gx_ptr, row, column, width, live, mask, 0.0, m[:, None] * qx)
    store_row(gy_ptr, row, column, width, live, mask, 0.0, m[:, None] * qy)
    if OPTION_IS_TENSOR:
        # No power of c is formed beside those of what it has to meet.
        R = 1 / tl.sqrt(c)
        radial = divide(dt / tx / c * (dt / ty / c), 2 * R * sinh)
        tl.store(gk_ptr + row, g * (asinh_excess(s, asinh_ratio(s), R) + radial), mask=live)


@triton.jit
def _transport(
    x_ptr, y_ptr, v_ptr, w_ptr, k_ptr, x_stride, y_stride, v_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    c = -load_option(k_ptr, high, low, OPTION_IS_TENSOR).to(tl.float32)
    x = load_space(x_ptr, x_stride, row, column, mask)
    y = load_space(y_ptr, y_stride, row, column, mask)
    v = load_space(v_ptr, v_stride, row, column, mask)
    tx, ty, dt, angular, S, chord, normal = separation(x, y, c)
    qx, qy = normals(x, y, c, tx, ty, dt, S, normal)
    k = 0.5 * c * dot(qx, v) / (1 + S)
    store_row(w_ptr, row, column, width, live, mask, dot(x, v) / tx + k * (tx + ty), v + k[:, None] * (x + y))


@triton.jit
def _transport_backward(
    g_ptr, x_ptr, y_ptr, v_ptr, gx_ptr, gy_ptr, gv_ptr, gk_ptr, k_ptr,
    g_stride, x_stride, y_stride, v_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    c = -load_option(k_ptr, high, low, OPTION_IS_TENSOR).to(tl.float32)
    x = load_space(x_ptr, x_stride, row, column, mask)
    y = load_space(y_ptr, y_stride, row, column, mask)
    v = load_space(v_ptr, v_stride, row, column, mask)
    gt = load(g_ptr, row * g_stride, live)
    h = load_space(g_ptr, g_stride, row, column, mask)
    tx, ty, dt, angular, S, chord, normal = separation(x, y, c)
    qx, qy = normals(x, y, c, tx, ty, dt, S, normal)
    h += (gt / ty)[:, None] * y
    k = 0.5 * c * dot(qx, v) / (1 + S)
    vt = dot(x, v) / tx
    wt = vt + k * (tx + ty)
    m = 0.5 * dot(h, x + y) / (1 + S)
    # w = v + k (x + y) with k = c <q, v>/(1 + cosh r); what h sees of dk is m times c d<q, v> - k d(cosh r).
    gv = h + (m * c)[:, None] * qx
    gx = k[:, None] * h + (m * c)[:, None] * (k[:, None] * qx - (ty / tx)[:, None] * (v - (vt / tx)[:, None] * x))
    gy = k[:, None] * h + (m * c)[:, None] * (k[:, None] * qy + v - (vt / ty)[:, None] * y)
    gy += (gt / ty)[:, None] * (v + k[:, None] * (x + y) - (wt / ty)[:, None] * y)
    store_row(gx_ptr, row, column, width, live, mask, 0.0, gx)
    store_row(gy_ptr, row, column, width, live, mask, 0.0, gy)
    store_row(gv_ptr, row, column, width, live, mask, 0.0, gv)
    if OPTION_IS_TENSOR:
        derivative = k * (2 + dt / tx * (dt / (2 * ty))) - vt / tx * (dt / tx) * ((tx + ty) / (2 * ty))
        tl.store(gk_ptr + row, -(m * derivative / c + gt * (wt / ty / ty / c) * (0.5 / c)), mask=live)


LAUNCHERS = {
    "lorentz_exp": (forward_launcher(_exp, skip=1), backward_launcher(_exp_backward, skip=1)),
    "lorentz_log": (forward_launcher(_log, skip=1), backward_launcher(_log_backward, skip=1)),
    "lorentz_dist": (
        forward_launcher(_dist, scalar=True, skip=1),
        backward_launcher(_dist_backward, scalar=True, skip=1),
    ),
    "lorentz_transport": (forward_launcher(_transport, skip=1), backward_launcher(_transport_backward, skip=1)),
}
