"""Parameters that move as one tensor: the flat ones of a dtype, or the points of one manifold and shape."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchriemann.manifolds.base import Manifold

from ..entries import Entry

Derivative = Callable[[Tensor], Tensor]


class Factor(abc.ABC):
    """Parameters that are handled as one tensor. ``*L`` below are leading dimensions, such as those of a history."""

    def __init__(self, entries: list[Entry]) -> None:
        self.parameters = [e.parameter for e in entries]
        self.dtype = self.parameters[0].dtype
        self.numel = sum(p.numel() for p in self.parameters)

    @abc.abstractmethod
    def stack(self, tensors: list[Tensor], lead: int = 0) -> Tensor:
        """One tensor from one of shape ``*L,*p.shape`` a parameter."""

    @abc.abstractmethod
    def unstack(self, stacked: Tensor, lead: int = 0) -> list[Tensor]:
        """The inverse of `stack`."""

    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of a stacked point."""

    @abc.abstractmethod
    def dimension(self) -> int:
        """Dimension of the factor."""

    @abc.abstractmethod
    def squared_injectivity_radius(self, x: Tensor) -> float:
        """The squared injectivity radius, summed over the points; infinite where there is none or it is not known."""

    @abc.abstractmethod
    def restore(self, x: Tensor) -> Tensor: ...

    @abc.abstractmethod
    def project(self, x: Tensor, v: Tensor) -> Tensor:
        """v without what rounding added to it off the tangent space."""

    @abc.abstractmethod
    def rgrad(self, x: Tensor, g: Tensor) -> Tensor: ...

    @abc.abstractmethod
    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Sum of the inner products of all points. ``-> ()``."""

    @abc.abstractmethod
    def lower(self, x: Tensor, v: Tensor) -> Tensor:
        """The covectors of `v`: ``(lower(x, v) * u).sum()`` is the inner product."""

    @abc.abstractmethod
    def move(self, x: Tensor, u: Tensor) -> Tensor: ...

    @abc.abstractmethod
    def arc(self, x: Tensor, d: Tensor, t: float) -> tuple[Tensor, Derivative]:
        """``move(x, t d)``, and the function that takes the Euclidean gradient there to the derivative in t."""

    @abc.abstractmethod
    def transport_along(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """`v`, ``*L`` before the shape of x, carried along ``move(x, u)`` without a change of length."""

    @abc.abstractmethod
    def transport_to(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """`v` carried from x to a y that is near."""

    @abc.abstractmethod
    def rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor: ...


class FlatFactor(Factor):
    """All flat parameters of a dtype as one vector."""

    def stack(self, tensors: list[Tensor], lead: int = 0) -> Tensor:
        return torch.cat([t.reshape(*t.shape[:lead], -1) for t in tensors], -1)

    def unstack(self, stacked: Tensor, lead: int = 0) -> list[Tensor]:
        parts = stacked.split([p.numel() for p in self.parameters], -1)
        return [t.reshape(*t.shape[:lead], *p.shape) for t, p in zip(parts, self.parameters, strict=True)]

    def shape(self) -> tuple[int, ...]:
        return (self.numel,)

    def dimension(self) -> int:
        return self.numel

    def squared_injectivity_radius(self, x: Tensor) -> float:
        return math.inf

    def restore(self, x: Tensor) -> Tensor:
        return x

    def project(self, x: Tensor, v: Tensor) -> Tensor:
        return v

    def rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        return g

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (u * v).sum()

    def lower(self, x: Tensor, v: Tensor) -> Tensor:
        return v

    def move(self, x: Tensor, u: Tensor) -> Tensor:
        return x + u

    def arc(self, x: Tensor, d: Tensor, t: float) -> tuple[Tensor, Derivative]:
        return x + t * d, lambda g: (g * d).sum()

    def transport_along(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return v

    def transport_to(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return v

    def rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor:
        return h


class PointFactor(Factor):
    """The points of one manifold, shape and dtype, ``k,*B,P``.

    With `geodesic` they move by the exponential map and vectors by parallel transport, else by the manifold's
    retraction and its transport, rescaled point by point to keep lengths.
    """

    def __init__(self, entries: list[Entry], geodesic: bool) -> None:
        super().__init__(entries)
        self.manifold: Manifold = entries[0].manifold
        self.geodesic = geodesic

    def stack(self, tensors: list[Tensor], lead: int = 0) -> Tensor:
        return torch.stack(tensors, lead)

    def unstack(self, stacked: Tensor, lead: int = 0) -> list[Tensor]:
        return list(stacked.unbind(lead))

    def shape(self) -> tuple[int, ...]:
        return (len(self.parameters), *self.parameters[0].shape)

    def dimension(self) -> int:
        shape = tuple(self.parameters[0].shape)
        split = len(shape) - self.manifold.ndim
        return len(self.parameters) * math.prod(shape[:split]) * self.manifold.dimension(shape)

    def squared_injectivity_radius(self, x: Tensor) -> float:
        try:
            radius = self.manifold.injectivity_radius(x)
            # Of a space that is not complete it is the way to the rim, which shrinks there; retractions stay inside.
            radius = math.inf if self.manifold.injectivity_radius() == 0 else radius
        except NotImplementedError:
            radius = math.inf
        shape = self.parameters[0].shape
        count = len(self.parameters) * math.prod(shape[: len(shape) - self.manifold.ndim])
        return count * float(torch.as_tensor(radius).min()) ** 2

    def restore(self, x: Tensor) -> Tensor:
        return self.manifold.restore(x)

    def project(self, x: Tensor, v: Tensor) -> Tensor:
        return self.manifold.proju(x, v)

    def rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        return self.manifold.egrad2rgrad(x, g)

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.manifold.inner(x, u, v).sum()

    def lower(self, x: Tensor, v: Tensor) -> Tensor:
        # The metric is bilinear, so its derivative is exact and one call lowers all vectors.
        with torch.enable_grad():
            u = torch.zeros_like(v).requires_grad_()
            return torch.autograd.grad(self.manifold.inner(x, u, v).sum(), u)[0]

    def move(self, x: Tensor, u: Tensor) -> Tensor:
        return self._geodesic(self.manifold.expmap, x, u) if self.geodesic else self.manifold.retr(x, u)

    def arc(self, x: Tensor, d: Tensor, t: float) -> tuple[Tensor, Derivative]:
        if self.geodesic:  # whose velocity is parallel
            y, velocity = self._geodesic(self.manifold.expmap_transp, x, t * d, d)
            return y, lambda g: (g * velocity).sum()
        time = torch.tensor(t, dtype=self.dtype, device=x.device)
        with torch.enable_grad():
            time.requires_grad_()
            y = self.move(x, time * d)
        return y.detach(), lambda g: torch.autograd.grad(y, time, g)[0]

    def _geodesic(self, method: Callable, *args: Tensor) -> Any:
        try:
            return method(*args)
        except NotImplementedError as error:
            raise NotImplementedError(f"{error}; give the optimizer transport='retraction'") from None

    def transport_along(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        if self.geodesic:
            return self._geodesic(self.manifold.expmap_transp, x, u, v)[1]
        y, w = self.manifold.retr_transp(x, u, v)
        before, after = self.manifold.component_inner(x, v), self.manifold.component_inner(y, w)
        positive = after > 0
        return w * torch.where(positive, before / torch.where(positive, after, 1.0), 0.0).sqrt()

    def transport_to(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        try:
            return self.manifold.transp(x, y, v)
        except NotImplementedError:
            raise NotImplementedError(f"{self.manifold!r} has no transp, which finite differences need") from None

    def rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor:
        try:
            return self.manifold.ehess2rhess(x, g, h, u)
        except NotImplementedError as error:
            raise NotImplementedError(f"{error}; give the optimizer hessian='finite_difference'") from None


class ForeignFactor(PointFactor):
    """The points of another library's manifold, which move by its retraction: it offers no parallel transport."""

    def __init__(self, entries: list[Entry]) -> None:
        super().__init__(entries, geodesic=False)

    def restore(self, x: Tensor) -> Tensor:
        # geoopt's retractions end on the manifold, and its projections may cost more than they.
        return x

    def project(self, x: Tensor, v: Tensor) -> Tensor:
        # Against rounding only, and not all of geoopt's projections leave tangent vectors alone.
        return v

    def arc(self, x: Tensor, d: Tensor, t: float) -> tuple[Tensor, Derivative]:
        # Forwards: some of geoopt's retractions write into what the backward pass would need.
        time = torch.tensor(t, dtype=self.dtype, device=x.device)
        y, velocity, *_ = torch.func.jvp(lambda s: self.move(x, s * d), (time,), (torch.ones_like(time),))
        return y, lambda g: (g * velocity).sum()
