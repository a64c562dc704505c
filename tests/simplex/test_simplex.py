"""Probability vectors with the Fisher-Rao metric: every digit, and the faces at which geodesics end."""

import math

import mpmath as mp
import pytest
import torch

from tests.support.simplex import F32, F64, M, close, generator
from torchriemann.manifolds.functional.simplex import positive_step

# ---- numbers of sixty digits ----------------------------------------------------------------------------------


def roots(x):
    """Those of the given numbers over their sum."""
    total = mp.fsum(mp.mpf(float(a)) for a in x)
    return [mp.sqrt(mp.mpf(float(a)) / total) for a in x]


def true_angle(a, b):
    half = mp.sqrt(mp.fsum((p - q) ** 2 for p, q in zip(a, b, strict=True))) / 2
    return 2 * mp.asin(half)


def true_logarithm(a, b):
    angle = true_angle(a, b)
    ratio = angle / mp.sin(angle) if angle else mp.mpf(1)
    return [2 * p * ratio * (q - mp.cos(angle) * p) for p, q in zip(a, b, strict=True)]


def true_end(a, u):
    w = [mp.mpf(float(d)) / (2 * p) for d, p in zip(u, a, strict=True)]
    r = mp.sqrt(mp.fsum(d * d for d in w))
    return [(mp.cos(r) * p + mp.sin(r) / r * d) ** 2 for p, d in zip(a, w, strict=True)]


def true_transport(a, b, v):
    w = [mp.mpf(float(d)) / (2 * p) for d, p in zip(v, a, strict=True)]
    along = mp.fsum(q * d for q, d in zip(b, w, strict=True)) / (1 + mp.fsum(p * q for p, q in zip(a, b, strict=True)))
    return [2 * q * (d - along * (p + q)) for p, q, d in zip(a, b, w, strict=True)]


def wide_points(dtype, count=6, n=5):
    """Entries from the least normal number of the square root of the dtype's range to one."""
    low = -290 if dtype == F64 else -36
    powers = low * torch.rand(2, count, n, generator=generator(1), dtype=F64)
    powers[..., 0] = 0
    x, y = 10.0**powers
    return (x / x.sum(-1, keepdim=True)).to(dtype), (y.roll(1, -1) / y.sum(-1, keepdim=True)).to(dtype)


@pytest.mark.parametrize("dtype", [F64, F32])
def test_entries_of_three_hundred_orders_of_magnitude(dtype):
    x, y = wide_points(dtype)
    eps = torch.finfo(dtype).eps
    u, v = M.logmap(x, y), M.random_tangent(x, generator=generator(2))
    w, d, half = M.parallel_transport(x, y, v), M.dist(x, y), M.geodesic(x, y, 0.5)
    size_of = M.norm(x, v).tolist()
    with mp.workdps(60):
        for i in range(len(x)):
            a, b = roots(x[i]), roots(y[i])
            assert abs(mp.mpf(float(d[i])) / (2 * true_angle(a, b)) - 1) < 8 * eps
            middle = [p + q for p, q in zip(a, b, strict=True)]
            size = mp.fsum(p * p for p in middle)
            for j in range(x.shape[-1]):
                # In units of the metric: of a root.
                assert abs(mp.mpf(float(u[i, j])) - true_logarithm(a, b)[j]) / a[j] < 32 * eps
                assert abs(mp.mpf(float(w[i, j])) - true_transport(a, b, v[i])[j]) / b[j] < 32 * eps * size_of[i]
                assert abs(mp.mpf(float(half[i, j])) * size / middle[j] ** 2 - 1) < 16 * eps  # every digit of each
    close(M.geodesic(x, y, 1.0) / y, torch.ones_like(y), 32 * eps)


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("gap", [1e-1, 1e-3, 1e-6])
def test_close_points_keep_their_digits(dtype, gap):
    """The numbers as they are given have a distance, far below eps as well, to a few eps of itself."""
    x = M.random(20, 6, generator=generator(3), dtype=F64)
    y = M.restore(x * (1 + gap * torch.randn(20, 6, generator=generator(4), dtype=F64))).to(dtype)
    x, eps = x.to(dtype), torch.finfo(dtype).eps
    d, u = M.dist(x, y), M.logmap(x, y)
    flat = 2 * torch.atan2(*(torch.linalg.vector_norm(s, dim=-1) for s in (x.sqrt() - y.sqrt(), x.sqrt() + y.sqrt())))
    lost = 0.0
    with mp.workdps(60):
        for i in range(len(x)):
            a, b = roots(x[i]), roots(y[i])
            true = 2 * true_angle(a, b)
            assert abs(mp.mpf(float(d[i])) / true - 1) < 16 * eps
            lost = max(lost, float(abs(2 * mp.mpf(float(flat[i])) / true - 1)))
            worst = max(abs(mp.mpf(float(p)) - q) / r for p, q, r in zip(u[i], true_logarithm(a, b), a, strict=True))
            assert worst < 64 * eps * true
    assert gap > 1e-5 or lost > 20 * eps / gap**0.5 * 1e-3  # differences of roots do not keep them


def test_exponential_against_mpmath():
    x = M.random(20, 6, generator=generator(5), dtype=F64)
    u = M.random_tangent(x, generator=generator(6))
    u = u * (0.95 * M.injectivity_radius(x) / M.norm(x, u)).unsqueeze(-1)
    end = M.expmap(x, u)
    with mp.workdps(60):
        for i in range(len(x)):
            for got, want, p in zip(
                end[i], true_end([mp.sqrt(mp.mpf(float(q))) for q in x[i]], u[i]), x[i], strict=True
            ):
                assert abs(mp.mpf(float(got)) - want) < 8e-16 * (float(p) + float(want)) + 4e-16 * float(want) ** 0.5


# ---- the rim --------------------------------------------------------------------------------------------------


def exit_time(x, u):
    """The least t at which an entry of cos(r t) a + sin(r t)/r w is zero."""
    a = x.sqrt()
    w = u / (2 * a)
    r = w.norm(dim=-1, keepdim=True)
    return (torch.atan2(r * a, -w) / r).amin(-1)


def test_geodesics_end_at_the_first_face():
    x = M.random(200, 5, generator=generator(7), dtype=F64)
    u = M.random_tangent(x, generator=generator(8))
    u = u * exit_time(x, u).unsqueeze(-1)  # it arrives at the time one
    for t in (0.3, 0.9, 1 - 1e-9):
        assert M.exp_is_defined(x, t * u).all()
        end = M.expmap(x, t * u)
        assert M.check_point_on_manifold(end)
        close(M.dist(x, end), t * M.norm(x, u), 1e-12)
    for t in (1 + 1e-9, 1.1, 2.0, 5.0, 37.0, 1e3, 1e200):
        assert not M.exp_is_defined(x, t * u).any()
        assert M.expmap(x, t * u).isnan().all() and M.expmap_transp(x, t * u, u)[1].isnan().all()
    whole = 4 * math.pi / M.norm(x, u).unsqueeze(-1) * u  # once around, to where every entry is positive again
    assert not M.exp_is_defined(x, whole).any() and M.expmap(x, whole).isnan().all()
    with pytest.raises(ValueError, match=r"Simplex: the geodesic along u leaves .* 200 of 200 .* retr"):
        M.assert_check_exp_is_defined(x, 2 * u)
    assert M.geodesic(x, M.expmap(x, 0.5 * u), 2.1).isnan().all()


def test_injectivity_radius_is_the_distance_to_the_nearest_face():
    x = M.random(50, 4, generator=generator(9), dtype=F64)
    to_faces = []
    for i in range(4):
        y = x.clone()
        y[:, i] = 0
        foot = y / y.sum(-1, keepdim=True)
        to_faces.append(M.dist(x, foot))
        other = M.random(50, 4, generator=generator(i), dtype=F64)
        other[:, i] = 0
        assert (M.dist(x, other / other.sum(-1, keepdim=True)) >= to_faces[-1]).all()
    close(M.injectivity_radius(x), torch.stack(to_faces).amin(0))
    assert M.injectivity_radius() == 0.0
    directions = M.random_tangent(x.expand(200, 50, 4), generator=generator(10))
    directions = directions / M.norm(x, directions, keepdim=True)
    assert M.exp_is_defined(x, 0.999 * M.injectivity_radius(x).unsqueeze(-1) * directions).all()


@pytest.mark.parametrize("dtype", [F64, F32])
def test_retraction_of_long_vectors_is_a_point_and_has_an_inverse(dtype):
    x = M.random(50, 6, generator=generator(11), dtype=dtype)
    x = torch.cat([x, wide_points(dtype, 50, 6)[0]])
    for length in (1e-3, 1.0, 30.0, 1e3):
        u = length * M.random_tangent(x, generator=generator(12))
        y = M.retr(x, u)
        assert M.check_point_on_manifold(y) and M.retr_transp(x, u, u)[1].isfinite().all()
    y = M.restore(x.flip(0).roll(1, -1))
    u = M.inverse_retr(x, y)
    eps = torch.finfo(dtype).eps
    assert u.isfinite().all() and (u.sum(-1).abs() <= 8 * eps * u.abs().amax(-1)).all()
    back = M.retr(x, u)
    close(back.sqrt(), y.sqrt(), 64 * eps)
    x = x[:50]
    near = M.restore(x * (1 + 1e-3 * torch.randn(x.shape, generator=generator(13), dtype=dtype)))
    close(M.norm(x, M.inverse_retr(x, near)) / M.dist(x, near), torch.ones(50, dtype=dtype), 1e-3)


@pytest.mark.parametrize("dtype", [F64, F32])
def test_retraction_along_numbers_of_any_size_is_a_point(dtype):
    """u/x is no number next to a face, nor are sums of the largest u."""
    info = torch.finfo(dtype)
    x = torch.tensor([[info.tiny, 1e-10, 1.0], [info.tiny, 0.5, 0.5], [0.2, 0.3, 0.5]], dtype=dtype)
    for size in (1.0, 100.0, 1e-3 * info.max, info.max):
        u = size * torch.tensor([[1.0, 1.0, -1.0], [-1.0, 1.0, 1.0], [1.0, 0.0, 0.0]], dtype=dtype)
        leaf = u.clone().requires_grad_()
        y = M.retr(x, leaf)
        assert M.check_point_on_manifold(y.detach())
        assert size == 1 or torch.equal(y > 0.1, u > 0)
        assert torch.autograd.grad(y[..., 0].sum(), leaf)[0].isfinite().all()
    y = M.restore(
        torch.tensor([[1.0, info.tiny, info.tiny], [0.5, 0.5, info.tiny], [info.tiny, 1.0, 1e-30]], dtype=dtype)
    )
    close(M.retr(x, M.inverse_retr(x, y)).sqrt(), y.sqrt(), 64 * info.eps)


def test_retraction_is_the_positive_root_of_its_equation():
    a = torch.cat([torch.linspace(-8, 8, 161, dtype=F64), torch.tensor([-1e200, -1e8, -0.5, 1e8, 1e200], dtype=F64)])
    f = positive_step(torch.ones_like(a), a)
    close((3 * f - 2 - 1 / f) / 4 / (1 + a.abs()), a / (1 + a.abs()), 1e-13)
    assert (f > 0).all() and (f[:161].diff() > 0).all()
    one, x = torch.ones(1, dtype=F64), torch.zeros(1, dtype=F64, requires_grad=True)
    (first,) = torch.autograd.grad(positive_step(one, x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    close(
        torch.stack([positive_step(one, x).sum(), first.sum(), second.sum()]).detach(),
        torch.tensor([1, 1, 0.5]).double(),
    )
    (at_half,) = torch.autograd.grad(positive_step(one, x - 0.5).sum(), x)
    close(at_half, torch.tensor([2 / 3], dtype=F64))
