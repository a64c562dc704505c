"""Layers between subspaces: full-rank maps, and orthonormal bases of what these leave."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchriemann.manifolds import Stiefel
from torchriemann.manifolds.functional.frames import positive_qr
from torchriemann.manifolds.functional.nearest_frame import nearest_frame
from torchriemann.manifolds.precision import in_full_precision, widen

from ..base import ManifoldModule
from ..gyro.inputs import channels, check_choice, check_count, check_input, shown

METHODS = ("qr", "polar")


class FRMap(ManifoldModule):
    r"""The full-rank map of subspaces to a space of fewer dimensions, ``Y = W X``: features of their bases.

    W has orthonormal rows, so that it has full rank and stretches nothing. What it makes of an orthonormal basis X is a
    basis of the image of the span, in general not an orthonormal one: `ReOrth` mends that. (Huang, Wu and Van Gool
    2018, "Building Deep Networks on Grassmann Manifolds", arXiv:1611.05742.)

    Args:
        in_features: n.
        out_features: m, at most n.
        num_channels: C, each with a map of its own; None for one map and inputs without a dimension of channels.

    Attributes:
        weight: the transpose of W, ``(C,)n,m`` with orthonormal columns, a `ManifoldParameter` on ``Stiefel()``, for a
            Riemannian optimizer; drawn from the rotation-invariant law.

    Shape: ``*B,(C,)n,p -> *B,(C,)m,p`` for any p, in the dtype of the input; float32 at least inside. An input
    ``*B,1,n,p`` gets all C maps.

    Raises ``ValueError`` for sizes that make no such maps, and for an `x` of another shape.

    >>> network = nn.Sequential(FRMap(20, 12, num_channels=4), ReOrth(), ProjMap(), OrthMap(3))
    >>> network(torch.randn(10, 1, 20, 3)).shape
    torch.Size([10, 4, 12, 3])
    """

    weight: nn.Parameter

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_channels: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_count(self, "in_features", in_features)
        check_count(self, "out_features", out_features)
        check_count(self, "num_channels", num_channels, optional=True)
        if out_features > in_features:
            raise ValueError(
                f"FRMap: out_features must be at most in_features = {in_features}, so that W has full row rank, got "
                f"{out_features}"
            )
        self.in_features = in_features
        self.out_features = out_features
        self.num_channels = num_channels
        shape = (*channels(num_channels), in_features, out_features)
        self.register_point("weight", Stiefel(), shape, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the maps from the rotation-invariant law; on the meta device there is nothing to draw."""
        if not self.weight.is_meta:
            wide = widen(self.weight)
            self.set_point(
                "weight", Stiefel().random_uniform(*self.weight.shape, device=self.weight.device, dtype=wide)
            )

    def forward(self, x: Tensor) -> Tensor:
        """W X."""
        check_input(self, x, self.in_features, None)
        if self.num_channels is not None and (x.dim() < 3 or x.shape[-3] not in (1, self.num_channels)):
            check_input(self, x, self.num_channels, self.in_features, None)
        return self._mapped(x)

    @in_full_precision
    def _mapped(self, x: Tensor) -> Tensor:
        return self.point("weight", x.dtype).mT @ x

    def extra_repr(self) -> str:
        """The arguments, for ``print(module)``."""
        return shown(self, "in_features", "out_features", "num_channels")


class ReOrth(nn.Module):
    r"""An orthonormal basis of the span of the columns of X.

    Args:
        method: "qr" is the factor Q of ``X = Q R`` with a positive diagonal of R (Huang, Wu and Van Gool 2018,
            arXiv:1611.05742), by Householder reflections. "polar" is the orthonormal matrix nearest to X,
            ``X (X^T X)^(-1/2)``: of the same span, and dearer.

    Shape: ``*B,n,p -> *B,n,p`` with p <= n, points of `Grassmann`, in the dtype of the input; float32 at least inside.

    Where columns are linearly dependent the span is smaller and no basis of p vectors is one of it alone. Both methods
    give orthonormal columns then, the span of which holds that of X. The derivative of "qr" is not finite there, and
    grows as the inverse of the smallest singular value nearby; that of "polar" is zero in the directions that vanish.

    Raises ``ValueError`` for another method, and for an `x` that is no such matrix.
    """

    def __init__(self, method: str = "qr") -> None:
        super().__init__()
        check_choice(self, "method", method, METHODS)
        self.method = method

    def forward(self, x: Tensor) -> Tensor:
        """The basis."""
        check_input(self, x, None, None)
        if not 0 < x.shape[-1] <= x.shape[-2]:
            raise ValueError(f"ReOrth: x must be *B,n,p with 1 <= p <= n, got {tuple(x.shape)}")
        return self._basis(x)

    @in_full_precision
    def _basis(self, x: Tensor) -> Tensor:
        return positive_qr(x)[0] if self.method == "qr" else nearest_frame(x)

    def extra_repr(self) -> str:
        """The argument, for ``print(module)``."""
        return shown(self, "method")
