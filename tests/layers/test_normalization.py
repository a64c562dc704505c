"""Batch normalisation on manifolds: the mean and the dispersion that it promises, in training and in evaluation."""

import warnings

import pytest
import torch

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
)

F64 = torch.float64
# A manifold, the shape of its points, the form, and the deviation of points that stay within half of the injectivity
# radius of their mean.
SPACES = [
    (Euclidean(), (4,), "gyro", 1.0),
    (SPDAffineInvariant(), (3, 3), "gyro", 0.4),
    (SPDAffineInvariant(0.5, 2.0, 0.3), (3, 3), "gyro", 0.4),
    (SPDAffineInvariant(), (3, 3), "tangent", 0.4),
    (SPDAffineInvariant(0.5, 2.0, 0.3), (3, 3), "basis", 0.4),
    (SPDLogEuclidean(), (3, 3), "gyro", 0.4),
    (SPDLogCholesky(), (3, 3), "gyro", 0.4),
    (SPDBuresWasserstein(), (3, 3), "tangent", 0.1),
    (PoincareBall(-0.7), (3,), "gyro", 0.5),
    (Lorentz(-0.7), (4,), "gyro", 0.5),
    (Lorentz(-0.7), (4,), "tangent", 0.5),
    (Klein(-0.7), (3,), "gyro", 0.5),
    (Sphere(1.3), (4,), "gyro", 0.15),
    (Sphere(1.3), (4,), "tangent", 0.15),
    (ProjectedSphere(1.3), (3,), "gyro", 0.15),
    (CorrelationOffLog(), (3, 3), "gyro", 0.3),
    (CorrelationLogScaled(), (3, 3), "gyro", 0.3),
    (CorrelationPolyHyperbolic(), (3, 3), "gyro", 0.3),
    (Grassmann(), (6, 2), "gyro", 0.1),
    (Grassmann(), (6, 2), "tangent", 0.1),
    (SpecialOrthogonal(), (3, 3), "tangent", 0.2),
    (SpecialOrthogonal(), (3, 3), "basis", 0.2),
    (Stiefel(), (5, 2), "tangent", 0.1),
]
spaces = pytest.mark.parametrize(
    ("manifold", "shape", "form", "std"), [pytest.param(*row, id=f"{row[0]!r} {row[2]}") for row in SPACES]
)


def points(manifold, *size, std, seed=0, dtype=F64):
    """Around a point off the origin."""
    g = torch.Generator().manual_seed(seed)
    p = size[-manifold.ndim :]
    centre = manifold.random_normal(*p, std=2 * std, generator=g, dtype=dtype)
    return manifold.random_normal(*size, mean=centre, std=std, generator=g, dtype=dtype)


def layer(manifold, shape, scale=-1.2, **options):
    """With a scale and a bias that no default is."""
    made = GyroBatchNorm(manifold, shape, **{"dtype": F64, **options})
    with torch.no_grad():
        made.scale.add_(scale)
        made.bias.normal_(std=0.2, generator=torch.Generator().manual_seed(7))
    return made


@spaces
def test_the_output_has_the_mean_and_the_dispersion_that_are_promised(manifold, shape, form, std):
    norm = layer(manifold, shape, form=form, num_channels=2, karcher_steps=None)
    x = points(manifold, 12, 2, *shape, std=std)
    y = norm(x).detach()
    manifold.assert_check_point_on_manifold(y)
    bias, s2 = norm.point("bias").detach(), norm.scale.detach().exp().square()
    assert manifold.karcher_residual(y, bias).max() < 1e-10
    assert manifold.dist(manifold.frechet_mean(y), bias).max() < 1e-10
    v2 = manifold.frechet_variance(x)
    torch.testing.assert_close(manifold.frechet_variance(y, mean=bias), s2 * v2 / (v2 + 1e-5), rtol=1e-10, atol=1e-10)
    # The running statistics have moved by a tenth towards those of the batch.
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * v2, rtol=1e-10, atol=1e-10)
    origin = manifold.origin(2, *shape, dtype=F64)
    moved = manifold.geodesic(origin, manifold.frechet_mean(x), 0.1)
    assert manifold.dist(norm.running_mean, moved).max() < 1e-10


@spaces
def test_evaluation_with_momentum_one_repeats_the_training_output(manifold, shape, form, std):
    norm = layer(manifold, shape, form=form, momentum=1.0)
    x = points(manifold, 3, 4, *shape, std=std)
    y = norm(x)
    # The mean is recovered from a geodesic, the metric's way.
    torch.testing.assert_close(norm.eval()(x), y, rtol=1e-11, atol=1e-11)
    assert norm.num_batches_tracked == 1


@spaces
def test_a_step_comes_near_to_the_mean(manifold, shape, form, std):
    x = points(manifold, 20, *shape, std=std)
    norm = GyroBatchNorm(manifold, shape, form=form, momentum=1.0, dtype=F64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of one deviation as the scale
        norm(x)
    off = manifold.dist(norm.running_mean, manifold.frechet_mean(x)) / manifold.frechet_variance(x).sqrt()
    assert off < 1e-2


def test_half_precision_keeps_float32_statistics():
    norm = layer(SPDAffineInvariant(), (3, 3), num_channels=2)
    norm(points(SPDAffineInvariant(), 8, 2, 3, 3, std=0.4))
    mean = norm.running_mean.clone()
    norm.half()
    assert norm.running_mean.dtype == norm.running_var.dtype == torch.float32 and norm.scale.dtype == torch.float16
    torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-6, atol=1e-6)
    sphere = layer(Sphere(), (4,)).float()
    sphere(points(Sphere(), 8, 4, std=0.1, dtype=torch.float32))
    assert abs(float(sphere.double().running_mean.norm()) - 1) < 1e-15
