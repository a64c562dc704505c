"""Batch normalisation by a learned Bures-Wasserstein metric, beside the equations of arXiv:2504.00660 in numpy."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm, solve_sylvester

from tests.layers.test_normalization import F64, points
from torchriemann.layers import BuresWassersteinBatchNorm, GyroBatchNorm
from torchriemann.manifolds import SPDBuresWasserstein
from torchriemann.optim import param_groups

PLAIN = SPDBuresWasserstein()


def close(got, want, bound=1e-10):
    torch.testing.assert_close(torch.as_tensor(got), torch.as_tensor(want), rtol=bound, atol=bound)


def layer(n=3, power=0.7, scale=-1.5, **options):
    """With a base, a bias and a scale that no default is."""
    made = BuresWassersteinBatchNorm((n, n), power=power, **{"dtype": F64, "karcher_steps": None, **options})
    g = torch.Generator().manual_seed(7)
    with torch.no_grad():
        made.scale.fill_(scale)
        made.bias.normal_(std=0.1, generator=g)
        made.base.normal_(std=0.3, generator=g)
    return made


# ---- the equations ------------------------------------------------------------------------------------------------


def power_of(a, p):
    values, vectors = np.linalg.eigh(a)
    return (vectors * values**p) @ vectors.T


def root(a):
    return power_of(a, 0.5)


def images(x, M, p):
    """M^-1/2 x^p M^-1/2, with the symmetric root."""
    left = power_of(M, -0.5)
    return left @ power_of(x, p) @ left


def optimal_map(a, b):
    """T with T a T = b."""
    r, inverse = root(a), power_of(a, -0.5)
    return inverse @ root(r @ b @ r) @ inverse


def barycentre(ys):
    """By the fixed point iteration of Alvarez-Esteban et al."""
    mean = sum(ys) / len(ys)
    for _ in range(200):
        mean = (t := sum(optimal_map(mean, y) for y in ys) / len(ys)) @ mean @ t
    return mean


def transported(a, b, k):
    """The vector k a + a k at a, as such a k at b, by the equation of parallel fields along the geodesic from a to b:
    with x = (I + tS) a (I + tS) and A = S (I + tS)^-1, ``k' = q x^-1 - k A`` with the skew q that makes it symmetric.
    """
    n, eye = len(a), np.eye(len(a))
    S = optimal_map(a, b) - eye

    def slope(t, flat):
        k, moved = flat.reshape(n, n), eye + t * S
        A, inverse = S @ np.linalg.inv(moved), np.linalg.inv(moved @ a @ moved)
        q = solve_sylvester(inverse, inverse, k @ A - A @ k)
        return (q @ inverse - k @ A).ravel()

    return solve_ivp(slope, (0, 1), k.ravel(), rtol=1e-13, atol=1e-14).y[:, -1].reshape(n, n)


def in_two_legs(a, b, k):
    """The same over the identity, in closed form: between matrices that commute, as the paper has it."""
    values, vectors = np.linalg.eigh(a)
    u = vectors.T @ (k @ a + a @ k) @ vectors * np.sqrt(2 / (values[:, None] + values))
    u = vectors @ u @ vectors.T
    values, vectors = np.linalg.eigh(b)
    u = vectors.T @ u @ vectors * np.sqrt((values[:, None] + values) / 2)
    return solve_sylvester(b, b, vectors @ u @ vectors.T)


def normalised(norm, x, transport):
    """What the layer is to give, and the mean and the dispersion."""
    M, p = norm.point("base").detach().numpy(), math.exp(norm.log_power.item())
    ys, b = [images(a, M, p) for a in x.numpy()], images(norm.point("bias").detach().numpy(), M, p)
    mean, eye = barycentre(ys), np.eye(len(M))
    shifts = [optimal_map(mean, y) - eye for y in ys]
    variance = sum(np.trace(k @ mean @ k) for k in shifts) / len(ys) / p**2
    factor = math.exp(norm.scale.item()) / math.sqrt(variance + norm.eps)
    ends = [(eye + factor * k) @ b @ (eye + factor * k) for k in (transport(mean, b, k) for k in shifts)]
    back = [power_of(root(M) @ end @ root(M), 1 / p) for end in ends]
    return torch.tensor(np.stack(back)), power_of(root(M) @ mean @ root(M), 1 / p), variance


@pytest.mark.parametrize("power", [0.5, 1.3])
def test_it_is_what_the_equations_say(power):
    norm, x = layer(power=power, momentum=1.0), points(PLAIN, 7, 3, 3, std=0.1)
    want, mean, variance = normalised(norm, x, transported)
    close(norm(x), want, 1e-9)
    close(norm.running_mean, mean)
    close(norm.running_var, variance)


def test_the_two_legs_of_the_paper_give_that_up_to_a_rotation_about_the_bias():
    norm, x = layer(), points(PLAIN, 7, 3, 3, std=0.1)
    metric, bias = norm.metric(), norm.point("bias").detach()
    outputs = norm(x).detach(), normalised(norm, x, in_two_legs)[0]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-4
    first, second = (metric.to_coordinates(bias, metric.logmap(bias, y)).detach() for y in outputs)
    close(first @ first.mT, second @ second.mT)


def test_base_and_bias_are_these_matrices():
    """M is exp(Z), B is (I + Z)^2, Z the symmetric matrix with the coordinates."""
    norm = layer(2)
    for name, function in (("base", expm), ("bias", lambda Z: (np.eye(2) + Z) @ (np.eye(2) + Z))):
        first, across, last = getattr(norm, name).tolist()
        Z = np.array([[first, across / math.sqrt(2)], [across / math.sqrt(2), last]])
        close(norm.point(name), function(Z), 1e-13)
    new = PLAIN.random(2, 2, dtype=F64)
    norm.set_point("base", new)
    close(norm.metric().base, new, 1e-12)


# ---- what it is a case of -----------------------------------------------------------------------------------------


def test_at_its_start_it_is_the_plain_metric():
    x = points(PLAIN, 7, 2, 3, 3, std=0.1)
    norm = BuresWassersteinBatchNorm((3, 3), 2, dtype=F64)
    plain = GyroBatchNorm(PLAIN, (3, 3), 2, form="tangent", dtype=F64)
    with torch.no_grad():
        norm.scale.fill_(-1.5)
        plain.scale.fill_(-1.5)
        plain.bias.copy_(norm.bias.normal_(std=0.1))
    close(norm(x), plain(x))
    close(norm.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("tensor", [True, False])
def test_a_metric_that_is_fixed_is_an_option_of_the_manifold(tensor):
    learned, x = layer(momentum=1.0), points(PLAIN, 7, 3, 3, std=0.1)
    power = learned.log_power.detach().exp().squeeze()
    metric = SPDBuresWasserstein(learned.point("base").detach(), power if tensor else float(power))
    fixed = GyroBatchNorm(metric, (3, 3), form="tangent", karcher_steps=None, momentum=1.0, dtype=F64)
    with torch.no_grad():
        fixed.scale.copy_(learned.scale)
    fixed.set_point("bias", learned.point("bias"))
    close(fixed(x), learned(x))
    close(fixed.running_mean, learned.running_mean)
    close(fixed.eval()(x), learned.eval()(x))


# ---- the laws of normalisation ------------------------------------------------------------------------------------


def test_mean_and_dispersion_of_the_metric_of_today():
    norm, x = layer(num_channels=2, momentum=1.0), points(PLAIN, 9, 2, 3, 3, std=0.1)
    y, metric, bias = norm(x).detach(), norm.metric(), norm.point("bias").detach()
    with torch.no_grad():
        assert metric.dist(metric.frechet_mean(y), bias).max() < 1e-10
        v2 = metric.frechet_variance(x)
        close(metric.frechet_variance(y, mean=bias), (2 * norm.scale).exp() * v2 / (v2 + norm.eps))
        close(norm.running_var, v2)
        close(norm.running_mean, metric.frechet_mean(x))
        close(norm.eval()(x), y)


def test_the_running_mean_moves_along_geodesics_of_the_metric_of_today():
    norm, x = layer(momentum=0.3), points(PLAIN, 9, 3, 3, std=0.1)
    norm(x)
    with torch.no_grad():
        metric = norm.metric()
        want = metric.geodesic(torch.eye(3, dtype=F64), metric.frechet_mean(x), 0.3)
        close(norm.running_mean, want)
        assert PLAIN.dist(want, PLAIN.geodesic(torch.eye(3, dtype=F64), metric.frechet_mean(x), 0.3)) > 1e-5


@pytest.mark.parametrize("steps", [1, None])
def test_a_domain_has_its_own_statistics_and_one_metric(steps):
    mixed = layer(num_domains=3, momentum=None, karcher_steps=steps)
    single, x = copy.deepcopy(mixed), points(PLAIN, 6, 3, 3, std=0.1)
    domain = torch.tensor([0, 2, 0, 2, 2, 0])
    for train in (True, False):
        y = mixed.train(train)(x, domain)
        for d in (0, 2):
            close(y[domain == d], single.train(train)(x[domain == d], d))
    mixed.refit(x, 1)
    with torch.no_grad():
        close(mixed.running_mean[1], mixed.metric().frechet_mean(x))


@pytest.mark.parametrize("options", [{}, {"num_channels": 2}])
def test_derivatives_in_points_and_parameters(options):
    norm = layer(2, stats_grad="implicit", **options)
    x = points(PLAIN, 4, *(2,) * bool(options), 2, 2, std=0.1)
    u = torch.zeros_like(x).requires_grad_()
    names, parameters = zip(*norm.named_parameters(), strict=True)
    assert set(names) == {"base", "log_power", "scale", "bias"}

    def output(u, *given):
        moved = x + 0.5 * (u + u.mT)
        return torch.func.functional_call(norm, dict(zip(names, given, strict=True)), (moved,))

    assert torch.autograd.gradcheck(output, (u, *parameters), fast_mode=True)


def test_any_optimizer_trains_the_metric():
    """Towards the outputs of another metric, which no bias and no scale gives."""
    torch.manual_seed(0)
    teacher, x = layer(2, power=0.5), points(PLAIN, 8, 2, 2, std=0.1)
    want = teacher(x).detach()
    losses = []
    for learned in (True, False):
        norm = BuresWassersteinBatchNorm((2, 2), dtype=F64)
        norm.base.requires_grad_(learned)
        norm.log_power.requires_grad_(learned)
        with torch.no_grad():
            norm.scale.fill_(-1.5)
        groups = param_groups(norm)
        assert [g["manifold"] for g in groups] == [None] * len(groups)
        optimizer = torch.optim.Adam([p for p in norm.parameters() if p.requires_grad], lr=0.05)
        for _ in range(30):
            optimizer.zero_grad()
            loss = (norm(x) - want).square().sum()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] < 0.3 * losses[1]


def test_a_bad_item_and_equal_ones_leave_finite_gradients():
    norm, x = layer(num_channels=2), points(PLAIN, 6, 2, 3, 3, std=0.1)
    x[2, 0, 0, 0] = math.nan
    y = norm(x.requires_grad_())
    assert y.isnan().flatten(2).all(-1).sum() == 1
    y[~y.isnan()].square().sum().backward()
    same = points(PLAIN, 3, 3, std=0.1).expand(4, 2, 3, 3)
    output = norm(same)
    close(output, norm.point("bias").expand_as(output), 1e-6)
    output.square().sum().backward()
    assert all(t.grad.isfinite().all() for t in (x, *norm.parameters()))


@pytest.mark.slow
def test_training_is_one_graph():
    norm = layer(2, karcher_steps=1)
    other, x = copy.deepcopy(norm), points(PLAIN, 4, 2, 2, std=0.1)
    torch._dynamo.reset()
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    close(compiled(x), norm(x))
    for module in (compiled, norm):
        module(x).square().sum().backward()
    for p, q in zip(other.parameters(), norm.parameters(), strict=True):
        close(p.grad, q.grad)
    close(other.running_mean, norm.running_mean)


@pytest.mark.parametrize("power", [0, -1.0, math.inf, "1", torch.tensor(1.0)])
def test_wrong_powers_are_refused(power):
    with pytest.raises(ValueError, match="BuresWassersteinBatchNorm: power must be a positive number"):
        BuresWassersteinBatchNorm((3, 3), power=power)
    with pytest.raises(ValueError, match="BuresWassersteinBatchNorm: .*point_shape"):
        BuresWassersteinBatchNorm((3, 4))
