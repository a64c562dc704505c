"""What is no argument is refused in words, and what has a shape but no numbers is computed with."""

import numpy as np
import pytest
import torch

from tests.support.spd import METRICS, OPERATIONS, generator
from torchriemann.manifolds import SPDAffineInvariant, SPDLogCholesky, SPDLogEuclidean
from torchriemann.manifolds.functional.matrix_functions import (
    matrix_exp,
    matrix_inverse_sqrt,
    matrix_log,
    matrix_power,
    matrix_sqrt,
)
from torchriemann.manifolds.functional.spectral_cones import (
    project_condition,
    project_eigenvalue_floor,
    project_rank,
    project_trace_one,
)

F64, F32 = torch.float64, torch.float32
every_metric = pytest.mark.parametrize("metric", METRICS, ids=repr)
FUNCTIONS = [
    matrix_sqrt,
    matrix_inverse_sqrt,
    matrix_log,
    matrix_exp,
    lambda x: matrix_power(x, 0.3),
    lambda x: matrix_sqrt(x, "newton_schulz"),
    lambda x: project_eigenvalue_floor(x, 0.1),
    lambda x: project_condition(x, 10.0),
    project_trace_one,
    lambda x: project_rank(x, 1),
]
WRONG = [None, [[1.0]], np.eye(3), torch.eye(3, dtype=torch.int64), torch.eye(3) + 0j, torch.ones(3), torch.ones(2, 3)]


@every_metric
def test_what_is_no_point_is_refused_by_every_operation(metric):
    m, x = metric.manifold, torch.eye(3)
    for wrong in [*WRONG, torch.ones(()), torch.ones(0, 0)]:
        for name, letters in OPERATIONS.items():
            for i in range(len(letters)):
                if wrong is None and name == "injectivity_radius" or name in ("decay", "inner") and i > 0:
                    continue
                given = [wrong if i == k else x for k in range(len(letters))]
                with pytest.raises(ValueError, match=rf"SPD\w+\.{name}"):
                    getattr(m, name)(*given, *([0.9] if name == "decay" else []))


@every_metric
def test_tables_of_sets_that_do_not_fit(metric):
    m = metric.manifold
    sets = m.random(2, 4, 3, 3), m.random(3, 4, 3, 3), m.random(4, 2, 2)
    with pytest.raises(ValueError, match=r"SPD\w+\.cdist: batch dimensions \(2,\), \(3,\)"):
        m.cdist(*sets[:2])
    with pytest.raises(ValueError, match=r"SPD\w+\.cdist"):
        m.cdist(sets[0], sets[2])


@pytest.mark.parametrize("m", [SPDAffineInvariant(), SPDLogEuclidean(), SPDLogCholesky()], ids=repr)
def test_coordinates_are_as_many_as_a_triangle_has(m):
    for count in (0, 2, 4, 5, 7):
        with pytest.raises(ValueError, match=rf"1, 3, 6, 10.*got {count}"):
            m.from_normal(torch.zeros(2, count))
    assert m.from_normal(torch.zeros(2, 6)).shape == (2, 3, 3)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_of_what_is_no_matrix(function):
    for wrong in [*WRONG, torch.ones(0, 0)]:
        with pytest.raises(ValueError, match=r"(matrix|project)_\w+: x must be"):
            function(wrong)


@every_metric
@pytest.mark.parametrize("dtype", [pytest.param(F64, marks=pytest.mark.slow), F32, torch.bfloat16])
def test_tensors_without_numbers_have_a_shape(metric, dtype):
    m, x = metric.manifold, torch.empty(2, 3, 3, device="meta", dtype=dtype)
    for name, letters in OPERATIONS.items():
        value = m.decay(x, 0.9) if name == "decay" else getattr(m, name)(*[x] * len(letters))
        assert name == "injectivity_radius" or value.device.type == "meta" and len(value) == 2
    if dtype == F32:
        y = x.clone().requires_grad_()
        m.dist(y, m.expmap(y, x)).sum().backward()
        assert y.grad is not None and y.grad.is_meta
        assert m.projx(x).is_meta and all(f(x).is_meta for f in FUNCTIONS)


@every_metric
def test_points_in_half_precision_beyond_its_largest_number(metric):
    """A multiple that fits, as everywhere a point in the dtype in which it is given."""
    m = metric.manifold
    x = m.random_spectrum(50, 4, 4, condition=1e12, generator=generator(), dtype=torch.float16)
    assert m.check_point_on_manifold(x) and x.max() > 6e4 / 2
    wide = 1e3 * m.random(50, 4, 4, generator=generator(), dtype=F64)
    large = 2.0**12 * wide
    assert m.check_point_on_manifold(m.round_to(large, torch.float16))
    assert torch.equal(m.round_to(wide, torch.float16), wide.half())
    assert m.round_to(torch.full((1, 1), torch.inf), torch.float16).isinf()


@pytest.mark.parametrize("condition", [0.5, torch.inf, torch.nan, "10", torch.ones(2)])
def test_a_condition_is_a_number(condition):
    with pytest.raises(ValueError, match="SPDLogEuclidean.random_spectrum: condition must be"):
        SPDLogEuclidean().random_spectrum(3, 3, condition=condition)
