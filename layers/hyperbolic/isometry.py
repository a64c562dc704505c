"""Layers of hyperbolic space."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torchriemann.manifolds import Lorentz, SpecialOrthogonal
from torchriemann.manifolds.checks import described
from torchriemann.manifolds.precision import in_full_precision, widen

from ..base import ManifoldModule
from ..points import Point, remember_point, remembered_points


class LorentzIsometry(ManifoldModule):
    r"""A learnable isometry of hyperbolic space that keeps orientation: a rotation about the origin, then a boost.

    .. math:: \Lambda = \begin{pmatrix} \cosh\eta & \sinh\eta\, e^\top \\
              \sinh\eta\, e & I + (\cosh\eta - 1)\, e e^\top \end{pmatrix}
              \begin{pmatrix} 1 & \\ & O \end{pmatrix}, \qquad \eta e = b

    Every element of :math:`SO^+(1, n)` is such a product, of one rapidity vector b in :math:`R^n` and one rotation O in
    SO(n) (the polar decomposition). The same :math:`\Lambda` acts on the hyperboloid of any curvature; it moves the
    origin by :math:`|b|/\sqrt{|K|}`.

    Points far from the origin lose no more digits than their coordinates carry: the boost is a gyro-addition. The
    matrix, in whose product with a point that comes back from radius r exp(2r) cancels, is never applied.

    Args:
        dim: n, the dimension of the space.
        parametrization: "manifold" keeps O as a `ManifoldParameter` on SO(n), for a Riemannian optimizer; "tangent"
            keeps the n(n-1)/2 entries of a skew-symmetric matrix, of which O is the exponential, for any optimizer.

    Attributes:
        boost: b, ``n``.
        rotation: ``n,n`` ("manifold") or ``n(n-1)/2`` ("tangent").

    Shape: ``*B,n+1 -> *B,n+1``, points of the ``Lorentz(curvature)`` that is given with them. It starts as the
    identity. The images have the dtype of the points; they are an isometry's to rounding in the wider of that dtype
    and the parameters', so that float32 parameters move float64 points without loss.

    Raises ``ValueError`` for another `parametrization`, for ``dim < 1``, for points of another size, and for a
    manifold that is no `Lorentz`.

    >>> isometry = LorentzIsometry(3)
    >>> x = Lorentz(-0.5).random(10, 4)
    >>> isometry(x, Lorentz(-0.5)).shape
    torch.Size([10, 4])
    """

    boost: nn.Parameter
    rotation: nn.Parameter

    def __init__(
        self,
        dim: int,
        parametrization: str = "manifold",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"LorentzIsometry: dim must be at least 1, got {dim}")
        self.dim = dim
        self.parametrization = parametrization
        self.boost = nn.Parameter(torch.empty(dim, device=device, dtype=dtype))
        self.register_point("rotation", SpecialOrthogonal(), (dim, dim), parametrization, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Return to the identity."""
        with torch.no_grad():
            self.boost.zero_()
        self.set_point("rotation")

    @in_full_precision
    def rotation_matrix(self) -> Tensor:
        """O, ``n,n``."""
        return self.point("rotation", widen(self.rotation))

    @in_full_precision(points_of="manifold")
    def forward(self, x: Tensor, manifold: Lorentz) -> Tensor:
        """The image of `x`, points of `manifold`."""
        self._check_points(x, manifold)
        turned = _rotated(x, self.point("rotation", x.dtype))
        return manifold.gyroadd(_translation(self.boost.to(x.dtype), manifold), turned)

    @in_full_precision(points_of="manifold")
    def inverse(self, y: Tensor, manifold: Lorentz) -> Tensor:
        """The points that `forward` sends to `y`."""
        self._check_points(y, manifold)
        back = manifold.gyroadd(_translation(-self.boost.to(y.dtype), manifold), y)
        return _rotated(back, self.point("rotation", y.dtype).mT)

    @in_full_precision
    def matrix(self) -> Tensor:
        """The matrix Lambda of the isometry, ``n+1,n+1``: ``forward(x, m)`` is ``matrix() @ x`` up to rounding."""
        boost = self.boost.to(widen(self.boost, self.rotation))
        turn = torch.block_diag(boost.new_ones(1, 1), self.point("rotation", boost.dtype))
        return Lorentz().boost_matrix(Lorentz().from_normal(boost)) @ turn

    def _check_points(self, x: Tensor, manifold: Lorentz) -> None:
        if not isinstance(manifold, Lorentz):
            raise ValueError(
                f"LorentzIsometry: manifold must be a Lorentz instance, got {described(manifold)}; convert the points"
            )
        manifold.check_operands("LorentzIsometry", [x])
        if x.shape[-1] != self.dim + 1:
            raise ValueError(
                f"LorentzIsometry: points must have dim + 1 = {self.dim + 1} coordinates, got {tuple(x.shape)}"
            )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if not remembered_points(self):  # pickled by version 0.1, which knew of one point
            point = Point(SpecialOrthogonal(), (self.dim, self.dim), self.parametrization)
            remember_point(self, "rotation", point)

    def extra_repr(self) -> str:
        """The arguments, for ``print(module)``."""
        return f"dim={self.dim}, parametrization={self.parametrization!r}"


def _translation(boost: Tensor, manifold: Lorentz) -> Tensor:
    """The point to which the origin goes."""
    return manifold.from_normal(boost * (-manifold.curvature) ** -0.5)


def _rotated(x: Tensor, o: Tensor) -> Tensor:
    """The rotation of the space part."""
    return torch.cat([x[..., :1], x[..., 1:] @ o.mT], -1)
