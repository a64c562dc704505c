"""Scores of triples against the formula, in numpy where sums are those of logarithms."""

import numpy as np
import pytest
import scipy.linalg
import torch

from torchriemann.layers import gyro_score
from torchriemann.manifolds import Grassmann, Lorentz, SPDAffineInvariant, SPDLogEuclidean, Stiefel
from torchriemann.testing import check_layer

DOUBLE = {"dtype": torch.float64}
LOG, AFFINE, SUBSPACES = SPDLogEuclidean(), SPDAffineInvariant(), Grassmann()


def test_of_matrices_under_the_log_euclidean_metric():
    h, r, t = LOG.random(3, 3, 3, **DOUBLE)
    entries = torch.randn(3, 3, **DOUBLE)
    entries = entries + entries.mT
    upper = entries[tuple(torch.triu_indices(3, 3))]  # normal coordinates are the upper triangle but for factors
    got = gyro_score(LOG, h, r, t, upper, torch.tensor(0.3, **DOUBLE), torch.tensor(-0.1, **DOUBLE))
    logs = [scipy.linalg.logm(m.numpy()) for m in (h, r, t)]
    want = -(np.linalg.norm(entries.numpy() * logs[0] + logs[1] - logs[2]) ** 2) + 0.2
    assert abs(float(got) - want) < 1e-11


@pytest.mark.parametrize(("manifold", "shape"), [(AFFINE, (3, 3)), (SUBSPACES, (5, 2)), (Lorentz(), (4,))])
def test_orders_of_the_sum(manifold, shape):
    h, r, t = manifold.from_normal(0.3 * torch.randn(3, 6, *manifold.normal_shape(shape), **DOUBLE))
    right = -manifold.dist(manifold.gyroadd(h, r), t).square()
    left = -manifold.dist(manifold.gyroadd(r, h), t).square()
    assert torch.allclose(gyro_score(manifold, h, r, t), right, rtol=1e-9)
    assert torch.allclose(gyro_score(manifold, h, r, t, relation_first=True), left, rtol=1e-9)
    assert not torch.allclose(left, right, rtol=1e-3)
    # What the relation does from the left is an isometry.
    moved = manifold.gyroadd(r, torch.stack([h, t]))
    assert torch.allclose(manifold.dist(*moved), manifold.dist(h, t), rtol=1e-9)


def test_a_triple_against_many_candidates():
    h, r = AFFINE.random(2, 5, 1, 3, 3, **DOUBLE)
    candidates = AFFINE.random(7, 3, 3, **DOUBLE)
    w = torch.randn(5, 1, 6, **DOUBLE)
    got = gyro_score(AFFINE, h, r, candidates, w, torch.zeros(5, 1, **DOUBLE), torch.arange(7.0, **DOUBLE))
    assert got.shape == (5, 7)
    one = gyro_score(AFFINE, h[2, 0], r[2, 0], candidates[4], w[2, 0]) + 4
    assert torch.allclose(got[2, 4], one, rtol=1e-12)


@pytest.mark.parametrize(("manifold", "shape"), [(AFFINE, (3, 3)), (SUBSPACES, (5, 2))])
def test_it_obeys_the_laws_of_layers(manifold, shape):
    z = manifold.normal_shape(shape)

    def draw(t):
        points = (manifold.from_normal(0.3 * t.noise(*t.batch, *z)) for _ in range(3))
        return (manifold, *points, t.noise(*t.batch, *z), t.noise(*t.batch), t.noise(*t.batch))

    points = dict.fromkeys((1, 2, 3), manifold)
    tolerance = {"compiled_equals_eager": 64}  # an affine-invariant distance in float32 is right to 1e-6 of itself
    check_layer(lambda **_: gyro_score, draw, points=points, seeds=[0], tolerance=tolerance, exempt={
        "wrong_arguments_are_rejected": "it is a function: the error names gyro_score",
    })  # fmt: skip


def test_gradients_at_the_origin_and_where_points_coincide():
    for manifold, shape in ((AFFINE, (3, 3)), (SUBSPACES, (5, 2))):
        points = [manifold.origin(*shape, **DOUBLE).requires_grad_() for _ in range(3)]
        w = torch.ones(manifold.normal_shape(shape), **DOUBLE).requires_grad_()
        score = gyro_score(manifold, *points, w)
        for g in torch.autograd.grad(score, [*points, w]):
            assert g.isfinite().all() and g.abs().max() < 1e-6


def test_what_it_refuses():
    x = torch.eye(3)
    with pytest.raises(ValueError, match="gyro_score: manifold must have a gyro structure"):
        gyro_score(Stiefel(), x, x, x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gyro_score: arguments are points of different shapes"):
        gyro_score(AFFINE, x, x, torch.eye(2))
    with pytest.raises(ValueError, match=r"gyro_score: weight must be a floating-point tensor \*B,\(6,\)"):
        gyro_score(AFFINE, x, x, x, torch.ones(3, 3))
