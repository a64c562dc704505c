"""Rows of the table of laws: positive definite matrices."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tests.laws.composites import again
from torchriemann.manifolds import (
    SPD,
    BogoliubovKuboMori,
    KernelFunction,
    LogarithmicMean,
    MixedPowerAffine,
    MixedPowerEuclidean,
    SPDAffineInvariant,
    SPDBuresWasserstein,
    SPDKernel,
    SPDLogCholesky,
    SPDLogEuclidean,
    SPDPowerCholesky,
    SPDPowerEuclidean,
)
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
    """A multiple of the point, one of the identity, a matrix of rank one, all half as long as vectors may be, and one
    next to zero."""
    e = t.noise(*x.shape[:-1], 1)
    identity = torch.eye(x.shape[-1], dtype=t.dtype).expand_as(x)
    vectors = {"radial": x, "identity": identity, "rank one": e @ e.mT}
    half = {name: 0.5 * t.radius(x) * u / t.manifold.norm(x, u, keepdim=True) for name, u in vectors.items()}
    return {**half, "tiny": t.tangent(x, 1e-9)}


VOLUME = "the volume is infinite"
BEYOND = "exp(1000) is beyond the largest number"
BEYOND_THE_RIM = "a long vector leaves the space: the exponential map is NaN there"


def spd(manifold: SPD, *, exempt: Mapping[str, str] | None = None, **options: Any) -> Case:
    """The row of a metric; `options` of `Case` win over what all rows share. Without `order` the retraction is the
    exponential map; without `cut` the injectivity radius is taken to be infinite."""
    shared = {"uniform_law_is_invariant": VOLUME}
    if "order" not in options:
        shared["retraction_has_its_order"] = "the retraction is the exponential map"
    if "cut" in options:
        shared |= {
            "infinite_injectivity_radius": "the way to the rim",
            "extreme_numbers_give_no_nan": BEYOND_THE_RIM,
            "extreme_vectors_transport_without_nan": BEYOND_THE_RIM,
        }
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
# full where the chart is cheap.
CHART = ("egrad2rgrad", "expmap", "logmap", "expmap_transp", "dist2")

LOG_EUCLIDEAN = spd(
    SPDLogEuclidean(),
    costly=(*CHART, "from_normal"),
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
        *("inner", "egrad2rgrad", "ehess2rhess", "expmap", "logmap", "parallel_transport", "expmap_transp", "dist2"),
        *("geodesic", "sectional_curvature", "logdet_dexp", "basis", "from_normal", "to_normal", "gyroadd", "gyration"),
    ),
)
AGAIN = {"repeats": SPDAffineInvariant(), "draws": 2}


def to_the_rim(power: float):
    """Of a power-Euclidean metric: the eigenvector of the eigenvalue of which the power is least, which shrinks."""

    def cut(t: Trial, x: Tensor) -> Tensor:
        q = torch.linalg.eigh(x)[1][..., 0 if power > 0 else -1]
        u = -q.unsqueeze(-1) * q.unsqueeze(-2) * (1 if power > 0 else -1)
        return u / t.manifold.norm(x, u, keepdim=True)

    return cut


def power_euclidean(power: float) -> Case:
    return spd(
        SPDPowerEuclidean(power),
        order=2,
        cut=to_the_rim(power),
        fraction=0.7,  # of the radius, of which laws ask for 1.25 times as much
        costly=(*CHART, "retr", "inverse_retr"),
        # Truncation, as of the affine-invariant rows.
        tolerance={"*": 2000, "forward_derivatives_match_finite_differences": 2e10},
        exempt={"injectivity_radius_is_exact": "it ends at the rim, beyond which there are no points"},
    )


POWER_EUCLIDEAN = power_euclidean(0.5)

# ---- Bures-Wasserstein ----------------------------------------------------------------------------------------


def shrinking(t: Trial, x: Tensor) -> dict[str, Tensor]:
    """Logarithms of maps with all eigenvalues equal, and all but one, and one next to zero."""
    e = t.noise(*x.shape[:-1], 1)
    s = e @ e.mT / e.square().sum((-2, -1), keepdim=True)
    return {"multiple": -0.4 * x, "rank one": -0.3 * (s @ x + x @ s), "tiny": t.tangent(x, 1e-9)}


def bures_wasserstein(manifold: SPDBuresWasserstein, **options: Any) -> Case:
    base = manifold.base

    def rotations_at_base(t: Trial):
        q = torch.linalg.qr(t.noise(*t.shape))[0]
        root = torch.linalg.cholesky(torch.eye(*t.shape) if base is None else base).to(t.dtype)
        a = root @ q @ torch.linalg.inv(root)
        return {"orthogonal congruence": lambda x: a @ x @ a.mT}

    exempt = {
        "injectivity_radius_is_exact": "geodesics end there",
        "infinite_injectivity_radius": "geodesics end at singular matrices",
        "extreme_numbers_give_no_nan": LONG,
        "extreme_vectors_transport_without_nan": LONG,
    }
    if base is not None:
        exempt["manifolds_are_values"] = "tensors are equal by identity"
    return spd(
        manifold,
        order=2,
        fraction=0.7,  # so that a quarter of the way beyond both ends is inside as well
        isometries=rotations_at_base,
        degenerate=shrinking,
        exempt=exempt,
        **options,
    )


LONG = "expmap of a long vector is NaN, since its geodesic ends; retr is tested with the class"
BURES_WASSERSTEIN = bures_wasserstein(
    SPDBuresWasserstein(),
    costly=(
        *("inner", "egrad2rgrad", "expmap", "logmap", "dist", "dist2", "retr", "inverse_retr"),
        *("parallel_transport", "expmap_transp", "sectional_curvature"),
    ),
    tolerance={
        # The inverse of the retraction has a jump in its third derivative, which the quotient meets; all others take
        # 1e8. Derivatives along lines that miss it are held to 1e-9 in a test of the class.
        "forward_derivatives_match_finite_differences": 1e12,
        # Of a distance of 1e-8 the gradient has eight digits; all others take 1e4.
        "vmap_of_derivatives_equals_batching": 1e9,
    },
)
BASE = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 0.5]], dtype=torch.float64)


def bures_again(manifold: SPDBuresWasserstein, **options: Any) -> Case:
    """The first row with a chart before it."""
    first = BURES_WASSERSTEIN
    return bures_wasserstein(
        manifold, tolerance=first.tolerance, repeats=first.manifold, costly=("expmap", "dist2"), draws=2, **options
    )


# ---- Cholesky factors -----------------------------------------------------------------------------------------


def signs(t: Trial):
    """x -> s x s with signs s, which changes signs of the factor below the diagonal."""
    s = t.noise(t.shape[-1]).sign()
    return {"change of signs": lambda x: s.unsqueeze(-1) * x * s}


LOG_CHOLESKY = spd(
    SPDLogCholesky(),
    costly=(*CHART, "from_normal", "to_normal"),
    isometries=signs,
    tolerance={
        "*": 400,
        "geodesic_transport_reaches_beyond_the_cut_locus": 3000,  # the diagonal grows as exp of twice the length
    },
    exempt={"infinite_injectivity_radius": "exp(30) on the diagonal is beyond what the other entries keep digits for"},
)


def to_the_edge(t: Trial, x: Tensor) -> Tensor:
    """Along the last entry of the diagonal of the factor: no other one moves."""
    u = torch.zeros_like(x)
    u[..., -1, -1] = -t.manifold.power
    return u / t.manifold.norm(x, u, keepdim=True)


def power_cholesky(power: float) -> Case:
    return spd(
        SPDPowerCholesky(power),
        order=2,
        fraction=0.7,  # of the radius, of which laws ask for 1.25 times as much
        isometries=signs,
        cut=to_the_edge,
        # Truncation, where the factor has a small entry on its diagonal; the retraction has a jump in its third
        # derivative besides.
        tolerance={"*": 400, "forward_derivatives_match_finite_differences": 1e9},
        exempt={"injectivity_radius_is_exact": "it ends at the rim, beyond which there are no points"},
    )


# ---- kernels --------------------------------------------------------------------------------------------------

UNKNOWN = "not known of all kernels"


def turned(x: Tensor) -> Tensor:
    """No longer symmetric; of one number, no longer positive. Next to the rim, where other ways out are projected to,
    a logarithm takes seconds."""
    return -x if x.shape[-1] == 1 else x + x.abs().amax() * torch.ones_like(x).triu(1)


def kernel(phi: KernelFunction, **options: Any) -> Case:
    exempt = {
        "injectivity_radius_is_exact": UNKNOWN,
        "infinite_injectivity_radius": UNKNOWN,
    }
    if not phi.is_complete:
        exempt |= {
            "extreme_numbers_give_no_nan": BEYOND_THE_RIM,
            "extreme_vectors_transport_without_nan": BEYOND_THE_RIM,
        }
    return spd(
        SPDKernel(phi),
        order=2,
        shapes=((2, 2), (3, 3), (1, 1)),
        # Some geodesics end, and long ones take many steps: `tests/spd/test_kernel_flow.py` follows these.
        spread=0.2,
        reach=0.3,
        inverse_reach=0.3,
        off=turned,
        # Geodesics are the solutions of an equation, and a logarithm takes some ten of them.
        samples=400,
        missing={
            "random_uniform": VOLUME,
            **dict.fromkeys(("injectivity_radius", "log_is_unique"), UNKNOWN),
        },
        exempt=exempt,
        **options,
    )


# Derivatives of geodesics, logarithms and transports, and their graphs, have tests of their own beside the long ways.
KERNEL = dataclasses.replace(
    kernel(MixedPowerAffine(0.5, -0.5), costly=("inner", "egrad2rgrad")),
    draws=2,
    # Many calls each. Bad items, empty batches, means and their weights are looked at once in
    # `tests/spd/test_kernel_use.py` and `test_kernel_bad_input.py` too, derivatives under vmap in
    # `test_kernel_derivatives.py`.
    slow=(
        "empty_batches_give_empty_results",
        "operations_broadcast_over_the_batch",
        "vmap_of_derivatives_equals_batching",
        "bad_items_leave_their_neighbours",
        "frechet_mean_balances_logarithms",
        "items_of_weight_zero_are_left_out",
    ),
)


SPD_ROWS = [
    LOG_EUCLIDEAN,
    again(dataclasses.replace(LOG_EUCLIDEAN, manifold=SPDLogEuclidean(2.0, -0.2)), LOG_EUCLIDEAN, "inner", "logmap"),
    POWER_EUCLIDEAN,
    again(power_euclidean(-1.0), POWER_EUCLIDEAN, "expmap", "logmap", "retr"),
    AFFINE_INVARIANT,
    affine_invariant(SPDAffineInvariant(power=0.5), costly=("expmap", "expmap_transp", "dist2"), **AGAIN),
    affine_invariant(SPDAffineInvariant(alpha=2.0, beta=-0.3), costly=("inner", "egrad2rgrad", "dist2"), **AGAIN),
    BURES_WASSERSTEIN,
    bures_again(SPDBuresWasserstein(BASE), shapes=((3, 3),)),
    bures_again(SPDBuresWasserstein(power=0.5)),
    LOG_CHOLESKY,
    again(
        dataclasses.replace(LOG_CHOLESKY, manifold=SPDLogCholesky((0.5, 2.0, 3.0)), shapes=((3, 3),)),
        LOG_CHOLESKY,
        "inner",
        "dist2",
    ),
    again(power_cholesky(0.5), LOG_CHOLESKY, "expmap", "logmap", "expmap_transp", "dist2", "retr", "inverse_retr"),
    again(power_cholesky(-0.7), LOG_CHOLESKY, "expmap", "logmap"),
    KERNEL,
    *(
        dataclasses.replace(again(kernel(phi), KERNEL, name), draws=1, slow=None)
        for phi, name in (
            (BogoliubovKuboMori(), "inner"),
            (LogarithmicMean(power=1.5, scale=2.0, beta=-0.2), "expmap"),
            (MixedPowerEuclidean(0.5, -0.25), "egrad2rgrad"),
        )
    ),
]
