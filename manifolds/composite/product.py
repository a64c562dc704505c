"""Products of different manifolds."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..base import Manifold
from ..gyro import is_gyro, without_gyro
from ..operation import operation
from ..turns import ClosedFactor
from .gyro_parts import directed
from .parts import Composite


@final
@dataclass(frozen=True, eq=False)
class Product(Composite):
    r"""The Riemannian product M_1 x ... x M_k. A point is one vector ``*B,N``: the flattened factors side by side.

    `factors` are manifolds and `shapes` the shapes of their points, as in
    ``Product((Sphere(), Stiefel()), ((3,), (5, 2)))``, whose points are ``*B,13``. `split` gives the points of the
    factors, `join` makes a point of them.

    The metric is the sum of the factors' metrics: squared distances add, everything else is factor by factor. Planes
    across factors are flat. The injectivity radius is the smallest of the factors'.

    Under Adam the second moment is one scalar a factor (`component_inner`), the setting of Becigneul and Ganea 2019
    (arXiv:1810.00760): the factors are stepped as they would be as separate parameters. A flat parameter is stepped
    entry by entry, and so is the factor ``Power(Euclidean(), n)`` with points ``n,1``, a product of lines.

    Raises ``ValueError`` if the factors are no manifolds or the shapes none of theirs.
    """

    factors: tuple[Manifold, ...]
    shapes: tuple[tuple[int, ...], ...]

    ndim: ClassVar[int] = 1
    name: ClassVar[str] = "Product"

    def __post_init__(self) -> None:
        for field, value in (("factors", self.factors), ("shapes", self.shapes)):
            if not isinstance(value, Sequence) or len(value) == 0:
                raise ValueError(f"Product: {field} must be a tuple of one entry a factor, got {value!r}")
        if len(self.factors) != len(self.shapes):
            raise ValueError(f"Product: got {len(self.factors)} factors but {len(self.shapes)} shapes")
        for i, (factor, shape) in enumerate(zip(self.factors, self.shapes, strict=True)):
            _check_factor(i, factor, shape)
        object.__setattr__(self, "factors", tuple(self.factors))
        object.__setattr__(self, "shapes", tuple(tuple(shape) for shape in self.shapes))

    @property
    def size(self) -> int:
        """N, the number of coordinates of a point."""
        return sum(self._sizes)

    @property
    def _members(self) -> tuple[Manifold, ...]:
        return self.factors

    @property
    def _sizes(self) -> list[int]:
        return [math.prod(shape) for shape in self.shapes]

    @property
    def restore_every(self) -> int:
        """That of the part that needs it most often."""
        return min(factor.restore_every for factor in self.factors)

    @property
    def retraction_order(self) -> int:
        """The lowest of the factors'."""
        return min(factor.retraction_order for factor in self.factors)

    def _where(self, i: int) -> str:
        return f"factor {i} ({self.factors[i]!r})"

    # ---- points and their factors -----------------------------------------------------------------------------

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """The points (or tangent vectors) of the factors, as views of x where memory allows. ``*B,N -> *B,P_i``."""
        self.check_operands("split", [x])
        return self._parts(x)

    def _parts(self, x: Tensor, shapes: Sequence[tuple[int, ...]] | None = None) -> tuple[Tensor, ...]:
        shapes = self.shapes if shapes is None else shapes
        pieces = x.split([math.prod(shape) for shape in shapes], -1)
        return tuple(p.reshape(p.shape[:-1] + shape) for p, shape in zip(pieces, shapes, strict=True))

    def join(self, *parts: Tensor) -> Tensor:
        """The point (or tangent vector) with these factors, broadcast over the batch. ``*B,P_i -> *B,N``."""
        if len(parts) != len(self.factors):
            raise ValueError(f"Product.join: expected {len(self.factors)} tensors, one a factor, got {len(parts)}")
        batches = []
        for i, (part, shape) in enumerate(zip(parts, self.shapes, strict=True)):
            if not isinstance(part, Tensor) or part.shape[part.dim() - len(shape) :] != shape:
                got = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
                raise ValueError(f"Product.join: {self._where(i)} has points of shape {shape}, got {got}")
            batches.append(part.shape[: part.dim() - len(shape)])
        self.check_batches("Product.join", batches)
        batch = torch.broadcast_shapes(*batches)
        return self._joined([part.expand(batch + shape) for part, shape in zip(parts, self.shapes, strict=True)])

    def _joined(self, parts: Sequence[Tensor], shapes: Sequence[tuple[int, ...]] | None = None) -> Tensor:
        shapes = self.shapes if shapes is None else shapes
        rows = [p.flatten(-len(shape)) for p, shape in zip(parts, shapes, strict=True)]
        if any(row.shape[:-1] != rows[0].shape[:-1] for row in rows):  # a factor may leave out what does not concern it
            batch = torch.broadcast_shapes(*(row.shape[:-1] for row in rows))
            rows = [row.expand(batch + row.shape[-1:]) for row in rows]
        return torch.cat(rows, -1)

    # ---- asking the factors -----------------------------------------------------------------------------------

    def _answers(self, name: str, *arguments: Tensor | None, **options: Any) -> list[Any]:
        none = (None,) * len(self.factors)
        parts = zip(*(none if a is None else self._parts(a) for a in arguments), strict=True)
        asked = enumerate(zip(self.factors, parts, strict=True))
        return [self._ask(factor, f"factor {i}, ", name, *own, **options) for i, (factor, own) in asked]

    def _each(self, name: str, *arguments: Tensor | None, **options: Any) -> Any:
        answers = self._answers(name, *arguments, **options)
        if isinstance(answers[0], tuple):
            return tuple(self._joined(parts) for parts in zip(*answers, strict=True))
        return self._joined(answers)

    def _values(self, name: str, *arguments: Tensor | None, **options: Any) -> Tensor:
        return torch.stack(self._answers(name, *arguments, **options), -1)

    def _framed(self, name: str, *points: Tensor, z: Tensor | None = None, normal: bool = False) -> Tensor:
        shapes = self._normal_shapes(name)
        parts = [self._parts(p) for p in points]
        if z is not None:
            size = sum(map(math.prod, shapes))
            if z.shape[-1] != size:
                raise ValueError(f"Product.{name}: there are {size} normal coordinates, got {z.shape[-1]}")
            parts.append(self._parts(z, shapes))
        asked = enumerate(zip(self.factors, zip(*parts, strict=True), strict=True))
        answers = [self._ask(factor, f"factor {i}, ", name, *own) for i, (factor, own) in asked]
        return self._joined(answers, shapes if normal else None)

    def _directed(self, normal: Tensor) -> tuple[Tensor, list[Tensor]]:
        shapes = self._normal_shapes("hyperplane_dist")
        parts = zip(self._parts(normal, shapes), shapes, strict=True)
        lengths, normals = zip(*(directed(own, len(shape)) for own, shape in parts), strict=True)
        return torch.stack(lengths, -1), list(normals)

    def _hyperplane_dists(self, x: Tensor, normals: list[Tensor], offsets: Tensor) -> Tensor:
        asked = enumerate(zip(self.factors, self._parts(x), normals, offsets.unbind(-1), strict=True))
        found = [self._ask(factor, f"factor {i}, ", "hyperplane_dist", *own) for i, (factor, *own) in asked]
        return torch.stack(torch.broadcast_tensors(*found), -1)

    def _normal_shapes(self, name: str) -> list[tuple[int, ...]]:
        found = []
        for i, (factor, shape) in enumerate(zip(self.factors, self.shapes, strict=True)):
            if not is_gyro(factor):
                raise NotImplementedError(f"Product: factor {i}, {without_gyro(factor, name)}")
            found.append(self._ask(factor, f"factor {i}, ", "normal_shape", shape))
        return found

    def normal_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """One vector, in which those of the factors stand side by side."""
        return (sum(map(math.prod, self._normal_shapes("normal_shape"))),)

    def closed_factors(self, point_shape: tuple[int, ...]) -> tuple[ClosedFactor, ...]:
        """Those of the factors, one after another."""
        found, before = [], 0
        for i, (factor, own) in enumerate(zip(self.factors, self._normal_shapes("closed_factors"), strict=True)):
            closed = self._ask(factor, f"factor {i}, ", "closed_factors", self.shapes[i])
            found += [dataclasses.replace(c, offset=c.offset + before) for c in closed]
            before += math.prod(own)
        return tuple(found)

    def _drawn(self, name: str, size: tuple[int, ...], mean: Tensor | None = None, **options: Any) -> Tensor:
        self._raise(self._shape_reason(size))
        batch = size[:-1]
        means = [{}] * len(self.factors)
        if mean is not None:
            self.check_operands(name, [mean])
            means = [{"mean": part} for part in self._parts(mean)]
        draws = []
        for i, (factor, shape) in enumerate(zip(self.factors, self.shapes, strict=True)):
            draws.append(self._ask(factor, f"factor {i}, ", name, *batch, *shape, **means[i], **options))
        return self._joined(draws)

    # ---- membership -------------------------------------------------------------------------------------------

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        if point_shape[-1] == self.size:
            return None
        shown = " + ".join(str(size) for size in self._sizes)
        return f"points have {shown} = {self.size} coordinates, got {point_shape[-1]}"

    def _worst(self, residuals: list[tuple[Tensor, str]]) -> tuple[Tensor, str]:
        sizes = [float(residual.detach()) for residual, _ in residuals]
        i = max(range(len(sizes)), key=lambda i: math.inf if math.isnan(sizes[i]) else sizes[i])
        return residuals[i][0], f"{residuals[i][1]} of {self._where(i)}"

    def _point_residual(self, x: Tensor) -> tuple[Tensor, str]:
        return self._worst(self._answers("_point_residual", x))

    def _vector_residual(self, x: Tensor, u: Tensor) -> tuple[Tensor, str]:
        return self._worst(self._answers("_vector_residual", x, u))

    def dimension(self, shape: tuple[int, ...]) -> int:
        """The sum of the factors'."""
        return sum(factor.dimension(own) for factor, own in zip(self.factors, self.shapes, strict=True))

    # ---- geometry that is not factor by factor ----------------------------------------------------------------

    @operation
    def component_inner(self, x: Tensor, u: Tensor, v: Tensor | None = None) -> Tensor:
        """The inner product of every factor, repeated over the factor's coordinates. ``-> *B,N``."""
        values = self._answers("component_inner", x, u, v)
        batch = torch.broadcast_shapes(*(a.shape[:-1] for a in (x, u, v) if a is not None))
        return self._joined([a.expand(batch + shape) for a, shape in zip(values, self.shapes, strict=True)])

    def decay(self, x: Tensor, factor: float | Tensor) -> Tensor:
        """The decay of every factor; x itself where none has any."""
        parts = self._parts(x)
        moved = [m.decay(part, factor) for m, part in zip(self.factors, parts, strict=True)]
        return x if all(a is b for a, b in zip(moved, parts, strict=True)) else self._joined(moved)

    @operation
    def sectional_curvature(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """sum_i K_i |u_i ^ v_i|^2 / |u ^ v|^2: the curvature tensor of a product is the sum of the factors'."""
        u, v = self._orthonormal(x, u, v)
        parts = zip(self.factors, *map(self._parts, (x, u, v)), strict=True)
        forms = [self._curvature_form(m, f"factor {i}, ", *own) for i, (m, *own) in enumerate(parts)]
        return torch.stack(forms, -1).sum(-1)

    def injectivity_radius(self, x: Tensor | None = None) -> float | Tensor:
        """The smallest of the factors'."""
        radii = self._answers("injectivity_radius", x)
        numbers = [r for r in radii if not isinstance(r, Tensor)]
        tensors = [r for r in radii if isinstance(r, Tensor)]
        if not tensors:
            return min(numbers)
        smallest = functools.reduce(torch.minimum, tensors)
        return smallest.clamp(max=min(numbers)) if numbers else smallest

    @operation
    def basis(self, x: Tensor) -> Tensor:
        """The bases of the factors one after another, each zero in the other factors."""
        sizes, blocks = self._sizes, []
        for i, b in enumerate(self._answers("basis", x)):
            before = sum(sizes[:i])
            blocks.append(pad(b.flatten(-len(self.shapes[i])), (before, self.size - before - sizes[i])))
        return torch.cat(blocks, -2)


def _check_factor(i: int, factor: object, shape: object) -> None:
    """Raise ``ValueError`` unless `factor` is a manifold and `shape` that of its points."""
    if not isinstance(factor, Manifold):
        shown = f"the class {factor.__name__}" if isinstance(factor, type) else type(factor).__name__
        raise ValueError(f"Product: factors[{i}] must be an instance of Manifold such as Sphere(), got {shown}")
    if not isinstance(shape, (tuple, list)) or not all(isinstance(n, int) for n in shape):
        raise ValueError(f"Product: shapes[{i}] must be a tuple of integers such as (3,), got {shape!r}")
    reason = factor._shape_reason(tuple(shape))
    if reason is None and len(shape) > factor.ndim:
        reason = f"a point has {factor.ndim} dimension(s); for several points of one manifold use Power"
    if reason is not None:
        raise ValueError(f"Product: shapes[{i}] = {tuple(shape)} is no point of {factor!r}: {reason}")
