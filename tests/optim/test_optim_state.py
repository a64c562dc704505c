"""State: round trips to the bit, views of one stack, states of other optimizers, and steps that happen whole or not."""

import copy
import io
import pickle

import geoopt
import pytest
import torch

from tests.optim.test_optim import every_optimizer, generator, spheres, train
from torchriemann import ManifoldParameter, Sphere
from torchriemann.manifolds import Euclidean, Orthogonal, Power, Product, Scaled
from torchriemann.manifolds.frames.stiefel import Stiefel
from torchriemann.optim import RiemannianAdam, RiemannianSGD


def mixed(seed=0):
    manifold = Stiefel()
    frames = [ManifoldParameter(manifold.random(5, 2, generator=generator(seed + i)), manifold) for i in range(2)]
    flat = [torch.nn.Parameter(torch.randn(3, generator=generator(seed))) for _ in range(2)]
    return [*spheres(3, seed=seed, dtype=torch.float32), *frames, *spheres(1, n=3, seed=seed), *flat]


def give_gradients(points, seed):
    g = generator(100 + seed)
    for i, p in enumerate(points):
        p.grad = torch.randn(p.shape, generator=g, dtype=p.dtype)
        if (i + seed) % 5 == 0:
            p.grad = None


def run(optimizer, points, steps):
    for seed in steps:
        give_gradients(points, seed)
        optimizer.step()


def everything(optimizer):
    """All that a step may change, as one list of tensors."""
    tensors = [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]
    for state in optimizer.state.values():
        tensors += [state[name].clone() for name in sorted(state)]
    return tensors


def assert_same(one, two):
    assert len(one) == len(two) and all(map(torch.equal, one, two))


def saved(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


# ---- round trips ----------------------------------------------------------------------------------------------------


@every_optimizer
@pytest.mark.parametrize("foreach", [None, False])
def test_resumed_training_is_uninterrupted_training_to_the_bit(make, foreach):
    points, others = mixed(), mixed()
    whole = make(points, foreach=foreach)
    run(whole, points, range(70))  # beyond the step at which membership is restored
    first = make(others, foreach=foreach)
    run(first, others, range(60))
    fresh = copy.deepcopy(others)
    second = make(fresh, foreach=foreach, lr=123.0)
    second.load_state_dict(saved(first.state_dict()))
    run(second, fresh, range(60, 70))
    assert_same(everything(whole), everything(second))


@every_optimizer
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies_of_the_optimizer_go_on_alike(make, copier):
    points = mixed()
    optimizer = make(points)
    run(optimizer, points, range(5))
    twin = copier(optimizer)
    others = twin.param_groups[0]["params"]
    assert all(p is not q for p, q in zip(points, others, strict=True))
    run(optimizer, points, range(5, 9))
    run(twin, others, range(5, 9))
    assert_same(everything(optimizer), everything(twin))


def test_a_model_and_its_optimizer_deepcopy_together():
    points = spheres(3)
    optimizer = RiemannianAdam(points)
    run(optimizer, points, range(2))
    others, twin = copy.deepcopy((points, optimizer))
    run(twin, others, range(3))
    assert all(p is q for p, q in zip(others, twin.param_groups[0]["params"], strict=True))


def test_pickles_hold_each_tensor_once():
    """A pickled view carries its whole stack: a thousand views would carry a thousand stacks."""
    points = spheres(200, n=64, dtype=torch.float32)
    optimizer = RiemannianAdam(points)
    run(optimizer, points, [1])
    assert len(pickle.dumps(optimizer)) < 1_000_000  # points and momentum are 100 kB


def test_loading_shares_no_tensor_with_what_was_loaded():
    points = mixed()
    optimizer = RiemannianAdam(points)
    run(optimizer, points, range(3))
    others = copy.deepcopy(points)
    twin = RiemannianAdam(others)
    twin.load_state_dict(optimizer.state_dict())
    before = everything(optimizer)
    run(twin, others, range(3))
    assert_same(before, everything(optimizer))


# ---- one stack ------------------------------------------------------------------------------------------------------


def stacks(optimizer, points, name):
    return {optimizer.state[p][name].untyped_storage().data_ptr() for p in points}


def test_same_shaped_points_share_one_stack_which_is_adopted_again():
    points = spheres(4)
    optimizer = RiemannianAdam(points)
    run(optimizer, points, [1, 2])
    assert len(stacks(optimizer, points, "exp_avg")) == 1
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(optimizer, points, [3])
    assert len(stacks(optimizer, points, "exp_avg")) == 1
    late = spheres(2, seed=50)
    optimizer.add_param_group({"params": late, "lr": 0.5})
    run(optimizer, points + late, [3])
    assert len(stacks(optimizer, late, "exp_avg")) == 1
    assert {int(optimizer.state[p]["step"]) for p in late} == {1}


def test_state_that_somebody_replaced_is_used():
    points = spheres(3)
    optimizer = RiemannianSGD(points, lr=0.1, momentum=0.9)
    run(optimizer, points, [1, 2])
    reference = copy.deepcopy((points, optimizer))
    for p in points:
        optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)  # replaced
    for p in reference[0]:
        reference[1].state[p]["momentum_buffer"].zero_()  # written in place
    run(optimizer, points, [3])
    run(reference[1], reference[0], [3])
    assert_same(everything(optimizer), everything(reference[1]))


def test_cleared_state_starts_afresh():
    points = spheres(3)
    optimizer = RiemannianAdam(points)
    run(optimizer, points, [1, 2])
    fresh = copy.deepcopy(points)
    optimizer.state.clear()
    run(optimizer, points, [3])
    other = RiemannianAdam(fresh)
    run(other, fresh, [3])
    assert_same(everything(optimizer), everything(other))


def test_points_remain_independent_tensors():
    points = spheres(3)
    optimizer = RiemannianAdam(points, lr=0.1)
    run(optimizer, points, [1])
    assert len({p.untyped_storage().data_ptr() for p in points}) == 3
    replacement = Sphere().random(6, generator=generator(77), dtype=torch.float64)
    points[1].data = replacement.clone()
    points[0].grad = points[2].grad = None
    points[1].grad = torch.ones(6, dtype=torch.float64)
    optimizer.step()
    assert 0 < (points[1].detach() - replacement).norm() < 0.2


def test_a_group_whose_parameters_are_exchanged():
    points = spheres(3)
    optimizer = RiemannianAdam(points)
    run(optimizer, points, [1])
    points[1] = optimizer.param_groups[0]["params"][1] = spheres(1, seed=9)[0]
    run(optimizer, points, [2])
    assert int(optimizer.state[points[1]]["step"]) == 1
    optimizer.param_groups[0]["params"][1] = torch.nn.Parameter(points[1].detach().clone())
    with pytest.raises(ValueError, match="lost its label"):
        optimizer.step()


# ---- states of other optimizers -------------------------------------------------------------------------------------


def test_torch_adam_state_loads():
    points = spheres(2) + [torch.nn.Parameter(torch.ones(3))]
    theirs = torch.optim.Adam(points, lr=1e-3, fused=True)
    run(theirs, points, [1, 2, 3])
    with torch.no_grad():
        for p in points[:2]:
            p.copy_(Sphere().projx(p))
    exp_avg, exp_avg_sq = (theirs.state[points[0]][name].clone() for name in ("exp_avg", "exp_avg_sq"))
    optimizer = RiemannianAdam(points, betas=(0.5, 0.5))
    optimizer.load_state_dict(theirs.state_dict())
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)
    x, g = points[0].detach().clone(), torch.ones(6, dtype=torch.float64)
    for p in points:
        p.grad = torch.ones_like(p)
    optimizer.step()
    state, sphere = optimizer.state[points[0]], Sphere()
    assert state["step"] == 4 and state["exp_avg_sq"].shape == (1,)
    rgrad = sphere.egrad2rgrad(x, g)
    torch.testing.assert_close(
        state["exp_avg_sq"], 0.999 * exp_avg_sq.sum(0, keepdim=True) + 1e-3 * rgrad @ rgrad[:, None]
    )
    expected = 0.9 * sphere.proju(x, exp_avg) + 0.1 * rgrad
    torch.testing.assert_close(state["exp_avg"], sphere.proju(points[0].detach(), expected))


def test_torch_adam_state_loads_on_a_product():
    """Its second moments, one an entry, become one a factor."""
    product = Product((Sphere(), Euclidean()), ((3,), (2,)))
    x = product.random(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flat, point = torch.nn.Parameter(x.clone()), ManifoldParameter(x.clone(), product)
    theirs, ours = torch.optim.Adam([flat]), RiemannianAdam([point])
    flat.grad = torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    theirs.step()
    entries = theirs.state[flat]["exp_avg_sq"].clone()
    ours.load_state_dict(theirs.state_dict())
    point.grad = torch.zeros_like(point)
    ours.step()
    want = torch.cat(
        [entries[:, :3].sum(1, keepdim=True).expand(4, 3), entries[:, 3:].sum(1, keepdim=True).expand(4, 2)], 1
    )
    torch.testing.assert_close(ours.state[point]["exp_avg_sq"], 0.999 * want, rtol=1e-12, atol=0.0)
    assert product.check_vector_on_tangent(point, ours.state[point]["exp_avg"], ok_point=True)


def test_geoopt_adam_state_loads():
    points = [geoopt.ManifoldParameter(p.detach().clone(), manifold=geoopt.Sphere()) for p in spheres(2)]
    points.append(geoopt.ManifoldParameter(torch.ones(3), manifold=geoopt.Euclidean()))
    theirs = geoopt.optim.RiemannianAdam(points)
    others = copy.deepcopy(points)
    for seed in (1, 2, 3):
        give_gradients(points, seed)
        theirs.step()
    with torch.no_grad():
        for p, q in zip(points, others, strict=True):
            q.copy_(p)
    optimizer = RiemannianAdam(others)
    optimizer.load_state_dict(copy.deepcopy(theirs.state_dict()))
    give_gradients(points, 4)
    give_gradients(others, 4)
    theirs.step()
    optimizer.step()
    for p, q in zip(points, others, strict=True):
        torch.testing.assert_close(p.detach(), q.detach())


def test_torch_sgd_state_loads():
    points = spheres(2)
    theirs = torch.optim.SGD(points, momentum=0.9)
    run(theirs, points, [1, 2])
    optimizer = RiemannianSGD(points, momentum=0.9, dampening=0.5)
    optimizer.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        for p in points:
            p.copy_(Sphere().projx(p))
    run(optimizer, points, [3])
    for p in points:
        assert abs(torch.dot(optimizer.state[p]["momentum_buffer"], p.detach())) < 1e-14


def test_state_saved_on_another_manifold_is_refused():
    optimizer = RiemannianAdam(spheres(2))
    other = RiemannianAdam([torch.nn.Parameter(torch.ones(6)) for _ in range(2)])
    with pytest.raises(ValueError, match="was saved on Sphere.*is on None"):
        other.load_state_dict(optimizer.state_dict())


# ---- a step happens whole or not ------------------------------------------------------------------------------------


class Failing(geoopt.Sphere):
    """A sphere that works until it is told not to."""

    mode = "works"

    def retr(self, x, u):
        if self.mode == "raises":
            raise RuntimeError("deliberate")
        y = super().retr(x, u)
        return y[..., :1] if self.mode == "wrong shape" else y


@every_optimizer
@pytest.mark.parametrize("trained", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("failure", ["raises", "wrong shape", "dtype", "sparse", "flat sparse", "nan", "flat nan"])
def test_a_failing_step_changes_nothing(make, failure, trained):
    manifold = Failing()
    last = geoopt.ManifoldParameter(spheres(1)[0].detach(), manifold=manifold)
    flat = torch.nn.Parameter(torch.ones(4))
    points = [*spheres(3), flat, *spheres(1, n=4), last]
    optimizer = make(points, check_finite=True)
    if trained:
        run(optimizer, points, range(3))
    give_gradients(points, 11)
    flat.grad = torch.ones(4)
    before = everything(optimizer)
    if failure in ("raises", "wrong shape"):
        manifold.mode = failure
    elif failure == "dtype":
        points[2].data = points[2].data.half()
        points[2].grad = torch.ones(6, dtype=torch.half)
        before = everything(optimizer)
    elif failure == "sparse":
        points[1].grad = torch.ones(6, dtype=torch.float64).to_sparse()
    elif failure == "flat sparse":
        flat.grad = torch.ones(4).to_sparse()
    elif failure == "nan":
        points[2].grad[2] = torch.nan
    else:
        flat.grad[2] = torch.inf
    with pytest.raises((ValueError, RuntimeError)):
        optimizer.step()
    assert_same(before, everything(optimizer))
    assert trained or not optimizer.state


@every_optimizer
def test_check_finite_names_the_parameter(make):
    points = spheres(3)
    optimizer = make([(f"layer.{i}", p) for i, p in enumerate(points)], check_finite=True)
    run(optimizer, points, [1])
    points[1].grad = torch.full((6,), torch.nan, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"layer\.1 would become infinite or NaN"):
        optimizer.step()


def test_nan_passes_without_check_finite():
    points = spheres(2)
    points[0].grad = torch.full((6,), torch.nan, dtype=torch.float64)
    RiemannianAdam(points).step()
    assert points[0].isnan().all()


def test_hooks_run():
    points, calls = spheres(2), []
    optimizer = RiemannianAdam(points)
    optimizer.register_step_pre_hook(lambda *args: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *args: calls.append("post"))
    train(optimizer, lambda: sum(p[0] for p in points), 1)
    optimizer.zero_grad(set_to_none=False)
    assert calls == ["pre", "post"] and all((p.grad == 0).all() for p in points)


@pytest.mark.parametrize(
    "manifold", [Orthogonal(), Scaled(Sphere(), 10.0), Sphere(), Power(Scaled(Sphere(), 0.2), 2)], ids=repr
)
@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.SGD])
def test_torch_states_arrive_in_the_scale_of_the_metric(manifold, make):
    """After many equal tangent gradients torch's state, loaded, is nearly ours: the next step is as long."""
    size = {Orthogonal: (4, 4), Power: (2, 4)}.get(type(manifold), (4,))
    x = manifold.random(*size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradient = manifold.proju(x, noise)
    theirs, ours = torch.nn.Parameter(x.clone()), ManifoldParameter(x.clone(), manifold)
    options = {"momentum": 0.9} if make is torch.optim.SGD else {}
    source = make([theirs], lr=0.0, **options)
    loaded = (RiemannianSGD if options else RiemannianAdam)([ours], lr=0.0, **options)
    native = (RiemannianSGD if options else RiemannianAdam)([ManifoldParameter(x.clone(), manifold)], lr=0.0, **options)
    for optimizer in (source, native):
        (p,) = optimizer.param_groups[0]["params"]
        for _ in range(60):
            p.grad = gradient.clone()
            optimizer.step()
    loaded.load_state_dict(source.state_dict())
    copy.deepcopy(loaded)  # no graph in the state
    (one,), (two,) = loaded.state.values(), native.state.values()
    for name in one.keys() - {"step"}:
        torch.testing.assert_close(one[name].expand_as(two[name]), two[name], rtol=1e-6, atol=1e-12)


def test_flags_of_this_program_survive_a_load():
    source, target = RiemannianSGD(spheres(2)), RiemannianSGD(spheres(2), check_finite=True, foreach=False)
    target.load_state_dict(source.state_dict())
    assert target.param_groups[0]["check_finite"] is True and target.param_groups[0]["foreach"] is False


@pytest.mark.parametrize("make", [RiemannianSGD, RiemannianAdam])
def test_check_finite_looks_at_what_flat_parameters_would_become(make):
    q = torch.nn.Parameter(torch.full((2,), 1.7e308, dtype=torch.float64))
    (p,) = spheres(1)
    optimizer = make([q, p], lr=1e308, check_finite=True)
    q.grad, p.grad = torch.full_like(q, -1.0), torch.zeros_like(p)
    with pytest.raises(ValueError, match="parameter 0 of group 0 would become infinite"):
        optimizer.step()
    assert (q == 1.7e308).all() and not optimizer.state
