"""The Grassmann manifold against outside libraries, at the basis that is given, and next to the cut locus."""

import math

import geomstats.backend  # noqa: F401
import numpy as np
import pymanopt
import pytest
import scipy.linalg
import torch
from geomstats.geometry.grassmannian import Grassmannian

from torchriemann.manifolds import Grassmann

F64 = torch.float64
M = Grassmann()
SHAPES = [(5, 2), (4, 1), (8, 3), (6, 4), (3, 3)]


def draw(n, p, seed=0, count=6):
    g = torch.Generator().manual_seed(seed)
    x, y = (M.random_uniform(count, n, p, generator=g, dtype=F64) for _ in range(2))
    w = torch.linalg.qr(torch.randn(count, p, p, generator=g, dtype=F64))[0]
    return x, y, M.random_tangent(x, generator=g), w


def at_angles(n, angles, seed=0):
    """x, and the point at those principal angles along a random tangent vector, with that vector."""
    p = len(angles)
    x, _, _, w = draw(n, p, seed, count=1)
    g = torch.Generator().manual_seed(seed + 1)
    e = M.proju(x[0], torch.randn(n, p, generator=g, dtype=F64))
    q = torch.linalg.qr(e)[0]
    theta = torch.tensor(angles, dtype=F64)
    u = q * theta @ w[0].mT
    y = x[0] @ w[0] * theta.cos() + q * theta.sin()
    return x[0], y, u


def projector(x):
    return x @ x.mT


# ---- outside libraries ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, p", SHAPES)
def test_angles_and_distance_are_scipy_s(n, p):
    x, y, _, _ = draw(n, p)
    for a, b, angles, d in zip(x, y, M.principal_angles(x, y), M.dist(x, y), strict=True):
        want = np.sort(scipy.linalg.subspace_angles(a.numpy(), b.numpy()))
        # At angles that are zero scipy's own error is the root of eps.
        np.testing.assert_allclose(angles.numpy(), want, rtol=0, atol=1e-13 if 2 * p <= n else 1e-7)
        assert abs(d.item() - np.linalg.norm(want)) < 1e-13


@pytest.mark.parametrize("n, p", SHAPES[:4])
def test_pymanopt(n, p):
    x, y, u, _ = draw(n, p)
    other = pymanopt.manifolds.Grassmann(n, p)
    rng = np.random.default_rng(0)
    for a, b, v in zip(x, y, 0.3 * u, strict=True):
        g, h = rng.standard_normal((2, n, p))
        a_, b_, v_ = a.numpy(), b.numpy(), v.numpy()
        got = projector(M.expmap(a, v)).numpy()
        end = other.exp(a_, v_)
        np.testing.assert_allclose(got, end @ end.T, rtol=0, atol=1e-12)
        np.testing.assert_allclose(M.logmap(a, b).numpy(), other.log(a_, b_), rtol=0, atol=1e-9)
        # pymanopt takes the arccosine of rounded cosines, which loses half the digits of small angles
        assert abs(M.dist(a, b).item() - other.dist(a_, b_)) < 1e-6
        t = [torch.as_tensor(z) for z in (g, h)]
        want = other.euclidean_to_riemannian_hessian(a_, g, h, v_)
        np.testing.assert_allclose(M.ehess2rhess(a, *t, v).numpy(), want, rtol=0, atol=1e-12)
        np.testing.assert_allclose(M.egrad2rgrad(a, t[0]).numpy(), other.projection(a_, g), rtol=0, atol=1e-13)


@pytest.mark.parametrize("n, p", [(4, 2), (5, 2)])
def test_geomstats(n, p):
    # geomstats holds projectors P; the lift u of a tangent vector is u x^T + x u^T there, of twice the square length.
    x, y, u, _ = draw(n, p)
    u = 0.3 * u
    other = Grassmannian(n, p).metric

    def lift(a, b):
        return (b @ a.mT + a @ b.mT).numpy()

    for a, b, v in zip(x, y, u, strict=True):
        P, Q = projector(a).numpy(), projector(b).numpy()
        np.testing.assert_allclose(projector(M.expmap(a, v)).numpy(), other.exp(lift(a, v), P), rtol=0, atol=1e-12)
        near = M.expmap(a, v)
        log = other.log(projector(near).numpy(), P)
        np.testing.assert_allclose(lift(a, M.logmap(a, near)), log, rtol=0, atol=1e-7)
        along = M.logmap(a, b)
        moved = other.parallel_transport(lift(a, v), P, direction=lift(a, along))
        np.testing.assert_allclose(lift(b, M.parallel_transport(a, b, v)), moved, rtol=0, atol=1e-10)
        assert Q.shape == (n, n)


# ---- accuracy -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1e-3, 0.01, 0.1, 1.0, 1.5])
@pytest.mark.parametrize("n, p", SHAPES[:4])
def test_round_trip(n, p, length):
    x, _, u, _ = draw(n, p)
    u = length * u / M.norm(x, u, keepdim=True)
    back = M.logmap(x, M.expmap(x, u))
    assert (M.norm(x, back - u) / length).max() <= 1e-12


@pytest.mark.parametrize("angles", [[math.pi / 2 - 1e-6], [0.3, math.pi / 2 - 1e-6], [1e-6, 0.7, math.pi / 2 - 1e-6]])
def test_logarithm_next_to_the_cut_locus(angles):
    for seed in range(4):
        x, y, u = at_angles(8, angles, seed)
        assert ((M.logmap(x, y) - u).norm() / u.norm()).item() <= 1e-12
        assert abs(M.dist(x, y).item() / u.norm().item() - 1) <= 1e-12


def test_small_angles_are_relatively_accurate():
    for theta in (1e-3, 1e-6, 1e-8):
        x, y, u = at_angles(6, [theta, 2 * theta])
        # Rounding y moves it by eps, whatever the angle.
        bound = 20 * torch.finfo(F64).eps / theta
        assert abs(M.dist(x, y).item() / u.norm().item() - 1) <= bound
        assert (M.principal_angles(x, y) - torch.tensor([theta, 2 * theta], dtype=F64)).abs().max() <= 2e-15


def test_orthogonal_lines_are_pi_half_apart():
    # geomstats returns zero for them.
    x, y = torch.eye(3, dtype=F64)[:, :1], torch.eye(3, dtype=F64)[:, 1:2]
    assert M.dist(x, y).item() == pytest.approx(math.pi / 2, abs=1e-15)
    assert not M.log_is_unique(x, y)
    for p, q in ((x, y), (torch.eye(4, dtype=F64)[:, :2], torch.eye(4, dtype=F64)[:, 2:])):
        assert M.logmap(p, q).isfinite().all()
        torch.testing.assert_close(projector(M.expmap(p, M.logmap(p, q))), projector(q), rtol=0, atol=1e-14)


# ---- the given basis ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, p", SHAPES)
@pytest.mark.parametrize("retraction", ["polar", "qr", "exp"])
def test_results_belong_to_the_given_basis(n, p, retraction):
    m = Grassmann(retraction)
    x, _, u, w = draw(n, p)
    y = m.expmap(x, 0.3 * u)
    v = m.random_tangent(x, generator=torch.Generator().manual_seed(7))
    yw, xw = y @ w, x @ w

    def close(a, b):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)

    close(m.logmap(x, yw), m.logmap(x, y))
    close(m.logmap(xw, y), m.logmap(x, y) @ w)
    close(m.parallel_transport(x, yw, v), m.parallel_transport(x, y, v) @ w)
    close(m.transp(x, yw, v), m.transp(x, y, v) @ w)
    close(m.parallel_transport(xw, y, v @ w), m.parallel_transport(x, y, v))
    close(m.transp(xw, y, v @ w), m.transp(x, y, v))
    close(m.transp(x, xw, v), v @ w)
    close(m.parallel_transport(x, xw, v), v @ w)
    # What the optimizers carry: the transport belongs to the very basis that the retraction returned.
    z, moved = m.retr_transp(x, 0.3 * u, v)
    close(moved, m.transp(x, z, v))
    close(projector(z), projector(m.retr(xw, 0.3 * u @ w)))


@pytest.mark.parametrize("n, p", SHAPES[:4])
def test_transport_differs_from_projection_by_second_order(n, p):
    # The turn from one basis to the other is of first order: without it the two transports are O(1) apart.
    x, _, u, w = draw(n, p)
    v = M.proju(x, torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=F64))
    gaps = []
    for h in (0.1, 0.05):
        y = M.expmap(x, h * u / M.norm(x, u, keepdim=True)) @ w
        gaps.append((M.transp(x, y, v) - M.parallel_transport(x, y, v)).norm().item())
    assert gaps[1] < 0.3 * gaps[0] < 0.1


# ---- derivatives ----------------------------------------------------------------------------------------------


def degenerate():
    x, _, _, _ = draw(6, 3, count=1)
    x = x[0]
    q = torch.linalg.qr(x, mode="complete")[0][:, 3:]
    return {
        "coincident": (x, torch.zeros_like(x)),
        "one angle": (x, 0.7 * q[:, :1] @ torch.ones(1, 3, dtype=F64) / 3**0.5),
        "all equal": (x, 0.7 * q),
        "two equal": (x, q * torch.tensor([0.5, 0.5, 1.2], dtype=F64)),
    }


@pytest.mark.parametrize("label", ["coincident", "one angle", "all equal", "two equal"])
@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_two_finite_derivatives(label, dtype):
    x, u = (a.to(dtype) for a in degenerate()[label])
    y = x.clone() if label == "coincident" else M.expmap(x, u)
    leaves = [a.clone().requires_grad_() for a in (x, y, u)]
    for out in (
        M.dist2(leaves[0], leaves[1]),
        M.logmap(leaves[0], leaves[1]),
        M.expmap(leaves[0], leaves[2]),
        M.parallel_transport(leaves[0], leaves[1], x @ x.mT @ u + u),
    ):
        first = torch.autograd.grad(out.square().sum(), leaves, create_graph=True, allow_unused=True)
        used = [g for g in first if g is not None]
        assert used and all(g.isfinite().all() for g in used)
        second = torch.autograd.grad(sum(g.square().sum() for g in used), leaves, allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in second)


@pytest.mark.parametrize("label", ["one angle", "all equal", "two equal"])
def test_gradient_of_distance_at_repeated_angles(label):
    x, u = degenerate()[label]
    y = M.expmap(x, u)
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(M.dist2(leaf, y), leaf)
    torch.testing.assert_close(M.egrad2rgrad(x, g), -2 * u, rtol=0, atol=1e-12)


def test_distance_to_itself():
    x, _, _, w = draw(7, 3)
    for y in (x, x @ w):
        leaf = x.clone().requires_grad_()
        d = M.dist(leaf, y)
        (g,) = torch.autograd.grad(d.sum(), leaf)
        assert (d >= 0).all() and d.max() < 1e-14
        assert M.norm(x, M.egrad2rgrad(x, g)).max() <= 1 + 1e-12


# ---- sampling, names, half precision --------------------------------------------------------------------------


def test_uniform_law_has_haar_projectors():
    # LAPACK's signs make the first entry always negative. E x x^T = p/n I, E P_ii^2 = p(p+2)/(n(n+2)).
    n, p, count = 5, 2, 20000
    x = M.random_uniform(count, n, p, generator=torch.Generator().manual_seed(0), dtype=F64)
    assert abs((x[:, 0, 0] < 0).double().mean().item() - 0.5) < 5 * 0.5 / count**0.5
    P = projector(x)
    torch.testing.assert_close(P.mean(0), p / n * torch.eye(n, dtype=F64), rtol=0, atol=0.012)
    moment = P.diagonal(dim1=-2, dim2=-1).square().mean(0)
    torch.testing.assert_close(moment, torch.full((n,), p * (p + 2) / (n * (n + 2)), dtype=F64), rtol=0, atol=0.012)


def test_broadcasting_an_unbatched_point():
    # Retr works and retr_transp raises.
    x, _, _, _ = draw(5, 2, count=1)
    u = M.random_tangent(x.expand(7, 5, 2))
    for retraction in ("polar", "qr", "exp"):
        y, w = Grassmann(retraction).retr_transp(x[0], u, u[:1])
        assert y.shape == w.shape == (7, 5, 2)


@pytest.mark.parametrize("shape", [(6, 5, 2), (5, 2), (2, 1, 5, 5), (0, 5, 2)])
def test_projection_keeps_the_shape(shape):
    assert M.projx(torch.randn(shape)).shape == shape


def test_bfloat16_and_autocast():
    x, y, u, _ = (a.float() for a in draw(40, 20))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert M.check_point_on_manifold(x)
        assert M.dist(x, y).dtype == torch.float32
    for out in (M.dist(x.bfloat16(), y.bfloat16()), M.retr(x.bfloat16(), u.bfloat16())):
        assert out.dtype == torch.bfloat16 and out.isfinite().all()
    assert M.check_point_on_manifold(x.bfloat16())


def test_distance_and_logarithm_exist():
    # geoopt has neither on any manifold of frames.
    x, y, _, _ = draw(5, 2)
    assert M.cdist(x, y).shape == (6, 6)
    assert M.logmap(x, y).shape == x.shape


def test_retraction_is_checked():
    with pytest.raises(ValueError, match="retraction must be one of"):
        Grassmann("cayley")


def test_float32_orthonormality_at_size():
    g = torch.Generator().manual_seed(0)
    x = M.random_uniform(512, 64, generator=g, dtype=torch.float32)
    u = M.random_tangent(x, generator=g)
    u = u / M.norm(x, u, keepdim=True)
    for retraction in ("polar", "qr"):
        y = Grassmann(retraction).retr(x, u)
        assert (y.mT @ y - torch.eye(64)).abs().max() < 1e-6


def test_chordal_mean():
    x, y, _, w = draw(6, 2)
    pair = torch.stack([x, y])
    mean = M.chordal_mean(pair)
    torch.testing.assert_close(projector(mean), projector(M.midpoint(x, y)), rtol=0, atol=1e-10)
    turned = M.chordal_mean(torch.stack([x @ w, y]))
    torch.testing.assert_close(projector(turned), projector(mean), rtol=0, atol=1e-12)
    three = torch.stack([x, y, x])
    scatter = (2 * projector(x) + projector(y)) / 3
    vectors = torch.linalg.eigh(scatter)[1][..., -2:]
    torch.testing.assert_close(projector(M.chordal_mean(three)), projector(vectors), rtol=0, atol=1e-12)
    weights = torch.tensor([2.0, 1.0], dtype=F64)
    torch.testing.assert_close(projector(M.chordal_mean(pair, weights)), projector(vectors), rtol=0, atol=1e-12)


def test_chordal_mean_of_orthogonal_subspaces_is_one_of_several():
    axes = torch.eye(4, dtype=torch.float64)
    pair = torch.stack([axes[:, :2], axes[:, 2:]])
    weights = torch.full((2,), 0.5, dtype=torch.float64, requires_grad=True)
    mean = M.chordal_mean(pair, weights)
    assert M.check_point_on_manifold(mean.detach())
    assert torch.autograd.grad(mean.sum(), weights)[0].isfinite().all()
    lines = axes[:2, :, None]
    middle = M.frechet_mean(lines)
    torch.testing.assert_close(M.dist(middle, lines), torch.full((2,), torch.pi / 4, dtype=torch.float64))
