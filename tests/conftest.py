"""Profiles of hypothesis, one thread a worker, and what the rows of the table of laws cost."""

import gc
from collections import defaultdict

import pytest
import torch
from hypothesis import HealthCheck, settings

# Laws draw few numbers and spend their time in tensors: the health checks on speed say nothing about them.
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.differing_executors]
settings.register_profile("default", max_examples=15, deadline=None, derandomize=True, suppress_health_check=QUIET)
settings.register_profile("slow", parent=settings.get_profile("default"), max_examples=200)
settings.load_profile("default")

torch.set_num_threads(1)  # two workers share two cores

# Seconds on one quiet core that a row of the table of laws may take in the default suite; CONTRIBUTING.md says how.
BUDGET, BUDGET_AGAIN = 15, 8  # the second for a row that repeats the formulas of another one
DEAR = {"Grassmann": 20, "Lorentz": 20, "Stiefel": 20}  # first rows with the longest formulas
SHOWN = 5


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection():
    """Imports and thousands of tests live as long as the process: to look through them for garbage, again and again,
    takes a quarter of the time that collecting the tests takes. The garbage of tests themselves is collected."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items):
    """Note with every test of a row whose it is: reports, which may come from other processes, carry that along."""
    for item in items:
        case = item.callspec.params.get("case") if "test_laws" in item.nodeid and "case" in item.fixturenames else None
        if case is not None:
            item.user_properties.append(("row", (repr(case.manifold), case.repeats is not None)))


def pytest_terminal_summary(terminalreporter):
    """The dearest rows; for information, since seconds depend on the machine and on what else it does."""
    seconds = defaultdict(float)
    for report in terminalreporter.stats.get("passed", []) + terminalreporter.stats.get("failed", []):
        for name, value in report.user_properties:
            if name == "row":
                seconds[tuple(value)] += report.duration
    if len(seconds) < 2:
        return
    terminalreporter.section(f"dearest {SHOWN} of {len(seconds)} rows of laws")
    for row in sorted(seconds, key=seconds.__getitem__, reverse=True)[:SHOWN]:
        budget = BUDGET_AGAIN if row[1] else DEAR.get(row[0].partition("(")[0], BUDGET)
        note = f"   (above its budget of {budget} s)" if seconds[row] > budget else ""
        terminalreporter.write_line(f"{seconds[row]:6.1f}s {row[0]}{note}")
