r"""The rotation that carries the span of the first p axes to another subspace along the geodesic between them.

Of a basis x with the top block ``C W`` (left polar decomposition, C symmetric, not negative) the aligned basis is
``x W^T = [C; S]``, and the *direct rotation* of the subspace

    R = [[C, -S^T], [S, I - S (I + C)^-1 S^T]] = exp([[0, -B^T], [B, 0]]),    [0; B] the logarithm at these axes.

It is the same for all bases of the subspace, and of all rotations that carry the axes there the one nearest to the
identity; I + C has eigenvalues between 1 and 2. Of a product ``R [y_1; y_2]`` nothing larger than p x p has to be made:
with ``w = S^T y_2`` it is ``[C y_1 - w; y_2 + S (y_1 - (I + C)^-1 w)]``, two thin products.

Where C is singular, one of the principal angles is pi/2, and there are several.

Source: Davis and Kahan 1970, doi 10.1137/0707001, for the direct rotation; its blocks are those of Bendokat, Zimmermann
and Absil, arXiv:2011.13699, section 3, without the square roots of (n-p) x (n-p) matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .matrices import identity_like
from .singular_values import polar_factor_with_values


class Translation(NamedTuple):
    """What of a subspace its direct rotation needs."""

    top: Tensor  # C
    turn: Tensor  # W
    bottom: Tensor  # S W, the last n - p rows of the basis as it was given
    inverse: Tensor  # (I + C)^-1

    @property
    def backwards(self) -> Translation:
        """R^T, the direct rotation of the mirrored subspace [C; -S]."""
        return self._replace(bottom=-self.bottom)


def translation(x: Tensor) -> Translation:
    """The direct rotation of the span of an orthonormal basis. ``*B,n,p``.

    NaN where the top block is singular to rounding, by p eps: there it is not unique.
    """
    top, bottom = blocks(x)
    turn, cosines = polar_factor_with_values(top)
    unique = cosines[..., -1:] > x.shape[-1] * torch.finfo(x.dtype).eps
    turn = torch.where(unique.unsqueeze(-1), turn, torch.nan)
    cosine = top @ turn.mT
    # Not by torch's solve, whose forward derivative is wrong under two levels of vmap.
    return Translation(cosine, turn, bottom, torch.linalg.inv_ex(identity_like(cosine) + cosine)[0])


def blocks(y: Tensor) -> tuple[Tensor, Tensor]:
    """The first p and the last n - p rows of ``*B,n,p``."""
    p = y.shape[-1]
    return y[..., :p, :], y[..., p:, :]


def rotated(by: Translation, top: Tensor, bottom: Tensor) -> tuple[Tensor, Tensor]:
    """Both blocks of R [top; bottom]. ``*B,p,p and *B,n-p,p``."""
    w = by.turn @ (by.bottom.mT @ bottom)
    return by.top @ top - w, bottom + by.bottom @ (by.turn.mT @ (top - by.inverse @ w))


def rotated_along(z: Tensor, functions: Sequence[Tensor], y: Tensor) -> Tensor:
    """R y, where R is the exponential of coordinates ``z = B`` of any length, given by cos(r), sin(r)/r and
    (cos(r) - 1)/r^2 of r = sqrt(z^T z): ``[cos(r) y_1 - w; y_2 + z (sin(r)/r y_1 + (cos(r) - 1)/r^2 z^T y_2)]`` with
    ``w = sin(r)/r z^T y_2``. ``*B,n-p,p; *B,p,p; *B,n,p -> *B,n,p``."""
    cosine, sinc, versine = functions
    top, bottom = blocks(y)
    along = z.mT @ bottom
    return torch.cat([cosine @ top - sinc @ along, bottom + z @ (sinc @ top + versine @ along)], -2)


def rotated_point(by: Translation, y: Tensor) -> Tensor:
    """R y. ``*B,n,p``."""
    return torch.cat(rotated(by, *blocks(y)), -2)
