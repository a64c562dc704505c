"""Scores of the triples of a knowledge graph whose entities are points of a gyro space."""

from __future__ import annotations

from torch import Tensor

from torchriemann.manifolds import GyroManifold
from torchriemann.manifolds.precision import in_full_precision

from .inputs import check_coordinates, check_points


def gyro_score(
    manifold: GyroManifold,
    head: Tensor,
    relation: Tensor,
    tail: Tensor,
    weight: Tensor | None = None,
    head_bias: Tensor | None = None,
    tail_bias: Tensor | None = None,
    *,
    relation_first: bool = False,
) -> Tensor:
    r"""How well ``(head, relation, tail)`` fits as a triple of a knowledge graph:

    .. math:: s = -d\bigl(\exp_o(w \odot \log_o h) \oplus r,\; t\bigr)^2 + b_h + b_t

    in normal coordinates: a relation scales, entry by entry, and translates. (Nguyen and Yang 2023, arXiv:2305.04560,
    on positive definite matrices and on subspaces; both orders of the sum are in their models.)

    Args:
        manifold: a `GyroManifold`.
        head: points h, ``*B,P``.
        relation: points r, ``*B,P``.
        tail: points t, ``*B,P``: an item against N candidates is ``*B,1,P`` and ``N,P``.
        weight: w, normal coordinates ``*B,Z`` of the relation; ones if None.
        head_bias: b_h, ``*B``, or None.
        tail_bias: b_t, ``*B``, or None.
        relation_first: ``r (+) h`` in the place of ``h (+) r``: the translation is an isometry of the heads then. The
            same, where the sum is commutative.

    All broadcast over ``*B``. Returns ``*B``; float32 at least inside. The gradient is finite everywhere, and zero to
    rounding where the points coincide.

    Raises ``ValueError`` for a `manifold` without gyro structure, and for points or coordinates of another shape.
    """
    check_points("gyro_score", manifold, [head, relation, tail])
    check_coordinates("gyro_score", manifold, "weight", weight, head)
    return _score(manifold, head, relation, tail, weight, (head_bias, tail_bias), relation_first)


@in_full_precision
def _score(
    manifold: GyroManifold,
    head: Tensor,
    relation: Tensor,
    tail: Tensor,
    weight: Tensor | None,
    biases: tuple[Tensor | None, ...],
    relation_first: bool,
) -> Tensor:
    if weight is not None:
        head = manifold.from_normal(weight * manifold.to_normal(head))
    moved = manifold.gyroadd(relation, head) if relation_first else manifold.gyroadd(head, relation)
    score = -manifold.dist2(moved, tail)
    for bias in biases:
        score = score if bias is None else score + bias
    return score
