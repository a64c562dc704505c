"""Parallel transport of the Bures-Wasserstein metric against an integrator of its equation, and where it is closed."""

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import torch

from torchriemann.manifolds import SPDBuresWasserstein
from torchriemann.manifolds.functional.matrices import sym

METRIC = SPDBuresWasserstein()
F64 = torch.float64


def pair(n: int, condition: float, count: int) -> tuple[torch.Tensor, ...]:
    """Two points of independent eigenvectors, and two unit vectors at the first."""
    g = torch.Generator().manual_seed(n)
    x, y = (METRIC.random_spectrum(count, n, n, condition=condition, generator=g, dtype=F64) for _ in range(2))
    u, v = (METRIC.random_tangent(x, generator=g) for _ in range(2))
    return x, y, u / METRIC.norm(x, u, keepdim=True), v / METRIC.norm(x, v, keepdim=True)


def integrated(x: np.ndarray, y: np.ndarray, v: np.ndarray) -> np.ndarray:
    """V' = S_c' c S_V + S_V c S_c' along c(t) = (I + tS) x (I + tS): Malago, Montrucchio and Pistone, section 5."""
    n, eye = len(x), np.eye(len(x))
    root = np.real(scipy.linalg.sqrtm(x))
    inverse = np.linalg.inv(root)
    s = inverse @ np.real(scipy.linalg.sqrtm(root @ y @ root)) @ inverse - eye

    def slope(t, flat):
        move = eye + t * s
        c = move @ x @ move
        speed = s @ np.linalg.inv(move)
        dual = scipy.linalg.solve_continuous_lyapunov(c, flat.reshape(n, n))
        return (speed @ c @ dual + dual @ c @ speed).ravel()

    return scipy.integrate.solve_ivp(slope, (0, 1), v.ravel(), "DOP853", rtol=1e-12, atol=1e-13).y[:, -1].reshape(n, n)


@pytest.mark.parametrize("condition, error", [(4.0, 1e-11), (100.0, 1e-9)])
def test_it_solves_its_equation(condition, error):
    x, y, u, _ = pair(3, condition, 3)
    got = METRIC.parallel_transport(x, y, u)
    want = np.stack([integrated(*arguments) for arguments in zip(x.numpy(), y.numpy(), u.numpy(), strict=True)])
    assert METRIC.norm(y, got - torch.from_numpy(want)).max() < error


@pytest.mark.parametrize(
    "condition, error, isometry", [(10.0, 1e-13, 1e-13), (1e2, 1e-9, 1e-12), (1e4, 1e-6, 1e-10), (1e6, 1e-5, 1e-8)]
)
def test_accuracy_and_isometry(condition, error, isometry):
    """The stated error, by eight steps in the place of one, and lengths and angles."""
    for n in (3, 6):
        x, y, u, v = pair(n, condition, 20)
        got, other = METRIC.parallel_transport(x, y, torch.stack([u, v])).unbind(0)
        assert (METRIC.norm(y, got) - 1).abs().max() < isometry
        assert (METRIC.inner(y, got, other) - METRIC.inner(x, u, v)).abs().max() < isometry
        at, finer = x, u
        for k in range(8):
            to = METRIC.geodesic(x, y, (k + 1) / 8) if k < 7 else y
            at, finer = to, METRIC.parallel_transport(at, to, finer)
        assert METRIC.norm(y, got - finer).max() < error
        assert (METRIC.parallel_transport(y, x, got) - u).abs().max() < 1e-13 * condition


def test_commuting_points():
    """V_ij sqrt((b_i + b_j)/(a_i + a_j)) in common eigenvectors, from one to the other."""
    g = torch.Generator().manual_seed(0)
    frame = torch.linalg.qr(torch.randn(5, 4, 4, generator=g, dtype=F64))[0]
    a, b = (torch.rand(5, 4, generator=g, dtype=F64) * 5 + 0.01 for _ in range(2))
    x, y = ((frame * values.unsqueeze(-2)) @ frame.mT for values in (a, b))
    v = sym(torch.randn(5, 4, 4, generator=g, dtype=F64))
    ratio = (b.unsqueeze(-1) + b.unsqueeze(-2)) / (a.unsqueeze(-1) + a.unsqueeze(-2))
    want = frame @ (ratio.sqrt() * (frame.mT @ v @ frame)) @ frame.mT
    assert torch.allclose(METRIC.parallel_transport(x, y, v), want, atol=1e-12)
    assert torch.allclose(METRIC.parallel_transport(x, 3 * x, v), 3**0.5 * v, atol=1e-13)


def test_the_end_may_be_given_by_the_vector():
    x, y, _, v = pair(4, 30.0, 5)
    u = METRIC.logmap(x, y)
    end, w = METRIC.expmap_transp(x, u, v)
    assert torch.allclose(end, y, atol=1e-12)
    assert torch.allclose(w, METRIC.parallel_transport(x, y, v), atol=1e-11)
    assert torch.allclose(METRIC.expmap_transp(x, u, u)[1], -METRIC.logmap(y, x), atol=1e-11)


def test_derivatives():
    """In both points and the vector, of first and second order, at equal points and equal eigenvalues too."""
    eye = torch.eye(3, dtype=F64)
    x, y, v, _ = (a[0] for a in pair(3, 10.0, 1))
    for start, end in ((x, y), (eye, y), (eye, eye), (eye, torch.diag(torch.tensor([2.0, 2.0, 3.0], dtype=F64)))):
        changes = [sym(a) for a in torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(1), dtype=F64)]
        *moves, weights = changes

        def value(t, start=start, end=end, moves=moves, weights=weights):
            arguments = [a + 0.1 * t * d for a, d in zip((start, end, v), moves, strict=True)]
            return (METRIC.parallel_transport(*arguments) * weights).sum()

        zero, h = torch.zeros((), dtype=F64), 1e-2
        ahead, behind, far, back = (value(torch.tensor(k * h, dtype=F64)) for k in (1, -1, 2, -2))
        quotient = (8 * (ahead - behind) - (far - back)) / (12 * h)
        curved = (16 * (ahead + behind) - (far + back) - 30 * value(zero)) / (12 * h * h)
        assert abs(torch.func.grad(value)(zero) - quotient) < 1e-7
        assert abs(torch.func.jvp(value, (zero,), (zero + 1,))[1] - quotient) < 1e-7
        assert abs(torch.func.grad(torch.func.grad(value))(zero) - curved) < 1e-6


@pytest.mark.slow
def test_compiled_with_gradients():
    x, y, v, _ = (a[:1].requires_grad_() for a in pair(2, 10.0, 1))

    def loss(x, y, v):
        return METRIC.parallel_transport(x, y, v).square().sum()

    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=False)(x, y, v)
    found = torch.autograd.grad(compiled, (x, y, v))
    for got, want in zip(found, torch.autograd.grad(loss(x, y, v), (x, y, v)), strict=True):
        assert torch.allclose(got, want, atol=1e-12)
