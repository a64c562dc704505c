"""What symmetric positive definite matrices are, whatever their metric."""

from __future__ import annotations

import abc
from typing import ClassVar

import torch
from torch import Tensor

from ..base import Manifold
from ..functional.broadcasting import over_batch
from ..functional.cone import definite_in, inside_cone, lifted, raised, with_spectrum
from ..functional.definite import outside_reason, positive_definite
from ..functional.matrices import check_number, identity_like, sym
from ..functional.tracing import values_at_hand
from ..operation import in_full_precision, operation
from ..precision import widen
from ..redraw import drawn_inside


class SPD(Manifold, abc.ABC):
    r"""Symmetric positive definite matrices. Points are ``*B,n,n``, tangent vectors are symmetric matrices.

    Operations read the symmetric part of their arguments, and what they return is symmetric to the bit. An item that is
    not positive definite, or not finite, gives NaN; no other item is touched by it, in value or gradient.

    A point is one if the Cholesky factorisation of its numbers, computed in float64, exists: there is no threshold, and
    ``1e-10 x`` is a point where `x` is. All metrics but some of `SPDKernel` have unique shortest geodesics. Where a
    metric is incomplete, `exp_is_defined` says how far they reach.
    """

    ndim: ClassVar[int] = 2

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        n, m = point_shape
        return None if n == m > 0 else f"points are square matrices of at least one row, got {n} x {m}"

    def _point_residual(self, x: Tensor) -> tuple[Tensor, str]:
        asymmetry = _relative_asymmetry(x)
        definite = positive_definite(x)
        if bool(definite.all()):
            return asymmetry.amax(), "max|x - x^T|/max|x|"
        values = torch.linalg.eigvalsh(sym(torch.where(x.isfinite(), x, 0.0)).double())
        size = values.abs().amax(-1)
        off = 1 - values[..., 0] / torch.where(size > 0, size, 1.0)
        off = torch.where(x.isfinite().flatten(-2).all(-1), off, torch.nan)
        return (
            torch.where(definite, 0.0, off).amax().to(x.dtype),
            "1 - min eigenvalue/max|eigenvalue|, of an item that is not positive definite,",
        )

    def _outside_reason(self, x: Tensor) -> str | None:
        return outside_reason(x)

    def _vector_residual(self, x: Tensor, u: Tensor) -> tuple[Tensor, str]:
        # Relative, in the shape of a tolerance that grows with the size of u.
        return _relative_asymmetry(u).amax() * (1 + u.abs().amax()), "(1 + max|u|) max|u - u^T|/max|u|"

    def dimension(self, shape: tuple[int, ...]) -> int:
        """n (n + 1)/2."""
        return shape[-1] * (shape[-1] + 1) // 2

    @operation
    def projx(self, x: Tensor) -> Tensor:
        """The symmetric part; where that is not positive definite, the nearest matrix with eigenvalues of at least
        16 n eps of the largest magnitude among them; the identity for zero."""
        return raised(sym(x))

    @operation
    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """The symmetric part."""
        return over_batch(sym(u), x).clone()

    @property
    def restore_every(self) -> int:
        """1: next to singular matrices rounding alone leaves the space."""
        return 1

    @operation
    def restore(self, x: Tensor) -> Tensor:
        """The symmetric part, lifted into the cone where it is outside by no more than rounding: by 4 n eps tr(x) I."""
        return lifted(sym(x))

    def round_to(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The nearest numbers; where these are not positive definite, those of x + eps tr(x) I, which are; and where no
        number of `dtype` is as large, those of a multiple of it that fits."""
        self.check_operands("round_to", [x])
        x = x.to(widen(x, dtype))
        nearest = x.to(dtype, copy=True)
        definite = positive_definite(nearest)
        if values_at_hand(x) and bool(definite.all()):
            return nearest
        return torch.where(definite[..., None, None], nearest, definite_in(x, dtype).to(dtype))

    def _drawn_in(self, x: Tensor, margin: float) -> Tensor:
        return inside_cone(x, margin)

    @in_full_precision
    def decay(self, x: Tensor, factor: float | Tensor) -> Tensor:
        """The point on the geodesic from the identity to `x` at `factor`."""
        self.check_operands("decay", [x])
        return self.geodesic(identity_like(x), x, factor)

    @operation
    def log_is_unique(self, x: Tensor, y: Tensor, *, margin: float = 0.0) -> Tensor:
        """Everywhere."""
        return self._everywhere(x, y)

    # ---- sampling ---------------------------------------------------------------------------------------------

    def origin(self, *size: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """The identity."""
        self._raise(self._shape_reason(size))
        return torch.eye(size[-1], dtype=dtype, device=device).expand(size).clone()

    def random_uniform(
        self,
        *size: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """There is no invariant law of mass one: raises."""
        raise self._missing("uniform law: its volume is infinite; call random, random_spectrum or random_normal")

    def random(
        self,
        *size: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """The Wishart law with 2n degrees of freedom and mean I, whatever the metric: G G^T/(2n) with G ``n,2n``
        standard normal. Its condition number is some 34 for large n."""
        self._raise(self._shape_reason(size))
        g = torch.randn(*size, 2, generator=generator, dtype=dtype, device=device).flatten(-2)
        return self._gram(g)

    @in_full_precision(points_of="self")
    def _gram(self, g: Tensor) -> Tensor:
        return sym(g @ g.mT) / g.shape[-1]

    def random_spectrum(
        self,
        *size: int,
        condition: float = 100.0,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Uniformly random eigenvectors, and eigenvalues whose logarithms are uniform between those of
        ``condition^(-1/2)`` and ``condition^(1/2)``, both of which occur: the condition number is `condition`, where
        the dtype holds it."""
        self._raise(self._shape_reason(size))
        where = f"{type(self).__name__}.random_spectrum"
        check_number(where, "condition", condition)
        if not 1 <= condition < torch.inf:
            raise ValueError(f"{where}: condition must be a finite number of at least 1, got {condition}")
        draw = {"generator": generator, "dtype": dtype, "device": device}
        noise = torch.randn(size, **draw)  # type: ignore[call-overload]
        places = torch.rand(size[:-1], **draw)  # type: ignore[call-overload]
        return self._spectral(noise, places, condition)

    @in_full_precision(points_of="self")
    def _spectral(self, noise: Tensor, places: Tensor, condition: float) -> Tensor:
        # In float64: of large conditions the dtype may not hold the smallest eigenvalue, and points stay points.
        return self.round_to(with_spectrum(noise.double(), places.double(), condition), noise.dtype)

    def random_normal(self, *size: int, mean: Tensor | None = None, std: float | Tensor = 1.0, **draw) -> Tensor:
        """Wrapped normal law ``exp_mean(std * z)``; in an incomplete metric given that the geodesic stays inside: what
        leaves is drawn again.

        Raises ``ValueError`` if nothing stays inside in 100 rounds.
        """
        normal = super().random_normal
        return drawn_inside(self, lambda: normal(*size, mean=mean, std=std, **draw))


def _relative_asymmetry(x: Tensor) -> Tensor:
    """max|x - x^T|/max|x| of each item, zero for a zero matrix; NaN and infinity stay."""
    size = x.abs().flatten(-2).amax(-1)
    return (x - x.mT).abs().flatten(-2).amax(-1) / torch.where(size == 0, 1.0, size)
