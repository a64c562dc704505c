"""The Stiefel logarithm up to the injectivity radius and beyond, against least squares on the ambient exponential."""

import math

import pytest
import torch

from torchriemann.manifolds.frames.stiefel import Stiefel
from torchriemann.manifolds.functional.stiefel_differential import coordinates, from_coordinates, generator, system

F64 = torch.float64
BETAS = (0.3, 0.7, 1.0)


def draw(manifold, shape, count, seed=0, dtype=F64):
    """Points, independent points, and directions of length one."""
    g = torch.Generator().manual_seed(seed)
    x, y = (manifold.random_uniform(count, *shape, generator=g, dtype=dtype) for _ in range(2))
    u = manifold.random_tangent(x, generator=g)
    return x, y, u / manifold.norm(x, u, keepdim=True)


def low_rank(manifold, x, rank, seed=0):
    g = torch.Generator().manual_seed(seed)
    n, p = x.shape[-2:]
    v = torch.randn(len(x), n, rank, generator=g, dtype=F64) @ torch.randn(len(x), rank, p, generator=g, dtype=F64)
    v = manifold.proju(x, v - x @ (x.mT @ v))
    return v / manifold.norm(x, v, keepdim=True)


# ---- within the radius ------------------------------------------------------------------------------------------


def wrong_within_the_radius(shape, beta, count, seed=0):
    """How many logarithms are NaN, and how many are not the vector that led to the point, which is the shortest."""
    manifold = Stiefel(beta)
    x, _, u = draw(manifold, shape, count, seed)
    missing = wrong = 0
    for direction in (u, low_rank(manifold, x, 1), low_rank(manifold, x, 2)):
        for fraction in (0.97, 0.99):
            v = fraction * manifold.injectivity_radius(x) * direction
            y = manifold.expmap(x, v)
            off = manifold.norm(x, manifold.logmap(x, y) - v)
            missing += int(off.isnan().sum())
            wrong += int((off > 1e-9).sum())
            assert (manifold.dist(x, y) - manifold.dist(y, x)).abs().nan_to_num(0.0).max() < 1e-9
    return missing, wrong


@pytest.mark.parametrize("beta", (*BETAS, 0.5, 1.5))
def test_no_logarithm_is_missing_or_wrong_next_to_the_radius(beta):
    """At beta 0.7 the canonical logarithm, for which these points are beyond the cut locus, led to other geodesics."""
    assert wrong_within_the_radius((4, 2), beta, 100) == (0, 0)
    assert wrong_within_the_radius((8, 3), beta, 8) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ((4, 2), (5, 3), (8, 3), (5, 4), (10, 8)), ids=str)
@pytest.mark.parametrize("beta", (*BETAS, 0.5, 1.5))
def test_no_logarithm_of_a_thousand_is_missing_or_wrong_next_to_the_radius(shape, beta):
    assert wrong_within_the_radius(shape, beta, 1000, seed=5) == (0, 0)


@pytest.mark.parametrize("beta", BETAS)
def test_single_precision_keeps_the_branch(beta):
    manifold = Stiefel(beta)
    x, _, u = draw(manifold, (4, 2), 200, dtype=torch.float32)
    u = 0.97 * manifold.injectivity_radius(x) * u
    v = manifold.logmap(x, manifold.expmap(x, u))
    assert v.dtype == torch.float32
    assert manifold.norm(x, v - u).max() < 1e-3


# ---- beyond -----------------------------------------------------------------------------------------------------


def shortest_by_least_squares(x, y, beta, starts, seed=0):
    """The length of the shortest geodesic of n x n exponentials that Levenberg and Marquardt find. ``N,n,p -> N``."""
    count, n, p = x.shape
    frame = torch.linalg.qr(x, mode="complete")[0]
    frame[..., :p] = x
    rows, columns = torch.triu_indices(p, p, 1)
    k = len(rows)

    def end(z, frame):
        a = torch.zeros(p, p, dtype=F64).index_put((rows, columns), z[:k])
        a = (a - a.mT) / math.sqrt(2 * beta)
        b = z[k:].reshape(n - p, p)
        w = torch.cat([torch.cat([2 * beta * a, -b.mT], 1), torch.cat([b, torch.zeros(n - p, n - p, dtype=F64)], 1)])
        return frame @ (torch.linalg.matrix_exp(w)[:, :p] @ torch.linalg.matrix_exp((1 - 2 * beta) * a))

    z = torch.randn(count * starts, k + (n - p) * p, generator=torch.Generator().manual_seed(seed), dtype=F64)
    longest = 2 * Stiefel(beta).injectivity_radius(x)
    z *= torch.linspace(0.05, 1.0, starts, dtype=F64).repeat(count)[:, None] * longest / z.norm(dim=-1, keepdim=True)
    frame, y = (t.repeat_interleave(starts, 0) for t in (frame, y))
    slope = torch.vmap(torch.func.jacfwd(end))
    residual = (torch.vmap(end)(z, frame) - y).flatten(1)
    damping = residual.square().sum(-1)
    for _ in range(40):
        j = slope(z, frame).flatten(1, 2)
        normal = j.mT @ j + damping[:, None, None] * torch.eye(z.shape[1], dtype=F64)
        step = torch.linalg.solve_ex(normal, j.mT @ residual[:, :, None])[0].squeeze(-1)
        tried = (torch.vmap(end)(z - step, frame) - y).flatten(1)
        lower = tried.square().sum(-1) < residual.square().sum(-1)
        z = torch.where(lower[:, None], z - step, z)
        residual = torch.where(lower[:, None], tried, residual)
        damping = torch.where(lower, damping.mul(0.2).clamp(max=10.0), damping * 4)
    length = torch.where(residual.abs().amax(-1) < 1e-9, z.norm(dim=-1), math.inf)
    return length.reshape(count, starts).amin(1)


def against_least_squares(shape, beta, count, starts, seed=0):
    """Of pairs not within the radius: how many there are, NaN, longer than by least squares, and shorter."""
    manifold = Stiefel(beta)
    x, y, _ = draw(manifold, shape, count, seed)
    d = manifold.dist(x, y)
    far = ~(d < manifold.injectivity_radius(x))
    truth = shortest_by_least_squares(x[far], y[far], beta, starts)
    d = d[far]
    return int(far.sum()), int(d.isnan().sum()), int((d > truth + 1e-7).sum()), int((d < truth - 1e-7).sum())


@pytest.mark.parametrize("beta", BETAS)
def test_the_shortest_geodesic_is_found_beyond_the_radius(beta):
    far, missing, longer, _ = against_least_squares((4, 2), beta, 60, 16)
    assert far >= 3 and missing == longer == 0


@pytest.mark.slow
@pytest.mark.parametrize("shape, count, starts", (((4, 2), 1000, 40), ((8, 3), 100, 30), ((10, 8), 20, 12)), ids=str)
@pytest.mark.parametrize("beta", (*BETAS, 0.5, 1.5))
def test_how_often_a_shorter_geodesic_is_overlooked(shape, count, starts, beta):
    far, missing, longer, _ = against_least_squares(shape, beta, count, starts, seed=7)
    assert missing == 0 and longer <= 0.02 * far


def missing_and_asymmetric(shape, beta, count, seed=0):
    manifold = Stiefel(beta)
    x, y, _ = draw(manifold, shape, count, seed)
    u, d = manifold.logmap(x, y), manifold.dist(y, x)
    assert (manifold.expmap(x, u) - y).abs().nan_to_num(0.0).max() < 1e-11
    gap = (manifold.norm(x, u) - d).abs()
    return int(gap.isnan().sum()), int((gap > 1e-9).sum())


@pytest.mark.parametrize("beta", BETAS)
def test_random_pairs_have_a_logarithm_and_one_distance(beta):
    assert missing_and_asymmetric((4, 2), beta, 300) == (0, 0)
    assert missing_and_asymmetric((10, 8), beta, 8) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ((4, 2), (8, 3), (10, 8)), ids=str)
@pytest.mark.parametrize("beta", (*BETAS, 0.5, 1.5))
def test_random_pairs_by_the_thousand(shape, beta):
    missing, asymmetric = missing_and_asymmetric(shape, beta, 1000, seed=9)
    assert missing <= 1 and asymmetric == 0


def test_opposite_points_of_a_sphere_are_half_a_turn_apart():
    x = draw(Stiefel(), (5, 1), 3)[0]
    for beta in (0.5, 1.0):
        manifold = Stiefel(beta)
        u = manifold.logmap(x, -x)
        assert (manifold.norm(x, u) - math.pi).abs().max() < 1e-6
        assert (manifold.expmap(x, u) + x).abs().max() < 1e-11


# ---- batches, derivatives, transforms ---------------------------------------------------------------------------


@pytest.mark.parametrize("beta", (0.5, 0.7))
def test_an_item_that_is_no_frame_is_nan_and_touches_no_other(beta):
    """With near and far neighbours, gradients included."""
    manifold = Stiefel(beta)
    x, y, u = draw(manifold, (4, 2), 12)
    y[:6] = manifold.expmap(x, u)[:6]
    good, bad_x, bad_y = list(range(12)), x.clone(), y.clone()
    for item, value in ((1, math.nan), (4, math.inf), (7, 5.0), (9, 0.0)):
        (bad_x if item < 5 else bad_y)[item] = value
        good.remove(item)
    results = []
    for a, b in ((x, y), (bad_x, bad_y)):
        a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
        v, d = manifold.logmap(a, b), manifold.dist(a, b)
        results.append((v, d, *torch.autograd.grad(v[good].sin().sum() + d[good].sum(), (a, b))))
    whole, spoilt = results
    for p, q in zip(whole, spoilt, strict=True):
        assert (p - q)[good].abs().max() < 1e-9
    assert [int(i) for i in spoilt[1].isnan().nonzero()] == [1, 4, 7, 9]
    assert spoilt[0].isnan().all(-1).all(-1).sum() == 4


@pytest.mark.parametrize("beta", (0.5, 0.7, 1.0))
def test_differential_is_the_derivative_of_the_exponential(beta):
    g = torch.Generator().manual_seed(1)
    for p, q in ((3, 3), (4, 2), (2, 1), (1, 1)):
        z = 1.5 * torch.randn(5, p * (p - 1) // 2 + p * q, generator=g, dtype=F64)

        def end(z, p=p):
            a, b = from_coordinates(z, p)
            return torch.linalg.matrix_exp(generator(a, b, beta))[:, :p] @ torch.linalg.matrix_exp((1 - 2 * beta) * a)

        back, turn_back, matrix, _ = system(*from_coordinates(z, p), beta)
        derivative = torch.vmap(torch.func.jacfwd(end))(z).movedim(-1, 1)
        pulled = coordinates(back[:, None] @ derivative @ turn_back[:, None])
        assert (pulled - matrix).abs().max() < 1e-10


@pytest.mark.parametrize("beta", (0.5, 0.7))
def test_derivatives_and_transforms_of_far_logarithms(beta):
    manifold = Stiefel(beta)
    x, _, u = draw(manifold, (4, 2), 3)
    y = manifold.expmap(x, 0.97 * manifold.injectivity_radius(x) * u)
    a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
    da, db = torch.autograd.grad(manifold.dist2(a, b).sum(), (a, b))
    assert (manifold.egrad2rgrad(x, da) + 2 * manifold.logmap(x, y)).abs().max() < 1e-10
    assert (manifold.egrad2rgrad(y, db) + 2 * manifold.logmap(y, x)).abs().max() < 1e-10
    assert (torch.vmap(manifold.logmap)(x, y) - manifold.logmap(x, y)).abs().max() < 1e-11
    compiled = torch.compile(manifold.logmap, fullgraph=True, backend="aot_eager")
    assert (compiled(x, y) - manifold.logmap(x, y)).abs().max() < 1e-11
