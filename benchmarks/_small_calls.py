"""Operations on spaces of constant curvature at the sizes of small layers, ours and geoopt's on the same tensors."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchriemann import Klein, Lorentz, PoincareBall, ProjectedSphere, Sphere, Stereographic

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    geoopt = importlib.import_module("geoopt")

SIZES = ((64, 5), (1024, 16))
# ours, geoopt's of the same name, the coordinates that a point has beside its dimension
SPACES: dict[str, tuple[Any, Any, int]] = {
    "Sphere": (Sphere(), geoopt.Sphere(), 1),
    "Lorentz": (Lorentz(), geoopt.Lorentz(), 1),
    "PoincareBall": (PoincareBall(), geoopt.PoincareBall(), 0),
    "ProjectedSphere": (ProjectedSphere(), geoopt.SphereProjection(), 0),
    "Stereographic": (Stereographic(-0.5), geoopt.Stereographic(-0.5), 0),
    "Klein": (Klein(), None, 0),
}


class Call(NamedTuple):
    """One operation; geoopt's is None where it has none."""

    name: str
    ours: Callable[..., Tensor]
    geoopt: Callable[..., Tensor] | None
    tensors: tuple[Tensor, ...]


def calls(rows: int, dimension: int) -> Iterator[Call]:
    """Every operation on every space; points at a distance of about .9 from the origin, vectors of that length."""
    for name, (ours, peer, more) in SPACES.items():
        generator = torch.Generator().manual_seed(0)
        z = torch.randn(4, rows, dimension, generator=generator) * (0.9 / dimension**0.5)
        x, y = ours.from_normal(z[0]), ours.from_normal(z[1])
        assert x.shape == (rows, dimension + more)
        u, v = ours.tangent_from_frame(x, z[2]), ours.tangent_from_frame(x, z[3])
        operations = {
            "dist": ("dist", (x, y)),
            "logmap": ("logmap", (x, y)),
            "expmap": ("expmap", (x, u)),
            "retr": ("retr", (x, u)),
            "parallel_transport": ("transp", (x, y, v)),
        }
        if name == "Sphere":  # geoopt's transport is the projection
            operations |= {"transp": ("transp", (x, y, v)), "parallel_transport": ("", (x, y, v))}
        for operation, (theirs, tensors) in operations.items():
            yield Call(f"{name}, {operation}", getattr(ours, operation), getattr(peer, theirs, None), tensors)
