"""What all spaces of constant curvature share, whatever their coordinates."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import frechet
from ..functional.rows import dot
from ..functional.series import safe_norm, safe_sqrt
from ..functional.signed_trigonometry import (
    asin_ratio_k,
    atan_ratio_k,
    cos_k,
    log_sin_ratio_k,
    positive,
    sin_ratio_k,
    without_turns,
)
from ..functional.tracing import values_readable
from ..gyro import GyroManifold
from ..operation import in_full_precision, operation
from ..turns import ClosedFactor
from ..weights import per_point
from . import means

_SIGNS = {-1: "a negative", 0: "a", 1: "a positive"}


class ConstantCurvature(GyroManifold):
    r"""A model of the space of constant sectional curvature K = `curvature`, a number or a 0-dim tensor.

    Every model states how its points correspond to cosine and sine of the normal coordinates, ``t = cos(sqrt(K) |z|)``
    and ``s = sin(sqrt(K) |z|)/sqrt(K) z/|z|`` (cosh and sinh for K < 0, 1 and z for K = 0): `to_cosine_sine`,
    `from_cosine_sine`. Conversions, hyperplanes and, where a model has no better form, gyro-operations go through
    them.

    The iteration for a mean loses digits where coordinates are large. A model that sets `_moves_mean` therefore carries
    the points by an isometry that puts their mean next to the origin, and the mean back.
    """

    curvature: float | Tensor
    sign: ClassVar[int]  # of the curvature; 0 where the class leaves it open

    ndim: ClassVar[int] = 1
    _moves_mean: ClassVar[bool] = True

    def __post_init__(self) -> None:
        K, name = self.curvature, type(self).__name__
        wanted = f"{name}: curvature must be {_SIGNS[self.sign]} finite number"
        if isinstance(K, Tensor):
            if K.dim() > 0 or not K.is_floating_point():
                raise ValueError(f"{wanted} or a 0-dim floating-point tensor, got {K.dtype} of shape {tuple(K.shape)}")
            # On an accelerator a look at the value would wait for it, in every forward.
            if not values_readable(K) or K.device.type != "cpu":
                return
            value = float(K.detach())
        elif isinstance(K, (int, float)) and not isinstance(K, bool):
            value = float(K)
        else:
            hint = f"; call it, as in {name}(curvature())" if callable(K) and not isinstance(K, type) else ""
            raise ValueError(f"{wanted} or a 0-dim tensor, got {K!r}{hint}")
        if not math.isfinite(value) or (self.sign != 0 and not value * self.sign > 0):
            raise ValueError(f"{wanted}, got {K!r}")

    def in_dtype(self, dtype: torch.dtype) -> Any:
        """The same space with a curvature that is a tensor in `dtype`, which its points have."""
        K = self.curvature
        if not isinstance(K, Tensor) or K.dtype == dtype:
            return self
        return dataclasses.replace(self, curvature=K.to(dtype))  # type: ignore[type-var]

    # ---- hooks ------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def to_cosine_sine(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """t ``*B,1`` and s ``*B,d`` of points."""

    @abc.abstractmethod
    def from_cosine_sine(self, t: Tensor, s: Tensor) -> Tensor:
        """The points with this t and s."""

    def closed_factors(self, point_shape: tuple[int, ...]) -> tuple[ClosedFactor, ...]:
        """The whole space, unless K <= 0 is known."""
        K = self.curvature
        open_everywhere = self.sign < 0 or (not isinstance(K, Tensor) and K <= 0)
        return () if open_everywhere else (ClosedFactor(0, self.normal_shape(point_shape)[-1], K),)

    def _unit_of_length(self, x: Tensor) -> Tensor | float:
        """The radius of curvature, at most one."""
        K = self.curvature
        return K.detach().abs().clamp(min=1).rsqrt() if isinstance(K, Tensor) else max(1.0, abs(K)) ** -0.5

    # ---- curvature --------------------------------------------------------------------------------------------

    @operation
    def sectional_curvature(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """K."""
        return torch.zeros_like((x + u + v).sum(-1)) + self.curvature

    def injectivity_radius(self, x: Tensor | None = None) -> float | Tensor:
        """pi/sqrt(K) for K > 0, infinite otherwise."""
        K = self.curvature
        if isinstance(K, Tensor):
            positive = K > 0
            return torch.where(positive, math.pi * torch.where(positive, K, 1.0).rsqrt(), math.inf)
        return math.pi / math.sqrt(K) if K > 0 else math.inf

    @operation
    def log_is_unique(self, x: Tensor, y: Tensor, *, margin: float = 0.0) -> Tensor:
        """Everywhere for K <= 0, everywhere but at the antipode for K > 0."""
        return self.dist(x, y) < self.injectivity_radius() - margin

    @operation
    def logdet_dexp(self, x: Tensor, u: Tensor) -> Tensor:
        """(d - 1) log|sin(r)/r| with r = sqrt(K) |u| (sinh for K < 0), d the dimension."""
        shape = tuple(x.shape[-1:])
        return (self.dimension(shape) - 1) * log_sin_ratio_k(self.curvature * self.inner(x, u), self.sign)

    # ---- gyro-operations --------------------------------------------------------------------------------------

    @in_full_precision
    def from_normal(self, z: Tensor) -> Tensor:
        """The point with cosine and sine of `z`."""
        self._check_normal("from_normal", z)
        z = without_turns(z, self.curvature) if self.sign > 0 else z
        square = self.curvature * dot(z, z)
        return self.from_cosine_sine(cos_k(square, self.sign), sin_ratio_k(square, self.sign) * z)

    @operation
    def to_normal(self, x: Tensor) -> Tensor:
        """Normal coordinates of `x`; those of the cut point of the origin lie along the first axis."""
        return self._arc(*self.to_cosine_sine(x))

    def _arc(self, t: Tensor, s: Tensor) -> Tensor:
        """The shortest vector ``*B,d`` with these cosine and sine."""
        K = self.curvature
        square = K * dot(s, s)
        if self.sign < 0 or s.shape[-1] == 0:
            return s * asin_ratio_k(square, self.sign)
        back, hyperbolic = t < 0, square < 0
        # tan(r/2) = sin/(1 + cos) stays smooth at a quarter turn, where the inverse sine does not.
        half = torch.where(hyperbolic, 0.0, s) / (1 + torch.where(back | hyperbolic, 0.0, t))
        near = 2 * half * atan_ratio_k(K * dot(half, half), self.sign)
        if self.sign == 0:
            near = torch.where(hyperbolic, s * asin_ratio_k(torch.where(hyperbolic, square, 0.0), -1), near)
        root = positive(K) ** 0.5
        length = safe_norm(s, keepdim=True)
        cut = length == 0
        first = (torch.arange(s.shape[-1], device=s.device) == 0).to(s.dtype)
        direction = torch.where(cut, first, s / torch.where(cut, 1.0, length))
        far = torch.atan2(root * length, torch.where(back, t, -1.0)) / root * direction
        return torch.where(back, far, near)

    @operation
    def gyroadd(self, x: Tensor, y: Tensor) -> Tensor:
        """The transvection that moves the origin to x, applied to y (Ungar 2008, doi 10.1142/6625, as a boost of
        cosine and sine): ``t = t_x t_y - K<s_x,s_y>``, ``s = s_y + (t_y - K<s_x,s_y>/(1 + t_x)) s_x``."""
        (tx, sx), (ty, sy) = self.to_cosine_sine(x), self.to_cosine_sine(y)
        along = self.curvature * dot(sx, sy)
        return self.from_cosine_sine(tx * ty - along, sy + (ty - along / self._one_plus(tx, sx)) * sx)

    def _one_plus(self, t: Tensor, s: Tensor) -> Tensor:
        """1 + t; next to the antipode of the origin, where that cancels, K|s|^2/(1 - t)."""
        if self.sign < 0:
            return 1 + t
        back = t < 0
        return torch.where(back, self.curvature * dot(s, s) / (1 - torch.where(back, t, 0.0)), 1 + t)

    @operation
    def gyroinv(self, x: Tensor) -> Tensor:
        """The point with the opposite sine."""
        t, s = self.to_cosine_sine(x)
        return self.from_cosine_sine(t, -s)

    @in_full_precision
    def gyroscale(self, t: Tensor | float, x: Tensor) -> Tensor:
        """``from_normal(t to_normal(x))``."""
        self._check_beside("gyroscale", "t", t, x)
        return self.from_normal(self._per_point(t, x) * self.to_normal(x))

    @operation
    def gyration(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """The rotation that transport from (-)y to x is in frame coordinates, applied to z."""
        t, s = self.to_cosine_sine(z)
        turned = self.transport_frame(self.gyroinv(y), x, s)
        return self.from_cosine_sine(t.expand(*turned.shape[:-1], 1), turned)

    @in_full_precision
    def transport_frame(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        r"""A rotation in the plane of s_x and s_y by the area of the triangle origin, x, y times K.

        The bivector ``b = K s_y ^ s_x`` and ``a = (1 + t_x)(1 + t_y) + K<s_x,s_y>`` are sine and cosine of half the
        angle times one number, so that ``z + 2 (a b.z + b.(b.z))/(a^2 + |b|^2)`` is the rotated z.
        """
        self.check_operands("transport_frame", [x, y])
        self._check_frame("transport_frame", x, z)
        K = self.curvature
        (tx, sx), (ty, sy) = self.to_cosine_sine(x), self.to_cosine_sine(y)
        d = sy - sx  # in the plane with s_x as s_y is, and short where the angle is small
        a = self._one_plus(tx, sx) * self._one_plus(ty, sy) + K * dot(sx, sy)

        def turned(v: Tensor) -> Tensor:
            return (K * dot(sx, v)) * d - (K * dot(d, v)) * sx

        b2 = (K * dot(d, d)) * (K * dot(sx, sx)) - (K * dot(d, sx)).square()
        bz = turned(z)
        return z + 2 / (a.square() + b2) * (a * bz + turned(bz))

    # ---- sampling ---------------------------------------------------------------------------------------------

    def random(self, *size: int, std: float | Tensor | None = None, **kwargs: Any) -> Tensor:
        """The wrapped normal law of `random_normal`, by default of the deviation ``min(1, 1/sqrt|K|)/sqrt(d)``.

        Then points are about one away from the origin, or about the radius of curvature if that is shorter, in every
        dimension d. With a deviation of one they are sqrt(d) away, which is farther than coordinates of float32 reach
        from dimension 300 on in a ball and 2000 on the hyperboloid.
        """
        self._raise(self._shape_reason(size))
        K = self.curvature
        sharpness = K.abs().clamp_min(1) if isinstance(K, Tensor) else max(abs(K), 1.0)
        usual = (sharpness * max(self.dimension(size), 1)) ** -0.5
        return self.random_normal(*size, std=usual if std is None else std, **kwargs)

    # ---- hyperplanes ------------------------------------------------------------------------------------------

    @in_full_precision
    def hyperplane_dist(self, x: Tensor, normal: Tensor, offset: Tensor | float = 0.0) -> Tensor:
        r"""Signed distance of `x` to a totally geodesic hyperplane. ``*B,P; *B,d; *B -> *B``.

        The hyperplane stands at right angles on the geodesic from the origin in the direction `normal` (normal
        coordinates; only its direction counts, and zero, which has none, gives NaN), which it meets at the signed
        distance `offset`. The result is positive on the side that `normal` points to, and minus `offset` at the origin.

        With b the component of s along the normal, and p the rest of s, ``b = tau sin_K(beta)`` and
        ``t = tau cos_K(beta)``: the distance has the sine ``tau sin_K(beta - offset)`` and the cosine
        ``sqrt(tau^2 cos_K(beta - offset)^2 + K|p|^2)``. No difference of large numbers is formed.
        """
        offset = self._check_hyperplane(x, normal, offset)
        K = self.curvature
        t, s = self.to_cosine_sine(x)
        n = normal / safe_norm(normal, keepdim=True)
        b = dot(s, n)
        p2 = K * (s - b * n).square().sum(-1, keepdim=True)
        # Both are one less K|p|^2: whichever adds positive numbers.
        tau2 = torch.where(p2 > 0, t.square() + K * b.square(), 1 - p2)
        pole = tau2 <= 0
        tau = torch.where(pole, 1.0, tau2).sqrt()
        beyond = self._arc(t / tau, b / tau) - self._per_point(offset, x)
        if self.sign < 0 or (not isinstance(K, Tensor) and K < 0):
            return _arcsinh(K, tau, beyond).squeeze(-1)
        if self.sign > 0 or not isinstance(K, Tensor):
            return self._arc(*self._sine(torch.where(pole, 0.0, tau), beyond, p2)).squeeze(-1)
        negative = K < 0
        # Where the sign is not known: each formula at what it can stand, the other one's numbers left out.
        below = _arcsinh(torch.where(negative, K, -1.0), torch.where(negative, tau, 1.0), beyond.where(negative, 0.0))
        parts = (torch.where(pole | negative, 0.0, tau), beyond.where(~negative, 0.0), p2.where(~negative, 1.0))
        return torch.where(negative, below, self._arc(*self._sine(*parts))).squeeze(-1)

    def _sine(self, tau: Tensor, length: Tensor, p2: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine ``tau sin_K(length)`` of a distance."""
        square = self.curvature * length.square()
        sine = tau * length * sin_ratio_k(square, self.sign)
        return safe_sqrt((tau * cos_k(square, self.sign)).square() + p2), sine

    # ---- means ------------------------------------------------------------------------------------------------

    def _mean_hessian(self, mu: Tensor, x: Tensor, w: Tensor) -> frechet.LinearMap:
        return means.hessian_from_logs(self, mu, self.logmap(mu, x), w, self.inner)

    def _mean_step(self, mu: Tensor, logs: Tensor, w: Tensor) -> Tensor:
        return means.newton_step(self, self, mu, logs, w)

    def _mean(self, x: Tensor, start: Tensor | None, *, w: Tensor, search: frechet.Search) -> Tensor:
        # By Newton's iteration, with the closed Hessian forwards and backwards, at the origin if `_moves_mean`.
        if not self._moves_mean:
            return super()._mean(x, start, w=w, search=search)
        return means.pivoted_mean(self, x, per_point(self, w.expand(x.shape[:-1])), start, search)

    def _mean_guess(self, x: Tensor, w: Tensor) -> Tensor:
        return means.centroid(self, x, w) if self._moves_mean else super()._mean_guess(x, w)


def _arcsinh(K: float | Tensor, tau: Tensor, length: Tensor) -> Tensor:
    """``arcsin_K(tau sin_K(length))`` for K < 0, of which the sine, let alone its square, may overflow."""
    root = (-K) ** 0.5
    angle = root * length
    far = tau * angle.clamp(-40, 40).sinh().abs() > 1e9  # arcsinh(y) is log(2y) to 1e-19
    inner = torch.where(far, 0.0, length)
    sine = torch.where(far, 0.0, tau) * inner * sin_ratio_k(K * inner.square(), -1)
    near = sine * asin_ratio_k(K * sine.square(), -1)
    size = torch.where(far, angle.abs(), 1.0)
    rest = torch.where(far, tau, 1.0).log() + torch.log1p(-torch.exp(-2 * size))
    # The length by itself, so that no derivative in K is left of it.
    return torch.where(far, length + angle.sign() * rest / root, near)
