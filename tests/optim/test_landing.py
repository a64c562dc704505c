"""LandingSGD: the tube is never left, known optima are reached, and a step is that of the papers."""

import copy
import io

import geoopt
import numpy as np
import pytest
import torch

from torchriemann import ManifoldParameter, Sphere
from torchriemann.manifolds import Grassmann, Stiefel
from torchriemann.manifolds.frames.orthogonal import Orthogonal, SpecialOrthogonal
from torchriemann.optim import LandingSGD

DTYPES = [torch.float32, torch.float64]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def frames(count, n, p, seed=0, dtype=torch.float64, manifold=None):
    manifold = manifold or Stiefel()
    made = [manifold.random(n, p, generator=generator(seed + i), dtype=dtype) for i in range(count)]
    return [ManifoldParameter(x, manifold) for x in made]


def randomize(params, seed, scale=1.0):
    g = generator(1000 + seed)
    for p in params:
        p.grad = scale * torch.randn(p.shape, generator=g, dtype=p.dtype)


def distance(x):
    """max ||x^T x - I||_F over the batch, in double precision."""
    x = x.detach().double().numpy()
    return np.linalg.norm(np.swapaxes(x, -1, -2) @ x - np.eye(x.shape[-1]), axis=(-2, -1)).max()


def off_by(d, n=6, p=3, seed=0):
    """A frame stretched to the distance d."""
    x = frames(1, n, p, seed)[0].detach()
    return x * (1 + d / p**0.5) ** 0.5


def train(optimizer, loss, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


# ---- the tube -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "p", "safe"), [(6, 3, 0.5), (5, 5, 0.2), (20, 1, 0.9)])
def test_a_thousand_steps_of_any_length_stay_in_the_tube(dtype, n, p, safe):
    (x,) = frames(1, n, p, dtype=dtype)
    optimizer = LandingSGD([x], lr=100.0, momentum=0.5, safe_distance=safe)
    worst, before, moved = 0.0, x.detach().clone(), 1.0
    for seed in range(1000):
        randomize([x], seed, scale=10.0 ** (seed % 7 - 3))  # 1e-3 to 1e3
        optimizer.step()
        moved = min(moved, (x.detach() - before).norm().item())
        before = x.detach().clone()
        worst = max(worst, distance(x))
    assert 0.8 * safe < worst <= safe
    assert moved > 1e-5  # not by standing still


def test_gradients_whose_squares_overflow_still_move_within_the_tube():
    (x,) = frames(1, 5, 2, dtype=torch.float32)
    optimizer = LandingSGD([x], lr=1.0)
    before = x.detach().clone()
    randomize([x], 0, scale=1e30)
    optimizer.step()
    assert distance(x) <= 0.5 and (x.detach() - before).norm() > 0.1


@pytest.mark.parametrize("scale", [1e4, 1e6, 1e9])
@pytest.mark.parametrize(("n", "p"), [(6, 3), (40, 1), (64, 16)])
def test_rounding_of_long_normal_gradients_stays_in_the_tube(n, p, scale):
    # Normal to the manifold, they cancel in the field: what is left is rounding, and tangent to nothing.
    (x,) = frames(1, n, p, dtype=torch.float32)
    optimizer = LandingSGD([x], lr=1.0)
    worst, total = 0.0, 0.0
    for seed in range(100):
        s = torch.randn(p, p, generator=generator(seed))
        before = x.detach().clone()
        x.grad = scale * before @ (s + s.T) + torch.randn(n, p, generator=generator(seed + 500))
        optimizer.step()
        worst, total = max(worst, distance(x)), total + (x.detach() - before).norm().item()
    assert worst <= 0.5 and total > 1e-3


def test_the_step_is_the_longest_that_the_bound_allows():
    x = off_by(0.3)
    for scale in (0.1, 10.0, 1e4):
        point = ManifoldParameter.project(x, Stiefel())
        point.data.copy_(x)
        optimizer = LandingSGD([point], lr=1e9, landing=0.01)
        randomize([point], 1, scale)
        field = numpy_field(x.numpy(), point.grad.numpy(), 0.01)
        optimizer.step()
        step = np.linalg.norm(point.detach().numpy() - x.numpy()) / np.linalg.norm(field)
        d = distance(x)
        bound = d - 2 * step * 0.01 * d * (1 - d) + step**2 * np.linalg.norm(field) ** 2
        assert step == pytest.approx(0.5 / 0.01) or bound == pytest.approx(0.5, rel=1e-9)
        assert distance(point) <= min(bound, 0.5) * (1 + 1e-12)


@pytest.mark.parametrize("kind", [Orthogonal, SpecialOrthogonal], ids=lambda k: k.__name__)
def test_square_frames_keep_the_sign_of_their_determinant(kind):
    points = frames(4, 4, 4, manifold=kind())
    signs = [torch.linalg.det(p.detach()).sign() for p in points]
    optimizer = LandingSGD(points, lr=10.0)
    for seed in range(200):
        randomize(points, seed, 10.0)
        optimizer.step()
    assert max(map(distance, points)) > 0.01
    optimizer.project_()
    for p, sign in zip(points, signs, strict=True):
        assert p.manifold.check_point_on_manifold(p.detach())
        assert torch.linalg.det(p.detach()).sign() == sign


def test_a_start_off_the_manifold_lands():
    for d in (0.499999, -0.4):
        point = frames(1, 6, 3)[0]
        point.data.copy_(off_by(d))
        optimizer = LandingSGD([point], lr=0.1)
        seen = []
        for _ in range(63):
            point.grad = torch.zeros_like(point.data)
            optimizer.step()
            seen.append(distance(point))
        assert np.all(np.diff(seen) < 0) and seen[-1] < 0.5 * 0.85**63
        optimizer.step()  # the 64th restores: at most squared
        assert distance(point) <= max(seen[-1] ** 2, 1e-15)


def test_a_start_outside_the_tube_is_refused():
    point = frames(1, 6, 3)[0]
    point.data.copy_(off_by(0.6))
    with pytest.raises(ValueError, match=r"parameter 0 of group 0 is off its manifold.*= 0.6 > safe_distance = 0.5"):
        LandingSGD([point])
    assert LandingSGD([point], safe_distance=0.7).param_groups[0]["safe_distance"] == 0.7
    point.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="= nan > safe_distance"):
        LandingSGD([point])


def test_a_frame_moved_out_between_steps_is_led_back_or_becomes_nan():
    point = frames(1, 6, 3)[0]
    optimizer = LandingSGD([point], lr=0.1, safe_distance=0.3)
    randomize([point], 0)
    optimizer.step()
    point.data.copy_(off_by(0.9))
    seen = [0.9]
    while seen[-1] > 0.3 and len(seen) < 300:
        randomize([point], len(seen), scale=0.3)
        optimizer.step()
        seen.append(distance(point))
    assert np.all(np.diff(seen) < 0) and seen[-1] <= 0.3
    point.data.copy_(off_by(1.2))
    optimizer.step()
    assert point.isnan().all()


# ---- known optima -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("manifold", "momentum"),
    [(Stiefel(), 0.0), (Stiefel(beta=0.5, retraction="qr"), 0.8), (geoopt.EuclideanStiefel(), 0.8)],
    ids=["stiefel", "canonical, momentum", "geoopt, momentum"],
)
def test_principal_components(manifold, momentum):
    a = torch.randn(30, 8, generator=generator(1), dtype=torch.float64)
    a, weights = a.T @ a / 30, torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    start = frames(1, 8, 3)[0].detach()
    make = geoopt.ManifoldParameter if isinstance(manifold, geoopt.Manifold) else ManifoldParameter
    x = make(start.clone(), manifold=manifold)
    optimizer = LandingSGD([x], lr=0.4 if momentum == 0 else 0.1, momentum=momentum, maximize=True)
    train(optimizer, lambda: (weights * (x * (a @ x)).sum(0)).sum() / 2, 1200)
    values = np.linalg.eigvalsh(a.numpy())[::-1][:3]
    assert distance(x) < 1e-12
    assert (weights * (x * (a @ x)).sum(0)).sum().item() == pytest.approx((values * weights.numpy()).sum(), rel=1e-12)
    g = (a @ x * weights).detach()
    assert (g - x.detach() @ (g.T @ x.detach())).norm() < 1e-6


def test_procrustes():
    c = torch.randn(7, 4, generator=generator(2), dtype=torch.float64)
    (x,) = frames(1, 7, 4, seed=3)
    train(LandingSGD([x], lr=0.2, momentum=0.5), lambda: (x - c).square().sum() / 2, 1500)
    u, _, v = np.linalg.svd(c.numpy(), full_matrices=False)
    assert np.abs(x.detach().numpy() - u @ v).max() < 1e-10
    assert distance(x) < 1e-13


def test_float32_lands_to_rounding():
    c = torch.randn(50, 10, generator=generator(2))
    (x,) = frames(1, 50, 10, dtype=torch.float32)
    train(LandingSGD([x], lr=0.1), lambda: (x - c).square().sum() / 2, 1000)
    u, _, v = np.linalg.svd(c.double().numpy(), full_matrices=False)
    assert distance(x) < 2e-6 and np.abs(x.detach().numpy() - u @ v).max() < 5e-6


# ---- the formulas -------------------------------------------------------------------------------------------------


def numpy_field(x, g, landing):
    """skew(g x^T) x + landing x (x^T x - I), with the n x n matrix of the papers."""
    psi = (g @ x.T - x @ g.T) / 2
    return psi @ x + landing * x @ (x.T @ x - np.eye(x.shape[1]))


def numpy_step(x, g, lr, landing, safe):
    field = numpy_field(x, g, landing)
    d, a = np.linalg.norm(x.T @ x - np.eye(x.shape[1])), np.linalg.norm(field) ** 2
    root = max(np.roots([a, -2 * landing * d * (1 - d), d - safe]).real)
    return x - min(lr, root, 0.5 / landing) * field


@pytest.mark.parametrize(("lr", "landing"), [(0.05, 1.0), (5.0, 0.7), (0.3, 4.0)])
def test_five_steps_are_those_of_the_papers(lr, landing):
    (point,) = frames(1, 6, 3)
    optimizer = LandingSGD([point], lr=lr, momentum=0.9, landing=landing)
    x, buffer = point.detach().numpy().copy(), np.zeros((6, 3))
    for seed in range(5):
        randomize([point], seed)
        buffer = 0.9 * buffer + point.grad.numpy()
        before = point.grad.clone()
        x, before_x = numpy_step(x, buffer, lr, landing, 0.5), x
        s = before_x.T @ buffer
        buffer = buffer - before_x @ (s + s.T) / 2
        optimizer.step()
        assert torch.equal(point.grad, before)
        assert np.abs(point.detach().numpy() - x).max() < 1e-11
    assert np.abs(optimizer.state[point]["momentum_buffer"].numpy() - buffer).max() < 1e-13


def test_on_the_manifold_the_direction_is_half_the_canonical_gradient():
    (point,) = frames(1, 6, 3)
    x = point.detach().clone()
    randomize([point], 0)
    LandingSGD([point], lr=1e-3).step()
    canonical = geoopt.CanonicalStiefel().egrad2rgrad(x, point.grad.clone())
    assert torch.allclose(point.detach(), x - 0.5e-3 * canonical, atol=1e-14)


def test_one_batch_equals_one_by_one_across_libraries():
    def make():
        ours = frames(3, 5, 2)
        theirs = geoopt.ManifoldParameter(
            frames(1, 5, 2, seed=9)[0].detach().clone(), manifold=geoopt.EuclideanStiefel()
        )
        return [*ours, theirs, *frames(1, 4, 4)]

    one, other = make(), make()
    a, b = LandingSGD(one, lr=0.3, momentum=0.9), LandingSGD(other, lr=torch.tensor([0.3]), momentum=0.9, foreach=False)
    for seed in range(70):
        for params, optimizer in ((one, a), (other, b)):
            randomize(params, seed)
            if seed % 3 == 0:
                params[1].grad = None
            optimizer.step()
    assert all(torch.allclose(p, q, atol=1e-6) for p, q in zip(one, other, strict=True))


@pytest.mark.parametrize("foreach", [None, False])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("maximize", [False, True])
def test_flat_parameters_are_stepped_by_torch_to_the_bit(foreach, momentum, maximize):
    def make():
        return [
            torch.nn.Parameter(torch.randn(s, generator=generator(i))) for i, s in enumerate([(), (3,), (0,), (2, 5)])
        ]

    ours, theirs = make(), make()
    options = {"lr": 0.1, "momentum": momentum, "foreach": foreach, "maximize": maximize}
    a, b = LandingSGD(ours, **options), torch.optim.SGD(theirs, **options)
    for seed in range(5):
        for params, optimizer in ((ours, a), (theirs, b)):
            randomize(params, seed)
            optimizer.step()
    assert all(map(torch.equal, ours, theirs))


# ---- state, projection, refusals ------------------------------------------------------------------------------------


def test_a_resumed_run_continues_to_the_bit():
    points = [*frames(2, 5, 2), torch.nn.Parameter(torch.randn(3, generator=generator()))]
    optimizer = LandingSGD(points, lr=0.5, momentum=0.9)
    for seed in range(10):
        randomize(points, seed)
        optimizer.step()
    again, (buffer, models) = copy.deepcopy(points), (io.BytesIO(), copy.deepcopy(points))
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    resumed = LandingSGD(again, lr=0.1)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    for seed in range(10, 70):
        for params, o in ((points, optimizer), (again, resumed)):
            randomize(params, seed)
            o.step()
    assert all(map(torch.equal, points, again)) and not torch.equal(points[0], models[0])


def test_momentum_of_torch_is_taken_over():
    points, plain = frames(2, 5, 2), [torch.nn.Parameter(p.detach().clone()) for p in frames(2, 5, 2)]
    source = torch.optim.SGD(plain, lr=0.1, momentum=0.9)
    randomize(plain, 0)
    source.step()
    optimizer = LandingSGD(points, lr=0.1, momentum=0.9)
    state = optimizer.state_dict()
    state["state"] = source.state_dict()["state"]
    optimizer.load_state_dict(state)
    x, b = points[1].detach().numpy().copy(), plain[1].grad.numpy().copy()
    randomize(points, 1)
    optimizer.step()
    b = 0.9 * b + points[1].grad.numpy()
    assert np.abs(points[1].detach().numpy() - numpy_step(x, b, 0.1, 1.0, 0.5)).max() < 1e-12


def test_project_puts_every_frame_on_its_nearest_neighbour():
    points = [*frames(2, 6, 3), *frames(1, 3, 3, manifold=SpecialOrthogonal()), torch.nn.Parameter(torch.ones(2))]
    optimizer = LandingSGD(points, lr=1.0, momentum=0.9)
    for seed in range(3):
        randomize(points, seed)
        optimizer.step()
    before = [p.detach().clone() for p in points]
    assert max(distance(p) for p in points[:3]) > 0.01
    optimizer.project_()
    for p, b in zip(points[:3], before, strict=False):
        u, _, v = np.linalg.svd(b.numpy(), full_matrices=False)
        assert np.abs(p.detach().numpy() - u @ v).max() < 1e-14
    assert torch.equal(points[3], before[3])
    optimizer.step()


def test_a_nan_gradient_changes_nothing_under_check_finite():
    points = [*frames(3, 5, 2), torch.nn.Parameter(torch.ones(2))]
    optimizer = LandingSGD(points, lr=0.1, momentum=0.9, check_finite=True)
    for bad in (1, 3):
        randomize(points, 0)
        before = [p.detach().clone() for p in points]
        points[bad].grad.view(-1)[0] = torch.nan
        with pytest.raises(ValueError, match=f"parameter {bad} of group 0 would become infinite or NaN"):
            optimizer.step()
        assert all(map(torch.equal, points, before))


def test_other_manifolds_and_options_are_refused():
    for manifold, shape in ((Sphere(), (5,)), (Grassmann(), (5, 2))):
        point = ManifoldParameter(manifold.random(*shape), manifold)
        with pytest.raises(ValueError, match="LandingSGD steps frames.*Use RiemannianSGD"):
            LandingSGD([point])
    (x,) = frames(1, 5, 2)
    for option, value, expected in (
        ("lr", -1.0, r"lr must be in \[0"),
        ("momentum", -0.1, "momentum must be"),
        ("landing", 0.0, r"landing must be a number in \(0.0, inf\), got 0.0"),
        ("safe_distance", 1.0, r"safe_distance must be a number in \(0.0, 1.0\), got 1.0"),
        ("safe_distance", 0.0, "safe_distance"),
    ):
        with pytest.raises(ValueError, match=f"LandingSGD: {expected}"):
            LandingSGD([x], **{option: value})
    with pytest.raises(ValueError, match="capturable=True is not supported"):
        LandingSGD([{"params": [x], "capturable": True}])
