"""How a step runs: the options that all stepwise optimizers share, declared, defaulted, documented and checked here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypedDict, get_type_hints

from ..entries import State


class EagerFlags(TypedDict, total=False):
    """The flags of an optimizer that steps neither inside a captured graph nor inside autograd."""

    maximize: bool
    foreach: bool | None
    check_finite: bool


class StepFlags(EagerFlags, total=False):
    """How a step runs: keyword arguments that the stepwise optimizers share, and options of their groups.

    Attributes:
        maximize: climb. Default False.
        foreach: None or True steps same-shaped points of a manifold as one batch, False one by one. Default None.
        capturable: step without a synchronisation and at fixed addresses, for capture in a CUDA graph. On a CPU it only
            keeps the step count in a tensor. Default False.
        differentiable: step inside autograd, one parameter at a time; the parameters must not be leaves. Default False.
        fused: not supported; True raises. Default None.
        check_finite: raise ``ValueError`` naming the parameter, and change nothing, if a step would produce an infinite
            or NaN value; costs one synchronisation. Default False.
    """

    capturable: bool
    differentiable: bool
    fused: bool | None


DEFAULTS: StepFlags = {
    "maximize": False,
    "foreach": None,
    "capturable": False,
    "differentiable": False,
    "fused": None,
    "check_finite": False,
}

# What is for this program to say when it loads a state, and not for the one that saved it: all that does not change
# what a step computes.
NOT_SAVED = tuple(name for name in DEFAULTS if name != "maximize")

_CONFLICTS = (
    ("capturable", "check_finite", "a captured step cannot look at values"),
    ("capturable", "differentiable", "a captured step writes its state in place"),
    ("foreach", "differentiable", "a batch of parameters is written in place"),
)


def _names(supported: type) -> frozenset[str]:
    return supported.__optional_keys__  # type: ignore[attr-defined]


def with_defaults(name: str, supported: type, given: EagerFlags) -> State:
    """All flags, as `given` or by default. Raises ``TypeError`` for one that is not among the `supported`."""
    for flag in given:
        if flag not in _names(supported):
            raise TypeError(f"{name}.__init__() got an unexpected keyword argument {flag!r}")
    return {**DEFAULTS, **given}


def check_flags(name: str, supported: type, options: State) -> None:
    """Raise ``ValueError`` unless the flags among `options` are supported, and go together."""
    for flag in DEFAULTS:
        if options.get(flag) and (flag not in _names(supported) or flag == "fused"):
            raise ValueError(f"{name}: {flag}={options[flag]} is not supported; leave it out")
    if options["foreach"] not in (None, True, False):
        raise ValueError(f"{name}: foreach must be None, True or False, got {options['foreach']!r}")
    for one, other, why in _CONFLICTS:
        if options.get(one) and options.get(other):
            raise ValueError(f"{name}: {one}=True and {other}=True exclude each other: {why}; leave one out")


def spell_out(init: Callable[..., None], supported: type) -> None:
    """Let `inspect.signature` show the flags that ``**flags: Unpack[...]`` of a constructor stands for."""
    signature = inspect.signature(init)
    hints = get_type_hints(supported)
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[name])
        for name, default in DEFAULTS.items()
        if name in hints
    ]
    shown = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    init.__signature__ = signature.replace(parameters=[*shown, *flags])  # type: ignore[attr-defined]
