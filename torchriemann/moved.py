"""Where modules stood before they had folders by family: pickles and imports that name them are understood as ever."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

MOVED = {
    "manifolds.composite_gyro": "manifolds.composite.gyro_parts",
    "manifolds.conversions": "manifolds.constant_curvature.conversions",
    "manifolds.functional.curved": "manifolds.functional.signed_trigonometry",
    "manifolds.functional.hyperbolic": "manifolds.functional.lorentz",
    "manifolds.functional.hyperbolic_backward": "manifolds.functional.lorentz_backward",
    "manifolds.functional.orthogonal": "manifolds.functional.frames",
    "manifolds.functional.stereographic_backward": "manifolds.functional.poincare_backward",
    "manifolds.functional.symmetric": "manifolds.functional.spectral",
    "manifolds.grassmann": "manifolds.frames.grassmann",
    "manifolds.kernels.registration": "manifolds.kernels.dispatch",
    "manifolds.klein": "manifolds.constant_curvature.klein",
    "manifolds.lorentz": "manifolds.constant_curvature.lorentz",
    "manifolds.orthogonal": "manifolds.frames.orthogonal",
    "manifolds.orthogonal_log": "manifolds.functional.rotation_log",
    "manifolds.power": "manifolds.composite.power",
    "manifolds.product": "manifolds.composite.product",
    "manifolds.rotations": "manifolds.frames.rotations",
    "manifolds.scaled": "manifolds.composite.scaled",
    "manifolds.sphere": "manifolds.constant_curvature.sphere",
    "manifolds.stereographic": "manifolds.constant_curvature.stereographic",
    "manifolds.stiefel": "manifolds.frames.stiefel",
    "manifolds.stiefel_geodesic": "manifolds.functional.stiefel_geodesic",
    "manifolds.stiefel_log": "manifolds.functional.stiefel_log",
    "manifolds.stiefel_retractions": "manifolds.functional.frame_retractions",
    "layers.curvature": "layers.hyperbolic.curvature",
    "layers.entailment": "layers.hyperbolic.entailment",
    "optim.adam": "optim.stepwise.adam",
    "optim.base": "optim.stepwise.base",
    "optim.buckets": "optim.stepwise.point_bucket",
    "optim.closure": "optim.solvers.base",
    "optim.conjugate_gradient": "optim.solvers.conjugate_gradient",
    "optim.descent": "optim.solvers.descent",
    "optim.factors": "optim.solvers.factors",
    "optim.flat": "optim.stepwise.flat_bucket",
    "optim.landing": "optim.stepwise.landing",
    "optim.lbfgs": "optim.solvers.lbfgs",
    "optim.line_search": "optim.solvers.line_search",
    "optim.manifold_groups": "optim.optimizer",
    "optim.product_point": "optim.solvers.product_point",
    "optim.sgd": "optim.stepwise.sgd",
    "optim.steihaug": "optim.solvers.steihaug",
    "optim.trust_region": "optim.solvers.trust_region",
}


def alias_old_paths() -> None:
    """Make every old path another name of the module that it has become, for ``import``, pickle and ``weights_only``.

    A pickle names a class by its module; `torch.load` with ``weights_only=True`` compares that name as text, so each
    manifold is registered under its old name too.
    """
    for old, new in MOVED.items():
        module = importlib.import_module(f"torchriemann.{new}")
        old = f"torchriemann.{old}"
        parent, _, name = old.rpartition(".")
        sys.modules[old] = module
        vars(sys.modules[parent]).setdefault(name, module)  # `operation` and its like are functions, and stay so
        _register_manifolds(module, old)


def _register_manifolds(module: ModuleType, old: str) -> None:
    from torchriemann.manifolds import Manifold

    known = [
        (cls, f"{old}.{cls.__qualname__}")
        for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, Manifold) and cls.__module__ == module.__name__
    ]
    torch.serialization.add_safe_globals(known)  # pyright: ignore[reportArgumentType]
