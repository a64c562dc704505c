"""Modules that remember which of their parameters are points of which manifold."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from torchriemann.manifolds import Manifold, ManifoldParameter
from torchriemann.manifolds.checks import described, expands
from torchriemann.manifolds.parameter import (
    CONTAINERS,
    check_options_fixed,
    learnable_options,
    manifold_label,
    only_itself,
    register_manifold,
    registered_manifolds,
    relabel,
)
from torchriemann.manifolds.precision import widen

from .points import PARAMETRIZATIONS, Point, back_inside, in_dtype, remember_point, remembered_points


class ManifoldModule(nn.Module):
    """A module with parameters on manifolds: call `register_manifold_parameter` in ``__init__``, or `register_point`,
    which lets the user choose between a parameter on the manifold and coordinates for any optimizer.

    The manifold of a parameter is kept on the module, under the parameter's name, and the tensor is labelled again
    whenever an operation of torch replaces it: ``.to("meta")``, ``to_empty``, ``load_state_dict(assign=True)``,
    assignment, sharding. `optim.param_groups(model)` reads that registry. So are the labels of tensors in modules
    within, a `ParameterList` say, from the time at which these are assigned, converted or loaded.

    A manifold with a learnable option, as ``Lorentz(nn.Parameter(...))``, has no parameter that a module could find:
    to keep one as an attribute raises ``ValueError`` unless the option is a parameter of the module already.

    Checkpoints. ``state_dict`` holds plain tensors. ``load_state_dict`` and assignment check membership and warn
    (`RuntimeWarning`) with the residual; they change no value, but for what a change of dtype asks for: points that
    arrive from a less precise one are projected, since rounding took them off the manifold of the more precise one, and
    points that rounding to a less precise one put on the rim of a ball are taken back inside. Meta tensors and shards
    carry no point to check.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_load_state_dict_post_hook(_label_again)

    def register_manifold_parameter(self, name: str, tensor: Tensor, manifold: Any) -> None:
        """Register `tensor` (``*B,P``, a point of `manifold` or a batch of them) as the parameter `name`.

        Raises ``ValueError`` if `tensor` is off the manifold (``ManifoldParameter.project(tensor, manifold)`` makes a
        point), or already labelled with another manifold, or if an option of the manifold is learnable: a stored point
        does not follow it (learn normal coordinates, and take ``manifold.from_normal(z)`` in ``forward``). A meta
        tensor is checked for its shape only.
        """
        if not isinstance(tensor, Tensor):
            raise ValueError(
                f"{type(self).__name__}: {name} must be a tensor, got {type(tensor).__name__}; call torch.as_tensor"
            )
        check_options_fixed(manifold, f"{type(self).__name__}: {name}")
        label = manifold_label(tensor)
        if label is not None and label != manifold:
            raise ValueError(
                f"{type(self).__name__}: {name} was to be registered on {manifold!r}, "
                f"but the tensor is labelled {label!r}{only_itself(manifold, label)}"
            )
        if tensor.is_meta:
            manifold.assert_check_point(tensor)
            parameter = relabel(nn.Parameter(tensor), manifold)
        else:
            parameter = ManifoldParameter(tensor, manifold)
        # One that is labelled already goes in as it is: modules that share it must go on sharing it.
        if isinstance(tensor, ManifoldParameter) and label is not None:
            parameter = tensor
        self.register_parameter(name, parameter)
        register_manifold(self, name, manifold)

    # ---- points in either form --------------------------------------------------------------------------------

    def register_point(
        self,
        name: str,
        manifold: Manifold,
        shape: tuple[int, ...],
        parametrization: str = "manifold",
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Register the parameter `name` of a learned point of `manifold`, or of a batch of them. It is the origin.

        `shape` is the whole shape ``*B,P``. With "manifold" the parameter is the point, a `ManifoldParameter` for a
        Riemannian optimizer; with "tangent" its orthonormal coordinates at the origin, for any optimizer (`Point` says
        which). ``self.point(name)`` is the point in both forms, `set_point` moves it.

        Raises ``ValueError`` for another `parametrization`, for a `manifold` of another library, for an option of it
        that is learnable (register the point on the manifold of the start, with "tangent", and hand `point` the one of
        today), and for a `shape` of no point.
        """
        where = f"{type(self).__name__}: "
        if parametrization not in PARAMETRIZATIONS:
            raise ValueError(f"{where}parametrization must be one of {PARAMETRIZATIONS}, got {parametrization!r}")
        if not isinstance(manifold, Manifold):
            raise ValueError(f"{where}{name} needs a manifold of torchriemann, as Sphere(), got {described(manifold)}")
        check_options_fixed(manifold, f"{where}{name}")
        point = Point(manifold, tuple(shape), parametrization)
        origin = manifold.origin(*shape, device=device, dtype=dtype)
        if parametrization == "manifold":
            self.register_manifold_parameter(name, origin, manifold)
        else:
            self.register_parameter(name, nn.Parameter(origin.new_zeros(point.stored_shape)))
        remember_point(self, name, point)

    def point(self, name: str, dtype: torch.dtype | None = None, manifold: Manifold | None = None) -> Tensor:
        """The point, or the batch of points, that the parameter `name` tells. ``*B,P``.

        In `dtype`, by default the parameter's, and on the manifold to the rounding of that, however coarse the
        parameter: in a method under `in_full_precision` say ``self.point(name, x.dtype)``. A `manifold` takes the place
        of the registered one, for points in "tangent" form where an option, such as the curvature, is learned.

        Raises ``ValueError`` for a name that is no point, and for another `manifold` than that of a stored point.
        """
        point, stored = self._described_point(name), getattr(self, name)
        if manifold is not None and point.parametrization == "manifold" and manifold != point.manifold:
            raise ValueError(
                f"{type(self).__name__}: {name} is a point of {point.manifold!r} and cannot be read as one of "
                f'{manifold!r}; register it with parametrization="tangent"'
            )
        return point.of(stored, stored.dtype if dtype is None else dtype, manifold)

    def set_point(self, name: str, x: Tensor | None = None) -> None:
        """Move the point `name` to `x`, ``*B,P`` (broadcast over ``*B``), in any dtype, by default to the origin; for
        ``reset_parameters``. On the meta device there is nothing to move.

        Raises ``ValueError`` if `x` is no point of its manifold, or of a shape that does not broadcast.
        """
        point, stored = self._described_point(name), getattr(self, name)
        if stored.is_meta:
            return
        if x is not None:
            if not expands(x.shape, point.shape):
                raise ValueError(
                    f"{type(self).__name__}: {name} has the shape {point.shape}, to which {tuple(x.shape)} does not "
                    "broadcast"
                )
            if has_values(x):
                point.manifold.assert_check_point_on_manifold(x)
            x = in_dtype(point.manifold, x.detach(), widen(x, stored))
        with torch.no_grad():
            stored.copy_(point.origin_like(stored) if x is None else point.stored(x, stored.dtype))

    def _described_point(self, name: str) -> Point:
        point = remembered_points(self).get(name)
        if point is not None:
            return point
        manifold, parameter = registered_manifolds(self).get(name), self._parameters.get(name)
        if manifold is None or parameter is None:
            raise ValueError(f"{type(self).__name__}: {name} is no point; call register_point in __init__")
        return Point(manifold, tuple(parameter.shape), "manifold")

    # ---- what torch does to parameters ------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        manifold = registered_manifolds(self).get(name)
        if manifold is not None and isinstance(value, nn.Parameter):
            label = manifold_label(value)
            if label is None:
                _warn_if_off_manifold(self, name, value, manifold)
                relabel(value, manifold)
            elif label != manifold:
                raise ValueError(
                    f"{type(self).__name__}: parameter {name} is registered on {manifold!r}, "
                    f"got one that is labelled {label!r}{only_itself(manifold, label)}"
                )
        elif isinstance(value, Manifold):
            _check_learnable(self, name, value)
        super().__setattr__(name, value)  # type: ignore[arg-type]
        if isinstance(value, nn.Module):
            _remember_labels(value)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """As torch's; the labels of the tensors in `module` are remembered."""
        super().add_module(name, module)
        if module is not None:
            _remember_labels(module)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """As torch's; a parameter that is registered under the name of a point is labelled with its manifold, and one
        that is labelled is remembered."""
        super().register_parameter(name, param)
        manifold, label = registered_manifolds(self).get(name), manifold_label(param)
        if manifold is not None and param is not None and label is None:
            relabel(param, manifold)
        elif manifold is None and label is not None:
            register_manifold(self, name, label)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True):
        _remember_labels(self)
        before = {id(module): _dtypes(module) for module in _covered_by(self)}
        super()._apply(fn, recurse)
        for module in _covered_by(self):
            dtypes = before.get(id(module), {})
            _settle(module, dtypes, dtypes)
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, local_metadata, *args) -> None:
        _remember_labels(self)
        self.__dict__[_BEFORE_LOADING] = {id(module): _dtypes(module) for module in _covered_by(self)}
        stored = {name: state_dict.get(prefix + name) for name, _ in _points_of(self)}
        assigned = local_metadata.get("assign_to_params_buffers", False)  # then `__setattr__` checks
        for name, manifold in _points_of(self):
            parameter, value = self._parameters.get(name), stored[name]
            fits = parameter is not None and isinstance(value, Tensor) and value.shape == parameter.shape
            if fits and not assigned:
                _warn_if_off_manifold(self, name, value, manifold)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
        dtypes = {name: value.dtype for name, value in stored.items() if isinstance(value, Tensor)}
        _settle(self, dtypes, _dtypes(self))


# ---- the memory ---------------------------------------------------------------------------------------------------


def _covered_by(module: nn.Module) -> Iterator[nn.Module]:
    """`module` and those within that have no memory of their own."""
    yield module
    for child in module.children():
        if not isinstance(child, ManifoldModule):
            yield from _covered_by(child)


def _points_of(module: nn.Module) -> list[tuple[str, Any]]:
    """What `module` remembers, but for the names that are flat on purpose."""
    return [(name, manifold) for name, manifold in registered_manifolds(module).items() if manifold is not None]


def _remember_labels(root: nn.Module) -> None:
    """Keep on the modules what so far only their tensors say."""
    for module in _covered_by(root):
        for name, parameter in module._parameters.items():
            new = name not in registered_manifolds(module) or isinstance(module, CONTAINERS)
            if new and manifold_label(parameter) is not None:
                register_manifold(module, name, manifold_label(parameter))


def _label_again(root: nn.Module, _: Any) -> None:
    """After ``load_state_dict(assign=True)``, which puts plain parameters into modules without a memory."""
    before = root.__dict__.pop(_BEFORE_LOADING, {})
    for module in _covered_by(root):
        _settle(module, {}, before.get(id(module), {}))


_BEFORE_LOADING = "_points_before_loading"  # attribute of a module while it loads


def _dtypes(module: nn.Module) -> dict[str, torch.dtype]:
    """The names that are points now, with their dtypes. In a module without a memory of its own a plain parameter under
    such a name was put there by somebody, and is none."""
    known = isinstance(module, ManifoldModule)
    found = {}
    for name, _ in _points_of(module):
        parameter = module._parameters.get(name)
        if parameter is not None and (known or isinstance(parameter, ManifoldParameter) or manifold_label(parameter)):
            found[name] = parameter.dtype
    return found


def _settle(module: nn.Module, source_dtypes: dict[str, torch.dtype], names: Collection[str]) -> None:
    """Label the registered parameters `names` again; project those whose values came from a less precise dtype, and
    those that rounding to a less precise one led out of a space."""
    for name, manifold in _points_of(module):
        parameter = module._parameters.get(name)
        if parameter is None or name not in names:
            continue
        if manifold_label(parameter) is None:
            relabel(parameter, manifold)
        source = source_dtypes.get(name, parameter.dtype)
        before, now = torch.finfo(source).eps, torch.finfo(parameter.dtype).eps
        if not has_values(parameter) or before == now:
            continue
        with torch.no_grad():
            x = parameter.detach()
            parameter.copy_(manifold.projx(x) if before > now else back_inside(manifold, x))


def _warn_if_off_manifold(module: nn.Module, name: str, value: Any, manifold: Any) -> None:
    if not has_values(value):
        return
    on_manifold, reason = manifold.check_point_on_manifold(value.detach(), explain=True)
    if not on_manifold:
        warnings.warn(
            f"{type(module).__name__}.{name} is taken as it is, but is off its manifold: "
            f"{type(manifold).__name__}: {reason}, as in "
            f"`with torch.no_grad(): module.{name}.copy_(module.{name}.manifold.projx(module.{name}))`",
            RuntimeWarning,
            stacklevel=3,
        )


def _check_learnable(module: nn.Module, name: str, manifold: Manifold) -> None:
    options = learnable_options(manifold)
    known = {id(p) for p in module.parameters()} if options else set()
    if any(id(option) not in known for option in options):
        raise ValueError(
            f"{type(module).__name__}: {name} would be {' '.join(repr(manifold).split())}, an option of which requires "
            "a gradient but is no parameter of the module: no optimizer would find it, and no checkpoint. Hold a "
            "layers.Curvature, or a parameter, and build the manifold of it in forward: `Lorentz(self.curvature())`, "
            "in a local variable"
        )


def has_values(tensor: Tensor) -> bool:
    """False for meta and fake tensors, and for shards, which hold a part of a point."""
    return not tensor.is_meta and type(tensor) in (Tensor, nn.Parameter, ManifoldParameter)
