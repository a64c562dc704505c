"""Laws of geodesics, retractions, transports, isometries, curvature, the injectivity radius."""

from __future__ import annotations

import math

import torch

from .trial import Map, Trial, law


@law("exponential and logarithm", float64=1e-9, float32=1e-5)
def exponential_stays_on_the_manifold(t: Trial) -> None:
    """exp_x(0) = x, and exp_x(u) is a point for |u| up to three times the reach of the logarithm; in an incomplete
    space where `exp_is_defined` says so, as it does for all |u| below the injectivity radius, and NaN elsewhere."""
    m, x = t.manifold, t.point()
    t.same(m.expmap(x, torch.zeros_like(x)), x, "exp_x(0) = x")
    for factor in (1.0, 3.0):
        u = factor * t.tangent(x)
        end, defined = m.expmap(x, u), m.exp_is_defined(x, u)
        t.require(factor > 1 or defined.all(), "exp_is_defined denies a vector shorter than the injectivity radius")
        inside = defined.reshape(defined.shape + (1,) * m.ndim)
        t.require((end.isnan() | inside).flatten(-m.ndim).all(), f"exp_x({factor} u) beyond the space is not NaN")
        t.is_point(torch.where(inside, end, x), f"exp_x({factor} u)")


@law("exponential and logarithm", float64=1e-8, float32=1e-3)
def logarithm_inverts_exponential(t: Trial) -> None:
    """log_x(exp_x(u)) = u for |u| below `fraction` of the injectivity radius. Relative to the larger of 1 and |u|: the
    rounding of the point is absolute."""
    m, x = t.manifold, t.point()
    u = t.tangent(x)
    got = m.logmap(x, m.expmap(x, u))
    t.is_tangent(x, got, "log")
    t.close(got, u, "log_x(exp_x(u)) = u")


@law("exponential and logarithm", float64=1e-9, float32=1e-4)
def exponential_inverts_logarithm(t: Trial) -> None:
    """exp_x(log_x(y)) = y for y at the given distance, and for independent x and y off the cut locus by 0.1."""
    m, x, far = t.manifold, t.point(), t.point()
    near = t.near(x)
    t.same(m.expmap(x, m.logmap(x, near)), near, "exp_x(log_x(y)) = y")
    if "log_is_unique" not in t.case.missing:
        apart = m.log_is_unique(x, far, margin=0.1)
        apart = apart.reshape(apart.shape + (1,) * m.ndim)
        y = torch.where(apart, far, x)
        t.same(m.expmap(x, m.logmap(x, y)), y, "exp_x(log_x(y)) = y, independent")
        t.require(m.log_is_unique(x, near).all(), "log_is_unique denies a point near x")


@law("distance", float64=1e-8, float32=1e-4)
def distance_is_a_metric(t: Trial) -> None:
    """d(x,y) = |log_x(y)| = d(y,x) >= 0, d^2 = dist2, and d(y,z) <= d(y,x) + d(x,z) within half the reach."""
    m, x = t.manifold, t.point()
    y = t.near(x)
    a, b = m.expmap(x, 0.5 * t.tangent(x)), m.expmap(x, 0.5 * t.tangent(x))
    d, back, side, *others = m.dist(torch.stack([x, y, a, a, x]), torch.stack([y, x, b, x, b])).unbind(0)
    d2 = m.dist2(x, y)
    t.require((d >= 0).all(), "d is negative or NaN")
    t.close(d, m.norm(x, m.logmap(x, y)), "d = |log|")
    t.close(back, d, "symmetric")
    t.close(d2, d.square(), "dist2 = dist^2")
    t.small(torch.relu(side - others[0] - others[1]), "triangle")
    ones = (1,) * m.ndim
    t.close(m.dist(x, y, keepdim=True), d.reshape(d.shape + ones), "dist(keepdim=True)")
    t.close(m.dist2(x, y, keepdim=True), d2.reshape(d.shape + ones), "dist2(keepdim=True)")


@law("distance", float64=1e-7, float32=1e-4)
def distance_to_itself_vanishes(t: Trial) -> None:
    """0 <= d(x, x), 0 <= dist2(x, x) and |log_x(x)| are zero up to the tolerance."""
    m, x = t.manifold, t.point()
    t.require((m.dist(x, x) >= 0).all() and (m.dist2(x, x) >= 0).all(), "d(x, x) is negative or NaN")
    t.small(m.dist(x, x), "d(x, x) = 0")
    t.small(m.dist2(x, x), "dist2(x, x) = 0")
    t.small(m.logmap(x, x), "log_x(x) = 0")


@law("distance", float64=1e-8, float32=1e-4)
def cdist_is_dist(t: Trial) -> None:
    """cdist(x, y)[i, j] = d(x_i, y_j)."""
    m, item = t.manifold, -t.manifold.ndim - 1
    centre = t.point().unsqueeze(item).expand(*t.batch, 3, *t.shape)
    x, y = m.expmap(centre, 0.5 * t.tangent(centre)), m.expmap(centre, 0.5 * t.tangent(centre)).narrow(item, 0, 2)
    table = m.cdist(x, y)
    t.require(table.shape == (*t.batch, 3, 2), f"cdist has shape {tuple(table.shape)}")
    for j in range(2):
        t.close(table[..., j], m.dist(x, y.narrow(item, j, 1)), "cdist")


@law("geodesics", float64=1e-8, float32=1e-3)
def geodesics_have_unit_speed(t: Trial) -> None:
    """d(x, exp_x(s u)) = s |u| for s in [0, 1], |u| below `fraction` of the injectivity radius."""
    m, x = t.manifold, t.point()
    u = t.tangent(x)
    for s in (1.0, 0.5, 0.01):
        t.close(m.dist(x, m.expmap(x, s * u)), s * m.norm(x, u), f"d(x, exp({s} u)) = {s} |u|")


@law("retractions", examples=3, needs="order")
def retraction_has_its_order(t: Trial) -> None:
    """|retr(x, h u) - exp_x(h u)| = O(h^(order+1)): slope at least order + 0.95, or 2.9 for second order; measured
    between points, not representatives."""
    m, x = t.manifold, t.point()
    u = t.direction(x)
    assert t.case.order is not None
    wanted = 2.9 if t.case.order == 2 else t.case.order + 0.95

    def error(h: float) -> torch.Tensor:
        return t.case.invariant(m.retr(x, h * u)) - t.case.invariant(m.expmap(x, h * u))

    slope = t.slope(error)
    t.require(slope >= wanted, f"slope {slope:.3f} < {wanted}")


@law("retractions", float64=1e-10, examples=5)
def retraction_starts_along_its_vector(t: Trial) -> None:
    """retr(x, 0) = x, D retr(x, .)(0)[u] = u and D exp_x(0)[u] = u, by forward differentiation."""
    m, x = t.manifold, t.point()
    u = t.direction(x)
    for name in ("retr", "expmap"):
        move = getattr(m, name)
        start, velocity = torch.func.jvp(lambda w, move=move: move(x, w), (torch.zeros_like(u),), (u,))[:2]
        t.same(start, x, f"{name}(x, 0) = x")
        t.close(velocity, u, f"D {name}(0)[u] = u")


@law("retractions", float64=1e-9, float32=1e-5)
def retraction_stays_on_the_manifold(t: Trial) -> None:
    """retr(x, u) is a point, for |u| up to ten."""
    m, x = t.manifold, t.point()
    for length in (0.0, t.scale, 10 * t.scale):
        t.is_point(m.retr(x, t.tangent(x, length)), f"retr of length {length:g}")


@law("retractions", float64=1e-9, float32=1e-3)
def inverse_retraction_inverts(t: Trial) -> None:
    """inverse_retr(x, retr(x, u)) = u and retr(x, inverse_retr(x, y)) = y for |u| below `inverse_reach`."""
    m, x = t.manifold, t.point()
    u = t.tangent(x, t.scale * t.case.inverse_reach)
    y = m.retr(x, u)
    back = m.inverse_retr(x, y)
    t.is_tangent(x, back, "inverse_retr")
    t.close(back, u, "inverse_retr(x, retr(x, u)) = u")
    t.same(m.retr(x, back), y, "retr(x, inverse_retr(x, y)) = y")


@law("transport", float64=1e-10, float32=1e-4)
def transports_are_linear_and_tangent(t: Trial) -> None:
    """transp and parallel_transport send v to a tangent vector at y, linearly, and are the identity for y = x."""
    m, x = t.manifold, t.point()
    y, v, w = t.near(x), t.direction(x), t.direction(x)
    for name in ("transp", "parallel_transport"):
        if name in t.case.missing:
            continue
        move = getattr(m, name)
        of_v, of_w, of_sum, stayed = move(x, torch.stack([y, y, y, x]), torch.stack([v, w, v - 3 * w, v])).unbind(0)
        t.is_tangent(y, of_v, name)
        t.close(of_sum, of_v - 3 * of_w, f"{name} is linear")
        t.close(stayed, v, f"{name} from x to x")


@law("transport", float64=1e-10, float32=1e-4)
def parallel_transport_is_an_isometry(t: Trial) -> None:
    """<PT v, PT w>_y = <v, w>_x; PT(log_x y) = -log_y x; PT back undoes PT."""
    m, x = t.manifold, t.point()
    y, v, w = t.near(x), t.direction(x), t.direction(x)
    there, back = m.logmap(torch.stack([x, y]), torch.stack([y, x])).unbind(0)
    v_y, w_y, end = m.parallel_transport(x, y, torch.stack([v, w, there])).unbind(0)
    t.close(m.inner(y, v_y, w_y), m.inner(x, v, w), "isometry")
    t.close(end, -back, "PT(log_x y) = -log_y x")
    t.close(m.parallel_transport(y, x, v_y), v, "there and back")


@law("transport", float64=1e-10, float32=1e-4)
def joint_forms_agree_with_separate_ones(t: Trial) -> None:
    """retr_transp(x, u, v) = (retr(x, u), transp(x, that, v)), expmap_transp(x, u, v) = (exp_x(u), parallel transport
    to that), and the transp_follow_* are their second halves."""
    m, x = t.manifold, t.point()
    u, v = t.tangent(x), t.direction(x)
    for move, carry, joint, follow in (
        ("retr", "transp", "retr_transp", "transp_follow_retr"),
        ("expmap", "parallel_transport", "expmap_transp", "transp_follow_expmap"),
    ):
        y, w = getattr(m, joint)(x, u, v)
        t.close(y, getattr(m, move)(x, u), f"{joint}: point")
        if carry not in t.case.missing:
            t.close(w, getattr(m, carry)(x, y, v), f"{joint}: vector")
        t.close(getattr(m, follow)(x, u, v), w, follow)


@law("transport", float64=1e-10, float32=1e-4)
def geodesic_transport_reaches_beyond_the_cut_locus(t: Trial) -> None:
    """expmap_transp along a geodesic twice as long as the logarithm reaches, where it is defined, is an isometry and
    sends u to the velocity at the end."""
    m, x = t.manifold, t.point()
    u = 2 * t.tangent(x)
    defined = m.exp_is_defined(x, u)
    u = torch.where(defined.reshape(defined.shape + (1,) * m.ndim), u, 0.1 * u)
    v, w = t.direction(x), t.direction(x)
    y, v_y = m.expmap_transp(x, u, v)
    t.is_tangent(y, v_y, "expmap_transp")
    t.close(m.inner(y, v_y, m.expmap_transp(x, u, w)[1]), m.inner(x, v, w), "isometry")
    t.close(m.norm(y, m.expmap_transp(x, u, u)[1]), m.norm(x, u), "|velocity| is constant")
    back = m.expmap(y, -m.expmap_transp(x, u, u)[1])
    t.same(back, x, "the geodesic, walked back, ends where it started")


@law("geodesics", float64=1e-9, float32=1e-3)
def geodesic_joins_its_ends(t: Trial) -> None:
    """g(0) = x, g(1) = y, d(x, g(s)) = s d(x, y) for a number s and for one s a batch item; the midpoint is equally
    far from both."""
    m, x = t.manifold, t.point()
    y = t.near(x)
    s = torch.rand(t.batch, generator=t.generator, dtype=t.dtype)
    start, end, at_s = m.geodesic(x, y, torch.stack([torch.zeros_like(s), torch.ones_like(s), s])).unbind(0)
    at_quarter = m.geodesic(x, y, 0.25)
    mid, again = m.midpoint(torch.stack([x, y]), torch.stack([y, x])).unbind(0)
    ends = torch.stack([y, at_s, mid, at_quarter])
    d, part, half, rest = m.dist(torch.stack([x, x, x, y]), ends).unbind(0)
    t.same(start, x, "g(0) = x")
    t.same(end, y, "g(1) = y")
    t.close(part, s * d, "constant speed")
    t.close(rest, 0.75 * d, "distance to the far end")
    t.close(half, d / 2, "half way")
    t.same(mid, again, "midpoint(x, y) = midpoint(y, x)")


@law("isometries", float64=1e-9, float32=1e-4, needs="isometries")
def isometries_are_respected(t: Trial) -> None:
    """For every isometry f of the case: f maps points to points; inner, dist are invariant; exp, log, parallel
    transport, proju commute with f. f is linear, hence its own differential."""
    m, x = t.manifold, t.point()
    y, u, v = t.near(x), t.tangent(x), t.direction(x)
    maps = t.isometries()
    t.require(maps, "the case lists no isometries")
    every: list[Map] = [lambda a: a, *maps.values()]
    fx, fy, fu, fv = (torch.stack([f(a) for f in every]) for a in (x, y, u, v))
    ambient = torch.stack([f(u + x) for f in every])
    ends, projected, inner = m.expmap(fx, fu), m.proju(fx, ambient), m.inner(fx, fu, fv)
    apart = None if "logmap" in t.case.missing else (m.dist(fx, fy), m.logmap(fx, fy))
    moved = None if "parallel_transport" in t.case.missing else m.parallel_transport(fx, fy, fv)
    for i, (name, f) in enumerate(maps.items(), start=1):
        t.is_point(fx[i], f"{name}(x)")
        t.close(inner[i], inner[0], f"{name}: inner")
        t.same(ends[i], f(ends[0]), f"{name}: expmap")
        t.close(projected[i], f(projected[0]), f"{name}: proju")
        if apart is not None:
            t.close(apart[0][i], apart[0][0], f"{name}: dist")
            t.close(apart[1][i], f(apart[1][0]), f"{name}: logmap")
        if moved is not None:
            t.close(moved[i], f(moved[0]), f"{name}: parallel_transport")


@law("curvature", float64=1e-4, examples=5, exact=False)
def curvature_is_that_of_triangles(t: Trial) -> None:
    """d^2(exp_x(hu), exp_x(hv)) = h^2 |u - v|^2 - K h^4/3 + O(h^6) for orthonormal u, v, averaged over +-(u, v), with
    one step of Richardson extrapolation. Relative to the larger of one and K."""
    m, x = t.manifold, t.point()
    u, v = _orthonormal_pair(t, x)

    def estimate(h: float) -> torch.Tensor:
        squares = [m.dist2(m.expmap(x, s * h * u), m.expmap(x, s * h * v)) for s in (1.0, -1.0)]
        return 3 * (h * h * m.inner(x, u - v) - sum(squares, torch.zeros(())) / 2) / h**4

    measured = (4 * estimate(0.02) - estimate(0.04)) / 3
    t.close(measured, m.sectional_curvature(x, u, v), "K from geodesic triangles")
    mixed = m.sectional_curvature(x, 2 * u + v, u - 3 * v)
    t.close(mixed, m.sectional_curvature(x, u, v), "K depends on the plane only")


@law("curvature", float64=1e-4, examples=5, exact=False)
def curvature_is_that_of_holonomy(t: Trial) -> None:
    """Transport round the triangle x, exp_x(hu), exp_x(hv) turns u towards v by K h^2/2 + O(h^4), averaged over
    +-(u, v), with one step of Richardson extrapolation. Relative to the larger of one and K."""
    m, x = t.manifold, t.point()
    u, v = _orthonormal_pair(t, x)

    def estimate(h: float) -> torch.Tensor:
        turned = []
        for s in (1.0, -1.0):
            a, b = m.expmap(x, s * h * u), m.expmap(x, s * h * v)
            w = m.parallel_transport(b, x, m.parallel_transport(a, b, m.parallel_transport(x, a, u)))
            turned.append(m.inner(x, w, v))
        return sum(turned, torch.zeros(())) / h**2

    measured = (4 * estimate(0.02) - estimate(0.04)) / 3
    t.close(measured, m.sectional_curvature(x, u, v), "K from holonomy")


def _orthonormal_pair(t: Trial, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    m = t.manifold
    if m.dimension(t.shape) < 2:
        return t.fail("needs a shape of dimension two or more")  # type: ignore[return-value]
    u, v = t.direction(x), t.direction(x)
    v = v - m.inner(x, u, v, keepdim=True) * u
    return u, v / m.norm(x, v, keepdim=True)


@law("injectivity radius", float64=1e-6, examples=5, needs="cut")
def injectivity_radius_is_exact(t: Trial) -> None:
    """Along a direction that attains the injectivity radius r: log_x(exp_x(u)) = u at |u| = 0.99 r, while at 1.01 r
    the shortest way to exp_x(u) is shorter than |u|."""
    m, x = t.manifold, t.point()
    assert t.case.cut is not None
    u, r = t.case.cut(t, x), m.injectivity_radius(x)
    t.close(m.logmap(x, m.expmap(x, 0.99 * r * u)), 0.99 * r * u, "just below")
    shorter = m.dist(x, m.expmap(x, 1.01 * r * u))
    t.require((shorter < 1.01 * r - 1e-3 * r).all(), "exp is still injective at 1.01 r")
    t.close(shorter, 0.99 * r * torch.ones_like(shorter), "the other way round has length 0.99 r")


@law("injectivity radius", float64=1e-6, examples=5, needs="infinite")
def infinite_injectivity_radius(t: Trial) -> None:
    """Where the injectivity radius is infinite, log_x(exp_x(u)) = u for |u| = 30."""
    m, x = t.manifold, t.point()
    t.require(math.isinf(float(m.injectivity_radius(x))), "the injectivity radius is finite")
    u = t.tangent(x, 30.0)
    t.close(m.logmap(x, m.expmap(x, u)), u, "log_x(exp_x(u)) = u")
