"""Gyro structure: normal coordinates at a base point, and the addition that parallel transport makes of them."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import ClassVar, TypeGuard

import torch
from torch import Tensor

from .base import Manifold
from .functional.series import safe_norm
from .operation import in_full_precision, operation
from .turns import ClosedFactor
from .weights import per_point


class GyroManifold(Manifold):
    r"""A manifold with a base point e, normal coordinates there, and a gyro-addition.

    ``x (+) y = exp_x(PT_{e->x} log_e y)``, ``(-)x = exp_e(-log_e x)``, ``t (*) x = exp_e(t log_e x)`` (Nguyen 2022,
    "The Gyro-Structure of Some Matrix Manifolds"; Ungar 2008, doi 10.1142/6625, for the laws that they obey).

    Coordinates. Tangent vectors at the origin are in the manifold's own ambient coordinates (`expmap0`, `logmap0`,
    `inner0`). *Normal* coordinates z are orthonormal at the origin: ``dist(origin, from_normal(z)) == |z|`` below the
    injectivity radius. *Frame* coordinates at x are normal coordinates transported from the origin to x; they lose no
    digit where ambient vectors grow without bound. Both have the shape ``normal_shape(point_shape)``.

    A class defines `normal_shape`, `tangent_from_normal` and `normal_from_tangent`; all else follows from the contract,
    and closed forms override it.
    """

    normal_ndim: ClassVar[int] = 1  # dimensions of the normal coordinates of one point

    @property
    def has_gyro_structure(self) -> bool:
        """True, except of a composite with a part that has none: there these operations raise NotImplementedError."""
        return True

    @property
    def is_vector_space(self) -> bool:
        """Whether ``x (+) y`` adds normal coordinates, ``from_normal(to_normal(x) + to_normal(y))``, everywhere: then
        they are an isometry with a flat space, in which means and distances are those of vectors."""
        return False

    # ---- primitives -------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def normal_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the normal coordinates of one point."""

    @abc.abstractmethod
    def tangent_from_normal(self, z: Tensor) -> Tensor:
        """The tangent vector at the origin with orthonormal coordinates `z`."""

    @abc.abstractmethod
    def normal_from_tangent(self, u: Tensor) -> Tensor:
        """Orthonormal coordinates of a tangent vector `u` at the origin."""

    def closed_factors(self, point_shape: tuple[int, ...]) -> tuple[ClosedFactor, ...]:
        """The factors with closed geodesics, spaces of constant curvature K > 0: around them a wrapped law turns."""
        return ()

    # ---- at the origin ----------------------------------------------------------------------------------------

    def _origin_of(self, x: Tensor) -> Tensor:
        return self.origin(*x.shape[x.dim() - self.ndim :], dtype=x.dtype, device=x.device)

    @operation
    def expmap0(self, u: Tensor) -> Tensor:
        """``expmap(origin, u)``."""
        return self.expmap(self._origin_of(u), u)

    @operation
    def logmap0(self, x: Tensor) -> Tensor:
        """``logmap(origin, x)``."""
        return self.logmap(self._origin_of(x), x)

    @operation
    def inner0(self, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """``inner(origin, u, v)``."""
        return self.inner(self._origin_of(u), u, v, keepdim=keepdim)

    @operation
    def dist0(self, x: Tensor, *, keepdim: bool = False) -> Tensor:
        """``dist(origin, x)``, the gyro-norm."""
        return self.dist(self._origin_of(x), x, keepdim=keepdim)

    @in_full_precision
    def from_normal(self, z: Tensor) -> Tensor:
        """The point with normal coordinates `z`."""
        self._check_normal("from_normal", z)
        return self.expmap0(self.tangent_from_normal(z))

    @operation
    def to_normal(self, x: Tensor) -> Tensor:
        """Normal coordinates of `x`."""
        return self.normal_from_tangent(self.logmap0(x))

    # ---- gyro-operations --------------------------------------------------------------------------------------

    @operation
    def gyroadd(self, x: Tensor, y: Tensor) -> Tensor:
        """``x (+) y``: left translation by x, an isometry in y."""
        return self.expmap(x, self.parallel_transport(self._origin_of(x), x, self.logmap0(y)))

    @in_full_precision
    def translated(self, x: Tensor, z: Tensor) -> Tensor:
        """``from_normal(z) (+) x``: the translation along the geodesic from the origin that `z` describes. A class says
        so where it goes on smoothly beyond the injectivity radius, at which the point alone no longer tells it."""
        self._check_frame("translated", x, z)
        return self.gyroadd(self.from_normal(z), x)

    @operation
    def gyroinv(self, x: Tensor) -> Tensor:
        """``(-)x``: the geodesic reflection of x in the origin."""
        return self.expmap0(-self.logmap0(x))

    @in_full_precision
    def gyroscale(self, t: Tensor | float, x: Tensor) -> Tensor:
        """``t (*) x``: the point t times as far from the origin. `t` has the shape ``*B`` or is a number."""
        self._check_beside("gyroscale", "t", t, x)
        return self.expmap0(self._per_point(t, x) * self.logmap0(x))

    @in_full_precision
    def clip_radius(self, x: Tensor, r: Tensor | float) -> Tensor:
        """The point on the geodesic from the origin to `x` that is at most `r` from the origin. `r` >= 0 has the shape
        ``*B`` or is a number.

        A point that is no farther is `x` itself, to the bit; a farther one is ``from_normal(r z/|z|)`` with z its
        normal coordinates. Of a composite, |z| is the distance in it, so that the whole point is clipped and not each
        part. It keeps features away from where gradients vanish (Guo et al. 2022, arXiv:2107.11472, who clip z).
        Derivatives are finite everywhere; where |z| = r they are those of the identity.

        Raises ``ValueError`` if `r` is a negative number or does not broadcast.
        """
        where = self._check_beside("clip_radius", "r", r, x)
        if not isinstance(r, Tensor) and not r >= 0:
            raise ValueError(f"{where}: r must be a distance of at least 0, got {r}")
        z = self.to_normal(x)
        dims = tuple(range(-self.normal_ndim, 0))
        r = torch.as_tensor(r, dtype=z.dtype, device=z.device)
        length, limit = safe_norm(z, dim=dims, keepdim=True), r.reshape(r.shape + (1,) * self.normal_ndim)
        inside = length <= limit
        scale = torch.where(inside, 0.0, limit / torch.where(inside, 1.0, length))  # of what is not taken: the origin
        clipped = self.from_normal(scale * z)
        inside = inside.reshape(inside.shape[: inside.dim() - self.normal_ndim])
        return torch.where(per_point(self, inside), x, clipped)

    @operation
    def gyration(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """``gyr[x, y] z = (-)(x (+) y) (+) (x (+) (y (+) z))`` of points: a rotation about the origin."""
        return self.gyroadd(self.gyroinv(self.gyroadd(x, y)), self.gyroadd(x, self.gyroadd(y, z)))

    # ---- frame coordinates ------------------------------------------------------------------------------------

    @in_full_precision
    def expmap_frame(self, x: Tensor, z: Tensor) -> Tensor:
        """The exponential at `x` of the tangent vector with frame coordinates `z`: ``x (+) from_normal(z)``."""
        self._check_frame("expmap_frame", x, z)
        return self.gyroadd(x, self.from_normal(z))

    @operation
    def logmap_frame(self, x: Tensor, y: Tensor) -> Tensor:
        """Frame coordinates of ``logmap(x, y)``: ``to_normal((-)x (+) y)``."""
        return self.to_normal(self.gyroadd(self.gyroinv(x), y))

    @in_full_precision
    def tangent_from_frame(self, x: Tensor, z: Tensor) -> Tensor:
        """The tangent vector at `x` with frame coordinates `z`."""
        self._check_frame("tangent_from_frame", x, z)
        return self.parallel_transport(self._origin_of(x), x, self.tangent_from_normal(z))

    @operation
    def frame_from_tangent(self, x: Tensor, u: Tensor) -> Tensor:
        """Frame coordinates of the tangent vector `u` at `x`."""
        return self.normal_from_tangent(self.parallel_transport(x, self._origin_of(x), u))

    @in_full_precision
    def transport_frame(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Parallel transport from `x` to `y` in frame coordinates: a rotation of `z`."""
        self.check_operands("transport_frame", [x, y])
        self._check_frame("transport_frame", x, z)
        return self.frame_from_tangent(y, self.parallel_transport(x, y, self.tangent_from_frame(x, z)))

    def log_and_exp(self, x: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """The maps ``y -> log_x y`` and ``u -> exp_x u`` for vectors u in linear coordinates of the tangent space at
        `x`, of a shape and a basis that the class chooses: for steps from one point by the mean of such vectors, where
        one decomposition of `x` serves both. Here frame coordinates."""
        return lambda y: self.logmap_frame(x, y), lambda u: self.expmap_frame(x, u)

    def recentred(self, x: Tensor, y: Tensor) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
        """``dist2(x, y)``, ``*B``, and the map that gives ``b (+) t (*) ((-)x (+) y)`` of the normal coordinates of a
        point b and of a number ``t >= 0``, ``*B``: for layers that need both, where one decomposition serves all. In
        the dtype of `x`."""
        z = self.logmap_frame(x, y)
        squares = z.square().flatten(-self.normal_ndim).sum(-1)

        def placed(b: Tensor, t: Tensor) -> Tensor:
            return self._placed(b, t.reshape(t.shape + (1,) * self.normal_ndim) * z)

        return squares, placed

    def _placed(self, b: Tensor, z: Tensor) -> Tensor:
        """``from_normal(b) (+) from_normal(z)``."""
        return self.expmap_frame(self.from_normal(b), z)

    # ---- hyperplanes ------------------------------------------------------------------------------------------

    def hyperplane_dist(self, x: Tensor, normal: Tensor, offset: Tensor | float = 0.0) -> Tensor:
        """Signed distance of `x` to the hyperplane that stands at right angles on the geodesic from the origin in the
        direction `normal`, which it meets at the signed distance `offset`; the class says what a hyperplane is."""
        raise self._missing("hyperplane_dist")

    # ---- shapes -----------------------------------------------------------------------------------------------

    def _check_normal(self, operation_name: str, z: Tensor) -> None:
        """Raise unless `z` is a real tensor with as many dimensions as normal coordinates have."""
        where = f"{type(self).__name__}.{operation_name}"
        if not isinstance(z, Tensor) or not z.is_floating_point():
            got = z.dtype if isinstance(z, Tensor) else type(z).__name__
            raise ValueError(f"{where}: normal coordinates must be a floating-point tensor, got {got}")
        if z.dim() < self.normal_ndim:
            raise ValueError(f"{where}: normal coordinates need {self.normal_ndim} dimension(s), got {tuple(z.shape)}")

    def _check_beside(self, operation_name: str, name: str, number: Tensor | float, x: Tensor) -> str:
        """Raise unless `x` are points and the `number` is one, or broadcasts with their batch; where, for messages."""
        where = f"{type(self).__name__}.{operation_name}"
        if not isinstance(x, Tensor):
            order = "t, x" if name == "t" else f"x, {name}"
            raise ValueError(f"{where}: expected {order} in this order, x a tensor of points; x is {x!r}")
        self.check_operands(operation_name, [x])
        if isinstance(number, Tensor):
            self.check_batches(where, [number.shape, x.shape[: x.dim() - self.ndim]])
        return where

    def _check_frame(self, operation_name: str, x: Tensor, z: Tensor) -> None:
        """Raise unless `z` is shaped like normal coordinates of the point `x` and broadcasts with it."""
        self.check_operands(operation_name, [x])
        self._check_normal(operation_name, z)
        where = f"{type(self).__name__}.{operation_name}"
        want = tuple(self.normal_shape(tuple(x.shape[x.dim() - self.ndim :])))
        if tuple(z.shape[z.dim() - len(want) :]) != want:
            raise ValueError(
                f"{where}: normal coordinates of points {tuple(x.shape)} end in {want}, got {tuple(z.shape)}"
            )
        self.check_batches(where, [x.shape[: x.dim() - self.ndim], z.shape[: z.dim() - len(want)]])

    def _check_hyperplane(self, x: Tensor, normal: Tensor, offset: Tensor | float) -> Tensor:
        """Raise unless the three broadcast; the offset as a tensor."""
        self._check_frame("hyperplane_dist", x, normal)
        offset = torch.as_tensor(offset, dtype=x.dtype, device=x.device)
        batches = [x.shape[: x.dim() - self.ndim], normal.shape[: normal.dim() - self.normal_ndim], offset.shape]
        self.check_batches(f"{type(self).__name__}.hyperplane_dist", batches)
        return offset


def without_gyro(manifold: Manifold, operation_name: str) -> NotImplementedError:
    """The error of a manifold on which there are no gyro-operations, this one among them."""
    lacking = "normal coordinates" if operation_name == "normal_shape" else operation_name
    return NotImplementedError(f"{manifold!r} has no gyro structure, hence no {lacking}")


def is_gyro(manifold: Manifold) -> TypeGuard[GyroManifold]:
    """Whether gyro-operations exist on `manifold`."""
    return isinstance(manifold, GyroManifold) and manifold.has_gyro_structure
