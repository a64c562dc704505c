"""The maps of kernel metrics: in eigenvectors and by polynomials, with derivatives through every transform."""

import pytest
import torch

from torchriemann.manifolds.functional.kernel_cometric import Cometric
from torchriemann.manifolds.functional.kernel_expansion import expanded_map
from torchriemann.manifolds.functional.kernel_map import (
    eigh,
    hamiltonian_gradient,
    lowered,
    raised,
    raised_along,
)
from torchriemann.manifolds.functional.kernel_metric import from_frame, to_frame
from torchriemann.manifolds.functional.matrices import sym

F64 = torch.float64
KERNELS = [
    Cometric(1.3, 0.5, ((-1.0, 0.5),)),
    Cometric(1.0, 0.0, ((-2.0, 0.5),), 0.3),
    Cometric(4.0, 0.5, ((1.0, 1.0), (-3.0, 0.5)), -0.1),
    Cometric(2.0, 1.0, ((0.3, 1.0), (-1.3, 0.5)), 0.2),
]
every_kernel = pytest.mark.parametrize("c", KERNELS)


def matrices(n=3, spread=6.0, seed=0):
    """X with the eigenvalues all equal, two of them equal, two nearly so, and none; and three others."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(4, n, n, generator=generator, dtype=F64))[0]
    x = spread * torch.rand(4, n, generator=generator, dtype=F64) - spread / 3
    x[0] = x[0, 0]
    x[1, 1] = x[1, 0]
    x[2, 1] = x[2, 0] + 1e-7
    others = (sym(torch.randn(4, n, n, generator=generator, dtype=F64)) for _ in range(3))
    return sym((q * x.unsqueeze(-2)) @ q.mT), *others


def close(found, wanted, tolerance):
    assert (found - wanted).abs().max() <= tolerance * wanted.abs().max().clamp_min(1e-2)


@every_kernel
def test_polynomials_are_the_maps(c):
    X, Y, *_ = matrices()
    x, _ = eigh(X)
    close(expanded_map(X, Y, c, (x[..., 0], x[..., -1])), raised(X, Y, c), 1e-13)
    close(lowered(X, raised(X, Y, c), c), Y, 1e-12)  # c has a condition of 1e5
    close(from_frame(X, to_frame(X, Y, c), c), Y, 1e-12)
    # The square of the frame is the metric.
    close((to_frame(X, Y, c) ** 2).sum((-2, -1)), (lowered(X, Y, c) * Y).sum((-2, -1)), 1e-13)


@every_kernel
def test_derivatives_are_those_of_quotients(c):
    X, Y, Z, E = matrices()
    h = 1e-3

    def quotient(f):  # of fourth order
        near, far = (f(X + k * h * E) - f(X - k * h * E) for k in (1, 2))
        return (8 * near - far) / (12 * h)

    close(raised_along(X, E, Y, c), quotient(lambda at: raised(at, Y, c)), 1e-9)
    energy = quotient(lambda at: 0.5 * (Z * raised(at, Y, c)).sum((-2, -1)))
    close((hamiltonian_gradient(X, Y, c, Z) * E).sum((-2, -1)), energy, 1e-9)
    close(hamiltonian_gradient(X, Y, c, Z), hamiltonian_gradient(X, Z, c, Y), 1e-14)


MAPS = [
    lambda X, Y, Z, c: raised(X, Y, c),
    lambda X, Y, Z, c: lowered(X, Y, c),
    lambda X, Y, Z, c: hamiltonian_gradient(X, Y, c, Z),
    lambda X, Y, Z, c: raised_along(X, Z, Y, c),
]


@pytest.mark.parametrize("c", KERNELS[2:])
@pytest.mark.parametrize("f", MAPS, ids=["raised", "lowered", "gradient", "along"])
def test_derivatives_of_every_mode_agree(c, f):
    """Forward over reverse, forward twice, reverse twice, and autograd without transforms, along with quotients."""
    X, Y, Z, E = matrices()

    def total(*args):
        return (f(*args, c) * E).square().sum()

    at = [a.clone().requires_grad_() for a in (X, Y, Z)]
    first = torch.autograd.grad(total(*at), at, create_graph=True, materialize_grads=True)
    second = torch.autograd.grad(sum((g * E).sum() for g in first), at, materialize_grads=True)
    along = tuple(E for _ in range(3))

    def once(*args):
        return torch.func.jvp(total, args, along)[1]

    assert torch.allclose(once(X, Y, Z), sum((g * E).sum() for g in first), rtol=1e-9)
    for found in (
        torch.func.grad(once, (0, 1, 2))(X, Y, Z),
        torch.func.jvp(torch.func.grad(total, (0, 1, 2)), (X, Y, Z), along)[1],
    ):
        for ours, wanted in zip(found, second, strict=True):
            close(ours, wanted, 1e-9)
    twice = torch.func.jvp(once, (X, Y, Z), along)[1]
    assert torch.allclose(twice, sum((g * E).sum() for g in second), rtol=1e-9)
    h = 1e-4
    with torch.no_grad():
        quotient = (once(X + h * E, Y + h * E, Z + h * E) - once(X - h * E, Y - h * E, Z - h * E)) / (2 * h)
    assert torch.allclose(twice, quotient, rtol=1e-6)


def test_vmap_and_compiled_maps():
    X, Y, Z, _ = matrices()
    c = KERNELS[2]
    for f in MAPS[:3:2]:
        wanted = f(X, Y, Z, c)
        close(torch.func.vmap(lambda *a, f=f: f(*a, c))(X, Y, Z), wanted, 1e-13)
        close(f(X[0].expand(4, 3, 3), Y, Z, c), f(X[0], Y, Z, c), 1e-13)
    compiled = torch.compile(lambda X, Y: raised(X, Y, c), backend="aot_eager", fullgraph=True)
    close(compiled(X, Y), raised(X, Y, c), 1e-13)
