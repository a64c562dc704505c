"""What a space states itself, before anything is derived from it."""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from .checks import CheckedManifold


class Primitives(CheckedManifold):
    """The part of the contract that a space writes: its primitive operations, and those that only some spaces have.

    Shapes and errors are those of `Manifold`.
    """

    # ---- primitives -------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def projx(self, x: Tensor) -> Tensor:
        """Nearest point of the manifold (or the projection that the class states). ``*B,P -> *B,P``."""

    @abc.abstractmethod
    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """Orthogonal projection of an ambient `u` on the tangent space at `x`; the identity on tangent vectors."""

    @abc.abstractmethod
    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """Riemannian inner product of `u` and `v` (of `u` with itself when `v` is None). ``-> *B``."""

    @abc.abstractmethod
    def egrad2rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        """Riemannian gradient of a function whose Euclidean gradient is `g`.

        Law: ``inner(x, egrad2rgrad(x, g), v) == (g * v).sum()`` for every tangent `v`. `g` is never written.
        """

    @abc.abstractmethod
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """The exponential map: the end of the geodesic that starts at `x` with velocity `u`."""

    @abc.abstractmethod
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """The logarithm: the shortest `u` with ``expmap(x, u) == y``. At a cut locus one of the shortest."""

    @abc.abstractmethod
    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """``expmap(x, u)`` and the parallel transport of `v` along that geodesic. ``-> (y, w)``."""

    @abc.abstractmethod
    def random_uniform(
        self,
        *size: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """A draw from the invariant law. `size` is the whole shape, point dimensions included."""

    @abc.abstractmethod
    def origin(self, *size: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """The base point, repeated over the batch dimensions of `size` (the whole shape)."""

    @abc.abstractmethod
    def dimension(self, shape: tuple[int, ...]) -> int:
        """Dimension of the manifold whose points have the trailing dimensions of `shape`."""

    # ---- operations that only some spaces have ----------------------------------------------------------------

    def _missing(self, operation_name: str) -> NotImplementedError:
        return NotImplementedError(f"{self!r} has no {operation_name}")

    @property
    def retraction_order(self) -> int:
        """Order of contact of `retr` with the geodesics of this metric: 1, 2, or 3 for the exponential map itself."""
        raise self._missing("retraction_order")

    def ehess2rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor:
        """Riemannian Hessian applied to `u`, from the Euclidean gradient `g` and Euclidean Hessian product `h`."""
        raise self._missing("ehess2rhess")

    def sectional_curvature(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Sectional curvature of the plane spanned by the tangent vectors `u` and `v`. ``-> *B``."""
        raise self._missing("sectional_curvature")

    def injectivity_radius(self, x: Tensor | None = None) -> float | Tensor:
        """Largest radius below which `expmap` is injective, in units of this metric's length."""
        raise self._missing("injectivity_radius")

    def log_is_unique(self, x: Tensor, y: Tensor, *, margin: float = 0.0) -> Tensor:
        """True where `y` is nearer to `x` than the cut locus by more than `margin`. ``-> *B`` (bool)."""
        raise self._missing("log_is_unique")

    def basis(self, x: Tensor) -> Tensor:
        """Orthonormal basis of the tangent space at `x`. ``*B,P -> *B,d,P``."""
        raise self._missing("basis")
