"""A stepwise optimizer of one's own: options, names of its state and an update; all else the base does."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from typing import TYPE_CHECKING

import geoopt
import pytest
import torch
from torch import nn

from torchriemann import ManifoldParameter, Sphere, Stiefel
from torchriemann.manifolds import Euclidean, PoincareBall, Product, Scaled
from torchriemann.optim import LandingSGD, RiemannianAdam, RiemannianSGD, StepFlags
from torchriemann.optim.stepwise.base import RiemannianOptimizer

if TYPE_CHECKING:
    from typing_extensions import Unpack


class RiemannianRMSprop(RiemannianOptimizer):
    """`torch.optim.RMSprop` with one second moment a point (Tieleman and Hinton 2012); AdamW steps flat parameters."""

    _flat = "adamw"

    def __init__(self, params, lr=1e-2, alpha=0.99, eps=1e-8, momentum=0.0, **flags: Unpack[StepFlags]) -> None:
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum}, flags)

    def _state_names(self, group):
        return {"square_avg": "scalar", "momentum_buffer": "vector"}

    def _point_update(self, group, manifold, points, grads, state, step):
        alpha, rgrad = group["alpha"], manifold.egrad2rgrad(points, grads)
        square = alpha * state["square_avg"] + (1 - alpha) * manifold.component_inner(points, rgrad)
        v = group["momentum"] * state["momentum_buffer"] + rgrad / (square.sqrt() + group["eps"])
        points, v = manifold.retr_transp(points, -group["lr"] * v, v)
        return points, {"square_avg": square, "momentum_buffer": v}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


PRODUCT = Product((Sphere(), PoincareBall(), Euclidean()), ((3,), (2,), (3,)))
OURS = ((Sphere(), (5,)), (Sphere(), (5,)), (Stiefel(), (2, 6, 2)), (PRODUCT, (8,)), (Euclidean(), (3,)))


def own_points():
    return [
        ManifoldParameter(m.random_normal(*size, std=0.3, generator=generator(i), dtype=torch.float64), m)
        for i, (m, size) in enumerate(OURS)
    ]


def foreign_points():
    ball, frames = geoopt.PoincareBall(c=0.7), geoopt.CanonicalStiefel()
    noise = [0.1 * torch.randn(4, 3, generator=generator(i), dtype=torch.float64) for i in range(3)]
    frame = torch.linalg.qr(noise[2])[0].contiguous()
    return [geoopt.ManifoldParameter(x, manifold=ball) for x in noise[:2]] + [
        geoopt.ManifoldParameter(frame, manifold=frames)
    ]


def everything():
    flat = [nn.Parameter(torch.randn(size, generator=generator(9), dtype=torch.float64)) for size in ((3, 2), (4,))]
    return [*own_points(), *foreign_points(), *flat]


def steps(optimizer, params, which, *, sign=1.0):
    for k in which:
        for i, p in enumerate(params):
            idle = (i + k) % 5 == 0
            p.grad = None if idle else sign * torch.randn(p.shape, generator=generator(100 * k + i), dtype=p.dtype)
        optimizer.step()


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_on_a_line_it_is_torchs(momentum):
    """A point of R^1 has one entry, so that its one second moment is torch's. `Scaled` keeps it from being flat."""
    start = torch.randn(6, 1, generator=generator(), dtype=torch.float64)
    ours, theirs = ManifoldParameter(start.clone(), Scaled(Euclidean(), 1.0)), nn.Parameter(start.clone())
    options = {"lr": 0.03, "alpha": 0.9, "momentum": momentum}
    for p, make in ((ours, RiemannianRMSprop), (theirs, torch.optim.RMSprop)):
        steps(make([p], **options), [p], (1, 2, 3, 4, 6, 7))
    torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=0, atol=1e-14)


def test_points_of_all_kinds_stay_where_they_belong():
    params = everything()
    before = [p.detach().clone() for p in params]
    optimizer = RiemannianRMSprop(params, lr=0.01, momentum=0.5)
    steps(optimizer, params, range(66))
    assert not any(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    for p in params[:8]:
        assert p.manifold.check_point_on_manifold(p.detach())
    scalars = [optimizer.state[p]["square_avg"].shape for p in params[:4]]
    assert scalars[:3] == [(1,), (1,), (2, 1, 1)] and scalars[3] == PRODUCT.component_inner(before[3], before[3]).shape


def test_flat_parameters_are_stepped_by_adamw_to_the_bit():
    ours, theirs = everything()[-2:], everything()[-2:]
    steps(RiemannianRMSprop(ours, lr=0.02, eps=1e-6), ours, range(8))
    steps(torch.optim.AdamW(theirs, lr=0.02, eps=1e-6, weight_decay=0), theirs, range(8))
    assert same(ours, theirs)


@pytest.mark.parametrize("flags", [{"foreach": False}, {"check_finite": True}, {"maximize": True}])
def test_flags_are_understood(flags):
    one, two = everything(), everything()
    steps(RiemannianRMSprop(one, lr=0.01), one, range(6))
    steps(RiemannianRMSprop(two, lr=0.01, **flags), two, range(6), sign=-1.0 if "maximize" in flags else 1.0)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-13) for a, b in zip(one, two, strict=True))


def test_capturable_is_the_plain_step():
    one, two = own_points(), own_points()
    steps(RiemannianRMSprop(one), one, range(6))
    steps(RiemannianRMSprop(two, capturable=True), two, range(6))
    assert all(torch.allclose(a, b, rtol=0, atol=1e-13) for a, b in zip(one, two, strict=True))
    with pytest.raises(ValueError, match="of another library, whose operations may look at values"):
        RiemannianRMSprop(foreign_points(), capturable=True)


def test_a_nan_changes_nothing_under_check_finite():
    params = everything()
    optimizer = RiemannianRMSprop(params, check_finite=True)
    steps(optimizer, params, (1,))
    before = [p.detach().clone() for p in params]
    params[2].grad[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="RiemannianRMSprop: parameter 2 of group 0 would become infinite or NaN"):
        optimizer.step()
    assert same(params, before)


@pytest.mark.parametrize("how", ["state_dict", "pickle", "deepcopy"])
def test_it_resumes_to_the_bit(how):
    whole, first = everything(), everything()
    steps(RiemannianRMSprop(whole, lr=0.02, momentum=0.5), whole, range(10))
    optimizer = RiemannianRMSprop(first, lr=0.02, momentum=0.5)
    steps(optimizer, first, range(5))
    if how == "state_dict":
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        resumed = RiemannianRMSprop(first, lr=7.0)
        resumed.load_state_dict(torch.load(file))
    else:
        resumed = copy.deepcopy(optimizer) if how == "deepcopy" else pickle.loads(pickle.dumps(optimizer))
        first = resumed.param_groups[0]["params"]
    steps(resumed, first, range(5, 10))
    assert same(whole, first)


def test_numbers_are_checked_by_name():
    with pytest.raises(ValueError, match=r"RiemannianRMSprop: momentum must be in \[0"):
        RiemannianRMSprop(everything(), momentum=-1.0)


class NamesNoUpdate(RiemannianRMSprop):
    _flat = "lion"


class KeepsAMatrix(RiemannianRMSprop):
    def _state_names(self, group):
        return {"square_avg": "matrix"}


class ForgetsAState(RiemannianRMSprop):
    def _point_update(self, *arguments):
        points, state = super()._point_update(*arguments)
        return points, {"square_avg": state["square_avg"]}


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (NamesNoUpdate, "NamesNoUpdate: _flat must be one of sgd, adamw, got 'lion'"),
        (KeepsAMatrix, "KeepsAMatrix: _state_names must say vector or scalar, got 'matrix'"),
        (ForgetsAState, r"ForgetsAState: parameter .* new state of \['momentum_buffer', 'square_avg'\], got \['square"),
    ],
)
def test_what_it_states_is_checked(optimizer, message):
    params = own_points()
    before = [p.detach().clone() for p in params]
    with pytest.raises(ValueError, match=message):
        steps(optimizer(params), params, (1,))
    assert same(params, before)


# ---- how flags are declared -------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [RiemannianRMSprop, RiemannianAdam, RiemannianSGD, LandingSGD])
def test_signatures_show_the_flags(optimizer):
    eager = {"maximize": False, "foreach": None, "check_finite": False}
    every = {**eager, "capturable": False, "differentiable": False, "fused": None}
    shown = inspect.signature(optimizer).parameters.values()
    assert {p.name: p.default for p in shown if p.kind is inspect.Parameter.KEYWORD_ONLY} == (
        eager if optimizer is LandingSGD else every
    )
    assert not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in shown)
    assert all(name in StepFlags.__doc__ for name in every)


@pytest.mark.parametrize(
    ("optimizer", "name"), [(RiemannianAdam, "momentum"), (RiemannianSGD, "nestrov"), (LandingSGD, "capturable")]
)
def test_what_is_no_option_is_refused(optimizer, name):
    with pytest.raises(TypeError, match=rf"{optimizer.__name__}.__init__\(\) got an unexpected keyword .*'{name}'"):
        optimizer(everything()[-2:], **{name: True})
