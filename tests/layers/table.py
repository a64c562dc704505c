"""The table of layers: a new layer adds one row, and every law of `torchriemann.testing.LAYER_LAWS` is held to it."""

import torch

from tests.layers.grassmann_rows import GRASSMANN_ROWS
from tests.layers.gyro_rows import GYRO_ROWS
from torchriemann.layers import (
    BuresWassersteinBatchNorm,
    Curvature,
    EntailmentCones,
    GrassmannClassifier,
    GyroBatchNorm,
    LorentzIsometry,
)
from torchriemann.manifolds import (
    Euclidean,
    Lorentz,
    PoincareBall,
    SPDAffineInvariant,
    SPDBuresWasserstein,
    SPDLogCholesky,
    SpecialOrthogonal,
    Sphere,
)
from torchriemann.testing import LayerCase

SPACE, BALL = Lorentz(-0.7), PoincareBall(-0.7)


def features(t):
    return (t.noise(*t.batch, 7),)


def images(t):
    return SPACE.from_normal(t.noise(*t.batch, 3)), SPACE


def pairs(space):
    """Apices and points in and out of their cones, none of them nearer than where cones begin to narrow."""

    def draw(t):
        apex, other = t.noise(*t.batch, 3), t.noise(*t.batch, 3)
        apex = apex * (1 + 0.5 / apex.norm(dim=-1, keepdim=True))
        return space.from_normal(apex), space.from_normal(other)

    return draw


def no_points(arguments):
    x, space = arguments
    return {"points of another model": (x, BALL), "no manifold": (x, x), "a point too small": (x[..., :-1], space)}


# In training the items of a batch depend on each other, and the statistics are written.
TOGETHER = {
    "batches_are_items_side_by_side": "an item is normalised by the statistics of its batch",
    "vmap_equals_batching": "an item is normalised by the statistics of its batch, which the layer keeps",
}


def norm(space, point, channels=None, train=False, tolerance=None, learned=False, **options):
    """A batch normalisation in evaluation, or in training, or one that learns its metric; points around the origin."""

    def make(**given):
        start = (point,) if learned else (space, point)
        kind = BuresWassersteinBatchNorm if learned else GyroBatchNorm
        return kind(*start, channels, **options, **given).train(train)

    def draw(t):
        origin = space.origin(*t.batch, *(() if channels is None else (channels,)), *point, dtype=torch.float64)
        return (space.expmap(origin, 0.3 * space.random_tangent(origin, generator=t.generator)),)

    return LayerCase(
        make, draw, points={0: space}, image=space, exempt=TOGETHER if train else {}, tolerance=tolerance or {}
    )


# Laws that take long of a layer, whose graphs are large: the transport of Bures-Wasserstein is an integral.
SLOW = {("compiled_equals_eager", "BuresWassersteinBatchNorm")}

TABLE = (
    LayerCase(lambda **options: GrassmannClassifier(7, 4, 3, **options), features),
    LayerCase(lambda **options: GrassmannClassifier(7, 4, 1, scale=3.0, normalize=False, **options), features),
    LayerCase(lambda **options: GrassmannClassifier(7, 4, 3, parametrization="tangent", **options), features),
    LayerCase(lambda **options: Curvature(-0.7, **options), lambda t: (), exempt=(CURVATURE := {
        "repr_shows_the_arguments": "it prints the curvature of today, which is no argument",
    })),
    LayerCase(lambda **options: Curvature(2.0, learnable=False, **options), lambda t: (), exempt=CURVATURE),
    LayerCase(lambda **options: Curvature(-0.7, min=-0.9, max=-0.5, **options), lambda t: (), exempt=CURVATURE),
    *(
        LayerCase(
            lambda kind=kind, **options: LorentzIsometry(3, kind, **options),
            images,
            points={0: SPACE},
            image=SPACE,
            bad=no_points,
        )
        for kind in ("manifold", "tangent")
    ),
    *(
        LayerCase(
            lambda space=space, **_: EntailmentCones(space, 0.1), pairs(space), points={0: space, 1: space}
        )
        for space in (SPACE, BALL)
    ),
    norm(Euclidean(), (4,), 3, train=True),
    norm(SPDLogCholesky(), (3, 3), train=True),
    norm(SPDAffineInvariant(), (3, 3), tolerance={"conversions_keep_points_and_values": 16}),
    norm(Sphere(), (4,)),
    norm(SPACE, (4,)),
    norm(SpecialOrthogonal(), (3, 3), form="tangent"),
    norm(SPDAffineInvariant(), (3, 3), form="basis", tolerance={"conversions_keep_points_and_values": 16}),
    norm(SPDBuresWasserstein(), (2, 2), learned=True, power=0.7),
    *GYRO_ROWS,
    *GRASSMANN_ROWS,
)  # fmt: skip
