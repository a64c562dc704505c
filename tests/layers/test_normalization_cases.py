"""Batch normalisation against the special cases that it has: other people's formulas and layers, and its symmetries."""

import pytest
import torch
from torch import nn

from tests.layers.test_normalization import F64, layer, points
from torchriemann.layers import GyroBatchNorm
from torchriemann.manifolds import (
    CorrelationLogScaled,
    CorrelationOffLog,
    CorrelationPolyHyperbolic,
    Euclidean,
    Grassmann,
    Klein,
    Lorentz,
    PoincareBall,
    ProjectedSphere,
    SPDAffineInvariant,
    SPDBuresWasserstein,
    SPDLogCholesky,
    SPDLogEuclidean,
    SpecialOrthogonal,
    Sphere,
    Stiefel,
    convert,
)

AFFINE, LOG_EUCLIDEAN, LOG_CHOLESKY = SPDAffineInvariant(), SPDLogEuclidean(), SPDLogCholesky()
ROTATIONS = SpecialOrthogonal()


def close(got, want, bound=1e-10):
    torch.testing.assert_close(got, want, rtol=bound, atol=bound)


# ---- flat space -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
def test_on_a_line_it_is_the_batch_norm_of_torch(momentum, affine):
    """Outputs, gradients and running statistics; torch keeps the variance over N - 1."""
    ours = GyroBatchNorm(Euclidean(), (1,), 3, momentum=momentum, affine=affine, dtype=F64)
    theirs = nn.BatchNorm1d(3, momentum=momentum, affine=affine, dtype=F64)
    if affine:
        with torch.no_grad():
            theirs.weight.copy_(ours.scale.normal_().exp())
            theirs.bias.copy_(ours.bias.normal_()[:, 0])
    for step in range(3):
        x = torch.randn(7, 3, dtype=F64, generator=torch.Generator().manual_seed(step)).requires_grad_()
        w = torch.randn(7, 3, dtype=F64, generator=torch.Generator().manual_seed(9))
        y, want = ours(x.unsqueeze(-1)).squeeze(-1), theirs(x)
        close(y, want, 1e-12)
        close(*(torch.autograd.grad((w * r).sum(), x)[0] for r in (y, want)), 1e-12)
    close(ours.running_mean.squeeze(-1), theirs.running_mean, 1e-12)
    start = 0.9**3 if momentum else 0.0
    close((ours.running_var - start) * 7 / 6 + start, theirs.running_var, 1e-12)
    assert ours.num_batches_tracked == theirs.num_batches_tracked == 3
    theirs.running_var.copy_(ours.running_var)
    close(ours.eval()(x.unsqueeze(-1)).squeeze(-1), theirs.eval()(x), 1e-12)


def test_in_a_vector_space_all_coordinates_have_one_variance():
    norm, x = layer(Euclidean(), (4,), num_channels=2), torch.randn(5, 6, 2, 4, dtype=F64)
    deviations = x - x.mean((0, 1))
    variance = deviations.square().sum(-1).mean((0, 1))
    factor = norm.scale.exp() / (variance + 1e-5).sqrt()
    close(norm(x), norm.bias + factor.unsqueeze(-1) * deviations, 1e-12)


# ---- positive definite matrices ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("metric", "manifold"), [("LEM", LOG_EUCLIDEAN), ("LCM", LOG_CHOLESKY), ("AIM", AFFINE)])
def test_layers_of_spd_learn_with_variance(metric, manifold):
    """`SPDBatchNormLie` of three metrics, the affine-invariant one in the symmetric form, in training."""
    peers = pytest.importorskip("spd_learn.modules")
    norm, x = layer(manifold, (3, 3), karcher_steps=None), points(manifold, 9, 3, 3, std=0.4)
    peer = peers.SPDBatchNormLie(3, metric=metric, congruence="eig", n_iter=60, dtype=F64)
    with torch.no_grad():
        peer.bias, peer.shift = norm.point("bias")[None], norm.scale.exp().squeeze()
    close(norm(x), peer(x), 1e-9)
    close(norm.running_var, peer.running_var.squeeze(), 1e-9)


@pytest.mark.parametrize("evaluate", [False, True])
def test_spdnetbn_and_its_successor_of_spd_learn(evaluate):
    """`SPDBatchNormMeanVar` as it is, and `SPDBatchNormMean`, which does not scale: with s the dispersion."""
    peers = pytest.importorskip("spd_learn.modules")
    norm, x = layer(AFFINE, (3, 3), karcher_steps=None, momentum=0.3), points(AFFINE, 9, 3, 3, std=0.4)
    scaled = peers.SPDBatchNormMeanVar(3, momentum=0.3, n_iter=60, eps=1e-5, dtype=F64)
    centred = peers.SPDBatchNormMean(3, momentum=0.3, n_iter=60, dtype=F64)
    with torch.no_grad():
        scaled.bias = centred.bias = norm.point("bias")[None]
        scaled.weight = norm.scale.exp().squeeze()
    got, want = norm(x), scaled(x)
    centred(x)
    if evaluate:
        close(norm.running_mean, scaled.running_mean[0], 1e-9)
        for module in (norm, scaled, centred):
            module.eval()
        got, want = norm(x), scaled(x)
    close(got, want, 1e-9)
    with torch.no_grad():
        variance = norm.running_var if evaluate else AFFINE.frechet_variance(x)
        norm.scale.copy_(0.5 * (variance + 1e-5).log())
    close(norm(x), centred(x), 1e-9)


# ---- two forms --------------------------------------------------------------------------------------------------


def test_gyro_form_is_the_transport_over_the_origin():
    """On the hyperboloid that is hyperbolic batch normalisation, here with the exact mean and dispersion."""
    space = Lorentz(-0.7)
    norm, x = layer(space, (4,), karcher_steps=None), points(space, 9, 4, std=0.5)
    mean, origin, bias = space.frechet_mean(x), space.origin(4, dtype=F64), norm.point("bias")
    factor = norm.scale.exp() / (space.frechet_variance(x) + 1e-5).sqrt()
    at_origin = space.parallel_transport(mean, origin, space.logmap(mean, x))
    at_bias = space.parallel_transport(origin, bias, factor * at_origin)
    close(norm(x), space.expmap(bias, at_bias), 1e-12)


@pytest.mark.parametrize(
    ("manifold", "shape", "std"),
    [(Lorentz(-0.7), (4,), 0.5), (AFFINE, (3, 3), 0.4), (Sphere(1.3), (4,), 0.15), (Grassmann(), (5, 2), 0.1)],
)
def test_gyro_and_tangent_form_differ_by_a_rotation_about_the_bias(manifold, shape, std):
    """The direct transport is that of Lou et al., arXiv:2003.00335: one rotation takes all its outputs to ours."""
    x = points(manifold, 9, *shape, std=std)
    norms = [layer(manifold, shape, form=form, karcher_steps=None) for form in ("gyro", "tangent")]
    bias = norms[0].point("bias").detach()
    first, second = (manifold.to_coordinates(bias, manifold.logmap(bias, n(x).detach())) for n in norms)
    close(first @ first.mT, second @ second.mT)
    left, _, right = torch.linalg.svd(second.mT @ first)
    close(second @ (left @ right), first)


def test_models_of_one_space_give_one_output():
    spaces = [(Lorentz(-0.7), 4), (PoincareBall(-0.7), 3), (Klein(-0.7), 3)]
    source, x = spaces[0][0], points(spaces[0][0], 9, 4, std=0.5)
    want = layer(source, (4,), karcher_steps=None)(x)
    for target, n in spaces[1:]:
        norm = layer(target, (n,), karcher_steps=None)
        close(convert(norm(convert(x, source, target)), target, source), want)


# ---- symmetries -------------------------------------------------------------------------------------------------


def orthogonal(n):
    return Stiefel().random_uniform(n, n, generator=torch.Generator().manual_seed(3), dtype=F64)


def congruence(n):
    q = orthogonal(n)
    return lambda x: q @ x @ q.mT


SIGNS = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=F64))
SYMMETRIES = [
    (Euclidean(), (4,), "gyro", 1.0, lambda x: x @ orthogonal(4)),
    (AFFINE, (3, 3), "gyro", 0.4, congruence(3)),
    (AFFINE, (3, 3), "tangent", 0.4, congruence(3)),
    (LOG_EUCLIDEAN, (3, 3), "gyro", 0.4, congruence(3)),
    (LOG_CHOLESKY, (3, 3), "gyro", 0.4, lambda x: SIGNS @ x @ SIGNS),
    (SPDBuresWasserstein(), (3, 3), "tangent", 0.1, congruence(3)),
    (PoincareBall(-0.7), (3,), "gyro", 0.5, lambda x: x @ orthogonal(3)),
    (Lorentz(-0.7), (4,), "gyro", 0.5, lambda x: x @ torch.block_diag(torch.ones(1, 1, dtype=F64), orthogonal(3))),
    (Sphere(), (4,), "gyro", 0.15, lambda x: x @ torch.block_diag(torch.ones(1, 1, dtype=F64), orthogonal(3))),
    (Klein(-0.7), (3,), "gyro", 0.5, lambda x: x @ orthogonal(3)),
    (ProjectedSphere(1.3), (3,), "gyro", 0.15, lambda x: x @ orthogonal(3)),
    (CorrelationOffLog(), (3, 3), "gyro", 0.3, lambda x: x[..., [2, 0, 1], :][..., [2, 0, 1]]),
    (CorrelationLogScaled(), (3, 3), "gyro", 0.3, lambda x: x[..., [2, 0, 1], :][..., [2, 0, 1]]),
    (CorrelationPolyHyperbolic(), (3, 3), "gyro", 0.3, lambda x: SIGNS @ x @ SIGNS),
    (ROTATIONS, (3, 3), "tangent", 0.2, congruence(3)),
    (Grassmann(), (5, 2), "gyro", 0.1, lambda x: torch.block_diag(orthogonal(2), orthogonal(3)) @ x),
    (Grassmann(), (5, 2), "tangent", 0.1, lambda x: torch.block_diag(orthogonal(2), orthogonal(3)) @ x),
]


@pytest.mark.parametrize(("manifold", "shape", "form", "std", "act"), SYMMETRIES)
def test_isometries_that_keep_the_origin_commute_with_the_layer(manifold, shape, form, std, act):
    """While the bias is the origin, and with a mean of any number of steps."""
    x = points(manifold, 9, *shape, std=std)
    for steps in (1, None):
        norm = GyroBatchNorm(manifold, shape, form=form, karcher_steps=steps, dtype=F64)
        with torch.no_grad():
            norm.scale.fill_(-1.2)
        assert manifold.dist(norm(act(x)), act(norm(x))).max() < 1e-10
    # The order of the items does not matter either.
    close(norm(x.flip(0)).flip(0), norm(x))


@pytest.mark.parametrize(
    ("manifold", "shape"),
    [(SPDAffineInvariant(0.5, 2.0, 0.3), (3, 3)), (AFFINE, (3, 3)), (LOG_CHOLESKY, (3, 3)), (Lorentz(-0.7), (4,))],
)
def test_recentring_is_made_of_frame_coordinates(manifold, shape):
    """Of one decomposition where that serves; with derivatives in all of its arguments."""
    mean, bias = points(manifold, *shape, std=0.3), manifold.to_normal(points(manifold, *shape, std=0.3, seed=1))
    x, w = points(manifold, 5, *shape, std=0.4), torch.randn(5, *shape, dtype=F64)
    t = torch.rand(5, dtype=F64)
    leaves = [a.requires_grad_() for a in (mean, bias, x, t)]
    squares, placed = manifold.recentred(mean, x)
    z = manifold.logmap_frame(mean, x)
    want = manifold.expmap_frame(manifold.from_normal(bias), t.unsqueeze(-1) * z)
    close(squares, manifold.dist2(mean, x))
    close(placed(bias, t), want)
    for value, other in ((squares.sum(), z.square().sum()), ((w * placed(bias, t)).sum(), (w * want).sum())):
        found = [torch.autograd.grad(v, leaves, retain_graph=True, allow_unused=True) for v in (value, other)]
        for got, expected in zip(*found, strict=True):
            close(got, expected, 1e-9)


@pytest.mark.parametrize(
    ("manifold", "shape"),
    [(SPDAffineInvariant(0.5, 2.0, 0.3), (3, 3)), (AFFINE, (3, 3)), (LOG_CHOLESKY, (3, 3)), (Lorentz(-0.7), (4,))],
)
def test_coordinates_of_a_step_are_those_of_the_tangent_space(manifold, shape):
    """A class may choose them, but they are linear: means of logarithms and their multiples are the same points."""
    base, x = points(manifold, *shape, std=0.3), points(manifold, 5, *shape, std=0.4)
    leaves = [a.requires_grad_() for a in (base, x)]
    log, exp = manifold.log_and_exp(base)
    close(exp(log(x)), x)
    found, want = exp(0.7 * log(x).mean(0)), manifold.expmap(base, 0.7 * manifold.logmap(base, x).mean(0))
    close(found, want)
    w = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    for got, expected in zip(*(torch.autograd.grad((w * y).sum(), leaves) for y in (found, want)), strict=True):
        close(manifold.proju(base, manifold.egrad2rgrad(base, got)), manifold.egrad2rgrad(base, expected), 1e-9)
