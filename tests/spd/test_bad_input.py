"""What is no point, next to points; matrices of one row, empty batches, extreme scales and conditions."""

import math
import re
import warnings

import pytest
import torch

from tests.support.spd import METRICS, OPERATIONS, arguments, call, generator
from torchriemann import ManifoldParameter
from torchriemann.manifolds import SPDAffineInvariant, SPDLogEuclidean, SPDPowerEuclidean
from torchriemann.manifolds.functional.definite import positive_definite

F64, F32 = torch.float64, torch.float32
every_metric = pytest.mark.parametrize("metric", METRICS, ids=repr)

# Matrices of three rows that are no points. The singular ones have eigenvalues that rounding makes positive.
SINGULAR = torch.ones(3, 3, dtype=F64)
BAD = {
    "not positive": torch.diag(torch.tensor([1.0, 2.0, -0.5], dtype=F64)),
    "negative": -torch.eye(3, dtype=F64),
    "singular": SINGULAR,
    "zero": torch.zeros(3, 3, dtype=F64),
    "nan": torch.eye(3, dtype=F64).index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(torch.nan, dtype=F64)),
    "infinite": torch.diag(torch.tensor([1.0, torch.inf, 1.0], dtype=F64)),
}
ASYMMETRIC = torch.tensor([[2.0, 1.0], [0.5, 2.0]], dtype=F64)


# ---- checks ---------------------------------------------------------------------------------------------------


@every_metric
@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("name", BAD)
def test_checks_say_what_is_no_point(metric, name, dtype):
    m, bad, name_of_class = metric.manifold, BAD[name].to(dtype), type(metric.manifold).__name__
    batch = torch.stack([torch.eye(3, dtype=dtype), bad])
    for x in (bad, batch):
        answer, reason = m.check_point_on_manifold(x, explain=True)
        assert answer is False and ("eigenvalue" in reason or "x^T" in reason)
        with pytest.raises(ValueError, match=name_of_class):
            m.assert_check_point_on_manifold(x)
        with pytest.raises(ValueError, match=name_of_class):
            ManifoldParameter(x, m)
    if bad.isfinite().all():
        mended = ManifoldParameter.project(batch, m)
        assert m.check_point_on_manifold(mended.detach())
        assert torch.equal(mended.detach()[0], batch[0])


@every_metric
def test_checks_say_what_is_not_symmetric(metric):
    m = metric.manifold
    with pytest.raises(ValueError, match=r"x\^T"):
        m.assert_check_point_on_manifold(ASYMMETRIC)
    with pytest.raises(ValueError, match=r"x\^T"):
        ManifoldParameter(ASYMMETRIC, m)
    with pytest.raises(ValueError, match=r"u\^T.*proju"):
        m.assert_check_vector_on_tangent(torch.eye(2, dtype=F64), ASYMMETRIC)
    projected = ManifoldParameter.project(ASYMMETRIC, m).detach()
    assert torch.equal(projected, 0.5 * (ASYMMETRIC + ASYMMETRIC.mT))


@every_metric
def test_wrong_shapes_and_dtypes(metric):
    m = metric.manifold
    for wrong in (torch.ones(2, 3), torch.ones(3), torch.ones(0, 0), torch.eye(3, dtype=torch.int64), "x"):
        assert m.check_point_on_manifold(wrong) is False
        with pytest.raises(ValueError, match=type(m).__name__):
            m.assert_check_point_on_manifold(wrong)
        with pytest.raises(ValueError, match=type(m).__name__):
            m.dist(wrong, wrong)
    for size in ((2, 3), (3,), (0, 0)):
        with pytest.raises(ValueError, match=type(m).__name__):
            m.random(*size)


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"alpha": -1.0}, {"alpha": math.nan}, {"beta": math.inf}])
@pytest.mark.parametrize("kind", [SPDLogEuclidean, SPDAffineInvariant])
def test_options_of_a_metric(kind, options):
    with pytest.raises(ValueError, match=f"{kind.__name__}.*{next(iter(options))}"):
        kind(**options)


@pytest.mark.parametrize("kind", [SPDLogEuclidean, SPDAffineInvariant])
def test_the_range_of_beta_is_checked_where_the_size_is_known(kind):
    m = kind(alpha=1.0, beta=-0.3)
    x = torch.eye(3, dtype=F64)
    assert m.dist(x, 2 * x) > 0
    with pytest.raises(ValueError, match="beta must be above -alpha/n = -0.25 for 4 x 4"):
        m.dist(torch.eye(4), torch.eye(4))
    with pytest.raises(ValueError, match="beta must be above"):
        m.random(4, 4)


@pytest.mark.parametrize("power", [0, 0.0, math.nan, math.inf, "1", True, None])
def test_a_power_is_a_number(power):
    with pytest.raises(ValueError, match="SPDPowerEuclidean: power"):
        SPDPowerEuclidean(power)


# ---- neighbours -----------------------------------------------------------------------------------------------


def values_and_gradients(m, name, at):
    leaves = {k: v.clone().requires_grad_() for k, v in at.items()}
    value = call(m, name, leaves)
    if not value.requires_grad:
        return value.detach(), {}
    weights = torch.linspace(1, 2, max(1, value[0].numel()), dtype=value.dtype).reshape(value.shape[1:])
    gradients = torch.autograd.grad((value * weights).sum(), list(leaves.values()), materialize_grads=True)
    return value.detach(), dict(zip(leaves, gradients, strict=True))


@every_metric
@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_no_point_spoils_itself_alone(metric, name):
    """Among five bad items in x, and in y, the good ones keep their values and gradients; the bad ones are NaN."""
    m, bad = metric.manifold, torch.stack(list(BAD.values()))
    good = arguments(m, 2, 3, 3)
    wanted, gradients = values_and_gradients(m, name, good)
    if wanted.dim() == 0:
        assert name == "injectivity_radius" and wanted == torch.inf
        return
    for letter in set("xy") & set(OPERATIONS[name] if name != "basis" else "x"):
        batch = {k: torch.cat([v[:1], v[:1].expand(len(bad), 3, 3), v[1:]]) for k, v in good.items()}
        batch[letter][1:-1] = bad
        value, found = values_and_gradients(m, name, batch)
        kept = torch.tensor([0, -1])
        torch.testing.assert_close(value[kept], wanted, rtol=1e-13, atol=1e-14)
        for k, g in gradients.items():
            torch.testing.assert_close(found[k][kept], g, rtol=1e-12, atol=1e-13)
        read = not torch.equal(value[1], value[0]) if value.dtype == F64 else False
        for i, label in enumerate(BAD):
            item = value[1 + i]
            if item.dtype == torch.bool:
                assert not item or m.injectivity_radius() == torch.inf, f"{name} is defined at {label}"
            else:
                spoiled = not item.isfinite().all() if label == "infinite" else item.isnan().all()
                assert spoiled or not read, f"{name} of {label} in {letter} is {item}"


@every_metric
def test_means_and_tables_of_bad_items(metric):
    m = metric.manifold
    x = m.random(4, 3, 3, generator=generator(), dtype=F64)
    spoiled = x.clone()
    spoiled[1] = BAD["not positive"]
    table = m.cdist(spoiled, x)
    kept = torch.tensor([0, 2, 3])
    torch.testing.assert_close(table[kept], m.cdist(x, x)[kept], rtol=1e-12, atol=1e-7)
    assert table[1].isnan().all()
    weights = torch.tensor([1.0, 0.0, 2.0, 1.0], dtype=F64)
    torch.testing.assert_close(m.frechet_mean(spoiled, weights), m.frechet_mean(x, weights), rtol=1e-9, atol=1e-11)
    # One mean an item: a bad point spoils the mean that it belongs to.
    pairs = torch.stack([x, x.flip(0)])
    pairs[0, 1] = BAD["singular"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        means = m.frechet_mean(pairs)
    assert means[1].isnan().all()
    # An iteration says what it met, in the name of the metric that was asked.
    assert all(re.match(rf"{type(m).__name__}.frechet_mean.*give it the weight 0", str(w.message)) for w in caught)
    torch.testing.assert_close(means[kept], m.frechet_mean(torch.stack([x, x.flip(0)]))[kept], rtol=1e-9, atol=1e-11)


# ---- sizes ----------------------------------------------------------------------------------------------------


@every_metric
def test_empty_batches(metric):
    m = metric.manifold
    at = {k: v[:0] for k, v in arguments(m, 2, 3, 3).items()}
    for name in OPERATIONS:
        assert name == "injectivity_radius" or call(m, name, at).shape[0] == 0
    assert m.cdist(at["x"], torch.eye(3, dtype=F64).expand(2, 3, 3)).shape == (0, 2)
    assert m.frechet_mean(at["x"].expand(4, 0, 3, 3)).shape == (0, 3, 3)
    assert m.projx(at["x"]).shape == m.random(0, 3, 3).shape == m.random_normal(0, 3, 3, std=0.1).shape == (0, 3, 3)


@every_metric
def test_matrices_of_one_row_are_positive_numbers(metric):
    """Every metric is one of the half line: the distance is the integral of the norm of one, and operations are
    those of its flat coordinate."""
    m = metric.manifold
    x, y = (t.reshape(1, 1) for t in torch.tensor([0.7, 1.1], dtype=F64))
    one = torch.ones(1, 1, dtype=F64)
    nodes = torch.linspace(0, 1, 2001, dtype=F64)[:, None, None]
    speed = m.norm(x + nodes * (y - x), one.expand(2001, 1, 1))
    length = torch.trapezoid(speed, dx=1 / 2000) * (y - x).item()
    torch.testing.assert_close(m.dist(x, y), length, rtol=1e-6, atol=0)
    torch.testing.assert_close(m.expmap(x, m.logmap(x, y)), y, rtol=1e-13, atol=0)
    torch.testing.assert_close(m.retr(x, m.inverse_retr(x, y)), y, rtol=1e-13, atol=0)
    torch.testing.assert_close(m.dist(x, m.midpoint(x, y)), 0.5 * m.dist(x, y), rtol=1e-13, atol=0)
    assert m.check_point_on_manifold(-x) is False and m.projx(-x) > 0


# ---- scales ---------------------------------------------------------------------------------------------------


@every_metric
@pytest.mark.parametrize(
    "dtype, scale", [(F64, 1e-10), (F64, 1e10), (F32, 1e-10), (F32, 1e10), (F32, 1e-18), (F32, 1e18)]
)
def test_every_scale_is_as_good_as_one(metric, dtype, scale):
    """The law of each metric under x -> s x, with s a power of two; first derivatives obey it too."""
    m, s, k = metric.manifold, 2.0 ** round(math.log2(scale)), metric.degree
    if k is None or abs(k - 1) * abs(math.log10(scale)) > 30 and dtype == F32:
        pytest.skip("no law of scales, or none that float32 holds: derivatives are s^(k - 1) times as large")
    at = arguments(m, 5, 4, 4, dtype=dtype)
    moved = {name: s * value for name, value in at.items()}
    assert m.check_point_on_manifold(moved["x"])
    near = {"rtol": 1e-11 if dtype == F64 else 2e-3, "atol": 0.0}
    for name, degree in (("dist", k), ("norm", k), ("logmap", 1), ("expmap", 1), ("retr", 1), ("midpoint", 1)):
        want = call(m, name, at) * s**degree
        small = near["rtol"] * want.abs().max()
        torch.testing.assert_close(call(m, name, moved), want, rtol=near["rtol"], atol=float(small), msg=name)
    torch.testing.assert_close(m.projx(moved["x"]), moved["x"], rtol=0, atol=0)
    for letter in "xy":
        got, want = (values_and_gradients(m, "dist", a)[1][letter] for a in (moved, at))
        want = want * s ** (k - 1)
        torch.testing.assert_close(got, want, rtol=0, atol=near["rtol"] * float(want.abs().max()))


# ---- conditions -----------------------------------------------------------------------------------------------


@every_metric
@pytest.mark.parametrize("condition", [1e4, 1e6, 1e8])
def test_points_in_float32_at_any_condition_that_it_holds(metric, condition):
    """Of points that are positive definite as stored, operations in float32 are those of the same numbers in float64 up
    to the rounding of the result."""
    m = metric.manifold
    x, y = (m.random_spectrum(40, 6, 6, condition=condition, generator=generator(k), dtype=F32) for k in (0, 1))
    assert positive_definite(x).all() and m.check_point_on_manifold(x)
    for name in ("dist", "logmap"):
        want = call(m, name, {"x": x.double(), "y": y.double()})
        got = call(m, name, {"x": x, "y": y}).double()
        size = want.abs().reshape(40, -1).amax(1).reshape(-1, *(1,) * (want.dim() - 1))
        error = ((got - want) / size).abs().amax()
        assert error < 2e-3, f"{name}: {error:.1e}"
    radius = torch.as_tensor(m.injectivity_radius(x.double()), dtype=F64)
    torch.testing.assert_close(torch.as_tensor(m.injectivity_radius(x), dtype=F64), radius, rtol=2e-3, atol=0)


@every_metric
@pytest.mark.parametrize("dtype, exponent", [(F64, -600), (F64, 600), (F32, -100), (F32, 100)])
def test_scales_of_which_the_square_is_no_number(metric, dtype, exponent):
    """What is a number is found, though derivatives of the powers that are on the way are none."""
    m, k = metric.manifold, metric.degree
    if k is None:
        pytest.skip("no law of scales")
    at, s = arguments(m, 5, 4, 4, dtype=dtype), 2.0**exponent
    moved = {name: s * value for name, value in at.items()}
    degrees = {"dist": k, "norm": k, "exp_is_defined": 0, "logmap": 1, "expmap": 1, "retr": 1, "inverse_retr": 1}
    degrees |= {"midpoint": 1, "transp": 1, "parallel_transport": 1}
    for name, degree in degrees.items():
        got, want = call(m, name, moved), call(m, name, at)
        if want.dtype == torch.bool:
            assert torch.equal(got, want)
            continue
        want = want * s**degree
        near = (1e-11 if dtype == F64 else 2e-3) * float(want.abs().max())
        torch.testing.assert_close(got, want, rtol=0, atol=near, msg=lambda text, name=name: f"{name}: {text}")
