"""Pullback metrics: against closed forms and the library's own spaces, derived against given differentials."""

import math
import pickle
from dataclasses import dataclass
from typing import ClassVar, final

import pytest
import torch
from torch import Tensor, nn

from torchriemann import ManifoldParameter
from torchriemann.manifolds import (
    Chart,
    Euclidean,
    Klein,
    Lorentz,
    PoincareBall,
    ProjectedSphere,
    Pullback,
    PullbackMetric,
    Sphere,
    Stiefel,
)

D = torch.float64


@dataclass(frozen=True, eq=False)
class Log(Chart):
    """Positive numbers, with derivatives as they are found."""

    def forward(self, x):
        return x.log()

    def inverse(self, y):
        return y.exp()

    def project(self, x):
        return torch.where(x == 0, 1.0, x.abs())


@dataclass(frozen=True, eq=False)
class LogWithDerivatives(Log):
    def differential(self, x, *vectors):
        return x.log(), *(u / x for u in vectors)

    def inverse_differential(self, y, *vectors):
        x = y.exp()
        return x, *(x * v for v in vectors)

    def inverse_adjoint(self, y, g):
        return y.exp() * g


@dataclass(frozen=True, eq=False)
class Lifted(Chart):
    """The ball of curvature -1 or the plane of curvature 1, raised to the hyperboloid or the sphere; with `central`,
    Klein's ball."""

    sign: float
    central: bool = False

    def base_shape(self, point_shape):
        return (*point_shape[:-1], point_shape[-1] + 1)

    def complaint(self, point_shape):
        return None if point_shape[-1] > 0 else "points must have at least one coordinate"

    def forward(self, x):
        gap = 1 + self.sign * x.square().sum(-1, keepdim=True)
        if self.central:
            return torch.cat([gap.rsqrt(), gap.rsqrt() * x], -1)
        return torch.cat([(2 - gap) / gap, 2 / gap * x], -1)

    def inverse(self, y):
        return y[..., 1:] / (y[..., :1] + (0 if self.central else 1))


SPACES = [
    (Pullback(Lorentz(), Lifted(-1.0)), PoincareBall()),
    (Pullback(Sphere(), Lifted(1.0)), ProjectedSphere()),
    (Pullback(Lorentz(), Lifted(-1.0, central=True)), Klein()),
]


def draw(m, n=3, batch=(4,)):
    """Points x, y, z and vectors u, v, g, h of the space, of moderate size."""
    g = torch.Generator().manual_seed(0)
    x, y, z = (m.from_normal(0.6 * torch.randn(*batch, n, generator=g, dtype=D)) for _ in range(3))
    u, v, e, h = (0.3 * torch.randn(*batch, n, generator=g, dtype=D) for _ in range(4))
    return x, y, z, u, v, e, h


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# ---- closed forms ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chart", [Log(), LogWithDerivatives()], ids=repr)
def test_positive_numbers(chart):
    m = Pullback(Euclidean(), chart)
    x, y, _, u, v, g, h = (t.exp() if i < 3 else t for i, t in enumerate(draw(Euclidean())))
    close(m.dist(x, y), (x.log() - y.log()).norm(dim=-1))
    close(m.inner(x, u, v), (u * v / x.square()).sum(-1))
    close(m.expmap(x, u), x * (u / x).exp())
    close(m.logmap(x, y), x * (y / x).log())
    close(m.parallel_transport(x, y, v), v * y / x)
    close(m.transp(x, y, v), v * y / x)
    close(m.egrad2rgrad(x, g), x.square() * g)
    close(m.ehess2rhess(x, g, h, u), x.square() * h + x * g * u)
    close(m.geodesic(x, y, 0.25), x**0.75 * y**0.25)
    close(m.frechet_mean(x), x.log().mean(0).exp())
    close(m.basis(x), torch.diag_embed(x))
    close(m.gyroadd(x, y), x * y)
    close(m.to_normal(x), x.log())
    close(m.origin(2, 3, dtype=D), torch.ones(2, 3, dtype=D))
    assert torch.equal(m.proju(x, u), u) and m.injectivity_radius() == math.inf
    assert m.check_point_on_manifold(x) and not m.check_point_on_manifold(-x)
    assert m.check_point_on_manifold(m.projx(-x)) and m.dimension((3,)) == 3
    assert m.karcher_residual(x, m.frechet_mean(x)).max() < 1e-12


@pytest.mark.parametrize("m, known", SPACES, ids=repr)
def test_models_of_curved_spaces_as_pullbacks(m, known):
    x, y, z, u, v, g, h = draw(known)
    for name, arguments in {
        "dist": (x, y),
        "dist2": (x, y),
        "inner": (x, u, v),
        "norm": (x, u),
        "expmap": (x, u),
        "logmap": (x, y),
        "parallel_transport": (x, y, v),
        "egrad2rgrad": (x, g),
        "ehess2rhess": (x, g, h, u),
        "sectional_curvature": (x, u, v),
        "logdet_dexp": (x, u),
        "midpoint": (x, y),
        "gyroadd": (x, y),
        "gyroinv": (x,),
        "gyration": (x, y, z),
        "to_normal": (x,),
        "from_normal": (u,),
        "expmap0": (u,),
        "logmap0": (x,),
        "dist0": (x,),
        "expmap_frame": (x, u),
        "logmap_frame": (x, y),
        "transport_frame": (x, y, v),
        "tangent_from_frame": (x, u),
        "frame_from_tangent": (x, u),
        "log_is_unique": (x, y),
    }.items():
        close(getattr(m, name)(*arguments), getattr(known, name)(*arguments), 1e-11)
    for got, want in zip(m.expmap_transp(x, u, v), known.expmap_transp(x, u, v), strict=True):
        close(got, want, 1e-11)
    close(m.gyroscale(0.3, x), known.gyroscale(0.3, x))
    weights = torch.tensor([1.0, 2, 3, 4], dtype=D)
    close(m.frechet_mean(x, weights), known.frechet_mean(x, weights), 1e-10)
    assert m.injectivity_radius() == known.injectivity_radius() and m.dimension((3,)) == 3
    assert m.check_point_on_manifold(x) and m.check_vector_on_tangent(x, u)


def test_a_tangent_space_that_is_not_everything():
    """A hyperboloid over the ball: its tangent vectors are what the differential of the chart keeps."""

    @dataclass(frozen=True, eq=False)
    class Flattened(Chart):
        def base_shape(self, point_shape):
            return (point_shape[-1] - 1,)

        def forward(self, x):
            return x[..., 1:] / (1 + x[..., :1])

        def inverse(self, y):
            return Lifted(-1.0).forward(y)

    m, known = Pullback(PoincareBall(), Flattened()), Lorentz()
    x, y = known.random_normal(2, 5, 4, dtype=D, generator=torch.Generator().manual_seed(1))
    u = known.random_tangent(x, torch.Generator().manual_seed(2))
    assert m.dimension((4,)) == 3
    close(m.proju(x, u), u, 1e-10)
    close(m.expmap(x, 0.3 * u), known.expmap(x, 0.3 * u), 1e-10)
    close(m.dist(x, y), known.dist(x, y), 1e-10)
    assert m.check_vector_on_tangent(x, u) and not m.check_vector_on_tangent(x, u + 0.1 * x)
    assert not m.check_point_on_manifold(x + 0.1)
    close(m.projx(x), x, 1e-10)


@pytest.mark.parametrize("m", [Pullback(Euclidean(), Log()), *(m for m, _ in SPACES)], ids=repr)
def test_laws_of_an_isometry(m):
    x, y, _, u, v, g, _ = draw(m)
    close(m.expmap(x, m.logmap(x, y)), y)
    close(m.logmap(x, m.expmap(x, u)), u, 1e-11)
    close(m.dist(x, y), m.base.dist(m.chart.forward(x), m.chart.forward(y)))
    close(m.inner(x, m.egrad2rgrad(x, g), v), (g * v).sum(-1))
    moved = m.parallel_transport(x, y, u), m.parallel_transport(x, y, v)
    close(m.inner(y, *moved), m.inner(x, u, v), 1e-11)
    b = m.basis(x)
    close(
        m.inner(x.unsqueeze(-2).unsqueeze(-2), b.unsqueeze(-2), b.unsqueeze(-3)), torch.eye(3, dtype=D).expand(4, 3, 3)
    )


# ---- derivatives of charts ------------------------------------------------------------------------------------


def test_derived_differentials_are_the_given_ones():
    x, _, _, u, v, g, _ = (t.exp() if i < 3 else t for i, t in enumerate(draw(Euclidean())))
    for at, name in ((x, "differential"), (x.log(), "inverse_differential")):
        for vectors in ((), (u,), (u, v)):
            found, given = getattr(Log(), name)(at, *vectors), getattr(LogWithDerivatives(), name)(at, *vectors)
            assert len(found) == 1 + len(vectors)
            for a, b in zip(found, given, strict=True):
                close(a, b)
    close(Log().inverse_adjoint(x.log(), g), LogWithDerivatives().inverse_adjoint(x.log(), g))


def test_differentials_broadcast():
    m = SPACES[0][0]
    x, _, _, u, *_ = draw(PoincareBall())
    close(m.inner(x[:1], u), m.inner(x[:1].expand(4, 3), u))
    close(m.egrad2rgrad(x[0], u), m.egrad2rgrad(x[:1].expand(4, 3), u))


def test_inside_of_the_forward_mode_of_torch():
    """Its levels do not nest, so that differentials come from reverse mode there."""
    m = SPACES[0][0]
    x, y, _, u, v, *_ = draw(PoincareBall())
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, u)
        got = torch.autograd.forward_ad.unpack_dual(m.logmap(dual, y)).tangent
    close(got, torch.func.jvp(lambda x: m.logmap(x, y), (x,), (u,))[1], 1e-11)


@pytest.mark.parametrize("operation", ["expmap", "egrad2rgrad", "logmap"])
def test_transforms(operation):
    m = SPACES[0][0]
    x, y, _, u, v, *_ = draw(PoincareBall())
    second = y if operation == "logmap" else u
    f = getattr(m, operation)
    close(torch.func.vmap(f)(x, second), f(x, second))
    step = 1e-6
    slope = (f(x + step * v, second) - f(x - step * v, second)) / (2 * step)
    close(torch.func.jvp(lambda x: f(x, second), (x,), (v,))[1], slope, 1e-8)
    assert torch.autograd.gradcheck(f, (x.requires_grad_(), second), fast_mode=True)


# ---- options --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Stretched(Chart):
    factor: float | Tensor

    def forward(self, x):
        return self.factor * x.sinh()

    def inverse(self, y):
        return (y / self.factor).asinh()


def test_equality_and_hash():
    factor = torch.tensor(2.0)
    assert Pullback(Euclidean(), Stretched(2.0)) == Pullback(Euclidean(), Stretched(2.0))
    assert hash(Pullback(Sphere(), Stretched(2.0))) == hash(Pullback(Sphere(), Stretched(2.0)))
    assert Pullback(Euclidean(), Stretched(2.0)) != Pullback(Euclidean(), Stretched(3.0))
    assert Pullback(Euclidean(), Stretched(2.0)) != Pullback(Sphere(), Stretched(2.0))
    assert Stretched(factor) == Stretched(factor) != Stretched(factor.clone())
    assert Log() != LogWithDerivatives()


def test_pickles_and_is_safe_in_a_checkpoint(tmp_path):
    m = Pullback(Sphere(2.0), Lifted(1.0))
    assert pickle.loads(pickle.dumps(m)) == m
    torch.save({"manifold": m}, tmp_path / "m.pt")
    assert torch.load(tmp_path / "m.pt", weights_only=True)["manifold"] == m


def test_gradient_in_an_option_of_the_chart():
    factor = torch.tensor(1.5, dtype=D, requires_grad=True)
    x = torch.linspace(-1, 1, 12, dtype=D).reshape(4, 3)

    def value(factor):
        m = Pullback(Euclidean(), Stretched(factor))
        return m.frechet_mean(x).square().sum() + m.dist(x[0], x[1]) + m.egrad2rgrad(x, x).sum()

    assert torch.autograd.gradcheck(value, (factor,))


def test_half_precision_and_tensor_options():
    m = Pullback(Euclidean(), Stretched(torch.tensor(1.5, dtype=D)))
    x = torch.linspace(-1, 1, 6).reshape(2, 3)
    y = m.expmap(x.bfloat16(), x.bfloat16())
    assert y.dtype == torch.bfloat16
    close(y.float(), m.expmap(x.bfloat16().float(), x.bfloat16().float()), 1e-2)
    assert m.random_normal(2, 3, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_errors_name_the_class():
    with pytest.raises(ValueError, match=r"Pullback: base must be a manifold such as Euclidean\(\), got 3"):
        Pullback(3, Log())
    with pytest.raises(ValueError, match="Pullback: chart must be an instance of a class under Chart"):
        Pullback(Euclidean(), torch.log)
    m = Pullback(Lorentz(), Lifted(-1.0))
    with pytest.raises(ValueError, match="Pullback.dist: points must have at least one coordinate"):
        m.dist(torch.ones(2, 0), torch.ones(2, 0))
    with pytest.raises(ValueError, match="Pullback.expmap: arguments are points of different shapes"):
        m.expmap(torch.ones(2), torch.ones(3))
    with pytest.raises(ValueError, match="Pullback: the chart sends points"):
        Pullback(Stiefel(), Log()).random(3)
    with pytest.raises(ValueError, match=r"Pullback: x has max.inverse\(forward\(x\)\) - x.* call projx\(x\)"):
        Pullback(Euclidean(), Log()).assert_check_point_on_manifold(torch.tensor([1.0, -1.0]))


def test_a_base_without_gyro_structure():
    @dataclass(frozen=True, eq=False)
    class Turned(Chart):
        ndim: ClassVar[int] = 2

        def forward(self, x):
            return x.flip(-2)

        def inverse(self, y):
            return y.flip(-2)

    m, known = Pullback(Stiefel(), Turned()), Stiefel()
    x, y = known.random(2, 5, 2, dtype=D, generator=torch.Generator().manual_seed(0))
    u = known.random_tangent(x, torch.Generator().manual_seed(1))
    assert not m.has_gyro_structure
    close(m.expmap(x, 0.2 * u), known.expmap(x, 0.2 * u))
    close(m.retr(x, u), known.retr(x, u))
    close(m.proju(x, y), known.proju(x, y))
    assert m.retraction_order == known.retraction_order
    with pytest.raises(NotImplementedError, match="Pullback.* has no gyro structure, since Stiefel"):
        m.gyroadd(x, y)


# ---- a named space --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class MatrixLog(Chart):
    """Positive definite matrices to the entries of their logarithm, those off the diagonal times sqrt 2."""

    ndim: ClassVar[int] = 2

    def base_shape(self, point_shape):
        return (point_shape[-1] * (point_shape[-1] + 1) // 2,)

    def forward(self, x):
        a, q = torch.linalg.eigh(x)
        log = (q * a.log().unsqueeze(-2)) @ q.mT
        i, j = torch.triu_indices(x.shape[-1], x.shape[-1])
        return log[..., i, j] * (1 + (i != j)).to(x.dtype).sqrt()

    def inverse(self, y):
        n = math.isqrt(2 * y.shape[-1])
        i, j = torch.triu_indices(n, n)
        places = torch.zeros(y.shape[-1], n, n, dtype=y.dtype)
        places[torch.arange(y.shape[-1]), i, j] = 1 / (1 + (i != j)).to(y.dtype).sqrt()
        upper = torch.einsum("...k,kij->...ij", y, places)
        return torch.linalg.matrix_exp(upper + upper.triu(1).mT)


class Symmetric(PullbackMetric):
    """What positive definite matrices are, whatever their metric."""

    ndim: ClassVar[int] = 2

    def _shape_complaint(self, point_shape):
        return None if point_shape[-1] == point_shape[-2] else f"points must be square, got {point_shape}"

    def _point_residual(self, x):
        return (torch.linalg.eigvalsh(x) <= 0).sum(), "eigenvalues that are not positive"

    def _vector_residual(self, x, u):
        return (u - u.mT).abs().amax(), "max|u - u^T|"

    def dimension(self, shape):
        return shape[-1] * (shape[-1] + 1) // 2

    def projx(self, x):
        a, q = torch.linalg.eigh(0.5 * (x + x.mT))
        return (q * a.clamp_min(1e-6).unsqueeze(-2)) @ q.mT

    def proju(self, x, u):
        return 0.5 * (u + u.mT)


@final
@dataclass(frozen=True, eq=False)
class LogEuclidean(Symmetric):
    name: ClassVar[str] = "LogEuclidean"
    codomain: ClassVar[Euclidean] = Euclidean()
    chart: ClassVar[MatrixLog] = MatrixLog()


def test_a_named_space_is_its_points_and_a_chart():
    m = LogEuclidean()
    x = m.random(5, 3, 3, dtype=D, generator=torch.Generator().manual_seed(0))
    y = m.random(5, 3, 3, dtype=D, generator=torch.Generator().manual_seed(1))
    log = {i: torch.linalg.eigh(p) for i, p in enumerate((x, y))}
    lx, ly = ((q * a.log().unsqueeze(-2)) @ q.mT for a, q in log.values())
    close(m.dist(x, y), (lx - ly).flatten(-2).norm(dim=-1), 1e-10)
    close(m.geodesic(x, y, 0.3), torch.linalg.matrix_exp(0.7 * lx + 0.3 * ly), 1e-10)
    close(m.frechet_mean(x), torch.linalg.matrix_exp(lx.mean(0)), 1e-10)
    close(m.expmap(x, m.logmap(x, y)), y, 1e-10)
    u = m.logmap(x, y)
    close(u, u.mT, 1e-10)
    close(m.norm(x, u), m.dist(x, y), 1e-10)
    assert m.check_point_on_manifold(x) and m.normal_shape((3, 3)) == (6,) and m == LogEuclidean()
    with pytest.raises(ValueError, match="LogEuclidean.dist: points must be square"):
        m.dist(torch.ones(2, 3), torch.ones(2, 3))


# ---- a learned chart ------------------------------------------------------------------------------------------


class Shear(nn.Module):
    """One coordinate is moved by a function of the other: invertible whatever the function."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double()

    def forward(self, x: Tensor, sign: float = 1.0) -> Tensor:
        return torch.cat([x[..., :1], x[..., 1:] + sign * self.net(x[..., :1])], -1)


@dataclass(frozen=True, eq=False)
class Learned(Chart):
    shear: Shear

    def forward(self, x):
        return self.shear(x)

    def inverse(self, y):
        return self.shear(y, -1.0)


class Middle(nn.Module):
    """A module that learns its space, and builds it in `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.shear = Shear()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        m = Pullback(Euclidean(), Learned(self.shear))
        return m.dist(x, y).sum() + m.expmap(x, m.logmap(m.midpoint(x, y), y)).sum()


def test_a_module_learns_its_chart():
    torch.manual_seed(0)
    model = Middle()
    x, y = torch.randn(2, 6, 2, dtype=D)
    model(x, y).backward()
    value = model(x, y)
    parameter = model.shear.net[0].weight
    analytic = parameter.grad.clone()
    step = torch.zeros_like(parameter)
    step[3] = 1e-6
    at, ends = parameter.detach().clone(), []
    with torch.no_grad():
        for sign in (1, -1, 0):
            parameter.copy_(at + sign * step)
            ends.append(model(x, y))
    assert float(analytic[3]) == pytest.approx(float(ends[0] - ends[1]) / 2e-6, rel=1e-6)
    compiled = torch.compile(Middle(), backend="aot_eager", fullgraph=True)
    compiled.load_state_dict({f"_orig_mod.{k}": v for k, v in model.state_dict().items()})
    close(compiled(x, y), value, 1e-12)
    compiled(x, y).backward()
    close(compiled.shear.net[0].weight.grad, analytic, 1e-11)


def test_points_do_not_follow_a_learned_chart():
    with pytest.raises(ValueError, match="requires a gradient"):
        ManifoldParameter(torch.zeros(2, dtype=D), Pullback(Euclidean(), Learned(Shear())))
    fixed = Learned(Shear().requires_grad_(False))
    assert ManifoldParameter(torch.zeros(2, dtype=D), Pullback(Euclidean(), fixed)).manifold.chart == fixed
