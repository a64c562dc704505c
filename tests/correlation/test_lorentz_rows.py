"""The hyperbolic rows in which the poly-hyperbolic metric has its image."""

import torch

from tests.support.correlation import generator
from torchriemann.manifolds import Lorentz
from torchriemann.manifolds.correlation.lorentz_rows import LorentzRows

M, ROW = LorentzRows(), Lorentz()


def test_gradients_read_no_coordinate_that_is_zero():
    """A derivative by a coordinate in which no point differs says nothing, whatever stands there."""
    g = generator()
    x = M.random(20, 4, 5, generator=g, dtype=torch.float64)
    u, v = M.random_tangent(x, g), M.random_tangent(x, g)
    slope, curve = (torch.randn(x.shape, generator=g, dtype=torch.float64) for _ in range(2))
    gradient, hessian = M.egrad2rgrad(x, slope), M.ehess2rhess(x, slope, curve, u)
    assert M.check_vector_on_tangent(x, gradient) and M.check_vector_on_tangent(x, hessian)
    torch.testing.assert_close(M.inner(x, gradient, v), (slope * v).flatten(-2).sum(-1), rtol=1e-12, atol=1e-12)
    assert torch.equal(M.egrad2rgrad(x, slope.tril(1)), gradient)
    assert torch.equal(M.ehess2rhess(x, slope.tril(1), curve.tril(1), u), hessian)
    for i in range(4):  # row i alone, in the hyperbolic space of its own dimension
        at, along = x[:, i, : i + 2], u[:, i, : i + 2]
        rows = slope[:, i, : i + 2], curve[:, i, : i + 2]
        torch.testing.assert_close(gradient[:, i, : i + 2], ROW.egrad2rgrad(at, rows[0]), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(hessian[:, i, : i + 2], ROW.ehess2rhess(at, *rows, along), rtol=1e-12, atol=1e-12)
