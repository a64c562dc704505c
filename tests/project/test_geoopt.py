"""Both ways between geoopt and this library: our manifolds in its hands, its manifolds in ours.

What is asserted of geoopt itself holds for version 0.5.1.
"""

import copy
import importlib
import inspect
import pickle
import re

import geoopt
import pytest
import torch
from torch import nn

from tests.laws.table import TABLE
from torchriemann.layers import ManifoldModule
from torchriemann.manifolds import Euclidean, Grassmann, Manifold, ManifoldParameter, Sphere
from torchriemann.manifolds.frames.stiefel import Stiefel
from torchriemann.optim import RiemannianAdam, RiemannianSGD, param_groups
from torchriemann.optim.foreign import as_manifold
from torchriemann.testing import Trial


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- the vocabulary ---------------------------------------------------------------------------------------------

CALLERS = (
    "optim.mixin optim.radam optim.rlinesearch optim.rsgd optim.sparse_radam optim.sparse_rsgd "
    "samplers.base samplers.rhmc samplers.rsgld samplers.sgrhmc tensor"
).split()


def called_names():
    """Every attribute of a manifold that geoopt's optimizers, samplers and tensors read."""
    source = "".join(inspect.getsource(importlib.import_module(f"geoopt.{name}")) for name in CALLERS)
    return set(re.findall(r"\bmanifold\.([a-z]\w*)", source)) - {"dim"}


def test_every_method_that_geoopt_calls_exists():
    names = called_names()
    assert {"egrad2rgrad", "retr_transp", "component_inner", "projx", "proju", "reversible"} <= names
    missing = {name for name in names if not hasattr(Sphere(), name)}
    assert missing == {"unpack_tensor"}  # of geoopt's products: ours are taken apart by `split`


def positional(method):
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
    return [p.name for p in inspect.signature(method).parameters.values() if p.kind in kinds]


@pytest.mark.parametrize("name", sorted(called_names() - {"reversible", "unpack_tensor", "manifolds"}))
def test_signatures_are_those_of_geoopt(name):
    theirs, ours = positional(getattr(geoopt.Manifold, name)), positional(getattr(Manifold, name))
    if name == "egrad2rgrad":
        assert (theirs, ours) == (["self", "x", "u"], ["self", "x", "g"])  # nobody passes it by keyword
    else:
        assert ours == theirs
    keywords = {p.name for p in inspect.signature(getattr(geoopt.Manifold, name)).parameters.values()}
    assert keywords & {"keepdim", "explain"} <= set(inspect.signature(getattr(Manifold, name)).parameters)


def test_our_classes_pass_for_geoopts():
    m = Stiefel()
    assert isinstance(m, geoopt.Manifold) and geoopt.ismanifold(m, Stiefel) and not geoopt.ismanifold(m, Sphere)
    x = geoopt.ManifoldTensor(m.random(5, 2), manifold=m)
    u = m.random_tangent(x)
    for name, arguments in {"retr": {"u": u}, "expmap": {"u": u}, "proju": {"u": u}, "inner": {"u": u, "v": u}}.items():
        torch.testing.assert_close(getattr(x, name)(**arguments), getattr(m, name)(x, **arguments))
    with pytest.raises(ValueError, match=r"Stiefel: .*\(2, 5\)|Stiefel: "):
        geoopt.ManifoldParameter(torch.ones(2, 5), manifold=m)


@pytest.mark.parametrize(
    "build", [lambda m: geoopt.Scaled(m, 2.0), lambda m: geoopt.ProductManifold((m, 3), (geoopt.Euclidean(), 2))]
)
def test_geoopts_wrappers_refuse_our_manifolds(build):
    # They are torch modules that hold modules, and read private parts of geoopt's base class.
    with pytest.raises((AttributeError, TypeError), match="Sphere"):
        build(Sphere())


def test_geoopts_samplers_refuse_our_manifolds():
    p = ManifoldParameter(Sphere().random(3), Sphere())
    with pytest.raises(ValueError, match="reversible"):
        geoopt.samplers.RHMC([p])


# ---- our manifolds under geoopt's optimizers --------------------------------------------------------------------

THEIR_OPTIMIZERS = {
    "adam": lambda p, rate: geoopt.optim.RiemannianAdam(p, lr=0.02, stabilize=5),
    "amsgrad": lambda p, rate: geoopt.optim.RiemannianAdam(p, lr=0.02, amsgrad=True),
    "sgd": lambda p, rate: geoopt.optim.RiemannianSGD(p, lr=0.02 * rate),
    "momentum": lambda p, rate: geoopt.optim.RiemannianSGD(p, lr=0.01 * rate, momentum=0.5, stabilize=5),
    "nesterov": lambda p, rate: geoopt.optim.RiemannianSGD(p, lr=0.01 * rate, momentum=0.5, nesterov=True),
}


def start_and_target(case):
    t = Trial(case, case.shapes[0], batch=(2,), scale=0.3)
    target = t.point()
    return t.near(target), target


def gradient(f, p):
    (g,) = torch.autograd.grad(f(p), p)
    return g


def training(case, name):
    """Rows that repeat formulas train with and without a transport; with the other three in the slow half."""
    few = case.repeats is not None and name not in ("adam", "sgd")
    marks = [pytest.mark.slow] if few else []
    return pytest.param(case, THEIR_OPTIMIZERS[name], id=f"{case.manifold}-{name}", marks=marks)


@pytest.mark.parametrize("case, make", [training(case, name) for case in TABLE for name in THEIR_OPTIMIZERS])
def test_every_manifold_trains_under_geoopt(case, make):
    m = case.manifold
    start, target = start_and_target(case)

    def cost(x):
        return (case.invariant(x) - case.invariant(target)).square().sum()

    p = geoopt.ManifoldParameter(start.clone(), manifold=m)
    g = gradient(cost, p)
    # A long metric makes gradients short: the rate that moves points as far as in the ambient metric.
    optimizer = make([p], (m.proju(p.detach(), g).norm() / m.egrad2rgrad(p.detach(), g).norm()).item())
    for _ in range(60):
        p.grad = gradient(cost, p)
        optimizer.step()
    assert cost(p) < 0.6 * cost(start)
    assert m.check_point_on_manifold(p.detach())


def test_sparse_optimizers_and_line_search_of_geoopt():
    m = Sphere()
    for make in (geoopt.optim.SparseRiemannianAdam, geoopt.optim.SparseRiemannianSGD):
        table = nn.Embedding(10, 4, sparse=True)
        table.weight = ManifoldParameter(m.random(10, 4, generator=generator()), m)
        before = table.weight.detach().clone()
        optimizer, rows = make(table.parameters(), lr=0.1), torch.tensor([1, 5])
        for _ in range(20):
            optimizer.zero_grad()
            table(rows)[:, 0].sum().backward()
            optimizer.step()
        moved = (table.weight.detach() != before).any(1)
        assert moved.nonzero().flatten().tolist() == [1, 5] and m.check_point_on_manifold(table.weight.detach())
        assert (table.weight[rows, 0] < before[rows, 0]).all()
    p = ManifoldParameter(m.random(4, generator=generator(), dtype=torch.float64), m)
    search = geoopt.optim.RiemannianLineSearch([p])

    def closure():
        search.zero_grad()
        loss = p[0]
        loss.backward()
        return loss.item()

    for _ in range(10):
        search.step(closure)
    assert p[0] < -0.99 and m.check_point_on_manifold(p.detach())


# ---- geoopt's manifolds under our optimizers --------------------------------------------------------------------


def noise(*size, seed=0):
    return torch.randn(*size, generator=generator(seed), dtype=torch.float64)


def frame(seed):
    return torch.linalg.qr(noise(6, 2, seed=seed))[0].contiguous()


def in_ball(seed):
    return 0.3 * noise(4, 3, seed=seed).tanh()


def mixed_point(seed):
    return torch.cat([geoopt.Sphere().projx(noise(3, seed=seed)), 0.3 * noise(2, seed=seed).tanh(), frame(seed)[:3, 0]])


PRODUCT = geoopt.ProductManifold((geoopt.Sphere(), 3), (geoopt.PoincareBall(), 2), (geoopt.Euclidean(), 3))

THEIRS = {
    "Euclidean": (geoopt.Euclidean(), lambda s: noise(5, seed=s)),
    "Sphere": (geoopt.Sphere(), lambda s: geoopt.Sphere().projx(noise(4, 5, seed=s))),
    "SphereExact": (geoopt.SphereExact(), lambda s: geoopt.Sphere().projx(noise(5, seed=s))),
    "EuclideanStiefel": (geoopt.EuclideanStiefel(), frame),
    "EuclideanStiefelExact": (geoopt.EuclideanStiefelExact(), frame),
    "CanonicalStiefel": (geoopt.CanonicalStiefel(), frame),
    "PoincareBall": (geoopt.PoincareBall(c=0.7), in_ball),
    "PoincareBallExact": (geoopt.PoincareBallExact(), in_ball),
    "SphereProjection": (geoopt.SphereProjection(), in_ball),
    "SphereProjectionExact": (geoopt.SphereProjectionExact(), in_ball),
    "Stereographic": (geoopt.Stereographic(0.0), in_ball),
    "StereographicExact": (geoopt.StereographicExact(-0.5), in_ball),
    "StereographicProductManifold": (
        geoopt.StereographicProductManifold((geoopt.PoincareBall(), 1), (geoopt.SphereProjection(), 2)),
        in_ball,
    ),
    "Lorentz": (geoopt.Lorentz(), lambda s: geoopt.Lorentz().projx(noise(4, 4, seed=s))),
    "SymmetricPositiveDefinite": (
        geoopt.SymmetricPositiveDefinite(),
        lambda s: noise(3, 3, seed=s) @ noise(3, 3, seed=s).T + torch.eye(3, dtype=torch.float64),
    ),
    "BirkhoffPolytope": (
        geoopt.BirkhoffPolytope(),
        lambda s: geoopt.BirkhoffPolytope().projx(noise(4, 4, seed=s).exp()),
    ),
    "ProductManifold": (PRODUCT, mixed_point),
    "Scaled": (geoopt.Scaled(geoopt.Sphere(), 2.0), lambda s: geoopt.Sphere().projx(noise(4, 5, seed=s))),
}
theirs = pytest.mark.parametrize("name", THEIRS)

PAIRS = {
    "adam": (geoopt.optim.RiemannianAdam, RiemannianAdam, {"lr": 0.02}),
    "amsgrad": (geoopt.optim.RiemannianAdam, RiemannianAdam, {"lr": 0.02, "amsgrad": True}),
    "sgd": (geoopt.optim.RiemannianSGD, RiemannianSGD, {"lr": 0.02}),
    "momentum": (geoopt.optim.RiemannianSGD, RiemannianSGD, {"lr": 0.02, "momentum": 0.5}),
    "nesterov": (geoopt.optim.RiemannianSGD, RiemannianSGD, {"lr": 0.02, "momentum": 0.5, "nesterov": True}),
}
pairs = pytest.mark.parametrize("pair", PAIRS)


def parameters(name, count):
    manifold, draw = THEIRS[name]
    return [geoopt.ManifoldParameter(draw(s).clone(), manifold=manifold) for s in range(count)]


def step_both(theirs, ours, steps):
    """Random gradients, the same for both; ours are to stay as they are."""
    for k in steps:
        g = generator(1000 + k)
        groups = [optimizer.param_groups[0]["params"] for optimizer in (theirs, ours)]
        grads = [0.5 * torch.randn(p.shape, generator=g, dtype=p.dtype) for p in groups[0]]
        for points in groups:
            for p, grad in zip(points, grads, strict=True):
                p.grad = grad.clone()
        theirs.step()
        ours.step()
        assert all(torch.equal(p.grad, grad) for p, grad in zip(groups[1], grads, strict=True))
    return max((p - q).abs().max().item() for p, q in zip(*groups, strict=True))


@theirs
@pairs
@pytest.mark.parametrize("count, foreach", [(1, None), (3, None), (3, False)])
def test_trajectories_coincide(name, pair, count, foreach):
    """To rounding, once geoopt's momentum starts from zero. It starts from the Euclidean gradient, which is not even
    tangent; ours starts as torch's does."""
    one, two, options = PAIRS[pair]
    points = parameters(name, count)
    reference, optimizer = one(points, **options), two(parameters(name, count), **options, foreach=foreach)
    if "momentum" in options:
        for p in points:
            reference.state[p]["momentum_buffer"] = torch.zeros_like(p)
    difference = step_both(reference, optimizer, range(10))
    # Sinkhorn iterations of the Birkhoff polytope stop when the whole batch has converged, so a batch goes further.
    assert difference < (1e-5 if name == "BirkhoffPolytope" and count > 1 and foreach is None else 1e-10)


def test_geoopts_first_momentum_is_not_tangent(monkeypatch):
    handed, given = geoopt.Sphere.retr_transp, []
    monkeypatch.setattr(
        geoopt.Sphere, "retr_transp", lambda m, x, u, v: (given.append(v.clone()), handed(m, x, u, v))[1]
    )
    for kind in (geoopt.optim.RiemannianSGD, RiemannianSGD):
        (p,) = points = parameters("Sphere", 1)
        p.grad = 3 * p.detach()
        kind(points, lr=0.1, momentum=0.5).step()
    normal = [(v * parameters("Sphere", 1)[0].detach()).sum(-1) for v in given]
    torch.testing.assert_close(normal[0], torch.full_like(normal[0], 1.5))  # 0.5 * 3, along the point itself
    assert normal[1].abs().max() < 1e-12


@pytest.mark.parametrize("name", sorted(THEIRS))
@pytest.mark.parametrize("pair", ["adam", "amsgrad", "sgd"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_geoopt_state_goes_on_under_ours(name, pair, count):
    one, two, options = PAIRS[pair]
    points = parameters(name, count)
    reference = one(points, **options)
    step_both(reference, two(parameters(name, count), **options), range(3))
    others = [geoopt.ManifoldParameter(p.detach().clone(), manifold=p.manifold) for p in points]
    optimizer = two(others, **{**options, "lr": 1.0})
    optimizer.load_state_dict(copy.deepcopy(reference.state_dict()))
    assert optimizer.param_groups[0]["lr"] == options["lr"]
    difference = step_both(reference, optimizer, range(3, 8))
    assert difference < (1e-5 if name == "BirkhoffPolytope" and count > 1 else 1e-10)  # Sinkhorn again


@pytest.mark.parametrize("name", ["Sphere", "EuclideanStiefel", "PoincareBall", "ProductManifold"])
def test_a_geoopt_momentum_goes_on_under_ours(name):
    """Where geoopt's transport is a projection its momentum is tangent after the first step, and nothing is lost."""
    one, two, options = PAIRS["momentum"]
    points = parameters(name, 2)
    reference = one(points, **options)
    step_both(reference, two(parameters(name, 2), **options), range(3))
    others = [geoopt.ManifoldParameter(p.detach().clone(), manifold=p.manifold) for p in points]
    optimizer = two(others, **options)
    optimizer.load_state_dict(copy.deepcopy(reference.state_dict()))
    assert step_both(reference, optimizer, range(3, 8)) < 1e-10


MOVES = {
    "Sphere": (geoopt.Sphere(), Sphere(), (4, 5)),
    "EuclideanStiefel": (geoopt.EuclideanStiefel(), Stiefel(retraction="qr"), (6, 2)),
    "EuclideanStiefelExact": (geoopt.EuclideanStiefelExact(), Stiefel(retraction="exp"), (6, 2)),
}


@pytest.mark.parametrize("before, after, shape", MOVES.values(), ids=MOVES)
@pytest.mark.parametrize("pair", ["adam", "amsgrad", "sgd"])
def test_a_moved_model_takes_the_same_steps(before, after, shape, pair):
    """geoopt's manifold and optimizer against our manifold and optimizer, over the step at which ours restores."""
    one, two, options = PAIRS[pair]
    x = after.random(*shape, generator=generator(), dtype=torch.float64)
    reference = one([geoopt.ManifoldParameter(x.clone(), manifold=before)], **options)
    assert step_both(reference, two([ManifoldParameter(x, after)], **options), range(80)) < 1e-10


class Ball(ManifoldModule):
    """Two parameters on one manifold of geoopt."""

    def __init__(self, seed=0):
        super().__init__()
        ball = geoopt.PoincareBall(c=0.5)
        for name in ("first", "second"):
            self.register_manifold_parameter(name, 0.1 * torch.randn(4, 3, generator=generator(seed)), ball)


TWINS = {
    "itself": lambda m: m,
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "double": lambda m: m.double(),
    "assign": lambda m: (m.load_state_dict(Ball(1).state_dict(), assign=True), m)[1],
    "meta": lambda m: (m.to("meta").to_empty(device="cpu").load_state_dict(Ball(1).state_dict()), m)[1],
}


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_our_modules_hold_manifolds_of_geoopt(twin):
    module = twin(Ball())
    (group,) = param_groups(module)
    assert group["param_names"] == ["first", "second"] and group["manifold"].name == "PoincareBall"
    optimizer = RiemannianAdam([group], lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        (module.first.sum() + module.second.square().sum()).backward()
        optimizer.step()
    assert module.first.sum() < -5 and group["manifold"].check_point_on_manifold(module.first.detach())
    state = {name: value + 5 for name, value in module.state_dict().items()}
    with pytest.warns(RuntimeWarning, match=r"Ball\.(first|second) is taken as it is.*PoincareBall: 'x' norm lies out"):
        module.load_state_dict(state)


def test_what_ours_do_not_step():
    for m in (geoopt.UpperHalf(), geoopt.BoundedDomain()):
        p = geoopt.ManifoldParameter(m.random(2, 2), manifold=m)
        with pytest.raises(ValueError, match="complex"):
            RiemannianAdam([p])
    m = geoopt.Scaled(geoopt.Sphere(), 2.0, learnable=True)
    with pytest.raises(ValueError, match="an option of which is a tensor"):
        RiemannianSGD([geoopt.ManifoldParameter(torch.eye(3)[0], manifold=m)])


def test_both_libraries_in_one_optimizer():
    ours = [
        ManifoldParameter(m.random(*s), m) for m, s in ((Sphere(), (3,)), (Grassmann(), (5, 2)), (Euclidean(), (2,)))
    ]
    mixed = [
        *ours,
        geoopt.ManifoldParameter(0.1 * torch.ones(3), manifold=geoopt.PoincareBall()),
        nn.Parameter(torch.ones(2)),
    ]
    for make in (RiemannianAdam, geoopt.optim.RiemannianAdam):
        optimizer = make(mixed, lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            sum(p.square().sum() + p.sum() for p in mixed).backward()
            optimizer.step()
        for p in mixed[:-1]:
            assert p.manifold.check_point_on_manifold(p.detach())


def test_what_is_off_a_manifold_of_geoopt_is_known():
    ball = as_manifold(geoopt.PoincareBall(c=4.0), "ball")
    inside = 0.3 * torch.eye(3)
    assert ball.check_point_on_manifold(inside) and ball.check_point_on_manifold(ball.projx(9 * inside))
    for bad, reason in ((2 * inside, r"max\|projx\(x\) - x\| = 0.1"), (torch.nan * inside, "NaN or infinite")):
        with pytest.raises(ValueError, match=reason):
            ball.assert_check_point_on_manifold(bad)
