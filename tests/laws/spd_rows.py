"""Rows of the table of laws: positive definite matrices."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torchriemann.manifolds import SPD, SPDAffineInvariant, SPDLogEuclidean
from torchriemann.testing import Case, Trial


def orthogonal_congruences(t: Trial):
    """x -> q x q^T, which is linear, of points and of tangent vectors."""
    q = torch.linalg.qr(t.noise(*t.shape))[0]
    return {"orthogonal congruence": lambda x: q @ x @ q.mT}


def congruences(t: Trial):
    """x -> a x a^T with any invertible a: of condition four at most, or digits of the test itself are lost."""
    q, r = (torch.linalg.qr(t.noise(*t.shape))[0] for _ in range(2))
    a = (q * (2 * torch.rand(t.shape[-1], generator=t.generator, dtype=t.dtype) - 1).exp2()) @ r
    return {"congruence": lambda x: a @ x @ a.mT}


def few_eigenvalues(t: Trial, x: Tensor) -> dict[str, Tensor]:
    """A multiple of the point, which leaves equal eigenvalues equal, a multiple of the identity, one of rank one, and
    one next to zero."""
    e = t.noise(*x.shape[:-1], 1)
    return {
        "radial": 0.3 * x,
        "identity": 0.1 * torch.eye(x.shape[-1], dtype=t.dtype).expand_as(x),
        "rank one": 0.1 * e @ e.mT,
        "tiny": t.tangent(x, 1e-9),
    }


VOLUME = "the volume is infinite"
BEYOND = "exp(1000) is beyond the largest number"


def spd(manifold: SPD, *, exempt: Mapping[str, str] | None = None, **options: Any) -> Case:
    """The row of a metric; `options` of `Case` win over what all rows share. Without `order` the retraction is the
    exponential map; without `cut` the injectivity radius is taken to be infinite."""
    shared = {"uniform_law_is_invariant": VOLUME}
    if "order" not in options:
        shared["retraction_has_its_order"] = "the retraction is the exponential map"
    if "cut" in options:
        shared["infinite_injectivity_radius"] = "the way to singular matrices"
    else:
        shared |= {
            "injectivity_radius_is_exact": "infinite",
            "extreme_numbers_give_no_nan": BEYOND,
            "extreme_vectors_transport_without_nan": BEYOND,
        }
    common = {
        "shapes": ((3, 3), (1, 1), (4, 4)),
        "reach": 1.0,
        "isometries": orthogonal_congruences,
        "degenerate": few_eigenvalues,
        "off": torch.neg,
        "bad_shapes": ((2, 3), (0, 0)),
        "missing": {"random_uniform": VOLUME},
    }
    return Case(manifold, **{**common, **options, "exempt": {**shared, **(exempt or {})}})


# What a chart of this family does, each of its methods once: the operations that a chart carries over are looked at in
# full where the chart is cheap. (The second derivative of a Hessian takes the fifth of the function of eigenvalues.)
CHART = ("inner", "egrad2rgrad", "expmap", "logmap", "expmap_transp", "dist2", "retr", "inverse_retr")

LOG_EUCLIDEAN = spd(
    SPDLogEuclidean(),
    costly=(*CHART, "parallel_transport", "from_normal", "to_normal", "gyroadd"),
    tolerance={"*": 200},
    exempt={"infinite_injectivity_radius": "exp(30) in one eigenvalue is beyond what the others keep digits for"},
)


def affine_invariant(manifold: SPDAffineInvariant, **options: Any) -> Case:
    return spd(
        manifold,
        isometries=congruences if manifold.power == 1 else orthogonal_congruences,
        # Truncation: the fifth derivative is large where an eigenvalue of the point is small.
        tolerance={"forward_derivatives_match_finite_differences": 1e11},
        exempt={"infinite_injectivity_radius": "exp(30) in one eigenvalue is beyond what the others keep digits for"},
        **options,
    )


AFFINE_INVARIANT = affine_invariant(
    SPDAffineInvariant(),
    costly=(
        *("inner", "egrad2rgrad", "ehess2rhess", "expmap", "logmap", "parallel_transport", "expmap_transp", "dist"),
        *("dist2", "geodesic", "sectional_curvature", "logdet_dexp", "basis", "to_coordinates", "from_coordinates"),
        *("from_normal", "to_normal", "gyroadd", "gyroscale", "gyration"),
    ),
)
AGAIN = {"repeats": SPDAffineInvariant(), "draws": 2}

SPD_ROWS = [
    LOG_EUCLIDEAN,
    AFFINE_INVARIANT,
    affine_invariant(SPDAffineInvariant(power=0.5), costly=("expmap", "logmap", "expmap_transp", "dist2"), **AGAIN),
    affine_invariant(SPDAffineInvariant(alpha=2.0, beta=-0.3), costly=("inner", "egrad2rgrad", "dist2"), **AGAIN),
]
