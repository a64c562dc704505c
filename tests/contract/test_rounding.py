"""Results that are points are points in the dtype in which they are given: against every number of both half dtypes,
through operations, conversions, laws and layers, at every dimension."""

from dataclasses import dataclass

import pytest
import torch

from tests.support.models import directions
from torchriemann import ManifoldParameter, WrappedNormal, change_curvature, convert
from torchriemann.layers import ManifoldModule
from torchriemann.manifolds import (
    Chart,
    Euclidean,
    Klein,
    Lorentz,
    Manifold,
    PoincareBall,
    Power,
    Product,
    ProjectedSphere,
    Pullback,
    Scaled,
    Sphere,
    Stereographic,
    Stiefel,
)
from torchriemann.manifolds.functional.rounding import towards_zero
from torchriemann.manifolds.precision import GIVING_POINTS
from torchriemann.testing import GYRO_OPERATIONS, OPERATIONS, Case, Trial, check_law
from torchriemann.testing.operations import call

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
HALVES = (F16, BF16)
BALLS = [PoincareBall(), PoincareBall(-0.3), Klein(), Klein(-4.0), Stereographic(-2.0)]
BALLS += [Stereographic(torch.tensor(-0.7)), PoincareBall(torch.tensor(-1.3, dtype=F64))]


@pytest.mark.parametrize("dtype", HALVES)
def test_towards_zero_is_the_number_before(dtype):
    """All numbers of the dtype, subnormal ones among them, and what lies between neighbours."""
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    numbers = numbers[numbers.isfinite()].double().unique()
    assert torch.equal(towards_zero(numbers, dtype).double(), numbers)
    below, above = numbers[:-1], numbers[1:]
    for part in (1e-4, 0.3, 0.5, 0.7, 1 - 1e-4):
        got = towards_zero(below + part * (above - below), dtype).double()
        assert torch.equal(got, torch.where(below >= 0, below, above))
    beyond = towards_zero(torch.tensor([1e39, -1e39, torch.inf, torch.nan], dtype=F64), dtype)
    assert (beyond[:2].abs() == torch.finfo(dtype).max).all() and beyond[2].isinf() and beyond[3].isnan()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("m", [PoincareBall(), Klein(), Stereographic(-1.0), Stereographic(torch.tensor(-1.0))])
def test_a_point_far_out_is_no_point_of_the_rim(m, dtype):
    """The number before one."""
    x = m.from_normal(torch.tensor([20.0], dtype=dtype))
    assert x.item() == 1 - torch.finfo(dtype).eps / 2 and x.dtype == dtype
    assert m.dist0(x).isfinite() and m.check_point_on_manifold(x)


@pytest.mark.parametrize("dtype", (*HALVES, F32))
@pytest.mark.parametrize("m", BALLS, ids=repr)
def test_rounding_moves_only_what_would_leave_the_ball(m, dtype):
    radius = float((-torch.as_tensor(m.curvature, dtype=F64)) ** -0.5)
    led_out = 0
    for n in (1, 2, 5, 300, 4096):
        lengths = radius * (1 - torch.logspace(-9, -0.1, 200, dtype=F64)).unsqueeze(-1)
        x = lengths * directions(200, n, n)
        y, nearest = m.round_to(x, dtype), x.to(dtype)
        assert y.dtype == dtype and m.check_point_on_manifold(y) and m.to_normal(y).isfinite().all()
        stays = m.dist0(nearest).isfinite()
        assert torch.equal(y[stays], nearest[stays])
        led_out += int((~stays).sum())
        eps, least = torch.finfo(dtype).eps, torch.finfo(dtype).tiny * torch.finfo(dtype).eps
        moved = torch.linalg.vector_norm(y.double() - x, dim=-1, keepdim=True)
        assert (moved <= eps * lengths + least * n**0.5).all()
        assert torch.equal(m.round_to(y, dtype), y) and torch.equal(m.round_to(y.double(), dtype), y)
    assert led_out > 0


@pytest.mark.parametrize("dtype", HALVES)
def test_balls_smaller_than_the_first_normal_number(dtype):
    """A factor 1 - eps would do nothing to subnormal entries."""
    m, n = PoincareBall(-1e14), 400
    x = m.round_to((1 - 1e-6) * 1e-7 * directions(100, n), dtype)
    assert m.check_point_on_manifold(x)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("m", BALLS, ids=repr)
def test_every_way_to_a_point(m, dtype):
    g = torch.Generator().manual_seed(0)
    radius = float((-torch.as_tensor(m.curvature)) ** -0.5)
    z = (9 * radius * directions(50, 4)).to(dtype)
    x, y, t = m.from_normal(z), m.from_normal(z.flip(0)), torch.full((50,), 0.9, dtype=dtype)
    flat, sheet, curved = Stereographic(0.0), Lorentz(m.curvature), PoincareBall(-1.0)
    u = m.tangent_from_normal(z)
    found = {
        "expmap0": m.expmap0(u),
        "expmap": m.expmap(torch.zeros_like(x), u),
        "expmap_transp": m.expmap_transp(torch.zeros_like(x), u, u)[0],
        "gyroadd": m.gyroadd(x, y),
        "gyroscale": m.gyroscale(3.0, x),
        "gyration": m.gyration(x, y, y),
        "expmap_frame": m.expmap_frame(x, z),
        "geodesic": m.geodesic(x, y, t),
        "decay": m.decay(x, 1.0),
        "projx": m.projx(5 * radius * torch.randn(50, 4, generator=g).to(dtype)),
        "restore": m.restore((radius * directions(50, 4)).to(dtype)),
        "mean": m.frechet_mean(torch.stack([x, y, x]), max_iter=5000),
        "random_normal": m.random_normal(50, 4, std=9 * radius, generator=g, dtype=dtype),
        "draws": WrappedNormal(m, x, 2 * radius, validate_args=False).rsample(),
        "radial": change_curvature(flat.round_to(z.float(), dtype), flat, m, how="radial"),
        "homothety": change_curvature(x, m, curved),
        "convert": convert(sheet.from_normal(z), sheet, m),
    }
    for name, point in found.items():
        at = curved if name == "homothety" else m
        assert point.dtype == dtype and at.check_point_on_manifold(point), name
        assert at.dist0(point).isfinite().all() and at.to_normal(point).isfinite().all(), name


@pytest.mark.parametrize("dtype", HALVES)
def test_composites_and_pullbacks(dtype):
    ball = PoincareBall(-0.3)
    z = (20 * directions(50, 3)).to(dtype)
    product = Product((ball, Product((Klein(), Euclidean()), ((2,), (1,)))), ((3,), (3,)))
    for m, normal in (
        (product, torch.cat([z, z], -1)),
        (Power(ball, 2), torch.stack([z, z.flip(0)], -2)),
        (Scaled(ball, 0.4), z),
        (Pullback(ball, Stretched(1.7)), z),
        (Pullback(Lorentz(), Hemisphere()), 0.7 * z),
    ):
        x = m.from_normal(normal)
        assert x.dtype == dtype and m.check_point_on_manifold(x), m
        assert m.dist0(x).isfinite().all() and m.projx(x).isfinite().all(), m
        assert torch.equal(m.round_to(x, dtype), x)


@dataclass(frozen=True, eq=False)
class Stretched(Chart):
    factor: float

    def forward(self, x):
        return x * self.factor

    def inverse(self, y):
        return y / self.factor


@dataclass(frozen=True, eq=False)
class Hemisphere(Chart):
    """Klein's ball, of whose rim the base knows nothing."""

    def base_shape(self, point_shape):
        return (point_shape[-1] + 1,)

    def forward(self, x):
        t = (1 - x.square().sum(-1, keepdim=True)).rsqrt()
        return torch.cat([t, t * x], -1)

    def inverse(self, y):
        return y[..., 1:] / y[..., :1]


def test_logits_of_normalised_features_under_autocast():
    """LayerNorm and a linear layer under bfloat16 autocast, then the ball: half of the logits were NaN."""
    torch.manual_seed(0)
    m, norm, linear = PoincareBall(), torch.nn.LayerNorm(64), torch.nn.Linear(64, 64)
    normal = torch.randn(10, 64)
    with torch.autocast("cpu", BF16):
        features = linear(2 * norm(torch.randn(500, 64)))
        assert features.dtype == BF16
        logits = m.hyperplane_dist(m.from_normal(features).unsqueeze(-2), normal)
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(500) % 10)
    loss.backward()
    assert logits.isfinite().all() and linear.weight.grad.isfinite().all()


@pytest.mark.parametrize("m", [PoincareBall(), Klein(-4.0), Stereographic(torch.tensor(-1.0)), Lorentz()], ids=repr)
def test_compiled_and_mapped(m):
    z = (6 * directions(20, 3)).to(BF16)
    want = m.from_normal(z)
    compiled = torch.compile(lambda a: m.from_normal(a), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(z), want)
    assert torch.equal(torch.func.vmap(m.from_normal)(z), want)
    leaf = z.clone().requires_grad_()
    (g,) = torch.autograd.grad(m.dist0(m.from_normal(leaf)).sum(), leaf)
    assert g.isfinite().all()
    assert torch.func.jvp(m.from_normal, (z,), (z,))[1].isfinite().all()


def test_lorentz_in_float16_ends_at_its_largest_number():
    """At radius 11.78, where the time is 65504: farther points are those at the end of their ray."""
    m = Lorentz()
    e = directions(30, 3)
    x = m.from_normal((14 * e).to(F16))
    assert x.isfinite().all() and m.check_point_on_manifold(x)
    d = m.dist0(x)
    assert ((d - 11.78).abs() < 0.01).all()
    direction = m.to_normal(x).double() / d.double().unsqueeze(-1)
    assert (direction - e).abs().max() < 2e-3
    assert m.dist(x, x.flip(0)).isfinite().all() and m.logmap_frame(x, x.flip(0)).isfinite().all()
    assert m.gyroadd(x, x.flip(0)).isfinite().all()
    near = m.from_normal(10 * e.float())
    assert torch.equal(m.round_to(near, F16), near.to(F16))
    weak = Lorentz(-1e-6).from_normal((1.4e4 * e).to(F16))  # of radius 1000
    assert weak.isfinite().all() and Lorentz(-1e-6).check_point_on_manifold(weak)
    far = m.round_to(m.from_normal(200 * e), F32)
    assert far.isfinite().all() and m.check_point_on_manifold(far) and ((m.dist0(far) - 89.4).abs() < 0.1).all()


def test_projected_spheres_in_float16_keep_to_numbers():
    m = ProjectedSphere(1e-8)
    x = m.from_normal(torch.tensor([2e4, 0.0], dtype=F16))  # of radius 10^4: coordinates 1.1e4
    near_the_antipode = m.round_to(torch.tensor([3e5, 1.0]), F16)
    assert x.isfinite().all() and near_the_antipode.tolist() == [65504.0, 1.0]
    draws = m.random_uniform(100_000, 2, generator=torch.Generator().manual_seed(0), dtype=F16)
    assert m.check_point_on_manifold(draws)
    cosine = m.to_cosine_sine(draws.double())[0]  # uniform in [-1, 1] on a sphere of two dimensions
    assert abs(cosine.mean()) < 0.01 and abs(cosine.square().mean() - 1 / 3) < 0.01


@pytest.mark.parametrize("m", BALLS[:5], ids=repr)
@pytest.mark.parametrize("dtype", (*HALVES, F32))
def test_layers_that_change_their_dtype(m, dtype):
    """`.to()`, a checkpoint of another dtype, `set_point` and `point(name, dtype)`."""
    x = m.from_normal((18 if isinstance(m, Klein) else 36) * directions(40, 3) * (-m.curvature) ** -0.5)

    class Holder(ManifoldModule):
        def __init__(self, dtype):
            super().__init__()
            self.register_point("weight", m, (40, 3), dtype=dtype)

    wide = Holder(F64)
    wide.set_point("weight", x)
    stays = m.dist0(x.to(dtype)).isfinite()
    converted, loaded, moved = Holder(F64), Holder(dtype), Holder(dtype)
    converted.set_point("weight", x)
    converted.to(dtype)
    loaded.load_state_dict(wide.state_dict())
    moved.set_point("weight", x)
    for y in (converted.weight, loaded.weight, moved.weight, wide.point("weight", dtype)):
        assert y.dtype == dtype and m.check_point_on_manifold(y.detach()) and m.dist0(y).isfinite().all()
        assert torch.equal(y.detach()[stays], x.to(dtype)[stays])


def test_values_that_are_off_are_not_touched_by_a_narrower_dtype():
    m = PoincareBall()

    class Holder(ManifoldModule):
        weight: torch.Tensor
        unit: torch.Tensor

        def __init__(self):
            super().__init__()
            self.register_manifold_parameter("weight", torch.zeros(2, 3, dtype=F64), m)
            self.register_manifold_parameter("unit", Sphere().origin(2, 3, dtype=F64), Sphere())

    holder = Holder()
    with torch.no_grad():
        holder.weight.fill_(torch.nan)
        holder.weight[1] = 5.0
        holder.unit.fill_(0.3)
    holder.float()
    assert holder.weight[0].isnan().all() and (holder.weight[1] == 5).all() and (holder.unit == torch.tensor(0.3)).all()
    assert isinstance(holder.weight, ManifoldParameter)


def test_the_operations_that_give_points_are_known_by_name():
    """Of every operation of the contract, whether its first result is one."""
    for m in (Lorentz(), Klein(), Sphere()):
        trial = Trial(Case(m, ((3,),)), (3,), scale=0.5)
        arguments = trial.arguments((8,))
        for name in {**OPERATIONS, **GYRO_OPERATIONS}:
            (out, *_) = call(trial, name, arguments)
            point = out.dtype == F64 and out.shape == arguments["x"].shape and m.check_point_on_manifold(out)
            assert name not in GIVING_POINTS or point, name
            if isinstance(m, Lorentz):  # elsewhere vectors may look like points
                assert point == (name in GIVING_POINTS), name
    outside = GIVING_POINTS - {**OPERATIONS, **GYRO_OPERATIONS}.keys()
    assert outside == {"decay", "frechet_mean", "centroid"}


class RoundsOntoTheRim(PoincareBall):  # pyright: ignore[reportGeneralTypeIssues]
    round_to = Manifold.round_to


def test_the_law_catches_a_ball_that_is_rounded_to_nearest():
    row = Case(RoundsOntoTheRim(), ((3,), (1,)), reach=3.0, spread=1.0)
    with pytest.raises(AssertionError, match="round_to .* is no point: .* points outside the ball"):
        check_law(row, "far_results_are_points_in_their_dtype")


class WideTangents(PoincareBall):  # pyright: ignore[reportGeneralTypeIssues]
    def logmap(self, x, y):
        return torch.add(super().logmap(x, y), x == y, alpha=1e-12)  # which torch differentiates in float64


def test_the_law_catches_tangents_of_another_dtype():
    row = Case(WideTangents(), ((3,),), reach=3.0, spread=1.0)
    with pytest.raises(AssertionError, match=r"of logmap: torch.float64 of torch.float32"):
        check_law(row, "tangents_have_the_dtype_of_their_values")


def test_rounding_elsewhere_is_that_of_torch():
    for m, shape in ((Sphere(), (5,)), (Stiefel(), (5, 2)), (Euclidean(), (5,)), (ProjectedSphere(), (5,))):
        x = m.random(20, *shape, generator=torch.Generator().manual_seed(0))
        assert torch.equal(m.round_to(x, BF16), x.to(BF16))
    with pytest.raises(ValueError, match="PoincareBall.round_to: expected a floating-point tensor"):
        PoincareBall().round_to(torch.ones(3, dtype=torch.int64), BF16)
