"""The wrapper of operations: what it refuses, in which words, and what it leaves alone."""

import itertools

import pytest
import torch

from torchriemann import Lorentz, PoincareBall
from torchriemann.manifolds.functional.broadcasting import broadcast_shape
from torchriemann.manifolds.operation import in_full_precision, operation
from torchriemann.testing import Launches

X = PoincareBall().origin(4, 3)


class Probe(PoincareBall):  # pyright: ignore[reportGeneralTypeIssues]
    """A ball whose operations give back what reaches them."""

    @operation
    def transp(self, x, y, v):
        return self, x, y, v

    @operation
    def inner(self, x, u, v=None, *, keepdim=False):
        return self, x, u, v, keepdim

    @in_full_precision
    def geodesic(self, x, y, t):
        return x, y, t, self, x.dtype


WRONG = {
    "list": ((X, [0.0]), r"PoincareBall.dist: argument 2 must be a tensor, got list; convert it with torch.as_tensor"),
    "None": ((X, None), r"PoincareBall.dist: argument 2 must be a tensor, got NoneType"),
    "integer": ((X, X.long()), r"PoincareBall.dist: expected a floating-point tensor, got torch.int64"),
    "integers": ((X.long(), X.long()), r"PoincareBall.dist: expected a floating-point tensor, got torch.int64"),
    "number": ((X, X[0, 0]), r"PoincareBall.dist: needs at least 1 dimension\(s\), got shape \(\)"),
    "width": (
        (X, X[:, :2]),
        r"PoincareBall.dist: arguments are points of different shapes, \(4, 3\) and \(4, 2\): the last 1 dim",
    ),
    "batch": ((X, X[:3]), r"PoincareBall.dist: batch dimensions \(4,\), \(3,\) do not broadcast"),
    "half batch": ((X.half(), X[:3].half()), r"PoincareBall.dist: batch dimensions \(4,\), \(3,\) do not broadcast"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("autocast", [False, True])
def test_what_is_refused(case, autocast):
    arguments, message = WRONG[case]
    with torch.autocast("cpu", enabled=autocast), pytest.raises(ValueError, match=message):
        PoincareBall().dist(*arguments)


def test_all_batches_are_named():
    with pytest.raises(ValueError, match=r"batch dimensions \(4,\), \(4,\), \(3,\) do not broadcast"):
        PoincareBall().parallel_transport(X, X, X[:3])
    with pytest.raises(ValueError, match="Lorentz.dist: points must have a time and at least one space coordinate"):
        Lorentz().dist(X[:, :1], X[:, :1])


def _same(found, expected):
    return all(a is b for a, b in zip(found, expected, strict=True))


def test_arguments_that_need_nothing_reach_the_body_as_they_are():
    m = Probe(torch.tensor(-1.0))
    with Launches() as launches:
        for given in ((X, X, X), (X, X[:1], X[0])):
            assert _same(m.transp(*given), (m, *given))
        assert _same(m.inner(X, X, keepdim=True), (m, X, X, None, True))
        assert _same(m.inner(X, X, None, keepdim=True), (m, X, X, None, True))
        assert _same(m.geodesic(X, X, 0.5), (X, X, 0.5, m, X.dtype))
    assert launches.count == 0


def test_arguments_that_differ_in_dtype_meet_in_one():
    m = Probe(torch.tensor(-1.0))
    own, *found = m.transp(X, X.double(), X.half())
    assert own.curvature.dtype == torch.float64 and [t.dtype for t in found] == [torch.float64] * 3
    x, _, t, _, inside = m.geodesic(X.bfloat16(), X.bfloat16(), torch.tensor(0.5))
    assert inside == torch.float32 and x.dtype == t.dtype == torch.bfloat16
    x, _, t, own, inside = m.geodesic(X.double(), X.double(), torch.tensor(0.5))
    assert own.curvature.dtype == inside == x.dtype == torch.float64


def test_broadcast_shape_is_that_of_torch():
    shapes = [s for n in range(3) for s in itertools.product((0, 1, 2, 3), repeat=n)]
    for pair in itertools.product(shapes, repeat=2):
        for given in (pair, (*pair, (1,))):
            try:
                expected = tuple(torch.broadcast_shapes(*given))
            except RuntimeError:
                expected = None
            assert broadcast_shape(*given) == expected, given
    assert broadcast_shape() == ()
