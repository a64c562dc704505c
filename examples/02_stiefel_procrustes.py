"""Two classical problems with orthonormal unknowns, solved by descent and held against their closed forms.

PCA: the plane of dimension 5 that keeps most of the variance of the digits (closed form: eigenvectors). Procrustes: the
orthogonal matrix that aligns two views of the digits, the images and a turned, noisy copy (closed form: a singular
value decomposition). Nobody needs an optimizer for either; they show that ours arrives where the answer is known.

    python examples/02_stiefel_procrustes.py [--quick]
"""

# %%
import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from scipy.ndimage import rotate
from sklearn.datasets import load_digits
from torch import Tensor
from tqdm import tqdm

from torchriemann.manifolds import Grassmann, ManifoldParameter, Stiefel
from torchriemann.optim import RiemannianAdam, RiemannianSGD

FIGURE = Path(__file__).parent / "figures" / "02_stiefel_procrustes.png"
STEPS = 400
SHOWN = (1, 3, 10, 30, 100, 200, 400)

OPTIMIZERS = {
    "RSGD": lambda x, sgd, _: RiemannianSGD([x], lr=sgd, momentum=0.9),
    "RAdam": lambda x, _, adam: RiemannianAdam([x], lr=adam),
}


@dataclass
class Problem:
    """A loss to minimise from a starting frame, its least value, and the step sizes of RSGD and RAdam."""

    loss: Callable[[Tensor], Tensor]
    start: Tensor
    least: float
    learning_rates: tuple[float, float]


# %% The data, in double precision


def views() -> tuple[Tensor, Tensor]:
    """The digits, and the same turned by 20 degrees with noise of a tenth of the largest pixel."""
    images = torch.as_tensor(load_digits(return_X_y=True)[0]).unflatten(1, (8, 8)) / 16
    turned = torch.from_numpy(rotate(images.numpy(), 20, axes=(1, 2), reshape=False, order=1))
    noise = 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=images.dtype)
    return images.flatten(1), (turned + noise).flatten(1)


def centred(x: Tensor) -> Tensor:
    """Minus the mean."""
    return x - x.mean(0)


def principal_axes(x: Tensor, p: int) -> Tensor:
    """The first p principal axes, as columns, in units in which the mean square length of centred data is one."""
    x = centred(x)
    return torch.linalg.svd(x, full_matrices=False)[2][:p].mT / x.square().sum(1).mean().sqrt()


# %% The problems


def pca(p: int = 5) -> Problem:
    """Minimise the fraction of the variance that the plane loses, 1 - tr(X^T C X)/tr(C)."""
    x = centred(views()[0])
    covariance = x.mT @ x / x.square().sum()
    start = Stiefel().random_uniform(64, p, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    least = 1 - torch.linalg.eigvalsh(covariance)[-p:].sum()
    return Problem(lambda q: 1 - (q * (covariance @ q)).sum(), start, least.item(), (2.0, 0.5))


def procrustes(p: int = 16) -> Problem:
    """Minimise the mean of |a_i X - b_i|^2 over orthogonal X, between the principal coordinates of the two views."""
    a, b = (centred(view) @ principal_axes(view, p) for view in views())
    cross = a.mT @ b / len(a)
    constant = (a.square().sum() + b.square().sum()) / len(a)
    # The orthogonal matrices have two components, and no descent leads from one to the other: begin in that of the
    # solution, which has the sign of det(cross).
    start = torch.eye(p, dtype=a.dtype)
    start[0, 0] = torch.linalg.det(cross).sign()
    least = constant - 2 * torch.linalg.svdvals(cross).sum()
    return Problem(lambda q: constant - 2 * (q * cross).sum(), start, least.item(), (2.0, 1.0))


RUNS = [("PCA", pca, manifold) for manifold in (Stiefel(), Grassmann())] + [("Procrustes", procrustes, Stiefel())]


# %% Descent


def descend(problem: Problem, manifold, optimizer_name: str, steps: int, bar) -> tuple[Tensor, Tensor]:
    """The end point, and the relative gap (loss - least)/least after every step."""
    x = ManifoldParameter(problem.start.clone(), manifold)
    optimizer = OPTIMIZERS[optimizer_name](x, *problem.learning_rates)
    # Adam's steps do not shrink with the gradient: without a schedule it would circle around the solution.
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    gaps = []
    for _ in range(steps):
        optimizer.zero_grad()
        problem.loss(x).backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            gaps.append((problem.loss(x) - problem.least) / problem.least)
        bar.update()
    manifold.assert_check_point_on_manifold(x)
    return x.detach(), torch.stack(gaps)


def run(steps: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Name of the run -> end point and relative gaps."""
    results = {}
    with tqdm(total=len(RUNS) * len(OPTIMIZERS) * steps, unit="step") as bar:
        for title, make_problem, manifold in RUNS:
            for name in OPTIMIZERS:
                label = f"{title}, {name}, {manifold.name}"
                results[label] = descend(make_problem(), manifold, name, steps, bar)
    return results


def table(results: dict[str, tuple[Tensor, Tensor]]) -> str:
    """The gap at a few iteration counts."""
    gaps = {label: gap for label, (_, gap) in results.items()}
    shown = [n for n in SHOWN if n <= len(next(iter(gaps.values())))]
    lines = ["relative gap to the closed form after n steps", f"{'n':28}" + "".join(f"{n:>10}" for n in shown)]
    for label, gap in gaps.items():
        lines.append(f"{label:28}" + "".join(f"{gap[n - 1]:10.1e}" for n in shown))
    return "\n".join(lines)


# %% The figure


STYLES = {  # Okabe and Ito's colours, and lines that keep apart without colour
    "RSGD, Stiefel": ("#0072B2", "-", 1.6),
    "RAdam, Stiefel": ("#D55E00", "-", 1.6),
    "RSGD, Grassmann": ("#56B4E9", ":", 4.0),
    "RAdam, Grassmann": ("#E69F00", ":", 4.0),
}


def show_gaps(axes, title: str, gaps: dict[str, Tensor]) -> None:
    """Convergence of all runs on one problem."""
    roundoff = torch.finfo(torch.float64).eps
    for label, (colour, line, width) in STYLES.items():
        gap = gaps.get(f"{title}, {label}")
        if gap is not None:
            # At the end rounding leaves nothing, or less than nothing, to show on a logarithmic axis.
            axes.semilogy(range(1, len(gap) + 1), gap.clamp(min=roundoff), line, color=colour, lw=width, label=label)
    axes.set(title=f"{title}: convergence to the closed form", xlabel="step", ylabel="relative gap of the loss")
    axes.grid(alpha=0.3)
    axes.legend()


def show_alignment(axes, rotation: Tensor) -> None:
    """Images, their turned copies, and the copies carried to the frame of the images by the solution."""
    p = rotation.shape[0]
    images, copies = views()
    axes_of_images, axes_of_copies = principal_axes(images, p), principal_axes(copies, p)
    carried = centred(copies) @ axes_of_copies @ rotation.mT @ torch.linalg.pinv(axes_of_images) + images.mean(0)
    rows = torch.stack([view[:12] for view in (images, copies, carried)]).unflatten(-1, (8, 8))
    rows = torch.nn.functional.pad(rows, (0, 1, 0, 1), value=torch.nan)
    axes.imshow(rows.permute(0, 2, 1, 3).reshape(27, -1), cmap="gray_r", vmin=0, vmax=1)
    axes.set(yticks=(3.5, 12.5, 21.5), yticklabels=("image", "turned\n+ noise", "carried\nback"), xticks=[])
    axes.set_title(f"Procrustes: the solution carries the copies back (in {p} principal components)")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def draw(results: dict[str, tuple[Tensor, Tensor]]):
    """Convergence on both problems, and the alignment found."""
    gaps = {label: gap for label, (_, gap) in results.items()}
    figure = plt.figure(figsize=(12, 8), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(1.5, 1))
    left = figure.add_subplot(grid[0, 0])
    show_gaps(left, "PCA", gaps)
    show_gaps(figure.add_subplot(grid[0, 1], sharey=left), "Procrustes", gaps)
    show_alignment(figure.add_subplot(grid[1, :]), results["Procrustes, RSGD, Stiefel"][0])
    return figure


def main(quick: bool = False) -> dict[str, float]:
    """Run, print the table, save the figure; returns the last relative gaps. `quick` takes a quarter of the steps."""
    start = time.perf_counter()
    torch.set_num_threads(1)  # matrices this small gain nothing from a second one
    results = run(STEPS // 4 if quick else STEPS)
    print(table(results))
    figure = draw(results)
    if quick:
        figure.canvas.draw()
    else:
        FIGURE.parent.mkdir(exist_ok=True)
        figure.savefig(FIGURE, dpi=130)
    plt.close(figure)
    print(f"{time.perf_counter() - start:.0f} s" + ("" if quick else f"; figure: examples/figures/{FIGURE.name}"))
    return {label: gap[-1].item() for label, (_, gap) in results.items()}


# %%
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a quarter of the steps, no file written")
    main(**vars(parser.parse_args()))
