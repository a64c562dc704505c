"""Full-batch solvers in use: other manifolds and dtypes, what may go wrong, and torch's conventions."""

import copy
import io
import pickle

import geoopt
import numpy as np
import pytest
import torch

from tests.support.problems import (
    closure_of,
    minimise,
    noise,
    sphere_parameter,
    symmetric,
)
from torchriemann.manifolds import Euclidean, ManifoldParameter, Product, Sphere, Stiefel
from torchriemann.optim import RiemannianCG, RiemannianLBFGS, RiemannianSGD, RiemannianTrustRegion
from torchriemann.optim.solvers.product_point import LinAlgError

FIRST_ORDER = {"lbfgs": RiemannianLBFGS, "cg": RiemannianCG}
SOLVERS = {**FIRST_ORDER, "trust_region": RiemannianTrustRegion}
every_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS.keys())
first_order = pytest.mark.parametrize("solver", FIRST_ORDER.values(), ids=FIRST_ORDER.keys())


@every_solver
def test_one_batched_parameter_is_the_same_point_as_many(solver):
    a = symmetric(5)
    target = noise(4, 5, seed=3)
    batched = sphere_parameter(5, seed=2, batch=(4,))
    single = [ManifoldParameter(row.clone(), Sphere()) for row in batched.detach()]

    def loss(x):
        return 0.5 * ((x @ a) * x).sum() + (target * x).sum()

    one = minimise(solver, [batched], lambda: loss(batched))
    many = minimise(solver, single, lambda: loss(torch.stack(single)))
    assert one.summary["n_iter"] == many.summary["n_iter"]
    assert (batched - torch.stack(single)).abs().max() < 1e-9


@every_solver
@pytest.mark.parametrize("manifold", [geoopt.Sphere(), geoopt.EuclideanStiefel()], ids=["sphere", "stiefel"])
def test_geoopts_manifolds(solver, manifold):
    a = symmetric(6)
    shape = (6,) if isinstance(manifold, geoopt.Sphere) else (6, 1)
    x = geoopt.ManifoldParameter(manifold.random(*shape, dtype=torch.float64), manifold=manifold)
    options = {"hessian": "finite_difference"} if solver is RiemannianTrustRegion else {}
    minimise(solver, [x], lambda: x.reshape(-1) @ a @ x.reshape(-1), tolerance_grad=1e-8, **options)
    x = x.detach()
    assert float(x.reshape(-1) @ a @ x.reshape(-1)) == pytest.approx(np.linalg.eigvalsh(a.numpy())[0], abs=1e-12)
    assert abs(x.norm().item() - 1) < 1e-12


def test_a_point_of_the_ball_where_the_metric_is_not_the_identity():
    """The mean of points of hyperbolic space, by geoopt's distance, has logarithms that balance."""
    ball = geoopt.PoincareBall()
    points = 0.3 * noise(7, 3)
    for solver in FIRST_ORDER.values():
        x = geoopt.ManifoldParameter(torch.full((3,), 0.3, dtype=torch.float64), manifold=ball)
        minimise(solver, [x], lambda x=x: ball.dist2(x, points).sum() / 7)
        assert ball.logmap(x, points).sum(0).abs().max() < 1e-7


@every_solver
def test_float32(solver):
    a = symmetric(6, dtype=torch.float32)
    x = sphere_parameter(dtype=torch.float32)
    optimizer = minimise(solver, [x], lambda: x @ a @ x, tolerance_grad=1e-4)
    lowest = np.linalg.eigvalsh(a.numpy())[0]
    assert optimizer.summary["grad_norm"] <= 1e-4 and optimizer.summary["loss"] == pytest.approx(lowest, rel=1e-5)
    optimizer = minimise(solver, [x], lambda: x @ a @ x, tolerance_grad=0.0)  # ends by itself, at rounding
    assert optimizer.summary["loss"] == pytest.approx(lowest, rel=1e-6)
    assert x.dtype == torch.float32 and abs(x.norm().item() - 1) < 1e-6


@every_solver
def test_mixed_dtypes(solver):
    x, y = sphere_parameter(dtype=torch.float32), torch.nn.Parameter(noise(3))
    a = symmetric(6)
    minimise(solver, [x, y], lambda: x.double() @ a @ x.double() + (y - 1).square().sum(), tolerance_grad=1e-4)
    assert (y - 1).abs().max() < 1e-4 and x.dtype == torch.float32 and y.dtype == torch.float64


# ---- what may go wrong ----------------------------------------------------------------------------------------


@every_solver
def test_steps_stay_out_of_a_region_without_values(solver):
    x = torch.nn.Parameter(torch.tensor([0.9, 0.1], dtype=torch.float64))

    def loss():
        return 1e3 * x[0] - x[0].log() + (x[1] - 3).square()  # a wall of NaN at x_0 = 0, the minimum 1e-3 before it

    minimise(solver, [x], loss, tolerance_grad=1e-6)
    assert x[0].item() == pytest.approx(1e-3, rel=1e-6) and x[1].item() == pytest.approx(3, rel=1e-6)


@every_solver
def test_a_failing_factorisation_shortens_the_step(solver):
    x = torch.nn.Parameter(torch.tensor([0.0, 0.0], dtype=torch.float64))
    failures = []

    def loss():
        matrix = torch.eye(2, dtype=torch.float64) - torch.diag(x * torch.tensor([3.0, 1.0]))
        try:
            torch.linalg.cholesky(matrix.detach())
        except LinAlgError:
            failures.append(1)
            raise
        return -torch.logdet(matrix) - 30 * x[0]

    options = {"delta0": 4.0, "delta_bar": 4.0} if solver is RiemannianTrustRegion else {"lr": 4.0}
    minimise(solver, [{"params": [x]}], lambda: loss() + x[1].square(), **options)
    assert failures and x[0].item() == pytest.approx(0.3, abs=1e-8)  # 3/(1 - 3 x) = 30


@first_order
def test_a_gradient_that_lies_moves_nothing(solver):
    x = torch.nn.Parameter(noise(6))
    before = x.detach().clone()
    optimizer = solver([x], max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = x.square().sum()
        (-loss).backward()
        return loss

    optimizer.step(closure)
    assert torch.equal(x, before) and optimizer.summary["stop_reason"] == "line_search"
    assert optimizer.summary["n_iter"] == 0


@every_solver
def test_an_error_in_the_closure_leaves_the_last_good_point(solver):
    x, a, calls, seen = sphere_parameter(), symmetric(6), [], []

    def loss():
        calls.append(1)
        if len(calls) == 5:
            raise KeyError("interrupted")
        seen.append(x.detach().clone())
        return x @ a @ x

    optimizer = solver([x], max_iter=50)
    with pytest.raises(KeyError, match="interrupted"):
        optimizer.step(closure_of(optimizer, loss))
    assert any(torch.equal(x, y) for y in seen)
    end = x.detach()
    assert (end @ a @ end).item() == min((y @ a @ y).item() for y in seen) == optimizer.summary["loss"]


@first_order
def test_limits_are_kept(solver):
    def run(**options):
        x, a = sphere_parameter(), symmetric(6)
        optimizer = minimise(solver, [x], lambda: x @ a @ x, **options)
        return optimizer.summary, (x @ a @ x).item()

    facts, after = run(max_iter=3)
    assert facts["n_iter"] == 3 and facts["stop_reason"] == "max_iter" and after == facts["loss"]
    facts, after = run(max_eval=4)
    assert facts["func_evals"] == 4 and facts["stop_reason"] == "max_eval" and after == facts["loss"]
    facts, _ = run(max_eval=1)
    assert facts["n_iter"] == 0 and facts["stop_reason"] == "max_eval"
    assert run(tolerance_change=1e-2)[0]["stop_reason"] == "tolerance_change"
    assert run(tolerance_grad=1e3)[0]["func_evals"] == 1


def test_limits_of_the_trust_region_are_kept():
    a = symmetric(6)
    for option, value in (("max_iter", 2), ("max_eval", 3), ("tolerance_change", 0.5)):
        x = sphere_parameter()
        optimizer = minimise(RiemannianTrustRegion, [x], lambda x=x: x @ a @ x, **{option: value})
        assert optimizer.summary["stop_reason"] == option


@every_solver
def test_rounding_ends_a_run_without_tolerances(solver):
    x, a = sphere_parameter(), symmetric(6)
    optimizer = minimise(solver, [x], lambda: x @ a @ x + 100, tolerance_grad=0.0, tolerance_change=0.0, max_iter=500)
    facts = optimizer.summary
    assert facts["grad_norm"] < 1e-10 and facts["n_iter"] < 500 and facts["func_evals"] < 1500


def test_trust_region_leaves_rejected_points():
    """A first radius that is far too long: rejections put the parameters back, and the graph there is used again."""
    x = torch.nn.Parameter(torch.tensor([1.5], dtype=torch.float64))
    optimizer = minimise(RiemannianTrustRegion, [x], lambda: (x**4 / 4 - x**2).sum(), delta0=50.0, delta_bar=50.0)
    assert x.item() == pytest.approx(2**0.5, abs=1e-9)
    y = torch.nn.Parameter(torch.tensor([0.1], dtype=torch.float64))  # negative curvature: to the radius and back
    optimizer = minimise(RiemannianTrustRegion, [y], lambda: (y**4 / 4 - y**2).sum(), delta0=50.0, delta_bar=50.0)
    assert abs(y.item()) == pytest.approx(2**0.5, abs=1e-9)
    assert optimizer.summary["func_evals"] == optimizer.summary["n_iter"] + 1


def test_trust_region_of_a_linear_loss_and_of_unused_parameters():
    x, idle = sphere_parameter(), torch.nn.Parameter(torch.ones(2))
    b = noise(6, seed=4)
    minimise(RiemannianTrustRegion, [x, idle], lambda: b @ x)
    assert (x + b / b.norm()).abs().max() < 1e-8 and torch.equal(idle, torch.ones(2))


# ---- torch's conventions --------------------------------------------------------------------------------------


def anisotropic():
    """Parameters, a frame and a vector, and a loss that takes some tens of iterations."""
    x = ManifoldParameter(Stiefel().projx(noise(10, 2)), Stiefel())
    y = torch.nn.Parameter(noise(4, seed=1))
    return [x, y], lambda: anisotropic_loss(x, y)


def anisotropic_loss(x, y):
    stretched = torch.linspace(1, 30, 10, dtype=torch.float64).unsqueeze(-1) * x
    weights = torch.tensor([1.0, 2.0], dtype=torch.float64)
    return (x * stretched * weights).sum() + y.pow(4).sum() + (x[:4, 0] - y).square().sum()


@every_solver
@pytest.mark.parametrize("how", ["same", "state_dict", "file", "deepcopy", "pickle"])
def test_several_steps_continue_where_the_last_ended(solver, how):
    options = {"max_iter": 6, "tolerance_grad": 0.0}
    whole, loss = anisotropic()
    minimise(solver, whole, loss, **{**options, "max_iter": 12})
    params, loss = anisotropic()
    optimizer = minimise(solver, params, loss, **options)
    if how in ("state_dict", "file"):
        state = optimizer.state_dict()
        if how == "file":
            file = io.BytesIO()
            torch.save(state, file)
            file.seek(0)
            state = torch.load(file, weights_only=True)
        optimizer = solver(params)
        optimizer.load_state_dict(state)
    elif how == "deepcopy":
        optimizer, params = copy.deepcopy((optimizer, params))
    elif how == "pickle":
        optimizer, params = pickle.loads(pickle.dumps((optimizer, params)))
    optimizer.step(closure_of(optimizer, lambda: anisotropic_loss(*params)))
    assert optimizer.summary["n_iter"] == 12
    for p, q in zip(params, whole, strict=True):
        assert (p - q).abs().max() < 1e-9


def test_the_state_of_another_solver_gives_what_both_know():
    params, loss = anisotropic()
    state = minimise(RiemannianCG, params, loss, max_iter=4, tolerance_grad=0.0).state_dict()
    optimizer = RiemannianLBFGS(params, history_size=7)
    optimizer.load_state_dict(state)
    optimizer.step(closure_of(optimizer, loss))
    assert optimizer.summary["n_iter"] == 8 and optimizer.param_groups[0]["history_size"] == 7


@first_order
def test_memory_is_plain_tensors_of_the_parameters_shape(solver):
    params, loss = anisotropic()
    optimizer = minimise(solver, params, loss, max_iter=8, tolerance_grad=0.0)
    for p in params:
        rows = [t for t in optimizer.state[p].values() if isinstance(t, torch.Tensor)]
        assert rows and all(t.shape[1:] == p.shape and type(t) is torch.Tensor for t in rows)
    if solver is RiemannianLBFGS:
        assert len(optimizer.state[params[0]]["old_steps"]) == 7  # the eighth waits for its gradient


def test_history_size_is_kept():
    params, loss = anisotropic()
    optimizer = minimise(RiemannianLBFGS, params, loss, max_iter=15, tolerance_grad=0.0, history_size=3)
    assert len(optimizer.state[params[0]]["old_steps"]) == 3


@every_solver
def test_returns_the_first_loss_and_keeps_a_summary(solver):
    x, a = sphere_parameter(), symmetric(6)
    first = (x @ a @ x).item()
    optimizer = solver([x], max_iter=100)
    assert optimizer.summary == {}
    loss = optimizer.step(closure_of(optimizer, lambda: x @ a @ x))
    assert loss.item() == first
    facts = optimizer.summary
    assert facts["loss"] == pytest.approx((x @ a @ x).item(), rel=1e-14) and facts["stop_reason"] == "tolerance_grad"
    assert ("n_hessian" in facts) == (solver is RiemannianTrustRegion)
    saved = optimizer.state_dict()["state"][0]
    assert all(saved[name] == value for name, value in facts.items() if name != "stop_reason")


@every_solver
def test_frozen_parameters_stay(solver):
    x, a = sphere_parameter(), symmetric(6)
    frozen = ManifoldParameter(Sphere().projx(noise(6, seed=8)), Sphere(), requires_grad=False)
    before = frozen.clone()
    minimise(solver, [x, frozen], lambda: x @ a @ x + x @ frozen)
    assert torch.equal(frozen, before)


@first_order
def test_sparse_gradients(solver):
    table = torch.nn.Embedding(5, 3, sparse=True, dtype=torch.float64)
    target = noise(2, 3, seed=2)
    minimise(solver, table.parameters(), lambda: (table(torch.tensor([1, 4])) - target).square().sum())
    assert (table.weight[[1, 4]] - target).abs().max() < 1e-8


def test_errors_of_construction():
    x = sphere_parameter()
    for solver, options, message in (
        (RiemannianLBFGS, {"max_iter": 0}, "max_iter must be a positive integer, got 0"),
        (RiemannianLBFGS, {"history_size": 0}, "history_size must be positive"),
        (RiemannianLBFGS, {"line_search_fn": "armijo"}, "line_search_fn must be 'strong_wolfe' or None"),
        (RiemannianLBFGS, {"transport": "none"}, "transport must be one of"),
        (RiemannianLBFGS, {"lr": -1.0}, "lr must be in"),
        (RiemannianCG, {"lr": 0.0}, "lr must be positive"),
        (RiemannianCG, {"beta_rule": "PR"}, "beta_rule must be one of"),
        (RiemannianCG, {"tolerance_grad": -1.0}, "tolerance_grad must be not negative"),
        (RiemannianTrustRegion, {"rho_prime": 0.3}, "rho_prime must be in"),
        (RiemannianTrustRegion, {"delta_bar": 0.0}, "delta_bar must be positive"),
        (RiemannianTrustRegion, {"hessian": "exact"}, "hessian must be one of"),
        (RiemannianTrustRegion, {"max_inner": 0}, "max_inner must be a positive integer"),
    ):
        with pytest.raises(ValueError, match=f"{solver.__name__}: {message}"):
            solver([x], **options)


@every_solver
def test_errors_of_groups(solver):
    x, y = sphere_parameter(), torch.nn.Parameter(noise(3))
    with pytest.raises(ValueError, match="max_iter is 20 in one group and 7 in another"):
        solver([{"params": [x]}, {"params": [y], "max_iter": 7}])
    with pytest.raises(ValueError, match="maximize=True is not supported"):
        solver([{"params": [x], "maximize": True}])
    optimizer = solver([x])
    with pytest.raises(ValueError, match="labelled"):
        optimizer.add_param_group({"params": [sphere_parameter()], "manifold": Sphere(2.0)})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": [y]})
    a = symmetric(6)
    optimizer.step(closure_of(optimizer, lambda: x @ a @ x + y.square().sum()))
    assert y.abs().max() < 1e-6
    with pytest.raises(ValueError, match="float32 or float64"):
        half = torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
        minimise(solver, [half], lambda: half.square().sum())
    with pytest.raises(ValueError, match="nothing to optimize"):
        minimise(solver, [torch.nn.Parameter(torch.zeros(2), requires_grad=False)], lambda: torch.zeros(()))
    other = solver([ManifoldParameter(x.detach(), Sphere())])
    other.param_groups[0]["params"][0].manifold = None
    with pytest.raises(ValueError, match="lost its label"):
        other.step(closure_of(other, lambda: x @ a @ x))


@every_solver
def test_errors_of_states(solver):
    x = sphere_parameter()
    state = solver([torch.nn.Parameter(noise(6))]).state_dict()
    with pytest.raises(ValueError, match="saved on None, but the parameter is on Sphere"):
        solver([x]).load_state_dict(state)


@every_solver
def test_errors_of_closures(solver):
    x = sphere_parameter()
    with pytest.raises(ValueError, match="step needs a closure"):
        solver([x]).step(None)
    with pytest.raises(ValueError, match="must return the loss, a scalar, got a tensor of shape"):
        solver([x]).step(lambda: x * x)
    with pytest.raises(ValueError, match="must return the loss, a scalar, got NoneType"):
        solver([x]).step(lambda: None)
    with pytest.raises(ValueError, match="not finite at the starting point"):
        minimise(solver, [x], lambda: (x * torch.nan).sum())


def test_errors_of_closures_about_the_graph():
    x = sphere_parameter()
    with pytest.raises(ValueError, match=r"the closure must call loss.backward\(\)"):
        RiemannianLBFGS([x]).step(lambda: x.square().sum())
    optimizer = RiemannianTrustRegion([x])

    def backward():
        loss = x.exp().sum()
        loss.backward()
        return loss

    with pytest.raises(ValueError, match=r"without calling backward\(\)"):
        optimizer.step(backward)
    with pytest.raises(ValueError, match="loss with its graph"):
        optimizer.step(lambda: x.exp().sum().item())
    with pytest.raises(NotImplementedError, match="hessian='finite_difference'"):
        point = geoopt.ManifoldParameter(x.detach().clone(), manifold=geoopt.Sphere())
        minimise(RiemannianTrustRegion, [point], lambda: point.exp().sum())


@first_order
def test_one_iteration_a_step_keeps_the_memory(solver):
    """Forty steps of one iteration are one step of forty, but for an evaluation at the start of each."""
    a = symmetric(8)

    def steps(count, max_iter):
        x = sphere_parameter(8, seed=4)
        optimizer = solver([x], max_iter=max_iter, tolerance_grad=1e-9, tolerance_change=0.0)
        for _ in range(count):
            optimizer.step(closure_of(optimizer, lambda: x @ a @ x))
        return x.detach(), optimizer.summary

    one, many = steps(40, 1), steps(1, 40)
    assert one[1]["grad_norm"] <= 1e-9 and one[1]["n_iter"] <= many[1]["n_iter"] + 3
    torch.testing.assert_close(one[0], many[0], rtol=0.0, atol=1e-8)


@every_solver
def test_points_of_products(solver):
    """Every factor is solved for: the ends of a spectrum, and a flat minimum."""
    a = symmetric(5)
    product = Product((Sphere(), Stiefel(), Euclidean()), ((5,), (5, 1), (2,)))
    z = ManifoldParameter(
        product.random(product.size, generator=torch.Generator().manual_seed(1), dtype=a.dtype), product
    )

    def loss():
        x, y, w = product.split(z)
        return x @ a @ x - (y.mT @ a @ y).sum() + (w - 1).square().sum()

    minimise(solver, [z], loss, tolerance_grad=1e-8)
    x, y, w = product.split(z.detach())
    low, high = np.linalg.eigvalsh(a.numpy())[[0, -1]]
    assert float(x @ a @ x) == pytest.approx(low, abs=1e-12)
    assert float((y.mT @ a @ y).sum()) == pytest.approx(high, abs=1e-12)
    torch.testing.assert_close(w, torch.ones_like(w), rtol=0.0, atol=1e-7)


@every_solver
@pytest.mark.parametrize("other", [RiemannianSGD, torch.optim.Adam, torch.optim.LBFGS])
def test_the_state_of_any_optimizer_leaves_the_options_complete(solver, other):
    a = symmetric(5)
    x, y = sphere_parameter(5), sphere_parameter(5)
    x.grad = torch.ones_like(x)
    source = other([x], lr=0.1)
    optimizer = solver([y], max_iter=100, tolerance_grad=1e-8)
    optimizer.load_state_dict(source.state_dict())
    before = float(y.detach() @ a @ y.detach())
    optimizer.step(closure_of(optimizer, lambda: y @ a @ y))
    assert optimizer.summary["n_iter"] > 1 and float(y.detach() @ a @ y.detach()) < before


def test_a_trust_region_that_collapsed_opens_again():
    """At tolerance zero a step ends when rounding has shrunk the radius; the next one may see another loss."""
    a, b = symmetric(6), symmetric(6, seed=1)
    x = sphere_parameter(6)
    optimizer = RiemannianTrustRegion([x], max_iter=200, tolerance_grad=0.0)
    optimizer.step(closure_of(optimizer, lambda: x @ a @ x))
    optimizer.step(closure_of(optimizer, lambda: x @ b @ x))
    assert float(x.detach() @ b @ x.detach()) == pytest.approx(np.linalg.eigvalsh(b.numpy())[0], abs=1e-12)
    with pytest.raises(ValueError, match="delta0 must not exceed delta_bar"):
        RiemannianTrustRegion([x], delta_bar=0.01, delta0=1.0)


@first_order
def test_without_a_line_search_the_last_loss_is_not_known(solver):
    a, x = symmetric(5), sphere_parameter(5)
    optimizer = solver([x], lr=0.01, max_iter=3, line_search_fn=None)
    optimizer.step(closure_of(optimizer, lambda: x @ a @ x))
    assert optimizer.summary["n_iter"] == 3 and np.isnan(optimizer.summary["loss"])


@first_order
def test_a_large_offset_hides_no_rise(solver):
    p = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = solver([p], max_iter=1)
    optimizer.step(
        closure_of(optimizer, lambda: (1e12 - p + 9 * torch.sigmoid(40 * (p - 0.6)) + torch.relu(p - 0.9)).sum())
    )
    assert optimizer.summary["loss"] <= 1e12


@every_solver
def test_gradients_whose_squares_are_no_numbers_are_refused(solver):
    for size in (1e25, 1e-30):
        x = sphere_parameter(4, dtype=torch.float32)
        optimizer = solver([x], tolerance_grad=0.0)
        with pytest.raises(ValueError, match="the square of the gradient's length.*scale the loss"):
            optimizer.step(closure_of(optimizer, lambda x=x, size=size: size * (x * torch.arange(4.0)).sum()))


@every_solver
def test_a_step_needs_a_closure(solver):
    with pytest.raises(ValueError, match="step needs a closure"):
        solver([sphere_parameter(3)]).step()


def test_a_loss_of_no_parameter_is_refused():
    with pytest.raises(ValueError, match="depends on no parameter"):
        RiemannianTrustRegion([sphere_parameter(3)]).step(lambda: 1 * torch.tensor(1.0, requires_grad=True))
