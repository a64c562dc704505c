"""Parameters that know their manifold, and the registry that remembers it when a tensor forgets."""

from __future__ import annotations

import copy
import dataclasses
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import is_fake
from torch.nn.utils import parametrize

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

    Tools that rebuild a parameter by its class, ``type(p)(data, requires_grad=...)``, say no manifold. The result has
    the one of `data`, if that has a label, else none, and no value is checked. ``torch.nn.Parameter(p)`` keeps the
    label. One without a manifold is refused by the optimizers; `optim.param_groups` gives it back what its module
    remembers.
    """

    manifold: Any = None

    if TYPE_CHECKING:

        def __init__(self, data: Tensor, manifold: Any = ..., requires_grad: bool = True) -> None: ...

    def __new__(cls, data: Tensor, manifold: Any = ..., requires_grad: bool = True) -> ManifoldParameter:
        if manifold is ... or isinstance(manifold, bool):  # called as torch.nn.Parameter(data, requires_grad) is
            _check_tensor(data)
            return cls._label(data.detach(), manifold_label(data), requires_grad if manifold is ... else manifold)
        _check_manifold(manifold)
        _check_tensor(data)
        check_options_fixed(manifold, "ManifoldParameter")
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
        if manifold is not None:
            instance.manifold = manifold
        return instance

    @classmethod
    def project(cls, data: Tensor, manifold: Any, requires_grad: bool = True) -> ManifoldParameter:
        """The parameter at ``manifold.projx(data)``."""
        _check_manifold(manifold)
        _check_tensor(data)
        return cls(manifold.projx(data.detach()), manifold, requires_grad)

    def detach(self) -> Tensor:
        """As torch's: a plain tensor, without a label."""
        plain = Tensor.detach(self)
        # `torch.nn.Parameter(p)` asks p.detach() for a tensor of p's own class, and there is no other hook in it.
        if torch.compiler.is_compiling() or sys._getframe(1).f_code is not nn.Parameter.__new__.__code__:
            return plain
        return self._label(plain, self.manifold, self.requires_grad)

    def __deepcopy__(self, memo: dict) -> ManifoldParameter:
        if id(self) not in memo:
            data = self.data.clone(memory_format=torch.preserve_format)
            memo[id(self)] = self._label(data, copy.deepcopy(self.manifold, memo), self.requires_grad)
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild, (self.data.as_subclass(Tensor), self.manifold, self.requires_grad)


def _check_manifold(manifold: Any) -> None:
    if not isinstance(manifold, geoopt.Manifold):
        shown = f"the class {manifold.__name__}" if isinstance(manifold, type) else type(manifold).__name__
        raise ValueError(f"ManifoldParameter: manifold must be an instance such as Sphere(), got {shown}")


def _check_tensor(data: Any) -> None:
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


def learnable_options(value: Any, depth: int = 3) -> list[Tensor]:
    """The tensors that require a gradient among the options of a manifold, or of those that `value` holds: a law or a
    dataclass of them, or a short tuple, list or dict, up to `depth` of these in each other."""
    if isinstance(value, Manifold):
        return [option for option in tensor_options(value) if option.requires_grad]
    parts: list[Any] = []
    if depth == 0:
        return []
    if isinstance(value, (tuple, list, dict)) and len(value) <= _MOST_PARTS:
        parts = list(value.values()) if isinstance(value, dict) else list(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, (type, nn.Module)):
        parts = [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    elif isinstance(value, torch.distributions.Distribution):
        parts = list(vars(value).values())
    return [option for part in parts for option in learnable_options(part, depth - 1)]


_MOST_PARTS = 100  # a longer list is data, in which nobody keeps manifolds


def check_options_fixed(manifold: Any, where: str) -> None:
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
CONTAINERS = (nn.ParameterList, nn.ParameterDict)  # whose items come and go under one name


def register_manifold(module: nn.Module, name: str, manifold: Any) -> None:
    """Remember on `module` that its parameter `name` lives on `manifold`; None says that it is flat on purpose.

    Raises ``ValueError`` for a parameter of a module within, which is to be given itself, and for None where `module`
    has no such parameter.
    """
    if "." in name:
        raise ValueError(
            f"register_manifold: {name} is a parameter of a module within {type(module).__name__}; call "
            f"{registering(name, manifold, 'module')}"
        )
    if manifold is None and not _is_known(module, name):
        raise ValueError(
            f"register_manifold: {type(module).__name__} has no parameter {name!r} that could be flat; give the module "
            "that holds it, such as the ParameterList itself"
        )
    module.__dict__.setdefault(_REGISTRY, {})[name] = manifold


def registering(name: str, manifold: Any = None, model: str = "model") -> str:
    """The call of `register_manifold` for the parameter `name` of a model, to be shown in a message."""
    owner, _, own = name.rpartition(".")
    owner = f'{model}.get_submodule("{owner}")' if owner else model
    return f'register_manifold({owner}, "{own}", {manifold!r})'


def _is_known(module: nn.Module, name: str) -> bool:
    """Whether `name` is, or was before torch gave it another name, a parameter of `module`."""
    return (
        name in registered_manifolds(module)
        or not {name, f"{name}_orig"}.isdisjoint(module._parameters)
        or parametrize.is_parametrized(module, name)
    )


def only_itself(one: Any, other: Any) -> str:
    """For messages, why two manifolds that print alike are not equal; nothing of others."""
    if repr(one) != repr(other):
        return ""
    return (
        "; manifolds of geoopt, and those with a tensor for an option, are equal only if they are the same object: use "
        "one for both, such as tensor.manifold"
    )


def registered_manifolds(module: nn.Module) -> dict[str, Any]:
    """The registry of one module: parameter name -> manifold."""
    return module.__dict__.get(_REGISTRY, {})


def manifold_label(tensor: Any) -> Any:
    """The manifold that the tensor itself carries, or None."""
    return getattr(tensor, "manifold", None)


def named_manifolds(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, Any]]:
    """(qualified name, parameter, manifold or None) of every parameter of `model`, shared ones once.

    The manifold is the registered one; for an unregistered parameter, the tensor's own label. A parameter that torch
    keeps under another name (``NAME_orig`` of pruning, ``parametrizations.NAME.original``) is on the manifold that is
    registered for NAME. Raises ``ValueError`` where registry and label contradict each other, and where a registered
    parameter is gone.
    """
    seen: set[int] = set()
    renamed: dict[int, dict[str, Any]] = {}  # id of a module inside -> what is registered further out
    for prefix, module in model.named_modules():
        registry = renamed.get(id(module), {}) | _renamed(module, prefix, renamed) | registered_manifolds(module)
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            qualified = f"{prefix}.{name}" if prefix else name
            label = manifold_label(parameter)
            if label is not None and isinstance(module, CONTAINERS):
                registry[name] = label
            manifold = registry.get(name, label)
            if name in registry and label is not None and label != manifold:
                raise ValueError(
                    f"parameter {qualified} is registered on {manifold!r} but its tensor is labelled "
                    f"{label!r}{only_itself(manifold, label)}; say which by register_manifold(module, name, manifold) "
                    "or relabel(parameter, manifold) of torchriemann.manifolds.parameter"
                )
            yield qualified, parameter, manifold


def _renamed(module: nn.Module, prefix: str, inside: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """The manifolds of registered parameters that torch moved to another name of `module`; those that it moved to a
    module within are noted in `inside`."""
    here = {}
    for name, manifold in registered_manifolds(module).items():
        present = module._parameters.keys() | module._buffers.keys()
        if manifold is None or name in present or name.removesuffix("_orig") in present:  # pruning may have ended
            continue
        if f"{name}_orig" in module._parameters:  # pruning, and torch.nn.utils.spectral_norm
            here[f"{name}_orig"] = manifold
        elif parametrize.is_parametrized(module, name) and _one_original(module, name):
            inside.setdefault(id(module.parametrizations[name]), {})["original"] = manifold  # type: ignore[index]
        elif not isinstance(module, CONTAINERS):
            qualified = f"{prefix}.{name}" if prefix else name
            raise ValueError(
                f"parameter {qualified} is registered on {manifold!r}, but "
                f"{type(module).__name__} has no such parameter any more: what took its place (weight normalisation, "
                "say) would be stepped as if it were flat. Undo that, or say that it is meant by "
                f"torchriemann.manifolds.parameter.{registering(qualified)}"
            )
    return here


def _one_original(module: nn.Module, name: str) -> bool:
    return "original" in module.parametrizations[name]._parameters  # type: ignore[index,operator]


def relabel(parameter: nn.Parameter, manifold: Any) -> nn.Parameter:
    """Give a parameter that lost its label (`assign=True`, `.to("meta")`, sharding) its manifold back, in place:
    optimizers, tied modules and sharding hold on to this very object. With None it is a plain parameter."""
    if manifold is None:
        if type(parameter) is ManifoldParameter:
            parameter.__class__ = nn.Parameter  # type: ignore[assignment]
        vars(parameter).pop("manifold", None)
        return parameter
    if type(parameter) is nn.Parameter:
        parameter.__class__ = ManifoldParameter
    # A parameter of another class, such as a DTensor, keeps its class and carries the label as an attribute.
    parameter.manifold = manifold  # type: ignore[attr-defined]
    return parameter
