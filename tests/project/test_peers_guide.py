"""The guide for those who come from pymanopt, geomstats and pyriemann: every row of its tables is evaluated.

The blocks of code of the page are run first; a row stands in the namespace that the blocks above it leave, with numpy
arrays in place of tensors where the row is a peer's.
"""

import inspect
import re
from pathlib import Path

import numpy as np
import pymanopt
import pytest
import torch

import torchriemann
from torchriemann import manifolds, optim

pytest.importorskip("pyriemann")

GUIDE = Path(__file__).parents[2] / "docs" / "peers.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
ROW = re.compile(r"^\| (.+?) \| (.*?)\|(.*)\|$", re.MULTILINE)
CALL = re.compile(r"`([A-Za-z]\w*(?:\(\w+\))?\.\w+.*)`")  # an attribute of a name, or of a call with one

PEERS = ("pymanopt", "geomstats", "pyriemann")
# Iterations stop at their own tolerances; an arccosine leaves a point 1e-8 away from itself.
LOOSE = {"FrechetMean": 1e-6, "mean": 1e-7, "dist_pairwise": 1e-7}


def run_page():
    """Yield every row of a table of operations, with the namespace of the blocks above it."""
    text, names = GUIDE.read_text(), {"__name__": "guide"}
    start = 0
    for block in [*BLOCK.finditer(text), None]:
        between = text[start : block.start() if block else len(text)]
        for theirs, ours, _ in ROW.findall(between):
            if CALL.fullmatch(theirs.strip()):
                yield theirs.strip()[1:-1], ours.strip()[1:-1], names
        if block:
            exec(compile(block[1], GUIDE.name, "exec"), names)
            start = block.end()


def test_every_row_of_operations_is_true():
    torch.manual_seed(0)
    np.random.seed(0)
    count = 0
    for theirs, ours, names in run_page():
        arrays = {k: v.detach().numpy() if isinstance(v, torch.Tensor) else v for k, v in names.items()}
        want, got = eval(theirs, arrays), eval(ours, names)
        tolerance = next((bound for word, bound in LOOSE.items() if word in theirs), 1e-9)
        np.testing.assert_allclose(np.asarray(want), np.asarray(got), rtol=tolerance, atol=tolerance, err_msg=theirs)
        count += 1
    operations = [row for peer in PEERS for row in section(peer, "Operations") if row[0].startswith("`")]
    assert count == len(operations) > 60


# ---- tables of names --------------------------------------------------------------------------------------------


def section(title, below):
    """The rows of the table below a heading of the section of a peer."""
    part = GUIDE.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0].split(f"\n### {below}\n")[1]
    return ROW.findall(part.split("\n### ")[0])


def names_in(cell):
    return [name for code in re.findall(r"`(.+?)`", cell) for name in re.findall(r"[A-Za-z_]\w*", code)[:1]]


KNOWN = {
    name
    for module in (torchriemann, manifolds, optim, manifolds.Manifold, manifolds.GyroManifold)
    for name in dir(module)
}


@pytest.mark.parametrize(
    "title, below",
    [
        ("pymanopt", "Spaces"),
        ("pymanopt", "Optimizers"),
        ("geomstats", "Spaces"),
        ("pyriemann", "Metrics"),
        ("pyriemann", "Estimators"),
    ],
)
def test_what_the_tables_call_ours_exists(title, below):
    named = [name for _, ours, _ in section(title, below) for name in names_in(ours)]
    assert named and not set(named) - KNOWN


def public_classes(module):
    return {name for name, value in vars(module).items() if inspect.isclass(value) and not name.startswith("_")}


def test_every_space_and_optimizer_of_pymanopt_is_listed():
    listed = {name for row in section("pymanopt", "Spaces") for name in names_in(row[0])}
    complex_ones = {n for n in public_classes(pymanopt.manifolds) if re.search("Complex|Hermitian|Unitary", n)}
    rest = {"SphereSubspaceIntersection", "SphereSubspaceComplementIntersection"}
    assert public_classes(pymanopt.manifolds) - listed - complex_ones - rest == set()
    listed = {name for row in section("pymanopt", "Optimizers") for name in names_in(row[0])}
    assert set(pymanopt.optimizers.OPTIMIZERS) == listed


def test_every_metric_of_pyriemann_is_listed():
    from pyriemann.geometry.distance import distance_functions
    from pyriemann.geometry.mean import mean_functions

    listed = {name for row in section("pyriemann", "Metrics") for name in names_in(row[0])}
    assert set(distance_functions) | set(mean_functions) == listed


def test_every_metric_of_geomstats_is_listed():
    from geomstats.geometry import full_rank_correlation_matrices, rank_k_psd_matrices, spd_matrices
    from geomstats.information_geometry import categorical, multinomial

    listed = {name for row in section("geomstats", "Spaces") for name in names_in(row[0])}
    for module in (spd_matrices, full_rank_correlation_matrices, rank_k_psd_matrices):
        own = {n for n in public_classes(module) if getattr(module, n).__module__ == module.__name__}
        assert {n for n in own if n.endswith("Metric")} - listed == set()
    for module in (categorical, multinomial):
        own = {n for n in public_classes(module) if getattr(module, n).__module__ == module.__name__}
        assert {n for n in own if n.endswith("Distributions")} - listed == set()
