"""Signed distances to hyperplanes: closed form in mpmath, minimisation, Poincare MLR, every model and sign."""

import math

import mpmath
import pytest
import torch
from mpmath import mpf

from tests.support.models import (
    HYPERBOLIC,
    SPHERICAL,
    arcsine,
    coordinates,
    cosine,
    directions,
    exact,
    norm,
    points,
    sine,
)
from torchriemann.manifolds import Klein, Lorentz, PoincareBall, Sphere, Stereographic

F32, F64 = torch.float32, torch.float64
EPS = {F32: 2.0**-23, F64: 2.0**-52}
CASES = [(m, K) for m in HYPERBOLIC for K in (-0.3, -1.0, -4.0)]
CASES += [(m, K) for m in SPHERICAL for K in (0.3, 1.0)] + [(Stereographic, 0.0)]


def truth(K, z, normal, offset):
    """arcsin_K(cos_K(o) s_n - sin_K(o) t): the ambient inner product with the normal of the hyperplane."""
    values = []
    for row, n in zip(z, exact(normal), strict=True):
        r, o = norm(row), mpf(offset)
        along = sine(K, r) * sum(a * b for a, b in zip(row, n, strict=True)) / (r * norm(n)) if r else mpf(0)
        values.append(arcsine(K, cosine(K, o) * along - sine(K, o) * cosine(K, r)))
    return values


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("offset", [0.0, 0.7, -1.2])
@pytest.mark.parametrize(("model", "K"), CASES)
def test_closed_form(model, K, offset, dtype):
    offset = offset / math.sqrt(abs(K) or 1)
    z = torch.tensor([1e-6, 0.1, 0.7, 1.5, 2.5], dtype=F64).unsqueeze(-1) * directions(5, 3) / math.sqrt(abs(K) or 1)
    normal = 3.0 * directions(5, 3, 1)
    x = points(model, K, z, dtype)
    d = model(K).hyperplane_dist(x, normal.to(dtype), offset)
    assert d.dtype == dtype and d.shape == (5,)
    want = torch.tensor([float(v) for v in truth(K, exact(z), normal.to(dtype), offset)], dtype=F64)
    assert (d.double() - want).abs().max() <= 60 * EPS[dtype] / math.sqrt(abs(K) or 1)


@pytest.mark.parametrize(("model", "K"), CASES)
def test_sign_and_offset(model, K):
    m, n = model(K), directions(4, 3, 1)
    scale = 1 / math.sqrt(abs(K) or 1)
    origin = m.from_normal(0 * n)
    torch.testing.assert_close(m.hyperplane_dist(origin, n, 0.8 * scale), -0.8 * scale * torch.ones(4, dtype=F64))
    for r in (-1.4, -0.3, 0.5, 1.4):  # on the axis distances add
        d = m.hyperplane_dist(m.from_normal(r * scale * n), 2 * n, -0.1 * scale)
        torch.testing.assert_close(d, (r + 0.1) * scale * torch.ones(4, dtype=F64), rtol=1e-13, atol=1e-14)
    offsets = torch.tensor([0.1, -0.2, 0.3, -0.4], dtype=F64) * scale
    d = m.hyperplane_dist(m.from_normal(0.7 * scale * n), n, offsets)
    torch.testing.assert_close(d, 0.7 * scale - offsets, rtol=1e-13, atol=0)


@pytest.mark.parametrize(("model", "K"), [c for c in CASES if abs(c[1]) == 1.0 or c[1] == 0.0])
def test_it_is_the_distance_of_the_nearest_point(model, K):
    """The hyperplane is the image of exp at its foot of all vectors at right angles to the normal."""
    m, offset = model(K), 0.6
    x = points(model, K, torch.tensor([0.4, 0.9, 1.3], dtype=F64).unsqueeze(-1) * directions(3, 3), F64)
    n = directions(3, 3, 1)
    foot = m.from_normal(offset * n)
    side = torch.linalg.qr(torch.cat([n.unsqueeze(-1), torch.eye(3, dtype=F64).expand(3, 3, 3)], -1))[0][..., 1:]
    v = torch.zeros(3, 2, 1, dtype=F64, requires_grad=True)

    def closure():
        optimizer.zero_grad()
        loss = m.dist2(m.expmap_frame(foot, (side @ v).squeeze(-1)), x).sum()
        loss.backward()
        return loss

    optimizer = torch.optim.LBFGS(
        [v], max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=0, tolerance_change=0
    )
    optimizer.step(closure)
    nearest = m.dist(m.expmap_frame(foot, (side @ v).squeeze(-1)), x)
    torch.testing.assert_close(m.hyperplane_dist(x, n, offset).abs(), nearest.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("K", [-1.0, -0.3])
def test_poincare_multinomial_regression(K):
    """asinh(2 q <z, a>/((1 + K |z|^2) |a|))/q with z = (-p) (+) x (Ganea et al., arXiv:1805.09112, Theorem 5)."""
    offset, q = 0.8, mpmath.sqrt(-mpf(K))
    z, n = torch.tensor([0.3, 1.0, 3.0], dtype=F64).unsqueeze(-1) * directions(3, 3), directions(3, 3, 1)
    d = PoincareBall(K).hyperplane_dist(points(PoincareBall, K, z, F64), n, offset)
    for value, row, a in zip(d, exact(z), exact(n), strict=True):
        x = coordinates(PoincareBall, K, row)
        y = [-mpmath.tanh(q * offset / 2) / q * c / norm(a) for c in a]
        xy, xx, yy = (sum(b * c for b, c in zip(*p, strict=True)) for p in ((x, y), (x, x), (y, y)))
        k = mpf(K)
        w = [
            ((1 - 2 * k * xy - k * xx) * b + (1 + k * yy) * c) / (1 - 2 * k * xy + k * k * xx * yy)
            for b, c in zip(y, x, strict=True)
        ]
        along = sum(b * c for b, c in zip(w, a, strict=True)) / norm(a)
        want = mpmath.asinh(2 * q * along / (1 + k * sum(b * b for b in w))) / q
        assert value.item() == pytest.approx(float(want), rel=1e-12)


FAR = [(m, d, r) for m in (Lorentz, PoincareBall, Klein) for d in (F32, F64) for r in (4.0, 8.0, 12.0)]


@pytest.mark.parametrize(("model", "dtype", "radius"), [c for c in FAR if c != (Klein, F32, 12.0)])  # which ends at 9
def test_large_radius(model, dtype, radius):
    """Against the distance of the stored point: a small multiple of eps, however far and however oblique."""
    n = directions(40, 3, 1)
    x = points(model, -1.0, radius * directions(40, 3), dtype)
    d = model().hyperplane_dist(x, n.to(dtype), 0.9 * radius).double()
    stored = stored_normal(model, x)
    want = torch.tensor([float(v) for v in truth(-1.0, stored, n.to(dtype), 0.9 * radius)], dtype=F64)
    assert ((d - want).abs() / want.abs().clamp(min=1.0)).max() <= 16 * EPS[dtype]


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("model", [Lorentz, PoincareBall])
def test_hyperplanes_farther_away_than_squares_reach(model, dtype):
    """The sine of 70 has a square beyond float32; on the axis distances add, with a derivative of one."""
    n = directions(3, 3).to(dtype)
    for r, o in ((8.0, -60.0), (-8.0, 60.0), (7.0, 55.0)):
        offset = torch.full((3,), o, dtype=dtype, requires_grad=True)
        d = model().hyperplane_dist(model().from_normal(r * n), n, offset)
        torch.testing.assert_close(d, (r - offset).detach(), rtol=1e-4 if dtype == F32 else 1e-9, atol=0)
        (g,) = torch.autograd.grad(d.sum(), offset)
        torch.testing.assert_close(g, -torch.ones(3, dtype=dtype))


def stored_normal(model, x):
    """The normal coordinates of the rounded coordinates."""
    rows = []
    for row in exact(x):
        p = row[1:] if model is Lorentz else row
        r = norm(p)
        rho = {Lorentz: mpmath.asinh, Klein: mpmath.atanh}.get(model, lambda a: 2 * mpmath.atanh(a))(r)
        rows.append([rho * a / r for a in p])
    return rows


@pytest.mark.parametrize(("model", "K"), CASES)
def test_gradients(model, K):
    K = torch.tensor(K, dtype=F64, requires_grad=True)
    z = (0.8 * directions(3, 3)).requires_grad_()
    n, offset = directions(3, 3, 1).requires_grad_(), torch.tensor([0.3, 0.0, -0.2], dtype=F64, requires_grad=True)
    value = lambda z, n, o, K: model(K).hyperplane_dist(model(K).from_normal(z), n, o)  # noqa: E731
    assert torch.autograd.gradcheck(value, (z, n, offset, K))


@pytest.mark.parametrize(("model", "K"), CASES)
def test_gradient_at_the_origin_is_the_normal(model, K):
    z, n = torch.zeros(2, 3, dtype=F64, requires_grad=True), directions(2, 3, 1)
    (g,) = torch.autograd.grad(model(K).hyperplane_dist(model(K).from_normal(z), n, 0.0).sum(), z)
    torch.testing.assert_close(g, n)


def test_poles_broadcasting_and_errors():
    sphere = Sphere(4.0)
    d = sphere.hyperplane_dist(sphere.origin(3, dtype=F64), torch.tensor([[1.0, 0.0]], dtype=F64), math.pi / 4)
    assert d.item() == pytest.approx(-math.pi / 4, rel=1e-7)  # a pole of the hyperplane: the farthest there is
    m = Lorentz()
    assert m.hyperplane_dist(torch.zeros(5, 1, 4), torch.ones(7, 3), torch.zeros(7)).shape == (5, 7)
    assert m.hyperplane_dist(torch.zeros(4), torch.zeros(3)).isnan()
    with pytest.raises(ValueError, match=r"hyperplane_dist: normal coordinates of points .* end in \(3,\)"):
        m.hyperplane_dist(torch.zeros(4), torch.ones(4))
    for x, normal, offset, shown in (
        (torch.zeros(3, 4), torch.ones(3, 3), torch.zeros(5), r"\(3,\), \(3,\), \(5,\)"),
        (torch.zeros(3, 1, 4), torch.ones(10, 3), torch.zeros(3), r"\(3, 1\), \(10,\), \(3,\)"),
    ):
        with pytest.raises(ValueError, match=rf"Lorentz.hyperplane_dist: batch dimensions {shown} do not broadcast"):
            m.hyperplane_dist(x, normal, offset)
    assert m.hyperplane_dist(torch.zeros(3, 1, 4), torch.ones(10, 3), torch.zeros(3, 1)).shape == (3, 10)
