"""Derivatives of the maps of kernel metrics, against those of the closed forms of members, under every transform."""

import pytest
import torch

from tests.spd.test_kernel import F64, MEMBERS, inside, points, relative, symmetric
from torchriemann.manifolds import BogoliubovKuboMori, MixedPowerAffine, SPDKernel
from torchriemann.manifolds.functional.matrices import sym

# With a trace, and two whose geodesics end.
SOME = [MEMBERS[i] for i in (2, 6, 7)]
some_members = pytest.mark.parametrize(("m", "phi"), SOME, ids=[repr(m) for m, _ in SOME])


def pair(m, count=2, n=2):
    """Points, a vector, the end of its geodesic, a second vector."""
    x = points(count, n, n, condition=5.0)
    u = inside(m, x)
    return x, u, m.expmap(x, u), symmetric(count, n, n, seed=7)


MAPS = {
    "expmap": lambda m, x, u, y, v: m.expmap(x, u),
    "logmap": lambda m, x, u, y, v: m.logmap(x, y),
    "dist2": lambda m, x, u, y, v: m.dist2(x, y),
    "parallel_transport": lambda m, x, u, y, v: m.parallel_transport(x, y, v),
}


def jacobians(m, name, arguments, mode):
    """Of one item, with respect to all arguments, in symmetric directions."""

    def f(*at):
        return MAPS[name](m, *map(sym, at))

    return torch.cat([j.flatten() for j in mode(f, argnums=(0, 1, 2, 3))(*arguments)])


# Transports of one member, and of all in the slow half; `test_kernel_flow.py` has derivatives of other kernels.
FEW = [
    pytest.param(
        m, phi, name, marks=[pytest.mark.slow] if name == "parallel_transport" and i != 6 else [], id=f"{name}-{m}"
    )
    for i, (m, phi) in ((i, MEMBERS[i]) for i in (2, 6, 7))
    for name in MAPS
]


@pytest.mark.parametrize(("m", "phi", "name"), FEW)
def test_jacobians_of_members(m, phi, name):
    """By both modes under vmap, and one item at a time."""
    k, arguments = SPDKernel(phi), pair(m)
    wanted = torch.func.vmap(lambda *at: jacobians(m, name, at, torch.func.jacrev))(*arguments)
    for mode in (torch.func.jacrev, torch.func.jacfwd):
        found = torch.func.vmap(lambda *at, mode=mode: jacobians(k, name, at, mode))(*arguments)
        assert relative(found, wanted) < 1e-10, mode
    first = [a[0] for a in arguments]
    assert relative(jacobians(k, name, first, torch.func.jacrev), wanted[0]) < 1e-10


@pytest.mark.slow
@some_members
@pytest.mark.parametrize("name", ["logmap", "parallel_transport"])
def test_second_derivatives_of_members(m, phi, name):
    """By backward twice, forward over reverse and reverse over reverse."""
    k, arguments = SPDKernel(phi), pair(m, 1)
    w = torch.linspace(0.5, 2.0, 4, dtype=F64).reshape(2, 2)

    def total(manifold, *at):
        value = MAPS[name](manifold, *map(sym, at))
        return (value.flatten() * w.flatten()[: value.numel()]).sum()

    def twice(manifold):
        leaves = [a.clone().requires_grad_() for a in arguments]
        first = torch.autograd.grad(total(manifold, *leaves), leaves, create_graph=True, materialize_grads=True)
        directions = [symmetric(*a.shape, seed=20 + i) for i, a in enumerate(leaves)]
        product = sum((g * d).sum() for g, d in zip(first, directions, strict=True))
        return torch.stack(torch.autograd.grad(product, leaves, materialize_grads=True))

    wanted = twice(m)
    assert relative(twice(k), wanted) < 1e-9
    hessians = [
        mode(torch.func.grad(lambda *at, g=g: total(g, *at), 2), 2)(*arguments)
        for g, mode in ((m, torch.func.jacrev), (k, torch.func.jacrev), (k, torch.func.jacfwd))
    ]
    assert relative(hessians[1], hessians[0]) < 1e-9
    assert relative(hessians[2], hessians[0]) < 1e-9


@pytest.mark.parametrize("phi", [MixedPowerAffine(0.5, -0.5), BogoliubovKuboMori()], ids=repr)
def test_first_derivatives_at_coinciding_points_and_eigenvalues(phi):
    """At x = y the gradient of the squared distance is zero and its Hessian twice the metric; so at multiples of the
    identity."""
    k = SPDKernel(phi)
    for x in (1.5 * torch.eye(2, dtype=F64), points(2, 2, 2, condition=3.0)[1]):
        y = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(k.dist2(x, y), y, create_graph=True)
        assert g.abs().max() < 1e-12
        v = symmetric(2, 2, seed=3)
        (h,) = torch.autograd.grad((g * v).sum(), y)
        w = symmetric(2, 2, seed=4)
        assert abs((h * w).sum() - 2 * k.inner(x, v, w)) < 1e-10 * k.norm(x, v) * k.norm(x, w)
        (g,) = torch.autograd.grad(k.dist(x, y), y)
        assert g.isfinite().all()
