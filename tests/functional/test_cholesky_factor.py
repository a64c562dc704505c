"""Cholesky factors: the closed derivatives under every transform, and what a bad matrix does to its neighbours."""

import mpmath
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

from torchriemann.manifolds.functional import cholesky as plain
from torchriemann.manifolds.kernels import cholesky, cholesky_with_inverse
from torchriemann.manifolds.kernels.switch import AUTO, OPERATOR, forced

DTYPE = torch.float64


def points(*batch, n=3, scale=1.0, dtype=DTYPE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(*batch, n, 2 * n, generator=generator, dtype=DTYPE)
    return (scale / n * A @ A.mT).to(dtype)


def direction(P):
    return P.flip(-1).cos() * P.abs().amax((-2, -1), keepdim=True)  # not symmetric


def factor(P):
    return torch.linalg.cholesky(0.5 * (P + P.mT))


def both(P):
    L = factor(P)
    return torch.cat([L, torch.linalg.inv(L).tril()], -1)


def joined(P):
    return torch.cat(cholesky_with_inverse(P), -1)


PAIRS = {"factor": (cholesky, factor), "with inverse": (joined, both)}


def loss(f):
    return lambda P: f(P).sin().sum()


def slope(f):
    return lambda P: jvp(f, (P,), (direction(P.detach()),))[1]


def along(f, d):
    return lambda P: jvp(f, (P,), (d,))[1]


def twice(f, P):
    P = P.clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(f)(P), P, create_graph=True)
    return torch.autograd.grad(first.sin().sum(), P)[0]


def batched_gradient(f, P):
    P = P.clone().requires_grad_()
    value = f(P)
    several = torch.stack([value.detach(), value.detach().cos()])
    return torch.autograd.grad(value, P, several, is_grads_batched=True)[0]


TRANSFORMS = {
    "value": lambda f, P: f(P),
    "gradient": lambda f, P: grad(loss(f))(P),
    "vmap": lambda f, P: vmap(f)(P),
    "vmap of vmap": lambda f, P: vmap(vmap(f))(P.reshape(2, 2, 3, 3)),
    "vmap of gradient": lambda f, P: vmap(grad(loss(f)))(P),
    "gradient of vmap": lambda f, P: grad(lambda P: vmap(f)(P).sin().sum())(P),
    "jvp": lambda f, P: slope(f)(P),
    "jvp of jvp": lambda f, P: along(along(f, direction(P)), direction(P).mT)(P),
    "jvp of gradient": lambda f, P: slope(grad(loss(f)))(P),
    "gradient of jvp": lambda f, P: grad(loss(along(f, direction(P))))(P),
    "vmap of jvp": lambda f, P: vmap(slope(f))(P),
    "jacrev": lambda f, P: jacrev(f)(P[0]),
    "jacfwd": lambda f, P: jacfwd(f)(P[0]),
    "hessian": lambda f, P: hessian(loss(f))(P[0]),
    "double backward": twice,
    "batched gradient": batched_gradient,
    "third derivative": lambda f, P: twice(lambda P: grad(loss(f))(P), P),
}


@pytest.mark.parametrize("path", [AUTO, OPERATOR])
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", PAIRS)
def test_transforms_give_the_answer_of_torch(name, transform, path):
    f, reference = PAIRS[name]
    with forced(path):
        actual = TRANSFORMS[transform](f, points(4))
    torch.testing.assert_close(actual, TRANSFORMS[transform](reference, points(4)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("f", [cholesky, joined], ids=PAIRS)
@pytest.mark.parametrize("P", [torch.eye(3), torch.diag(torch.tensor([1.0, 1, 2, 2])), 0.5 * torch.ones(1, 1)], ids=len)
def test_derivatives_by_finite_differences(f, P):
    P = P.to(DTYPE)[None].requires_grad_()
    assert gradcheck(f, P, check_forward_ad=True, check_batched_grad=True, fast_mode=True)
    assert gradgradcheck(f, P, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("f", [cholesky, joined], ids=PAIRS)
def test_compiles_to_the_same(f):
    P, expected = points(4).requires_grad_(), points(4).requires_grad_()
    torch.compile(loss(f), backend="aot_eager", fullgraph=True)(P).backward()
    loss(f)(expected).backward()
    torch.testing.assert_close(P.grad, expected.grad, rtol=1e-10, atol=1e-10)
    compiled = torch.compile(slope(f), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(points(4)), slope(f)(points(4)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("f", [cholesky, joined], ids=PAIRS)
def test_the_symmetric_part_is_read_and_the_gradient_symmetric(f):
    P = points(5, n=4)
    skew = torch.randn(4, 4, dtype=DTYPE, generator=torch.Generator().manual_seed(1))
    turned = (P + 2.0**-4 * (skew - skew.mT)).requires_grad_()
    value = f(turned)
    torch.testing.assert_close(value, f(P), rtol=1e-13, atol=1e-13)
    (gradient,) = torch.autograd.grad(value.sin().sum(), turned)
    assert torch.equal(gradient, gradient.mT)
    assert gradient.abs().max() > 0.1


BAD = {
    "indefinite": torch.diag(torch.tensor([1.0, -1.0, 1.0])),
    "singular": torch.ones(3, 3),
    "zero": torch.zeros(3, 3),
    "NaN": torch.eye(3) * torch.nan,
    "NaN off the diagonal": torch.eye(3) + torch.diag(torch.tensor([torch.nan, 0.0]), 1),
    "infinite": torch.diag(torch.tensor([torch.inf, 1.0, 1.0])),
    "last infinite": torch.diag(torch.tensor([1.0, 1.0, torch.inf])),
    "negative infinite": torch.diag(torch.tensor([-torch.inf, 1.0, 1.0])),
}


def plainly_joined(P):
    return torch.cat(plain.cholesky_with_inverse(P), -1)


@pytest.mark.parametrize("f", [cholesky, joined, plain.cholesky, plainly_joined])
def test_a_bad_matrix_spoils_itself_only(f):
    good, bad = points(3, n=3), torch.stack([b.to(DTYPE) for b in BAD.values()])
    P = torch.cat([good[:1], bad, good[1:]]).requires_grad_()
    alone = good.clone().requires_grad_()
    value = f(P)
    (gradient,) = torch.autograd.grad(value.sin().sum(), P)
    expected = f(alone)
    (at_good,) = torch.autograd.grad(expected.sin().sum(), alone)
    kept = [0, -2, -1]
    torch.testing.assert_close(value[kept], expected)
    torch.testing.assert_close(gradient[kept], at_good)
    for name, v, g in zip(BAD, value[1:-2], gradient[1:-2], strict=True):
        assert v.isnan().all(), name
        assert g.isnan().all(), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_and_empty_batches(dtype):
    P = points(4, dtype=dtype).requires_grad_()
    for result in (cholesky(P), *cholesky_with_inverse(P)):
        assert result.dtype == dtype
        assert torch.autograd.grad(result.sum(), P, retain_graph=True)[0].dtype == dtype
    empty = points(4, dtype=dtype)[:0].requires_grad_()
    assert joined(empty).shape == (0, 3, 6)
    assert torch.autograd.grad(joined(empty).sum(), empty)[0].shape == (0, 3, 3)


@pytest.mark.parametrize(
    ("dtype", "scale"), [(DTYPE, 1e-300), (DTYPE, 1e300), (torch.float32, 1e-30), (torch.float32, 1e30)]
)
def test_scales(dtype, scale):
    P = points(4, dtype=dtype).requires_grad_()
    scaled = (scale * P.detach()).requires_grad_()
    L, inverse = cholesky_with_inverse(scaled)
    root = scale**0.5
    tolerance = {"rtol": 1e3 * torch.finfo(dtype).eps, "atol": 1e3 * torch.finfo(dtype).eps}
    torch.testing.assert_close(L / root, cholesky(P), **tolerance)
    torch.testing.assert_close(inverse * root, cholesky_with_inverse(P)[1], **tolerance)
    actual = torch.autograd.grad((L / root).sin().sum(), scaled)[0]
    torch.testing.assert_close(actual * scale, torch.autograd.grad(cholesky(P).sin().sum(), P)[0], **tolerance)


def test_factor_and_gradient_against_many_digits():
    """At condition 1e10, of the matrix that is stored."""
    P = torch.diag(torch.tensor([1e10, 1e5, 1.0], dtype=DTYPE))
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=DTYPE, generator=torch.Generator().manual_seed(2)))[0]
    P = turn @ P @ turn.T
    P = (0.5 * (P + P.T)).requires_grad_()
    L = cholesky(P)
    (gradient,) = torch.autograd.grad(L[2, 2].log(), P)
    with mpmath.workdps(60):
        exact = mpmath.matrix(P.tolist())
        root, inverse = mpmath.cholesky(exact), mpmath.inverse(exact)
        # L_nn^-2 is the last entry of P^-1, whose derivative is -P^-1 dP P^-1.
        wanted = [[inverse[i, 2] * inverse[2, j] / (2 * inverse[2, 2]) for j in range(3)] for i in range(3)]
        root, wanted = torch.tensor(root.tolist(), dtype=DTYPE), torch.tensor(wanted, dtype=DTYPE)
    eps = torch.finfo(DTYPE).eps
    assert ((L - root).abs().amax() / root.abs().amax()) < 1e10 * eps
    assert ((gradient - wanted).abs().amax() / wanted.abs().amax()) < 10 * 1e10 * eps


@pytest.mark.parametrize("name", ["cholesky", "cholesky_with_inverse"])
def test_operators_keep_the_rules_of_the_dispatcher(name):
    P = points(4)
    value = getattr(torch.ops.torchriemann, name).default
    backward = getattr(torch.ops.torchriemann, f"{name}_backward").default
    found = value(P)
    results, saved = found[: len(found) // 2], found[len(found) // 2 :]
    for operator, arguments in ((value, (P,)), (backward, (*results, P, *saved))):
        assert set(torch.library.opcheck(operator, arguments).values()) == {"SUCCESS"}
