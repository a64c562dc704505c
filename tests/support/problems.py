"""Optimization problems as one torch cost, for our solvers and for pymanopt's: the same start, the same minimum."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pymanopt
import torch
from torch import Tensor

from torchriemann.manifolds import Grassmann, ManifoldParameter, Sphere, Stiefel
from torchriemann.optim import RiemannianTrustRegion


@dataclasses.dataclass
class Problem:
    """`cost` of a point, a start, and the manifold in both libraries. The metrics agree: all are Euclidean."""

    name: str
    cost: Callable[[Tensor], Tensor]
    start: Tensor
    manifold: Any
    peer: Any


@dataclasses.dataclass
class Result:
    """What a solver did. `grad_norm` is computed from the cost, not taken from the solver."""

    iterations: int
    evaluations: int | None
    seconds: float
    grad_norm: float
    loss: float
    point: Tensor
    hessian_products: int | None = None


def _generator(seed: int) -> Callable[..., Tensor]:
    g = torch.Generator().manual_seed(seed)
    return lambda *size: torch.randn(*size, generator=g, dtype=torch.float64)


def _frame(noise: Tensor) -> Tensor:
    return torch.linalg.qr(noise)[0].contiguous()


def procrustes(seed: int) -> Problem:
    """min |A X - B|^2 over orthonormal frames, with A of condition about 10 and B = A X0 + noise."""
    randn = _generator(seed)
    n, p = 30, 5
    a = randn(40, n) * torch.linspace(1.0, 3.0, n, dtype=torch.float64)
    b = a @ _frame(randn(n, p)) + 0.5 * randn(40, p)

    def cost(x: Tensor) -> Tensor:
        return (a @ x - b).square().sum() / 40

    return Problem("Procrustes", cost, _frame(randn(n, p)), Stiefel(), pymanopt.manifolds.Stiefel(n, p))


def eigenspace(seed: int) -> Problem:
    """The subspace of the largest eigenvalues of a symmetric matrix: min -tr(X^T A X)/2."""
    randn = _generator(seed)
    n, p = 60, 4
    q = _frame(randn(n, n))
    spectrum = 0.93 ** torch.arange(n, dtype=torch.float64)
    matrix = q * spectrum @ q.T

    def cost(x: Tensor) -> Tensor:
        return -0.5 * (x * (matrix @ x)).sum()

    return Problem("eigenspace", cost, _frame(randn(n, p)), Grassmann(), pymanopt.manifolds.Grassmann(n, p))


def large_eigenspace(seed: int) -> Problem:
    """The same of a 1500 x 1500 matrix, whose product costs more than what a solver does beside it."""
    randn = _generator(seed)
    n, p = 1500, 8
    noise = randn(n, n) / n**0.5
    matrix = (noise + noise.T) / 2 + torch.diag(torch.linspace(0, 3, n, dtype=torch.float64))

    def cost(x: Tensor) -> Tensor:
        return -0.5 * (x * (matrix @ x)).sum()

    return Problem("large eigenspace", cost, _frame(randn(n, p)), Grassmann(), pymanopt.manifolds.Grassmann(n, p))


def sphere_mean(seed: int) -> Problem:
    """The Karcher mean of 50 points of a half sphere, weighted."""
    randn = _generator(seed)
    n = 10
    pole = torch.nn.functional.one_hot(torch.tensor(0), n).double()
    points = Sphere().projx(1.2 * pole + 0.6 * randn(50, n))
    points = points * points[:, :1].sign()
    weights = torch.softmax(randn(50), 0)

    def cost(x: Tensor) -> Tensor:
        return 0.5 * (weights * Sphere().dist2(x, points)).sum()

    start = points[0].clone()
    return Problem("mean on the sphere", cost, start, Sphere(), pymanopt.manifolds.Sphere(n))


def subspace_mean(seed: int) -> Problem:
    """The Karcher mean of 8 subspaces."""
    randn = _generator(seed)
    n, p = 12, 3
    centre = _frame(randn(n, p))
    points = torch.stack([_frame(centre + 0.2 * randn(n, p)) for _ in range(8)])

    def cost(x: Tensor) -> Tensor:
        return 0.5 * Grassmann().dist2(x, points).mean()

    return Problem("mean of subspaces", cost, points[0].clone(), Grassmann(), pymanopt.manifolds.Grassmann(n, p))


def completion(seed: int) -> Problem:
    """A matrix of rank 4 from 40 % of its entries, with noise: least squares over the column space alone, the
    coefficients eliminated (variable projection; Boumal and Absil 2015, doi 10.1016/j.laa.2015.02.027)."""
    randn = _generator(seed)
    m, n, r = 40, 60, 4
    truth = randn(m, r) @ randn(r, n) + 0.01 * randn(m, n)
    mask = (torch.rand(m, n, generator=torch.Generator().manual_seed(seed)) < 0.4).double()
    known = mask * truth
    ridge = 1e-3 * torch.eye(r, dtype=torch.float64)

    def cost(x: Tensor) -> Tensor:
        rows = mask.T.unsqueeze(-1) * x  # one least squares problem a column: n, m, r
        target = rows.mT @ known.T.unsqueeze(-1)
        coefficients = torch.linalg.solve(rows.mT @ rows + ridge, target)
        return 0.5 * (known.square().sum() - (target * coefficients).sum()) / n

    left = torch.linalg.svd(known)[0][:, :r].contiguous()  # the usual start
    return Problem("matrix completion", cost, left, Grassmann(), pymanopt.manifolds.Grassmann(m, r))


PROBLEMS = {f.__name__: f for f in (procrustes, eigenspace, sphere_mean, subspace_mean, completion)}


def gradient_norm(problem: Problem, x: Tensor) -> float:
    """Length of the Riemannian gradient: the part of the Euclidean gradient that is tangent."""
    x = x.detach().clone().requires_grad_()
    (g,) = torch.autograd.grad(problem.cost(x), x)
    return float(problem.manifold.proju(x.detach(), g).norm())


def solve(problem: Problem, optimizer_class: Any, *, second_order: bool = False, **options: Any) -> Result:
    """Run one of our solvers in one step."""
    x = ManifoldParameter(problem.start.clone(), problem.manifold)
    optimizer = optimizer_class([x], **options)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = problem.cost(x)
        if not second_order:
            loss.backward()
        return loss

    begin = time.perf_counter()
    optimizer.step(closure)
    seconds = time.perf_counter() - begin
    facts, end = optimizer.summary, x.detach().as_subclass(Tensor)
    return Result(
        facts["n_iter"],
        facts["func_evals"],
        seconds,
        gradient_norm(problem, end),
        float(problem.cost(end)),
        end,
        facts.get("n_hessian"),
    )


def solve_with_pymanopt(problem: Problem, name: str, *, tolerance: float, max_iter: int) -> Result:
    """Run a pymanopt solver with its default options from the same start, to the same gradient norm."""
    products, evaluations = [], []

    def counted(x: Tensor) -> Tensor:
        evaluations.append(0)
        return problem.cost(x)

    task = pymanopt.Problem(problem.peer, pymanopt.function.pytorch(problem.peer)(counted))
    second_order = name == "TrustRegions"
    if second_order:
        hessian: Any = task.riemannian_hessian

        def counted_hessian(x: np.ndarray, u: np.ndarray) -> np.ndarray:
            products.append(0)
            return hessian(x, u)

        task._riemannian_hessian = counted_hessian
    optimizer = getattr(pymanopt.optimizers, name)(
        min_gradient_norm=tolerance, max_iterations=max_iter, verbosity=0, min_step_size=0.0, max_cost_evaluations=10**9
    )
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        begin = time.perf_counter()
        result = optimizer.run(task, initial_point=problem.start.numpy().copy())
        seconds = time.perf_counter() - begin
    point = torch.from_numpy(np.ascontiguousarray(result.point))
    # Its conjugate gradients count the look at the start as an iteration, its trust regions do not.
    iterations = result.iterations - (name == "ConjugateGradient")
    return Result(
        iterations,
        len(evaluations),
        seconds,
        gradient_norm(problem, point),
        float(problem.cost(point)),
        point,
        len(products) if second_order else None,
    )


# ---- small things ---------------------------------------------------------------------------------------------


def noise(*size: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def closure_of(optimizer: Any, loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The closure that the optimizer asks for."""

    def closure():
        optimizer.zero_grad()
        value = loss()
        if not isinstance(optimizer, RiemannianTrustRegion):
            value.backward()
        return value

    return closure


def minimise(solver: Any, params: Any, loss: Callable[[], Tensor], **options: Any) -> Any:
    """One step of a new optimizer, which it returns."""
    optimizer = solver(params, **{"max_iter": 300, "tolerance_grad": 1e-9, **options})
    optimizer.step(closure_of(optimizer, loss))
    return optimizer


def sphere_parameter(
    n: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64, batch: tuple[int, ...] = ()
) -> ManifoldParameter:
    """Random points of the unit sphere."""
    return ManifoldParameter(Sphere().projx(noise(*batch, n, seed=seed, dtype=dtype)), Sphere())


def symmetric(n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """A random symmetric matrix."""
    a = noise(n, n, seed=seed, dtype=dtype)
    return a + a.T
