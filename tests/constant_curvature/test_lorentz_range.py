"""The Lorentz model to the ends of the range of numbers: radius 44 (float32) and 354 (float64), and any curvature.

Values and derivatives against arithmetic with enough digits for the cancellation of textbook formulas at these radii.
"""

import math

import mpmath as mp
import pytest
import torch

import torchriemann
from tests.support.lorentz_truth import Space, dot, numbers
from torchriemann.layers.hyperbolic.entailment import EntailmentCones
from torchriemann.manifolds import Lorentz, WrappedNormal

F32, F64 = torch.float32, torch.float64
DIGITS = 800
RADII = [(F32, 12.0), (F32, 31.0), (F32, 44.0), (F64, 100.0), (F64, 240.0), (F64, 354.0)]
far = pytest.mark.parametrize("dtype, radius", RADII, ids=lambda v: str(v).removeprefix("torch."))
plain = pytest.mark.parametrize("kernels", [True, False], ids=["closed", "plain"])


def directions(count, n, seed):
    d = torch.randn(count, n, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return d / d.norm(dim=-1, keepdim=True)


def pair(dtype, radius, K=-1.0):
    """Points in independent directions, both far out, and one of them near."""
    s, t = (directions(4, 3, seed) / math.sqrt(-K) for seed in (0, 1))
    first = torch.tensor([radius, radius, radius, 1.0], dtype=F64).sinh().unsqueeze(-1)
    second = torch.tensor([radius, 0.5 * radius, 1.0, radius], dtype=F64).sinh().unsqueeze(-1)
    return [torch.cat([torch.zeros_like(a[:, :1]), a], -1).to(dtype) for a in (first * s, second * t)]


def truth(f, x, y, K):
    """`f` of a space and two of its points, row by row, and its derivative in K."""
    rows, slopes = [], []
    for p, q in zip(x, y, strict=True):

        def at(k, p=p, q=q):
            space = Space(k, DIGITS)
            return f(space, space.point(numbers(p[1:])), space.point(numbers(q[1:])))

        k, h = mp.mpf(K), mp.mpf(10) ** -200
        rows.append(at(k))
        slopes.append([(a - b) / (2 * h * k) for a, b in zip(at(k * (1 + h)), at(k * (1 - h)), strict=True)])
    return rows, slopes


def close(got, want, bound, scale=None):
    """Row by row, up to `bound` of the row's largest entry or of `scale`."""
    for a, b in zip(got, want, strict=True):
        size = max(abs(c) for c in b) if scale is None else scale
        assert max(abs(mp.mpf(float(p)) - q) for p, q in zip(a, b, strict=True)) <= bound * size


OPERATIONS = {
    "dist": (lambda m, x, y: m.dist(x, y, keepdim=True), lambda s, p, q: [s.dist(p, q)]),
    "dist2": (lambda m, x, y: m.dist2(x, y, keepdim=True), lambda s, p, q: [s.dist(p, q) ** 2]),
    "logmap": (lambda m, x, y: m.logmap(x, y), lambda s, p, q: s.log(p, q)),
    "logmap_frame": (lambda m, x, y: m.logmap_frame(x, y), lambda s, p, q: s.frame(p, s.log(p, q))),
    "midpoint": (lambda m, x, y: m.midpoint(x, y), lambda s, p, q: halfway(s, p, q)),
}


def halfway(space, p, q):
    total = [a + b for a, b in zip(p, q, strict=True)]
    length = mp.sqrt(-space.product(total, total))
    return [space.R * a / length for a in total]


@plain
@far
@pytest.mark.parametrize("name", OPERATIONS)
def test_values_and_derivatives_in_the_curvature(name, dtype, radius, kernels):
    operation, exact = OPERATIONS[name]
    x, y = pair(dtype, radius)
    want, slopes = truth(exact, x, y, -1.0)
    eps = torch.finfo(dtype).eps
    for i in range(len(x)):
        with torchriemann.use_kernels(kernels):
            K = torch.tensor(-1.0, dtype=dtype, requires_grad=True)
            got = operation(Lorentz(K), x[i], y[i])
            # The weights of a geodesic are exponentials of the distance.
            close([got.tolist()], [want[i]], (16 + (radius if name == "midpoint" else 0)) * eps)
            found = [torch.autograd.grad(a, K, retain_graph=True)[0].item() for a in got]
        # Of the components of a logarithm each is as large as the longest, and so is what rounding leaves of their
        # derivatives: their sum is smaller by the distance.
        close([found], [slopes[i]], 64 * eps, max(max(abs(a) for a in slopes[i]), max(abs(a) for a in want[i])))


@plain
@far
def test_gradients_of_the_distance(dtype, radius, kernels):
    x, y = (a.requires_grad_() for a in pair(dtype, radius))
    with torchriemann.use_kernels(kernels):
        gradients = torch.autograd.grad(Lorentz().dist(x, y).sum(), (x, y))
    space = Space(-1, DIGITS)
    eps = torch.finfo(dtype).eps
    ps, qs = ([space.point(numbers(a[1:])) for a in rows.detach()] for rows in (x, y))
    close(gradients[0][:, 1:].tolist(), [space.dist_gradient(p, q) for p, q in zip(ps, qs, strict=True)], 16 * eps)
    close(gradients[1][:, 1:].tolist(), [space.dist_gradient(q, p) for p, q in zip(ps, qs, strict=True)], 16 * eps)


@far
def test_frames_and_their_derivatives_are_rotations_still(dtype, radius):
    x, y = (a.requires_grad_() for a in pair(dtype, radius))
    z, eps = directions(4, 3, 2).to(dtype), torch.finfo(dtype).eps
    m, space = Lorentz(), Space(-1, DIGITS)
    got = m.transport_frame(x, y, z)
    weights = directions(4, 3, 3).to(dtype)
    gradients = torch.autograd.grad((got * weights).sum(), (x, y))
    for i in range(4):
        p, q = (space.point(numbers(a[i, 1:].detach())) for a in (x, y))

        def turned(p, q, i=i):
            return space.frame(q, space.transport(p, q, space.from_frame(p, numbers(z[i]))))

        close([got[i].tolist()], [turned(p, q)], 16 * eps)
        for side, g in enumerate(gradients):
            along = numbers(directions(4, 3, 4)[i])
            h = mp.mpf(10) ** -200 * (p, q)[side][0]

            def moved(step, side=side, along=along, p=p, q=q, turned=turned):
                at = (p, q)[side]
                other = space.point([a + step * b for a, b in zip(at[1:], along, strict=True)])
                return turned(other, q) if side == 0 else turned(p, other)

            ahead, behind = (dot(moved(step), numbers(weights[i])) for step in (h, -h))
            want = (ahead - behind) / (2 * h)
            length = float(g[i].double().abs().amax())
            assert abs(mp.mpf(float(g[i, 1:].double() @ directions(4, 3, 4)[i])) - want) <= 64 * eps * length


@far
def test_every_operation_is_finite(dtype, radius):
    K = torch.tensor(-1.0, dtype=dtype, requires_grad=True)
    m = Lorentz(K)
    x, y = (a.requires_grad_() for a in pair(dtype, radius))
    z = directions(4, 3, 5).to(dtype)
    g = torch.cat([z[:, :1], z], -1)
    cones = EntailmentCones(m)
    inwards = -z if radius > 40 else z
    results = {
        "cdist": m.cdist(x, y),
        "geodesic": m.geodesic(x, y, 0.3),
        "parallel_transport": m.parallel_transport(x, y, m.tangent_from_frame(x, z)),
        "transport_frame": m.transport_frame(x, y, z),
        "tangent_from_frame": m.tangent_from_frame(x, z),
        "frame_from_tangent": m.frame_from_tangent(x, m.logmap(x, y)),
        "norm": m.norm(x, m.logmap(x, y)),
        "expmap_frame": m.expmap_frame(x, 0.5 * inwards),
        "gyroscale": m.gyroscale(0.5, x),
        "gyration": m.gyration(x, y, m.from_normal(z)),
        "egrad2rgrad": m.egrad2rgrad(x, 0.1 * g),
        "hyperplane_dist": m.hyperplane_dist(x, z, -20.0),
        "basis": m.basis(x),
        "to_normal": m.to_normal(m.gyroadd(m.gyroinv(x), y)),
        "dist0": m.dist0(x),
        "boost_matrix": m.boost_matrix(x),
        "log_prob": WrappedNormal(m, x, 1.0, validate_args=False).log_prob(y),
        "exterior_angle": cones.exterior_angle(x, y),
        "half_aperture": cones.half_aperture(x),
    }
    for name, value in results.items():
        assert value.isfinite().all(), name
        for g in torch.autograd.grad(value.sum(), (x, y, K), retain_graph=True, allow_unused=True):
            assert g is None or g.isfinite().all(), name


@plain
@pytest.mark.parametrize("K", [-1e-36, -1e-30, -1e-24, -1e-12, -1e-4])
def test_a_curvature_next_to_zero_has_a_finite_derivative(K, kernels):
    """That of the distance of two points is d^3/24 and what the radii add, as far from zero as nearer to it."""
    z = torch.tensor([[1.0, 0.5, -0.2], [0.4, -1.0, 0.3]])
    for operation in (Lorentz.dist, Lorentz.dist2, Lorentz.logmap_frame, Lorentz.transport_frame):
        found = []
        for dtype, curvature in ((F32, K), (F64, max(K, -1e-7))):
            k = torch.tensor(curvature, dtype=dtype, requires_grad=True)
            x, y = torch.cat([torch.zeros(2, 1), z], -1).to(dtype)
            rest = (z[1].to(dtype),) if operation is Lorentz.transport_frame else ()
            with torchriemann.use_kernels(kernels):
                value = operation(Lorentz(k), x, y, *rest)
                found.append(torch.autograd.grad(value.sum(), k)[0].double())
        torch.testing.assert_close(*found, rtol=2e-6 if K > -1e-7 else 1e-3, atol=2e-6)


def test_a_curvature_learned_at_a_high_rate_stays_a_number():
    s = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    log_size = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.SGD([log_size], lr=20.0)
    for _ in range(20):
        m = Lorentz(-log_size.exp())
        x = m.projx(torch.cat([torch.zeros(16, 1), 3 * s], -1))
        loss = m.dist(x[:8], x[8:]).mean()
        optimizer.zero_grad()
        loss.backward()
        assert log_size.grad is not None and log_size.grad.isfinite()
        optimizer.step()
