"""Operations at the sizes of small layers, on spaces of constant curvature and of matrices; ours and geoopt's on the
same tensors."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchriemann import (
    Grassmann,
    Klein,
    Lorentz,
    PoincareBall,
    ProjectedSphere,
    SPDAffineInvariant,
    SPDLogCholesky,
    SPDLogEuclidean,
    Sphere,
    Stereographic,
    Stiefel,
)

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
# Frames, and positive definite matrices.
MATRIX_SIZES = ((32, 16, 4), (32, 8, 8))
MATRICES: dict[str, tuple[Any, Any, int]] = {
    "Grassmann": (Grassmann(), None, 0),
    "Stiefel, polar": (Stiefel(), None, 0),
    "Stiefel, QR": (Stiefel(retraction="qr"), None, 0),  # geoopt's is not to be differentiated
    "SPDAffineInvariant": (SPDAffineInvariant(), geoopt.SymmetricPositiveDefinite("AIM"), 1),
    "SPDLogEuclidean": (SPDLogEuclidean(), None, 1),
    "SPDLogCholesky": (SPDLogCholesky(), None, 1),
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
        if name == "PoincareBall":  # geoopt's is x + u, brought back inside
            yield Call(f"{name}, projective retr", PoincareBall(retraction="projective").retr, peer.retr, (x, u))


def matrix_calls(size: tuple[int, ...]) -> Iterator[Call]:
    """Operations of frames if the matrices are no squares, of positive definite ones if they are."""
    for name, (ours, peer, square) in MATRICES.items():
        if square != (size[-1] == size[-2]):
            continue
        generator = torch.Generator().manual_seed(0)
        x = ours.random(*size, generator=generator)
        u, v = (0.5 * ours.random_tangent(x, generator) / size[-1] for _ in range(2))
        y = ours.expmap(x, u)
        operations = {"proju": (x, v), "retr": (x, u), "expmap": (x, u)}
        operations |= {"logmap": (x, y), "dist": (x, y), "parallel_transport": (x, y, v)}
        if name.startswith("Stiefel"):  # whose logarithm is an iteration, and whose exponential the retractions share
            operations = {"proju": (x, v), "retr": (x, u)} | ({"expmap": (x, u)} if name.endswith("polar") else {})
        for operation, tensors in operations.items():
            theirs = "transp" if operation == "parallel_transport" else operation
            yield Call(f"{name}, {operation}", getattr(ours, operation), getattr(peer, theirs, None), tensors)
