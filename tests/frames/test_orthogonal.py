"""O(n) and SO(n) against independent truth: scipy, geomstats, the Stiefel manifold, finite differences."""

import math
import warnings

import geoopt
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch
from scipy.spatial.transform import Rotation
from torch.autograd import gradcheck, gradgradcheck

from tests.frames.test_rotation_log import F64, both, exact_pair, generator, largest, point, tangent
from torchriemann.manifolds import Grassmann, ManifoldParameter, Orthogonal, SpecialOrthogonal, Stiefel
from torchriemann.manifolds.frames.orthogonal import RETRACTIONS
from torchriemann.optim import RiemannianAdam

# ---- peers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 5])
def test_equals_the_canonical_stiefel_manifold_of_square_frames(n):
    m, peer, x = SpecialOrthogonal(), Stiefel(0.5), point(10, n, n)
    u, v, w = (tangent(x, 2.0, seed) for seed in (1, 2, 3))
    y = m.expmap(x, u)
    assert largest(y - peer.expmap(x, u)) < 1e-14
    assert largest(m.logmap(x, y) - peer.logmap(x, y)) < 1e-13
    assert largest(m.dist(x, y) - peer.dist(x, y)) < 1e-13
    assert largest(m.inner(x, v, w) - peer.inner(x, v, w)) < 1e-13
    assert largest(m.egrad2rgrad(x, x @ w + u) - peer.egrad2rgrad(x, x @ w + u)) < 1e-13
    assert largest(m.ehess2rhess(x, x @ w, w, u) - peer.ehess2rhess(x, x @ w, w, u)) < 1e-13
    for mine, other in zip(m.expmap_transp(x, u, v), peer.expmap_transp(x, u, v), strict=True):
        assert largest(mine - other) < 1e-13
    if n > 2:
        assert largest(m.sectional_curvature(x, u, v) - peer.sectional_curvature(x, u, v)) < 1e-13


@pytest.mark.parametrize("n", [3, 5])
def test_exp_and_log_agree_with_geomstats(n):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from geomstats.geometry.special_orthogonal import SpecialOrthogonal as Peer

        peer = Peer(n, point_type="matrix")
    m, x = SpecialOrthogonal(), point(20, n, n)
    u = tangent(x, 2.0)
    y = m.expmap(x, u)
    assert largest(y - torch.from_numpy(peer.exp(u.numpy(), x.numpy()))) < 1e-13
    assert largest(m.logmap(x, y) - torch.from_numpy(np.real(peer.log(y.numpy(), x.numpy())))) < 1e-11


def test_exp_and_transport_are_products_of_exponentials():
    m, x = SpecialOrthogonal(), point(6, 6)
    u, v = tangent(x, 2.0), tangent(x, 1.0, seed=2)
    a = (x.mT @ u).numpy()
    half = torch.from_numpy(scipy.linalg.expm(a / 2))
    y, w = m.expmap_transp(x, u, v)
    assert largest(m.expmap(x, u) - x @ torch.from_numpy(scipy.linalg.expm(a))) < 1e-14
    assert largest(y - x @ half @ half) < 1e-14
    assert largest(w - x @ half @ x.mT @ v @ half) < 1e-14


def test_metric_of_plane_rotations():
    """A rotation by theta in one plane is theta long; rotations of space have the curvature 1/4."""
    m, x = SpecialOrthogonal(), torch.eye(3, dtype=F64)
    y = torch.from_numpy(Rotation.from_rotvec([0.3, -1.0, 0.4]).as_matrix())
    assert m.dist(x, y).item() == pytest.approx(np.linalg.norm([0.3, -1.0, 0.4]), rel=1e-14)
    x = point(10, 3, 3)
    curvature = m.sectional_curvature(x, tangent(x, 1.0), tangent(x, 2.0, seed=2))
    assert largest(curvature - 0.25) < 1e-14
    assert largest(m.basis(x).square().sum((-2, -1)) - 2) < 1e-14


# ---- retractions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retraction", RETRACTIONS)
def test_retractions_are_their_matrix_formulas(retraction):
    x = point(4, 5, 5)
    u = tangent(x, 1.5)
    got = SpecialOrthogonal(retraction).retr(x, u).numpy()
    for y, base, a in zip(got, x.numpy(), (x.mT @ u).numpy(), strict=True):
        q, r = np.linalg.qr(np.eye(5) + a)
        expected = {
            "polar": lambda a=a: scipy.linalg.polar(np.eye(5) + a)[0],
            "qr": lambda q=q, r=r: q * np.sign(np.diag(r)),
            "cayley": lambda a=a: np.linalg.solve(np.eye(5) - a / 2, np.eye(5) + a / 2),
            "exp": lambda a=a: scipy.linalg.expm(a),
        }[retraction]()
        assert np.abs(y - base @ expected).max() < 1e-14


@pytest.mark.parametrize("retraction", RETRACTIONS)
def test_retractions_stay_in_the_component(retraction):
    m = Orthogonal(retraction)
    x = m.random_uniform(50, 4, 4, generator=generator(), dtype=F64)
    for length in (0.1, 3.0, 100.0):
        y = m.retr(x, tangent(x, length))
        assert largest(torch.linalg.det(y) - torch.linalg.det(x)) < 1e-12


def test_retraction_orders_are_stated():
    assert {r: SpecialOrthogonal(r).retraction_order for r in RETRACTIONS} == {
        "qr": 1,
        "polar": 2,
        "cayley": 2,
        "exp": 3,
    }


# ---- projections -------------------------------------------------------------------------------------------------


def mixed_matrices(n, count=40):
    return torch.randn(count, n, n, generator=generator(n), dtype=F64)


def test_nearest_rotation_of_space_is_that_of_scipy():
    matrices = mixed_matrices(3)
    assert (torch.linalg.det(matrices) < 0).sum() > 10
    got = SpecialOrthogonal().projx(matrices)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = [Rotation.align_vectors(a.mT.numpy(), np.eye(3))[0].as_matrix() for a in matrices]
    assert largest(got - torch.from_numpy(np.stack(want))) < 1e-12


@pytest.mark.parametrize("n", [2, 4])
def test_nearest_rotation_against_search(n):
    """No start of an optimizer over the group finds a nearer one."""
    rows, columns = np.triu_indices(n, 1)

    def turned(base, z):
        a = np.zeros((n, n))
        a[rows, columns] = z
        return base @ scipy.linalg.expm(a - a.T)

    starts = point(6, n, n, seed=3).numpy()
    matrices = mixed_matrices(n, 6)
    assert (torch.linalg.det(matrices) < 0).any()
    for matrix, got in zip(matrices.numpy(), SpecialOrthogonal().projx(matrices).numpy(), strict=True):
        found = min(
            scipy.optimize.minimize(lambda z, s=s, m=matrix: np.sum((turned(s, z) - m) ** 2), np.zeros(len(rows))).fun
            for s in starts
        )
        assert np.sum((got - matrix) ** 2) == pytest.approx(found, abs=1e-8)


def test_nearest_orthogonal_matrix_is_the_polar_factor_of_scipy():
    matrices = mixed_matrices(5)
    want = np.stack([scipy.linalg.polar(a)[0] for a in matrices.numpy()])
    assert largest(Orthogonal().projx(matrices) - torch.from_numpy(want)) < 1e-12


@both
@pytest.mark.parametrize("n", [2, 3, 5])
def test_derivatives_of_the_projections(m, n):
    matrices = mixed_matrices(n, 6).requires_grad_()
    assert gradcheck(m.projx, matrices, fast_mode=True, check_forward_ad=True)
    assert gradgradcheck(m.projx, matrices, fast_mode=True, atol=1e-4, rtol=1e-3)


def test_projection_of_singular_and_of_mirrored_matrices_is_a_rotation():
    m = SpecialOrthogonal()
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=F64))
    for a in (
        torch.zeros(3, 3, dtype=F64),
        torch.ones(3, 3, dtype=F64),
        mirror,
        -torch.eye(3, dtype=F64),
        1e300 * mirror,
    ):
        a = a.clone().requires_grad_()
        x = m.projx(a)
        assert m.check_point_on_manifold(x.detach())
        assert torch.autograd.grad(x.sum(), a)[0].isfinite().all()


# ---- two components ----------------------------------------------------------------------------------------------


def test_between_the_components():
    m = Orthogonal()
    x = point(2, 4, 4)
    y = m.expmap(x, tangent(x, 1.0))
    y[1, :, 0] *= -1
    y.requires_grad_()
    assert m.check_point_on_manifold(y.detach())
    assert m.dist(x, y).isinf().tolist() == [False, True] and m.dist2(x, y).isinf().tolist() == [False, True]
    assert m.logmap(x, y).isnan().all(-1).all(-1).tolist() == [False, True]
    assert m.log_is_unique(x, y).tolist() == [True, False]
    (g,) = torch.autograd.grad(m.dist(x, y)[0], y)
    assert g.isfinite().all()
    assert m.cdist(x, y.detach()).isinf().tolist() == [[False, True], [False, True]]


def test_mean_across_the_components_is_refused():
    m, x = Orthogonal(), point(4, 3, 3)
    x = m.expmap(x[:1].expand(4, 3, 3), 0.3 * tangent(x[:1].expand(4, 3, 3), 1.0))
    mirrored = x * torch.tensor([1.0, 1.0, -1.0], dtype=F64)
    torch.testing.assert_close(m.frechet_mean(x), SpecialOrthogonal().frechet_mean(x))
    assert largest(m.karcher_residual(mirrored, m.frechet_mean(mirrored))) < 1e-12
    with pytest.raises(ValueError, match="Orthogonal.frechet_mean: x has points with det = 1 and with det = -1"):
        m.frechet_mean(torch.cat([x, mirrored]))
    both = torch.stack([x, mirrored], 1)  # two means, each in its own component
    assert m.frechet_mean(both).shape == (2, 3, 3)


def test_log_is_unique_up_to_the_cut_locus_of_every_plane():
    m, x = SpecialOrthogonal(), torch.eye(4, dtype=F64)
    far = exact_pair(4, (2.9, 2.9))[0]
    assert m.dist(x, far) > m.injectivity_radius(x)
    assert m.log_is_unique(x, far) and m.log_is_unique(x, far, margin=0.2)
    assert not m.log_is_unique(x, far, margin=0.3)
    assert not m.log_is_unique(x, exact_pair(4, (math.pi, 0.0))[0])
    assert not m.log_is_unique(x, -x)


@both
def test_one_dimension(m):
    x = torch.ones(3, 1, 1, dtype=F64)
    zero = torch.zeros_like(x)
    assert m.dimension((1, 1)) == 0 and m.injectivity_radius(x) == math.inf
    for out in (m.expmap(x, zero), m.retr(x, zero), m.projx(2 * x), m.expmap_transp(x, zero, zero)[0], m.restore(x)):
        assert torch.equal(out, x)
    assert (m.logmap(x, x) == 0).all() and (m.dist(x, x) == 0).all() and m.log_is_unique(x, x).all()
    assert m.basis(x).shape == (3, 0, 1, 1)
    assert (SpecialOrthogonal().projx(-x) == 1).all() and (Orthogonal().projx(-3 * x) == -1).all()
    assert Orthogonal().dist(x, -x).isinf().all()
    draws = m.random_uniform(200, 1, 1, generator=generator())
    assert set(draws.flatten().tolist()) == ({1.0, -1.0} if m.name == "Orthogonal" else {1.0})


def test_extreme_numbers_in_one_component_of_the_whole_group():
    """The law draws independent points, which here lie in two components."""
    m = Orthogonal()
    x, y = point(5, 4, 4), point(5, 4, 4, seed=1)
    mirror = torch.diag(torch.tensor([-1.0, 1, 1, 1], dtype=F64))
    for power in (-30, -8, 0, 8, 30):
        assert m.check_point_on_manifold(m.projx(10.0**power * mixed_matrices(4)))
    for a, b in ((x, y), (x @ mirror, y @ mirror), (mirror @ x, mirror @ x)):
        assert m.logmap(a, b).isfinite().all() and m.dist(a, b).isfinite().all()
        assert m.parallel_transport(a, b, tangent(a, 1.0)).isfinite().all()
    for power in (-30, -8, 0, 3):
        u = tangent(x, 10.0**power)
        assert m.expmap(x, u).isfinite().all() and m.retr(x, u).isfinite().all()


# ---- sampling ----------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("n", [2, 3, 5])
def test_haar_moments(m, n):
    """E R = 0, E R_ij^2 = 1/n, E (tr R)^2 = 1 (2 for SO(2)), components of equal weight."""
    count = 20_000
    x = m.random_uniform(count, n, n, generator=generator(n), dtype=F64)
    assert m.check_point_on_manifold(x)
    assert largest(x.mean(0)) < 5 / math.sqrt(n * count)
    assert largest(x.square().mean(0) - 1 / n) < 5 / math.sqrt(count)
    trace = x.diagonal(dim1=-2, dim2=-1).sum(-1)
    expected = 2 if (m.name, n) == ("SpecialOrthogonal", 2) else 1
    assert abs(trace.square().mean().item() - expected) < 5 * trace.square().std().item() / math.sqrt(count)
    proper = (torch.linalg.det(x) > 0).to(F64).mean().item()
    assert proper == 1 if m.name == "SpecialOrthogonal" else abs(proper - 0.5) < 5 * 0.5 / math.sqrt(count)


def test_rotation_angles_of_space_have_their_density():
    """(1 - cos t)/pi on [0, pi]: Haar measure of SO(3)."""
    x = point(20_000, 3, 3)
    angle = SpecialOrthogonal().dist(torch.eye(3, dtype=F64), x).sort().values
    share = (angle - angle.sin()) / math.pi
    empirical = torch.linspace(0, 1, len(angle), dtype=F64)
    assert largest(share - empirical) < 2.7 / math.sqrt(len(angle))  # the 1e-6 quantile of Kolmogorov's law


# ---- training ----------------------------------------------------------------------------------------------------


def train(parameter, optimizer, target, steps):
    loss = torch.tensor(math.inf)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (parameter - target).square().sum()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("retraction", RETRACTIONS)
def test_training_stays_on_the_group(retraction):
    m = SpecialOrthogonal(retraction)
    x, target = point(4, 8, 8, dtype=torch.float32), point(4, 8, 8, seed=1, dtype=torch.float32)
    parameter = ManifoldParameter(x, manifold=m)
    loss = train(parameter, RiemannianAdam([parameter], lr=0.05), target, 300)
    assert loss < 1e-3
    end = parameter.detach()
    assert largest(end.mT @ end - torch.eye(8)) < 1e-6
    assert largest(torch.linalg.det(end) - 1) < 1e-5


def test_inside_geoopt():
    m = SpecialOrthogonal()
    parameter = geoopt.ManifoldParameter(point(4, 4, dtype=torch.float32), manifold=m)
    optimizer = geoopt.optim.RiemannianAdam([parameter], lr=0.05)
    assert train(parameter, optimizer, point(4, 4, seed=1, dtype=torch.float32), 200) < 1e-2
    assert m.check_point_on_manifold(parameter.detach())


# ---- errors ------------------------------------------------------------------------------------------------------


def test_errors_say_what_to_mend():
    with pytest.raises(ValueError, match=r"SpecialOrthogonal: retraction must be one of \(.*\), got 'euler'"):
        SpecialOrthogonal("euler")
    with pytest.raises(ValueError, match=r"Orthogonal.expmap: needs square matrices with n >= 1, got 3 x 2"):
        Orthogonal().expmap(torch.zeros(3, 2), torch.zeros(3, 2))
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
    message = r"SpecialOrthogonal: x has det = -1: a reflection; \|det - 1\| = 2 > 9.7e-06 \(float32\); call projx\(x\)"
    with pytest.raises(ValueError, match=message):
        SpecialOrthogonal().assert_check_point_on_manifold(torch.stack([torch.eye(3), mirror]))
    Orthogonal().assert_check_point_on_manifold(mirror)
    with pytest.raises(ValueError, match=r"SpecialOrthogonal: x has max\|x\^T x - I\| = 3"):
        SpecialOrthogonal().assert_check_point_on_manifold(2 * torch.eye(3))
    with pytest.raises(ValueError, match="NaN"):
        SpecialOrthogonal().assert_check_point_on_manifold(math.nan * torch.eye(3))
    with pytest.raises(ValueError, match=r"Orthogonal: u has max\|sym\(x\^T u\)\| = 1 .*call proju"):
        Orthogonal().assert_check_vector_on_tangent(torch.eye(3), torch.eye(3))


def test_curvature_reaches_a_half_from_four_dimensions_on():
    """The left multiplications with the quaternions i and j commute least; random planes stay below."""
    i = torch.tensor([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]], dtype=torch.float64)
    j = torch.tensor([[0.0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]], dtype=torch.float64)
    m, eye = SpecialOrthogonal(), torch.eye(4, dtype=torch.float64)
    assert float(m.sectional_curvature(eye, i, j)) == pytest.approx(0.5, abs=1e-15)
    x = m.random(2000, 4, 4, dtype=torch.float64)
    assert 0.25 < m.sectional_curvature(x, m.random_tangent(x), m.random_tangent(x)).max() <= 0.5


def test_a_mean_of_nan_is_not_a_question_of_components():
    x = Orthogonal().random(3, 3, dtype=torch.float64).expand(4, 3, 3).clone()
    x[1] = torch.nan
    with pytest.warns(RuntimeWarning, match="mean of the logarithms is NaN: an item of x is not finite"):
        assert Orthogonal().frechet_mean(x).isnan().any()


@pytest.mark.parametrize("m", [Orthogonal(), SpecialOrthogonal()], ids=repr)
def test_shapes_of_random_tangents_are_checked(m):
    with pytest.raises(ValueError, match="random_tangent: needs square matrices"):
        m.random_tangent(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="expected a floating-point tensor"):
        m.random_tangent(torch.zeros(3, 3, dtype=torch.long))


@pytest.mark.parametrize("retraction", ["polar", "qr", "cayley"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_long_steps_stay_in_their_component(retraction, dtype):
    """A Gram matrix forgets directions, of which one may come back turned round."""
    m = SpecialOrthogonal(retraction)
    x = m.random(2000, 3, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)
    u = m.random_tangent(x, generator=torch.Generator().manual_seed(1))
    for length in (1e2, 1e3, 1e4):
        y = m.retr(x, length * u)
        assert m.check_point_on_manifold(y) and (torch.linalg.det(y) > 0).all()


@pytest.mark.parametrize("cosine", [1e-2, 5e-4, 1e-4])
def test_inverse_of_polar_next_to_the_end_of_its_domain(cosine):
    theta, eye = math.acos(cosine), torch.eye(2, dtype=torch.float64)
    y = SpecialOrthogonal().expmap(eye, torch.tensor([[0, -theta], [theta, 0]], dtype=torch.float64))
    v = SpecialOrthogonal().inverse_retr(eye, y)
    assert v[1, 0].item() == pytest.approx(math.tan(theta), rel=1e-9)
    assert SpecialOrthogonal().check_vector_on_tangent(eye, v)


@pytest.mark.parametrize(
    "m, size", [(SpecialOrthogonal(), (4, 4)), (Stiefel(0.5), (5, 2)), (Grassmann(), (5, 2))], ids=repr
)
def test_curvature_of_nearly_parallel_vectors(m, size):
    x = m.random(6, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, v = m.random_tangent(x), m.random_tangent(x)
    want = m.sectional_curvature(x, u, v)
    torch.testing.assert_close(m.sectional_curvature(x, u, u + 1e-7 * v), want, rtol=1e-6, atol=1e-6)
    assert m.sectional_curvature(x, u, 2.7 * u).isnan().all()


def test_integers_are_no_points():
    with pytest.raises(ValueError, match="dtype must be a floating-point type"):
        SpecialOrthogonal().random(3, 3, dtype=torch.int32)


def test_spreads_and_means_of_samples_fit_the_size():
    m = SpecialOrthogonal()
    for options in ({"std": torch.ones(5)}, {"mean": torch.eye(3).expand(5, 3, 3)}, {"mean": torch.eye(2)}):
        with pytest.raises(ValueError, match="random_normal: "):
            m.random_normal(3, 3, **options)
    assert m.logdet_dexp(m.random(5, 3, 3), torch.zeros(3, 3)).shape == (5,)
    assert m.expmap(torch.empty(2, 3, 3, device="meta"), torch.empty(2, 3, 3, device="meta")).is_meta
