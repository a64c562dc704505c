"""Entailment cones: the papers' formulas in mpmath, in every model and curvature, nesting, and gradients."""

import math

import mpmath
import pytest
import torch
from mpmath import mpf

from tests.support.models import HYPERBOLIC, coordinates, directions, exact, generator, norm, points
from torchriemann.layers import EntailmentCones
from torchriemann.manifolds import Euclidean, Lorentz, PoincareBall, Sphere, Stereographic

F64 = torch.float64
RADII = torch.tensor([0.25, 0.4, 1.0, 2.0, 3.0, 0.5], dtype=F64).unsqueeze(-1)  # of apices, for K = -1
X, Y = RADII * directions(6, 3, 1), RADII.flip(0) * directions(6, 3, 2)
CASES = [(m, K) for m in HYPERBOLIC for K in (-1.0, -0.25, -4.0)]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def ball_formulas(x, y, k):
    """Of Ganea, Becigneul and Hofmann (arXiv:1804.01882), in the ball of K = -1."""
    xx, yy, xy = dot(x, x), dot(y, y), dot(x, y)
    aperture = mpmath.asin(k * (1 - xx) / norm(x))
    gap = norm([a - b for a, b in zip(x, y, strict=True)])
    cosine = (xy * (1 + xx) - xx * (1 + yy)) / (norm(x) * gap * mpmath.sqrt(1 + xx * yy - 2 * xy))
    return aperture, mpmath.acos(cosine)


def hyperboloid_formulas(x, y, k, c):
    """Of Desai et al. (arXiv:2304.09172), for the curvature -c."""
    aperture = mpmath.asin(2 * k / (mpmath.sqrt(c) * norm(x[1:])))
    inner = dot(x[1:], y[1:]) - x[0] * y[0]
    cosine = (y[0] + x[0] * c * inner) / (norm(x[1:]) * mpmath.sqrt((c * inner) ** 2 - 1))
    return aperture, mpmath.acos(cosine)


@pytest.mark.parametrize(("model", "K"), CASES)
def test_the_papers_formulas(model, K):
    cones, R = EntailmentCones(model(K), 0.1), 1 / math.sqrt(-K)
    x, y = points(model, K, R * X, F64), points(model, K, R * Y, F64)
    aperture, angle = cones.half_aperture(x), cones.exterior_angle(x, y)
    for i, (a, b) in enumerate(zip(exact(X), exact(Y), strict=True)):
        truth = ball_formulas(coordinates(PoincareBall, -1, a), coordinates(PoincareBall, -1, b), mpf(0.1))
        a, b = exact(R * X)[i], exact(R * Y)[i]
        second = hyperboloid_formulas(coordinates(Lorentz, K, a), coordinates(Lorentz, K, b), mpf(0.1), -mpf(K))
        for value, one, other in zip((aperture[i], angle[i]), truth, second, strict=True):
            assert abs(one - other) < 1e-14  # the papers agree; R is rounded
            assert value.item() == pytest.approx(float(one), rel=1e-13)
        energy = max(0.0, float(truth[1] - truth[0]))
        assert cones(x, y)[i].item() == pytest.approx(energy, rel=1e-12, abs=1e-14)


def test_angles_near_zero_and_pi():
    """An arc cosine would give 1e-8 there."""
    manifold, tiny = Lorentz(), 1e-12
    x = points(Lorentz, -1.0, torch.tensor([[1.0, 0.0]], dtype=F64), F64)
    for outward, truth in ((1.0, tiny), (-1.0, math.pi - tiny)):
        z = torch.tensor([[outward * math.cos(tiny), math.sin(tiny)]], dtype=F64)
        angle = EntailmentCones(manifold).exterior_angle(x, manifold.expmap_frame(x, z))
        assert angle.item() == pytest.approx(truth, rel=1e-15, abs=1e-15)


@pytest.mark.parametrize("model", HYPERBOLIC)
def test_cones_nest(model):
    """Points of the cone of a point of the cone of x lie in the cone of x."""
    manifold, g = model(-1.0), generator(5)
    cones = EntailmentCones(manifold, 0.1)
    x = points(model, -1.0, RADII * directions(6, 3, 1), F64)

    def inside(apex):
        """A point within the cone, at a random angle up to its border."""
        outward = manifold.to_normal(apex)
        outward = outward / outward.norm(dim=-1, keepdim=True)
        side = torch.randn(outward.shape, dtype=F64, generator=g)
        side = side - (side * outward).sum(-1, keepdim=True) * outward
        angle = cones.half_aperture(apex) * torch.rand(apex.shape[:-1], dtype=F64, generator=g)
        angle = angle.unsqueeze(-1)
        z = angle.cos() * outward + angle.sin() * side / side.norm(dim=-1, keepdim=True)
        return manifold.expmap_frame(apex, (0.2 + torch.rand(6, 1, dtype=F64, generator=g)) * z)

    for _ in range(50):
        y = inside(x)
        w = inside(y)
        assert cones(x, y).max() == 0 and cones(y, w).max() == 0
        assert cones(x, w).max() <= 1e-12
    assert (cones(y, x) > 1).all()  # and not the other way round


@pytest.mark.parametrize("model", HYPERBOLIC)
def test_near_the_origin_at_the_apex_and_at_the_origin(model):
    manifold = model(-0.5)
    cones = EntailmentCones(manifold)
    z = torch.tensor([[0.0, 0.0], [1e-9, 0.0], [0.1, 0.2], [2.0, 1.0]], dtype=F64)
    x = manifold.from_normal(z).requires_grad_()
    y = manifold.from_normal(torch.tensor([[0.5, -1.0]], dtype=F64)).expand(x.shape).clone().requires_grad_()
    assert torch.equal(cones.half_aperture(x)[:3], torch.full((3,), math.pi / 2, dtype=F64))
    assert cones(x, y)[0] == 0 and cones.exterior_angle(x, x).abs().max() == 0
    for value in (cones(x, y), cones(x, x), cones.half_aperture(x), cones.exterior_angle(x, y)):
        for gradient in torch.autograd.grad(value.sum(), (x, y), allow_unused=True):
            assert gradient is None or gradient.isfinite().all()


@pytest.mark.parametrize("model", HYPERBOLIC)
def test_gradients(model):
    K = torch.tensor(-0.8, dtype=F64, requires_grad=True)

    def energy(z, w, K):
        manifold = model(K)
        cones = EntailmentCones(manifold)
        x, y = manifold.from_normal(z), manifold.from_normal(w)
        return cones.half_aperture(x), cones.exterior_angle(x, y), cones(x, y)

    assert torch.autograd.gradcheck(energy, (X.clone().requires_grad_(), Y.clone().requires_grad_(), K))


def test_loss():
    manifold = Lorentz()
    cones = EntailmentCones(manifold)
    x = manifold.from_normal(torch.tensor([[1.0, 0.0]], dtype=F64)).expand(4, -1)
    y = manifold.from_normal(torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.0, 2.0]], dtype=F64))
    label = torch.tensor([True, True, False, False])
    energy = cones(x, y)
    assert energy[0] == 0 and energy[1] > 1
    losses = cones.loss(x, y, label, margin=0.3, reduction="none")
    torch.testing.assert_close(losses, torch.stack([energy[0], energy[1], torch.tensor(0.3, dtype=F64), energy[0]]))
    assert cones.loss(x, y, label, margin=0.3).item() == pytest.approx((energy[1].item() + 0.3) / 4)
    assert cones.loss(x, y, label, margin=0.3, reduction="sum").item() == pytest.approx(energy[1].item() + 0.3)


def test_a_false_pair_inside_a_cone_has_no_gradient_and_one_outside_has():
    manifold = Lorentz()
    z = torch.tensor([[1.0, 0.0], [2.0, 0.1], [2.0, 0.4]], dtype=F64).requires_grad_()
    parent, inside, outside = manifold.from_normal(z)
    cones = EntailmentCones(manifold)
    loss = cones.loss(parent, inside, torch.tensor(False), margin=0.5)
    assert loss.item() == 0.5 and torch.autograd.grad(loss, z, retain_graph=True)[0].abs().max() == 0
    assert 0 < cones(parent, outside) < 0.5
    loss = cones.loss(parent, outside, torch.tensor(False), margin=0.5)
    assert torch.autograd.grad(loss, z)[0].abs().min(-1)[0][[0, 2]].min() > 0


def test_beyond_the_half_spaces_and_no_nearer():
    """k = `min_radius` sets where cones begin to narrow, and with that to nest: arsinh(2k)/sqrt|K|."""
    k, K = 0.3, -0.5
    edge = math.asinh(2 * k) / math.sqrt(-K)
    r = torch.tensor([[0.5 * edge, 0.0], [0.999 * edge, 0.0], [1.001 * edge, 0.0]], dtype=F64)
    aperture = EntailmentCones(Lorentz(K), k).half_aperture(Lorentz(K).from_normal(r))
    assert (aperture[:2] == math.pi / 2).all() and aperture[2] < math.pi / 2


def test_a_small_tree_is_ordered():
    """Trained on the edges of a binary tree of 15 nodes and on false pairs, the cones order its closure."""
    parents = [(i - 1) // 2 for i in range(1, 15)]
    above = torch.zeros(15, 15, dtype=torch.bool)
    for child, parent in enumerate(parents, start=1):
        above[:, child] |= above[:, parent]
        above[parent, child] = True
    z = (0.3 * torch.randn(15, 2, dtype=F64, generator=generator(2))).requires_grad_()
    cones, manifold = EntailmentCones(Lorentz()), Lorentz()
    optimizer = torch.optim.Adam([z], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        x = manifold.from_normal(z)
        loss = cones.loss(x.unsqueeze(1), x, above, margin=0.1, reduction="none")
        (loss.sum() - loss.diagonal().sum()).backward()
        optimizer.step()
    x = manifold.from_normal(z.detach())
    energy = cones(x.unsqueeze(1), x)
    off = ~torch.eye(15, dtype=torch.bool)
    assert energy[above].mean() < 0.1 * energy[~above & off].mean()


def test_compiled_with_a_learnable_curvature():
    def f(x, y, K):
        return EntailmentCones(Lorentz(K)).energy(x, y)

    K = torch.tensor(-1.0, dtype=F64)
    x, y = points(Lorentz, -1.0, X, F64), points(Lorentz, -1.0, Y, F64)
    torch.testing.assert_close(torch.compile(f, fullgraph=True, backend="eager")(x, y, K), f(x, y, K))
    assert EntailmentCones(PoincareBall())(torch.zeros(2, 3).bfloat16(), torch.zeros(3).bfloat16()).shape == (2,)


def test_errors():
    for manifold in (Sphere(), Euclidean(), Stereographic(1.0), Stereographic(0.0), Lorentz):
        with pytest.raises(ValueError, match="EntailmentCones: manifold must be .* negative curvature"):
            EntailmentCones(manifold)
    with pytest.raises(ValueError, match="min_radius must be positive and finite, got 0"):
        EntailmentCones(Lorentz(), 0.0)
    cones, x = EntailmentCones(Lorentz()), Lorentz().origin(3)
    with pytest.raises(ValueError, match="exterior_angle"):
        cones(x, Lorentz().origin(4))
    for dtype in (torch.float32, torch.int64):
        with pytest.raises(ValueError, match=f"entailed must be a bool tensor, got {dtype}.*entailed > 0"):
            cones.loss(x, x, torch.ones((), dtype=dtype))
    with pytest.raises(ValueError, match="entailed must be a bool tensor, got bool.*torch.as_tensor"):
        cones.loss(x, x, True)
    with pytest.raises(ValueError, match=r"EntailmentCones.loss.* \(3,\), \(4,\) do not broadcast"):
        cones.loss(x.expand(3, 3), x, torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"got a tensor of shape \(3,\)"):
        EntailmentCones(x)
    with pytest.raises(ValueError, match="reduction must be one of"):
        cones.loss(x, x, torch.tensor(True), reduction="max")
