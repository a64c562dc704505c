"""Trees embedded in five dimensions by gradient descent: average distortion and MAP, beside geoopt and Euclidean space.

    python benchmarks/tree_embedding.py [--quick]

A tree of 364 nodes and five of 127; three seeds, of the start and of the trees that are drawn at random; 600 steps in
float64. Every method tries five learning rates on every tree and seed, and the one with the lowest final loss counts.
Figures are means over the seeds. The methods are those of examples/tree_methods.py: points under Riemannian Adam, or
normal coordinates ("tangent") under Adam, with the curvature fixed at -1 or learned.

"geoopt, tangent" is the control: the parameters and the optimizer of "ours, tangent", with geoopt's formulas. The two
agree, because in float64 little is lost below radius 10: what wins is the parametrisation, and then the learned
curvature. Stability wins where long paths lead far out: there Riemannian Adam needs learning rates at which geoopt's
points are no numbers any more. Times are of one step with 364 nodes.
"""

from common import Contender, Line, environment, fix_allocator, measure, publish, show

fix_allocator()

import argparse  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from tree_methods import DIMENSION, METHODS, STEPS, Method, Result, compiled_distances, run, stress  # noqa: E402  # type: ignore
from trees import (  # noqa: E402  # type: ignore
    Tree,
    balanced,
    caterpillar,
    hops,
    pairs,
    preferential,
    random_recursive,
    star_of_paths,
)

SIZE = 127  # of all trees but the first: a method compiles once for them
TREES: dict[str, Callable[[int], Tree]] = {
    "balanced ternary, 364 nodes": lambda seed: balanced(3, 5),
    "balanced binary": lambda seed: balanced(2, 6),
    "random recursive": lambda seed: random_recursive(SIZE, seed),
    "preferential attachment": lambda seed: preferential(SIZE, seed),
    "star of 9 paths": lambda seed: star_of_paths(SIZE, 9),
    "caterpillar, spine of 32": lambda seed: caterpillar(SIZE, 32),
}


def mean(results: list[Result], what: str) -> float:
    """Over the seeds."""
    return statistics.mean(getattr(r, what) for r in results)


def row(tree: str, name: str, results: list[Result]) -> dict:
    """What is published of one method on one tree."""
    return {
        "name": f"{tree}: {name}",
        "average_distortion": mean(results, "distortion"),
        "MAP": mean(results, "precision"),
        "worst_distortion": mean(results, "worst"),
        "loss": mean(results, "loss"),
        "losses": [r.loss for r in results],
        "curvature": mean(results, "curvature"),
        "learning_rates": [r.learning_rate for r in results],
    }


def study(seeds: list[int], steps: int) -> list[dict]:
    """All methods on all trees."""
    rows = []
    for tree, make in TREES.items():
        print(f"\n{tree:44}{'distortion':>12}{'MAP':>9}{'worst':>8}{'loss':>10}{'K':>9}  learning rates")
        for name, method in METHODS.items():
            results = [run(method, make(seed), seed, steps) for seed in seeds]
            r = row(tree, name, results)
            rows.append(r)
            figures = f"{r['average_distortion']:12.4f}{r['MAP']:9.4f}{r['worst_distortion']:8.2f}{r['loss']:10.2e}"
            print(f"  {name:42}{figures}{r['curvature']:9.2g}  {r['learning_rates']}", flush=True)
    return rows


def step(method: Method, compiled: bool) -> Callable[[], None]:
    """One step of descent on the first tree."""
    tree = balanced(3, 5)
    i, j = pairs(len(tree))
    target = hops(tree)[i, j]
    generator = torch.Generator().manual_seed(0)
    parameters = method.start(torch.randn(len(tree), DIMENSION, generator=generator, dtype=torch.float64))
    optimizer = method.optimizer(parameters, lr=0.01)
    distances = compiled_distances(method) if compiled else method.distances

    def advance() -> None:
        optimizer.zero_grad()
        stress(distances, i, j, target, parameters).backward()
        optimizer.step()

    return advance


def times(rounds: int) -> list[dict]:
    """A step of every method, eager and compiled; 600 of them are a run."""
    lines = []
    for compiled in (False, True):
        steps = {name: Contender(name, step(method, compiled)) for name, method in METHODS.items()}
        ours = steps.pop("ours, tangent")
        kind = "compiled" if compiled else "eager"
        line = Line(f"one step, 364 nodes, {kind}", [ours, *steps.values()], {name: None for name in steps})
        lines.append(measure(line, rounds=rounds, block=10))
        show(lines[-1])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, few steps, nothing written")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    print(environment())
    start = time.perf_counter()
    rows = study([1] if quick else [1, 2, 3], 50 if quick else STEPS)
    lines = times(3 if quick else 15)
    print(f"{time.perf_counter() - start:.0f} s")
    if not quick:
        publish("tree_embedding", [*lines, *rows])


if __name__ == "__main__":
    main()
