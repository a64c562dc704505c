"""The operations of a metric that a diffeomorphism carries over from a known manifold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import frechet
from .chart import derivative_along
from .functional.rounding import towards_zero
from .operation import in_full_precision, operation
from .precision import widen
from .pullback_gyro import PullbackGyro


class PullbackMetric(PullbackGyro):
    r"""The operations of the metric that a `chart` f carries over from the manifold `codomain`:
    ``<u, v>_x = <Df u, Df v>_f(x)``.

    f is an isometry by definition, so that everything is what it is on `codomain`, seen through f: ``exp_x(u) =
    f^-1(exp_f(x)(Df u))``, ``dist(x, y) = dist(f(x), f(y))``, curvature, injectivity radius and order of the retraction
    are those of `codomain`, and so is the gyro structure, where it has one, with ``f^-1(origin)`` as the origin.

    A named space inherits this class after the one that states its points (`ndim`, shapes, residuals, `projx`,
    `proju`, `dimension`), and gives `codomain` and `chart`. `Pullback` takes its points from the chart.
    """

    @property
    def retraction_order(self) -> int:
        """That of `codomain`."""
        return self.codomain.retraction_order

    def _image_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        self._raise(self._shape_reason(size))
        batch = len(size) - self.ndim
        return (*size[:batch], *self.chart.base_shape(tuple(size[batch:])))

    # ---- rounding ---------------------------------------------------------------------------------------------

    def round_to(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The nearest numbers; where these are no point, the entries towards zero; where these are none either, f^-1 of
        an image farther from the rim of `codomain` by four eps of `dtype`, which is enough for a chart of condition
        eight. What is no point has no image in `codomain`, or is not f^-1 of that."""
        self.check_operands("round_to", [x])
        x = x.to(widen(x, dtype))
        drawn = self.codomain._drawn_in(self.chart.forward(x), 4 * torch.finfo(dtype).eps)
        rounded = self.chart.inverse(drawn).to(dtype)
        for better in (towards_zero(x, dtype), x.to(dtype)):
            rounded = torch.where(self._holds(better.detach().to(x.dtype), dtype), better, rounded)
        return rounded

    def _holds(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Whether numbers of `dtype` are a point. ``*B,1(,1)``, as points broadcast."""
        image = self.chart.forward(x)
        off = (self.chart.inverse(self.codomain.restore(image)) - x).abs() > self._tolerance(dtype, None) * (
            1 + x.abs()
        )
        found = ~off.flatten(-self.ndim).any(-1) & image.isfinite().flatten(-self.codomain.ndim).all(-1)
        return self._with_keepdim(found, True) & self._stays(image, 0.0)

    def _drawn_in(self, x: Tensor, margin: float) -> Tensor:
        image = self.chart.forward(x)
        return torch.where(self._stays(image, margin), x, self.chart.inverse(self.codomain._drawn_in(image, margin)))

    def _stays(self, image: Tensor, margin: float) -> Tensor:
        """Whether an image is a point of `codomain`, by more than that margin. ``*B,1(,1)``, as points broadcast."""
        return self._with_keepdim(
            (self.codomain._drawn_in(image, margin) == image).flatten(-self.codomain.ndim).all(-1), True
        )

    # ---- metric -----------------------------------------------------------------------------------------------

    @operation
    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """<Df u, Df v> at f(x)."""
        y, *pushed = self.chart.differential(x, *([u] if v is None else [u, v]))
        return self._with_keepdim(self.codomain.inner(y, *pushed), keepdim)

    @operation
    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        """|Df u| at f(x)."""
        return self._with_keepdim(self.codomain.norm(*self.chart.differential(x, u)), keepdim)

    @operation
    def egrad2rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        """Df^-1 of the gradient on `codomain` of the function carried there, of Euclidean gradient (Df^-1)^T g."""
        x, g = torch.broadcast_tensors(x, g)
        y, pull, adjoint = self.chart.linearized(x)
        return pull(self.codomain.egrad2rgrad(y, adjoint(g)))

    @operation
    def ehess2rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor:
        """Df^-1 of the Hessian on `codomain` of the function carried there, whose Euclidean one is (Df^-1)^T h and the
        derivative along Df u of (Df^-1)^T g."""
        x, g, h, u = (t.contiguous() for t in torch.broadcast_tensors(x, g, h, u))  # for dual numbers
        y, w = self.chart.differential(x, u)
        carried, turned = derivative_along(lambda at: self.chart.inverse_adjoint(at, g), y, w)
        hessian = turned + self.chart.inverse_adjoint(y, h)
        return self._pulled(y, self.codomain.ehess2rhess(y, carried, hessian, w))

    @operation
    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """The distance of the images."""
        return self._with_keepdim(self.codomain.dist(self.chart.forward(x), self.chart.forward(y)), keepdim)

    @in_full_precision
    def cdist(self, x: Tensor, y: Tensor) -> Tensor:
        """The distances of the images, each of which is made once."""
        self._check_sets(x, y)
        return self.codomain.cdist(self.chart.forward(x), self.chart.forward(y))

    @operation
    def dist2(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """The squared distance of the images."""
        return self._with_keepdim(self.codomain.dist2(self.chart.forward(x), self.chart.forward(y)), keepdim)

    @operation
    def sectional_curvature(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """That of the image of the plane."""
        return self.codomain.sectional_curvature(*self.chart.differential(x, u, v))

    @in_full_precision
    def injectivity_radius(self, x: Tensor | None = None) -> float | Tensor:
        """That of `codomain` at the image."""
        if x is None:
            return self.codomain.injectivity_radius()
        self.check_operands("injectivity_radius", [x])
        return self.codomain.injectivity_radius(self.chart.forward(x))

    @operation
    def log_is_unique(self, x: Tensor, y: Tensor, *, margin: float = 0.0) -> Tensor:
        """As of the images."""
        return self.codomain.log_is_unique(self.chart.forward(x), self.chart.forward(y), margin=margin)

    @operation
    def exp_is_defined(self, x: Tensor, u: Tensor) -> Tensor:
        """Where it is on `codomain`, and the end is the image of a point."""
        y, w = self.chart.differential(x, u)
        defined = self.codomain.exp_is_defined(y, w)
        return defined & self.chart.inverse_is_defined(self.codomain.expmap(y, w))

    @operation
    def logdet_dexp(self, x: Tensor, u: Tensor) -> Tensor:
        """That of the images: both ends are measured alike."""
        return self.codomain.logdet_dexp(*self.chart.differential(x, u))

    @operation
    def basis(self, x: Tensor) -> Tensor:
        """Df^-1 of that of `codomain` at the image."""
        y, pull, _ = self.chart.linearized(x.unsqueeze(-self.ndim - 1))
        return pull(self.codomain.basis(y.squeeze(-self.codomain.ndim - 1)))

    # ---- geodesics and transports -----------------------------------------------------------------------------

    @operation
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """f^-1 of the exponential of Df u."""
        return self.chart.inverse(self.codomain.expmap(*self.chart.differential(x, u)))

    @operation
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """Df^-1 of the logarithm of the images."""
        at, pull, _ = self.chart.linearized(x)
        return pull(self.codomain.logmap(at, self.chart.forward(y)))

    @operation
    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """f^-1 of the retraction of Df u."""
        return self.chart.inverse(self.codomain.retr(*self.chart.differential(x, u)))

    @operation
    def inverse_retr(self, x: Tensor, y: Tensor) -> Tensor:
        """Df^-1 of that of the images."""
        at, pull, _ = self.chart.linearized(x)
        return pull(self.codomain.inverse_retr(at, self.chart.forward(y)))

    @in_full_precision
    def geodesic(self, x: Tensor, y: Tensor, t: Tensor | float) -> Tensor:
        """f^-1 of the geodesic of the images."""
        self._check_geodesic(x, y, t)
        return self.chart.inverse(self.codomain.geodesic(self.chart.forward(x), self.chart.forward(y), t))

    @operation
    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Df^-1 of the transport of Df v."""
        at, w = self.chart.differential(x, v)
        to, pull, _ = self.chart.linearized(y)
        return pull(self.codomain.transp(at, to, w))

    @operation
    def parallel_transport(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Df^-1 of the parallel transport of Df v."""
        at, w = self.chart.differential(x, v)
        to, pull, _ = self.chart.linearized(y)
        return pull(self.codomain.parallel_transport(at, to, w))

    @operation
    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The exponential of Df u, and Df v transported along it, carried back."""
        y, w = self.chart.inverse_differential(*self.codomain.expmap_transp(*self.chart.differential(x, u, v)))
        return y, w

    @operation
    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The retraction of Df u, and Df v transported to it, carried back."""
        y, w = self.chart.inverse_differential(*self.codomain.retr_transp(*self.chart.differential(x, u, v)))
        return y, w

    @in_full_precision
    def decay(self, x: Tensor, factor: float | Tensor) -> Tensor:
        """f^-1 of what `codomain` makes of the image."""
        self.check_operands("decay", [x])
        return self.chart.inverse(self.codomain.decay(self.chart.forward(x), factor))

    @in_full_precision
    def hyperplane_dist(self, x: Tensor, normal: Tensor, offset: Tensor | float = 0.0) -> Tensor:
        """That of the image."""
        self._check_hyperplane(x, normal, offset)
        return self._gyro_codomain.hyperplane_dist(self.chart.forward(x), normal, offset)

    # ---- means ------------------------------------------------------------------------------------------------

    def _mean(self, x: Tensor, start: Tensor | None, *, w: Tensor, search: frechet.Search) -> Tensor:
        # f^-1 of the mean of the images: differentiable in what the chart depends on, too.
        start = None if start is None else self.chart.forward(start)
        return self.chart.inverse(self.codomain._mean(self.chart.forward(x), start, w=w, search=search))

    def _variance(self, x: Tensor, mean: Tensor | None, *, w: Tensor, search: frechet.Search) -> Tensor:
        mean = None if mean is None else self.chart.forward(mean)
        return self.codomain._variance(self.chart.forward(x), mean, w=w, search=search)

    # ---- laws of points ---------------------------------------------------------------------------------------

    def origin(self, *size: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """f^-1 of the origin of `codomain`."""
        return self._carried(self.codomain.origin(*self._image_size(size), dtype=dtype, device=device))

    def random_uniform(self, *size: int, **kwargs: Any) -> Tensor:
        """f^-1 of the invariant law of `codomain`, which is invariant here."""
        return self._carried(self.codomain.random_uniform(*self._image_size(size), **kwargs))

    def random(self, *size: int, **kwargs: Any) -> Tensor:
        """f^-1 of the law that `codomain` states."""
        return self._carried(self.codomain.random(*self._image_size(size), **kwargs))

    @in_full_precision(points_of="self")
    def _carried(self, y: Tensor) -> Tensor:
        return self.chart.inverse(y)

    def random_tangent(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Df^-1 of that of `codomain` at the image: standard normal in this metric."""
        self.check_operands("random_tangent", [x])
        return self._drawn_at(x, generator)

    @in_full_precision
    def _drawn_at(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        y, pull, _ = self.chart.linearized(x)
        return pull(self.codomain.random_tangent(y, generator))
