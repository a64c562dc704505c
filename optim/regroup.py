"""States of optimizers whose groups were divided otherwise, as before a curvature had a group of its own."""

from __future__ import annotations

from itertools import chain
from typing import Any

MANIFOLDS = "manifolds"  # key of a parameter group: the repr of each parameter's manifold, or of all


def regrouped(state_dict: dict[str, Any], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """`state_dict` with its parameters in the division of `groups`, if both name the same ones but divide them
    otherwise; else as it is. Options are those that were saved, but for the decay: it is what groups are divided for.
    """
    saved = state_dict["param_groups"]
    if any("param_names" not in group for group in (*saved, *groups)):
        return state_dict
    before, now = ([list(group["param_names"]) for group in some] for some in (saved, groups))
    if before == now or sorted(chain(*before)) != sorted(chain(*now)):
        return state_dict
    found = {name: (group, i) for group in saved for i, name in enumerate(group["param_names"])}
    new = []
    for group in groups:
        places = [found[name] for name in group["param_names"]]
        made = {**places[0][0], "params": [source["params"][i] for source, i in places]}
        made["param_names"] = list(group["param_names"])
        if "weight_decay" in group:
            made["weight_decay"] = group["weight_decay"]
        if all(MANIFOLDS in source for source, _ in places):
            made[MANIFOLDS] = [per_parameter(source[MANIFOLDS], len(source["params"]))[i] for source, i in places]
        new.append(made)
    return {**state_dict, "param_groups": new}


def per_parameter(recorded: str | list[str], n: int) -> list[str]:
    """The recorded manifolds as a list of one a parameter."""
    return [recorded] * n if isinstance(recorded, str) else recorded
