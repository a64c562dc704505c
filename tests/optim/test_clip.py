"""Gradient clipping by the length on the manifold: torch's numbers in flat space, the metric's elsewhere."""

import math

import geoopt
import pytest
import torch
from torch import nn

from tests.distributed.distributed_ranks import run_checks
from torchriemann import ManifoldParameter, Sphere
from torchriemann.manifolds import Euclidean, Grassmann, Stiefel
from torchriemann.manifolds.parameter import relabel
from torchriemann.optim import AveragedModel, RiemannianSGD, clip_grad_norm_, get_total_norm, param_groups


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def with_gradient(p, seed, scale=1.0):
    p.grad = scale * torch.randn(p.shape, generator=generator(seed), dtype=p.dtype)
    return p


def points(manifold, count, shape, dtype=torch.float64):
    made = [manifold.random(*shape, generator=generator(i), dtype=dtype) for i in range(count)]
    return [with_gradient(ManifoldParameter(x, manifold), i) for i, x in enumerate(made)]


def flat_parameters(dtypes=(torch.float32,)):
    shapes = [(), (5,), (0,), (3, 4), (7,)]
    return [with_gradient(nn.Parameter(torch.zeros(s, dtype=d)), i) for i, s in enumerate(shapes) for d in dtypes]


def ball_points(count=2):
    ball = geoopt.PoincareBall()
    made = [0.2 * torch.randn(4, generator=generator(i), dtype=torch.float64) for i in range(count)]
    return [with_gradient(geoopt.ManifoldParameter(x, manifold=ball), i) for i, x in enumerate(made)]


def length_by_duality(x, grad, tangents, metric):
    """The Riemannian length of a gradient from its definition: the largest rate of change along a unit vector.

    `tangents` span the tangent space, `metric` is the Gram matrix of the inner product on them: |g| = sqrt(c^T M^-1 c)
    with c_i = <grad, t_i>.
    """
    c = torch.stack([(grad * t).sum() for t in tangents])
    return (c @ torch.linalg.solve(metric, c)).sqrt()


# ---- flat space ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("foreach", [None, True, False])
@pytest.mark.parametrize("max_norm", [0.0, 0.7, 1e9])
@pytest.mark.parametrize(
    "dtypes", [(torch.float32,), (torch.float32, torch.float64, torch.bfloat16)], ids=["one", "mixed"]
)
def test_flat_parameters_are_clipped_as_torch_does_to_the_bit(foreach, max_norm, dtypes):
    ours, theirs = flat_parameters(dtypes), flat_parameters(dtypes)
    total = clip_grad_norm_(ours, max_norm, foreach=foreach)
    expected = nn.utils.clip_grad_norm_(theirs, max_norm, foreach=foreach)
    assert torch.equal(total, expected) and total.dtype == expected.dtype
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))


def test_euclidean_labels_of_either_library_are_flat():
    ours, theirs = flat_parameters(), flat_parameters()
    labelled = [relabel(ours[1], Euclidean()), geoopt.ManifoldParameter(ours[3].detach(), manifold=geoopt.Euclidean(2))]
    labelled[1].grad = ours[3].grad
    total = clip_grad_norm_([ours[0], labelled[0], ours[2], labelled[1], ours[4]], 0.5)
    assert torch.equal(total, nn.utils.clip_grad_norm_(theirs, 0.5))


def test_one_tensor_generators_and_groups_are_taken():
    p = flat_parameters()[3]
    length = p.grad.norm()
    for make in (lambda: p, lambda: [p], lambda: (q for q in [p]), lambda: {"params": p}, lambda: [{"params": [p]}]):
        assert torch.equal(get_total_norm(make()), length)
    clip_grad_norm_(p, 0.5)
    assert math.isclose(p.grad.norm(), 0.5, rel_tol=1e-5)


@pytest.mark.parametrize(
    "nothing", [[], [nn.Parameter(torch.ones(3))], [{"params": []}]], ids=["none", "no grad", "group"]
)
def test_without_gradients_the_length_is_zero(nothing):
    total = clip_grad_norm_(nothing, 1.0)
    assert total.shape == () and total == 0


# ---- metrics ------------------------------------------------------------------------------------------------------


def test_sphere_measures_the_tangent_part():
    (p,) = points(Sphere(), 1, (5,))
    x = p.detach()
    expected = (p.grad - (p.grad @ x) * x).norm()
    assert torch.allclose(get_total_norm([p]), expected, rtol=1e-14)
    p.grad = 3 * x  # normal to the sphere: no Riemannian gradient, though the Euclidean one is 3 long
    assert get_total_norm([p]) < 1e-14


def test_canonical_stiefel_is_the_dual_norm_of_its_metric():
    (p,) = points(Stiefel(beta=0.5), 1, (5, 2))
    x, units = p.detach(), torch.eye(10, dtype=torch.float64).reshape(10, 5, 2)
    spanning = [u - x @ (x.T @ u + u.T @ x) / 2 for u in units]
    flat = torch.stack([t.flatten() for t in spanning])
    q = torch.linalg.svd(flat)[2][: 2 * 5 - 3].reshape(-1, 5, 2)  # 7 dimensions
    canonical = torch.eye(5, dtype=torch.float64) - 0.5 * x @ x.T  # <u, v> = tr u^T (I - x x^T / 2) v
    metric = torch.stack([torch.stack([(u * (canonical @ v)).sum() for v in q]) for u in q])
    expected = length_by_duality(x, p.grad, q, metric)
    assert torch.allclose(get_total_norm([p]), expected, rtol=1e-12)
    same = with_gradient(geoopt.ManifoldParameter(x.clone(), manifold=geoopt.CanonicalStiefel()), 0)
    assert torch.allclose(get_total_norm([same]), expected, rtol=1e-12)


def test_poincare_ball_of_geoopt_has_its_conformal_factor():
    p, q = ball_points()
    # The metric is (2 / (1 - |x|^2))^2, so a gradient's length is that of its coordinates times (1 - |x|^2) / 2.
    expected = [(1 - x.detach().square().sum()) / 2 * x.grad.norm() for x in (p, q)]
    assert torch.allclose(get_total_norm([p]), expected[0], rtol=1e-12)
    assert torch.allclose(get_total_norm([p, q]), torch.stack(expected).norm(), rtol=1e-12)


@pytest.mark.parametrize(
    "manifold",
    [geoopt.SymmetricPositiveDefinite(), geoopt.Lorentz(), geoopt.Scaled(geoopt.PoincareBall(), 2.0), geoopt.Sphere()],
    ids=lambda m: type(m).__name__,
)
def test_geoopt_manifolds_agree_with_the_definition_and_keep_the_gradient(manifold):
    shape = (3, 3) if manifold.ndim == 2 else (4,)
    x = manifold.projx(torch.randn(shape, generator=generator(5), dtype=torch.float64)).as_subclass(torch.Tensor)
    p = with_gradient(geoopt.ManifoldParameter(x, manifold=manifold), 3)
    before = p.grad.clone()
    total = get_total_norm([p])
    assert torch.equal(p.grad, before)
    # f changes fastest, at the rate |grad f|, along the normalised gradient: grad . r / |r| in coordinates.
    r = manifold.egrad2rgrad(x, before.clone())
    assert torch.allclose(total, (before * r).sum() / manifold.inner(x, r).sum().sqrt(), rtol=1e-9)


def test_everything_together_is_the_root_of_the_sum_of_squares():
    parts = [points(Sphere(), 3, (4,)), points(Stiefel(), 2, (5, 2)), points(Grassmann(), 1, (2, 5, 2)), ball_points()]
    parts.append(flat_parameters((torch.float64,)))
    together = [p for part in parts for p in part]
    expected = math.hypot(*(get_total_norm([p]).item() for p in together))
    for foreach in (None, True, False):
        assert math.isclose(get_total_norm(together, foreach=foreach), expected, rel_tol=1e-12)
    before = [p.grad.clone() for p in together]
    total = clip_grad_norm_(together, 1.5)
    assert math.isclose(total, expected, rel_tol=1e-12)
    assert math.isclose(get_total_norm(together), 1.5, rel_tol=1e-6)
    factor = 1.5 / (expected + 1e-6)
    assert all(torch.allclose(p.grad, factor * b, rtol=1e-12) for p, b in zip(together, before, strict=True))
    after = [p.grad.clone() for p in together]
    clip_grad_norm_(together, 10.0)  # short enough already: multiplied by one
    assert all(torch.equal(p.grad, a) for p, a in zip(together, after, strict=True))


def test_the_length_does_not_depend_on_coordinates():
    # Rotated point and rotated gradient, and on the ball the same point in the Lorentz model.
    (p,) = points(Stiefel(beta=0.5), 1, (5, 2))
    q = torch.linalg.qr(torch.randn(5, 5, generator=generator(9), dtype=torch.float64))[0]
    turned = ManifoldParameter(q @ p.detach(), p.manifold)
    turned.grad = q @ p.grad
    assert torch.allclose(get_total_norm([p]), get_total_norm([turned]), rtol=1e-13)

    lorentz, ball = geoopt.Lorentz(), geoopt.PoincareBall()
    x = lorentz.projx(torch.randn(4, generator=generator(5), dtype=torch.float64)).as_subclass(torch.Tensor)
    on_lorentz = geoopt.ManifoldParameter(x.clone(), manifold=lorentz)
    on_ball = geoopt.ManifoldParameter(x[1:] / (1 + x[0]), manifold=ball)
    target = torch.tensor([0.1, -0.3, 0.2], dtype=torch.float64)
    (on_ball - target).square().sum().backward()
    (on_lorentz[1:] / (1 + on_lorentz[0]) - target).square().sum().backward()
    assert torch.allclose(get_total_norm([on_ball]), get_total_norm([on_lorentz]), rtol=1e-10)


# ---- in a training loop ---------------------------------------------------------------------------------------------


def test_groups_of_a_model_and_their_explicit_manifolds():
    model = nn.Linear(4, 3, dtype=torch.float64)
    for i, p in enumerate(model.parameters()):
        with_gradient(p, i)
    rows = {"params": [model.weight], "manifold": Sphere()}  # the group says it, the tensor does not
    with torch.no_grad():
        model.weight.copy_(Sphere().projx(model.weight))
    x, g = model.weight.detach(), model.weight.grad
    expected = ((g - (g * x).sum(-1, keepdim=True) * x).square().sum() + model.bias.grad.square().sum()).sqrt()
    assert torch.allclose(get_total_norm([rows, {"params": [model.bias], "manifold": None}]), expected, rtol=1e-13)

    optimizer = RiemannianSGD([rows, {"params": [model.bias]}], lr=0.1)
    with pytest.raises(ValueError, match="0 of group 0 is stepped on Sphere.*param_groups"):
        clip_grad_norm_(optimizer.param_groups, 1.0)
    relabel(model.weight, Sphere())
    assert torch.allclose(clip_grad_norm_(optimizer.param_groups, 1.0), expected, rtol=1e-13)
    assert torch.allclose(get_total_norm(param_groups(model)), get_total_norm(model.parameters()), rtol=1e-13)


def test_after_unscale_a_scaler_sees_clipped_gradients():
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    (p,) = points(Sphere(), 1, (5,), torch.float32)
    p.grad = None
    optimizer = RiemannianSGD([p], lr=1.0)
    target = torch.tensor([0.0, 0.0, 0.0, 0.0, 50.0])
    start = p.detach().clone()
    scaler.scale((p * target).sum()).backward()
    scaler.unscale_(optimizer)
    total = clip_grad_norm_([p], 0.1)
    assert math.isclose(total, (target - (target @ start) * start).norm(), rel_tol=1e-5)
    scaler.step(optimizer)
    scaler.update()
    moved = torch.atan(torch.tensor(0.1))  # the projection retraction turns by atan |u|
    assert math.isclose(torch.acos(p.detach() @ start), moved, rel_tol=1e-3)


def test_nothing_is_scaled_when_a_non_finite_length_is_refused():
    together = [*points(Sphere(), 2, (4,)), *flat_parameters()]
    together[1].grad[0] = torch.inf
    before = [p.grad.clone() for p in together]
    for params in (together, together[1]):
        with pytest.raises(RuntimeError, match="infinite or NaN|non-finite"):
            clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    assert all(torch.equal(p.grad, b) for p, b in zip(together, before, strict=True))
    assert not clip_grad_norm_(together, 1.0).isfinite()


@pytest.mark.parametrize("manifold", [Sphere(), Stiefel(beta=0.5)], ids=["sphere", "stiefel"])
def test_inside_a_compiled_step(manifold):
    shape = (5,) if manifold.ndim == 1 else (5, 2)
    together = [*points(manifold, 3, shape), *flat_parameters((torch.float64,))]
    expected = get_total_norm(together)

    @torch.compile(backend="aot_eager")
    def step(scale):
        return scale * clip_grad_norm_(together, 0.5)

    assert torch.allclose(step(torch.tensor(3.0, dtype=torch.float64)), 3 * expected, rtol=1e-13)
    assert math.isclose(get_total_norm(together), 0.5, rel_tol=1e-5)


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_arguments_that_are_no_parameters_are_refused():
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="got a module; pass param_groups"):
        clip_grad_norm_(model, 1.0)
    with pytest.raises(ValueError, match="got tuple at 0"):
        clip_grad_norm_(model.named_parameters(), 1.0)
    with pytest.raises(ValueError, match="max_norm must be at least 0, got -1"):
        clip_grad_norm_(model.parameters(), -1.0)
    with pytest.raises(ValueError, match="max_norm must be at least 0, got -1"):
        clip_grad_norm_(nn.Parameter(torch.ones(2)), torch.tensor(-1.0))
    with pytest.raises(ValueError, match="max_norm must be at least 0, got nan"):
        clip_grad_norm_(model.parameters(), math.nan)
    with pytest.raises(TypeError):
        clip_grad_norm_(model.parameters(), 1.0, 2.0)  # torch's norm_type


def test_sparse_gradients_of_points_are_refused():
    table = ManifoldParameter(Sphere().random(6, 3), Sphere())
    nn.functional.embedding(torch.tensor([1, 4]), table, sparse=True).sum().backward()
    with pytest.raises(ValueError, match="parameter 0: its gradient is sparse"):
        clip_grad_norm_([table], 1.0)


def sharded_norms(folder):
    """On each process: flat, point, and both, with gradients that are split or replicated."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    whole, g = (torch.randn(5, 3, generator=generator(s), dtype=torch.float64) for s in (1, 2))
    rows = Sphere().projx(whole)
    plain = points(Sphere(), 2, (4,))
    expected_flat, expected_rows = g.norm(), (g - (g * rows).sum(-1, keepdim=True) * rows).norm()

    def parameter(values, placement, manifold):
        p = nn.Parameter(distribute_tensor(values, mesh, [placement]))
        p = p if manifold is None else relabel(p, manifold)
        p.grad = distribute_tensor(g.clone(), mesh, [placement])  # which may keep what it is given
        return p

    for placement in (Shard(0), Replicate()):
        flat, curved = parameter(whole, placement, None), parameter(rows, placement, Sphere())
        total = math.hypot(expected_flat, expected_rows, get_total_norm(plain))
        assert math.isclose(get_total_norm([curved]), expected_rows, rel_tol=1e-13)
        together = [flat, curved, *plain, nn.Parameter(torch.ones(2))]
        assert math.isclose(clip_grad_norm_(together, total / 2), total, rel_tol=1e-13)
        assert torch.allclose(curved.grad.full_tensor(), g / 2, rtol=1e-5)
        assert torch.allclose(flat.grad.full_tensor(), g / 2, rtol=1e-5)
        assert math.isclose(get_total_norm(together), total / 2, rel_tol=1e-5)
        for i, p in enumerate(plain):
            with_gradient(p, i)
    cut = parameter(rows, Shard(1), Sphere())
    with pytest.raises(ValueError, match="sharded along dimension 1"):
        clip_grad_norm_([cut], 1.0)
    with pytest.raises(ValueError, match="rows on Sphere.*sharded points are not averaged"):
        AveragedModel(nn.ParameterDict({"rows": parameter(rows, Shard(0), Sphere())}))


@pytest.mark.slow  # two processes start
def test_sharded_parameters_count_as_a_whole(tmp_path):
    reports = run_checks({"sharded norms": sharded_norms}, tmp_path)
    assert reports == {"sharded norms": ""}, reports["sharded norms"]
