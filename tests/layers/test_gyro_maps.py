"""Translations and multiples are those of the geometry; what they refuse."""

import pytest
import torch

from torchriemann.layers import GyroScaling, GyroTranslation
from torchriemann.manifolds import (
    Euclidean,
    PoincareBall,
    Product,
    SPDAffineInvariant,
    SPDBuresWasserstein,
    SPDLogEuclidean,
    Stiefel,
)
from torchriemann.manifolds.functional.series import safe_norm

DOUBLE = {"dtype": torch.float64}
AFFINE = SPDAffineInvariant()


def test_a_translation_of_matrices_is_a_congruence_with_the_root():
    layer = GyroTranslation(AFFINE, (3, 3), **DOUBLE)
    b, x = AFFINE.random(2, 3, 3, **DOUBLE)
    layer.set_point("bias", b)
    values, vectors = torch.linalg.eigh(b)
    root = vectors @ values.sqrt().diag() @ vectors.mT
    assert torch.allclose(layer(x), root @ x @ root, rtol=1e-12)


def test_channels_have_translations_of_their_own():
    ball = PoincareBall()
    layer, alone = GyroTranslation(ball, (3,), 2, "manifold", **DOUBLE), GyroTranslation(ball, (3,), **DOUBLE)
    b, x = ball.random(2, 3, **DOUBLE), ball.random(5, 2, 3, **DOUBLE)
    layer.set_point("bias", b)
    for c in range(2):
        alone.set_point("bias", b[c])
        assert torch.allclose(layer(x)[:, c], alone(x[:, c]), rtol=1e-12)


@pytest.mark.parametrize("manifold", [AFFINE, SPDLogEuclidean(), PoincareBall(), Euclidean()])
def test_both_start_as_the_identity(manifold):
    shape = (3, 3) if manifold.ndim == 2 else (3,)
    x = manifold.random(4, 2, *shape, **DOUBLE)
    for layer in (
        GyroTranslation(manifold, shape, 2, **DOUBLE),
        GyroScaling(manifold, shape, 2, **DOUBLE),
        GyroScaling(manifold, shape, entrywise=True, **DOUBLE),
    ):
        assert torch.allclose(layer(x), x, rtol=1e-12, atol=1e-12)


def test_a_multiple_of_a_matrix_is_its_power():
    layer = GyroScaling(AFFINE, (3, 3), 2, **DOUBLE)
    x = AFFINE.random(5, 2, 3, 3, **DOUBLE)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([2.0, -1.0]))
    y = layer(x)
    assert torch.allclose(y[:, 0], x[:, 0] @ x[:, 0], rtol=1e-12)
    assert torch.allclose(y[:, 1], torch.linalg.inv(x[:, 1]), rtol=1e-12)


def test_weights_entry_by_entry_are_those_of_normal_coordinates():
    m = SPDLogEuclidean()
    layer = GyroScaling(m, (3, 3), entrywise=True, **DOUBLE)
    with torch.no_grad():
        layer.weight.normal_()
    x = m.random(5, 3, 3, **DOUBLE)
    assert torch.allclose(m.to_normal(layer(x)), layer.weight * m.to_normal(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("form", ["manifold", "tangent"])
def test_the_gradient_is_finite_where_everything_is_at_the_origin(form):
    for manifold, shape in ((AFFINE, (3, 3)), (PoincareBall(), (3,))):
        x = manifold.origin(4, *shape, **DOUBLE).requires_grad_()
        layers = (
            GyroTranslation(manifold, shape, parametrization=form, **DOUBLE),
            GyroScaling(manifold, shape, **DOUBLE),
        )
        for layer in layers:
            z = manifold.to_normal(layer(x))
            length = safe_norm(z, dim=tuple(range(1, z.dim()))).sum() + z.sum()
            for g in torch.autograd.grad(length, [x, *layer.parameters()]):
                assert g.isfinite().all()


@pytest.mark.parametrize("layer", [GyroTranslation, GyroScaling])
def test_what_is_no_space_or_no_shape(layer):
    name = layer.__name__
    for manifold in (Stiefel(), SPDBuresWasserstein(), Product((Stiefel(),), ((3, 2),)), "ball"):
        with pytest.raises(ValueError, match=f"{name}: manifold must have a gyro structure"):
            layer(manifold, (3, 3))
    for shape in ((3,), 3, (3, 3, 3), (3.0, 3.0)):
        with pytest.raises(ValueError, match=rf"{name}: point_shape must be the 2 size\(s\) of one point"):
            layer(AFFINE, shape)
    with pytest.raises(ValueError, match=f"{name}: point_shape is that of no point: .*square"):
        layer(AFFINE, (3, 2))
    for count in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match=f"{name}: num_channels must be a positive integer"):
            layer(AFFINE, (3, 3), count)
    with pytest.raises(ValueError, match=rf"{name}: x must have the shape \(\*B, 2, 3, 3\), got \(4, 3, 3\)"):
        layer(AFFINE, (3, 3), 2)(torch.eye(3).expand(4, 3, 3))


def test_an_unknown_parametrization():
    with pytest.raises(ValueError, match=r"GyroTranslation: parametrization must be one of \('manifold', 'tangent'\)"):
        GyroTranslation(AFFINE, (3, 3), parametrization="normal")
