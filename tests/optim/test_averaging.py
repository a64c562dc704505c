"""Averages of weights: torch's in flat space, points on the manifold elsewhere, and a state that comes back."""

import copy
import io
import math

import geoopt
import mpmath
import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import swa_utils

from torchriemann import ManifoldParameter, Sphere
from torchriemann.layers import GrassmannClassifier
from torchriemann.layers.base import ManifoldModule
from torchriemann.manifolds import Grassmann, Stiefel
from torchriemann.manifolds.frames.orthogonal import Orthogonal
from torchriemann.manifolds.parameter import register_manifold
from torchriemann.optim import AveragedModel, RiemannianSGD, param_groups


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Mixed(nn.Module):
    """Points of three manifolds, flat layers, and buffers."""

    def __init__(self, dtype=torch.float32, seed=0):
        super().__init__()
        g = generator(seed)

        def point(manifold, *shape):
            return ManifoldParameter(manifold.random(*shape, generator=g, dtype=dtype), manifold)

        self.spheres = nn.ParameterList([point(Sphere(), 5) for _ in range(3)])
        self.frame = point(Stiefel(), 6, 2)
        self.subspaces = point(Grassmann(), 3, 5, 2)
        self.linear = nn.Linear(4, 3, dtype=dtype)
        self.norm = nn.BatchNorm1d(3, dtype=dtype)

    def forward(self, x):
        return self.norm(self.linear(x))

    def points(self):
        return [*self.spheres, self.frame, self.subspaces]


def wander(model, seed, scale=0.1):
    """Another model nearby: points moved along a random geodesic, everything else by noise."""
    g = generator(seed)
    with torch.no_grad():
        for p in model.parameters():
            noise = scale * torch.randn(p.shape, generator=g, dtype=p.dtype)
            manifold = getattr(p, "manifold", None)
            p.copy_(p + noise if manifold is None else manifold.expmap(p.detach(), manifold.proju(p.detach(), noise)))
        for b in model.buffers():
            if b.is_floating_point():
                b.add_(scale * torch.rand(b.shape, generator=g, dtype=b.dtype))
    return model


class Points(nn.Module):
    def __init__(self, **points):
        super().__init__()
        for name, (x, manifold) in points.items():
            make = geoopt.ManifoldParameter if isinstance(manifold, nn.Module) else ManifoldParameter
            self.register_parameter(name, make(x.clone(), manifold=manifold))

    def set(self, **values):
        with torch.no_grad():
            for name, value in values.items():
                getattr(self, name).copy_(value)
        return self


METHODS = {"swa": {}, "ema": {"averaging": "ema", "decay": 0.9}}
every_method = pytest.mark.parametrize("options", METHODS.values(), ids=METHODS.keys())


# ---- flat parameters and buffers are torch's ------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("use_buffers", [False, True])
def test_flat_parameters_and_buffers_equal_torchs_to_the_bit(options, use_buffers):
    model = Mixed()
    ours = AveragedModel(model, use_buffers=use_buffers, **options)
    function = swa_utils.get_ema_multi_avg_fn(0.9) if options else None
    theirs = swa_utils.AveragedModel(model, multi_avg_fn=function, use_buffers=use_buffers)
    for seed in range(6):
        wander(model, seed)
        ours.update_parameters(model)
        theirs.update_parameters(model)
    for name in ("linear", "norm"):
        a, b = getattr(ours.module, name).state_dict(), getattr(theirs.module, name).state_dict()
        assert all(torch.equal(a[k], b[k]) for k in b)
    assert torch.equal(ours.n_averaged, theirs.n_averaged) and ours.n_averaged == 6
    assert all(not torch.equal(a, b) for a, b in zip(ours.module.points(), theirs.module.points(), strict=True))


def test_the_first_update_copies():
    model = Mixed()
    average = AveragedModel(model, averaging="ema")
    wander(model, 1)
    average.update_parameters(model)
    assert all(map(torch.equal, average.module.state_dict().values(), model.state_dict().values()))


def test_buffers_registered_on_a_manifold_are_points():
    class Prototype(ManifoldModule):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", Sphere().random(4, generator=generator(), dtype=torch.float64))
            register_manifold(self, "mean", Sphere())

    x = Sphere().random(2, 4, generator=generator(1), dtype=torch.float64)
    model = nn.Sequential(Prototype(), nn.Linear(1, 1))
    average = AveragedModel(model, use_buffers=True)
    for y in x:
        model[0].mean.copy_(y)
        average.update_parameters(model)
    assert torch.allclose(average.module.get_buffer("0.mean"), (x[0] + x[1]) / (x[0] + x[1]).norm(), atol=1e-15)
    copied = AveragedModel(model)
    copied.update_parameters(model)
    copied.update_parameters(model)
    assert torch.equal(copied.module.get_buffer("0.mean"), model[0].mean)


# ---- points ---------------------------------------------------------------------------------------------------------


def test_sphere_turns_by_the_stated_angle():
    turn = lambda a: torch.tensor([math.cos(a), math.sin(a), 0.0], dtype=torch.float64)  # noqa: E731
    model = Points(x=(turn(0.0), Sphere()))
    swa, ema = AveragedModel(model), AveragedModel(model, averaging="ema", decay=0.75)
    angles, expected = [0.0, 1.2, -0.7, 0.4], 0.0
    for a in angles:
        model.set(x=turn(a))
        swa.update_parameters(model)
        ema.update_parameters(model)
        expected = a if a == 0.0 else 0.75 * expected + 0.25 * a
    assert torch.allclose(swa.module.x, turn(sum(angles) / 4), atol=1e-15)  # a circle is flat
    assert torch.allclose(ema.module.x, turn(expected), atol=1e-15)


def test_poincare_ball_agrees_with_high_precision():
    ball = geoopt.PoincareBall()
    a, b = [mpmath.mpf(-0.3), mpmath.mpf(0.5)], [mpmath.mpf(0.6), mpmath.mpf(0.2)]

    def add(x, y):  # Moebius addition
        xy, xx, yy = (sum(p * q for p, q in zip(u, v, strict=True)) for u, v in ((x, y), (x, x), (y, y)))
        return [((1 + 2 * xy + yy) * p + (1 - xx) * q) / (1 + 2 * xy + xx * yy) for p, q in zip(x, y, strict=True)]

    with mpmath.workdps(40):
        w = add([-p for p in a], b)
        length = mpmath.sqrt(sum(p * p for p in w))
        quarter = [mpmath.tanh(mpmath.atanh(length) / 4) / length * p for p in w]
        expected = torch.tensor([float(p) for p in add(a, quarter)], dtype=torch.float64)
    points = [torch.tensor([float(p) for p in x], dtype=torch.float64) for x in (a, b)]
    model = Points(x=(points[0], ball))
    average = AveragedModel(model, averaging="ema", decay=0.75)
    for x in points:
        average.update_parameters(model.set(x=x))
    assert torch.allclose(average.module.x, expected, atol=1e-14)


@pytest.mark.parametrize("manifold", [Sphere(), Stiefel(), Stiefel(beta=0.5), Grassmann()], ids=str)
def test_swa_of_near_points_is_their_frechet_mean(manifold):
    shape = (4,) if manifold.ndim == 1 else (5, 2)
    x = manifold.random(*shape, generator=generator(), dtype=torch.float64)
    errors = []
    for spread in (0.2, 0.02):
        u = spread * torch.randn(8, *shape, generator=generator(1), dtype=torch.float64)
        cloud = manifold.expmap(x.expand_as(u), manifold.proju(x, u))
        model = Points(x=(cloud[0], manifold))
        average = AveragedModel(model)
        for y in cloud:
            average.update_parameters(model.set(x=y))
        # The mean of logarithms vanishes at the Frechet mean. Along geodesics one by one it does up to third order.
        errors.append(manifold.norm(x, manifold.logmap(average.module.x.detach(), cloud).mean(0)).item())
        assert errors[-1] < 0.2 * manifold.norm(x, manifold.proju(x, u)).mean() ** 3
    assert errors[1] < 2e-3 * errors[0] + 1e-14


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize(
    ("manifold", "updates"),
    [
        (Sphere(), 1000),
        (Grassmann(), 1000),
        (Stiefel(), 40),
        pytest.param(Stiefel(), 1000, marks=pytest.mark.slow),
        (geoopt.Sphere(), 1000),
    ],
    ids=["sphere", "grassmann", "stiefel", "stiefel long", "geoopt sphere"],
)
def test_many_updates_stay_on_the_manifold(options, dtype, manifold, updates):
    shape = (5,) if manifold.ndim == 1 else (6, 2)
    x = manifold.random(*shape, dtype=dtype).as_subclass(torch.Tensor)
    model = Points(x=(x, manifold))
    average = AveragedModel(model, **options)
    for seed in range(updates):
        if seed % 5 == 0:
            wander(model, seed, 0.3)
        average.update_parameters(model)
    x = average.module.x.detach().double()
    gram = x.mT @ x if x.dim() == 2 else (x @ x).reshape(1, 1)
    assert (gram - torch.eye(gram.shape[-1], dtype=torch.double)).abs().max() < 8 * torch.finfo(dtype).eps


def test_a_stack_of_points_equals_each_alone():
    model = Mixed(torch.float64)
    average = AveragedModel(model)
    average.update_parameters(model)
    old = [p.detach().clone() for p in model.points()]
    average.update_parameters(wander(model, 5, 0.4))
    for p, q, x in zip(average.module.points(), model.points(), old, strict=True):
        manifold = q.manifold
        expected = manifold.expmap(x, 0.5 * manifold.logmap(x, q.detach()))
        assert torch.allclose(p.detach(), expected, atol=1e-13)


# ---- where there is no geodesic -------------------------------------------------------------------------------------


def test_without_a_logarithm_the_euclidean_average_is_projected():
    a, b = (torch.linalg.qr(torch.randn(5, 2, generator=generator(s), dtype=torch.float64))[0] for s in (1, 2))
    model = Points(x=(a, geoopt.CanonicalStiefel()))
    average = AveragedModel(model, averaging="ema", decay=0.7)
    average.update_parameters(model)
    average.update_parameters(model.set(x=b))
    u, _, v = np.linalg.svd((0.7 * a + 0.3 * b).numpy(), full_matrices=False)
    assert np.abs(average.module.x.detach().numpy() - u @ v).max() < 1e-14


@pytest.mark.parametrize("kind", [Stiefel, Orthogonal], ids=lambda k: k.__name__)
def test_between_two_components_the_euclidean_average_is_projected(kind):
    manifold = kind()
    a = torch.linalg.qr(torch.randn(3, 3, generator=generator(), dtype=torch.float64))[0]
    b = torch.linalg.qr(torch.randn(3, 3, generator=generator(3), dtype=torch.float64))[0]
    c = b * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    model = Points(x=(a, manifold), y=(a, manifold))  # one batch, of which one point has a geodesic
    average = AveragedModel(model, averaging="ema", decay=0.7)
    average.update_parameters(model)
    average.update_parameters(model.set(x=b, y=c))
    for p, q in ((average.module.x, b), (average.module.y, c)):
        if torch.linalg.det(a) * torch.linalg.det(q) < 0:
            u, _, v = np.linalg.svd((0.7 * a + 0.3 * q).numpy())
            expected = torch.as_tensor(u @ v)
        else:
            expected = manifold.expmap(a, 0.3 * manifold.logmap(a, q))
        assert torch.allclose(p.detach(), expected, atol=1e-13)


def test_at_antipodes_the_average_is_still_a_point():
    a = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    model = Points(x=(a, Sphere()))
    average = AveragedModel(model)
    average.update_parameters(model)
    average.update_parameters(model.set(x=-a))
    x = average.module.x.detach()
    assert x.norm() == pytest.approx(1.0, abs=1e-15) and abs(x[0]) < 1e-15  # half way along one of the geodesics


def test_a_nan_of_the_model_is_refused_and_nothing_changed():
    model = Mixed()
    average = AveragedModel(model)
    average.update_parameters(model)
    before = copy.deepcopy(average.state_dict())
    wander(model, 1)
    with torch.no_grad():
        model.spheres[1][0] = torch.nan
    with pytest.raises(ValueError, match="AveragedModel: spheres.1 of the model is infinite or NaN"):
        average.update_parameters(model)
    assert all(torch.equal(v, before[k]) for k, v in average.state_dict().items())


# ---- in a training loop ---------------------------------------------------------------------------------------------


def test_a_saved_average_continues_to_the_bit():
    model = Mixed()
    average = AveragedModel(model, averaging="ema", decay=0.9)
    for seed in range(4):
        average.update_parameters(wander(model, seed))
    buffer = io.BytesIO()
    torch.save(average.state_dict(), buffer)
    buffer.seek(0)
    again = AveragedModel(Mixed(seed=7), averaging="ema", decay=0.9)
    again.load_state_dict(torch.load(buffer, weights_only=True))
    assert again.n_averaged == 4
    for seed in range(4, 8):
        wander(model, seed)
        average.update_parameters(model)
        again.update_parameters(model)
    assert all(map(torch.equal, average.state_dict().values(), again.state_dict().values()))
    assert set(average.state_dict()) == set(swa_utils.AveragedModel(model).state_dict())


def test_copies_are_independent_and_keep_their_manifolds():
    model = Mixed()
    average = AveragedModel(model)
    average.update_parameters(model)
    other = copy.deepcopy(average)
    other.update_parameters(wander(model, 1))
    assert other.n_averaged == 2 and average.n_averaged == 1
    assert [p.manifold for p in other.module.points()] == [p.manifold for p in model.points()]
    assert not torch.equal(other.module.frame, average.module.frame)
    average.update_parameters(model)
    assert torch.equal(other.module.frame, average.module.frame)


def test_update_bn_and_swalr_train_a_classifier_of_subspaces():
    torch.manual_seed(0)
    x = torch.randn(60, 8)
    y = (x[:, :4].norm(dim=1) < x[:, 4:].norm(dim=1)).long()
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), GrassmannClassifier(8, 2, 4))
    optimizer = RiemannianSGD(param_groups(model), lr=0.05, momentum=0.9)
    schedule = swa_utils.SWALR(optimizer, swa_lr=0.02, anneal_epochs=2)
    average = AveragedModel(model)
    for epoch in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        schedule.step()
        if epoch >= 20:
            average.update_parameters(model)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.02)
    swa_utils.update_bn([x], average)
    linear, norm, head = average.module.children()
    assert torch.allclose(norm.running_mean, linear(x).mean(0), atol=1e-6)
    weight = head.weight
    assert weight.manifold == Grassmann() and weight.manifold.check_point_on_manifold(weight.detach())
    average.eval()
    assert nn.functional.cross_entropy(average(x), y) < 0.3


def test_a_label_that_torch_dropped_is_remembered_by_the_module():
    model = GrassmannClassifier(6, 3, 2)
    average = AveragedModel(model)
    average.update_parameters(model)
    bare = nn.Parameter(Grassmann().random(3, 6, 2, generator=generator()))
    model.load_state_dict({"weight": bare.detach()}, assign=True)
    average.module.load_state_dict(average.module.state_dict(), assign=True)
    average.update_parameters(model)
    assert Grassmann().check_point_on_manifold(average.module.weight.detach())


def test_arguments():
    model = Mixed()
    for options, message in (
        ({"averaging": "mean"}, "averaging must be 'swa' or 'ema', got 'mean'"),
        ({"decay": 0.9}, "decay=0.9 belongs to averaging='ema'"),
        ({"averaging": "ema", "decay": 1.5}, r"decay must be in \[0, 1\], got 1.5"),
    ):
        with pytest.raises(ValueError, match=f"AveragedModel: {message}"):
            AveragedModel(model, **options)
    with pytest.raises(TypeError):
        AveragedModel(model, None, swa_utils.get_ema_avg_fn())
    assert AveragedModel(model, averaging="ema").decay == 0.999
    with pytest.raises(ValueError, match="AveragedModel: frame on .*float32 or float64"):
        AveragedModel(Mixed().bfloat16())


@pytest.mark.parametrize("averaging", ["ema", "swa"])
def test_a_nan_in_the_first_model_raises_too(averaging):
    model = nn.Module()
    model.x = ManifoldParameter(Sphere().random(4), Sphere())
    average = AveragedModel(model, averaging=averaging)
    with torch.no_grad():
        model.x.fill_(torch.nan)
    with pytest.raises(ValueError, match="infinite or NaN; nothing was averaged"):
        average.update_parameters(model)
    assert average.module.x.isfinite().all() and average.n_averaged == 0
