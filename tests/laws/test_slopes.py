"""The checks by slopes accept what is right on every manifold of the table, and find each classical mistake."""

import math

import geoopt
import pytest
import torch

from tests.laws.table import TABLE
from torchriemann.manifolds import Euclidean, Grassmann, Sphere
from torchriemann.manifolds.frames.stiefel import Stiefel
from torchriemann.testing import SlopeCheck, check_gradient, check_hessian, check_retraction
from torchriemann.testing.slopes import _slope, _steps

rows = pytest.mark.parametrize("case", TABLE, ids=lambda case: repr(case.manifold))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def polynomial(case, seed=0):
    """A quadratic polynomial of what all representatives of a point have in common."""
    size = case.invariant(torch.zeros(case.shapes[0])).numel()
    a, b = torch.randn(2, size, generator=generator(seed), dtype=torch.float64)

    def cost(x):
        z = case.invariant(x).flatten(-case.manifold.ndim)
        return z @ a + 0.5 * (z @ b).square()

    return cost


def symmetric(n, seed=0):
    a = torch.randn(n, n, generator=generator(seed), dtype=torch.float64)
    return a + a.T


A = symmetric(6)


def trace(x):
    return (x * (A @ x)).sum()


def frame(manifold, n=6, p=2, seed=1):
    x = manifold.random(n, p, generator=generator(seed), dtype=torch.float64)
    return x, manifold.random_tangent(x, generator=generator(seed + 1))


# ---- right ones pass --------------------------------------------------------------------------------------------


@rows
def test_gradients_of_every_manifold(case):
    for shape in case.shapes[:1] if case.manifold.dimension(case.shapes[0]) else ():
        found = check_gradient(case.manifold, polynomial(case), shape=shape, generator=generator(), raises=True)
        assert found and 1.9 < found.slope < 3.2


@rows
def test_hessians_of_every_manifold(case):
    if "ehess2rhess" in case.missing:
        with pytest.raises(NotImplementedError, match="ehess2rhess"):
            check_hessian(case.manifold, polynomial(case), shape=case.shapes[0], generator=generator())
    else:
        assert check_hessian(case.manifold, polynomial(case), shape=case.shapes[0], generator=generator(), raises=True)


@rows
def test_retractions_of_every_manifold(case):
    order = 1 if case.order is None else case.order
    found = check_retraction(case.manifold, shape=case.shapes[0], order=order, generator=generator(), raises=True)
    if case.order is None:
        assert math.isinf(found.slope)
    else:
        assert abs(found.slope - found.expected) < 0.1


def test_linear_and_quadratic_costs_leave_nothing_but_rounding():
    a = torch.randn(4, generator=generator(), dtype=torch.float64)
    m = Euclidean()
    for check, cost in [
        (check_gradient, lambda x: x @ a),
        (check_hessian, lambda x: x @ a + 3.0),
        (check_hessian, lambda x: 1e6 + x @ a + x @ x),
    ]:
        found = check(m, cost, shape=(4,), generator=generator())
        assert found.ok and math.isinf(found.slope) and found.window is None and "rounding" in repr(found)


def test_own_gradient_hessian_and_batches():
    m = Sphere()
    x = m.random(5, 6, generator=generator(), dtype=torch.float64)

    def cost(x):  # one value a point
        return (x * (x @ A)).sum(-1)

    def gradient(x):
        return 2 * (x @ A - cost(x)[:, None] * x)

    def hessian(x, u):
        h = 2 * u @ A
        return h - (x * h).sum(-1, keepdim=True) * x - 2 * cost(x)[:, None] * u

    assert check_gradient(m, cost, x, gradient=gradient, generator=generator(), raises=True)
    assert check_hessian(m, cost, x, gradient=gradient, hessian=hessian, generator=generator(), raises=True)
    assert check_hessian(m, cost, x, hessian=hessian, retraction=m.retr, generator=generator(), raises=True)


def test_the_largest_steps_may_leave_the_domain():
    def cost(x):
        return torch.log(x[0])  # NaN on half of the sphere

    x = torch.tensor([0.3, 0.0, 0.91**0.5], dtype=torch.float64)
    u = torch.tensor([-(0.91**0.5), 0.0, 0.3], dtype=torch.float64)
    found = check_hessian(Sphere(), cost, x, u)
    assert found.ok and math.isnan(found.errors[-1])


def test_noise_of_the_cost_is_no_slope():
    noise = torch.randn(10_000, generator=generator(), dtype=torch.float64).abs().tolist()

    def noisy(x):  # linear, with a thousand times the rounding of one operation
        return x.sum() + 1e-13 * noise.pop()

    found = check_gradient(Euclidean(), noisy, shape=(3,), gradient=torch.ones_like, generator=generator())
    assert found.ok and math.isinf(found.slope)


# ---- wrong ones do not ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2.0, 0.5, 1.001, -1.0])
def test_a_gradient_off_by_a_factor(factor):
    m = Stiefel()
    x, u = frame(m)

    def gradient(x):
        return factor * m.egrad2rgrad(x, 2 * A @ x)

    found = check_gradient(m, trace, x, u, gradient=gradient)
    assert not found.ok and abs(found.slope - 1) < 0.1 and found.complaint is None


@pytest.mark.parametrize("manifold", [Stiefel(), Stiefel(0.5), Grassmann()], ids=repr)
def test_a_gradient_without_projection(manifold):
    x, u = frame(manifold)
    found = check_gradient(manifold, trace, x, u, gradient=lambda x: 2 * A @ x)
    assert not found.ok and "the gradient is not tangent" in repr(found)


def test_a_gradient_of_another_metric():
    """The canonical gradient is tangent, but not the gradient of the Euclidean metric."""
    m = Stiefel(1.0)
    x, u = frame(m)
    found = check_gradient(m, trace, x, u, gradient=lambda x: Stiefel(0.5).egrad2rgrad(x, 2 * A @ x + x[:1].sum()))
    assert not found.ok


@pytest.mark.parametrize("manifold", [Sphere(), Stiefel(), Grassmann()], ids=repr)
def test_a_hessian_without_curvature_term(manifold):
    shape = (6,) if manifold.ndim == 1 else (6, 2)
    x = manifold.random(*shape, generator=generator(3), dtype=torch.float64)
    found = check_hessian(manifold, trace, x, hessian=lambda x, u: manifold.proju(x, 2 * A @ u), generator=generator(4))
    assert not found.ok and abs(found.slope - 2) < 0.1


def test_a_hessian_that_is_not_tangent_symmetric_or_linear():
    m = Sphere()
    x = m.random(6, generator=generator(), dtype=torch.float64)

    def right(x, u):
        return m.ehess2rhess(x, 2 * A @ x, 2 * A @ u, u)

    skew = torch.triu(torch.randn(6, 6, generator=generator(1), dtype=torch.float64), 1)
    wrong = {
        "not tangent": lambda x, u: 2 * A @ u - 2 * trace(x) * u,
        "not self-adjoint": lambda x, u: right(x, u) + m.proju(x, (skew - skew.T) @ u),
        "not linear": lambda x, u: right(x, u) + u * u.square().sum(),
    }
    assert check_hessian(m, trace, x, hessian=right, generator=generator(2), raises=True)
    for complaint, hessian in wrong.items():
        found = check_hessian(m, trace, x, hessian=hessian, generator=generator(2))
        assert not found.ok and complaint in found.complaint


def test_a_hessian_needs_a_second_order_curve():
    m = Stiefel(retraction="qr")
    x, u = frame(m)

    def cost(x):  # of the frame: a function of its span only does not tell QR from a map of second order
        return (x * (A @ x)).sum(0) @ torch.tensor([1.0, 3.0], dtype=torch.float64)

    assert check_hessian(m, cost, x, u, generator=generator())
    found = check_hessian(m, cost, x, u, retraction=m.retr, generator=generator())
    assert not found.ok and abs(found.slope - 2) < 0.1


def test_canonical_stiefel_of_geoopt_has_no_retraction():
    m, theirs = Stiefel(0.5), geoopt.CanonicalStiefel()
    x, u = frame(m)
    found = check_retraction(m, x, u, retraction=theirs.retr)
    assert not found.ok and abs(found.slope - 1) < 0.1
    assert check_retraction(m, x, u, retraction=geoopt.EuclideanStiefel().retr, raises=True)
    # The distance of geoopt's sphere is never below 4e-4, so no slope shows on it.
    found = check_retraction(geoopt.Sphere(), x[:, 0], x[:, 1])
    assert not found.ok and abs(found.slope) < 0.1


def test_maps_that_are_no_retractions():
    m = Sphere()
    x = m.random(6, generator=generator(), dtype=torch.float64)
    wrong = {
        "doubled": lambda x, u: m.retr(x, 2 * u),
        "constant": lambda x, u: -x,
        "off the manifold": lambda x, u: x + u,
    }
    for name, retraction in wrong.items():
        found = check_retraction(m, x, retraction=retraction, generator=generator(1))
        assert not found.ok, name
        assert (found.complaint is not None) == (name == "off the manifold")
    first_order = Stiefel(retraction="qr")
    assert check_retraction(first_order, shape=(6, 2), order=1, generator=generator())
    assert not check_retraction(first_order, shape=(6, 2), order=2, generator=generator())


def test_a_cost_that_is_nowhere_finite():
    found = check_gradient(Sphere(), lambda x: x.sum() * math.nan, shape=(3,), gradient=lambda x: 0 * x)
    assert not found.ok and math.isnan(found.slope) and "no finite errors" in repr(found)


# ---- the fit ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_slopes_of_known_errors(order, factor):
    h = torch.tensor(_steps(), dtype=torch.float64)
    rounding = 2e-16 * torch.randn(len(h), generator=generator(order), dtype=torch.float64)
    exact = factor * h**order * (1 + h)
    slope, window = _slope((exact + rounding).abs(), torch.ones_like(h))
    assert abs(slope - order) < 0.05 and window is not None


def test_the_smallest_steps_decide():
    h = torch.tensor(_steps(), dtype=torch.float64)
    assert abs(_slope(1e-4 * h + h**2, torch.ones_like(h))[0] - 1) < 0.02  # slope 2 above 1e-4


# ---- the answer and bad input -----------------------------------------------------------------------------------


def test_the_answer_is_readable_and_true_or_false():
    m = Sphere()
    right = check_gradient(m, trace, shape=(6,), generator=generator())
    wrong = check_gradient(m, trace, shape=(6,), gradient=lambda x: 0 * x, generator=generator())
    assert isinstance(right, SlopeCheck) and right and not wrong
    assert repr(right).startswith("gradient of trace on Sphere(curvature=1.0): ok, slope 2.0")
    assert "WRONG, slope 1.00, expected 2, at steps" in repr(wrong)
    assert len(right.steps) == len(right.errors)
    assert right.window is not None and right.window[0] < right.window[1]
    with pytest.raises(AttributeError):
        right.slope = 3.0
    with pytest.raises(AssertionError, match="gradient of trace on Sphere.*WRONG, slope 1.00"):
        check_gradient(m, trace, shape=(6,), gradient=lambda x: 0 * x, generator=generator(), raises=True)


def test_what_was_given_is_not_changed():
    m = Stiefel()
    x, u = frame(m)
    x.requires_grad_()
    before = x.detach().clone(), u.clone()
    check_gradient(m, trace, x, u)
    check_hessian(m, trace, x, u)
    check_retraction(m, x, u)
    assert torch.equal(x, before[0]) and torch.equal(u, before[1]) and x.grad is None


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        ((trace,), {}, "give a point x, or the shape"),
        ((trace, torch.ones(6)), {}, r"x must be a float64 tensor.*float32; use \.double"),
        ((trace, torch.ones(6).double()), {}, "Sphere: x has .* projx"),
        ((trace, torch.eye(6).double()[0], torch.eye(6).double()[0]), {}, "Sphere: u has .* proju"),
        ((trace, torch.eye(6).double()[0], torch.zeros(6).double()), {}, "check_gradient: u has length 0 on Sphere"),
        ((trace,), {"shape": (6,), "gradient": lambda x: x.float()}, r"gradient\(x\) must be a float64.*float32"),
        ((trace,), {"shape": (6,), "gradient": lambda x: None}, r"gradient\(x\) must be .* got NoneType"),
        ((lambda x: x.float().sum(),), {"shape": (6,)}, "must be a float64 tensor.*float32"),
        ((lambda x: 1.0,), {"shape": (6,)}, "must be a float64 tensor.*float"),
        ((lambda x: torch.ones((), dtype=torch.float64),), {"shape": (6,)}, "does not depend on x"),
        ((lambda x: torch.ones((), dtype=torch.float64, requires_grad=True),), {"shape": (6,)}, "does not depend on x"),
    ],
)
def test_bad_input(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        check_gradient(Sphere(), *arguments, **options)


def test_a_class_is_no_manifold():
    with pytest.raises(ValueError, match=r"check_retraction: manifold .* as Sphere\(\), got the class Sphere"):
        check_retraction(Sphere, shape=(3,))


def test_bad_order():
    with pytest.raises(ValueError, match="order must be 1 or 2, got 3"):
        check_retraction(Sphere(), shape=(3,), order=3)


def test_a_gradient_below_the_rounding_of_the_cost_is_not_called_right():
    a = torch.arange(1.0, 5.0, dtype=torch.float64)
    x = Sphere().random(4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def cost(x):
        return 1 + 1e-14 * (x @ a)

    # Of one direction in a hundred at random the change is less than that, as of a cost that is constant.
    generator = torch.Generator().manual_seed(0)
    result = check_gradient(Sphere(), cost, x, gradient=lambda x: -7e-14 * Sphere().proju(x, a), generator=generator)
    assert not result and "too little beside its rounding" in repr(result)
    assert check_gradient(Sphere(), lambda x: x @ x, x)  # constant on the sphere: nothing to see
