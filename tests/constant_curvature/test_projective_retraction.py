"""The projective retraction of the Poincare ball: where it ends, its inverse, its derivatives."""

import pytest
import torch

from torchriemann import use_kernels
from torchriemann.manifolds.constant_curvature.stereographic import PoincareBall
from torchriemann.manifolds.functional.compensated import conformal_gap

F32, F64 = torch.float32, torch.float64


@pytest.mark.parametrize("dtype", [F32, F64])
def test_projective_retraction_stays_inside_for_every_vector(dtype):
    g, m = torch.Generator().manual_seed(0), PoincareBall(-0.3, retraction="projective")
    longest = torch.finfo(dtype).max
    for radius in (0.0, 1.0, 12.0, 40.0):
        z = torch.randn(200, 5, generator=g, dtype=F64)
        x = m.from_normal((radius * z / z.norm(dim=-1, keepdim=True)).to(dtype))
        away = torch.randn(200, 5, generator=g, dtype=F64)
        direction = torch.where(torch.arange(200)[:, None] < 100, away, -x.double() + 1e-9 * away)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        for length in (0.0, longest**-0.9, 1e-3, 1.0, 1e10, longest**0.6, longest):
            u = (direction * length).to(dtype)
            learned = [a.clone().requires_grad_() for a in (x, u)]
            ends = [m.retr(x, u), m.retr(*learned)]
            assert all(a.isfinite().all() for a in torch.autograd.grad(ends[1].sum(), learned))
            with use_kernels(False):
                ends.append(m.retr(*learned))
            for y in ends:
                assert (m.projx(y) == y).all() and (conformal_gap(y.detach(), -0.3, -1) > 0).all()


@pytest.mark.parametrize("curvature", [-1.0, -0.3, -7.0])
def test_projective_retraction_goes_along_the_geodesic(curvature):
    g, m = torch.Generator().manual_seed(0), PoincareBall(curvature, retraction="projective")
    x = m.random_normal(50, 4, generator=g, dtype=F64)
    u = m.random_tangent(x, g)
    root = (-curvature) ** 0.5
    length = 2 / root * torch.asinh(0.5 * root * m.norm(x, u, keepdim=True))
    torch.testing.assert_close(m.retr(x, u), m.expmap(x, length / m.norm(x, u, keepdim=True) * u), rtol=0, atol=1e-13)
    torch.testing.assert_close(m.inverse_retr(x, m.retr(x, u)), u, rtol=1e-12, atol=1e-13)
    y, v = m.retr_transp(x, u, u)
    torch.testing.assert_close(v, m.parallel_transport(x, y, u), rtol=1e-13, atol=1e-13)
    assert m.retraction_order == 2 and PoincareBall().retraction_order == 3 and m != PoincareBall(curvature)


@pytest.mark.parametrize("learned", [False, True])
def test_projective_retraction_has_closed_derivatives(learned):
    g = torch.Generator().manual_seed(0)
    k = torch.tensor(-0.7, dtype=F64, requires_grad=learned)
    x = PoincareBall(-0.7).random_normal(3, 4, generator=g, dtype=F64).requires_grad_()
    u = PoincareBall(-0.7).random_tangent(x.detach(), g).requires_grad_()
    leaves = (x, u, k) if learned else (x, u)

    def move(x, u, k=-0.7):
        return PoincareBall(k, retraction="projective").retr(x, u)

    assert torch.autograd.gradcheck(move, leaves, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(move, leaves)
    got = torch.autograd.grad(move(*leaves).square().sum(), leaves)
    with use_kernels(False):
        want = torch.autograd.grad(move(*leaves).square().sum(), leaves)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-13)


def test_a_wrong_retraction_is_refused():
    with pytest.raises(ValueError, match="PoincareBall: retraction must be 'exp' or 'projective', got 'qr'"):
        PoincareBall(retraction="qr")
