"""All parameters of an optimizer as one point of a product of manifolds, its vectors as rows of plain tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ..entries import Entry
from ..foreign import Foreign
from ..groups import POINT_DTYPES, is_flat
from .factors import Factor, FlatFactor, ForeignFactor, PointFactor

LinAlgError = torch.linalg.LinAlgError  # pyright: ignore[reportPrivateImportUsage]


class ProductPoint:
    """The point of the product manifold that the parameters form.

    Points are ``N`` and vectors ``*L,N``, of the widest dtype of the parameters: `N` is the number of their entries.
    Raises ``ValueError`` for parameters on several devices and for half dtypes.
    """

    def __init__(self, entries: list[Entry], *, geodesic: bool = False) -> None:
        entries = [e for e in entries if e.parameter.requires_grad]
        _check_entries(entries)
        self.factors = _factors(entries, geodesic)
        self.parameters = [p for factor in self.factors for p in factor.parameters]
        self.dtype = max((e.parameter.dtype for e in entries), key=lambda d: torch.finfo(d).bits)
        self.eps = max(torch.finfo(e.parameter.dtype).eps for e in entries)
        self._sizes = [factor.numel for factor in self.factors]

    def dimension(self) -> int:
        """Dimension of the product; for manifolds that do not tell theirs, the number of entries."""
        return sum(factor.dimension() for factor in self.factors)

    def injectivity_radii(self, x: Tensor) -> tuple[float, float]:
        """The injectivity radius of every point, taken together as in a product (infinite if one is), and the same with
        the square root of its dimension for a factor where that is less."""
        squares = [f.squared_injectivity_radius(part) for f, part in zip(self.factors, self.unpack(x), strict=True)]
        bounded = [min(square, float(f.dimension())) for f, square in zip(self.factors, squares, strict=True)]
        return math.sqrt(sum(squares)), math.sqrt(sum(bounded))

    # ---- between parameters and rows --------------------------------------------------------------------------

    def pack(self, parts: Iterable[Tensor], lead: int = 0) -> Tensor:
        """One row from the factors' tensors."""
        rows = [t.reshape(*t.shape[:lead], -1).to(self.dtype) for t in parts]
        return rows[0] if len(rows) == 1 else torch.cat(rows, -1)

    def unpack(self, row: Tensor) -> list[Tensor]:
        """The factors' tensors of a row or of rows."""
        parts = zip(row.split(self._sizes, -1), self.factors, strict=True)
        return [t.reshape(*row.shape[:-1], *f.shape()).to(f.dtype) for t, f in parts]

    def gather(self, tensors: dict[Tensor, Tensor], lead: int = 0) -> Tensor:
        """Rows from one tensor ``*L,*p.shape`` a parameter."""
        return self.pack([f.stack([tensors[p] for p in f.parameters], lead) for f in self.factors], lead)

    def scatter(self, rows: Tensor) -> dict[Tensor, Tensor]:
        """The inverse of `gather`."""
        lead = rows.dim() - 1
        parts = zip(self.factors, self.unpack(rows), strict=True)
        return {p: t for f, part in parts for p, t in zip(f.parameters, f.unstack(part, lead), strict=True)}

    def read(self) -> Tensor:
        """The point where the parameters are."""
        return self.gather({p: p.detach() for p in self.parameters})

    def write(self, x: Tensor) -> None:
        """Put the parameters at x. Past autograd: a graph that was built at another point stays usable when the
        parameters are put back there."""
        for p, value in self.scatter(x).items():
            p.data.copy_(value)

    # ---- geometry ---------------------------------------------------------------------------------------------

    def _each(self, method: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """`method` of every factor, on its part of the rows."""
        lead = max(r.dim() for r in rows) - 1
        parts = zip(self.factors, *(self.unpack(r) for r in rows), strict=True)
        return self.pack([method(*part) for part in parts], lead)

    def project(self, x: Tensor, v: Tensor) -> Tensor:
        """Rows without what rounding added to them off the tangent space. ``N, *L,N -> *L,N``."""
        return self._each(lambda f, x, v: f.project(x, v), x, v)

    def rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        """Riemannian from Euclidean gradient."""
        return self._each(lambda f, x, g: f.rgrad(x, g), x, g)

    def rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor:
        """Riemannian Hessian applied to u from the Euclidean gradient and the Euclidean Hessian product h."""
        return self._each(lambda f, x, g, h, u: f.rhess(x, g, h, u), x, g, h, u)

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> float:
        """Inner product of two vectors: the sum over all points."""
        parts = zip(self.factors, *(self.unpack(r) for r in (x, u, v)), strict=True)
        return float(sum(f.inner(x, u, v).to(self.dtype) for f, x, u, v in parts))

    def norm(self, x: Tensor, u: Tensor) -> float:
        """Length of a vector."""
        return max(self.inner(x, u, u), 0.0) ** 0.5

    def lower(self, x: Tensor, v: Tensor) -> Tensor:
        """Covectors: ``lower(x, v) @ u`` is the inner product. ``N, *L,N -> *L,N``."""
        return self._each(lambda f, x, v: f.lower(x, v), x, v)

    def move(self, x: Tensor, u: Tensor) -> Tensor:
        """The point reached from x by u, without drift; not finite where there is none."""
        try:
            return self._each(lambda f, x, u: f.restore(f.move(x, u)), x, u)
        except LinAlgError:
            return torch.full_like(x, torch.nan)

    def arc(self, x: Tensor, d: Tensor, t: float) -> tuple[Tensor, Callable[[Tensor], float]]:
        """``y = move(x, t d)``, and the function that takes the Euclidean gradient at y to the derivative in t.

        The derivative is ``<g, d/dt move(x, t d)>``, by automatic differentiation: exact for every retraction.
        """
        try:
            parts = zip(self.factors, self.unpack(x), self.unpack(d), strict=True)
            arcs = [f.arc(x, d, t) for f, x, d in parts]
            y = self.pack(f.restore(end) for f, (end, _) in zip(self.factors, arcs, strict=True))
        except LinAlgError:
            return torch.full_like(x, torch.nan), lambda g: torch.nan

        def derivative(g: Tensor) -> float:
            return float(sum(part(h).to(self.dtype) for (_, part), h in zip(arcs, self.unpack(g), strict=True)))

        return y, derivative

    def transport_along(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Rows carried along ``move(x, u)``, with their lengths. ``N, N, m,N -> m,N``."""
        return self._each(lambda f, x, u, v: f.transport_along(x, u, v), x, u, v)

    def transport_to(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """v carried from x to a near y."""
        return self._each(lambda f, x, y, v: f.transport_to(x, y, v), x, y, v)


def _factors(entries: list[Entry], geodesic: bool) -> list[Factor]:
    groups: dict[Any, list[Entry]] = {}
    for e in entries:
        p = e.parameter
        key = (None, p.dtype) if is_flat(e.manifold) else (e.manifold, p.shape, p.dtype)
        groups.setdefault(key, []).append(e)
    return [_factor(group, geodesic) for group in groups.values()]


def _factor(entries: list[Entry], geodesic: bool) -> Factor:
    manifold = entries[0].manifold
    if is_flat(manifold):
        return FlatFactor(entries)
    return ForeignFactor(entries) if isinstance(manifold, Foreign) else PointFactor(entries, geodesic)


def _check_entries(entries: list[Entry]) -> None:
    if not entries:
        raise ValueError("no parameter requires a gradient: there is nothing to optimize")
    devices = {e.parameter.device for e in entries}
    if len(devices) > 1:
        raise ValueError(f"all parameters must be on one device, got {sorted(map(str, devices))}")
    for e in entries:
        if e.parameter.dtype not in POINT_DTYPES:
            raise ValueError(f"{e.where} is {e.parameter.dtype}: a line search needs float32 or float64; use .float()")
