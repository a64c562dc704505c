"""The contract: what a manifold is, and everything that follows from its few primitive operations (`Primitives`)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from . import frechet, mean_start
from .checks import expands
from .functional.matrices import check_number
from .functional.pairwise import table
from .functional.series import safe_sqrt
from .operation import in_full_precision, operation
from .options import ByOptions
from .primitives import Primitives
from .weights import per_point, weighted


class Manifold(ByOptions, Primitives):
    """A Riemannian manifold: options only, no parameters, no sizes that a tensor's shape tells.

    Concrete manifolds are frozen dataclasses declared with ``@dataclass(frozen=True, eq=False)``. Two of them are
    equal when their options are: floats and strings by value, tensors and callables by identity.

    Shapes. ``*B`` are leading batch dimensions, the last `ndim` dimensions are the point ``P``. All arguments of an
    operation broadcast over ``*B``. Points are ``x, y``; tangent vectors are ``u, v`` in ambient coordinates.

    Errors. Every operation raises ``ValueError`` on shapes that are not points, before any arithmetic. An operation
    that the space does not have raises ``NotImplementedError`` naming the class. Values are checked by the
    ``check_*`` methods only.
    """

    reversible: ClassVar[bool] = False  # read by geoopt's samplers
    _mean_descends: bool = False  # see `frechet.MeanSpace`

    # ---- derived: metric --------------------------------------------------------------------------------------

    def _with_keepdim(self, value: Tensor, keepdim: bool) -> Tensor:
        """Numbers ``*B``, with `ndim` trailing ones if `keepdim`."""
        return per_point(self, value) if keepdim else value

    @operation
    def component_inner(self, x: Tensor, u: Tensor, v: Tensor | None = None) -> Tensor:
        """`inner` with `ndim` trailing ones, so that it broadcasts against the point."""
        return self.inner(x, u, v, keepdim=True)

    @operation
    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        """Length of `u`; its gradient at zero is zero."""
        return safe_sqrt(self.inner(x, u, keepdim=keepdim))

    @operation
    def dist2(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """Squared geodesic distance, twice differentiable at coincident points."""
        return self.inner(x, self.logmap(x, y), keepdim=keepdim)

    @operation
    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """Geodesic distance. Its gradient has dual norm one, and is zero where the distance is exactly zero."""
        return self.norm(x, self.logmap(x, y), keepdim=keepdim)

    def cdist(self, x: Tensor, y: Tensor) -> Tensor:
        """All distances between two sets of points. ``(*B,N,P), (*B,M,P) -> *B,N,M``.

        Those of `dist`, tile by tile: in little more memory than the arguments and the result take, and so is the
        backward pass, which makes the distances again; with a learnable option, such as a curvature, the allocator
        of a processor may keep some hundred times the result. A point that is NaN has NaN distances, and so have the
        gradients of all points on the other side.
        """
        self._check_sets(x, y)
        return table(self.dist, x, y, self.ndim)

    def _check_sets(self, *sets: Tensor) -> None:
        for points in sets:  # apart: their batches end in N and M
            self.check_operands("cdist", [points])
            if points.dim() == self.ndim:
                raise ValueError(
                    f"{type(self).__name__}.cdist: expected sets of points, *B,N and the point, got one point of shape "
                    f"{tuple(points.shape)}; give it a dimension by unsqueeze(0)"
                )
        ends = {points.shape[points.dim() - self.ndim :] for points in sets}
        if len(ends) > 1:
            raise ValueError(f"{type(self).__name__}.cdist: the points of the two sets differ in shape, {ends}")
        batches = [points.shape[: points.dim() - self.ndim - 1] for points in sets]
        self.check_batches(f"{type(self).__name__}.cdist", batches)

    @operation
    def restore(self, x: Tensor) -> Tensor:
        """Remove the membership drift of a point that rounding moved off by little; cheaper than `projx` where it
        can be. The optimizers call it."""
        return self.projx(x)

    @property
    def restore_every(self) -> int:
        """After how many steps a stepwise optimizer calls `restore`. Rounding moves a point off by about eps a step, at
        random: 64 steps stay below 1e-6 in float32. A space with a rim, beyond which nothing is defined, gives 1."""
        return 64

    def round_to(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The points `x` in `dtype`, as points: in the words of torch ``x.to(dtype)``, but where that would lead out of
        the space the nearest one that `dtype` holds inside. ``*B,P -> *B,P``.

        What is a point in `dtype` already is not moved. Every operation rounds its result so. Here it is the nearest
        numbers: where a space has no rim they are a point up to the rounding of `dtype`, which a space of vectors or
        frames of length one cannot do without.
        """
        self.check_operands("round_to", [x])
        return x.to(dtype)

    def _drawn_in(self, x: Tensor, margin: float) -> Tensor:
        """`x`, but of points beyond the part 1 - `margin` of the way to a rim those there. Here there is no rim."""
        return x

    def decay(self, x: Tensor, factor: float | Tensor) -> Tensor:
        """`x` drawn towards the origin, as decoupled weight decay does by multiplication with `factor` in flat space
        (a number or a 0-dim tensor). `x` itself where that has no meaning: on every compact space."""
        return x

    def _rejected(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """v less its part along u, and <u, u>."""
        uu = self.inner(x, u, keepdim=True)
        along = self.inner(x, u, v, keepdim=True) / torch.where(uu == 0, 1.0, uu)
        return v - along * u, uu

    def _orthonormal(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Orthonormal vectors of the plane of u and v, NaN where they span none: for curvatures, of which a formula
        with the area as a difference keeps no digit of nearly parallel vectors."""
        u, v = u / self.norm(x, u, keepdim=True), v / self.norm(x, v, keepdim=True)
        w = self._rejected(x, u, v)[0]
        length = self.norm(x, w, keepdim=True)
        # A remainder of this size is the rounding of v.
        w = w / torch.where(length > 64 * torch.finfo(x.dtype).eps, length, torch.nan)
        w = self._rejected(x, u, w)[0]  # rounding along u, enlarged by the division
        return u, w / self.norm(x, w, keepdim=True)

    @operation
    def exp_is_defined(self, x: Tensor, u: Tensor) -> Tensor:
        """Whether the geodesic from `x` along `u` stays in the space up to ``expmap(x, u)``. ``-> *B`` (bool).

        Everywhere on a complete space. Where it is not, `expmap` is NaN, and `retr` a point all the same.
        """
        return self._everywhere(x, u)

    def assert_check_exp_is_defined(self, x: Tensor, u: Tensor) -> None:
        """Raise ``ValueError`` unless ``expmap(x, u)`` is defined for every item."""
        lost = ~self.exp_is_defined(x, u)
        if bool(lost.any()):
            self._raise(
                f"the geodesic along u leaves the space before its end in {int(lost.sum())} of {lost.numel()} items; "
                "shorten u below injectivity_radius(x), or move by retr(x, u), which stays inside"
            )

    # ---- derived: geodesics and transports --------------------------------------------------------------------

    def _per_point(self, t: Tensor | float, like: Tensor) -> Tensor:
        return per_point(self, torch.as_tensor(t, dtype=like.dtype, device=like.device))

    def _check_geodesic(self, x: Tensor, y: Tensor, t: Tensor | float) -> None:
        """Raise unless `x`, `y` are points and `t` broadcasts to their batch; say so if `t` came first."""
        where = f"{type(self).__name__}.geodesic"
        order = f"{where}: expected x, y, t in this order, t last; "
        for name, point in (("x", x), ("y", y)):
            if not isinstance(point, Tensor):
                raise ValueError(f"{order}{name} is {point!r}")
        if isinstance(t, Tensor) and self._shape_reason(t.shape) is None:
            ends = [a.shape[a.dim() - self.ndim :] for a in (x, y, t)]
            no_point = self._shape_reason(x.shape) is not None and self._shape_reason(y.shape) is None
            if no_point or ends[0] != ends[1] == ends[2]:
                raise ValueError(f"{order}their shapes are {tuple(x.shape)}, {tuple(y.shape)}, {tuple(t.shape)}")
        self.check_operands("geodesic", [x, y])
        if isinstance(t, Tensor):
            self.check_batches(where, [*(a.shape[: a.dim() - self.ndim] for a in (x, y)), t.shape])

    @in_full_precision
    def geodesic(self, x: Tensor, y: Tensor, t: Tensor | float) -> Tensor:
        """The shortest geodesic from `x` (t = 0) to `y` (t = 1). `t` is a number or broadcasts with ``*B``."""
        self._check_geodesic(x, y, t)
        u = self.logmap(x, y)
        return self.expmap(x, self._per_point(t, u) * u)

    @operation
    def midpoint(self, x: Tensor, y: Tensor) -> Tensor:
        """Half way along the shortest geodesic."""
        return self.geodesic(x, y, 0.5)

    @operation
    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """The retraction chosen in the constructor; the exponential map where there is no choice."""
        return self.expmap(x, u)

    @operation
    def inverse_retr(self, x: Tensor, y: Tensor) -> Tensor:
        """The tangent vector that `retr` sends to `y`."""
        return self.logmap(x, y)

    @operation
    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """The cheapest valid vector transport from `x` to `y`: by default the projection at `y`."""
        return self.proju(y, v)

    @operation
    def parallel_transport(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Levi-Civita transport of `v` along the shortest geodesic from `x` to `y`; an isometry."""
        return self.expmap_transp(x, self.logmap(x, y), v)[1]

    @operation
    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """``y = retr(x, u)`` and ``transp(x, y, v)``, sharing work."""
        y = self.retr(x, u)
        return y, self.transp(x, y, v)

    @operation
    def transp_follow_retr(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """The transported vector of `retr_transp`."""
        return self.retr_transp(x, u, v)[1]

    @operation
    def transp_follow_expmap(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """The transported vector of `expmap_transp`."""
        return self.expmap_transp(x, u, v)[1]

    # ---- derived: coordinates and volume ----------------------------------------------------------------------

    @operation
    def to_coordinates(self, x: Tensor, u: Tensor) -> Tensor:
        """Coordinates of `u` in ``basis(x)``. ``*B,P -> *B,d``."""
        return self.inner(x.unsqueeze(-self.ndim - 1), self.basis(x), u.unsqueeze(-self.ndim - 1))

    @in_full_precision
    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        """The tangent vector with coordinates `z` in ``basis(x)``. ``*B,d -> *B,P``."""
        self.check_operands("from_coordinates", [x])
        vectors = self.basis(x).flatten(-self.ndim)
        # As a product: the vectors of one basis are not repeated for every z.
        return (z.unsqueeze(-2) @ vectors).squeeze(-2).unflatten(-1, x.shape[x.dim() - self.ndim :])

    @operation
    def logdet_dexp(self, x: Tensor, u: Tensor) -> Tensor:
        """log |det d(exp_x)_u| between orthonormal bases: the volume factor of the exponential map. ``-> *B``."""
        x, u = (z.contiguous() for z in torch.broadcast_tensors(x, u))
        basis = self.basis(x)
        directions = basis.movedim(-self.ndim - 1, 0)

        def pushed_along(start: Tensor, along: Tensor) -> Tensor:
            return torch.func.jvp(lambda w: self.expmap(x, w), (start,), (along,))[1]

        if torch.compiler.is_compiling():  # vmap multiplies the nodes of a graph; without it the end comes d times
            pushed = pushed_along(u.expand(directions.shape).contiguous(), directions.contiguous())
        else:
            pushed = torch.func.vmap(lambda along: pushed_along(u, along))(directions)
        y = self.expmap(x, u).unsqueeze(-self.ndim - 1)
        # proju: where points are classes of matrices, a moving representative adds a vertical part.
        pushed = self.proju(y, pushed.movedim(0, -self.ndim - 1))
        rows, columns = pushed.unsqueeze(-self.ndim - 1), pushed.unsqueeze(-self.ndim - 2)
        gram = self.inner(y.unsqueeze(-self.ndim - 1), rows, columns)
        # By the triangle of QR: the forward derivative of torch's slogdet is wrong under two levels of vmap.
        return 0.5 * torch.linalg.qr(gram)[1].diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)

    # ---- derived: means ---------------------------------------------------------------------------------------

    @in_full_precision
    def frechet_mean(
        self,
        x: Tensor,
        weights: Tensor | None = None,
        *,
        start: Tensor | None = None,
        max_iter: int = 100,
        tol: float | None = None,
    ) -> Tensor:
        """Weighted Frechet (Karcher) mean over the first dimension. ``N,*B,P -> *B,P``.

        `weights` (``N`` or ``N,*B``, non-negative) is normalised over ``N``. An item of weight zero is left out, be it
        NaN or off the manifold. The search begins at `start`, a point that broadcasts to ``*B,P`` and is not
        differentiated; by default at the best of a few first guesses, whatever the order of the items.

        Differentiable in `x` and `weights` by the implicit function theorem, which needs a unique mean: a spread below
        half of the injectivity radius. A second derivative raises ``NotImplementedError``; under compile and functorch
        transforms the iteration is unrolled instead. Warns with the residual when `max_iter` steps did not reach `tol`
        (default 100 eps times the spread).
        """
        x, w = weighted(self, x, weights, "frechet_mean")
        start = None if start is None else mean_start.checked_start(self, start, x)
        return self._mean(x, start, w=w, search=frechet.Search(f"{type(self).__name__}.frechet_mean", max_iter, tol))

    @in_full_precision
    def frechet_variance(self, x: Tensor, weights: Tensor | None = None, mean: Tensor | None = None) -> Tensor:
        """Weighted mean of ``dist2(mean, x_i)`` over the first dimension. ``N,*B,P -> *B``.

        `weights` as of `frechet_mean`. `mean` is a point that broadcasts to ``*B,P``, by default the Frechet mean,
        where the variance is least. Differentiable in all three; through a mean that is sought once.
        """
        x, w = weighted(self, x, weights, "frechet_variance")
        if mean is not None:
            self._check_mean("frechet_variance", "mean", mean, x)
        return self._variance(x, mean, w=w, search=frechet.Search(f"{type(self).__name__}.frechet_variance"))

    @in_full_precision
    def karcher_residual(self, x: Tensor, mu: Tensor, weights: Tensor | None = None) -> Tensor:
        """Norm of the weighted mean of ``logmap(mu, x_i)``: zero at the Frechet mean. ``-> *B``."""
        x, w = weighted(self, x, weights, "karcher_residual")
        self._check_mean("karcher_residual", "mu", mu, x)
        w = per_point(self, w)
        x = frechet.in_reach(self, mu, x, w)
        return self.norm(mu, (w * self.logmap(mu, x)).sum(0))

    def _check_mean(self, operation_name: str, name: str, mean: Tensor, x: Tensor) -> None:
        """Raise unless `mean` can be expanded to the means of `x`: with a dimension more it would be taken for one mean
        an item."""
        self.check_operands(operation_name, [x.select(0, 0), mean])
        if not expands(mean.shape, x.shape[1:]):
            raise ValueError(
                f"{type(self).__name__}.{operation_name}: {name} must broadcast to {tuple(x.shape[1:])}, which x has "
                f"after its first dimension, got {tuple(mean.shape)}"
            )

    def _mean(self, x: Tensor, start: Tensor | None, *, w: Tensor, search: frechet.Search) -> Tensor:
        """The mean under weights `w` that broadcast to ``N,*B`` and sum to one."""
        w = per_point(self, w.expand(x.shape[: x.dim() - self.ndim]))
        return frechet.mean_from(self, x, w, mean_start.best_start(self, x, w) if start is None else start, search)

    def _variance(self, x: Tensor, mean: Tensor | None, *, w: Tensor, search: frechet.Search) -> Tensor:
        """The mean squared distance under weights `w` that broadcast to ``N,*B`` and sum to one."""
        w = w.expand(x.shape[: x.dim() - self.ndim])
        mean = frechet.stationary_mean(self, x, w, search) if mean is None else mean
        return (w * self.dist2(mean, frechet.in_reach(self, mean, x, per_point(self, w)))).sum(0)

    def _mean_guess(self, x: Tensor, w: Tensor) -> Tensor:
        """A cheap point near the mean under the weights ``N,*B,1(,1)``: the mean of coordinates, projected."""
        return self.projx((w * x).sum(0))

    def _unit_of_length(self, x: Tensor) -> Tensor | float:
        """Lengths near `x` are rounded to eps times this. ``*B,1(,1)``, or one number."""
        return 1.0

    def _mean_step(self, mu: Tensor, logs: Tensor, w: Tensor) -> Tensor:
        """The step of an iteration for the mean, from the logarithms of the points at its present estimate."""
        return (w * logs).sum(0)

    def _mean_hessian(self, mu: Tensor, x: Tensor, w: Tensor) -> frechet.LinearMap:
        """The Hessian of half the weighted mean squared distance at its minimum `mu`."""
        return frechet.hessian_by_pullback(self, mu, x, w)

    # ---- derived: sampling ------------------------------------------------------------------------------------

    def random(self, *size: int, **kwargs: Any) -> Tensor:
        """The invariant law on a compact space; elsewhere a law that the class states, of points with which every
        operation works in every dimension. `random_normal` takes a deviation."""
        return self.random_uniform(*size, **kwargs)

    def random_tangent(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A standard normal tangent vector: independent N(0, 1) coordinates in an orthonormal basis at `x`.

        The default is for a metric that is the Frobenius inner product on tangent vectors; any other overrides it.
        """
        self.check_operands("random_tangent", [x])
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return self.proju(x, noise)

    def random_normal(
        self,
        *size: int,
        mean: Tensor | None = None,
        std: float | Tensor = 1.0,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Wrapped normal law ``exp_mean(std * z)``, `z` standard normal in the tangent space; `mean` is the origin
        unless given, `std` a number or a tensor over the batch."""
        self._raise(self._shape_reason(size))
        if not isinstance(std, Tensor):
            check_number(f"{type(self).__name__}.random_normal", "std", std)
        batch = size[: len(size) - self.ndim]
        if mean is not None:
            self.check_operands("random_normal", [mean, torch.empty(size, device="meta")])
        for name, shape in (
            ("mean", () if mean is None else mean.shape[: mean.dim() - self.ndim]),
            ("std", _shape(std)),
        ):
            if not expands(shape, batch):
                raise ValueError(
                    f"{type(self).__name__}.random_normal: {name} must broadcast to the batch {tuple(batch)} of the "
                    f"size that is asked for, got {tuple(shape)}"
                )
        x = self.origin(*size, dtype=dtype, device=device) if mean is None else mean.expand(size)
        u = self.random_tangent(x, generator=generator)
        return self.expmap(x, self._per_point(std, u) * u)


def _shape(number: float | Tensor) -> torch.Size:
    return number.shape if isinstance(number, Tensor) else torch.Size()


__all__ = ["Manifold", "operation"]
