"""What the Fisher-Rao metric of probability vectors is: the sphere's, and that of information."""

import math
from dataclasses import dataclass

import pytest
import torch

from tests.support.simplex import F64, M, close, generator
from torchriemann import Pullback, Sphere
from torchriemann.manifolds import Chart
from torchriemann.testing import OPERATIONS


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
    """E[(d log p along u)(d log p along v)]. dist^2/2 is the relative entropy up to a term of third order, and the mean
    of those of both directions up to one of fourth order."""
    x = M.random(40, 5, generator=generator(21), dtype=F64)
    u, v = (M.random_tangent(x, generator=generator(s)) for s in (22, 23))
    close(M.inner(x, u, v), (x * (u / x) * (v / x)).sum(-1), 1e-12)
    u = u * (M.injectivity_radius(x) / M.norm(x, u)).unsqueeze(-1)
    errors, of_mean = [], []
    for h in (1e-2, 5e-3, 2.5e-3):
        y = M.expmap(x, h * u)
        half = M.dist2(x, y) / 2
        there, back = (x * (x / y).log()).sum(-1), (y * (y / x).log()).sum(-1)
        errors.append(((there - half).abs() / h**3).amax())
        of_mean.append(((0.5 * (there + back) - half).abs() / h**4).amax())
    for found in (errors, of_mean):
        assert 1e-3 < found[0] < 1 and (found[2] / found[0] - 1).abs() < 0.1


def test_distances_of_vectors_with_zero_entries_are_symmetric():
    """Those of the closed simplex; logarithms, geodesics and transports are so to such a vector alone."""
    zero = torch.tensor([[0.0, 0.3, 0.7], [0.0, 1.0, 0.0]], dtype=F64)
    y = torch.tensor([0.2, 0.3, 0.5], dtype=F64)
    true = 2 * (zero * y).sqrt().sum(-1).acos()
    close(M.dist(zero, y), true)
    close(M.dist(y, zero), true)
    close(M.dist(zero[0], zero[1]), 2 * zero[0, 1].sqrt().acos())
    v = M.proju(y, torch.ones(3, dtype=F64) * torch.tensor([1.0, -2.0, 3.0], dtype=F64))
    close(M.norm(y, M.logmap(y, zero)), true)
    close(M.dist(M.geodesic(y, zero, 0.25), zero), 0.75 * true)
    assert M.parallel_transport(y, zero, v).isfinite().all()
    for lost in (M.logmap(zero, y), M.geodesic(zero, y, 0.25), M.parallel_transport(zero, y, v)):
        assert lost.isnan().all()


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
