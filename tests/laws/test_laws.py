"""Every law on every row of the table, and the list of exemptions itself."""

import pytest
from hypothesis import given, settings

from tests.laws.table import TABLE
from torchriemann.testing import LAWS, applying, draws, exemption_stands, full_gradcheck, trials
from torchriemann.testing import Trial as Draw


def pair(case, name, second):
    slow = case.slow is None or name in case.slow
    return pytest.param(case, second, id=f"{name}-{case.manifold}", marks=[pytest.mark.slow] if slow else [])


PAIRS = [pair(case, entry.name, entry) for case in TABLE for entry in applying(case)]
EXEMPT = [pair(case, name, name) for case in TABLE for name in case.exempt]


DRAWS = 5  # of a first row: its shapes are no more, nor are dtypes, scales and batches


@pytest.mark.parametrize("case, entry", PAIRS)
def test_law(case, entry):
    for draw in draws(case, entry, case.draws or DRAWS):
        entry(draw)


@pytest.mark.slow
@pytest.mark.parametrize("case, entry", PAIRS)
def test_law_at_length(case, entry):
    examples = settings.get_profile("slow").max_examples

    @settings(max_examples=examples if entry.examples is None else min(examples, entry.examples))
    @given(trials(case.in_full(), entry))
    def holds(trial):
        entry(trial)

    holds()


@pytest.mark.slow
@pytest.mark.parametrize("case", TABLE, ids=lambda case: repr(case.manifold))
def test_full_gradcheck(case):
    assert full_gradcheck(Draw(case.in_full(), case.shapes[0])) is None


@pytest.mark.parametrize("case", TABLE, ids=lambda case: repr(case.manifold))
def test_a_row_repeats_the_first_row_of_its_formulas(case):
    firsts = [row for row in TABLE if type(row.manifold).__module__ == type(case.manifold).__module__]
    assert any(row.repeats is None for row in firsts), "some row of a formula file is held to the costly laws"
    assert case.repeats is None or case.repeats in [row.manifold for row in firsts if row.repeats is None]


@pytest.mark.parametrize("case, name", EXEMPT)
def test_exemption_stands(case, name):
    assert case.exempt[name], "an exemption states its reason"
    assert exemption_stands(case, name), f"{case} obeys {name}: drop the exemption"


@pytest.mark.parametrize("name", LAWS)
def test_every_law_runs_somewhere(name):
    assert any(name not in case.exempt for case in TABLE)


def test_every_law_is_stated():
    for name, entry in LAWS.items():
        assert entry.__doc__ and entry.subject, name
