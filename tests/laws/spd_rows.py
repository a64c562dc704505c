"""Rows of the table of laws: positive definite matrices."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torchriemann.manifolds import SPD, SPDLogCholesky, SPDLogEuclidean, SPDPowerCholesky
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

# ---- Cholesky factors ----


def signs(t: Trial):
    """x -> s x s with signs s: the only congruences that all metrics of Cholesky factors respect."""
    s = t.noise(t.shape[-1]).sign()
    return {"change of signs": lambda x: s.unsqueeze(-1) * x * s}


def shrinking(t: Trial, x: Tensor) -> Tensor:
    """Along the entry of the diagonal of the factor that is nearest to the boundary."""
    power, L = t.manifold.power, torch.linalg.cholesky(x)
    d = L.diagonal(dim1=-2, dim2=-1)
    size = t.manifold.chart.root_weights(d) * d ** (power - 1)
    first = torch.nn.functional.one_hot((size * d).argmin(-1), d.shape[-1]).to(d.dtype)
    X = torch.diag_embed(-math.copysign(1.0, power) * first / size)
    return L @ X.mT + X @ L.mT


LOG_CHOLESKY = spd(
    SPDLogCholesky(),
    costly=(*CHART, "parallel_transport", "from_normal", "to_normal", "gyroadd"),
    isometries=signs,
    tolerance={
        "*": 400,
        "geodesic_transport_reaches_beyond_the_cut_locus": 3000,  # entries of the diagonal grow as exp of twice lengths
    },
    exempt={"infinite_injectivity_radius": "exp(30) in one entry of the factor is beyond what the others keep digits for"},
)


def power_cholesky(power: float) -> Case:
    return spd(
        SPDPowerCholesky(power),
        order=2,
        isometries=signs,
        cut=shrinking,
        tolerance={"*": 400},
    )


SPD_ROWS = [
    LOG_EUCLIDEAN,
    LOG_CHOLESKY,
    power_cholesky(0.5),
    power_cholesky(-0.7),
]
