"""Full-batch solvers: the bars against pymanopt, closed forms, and torch and scipy in flat space."""

import geoopt
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch

from tests.support.problems import (
    PROBLEMS,
    closure_of,
    gradient_norm,
    minimise,
    noise,
    solve,
    solve_with_pymanopt,
    symmetric,
)
from torchriemann.manifolds import Euclidean, Grassmann, ManifoldParameter, Stiefel
from torchriemann.optim import RiemannianCG, RiemannianLBFGS, RiemannianTrustRegion, param_groups

FIRST_ORDER = {"lbfgs": RiemannianLBFGS, "cg": RiemannianCG}
SOLVERS = {**FIRST_ORDER, "trust_region": RiemannianTrustRegion}
every_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS.keys())
first_order = pytest.mark.parametrize("solver", FIRST_ORDER.values(), ids=FIRST_ORDER.keys())
every_problem = pytest.mark.parametrize("name", PROBLEMS)


# ---- the bars -------------------------------------------------------------------------------------------------


@every_problem
@pytest.mark.parametrize("seed", [0, 1])
def test_trust_region_needs_no_more_iterations_than_pymanopt(name, seed):
    problem = PROBLEMS[name](seed)
    ours = solve(problem, RiemannianTrustRegion, second_order=True, max_iter=100, tolerance_grad=1e-8)
    theirs = solve_with_pymanopt(problem, "TrustRegions", tolerance=1e-8, max_iter=100)
    assert ours.grad_norm < 1.01e-8
    assert ours.iterations <= theirs.iterations
    assert ours.loss <= theirs.loss + 1e-12 * abs(theirs.loss)


@every_problem
@pytest.mark.parametrize("transport", ["parallel", "retraction"])
def test_lbfgs_needs_no_more_iterations_than_pymanopts_conjugate_gradients(name, transport):
    problem = PROBLEMS[name](0)
    ours = solve(problem, RiemannianLBFGS, max_iter=400, tolerance_grad=1e-8, transport=transport)
    assert ours.grad_norm < 1.01e-8
    theirs = solve_with_pymanopt(problem, "ConjugateGradient", tolerance=1e-8, max_iter=ours.iterations)
    assert theirs.iterations == ours.iterations - 1 and theirs.grad_norm > 1e-8


@pytest.mark.parametrize("name", ["eigenspace", "sphere_mean", "completion"])
@pytest.mark.parametrize("rule", ["PR+", "FR", "HS+", "HZ"])
def test_conjugate_gradients_converge_by_every_rule(name, rule):
    ours = solve(PROBLEMS[name](0), RiemannianCG, max_iter=600, tolerance_grad=1e-8, beta_rule=rule)
    assert ours.grad_norm < 1.01e-8
    best = solve(PROBLEMS[name](0), RiemannianTrustRegion, second_order=True, max_iter=100, tolerance_grad=1e-9)
    assert ours.loss == pytest.approx(best.loss, rel=1e-10)


def test_conjugate_gradients_need_no_more_iterations_than_pymanopts():
    problem = PROBLEMS["procrustes"](1)
    ours = solve(problem, RiemannianCG, max_iter=400, tolerance_grad=1e-8, transport="retraction")
    assert ours.grad_norm < 1.01e-8
    theirs = solve_with_pymanopt(problem, "ConjugateGradient", tolerance=1e-8, max_iter=ours.iterations)
    assert theirs.grad_norm > 1e-8


@every_problem
def test_trust_region_converges_quadratically_to_rounding(name):
    problem = PROBLEMS[name](2)
    x = ManifoldParameter(problem.start.clone(), problem.manifold)
    optimizer = RiemannianTrustRegion([x], max_iter=1, tolerance_grad=1e-13)
    norms = [gradient_norm(problem, x)]
    while norms[-1] > 1e-10:
        optimizer.step(closure_of(optimizer, lambda: problem.cost(x)))
        norms.append(gradient_norm(problem, x))
        assert len(norms) < 40
    # The last two steps gain what a linear method would need many for.
    assert norms[-1] < 1e-3 * norms[-2] < 1e-4 * norms[-3]


def test_finite_difference_hessian_follows_the_exact_one():
    problem = PROBLEMS["completion"](0)
    exact = solve(problem, RiemannianTrustRegion, second_order=True, max_iter=50, tolerance_grad=1e-8)
    options = {"hessian": "finite_difference", "tolerance_grad": 1e-8}
    approximate = solve(problem, RiemannianTrustRegion, second_order=True, max_iter=50, **options)
    assert abs(approximate.iterations - exact.iterations) <= 1 and approximate.grad_norm < 1e-8
    assert approximate.evaluations == approximate.iterations + 1 + approximate.hessian_products


# ---- closed forms ---------------------------------------------------------------------------------------------


@every_solver
def test_subspace_of_the_largest_eigenvalues(solver):
    a = symmetric(12)
    x = ManifoldParameter(Grassmann().projx(noise(12, 3, seed=1)), Grassmann())
    minimise(solver, [x], lambda: -0.5 * (x * (a @ x)).sum())
    vectors = np.linalg.eigh(a.numpy())[1][:, -3:]
    assert np.abs(x.detach().numpy() @ x.detach().numpy().T - vectors @ vectors.T).max() < 1e-8


@every_solver
@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_orthogonal_procrustes(solver, beta):
    """p = n: the rotation between two clouds, which scipy knows in closed form."""
    a, b = noise(20, 4), noise(20, 4, seed=1)
    best, _ = scipy.linalg.orthogonal_procrustes(a.numpy(), b.numpy())
    start = torch.eye(4, dtype=torch.float64)
    start[0, 0] = np.sign(np.linalg.det(best))
    x = ManifoldParameter(start, Stiefel(beta))
    minimise(solver, [x], lambda: (a @ x - b).square().sum() / 20)
    assert np.abs(x.detach().numpy() - best).max() < 1e-8


@every_solver
def test_low_rank_factors_on_manifolds_and_flat_core_together(solver):
    """U S V^T with U, V on Stiefel and S flat is the truncated singular value decomposition (Eckart and Young)."""

    class Factors(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.left = ManifoldParameter(Stiefel().projx(noise(9, 2)), Stiefel())
            self.right = ManifoldParameter(Stiefel().projx(noise(7, 2, seed=1)), Stiefel())
            self.core = torch.nn.Parameter(noise(2, 2, seed=2))
            self.shift = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))

    target, model = noise(9, 7, seed=3), Factors()
    groups = param_groups(model)
    assert len(groups) == 2

    def loss():
        square = (model.left @ model.core @ model.right.T - target).square().sum()
        return square + (model.shift - 2).square().sum()

    # The core makes the factors ambiguous: the Hessian is singular along a group, not positive definite.
    optimizer = minimise(solver, groups, loss, tolerance_grad=1e-8)
    assert optimizer.summary["stop_reason"] == "tolerance_grad"
    best = np.square(np.linalg.svd(target.numpy())[1][2:]).sum()
    assert abs(loss().item() - best) < 1e-10 and (model.shift - 2).abs().max() < 1e-8


# ---- flat space -----------------------------------------------------------------------------------------------


def test_quadratic_in_flat_space_as_torch():
    a = symmetric(8) @ symmetric(8) / 8 + torch.eye(8, dtype=torch.float64)
    b = noise(8, seed=1)
    ours, theirs = (torch.nn.Parameter(torch.zeros(8, dtype=torch.float64)) for _ in range(2))
    mine = minimise(RiemannianLBFGS, [ours], lambda: 0.5 * ours @ a @ ours - b @ ours)
    other = torch.optim.LBFGS(
        [theirs], max_iter=300, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe"
    )
    other.step(closure_of(other, lambda: 0.5 * theirs @ a @ theirs - b @ theirs))
    assert (ours - theirs).abs().max() < 1e-8
    assert mine.summary["func_evals"] <= other.state[theirs]["func_evals"] + 3


def test_fixed_step_follows_torch_to_rounding():
    """Without a line search, and with the first step of torch, the iterates are torch's."""
    a = torch.diag(torch.linspace(0.5, 2, 5, dtype=torch.float64))
    start = 0.05 * noise(5)  # the first step is |grad|_1 there and |grad|_2 here, unless both are small
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    options = {"lr": 0.7, "max_iter": 3, "history_size": 4, "tolerance_grad": 0}
    mine = RiemannianLBFGS([ours], line_search_fn=None, **options)
    other = torch.optim.LBFGS([theirs], tolerance_change=0, max_eval=100, **options)
    for _ in range(2):
        mine.step(closure_of(mine, lambda: 0.5 * ours @ a @ ours))
        other.step(closure_of(other, lambda: 0.5 * theirs @ a @ theirs))
        assert (ours - theirs).abs().max() < 1e-12
    assert mine.summary["func_evals"] == other.state[theirs]["func_evals"] == 6


@every_solver
@pytest.mark.parametrize("manifold", [None, Euclidean(), geoopt.Euclidean(ndim=1)], ids=["none", "ours", "geoopt"])
def test_rosenbrock(solver, manifold):
    x = torch.nn.Parameter(torch.tensor([-1.2, 1.0, -0.5, 0.8], dtype=torch.float64))

    def loss():
        return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()

    optimizer = minimise(solver, [{"params": [x], "manifold": manifold}], loss)
    assert (x - 1).abs().max() < 1e-8
    start = np.array([-1.2, 1.0, -0.5, 0.8])
    options = {"gtol": 1e-9, "ftol": 0}
    peer = scipy.optimize.minimize(
        scipy.optimize.rosen, start, jac=scipy.optimize.rosen_der, method="L-BFGS-B", options=options
    )
    if solver is RiemannianLBFGS:
        assert optimizer.summary["func_evals"] <= peer.nfev
