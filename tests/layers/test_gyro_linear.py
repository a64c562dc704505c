"""Linear layers and convolutions against their formulas and torch's; networks of all gyro layers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.support.gyro_layers import DOUBLE, moved
from torchriemann.layers import (
    GyroClassifier,
    GyroConv1d,
    GyroConv2d,
    GyroLinear,
    GyroScaling,
    GyroTranslation,
)
from torchriemann.manifolds import (
    CorrelationOffLog,
    CorrelationPolyHyperbolic,
    Euclidean,
    Grassmann,
    Lorentz,
    PoincareBall,
    Power,
    Product,
    SPDAffineInvariant,
    SPDLogCholesky,
    SPDLogEuclidean,
    convert,
)

AFFINE, LOG, CHOLESKY, BALL = SPDAffineInvariant(), SPDLogEuclidean(), SPDLogCholesky(), PoincareBall(-0.7)
FORMS = pytest.mark.parametrize("form", ["manifold", "tangent"])


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


def test_of_subspaces_no_layer_sees_the_basis():
    subspaces = Grassmann()
    turn = torch.linalg.qr(torch.randn(4, 3, 2, 2, **DOUBLE))[0]
    x = subspaces.from_normal(0.4 * torch.randn(4, 3, 3, 2, **DOUBLE))
    head = moved(GyroClassifier(subspaces, (5, 2), 3, 3, **DOUBLE))
    linear = moved(GyroLinear(subspaces, (5, 2), (4, 1), 3, 2, **DOUBLE))
    translation, scaling = GyroTranslation(subspaces, (5, 2), 3, **DOUBLE), GyroScaling(subspaces, (5, 2), 3, **DOUBLE)
    with torch.no_grad():
        translation.bias.copy_(0.3 * torch.randn(3, 3, 2, **DOUBLE))
        scaling.weight.copy_(torch.tensor([0.5, -0.7, 1.0]))
    assert torch.allclose(head(x), head(x @ turn), rtol=1e-10, atol=1e-12)
    for layer in (linear, translation, scaling):
        assert torch.allclose(subspaces.projector(layer(x)), subspaces.projector(layer(x @ turn)), atol=1e-11)


@pytest.mark.parametrize(
    ("manifold", "shape"),
    [
        (CorrelationOffLog(), (3, 3)),
        (CorrelationPolyHyperbolic(), (3, 3)),
        (Product((BALL, LOG), ((2,), (2, 2))), (6,)),
        (Power(BALL, 2), (2, 3)),
        (SPDAffineInvariant(0.5, 2.0, -0.1), (3, 3)),
    ],
)
def test_on_other_spaces_the_products_are_those_of_the_contract(manifold, shape):
    head = moved(GyroClassifier(manifold, shape, 4, 2, **DOUBLE))
    z = 0.4 * torch.randn(5, 2, *manifold.normal_shape(shape), **DOUBLE)
    x, p = manifold.from_normal(z), head.point("base_point")
    logs = manifold.to_normal(manifold.gyroadd(manifold.gyroinv(p), x.unsqueeze(1)))
    assert torch.allclose(head(x), (logs * head.weight).flatten(2).sum(-1), rtol=1e-8, atol=1e-9)
    linear = moved(GyroLinear(manifold, shape, (3,), 2, out_manifold=BALL, **DOUBLE))
    assert BALL.check_point_on_manifold(linear(x).detach())


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
