"""Left: gradient against evaluations for every optimizer. Right: the landing algorithm's distance from the manifold."""

from typing import Any

import torch
from common import BLUE, GREEN, GREY, ORANGE, PINK, RED, panels, save
from torch import Tensor

from torchriemann.manifolds import Grassmann, ManifoldParameter, Stiefel
from torchriemann.optim import (
    LandingSGD,
    RiemannianAdam,
    RiemannianCG,
    RiemannianLBFGS,
    RiemannianSGD,
    RiemannianTrustRegion,
)

M = Grassmann()


def covariance() -> Tensor:
    """64 features whose variances fall by a factor of 200."""
    q = Stiefel().random(64, 64, generator=torch.Generator().manual_seed(0))
    return q * torch.logspace(0, -2.3, 64) @ q.mT


C = covariance()


def start(m) -> ManifoldParameter:
    return ManifoldParameter(m.random(64, 5, generator=torch.Generator().manual_seed(1)), m)


def loss(x: Tensor) -> Tensor:
    return -0.5 * (x * (C @ x)).sum()


def gradient(x: Tensor) -> float:
    return float(M.norm(x.detach(), M.egrad2rgrad(x.detach(), -C @ x.detach())))


def first_order(make, steps: int) -> tuple[list[int], list[float]]:
    """Gradient lengths of an optimizer that steps once an evaluation."""
    x = start(M)
    optimizer = make(x)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    lengths = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss(x).backward()
        lengths.append(gradient(x))
        optimizer.step()
        schedule.step()
    return list(range(1, steps + 1)), lengths


def solver(make, iterations: range, backward: bool) -> tuple[list[int], list[float]]:
    """Gradient lengths after 1, 2, ... iterations from the start, with the evaluations and Hessian products so far."""
    evaluations, lengths = [], []
    for most in iterations:
        x = start(M)
        optimizer = make(x, most)

        def closure(x=x, optimizer=optimizer):
            optimizer.zero_grad()
            value = loss(x)
            if backward:
                value.backward()
            return value

        optimizer.step(closure)
        evaluations.append(optimizer.summary["func_evals"] + optimizer.summary.get("n_hessian", 0))
        lengths.append(max(gradient(x), 1e-17))
        if optimizer.summary["stop_reason"] == "tolerance_grad":
            break
    return evaluations, lengths


def convergence(axes) -> None:
    """All solvers from one starting point."""
    exact: dict[str, Any] = {"tolerance_grad": 1e-12, "tolerance_change": 0.0}
    few = range(2, 140, 3)
    runs = {
        "RiemannianSGD, momentum": (GREY, ":", first_order(lambda x: RiemannianSGD([x], lr=1.0, momentum=0.9), 300)),
        "RiemannianAdam": (ORANGE, "--", first_order(lambda x: RiemannianAdam([x], lr=0.1), 300)),
        "RiemannianCG": (GREEN, "-", solver(lambda x, n: RiemannianCG([x], max_iter=n, **exact), few, True)),
        "RiemannianLBFGS": (BLUE, "-", solver(lambda x, n: RiemannianLBFGS([x], max_iter=n, **exact), few, True)),
        "RiemannianTrustRegion": (
            PINK,
            "-.",
            solver(lambda x, n: RiemannianTrustRegion([x], max_iter=n, **exact), range(1, 20), False),
        ),
    }
    for name, (colour, style, (evaluations, lengths)) in runs.items():
        axes.semilogy(evaluations, lengths, color=colour, ls=style, label=name)
    axes.set(xlabel="evaluations", ylabel="length of the gradient", xlim=(0, 300), ylim=(1e-14, 1))
    axes.set_title("A principal subspace, Grassmann(64, 5)")
    axes.legend(fontsize=8, loc="upper right")


def landing(axes) -> None:
    """Distance from the manifold along training."""
    m = Stiefel()
    for name, colour, make in (
        ("LandingSGD, lr 0.5", RED, lambda x: LandingSGD([x], lr=0.5)),
        ("LandingSGD, lr 0.1", ORANGE, lambda x: LandingSGD([x], lr=0.1)),
        ("RiemannianSGD, lr 0.5", BLUE, lambda x: RiemannianSGD([x], lr=0.5)),
    ):
        x = start(m)
        optimizer, off = make(x), []
        for _ in range(600):
            optimizer.zero_grad()
            loss(x).backward()
            optimizer.step()
            point = x.detach()
            off.append(max(float((point.mT @ point - torch.eye(5)).norm()), 1e-17))
        axes.semilogy(off, color=colour, label=name)
    axes.set(xlabel="steps", ylabel="|x^T x - I|")
    axes.set_title("The same subspace as a frame, Stiefel(64, 5)")
    axes.legend(fontsize=9)


def main() -> None:
    figure, (left, right) = panels(2)
    convergence(left)
    landing(right)
    save(figure, "optimizers")


if __name__ == "__main__":
    main()
