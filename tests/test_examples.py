"""The examples run, and print and return what they promise; the small setting proves that, not their claims."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(script: str) -> tuple[list[str], dict]:
    """The lines that ``main(quick=True)`` prints, and its result, in a process of its own."""
    code = (
        "import json, runpy, sys; sys.path.insert(0, sys.argv[1]); "
        "result = runpy.run_path(sys.argv[2])['main'](quick=True); "
        "print(json.dumps(result))"
    )
    environment = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(EXAMPLES), str(EXAMPLES / script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *printed, result = done.stdout.strip().splitlines()
    return printed, json.loads(result)


def test_grassmann_classifier():
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


def test_stiefel_procrustes():
    printed, gaps = run("02_stiefel_procrustes.py")
    assert len(gaps) == 6
    for label, gap in gaps.items():
        assert -1e-12 < gap < (1e-4 if label.startswith("PCA") else 0.1), label
        assert sum(line.startswith(label) for line in printed) == 1


def test_scale_out():
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
