"""Entailment cones: a partial order of hyperbolic space."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from torchriemann.manifolds import ConstantCurvature
from torchriemann.manifolds.checks import described
from torchriemann.manifolds.functional.series import safe_norm
from torchriemann.manifolds.precision import in_full_precision

_REDUCTIONS = ("mean", "sum", "none")


@dataclasses.dataclass(frozen=True, eq=False)
class EntailmentCones:
    r"""Hyperbolic entailment cones: x entails y when y lies in the cone that opens at x, away from the origin.

    .. math:: \psi(x) = \arcsin \frac{2 k}{\sinh(\sqrt{|K|}\, d(o, x))}, \qquad
              \Xi(x, y) = \pi - \angle\, o x y, \qquad E(x, y) = \max(0, \Xi(x, y) - \psi(x))

    with the constant k = `min_radius` (Ganea, Becigneul and Hofmann, arXiv:1804.01882, in the ball; Desai et al.,
    "MERU", arXiv:2304.09172, on the hyperboloid). Cones nest: if x entails y and y entails z, x entails z. That needs
    ``psi <= pi/2``, so where the sine above exceeds one, nearer to the origin than arcsinh(2k)/sqrt|K|, the aperture is
    pi/2, and the order holds only among points farther out.

    Any model and any K < 0, which changes no angle. There is no parameter and no state: with a learnable curvature,
    build it in ``forward``, as in ``EntailmentCones(Lorentz(self.curvature()))(parent, child)``.

    Shapes. Points ``*B,P``; all results ``*B``. Angles are computed in frame coordinates by arctangents, so that they
    are good to rounding when nearly 0 or pi, and gradients are finite everywhere. At the apex and at the origin, where
    the exterior angle has no limit, it is zero with zero gradient: x entails itself, and the origin entails all.

    Raises ``ValueError`` if the manifold is no model of constant negative curvature, or `min_radius` is not positive.
    """

    manifold: ConstantCurvature
    min_radius: float = 0.1

    def __post_init__(self) -> None:
        m = self.manifold
        hyperbolic = isinstance(m, ConstantCurvature) and m.sign <= 0
        if hyperbolic and m.sign == 0 and not isinstance(m.curvature, Tensor):
            hyperbolic = m.curvature < 0
        if not hyperbolic:
            raise ValueError(
                "EntailmentCones: manifold must be a model of constant negative curvature, such as Lorentz(), "
                f"got {described(m)}"
            )
        if not 0 < self.min_radius < math.inf:
            raise ValueError(f"EntailmentCones: min_radius must be positive and finite, got {self.min_radius}")

    @in_full_precision
    def half_aperture(self, x: Tensor) -> Tensor:
        """psi(x), in (0, pi/2]."""
        self.manifold.check_operands("EntailmentCones.half_aperture", [x])
        manifold = self.manifold.in_dtype(x.dtype)
        sinh = (-manifold.curvature) ** 0.5 * safe_norm(manifold.to_cosine_sine(x)[1])
        wide = sinh <= 2 * self.min_radius
        return torch.where(wide, math.pi / 2, torch.asin(2 * self.min_radius / torch.where(wide, torch.inf, sinh)))

    @in_full_precision
    def exterior_angle(self, x: Tensor, y: Tensor) -> Tensor:
        """Xi(x, y), the angle at x between the geodesic from the origin, prolonged, and the one to y, in [0, pi]."""
        self.manifold.check_operands("EntailmentCones.exterior_angle", [x, y])
        manifold = self.manifold.in_dtype(x.dtype)
        s = manifold.to_cosine_sine(x)[1]  # in the frame of x the origin lies in the direction -s
        z = manifold.logmap_frame(x, y)
        outward, length = safe_norm(s, keepdim=True), safe_norm(z, keepdim=True)
        undefined = (outward == 0) | (length == 0)
        a = s / torch.where(undefined, 1.0, outward)
        b = z / torch.where(undefined, 1.0, length)
        angle = 2 * torch.atan2(safe_norm(a - b), safe_norm(torch.where(undefined, 1.0, a + b)))
        return torch.where(undefined.squeeze(-1), 0.0, angle)

    @in_full_precision
    def energy(self, x: Tensor, y: Tensor) -> Tensor:
        """E(x, y): by how much y misses the cone of x; zero inside."""
        return (self.exterior_angle(x, y) - self.half_aperture(x)).relu()

    __call__ = energy

    def loss(
        self, parent: Tensor, child: Tensor, entailed: Tensor, *, margin: float = 0.01, reduction: str = "mean"
    ) -> Tensor:
        """The max-margin loss: E where `entailed` (bool, broadcastable to ``*B``), else ``max(0, margin - E)``.

        `reduction` is "mean", "sum" or "none". Inside a cone E is constant, so a false pair in there is not pushed out.

        Raises ``ValueError`` for another `reduction`, and if `entailed` is no tensor of bool or does not broadcast.
        """
        if reduction not in _REDUCTIONS:
            raise ValueError(f"EntailmentCones: reduction must be one of {_REDUCTIONS}, got {reduction!r}")
        if not isinstance(entailed, Tensor) or entailed.dtype != torch.bool:
            number = isinstance(entailed, Tensor)
            got, mend = (entailed.dtype, "entailed > 0") if number else (type(entailed).__name__, "torch.as_tensor")
            raise ValueError(f"EntailmentCones: entailed must be a bool tensor, got {got}; make it one by {mend}")
        energy = self.energy(parent, child)
        self.manifold.check_batches("EntailmentCones.loss: pairs and entailed", [energy.shape, entailed.shape])
        losses = torch.where(entailed, energy, (margin - energy).relu())
        return losses if reduction == "none" else losses.mean() if reduction == "mean" else losses.sum()
