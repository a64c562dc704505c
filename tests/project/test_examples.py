"""The examples run, and print and return what they promise; the small setting proves that, not their claims."""

import contextlib
import importlib.util
import io
import json
import os
import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from torchriemann.manifolds import Grassmann, Lorentz

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def run(monkeypatch):
    """A function that gives the lines that ``main(quick=True)`` of a script prints, and its result, which json holds.
    In this process: another one would take seconds to import what is here already."""

    def call(script: str, **options: bool) -> tuple[list[str], dict]:
        monkeypatch.syspath_prepend(EXAMPLES)
        monkeypatch.setenv("MPLBACKEND", "Agg")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            result = runpy.run_path(str(EXAMPLES / script))["main"](quick=True, **options)
        return printed.getvalue().strip().splitlines(), json.loads(json.dumps(result))

    return call


def helper(name: str):
    """A module beside the examples."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_grassmann_classifier(run):
    printed, means = run("01_grassmann_classifier.py")
    heads = {"softmax", "cosine softmax", "max of 8 prototypes", "Grassmann k=1", "Grassmann k=4", "Grassmann k=8"}
    references = {"logistic regression", "class-wise PCA (CLAFIC)", "1-nearest neighbour", "RBF-SVM"}
    assert set(means) == {"pixels", "network", "coarse", "probe"}
    assert set(means["pixels"]) == heads | references
    assert set(means["network"]) == set(means["coarse"]) == set(means["probe"]) == heads
    # Chance is 10 % and, for the probe, 2.5 %.
    assert all(50 < value <= 100 for table in means.values() for value in table.values())
    for name in heads | references:
        assert sum(line.startswith(name) for line in printed) == 1


def test_stiefel_procrustes(run):
    printed, gaps = run("02_stiefel_procrustes.py")
    assert len(gaps) == 6
    for label, gap in gaps.items():
        assert -1e-12 < gap < (1e-4 if label.startswith("PCA") else 0.1), label
        assert sum(line.startswith(label) for line in printed) == 1


def test_scale_out(run):
    printed, runs = run("03_scale_out.py")
    assert list(runs) == ["one process"]
    assert 10 < runs["one process"]["accuracy"] <= 100  # chance is 0.4 %
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(EXAMPLES / "03_scale_out.py"), "--quick"]
    environment = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cells = {line[:44].strip(): line[44:].split() for line in done.stdout.splitlines()}
    assert len(set(cells["test accuracy, %"])) == 1
    for part in ("weights", "gradient", "optimizer state"):
        one, two = map(float, cells[f"head, {part}, MB a process"])
        assert two == pytest.approx(one / 2, abs=0.01), part
    counted = cells["head, handed to collectives a step, kB"][1]
    assert f"By formula the head hands {counted} kB" in done.stdout
    apart = re.search(r"differ by at most (\S+)\. By", done.stdout)
    assert apart and float(apart[1]) < 1e-5


def test_tree_embedding(run):
    printed, scores = run("04_tree_embedding.py")
    methods = {name for found in scores.values() for name in found}
    assert len(scores) == 6 and len(methods) == 7
    for tree, found in scores.items():
        for name, score in found.items():
            assert 0 < score["distortion"] < 1 and 0 < score["MAP"] <= 1, (tree, name)
        # The control: another library's formulas for the same function.
        for kind in ("tangent", "tangent, K learned", "points"):
            if f"geoopt, {kind}" in found and f"ours, {kind}" in found:
                ours, theirs = (found[f"{library}, {kind}"]["distortion"] for library in ("ours", "geoopt"))
                assert ours == pytest.approx(theirs, rel=1e-5), (tree, kind)
    for name in methods:
        assert any(line.startswith(name) for line in printed), name


def test_precision(run):
    printed, results = run("05_precision.py")
    assert len(results["errors"]) == 5 * 2 * 5  # operations, dtypes, models
    for name, errors in results["errors"].items():
        operation, dtype, model = name.rsplit(", ", 2)
        near, eps = errors[:2], torch.finfo(getattr(torch, dtype)).eps
        if "geoopt" not in model:
            assert all(error < 20 * eps for error in near), name
            assert all(error is None or error < 1 for error in errors[:5]), name  # to radius 12, float32: 8
    distortions = results["distortions"]
    assert distortions["float64, Lorentz"][-1] <= 1.12  # radius 30
    assert distortions["float32, Lorentz"][-1] <= 1.3  # radius 20
    assert distortions["float32, Lorentz, built in float32"][-1] <= 1.3
    for model in ("Lorentz", "Poincaré ball"):
        ours, truth = (results["losses"][f"{dtype}, {model}"] for dtype in ("float32", "float64"))
        assert ours == pytest.approx(truth, rel=1e-3), model
    assert sum(line.startswith("RAdam, float32") for line in printed) == 4


def test_spd_metrics(run):
    printed, results = run("06_spd_metrics.py")
    kept = {  # to rounding; whatever is not listed changes
        "rotation": {"Euclidean", "power-Euclidean", "Bures-Wasserstein", "log-Euclidean", "affine-invariant"},
        "scaling by 2": {"log-Euclidean", "affine-invariant"},
        "inversion": {"log-Euclidean", "affine-invariant"},
        "congruence": {"affine-invariant"},
    }
    for name, found in results.items():
        between, swells = found["between"], not name.startswith(("log-", "affine-"))
        for measure in ("swelling, mean", "det of mean"):
            assert between[measure] > 1 if swells else between[measure] == pytest.approx(1, abs=1e-9), (name, measure)
        for change, value in found["changes"].items():
            assert value < 1e-10 if name in kept[change] else value > 1e-3, (name, change)
        for task in ("interpolated", "smoothed"):
            assert 0 < found[task]["size, %"] < 30 and 0 < found[task]["anisotropy"] < 0.2, (name, task)
        assert set(found["costs"]) == {"dist", "exp", "log", "mean"}
        assert all(error < 1e-3 for *_, error in found["costs"].values()), name
        assert sum(line.startswith(name) for line in printed) == 5  # one a table
    assert len(results) == 7


def test_correlation(run):
    printed, results = run("07_correlation.py")
    metrics = {"Euclidean-Cholesky", "log-Euclidean-Cholesky", "off-log", "log-scaled", "poly-hyperbolic"}
    others = {"entries", "covariances, normalised", "log-Euclid., normalised", "affine-inv., normalised"}
    references = {"log-variances alone", "covariances, log-Euclid.", "covariances, affine-inv."}
    assert set(results) == metrics | others | references
    kept = {  # by means, to rounding; whatever is not listed changes
        "diagonal": {*metrics, "entries"},
        "permutation": {*others, "off-log", "log-scaled"},
        "signs": {*others, *metrics} - {"log-scaled"},
        "inversion": {"log-scaled"},
        "variances": {*others, *metrics} - {"covariances, normalised"},
    }
    for name in metrics | others:
        for change, value in results[name]["kept"].items():
            assert value < 1e-9 if name in kept[change] else value > 1e-3, (name, change)
        between = results[name]["between"]
        assert between["swelling, median"] > 1 and between["det of mean"] > 1, name
        if name in ("entries", "off-log", "poly-hyperbolic"):  # log det is concave
            assert between["dip, least"] > 1 - 1e-9, name
        assert set(results[name]["costs"]) and all(v > 0 for v in results[name]["costs"].values())
        assert sum(line.startswith(name) for line in printed) == 5, name  # one a table
    for name in metrics:
        assert results[name]["kept"]["diagonal"] == 0
        # Correlation matrices do not know of gains.
        found = results[name]["gestures"]
        assert found["gains, linear"] == pytest.approx(found["half, linear"], abs=2), name
    assert all(25 < sum(f["half, linear"]) / 2 <= 100 for f in (r["gestures"] for r in results.values()))


def test_windows_of_the_recordings():
    data = helper("correlation_data")
    file = data.recordings()
    assert file is not None  # the tests ask for geomstats
    for found in (data.load(file), data.load(None)):
        assert found.covariance.shape == (2880, 8, 8)
        assert torch.linalg.eigvalsh(found.covariance)[:, 0].min() > 0
        for label, count in ((found.gesture, 4), (found.recording, 4), (found.time, 6)):
            assert label.bincount().tolist() == [2880 // count] * count
    for crisis in (False, True):
        market = data.market(16, 4, crisis)
        assert market.diagonal().sub(1).abs().max() < 1e-15
        assert torch.linalg.eigvalsh(market)[0] > 0.05


def test_learned_chart(run):
    printed, distances = run("08_learned_chart.py")
    assert set(distances) == {"ring", "wave", "spiral"}
    for curve, found in distances.items():
        assert set(found) == {"straight lines", "geodesics"} and all(0 < d < 10 for d in found.values()), curve
        for name in found:
            assert sum(line.startswith(f"{curve}, {name}") for line in printed) == 1


SHIFTS = ("sqrt", "chol", "neutral", "sqrt, powers")


@pytest.mark.parametrize("bf16", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_gyrobn(run, bf16):
    printed, results = run("09_gyrobn.py", bf16=bf16)
    assert list(results) == ["shift", "recordings", "depth"]
    assert tuple(results["shift"]) == SHIFTS
    assert list(results["recordings"]) == [*(f"recording {i}" for i in (1, 2, 3, 4)), "mean"]
    assert list(results["depth"]) == ["2 layers", "3 layers"]
    for study in results.values():
        for arms in study.values():
            for arm, found in arms.items():  # NaN would fail the comparison
                assert found["lost"] == 0 and len(found["right"]) == 3, arm
                assert all(0 <= value <= 100 for value in found["right"]), arm
    for kind in SHIFTS:
        ours, none = (sum(results["shift"][kind][arm]["right"]) / 3 for arm in ("domain, affine-invariant", "none"))
        assert ours > none + 10, kind
    assert sum(line.startswith("GyroBN ") for line in printed) == 3  # scores, differences, rates


def test_domains_of_gyrobn(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    data, studies = importlib.import_module("gyrobn_data"), importlib.import_module("gyrobn_studies")
    for kind in SHIFTS:
        drawn = data.stacked(kind, 2, domains=3)
        again = data.shifted(kind, 1, domains=3)
        assert torch.equal(drawn.x[1], again.x) and drawn.x.shape == (2, 3, 30, 6, 6)
        assert torch.equal(drawn.x, drawn.x.mT) and torch.linalg.eigvalsh(drawn.x).min() > 0
        for arm, how in studies.ARMS.items():
            z = studies.features(how, drawn.x, 2)
            if how.statistics == "domain":  # at a Frechet mean, deviations add up to zero
                assert z.mean(2).abs().max() < 1e-10, arm
                square = z.square().sum(-1).mean(2)
                assert how.scaled == bool((square - 1).abs().max() < 1e-4), arm
            elif how.statistics == "shared":
                assert z[:, :2].flatten(1, 2).mean(1).abs().max() < 1e-10 < z.mean(2).abs().max(), arm
    nodes = data.nodes(2, depth=4)
    assert [len(part) for part in (nodes.train, nodes.valid, nodes.test)] == [20, 5, 92]
    labels = torch.cat([nodes.train_label, nodes.valid_label, nodes.test_label])
    assert all(label.bincount().tolist() == [13] * 9 for label in labels.T)


def test_rates_of_gyrobn(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    training = importlib.import_module("gyrobn_training")

    def trial(rates):  # best at 3, which the second test score tells
        score = -(torch.tensor(rates) / 3).log10().square()
        return score.unsqueeze(-1), torch.tensor(rates).unsqueeze(-1)

    for grid in ([0.01, 0.03, 0.1], [30.0, 100.0], [1.0, 3.0, 10.0]):
        rate, test, lost = training.search(trial, grid)
        assert rate == pytest.approx(3, rel=0.1) and test.tolist() == pytest.approx([rate]) and lost == 0
    with pytest.raises(RuntimeError, match="end of the grid"):
        training.search(lambda rates: (torch.tensor(rates).unsqueeze(-1), torch.tensor(rates).unsqueeze(-1)), [1.0])
    # One optimizer with a rate a model, against an optimizer for each.
    start = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    together = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([together], lr=1.0)
    apart = [torch.nn.Parameter(row.clone()) for row in start]
    optimizers = [torch.optim.Adam([p], lr=rate) for p, rate in zip(apart, (0.1, 0.01), strict=True)]
    for _ in range(5):
        for o in (optimizer, *optimizers):
            o.zero_grad()
        together.pow(4).sum().backward()
        sum(p.pow(4).sum() for p in apart).backward()
        training.step(optimizer, torch.tensor([0.1, 0.01]))
        for o in optimizers:
            o.step()
    torch.testing.assert_close(together, torch.stack(list(apart)))


@pytest.mark.parametrize("bf16", [False, True])
def test_grassmann_network(run, bf16):
    printed, results = run("10_grassmann_network.py", bf16=bf16)
    assert list(results) == ["digits", "generated"]
    for networks in results.values():
        assert list(networks) == ["linear", "GyroGr", "GrNet"]
        for arms in networks.values():
            assert list(arms) == ["none", "GyroBN", "GyroBN, tangent", "cameras"]
            for arm, found in arms.items():  # NaN would fail the comparison
                assert found["lost"] == 0 and len(found["right"]) == 3, arm
                assert all(0 <= value <= 100 for value in found["right"]), arm
    plain, normalised = (sum(results["generated"]["linear"][arm]["right"]) / 3 for arm in ("none", "cameras"))
    assert normalised > plain > 100 / 8  # chance
    assert sum(line.startswith("GyroBN, tangent") for line in printed) == 2 * 3  # scores, differences, rates
    assert printed[-2].endswith("at any rate that was tried: 0")


def test_subspace_sets(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    data, training = importlib.import_module("subspace_sets"), importlib.import_module("grassmann_training")
    for kind, classes in data.CLASSES.items():
        parts = data.stacked(kind, 2, 2 * classes)
        again = data.stacked(kind, 1, 2 * classes)
        for (part, drawn), cameras in zip(parts.items(), data.CAMERAS, strict=True):
            assert torch.equal(drawn.x[:, :, :1], again[part].x), part
            assert drawn.x.shape == (cameras, 2 * classes, 2, 24, 2)
            assert (drawn.x.mT @ drawn.x - torch.eye(2)).abs().max() < 1e-5
            assert all(label.bincount().tolist() == [2] * classes for label in drawn.label)
    few = data.stacked("generated", 2, 16)
    for part in training.by_camera(few).values():  # at a Frechet mean, deviations add up to zero
        z = data.SPACE.to_normal(part.x)
        assert z.mean(1).abs().max() < 1e-4
        assert (z.square().sum((-2, -1)).mean(1) - 1).abs().max() < 1e-4


def test_pooled_projectors_are_sums_of_pairs(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    training = importlib.import_module("grassmann_training")
    x = Grassmann().random(5, 3, 24, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pooled = torch.nn.functional.avg_pool2d(Grassmann().projector(x), 2)
    vectors = torch.linalg.eigh(pooled).eigenvectors[..., -2:]
    y = training.PairPool()(x)
    torch.testing.assert_close(y @ y.mT, vectors @ vectors.mT)


def test_networks_on_subspaces_lie_side_by_side(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    training = importlib.import_module("grassmann_training")
    x = Grassmann().random(6, 3, 24, 2, generator=torch.Generator().manual_seed(0))
    for kind in training.NETWORKS:
        network = training.Network(kind, "GyroBN", 3, 5)
        apart = x.clone().requires_grad_()
        network(apart)[1].sum().backward()  # the logits of the second seed read its data alone
        assert apart.grad is not None
        assert [bool(g.abs().max() > 0) for g in apart.grad.unbind(1)] == [False, True, False], kind


def test_trees():
    trees = helper("trees")
    shapes = [
        trees.balanced(3, 3),
        trees.random_recursive(40, 0),
        trees.preferential(40, 0),
        trees.caterpillar(40, 7),
        trees.star_of_paths(40, 3),
    ]
    assert [len(tree) for tree in shapes] == [40] * 5
    for tree in shapes:
        d = trees.hops(tree)
        assert all(parent < node for node, parent in enumerate(tree))
        adjacent = torch.zeros(40, 40, dtype=torch.float64)
        for node, parent in enumerate(tree[1:], start=1):
            adjacent[node, parent] = adjacent[parent, node] = 1
        # Walks of n steps reach what lies n hops away or less.
        reach = torch.eye(40, dtype=torch.float64)
        for n in range(int(d.max())):
            assert torch.equal(reach > 0, d <= n)
            reach = (reach + reach @ adjacent).clamp(max=1)
        assert trees.mean_average_precision(d, tree) == 1
    # A path of 4 with the ends folded on each other: 1, 0 and 3 rank {3}, {1}, {0} before their neighbours.
    line = torch.tensor([0.0, 2.0, 2.5, 0.1], dtype=torch.float64)
    d = (line.unsqueeze(0) - line.unsqueeze(1)).abs()
    # Node 0: its neighbour 1 comes after 3: 1/2. Node 1: 2 first, then 3, then 0: (1 + 2/3)/2. Node 2: 1, then 3: 1.
    # Node 3: its neighbour 2 comes last: 1/3.
    assert trees.mean_average_precision(d, [-1, 0, 1, 2]) == pytest.approx((1 / 2 + 5 / 6 + 1 + 1 / 3) / 4)


def test_sarkar_has_equal_edges_and_angles():
    trees, manifold = helper("trees"), Lorentz()
    tree = trees.balanced(3, 3)
    x = trees.sarkar(tree, manifold, 2.0)
    parents = torch.tensor(tree[1:])
    torch.testing.assert_close(manifold.dist(x[1:], x[parents]), torch.full((39,), 2.0, dtype=x.dtype))
    for node in (1, 5):  # three children and a parent, at right angles
        around = [n for n, parent in enumerate(tree) if parent == node] + [tree[node]]
        u = manifold.logmap_frame(x[node], x[around]) / 2
        cosines = (u @ u.mT).sort(-1).values
        torch.testing.assert_close(cosines, torch.tensor([-1.0, 0, 0, 1], dtype=x.dtype).expand(4, 4))


def test_exact_geometry():
    exact = helper("exact")
    directions = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, y = exact.polar(30.0, directions[0]), exact.polar(31.5, directions[0])
    assert np.abs(exact.distance(x, y) - 1.5).max() < 1e-30  # on one ray
    u, v = exact.tangent(x, directions[1], 2.0), exact.tangent(x, directions[2], 1.0)
    y = exact.exponential(x, u)
    assert np.abs(exact.inner(y, y) + 1).max() < 1e-40
    assert np.abs(exact.distance(x, y) - 2).max() < 1e-30
    assert exact.length(exact.logarithm(x, y) - u).max() < 1e-20
    w = exact.transport(x, y, v)
    assert np.abs(exact.inner(w, y)).max() < 1e-40 and np.abs(exact.length(w) - 1).max() < 1e-20
    assert exact.length(exact.transport(x, y, u) + exact.logarithm(y, x)).max() < 1e-20
    for chart in (exact.Ball, exact.KleinBall, exact.Hyperboloid):
        c, h = chart.coordinates(x), exact.CONTEXT.mpf("1e-35")
        assert exact.distance(chart.point(c), x).max() < 1e-15
        assert exact.length(chart.tangent(x, chart.components(x, u)) - u).max() < 1e-15
        # The differential against a difference quotient of the coordinates.
        slope = (chart.coordinates(exact.exponential(x, h * u)) - c) / h
        assert np.abs(slope / chart.components(x, u) - 1).max() < 1e-8
