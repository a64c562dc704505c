"""Rows of the layers on gyro manifolds."""

from torchriemann.layers import GyroClassifier, GyroConv1d, GyroConv2d, GyroLinear, GyroScaling, GyroTranslation
from torchriemann.manifolds import Lorentz, PoincareBall, SPDAffineInvariant, SPDLogCholesky, SPDLogEuclidean
from torchriemann.testing import LayerCase

AFFINE, LOG, CHOLESKY, SPACE, BALL = (
    SPDAffineInvariant(), SPDLogEuclidean(), SPDLogCholesky(), Lorentz(-0.7), PoincareBall(-0.7),
)  # fmt: skip


def points(manifold, *shape):
    """Draws points of the last dimensions of `shape`, the first ones of which are channels."""
    lead, point = shape[: len(shape) - manifold.ndim], shape[len(shape) - manifold.ndim :]

    def draw(t):
        z = t.noise(*t.batch, *lead, *manifold.normal_shape(point))
        return (manifold.from_normal(0.5 * z),)

    return draw


def too_small(arguments):
    (x,) = arguments
    return {"an entry too few": (x[..., :-1],)}


def with_bias(**options):
    """Of layers with an argument ``bias``."""
    reason = "its bias is the parameter, of which bias=... says whether there is one, as in torch.nn.Linear"
    return {"exempt": {"repr_shows_the_arguments": reason}, **options}


def row(make, manifold, *shape, image=None, **options):
    return LayerCase(make, points(manifold, *shape), points={0: manifold}, image=image, bad=too_small, **options)


GYRO_ROWS = (
    row(lambda **o: GyroTranslation(AFFINE, (3, 3), 2, **o), AFFINE, 2, 3, 3, image=AFFINE),
    row(lambda **o: GyroTranslation(SPACE, (4,), parametrization="manifold", **o), SPACE, 4, image=SPACE),
    row(lambda **o: GyroScaling(CHOLESKY, (3, 3), 2, **o), CHOLESKY, 2, 3, 3, image=CHOLESKY),
    row(lambda **o: GyroScaling(BALL, (3,), entrywise=True, **o), BALL, 3, image=BALL),
    row(
        lambda **o: GyroClassifier(AFFINE, (3, 3), 4, parametrization="manifold", **o), AFFINE, 3, 3,
        tolerance={"conversions_keep_points_and_values": 32},  # eps times the condition of a base point
    ),
    row(lambda **o: GyroClassifier(LOG, (2, 2), 4, 2, **o), LOG, 2, 2, 2),
    row(lambda **o: GyroClassifier(BALL, (3,), 4, margin="distance", **o), BALL, 3),
    row(
        lambda **o: GyroLinear(AFFINE, (2, 2), (4,), 2, out_manifold=SPACE, bias=False, shared_base=True, **o),
        AFFINE, 2, 2, 2, image=SPACE, **with_bias(),
    ),
    row(
        lambda **o: GyroLinear(CHOLESKY, (3, 3), (2, 2), 2, 3, parametrization="manifold", **o),
        CHOLESKY, 2, 3, 3, image=CHOLESKY, **with_bias(),
        spread=0.05,  # of matrices that are positive definite in bfloat16
    ),
    row(
        lambda **o: GyroConv1d(BALL, (3,), (2,), 2, 2, 2, padding=1, dilation=2, **o),
        BALL, 2, 3, 3, image=BALL, **with_bias(),
    ),
    row(
        lambda **o: GyroConv2d(LOG, (2, 2), (2, 2), 1, 2, (2, 1), padding=(1, 0), stride=2, **o),
        LOG, 1, 3, 2, 2, 2, image=LOG, **with_bias(),
    ),
)  # fmt: skip
