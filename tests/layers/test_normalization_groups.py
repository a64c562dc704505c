"""Batch normalisation on Lie groups, LieBN of arXiv:2403.11261, Algorithm 1, beside its equations: the group, the
distance and the exponential at the identity as it has them."""

import pytest
import torch

from tests.layers.test_normalization import F64, layer, points
from torchriemann.manifolds import (
    MatrixPower,
    Pullback,
    Scaled,
    SPDAffineInvariant,
    SPDLogCholesky,
    SPDLogEuclidean,
    SpecialOrthogonal,
)

AFFINE, ROTATIONS = SPDAffineInvariant(), SpecialOrthogonal()


def close(got, want, bound=1e-10):
    torch.testing.assert_close(got, want, rtol=bound, atol=bound)


def spectral(x, function):
    values, vectors = torch.linalg.eigh(x)
    return (vectors * function(values).unsqueeze(-2)) @ vectors.mT


def log_cholesky(x):
    factor = torch.linalg.cholesky(x)
    return factor.tril(-1) + factor.diagonal(dim1=-2, dim2=-1).log().diag_embed()


def from_log_cholesky(v):
    factor = v.tril(-1) + v.diagonal(dim1=-2, dim2=-1).exp().diag_embed()
    return factor @ factor.mT


def cholesky_congruence(m, x):
    factor = torch.linalg.cholesky(m)
    return factor @ x @ factor.mT


def whitened(m, x):
    inverse = torch.linalg.inv(torch.linalg.cholesky(m))
    return inverse @ x @ inverse.mT


def power(x, theta):
    return spectral(x, lambda values: values**theta)


def flat(product):
    """The batch normalisation of vectors v, with the squared length `product`."""

    def rule(v, bias, scale):
        deviations = v - v.mean(0)
        return bias + scale / (product(deviations).mean() + 1e-5).sqrt() * deviations

    return rule


def affine(theta, alpha, beta):
    """Of powers x^theta, with translations by Cholesky factors; the mean is the one of the metric, to tolerance."""

    def rule(x, bias, scale):
        moved = whitened(AFFINE.frechet_mean(x), x)
        logs = spectral(moved, torch.log)
        squares = alpha * logs.square().sum((-2, -1)) + beta * logs.diagonal(dim1=-2, dim2=-1).sum(-1).square()
        return cholesky_congruence(bias, power(moved, scale / (squares.mean() / theta**2 + 1e-5).sqrt()))

    return rule


def log_euclidean_product(v):
    return 2.0 * v.square().sum((-2, -1)) + 0.3 * v.diagonal(dim1=-2, dim2=-1).sum(-1).square()


THETA = 0.5
DEFORMED_LOG_CHOLESKY = Scaled(Pullback(SPDLogCholesky(), MatrixPower(THETA)), 1 / THETA)
LIE = {
    "LEM": (
        *(SPDLogEuclidean(2.0, 0.3), "gyro", flat(log_euclidean_product)),
        *(lambda x: spectral(x, torch.log), lambda v: spectral(v, torch.exp)),
    ),
    "LCM": (SPDLogCholesky(), "gyro", flat(lambda v: v.square().sum((-2, -1))), log_cholesky, from_log_cholesky),
    "LCM, deformed": (
        *(DEFORMED_LOG_CHOLESKY, "gyro", flat(lambda v: v.square().sum((-2, -1)) / THETA**2)),
        *(lambda x: log_cholesky(power(x, THETA)), lambda v: power(from_log_cholesky(v), 1 / THETA)),
    ),
    "AIM": (AFFINE, "basis", affine(1.0, 1.0, 0.0), lambda x: x, lambda x: x),
    "AIM, deformed": (
        *(SPDAffineInvariant(THETA, 2.0, 0.3), "basis", affine(THETA, 2.0, 0.3)),
        *(lambda x: power(x, THETA), lambda x: power(x, 1 / THETA)),
    ),
}


@pytest.mark.parametrize("metric", LIE)
def test_lie_groups_of_positive_definite_matrices(metric):
    manifold, form, rule, into, back = LIE[metric]
    norm, x = layer(manifold, (3, 3), form=form, karcher_steps=None), points(AFFINE, 9, 3, 3, std=0.4)
    close(norm(x), back(rule(into(x), into(norm.point("bias")), norm.scale.exp())))
    if form == "basis":  # what that group does to a batch the layer undoes: it is the same translation of the mean
        factor = torch.tensor([[2.0, 0.0, 0.0], [0.4, 0.5, 0.0], [-0.3, 0.2, 1.5]], dtype=F64)
        close(norm(back(factor @ into(x) @ factor.mT)), norm(x))


def test_lie_group_of_rotations():
    """``B (M^T x)^t``."""
    norm, x = layer(ROTATIONS, (3, 3), form="basis", karcher_steps=None), points(ROTATIONS, 9, 3, 3, std=0.2)
    mean, bias, origin = ROTATIONS.frechet_mean(x), norm.point("bias"), torch.eye(3, dtype=F64)
    t = norm.scale.exp() / (ROTATIONS.frechet_variance(x) + 1e-5).sqrt()
    close(norm(x), bias @ ROTATIONS.geodesic(origin, mean.mT @ x, t))
