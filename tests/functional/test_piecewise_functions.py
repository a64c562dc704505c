"""Divided differences of functions that change their formula at zero, against 60 digits."""

import itertools

import mpmath
import pytest
import torch

from torchriemann.manifolds.functional.spectral_functions import POSITIVE_LINEAR, POSITIVE_PART, named

EXACT = {
    "positive_part": lambda a: max(a, mpmath.mpf(0)),
    "positive_linear": lambda a: 1 + a if a >= 0 else 1 / (1 - a + a * a),
}
PLACES = [-30.0, -3.0, -1.0, -0.3, -1e-2, -1e-6, 1e-6, 1e-3, 0.2, 2.0, 50.0]
PLACES += [a * (1 + 1e-9) for a in PLACES] + [a * (1 + 1e-3) for a in PLACES]


def exact_difference(function, *points):
    points = sorted(mpmath.mpf(a) for a in points)
    if len(points) == 2:
        low, high = function(points[0]), function(points[1])
    else:
        low, high = exact_difference(function, *points[:-1]), exact_difference(function, *points[1:])
    return (high - low) / (points[-1] - points[0])


@pytest.mark.parametrize("f", [POSITIVE_PART, POSITIVE_LINEAR], ids=lambda f: f.key)
@pytest.mark.parametrize("count", [2, 3])
def test_divided_differences(f, count):
    points = list(itertools.combinations(PLACES, count))[:: 1 if count == 2 else 4]
    columns = torch.tensor(points, dtype=torch.float64).unbind(-1)
    got = f.divided_difference(*columns) if count == 2 else f.second_divided_difference(*columns)
    with mpmath.workdps(60):
        want = torch.tensor([float(exact_difference(EXACT[f.key], *p)) for p in points], dtype=torch.float64)
    assert ((got - want).abs() <= 1e-14 * want.abs() + 1e-15).all()


def test_equal_arguments_give_derivatives():
    a = torch.tensor([-2.0, -1e-3, 0.5], dtype=torch.float64)
    q = 1 - a + a * a
    first = torch.where(a < 0, (1 - 2 * a) / q**2, 1.0)
    second = torch.where(a < 0, -1 / q**2 + (1 - 2 * a) ** 2 / q**3, 0.0)
    torch.testing.assert_close(POSITIVE_LINEAR.divided_difference(a, a), first, rtol=1e-14, atol=0)
    torch.testing.assert_close(POSITIVE_LINEAR.second_divided_difference(a, a, a), second, rtol=1e-12, atol=1e-15)
    assert (POSITIVE_PART.divided_difference(a, a) == torch.tensor([0.0, 0.0, 1.0])).all()
    assert (POSITIVE_PART.second_divided_difference(a, a, a) == 0).all()


def test_inverse_and_range():
    a = torch.tensor([-1e6, -30.0, -1.0, -1e-7, 0.0, 1e-7, 3.0], dtype=torch.float64)
    y = POSITIVE_LINEAR.value(a)
    assert (y > 0).all()
    torch.testing.assert_close(POSITIVE_LINEAR.inverse(y), a, rtol=1e-13, atol=1e-15)
    assert POSITIVE_PART.value(torch.tensor([torch.nan])).isnan().all()


def test_they_have_names():
    assert named("positive_part") == POSITIVE_PART and named("positive_linear") == POSITIVE_LINEAR
