"""Where the search for a mean begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .checks import expands
from .weights import per_point, taken

if TYPE_CHECKING:
    from .base import Manifold


def checked_start(manifold: Manifold, start: Tensor, x: Tensor) -> Tensor:
    """`start` over the batch of the means of `x`; raise unless it is a point that can be expanded to it."""
    manifold.check_operands("frechet_mean", [x.select(0, 0), start])
    if not expands(start.shape, x.shape[1:]):
        raise ValueError(
            f"{type(manifold).__name__}.frechet_mean: start must broadcast to {tuple(x.shape[1:])}, which x has after "
            f"its first dimension, got {tuple(start.shape)}"
        )
    return start.detach().expand(x.shape[1:])


@torch.no_grad()
def mean_guess(manifold: Manifold, x: Tensor, w: Tensor) -> Tensor:
    """The manifold's first guess of the mean under weights that sum to one over the first dimension, without a
    derivative. ``N,*B,P; N,*B -> *B,P``."""
    return manifold._mean_guess(x, per_point(manifold, w))


@torch.no_grad()
def best_start(manifold: Manifold, x: Tensor, w: Tensor) -> Tensor:
    """The manifold's first guess, or the item nearest to it if the mean squared distance from there is less; of two
    items the one of the greater weight, from which one step leads to the mean. ``N,*B,P; N,*B,1(,1) -> *B,P``.

    The items are put in an order of their own first, so that no tie and no rounding depends on how they came.
    """
    x, w = _in_order(manifold, x.detach(), w.detach())
    shares = w.reshape(x.shape[: x.dim() - manifold.ndim])
    if len(x) <= 2:
        return taken(x, shares.argmax(0, keepdim=True)).squeeze(0)
    guess = manifold._mean_guess(x, w)

    def squares(at: Tensor) -> Tensor:
        found = manifold.dist2(at, x)
        return torch.where(found.isnan(), torch.inf, found)

    def cost(squares: Tensor) -> Tensor:
        return torch.where(shares == 0, 0.0, shares * squares).sum(0)

    around = squares(guess)
    item = taken(x, torch.where(shares == 0, torch.inf, around).argmin(0, keepdim=True)).squeeze(0)
    return torch.where(per_point(manifold, cost(squares(item)) < cost(around)), item, guess)


def _in_order(manifold: Manifold, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Points and weights by a number that the coordinates have in common with no other's, items of weight zero last."""
    rows = x.flatten(-manifold.ndim)
    # Cosines of integers have no rational relation, by which different points could get one number.
    waves = torch.arange(1, rows.shape[-1] + 1, device=x.device).to(x.dtype).cos()
    order = torch.where(w.reshape(rows.shape[:-1]) == 0, torch.inf, (rows * waves).sum(-1)).argsort(0)
    return taken(x, order), taken(w, order)
