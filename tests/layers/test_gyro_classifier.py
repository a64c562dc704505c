"""Logits against the formulas of their papers, geoopt's hyperplanes and distances that are searched for."""

import geoopt
import numpy as np
import pytest
import scipy.linalg
import torch
from torch.nn import functional as F

from tests.support.gyro_layers import DOUBLE, moved
from torchriemann.layers import GyroClassifier
from torchriemann.manifolds import (
    Euclidean,
    Lorentz,
    PoincareBall,
    Product,
    SPDAffineInvariant,
    SPDLogCholesky,
    SPDLogEuclidean,
    Sphere,
)

AFFINE, LOG, CHOLESKY, BALL = SPDAffineInvariant(), SPDLogEuclidean(), SPDLogCholesky(), PoincareBall(-0.7)
FORMS = pytest.mark.parametrize("form", ["manifold", "tangent"])


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


def test_what_classifiers_refuse():
    with pytest.raises(ValueError, match=r'GyroClassifier: margin="distance" has no closed form here; take "gyro"'):
        GyroClassifier(AFFINE, (3, 3), 4, margin="distance")
    with pytest.raises(ValueError, match=r"GyroClassifier: margin must be one of \('gyro', 'distance'\), got 'true'"):
        GyroClassifier(LOG, (3, 3), 4, margin="true")
    with pytest.raises(ValueError, match="GyroClassifier: num_classes must be a positive integer, got 0"):
        GyroClassifier(LOG, (3, 3), 0)
    with pytest.raises(ValueError, match=r"GyroClassifier: x must have the shape \(\*B, 2, 3, 3\), got \(5, 3, 3, 3\)"):
        GyroClassifier(LOG, (3, 3), 4, 2)(torch.eye(3).expand(5, 3, 3, 3))
