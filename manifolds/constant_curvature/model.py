"""What all spaces of constant curvature share, whatever their coordinates."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import frechet
from ..functional.series import safe_norm, safe_sqrt
from ..functional.signed_trigonometry import (
    asin_ratio_k,
    atan_ratio_k,
    cos_k,
    cot_excess_k,
    log_sin_ratio_k,
    sin_ratio_k,
)
from ..functional.tracing import values_readable
from ..gyro import GyroManifold
from ..operation import in_full_precision, operation

_SIGNS = {-1: "a negative", 0: "a", 1: "a positive"}


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, keepdim=True)


class ConstantCurvature(GyroManifold):
    r"""A model of the space of constant sectional curvature K = `curvature`, a number or a 0-dim tensor.

    Every model states how its points correspond to cosine and sine of the normal coordinates, ``t = cos(sqrt(K) |z|)``
    and ``s = sin(sqrt(K) |z|)/sqrt(K) z/|z|`` (cosh and sinh for K < 0, 1 and z for K = 0): `to_cosine_sine`,
    `from_cosine_sine`. Conversions, hyperplanes and, where a model has no better form, gyro-operations go through
    them.

    Means are taken at the origin, where coordinates lose no digit, by models that set `_pivots`.
    """

    curvature: float | Tensor
    sign: ClassVar[int]  # of the curvature; 0 where the class leaves it open

    ndim: ClassVar[int] = 1
    _pivots: ClassVar[bool] = True

    def __post_init__(self) -> None:
        k, name = self.curvature, type(self).__name__
        wanted = f"{name}: curvature must be {_SIGNS[self.sign]} finite number"
        if isinstance(k, Tensor):
            if k.dim() > 0 or not k.is_floating_point():
                raise ValueError(f"{wanted} or a 0-dim floating-point tensor, got {k.dtype} of shape {tuple(k.shape)}")
            # On an accelerator a look at the value would wait for it, in every forward.
            if not values_readable(k) or k.device.type != "cpu":
                return
            value = float(k.detach())
        elif isinstance(k, (int, float)) and not isinstance(k, bool):
            value = float(k)
        else:
            raise ValueError(f"{wanted} or a 0-dim tensor, got {k!r}")
        if not math.isfinite(value) or (self.sign != 0 and not value * self.sign > 0):
            raise ValueError(f"{wanted}, got {k!r}")

    def in_dtype(self, dtype: torch.dtype) -> Any:
        k = self.curvature
        if not isinstance(k, Tensor) or k.dtype == dtype:
            return self
        return dataclasses.replace(self, curvature=k.to(dtype))  # type: ignore[type-var]

    # ---- hooks ------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def to_cosine_sine(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """t ``*B,1`` and s ``*B,d`` of points."""

    @abc.abstractmethod
    def from_cosine_sine(self, t: Tensor, s: Tensor) -> Tensor:
        """The points with this t and s."""

    # ---- curvature --------------------------------------------------------------------------------------------

    @operation
    def sectional_curvature(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """K."""
        return torch.zeros_like((x + u + v).sum(-1)) + self.curvature

    def injectivity_radius(self, x: Tensor | None = None) -> float | Tensor:
        """pi/sqrt(K) for K > 0, infinite otherwise."""
        k = self.curvature
        if isinstance(k, Tensor):
            positive = k > 0
            return torch.where(positive, math.pi * torch.where(positive, k, 1.0).rsqrt(), math.inf)
        return math.pi / math.sqrt(k) if k > 0 else math.inf

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
        square = self.curvature * _dot(z, z)
        return self.from_cosine_sine(cos_k(square, self.sign), sin_ratio_k(square, self.sign) * z)

    @operation
    def to_normal(self, x: Tensor) -> Tensor:
        """Normal coordinates of `x`; those of the cut point of the origin lie along the first axis."""
        return self._arc(*self.to_cosine_sine(x))

    def _arc(self, t: Tensor, s: Tensor) -> Tensor:
        """The shortest vector ``*B,d`` with these cosine and sine."""
        k = self.curvature
        square = k * _dot(s, s)
        if self.sign < 0 or s.shape[-1] == 0:
            return s * asin_ratio_k(square, self.sign)
        back, bent = t < 0, square < 0
        # tan(r/2) = sin/(1 + cos) stays smooth at a quarter turn, where the inverse sine does not.
        half = torch.where(bent, 0.0, s) / (1 + torch.where(back | bent, 0.0, t))
        near = 2 * half * atan_ratio_k(k * _dot(half, half), self.sign)
        if self.sign == 0:
            near = torch.where(bent, s * asin_ratio_k(torch.where(bent, square, 0.0), -1), near)
        root = _positive(k) ** 0.5
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
        bend = self.curvature * _dot(sx, sy)
        return self.from_cosine_sine(tx * ty - bend, sy + (ty - bend / self._one_plus(tx, sx)) * sx)

    def _one_plus(self, t: Tensor, s: Tensor) -> Tensor:
        """1 + t; next to the antipode of the origin, where that cancels, K|s|^2/(1 - t)."""
        if self.sign < 0:
            return 1 + t
        back = t < 0
        return torch.where(back, self.curvature * _dot(s, s) / (1 - torch.where(back, t, 0.0)), 1 + t)

    @operation
    def gyroinv(self, x: Tensor) -> Tensor:
        """The point with the opposite sine."""
        t, s = self.to_cosine_sine(x)
        return self.from_cosine_sine(t, -s)

    @in_full_precision
    def gyroscale(self, t: Tensor | float, x: Tensor) -> Tensor:
        """``from_normal(t to_normal(x))``."""
        self._check_scaled(t, x)
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
        k = self.curvature
        (tx, sx), (ty, sy) = self.to_cosine_sine(x), self.to_cosine_sine(y)
        d = sy - sx  # in the plane with s_x as s_y is, and short where the angle is small
        a = self._one_plus(tx, sx) * self._one_plus(ty, sy) + k * _dot(sx, sy)

        def turned(v: Tensor) -> Tensor:
            return k * (_dot(sx, v) * d - _dot(d, v) * sx)

        b2 = k * k * (_dot(d, d) * _dot(sx, sx) - _dot(d, sx).square())
        bz = turned(z)
        return z + 2 / (a.square() + b2) * (a * bz + turned(bz))

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
        self._check_frame("hyperplane_dist", x, normal)
        offset = torch.as_tensor(offset, dtype=x.dtype, device=x.device)
        where = f"{type(self).__name__}.hyperplane_dist"
        self.check_batches(where, [x.shape[:-1], normal.shape[:-1], offset.shape])
        k = self.curvature
        t, s = self.to_cosine_sine(x)
        n = normal / safe_norm(normal, keepdim=True)
        b = _dot(s, n)
        p2 = k * (s - b * n).square().sum(-1, keepdim=True)
        # Both are one less K|p|^2: whichever adds positive numbers.
        tau2 = torch.where(p2 > 0, t.square() + k * b.square(), 1 - p2)
        pole = tau2 <= 0
        tau = torch.where(pole, 1.0, tau2).sqrt()
        beyond = self._arc(t / tau, b / tau) - self._per_point(offset, x)
        if self.sign < 0 or (not isinstance(k, Tensor) and k < 0):
            return _arcsinh(k, tau, beyond).squeeze(-1)
        if self.sign > 0 or not isinstance(k, Tensor):
            return self._arc(*self._sine(torch.where(pole, 0.0, tau), beyond, p2)).squeeze(-1)
        negative = k < 0
        # Where the sign is not known: each formula at what it can stand, the other one's numbers left out.
        below = _arcsinh(torch.where(negative, k, -1.0), torch.where(negative, tau, 1.0), beyond.where(negative, 0.0))
        parts = (torch.where(pole | negative, 0.0, tau), beyond.where(~negative, 0.0), p2.where(~negative, 1.0))
        return torch.where(negative, below, self._arc(*self._sine(*parts))).squeeze(-1)

    def _sine(self, tau: Tensor, length: Tensor, p2: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine ``tau sin_K(length)`` of a distance."""
        square = self.curvature * length.square()
        sine = tau * length * sin_ratio_k(square, self.sign)
        return safe_sqrt((tau * cos_k(square, self.sign)).square() + p2), sine

    # ---- means ------------------------------------------------------------------------------------------------

    def _mean_hessian(self, mu: Tensor, x: Tensor, w: Tensor) -> frechet.LinearMap:
        return self._hessian_from_logs(mu, self.logmap(mu, x), w, self.inner)

    def _hessian_from_logs(
        self, mu: Tensor, logs: Tensor, w: Tensor, inner: Callable[..., Tensor]
    ) -> frechet.LinearMap:
        r"""v -> sum_i w_i (f_i v + (1 - f_i) <e_i, v> e_i) with e_i the direction of the i-th logarithm and
        f = r cot r, r = sqrt(K) d: the Hessian of half the mean squared distance."""
        k = self.curvature
        square = inner(mu, logs, keepdim=True)
        excess = k * cot_excess_k(k * square, self.sign)  # (1 - f)/d^2
        radial = (w * (1 - excess * square)).sum(0)

        def hessian(v: Tensor) -> Tensor:
            along = inner(mu, logs, v.expand(logs.shape), keepdim=True)
            return radial * v + (w * excess * along * logs).sum(0)

        return hessian

    def _mean_step(self, mu: Tensor, logs: Tensor, w: Tensor) -> Tensor:
        return self._newton_step(self, mu, logs, w)

    def _newton_step(self, where: ConstantCurvature | _Frames, mu: Tensor, logs: Tensor, w: Tensor) -> Tensor:
        """Far points pull with a Hessian r coth r, under which a step of the mean logarithm overshoots.

        An inexact step costs an iteration and not the limit. Where the iteration is traced it is long enough anyway.
        """
        rounds = min(self.dimension(tuple(mu.shape[-1:])), 10 if values_readable(mu) else 3)
        hessian = self._hessian_from_logs(mu, logs, w, where.inner)
        return frechet.solve(where, mu, hessian, (w * logs).sum(0), rounds=rounds)

    @in_full_precision
    def frechet_mean(
        self, x: Tensor, weights: Tensor | None = None, *, max_iter: int = 100, tol: float | None = None
    ) -> Tensor:
        """By Newton's iteration, with the closed Hessian in both directions, at the origin if the model pivots."""
        w = frechet.normalised_weights(self, x, weights)
        self.check_operands("frechet_mean", [x])
        if not self._pivots:
            return frechet.mean_from(self, x, w, max_iter=max_iter, tol=tol)
        return self._pivoted_mean(x, w, max_iter, tol)

    def _centroid(self, x: Tensor, w: Tensor) -> Tensor:
        r"""The points' mean in the space around, brought back: the mean (T, S) of (t, s) over ``sqrt(T^2 + K|S|^2)``.

        For K < 0 that root is of the product of the means of ``t - q a`` and ``t + q a``, a the part of s along S and
        q = sqrt(-K). Each is a sum of positive numbers, the smaller one of every point as what it has to be:
        ``(t - q a)(t + q a) = 1 + q^2 |s - a|^2``. The difference of squares has no digit left of far points.
        """
        k = self.curvature
        t, s = self.to_cosine_sine(x)
        T, S = (w * t).sum(0), (w * s).sum(0)
        q = torch.where(k < 0, -k, 0.0).sqrt() if isinstance(k, Tensor) else max(-k, 0.0) ** 0.5
        length = safe_norm(S, keepdim=True)
        direction = S / torch.where(length == 0, 1.0, length)
        a = _dot(s, direction)
        p = s - a * direction
        p = p - _dot(p, direction) * direction
        larger = t + q * a.abs()
        smaller = (1 + q * q * _dot(p, p)) / larger
        product = (w * torch.where(a > 0, smaller, larger)).sum(0) * (w * torch.where(a > 0, larger, smaller)).sum(0)
        plain = T.square() + k * _dot(S, S)
        root = (torch.where(k < 0, product, plain) if isinstance(k, Tensor) else product if k < 0 else plain).sqrt()
        return self.from_cosine_sine(T / root, S / root)

    def _pivoted_mean(self, x: Tensor, w: Tensor, max_iter: int, tol: float | None) -> Tensor:
        """The mean of the points as seen from a pivot: first their centroid, then a point near the mean, so that the
        mean has small coordinates. It does not depend on the pivot, and neither does its derivative."""
        at, weight = x.detach(), w.detach()
        pivot = self._centroid(at, weight)
        start = self._origin_of(x).expand(x.shape[1:])
        moved = self.from_normal(self.logmap_frame(pivot, at))
        rough = frechet.karcher_flow(_Frames(self), moved, weight, start, max_iter=20, tol=0.01, warn=False)
        pivot = self.expmap_frame(pivot, self.to_normal(rough)).detach()
        moved = self.from_normal(self.logmap_frame(pivot, x))
        mean = frechet.mean_from(self, moved, w, start, max_iter=max_iter, tol=tol)
        return self.expmap_frame(pivot, self.to_normal(mean))


class _Frames:
    """What an iteration for a mean asks of a manifold, in frame coordinates: their lengths lose no digit anywhere."""

    ndim = 1

    def __init__(self, model: ConstantCurvature) -> None:
        self._model = model
        self.logmap, self.expmap, self.restore = model.logmap_frame, model.expmap_frame, model.restore

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        return (u * (u if v is None else v)).sum(-1, keepdim=keepdim)

    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        return safe_norm(u, keepdim=keepdim)

    def _mean_step(self, mu: Tensor, logs: Tensor, w: Tensor) -> Tensor:
        return self._model._newton_step(self, mu, logs, w)


def _arcsinh(k: float | Tensor, tau: Tensor, length: Tensor) -> Tensor:
    """``arcsin_K(tau sin_K(length))`` for K < 0, of which the sine, let alone its square, may overflow."""
    root = (-k) ** 0.5
    angle = root * length
    far = tau * angle.clamp(-40, 40).sinh().abs() > 1e9  # arcsinh(y) is log(2y) to 1e-19
    sine = torch.where(far, 0.0, tau) * torch.where(far, 0.0, angle).sinh()
    near = sine * asin_ratio_k(-sine.square(), -1)
    size = torch.where(far, angle.abs(), 1.0)
    log = torch.where(far, tau, 1.0).log() + size + torch.log1p(-torch.exp(-2 * size))
    return torch.where(far, angle.sign() * log, near) / root


def _positive(k: float | Tensor) -> float | Tensor:
    """k, or one where that is not positive."""
    return torch.where(k > 0, k, 1.0) if isinstance(k, Tensor) else (k if k > 0 else 1.0)
