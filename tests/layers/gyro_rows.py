"""Rows of the layers on gyro manifolds."""

from torchriemann.layers import GyroScaling, GyroTranslation
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


def row(make, manifold, *shape, image=None, **options):
    return LayerCase(make, points(manifold, *shape), points={0: manifold}, image=image, bad=too_small, **options)


GYRO_ROWS = (
    row(lambda **o: GyroTranslation(AFFINE, (3, 3), 2, **o), AFFINE, 2, 3, 3, image=AFFINE),
    row(lambda **o: GyroTranslation(SPACE, (4,), parametrization="manifold", **o), SPACE, 4, image=SPACE),
    row(lambda **o: GyroScaling(CHOLESKY, (3, 3), 2, **o), CHOLESKY, 2, 3, 3, image=CHOLESKY),
    row(lambda **o: GyroScaling(BALL, (3,), entrywise=True, **o), BALL, 3, image=BALL),
)  # fmt: skip
