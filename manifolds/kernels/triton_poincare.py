# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false
"""Triton kernels of the Poincare ball.

The formulas are those of `functional.poincare`, with c = -K; the derivatives are written out beside them. The conformal
gap 1 - c|x|^2 of a point is added up in float64: next to the rim, float32 would keep no digit of it. (A product of two
float32 is exact there; two-product by a fused multiply-add would need a second sum for the errors, and the interpreter
has no fused one.) Every derivative is gathered as derivatives in the few row scalars that the formula is made of: kE in
E = c|D|^2 (or c|S|^2), kx and ky in the gaps of x and y.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_common import asinh_excess, asinh_ratio, log_ratio, log_ratio_relative_derivative, sinh_ratio
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
def raw_gap(x, c):
    """1 - c|x|^2, c in float64; negative outside the ball."""
    wide = x.to(tl.float64)
    return (1 - c * tl.sum(wide * wide, axis=1)).to(tl.float32)


@triton.jit
def gap(x, c):
    """`raw_gap`, NaN outside the ball: there is no metric."""
    om = raw_gap(x, c)
    return tl.where(om <= 0, float("nan"), om)


@triton.jit
def tanh_parts(r):
    """tanh(r)/r and 1/cosh(r)^2."""
    e = tl.exp(-r)
    m = e * e
    sech = 2 * e / (1 + m)
    small = r < 1.0
    w = tl.where(small, 1.0, r)
    inner = tl.where(small, r, 0.0)
    return tl.where(small, sinh_ratio(inner, tl.exp(inner)) * sech, (1 - m) / (1 + m) / w), sech * sech


@triton.jit
def tanh_ratio_derivative(r, ratio, sech2):
    """The derivative of tanh(r)/r in r^2: (sech^2 - tanh(r)/r)/(2 r^2), which is (1 - sinh(2r)/(2r)) sech^2/(2 r^2)."""
    small = r < 1.0
    z = tl.where(small, 4 * r * r, 0.0)
    p = tl.full(z.shape, 1.0, tl.float32)
    for i in tl.static_range(8):
        p = 1 + z * p * (1.0 / ((18 - 2 * i) * (19 - 2 * i)))
    w = tl.where(small, 1.0, r)
    return tl.where(small, p * sech2 * (-1.0 / 3.0), (sech2 - ratio) / w * (0.5 / w))


@triton.jit
def shortening(u, om, c):
    """One, or what makes a vector that is longer than 2^20 over sqrt(c) about as long: it leads to the rim as well."""
    longest = 1048576.0 * om / tl.sqrt(c)
    largest = tl.max(
        tl.abs(u), axis=1
    )  # not times a rate, which may be no number: its reciprocal would stop the vector
    return tl.where(largest > longest, longest / largest, 1.0)


@triton.jit
def _exp(
    x_ptr, u_ptr, y_ptr, k_ptr, x_stride, u_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    c64 = -load_option(k_ptr, high, low, OPTION_IS_TENSOR)
    c = c64.to(tl.float32)
    x = load_row(x_ptr, x_stride, row, column, mask)
    u = load_row(u_ptr, u_stride, row, column, mask)
    om = gap(x, c64)
    u = u * shortening(u, om, c)[:, None]
    ratio, sech2 = tanh_parts(tl.sqrt(c * dot(u, u) / om / om))
    s = x + (ratio / om)[:, None] * u
    E = c * dot(s, s)
    scale = 1 / (om * sech2 + E)
    y = (om * scale)[:, None] * s + (E * scale)[:, None] * x
    # What rounding puts on the rim or beyond is drawn inside, by two eps: the rounding of the product may take one.
    om = raw_gap(y, c64)
    outside = om <= 0
    factor = tl.where(outside, (1 - 2.3841858e-07) / tl.sqrt(tl.where(outside, 1 - om, 1.0)), 1.0)
    store_packed(y_ptr, row, column, width, mask, factor[:, None] * y)


@triton.jit
def _exp_backward(
    g_ptr, x_ptr, u_ptr, gx_ptr, gu_ptr, gk_ptr, k_ptr, g_stride, x_stride, u_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    c64 = -load_option(k_ptr, high, low, OPTION_IS_TENSOR)
    c = c64.to(tl.float32)
    g = load_row(g_ptr, g_stride, row, column, mask)
    x = load_row(x_ptr, x_stride, row, column, mask)
    u = load_row(u_ptr, u_stride, row, column, mask)
    om = gap(x, c64)
    factor = shortening(u, om, c)
    u = u * factor[:, None]
    z = c * dot(u, u) / om / om
    r = tl.sqrt(z)
    ratio, sech2 = tanh_parts(r)
    s = x + (ratio / om)[:, None] * u
    ss = dot(s, s)
    E = c * ss
    scale = 1 / (om * sech2 + E)
    # y = (om s + E x)/(om sech^2 + E); the derivatives below lack the factor `scale`.
    # <g, s - sech^2 x>, of which <g, x - y> and <g, s - sech^2 y> are multiples: as differences they cancel at the rim.
    gx_row = dot(g, x)
    moved = z * ratio * ratio * gx_row + ratio / om * dot(g, u)
    kE = -om * scale * moved
    gy_row = gx_row - kE
    gs = om[:, None] * g + (2 * c * kE)[:, None] * s
    on_ratio = dot(gs, u) / om
    # d(sech^2) = -sech^2 tanh(r)/r d(r^2)
    kr = on_ratio * tanh_ratio_derivative(r, ratio, sech2) + gy_row * om * sech2 * ratio
    kx = E * scale * moved - on_ratio * ratio / om - 2 * (z * kr) / om
    gx = scale[:, None] * (gs + E[:, None] * g - (2 * c * kx)[:, None] * x)
    gu = (factor * scale)[:, None] * ((ratio / om)[:, None] * gs + (2 * c * kr / om / om)[:, None] * u)
    store_packed(gx_ptr, row, column, width, mask, gx)
    store_packed(gu_ptr, row, column, width, mask, gu)
    if OPTION_IS_TENSOR:
        tl.store(gk_ptr + row, scale * (kx * dot(x, x) - kE * ss - z * kr / c), mask=live)


@triton.jit
def _log(
    x_ptr, y_ptr, u_ptr, k_ptr, x_stride, y_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    c64 = -load_option(k_ptr, high, low, OPTION_IS_TENSOR)
    x = load_row(x_ptr, x_stride, row, column, mask)
    y = load_row(y_ptr, y_stride, row, column, mask)
    chord = y - x
    omx = gap(x, c64)
    omy = gap(y, c64)
    E = c64.to(tl.float32) * dot(chord, chord)
    scale = log_ratio(tl.sqrt(E / omx / omy)) / omy
    store_packed(u_ptr, row, column, width, mask, (scale * omx)[:, None] * chord - (scale * E)[:, None] * x)


@triton.jit
def _log_backward(
    g_ptr, x_ptr, y_ptr, gx_ptr, gy_ptr, gk_ptr, k_ptr, g_stride, x_stride, y_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    c64 = -load_option(k_ptr, high, low, OPTION_IS_TENSOR)
    c = c64.to(tl.float32)
    g = load_row(g_ptr, g_stride, row, column, mask)
    x = load_row(x_ptr, x_stride, row, column, mask)
    y = load_row(y_ptr, y_stride, row, column, mask)
    chord = y - x
    omx = gap(x, c64)
    omy = gap(y, c64)
    dd = dot(chord, chord)
    E = c * dd
    z = E / omx / omy
    s = tl.sqrt(z)
    ratio = log_ratio(s)
    # u = ratio(z)/om(y) (om(x) D - E x) with z = E/(om(x) om(y))
    gd = dot(g, chord)
    gx_row = dot(g, x)
    along = (omx * gd - E * gx_row) / omy
    kz = along * (ratio * log_ratio_relative_derivative(s, ratio))
    kE = kz / omx / omy - ratio * gx_row / omy
    kx = ratio * gd / omy - kz * z / omx
    ky = (-kz * z - ratio * along) / omy
    scale = ratio / omy
    gx = (-2 * c * kE)[:, None] * chord - (2 * c * kx)[:, None] * x - (scale * (omx + E))[:, None] * g
    gy = (2 * c * kE)[:, None] * chord - (2 * c * ky)[:, None] * y + (scale * omx)[:, None] * g
    store_packed(gx_ptr, row, column, width, mask, gx)
    store_packed(gy_ptr, row, column, width, mask, gy)
    if OPTION_IS_TENSOR:
        tl.store(gk_ptr + row, kx * dot(x, x) + ky * dot(y, y) - kE * dd, mask=live)


@triton.jit
def _dist(
    x_ptr, y_ptr, d_ptr, k_ptr, x_stride, y_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    c64 = -load_option(k_ptr, high, low, OPTION_IS_TENSOR)
    x = load_row(x_ptr, x_stride, row, column, mask)
    y = load_row(y_ptr, y_stride, row, column, mask)
    root = tl.sqrt(c64.to(tl.float32))
    chord = y - x
    q = tl.sqrt(dot(chord, chord) / gap(x, c64) / gap(y, c64))
    tl.store(d_ptr + row, 2 * q * asinh_ratio(root * q), mask=live)


@triton.jit
def _dist_backward(
    g_ptr, x_ptr, y_ptr, gx_ptr, gy_ptr, gk_ptr, k_ptr, g_stride, x_stride, y_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    c64 = -load_option(k_ptr, high, low, OPTION_IS_TENSOR)
    c = c64.to(tl.float32)
    g = load(g_ptr, row * g_stride, live)
    x = load_row(x_ptr, x_stride, row, column, mask)
    y = load_row(y_ptr, y_stride, row, column, mask)
    chord = y - x
    omx = gap(x, c64)
    omy = gap(y, c64)
    dd = dot(chord, chord)
    q = tl.sqrt(dd / omx / omy)
    s = tl.sqrt(c) * q
    # d = 2/sqrt(c) asinh(s); m is the derivative in log(s), and d log(s) = <D, dD>/|D|^2 - d om/(2 om).
    m = 2 * g * q / tl.sqrt(1 + s * s)
    on_chord = divide(m, dd)[:, None] * chord  # 0 at coincidence
    store_packed(gx_ptr, row, column, width, mask, (m * c / omx)[:, None] * x - on_chord)
    store_packed(gy_ptr, row, column, width, mask, (m * c / omy)[:, None] * y + on_chord)
    if OPTION_IS_TENSOR:
        excess = g * asinh_excess(s, asinh_ratio(s), 1 / tl.sqrt(c))
        tl.store(gk_ptr + row, excess - 0.5 * m * (dot(x, x) / omx + dot(y, y) / omy), mask=live)


@triton.jit
def _transport(
    x_ptr, y_ptr, v_ptr, w_ptr, k_ptr, x_stride, y_stride, v_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    c64 = -load_option(k_ptr, high, low, OPTION_IS_TENSOR)
    c = c64.to(tl.float32)
    x = load_row(x_ptr, x_stride, row, column, mask)
    y = load_row(y_ptr, y_stride, row, column, mask)
    v = load_row(v_ptr, v_stride, row, column, mask)
    chord = y - x
    omx = gap(x, c64)
    omy = gap(y, c64)
    E = c * dot(chord, chord)
    xv = dot(x, v)
    dv = dot(chord, v)
    scale = 2 * c / (omx * omy + E)
    on_x = scale * (omx * dv - E * xv)
    on_chord = scale * ((omy + E) * xv + (1 - omx) * dv)
    store_packed(
        w_ptr, row, column, width, mask, (omy / omx)[:, None] * (v + on_x[:, None] * x - on_chord[:, None] * chord)
    )


@triton.jit
def _transport_backward(
    g_ptr, x_ptr, y_ptr, v_ptr, gx_ptr, gy_ptr, gv_ptr, gk_ptr, k_ptr,
    g_stride, x_stride, y_stride, v_stride, high, low, n, width,
    OPTION_IS_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, live, mask = tile(n, width, ROWS, BLOCK)
    c64 = -load_option(k_ptr, high, low, OPTION_IS_TENSOR)
    c = c64.to(tl.float32)
    g = load_row(g_ptr, g_stride, row, column, mask)
    x = load_row(x_ptr, x_stride, row, column, mask)
    y = load_row(y_ptr, y_stride, row, column, mask)
    v = load_row(v_ptr, v_stride, row, column, mask)
    chord = y - x
    omx = gap(x, c64)
    omy = gap(y, c64)
    dd = dot(chord, chord)
    E = c * dd
    whole = omx * omy + E
    xv = dot(x, v)
    dv = dot(chord, v)
    gx_row = dot(g, x)
    gd = dot(g, chord)
    # w = om(y)/om(x) (v + 2c/whole (a x - b D)); the derivatives are gathered by the row scalars.
    a = omx * dv - E * xv
    b = (omy + E) * xv + (1 - omx) * dv
    ratio = omy / omx
    f = 2 * c * ratio / whole
    turn = a * gx_row - b * gd
    flat = dot(g, v) + 2 * c * turn / whole
    kx = -flat * ratio / omx + f * (dv * (gx_row + gd) - turn * omy / whole)
    ky = flat / omx - f * (gd * xv + turn * omx / whole)
    kE = -f * (xv * (gx_row + gd) + turn / whole)
    on_chord = (2 * c * kE)[:, None] * chord - (f * b)[:, None] * g
    on_chord += (f * (gx_row * omx - gd * (1 - omx)))[:, None] * v
    gx = (f * a)[:, None] * g - (f * (gx_row * E + gd * (omy + E)))[:, None] * v - on_chord
    gx -= (2 * c * kx)[:, None] * x
    gy = on_chord - (2 * c * ky)[:, None] * y
    gv = ratio[:, None] * g + (f * (gx_row * omx - gd * (1 - omx)))[:, None] * chord
    gv -= (f * (gx_row * E + gd * (omy + E)))[:, None] * x
    store_packed(gx_ptr, row, column, width, mask, gx)
    store_packed(gy_ptr, row, column, width, mask, gy)
    store_packed(gv_ptr, row, column, width, mask, gv)
    if OPTION_IS_TENSOR:
        gk = kx * dot(x, x) + ky * dot(y, y) - kE * dd - 2 * ratio * turn / whole
        tl.store(gk_ptr + row, gk, mask=live)


LAUNCHERS = {
    "poincare_exp": (forward_launcher(_exp), backward_launcher(_exp_backward)),
    "poincare_log": (forward_launcher(_log), backward_launcher(_log_backward)),
    "poincare_dist": (forward_launcher(_dist, scalar=True), backward_launcher(_dist_backward, scalar=True)),
    "poincare_transport": (forward_launcher(_transport), backward_launcher(_transport_backward)),
}
