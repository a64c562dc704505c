"""The row of the table of laws: probability vectors."""

import torch
from torch import Tensor

from torchriemann.manifolds import Simplex
from torchriemann.testing import Case, Trial


def permutations(t: Trial):
    """Of the entries: there are no other isometries."""
    order = torch.randperm(t.shape[-1], generator=t.generator)
    return {"permutation": lambda x: x[..., order]}


def to_nearest_face(t: Trial, x: Tensor) -> Tensor:
    """The unit vector at right angles on the face of the least entry."""
    least = torch.nn.functional.one_hot(x.argmin(-1), x.shape[-1]).to(x.dtype)
    u = t.manifold.proju(x, -least)
    return u / t.manifold.norm(x, u, keepdim=True)


def few_entries(t: Trial, x: Tensor) -> dict[str, Tensor]:
    """From one entry to another, towards the uniform distribution, and next to nothing."""
    two = torch.zeros_like(x)
    two[..., 0], two[..., 1] = 1.0, -1.0
    vectors = {"two entries": two, "uniform": t.manifold.proju(x, torch.ones_like(x))}
    half = {name: 0.5 * t.radius(x) * u / t.manifold.norm(x, u, keepdim=True) for name, u in vectors.items()}
    return {**half, "tiny": t.tangent(x, 1e-9)}


FACES = "a geodesic ends at a face: the exponential map is NaN beyond"

SIMPLEX = Case(
    Simplex(),
    shapes=((3,), (2,), (8,)),
    order=2,
    fraction=0.7,  # of the way to the nearest face, of which laws ask for 1.25 times as much
    spread=0.25,  # laws take steps of a tenth, which lead out of a point next to a face
    isometries=permutations,
    cut=to_nearest_face,
    degenerate=few_entries,
    off=torch.neg,
    bad_shapes=((1,), (0,)),
    tolerance={
        "*": 120,
        "forward_derivatives_match_finite_differences": 1e12,  # truncation: the step over the way to a face
    },
    exempt={
        "infinite_injectivity_radius": "the way to the nearest face",
        "injectivity_radius_is_exact": FACES,
        "extreme_numbers_give_no_nan": FACES,
        "extreme_vectors_transport_without_nan": FACES,
        "uniform_law_is_invariant": "entries are positive, not of mean zero; see the tests of the class",
    },
)
SIMPLEX_ROWS = [SIMPLEX]
