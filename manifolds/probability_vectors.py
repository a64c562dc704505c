"""What probability vectors are, whatever their metric."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import Manifold
from .checks import expands
from .functional.matrices import check_number
from .functional.simplex import nearest_probabilities, off_faces, over_sum
from .operation import in_full_precision, operation
from .precision import widen


class ProbabilityVectors(Manifold, abc.ABC):
    r"""Probability vectors with positive entries. Points are ``*B,n``, n > 1, tangent vectors have the sum zero, the
    dimension is n - 1.

    Points are divided by their sum, and entries that underflow end as the least normal number.
    """

    ndim: ClassVar[int] = 1

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        return None if point_shape[-1] > 1 else f"points must have at least two entries, got {point_shape[-1]}"

    def _point_residual(self, x: Tensor) -> tuple[Tensor, str]:
        return (x.sum(-1) - 1).abs().amax(), "max|sum(x) - 1|"

    def _outside_reason(self, x: Tensor) -> str | None:
        outside = (x <= 0).any(-1)
        if not bool(outside.any()):
            return None
        return (
            f"x has min(x) = {float(x.amin()):.2g}, and an entry of {int(outside.sum())} of {outside.numel()} items is "
            "not positive; call projx(x), or restore(x) of a softmax whose small entries underflowed"
        )

    def _vector_residual(self, x: Tensor, u: Tensor) -> tuple[Tensor, str]:
        return u.sum(-1).abs().amax(), "max|sum(u)|"

    def dimension(self, shape: tuple[int, ...]) -> int:
        """n - 1."""
        return shape[-1] - 1

    # ---- projections ------------------------------------------------------------------------------------------

    def projx(self, x: Tensor) -> Tensor:
        """The point with entries of at least eps/n that is nearest to any finite vector in Euclidean distance: far from
        the simplex most of them are eps/n. What is a point to the tolerance of its dtype, and would lose a hundredth of
        an entry, is divided by its sum instead."""
        self.check_operands("projx", [x])
        return self._projected(x, tolerance=self._tolerance(x.dtype, None))

    @in_full_precision(points_of="self")
    def _projected(self, x: Tensor, *, tolerance: float) -> Tensor:
        n, least, eps = x.shape[-1], x.detach().amin(-1, keepdim=True), torch.finfo(x.dtype).eps
        excess = (x.detach().sum(-1, keepdim=True) - 1).abs()
        keeps = (least > 0) & (excess <= tolerance) & (n * least < (100 * excess).clamp_min(eps))
        scaled = over_sum(torch.where(keeps, x, 1.0), 0.0)
        return torch.where(keeps, scaled, nearest_probabilities(x, eps / n))

    @operation
    def restore(self, x: Tensor) -> Tensor:
        """x over its sum, where entries that are zero or below by rounding are the least normal number."""
        return off_faces(x, torch.finfo(x.dtype).tiny)

    @property
    def restore_every(self) -> int:
        """1: rounding alone leaves the space next to its faces."""
        return 1

    def round_to(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The nearest numbers, where these are zero the least positive one."""
        self.check_operands("round_to", [x])
        info, x = torch.finfo(dtype), x.to(widen(x, dtype))
        nearest = x.to(dtype)
        return torch.where((nearest == 0) & (x > 0), info.tiny * info.eps, nearest)

    def _drawn_in(self, x: Tensor, margin: float) -> Tensor:
        floor = max(margin / x.shape[-1], torch.finfo(x.dtype).tiny)
        inside = (x.detach() >= floor).all(-1, keepdim=True)
        return torch.where(inside, x, off_faces(x, floor))

    # ---- sampling ---------------------------------------------------------------------------------------------

    def origin(self, *size: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """The uniform distribution."""
        self._raise(self._shape_reason(size))
        return torch.full(size, 1 / size[-1], dtype=dtype or torch.get_default_dtype(), device=device)

    def random(self, *size: int, **draw: Any) -> Tensor:
        """Uniform in the entries: `random_dirichlet` with the concentration 1."""
        return self.random_dirichlet(*size, **draw)

    def random_dirichlet(
        self,
        *size: int,
        concentration: float | Tensor = 1.0,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """The Dirichlet law, with the density ``prod x_i^(concentration_i - 1)`` in the entries; `concentration` is a
        number or a tensor that broadcasts to `size`. Entries that underflow are the least normal number.

        Raises ``ValueError`` unless every concentration is positive and finite.
        """
        self._raise(self._shape_reason(size))
        shapes = self._concentrations(size, concentration).to(device).expand(size).contiguous()
        # A gamma variable of shape a is one of shape a + 1 times U^(1/a), which underflows: in logarithms it does not.
        # Of torch's sampler the public form takes no generator.
        gamma = torch._standard_gamma(shapes + 1, generator)  # pyright: ignore[reportPrivateImportUsage]
        share = torch.empty_like(shapes).exponential_(generator=generator) / shapes
        return self.round_to(self.restore((gamma.log() - share).softmax(-1)), dtype or torch.get_default_dtype())

    def _concentrations(self, size: tuple[int, ...], given: float | Tensor) -> Tensor:
        """Those that `random_dirichlet` was given, checked, in float64."""
        where = f"{type(self).__name__}.random_dirichlet"
        if not isinstance(given, Tensor):
            check_number(where, "concentration", given)
        found = torch.as_tensor(given, dtype=torch.float64).detach()
        if not expands(found.shape, size):
            raise ValueError(f"{where}: concentration must broadcast to the size {size}, got {tuple(found.shape)}")
        if not bool(((found > 0) & (found < torch.inf)).all()):
            raise ValueError(f"{where}: concentration must be positive and finite, got {float(found.min()):.3g}")
        return found
