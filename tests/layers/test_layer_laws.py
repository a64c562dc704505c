"""Every law of layers on every row of the table, and the exemptions themselves."""

import dataclasses
import subprocess
import sys

import pytest

from tests.layers.table import SLOW, TABLE
from torchriemann import layers
from torchriemann.testing import LAYER_LAWS, LayerTrial, applying_to, layer_exemption_stands

# Later rows of a class, in the same mode, repeat its code. Their compiled graph is traced and run as it is, which finds
# branches on values at a third of the cost of "aot_eager", and they are exported in the slow half only.
FIRST = {(type(layer := case.make()), getattr(layer, "training", None)): case for case in reversed(TABLE)}.values()
LATER = [case for case in TABLE if not any(case is first for first in FIRST)]


def pair(case, law):
    later = any(case is other for other in LATER)
    slow = (law.name, type(case.make()).__name__) in SLOW or (later and law.name == "exported_equals_eager")
    return pytest.param(
        dataclasses.replace(case, backend="eager") if later else case,
        law,
        id=f"{law.name}-{case}",
        marks=[pytest.mark.slow] if slow else [],
    )


PAIRS = [pair(case, law) for case in TABLE for law in applying_to(case)]
EXEMPT = [pytest.param(case, name, id=f"{name}-{case}") for case in TABLE for name in case.exempt]


@pytest.mark.parametrize(("case", "law"), PAIRS)
def test_law(case, law):
    for seed in range(1 if law.once else 2):
        law(LayerTrial(case, seed))


@pytest.mark.slow
@pytest.mark.parametrize("case", LATER, ids=repr)
def test_compiled_in_full(case):
    LAYER_LAWS["compiled_equals_eager"](LayerTrial(case))


@pytest.mark.parametrize(("case", "name"), EXEMPT)
def test_exemption_stands(case, name):
    assert case.exempt[name], "an exemption states its reason"
    assert layer_exemption_stands(case, name), f"{case} obeys {name}: drop the exemption"


def test_every_layer_has_a_row():
    exported = {name for name, value in vars(layers).items() if isinstance(value, type)} - {"ManifoldModule"}
    assert exported == {type(case.make()).__name__ for case in TABLE}


@pytest.mark.parametrize("name", LAYER_LAWS)
def test_every_law_is_stated_and_concerns_a_layer(name):
    assert LAYER_LAWS[name].__doc__
    assert any(law.name == name for case in TABLE for law in applying_to(case))


def test_nothing_of_it_imports_hypothesis():
    code = "import sys, torchriemann.testing; sys.exit('hypothesis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
