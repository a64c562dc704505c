"""Layers between subspaces and symmetric matrices: projectors, leading eigenvectors, means of subspaces."""

from __future__ import annotations

from torch import Tensor, nn

from torchriemann.manifolds import Grassmann
from torchriemann.manifolds.precision import in_full_precision

from ..gyro.inputs import check_count, check_input, shown


class ProjMap(nn.Module):
    r"""The projector on the span of an orthonormal basis, ``x x^T``: the same for every basis of it.

    What comes after sees a subspace and no basis; flattened it goes to a linear head. (Huang, Wu and Van Gool 2018,
    arXiv:1611.05742.)

    Shape: ``*B,n,p -> *B,n,n``, symmetric, in the dtype of the input; float32 at least inside.

    Raises ``ValueError`` for an `x` that is no such matrix.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The projector."""
        check_input(self, x, None, None)
        if not 0 < x.shape[-1] <= x.shape[-2]:
            raise ValueError(f"ProjMap: x must be *B,n,p with 1 <= p <= n, got {tuple(x.shape)}")
        return Grassmann().projector(x)


class OrthMap(nn.Module):
    r"""An orthonormal basis of the span of the p leading eigenvectors of a symmetric matrix.

    The derivative is that of the projector on the span, which needs a gap between the eigenvalues p and p + 1 alone: it
    is finite where eigenvalues among the first p coincide, as they nearly do in means of projectors, and there the
    derivatives of single eigenvectors are not. Without that gap the span is one of several, and constant. (Huang, Wu
    and Van Gool 2018, arXiv:1611.05742, with derivatives of eigenvectors.)

    The basis is none in particular, and may be turned another way for an input nearby: what comes after should see the
    span alone, as `ProjMap` and `Grassmann` do.

    Args:
        p: the dimension of the span.

    Shape: ``*B,n,n -> *B,n,p``, points of `Grassmann`, in the dtype of the input; float32 at least inside. Only the
    symmetric part is read.

    Raises ``ValueError`` for p below one or above n, and for an `x` that is not square.
    """

    def __init__(self, p: int) -> None:
        super().__init__()
        check_count(self, "p", p)
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """The basis."""
        check_input(self, x, None, None)
        if x.shape[-1] != x.shape[-2] or self.p > x.shape[-1]:
            raise ValueError(f"OrthMap: x must be *B,n,n with n >= p = {self.p}, got {tuple(x.shape)}")
        return Grassmann().from_projector(x, self.p)

    def extra_repr(self) -> str:
        """The argument, for ``print(module)``."""
        return shown(self, "p")


class GrassmannPool(nn.Module):
    r"""Means of subspaces over the channels, or over windows of them: the p leading eigenvectors of the mean projector.

    .. math:: \operatorname{top}_p \frac1k \sum_{i=1}^k x_i x_i^\top,

    the subspace of least summed squared chordal distance. (Huang, Wu and Van Gool 2018, arXiv:1611.05742, pooling
    between `ProjMap` and `OrthMap`.) Where the bases side by side, n x k p, have fewer columns than rows, their left
    singular vectors are taken, and no n x n matrix is formed.

    Args:
        kernel_size: k, the number of channels of a mean; None for all of them, and no dimension of channels after it.
        stride: steps between windows; None for `kernel_size`.

    Shape: ``*B,C,n,p -> *B,n,p``, or ``*B,C',n,p`` with ``C' = (C - k)//stride + 1``: points of `Grassmann`, in the
    dtype of the input; float32 at least inside. Derivatives as those of `OrthMap`.

    Raises ``ValueError`` for sizes below one, for fewer channels than the kernel has, and for an `x` that holds no
    bases.
    """

    def __init__(self, kernel_size: int | None = None, stride: int | None = None) -> None:
        super().__init__()
        check_count(self, "kernel_size", kernel_size, optional=True)
        check_count(self, "stride", stride, optional=True)
        if kernel_size is None and stride is not None:
            raise ValueError("GrassmannPool: a stride needs a kernel_size; without one there is a single mean")
        self.kernel_size = kernel_size
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """The means."""
        check_input(self, x, None, None, None)
        k = x.shape[-3] if self.kernel_size is None else self.kernel_size
        if not 0 < x.shape[-1] <= x.shape[-2] or not 0 < k <= x.shape[-3]:
            raise ValueError(
                f"GrassmannPool: x must be *B,C,n,p with 1 <= p <= n and at least {max(k, 1)} channel(s), got "
                f"{tuple(x.shape)}"
            )
        windows = x.unfold(-3, k, k if self.stride is None else self.stride).movedim(-1, 0)  # k,*B,C',n,p
        means = self._means(windows)
        return means.squeeze(-3) if self.kernel_size is None else means

    @in_full_precision
    def _means(self, windows: Tensor) -> Tensor:
        return Grassmann().chordal_mean(windows)

    def extra_repr(self) -> str:
        """The arguments, for ``print(module)``."""
        return shown(self, "kernel_size", "stride")
