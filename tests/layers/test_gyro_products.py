"""Classifiers, linear layers and convolutions against the formulas of their papers, geoopt's hyperplanes and torch."""

import geoopt
import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torch.nn import functional as F

from torchriemann.layers import (
    GyroClassifier,
    GyroConv1d,
    GyroConv2d,
    GyroLinear,
    GyroScaling,
    GyroTranslation,
)
from torchriemann.manifolds import (
    Euclidean,
    Lorentz,
    PoincareBall,
    Product,
    SPDAffineInvariant,
    SPDLogCholesky,
    SPDLogEuclidean,
    Sphere,
    convert,
)

DOUBLE = {"dtype": torch.float64}
AFFINE, LOG, CHOLESKY, BALL = SPDAffineInvariant(), SPDLogEuclidean(), SPDLogCholesky(), PoincareBall(-0.7)
FORMS = pytest.mark.parametrize("form", ["manifold", "tangent"])


def moved(layer, seed=0):
    """The layer with base points, directions and biases that are not where it starts."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=draw, **DOUBLE))
    for name, space in (("base_point", layer.manifold), ("bias", getattr(layer, "_target", None))):
        if getattr(layer, name, None) is not None:
            shape = layer.point(name).shape
            z = torch.randn(*shape[: -space.ndim], *space.normal_shape(shape[-space.ndim :]), generator=draw, **DOUBLE)
            layer.set_point(name, space.from_normal(0.5 * z))
    return layer


def matrix(manifold, z):
    """The tangent vector at the identity with normal coordinates z."""
    return manifold.tangent_from_normal(z).detach().numpy()


def cholesky_log(x):
    """Cholesky's factor with the logarithm of its diagonal."""
    factor = np.linalg.cholesky(x)
    return np.tril(factor, -1) + np.diag(np.log(np.diag(factor)))


# What Nguyen and Yang state of matrices, in scipy: the matrix of which the inner product with A is taken.
TRUTH = {
    AFFINE: lambda p, x: scipy.linalg.logm(scipy.linalg.inv(r := scipy.linalg.sqrtm(p)) @ x @ scipy.linalg.inv(r)),
    LOG: lambda p, x: scipy.linalg.logm(x) - scipy.linalg.logm(p),
    CHOLESKY: lambda p, x: cholesky_log(x) - cholesky_log(p),
}


def paired(manifold, a, log):
    """<log, A> in the metric at the identity: log-Cholesky coordinates halve the diagonal of a tangent vector."""
    if manifold == CHOLESKY:
        a = np.tril(a, -1) + 0.5 * np.diag(np.diag(a))
    return np.sum(a * log)


@FORMS
@pytest.mark.parametrize("manifold", TRUTH)
def test_logits_of_matrices_are_those_of_the_paper(manifold, form):
    head = moved(GyroClassifier(manifold, (3, 3), 4, 2, parametrization=form, **DOUBLE))
    x = manifold.random(5, 2, 3, 3, **DOUBLE)
    p, got = head.point("base_point").detach().numpy(), head(x).detach()
    for i in range(5):
        for k in range(4):
            logs = [TRUTH[manifold](p[k, c], x[i, c].numpy()) for c in range(2)]
            want = sum(paired(manifold, matrix(manifold, head.weight[k, c]), logs[c]) for c in range(2))
            assert abs(float(got[i, k]) - want) < 1e-10


def test_the_logarithms_of_spd_learn_under_a_linear_head():
    peers = pytest.importorskip("spd_learn.modules")
    head = GyroClassifier(LOG, (3, 3), 4, **DOUBLE)
    x, a = LOG.random(5, 3, 3, **DOUBLE), LOG.tangent_from_normal(head.weight)
    logs = peers.LogEig(upper=False)(x)  # 3 x 3 entries side by side
    assert torch.allclose(head(x), logs @ a.flatten(1).mT, rtol=1e-9, atol=1e-11)


def test_logits_of_one_channel_need_no_dimension_for_it():
    one, none = (moved(GyroClassifier(AFFINE, (3, 3), 4, n, **DOUBLE)) for n in (1, None))
    x = AFFINE.random(5, 3, 3, **DOUBLE)
    assert torch.allclose(one(x.unsqueeze(-3)), none(x), rtol=1e-12)


def test_margins_in_the_ball_are_the_distances_of_geoopt():
    head = moved(GyroClassifier(BALL, (3,), 4, margin="distance", **DOUBLE))
    x, p = BALL.from_normal(torch.randn(5, 3, **DOUBLE)), head.point("base_point")
    theirs = geoopt.PoincareBall(c=torch.tensor(0.7, **DOUBLE))
    # Their normal is a tangent vector at p; ours has its length in the metric.
    a = BALL.tangent_from_frame(p, head.weight)
    want = theirs.dist2plane(x.unsqueeze(-2), p, a, signed=True) * head.weight.norm(dim=-1)
    assert torch.allclose(head(x), want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("manifold", [Lorentz(-0.7), BALL, Sphere(0.5)])
def test_a_margin_is_the_distance_to_the_nearest_point_of_the_hyperplane(manifold):
    shape = (3,) if manifold == BALL else (4,)
    head = moved(GyroClassifier(manifold, shape, 1, margin="distance", **DOUBLE))
    p, n = head.point("base_point")[0].detach(), head.weight[0].detach()
    length, n = n.norm(), n / n.norm()
    x = manifold.from_normal(0.4 * torch.randn(6, 3, **DOUBLE))
    # The foot of the perpendicular: points of the hyperplane are p (+) from_normal(v) with v at right angles to n.
    plane = torch.linalg.svd(n.unsqueeze(0))[2][1:]
    v = torch.zeros(6, 2, **DOUBLE, requires_grad=True)
    search = torch.optim.LBFGS([v], lr=1, max_iter=200, tolerance_grad=1e-13, line_search_fn="strong_wolfe")

    def nearest():
        search.zero_grad()
        total = manifold.dist(x, manifold.expmap_frame(p, v @ plane)).square().sum()
        total.backward()
        return total

    search.step(nearest)
    distance = manifold.dist(x, manifold.expmap_frame(p, v @ plane)).detach()
    assert torch.allclose(head(x).squeeze(-1).abs() / length, distance, rtol=1e-6)


def test_pseudo_margins_are_not_longer_than_true_ones_in_hyperbolic_space():
    true, pseudo = (moved(GyroClassifier(BALL, (3,), 50, margin=m, **DOUBLE)) for m in ("distance", "gyro"))
    x = BALL.from_normal(torch.randn(20, 3, **DOUBLE))
    assert (pseudo(x).sign() == true(x).sign()).all()
    assert (pseudo(x).abs() <= true(x).abs() * (1 + 1e-12)).all()


@pytest.mark.parametrize("manifold", [LOG, CHOLESKY, Euclidean()])
def test_in_flat_spaces_both_margins_are_the_distance(manifold):
    shape = (3,) if manifold == Euclidean() else (3, 3)
    heads = [moved(GyroClassifier(manifold, shape, 4, margin=m, **DOUBLE)) for m in ("gyro", "distance")]
    x, p, a = manifold.random(5, *shape, **DOUBLE), heads[0].point("base_point"), heads[0].weight
    offset = (manifold.to_normal(p) * a).sum(-1) / a.norm(dim=-1)
    want = a.norm(dim=-1) * manifold.hyperplane_dist(x.unsqueeze(1), a, offset)
    for head in heads:
        assert torch.allclose(head(x), want, rtol=1e-10, atol=1e-12)


def test_margins_on_a_product_add_up_and_a_direction_of_zero_gives_zero():
    mixed = Product((BALL, Euclidean()), ((3,), (2,)))
    head = moved(GyroClassifier(mixed, (5,), 4, margin="distance", **DOUBLE))
    with torch.no_grad():
        head.weight[0] = 0.0
    head.set_point("base_point")
    x = mixed.random(6, 5, **DOUBLE)
    got, a = head(x), head.weight
    assert (got[:, 0] == 0).all()
    parts = BALL.hyperplane_dist(x[:, None, :3], a[1:, :3]) * a[1:, :3].norm(dim=-1) + x[:, 3:] @ a[1:, 3:].mT
    assert torch.allclose(got[:, 1:], parts, rtol=1e-11, atol=1e-12)
    (g,) = torch.autograd.grad(got.sum(), head.weight)
    assert g.isfinite().all()


@pytest.mark.parametrize("manifold", [AFFINE, LOG, BALL])
def test_a_classifier_starts_as_a_linear_layer_on_normal_coordinates(manifold):
    shape = (3,) if manifold == BALL else (3, 3)
    head = GyroClassifier(manifold, shape, 4, 2, **DOUBLE)
    x = manifold.random(5, 2, *shape, **DOUBLE)
    want = F.linear(manifold.to_normal(x).flatten(1), head.weight.flatten(1))
    assert torch.allclose(head(x), want, rtol=1e-11, atol=1e-12)
    bound = head.weight[0].numel() ** -0.5
    assert 0.8 * bound < head.weight.abs().max() <= bound


# ---- linear layers --------------------------------------------------------------------------------------------


@FORMS
@pytest.mark.parametrize("manifold", [AFFINE, LOG, CHOLESKY])
def test_a_linear_layer_has_the_coordinates_that_its_formula_says(manifold, form):
    layer = moved(GyroLinear(manifold, (3, 3), (2, 2), 2, 3, parametrization=form, **DOUBLE))
    x = manifold.random(4, 2, 3, 3, **DOUBLE)
    y, p, a, b = layer(x), layer.point("base_point"), layer.weight, layer.point("bias")
    assert y.shape == (4, 3, 2, 2) and p.shape == (3, 3, 2, 3, 3)
    v = torch.zeros(4, 3, 3, **DOUBLE)
    for o in range(3):
        for j in range(3):
            for c in range(2):
                z = manifold.to_normal(manifold.gyroadd(manifold.gyroinv(p[o, j, c]), x[:, c]))
                v[:, o, j] += (z * a[o, j, c]).sum(-1).detach()
    assert torch.allclose(y, manifold.gyroadd(b, manifold.from_normal(v)), rtol=1e-9, atol=1e-10)


def test_between_spaces_and_without_bias():
    layer = moved(GyroLinear(AFFINE, (3, 3), (4,), out_manifold=Lorentz(), bias=False, **DOUBLE))
    head = GyroClassifier(AFFINE, (3, 3), 3, **DOUBLE)
    with torch.no_grad():
        head.weight.copy_(layer.weight)
    head.set_point("base_point", layer.point("base_point").detach())
    x = AFFINE.random(5, 3, 3, **DOUBLE)
    assert torch.allclose(layer(x), Lorentz().from_normal(head(x)), rtol=1e-12)


@FORMS
@pytest.mark.parametrize("manifold", [AFFINE, LOG, BALL])
def test_base_points_that_are_shared_are_equal_ones(manifold, form):
    shape = (3,) if manifold == BALL else (2, 2)
    sizes = shape, shape, 2, 3, 2
    shared = moved(GyroConv1d(manifold, *sizes, padding=1, shared_base=True, parametrization=form, **DOUBLE))
    own = GyroConv1d(manifold, *sizes, padding=1, **DOUBLE)
    with torch.no_grad():
        own.weight.copy_(shared.weight)
    own.set_point("bias", shared.point("bias").detach())
    own.set_point("base_point", shared.point("base_point").detach())
    assert shared.point("base_point").shape == (2, 2, *shape)
    x = manifold.random(4, 2, 5, *shape, **DOUBLE)
    assert torch.allclose(shared(x), own(x), rtol=1e-10, atol=1e-12)


def test_models_of_one_space_give_one_result():
    ball, space = PoincareBall(-0.7), Lorentz(-0.7)
    ours, theirs = GyroLinear(ball, (3,), (2,), 2, 2, **DOUBLE), GyroLinear(space, (4,), (3,), 2, 2, **DOUBLE)
    theirs.load_state_dict(moved(ours).state_dict())
    x = ball.from_normal(torch.randn(5, 2, 3, **DOUBLE))
    assert torch.allclose(convert(ours(x), ball, space), theirs(convert(x, ball, space)), rtol=1e-9)


def test_coordinates_keep_their_mean_square_at_the_start():
    torch.manual_seed(0)
    layer = GyroLinear(LOG, (8, 8), (8, 8), 4, 4, bias=False, **DOUBLE)
    z = torch.randn(64, 4, 36, **DOUBLE)
    made = LOG.to_normal(layer(LOG.from_normal(0.3 * z))).detach() / 0.3
    assert abs(float(made.square().mean()) - 1) < 0.05


# ---- on flat space they are torch's ---------------------------------------------------------------------------


def test_on_flat_space_they_are_those_of_torch():
    flat = Euclidean()
    linear = moved(GyroLinear(flat, (3,), (2,), **DOUBLE))
    x = torch.randn(5, 3, **DOUBLE)
    offset = (linear.weight * linear.base_point).sum(-1)
    assert torch.allclose(linear(x), F.linear(x, linear.weight, linear.bias - offset), rtol=1e-12)
    conv = moved(GyroConv1d(flat, (1,), (1,), 2, 3, 3, stride=2, padding=2, dilation=2, **DOUBLE))
    x = torch.randn(5, 2, 9, 1, **DOUBLE)
    weight, base = conv.weight[:, 0, :, :, 0], conv.base_point[:, 0, :, :, 0]
    bias = conv.point("bias")[:, 0] - (weight * base).sum((1, 2))
    want = F.conv1d(x.squeeze(-1), weight, bias, stride=2, padding=2, dilation=2)
    assert torch.allclose(conv(x).squeeze(-1), want, rtol=1e-12)


def test_a_convolution_of_images_is_that_of_torch_on_flat_space():
    conv = moved(GyroConv2d(Euclidean(), (2,), (3,), 2, 3, (3, 2), (2, 1), (1, 0), (1, 2), **DOUBLE))
    x = torch.randn(5, 2, 6, 5, 2, **DOUBLE)
    weight = conv.weight.flatten(0, 1).movedim(-1, 2).flatten(1, 2)  # the coordinates are channels
    bias = conv.point("bias").flatten() - (conv.weight * conv.base_point).flatten(2).sum(-1).flatten()
    image = x.movedim(-1, 2).flatten(1, 2)
    want = F.conv2d(image, weight, bias, stride=(2, 1), padding=(1, 0), dilation=(1, 2))
    assert torch.allclose(conv(x), want.unflatten(1, (3, 3)).movedim(2, -1), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("manifold", [AFFINE, CHOLESKY])
def test_a_convolution_is_a_linear_layer_of_the_receptive_field(manifold):
    conv = moved(GyroConv1d(manifold, (2, 2), (2, 2), 2, 2, 2, stride=2, padding=1, **DOUBLE))
    linear = GyroLinear(manifold, (2, 2), (2, 2), 4, 2, **DOUBLE)
    with torch.no_grad():
        for name, p in linear.named_parameters():
            p.copy_(getattr(conv, name).reshape(p.shape))
    x = manifold.random(3, 2, 4, 2, 2, **DOUBLE)
    o = torch.eye(2, **DOUBLE).expand(3, 2, 1, 2, 2)
    padded = torch.cat([o, x, o], 2)
    for place in range(3):
        field = padded[:, :, 2 * place : 2 * place + 2].flatten(1, 2)
        assert torch.allclose(conv(x)[:, :, place], linear(field), rtol=1e-11, atol=1e-12)


# ---- at coincident points, and what is refused ----------------------------------------------------------------


@FORMS
@pytest.mark.parametrize("manifold", [AFFINE, CHOLESKY, BALL, Lorentz(), Sphere()])
def test_gradients_are_finite_at_the_origin_and_at_a_base_point(manifold, form):
    shape = (3, 3) if manifold.ndim == 2 else (3,)
    for margin in ["gyro"] if manifold == AFFINE else ["gyro", "distance"]:
        head = GyroClassifier(manifold, shape, 2, margin=margin, parametrization=form, **DOUBLE)
        for p in (manifold.origin(*shape, **DOUBLE), manifold.random(*shape, **DOUBLE)):
            head.set_point("base_point", p)
            x = p.clone().requires_grad_()
            assert head(x).abs().max() < 1e-13
            for g in torch.autograd.grad(head(x).sum(), [x, *head.parameters()]):
                assert g.isfinite().all()


@pytest.mark.parametrize("manifold", [AFFINE, CHOLESKY, LOG])
def test_an_item_that_is_no_point_is_lost_alone(manifold):
    torch.manual_seed(0)
    layers = [
        GyroClassifier(manifold, (2, 2), 3, 2, **DOUBLE),
        GyroLinear(manifold, (2, 2), (2, 2), 2, 2, **DOUBLE),
        GyroConv1d(manifold, (2, 2), (2, 2), 2, 2, 1, **DOUBLE),
    ]
    for layer in layers:
        shape = (2, 4) if isinstance(layer, GyroConv1d) else (2,)
        x = manifold.random(3, *shape, 2, 2, **DOUBLE)
        want = layer(x)
        x[1] = torch.nan
        x.requires_grad_()
        got = layer(x)
        assert got[1].isnan().any() and torch.allclose(got[[0, 2]], want[[0, 2]], rtol=1e-12)
        (g,) = torch.autograd.grad(got[[0, 2]].sum(), x)
        assert g[[0, 2]].isfinite().all()


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("manifold", [AFFINE, LOG, Lorentz()])
def test_a_network_of_them_learns(manifold, autocast):
    torch.manual_seed(0)
    shape = (3, 3) if manifold.ndim == 2 else (7,)
    labels, z = torch.arange(48) % 3, 0.4 * torch.randn(48, 2, 5, 6)
    z[torch.arange(48), :, :, labels] += 0.8
    x, small = manifold.from_normal(z), (2, 2) if manifold.ndim == 2 else (4,)
    network = nn.Sequential(
        GyroConv1d(manifold, shape, small, 2, 3, 3, stride=2),
        nn.Flatten(1, 2),
        GyroLinear(manifold, small, small, 6, 4, shared_base=True),
        GyroTranslation(manifold, small, 4),
        GyroScaling(manifold, small, 4),
        GyroClassifier(manifold, small, 3, 4),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-2)
    for _ in range(30):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = F.cross_entropy(network(x), labels)
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        optimizer.step()
    assert loss < 0.3


def test_what_classifiers_refuse():
    with pytest.raises(ValueError, match=r'GyroClassifier: margin="distance" has no closed form here; take "gyro"'):
        GyroClassifier(AFFINE, (3, 3), 4, margin="distance")
    with pytest.raises(ValueError, match=r"GyroClassifier: margin must be one of \('gyro', 'distance'\), got 'true'"):
        GyroClassifier(LOG, (3, 3), 4, margin="true")
    with pytest.raises(ValueError, match="GyroClassifier: num_classes must be a positive integer, got 0"):
        GyroClassifier(LOG, (3, 3), 0)
    with pytest.raises(ValueError, match=r"GyroClassifier: x must have the shape \(\*B, 2, 3, 3\), got \(5, 3, 3, 3\)"):
        GyroClassifier(LOG, (3, 3), 4, 2)(torch.eye(3).expand(5, 3, 3, 3))


def test_what_linear_layers_and_convolutions_refuse():
    with pytest.raises(ValueError, match="GyroLinear: out_shape is that of no point"):
        GyroLinear(LOG, (3, 3), (2, 3))
    with pytest.raises(ValueError, match=r"GyroLinear: out_shape must be the 1 size\(s\) of one point"):
        GyroLinear(LOG, (3, 3), (2, 2), out_manifold=BALL)
    with pytest.raises(ValueError, match="GyroLinear: out_channels must be a positive integer"):
        GyroLinear(LOG, (3, 3), (2, 2), out_channels=0)
    for size, what in ((0, "least 1"), ((2, 2), "1 of them"), (2.0, "least 1")):
        with pytest.raises(ValueError, match=f"GyroConv1d: kernel_size must be an integer of at .*{what}"):
            GyroConv1d(LOG, (3, 3), (2, 2), 1, 1, size)
    with pytest.raises(ValueError, match="GyroConv2d: padding must be an integer of at least 0, or 2 of them, got -1"):
        GyroConv2d(LOG, (3, 3), (2, 2), 1, 1, 2, padding=-1)
    conv = GyroConv1d(LOG, (3, 3), (2, 2), 1, 1, 3, dilation=2)
    with pytest.raises(ValueError, match="GyroConv1d: the kernel reaches over 5 entries, x has 4 with its padding"):
        conv(torch.eye(3).expand(7, 1, 4, 3, 3))
    with pytest.raises(ValueError, match=r"GyroConv1d: x must have the shape \(\*B, 1, _, 3, 3\)"):
        conv(torch.eye(3).expand(7, 2, 4, 3, 3))
