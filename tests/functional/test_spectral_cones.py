"""Projections on spectral sets: nearest by scipy and by brute force, idempotent, derivatives, bad items, transforms."""

import numpy as np
import pytest
import scipy.optimize
import torch
from torch.autograd import gradcheck

from torchriemann.manifolds import project_condition, project_eigenvalue_floor, project_rank, project_trace_one

F64 = torch.float64
PROJECTIONS = {
    "floor": lambda x: project_eigenvalue_floor(x, 0.3),
    "condition": lambda x: project_condition(x, 5.0),
    "condition one": lambda x: project_condition(x, 1.0),
    "trace one": project_trace_one,
    "rank": lambda x: project_rank(x, 2),
}


def matrices(spectra, seed=0):
    a = torch.as_tensor(spectra, dtype=F64)
    g = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(*a.shape, a.shape[-1], generator=g, dtype=F64))[0]
    m = (q * a.unsqueeze(-2)) @ q.mT
    return 0.5 * (m + m.mT)


def draws(items, n, scale=1.0, shift=0.3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return matrices(scale * (torch.randn(items, n, generator=g, dtype=F64) + shift), seed)


SPECTRA = [
    [-1.0, 0.1, 0.5, 3.0],
    [0.5, 0.5, 0.5, 0.5],
    [0.1, 0.1, 4.0, 4.0],
    [-3.0, -2.0, -1.0, 0.1],
    [-3.0, -2.0, -1.0, -0.5],
    [0.1, 0.2, 0.3, 0.4],
    [0.0, 0.0, 0.0, 2.0],
    [1.0, 1.0, 1.0 + 1e-9, 30.0],
]


def nearest_simplex(a):
    found = scipy.optimize.minimize(
        lambda p: ((p - a) ** 2).sum(),
        np.full(len(a), 1 / len(a)),
        jac=lambda p: 2 * (p - a),
        bounds=[(0, None)] * len(a),
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return found.x


def nearest_clip(a, bound):
    distance = lambda m: ((np.clip(a, m, bound * m) - a) ** 2).sum()  # noqa: E731
    m = scipy.optimize.minimize_scalar(distance, bounds=(0, abs(a).max()), method="bounded", options={"xatol": 1e-12}).x
    return np.clip(a, m, bound * m)


@pytest.mark.parametrize("shift", [-1.0, 0.0, 1.0])
def test_nearest_against_scipy(shift):
    for item in [*draws(8, 5, shift=shift, seed=4), *matrices(SPECTRA)]:
        a, q = np.linalg.eigh(item.numpy())
        for bound in (1.0, 2.0, 50.0):
            want = (q * nearest_clip(a, bound)) @ q.T
            got = project_condition(item, bound).numpy()
            assert np.abs(got - want).max() < 1e-6  # the search of scipy knows the flat minimum to that
            assert ((got - item.numpy()) ** 2).sum() <= ((want - item.numpy()) ** 2).sum() + 1e-12
        want = (q * nearest_simplex(a)) @ q.T
        assert np.abs(project_trace_one(item).numpy() - want).max() < 1e-6


@pytest.mark.parametrize("name", PROJECTIONS)
def test_in_the_set_idempotent_and_no_member_is_nearer(name):
    project = PROJECTIONS[name]
    for scale in (1e-10, 1.0, 1e10):
        x = torch.cat([matrices(SPECTRA), draws(20, 4, seed=1)]) * (scale if name != "floor" else 1.0)
        y = project(x)
        size = (
            1 + x.norm(dim=(1, 2), keepdim=True) if name in ("floor", "trace one") else x.norm(dim=(1, 2), keepdim=True)
        )
        torch.testing.assert_close(project(y) / size, y / size, rtol=0, atol=1e-13)
        a = torch.linalg.eigvalsh(y) / size.squeeze(-1)
        assert (a >= -1e-14).all()
        if name == "floor":
            assert (torch.linalg.eigvalsh(y) >= 0.3 - 1e-13).all()
        elif name.startswith("condition"):
            assert (a[:, -1] <= (5.0 if name == "condition" else 1.0) * a[:, 0] + 1e-13).all()
        elif name == "trace one":
            torch.testing.assert_close(
                y.diagonal(dim1=1, dim2=2).sum(-1),
                torch.ones(len(y), dtype=F64),
                rtol=0,
                atol=1e-6 if scale > 1 else 1e-13,
            )
        else:
            assert (a[:, :2].abs() < 1e-14).all()
        # Other members of the set, far and near.
        others = project(
            x[:, None]
            + size[:, None] * draws(50, 4, seed=2) * 10.0 ** torch.linspace(-6, 0, 50, dtype=F64)[:, None, None]
        )
        gap = (others - x[:, None]).norm(dim=(2, 3)) - (y - x).norm(dim=(1, 2))[:, None]
        assert (gap >= -1e-13 * size.squeeze(-1)).all()


@pytest.mark.parametrize("name", PROJECTIONS)
def test_derivatives_are_those_of_differences(name):
    project = PROJECTIONS[name]
    x, d = draws(30, 5, seed=3), draws(30, 5, seed=5)
    h = 1e-6
    quotient = (project(x + h * d) - project(x - h * d)) / (2 * h)
    value, slope = torch.func.jvp(project, (x,), (d,))
    torch.testing.assert_close(value, project(x), rtol=0, atol=0)
    assert ((slope - quotient).norm(dim=(1, 2)) <= 1e-6 * (1 + quotient.norm(dim=(1, 2)))).all()
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((project(leaf) * d).sum(), leaf)
    torch.testing.assert_close(gradient, slope, rtol=1e-12, atol=1e-12)  # self-adjoint
    batched = torch.func.vmap(torch.func.grad(lambda x, d: (project(x) * d).sum()))(x, d)
    torch.testing.assert_close(batched, gradient, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.func.vmap(project)(x), value, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", PROJECTIONS)
def test_derivatives_at_ties_and_kinks(name):
    leaf = torch.cat([matrices(SPECTRA), torch.eye(4, dtype=F64).expand(2, 4, 4) * 0.25]).requires_grad_()
    (gradient,) = torch.autograd.grad((PROJECTIONS[name](leaf) * draws(1, 4)).sum(), leaf)
    assert gradient.isfinite().all()
    again = PROJECTIONS[name](leaf.detach()).requires_grad_()  # on the rim of the set
    (gradient,) = torch.autograd.grad((PROJECTIONS[name](again) * draws(1, 4)).sum(), again)
    assert gradient.isfinite().all()
    if name != "rank":  # a projection on a convex set brings no two points apart
        assert (gradient.norm(dim=(1, 2)) <= draws(1, 4).norm() + 1e-12).all()


def test_repeated_eigenvalues_have_the_derivative_of_the_formula():
    x, d = matrices([[0.4, 0.4, 0.8, 0.8], [-1.0, -1.0, 0.8, 0.8]]), draws(2, 4, seed=6)
    h = 1e-6
    for name in ("floor", "condition", "trace one", "rank"):
        project = PROJECTIONS[name]
        quotient = (project(x + h * d) - project(x - h * d)) / (2 * h)
        slope = torch.func.jvp(project, (x,), (d,))[1]
        torch.testing.assert_close(slope, quotient, rtol=0, atol=1e-8, msg=name)


def test_the_floor_may_learn_and_has_second_derivatives():
    x, floor = draws(3, 4), torch.tensor([0.3, 0.0, 1.0], dtype=F64, requires_grad=True)
    assert gradcheck(project_eigenvalue_floor, (x.requires_grad_(), floor), check_forward_ad=True)
    assert (
        torch.func.vmap(torch.func.hessian(lambda x: project_eigenvalue_floor(x, 0.1).square().sum()))(x)
        .isfinite()
        .all()
    )


@pytest.mark.parametrize("name", ["condition", "trace one", "rank"])
def test_second_derivatives_are_refused(name):
    project = PROJECTIONS[name]
    x, d = draws(1, 4)[0].clone(), draws(1, 4, seed=9)[0]
    leaf = x.clone().requires_grad_()
    (first,) = torch.autograd.grad((project(leaf) * d).sum(), leaf, create_graph=True)
    loss = lambda x: (project(x) * d).sum()  # noqa: E731
    for second in (
        lambda: torch.autograd.grad(first.sum(), leaf),
        lambda: torch.func.hessian(loss)(x),
        lambda: torch.func.jvp(lambda x: torch.func.jvp(project, (x,), (d,))[1], (x,), (d,)),
    ):
        with pytest.raises(NotImplementedError, match="not second ones"):
            second()
    torch.compiler.reset()
    if name == "condition":
        compiled = torch.compile(torch.func.hessian(loss), fullgraph=True, backend="aot_eager")(x)
        assert compiled.isnan().any()  # dynamo knows no error of a derivative
    compiled = torch.compile(project, fullgraph=True, backend="eager")
    (first,) = torch.autograd.grad((compiled(leaf) * d).sum(), leaf, create_graph=True)
    with pytest.raises(NotImplementedError, match="not second ones"):
        torch.autograd.grad(first.sum(), leaf)
    torch.compiler.reset()


@pytest.mark.parametrize("name", ["condition", "trace one"])
def test_compiled(name):
    project, d = PROJECTIONS[name], draws(1, 4, seed=9)[0]
    loss = lambda x: (project(x) * d).sum()  # noqa: E731

    def transformed(x):
        return torch.func.vmap(torch.func.grad(loss))(x), torch.func.jvp(project, (x,), (d.expand_as(x),))[1]

    x = draws(5, 4)
    torch.compiler.reset()
    compiled = torch.compile(transformed, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), transformed(x), rtol=0, atol=1e-13)
    leaf = x.clone().requires_grad_()
    value = torch.compile(project, fullgraph=True, backend="aot_eager")(leaf)
    torch.testing.assert_close(value, project(x), rtol=0, atol=1e-13)
    (gradient,) = torch.autograd.grad((value * d).sum(), leaf)
    torch.testing.assert_close(gradient, transformed(x)[0], rtol=0, atol=1e-13)
    torch.compiler.reset()


@pytest.mark.parametrize("name", PROJECTIONS)
def test_bad_items_sizes_and_precision(name):
    project = PROJECTIONS[name]
    x = draws(4, 4)
    x[1, 2, 2], x[2, 0, 1] = torch.nan, torch.inf
    leaf = x.clone().requires_grad_()
    value = project(leaf)
    (gradient,) = torch.autograd.grad((value * draws(1, 4)).sum(), leaf)
    assert value[1:3].isnan().all() and gradient[1:3].isnan().all()
    good = x[[0, 3]].requires_grad_()
    torch.testing.assert_close(value[[0, 3]], project(good), rtol=0, atol=1e-14)
    (right,) = torch.autograd.grad((project(good) * draws(1, 4)).sum(), good)
    torch.testing.assert_close(gradient[[0, 3]], right, rtol=0, atol=1e-14)
    assert project(torch.zeros(0, 3, 3)).shape == (0, 3, 3)
    assert project(x[0].bfloat16()).dtype == torch.bfloat16
    if name != "rank":
        one = {"floor": 0.3, "condition": 0.0, "condition one": 0.0, "trace one": 1.0}[name]
        torch.testing.assert_close(project(torch.tensor([[[-2.0]]])), torch.tensor([[[one]]]))


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: project_trace_one(torch.ones(2, 3)),
            r"project_trace_one: x must be real matrices \*B,n,n",
        ),
        (lambda: project_condition(torch.eye(2), 0.5), "project_condition: bound must be at least 1, got 0.5"),
        (lambda: project_rank(torch.eye(2), 3), r"project_rank: rank must be in 1..2"),
        (lambda: project_rank(torch.eye(2), 1.5), "project_rank: rank must be a whole number, got 1.5"),
        (lambda: project_rank(torch.eye(2), True), "project_rank: rank must be a whole number, got True"),
        (lambda: project_condition(torch.eye(2), "3"), "project_condition: bound must be a real number, got '3'"),
        (lambda: project_condition(torch.eye(2), torch.tensor(3.0, requires_grad=True)), "without a derivative"),
        (
            lambda: project_eigenvalue_floor(torch.eye(8).expand(20, 8, 8), torch.ones(3)),
            r"project_eigenvalue_floor: floor must be a number or broadcast to the batch \(20,\) of x, got",
        ),
        (lambda: project_eigenvalue_floor(torch.eye(2), torch.ones(3)), r"to the batch \(\) of x, got shape \(3,\)"),
        (lambda: project_condition(torch.eye(2), torch.ones(3)), r"project_condition: bound must be one number"),
        (lambda: project_rank(torch.eye(2), torch.tensor([1, 2])), r"project_rank: rank must be one number"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_floor_broadcasts_to_the_batch():
    x = draws(6, 4).reshape(2, 3, 4, 4)
    for shape in ((), (1,), (3,), (2, 1), (2, 3)):
        floor = torch.linspace(0.1, 1.0, 6, dtype=F64)[: torch.Size(shape).numel()].reshape(shape)
        each = floor.expand(2, 3)
        want = torch.stack([project_eigenvalue_floor(x[i, j], float(each[i, j])) for i in (0, 1) for j in (0, 1, 2)])
        torch.testing.assert_close(project_eigenvalue_floor(x, floor), want.reshape(x.shape))
