"""Gyro structure of the Grassmann manifold: against matrix exponentials, projectors and the sphere; its domain."""

import math

import pytest
import scipy.linalg
import torch
from torch.autograd import gradcheck, gradgradcheck

from torchriemann.layers import GyroTranslation
from torchriemann.manifolds import Grassmann, Power, Product, Scaled, Sphere
from torchriemann.manifolds.gyro import GyroManifold, is_gyro

F64 = torch.float64
M = Grassmann()
SHAPES = [(5, 2), (4, 1), (5, 4), (7, 3), (4, 4), (1, 1)]


def normals(n, p, *, largest, count=20, seed=0, dtype=F64):
    """Normal coordinates of subspaces whose largest principal angle to the origin is `largest`."""
    z = torch.randn(count, n - p, p, generator=torch.Generator().manual_seed(seed), dtype=F64)
    if z.numel() == 0:
        return z.to(dtype)
    return (largest * z / torch.linalg.matrix_norm(z, 2, keepdim=True)).to(dtype)


def subspaces(n, p, **options):
    """Such subspaces, in random bases."""
    x = M.from_normal(normals(n, p, **options))
    generator = torch.Generator().manual_seed(99)
    return x @ torch.linalg.qr(torch.randn(p, p, generator=generator, dtype=F64))[0].to(x.dtype)


def close(got, want, atol=1e-13, rtol=0.0):
    torch.testing.assert_close(got, want, atol=atol, rtol=rtol)


def same(x, y, atol=1e-13):
    close(M.projector(x), M.projector(y), atol)


def rotation(z):
    """The direct rotation as a matrix exponential, by scipy."""
    *_, rows, p = z.shape
    generator = torch.zeros(*z.shape[:-2], rows + p, rows + p, dtype=F64)
    generator[..., p:, :p], generator[..., :p, p:] = z, -z.mT
    return torch.from_numpy(scipy.linalg.expm(generator.numpy()))


# ---- against other formulas -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n, p", SHAPES)
def test_a_sum_is_a_product_with_a_matrix_exponential(n, p):
    z, y = normals(n, p, largest=1.5), subspaces(n, p, largest=1.2, seed=1)
    x, r = M.from_normal(z), rotation(z)
    close(M.gyroadd(x, y), r @ y)
    close(M.gyroadd(M.gyroinv(x), y), r.mT @ y)
    same(M.gyroscale(-0.3, x), rotation(-0.3 * z)[..., :p])
    close(M.to_normal(x), z)
    close(M.tangent_from_frame(x, z.flip(0)), r[..., p:] @ z.flip(0))


@pytest.mark.parametrize("n, p", SHAPES)
def test_gyrations_rotate_the_axes_of_the_origin_and_the_others(n, p):
    zx, zy = normals(n, p, largest=0.7), normals(n, p, largest=0.6, seed=1)
    x, y, z = M.from_normal(zx), M.from_normal(zy), subspaces(n, p, largest=1.0, seed=2)
    total = rotation(M.to_normal(M.gyroadd(x, y)))
    turn = total.mT @ rotation(zx) @ rotation(zy)
    close(M.gyration(x, y, z), turn @ z)
    close(turn[..., :p, p:], torch.zeros(20, p, n - p, dtype=F64))


@pytest.mark.parametrize("n, p", SHAPES)
def test_bases_and_projectors_are_two_views_of_one_sum(n, p):
    x, y = subspaces(n, p, largest=1.2), subspaces(n, p, largest=1.0, seed=1)
    P, E, one = M.projector(x), M.projector(M.origin(n, p, dtype=F64)), torch.eye(n, dtype=F64)
    values, vectors = torch.linalg.eigh(one - (P - E) @ (P - E))
    root = (vectors * values.rsqrt().unsqueeze(-2)) @ vectors.mT
    r = (P @ E + (one - P) @ (one - E)) @ root
    close(M.projector(M.gyroadd(x, y)), r @ M.projector(y) @ r.mT)
    same(M.from_projector(P, p), x)


def test_lines_add_as_points_of_the_sphere():
    sphere = Sphere()
    x, y, z = (subspaces(5, 1, largest=angle, seed=k) for k, angle in enumerate((0.9, 0.4, 1.1)))
    a, b, c = (v.squeeze(-1) * v[..., 0, :].sign() for v in (x, y, z))
    same(M.gyroadd(x, y), sphere.gyroadd(a, b).unsqueeze(-1))
    same(M.gyration(x, y, z), sphere.gyration(a, b, c).unsqueeze(-1))
    same(M.gyroscale(0.7, x), sphere.gyroscale(0.7, a).unsqueeze(-1))
    close(M.to_normal(x).squeeze(-1), sphere.to_normal(a))
    close(M.transport_frame(x, y, M.to_normal(z)).squeeze(-1), sphere.transport_frame(a, b, sphere.to_normal(c)))


@pytest.mark.parametrize("n, p", SHAPES)
def test_sums_turn_with_the_basis_of_the_second_and_not_of_the_first(n, p):
    x, y = subspaces(n, p, largest=1.3), subspaces(n, p, largest=0.9, seed=1)
    q = torch.linalg.qr(torch.randn(p, p, generator=torch.Generator().manual_seed(5), dtype=F64))[0]
    close(M.gyroadd(x, y @ q), M.gyroadd(x, y) @ q)
    close(M.gyroadd(x @ q, y), M.gyroadd(x, y))
    close(M.gyroinv(x @ q), M.gyroinv(x) @ q)
    z = normals(n, p, largest=0.5, seed=2)
    close(M.tangent_from_frame(x @ q, z), M.tangent_from_frame(x, z) @ q)
    close(M.frame_from_tangent(x @ q, M.tangent_from_frame(x, z) @ q), z)


# ---- the domain -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, p", [(4, 2), (6, 3), (5, 3)])
def test_left_reduction_holds_where_the_angles_are_small_enough(n, p):
    # Up to 1e-3 of the bound on theta(x) + 2 theta(y).
    for share in (0.1, 0.5, 0.9):
        x = subspaces(n, p, largest=share * (math.pi / 2 - 1e-3), count=200)
        y = subspaces(n, p, largest=(1 - share) / 2 * (math.pi / 2 - 1e-3), count=200, seed=1)
        z = subspaces(n, p, largest=0.7, count=200, seed=2)
        same(M.gyration(M.gyroadd(x, y), y, z), M.gyration(x, y, z), atol=1e-10)


def test_left_reduction_does_not_hold_everywhere():
    x, y, z = (subspaces(4, 2, largest=1.4, count=200, seed=k) for k in range(3))
    off = (M.projector(M.gyration(M.gyroadd(x, y), y, z)) - M.projector(M.gyration(x, y, z))).abs().amax((-2, -1))
    assert (off > 0.1).sum() > 50
    assert (off < 1e-10).sum() > 10  # and elsewhere it does, by chance


def test_beyond_the_domain_an_item_is_nan_and_no_other():
    x, y = subspaces(5, 2, largest=1.2, count=3), subspaces(5, 2, largest=1.0, count=3, seed=1)
    x[1] = torch.eye(5, dtype=F64)[:, [0, 4]]  # an angle of pi/2
    x, y = x.requires_grad_(), y.requires_grad_()
    z = normals(5, 2, largest=0.5, count=3, seed=2)
    for out in (M.gyroadd(x, y), M.gyration(x, y, y), M.tangent_from_frame(x, z), M.logmap_frame(x, y)):
        assert out.isfinite().flatten(1).all(-1).tolist() == [True, False, True]
        gradients = torch.autograd.grad(out[[0, 2]].sum(), (x, y), allow_unused=True)
        assert all(g[[0, 2]].isfinite().all() for g in gradients if g is not None)
    assert M.gyroadd(y, x).isfinite().all()  # which may lie anywhere
    assert M.gyroinv(x).isfinite().all()


@pytest.mark.parametrize("margin, atol", [(1e-3, 1e-12), (1e-6, 1e-9), (1e-9, 1e-6)])
def test_sums_next_to_the_end_of_the_domain(margin, atol):
    z, y = normals(6, 2, largest=math.pi / 2 - margin), subspaces(6, 2, largest=1.0, seed=1)
    close(M.gyroadd(M.from_normal(z), y), rotation(z) @ y, atol=atol)


@pytest.mark.parametrize("n, p", SHAPES)
@pytest.mark.parametrize("largest", [0.0, 1.0, math.pi / 2, 3.0, math.pi, 10.0])
def test_a_translation_by_coordinates_of_any_length(n, p, largest):
    z, x = normals(n, p, largest=largest), subspaces(n, p, largest=1.0, seed=1)
    close(M.translated(x, z), rotation(z) @ x, atol=1e-12)
    assert gradcheck(M.translated, (x[:2].requires_grad_(), z[:2].requires_grad_()))


def test_a_learned_translation_passes_the_cut_locus():
    layer = GyroTranslation(M, (6, 2), dtype=F64)
    x = subspaces(6, 2, largest=1.0)
    way = normals(6, 2, largest=1.0, count=1)[0]
    seen = []
    for angle in (math.pi / 2 - 1e-6, math.pi / 2, math.pi / 2 + 1e-6):
        with torch.no_grad():
            layer.bias.copy_(angle * way)
        y = layer(x)
        (gradient,) = torch.autograd.grad((y[..., 0] * x[..., 1]).sum(), layer.bias)
        seen.append((y.detach(), gradient))
    for (y, gradient), (last, before) in zip(seen[1:], seen, strict=False):
        close(y, last, atol=1e-5)
        close(gradient, before, atol=1e-4)


# ---- derivatives and digits -----------------------------------------------------------------------------------


def equal_angles(n, p):
    z = torch.zeros(n - p, p, dtype=F64)
    z.diagonal().fill_(0.6)
    return z


AT = [
    *((*size, "equal angles") for size in ((4, 2), (3, 2), (3, 1))),
    (4, 2, "origin"),
    *(pytest.param(*size, "origin", marks=pytest.mark.slow) for size in ((3, 2), (3, 1))),
]


@pytest.mark.parametrize("n, p, at", AT)
def test_first_and_second_derivatives(n, p, at):
    z = torch.zeros(n - p, p, dtype=F64) if at == "origin" else equal_angles(n, p)
    x, y = M.from_normal(z), M.from_normal(0.5 * z)

    def values(x, y, z):
        x, y = M.projx(x), M.projx(y)
        sums = M.projector(M.gyroadd(x, y)), M.projector(M.gyration(x, y, M.from_normal(z)))
        frames = M.logmap_frame(x, y), M.tangent_from_frame(x, z), M.transport_frame(x, y, z)
        return *sums, *frames, M.to_normal(x), M.projector(M.gyroscale(0.7, x)), M.projector(M.expmap_frame(x, z))

    inputs = [a.clone().requires_grad_() for a in (x, y, z)]
    assert gradcheck(values, inputs, fast_mode=True)
    assert gradgradcheck(values, inputs, fast_mode=True, atol=1e-4)


@pytest.mark.parametrize("length", [1e-2, 1e-4, 1e-6])
def test_near_points_in_single_precision(length):
    x = M.from_normal(normals(20, 3, largest=1.0, dtype=torch.float32))
    z = normals(20, 3, largest=length, seed=1, dtype=torch.float32)
    eps = torch.finfo(torch.float32).eps
    close(M.to_normal(M.from_normal(z)), z, atol=4 * eps * length)
    close(M.dist0(M.from_normal(z)), z.norm(dim=(-2, -1)), atol=0, rtol=8 * eps)
    y = M.expmap_frame(x, z)
    exact = M.dist(*(torch.linalg.qr(a.double())[0] for a in (x, y)))
    # What rounding x and y to numbers leaves of their distance.
    close(M.logmap_frame(x, y).norm(dim=(-2, -1)).double(), exact, atol=8 * eps, rtol=8 * eps)
    close(M.logmap_frame(x, x), torch.zeros_like(z), atol=8 * eps)


# ---- composites, arguments ------------------------------------------------------------------------------------


def test_products_powers_and_multiples_have_the_gyro_structure():
    product = Product((M, Sphere()), ((5, 2), (3,)))
    for m, shape, dimension in ((product, (13,), 8), (Power(M, 3), (3, 5, 2), 18), (Scaled(M, 2.0), (5, 2), 6)):
        assert is_gyro(m) and math.prod(m.normal_shape(shape)) == m.dimension(shape) == dimension
        z = 0.1 * torch.randn(4, *m.normal_shape(shape), generator=torch.Generator().manual_seed(0), dtype=F64)
        x, y = m.from_normal(z), m.from_normal(z.flip(0))
        close(m.to_normal(x), z)
        close(m.dist(m.gyroadd(x, y), GyroManifold.gyroadd(m, x, y)), torch.zeros(4, dtype=F64), atol=1e-14)
        close(m.dist0(x), z.flatten(1).norm(dim=-1))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: M.from_projector(torch.eye(4)[:3], 2), r"from_projector: P must be a tensor \*B,n,n, got \(3, 4\)"),
        (lambda: M.from_projector(torch.eye(4), 5), "a basis of p vectors in"),
        (lambda: M.from_normal(torch.zeros(3)), r"Grassmann.from_normal: normal coordinates need 2 dimension"),
        (lambda: M.expmap_frame(M.origin(5, 2), torch.zeros(2, 3)), r"end in \(3, 2\), got \(2, 3\)"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
