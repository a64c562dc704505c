"""Flat space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from .frechet import Search
from .functional.broadcasting import over_batch
from .functional.embedded import embedded_inner, embedded_norm
from .functional.flat_pairwise import euclidean_table
from .functional.series import safe_norm
from .gyro import GyroManifold
from .operation import in_full_precision, operation


@final
@dataclass(frozen=True, eq=False)
class Euclidean(GyroManifold):
    """R^n with the standard metric. Points are ``*B,n``; a scalar parameter is a point of R^1, ``*B,1``."""

    ndim: ClassVar[int] = 1
    name: ClassVar[str] = "Euclidean"

    @property
    def retraction_order(self) -> int:
        """3: `retr` is the exponential map."""
        return 3

    def _point_residual(self, x: Tensor) -> tuple[Tensor, str]:
        return (x - x).abs().amax(), "max|x - x|"  # zero unless an entry is infinite or NaN

    def _vector_residual(self, x: Tensor, u: Tensor) -> tuple[Tensor, str]:
        return (u - u).abs().amax(), "max|u - u|"

    def dimension(self, shape: tuple[int, ...]) -> int:
        """n."""
        return shape[-1]

    @operation
    def projx(self, x: Tensor) -> Tensor:
        """The identity."""
        return x.clone()

    @operation
    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """The identity."""
        return over_batch(u, x).clone()

    @operation
    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """The dot product."""
        return embedded_inner(x, u, v, self.ndim, keepdim)

    @operation
    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        """|u|."""
        return embedded_norm(x, u, self.ndim, keepdim)

    @operation
    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """|x - y|."""
        return safe_norm(x - y, keepdim=keepdim)

    @in_full_precision
    def cdist(self, x: Tensor, y: Tensor) -> Tensor:
        """|x_i - y_j|, by torch's own loop where no derivative is wanted."""
        self._check_sets(x, y)
        return euclidean_table(x, y)

    @operation
    def egrad2rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        """The identity."""
        return self.proju(x, g)

    @operation
    def ehess2rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor:
        """The identity in `h`."""
        return self.proju(x, h)

    @operation
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """x + u."""
        return x + u

    @operation
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """y - x."""
        return y - x

    @operation
    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """x + u, and v unchanged."""
        y = x + u
        return y, self.proju(y, v)

    def decay(self, x: Tensor, factor: float | Tensor) -> Tensor:
        """factor x."""
        return factor * x

    @operation
    def sectional_curvature(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like((x + u + v).sum(-1))

    def injectivity_radius(self, x: Tensor | None = None) -> float:
        """Infinite."""
        return float("inf")

    @operation
    def log_is_unique(self, x: Tensor, y: Tensor, *, margin: float = 0.0) -> Tensor:
        """Everywhere."""
        return self._everywhere(x, y)

    @operation
    def logdet_dexp(self, x: Tensor, u: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like((x + u).sum(-1))

    @operation
    def basis(self, x: Tensor) -> Tensor:
        """The coordinate vectors."""
        n = x.shape[-1]
        return torch.eye(n, dtype=x.dtype, device=x.device).expand(*x.shape[:-1], n, n)

    def _mean(self, x: Tensor, start: Tensor | None, *, w: Tensor, search: Search) -> Tensor:
        return (w.unsqueeze(-1) * x).sum(0)

    # ---- gyro structure: the vector space itself --------------------------------------------------------------

    @property
    def is_vector_space(self) -> bool:
        """True."""
        return True

    def normal_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """That of the point."""
        return tuple(point_shape)

    @in_full_precision
    def tangent_from_normal(self, z: Tensor) -> Tensor:
        """The identity."""
        self._check_normal("tangent_from_normal", z)
        return z.clone()

    @operation
    def normal_from_tangent(self, u: Tensor) -> Tensor:
        """The identity."""
        return u.clone()

    @operation
    def gyroadd(self, x: Tensor, y: Tensor) -> Tensor:
        """x + y."""
        return x + y

    @operation
    def gyroinv(self, x: Tensor) -> Tensor:
        """-x."""
        return -x

    @operation
    def gyration(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """z: the addition is associative."""
        return self.proju(x + y, z)

    @operation
    def logmap_frame(self, x: Tensor, y: Tensor) -> Tensor:
        """y - x."""
        return y - x

    @in_full_precision
    def transport_frame(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """z."""
        self.check_operands("transport_frame", [x, y])
        self._check_frame("transport_frame", x, z)
        return self.proju(x + y, z)

    @in_full_precision
    def hyperplane_dist(self, x: Tensor, normal: Tensor, offset: Tensor | float = 0.0) -> Tensor:
        """<x, n/|n|> - offset. ``*B,n; *B,n; *B -> *B``. A `normal` of zero gives NaN."""
        offset = self._check_hyperplane(x, normal, offset)
        return (x * (normal / safe_norm(normal, keepdim=True))).sum(-1) - offset

    # ---- sampling ---------------------------------------------------------------------------------------------

    def origin(self, *size: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """Zero."""
        self._raise(self._shape_reason(size))
        return torch.zeros(size, dtype=dtype, device=device)

    def random_uniform(
        self,
        *size: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """There is no invariant law of mass one: raises."""
        raise self._missing("uniform law: its volume is infinite; call random_normal")

    def random(self, *size: int, **kwargs) -> Tensor:
        """The standard normal law, in every dimension: flat space has no radius beyond which anything is lost."""
        return self.random_normal(*size, **kwargs)
