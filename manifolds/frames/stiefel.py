"""The Stiefel manifold of orthonormal frames."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..base import Manifold
from ..functional.embedded import embedded_inner, embedded_norm
from ..functional.frame_retractions import (
    cayley,
    cayley_transport,
    inverse_cayley,
    inverse_polar,
    inverse_qr,
    qr,
)
from ..functional.frames import haar_frame, newton_schulz_step, normal_basis, polish
from ..functional.matrices import identity_like, skew, sym
from ..functional.nearest_frame import nearest_frame
from ..functional.stiefel_geodesic import geodesic_end, geodesic_transport
from ..functional.stiefel_log import logarithm
from ..kernels.frames import polar
from ..operation import in_full_precision, operation

_RETRACT = {"qr": qr, "polar": polar, "cayley": cayley}
_INVERSE = {"qr": inverse_qr, "polar": inverse_polar, "cayley": inverse_cayley}
RETRACTIONS = (*_RETRACT, "exp")
TRANSPORTS = ("projection", "isometric", "differentiated")


@final
@dataclass(frozen=True, eq=False)
class Stiefel(Manifold):
    r"""Orthonormal p-frames in R^n, ``*B,n,p`` with x^T x = I, under a one-parameter family of metrics.

    A tangent vector is ``u = x A + H`` with A skew and x^T H = 0; the metric is ``beta tr(A^T A) + tr(H^T H)``.
    `beta` 1 is the Euclidean metric of the surrounding space, 1/2 the canonical metric of the quotient O(n)/O(n-p)
    (Hueper, Markina and Silva Leite 2021; Edelman, Arias and Smith, arXiv:physics/9806030).

    `retraction` (`retr`, `inverse_retr`, `retr_transp`):

    - ``"polar"``: the nearest frame to x + u; second order at beta 1,
    - ``"qr"``: the Q factor of x + u, first order and cheapest,
    - ``"cayley"``: the Cayley transform; second order at beta 1/2,
    - ``"exp"``: the exponential map.

    `transport` (the second result of `retr_transp`):

    - ``"projection"``: the projection at the new point, cheapest,
    - ``"isometric"``: for ``"cayley"`` the rotation that carries x to the new point, for ``"exp"`` the parallel
      transport; ``"qr"`` and ``"polar"`` have none,
    - ``"differentiated"``: the derivative of the retraction in the direction v.

    For p = n there are two components: between them `logmap` and `dist` are NaN.
    """

    beta: float = 1.0
    retraction: str = "polar"
    transport: str = "projection"

    ndim: ClassVar[int] = 2
    name: ClassVar[str] = "Stiefel"

    def __post_init__(self) -> None:
        if not isinstance(self.beta, (int, float)) or not 0 < self.beta < math.inf:
            raise ValueError(f"Stiefel: beta must be a positive finite number, got {self.beta!r}")
        if self.retraction not in RETRACTIONS:
            raise ValueError(f"Stiefel: retraction must be one of {RETRACTIONS}, got {self.retraction!r}")
        if self.transport not in TRANSPORTS:
            raise ValueError(f"Stiefel: transport must be one of {TRANSPORTS}, got {self.transport!r}")
        if self.transport == "isometric" and self.retraction not in ("cayley", "exp"):
            raise ValueError(
                "Stiefel: transport 'isometric' follows the retractions 'cayley' and 'exp', "
                f"got retraction {self.retraction!r}"
            )

    @property
    def retraction_order(self) -> int:
        """Order of contact of `retr` with the geodesics of this metric: 1, 2, or 3 for the exponential map itself."""
        if self.retraction == "exp":
            return 3
        return 2 if (self.retraction, self.beta) in (("polar", 1.0), ("cayley", 0.5)) else 1

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        n, p = point_shape
        if not 0 < p <= n:
            wide = f"; a wide matrix has the frame in its rows: pass x.mT, or the size {p}, {n}" if 0 < n < p else ""
            return f"a frame of p vectors in R^n needs 1 <= p <= n, got n = {n}, p = {p}{wide}"
        return None

    def _point_residual(self, x: Tensor) -> tuple[Tensor, str]:
        return (x.mT @ x - identity_like(x)).abs().amax(), "max|x^T x - I|"

    def _vector_residual(self, x: Tensor, u: Tensor) -> tuple[Tensor, str]:
        return sym(x.mT @ u).abs().amax(), "max|sym(x^T u)|"

    def dimension(self, shape: tuple[int, ...]) -> int:
        """n p - p (p + 1)/2."""
        n, p = shape[-2:]
        return n * p - p * (p + 1) // 2

    # ---- points and tangent vectors ---------------------------------------------------------------------------

    @operation
    def projx(self, x: Tensor) -> Tensor:
        """The nearest frame: the polar factor. Of a rank-deficient matrix, which has many, one of them, with derivative
        zero in the directions of the singular values that vanish."""
        return nearest_frame(x)

    @operation
    def restore(self, x: Tensor) -> Tensor:
        """One Newton-Schulz step: `projx` of a frame that is off by rounding, at the cost of two products."""
        return newton_schulz_step(x)

    @operation
    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """u - x sym(x^T u), orthogonal in every metric of the family."""
        return _project(x, u)

    @operation
    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """tr(u^T v) - (1 - beta) tr((x^T u)^T x^T v)."""
        product = embedded_inner(x, u, v, self.ndim, keepdim)
        if self.beta == 1:
            return product
        a = x.mT @ u
        b = a if v is None else x.mT @ v
        return product - (1 - self.beta) * (a * b).sum((-2, -1), keepdim=keepdim)

    @operation
    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        """The Frobenius norm of u + (sqrt(beta) - 1) x A, without underflow."""
        if self.beta != 1:
            u = u + (math.sqrt(self.beta) - 1) * (x @ skew(x.mT @ u))
        return embedded_norm(x, u, self.ndim, keepdim)

    @operation
    def egrad2rgrad(self, x: Tensor, g: Tensor) -> Tensor:
        """x skew(S)/beta + g - x S with S = x^T g (arXiv:2103.12046)."""
        s = x.mT @ g
        half = 0.5 / self.beta
        return (x @ torch.add((half - 1) * s, s.mT, alpha=-half)).add_(g)  # in place: a fifth of the time

    @operation
    def ehess2rhess(self, x: Tensor, g: Tensor, h: Tensor, u: Tensor) -> Tensor:
        """egrad2rgrad of ``h + x skew(N) + (I - x x^T) K`` with, for u = x A + H, S = x^T g and G = g - x S,
        ``N = (A^T S + S A^T)/2 + (1 - beta) H^T G`` and ``K = -H sym(S) + (1 - beta) G A^T``."""
        a, s = x.mT @ u, x.mT @ g
        normal, across = u - x @ a, g - x @ s
        n = 0.5 * (a.mT @ s + s @ a.mT) + (1 - self.beta) * (normal.mT @ across)
        k = (1 - self.beta) * across @ a.mT - normal @ sym(s)
        return self.egrad2rgrad(x, h + x @ skew(n) + k)

    # ---- geodesics --------------------------------------------------------------------------------------------

    @operation
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """exp(2 beta x A x^T + H x^T - x H^T) x exp((1 - 2 beta) A), on 2p x 2p blocks."""
        return geodesic_end(x, u, self.beta)

    @operation
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """By matrix completion for beta 1/2, else by shooting; then by Newton's method from several starts.

        A vector shorter than the `injectivity_radius` is the only one so short, and what `log_is_unique` says is
        certain. Beyond, the shortest of the geodesics that were found: rarely there is a shorter one. Accurate to
        rounding over the distance to the nearest conjugate point. First and second derivatives by the implicit
        function theorem.

        NaN, for that item only, where x or y is no frame (off by more than a few percent), where no geodesic was found
        (beyond the radius; none of thousands of random pairs) and, for p = n, between the two components
        and at a rotation by exactly pi.
        """
        return logarithm(x, y, self.beta, self.injectivity_radius(x))

    @operation
    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """The length of the logarithm, the same from both ends; NaN where `logmap` is."""
        return self.norm(x, self.logmap(x, y), keepdim=keepdim)

    @operation
    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """In closed form (arXiv:2408.06054); NaN where u is more than about twice the injectivity radius long."""
        return geodesic_transport(x, u, v, self.beta)

    # ---- retractions ------------------------------------------------------------------------------------------

    @operation
    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """The retraction chosen in the constructor."""
        return self._retract(x, u)

    def _retract(self, x: Tensor, u: Tensor) -> Tensor:
        if self.retraction == "exp":
            return polish(geodesic_end(x, u, self.beta))
        return _RETRACT[self.retraction](x, u)

    @operation
    def inverse_retr(self, x: Tensor, y: Tensor) -> Tensor:
        """The tangent vector that `retr` sends to y; NaN (``"cayley"``: not finite) where there is none."""
        if self.retraction == "exp":
            return logarithm(x, y, self.beta, self.injectivity_radius(x))
        return _INVERSE[self.retraction](x, y)

    @operation
    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """`retr` and the transport chosen in the constructor."""
        if self.transport == "differentiated":
            x, u, v = (z.contiguous() for z in torch.broadcast_tensors(x, u, v))
            y, w, *_ = torch.func.jvp(lambda z: self.retr(x, z), (u,), (v,))
            return y, w
        if self.transport == "isometric" and self.retraction == "cayley":
            return cayley_transport(*torch.broadcast_tensors(x, u, v))
        if self.transport == "isometric":
            y, w = geodesic_transport(x, u, v, self.beta)
            return polish(y), w
        y = self._retract(x, u)
        return y, _project(y, v)

    # ---- curvature and radii ----------------------------------------------------------------------------------

    @operation
    def sectional_curvature(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """``|[u, v]|^2 - 3/4 |[u, v]_m|^2`` over the squared area, for the naturally reductive quotient
        SO(n) x SO(p) / SO(n-p) x SO(p) (O'Neill 1966; arXiv:2103.12046, section 3)."""
        beta = self.beta
        u, v = self._orthonormal(x, u, v)
        a, b = skew(x.mT @ u), skew(x.mT @ v)
        h, k = u - x @ a, v - x @ b
        bracket = 2 * skew(a @ b)
        mixed = h.mT @ k
        top = 4 * beta**2 * bracket - 2 * skew(mixed)
        left = 2 * beta * (h @ b - k @ a)
        corner = 2 * (((h.mT @ h) * (k.mT @ k)).sum((-2, -1)) - (mixed * mixed.mT).sum((-2, -1)))
        horizontal = top - (1 - 2 * beta) ** 2 * bracket

        def square(m: Tensor) -> Tensor:
            return m.square().sum((-2, -1))

        whole = 0.5 * (square(top) + corner) + square(left) + beta * (1 - 2 * beta) ** 3 * square(bracket)
        return whole - 0.75 * (beta * square(horizontal) + square(left))

    def injectivity_radius(self, x: Tensor | None = None) -> float:
        """A lower bound: min(sqrt(2 beta), 1/sqrt(K)) pi with K = max(1, 2 - 3 beta/2, beta/2), the greatest curvature.

        Klingenberg's theorem with the shortest geodesic loop, 2 pi min(1, sqrt(2 beta)). Exact for beta up to 1/3 and
        from 2/3 to 1 (arXiv:2511.01563); between them the radius is at most 1.03 times as large. Beyond beta 1 the K
        is from numerical maximisation. For one column pi; for p = n, and p = n - 1 at beta 1/2, sqrt(2 beta) pi.
        """
        loop = math.sqrt(2 * self.beta)
        if x is not None:
            n, p = x.shape[-2:]
            if p == 1:
                return math.pi
            if p == n or (p == n - 1 and self.beta == 0.5):
                return loop * math.pi
        return math.pi * min(loop, max(1.0, 2 - 1.5 * self.beta, 0.5 * self.beta) ** -0.5)

    @operation
    def log_is_unique(self, x: Tensor, y: Tensor, *, margin: float = 0.0) -> Tensor:
        """A distance below `injectivity_radius` minus `margin`: sufficient, not necessary."""
        return self.dist(x, y) < self.injectivity_radius(x) - margin

    @operation
    def basis(self, x: Tensor) -> Tensor:
        """x (E_ij - E_ji)/sqrt(2 beta) for i < j, then c_k e_j^T with c an orthonormal basis of the complement.

        c is smooth in x except where the first p rows of x are singular.
        """
        n, p = x.shape[-2:]
        rows, columns = torch.triu_indices(p, p, 1, device=x.device)
        eye = identity_like(x)
        rotations = eye[rows, :, None] * eye[columns, None, :]
        rotations = x.unsqueeze(-3) @ (rotations - rotations.mT) * (2 * self.beta) ** -0.5
        return torch.cat([rotations, normal_basis(x)], -3)

    # ---- sampling ---------------------------------------------------------------------------------------------

    def origin(self, *size: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """The first p axes."""
        self._raise(self._shape_reason(size))
        return torch.eye(*size[-2:], dtype=dtype, device=device).expand(size).contiguous()

    def random_uniform(
        self,
        *size: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """The rotation-invariant law."""
        self._raise(self._shape_reason(size))
        return haar_frame(*size, generator=generator, dtype=dtype, device=device)

    @in_full_precision
    def random_tangent(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Independent N(0, 1) coordinates in an orthonormal basis of this metric."""
        self.check_operands("random_tangent", [x])
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        s = x.mT @ noise
        return noise + x @ (skew(s) * self.beta**-0.5 - s)


def _project(x: Tensor, u: Tensor) -> Tensor:
    s = x.mT @ u
    return (x @ (-0.5 * (s + s.mT))).add_(u)  # in place: a fifth of the time
