"""Rows of the table of manifolds: symmetric positive definite matrices."""

import dataclasses

import torch
from torch import Tensor

from torchriemann.manifolds.spd import SPDBuresWasserstein
from torchriemann.testing import Case, Trial

MATRICES = ((3, 3), (1, 1), (2, 2), (5, 5))
NO_MATRICES = ((2, 3), (3, 2), (0, 0))
INFINITE_VOLUME = {"random_uniform": "the volume is infinite"}
INCOMPLETE = {
    "injectivity_radius_is_exact": "geodesics end at the radius",
    "infinite_injectivity_radius": "geodesics end at singular matrices",
    "uniform_law_is_invariant": "the volume is infinite",
}


def rotation(t: Trial) -> Tensor:
    """A random orthogonal matrix."""
    return torch.linalg.qr(t.noise(t.shape[-1], t.shape[-1]))[0]


def congruences(t: Trial):
    """x -> q x q^T for orthogonal q."""
    q = rotation(t)
    return {"rotation": lambda x: q @ x @ q.mT}


def repeats_again(case: Case, repeats: Case, *costly: str) -> Case:
    """The row makes few draws, and costly laws look at these operations only."""
    return dataclasses.replace(case, repeats=repeats.manifold, costly=costly, draws=2)


# ---- Bures-Wasserstein ----------------------------------------------------------------------------------------


def shrinking(t: Trial, x: Tensor) -> dict[str, Tensor]:
    """All eigenvalues of S equal, all but one zero, and next to zero."""
    v = t.noise(x.shape[-1], 1)
    s = v @ v.mT / v.square().sum()
    return {"multiple": -0.4 * x, "rank one": -0.3 * (s @ x + x @ s), "tiny": t.tangent(x, 1e-9)}


def bures_wasserstein(**options) -> Case:
    manifold = SPDBuresWasserstein(**options)
    base = manifold.base

    def isometries(t: Trial):
        if base is None:
            return congruences(t)
        root = torch.linalg.cholesky(base).to(t.dtype)
        q = root @ rotation(t) @ torch.linalg.inv(root)
        return {"rotation at the base": lambda x: q @ x @ q.mT}

    exempt = dict(INCOMPLETE)
    if base is not None:
        exempt["manifolds_are_values"] = "tensors are equal by identity"
    return Case(
        manifold,
        shapes=MATRICES if base is None else (tuple(base.shape),),
        order=2,
        fraction=0.7,  # a quarter of the way beyond the ends is still inside
        isometries=isometries,
        degenerate=shrinking,
        off=torch.neg,
        bad_shapes=NO_MATRICES,
        missing=INFINITE_VOLUME,
        exempt=exempt,
    )


BURES_WASSERSTEIN = bures_wasserstein()
BASE = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 0.5]], dtype=torch.float64)
BURES = ("expmap", "dist2")

SPD_ROWS = [
    BURES_WASSERSTEIN,
    repeats_again(bures_wasserstein(base=BASE), BURES_WASSERSTEIN, *BURES),
    repeats_again(bures_wasserstein(power=0.5), BURES_WASSERSTEIN, *BURES),
]
