"""Derivatives of the chart of the off-log metric: against quotients, under the transforms of torch, compiled."""

import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck

from tests.support.correlation import generator, of_condition
from torchriemann.manifolds import CorrelationOffLog
from torchriemann.manifolds.functional.off_log import jacobian_inverse

F64 = torch.float64
PLAIN, FORM = CorrelationOffLog(), CorrelationOffLog(2.0, 0.3, -0.1)


def draw(*size, seed=0):
    return torch.randn(size, generator=generator(seed), dtype=F64)


def cases(n):
    """Images: of the identity, of a point with a repeated eigenvalue, of any."""
    equal = torch.full((n, n), 0.3, dtype=F64).fill_diagonal_(1.0)
    return PLAIN.chart.forward(torch.stack([torch.eye(n, dtype=F64), equal, of_condition(n, n, condition=30.0)]))


def functions(n):
    """The maps of the chart with arguments: the way back, its derivative, and that at a point, with its transpose."""
    f, y = FORM.chart, cases(n)
    v, g, x = draw(*y.shape), draw(3, n, n, seed=1), f.inverse(y)
    return {
        "inverse": (f.inverse, y),
        "inverse_differential": (lambda y, v: f.inverse_differential(y, v)[1], y, v),
        "inverse_adjoint": (f.inverse_adjoint, y, g),
        "pull": (lambda x, v: f.linearized(x).pull(v), x, v),
        "adjoint": (lambda x, g: f.linearized(x).adjoint(g), x, g),
    }


@pytest.mark.parametrize("name", ["inverse", "inverse_differential", "inverse_adjoint", "pull", "adjoint"])
def test_first_and_second_derivatives(name):
    function, *arguments = functions(3)[name]
    inputs = [a.clone().requires_grad_() for a in arguments]
    assert gradcheck(function, inputs, check_forward_ad=True, check_batched_grad=True, fast_mode=True)
    assert gradgradcheck(function, inputs, check_fwd_over_rev=True, check_batched_grad=True, fast_mode=True)


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("name", ["inverse", "inverse_differential", "inverse_adjoint", "pull", "adjoint"])
def test_every_entry_of_first_and_second_derivatives(name, n):
    function, *arguments = functions(n)[name]
    inputs = [a.clone().requires_grad_() for a in arguments]
    assert gradcheck(function, inputs, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)
    assert gradgradcheck(function, inputs, check_fwd_over_rev=True, check_batched_grad=True)


@pytest.mark.parametrize("name", ["inverse", "inverse_differential", "pull"])
def test_transforms_and_compilers_agree(name):
    function, y, *others = functions(3)[name]

    def loss(y, *others):
        return function(y, *others).sin().square().sum()

    ones = torch.ones_like(y)
    first, second = torch.func.grad(loss)(y, *others), torch.func.hessian(loss)(y, *others)
    leaf = y.clone().requires_grad_()
    assert torch.allclose(grad(loss(leaf, *others), leaf)[0], first, atol=1e-13)
    batched = torch.func.vmap(torch.func.grad(loss))(y, *others)
    assert torch.allclose(batched, first, atol=1e-13)
    along = torch.func.jvp(lambda y: torch.func.grad(loss)(y, *others), (y,), (ones,))[1]
    assert torch.allclose(along, second.flatten(-y.dim()).sum(-1), atol=1e-12)
    if name != "inverse":
        torch.compiler.reset()
        compiled = torch.compile(torch.func.grad(loss), fullgraph=True, backend="eager")
        assert torch.allclose(compiled(y, *others), first, atol=1e-13)


def test_the_third_derivative_is_one_and_the_fourth_raises():
    """Along a line, of the way back: the third quotient of values, and what `jvp` gives; of its derivative, too."""
    y, v = cases(3)[2], draw(3, seed=4)

    def along(function):
        return lambda t: torch.func.jvp(function, (t,), (torch.ones_like(t),))[1]

    def third(t):
        return along(along(along(lambda t: PLAIN.chart.inverse(y + t * v))))(t)

    zero, h = torch.zeros((), dtype=F64), 1e-2
    weights = {-3: 1 / 8, -2: -1.0, -1: 13 / 8, 1: -13 / 8, 2: 1.0, 3: -1 / 8}
    quotient = sum(w * PLAIN.chart.inverse(y + k * h * v) for k, w in weights.items()) / h**3
    assert torch.allclose(third(zero), quotient, atol=1e-5)
    with pytest.raises(NotImplementedError, match="three derivatives"):
        along(third)(zero)


def test_a_singular_jacobian_spoils_itself_alone():
    """Of eigenvalues whose exponentials are zero: torch's own inverse would raise for the whole batch."""
    eigenvalues = torch.tensor([[0.0, -300.0], [0.0, 0.0]])
    inverse = jacobian_inverse(eigenvalues, torch.eye(2).expand(2, 2, 2))
    assert inverse[0].isnan().all() and torch.equal(inverse[1], torch.eye(2))
