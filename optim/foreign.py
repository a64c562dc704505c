"""Manifolds of another library, geoopt's, as the optimizers see them: all that it does otherwise is dealt with here.

Labels and groups hold the other library's object. Inside the optimizers `as_manifold` stands for it, so that a name in
a message or in a saved state stays that of the object.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from torchriemann.manifolds import Euclidean, Manifold, Stiefel
from torchriemann.manifolds.parameter import geoopt, tensor_options

_TOLERANCE = 1e-2  # of membership: its projections keep points away from a rim, or iterate
# What some of geoopt's manifolds are the same set of points as, for the questions that optimizers ask by class.
_SAME_POINTS = ((geoopt.Euclidean, Euclidean()), (geoopt.Stiefel, Stiefel()))


def as_manifold(manifold: Any, where: str) -> Manifold | None:
    """`manifold` under this library's contract; None is flat space. Raises ``ValueError`` if it is no manifold."""
    if manifold is None or isinstance(manifold, Manifold):
        return manifold
    if not isinstance(manifold, nn.Module):  # geoopt's manifolds are modules
        raise ValueError(f"{where}: manifold must be a manifold or None, got {type(manifold).__name__}")
    return Foreign(manifold)


def with_the_same_points(manifold: Manifold | None) -> Manifold | None:
    """The manifold of this library that consists of the same points; `manifold` itself where there is none."""
    return manifold.counterpart if isinstance(manifold, Foreign) else manifold


def has_moving_option(manifold: Manifold) -> bool:
    """Is an option of the manifold a tensor that something may move? geoopt keeps fixed numbers in tensors, too."""
    if isinstance(manifold, Foreign):
        return any(p.requires_grad for p in manifold.original.parameters())
    return next(tensor_options(manifold), None) is not None


def check_capturable(manifold: Manifold, where: str) -> None:
    """Raise ``ValueError`` if a captured step cannot move points of `manifold`."""
    if isinstance(manifold, Foreign):
        raise ValueError(
            f"{where} is on {manifold!r} of another library, whose operations may look at values; "
            "capturable=True steps this library's manifolds only"
        )


@final
@dataclass(frozen=True, eq=False, repr=False)
class Foreign(Manifold):
    """One of geoopt's manifolds, `original`, under this library's contract.

    It has what `original` has; what geoopt does not tell, such as an injectivity radius or the Riemannian Hessian,
    raises ``NotImplementedError``. What geoopt calls the transport along an exponential map need not be parallel, so
    `expmap_transp` is not offered: move by `retr_transp`.
    """

    original: Any

    def __repr__(self) -> str:
        return repr(self.original)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Foreign) and self.original == other.original

    def __hash__(self) -> int:
        return hash(self.original)

    @property
    def counterpart(self) -> Manifold:
        """The manifold of this library that consists of the same points, or this one."""
        for theirs, ours in _SAME_POINTS:
            if isinstance(self.original, theirs):
                return ours
        return self

    @property
    def name(self) -> str:  # type: ignore[override]
        """That of `original`."""
        return self.original.name

    @property
    def ndim(self) -> int:  # type: ignore[override]
        """That of `original`."""
        return self.original.ndim

    def dimension(self, shape: tuple[int, ...]) -> int:
        """The number of entries of a point, an upper bound: geoopt's manifolds do not tell."""
        return math.prod(shape[len(shape) - self.ndim :])

    def _not_offered(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{self!r} of another library offers no such operation here")

    expmap_transp = random_uniform = origin = _point_residual = _vector_residual = _not_offered

    # ---- membership -------------------------------------------------------------------------------------------

    def check_point(self, x: Tensor, *, explain: bool = False) -> Any:
        """Is the shape that of a point?"""
        return self.original.check_point(x, explain=explain)

    @torch.no_grad()
    def _point_reason(self, x: Tensor, atol: float | None, rtol: float | None) -> str | None:
        """Why `x` is no point, or None: by what geoopt's projection moves it. Its own tolerance is absolute."""
        if not x.isfinite().all():
            return "x has NaN or infinite entries; remove them, then call projx(x)"
        moved, size = (self.projx(x) - x).abs().max(), x.abs().max()
        tolerance = _TOLERANCE if atol is None else atol
        if moved <= tolerance + (tolerance if rtol is None else rtol) * size:
            return None
        return f"x has max|projx(x) - x| = {moved.item():.2g}; call projx(x)"

    def projx(self, x: Tensor) -> Tensor:
        """geoopt's."""
        return self.original.projx(x)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """geoopt's, which does not leave every tangent vector alone."""
        return self.original.proju(x, u)

    # ---- metric -----------------------------------------------------------------------------------------------

    def egrad2rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        """geoopt's, of a copy: some of its manifolds write into the gradient that they are given."""
        return self.original.egrad2rgrad(x, g.clone())

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """geoopt's, always with its keepdim, without which its ball multiplies every point by every other."""
        value = self.original.inner(_repeated(x, u), u, v, keepdim=True)
        return value if keepdim else value.reshape(value.shape[: value.dim() - self.ndim])

    def component_inner(self, x: Tensor, u: Tensor, v: Tensor | None = None) -> Tensor:
        """geoopt's: one number a point, or a factor of a product."""
        return self.original.component_inner(_repeated(x, u), u, v)

    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        """The root of `inner`, which rounding makes negative where short vectors have an indefinite form."""
        return self.inner(x, u, keepdim=keepdim).clamp(min=0).sqrt()

    # ---- moves ------------------------------------------------------------------------------------------------

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """geoopt's."""
        return self.original.expmap(x, u)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """geoopt's; some of its manifolds raise ``NotImplementedError``."""
        return self.original.logmap(x, y)

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor | float) -> Tensor:
        """From `expmap` and `logmap`: geoopt's own takes its arguments in another order."""
        return self.expmap(x, self._per_point(t, x) * self.logmap(x, y))

    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """geoopt's."""
        return self.original.retr(x, u)

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """geoopt's."""
        return self.original.transp(x, y, v)

    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """geoopt's; `x` and `u` are repeated where there are several `v`."""
        return self.original.retr_transp(_repeated(x, v), _repeated(u, v), v)


def _repeated(x: Tensor, like: Tensor) -> Tensor:
    """`x` once for each of the points or vectors in `like`: not all of geoopt's formulas broadcast."""
    return x if x.shape == like.shape else x.expand_as(like).contiguous()
