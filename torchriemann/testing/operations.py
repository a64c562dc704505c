"""The operations of the contract as one table: laws about all of them are loops over it."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from torchriemann.manifolds import Manifold
from torchriemann.manifolds.gyro import GyroManifold, is_gyro

from .trial import Case, Trial

# name -> arguments, by the letters of `Trial.arguments`
OPERATIONS: dict[str, str] = {
    "projx": "x",
    "proju": "xg",
    "inner": "xuv",
    "norm": "xu",
    "component_inner": "xuv",
    "egrad2rgrad": "xg",
    "ehess2rhess": "xghu",
    "expmap": "xu",
    "logmap": "xy",
    "retr": "xu",
    "inverse_retr": "xr",
    "transp": "xyv",
    "parallel_transport": "xyv",
    "expmap_transp": "xuv",
    "retr_transp": "xuv",
    "transp_follow_expmap": "xuv",
    "transp_follow_retr": "xuv",
    "dist": "xy",
    "dist2": "xy",
    "geodesic": "xyt",
    "midpoint": "xy",
    "sectional_curvature": "xuv",
    "log_is_unique": "xy",
    "exp_is_defined": "xu",
    "logdet_dexp": "xu",
    "basis": "x",
    "to_coordinates": "xu",
    "from_coordinates": "xz",
    "restore": "x",
}

# those of gyro manifolds
GYRO_OPERATIONS: dict[str, str] = {
    "expmap0": "a",
    "logmap0": "p",
    "inner0": "ab",
    "dist0": "p",
    "tangent_from_normal": "n",
    "normal_from_tangent": "a",
    "from_normal": "n",
    "to_normal": "p",
    "gyroadd": "pq",
    "gyroinv": "p",
    "gyroscale": "tp",
    "clip_radius": "pt",
    "gyration": "pqs",
    "expmap_frame": "pn",
    "translated": "pn",
    "logmap_frame": "pq",
    "tangent_from_frame": "pn",
    "frame_from_tangent": "pw",
    "transport_frame": "pqn",
}

# Through these a loss is trained: first and second derivatives everywhere, coincident points included.
SMOOTH = ("projx", "expmap", "logmap", "retr", "dist2", "expmap_transp", "retr_transp", "parallel_transport")
GYRO_SMOOTH = ("from_normal", "to_normal", "gyroadd", "gyration", "logmap_frame", "transport_frame")

# Yes or no, without derivatives.
ANSWERS = ("log_is_unique", "exp_is_defined")

# Parts or aliases of other operations.
ALIASES = (
    "midpoint", "transp_follow_retr", "transp_follow_expmap", "expmap0", "inner0", "dist0", "gyroinv",
    "tangent_from_normal", "normal_from_tangent", "expmap_frame", "clip_radius", "translated",
)  # fmt: skip

# Where the retraction is the exponential map, these are its operations under a second name.
RETRACTION = ("retr", "inverse_retr", "retr_transp", "transp")


def operations_of(case: Case) -> dict[str, str]:
    """The operations that the manifold has."""
    known = {**OPERATIONS, **GYRO_OPERATIONS} if is_gyro(case.manifold) else OPERATIONS
    return {name: letters for name, letters in known.items() if name not in case.missing}


def costly(case: Case) -> dict[str, str]:
    """The operations that the costly laws look at."""
    return {
        name: letters for name, letters in operations_of(case).items() if case.costly is None or name in case.costly
    }


def seen(case: Case) -> dict[str, str]:
    """The operations that laws on every one of them look at: of a brief row those that are its own, not the formulas of
    the row that it repeats, nor what the class inherits from the contract."""
    every = costly(case) if case.brief and case.repeats is not None else operations_of(case)
    return {name: letters for name, letters in every.items() if not (case.brief and _inherited(case, name))}


def compiled(case: Case) -> list[str]:
    """The operations that compilation looks at: none that only calls others, and in a brief first row none that the
    class inherits from the contract."""
    alias = ALIASES + RETRACTION if case.brief and case.order is None else ALIASES
    names = [name for name in costly(case) if name not in alias]
    return [name for name in names if not _inherited(case, name)] if case.brief and case.costly is None else names


def trained(case: Case) -> list[str]:
    """Those whose gradients compilation looks at: through these a loss is trained."""
    exponential = case.brief and case.order is None
    return [
        name for name in ("expmap", "retr", "dist2") if name in costly(case) and not (exponential and name == "retr")
    ]


def _inherited(case: Case, name: str) -> bool:
    derived = [getattr(contract, name, None) for contract in (Manifold, GyroManifold)]
    return getattr(type(case.manifold), name) in derived


def smooth(case: Case) -> dict[str, str]:
    """Those of them that have to be twice differentiable."""
    return {name: letters for name, letters in costly(case).items() if name in SMOOTH + GYRO_SMOOTH}


def call(trial: Trial, name: str, arguments: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """The outputs of an operation, one or two."""
    letters = OPERATIONS[name] if name in OPERATIONS else GYRO_OPERATIONS[name]
    out = getattr(trial.manifold, name)(*(arguments[letter] for letter in letters))
    return out if isinstance(out, tuple) else (out,)


def trailing(trial: Trial, letter: str) -> int:
    """How many dimensions of an argument are not batch."""
    if letter == "n":
        return cast(GyroManifold, trial.manifold).normal_ndim
    return {"t": 0, "z": 1}.get(letter, trial.manifold.ndim)
