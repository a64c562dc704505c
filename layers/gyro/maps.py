"""Layers that move points and leave their shape alone: translations and multiples."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchriemann.manifolds import GyroManifold
from torchriemann.manifolds.precision import in_full_precision

from ..base import ManifoldModule
from .inputs import channels, check_count, check_input, check_space, shown


class GyroTranslation(ManifoldModule):
    r"""Gyro-addition of a learned point b, what a bias is in a vector space.

    .. math:: y = b \oplus x

    An isometry for fixed b, which moves the origin to b. (Nguyen and Yang 2023, arXiv:2305.04560, section 3.2.)

    Args:
        manifold: a `GyroManifold`.
        point_shape: the shape P of one point, ``(n, n)`` of a matrix.
        num_channels: C, each with a point of its own; None for inputs without a dimension of channels.
        parametrization: "tangent" keeps b in normal coordinates, for any optimizer; "manifold" as a point, for a
            Riemannian one.

    Attributes:
        bias: b, ``(C,)P`` ("manifold") or its normal coordinates ``(C,)Z`` ("tangent"). It starts at the origin, where
            the layer is the identity.

    Shape: ``*B,(C,)P -> *B,(C,)P``, points in the dtype of the input; float32 at least inside.

    Raises ``ValueError`` for a `manifold` without gyro structure, for a `point_shape` that is none of its points, for
    another `parametrization`, and for an `x` of another shape.

    >>> from torchriemann import SPDAffineInvariant
    >>> layer = GyroTranslation(SPDAffineInvariant(), (3, 3), num_channels=4)
    >>> layer(SPDAffineInvariant().random(10, 4, 3, 3)).shape
    torch.Size([10, 4, 3, 3])
    """

    bias: nn.Parameter

    def __init__(
        self,
        manifold: GyroManifold,
        point_shape: tuple[int, ...],
        num_channels: int | None = None,
        parametrization: str = "tangent",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_space(self, "manifold", manifold, point_shape)
        check_count(self, "num_channels", num_channels, optional=True)
        self.manifold = manifold
        self.point_shape = point_shape
        self.num_channels = num_channels
        self.parametrization = parametrization
        shape = (*channels(num_channels), *point_shape)
        self.register_point("bias", manifold, shape, parametrization, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Return to the identity."""
        self.set_point("bias")

    def forward(self, x: Tensor) -> Tensor:
        """The translated points."""
        check_input(self, x, *channels(self.num_channels), *self.point_shape)
        return self._translated(x, self.manifold)

    @in_full_precision(points_of="manifold")
    def _translated(self, x: Tensor, manifold: GyroManifold) -> Tensor:
        if self.parametrization == "tangent":
            y = manifold.translated(x, self.bias.to(x.dtype))
        else:
            y = manifold.gyroadd(self.point("bias", x.dtype), x)
        return manifold.restore(y)  # far out rounding alone leaves the space

    def extra_repr(self) -> str:
        """The arguments, for ``print(module)``."""
        return shown(self, "manifold", "point_shape", "num_channels", "parametrization")


class GyroScaling(ManifoldModule):
    r"""Learned multiples of points, by one number or by one for each normal coordinate.

    .. math:: y = \exp_o(a \odot \log_o x)

    in normal coordinates, ``from_normal(a * to_normal(x))``: with a number this is the gyro-multiple a (*) x, the power
    x^a of the affine-invariant metric. (Nguyen and Yang 2023, arXiv:2305.04560, section 3.2; weights entry by entry are
    those of its models of knowledge graphs.)

    On spaces with a finite injectivity radius, as spheres have, a longer multiple goes around.

    Args:
        manifold: a `GyroManifold`.
        point_shape: the shape P of one point.
        num_channels: C, each with a weight of its own; None for inputs without a dimension of channels.
        entrywise: a weight for each normal coordinate in the place of one number.

    Attributes:
        weight: a, ``(C,)``, or ``(C,)Z`` if `entrywise`. Ones, at the start: the layer is the identity.

    Shape: ``*B,(C,)P -> *B,(C,)P``, points in the dtype of the input; float32 at least inside.

    Raises ``ValueError`` for a `manifold` without gyro structure, for a `point_shape` that is none of its points, and
    for an `x` of another shape.
    """

    weight: nn.Parameter

    def __init__(
        self,
        manifold: GyroManifold,
        point_shape: tuple[int, ...],
        num_channels: int | None = None,
        entrywise: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_space(self, "manifold", manifold, point_shape)
        check_count(self, "num_channels", num_channels, optional=True)
        self.manifold = manifold
        self.point_shape = point_shape
        self.num_channels = num_channels
        self.entrywise = entrywise
        coordinates = tuple(manifold.normal_shape(tuple(point_shape))) if entrywise else ()
        shape = (*channels(num_channels), *coordinates)
        self.weight = nn.Parameter(torch.ones(shape, device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Return to the identity."""
        with torch.no_grad():
            self.weight.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        """The multiples of the points."""
        check_input(self, x, *channels(self.num_channels), *self.point_shape)
        return self._scaled(x, self.manifold)

    @in_full_precision(points_of="manifold")
    def _scaled(self, x: Tensor, manifold: GyroManifold) -> Tensor:
        weight = self.weight.to(x.dtype)
        if self.entrywise:
            return manifold.restore(manifold.from_normal(weight * manifold.to_normal(x)))
        return manifold.restore(manifold.gyroscale(weight, x))

    def extra_repr(self) -> str:
        """The arguments, for ``print(module)``."""
        return shown(self, "manifold", "point_shape", "num_channels", "entrywise")
