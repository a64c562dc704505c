"""Probability vectors with the Fisher-Rao metric: against mpmath, the sphere, geomstats, and what the metric is for."""

import math
from dataclasses import dataclass

import mpmath as mp
import pytest
import torch

from torchriemann import Pullback, Simplex, Sphere
from torchriemann.manifolds import Chart
from torchriemann.manifolds.functional.simplex import positive_step
from torchriemann.testing import OPERATIONS

M, F64, F32 = Simplex(), torch.float64, torch.float32


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def close(got, want, bound=1e-14):
    torch.testing.assert_close(got, want, rtol=bound, atol=bound)


# ---- numbers of sixty digits ----------------------------------------------------------------------------------


def roots(x):
    """Those of the given numbers over their sum."""
    total = mp.fsum(mp.mpf(float(a)) for a in x)
    return [mp.sqrt(mp.mpf(float(a)) / total) for a in x]


def true_angle(a, b):
    half = mp.sqrt(mp.fsum((p - q) ** 2 for p, q in zip(a, b, strict=True))) / 2
    return 2 * mp.asin(half)


def true_logarithm(a, b):
    angle = true_angle(a, b)
    ratio = angle / mp.sin(angle) if angle else mp.mpf(1)
    return [2 * p * ratio * (q - mp.cos(angle) * p) for p, q in zip(a, b, strict=True)]


def true_end(a, u):
    w = [mp.mpf(float(d)) / (2 * p) for d, p in zip(u, a, strict=True)]
    r = mp.sqrt(mp.fsum(d * d for d in w))
    return [(mp.cos(r) * p + mp.sin(r) / r * d) ** 2 for p, d in zip(a, w, strict=True)]


def true_transport(a, b, v):
    w = [mp.mpf(float(d)) / (2 * p) for d, p in zip(v, a, strict=True)]
    along = mp.fsum(q * d for q, d in zip(b, w, strict=True)) / (1 + mp.fsum(p * q for p, q in zip(a, b, strict=True)))
    return [2 * q * (d - along * (p + q)) for p, q, d in zip(a, b, w, strict=True)]


def wide_points(dtype, count=6, n=5):
    """Entries from the least normal number of the square root of the dtype's range to one."""
    low = -290 if dtype == F64 else -36
    powers = low * torch.rand(2, count, n, generator=generator(1), dtype=F64)
    powers[..., 0] = 0
    x, y = 10.0**powers
    return (x / x.sum(-1, keepdim=True)).to(dtype), (y.roll(1, -1) / y.sum(-1, keepdim=True)).to(dtype)


@pytest.mark.parametrize("dtype", [F64, F32])
def test_entries_of_three_hundred_orders_of_magnitude(dtype):
    x, y = wide_points(dtype)
    eps = torch.finfo(dtype).eps
    u, v = M.logmap(x, y), M.random_tangent(x, generator=generator(2))
    w, d, half = M.parallel_transport(x, y, v), M.dist(x, y), M.geodesic(x, y, 0.5)
    size_of = M.norm(x, v).tolist()
    with mp.workdps(60):
        for i in range(len(x)):
            a, b = roots(x[i]), roots(y[i])
            assert abs(mp.mpf(float(d[i])) / (2 * true_angle(a, b)) - 1) < 8 * eps
            middle = [p + q for p, q in zip(a, b, strict=True)]
            size = mp.fsum(p * p for p in middle)
            for j in range(x.shape[-1]):
                # In units of the metric: of a root.
                assert abs(mp.mpf(float(u[i, j])) - true_logarithm(a, b)[j]) / a[j] < 32 * eps
                assert abs(mp.mpf(float(w[i, j])) - true_transport(a, b, v[i])[j]) / b[j] < 32 * eps * size_of[i]
                assert abs(mp.mpf(float(half[i, j])) * size / middle[j] ** 2 - 1) < 16 * eps  # every digit of each
    close(M.geodesic(x, y, 1.0) / y, torch.ones_like(y), 32 * eps)


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("gap", [1e-1, 1e-3, 1e-6])
def test_close_points_keep_their_digits(dtype, gap):
    """The numbers as they are given have a distance, far below eps as well, to a few eps of itself."""
    x = M.random(20, 6, generator=generator(3), dtype=F64)
    y = M.restore(x * (1 + gap * torch.randn(20, 6, generator=generator(4), dtype=F64))).to(dtype)
    x, eps = x.to(dtype), torch.finfo(dtype).eps
    d, u = M.dist(x, y), M.logmap(x, y)
    flat = 2 * torch.atan2(*(torch.linalg.vector_norm(s, dim=-1) for s in (x.sqrt() - y.sqrt(), x.sqrt() + y.sqrt())))
    lost = 0.0
    with mp.workdps(60):
        for i in range(len(x)):
            a, b = roots(x[i]), roots(y[i])
            true = 2 * true_angle(a, b)
            assert abs(mp.mpf(float(d[i])) / true - 1) < 16 * eps
            lost = max(lost, float(abs(2 * mp.mpf(float(flat[i])) / true - 1)))
            worst = max(abs(mp.mpf(float(p)) - q) / r for p, q, r in zip(u[i], true_logarithm(a, b), a, strict=True))
            assert worst < 64 * eps * true
    assert gap > 1e-5 or lost > 20 * eps / gap**0.5 * 1e-3  # differences of roots do not keep them


def test_exponential_against_mpmath():
    x = M.random(20, 6, generator=generator(5), dtype=F64)
    u = M.random_tangent(x, generator=generator(6))
    u = u * (0.95 * M.injectivity_radius(x) / M.norm(x, u)).unsqueeze(-1)
    end = M.expmap(x, u)
    with mp.workdps(60):
        for i in range(len(x)):
            for got, want, p in zip(
                end[i], true_end([mp.sqrt(mp.mpf(float(q))) for q in x[i]], u[i]), x[i], strict=True
            ):
                assert abs(mp.mpf(float(got)) - want) < 8e-16 * (float(p) + float(want)) + 4e-16 * float(want) ** 0.5


# ---- the rim --------------------------------------------------------------------------------------------------


def exit_time(x, u):
    """The least t at which an entry of cos(r t) a + sin(r t)/r w is zero."""
    a = x.sqrt()
    w = u / (2 * a)
    r = w.norm(dim=-1, keepdim=True)
    return (torch.atan2(r * a, -w) / r).amin(-1)


def test_geodesics_end_at_the_first_face():
    x = M.random(200, 5, generator=generator(7), dtype=F64)
    u = M.random_tangent(x, generator=generator(8))
    u = u * exit_time(x, u).unsqueeze(-1)  # it arrives at the time one
    for t in (0.3, 0.9, 1 - 1e-9):
        assert M.exp_is_defined(x, t * u).all()
        end = M.expmap(x, t * u)
        assert M.check_point_on_manifold(end)
        close(M.dist(x, end), t * M.norm(x, u), 1e-12)
    for t in (1 + 1e-9, 1.1, 2.0, 5.0, 37.0, 1e3, 1e200):
        assert not M.exp_is_defined(x, t * u).any()
        assert M.expmap(x, t * u).isnan().all() and M.expmap_transp(x, t * u, u)[1].isnan().all()
    whole = 4 * math.pi / M.norm(x, u).unsqueeze(-1) * u  # once around, to where every entry is positive again
    assert not M.exp_is_defined(x, whole).any() and M.expmap(x, whole).isnan().all()
    with pytest.raises(ValueError, match=r"Simplex: the geodesic along u leaves .* 200 of 200 .* retr"):
        M.assert_check_exp_is_defined(x, 2 * u)
    assert M.geodesic(x, M.expmap(x, 0.5 * u), 2.1).isnan().all()


def test_injectivity_radius_is_the_distance_to_the_nearest_face():
    x = M.random(50, 4, generator=generator(9), dtype=F64)
    to_faces = []
    for i in range(4):
        y = x.clone()
        y[:, i] = 0
        foot = y / y.sum(-1, keepdim=True)
        to_faces.append(M.dist(x, foot))
        other = M.random(50, 4, generator=generator(i), dtype=F64)
        other[:, i] = 0
        assert (M.dist(x, other / other.sum(-1, keepdim=True)) >= to_faces[-1]).all()
    close(M.injectivity_radius(x), torch.stack(to_faces).amin(0))
    assert M.injectivity_radius() == 0.0
    directions = M.random_tangent(x.expand(200, 50, 4), generator=generator(10))
    directions = directions / M.norm(x, directions, keepdim=True)
    assert M.exp_is_defined(x, 0.999 * M.injectivity_radius(x).unsqueeze(-1) * directions).all()


@pytest.mark.parametrize("dtype", [F64, F32])
def test_retraction_of_long_vectors_is_a_point_and_has_an_inverse(dtype):
    x = M.random(50, 6, generator=generator(11), dtype=dtype)
    x = torch.cat([x, wide_points(dtype, 50, 6)[0]])
    for length in (1e-3, 1.0, 30.0, 1e3):
        u = length * M.random_tangent(x, generator=generator(12))
        y = M.retr(x, u)
        assert M.check_point_on_manifold(y) and M.retr_transp(x, u, u)[1].isfinite().all()
    y = M.restore(x.flip(0).roll(1, -1))
    u = M.inverse_retr(x, y)
    eps = torch.finfo(dtype).eps
    assert u.isfinite().all() and (u.sum(-1).abs() <= 8 * eps * u.abs().amax(-1)).all()
    back = M.retr(x, u)
    close(back.sqrt(), y.sqrt(), 64 * eps)
    x = x[:50]
    near = M.restore(x * (1 + 1e-3 * torch.randn(x.shape, generator=generator(13), dtype=dtype)))
    close(M.norm(x, M.inverse_retr(x, near)) / M.dist(x, near), torch.ones(50, dtype=dtype), 1e-3)


@pytest.mark.parametrize("dtype", [F64, F32])
def test_retraction_along_numbers_of_any_size_is_a_point(dtype):
    """u/x is no number next to a face, nor are sums of the largest u."""
    info = torch.finfo(dtype)
    x = torch.tensor([[info.tiny, 1e-10, 1.0], [info.tiny, 0.5, 0.5], [0.2, 0.3, 0.5]], dtype=dtype)
    for size in (1.0, 100.0, 1e-3 * info.max, info.max):
        u = size * torch.tensor([[1.0, 1.0, -1.0], [-1.0, 1.0, 1.0], [1.0, 0.0, 0.0]], dtype=dtype)
        leaf = u.clone().requires_grad_()
        y = M.retr(x, leaf)
        assert M.check_point_on_manifold(y.detach())
        assert size == 1 or torch.equal(y > 0.1, u > 0)
        assert torch.autograd.grad(y[..., 0].sum(), leaf)[0].isfinite().all()
    y = M.restore(
        torch.tensor([[1.0, info.tiny, info.tiny], [0.5, 0.5, info.tiny], [info.tiny, 1.0, 1e-30]], dtype=dtype)
    )
    close(M.retr(x, M.inverse_retr(x, y)).sqrt(), y.sqrt(), 64 * info.eps)


def test_retraction_is_the_positive_root_of_its_equation():
    a = torch.cat([torch.linspace(-8, 8, 161, dtype=F64), torch.tensor([-1e200, -1e8, -0.5, 1e8, 1e200], dtype=F64)])
    f = positive_step(torch.ones_like(a), a)
    close((3 * f - 2 - 1 / f) / 4 / (1 + a.abs()), a / (1 + a.abs()), 1e-13)
    assert (f > 0).all() and (f[:161].diff() > 0).all()
    one, x = torch.ones(1, dtype=F64), torch.zeros(1, dtype=F64, requires_grad=True)
    (first,) = torch.autograd.grad(positive_step(one, x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    close(
        torch.stack([positive_step(one, x).sum(), first.sum(), second.sum()]).detach(),
        torch.tensor([1, 1, 0.5]).double(),
    )
    (at_half,) = torch.autograd.grad(positive_step(one, x - 0.5).sum(), x)
    close(at_half, torch.tensor([2 / 3], dtype=F64))


# ---- the metric -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Root(Chart):
    """Onto the sphere of radius two."""

    def forward(self, x):
        return 2 * x.sqrt()

    def inverse(self, y):
        return y.square() / 4

    def inverse_differential(self, y, *vectors):
        return y.square() / 4, *(0.5 * y * v for v in vectors)


SPHERE = Pullback(Sphere(0.25), Root())


def test_it_is_the_pullback_of_the_sphere_of_radius_two():
    x = M.random_normal(30, 5, std=0.2, generator=generator(14), dtype=F64)
    y, r = (M.random_normal(30, 5, std=0.2, generator=generator(s), dtype=F64) for s in (15, 16))
    u, v = (0.2 * M.random_tangent(x, generator=generator(s)) for s in (17, 18))
    g, h = torch.randn(2, 30, 5, generator=generator(19), dtype=F64)
    t = torch.rand(30, generator=generator(20), dtype=F64)
    given = {"x": x, "y": y, "r": r, "u": u, "v": v, "g": g, "h": h, "t": t}
    own = {"projx", "proju", "restore", "retr", "inverse_retr", "retr_transp", "transp_follow_retr", "transp"}
    own |= {"exp_is_defined", "basis", "to_coordinates", "from_coordinates"}
    for name, letters in OPERATIONS.items():
        if name not in own:
            got, want = (getattr(m, name)(*(given[k] for k in letters)) for m in (M, SPHERE))
            close(got, want, 1e-13)
    many = torch.stack([x, y, r])
    close(M.frechet_mean(many), SPHERE.frechet_mean(many), 1e-12)
    close(M.frechet_variance(many), SPHERE.frechet_variance(many), 1e-12)
    close(M.cdist(x, y), SPHERE.cdist(x, y), 1e-13)


def test_it_is_the_fisher_information():
    """E[(d log p along u)(d log p along v)], and twice the relative entropy to second order."""
    x = M.random(40, 5, generator=generator(21), dtype=F64)
    u, v = (M.random_tangent(x, generator=generator(s)) for s in (22, 23))
    close(M.inner(x, u, v), (x * (u / x) * (v / x)).sum(-1), 1e-12)
    u = u * (M.injectivity_radius(x) / M.norm(x, u)).unsqueeze(-1)
    errors = []
    for h in (1e-2, 5e-3, 2.5e-3):
        y = M.expmap(x, h * u)
        entropy = (x * (x / y).log()).sum(-1)
        errors.append(((entropy - M.dist2(x, y) / 2).abs() / h**3).amax())
    assert errors[0] < 1 and (errors[2] / errors[0] - 1).abs() < 0.1  # of third order


def test_splitting_outcomes_by_fixed_shares_is_isometric():
    """Cencov's characterisation: maps by sufficient statistics keep every length, merging outcomes shortens them."""
    x, y = (M.random(30, 4, generator=generator(s), dtype=F64) for s in (24, 25))
    u = 0.1 * M.random_tangent(x, generator=generator(26))
    shares = M.random(4, 3, generator=generator(27), dtype=F64)
    split = lambda p: (p.unsqueeze(-1) * shares).flatten(-2)  # noqa: E731
    close(M.dist(split(x), split(y)), M.dist(x, y))
    close(M.norm(split(x), split(u)), M.norm(x, u))
    close(M.logmap(split(x), split(y)), split(M.logmap(x, y)))
    close(M.midpoint(split(x), split(y)), split(M.midpoint(x, y)))
    close(M.retr(split(x), split(u)), split(M.retr(x, u)))
    merged = lambda p: torch.stack([p[..., 0] + p[..., 1], p[..., 2], p[..., 3]], -1)  # noqa: E731
    assert (M.dist(merged(x), merged(y)) <= M.dist(x, y) + 1e-15).all()


def test_two_outcomes_are_an_interval_of_length_pi():
    theta = torch.linspace(0.01, math.pi - 0.01, 50, dtype=F64)
    x = torch.stack([(theta / 2).cos().square(), (theta / 2).sin().square()], -1)
    close(M.dist(x[0], x), theta - theta[0], 1e-13)
    close(M.cdist(x, x), (theta[:, None] - theta).abs(), 1e-13)
    ends = torch.eye(2, dtype=F64)
    close(M.dist(*ends), torch.tensor(math.pi, dtype=F64))
    assert M.dimension((2,)) == 1 and M.dist(ends, ends).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="Simplex: points must have at least two entries, got 1"):
        M.random(3, 1)


def test_geomstats_agrees_where_it_is_right():
    import geomstats.backend  # noqa: F401  (it reads its backend at import)
    from geomstats.information_geometry.categorical import CategoricalDistributions
    from geomstats.information_geometry.multinomial import MultinomialDistributions

    x, y = (M.random(4, generator=generator(s), dtype=F64) for s in (28, 29))
    u = M.random_tangent(x, generator=generator(30))
    u = 0.4 * M.injectivity_radius(x) / M.norm(x, u) * u
    a, b, d = x.numpy(), y.numpy(), u.numpy()
    for draws, space in ((1, CategoricalDistributions(3)), (7, MultinomialDistributions(3, n_draws=7))):
        peer = space.metric
        assert abs(peer.dist(a, b) - draws**0.5 * M.dist(x, y)) < 1e-12
        assert abs(peer.norm(d, a) - draws**0.5 * M.norm(x, u)) < 1e-12
        for theirs, ours in (
            (peer.exp(d, a), M.expmap(x, u)),
            (peer.log(b, a), M.logmap(x, y)),
            (peer.geodesic(a, b)(0.3), M.geodesic(x, y, 0.3)),
        ):
            close(torch.from_numpy(theirs).reshape(4), ours, 1e-12)
        # Its curvature is 2 sqrt(draws), of a sphere of radius 2 sqrt(draws).
        assert abs(float(peer.sectional_curvature(d, b - a, a)) - 2 * draws**0.5) < 1e-12
        assert space.belongs(x.new_tensor([1.5, -0.5, 0, 0]).numpy())  # of sum one; no entry is looked at
    assert M.sectional_curvature(x, u, y - x) == 0.25
    far = 10 * u / M.norm(x, u)
    assert CategoricalDistributions(3).metric.dist(a, peer.exp(far.numpy(), a)) < 3  # it folds back, without a word
