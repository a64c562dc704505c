"""Laws of projections, the metric, gradients and membership."""

from __future__ import annotations

import torch

from .trial import Trial, law


@law("projections", float64=1e-10, float32=1e-5)
def projx_is_a_projection(t: Trial) -> None:
    """projx(a) is a point for ambient a; projx(projx(a)) = projx(a); projx(x) = x for points x, at the same
    representative."""
    m, a, x = t.manifold, t.ambient(), t.point()
    p = m.projx(a)
    t.is_point(p, "projx(a)")
    t.close(m.projx(p), p, "projx(projx(a)) = projx(a)")
    t.close(m.projx(x), x, "projx(x) = x")


@law("projections", float64=1e-10, float32=1e-5)
def restore_mends_drift(t: Trial) -> None:
    """restore(x) = x, and restore(x + e) is a point for e as large as sqrt(eps)/100."""
    m, x = t.manifold, t.point()
    t.close(m.restore(x), x, "restore(x) = x")
    t.is_point(m.restore(x + 0.01 * t.eps**0.5 * t.noise(*x.shape)), "restore(x + e)")


@law("projections", float64=1e-10, float32=1e-5)
def proju_is_the_identity_on_tangents(t: Trial) -> None:
    """proju(x, u) = u for u = logmap(x, y) and for every u of basis(x): vectors that proju did not make."""
    m, x = t.manifold, t.point()
    if "logmap" not in t.case.missing:
        u = m.logmap(x, t.near(x))
        t.is_tangent(x, u, "logmap(x, y)")
        t.close(m.proju(x, u), u, "proju(x, log) = log")
    if "basis" not in t.case.missing:
        b, xs = m.basis(x), x.unsqueeze(-m.ndim - 1)
        t.close(m.proju(xs, b), b, "proju(x, basis) = basis")


@law("projections", float64=1e-14, float32=5e-6)
def proju_is_idempotent(t: Trial) -> None:
    """proju(x, proju(x, a)) = proju(x, a), relative to |a|, and it is tangent."""
    m, x, a = t.manifold, t.point(), t.ambient()
    u = m.proju(x, a)
    t.is_tangent(x, u, "proju(x, a)")
    t.close(m.proju(x, u), u, "idempotent", scale=max(1.0, float(m.norm(x, a).amax())))


@law("projections", float64=1e-10, float32=1e-4)
def proju_is_self_adjoint(t: Trial) -> None:
    """<proju(a), b>_x = <a, proju(b)>_x for ambient a and b: the projection is orthogonal in the metric."""
    m, x, a, b = t.manifold, t.point(), t.ambient(), t.ambient()
    t.close(m.inner(x, m.proju(x, a), b), m.inner(x, a, m.proju(x, b)), "self-adjoint")


@law("the metric", float64=1e-10, float32=1e-4)
def inner_is_a_scalar_product(t: Trial) -> None:
    """<u,v> = <v,u>; <u + 2w, v> = <u,v> + 2<w,v>; <u,u> > 0; |u|^2 = <u,u>; component_inner is inner with trailing
    ones, or on products one inner product a factor, of which inner is the sum, broadcastable to the point."""
    m, x = t.manifold, t.point()
    u, v, w = t.tangent(x), t.tangent(x), t.tangent(x)
    uv = m.inner(x, u, v)
    t.close(m.inner(x, v, u), uv, "symmetric")
    t.close(m.inner(x, u + 2 * w, v), uv + 2 * m.inner(x, w, v), "linear")
    t.close(m.inner(x, u), m.inner(x, u, u), "one argument")
    t.close(m.norm(x, u).square(), m.inner(x, u), "|u|^2 = <u,u>")
    ones = (1,) * m.ndim
    parts = m.component_inner(x, u, v)
    fits = parts.dim() == x.dim() and all(size in (1, full) for size, full in zip(parts.shape, x.shape, strict=True))
    t.require(fits, f"component_inner has shape {tuple(parts.shape)}, not broadcastable to {tuple(x.shape)}")
    total = parts if t.case.components is None else t.case.components(parts).reshape(uv.shape + ones)
    t.close(total, uv.reshape(uv.shape + ones), "component_inner (of a product, summed by the row's `components`)")
    t.close(m.component_inner(x, u), m.component_inner(x, u, u), "component_inner of one argument")
    t.close(m.inner(x, u, v, keepdim=True), uv.reshape(uv.shape + ones), "inner(keepdim=True)")
    t.close(m.norm(x, u, keepdim=True), m.norm(x, u).reshape(uv.shape + ones), "norm(keepdim=True)")
    if m.dimension(t.shape) > 0:
        t.require((m.inner(x, t.direction(x)) > 0.5).all(), "<u, u> of a unit vector is not above 0.5")


@law("the metric", float64=1e-10, float32=1e-4)
def basis_is_orthonormal(t: Trial) -> None:
    """basis(x) has dimension(shape) tangent vectors with Gram matrix I; from_coordinates(x, to_coordinates(x, u)) = u
    and back; |u| is the length of its coordinates."""
    m, x = t.manifold, t.point()
    d, b, xs = m.dimension(t.shape), m.basis(x), x.unsqueeze(-m.ndim - 1)
    t.require(b.shape == (*t.batch, d, *t.shape), f"basis has shape {tuple(b.shape)}")
    if d > 0:
        t.is_tangent(xs, b, "basis")
    gram = m.inner(xs.unsqueeze(-m.ndim - 1), b.unsqueeze(-m.ndim - 1), b.unsqueeze(-m.ndim - 2))
    t.close(gram, torch.eye(d, dtype=t.dtype).expand_as(gram), "Gram matrix")
    u, z = t.tangent(x), t.noise(*t.batch, d)
    c = m.to_coordinates(x, u)
    t.close(m.from_coordinates(x, c), u, "vector -> coordinates -> vector")
    t.close(m.to_coordinates(x, m.from_coordinates(x, z)), z, "coordinates -> vector -> coordinates")
    t.close(c.square().sum(-1), m.inner(x, u), "|coordinates| = |u|")


@law("gradients", float64=1e-10, float32=1e-4)
def gradient_represents_the_differential(t: Trial) -> None:
    """<egrad2rgrad(x, g), v>_x = sum(g v) for every tangent v, and it is tangent. Relative to |g|."""
    m, x, g = t.manifold, t.point(), t.ambient()
    r, v = m.egrad2rgrad(x, g), t.direction(x)
    t.is_tangent(x, r, "egrad2rgrad")
    t.close(m.inner(x, r, v), t.flat(g * v).sum(-1), "<rgrad, v> = sum(g v)", scale=float(t.flat(g).norm(dim=-1).max()))


@law("errors", float64=1e-10, float32=1e-4, examples=5)
def checks_accept_points_and_reject_others(t: Trial) -> None:
    """The four check_* accept what the manifold itself makes and an empty batch; they reject a point moved off, NaN,
    infinity, wrong shapes, integers and scalars; the error names the class, the residual and, where there is one, the
    mend."""
    m, x = t.manifold, t.point()
    u, cls = t.tangent(x), type(t.manifold).__name__
    t.is_point(x, "random(...)")
    t.is_tangent(x, u, "proju(...)")
    t.require(m.check_point(x) and m.check_vector(u), "check_point or check_vector rejects a shape of its own")
    empty = x.new_empty(0, *t.shape)
    t.require(m.check_point_on_manifold(empty) is True, "an empty batch is rejected")
    t.require(m.check_vector_on_tangent(empty, empty) is True, "an empty batch of vectors is rejected")

    broken = x.clone()
    broken.view(-1)[-1] = torch.nan
    infinite = x.clone()
    infinite.view(-1)[0] = torch.inf
    wrong = [t.case.off(x), broken, infinite, x.new_zeros(()), torch.ones(t.shape, dtype=torch.int64)]
    wrong += [x.new_zeros(shape) for shape in t.case.bad_shapes]
    for bad in wrong:
        what = f"a tensor {tuple(bad.shape)} {bad.dtype}"
        answer, reason = m.check_point_on_manifold(bad, explain=True)
        t.require(
            answer is False and isinstance(reason, str), f"check_point_on_manifold accepts {what}, or gives no reason"
        )
        message = _message(lambda bad=bad: m.assert_check_point_on_manifold(bad))
        t.require(message is not None and cls in message, f"the error for {what} does not name the class: {message}")
        if bad.shape == x.shape:
            text, mendable = message or "", bool(bad.isfinite().all())
            t.require(" = " in text and ("projx" in text or not mendable), f"no residual or no mend in: {message}")
    answer, reason = m.check_vector_on_tangent(x, broken, explain=True)
    t.require(answer is False and " = " in (reason or ""), "check_vector_on_tangent accepts NaN, or names no residual")
    message = _message(lambda: m.assert_check_vector_on_tangent(x, broken))
    t.require(message is not None and cls in message, f"the error for a vector does not name the class: {message}")
    normal = t.ambient()
    normal = normal - m.proju(x, normal)
    if float(normal.abs().max()) > 0.1:
        answer, reason = m.check_vector_on_tangent(x, u + normal, explain=True)
        t.require(
            answer is False and "proju" in (reason or ""), f"a normal vector is accepted, or no mend named: {reason}"
        )


def _message(call) -> str | None:
    try:
        call()
    except ValueError as error:
        return str(error)
    return None
