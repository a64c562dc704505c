"""Kernel metrics: the metrics that have a class of their own are members; the ends of the space; bad input."""

import pytest
import torch

from torchriemann.manifolds import (
    ArithmeticMean,
    BogoliubovKuboMori,
    GeometricMean,
    HarmonicMean,
    LogarithmicMean,
    MixedPowerAffine,
    MixedPowerEuclidean,
    SPDAffineInvariant,
    SPDBuresWasserstein,
    SPDKernel,
    SPDLogEuclidean,
    SPDPowerEuclidean,
)
from torchriemann.manifolds.functional.matrices import sym

F64, F32 = torch.float64, torch.float32
MEMBERS = [
    (SPDAffineInvariant(), GeometricMean(power=2.0)),
    (SPDAffineInvariant(0.5), MixedPowerAffine(0.5, 0.5)),
    (SPDAffineInvariant(-1.5, 2.0, 0.3), MixedPowerAffine(-1.5, -1.5, scale=0.5, beta=0.15)),
    (SPDLogEuclidean(), LogarithmicMean(power=2.0)),
    (SPDLogEuclidean(2.0, -0.4), MixedPowerEuclidean(0.0, 0.0, scale=0.5, beta=-0.2)),
    (SPDPowerEuclidean(1.0), MixedPowerEuclidean(1.0, 1.0)),
    (SPDPowerEuclidean(-0.5), MixedPowerEuclidean(-0.5, -0.5)),
    (SPDBuresWasserstein(), ArithmeticMean(scale=4.0)),
]
every_member = pytest.mark.parametrize(("m", "phi"), MEMBERS, ids=[repr(m) for m, _ in MEMBERS])
# Without a closed member, of degree 2, 1 and 3/2 with a trace.
OTHERS = [HarmonicMean(power=2.0), BogoliubovKuboMori(), LogarithmicMean(power=1.5, scale=2.0, beta=-0.2)]
every_other = pytest.mark.parametrize("phi", OTHERS, ids=repr)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def points(*size, condition=30.0, seed=0, dtype=F64):
    """Random ones, the first of which is the identity."""
    x = SPDLogEuclidean().random_spectrum(*size, condition=condition, generator=generator(seed), dtype=dtype)
    x[0] = torch.eye(size[-1])
    return x


def symmetric(*size, seed=1, dtype=F64):
    return sym(torch.randn(size, generator=generator(seed), dtype=dtype))


def inside(m, x, length=0.5, seed=2):
    """A vector of that length in units of the injectivity radius, at most that long."""
    u = symmetric(*x.shape, seed=seed, dtype=x.dtype)
    radius = torch.as_tensor(m.injectivity_radius(x), dtype=x.dtype).clamp_max(1.0)
    return u * (length * radius / m.norm(x, u)).reshape(*x.shape[:-2], 1, 1)


def relative(found, wanted):
    return float(((found - wanted).abs().max() / wanted.abs().max()).detach())


@every_member
@pytest.mark.parametrize("n", [1, 2, 4])
def test_members_have_the_same_metric(m, phi, n):
    k, x = SPDKernel(phi), points(5, n, n)
    u, v, g, h = (symmetric(5, n, n, seed=seed) for seed in range(4))
    y = points(5, n, n, seed=5)
    for name, args in (("inner", (x, u, v)), ("norm", (x, u)), ("egrad2rgrad", (x, g)), ("ehess2rhess", (x, g, h, u))):
        wanted = getattr(m, name)(*args)
        assert relative(getattr(k, name)(*args), wanted) < 1e-12, name
        # The same with derivatives, which take another way.
        leaves = [a.clone().requires_grad_() for a in args]
        found = getattr(k, name)(*leaves)
        assert relative(found, wanted) < 1e-12, name
        if name in ("inner", "norm"):
            others = [a.clone().requires_grad_() for a in args]
            for ours, theirs in zip(
                torch.autograd.grad(found.sum(), leaves),
                torch.autograd.grad(getattr(m, name)(*others).sum(), others, materialize_grads=True),
                strict=True,
            ):
                assert (ours - theirs).abs().max() < 1e-11 * theirs.abs().max().clamp_min(1.0), name
    if n > 1:
        assert (k.sectional_curvature(x, u, v) - m.sectional_curvature(x, u, v)).abs().max() < 1e-9
    assert relative(k.norm(y, k.transp(x, y, u)), k.norm(x, u)) < 1e-12


@every_member
@pytest.mark.parametrize("n", [1, 2, 4])
def test_members_have_the_same_geodesics(m, phi, n):
    k, x = SPDKernel(phi), points(32, n, n)
    u, v = inside(m, x), symmetric(32, n, n)
    y = m.expmap(x, u)
    assert relative(k.expmap(x, u), y) < 2e-13
    assert relative(k.logmap(x, y), u) < 5e-12
    assert relative(k.dist(x, y), m.dist(x, y)) < 5e-13
    end, moved = k.expmap_transp(x, u, v)
    assert relative(end, y) < 2e-13
    assert relative(moved, m.expmap_transp(x, u, v)[1]) < 2e-12
    assert relative(k.parallel_transport(x, y, v), m.parallel_transport(x, y, v)) < 2e-12


@every_member
def test_geodesics_of_members_end_where_theirs_do(m, phi):
    k, x = SPDKernel(phi), points(4, 2, 2, condition=4.0)
    u = torch.tensor([-4.0, -0.5, 0.5, 4.0], dtype=F64)[:, None, None] * x + 0.1 * symmetric(4, 2, 2)
    defined = m.exp_is_defined(x, u)
    assert k.is_complete == bool(defined.all())
    assert (k.exp_is_defined(x, u) == defined).all()
    assert (k.expmap(x, u).isfinite().all(-1).all(-1) == defined).all()


@every_other
def test_frames_are_orthonormal_and_retractions_go_back(phi):
    k, x = SPDKernel(phi), points(4, 3, 3)
    basis = k.basis(x)
    gram = k.inner(x[:, None, None], basis[:, :, None], basis[:, None])
    assert (gram - torch.eye(6)).abs().max() < 1e-12
    u = inside(SPDAffineInvariant(), x)
    z = k.to_coordinates(x, u)
    assert relative(z.square().sum(-1), k.inner(x, u)) < 1e-12
    assert relative(k.from_coordinates(x, z), u) < 1e-12
    assert relative(k.inverse_retr(x, k.retr(x, u)), u) < 1e-11
    far = torch.stack([100 * u, -100 * u, 1e4 * u])
    assert k.check_point_on_manifold(k.retr(x, far)[:2])


@every_other
def test_kernels_of_one_degree_agree_on_diagonal_matrices(phi):
    """There the metric is a constant times that of the powers ``l^(1 - theta/2)``, or of the logarithms; with a trace
    it has all permutations, and no others."""
    k, r = SPDKernel(phi), 1 - phi.degree / 2
    x = torch.diag_embed(torch.tensor([0.5, 1.0, 3.0], dtype=F64))
    u = torch.diag_embed(torch.tensor([0.1, -0.2, 0.4], dtype=F64))
    a, v = x.diagonal(dim1=-2, dim2=-1), u.diagonal(dim1=-2, dim2=-1)
    end = a * (v / a).exp() if r == 0 else (a**r * (1 + r * v / a)) ** (1 / r)
    assert relative(k.expmap(x, u), torch.diag_embed(end)) < 1e-13


@every_other
def test_kernel_metrics_go_with_multiples(phi):
    k, x = SPDKernel(phi), points(3, 3, 3)
    y, factor = points(3, 3, 3, seed=4, condition=3.0), 1e3
    assert relative(k.dist(factor * x, factor * y), factor ** (1 - phi.degree / 2) * k.dist(x, y)) < 1e-10


@every_other
def test_one_by_one_matrices(phi):
    """The positive numbers: ``x^r/r``, or log x, straightened."""
    k, r, a = SPDKernel(phi), 1 - phi.degree / 2, phi.scale / (1 + phi.beta)
    x, y = (torch.tensor(v, dtype=F64).reshape(2, 1, 1) for v in ([0.5, 2.0], [1.0, 1.7]))
    length = (y / x).log() if r == 0 else (y**r - x**r) / r
    assert relative(k.dist(x, y), length.abs().flatten() / a**0.5) < 1e-12
    assert relative(k.expmap(x, k.logmap(x, y)), y) < 1e-12
    assert k.frechet_mean(torch.stack([x, y])).shape == (2, 1, 1)


@every_other
def test_one_bad_item_spoils_itself_alone(phi):
    k, x = SPDKernel(phi), points(3, 2, 2)
    u = inside(SPDAffineInvariant(), x, 0.2)
    bad = x.clone()
    bad[1] = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    bad.requires_grad_()
    y = k.expmap(x, u).detach()
    for name, other in (("inner", u), ("expmap", u), ("retr", u), ("logmap", y), ("egrad2rgrad", u), ("dist", y)):
        found, right = getattr(k, name)(bad, other), getattr(k, name)(x, other)
        assert found[1].isnan().all() and torch.allclose(found[[0, 2]], right[[0, 2]], rtol=1e-10), name
        (gradient,) = torch.autograd.grad(found[0].sum() + found[2].sum(), bad)
        assert gradient[[0, 2]].isfinite().all(), name


@every_other
def test_float32_and_empty_batches(phi):
    k, x, y = SPDKernel(phi), points(3, 3, 3), points(3, 3, 3, seed=4, condition=3.0)
    found = k.logmap(x.float(), y.float())
    assert found.dtype == F32 and relative(found.double(), k.logmap(x, y)) < 1e-4
    assert relative(k.expmap(x.float(), found).double(), y) < 1e-4
    none = torch.empty(0, 3, 3, dtype=F64)
    for name in ("inner", "norm", "egrad2rgrad", "expmap", "logmap", "retr", "inverse_retr", "dist", "basis"):
        arguments = (none,) if name == "basis" else (none, none)
        assert getattr(k, name)(*arguments).shape[0] == 0, name


def test_means_of_kernel_metrics():
    """Karcher's equation, and the mean of a member."""
    x = points(5, 3, 3)
    k = SPDKernel(LogarithmicMean(power=1.5))
    mean = k.frechet_mean(x)
    assert k.karcher_residual(x, mean) < 1e-9
    flat = SPDKernel(LogarithmicMean(power=2.0)).frechet_mean(x)
    assert relative(flat, SPDLogEuclidean().frechet_mean(x)) < 1e-10


def test_what_is_unknown_or_wrong_is_said():
    k = SPDKernel(phi=LogarithmicMean())
    for name, arguments in (("injectivity_radius", ()), ("log_is_unique", (torch.eye(2), torch.eye(2)))):
        with pytest.raises(NotImplementedError, match=rf"SPDKernel\(phi=LogarithmicMean.* has no {name}: .*not known"):
            getattr(k, name)(*arguments)
    assert not k.has_gyro_structure
    with pytest.raises(NotImplementedError, match="whether shortest geodesics are unique is not known"):
        k.gyroadd(torch.eye(2), torch.eye(2))
    with pytest.raises(ValueError, match=r"^SPDKernel: phi must be a kernel such as LogarithmicMean\(\), got 2.0"):
        SPDKernel(2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"beta of phi must be above -1/n = -0.5 for 2 x 2 matrices, got -0.6"):
        SPDKernel(LogarithmicMean(beta=-0.6)).norm(torch.eye(2), torch.eye(2))
    assert SPDKernel(LogarithmicMean()) == SPDKernel(LogarithmicMean()) != SPDKernel(BogoliubovKuboMori())
