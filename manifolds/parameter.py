"""Parameters that know their manifold, and the registry that remembers it when a tensor forgets."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import is_fake

from .base import Manifold
from .options import ByOptions

with warnings.catch_warnings():
    # geoopt compiles TorchScript at import, which torch reports as deprecated some seventy times: by a
    # DeprecationWarning, and from 2.14 on by a FutureWarning.
    warnings.simplefilter("ignore")
    import geoopt

# So that geoopt's own isinstance checks accept our manifolds.
geoopt.Manifold.register(Manifold)


class ManifoldParameter(geoopt.ManifoldParameter):
    """A `torch.nn.Parameter` on a manifold, understood by our optimizers and by geoopt's.

    The constructor does not project: a tensor off the manifold raises ``ValueError`` with the residual.
    ``ManifoldParameter.project(tensor, manifold)`` projects first. A manifold of which an option requires a gradient,
    such as a learnable curvature, raises as well: when the option moves, the points are left behind.

    A label on a tensor does not survive everything (``.to("meta")``, ``load_state_dict(assign=True)``,
    ``fully_shard``); `layers.ManifoldModule.register_manifold_parameter` keeps it on the module as well.
    """

    manifold: Any

    if TYPE_CHECKING:

        def __init__(self, data: Tensor, manifold: Any, requires_grad: bool = True) -> None: ...

    def __new__(cls, data: Tensor, manifold: Any, requires_grad: bool = True) -> ManifoldParameter:
        _check_arguments(data, manifold)
        check_options_rest(manifold, "ManifoldParameter")
        manifold.assert_check_point(data)
        if data.is_meta or is_fake(data):  # no values to check
            return cls._label(data.detach(), manifold, requires_grad)
        try:
            manifold.assert_check_point_on_manifold(data)
        except ValueError as error:
            raise ValueError(
                f"ManifoldParameter: {error}, or use ManifoldParameter.project(tensor, manifold)"
            ) from None
        return cls._label(data.detach(), manifold, requires_grad)

    @classmethod
    def _label(cls, data: Tensor, manifold: Any, requires_grad: bool = True) -> ManifoldParameter:
        if is_fake(data):  # which cannot become a subclass without ceasing to be fake
            return relabel(nn.Parameter(data, requires_grad), manifold)  # type: ignore[return-value]
        # contiguous: torch's sharding refuses the column-major output of a factorisation.
        instance = torch.Tensor._make_subclass(cls, data.contiguous(), requires_grad)
        instance.manifold = manifold
        return instance

    @classmethod
    def project(cls, data: Tensor, manifold: Any, requires_grad: bool = True) -> ManifoldParameter:
        """The parameter at ``manifold.projx(data)``."""
        _check_arguments(data, manifold)
        return cls(manifold.projx(data.detach()), manifold, requires_grad)

    def __deepcopy__(self, memo: dict) -> ManifoldParameter:
        if id(self) not in memo:
            data = self.data.clone(memory_format=torch.preserve_format)
            memo[id(self)] = self._label(data, copy.deepcopy(self.manifold, memo), self.requires_grad)
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild, (self.data.as_subclass(Tensor), self.manifold, self.requires_grad)


def _check_arguments(data: Any, manifold: Any) -> None:
    if not isinstance(manifold, geoopt.Manifold):
        shown = f"the class {manifold.__name__}" if isinstance(manifold, type) else type(manifold).__name__
        raise ValueError(f"ManifoldParameter: manifold must be an instance such as Sphere(), got {shown}")
    if not isinstance(data, Tensor):
        raise ValueError(f"ManifoldParameter: data must be a tensor, got {type(data).__name__}; call torch.as_tensor")


def tensor_options(value: Any) -> Iterator[Tensor]:
    """The tensors among the options of a manifold and of the manifolds and charts that it is made of."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensor_options(part)
    elif isinstance(value, nn.Module):
        yield from value.parameters()
    elif isinstance(value, ByOptions):
        for field in dataclasses.fields(value):  # type: ignore[arg-type]
            yield from tensor_options(getattr(value, field.name))


def check_options_rest(manifold: Any, where: str) -> None:
    """Raise ``ValueError`` if an option of `manifold` is learnable: a point does not follow it."""
    if any(option.requires_grad for option in tensor_options(manifold)):
        raise ValueError(
            f"{where}: an option of {manifold!r} requires a gradient; when it moves, a point that is stored on the "
            "manifold is left off it. Learn the point in normal coordinates z and take manifold.from_normal(z) in "
            "forward: these follow the option. Or give the manifold a number"
        )


def _rebuild(data: Tensor, manifold: Any, requires_grad: bool) -> ManifoldParameter:
    return ManifoldParameter._label(data, manifold, requires_grad)


torch.serialization.add_safe_globals([_rebuild, ManifoldParameter])


# ---- the registry ---------------------------------------------------------------------------------------------

_REGISTRY = "_manifold_of"  # attribute of a module: parameter name -> manifold


def register_manifold(module: nn.Module, name: str, manifold: Any) -> None:
    """Remember on `module` that its parameter `name` lives on `manifold`."""
    module.__dict__.setdefault(_REGISTRY, {})[name] = manifold


def registered_manifolds(module: nn.Module) -> dict[str, Any]:
    """The registry of one module: parameter name -> manifold."""
    return module.__dict__.get(_REGISTRY, {})


def named_manifolds(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, Any]]:
    """(qualified name, parameter, manifold or None) of every parameter of `model`, shared ones once.

    The manifold is the registered one; for an unregistered parameter, the tensor's own label. Raises ``ValueError``
    where the two contradict each other.
    """
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        registry = registered_manifolds(module)
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            qualified = f"{prefix}.{name}" if prefix else name
            label = getattr(parameter, "manifold", None)
            manifold = registry.get(name, label)
            if name in registry and label is not None and label != manifold:
                raise ValueError(
                    f"parameter {qualified} is registered on {manifold!r} but its tensor is labelled {label!r}"
                )
            yield qualified, parameter, manifold


def relabel(parameter: nn.Parameter, manifold: Any) -> nn.Parameter:
    """Give a parameter that lost its label (`assign=True`, `.to("meta")`, sharding) its manifold back, in place:
    optimizers, tied modules and sharding hold on to this very object."""
    if type(parameter) is nn.Parameter:
        parameter.__class__ = ManifoldParameter
    # A parameter of another class, such as a DTensor, keeps its class and carries the label as an attribute.
    parameter.manifold = manifold  # type: ignore[attr-defined]
    return parameter
