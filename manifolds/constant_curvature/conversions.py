"""From one model of a space of constant curvature to another, and from one curvature to another."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import described
from ..functional.tracing import values_readable
from ..precision import in_full_precision
from .model import ConstantCurvature


def convert(x: Tensor, source: ConstantCurvature, target: ConstantCurvature) -> Tensor:
    r"""The point of `target` that is the point `x` of `source`: an isometry that keeps the origin and the axes.

    ``*B,n -> *B,n'`` between any two models of one curvature: `Lorentz`, `PoincareBall`, `Klein` and `Stereographic`
    for K < 0, `Sphere`, `ProjectedSphere` and `Stereographic` for K > 0. Normal coordinates stay what they are, so a
    gyro-addition may be done in either model. Nothing is rounded but the coordinates: a round trip that starts in
    the narrower of the two models keeps every point to a few eps of its coordinates; one that starts in the wider model
    loses what the other's coordinates do not resolve.

    Where the models end (in units of 1/sqrt|K|, float64 and float32): Klein at radius 18.7 and 9, the ball at 37 and
    17, beyond which points fall on the rim; Lorentz at 354 and 44, where squares overflow. In a ball the distance of
    two points is already uncertain by eps exp(radius), because coordinates are rounded. `ProjectedSphere` does not
    hold the antipode of the origin, which goes to infinity there.

    Raises ``ValueError`` if the curvatures are known to differ (`change_curvature` goes between them). Tensors are
    compared by identity, then by value where they can be read without waiting, on a CPU outside of tracing.
    """
    _check_models("convert", x, source, target)
    if _known_to_differ(source.curvature, target.curvature):
        raise ValueError(
            f"convert: {source!r} and {target!r} differ in curvature, so that no isometry joins them; use "
            'change_curvature(x, source, target, how="homothety" or "radial")'
        )
    # Classes with one and the same hook, such as `PoincareBall` and `Stereographic`, have the same coordinates.
    same = type(source).to_cosine_sine is type(target).to_cosine_sine
    return x if same else _convert(x, source, target)


def change_curvature(
    x: Tensor, source: ConstantCurvature, target: ConstantCurvature, *, how: str = "homothety"
) -> Tensor:
    r"""The point `x` of `source` carried to the space `target` of another curvature (and possibly another model).

    ``how="homothety"`` multiplies all distances by ``sqrt(K_source/K_target)``: nothing changes but the unit of length.
    The curvatures must have the same sign. ``how="radial"`` keeps normal coordinates, that is distance to and direction
    from the origin, but not the distances of other points; it joins any two curvatures, zero included, and needs
    points nearer to the origin than the injectivity radius of `target` (beyond, they wrap around).

    ``*B,n -> *B,n'``. Curvatures may be tensors, and the gradient reaches both.

    Raises ``ValueError`` for another `how`, and for a homothety between curvatures whose signs are known to differ.
    """
    _check_models("change_curvature", x, source, target)
    if how == "radial":
        return _radial(x, source, target)
    if how != "homothety":
        raise ValueError(f'change_curvature: how must be "homothety" or "radial", got {how!r}')
    signs = _sign(source), _sign(target)
    if None not in signs and signs[0] != signs[1]:
        raise ValueError(
            f"change_curvature: a homothety keeps the sign of the curvature, but {source!r} and {target!r} have "
            'different ones; use how="radial"'
        )
    return _homothety(x, source, target, flat=signs[0] == 0)


@in_full_precision(points_of="target")
def _convert(x: Tensor, source: ConstantCurvature, target: ConstantCurvature) -> Tensor:
    return target.from_cosine_sine(*source.to_cosine_sine(x))


@in_full_precision(points_of="target")
def _radial(x: Tensor, source: ConstantCurvature, target: ConstantCurvature) -> Tensor:
    return target.from_normal(source.to_normal(x))


@in_full_precision(points_of="target")
def _homothety(x: Tensor, source: ConstantCurvature, target: ConstantCurvature, flat: bool) -> Tensor:
    t, s = source.to_cosine_sine(x)  # t has no unit, s is a length
    # Two flat spaces have no unit of length to tell them apart.
    ratio = 1.0 if flat else (source.curvature / target.curvature) ** 0.5
    return target.from_cosine_sine(t, ratio * s)


def _check_models(function: str, x: Tensor, source: object, target: object) -> None:
    for name, manifold in (("source", source), ("target", target)):
        if not isinstance(manifold, ConstantCurvature):
            order = f"; the order is {function}(x, source, target)" if isinstance(manifold, Tensor) else ""
            raise ValueError(
                f"{function}: {name} must be a model of constant curvature, such as Lorentz(), "
                f"got {described(manifold)}{order}"
            )
    if not isinstance(x, Tensor):
        raise ValueError(f"{function}: x must be a tensor, got {type(x).__name__}; convert it with torch.as_tensor")
    source.check_operands(function, [x])  # type: ignore[union-attr]


def _readable(k: float | Tensor) -> bool:
    return not isinstance(k, Tensor) or (k.device.type == "cpu" and values_readable(k))


def _known_to_differ(a: float | Tensor, b: float | Tensor) -> bool:
    if a is b or not (_readable(a) and _readable(b)):
        return False
    # A number and its rounding to the dtype of a tensor count as equal.
    eps = max([torch.finfo(k.dtype).eps for k in (a, b) if isinstance(k, Tensor)], default=0.0)
    first, second = _number(a), _number(b)
    return abs(first - second) > eps * abs(first)


def _number(k: float | Tensor) -> float:
    return float(k.detach() if isinstance(k, Tensor) else k)  # torch warns of a conversion that drops a gradient


def _sign(manifold: ConstantCurvature) -> int | None:
    """The sign of the curvature, or None where it cannot be read."""
    if manifold.sign != 0:
        return manifold.sign
    if not _readable(manifold.curvature):
        return None
    k = _number(manifold.curvature)
    return (k > 0) - (k < 0)
