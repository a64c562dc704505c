"""Stiefel against independent truth: scipy, mpmath, pymanopt, geomstats, differential equations, finite differences."""

import math
import pickle
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from scipy.integrate import solve_ivp
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from torchriemann.manifolds import Grassmann
from torchriemann.manifolds.frames.stiefel import RETRACTIONS, Stiefel
from torchriemann.manifolds.functional.frames import inverse_sqrt, matrix_exp, so_log

F64 = torch.float64
BETAS = (0.3, 0.5, 0.75, 1.0, 1.5)
SHAPES = ((60, 6), (8, 3), (5, 2), (5, 4), (4, 4), (6, 1))

every_beta = pytest.mark.parametrize("beta", BETAS)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_retraction = pytest.mark.parametrize("retraction", RETRACTIONS)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def point(shape, seed=0, dtype=F64):
    return Stiefel().random_uniform(*shape, generator=generator(seed), dtype=dtype)


def tangent(manifold, x, length=None, seed=1):
    u = manifold.random_tangent(x, generator=generator(seed))
    return u if length is None else u * (length / manifold.norm(x, u, keepdim=True))


def largest(t):
    return t.detach().abs().max().item()


def skew(m):
    return 0.5 * (m - m.mT)


def moving(x, u, beta):
    """The n x n and p x p generators of the geodesic, in numpy."""
    x, u = x.numpy(), u.numpy()
    a = x.T @ u
    h = u - x @ a
    return 2 * beta * x @ a @ x.T + h @ x.T - x @ h.T, (1 - 2 * beta) * a


# ---- geodesics -------------------------------------------------------------------------------------------------


@every_shape
@every_beta
def test_exp_is_the_ambient_exponential_of_scipy(shape, beta):
    manifold, x = Stiefel(beta), point(shape)
    for length in (1e-3, 1.0, 4.0):
        u = tangent(manifold, x, length)
        left, right = moving(x, u, beta)
        expected = scipy.linalg.expm(left) @ x.numpy() @ scipy.linalg.expm(right)
        # scipy itself is 4e-14 off for plane rotations by 4.
        assert largest(manifold.expmap(x, u) - torch.from_numpy(expected)) < 5e-15 + 2e-14 * length


def high_precision_exp(a):
    with mpmath.workdps(40):
        exact = mpmath.expm(mpmath.matrix(np.asarray(a).tolist()))
        return torch.tensor([[float(exact[i, j]) for j in range(exact.cols)] for i in range(exact.rows)], dtype=F64)


@every_beta
def test_exp_to_rounding(beta):
    manifold, x = Stiefel(beta), point((5, 2))
    for length in (1e-3, 1.0, 4.0):
        u = tangent(manifold, x, length)
        left, right = moving(x, u, beta)
        expected = high_precision_exp(left) @ x @ high_precision_exp(right)
        assert largest(manifold.expmap(x, u) - expected) < 4e-15


def acceleration(x, u, v, beta):
    """The second derivative of a geodesic, made bilinear: x (A^2 - H^T H) + 2 (1 - beta) H A for u = v."""

    def square(d):
        a = x.T @ d
        h = d - x @ a
        return x @ (a @ a - h.T @ h) + 2 * (1 - beta) * h @ a

    return 0.5 * (square(u + v) - square(u) - square(v))


@every_beta
def test_geodesic_and_parallel_transport_solve_their_equations(beta):
    """Closed form for every beta. The connection is torsion-free, so transport polarises the geodesic."""
    manifold, n, p = Stiefel(beta), 6, 3
    x = point((n, p))
    u, v = tangent(manifold, x, 2.0), tangent(manifold, x, seed=2)

    def field(_, state):
        position, velocity, w = state.reshape(3, n, p)
        return np.stack(
            [velocity, acceleration(position, velocity, velocity, beta), acceleration(position, velocity, w, beta)]
        ).ravel()

    start = torch.stack([x, u, v]).numpy().ravel()
    end = solve_ivp(field, (0, 1), start, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1].reshape(3, n, p)
    y, w = manifold.expmap_transp(x, u, v)
    assert largest(y - torch.from_numpy(end[0])) < 1e-10
    assert largest(w - torch.from_numpy(end[2])) < 1e-10
    assert largest(manifold.expmap_transp(x, u, u)[1] - torch.from_numpy(end[1])) < 1e-10


@every_shape
@every_beta
def test_parallel_transport_is_an_isometry_of_tangent_spaces(shape, beta):
    manifold, x = Stiefel(beta), point(shape)
    v, z = tangent(manifold, x, seed=2), tangent(manifold, x, seed=3)
    for length in (1e-3, math.pi, 6.0):
        u = tangent(manifold, x, length)
        y, w = manifold.expmap_transp(x, u, v)
        _, q = manifold.expmap_transp(x, u, z)
        assert largest(manifold.inner(y, w, q) - manifold.inner(x, v, z)) < 1e-12
        assert largest(w - manifold.proju(y, w)) < 1e-13


def test_parallel_transport_beyond_its_reach_is_nan_not_wrong():
    manifold, x = Stiefel(1.0), point((2, 5, 2))
    u = tangent(manifold, x, 3.0)
    u[1] *= 20
    y, w = manifold.expmap_transp(x, u, u)
    assert w[1].isnan().all() and w[0].isfinite().all() and y.isfinite().all()


def test_exp_agrees_with_geoopt_and_pymanopt_at_beta_one():
    import geoopt
    from pymanopt.manifolds import Stiefel as Peer

    x = point((9, 4))
    u = tangent(Stiefel(), x, 2.0)
    y = Stiefel().expmap(x, u)
    assert largest(y - geoopt.EuclideanStiefel().expmap(x, u)) < 1e-14
    assert largest(y - torch.from_numpy(Peer(9, 4).exp(x.numpy(), u.numpy()))) < 1e-13


def test_canonical_exp_is_not_the_cayley_map_of_p2():
    """Geoopt's canonical exp is a Cayley map, .2 off at |u| = .5 and more beyond."""
    import geoopt

    manifold, x = Stiefel(0.5), point((8, 3))
    u = tangent(manifold, x, 2.6)
    left, _ = moving(x, u, 0.5)
    assert largest(manifold.expmap(x, u) - torch.from_numpy(scipy.linalg.expm(left)) @ x) < 1e-14
    assert largest(manifold.expmap(x, u) - geoopt.CanonicalStiefel().expmap(x, u)) > 0.1


def test_canonical_exp_and_log_agree_with_geomstats():
    from geomstats.geometry.stiefel import Stiefel as Peer

    metric: Any = Peer(6, 3).metric
    manifold, x = Stiefel(0.5), point((6, 3))
    u = tangent(manifold, x, 1.0)
    y = manifold.expmap(x, u)
    assert largest(y - torch.from_numpy(metric.exp(u.numpy(), x.numpy()))) < 1e-13
    assert largest(manifold.logmap(x, y) - torch.from_numpy(metric.log(y.numpy(), x.numpy()))) < 1e-5


# ---- the logarithm ---------------------------------------------------------------------------------------------


def tangents_of_every_kind(manifold, x):
    """Generic, and of low rank: where shooting fails and a completion may have the wrong determinant."""
    n, p = x.shape[-2:]
    g = generator(7)

    def normal(*shape):
        return torch.randn(*x.shape[:-2], *shape, generator=g, dtype=x.dtype)

    column, row = normal(n, 1), normal(p, 1)
    turn = normal(p, 1) @ row.mT
    kinds = {"generic": normal(n, p)}
    if p < n:
        kinds["rank one, A = 0"] = column @ row.mT
        kinds["rank two, A = 0"] = normal(n, 2) @ normal(2, p)
        kinds["A = 0"] = normal(n, p)
        kinds = {k: v if k == "generic" else v - x @ (x.mT @ v) for k, v in kinds.items()}
    if p > 1:
        kinds["H = 0"] = x @ skew(normal(p, p))
        kinds["rank two, H = 0"] = x @ (turn - turn.mT)
    if 1 < p < n:
        kinds["one plane"] = x @ (turn - turn.mT) + (column - x @ (x.mT @ column)) @ row.mT
    return {k: manifold.proju(x, v) for k, v in kinds.items()}


@every_shape
@every_beta
def test_log_inverts_exp_within_the_injectivity_radius(shape, beta):
    """Up to nine tenths of it; no peer has the logarithm."""
    manifold, x = Stiefel(beta), point((16, *shape))
    fractions = torch.tensor([1e-3, 0.4, 0.8, 0.9], dtype=torch.float64).reshape(4, 1, 1, 1, 1)
    kinds = tangents_of_every_kind(manifold, x)
    v = torch.stack(list(kinds.values()))
    length = fractions * manifold.injectivity_radius(x)
    u = v * (length / manifold.norm(x, v, keepdim=True))  # fractions, kinds, points
    y = manifold.projx(manifold.expmap(x, u))
    errors = manifold.norm(x, manifold.logmap(x, y) - u).amax((0, -1))
    assert (errors < 1e-11).all(), dict(zip(kinds, errors.tolist(), strict=True))
    assert (manifold.dist(x, y) - length[..., 0, 0]).abs().max().item() < 1e-12


@every_beta
def test_log_in_single_precision(beta):
    manifold = Stiefel(beta)
    for shape in SHAPES:
        x = point((16, *shape), dtype=torch.float32)
        u = tangent(manifold, x, 0.8 * manifold.injectivity_radius(x))
        assert manifold.norm(x, manifold.logmap(x, manifold.expmap(x, u)) - u).max().item() < 2e-5


@every_beta
def test_log_of_the_same_point_is_zero(beta):
    manifold, x = Stiefel(beta), point((8, 3))
    assert largest(manifold.logmap(x, x)) < 1e-14
    assert manifold.dist(x, x) < 1e-7


def test_log_of_a_square_frame_is_that_of_scipy_within_a_component_and_nan_between():
    manifold, x = Stiefel(0.5), point((5, 5))
    y = manifold.expmap(x, tangent(manifold, x, 2.0))
    expected = x @ torch.from_numpy(np.real(scipy.linalg.logm((x.mT @ y).numpy())))
    assert largest(manifold.logmap(x, y) - expected) < 1e-13
    mirrored = torch.cat([-x[:, :1], x[:, 1:]], 1)
    both = torch.stack([y, mirrored])
    assert manifold.logmap(x, both).isnan().all(-1).all(-1).tolist() == [False, True]
    assert manifold.dist(x, both).isnan().tolist() == [False, True]


def test_log_where_the_special_rotation_is_needed():
    """With det(x^T y) < 0 a completion with a positive block is a reflection."""
    manifold, x = Stiefel(0.5), point((200, 8, 3))
    column, row = torch.randn(200, 8, 1, generator=generator(2), dtype=F64), torch.randn(1, 3, dtype=F64)
    v = manifold.proju(x, column @ row - x @ (x.mT @ column @ row))
    u = v * (0.97 * manifold.injectivity_radius() / manifold.norm(x, v, keepdim=True))
    y = manifold.expmap(x, u)
    assert (torch.linalg.det(x.mT @ y) < 0).all()
    assert largest(manifold.logmap(x, y) - u) < 1e-12


def test_log_of_nan_is_nan_for_that_item_only():
    manifold, x = Stiefel(), point((3, 5, 2))
    y = manifold.expmap(x, tangent(manifold, x, 1.0))
    y[1, 0, 0] = math.nan
    assert manifold.logmap(x, y).isnan().all(-1).all(-1).tolist() == [False, True, False]


def test_log_has_no_answer_rather_than_a_wrong_one_far_beyond_the_radius():
    manifold, x = Stiefel(1.0), point((200, 8, 3))
    y = point((200, 8, 3), seed=5)
    u = manifold.logmap(x, y)
    found = u.isfinite().all(-1).all(-1)
    assert found.sum() > 195
    assert largest((manifold.expmap(x, u) - y)[found]) < 1e-11


def test_so_log_near_a_half_turn():
    """9e-4 was lost at pi - 1e-6 by a function of the symmetric part."""
    q = point((6, 6))
    for angle, bound in ((1e-6, 1e-15), (2.5, 1e-14), (3.13, 1e-12), (math.pi - 1e-6, 2e-9)):
        k = torch.zeros(6, 6, dtype=F64)
        k[0, 1], k[2, 3] = angle, 0.5 * angle
        k = q @ (k - k.mT) @ q.mT
        v = torch.from_numpy(scipy.linalg.expm(k.numpy()))
        assert largest(so_log(v) - k) < bound, angle


# ---- derivatives -----------------------------------------------------------------------------------------------

SMALL = ((5, 2), (4, 3), (3, 3), (4, 1))


@pytest.mark.parametrize("beta", (0.5, 1.0))
@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_first_and_second_derivatives(beta, shape):
    manifold, x = Stiefel(beta), point((2, *shape))
    u = tangent(manifold, x, 0.6)
    y = manifold.expmap(x, u)
    x, y, u, zero, same = (t.clone().requires_grad_() for t in (x, y, u, torch.zeros_like(u), x))

    def log(a, b):
        return manifold.logmap(manifold.projx(a), manifold.projx(b))

    for f, at in ((manifold.expmap, (x, u)), (manifold.expmap, (x, zero)), (log, (x, y)), (log, (x, same))):
        assert gradcheck(f, at, fast_mode=True)
        assert gradgradcheck(f, at, fast_mode=True, atol=1e-4)
    assert gradcheck(lambda a, b: manifold.expmap_transp(a, b, b)[1], (x, u), fast_mode=True)


@every_beta
def test_gradient_of_the_squared_distance_is_minus_twice_the_log(beta):
    manifold, x = Stiefel(beta), point((8, 3))
    y = manifold.expmap(x, tangent(manifold, x, 1.5))
    a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
    da, db = torch.autograd.grad(manifold.dist2(a, b), (a, b))
    assert largest(manifold.egrad2rgrad(x, da) + 2 * manifold.logmap(x, y)) < 1e-13
    assert largest(manifold.egrad2rgrad(y, db) + 2 * manifold.logmap(y, x)) < 1e-13


@every_beta
def test_squared_distance_at_the_same_point_has_the_metric_as_hessian(beta):
    """No NaN from a branch that is not taken."""
    manifold, x = Stiefel(beta), point((5, 2))
    u = tangent(manifold, x)
    half = torch.func.hessian(lambda t: 0.5 * manifold.dist2(manifold.expmap(x, t * u), x))(torch.zeros((), dtype=F64))
    assert abs(half.item() - manifold.inner(x, u).item()) < 1e-12
    a = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(manifold.dist2(a, x), a, create_graph=True)
    (second,) = torch.autograd.grad((first * u).sum(), a)
    assert largest(first) < 1e-13 and second.isfinite().all()
    (first,) = torch.autograd.grad(manifold.dist(a, a.detach().clone()), a)
    assert first.isfinite().all()


@pytest.mark.parametrize("beta", (0.5, 1.0, 1.5))
def test_no_tangent_is_dropped(beta):
    """Forward derivatives by both of torch's interfaces, against finite differences."""
    manifold, x = Stiefel(beta), point((2, 6, 3))
    y = manifold.expmap(x, tangent(manifold, x, 1.0))
    dx, dy = tangent(manifold, x, 1.0, seed=4), tangent(manifold, y, 1.0, seed=5)
    h = 1e-5
    ends = [manifold.logmap(manifold.expmap(x, s * dx), manifold.expmap(y, s * dy)) for s in (h, -h)]
    expected = (ends[0] - ends[1]) / (2 * h)
    assert largest(torch.func.jvp(manifold.logmap, (x, y), (dx, dy))[1] - expected) < 1e-8
    with forward_ad.dual_level():
        dual = manifold.logmap(forward_ad.make_dual(x, dx), forward_ad.make_dual(y, dy))
        derivative = forward_ad.unpack_dual(dual).tangent
        assert derivative is not None and largest(derivative - expected) < 1e-8


@pytest.mark.parametrize("beta", (0.5, 1.0))
def test_log_through_vmap_and_compile(beta):
    manifold, x = Stiefel(beta), point((3, 6, 2))
    y = manifold.expmap(x, tangent(manifold, x, 1.0))
    expected = manifold.logmap(x, y)
    assert largest(torch.func.vmap(manifold.logmap)(x, y) - expected) < 1e-14
    assert largest(torch.func.vmap(manifold.logmap, in_dims=(None, 0))(x[0], y) - manifold.logmap(x[0], y)) < 1e-14
    torch._dynamo.reset()
    compiled = torch.compile(manifold.logmap, fullgraph=True, backend="aot_eager")
    a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
    one, two = compiled(a, b), manifold.logmap(a, b)
    assert largest(one - two) < 1e-14
    gradients = [torch.autograd.grad(z.sin().sum(), (a, b)) for z in (one, two)]
    assert max(largest(p - q) for p, q in zip(*gradients, strict=True)) < 1e-13


@every_beta
def test_riemannian_hessian_is_the_second_derivative_along_geodesics(beta):
    manifold, x = Stiefel(beta), point((6, 3))
    u, v = tangent(manifold, x), tangent(manifold, x, seed=2)
    weights = torch.randn(18, 18, generator=generator(3), dtype=F64)

    def f(z):
        return (z.flatten() @ weights @ z.flatten()).sin()

    def hessian(w):
        euclidean = torch.func.jvp(torch.func.grad(f), (x,), (w,))[1]
        return manifold.ehess2rhess(x, torch.func.grad(f)(x), euclidean, w)

    along = torch.func.hessian(lambda t: f(manifold.expmap(x, t * u)))(torch.zeros((), dtype=F64))
    scale = along.abs().item() + 1
    assert abs(manifold.inner(x, hessian(u), u).item() - along.item()) < 1e-12 * scale
    assert largest(manifold.inner(x, hessian(u), v) - manifold.inner(x, u, hessian(v))) < 1e-12 * scale
    assert largest(manifold.proju(x, hessian(u)) - hessian(u)) < 1e-12 * scale


# ---- retractions and transports --------------------------------------------------------------------------------


@every_shape
@every_retraction
def test_inverse_retraction(shape, retraction):
    for beta in (0.5, 1.0):
        manifold, x = Stiefel(beta, retraction), point((7, *shape))
        for length in (1e-3, 0.7):
            u = tangent(manifold, x, length)
            assert largest(manifold.inverse_retr(x, manifold.retr(x, u)) - u) < 1e-13


@pytest.mark.parametrize("retraction", ("qr", "polar"))
def test_inverse_retraction_is_nan_where_there_is_none(retraction):
    x = point((5, 2))
    assert Stiefel(retraction=retraction).inverse_retr(x, -x).isnan().all()


def test_retractions_and_projection_agree_with_pymanopt():
    from pymanopt.manifolds import Stiefel as Peer

    x = point((9, 4))
    u = tangent(Stiefel(), x, 3.0)
    for retraction in ("qr", "polar"):
        peer = Peer(9, 4, retraction=retraction).retraction(x.numpy(), u.numpy())
        assert largest(Stiefel(retraction=retraction).retr(x, u) - torch.from_numpy(peer)) < 1e-14
    g = torch.randn(9, 4, generator=generator(3), dtype=F64)
    assert largest(Stiefel().proju(x, g) - torch.from_numpy(Peer(9, 4).projection(x.numpy(), g.numpy()))) < 1e-14


def test_cayley_retraction_is_the_ambient_cayley_transform():
    x = point((8, 3))
    u = tangent(Stiefel(), x, 3.0)
    half = u - 0.5 * x @ (x.mT @ u)
    w = half @ x.mT - x @ half.mT
    eye = torch.eye(8, dtype=F64)
    rotation = torch.linalg.solve(eye - 0.5 * w, eye + 0.5 * w)
    assert largest(Stiefel(retraction="cayley").retr(x, u) - rotation @ x) < 1e-14
    y, v = Stiefel(retraction="cayley", transport="isometric").retr_transp(x, u, u)
    assert largest(y - rotation @ x) < 1e-14 and largest(v - rotation @ u) < 1e-14


@pytest.mark.parametrize("beta, retraction", [(b, r) for b in (0.5, 0.75, 1.0) for r in ("qr", "polar", "cayley")])
def test_retraction_leaves_the_geodesic_at_its_order(beta, retraction):
    """Geoopt's canonical retraction has slope 1."""
    manifold, x = Stiefel(beta, retraction), point((9, 4))
    u = tangent(manifold, x, 1.0)
    gaps = [manifold.norm(x, manifold.retr(x, h * u) - manifold.expmap(x, h * u)).item() for h in (0.02, 0.01)]
    slope = math.log2(gaps[0] / gaps[1])
    second = (retraction, beta) in (("polar", 1.0), ("cayley", 0.5))
    assert manifold.retraction_order == (2 if second else 1)
    assert abs(slope - (3 if second else 2)) < 0.1


@pytest.mark.parametrize("beta", BETAS)
def test_many_vectors_go_along_one_geodesic(beta):
    manifold = Stiefel(beta)
    x = manifold.random(5, 2, dtype=torch.float64)
    u, v = 0.5 * manifold.random_tangent(x), manifold.random_tangent(x.expand(3, 4, 5, 2))
    y, w = manifold.expmap_transp(x, u, v)
    apart = manifold.expmap_transp(x.expand_as(v), u.expand_as(v), v)
    assert y.shape == x.shape and w.shape == v.shape
    torch.testing.assert_close((y.expand_as(v), w), apart, rtol=0.0, atol=1e-14)


@every_shape
@every_retraction
def test_transports_are_tangent_and_isometric_where_they_say_so(shape, retraction):
    for beta in (0.5, 1.0):
        x = point(shape)
        u, v = tangent(Stiefel(beta), x, 1.2), tangent(Stiefel(beta), x, seed=2)
        for transport in ("projection", "isometric", "differentiated"):
            if transport == "isometric" and retraction in ("qr", "polar"):
                with pytest.raises(ValueError, match="Stiefel: transport 'isometric'.*got retraction"):
                    Stiefel(beta, retraction, transport)
                continue
            manifold = Stiefel(beta, retraction, transport)
            y, w = manifold.retr_transp(x, u, v)
            assert largest(y - manifold.retr(x, u)) < 1e-14
            assert largest(manifold.proju(y, w) - w) < 2e-14
            if transport == "isometric":
                assert abs((manifold.norm(y, w) - manifold.norm(x, v)).item()) < 1e-13
            if transport == "differentiated":
                h = 1e-6
                slope = (manifold.retr(x, u + h * v) - manifold.retr(x, u - h * v)) / (2 * h)
                assert largest(w - slope) < 1e-8


@every_retraction
def test_derivatives_of_retractions(retraction):
    manifold, x = Stiefel(1.0, retraction), point((2, 5, 3))
    u = tangent(manifold, x, 0.5)
    y = manifold.retr(x, u)
    x, y, u, zero = (t.clone().requires_grad_() for t in (x, y, u, torch.zeros_like(u)))
    for at in ((x, u), (x, zero)):
        assert gradcheck(manifold.retr, at, fast_mode=True)
        assert gradgradcheck(manifold.retr, at, fast_mode=True)
    if retraction != "exp":
        assert gradgradcheck(manifold.inverse_retr, (x, y), fast_mode=True)


@every_retraction
def test_membership_does_not_drift_in_single_precision(retraction):
    """The largest entry of y^T y - I."""
    manifold = Stiefel(1.0, retraction)
    x, g = point((4, 64, 16), dtype=torch.float32), generator(3)
    with torch.no_grad():
        for _ in range(200 if retraction == "exp" else 1000):
            u = 0.1 * torch.randn(x.shape, generator=g)
            x = manifold.retr_transp(x, manifold.proju(x, u), u)[0]
    y = x.to(F64)
    assert largest(y.mT @ y - torch.eye(16, dtype=F64)) < 1e-6


def test_restore_removes_what_rounding_left():
    x = point((64, 16))
    off = x + 1e-5 * torch.randn(64, 16, generator=generator(2), dtype=F64)
    assert largest(off.mT @ off - torch.eye(16, dtype=F64)) > 1e-5
    assert largest(Stiefel().restore(off) - Stiefel().projx(off)) < 1e-8


# ---- projections, metric, sampling -----------------------------------------------------------------------------


def test_projx_is_the_polar_factor_at_any_scale():
    for shape in SHAPES:
        m = torch.randn(shape, generator=generator(1), dtype=F64)
        expected = torch.from_numpy(scipy.linalg.polar(m.numpy())[0])
        for scale in (1e-200, 1.0, 1e200):
            assert largest(Stiefel().projx(scale * m) - expected) < 2e-13
        for degenerate in (torch.zeros_like(m), m[:, :1].expand_as(m)):
            x = Stiefel().projx(degenerate)
            assert largest(x.mT @ x - torch.eye(shape[1], dtype=F64)) < 1e-14


@every_beta
def test_proju_is_idempotent_and_keeps_tangent_vectors(beta):
    """Geoopt's canonical proju doubles x A."""
    manifold, x = Stiefel(beta), point((8, 3))
    g = torch.randn(8, 3, generator=generator(2), dtype=F64)
    u = manifold.proju(x, g)
    assert largest(manifold.proju(x, u) - u) < 1e-14
    a = skew(g[:3])
    assert largest(manifold.proju(x, x @ a) - x @ a) < 1e-14
    normal = x @ (g[:3] + g[:3].mT)
    assert largest(manifold.proju(x, normal)) < 1e-14
    assert abs(manifold.inner(x, u, g - u).item()) < 1e-13


@every_beta
def test_random_tangent_is_standard_normal_in_the_metric(beta):
    manifold, x = Stiefel(beta), point((5, 3))
    z = manifold.to_coordinates(x, manifold.random_tangent(x.expand(4000, 5, 3), generator=generator(3)))
    assert z.shape == (4000, manifold.dimension((5, 3)))
    for sample in z.T:
        assert scipy.stats.kstest(sample.numpy(), "norm").pvalue > 1e-4
    assert largest(z.T @ z / 4000 - torch.eye(z.shape[1], dtype=F64)) < 0.1


def test_uniform_law_is_haar():
    """Unsigned LAPACK QR gives P(x_00 < 0) = 1. An entry squared is Beta(1/2, (n - 1)/2), all entries alike."""
    n, p = 4, 3
    x = Stiefel().random_uniform(4000, n, p, generator=generator(4), dtype=F64)
    turn = point((n, n), seed=6) @ x @ point((p, p), seed=7)
    for sample in (x, turn):
        for i in range(n):
            for j in range(p):
                entries = sample[:, i, j].numpy()
                assert scipy.stats.binomtest(int((entries < 0).sum()), 4000).pvalue > 1e-4
                assert scipy.stats.kstest(entries**2, "beta", args=(0.5, (n - 1) / 2)).pvalue > 1e-4
    square = Stiefel().random_uniform(4000, 3, 3, generator=generator(5))
    assert scipy.stats.binomtest(int((torch.linalg.det(square) < 0).sum()), 4000).pvalue > 1e-4


def test_haar_sampling_of_square_single_precision_frames_is_orthogonal():
    """Cholesky QR misses it by .3."""
    x = Stiefel().random_uniform(200, 64, 64, generator=generator(1))
    assert largest(x.mT @ x - torch.eye(64)) < 2e-6


def test_half_precision_and_autocast():
    manifold = Stiefel(retraction="qr")
    x = point((40, 20), dtype=torch.bfloat16)
    u = tangent(manifold, x.float(), 0.5).bfloat16()
    y, w = manifold.retr_transp(x, u, u)
    assert y.dtype == w.dtype == manifold.logmap(x, y).dtype == torch.bfloat16
    assert manifold.check_point_on_manifold(y)
    x = point((40, 20), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert manifold.check_point_on_manifold(x)
        assert manifold.retr(x, tangent(manifold, x, 0.5)).dtype == torch.float32


@pytest.mark.parametrize("transport", ("projection", "differentiated"))
@every_retraction
def test_broadcasting(retraction, transport):
    """One x, and a batch of u."""
    manifold = Stiefel(0.5, retraction, transport)
    x = point((5, 2))
    u = tangent(manifold, x.expand(7, 5, 2), 0.5)
    y, w = manifold.retr_transp(x, u, x.expand(3, 1, 5, 2) @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=F64))
    assert y.shape in ((7, 5, 2), (3, 7, 5, 2)) and w.shape == (3, 7, 5, 2)
    assert manifold.expmap_transp(x, u[0], u)[1].shape == (7, 5, 2)
    for name, arguments in (("retr", (x, u)), ("expmap", (x, u)), ("inverse_retr", (x, y)), ("logmap", (x, y))):
        got = getattr(manifold, name)(*arguments)
        item = getattr(manifold, name)(arguments[0], arguments[1][..., 2, :, :])
        assert largest(got[..., 2, :, :] - item) < 1e-14
    empty = u[:0]
    assert manifold.retr_transp(x, empty, empty)[1].shape == manifold.logmap(x, empty).shape == (0, 5, 2)


# ---- curvature and radii ---------------------------------------------------------------------------------------


@every_beta
def test_curvature_is_the_fourth_order_term_of_small_triangles(beta):
    """dist^2(exp su, exp sv) = s^2 |u - v|^2 - s^4/3 R(u, v, v, u) + O(s^5); the odd term is averaged out."""
    manifold, x = Stiefel(beta), point((7, 3))
    u, v = tangent(manifold, x, 1.0), tangent(manifold, x, 1.0, seed=2)

    def estimate(s):
        gap = s * s * manifold.inner(x, u - v) - manifold.dist2(manifold.expmap(x, s * u), manifold.expmap(x, s * v))
        return 3 * gap / s**4

    fine, coarse = ((estimate(s) + estimate(-s)) / 2 for s in (0.02, 0.04))
    expected = manifold.sectional_curvature(x, u, v) * (1 - manifold.inner(x, u, v) ** 2)
    assert abs((4 * fine - coarse) / 3 - expected).item() < 1e-6


def test_greatest_curvature_at_known_planes():
    """5/4 at beta 1/2, between -1/2 and 1 at beta 1 (arXiv:2403.01879)."""
    x = Stiefel().origin(4, 2, dtype=F64)
    u, v = torch.zeros(2, 4, 2, dtype=F64)
    u[2, 0] = u[3, 1] = v[2, 1] = 1.0
    v[3, 0] = -1.0
    assert abs(Stiefel(0.5).sectional_curvature(x, u, v).item() - 1.25) < 1e-14
    assert abs(Stiefel(1.0).sectional_curvature(x, u, v).item() - 0.5) < 1e-14
    a = x @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=F64)
    assert abs(Stiefel(1.0).sectional_curvature(x, a, u).item() - 0.5) < 1e-14
    many, other = (tangent(Stiefel(), point((2000, 5, 2)), seed=s) for s in (1, 2))
    curvature = Stiefel(1.0).sectional_curvature(point((2000, 5, 2)), many, other)
    assert -0.5 <= curvature.min() < 0 and curvature.max() <= 1


def test_injectivity_radius():
    assert Stiefel(0.5).injectivity_radius() == pytest.approx(math.sqrt(0.8) * math.pi)
    assert Stiefel(1.0).injectivity_radius() == math.pi
    assert Stiefel(0.2).injectivity_radius() == pytest.approx(math.sqrt(0.4) * math.pi)
    assert Stiefel(0.5).injectivity_radius(point((5, 1))) == math.pi
    assert Stiefel(0.5).injectivity_radius(point((5, 4))) == pytest.approx(math.pi)
    assert Stiefel(0.2).injectivity_radius(point((4, 4))) == pytest.approx(math.sqrt(0.4) * math.pi)
    manifold, x = Stiefel(0.5), point((8, 3))
    near, far = (manifold.expmap(x, tangent(manifold, x, t)) for t in (2.7, 2.85))
    assert manifold.log_is_unique(x, near) and not manifold.log_is_unique(x, far)
    assert not manifold.log_is_unique(x, near, margin=0.2)


# ---- options and helpers ---------------------------------------------------------------------------------------


def test_invalid_options_name_the_class_and_the_value():
    cases: list[tuple[dict[str, Any], str]] = [
        ({"beta": 0.0}, "Stiefel: beta must be .*, got 0.0"),
        ({"beta": math.nan}, "Stiefel: beta must be .*, got nan"),
        ({"retraction": "svd"}, "Stiefel: retraction must be one of .*, got 'svd'"),
        ({"transport": "vector"}, "Stiefel: transport must be one of .*, got 'vector'"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            Stiefel(**options)
    with pytest.raises(ValueError, match=r"needs 1 <= p <= n, got n = 2, p = 3; a wide .* pass x.mT"):
        Stiefel().projx(torch.zeros(2, 3))


@pytest.mark.parametrize("m", [Stiefel(), Grassmann()])
def test_errors_about_shapes_and_tensors_without_values(m):
    for ask in (lambda: m.random(2, 6), lambda: m.projx(torch.ones(2, 6))):
        with pytest.raises(ValueError, match=r"pass x\.mT, or the size 6, 2"):
            ask()
    lazy = torch.empty(6, 2, device="meta")
    with pytest.raises(ValueError, match=rf"{type(m).__name__}: x is on the meta device, where tensors have no val"):
        m.check_point_on_manifold(lazy)
    with pytest.raises(ValueError, match="u is on the meta device"):
        m.check_vector_on_tangent(m.random(6, 2), lazy)
    assert m.check_point(lazy)


def test_equality_and_pickle():
    manifold = Stiefel(0.5, "cayley", "isometric")
    assert pickle.loads(pickle.dumps(manifold)) == manifold != Stiefel(0.5, "cayley")


def test_matrix_exp_against_mpmath_where_torch_is_wrong():
    """pytorch issue 196592: one matrix of norm .3 is 8e-11 off in torch 2.13."""
    for theta in (0.0, 0.04, 0.3, 3.0, 40.0):
        a = theta * torch.tensor([[0.0, -1.0, 0.3], [1.0, 0.0, 0.2], [-0.3, -0.2, 0.0]], dtype=F64)
        assert largest(matrix_exp(a) - high_precision_exp(a)) < 2e-15 * (1 + theta)
        assert largest(torch.func.vmap(matrix_exp)(a[None])[0] - matrix_exp(a)) < 1e-14
    assert gradgradcheck(matrix_exp, (a[None].mul(0.05).requires_grad_(),))


def test_inverse_sqrt_takes_as_many_steps_as_it_needs():
    """The short cut for plain tensors gives what the differentiable path gives."""
    for scale in (1e-4, 0.1, 3.0, 1e3):
        u = scale * torch.randn(5, 9, 4, generator=generator(1), dtype=F64)
        gram = torch.eye(4, dtype=F64) + u.mT @ u
        inverse, root = inverse_sqrt(gram)
        assert largest(root @ root / gram.abs().amax() - gram / gram.abs().amax()) < 1e-13
        assert largest(inverse @ root - torch.eye(4, dtype=F64)) < 1e-11
        full = inverse_sqrt(gram.requires_grad_())[0]
        assert largest(full - inverse) < 1e-12
