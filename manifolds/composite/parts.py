"""What manifolds that are made of others have in common: every operation asks the manifolds inside."""

from __future__ import annotations

import abc
from typing import Any

import torch
from torch import Tensor

from ..base import Manifold
from ..frechet import Search
from ..functional.series import safe_norm
from ..gyro import GyroManifold, without_gyro
from ..operation import in_full_precision, operation
from .gyro_parts import GyroComposite


class Composite(GyroComposite):
    """A manifold made of parts: other manifolds, whose formulas it uses and does not repeat.

    A subclass states how an operation reaches its parts: `_each` for answers that are points or vectors, `_values` for
    answers that are numbers, `_drawn` for samples. The metric is that of the Riemannian product unless overridden.
    An operation that a part does not have raises ``NotImplementedError`` naming both. Normal and frame coordinates of
    the parts stand side by side, and gyro-operations are part by part, if every part has them.
    """

    # ---- what a composite states, beside the hooks of GyroComposite -------------------------------------------

    @abc.abstractmethod
    def _drawn(self, name: str, size: tuple[int, ...], **options: Any) -> Tensor:
        """The points of shape `size` that the method `name` of the parts draws, put together."""

    def _per_part(self, number: float | Tensor) -> float | Tensor:
        """A number or a tensor ``*B`` in the shape that a part broadcasts against its own batch."""
        return number

    def _ask(self, part: Manifold, where: str, name: str, *arguments: Any, **options: Any) -> Any:
        if name in vars(GyroManifold) and not isinstance(part, GyroManifold):
            raise NotImplementedError(f"{type(self).__name__}: {where}{without_gyro(part, name)}")
        try:
            return getattr(part, name)(*arguments, **options)
        except NotImplementedError as error:
            raise NotImplementedError(f"{type(self).__name__}: {where}{error}") from error

    # ---- part by part -----------------------------------------------------------------------------------------

    @operation
    def projx(self, x: Tensor) -> Tensor:
        """The projection of every part."""
        return self._each("projx", x)

    def round_to(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The rounding of every part."""
        self.check_operands("round_to", [x])
        return self._each("round_to", x, dtype=dtype)

    def _drawn_in(self, x: Tensor, margin: float) -> Tensor:
        return self._each("_drawn_in", x, margin=margin)

    @operation
    def restore(self, x: Tensor) -> Tensor:
        """The restoration of every part."""
        return self._each("restore", x)

    def decay(self, x: Tensor, factor: float | Tensor) -> Tensor:
        """The decay of every part."""
        return self._each("decay", x, factor=factor)

    @operation
    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """The projection of every part."""
        return self._each("proju", x, u)

    @operation
    def egrad2rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        """The gradient of every part."""
        return self._each("egrad2rgrad", x, g)

    @operation
    def ehess2rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor:
        """The Hessian of every part: `h` already holds what one part's vector does to another part's gradient."""
        return self._each("ehess2rhess", x, g, h, u)

    @operation
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """The exponential map of every part."""
        return self._each("expmap", x, u)

    @operation
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """The logarithm of every part."""
        return self._each("logmap", x, y)

    @operation
    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The exponential map and the parallel transport of every part."""
        return self._each("expmap_transp", x, u, v)

    @operation
    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """The retraction of every part."""
        return self._each("retr", x, u)

    @operation
    def inverse_retr(self, x: Tensor, y: Tensor) -> Tensor:
        """The inverse retraction of every part."""
        return self._each("inverse_retr", x, y)

    @operation
    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The retraction and the transport of every part."""
        return self._each("retr_transp", x, u, v)

    @operation
    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """The transport of every part."""
        return self._each("transp", x, y, v)

    @operation
    def parallel_transport(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """The parallel transport of every part."""
        return self._each("parallel_transport", x, y, v)

    @in_full_precision
    def geodesic(self, x: Tensor, y: Tensor, t: Tensor | float) -> Tensor:
        """The geodesic of every part."""
        self._check_geodesic(x, y, t)
        return self._each("geodesic", x, y, t=self._per_part(t))

    def _mean(self, x: Tensor, start: Tensor | None, *, w: Tensor, search: Search) -> Tensor:
        # The mean of every part: the squared distance is a sum, so its minimum is found part by part.
        return self._each("_mean", x, start, w=self._per_part(w), search=search)

    def _variance(self, x: Tensor, mean: Tensor | None, *, w: Tensor, search: Search) -> Tensor:
        return self._values("_variance", x, mean, w=self._per_part(w), search=search).sum(-1)

    # ---- the product metric -----------------------------------------------------------------------------------

    @operation
    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """The sum over the parts."""
        return self._with_keepdim(self._values("inner", x, u, v).sum(-1), keepdim)

    @operation
    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        """The root of the sum of squares over the parts, without underflow."""
        return self._with_keepdim(safe_norm(self._values("norm", x, u)), keepdim)

    @operation
    def dist2(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """The sum over the parts."""
        return self._with_keepdim(self._values("dist2", x, y).sum(-1), keepdim)

    @operation
    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """The root of the sum of squares over the parts; infinite where one of them is."""
        values = self._values("dist", x, y)
        far = values.isinf()
        near = safe_norm(torch.where(far, 0.0, values))
        return self._with_keepdim(torch.where(far.any(-1), values.detach().sum(-1), near), keepdim)

    @operation
    def log_is_unique(self, x: Tensor, y: Tensor, *, margin: float = 0.0) -> Tensor:
        """Where it is in every part."""
        return self._values("log_is_unique", x, y, margin=margin).all(-1)

    @operation
    def exp_is_defined(self, x: Tensor, u: Tensor) -> Tensor:
        """Where it is in every part."""
        return self._values("exp_is_defined", x, u).all(-1)

    @operation
    def logdet_dexp(self, x: Tensor, u: Tensor) -> Tensor:
        """The sum over the parts."""
        return self._values("logdet_dexp", x, u).sum(-1)

    def _curvature_form(self, part: Manifold, where: str, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """R(u, v, v, u) = K |u ^ v|^2 of one part. ``*B,P -> *B``; zero where u and v are parallel."""
        if part.dimension(tuple(x.shape)) < 2:
            return torch.zeros_like((x + u + v).flatten(-part.ndim).sum(-1))
        w, uu = part._rejected(x, u, v)
        ww, vv = part.inner(x, w, keepdim=True), part.inner(x, v, keepdim=True)
        # Here w is the rounding of v, and spans no plane with u. What is left out is of the order of its square.
        flat = (uu == 0) | (ww <= (64 * torch.finfo(x.dtype).eps) ** 2 * vv)
        # The part may divide by the area. Its derivative is selected away, not multiplied by zero.
        x, w, u, uu, ww = (torch.where(flat, a.detach(), a) for a in (x, w, u, uu, ww))
        K = self._ask(part, where, "sectional_curvature", x, u / uu.sqrt(), w / ww.sqrt())
        flat, area = (a.reshape(K.shape) for a in (flat, uu * ww))
        return torch.where(flat, 0.0, K) * area

    # ---- sampling ---------------------------------------------------------------------------------------------

    def origin(self, *size: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """The origin of every part."""
        return self._drawn("origin", size, dtype=dtype, device=device)

    def random(self, *size: int, **kwargs: Any) -> Tensor:
        """Independent draws from the `random` of every part."""
        return self._drawn("random", size, **kwargs)

    def random_uniform(
        self,
        *size: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Independent uniform draws in every part."""
        return self._drawn("random_uniform", size, generator=generator, dtype=dtype, device=device)

    def random_normal(self, *size: int, mean: Tensor | None = None, std: float | Tensor = 1.0, **kwargs: Any) -> Tensor:
        """Independent normal draws in every part, all of spread `std`."""
        return self._drawn("random_normal", size, mean=mean, std=self._per_part(std), **kwargs)

    def random_tangent(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Independent standard normal vectors in every part."""
        self.check_operands("random_tangent", [x])
        return self._each("random_tangent", x, generator=generator)
