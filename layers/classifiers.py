"""Classifiers whose classes are points of a manifold."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from torchriemann.manifolds import Grassmann
from torchriemann.manifolds.functional.series import safe_norm, safe_sqrt
from torchriemann.manifolds.precision import in_full_precision, widen

from .base import ManifoldModule


class GrassmannClassifier(ManifoldModule):
    r"""Each class is a subspace; the logit is the length of the feature's projection on it.

    .. math:: \ell_c = \gamma \, |S_c^\top z|, \qquad z = x / |x|

    with an orthonormal basis :math:`S_c` of the subspace of class c: :math:`\gamma` times the cosine of the angle
    between feature and subspace. A class may vary within its subspace without leaving its logit, so features keep
    differences inside a class that a linear head would collapse; that is what makes them transfer (Wang et al.,
    "Grassmann Class Representation", arXiv:2308.01547).

    Args:
        in_features: d, the size of a feature.
        num_classes: K.
        subspace_dim: k, the dimension of every class subspace, at most d. With k = 1 a class is a line: a cosine
            classifier that ignores the sign.
        scale: :math:`\gamma`; cross-entropy wants it well above log K, and the paper uses 25 throughout.
        normalize: divide x by its length. Without it the logits are :math:`\gamma |S_c^\top x|`.
        parametrization: "manifold" keeps the bases as a `ManifoldParameter`, for a Riemannian optimizer; "tangent" the
            normal coordinates of the subspaces, ``K,d-k,k``, for any optimizer. There a subspace is
            ``Grassmann().from_normal(weight)``, which costs an eigendecomposition of size k a class and a step, and
            whose coordinates are long where it is far from the span of the first k axes.

    Shape: ``*B,d -> *B,K``, in the dtype of the input. With `normalize` all logits lie in [0, scale] up to rounding.

    Attributes:
        weight: ``K,d,k``, orthonormal columns, a `ManifoldParameter` on `manifold` = ``Grassmann()``, or ``K,d-k,k``;
            drawn from the rotation-invariant law. ``point("weight")`` is the bases in both forms.

    Numerics. At least float32 inside, whatever the dtypes and autocast. The gradient is finite everywhere: a feature
    orthogonal to a subspace, where the length has a kink, contributes the subgradient zero to that class, and so
    does the zero feature, whose logits are zero.

    Many classes. `class_parallel.ClassParallel` shards the head over its classes, one part a process; `weight` is then
    a `DTensor`, and so are `x` and the logits. Such a head is of the "manifold" form.

    Raises ``ValueError`` for sizes that make no subspaces, for another `parametrization`, for an `x` of another size or
    of no floating-point type, and for a `weight` that is sharded in any but its first dimension, or in "tangent" form.

    >>> head = GrassmannClassifier(in_features=64, num_classes=10, subspace_dim=8)
    >>> head(torch.randn(32, 64)).shape
    torch.Size([32, 10])
    """

    weight: nn.Parameter
    parametrization: str = "manifold"  # of a head that was pickled before there was a choice

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        subspace_dim: int,
        scale: float = 25.0,
        normalize: bool = True,
        parametrization: str = "manifold",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"GrassmannClassifier: num_classes must be at least 1, got {num_classes}")
        if not 1 <= subspace_dim <= in_features:
            raise ValueError(
                f"GrassmannClassifier: subspace_dim must lie between 1 and in_features = {in_features}, "
                f"got {subspace_dim}"
            )
        if not scale > 0:
            raise ValueError(f"GrassmannClassifier: scale must be positive, got {scale}")
        self.in_features = in_features
        self.num_classes = num_classes
        self.subspace_dim = subspace_dim
        self.scale = scale
        self.normalize = normalize
        self.parametrization = parametrization
        self.manifold = Grassmann()
        shape = (num_classes, in_features, subspace_dim)
        self.register_point("weight", self.manifold, shape, parametrization, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the subspaces from the rotation-invariant law; on the meta device there is nothing to draw."""
        if self.weight.is_meta:
            return
        # A factorisation needs float32 at least; rounding to a half dtype comes after it.
        wide = widen(self.weight)
        if self._is_sharded():
            from .class_shards import draw_shard  # here: it imports a second's worth of torch.distributed

            with torch.no_grad():
                return draw_shard(self.manifold, self.weight, wide)
        shape = (self.num_classes, self.in_features, self.subspace_dim)
        drawn = self.manifold.random_uniform(*shape, device=self.weight.device, dtype=wide)
        self.set_point("weight", drawn)

    def forward(self, x: Tensor) -> Tensor:
        """The logits, ``*B,d -> *B,K``."""
        self._check_input(x)
        if self._is_sharded():
            from .class_shards import on_shards

            return on_shards(self._logits, x, self.weight)
        if self.parametrization == "manifold":
            return self._logits(x, self.weight)
        return self._logits(x, self.point("weight", widen(x, self.weight)))

    def _is_sharded(self) -> bool:
        if not is_traceable_wrapper_subclass(self.weight):
            return False
        if self.parametrization != "manifold":
            raise ValueError(
                f"GrassmannClassifier: weight is sharded, as a {type(self.weight).__name__}, and parametrization is "
                f'{self.parametrization!r}; make a head that is to be sharded with parametrization="manifold"'
            )
        return True

    def _logits(self, x: Tensor, weight: Tensor) -> Tensor:
        return self._lengths(x, weight).to(x.dtype)  # whatever the dtype of the weight

    @in_full_precision
    def _lengths(self, x: Tensor, weight: Tensor) -> Tensor:
        length = safe_norm(x, keepdim=True)
        z = x / torch.where(length == 0, 1.0, length)
        # All bases side by side, d x Kk: one matrix product instead of K thin ones.
        projections = z @ weight.transpose(0, 1).reshape(self.in_features, -1)
        # z has unit length, so the squares neither overflow nor underflow to any effect.
        cosines = safe_sqrt(projections.unflatten(-1, (weight.shape[0], self.subspace_dim)).square().sum(-1))
        return self.scale * (cosines if self.normalize else length * cosines)

    def _check_input(self, x: Tensor) -> None:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"GrassmannClassifier: x must be a floating-point tensor, got {got}")
        if x.dim() < 1 or x.shape[-1] != self.in_features:
            raise ValueError(
                f"GrassmannClassifier: x must have shape (*B, in_features = {self.in_features}), got {tuple(x.shape)}"
            )

    def extra_repr(self) -> str:
        """The arguments, for ``print(module)``."""
        return (
            f"in_features={self.in_features}, num_classes={self.num_classes}, subspace_dim={self.subspace_dim}, "
            f"scale={self.scale}, normalize={self.normalize}, parametrization={self.parametrization!r}"
        )
