"""Multinomial logistic regression on gyro spaces."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchriemann.manifolds import GyroManifold
from torchriemann.manifolds.precision import in_full_precision

from ..base import ManifoldModule
from .inputs import channels, check_choice, check_count, check_input, check_space, draw_uniform, shown
from .products import coordinates_of, frame_products, hyperplane_margins, vector_products

MARGINS = ("gyro", "distance")


class GyroClassifier(ManifoldModule):
    r"""Multinomial logistic regression on a gyro space: a class has a point p and a direction a, and the logit is

    .. math:: \ell_k(x) = \sum_c \bigl\langle z(\ominus p_{kc} \oplus x_c),\; a_{kc} \bigr\rangle

    with normal coordinates z, and c the channels: what a linear head is in a vector space. On matrices this is
    :math:`\langle \log X - \log P, A\rangle` for the log-Euclidean metric, the same of Cholesky coordinates for the
    log-Cholesky one, and :math:`\langle \log(P^{-1/2} X P^{-1/2}), A\rangle` for the affine-invariant metric. (Nguyen
    and Yang 2023, arXiv:2305.04560, section 3.2; Nguyen, Yang and Histace 2024, arXiv:2405.19206.)

    Margins. The logit is |a| times a distance to the decision hyperplane through p, with its sign. By default it is the
    pseudo-gyrodistance, the length of the logarithm along a. With ``margin="distance"`` it is the true distance
    `hyperplane_dist`, where that has a closed form: on spaces of constant curvature, where it is Ganea et al.'s
    classifier (arXiv:1805.09112), on flat ones, where both are the same, and on products of them, where distances of
    the factors are added as that method says.

    Args:
        manifold: a `GyroManifold`.
        point_shape: the shape P of one point, ``(n, n)`` of a matrix.
        num_classes: K.
        num_channels: C; None for inputs without a dimension of channels.
        margin: "gyro" or "distance".
        parametrization: of the points: "tangent" keeps them in normal coordinates, for any optimizer; "manifold" as
            points, for a Riemannian one.

    Attributes:
        weight: the directions a in normal coordinates, ``K,(C,)Z``. Uniform between -1/sqrt(f) and 1/sqrt(f), f the
            number of coordinates of an input, as those of `torch.nn.Linear`.
        base_point: the points p, ``K,(C,)P`` or ``K,(C,)Z``. They start at the origin, where the logits are those of a
            linear layer without bias on normal coordinates.

    Shape: ``*B,(C,)P -> *B,K``, in the dtype of the input; float32 at least inside.

    Cost. On vector spaces, `is_vector_space`, one logarithm an item and one matrix product. Elsewhere every item is
    translated to every class, ``K C`` logarithms an item, as one batch; of matrices these are eigendecompositions.

    Raises ``ValueError`` for a `manifold` without gyro structure, or without `hyperplane_dist` where that is asked for,
    for a `point_shape` that is none of its points, for unknown options, and for an `x` of another shape.

    >>> from torchriemann import SPDLogEuclidean
    >>> head = GyroClassifier(SPDLogEuclidean(), (5, 5), num_classes=3)
    >>> head(SPDLogEuclidean().random(10, 5, 5)).shape
    torch.Size([10, 3])
    """

    weight: nn.Parameter
    base_point: nn.Parameter

    def __init__(
        self,
        manifold: GyroManifold,
        point_shape: tuple[int, ...],
        num_classes: int,
        num_channels: int | None = None,
        margin: str = "gyro",
        parametrization: str = "tangent",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_space(self, "manifold", manifold, point_shape)
        check_count(self, "num_classes", num_classes)
        check_count(self, "num_channels", num_channels, optional=True)
        check_choice(self, "margin", margin, MARGINS)
        if margin == "distance":
            _check_hyperplanes(manifold, tuple(point_shape))
        self.manifold = manifold
        self.point_shape = point_shape
        self.num_classes = num_classes
        self.num_channels = num_channels
        self.margin = margin
        self.parametrization = parametrization
        lead = (num_classes, *channels(num_channels))
        size = (*lead, *manifold.normal_shape(tuple(point_shape)))
        self.weight = nn.Parameter(torch.empty(size, device=device, dtype=dtype))
        shape = (*lead, *point_shape)
        self.register_point("base_point", manifold, shape, parametrization, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the directions, and return the points to the origin."""
        bound = (self.weight.numel() / self.num_classes) ** -0.5
        draw_uniform(self.weight, bound)
        self.set_point("base_point")

    def forward(self, x: Tensor) -> Tensor:
        """The logits, ``*B,(C,)P -> *B,K``."""
        check_input(self, x, *channels(self.num_channels), *self.point_shape)
        return self._logits(x)

    @in_full_precision
    def _logits(self, x: Tensor) -> Tensor:
        m, lead = self.manifold, (self.num_classes, self.num_channels or 1)
        x = x if self.num_channels is not None else x.unsqueeze(-m.ndim - 1)
        directions = self.weight.to(x.dtype).reshape(*lead, *self.weight.shape[self.weight.dim() - m.normal_ndim :])
        if m.is_vector_space:
            base = coordinates_of(self, "base_point", x.dtype).reshape(directions.shape)
            return vector_products(m, m.to_normal(x), base, directions)
        products = frame_products if self.margin == "gyro" else hyperplane_margins
        return products(m, x, self.point("base_point", x.dtype).reshape(*lead, *self.point_shape), directions)

    def extra_repr(self) -> str:
        """The arguments, for ``print(module)``."""
        names = "manifold", "point_shape", "num_classes", "num_channels", "margin", "parametrization"
        return shown(self, *names)


def _check_hyperplanes(manifold: GyroManifold, point_shape: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless distances to hyperplanes are known."""
    x = manifold.origin(*point_shape, dtype=torch.float32, device="cpu")
    try:
        manifold.hyperplane_dist(x, torch.ones(manifold.normal_shape(point_shape), device="cpu"))
    except NotImplementedError as error:
        raise ValueError(f'GyroClassifier: margin="distance" has no closed form here; take "gyro" ({error})') from error
