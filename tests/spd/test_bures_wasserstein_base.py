"""The generalised Bures-Wasserstein metrics: a base, a power, and what they reduce to."""

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch

from torchriemann.manifolds import SPDBuresWasserstein
from torchriemann.manifolds.functional.matrices import sym

METRIC = SPDBuresWasserstein()
F64 = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(n: int, condition: float, count: int = 6, seed: int = 0) -> torch.Tensor:
    return METRIC.random_spectrum(count, n, n, condition=condition, generator=seeded(seed), dtype=F64)


def symmetric(n: int, count: int = 6, seed: int = 5) -> torch.Tensor:
    return sym(torch.randn(count, n, n, generator=seeded(seed), dtype=F64))


def test_the_base_at_the_point_gives_a_quarter_of_the_affine_invariant_metric():
    for x, u in zip(points(4, 100.0), symmetric(4), strict=True):
        ratio = torch.linalg.solve(x, u)
        assert abs(SPDBuresWasserstein(x).inner(x, u) / (0.25 * (ratio @ ratio).trace()) - 1) < 1e-14 * 10


def test_a_base_is_a_congruence():
    base, x, y = points(4, 10.0, 1)[0], points(4, 10.0, seed=1), points(4, 10.0, seed=2)
    root = torch.linalg.inv(torch.tensor(scipy.linalg.sqrtm(base.numpy())))  # not the Cholesky factor: any root
    metric = SPDBuresWasserstein(base)
    assert torch.allclose(metric.dist(x, y), METRIC.dist(root @ x @ root, root @ y @ root), rtol=1e-12)
    per_point = SPDBuresWasserstein(torch.stack([base] * 6))
    assert torch.allclose(per_point.logmap(x, y), metric.logmap(x, y), rtol=1e-12, atol=1e-13)
    u = 0.05 * symmetric(4)
    for p, w, end in zip(x.numpy(), u.numpy(), metric.expmap(x, u).numpy(), strict=True):
        m, inverse = base.numpy(), np.linalg.inv(base.numpy())  # exp_x(u) = x + u + m s x s m with m s x + x s m = u
        s = scipy.linalg.solve_sylvester(inverse @ p, p @ inverse, inverse @ w @ inverse)
        assert np.allclose(p + w + m @ s @ p @ s @ m, end, atol=1e-12)


def test_powers():
    """Half of the alpha-Procrustes distance with alpha = p/2 (Minh 2019, arXiv:1908.09275); a half of the log-Euclidean
    one for p -> 0; the power comes before the base."""
    x, y, base = points(3, 10.0), points(3, 10.0, seed=1), points(3, 5.0, 1, seed=2)[0]

    def power(a, p):
        values, vectors = torch.linalg.eigh(a)
        return (vectors * values.unsqueeze(-2) ** p) @ vectors.mT

    for p in (2.0, 0.5, -0.7):
        direct = METRIC.dist(power(x, p), power(y, p)) / abs(p)
        assert torch.allclose(SPDBuresWasserstein(power=p).dist(x, y), direct, rtol=1e-11)
        with_base = SPDBuresWasserstein(base).dist(power(x, p), power(y, p)) / abs(p)
        assert torch.allclose(SPDBuresWasserstein(base, power=p).dist(x, y), with_base, rtol=1e-11)
    logs = [torch.stack([torch.from_numpy(scipy.linalg.logm(p)) for p in a.numpy()]) for a in (x, y)]
    flat = 0.5 * torch.linalg.matrix_norm(logs[0] - logs[1])
    assert torch.allclose(SPDBuresWasserstein(power=1e-3).dist(x, y), flat, rtol=1e-3)


def test_a_base_is_learned():
    x, y = points(3, 10.0), points(3, 10.0, seed=1)
    base, change = points(3, 4.0, 1, seed=2)[0], symmetric(3, 1)[0]

    def value(m: torch.Tensor) -> torch.Tensor:
        metric = SPDBuresWasserstein(m)
        mean = metric.frechet_mean(x, tol=1e-15, max_iter=40)
        return metric.dist2(x, y).sum() + (mean * change).sum() + metric.dist(mean, y).sum()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the goal is below rounding
        leaf = base.clone().requires_grad_()
        (g,) = torch.autograd.grad(value(leaf), leaf)
        h = 1e-4
        quotient = (value(base + h * change) - value(base - h * change)) / (2 * h)
    assert abs((g * change).sum() - quotient) < 1e-7 * quotient.abs()


@pytest.mark.parametrize("p", [0.5, 1.3, -0.7])
def test_a_power_in_a_tensor_is_that_power(p):
    x, y, base = points(3, 10.0), points(3, 10.0, seed=1), points(3, 5.0, 1, seed=2)[0]
    u, v = 0.05 * symmetric(3), symmetric(3, seed=6)
    number, tensor = SPDBuresWasserstein(base, p), SPDBuresWasserstein(base, torch.tensor(p, dtype=F64))
    arguments = {
        **{"dist": (x, y), "logmap": (x, y), "expmap": (x, u), "inner": (x, u, v), "retr": (x, u), "basis": (x,)},
        **{"egrad2rgrad": (x, u), "ehess2rhess": (x, u, v, v), "parallel_transport": (x, y, v), "frechet_mean": (x,)},
    }
    for name, given in arguments.items():
        want = getattr(number, name)(*given)
        assert (getattr(tensor, name)(*given) - want).abs().max() < 1e-12 * want.abs().max(), name
    assert tensor.in_dtype(torch.float32).power.dtype == torch.float32 and tensor.in_dtype(F64) is tensor


def test_a_power_is_learned():
    x, y, base = points(3, 10.0), points(3, 10.0, seed=1), points(3, 5.0, 1, seed=2)[0]
    x[0] = torch.eye(3)  # equal eigenvalues
    u, p = 0.05 * symmetric(3), torch.tensor(0.7, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: SPDBuresWasserstein(base, p).expmap(x, u), (p,))
    assert torch.autograd.gradgradcheck(lambda p: SPDBuresWasserstein(base, p).dist(x, y), (p,))


def test_options_are_checked():
    with pytest.raises(ValueError, match="SPDBuresWasserstein: power must be a finite number and not 0, got 0"):
        SPDBuresWasserstein(power=0)
    with pytest.raises(ValueError, match="SPDBuresWasserstein: power must be a number, or a floating-point tensor"):
        SPDBuresWasserstein(power=torch.ones(1))
    with pytest.raises(ValueError, match="SPDBuresWasserstein: power must be a finite number and not 0, got 0"):
        SPDBuresWasserstein(power=torch.tensor(0.0))
    with pytest.raises(ValueError, match="SPDBuresWasserstein: base must be a floating-point tensor or None"):
        SPDBuresWasserstein(base=2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="SPDBuresWasserstein: .*square"):
        SPDBuresWasserstein(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="SPDBuresWasserstein: base is not positive definite"):
        SPDBuresWasserstein(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="SPDBuresWasserstein.dist: points are as large as the base, 2 x 2"):
        SPDBuresWasserstein(torch.eye(2)).dist(torch.eye(3), torch.eye(3))


def test_there_is_no_gyro_structure():
    for operation in ("gyroadd", "gyroinv", "to_normal"):
        arguments = [torch.eye(2)] * (2 if operation == "gyroadd" else 1)
        with pytest.raises(NotImplementedError, match="SPDBuresWasserstein.*geodesics end"):
            getattr(METRIC, operation)(*arguments)
