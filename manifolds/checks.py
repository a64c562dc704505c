"""Membership: shapes before arithmetic, residuals against a tolerance by dtype, errors that say what to do."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from .functional.broadcasting import broadcast_shape
from .precision import Castable, in_full_precision


def described(argument: object) -> str:
    """What a wrong argument is, for messages: no numbers of a tensor."""
    if isinstance(argument, Tensor):
        return f"a tensor of shape {tuple(argument.shape)}"
    return f"the class {argument.__name__}" if isinstance(argument, type) else repr(argument)


def expands(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether a tensor of `shape` can be expanded to `whole`."""
    return len(shape) <= len(whole) and all(n in (1, m) for n, m in zip(shape[::-1], whole[::-1], strict=False))


class CheckedManifold(Castable, abc.ABC):
    """The part of the contract that asks whether a tensor is a point or a tangent vector."""

    ndim: ClassVar[int]
    name: ClassVar[str]
    _point_mend: ClassVar[str] = "call projx(x)"  # of what is no point, for messages

    # ---- what a manifold states -------------------------------------------------------------------------------

    @abc.abstractmethod
    def _point_residual(self, x: Tensor) -> tuple[Tensor, str]:
        """Largest deviation from membership (0-dim tensor) and its formula, for messages."""

    @abc.abstractmethod
    def _vector_residual(self, x: Tensor, u: Tensor) -> tuple[Tensor, str]:
        """Largest deviation from tangency (0-dim tensor) and its formula, for messages."""

    def _shape_complaint(self, point_shape: tuple[int, ...]) -> str | None:
        """Why the trailing dimensions cannot be a point, or None."""
        return None

    # ---- shapes -----------------------------------------------------------------------------------------------

    def _shape_reason(self, shape: tuple[int, ...]) -> str | None:
        if len(shape) > 0 and isinstance(shape[-1], (tuple, list)):  # of samplers: random((5, 3))
            return f"the size must be given as separate integers, got {shape!r}; unpack it, as in random(*size)"
        if len(shape) < self.ndim:
            return f"needs at least {self.ndim} dimension(s), got shape {tuple(shape)}"
        return self._shape_complaint(tuple(shape[len(shape) - self.ndim :]))

    def check_operands(self, operation_name: str, tensors: list[Tensor]) -> None:
        """Raise unless all `tensors` are real, shaped like one kind of point, and broadcast over the batch."""
        where = f"{type(self).__name__}.{operation_name}"
        if not tensors:
            raise ValueError(f"{where}: expected tensors")
        for t in tensors:
            if not isinstance(t, Tensor):
                raise ValueError(f"{where}: expected tensors, got {described(t)}; convert it with torch.as_tensor")
            if not t.is_floating_point():
                raise ValueError(f"{where}: expected a floating-point tensor, got {t.dtype}; convert it with .to()")
        self.check_shapes(operation_name, tensors)

    def check_shapes(self, operation_name: str, tensors: Sequence[Tensor]) -> None:
        """Raise unless all `tensors` are shaped like one kind of point, and broadcast over the batch."""
        first, others = tuple(tensors[0].shape), []  # slices of a torch.Size take ten times those of a tuple
        for t in tensors[1:]:
            if t.shape != first:
                others.append(tuple(t.shape))
        for shape in (first, *others) if others else (first,):
            reason = self._shape_reason(shape)
            if reason is not None:
                raise ValueError(f"{type(self).__name__}.{operation_name}: {reason}")
            if others and shape[len(shape) - self.ndim :] != first[len(first) - self.ndim :]:
                raise ValueError(
                    f"{type(self).__name__}.{operation_name}: arguments are points of different shapes, {first} and "
                    f"{shape}: the last {self.ndim} dimension(s) must agree"
                )
        if others:
            batches = [tuple(t.shape)[: t.dim() - self.ndim] for t in tensors]
            self.check_batches(f"{type(self).__name__}.{operation_name}", batches)

    def check_batches(self, where: str, batches: Sequence[Sequence[int]]) -> None:
        if broadcast_shape(*batches) is None:
            shown = ", ".join(str(tuple(b)) for b in batches)
            raise ValueError(f"{where}: batch dimensions {shown} do not broadcast")

    def _everywhere(self, *tensors: Tensor) -> Tensor:
        """True of every item. ``-> *B`` (bool)."""
        batch = torch.broadcast_shapes(*(t.shape for t in tensors))
        return torch.ones(batch[: len(batch) - self.ndim], dtype=torch.bool, device=tensors[0].device)

    # ---- values -----------------------------------------------------------------------------------------------

    def _tolerance(self, dtype: torch.dtype, atol: float | None) -> float:
        # 0.4 eps^(2/3): 1e-5 in float32, 1.5e-11 in float64, 1.6e-2 in bfloat16. Between rounding, which grows
        # with the square root of the size, and the first error that matters.
        return 0.4 * torch.finfo(dtype).eps ** (2 / 3) if atol is None else atol

    def _check_values(self, name: str, t: Tensor) -> None:
        if t.is_meta:
            raise ValueError(
                f"{type(self).__name__}: {name} is on the meta device, where tensors have no values to check; give it "
                "some by to_empty, or look at its shape alone, by check_point"
            )

    # As numbers: a residual in bfloat16 would measure its own rounding.
    @in_full_precision
    def _measured_point(self, x: Tensor) -> tuple[float, str]:
        self._check_values("x", x)
        residual, formula = self._point_residual(x.detach())
        return float(residual.detach()), formula  # an option may be a tensor that is learned

    @in_full_precision
    def _measured_vector(self, x: Tensor, u: Tensor) -> tuple[float, str]:
        self._check_values("u", u)
        residual, formula = self._vector_residual(x.detach(), u.detach())
        return float(residual.detach()), formula

    def _residual_reason(self, value: float, formula: str, tolerance: float, dtype, mend: str) -> str | None:
        if value <= tolerance:  # written so that NaN fails
            return None
        if not math.isfinite(value):
            mend = f"remove its NaN or infinite entries, then {mend}"
        return f"{formula} = {value:.2g} > {tolerance:.2g} ({str(dtype).removeprefix('torch.')}); {mend}"

    def _type_reason(self, name: str, t: object) -> str | None:
        if not isinstance(t, Tensor) or not t.is_floating_point():
            got = t.dtype if isinstance(t, Tensor) else type(t).__name__
            return f"{name} must be a floating-point tensor, got {got}"
        reason = self._shape_reason(t.shape)
        return None if reason is None else f"{name} {reason}"

    def _point_reason(self, x: Tensor, atol: float | None, rtol: float | None) -> str | None:
        reason = self._type_reason("x", x)
        if reason is not None or x.numel() == 0:
            return reason
        residual, formula = self._measured_point(x)
        if bool(x.isfinite().all()) and (outside := self._outside_reason(x.detach())) is not None:
            return outside
        tolerance = self._tolerance(x.dtype, atol) + (rtol or 0.0)
        return self._residual_reason(residual, f"x has {formula}", tolerance, x.dtype, self._point_mend)

    def _outside_reason(self, x: Tensor) -> str | None:
        """Of a space with a rim, to which no tolerance applies: which finite items lie beyond, and what to do. None
        where none does."""
        return None

    def _vector_reason(self, x: Tensor, u: Tensor, atol: float | None, rtol: float | None) -> str | None:
        reason = self._type_reason("u", u)
        if reason is not None or u.numel() == 0:
            return reason
        self.check_operands("check_vector_on_tangent", [x, u])
        residual, formula = self._measured_vector(x, u)
        relative = self._tolerance(u.dtype, rtol)
        tolerance = self._tolerance(u.dtype, atol) + relative * float(u.detach().abs().max())
        return self._residual_reason(residual, f"u has {formula}", tolerance, u.dtype, "call proju(x, u)")

    @staticmethod
    def _answer(reason: str | None, explain: bool) -> Any:
        return (reason is None, reason) if explain else reason is None

    def _raise(self, reason: str | None) -> None:
        if reason is not None:
            raise ValueError(f"{type(self).__name__}: {reason}")

    # ---- the public checks ------------------------------------------------------------------------------------

    def check_point(self, x: Tensor, *, explain: bool = False) -> Any:
        """Is the shape that of a point? With `explain`, the pair (answer, reason or None)."""
        return self._answer(self._type_reason("x", x), explain)

    def check_vector(self, u: Tensor, *, explain: bool = False) -> Any:
        """Is the shape that of a tangent vector?"""
        return self._answer(self._type_reason("u", u), explain)

    def check_point_on_manifold(
        self, x: Tensor, *, explain: bool = False, atol: float | None = None, rtol: float | None = None
    ) -> Any:
        """Is `x` a point of the manifold, up to `atol` (by default 0.4 eps^(2/3) of its dtype) plus `rtol`?

        NaN fails; an empty batch passes. With `explain`, the pair (answer, reason or None).
        """
        return self._answer(self._point_reason(x, atol, rtol), explain)

    def check_vector_on_tangent(
        self,
        x: Tensor,
        u: Tensor,
        *,
        ok_point: bool = False,
        explain: bool = False,
        atol: float | None = None,
        rtol: float | None = None,
    ) -> Any:
        """Is `u` tangent at `x`, up to ``atol + rtol * max|u|``? `ok_point` skips the check of `x`."""
        reason = None if ok_point else self._point_reason(x, atol, None)
        reason = reason or self._vector_reason(x, u, atol, rtol)
        return self._answer(reason, explain)

    def assert_check_point(self, x: Tensor) -> None:
        """Raise ``ValueError`` unless `x` has the shape of a point."""
        self._raise(self._type_reason("x", x))

    def assert_check_vector(self, u: Tensor) -> None:
        """Raise ``ValueError`` unless `u` has the shape of a tangent vector."""
        self._raise(self._type_reason("u", u))

    def assert_check_point_on_manifold(
        self, x: Tensor, *, atol: float | None = None, rtol: float | None = None
    ) -> None:
        """Raise ``ValueError`` naming the class, the residual and the mend unless `x` is a point."""
        self._raise(self._point_reason(x, atol, rtol))

    def assert_check_vector_on_tangent(
        self, x: Tensor, u: Tensor, *, ok_point: bool = False, atol: float | None = None, rtol: float | None = None
    ) -> None:
        """Raise ``ValueError`` naming the class, the residual and the mend unless `u` is tangent at `x`."""
        self._raise(self.check_vector_on_tangent(x, u, ok_point=ok_point, explain=True, atol=atol, rtol=rtol)[1])
