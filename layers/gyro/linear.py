"""Linear layers between gyro spaces."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from torchriemann.manifolds import GyroManifold
from torchriemann.manifolds.precision import in_full_precision

from ..base import ManifoldModule
from .inputs import channels, check_count, check_input, check_space, draw_uniform, shown
from .products import coordinates_of, frame_products, shared_products, vector_products


class GyroAffine(ManifoldModule):
    """What linear layers and convolutions have in common: f points of one space make o points of another one."""

    weight: nn.Parameter
    base_point: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, manifold: GyroManifold, in_shape: tuple[int, ...], out_manifold: GyroManifold | None) -> None:
        super().__init__()
        self.manifold = manifold
        self.in_shape = in_shape
        self.out_manifold = out_manifold

    @property
    def _target(self) -> GyroManifold:
        return self.manifold if self.out_manifold is None else self.out_manifold

    def _register(
        self,
        fields: tuple[int, ...],
        out_channels: tuple[int, ...],
        out_shape: tuple[int, ...],
        bias: bool,
        shared_base: bool,
        parametrization: str,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        """Make the parameters: `fields` are the dimensions of the points that one result is made of."""
        m, draw = self.manifold, {"device": device, "dtype": dtype}
        lead = (*out_channels, *self._target.normal_shape(tuple(out_shape)), *fields)
        size = (*lead, *m.normal_shape(tuple(self.in_shape)))
        self.weight = nn.Parameter(torch.empty(size, **draw))  # type: ignore[call-overload]
        shape = (*(fields if shared_base else lead), *self.in_shape)
        self.register_point("base_point", m, shape, parametrization, **draw)  # type: ignore[arg-type]
        if bias:
            shape = (*out_channels, *out_shape)
            self.register_point("bias", self._target, shape, parametrization, **draw)  # type: ignore[arg-type]
        else:
            self.register_parameter("bias", None)
        self._fan_in = math.prod((*fields, *size[len(lead) :]))
        self._results = lead[: len(lead) - len(fields)]
        self._is_shared = shared_base
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the directions, and return the points to the origin."""
        bound = math.sqrt(3 / self._fan_in)
        draw_uniform(self.weight, bound)
        self.set_point("base_point")
        if self.bias is not None:
            self.set_point("bias")

    def _operands(self, x: Tensor) -> Tensor:
        """What products are taken of: normal coordinates, where these form a vector space."""
        return self.manifold.to_normal(x) if self.manifold.is_vector_space else x

    def _made(self, x: Tensor) -> Tensor:
        """The results of operands ``*B,f,P`` or ``*B,f,Z``."""
        m, coordinates = self.manifold, self.weight.shape[self.weight.dim() - self.manifold.normal_ndim :]
        fields = self._fan_in // math.prod(coordinates)
        directions = self.weight.to(x.dtype).reshape(-1, fields, *coordinates)
        if m.is_vector_space:
            base = coordinates_of(self, "base_point", x.dtype).reshape(-1, fields, *coordinates)
        else:
            base = self.point("base_point", x.dtype).reshape(-1, fields, *self.in_shape)
        products = vector_products if m.is_vector_space else shared_products if self._is_shared else frame_products
        return self._point_at(products(m, x, base, directions).unflatten(-1, self._results))

    def _point_at(self, v: Tensor) -> Tensor:
        """b (+) from_normal(v)."""
        m = self._target
        if self.bias is None:
            y = m.from_normal(v)
        elif m.is_vector_space:
            y = m.from_normal(coordinates_of(self, "bias", v.dtype) + v)
        else:
            y = m.expmap_frame(self.point("bias", v.dtype), v)
        return m.restore(y)  # far out rounding alone leaves the space


class GyroLinear(GyroAffine):
    r"""A linear layer between gyro spaces: every normal coordinate of the result is a product of its own,

    .. math:: v_j = \sum_c \bigl\langle z(\ominus p_{jc} \oplus x_c),\; a_{jc} \bigr\rangle, \qquad
              y = b \oplus \exp_o(v),

    with normal coordinates z, in which v are those of :math:`\exp_o(v)`; c are the channels of the input, and every
    channel of the output has its own p, a and b. Input and output may be points of different sizes and spaces. (Nguyen,
    Yang and Histace 2024, arXiv:2405.19206, fully connected layers of matrices; Ganea et al. 2018, arXiv:1805.09112,
    and Shimizu et al. 2021, arXiv:2006.08210, for the ball.) On flat space it is `torch.nn.Linear`.

    Args:
        manifold: the `GyroManifold` of the input.
        in_shape: the shape P of its points.
        out_shape: the shape Q of the points of the output.
        in_channels: C; None for inputs without a dimension of channels.
        out_channels: O; None for outputs without a dimension of channels.
        out_manifold: the `GyroManifold` of the output; None for the same.
        bias: whether there is a b.
        shared_base: one p for each channel of the input, which all coordinates of all outputs share, in the place of
            their own.
        parametrization: of p and b: "tangent" keeps them in normal coordinates, for any optimizer; "manifold" as
            points, for a Riemannian one.

    Attributes:
        weight: the directions a, ``(O,)Y,(C,)Z`` with Y the shape of the output's normal coordinates and Z that of the
            input's. Uniform with the variance 1/f, f the number of coordinates of an input, so that at the start
            coordinates keep their mean square: distances from the origin grow by the root of the ratio of dimensions.
            (`torch.nn.Linear` starts with a third of that variance.)
        base_point: p, ``(O,)Y,(C,)P``, or ``(C,)P`` if `shared_base`, or their normal coordinates. They start at the
            origin.
        bias: b, ``(O,)Q`` or its normal coordinates, or None. It starts at the origin.

    Shape: ``*B,(C,)P -> *B,(O,)Q``, points in the dtype of the input; float32 at least inside.

    Cost. As `GyroClassifier` with as many classes as the output has coordinates; with `shared_base` one logarithm for
    each point of the input and one matrix product.

    Raises ``ValueError`` for a space without gyro structure, for shapes that are none of its points, for another
    `parametrization`, and for an `x` of another shape.

    >>> from torchriemann import SPDLogCholesky
    >>> layer = GyroLinear(SPDLogCholesky(), (5, 5), (3, 3), in_channels=2, out_channels=4)
    >>> layer(SPDLogCholesky().random(10, 2, 5, 5)).shape
    torch.Size([10, 4, 3, 3])
    """

    def __init__(
        self,
        manifold: GyroManifold,
        in_shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        in_channels: int | None = None,
        out_channels: int | None = None,
        out_manifold: GyroManifold | None = None,
        bias: bool = True,
        shared_base: bool = False,
        parametrization: str = "tangent",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_linear(self, manifold, in_shape, out_shape, out_manifold)
        check_count(self, "in_channels", in_channels, optional=True)
        check_count(self, "out_channels", out_channels, optional=True)
        super().__init__(manifold, in_shape, out_manifold)
        self.out_shape = out_shape
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.shared_base = shared_base
        self.parametrization = parametrization
        lead = channels(in_channels), channels(out_channels)
        self._register(*lead, out_shape, bias, shared_base, parametrization, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """The points of the output, ``*B,(C,)P -> *B,(O,)Q``."""
        check_input(self, x, *channels(self.in_channels), *self.in_shape)
        return self._mapped(x, self._target)

    @in_full_precision(points_of="target")
    def _mapped(self, x: Tensor, target: GyroManifold) -> Tensor:
        x = x if self.in_channels is not None else x.unsqueeze(-self.manifold.ndim - 1)
        return self._made(self._operands(x))

    def extra_repr(self) -> str:
        """The arguments, for ``print(module)``."""
        names = "manifold", "in_shape", "out_shape", "in_channels", "out_channels", "out_manifold"
        return f"{shown(self, *names)}, bias={self.bias is not None}, {shown(self, 'shared_base', 'parametrization')}"


def check_linear(layer: object, manifold: object, in_shape: object, out_shape: object, out_manifold: object) -> None:
    """Raise ``ValueError`` unless both are gyro spaces with points of these shapes."""
    check_space(layer, "manifold", manifold, in_shape, "in_shape")
    if out_manifold is None:
        check_space(layer, "manifold", manifold, out_shape, "out_shape")
    else:
        check_space(layer, "out_manifold", out_manifold, out_shape, "out_shape")
