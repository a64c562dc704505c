"""Rows of the layers of networks on subspaces, and of gyro layers there."""

from torchriemann.layers import FRMap, GrassmannPool, GyroClassifier, GyroTranslation, OrthMap, ProjMap, ReOrth
from torchriemann.manifolds import Grassmann
from torchriemann.testing import LayerCase

SUBSPACES = Grassmann()
REASON = "the basis is none in particular; its span is held to this law in test_grassmann_layers"
ANY_BASIS = {"gradients_are_those_of_finite_differences": REASON, "conversions_keep_points_and_values": REASON}


def matrices(*shape):
    return lambda t: (t.noise(*t.batch, *shape),)


def bases(*shape):
    return lambda t: (t.random(SUBSPACES, *t.batch, *shape),)


def wide(arguments):
    (x,) = arguments
    return {"more columns than rows": (x.new_ones(2, 3),), "a vector": (x.new_ones(3),)}


def no_channels(arguments):
    (x,) = arguments
    return {"one basis": (x[(0,) * (x.dim() - 2)],)}


GRASSMANN_ROWS = (
    LayerCase(lambda **o: FRMap(5, 3, **o), matrices(5, 2), bad=wide, exempt=(ANY_WIDTH := {
        "wrong_arguments_are_rejected": "a subspace may have any dimension, so that one column too many is none",
    })),
    LayerCase(lambda **o: FRMap(5, 3, 2, **o), matrices(2, 5, 2), exempt=ANY_WIDTH),
    *(
        LayerCase(lambda method=method, **_: ReOrth(method), matrices(5, 2), image=SUBSPACES, exempt=ANY_WIDTH)
        for method in ("qr", "polar")
    ),
    LayerCase(
        lambda **_: ProjMap(), bases(5, 2), points={0: SUBSPACES},
        exempt=ANY_WIDTH | {"repr_shows_the_arguments": "it has none"},
    ),
    LayerCase(lambda **_: OrthMap(2), matrices(5, 5), image=SUBSPACES, bad=wide, exempt=ANY_BASIS),
    LayerCase(
        lambda **_: GrassmannPool(), bases(3, 7, 2), points={0: SUBSPACES}, image=SUBSPACES, bad=no_channels,
        exempt=ANY_BASIS | ANY_WIDTH,
    ),
    LayerCase(
        lambda **_: GrassmannPool(2, 1), bases(3, 4, 2), points={0: SUBSPACES}, image=SUBSPACES, bad=no_channels,
        exempt=ANY_BASIS | ANY_WIDTH,
    ),
    LayerCase(
        lambda **o: GyroTranslation(SUBSPACES, (5, 2), 2, **o), bases(2, 5, 2), points={0: SUBSPACES},
        image=SUBSPACES, bad=no_channels,
    ),
    LayerCase(lambda **o: GyroClassifier(SUBSPACES, (5, 2), 3, **o), bases(5, 2), points={0: SUBSPACES}, bad=wide),
)  # fmt: skip
