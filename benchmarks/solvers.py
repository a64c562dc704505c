"""Full-batch solvers: iterations, evaluations and time to a gradient norm, beside pymanopt's.

    python benchmarks/solvers.py [--quick]

Every contender minimises the same torch cost (tests/problems.py) from the same start until the Riemannian gradient is
shorter than the tolerance, in the same metric; pymanopt's with their default options. The medians are over seeds, each
a problem of its own; within a seed the contenders run in turn. An evaluation of ours is a value with its gradient; of
pymanopt's one call of the cost, with or without its derivatives.
"""

from common import environment, fix_allocator, publish, summary

fix_allocator()

import argparse  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.problems import PROBLEMS, large_eigenspace, solve, solve_with_pymanopt  # noqa: E402
from torchriemann.optim import RiemannianCG, RiemannianLBFGS, RiemannianTrustRegion  # noqa: E402

MAX_ITER = 500
PAIRS = {  # ours: the peer it is measured against
    "TrustRegion": "pymanopt TrustRegions",
    "TrustRegion, finite differences": "pymanopt TrustRegions",
    "LBFGS": "pymanopt ConjugateGradient",
    "LBFGS, retraction": "pymanopt ConjugateGradient",
    "CG": "pymanopt ConjugateGradient",
}


def contenders(tolerance):
    """Name and function of a problem."""
    options = {"max_iter": MAX_ITER, "tolerance_grad": tolerance}
    second = {"second_order": True, **options}
    limits = {"tolerance": tolerance, "max_iter": MAX_ITER}
    return {
        "TrustRegion": lambda p: solve(p, RiemannianTrustRegion, **second),
        "TrustRegion, finite differences": lambda p: solve(
            p, RiemannianTrustRegion, hessian="finite_difference", **second
        ),
        "LBFGS": lambda p: solve(p, RiemannianLBFGS, **options),
        "LBFGS, retraction": lambda p: solve(p, RiemannianLBFGS, transport="retraction", **options),
        "CG": lambda p: solve(p, RiemannianCG, **options),
        "pymanopt TrustRegions": lambda p: solve_with_pymanopt(p, "TrustRegions", **limits),
        "pymanopt ConjugateGradient": lambda p: solve_with_pymanopt(p, "ConjugateGradient", **limits),
    }


def facts(results, best, tolerance):
    """Medians over the seeds of one contender, the worst gradient norm and the greatest relative excess of the loss."""
    excess = max((r.loss - b) / abs(b) for r, b in zip(results, best, strict=True))
    counted = [r.hessian_products for r in results if r.hessian_products is not None]
    return {
        **summary([r.seconds * 1e3 for r in results]),
        "iterations": statistics.median(r.iterations for r in results),
        "evaluations": statistics.median(r.evaluations for r in results),
        **({"hessian_products": statistics.median(counted)} if counted else {}),
        "grad_norm": max(r.grad_norm for r in results),
        "loss_excess": excess,
        # A hundredth more: the gradient norm is computed anew here.
        "reached": sum(r.grad_norm <= 1.01 * tolerance for r in results),
    }


def line(make, seeds, tolerance):
    """One problem to one tolerance."""
    runs = contenders(tolerance)
    results = {contender: [] for contender in runs}
    for seed in range(seeds):
        problem = make(seed)
        for contender, run in runs.items():
            results[contender].append(run(problem))
    best = [min(r.loss for r in same) for same in zip(*results.values(), strict=True)]
    table = {contender: facts(r, best, tolerance) for contender, r in results.items()}
    more = {}
    for ours, peer in PAIRS.items():
        pairs = list(zip(results[ours], results[peer], strict=True))
        more[ours] = {
            "peer": peer,
            "iterations": table[peer]["iterations"] / table[ours]["iterations"],
            "speed": statistics.median(
                b.seconds / a.seconds for a, b in zip(results[ours], results[peer], strict=True)
            ),
            "seeds_with_more_iterations": sum(
                a.iterations > b.iterations and b.grad_norm <= 1.01 * tolerance for a, b in pairs
            ),
        }
    return {
        "name": f"{make(0).name}, |grad| < {tolerance:g}",
        "seeds": seeds,
        "max_iter": MAX_ITER,
        "contenders": table,
        "ratios": more,
    }


def show(result):
    """Print a line."""
    print(f"\n{result['name']}, medians of {result['seeds']} seeds")
    for name, c in result["contenders"].items():
        hessian = f"{c['hessian_products']:6.0f}" if "hessian_products" in c else "     -"
        reached = "" if c["reached"] == result["seeds"] else f"   reached by {c['reached']}"
        print(
            f"  {name:32s} {c['iterations']:6.0f} it {c['evaluations']:7.0f} ev {hessian} H {c['median_ms']:9.1f} ms"
            f"   |grad| {c['grad_norm']:.0e}   loss + {c['loss_excess']:.0e}{reached}"
        )
    for ours, r in result["ratios"].items():
        print(
            f"    {ours:32s} iterations {r['iterations']:5.2f}x fewer, time {r['speed']:5.2f}x of {r['peer']}; "
            f"more iterations in {r['seeds_with_more_iterations']} seeds",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two seeds, one tolerance, nothing written")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    print(environment())
    results = []
    for make in (*PROBLEMS.values(), large_eigenspace):
        # pymanopt's conjugate gradients stall before 1e-8: their costs would say nothing there on the large problem.
        tolerances = (1e-8,) if quick else (1e-6,) if make is large_eigenspace else (1e-6, 1e-8)
        for tolerance in tolerances:
            results.append(line(make, 2 if quick else 5, tolerance))
            show(results[-1])
    if not quick:
        publish("solvers", results)


if __name__ == "__main__":
    main()
