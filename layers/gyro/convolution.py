"""Convolutions of sequences and images whose entries are points of a gyro space."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from torchriemann.manifolds import GyroManifold
from torchriemann.manifolds.precision import in_full_precision

from .inputs import check_count, check_input, shown
from .linear import GyroAffine, check_linear

Sizes = int | tuple[int, ...]


class GyroConvolution(GyroAffine):
    """A `GyroLinear` of the points in each receptive field, in any number of spatial dimensions."""

    spatial: ClassVar[int]

    def __init__(
        self,
        manifold: GyroManifold,
        in_shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        out_manifold: GyroManifold | None = None,
        bias: bool = True,
        shared_base: bool = False,
        parametrization: str = "tangent",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_linear(self, manifold, in_shape, out_shape, out_manifold)
        check_count(self, "in_channels", in_channels)
        check_count(self, "out_channels", out_channels)
        super().__init__(manifold, in_shape, out_manifold)
        self.out_shape = out_shape
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.shared_base = shared_base
        self.parametrization = parametrization
        kernel = self._sizes("kernel_size")
        self._geometry = (kernel, self._sizes("stride"), self._sizes("padding", least=0), self._sizes("dilation"))
        fields, lead = (in_channels, *kernel), (out_channels,)
        self._register(fields, lead, out_shape, bias, shared_base, parametrization, device, dtype)

    def _sizes(self, name: str, least: int = 1) -> tuple[int, ...]:
        """The option `name`, a number for each spatial dimension."""
        given = getattr(self, name)
        sizes = given if isinstance(given, (tuple, list)) else (given,) * self.spatial
        if len(sizes) != self.spatial or not all(type(n) is int and n >= least for n in sizes):
            raise ValueError(
                f"{type(self).__name__}: {name} must be an integer of at least {least}, or {self.spatial} of them, got "
                f"{given!r}"
            )
        return tuple(sizes)

    def forward(self, x: Tensor) -> Tensor:
        """The points of the output; the class says of which shape."""
        check_input(self, x, self.in_channels, *(None,) * self.spatial, *self.in_shape)
        first = x.dim() - self.manifold.ndim - self.spatial
        kernel, _, padding, dilation = self._geometry
        for n, k, p, d in zip(x.shape[first:], kernel, padding, dilation, strict=False):
            if n + 2 * p < d * (k - 1) + 1:
                raise ValueError(
                    f"{type(self).__name__}: the kernel reaches over {d * (k - 1) + 1} entries, x has {n + 2 * p} with "
                    f"its padding; x is of shape {tuple(x.shape)}"
                )
        return self._convolved(x, self._target)

    @in_full_precision(points_of="target")
    def _convolved(self, x: Tensor, target: GyroManifold) -> Tensor:
        m = self.manifold
        x, origin = self._operands(x), m.origin(*self.in_shape, dtype=x.dtype, device=x.device)
        x = self._padded(x, self._operands(origin))
        tail = m.normal_ndim if m.is_vector_space else m.ndim
        y = self._made(_windows(x, self._geometry, tail))
        return y.movedim(-target.ndim - 1, -target.ndim - 1 - self.spatial)

    def _padded(self, x: Tensor, origin: Tensor) -> Tensor:
        """Origins around the entries ``*B,S,P``."""
        for i, p in enumerate(self._geometry[2]):
            dim = x.dim() - origin.dim() - self.spatial + i
            side = origin.expand(*x.shape[:dim], p, *x.shape[dim + 1 :])
            x = torch.cat([side, x, side], dim) if p else x
        return x

    def extra_repr(self) -> str:
        """The arguments, for ``print(module)``."""
        names = "manifold", "in_shape", "out_shape", "in_channels", "out_channels", "kernel_size", "stride", "padding"
        return (
            f"{shown(self, *names, 'dilation', 'out_manifold')}, bias={self.bias is not None}, "
            f"{shown(self, 'shared_base', 'parametrization')}"
        )


def _windows(x: Tensor, geometry: tuple[tuple[int, ...], ...], tail: int) -> Tensor:
    """The receptive fields of entries ``*B,C,S,P`` whose points have `tail` dimensions. ``-> *B,S',f,P``."""
    kernel, stride, _, dilation = geometry
    spatial = len(kernel)
    first = x.dim() - tail - spatial
    for i, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True)):
        x = x.unfold(first + i, d * (k - 1) + 1, s)[..., ::d]  # the window comes last
    batch = list(range(first - 1))
    places = list(range(first, first + spatial))
    points = list(range(first + spatial, first + spatial + tail))
    windows = list(range(x.dim() - spatial, x.dim()))
    x = x.permute(*batch, *places, first - 1, *windows, *points)
    return x.flatten(x.dim() - tail - spatial - 1, x.dim() - tail - 1)


class GyroConv1d(GyroConvolution):
    r"""A convolution of sequences of points: `GyroLinear` of the points in each receptive field,

    .. math:: v_{lj} = \sum_{c, i} \bigl\langle z(\ominus p_{jci} \oplus x_{c, s l + d i}),\; a_{jci} \bigr\rangle,
              \qquad y_l = b \oplus \exp_o(v_l)

    with stride s and dilation d. (Nguyen, Yang and Histace 2024, arXiv:2405.19206, convolutions of positive definite
    matrices.) On flat space it is `torch.nn.Conv1d`. Initialisation, attributes and cost are those of `GyroLinear`,
    with the kernel behind the channels of the input: weight ``O,Y,C,k,Z``, base_point ``O,Y,C,k,P``.

    Args:
        manifold: the `GyroManifold` of the input.
        in_shape: the shape P of its points.
        out_shape: the shape Q of the points of the output.
        in_channels: C.
        out_channels: O.
        kernel_size: k, the number of points in a receptive field.
        stride: s.
        padding: the number of origins on either side.
        dilation: d.
        out_manifold: the `GyroManifold` of the output; None for the same.
        bias: whether there is a b.
        shared_base: one p for each channel and place of the kernel, ``C,k,P``, for all coordinates of all outputs.
        parametrization: of p and b: "tangent" or "manifold", as `GyroLinear` has it.

    Shape: ``*B,C,L,P -> *B,O,L',Q`` with ``L' = (L + 2 padding - dilation (k - 1) - 1)//stride + 1``, points in the
    dtype of the input; float32 at least inside.

    Raises ``ValueError`` for a space without gyro structure, for shapes that are none of its points, for sizes below
    one (a padding below zero), and for an `x` of another shape or shorter than the kernel.

    >>> from torchriemann import SPDLogCholesky
    >>> layer = GyroConv1d(SPDLogCholesky(), (5, 5), (3, 3), 1, 4, kernel_size=3, padding=1)
    >>> layer(SPDLogCholesky().random(10, 1, 20, 5, 5)).shape
    torch.Size([10, 4, 20, 3, 3])
    """

    spatial: ClassVar[int] = 1


class GyroConv2d(GyroConvolution):
    r"""A convolution of images whose pixels are points: `GyroLinear` of the points in each receptive field.

    As `GyroConv1d`, with two spatial dimensions; on flat space `torch.nn.Conv2d`. (Nguyen, Yang and Histace 2024,
    arXiv:2405.19206.)

    Args:
        manifold: the `GyroManifold` of the input.
        in_shape: the shape P of its points.
        out_shape: the shape Q of the points of the output.
        in_channels: C.
        out_channels: O.
        kernel_size: a number, or one for rows and one for columns; so are `stride`, `padding` and `dilation`.
        stride: steps between receptive fields.
        padding: the number of origins on either side.
        dilation: steps between the points of a receptive field.
        out_manifold: the `GyroManifold` of the output; None for the same.
        bias: whether there is a b.
        shared_base: one p for each channel and place of the kernel, ``C,k,l,P``, for all coordinates of all outputs.
        parametrization: of p and b: "tangent" or "manifold", as `GyroLinear` has it.

    Shape: ``*B,C,H,W,P -> *B,O,H',W',Q``, points in the dtype of the input; float32 at least inside. weight is
    ``O,Y,C,k,l,Z``, base_point ``O,Y,C,k,l,P``.

    Raises ``ValueError`` for a space without gyro structure, for shapes that are none of its points, for sizes below
    one (a padding below zero), and for an `x` of another shape or smaller than the kernel.
    """

    spatial: ClassVar[int] = 2
