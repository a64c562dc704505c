"""Trees in hyperbolic space: how well five dimensions hold their distances, and where flat space is as good.

Every method embeds five trees of 85 nodes by gradient descent from the same start, each with the best of its five
learning rates. "Tangent" means normal coordinates under Adam, "points" Riemannian Adam. Then a balanced tree of 364
nodes, and the hyperbolic plane as Poincare's disk. All of it with larger trees and more seeds, and the times:
benchmarks/tree_embedding.py.

"geoopt, tangent" is a control, our parameters and optimizer with geoopt's formulas, and geoopt's points are stepped as
ours are: like agrees with like. At these radii (below 10, in float64) stability wins nothing; the parametrisation and a
learned curvature do. On trees of long paths normal coordinates under curvature -1 lose to Euclidean space. There the
learned curvature goes towards 0, or Riemannian Adam on points is best.

    python examples/04_tree_embedding.py [--quick]
"""

# %%
import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from joblib import Parallel, delayed
from matplotlib.collections import LineCollection
from matplotlib.patches import Circle
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor
from tqdm import tqdm
from tree_methods import METHODS, OURS, STEPS, Result, best, descend, evaluate, fit
from trees import Tree, balanced, caterpillar, hops, preferential, random_recursive, sarkar, star_of_paths

from torchriemann.manifolds import PoincareBall, convert

FIGURE = Path(__file__).parent / "figures" / "04_tree_embedding.png"
TREES = {
    "balanced, 4 children": balanced(4, 3),
    "random recursive": random_recursive(85, 1),
    "preferential attachment": preferential(85, 1),
    "star of 7 paths": star_of_paths(85, 7),
    "caterpillar, spine of 20": caterpillar(85, 20),
}
LARGE, RATE = balanced(3, 5), 0.1
SHOWN = ("Euclidean", "geoopt, tangent", "ours, tangent", "ours, tangent, K learned")
SEED = 1
EDGE = 1.8  # just long enough for four edges at right angles never to meet again


# %% Five dimensions, random start


def attempt(tree: Tree, method: str, learning_rate: float, steps: int) -> Result:
    """One run, in a process of its own."""
    torch.set_num_threads(1)
    return fit(METHODS[method], tree, learning_rate, SEED, steps, compiled=False)


def comparison(steps: tuple[int, int], jobs: int) -> tuple[dict[str, dict[str, Result]], dict[str, Result]]:
    """Tree -> method -> its best run; and method -> its run on the large tree, at one learning rate."""
    keys = [(t, m, lr) for t in TREES for m in METHODS for lr in METHODS[m].learning_rates]
    calls = [delayed(attempt)(LARGE, method, RATE, steps[1]) for method in SHOWN]
    calls += [delayed(attempt)(TREES[tree], method, lr, steps[0]) for tree, method, lr in keys]
    done: list[Any] = list(tqdm(Parallel(n_jobs=jobs, return_as="generator")(calls), total=len(calls), unit="run"))
    found: dict[tuple[str, str], list[Result]] = {}
    for (tree, method, _), result in zip(keys, done[len(SHOWN) :], strict=True):
        found.setdefault((tree, method), []).append(result)
    small = {tree: {method: best(found[tree, method]) for method in METHODS} for tree in TREES}
    large: dict[str, Result] = dict(zip(SHOWN, done, strict=False))
    return small, large


# %% Two dimensions, from Sarkar's drawing: pictures


@dataclass
class Picture:
    """Positions in the plane or disk, and the edges as polylines ``edges,points,2``."""

    title: str
    nodes: Tensor
    edges: Tensor
    disk: bool


def disk_picture(title: str, tree: Tree, x: Tensor) -> Picture:
    """Points of the hyperboloid in Poincare's disk, joined by geodesics."""
    disk = PoincareBall()
    t = torch.linspace(0, 1, 30, dtype=x.dtype).expand(len(tree) - 1, -1)
    path = OURS.geodesic(x[tree[1:]].unsqueeze(1), x[1:].unsqueeze(1), t)
    return Picture(title, convert(x, OURS, disk), convert(path, OURS, disk), True)


def plane_picture(title: str, tree: Tree, x: Tensor) -> Picture:
    """Points of the plane, joined by lines."""
    return Picture(title, x, torch.stack([x[tree[1:]], x[1:]], 1), False)


def caption(space: str, found: Result) -> str:
    """Title of a picture."""
    return f"{space}\naverage distortion {found.distortion:.3f}, MAP {found.precision:.2f}"


def pictures(steps: int) -> list[Picture]:
    """A tree as Sarkar draws it, and after descent from there, in the hyperbolic and in the Euclidean plane."""
    x = sarkar(LARGE, OURS, EDGE)
    drawn = evaluate(METHODS["ours, points"], LARGE, [x], EDGE)
    shown = [disk_picture(caption(f"Sarkar's construction, edges of length {EDGE}", drawn), LARGE, x)]
    start = OURS.to_normal(x) / EDGE
    for name, space in (("ours, tangent", "Hyperbolic plane, descended"), ("Euclidean", "Euclidean plane, descended")):
        parameters = METHODS[name].start(start)
        descend(METHODS[name], LARGE, parameters, 0.03, steps, compiled=False)
        z, title = parameters[0].detach(), caption(space, evaluate(METHODS[name], LARGE, parameters))
        flat = name == "Euclidean"
        shown.append(plane_picture(title, LARGE, z) if flat else disk_picture(title, LARGE, OURS.from_normal(z)))
    return shown


# %% The tables


def table(results: dict[str, dict[str, Result]]) -> str:
    """Average distortion and MAP, a column a tree."""
    lines = [f"{'average distortion / MAP':28}" + "".join(f"{tree:>26}" for tree in results)]
    for name in METHODS:
        cells = [f"{found[name].distortion:.4f} / {found[name].precision:.3f}" for found in results.values()]
        lines.append(f"{name:28}" + "".join(f"{cell:>26}" for cell in cells))
    curvatures = [f"{found['ours, tangent, K learned'].curvature:.2g}" for found in results.values()]
    lines.append(f"{'K learned by ours':28}" + "".join(f"{k:>26}" for k in curvatures))
    return "\n".join(lines)


def large_table(results: dict[str, Result]) -> str:
    """The tree of 364 nodes."""
    lines = [f"{'364 nodes, learning rate 0.1':28}{'distortion':>12}{'worst':>8}{'MAP':>9}{'K':>8}{'seconds':>9}"]
    for name, r in results.items():
        curvature = "" if name == "Euclidean" else f"{r.curvature:.2f}"
        figures = f"{r.distortion:12.4f}{r.worst:8.2f}{r.precision:9.4f}{curvature:>8}{r.seconds:9.1f}"
        lines.append(f"{name:28}{figures}")
    return "\n".join(lines)


# %% The figure

STYLES = {  # Okabe and Ito's colours; open marks for Euclidean space and the peer
    "Euclidean": ("#000000", "s", "none"),
    "geoopt, points": ("#D55E00", "v", "none"),
    "geoopt, tangent": ("#D55E00", "o", "none"),
    "geoopt, tangent, K learned": ("#D55E00", "D", "none"),
    "ours, points": ("#0072B2", "v", "#0072B2"),
    "ours, tangent": ("#0072B2", "o", "#0072B2"),
    "ours, tangent, K learned": ("#0072B2", "D", "#0072B2"),
}


def show_picture(axes, picture: Picture, depth: Tensor) -> None:
    """Nodes and edges, coloured by the distance from the root."""
    colours = plt.get_cmap("viridis")(0.92 * depth / depth.max())
    axes.add_collection(LineCollection(list(picture.edges.numpy()), colors=colours[1:], linewidths=0.9, alpha=0.8))
    axes.scatter(*picture.nodes.T, c=colours, s=9, zorder=3, linewidths=0)
    if picture.disk:
        axes.add_patch(Circle((0, 0), 1, fill=False, color="black", lw=1))
    extent = 1.02 if picture.disk else 1.05 * float(picture.nodes.abs().max())
    axes.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal", xticks=[], yticks=[])
    axes.set_title(picture.title)
    axes.spines[:].set_visible(not picture.disk)


def show_scores(axes, results: dict[str, dict[str, Result]], what: str) -> None:
    """One row a tree, one mark a method, a little apart so that equal ones are seen."""
    for shift, (name, (colour, marker, fill)) in zip(
        torch.linspace(-0.3, 0.3, len(STYLES)), STYLES.items(), strict=True
    ):
        values = [getattr(found[name], what) for found in results.values()]
        rows = [-row - float(shift) for row in range(len(values))]
        axes.plot(values, rows, marker, color=colour, mfc=fill, ms=8, mew=1.6, label=name)
    for row in range(len(results) - 1):
        axes.axhline(-row - 0.5, color="0.85", lw=0.8)
    axes.set(xscale="log", yticks=[-row for row in range(len(results))], ylim=(0.5 - len(results), 0.5))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x", alpha=0.3, which="both")


def draw(results: dict[str, dict[str, Result]], shown: list[Picture]):
    """The figure of the page."""
    figure = plt.figure(figsize=(16, 11), layout="constrained")
    grid = figure.add_gridspec(2, 6, height_ratios=(1.15, 1))
    for column, picture in enumerate(shown):
        show_picture(figure.add_subplot(grid[0, 2 * column : 2 * column + 2]), picture, hops(LARGE)[0])
    left, right = figure.add_subplot(grid[1, :3]), figure.add_subplot(grid[1, 3:])
    show_scores(left, results, "distortion")
    left.set(xlabel="average distortion (smaller is better)", yticklabels=list(results))
    left.set_title("Trees of 85 nodes in five dimensions")
    show_scores(right, results, "worst")
    right.set(xlabel="largest ratio d / d_tree over the smallest (smaller is better)", yticklabels=[])
    right.set_title("Their worst distortion")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(STYLES), frameon=False)
    return figure


def main(quick: bool = False) -> dict[str, dict[str, dict[str, float]]]:
    """Run, print the tables, save the figure; returns the scores. `quick` takes few steps and proves nothing."""
    start = time.perf_counter()
    torch.set_num_threads(1)
    results, wide = comparison((3, 3) if quick else (250, STEPS), 1 if quick else 2)
    print(table(results) + "\n\n" + large_table(wide))
    figure = draw(results, pictures(3 if quick else 150))
    if quick:
        figure.canvas.draw()
    else:
        FIGURE.parent.mkdir(exist_ok=True)
        figure.savefig(FIGURE, dpi=110)
    plt.close(figure)
    print(f"{time.perf_counter() - start:.0f} s" + ("" if quick else f"; figure: examples/figures/{FIGURE.name}"))
    return {
        tree: {name: {"distortion": r.distortion, "MAP": r.precision} for name, r in found.items()}
        for tree, found in {**results, "balanced ternary, 364 nodes": wide}.items()
    }


# %%
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="three steps a run, no file written")
    main(**vars(parser.parse_args()))
