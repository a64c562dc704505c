"""What batch normalisation does with the batches it gets: derivatives, bad items, domains, wrong arguments, graphs."""

import copy
import math
import warnings

import pytest
import torch

from tests.layers.test_normalization import F64, layer, points
from torchriemann.layers import GyroBatchNorm
from torchriemann.manifolds import (
    Lorentz,
    Simplex,
    SPDAffineInvariant,
    SPDBuresWasserstein,
    SPDLogCholesky,
    SPDLogEuclidean,
    SPDPowerCholesky,
    SPDPowerEuclidean,
    Sphere,
    Stiefel,
)

AFFINE = SPDAffineInvariant()
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def statistics(norm):
    return {name: getattr(norm, name).clone() for name in STATISTICS}


def close(got, want, bound=1e-10):
    torch.testing.assert_close(got, want, rtol=bound, atol=bound)


# ---- items --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stats_grad", ["last_step", "implicit", "detach"])
@pytest.mark.parametrize(
    ("manifold", "shape", "form"),
    [
        (AFFINE, (3, 3), "gyro"),
        (Lorentz(), (4,), "gyro"),
        (SPDLogCholesky(), (3, 3), "gyro"),
        (Sphere(), (4,), "gyro"),
        (SPDBuresWasserstein(), (3, 3), "tangent"),
        (Stiefel(), (4, 2), "tangent"),
    ],
)
def test_one_point_and_equal_points_become_the_bias(manifold, shape, form, stats_grad):
    norm = layer(manifold, shape, form=form, stats_grad=stats_grad, karcher_steps=None)
    x = points(manifold, *shape, std=0.2)
    for batch in (x.expand(1, *shape), x.expand(4, *shape), x):
        leaf = batch.clone().requires_grad_()
        y = norm(leaf)
        want = norm.point("bias").expand_as(y)
        close(y, want, 1e-6)  # deviations are rounding, over the root of eps = 1e-5
        y.square().sum().backward()
        assert leaf.grad.isfinite().all() and norm.scale.grad.isfinite().all() and norm.bias.grad.isfinite().all()
    assert norm.running_var < 1


@pytest.mark.parametrize("steps", [1, None])
@pytest.mark.parametrize(
    ("manifold", "shape", "form"),
    [(AFFINE, (3, 3), "gyro"), (Lorentz(), (4,), "gyro"), (SPDLogEuclidean(), (3, 3), "gyro")]
    + [(SPDBuresWasserstein(), (3, 3), "tangent")],
)
def test_items_that_are_not_finite_are_left_out(manifold, shape, form, steps):
    """Of one channel: the output of that item alone is NaN, all else is what it is without it."""
    norm = layer(manifold, shape, form=form, num_channels=2, karcher_steps=steps)
    other = copy.deepcopy(norm)
    x = points(manifold, 6, 2, *shape, std=0.1)
    broken = x.clone()
    broken[2, 0].flatten()[1] = math.nan
    broken[4, 0].flatten()[0] = math.inf
    broken.requires_grad_()
    y, without = norm(broken), other(x[[0, 1, 3, 5]])
    lost = y.isnan().flatten(2).all(-1)
    assert lost.sum() == 2 and lost[2, 0] and lost[4, 0] and y.isnan().sum() == y[2, 0].numel() * 2
    close(y[[0, 1, 3, 5]][:, 0], without[:, 0], 1e-9)
    close(norm.running_mean[0], other.running_mean[0], 1e-9)
    close(norm.running_var[0], other.running_var[0], 1e-9)
    y[~lost].square().sum().backward()
    assert broken.grad.isfinite().all() and norm.bias.grad.isfinite().all()


def test_a_batch_without_a_finite_item_changes_no_statistic():
    norm = layer(AFFINE, (3, 3), num_channels=2)
    norm(points(AFFINE, 6, 2, 3, 3, std=0.4))
    before = statistics(norm)
    for lost in (torch.full((3, 2, 3, 3), math.nan, dtype=F64), torch.zeros(0, 2, 3, 3, dtype=F64)):
        assert norm(lost).isnan().all()
        for name, value in before.items():
            assert torch.equal(getattr(norm, name), value), name
    norm(-points(AFFINE, 6, 2, 3, 3, std=0.4))  # finite, but no points: their statistics are NaN
    assert all(torch.equal(getattr(norm, name), before[name]) for name in STATISTICS[:2])


@pytest.mark.parametrize("manifold", [Sphere(), SPDBuresWasserstein()])
def test_beyond_the_injectivity_radius_it_warns_once_and_gives_points(manifold):
    shape = (4,) if manifold.ndim == 1 else (3, 3)
    norm = layer(manifold, shape, scale=1.5, form="tangent")
    x = points(manifold, 9, *shape, std=0.1)
    with pytest.warns(RuntimeWarning, match="GyroBatchNorm: scaled deviations of up to .* beyond the injectivity"):
        y = norm(x)
    manifold.assert_check_point_on_manifold(y.detach())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        norm(x)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize(
    "manifold", [SPDBuresWasserstein(), SPDPowerEuclidean(0.5), SPDPowerCholesky(0.5), Simplex()], ids=lambda m: m.name
)
def test_where_geodesics_end_it_has_derivatives(manifold, dtype):
    shape = (4,) if manifold.ndim == 1 else (3, 3)
    norm = layer(manifold, shape, scale=3.0, form="tangent").to(dtype)
    x = points(manifold, 40, *shape, std=0.1).to(dtype)
    mean = manifold.frechet_mean(x)
    far = ~manifold.exp_is_defined(mean, 10 * manifold.logmap(mean, x))
    assert far.any()  # of what the layer makes so long
    x.requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = norm(x)
    manifold.assert_check_point_on_manifold(y.detach())
    y.square().sum().backward()
    for a in (x, *norm.parameters()):
        assert a.grad.isfinite().all() and a.grad.abs().max() > 0


# ---- domains ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, None])
@pytest.mark.parametrize(
    ("manifold", "shape", "form"),
    [
        (AFFINE, (3, 3), "gyro"),
        (Lorentz(), (4,), "gyro"),
        (SPDLogCholesky(), (3, 3), "gyro"),
        (AFFINE, (3, 3), "tangent"),
    ],
)
def test_a_domain_has_its_own_statistics(manifold, shape, form, steps):
    """A tensor of domains does what a call for each does; a domain that is absent keeps its statistics."""
    options = {"num_domains": 4, "num_channels": 2, "form": form, "karcher_steps": steps, "momentum": None}
    mixed = layer(manifold, shape, **options)
    single = copy.deepcopy(mixed)
    for seed in range(2):
        x = points(manifold, 4, 3, 2, *shape, std=0.3, seed=seed)
        domain = torch.tensor([[0, 2, 0], [2, 2, 0], [3, 0, 2], [2, 0, 0]] if seed else [[0, 0, 2]] * 4)
        y = mixed(x, domain)
        for d in domain.unique().tolist():
            close(y[domain == d], single(x[domain == d], d))
    assert mixed.num_batches_tracked.tolist() == [2, 0, 2, 1]
    for name in STATISTICS:
        close(getattr(mixed, name), getattr(single, name))
    assert torch.equal(mixed.running_mean[1], manifold.origin(2, *shape, dtype=F64))
    y = mixed.eval()(x, domain)
    for d in domain.unique().tolist():
        close(y[domain == d], single.eval()(x[domain == d], d))
    rows = mixed(x, torch.tensor([0, 1, 2, 3]))  # of the first dimension
    close(rows[1], mixed(x[1], 1))


def test_refit_takes_the_statistics_of_a_new_domain():
    norm = layer(AFFINE, (3, 3), num_domains=2)
    x = points(AFFINE, 9, 3, 3, std=0.4)
    norm(x[:4], 0)
    before = statistics(norm)
    norm.refit(x, 1)
    close(norm.running_mean[1], AFFINE.frechet_mean(x))
    close(norm.running_var[1], AFFINE.frechet_variance(x))
    assert all(torch.equal(getattr(norm, name)[0], before[name][0]) for name in STATISTICS)
    y = norm.eval()(x, 1).detach()
    assert AFFINE.dist(AFFINE.frechet_mean(y), norm.point("bias")) < 1e-10
    plain = layer(AFFINE, (3, 3))
    plain.refit(x)
    close(plain.running_var, AFFINE.frechet_variance(x))


def test_momentum_none_averages_all_batches():
    norm = GyroBatchNorm(SPDLogEuclidean(), (3, 3), momentum=None, dtype=F64)
    batches = [points(SPDLogEuclidean(), 5, 3, 3, std=0.4, seed=seed) for seed in range(3)]
    for x in batches:
        norm(x)
    means = torch.stack([SPDLogEuclidean().frechet_mean(x) for x in batches])
    close(norm.running_mean, SPDLogEuclidean().frechet_mean(means))
    close(norm.running_var, torch.stack([SPDLogEuclidean().frechet_variance(x) for x in batches]).mean())


def test_without_running_statistics_evaluation_uses_the_batch():
    norm = layer(AFFINE, (3, 3), track_running_stats=False)
    x = points(AFFINE, 9, 3, 3, std=0.4)
    assert norm.running_mean is None and not list(norm.buffers())
    assert torch.equal(norm(x), norm.eval()(x))
    norm.reset_running_stats()
    with pytest.raises(ValueError, match="track_running_stats"):
        norm.refit(x)


# ---- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"manifold": "sphere"}, "manifold must be"),
        ({"point_shape": (3, 4)}, "point_shape"),
        ({"point_shape": (2, 3, 3)}, "point_shape"),
        ({"num_channels": 0}, "num_channels"),
        ({"num_domains": 0}, "num_domains"),
        ({"eps": -1.0}, "eps"),
        ({"momentum": 1.5}, "momentum"),
        ({"karcher_steps": 0}, "karcher_steps"),
        ({"stats_grad": "none"}, "stats_grad"),
        ({"stats_grad": "implicit"}, "karcher_steps=None"),
        ({"form": "lie"}, "form"),
        ({"manifold": Sphere(), "point_shape": 4}, r"point_shape must be the shape of one point, as \(4,\)"),
        ({"manifold": SPDBuresWasserstein()}, 'form="tangent"'),
        ({"manifold": Lorentz(torch.tensor(-1.0, requires_grad=True)), "point_shape": (3,)}, "requires a gradient"),
    ],
)
def test_wrong_options_are_refused(options, match):
    with pytest.raises(ValueError, match=f"GyroBatchNorm.*{match}"):
        GyroBatchNorm(**{"manifold": AFFINE, "point_shape": (3, 3), **options})


@pytest.mark.parametrize(
    "domain", [None, -1, 2, True, 0.0, torch.tensor([0.0]), torch.tensor([2]), torch.tensor([0, 1])]
)
def test_wrong_domains_are_refused(domain):
    norm = GyroBatchNorm(AFFINE, (3, 3), num_domains=2)
    with pytest.raises(ValueError, match="GyroBatchNorm: domain must"):
        norm(torch.eye(3).expand(1, 3, 3), domain)
    with pytest.raises(ValueError, match="GyroBatchNorm: domain must be None without num_domains"):
        GyroBatchNorm(AFFINE, (3, 3))(torch.eye(3), 0)
    with pytest.raises(ValueError, match="refit takes the index of one domain"):
        norm.refit(torch.eye(3).expand(2, 3, 3), torch.tensor([0, 1]))


# ---- precision and graphs -------------------------------------------------------------------------------------------


def test_float32_and_autocast_follow_float64():
    x = points(AFFINE, 16, 4, 4, std=0.5)
    want = layer(AFFINE, (4, 4))(x)
    norm = layer(AFFINE, (4, 4)).float()
    got = norm(x.float())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5)
    again = layer(AFFINE, (4, 4)).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(again(x.float()), got)
    y = norm(x.bfloat16())
    assert y.dtype == torch.bfloat16 and y.isfinite().all()


@pytest.mark.parametrize(
    ("options", "domain"),
    [
        pytest.param({}, None, marks=pytest.mark.slow),
        ({"num_domains": 2}, torch.tensor([0, 1, 1, 0])),
    ],
)
def test_training_on_a_curved_space_is_one_graph(options, domain):
    norm = layer(AFFINE, (2, 2), **options)
    other = copy.deepcopy(norm)
    x = points(AFFINE, 4, 2, 2, std=0.4).requires_grad_()
    torch._dynamo.reset()
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    got, want = compiled(x, domain), norm(x, domain)
    close(got, want)
    close(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (got, want)))
    for name in STATISTICS:
        close(getattr(other, name), getattr(norm, name))
