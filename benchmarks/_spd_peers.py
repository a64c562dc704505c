"""What the peers of `spd.py` call the operations of each metric, as functions of torch tensors in our order.

geomstats reads its backend when it is imported: `GEOMSTATS_BACKEND=pytorch` has to stand in the environment. What is
not installed is left out.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from torch import Tensor

Operation = Callable[[Tensor, Tensor], Tensor]
Operations = dict[str, Operation]  # of "exp" (x, u), "log" (x, y), "dist" (x, y) those that the peer has
POWER = 0.5  # of the power-Euclidean metric


def _import(name: str) -> Any:
    """The module, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError:
        return None


def geoopt() -> dict[str, Operations]:
    """Under "LEM" its distance alone changes: exp and log stay those of the affine-invariant metric."""
    module = _import("geoopt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        affine, flat = (module.SymmetricPositiveDefinite(metric) for metric in ("AIM", "LEM"))
    return {
        "SPDAffineInvariant": {"exp": affine.expmap, "log": affine.logmap, "dist": affine.dist},
        "SPDLogEuclidean": {"dist": flat.dist},
    }


def spd_learn() -> dict[str, Operations]:
    """Its `exp_map_lem` and `log_map_lem` are sums in the logarithms, without the differential of log: not compared."""
    f = _import("spd_learn.functional")
    if f is None:
        return {}
    return {
        "SPDAffineInvariant": {"exp": f.exp_map_airm, "log": f.log_map_airm, "dist": f.airm_distance},
        "SPDLogEuclidean": {"dist": f.log_euclidean_distance},
        "SPDLogCholesky": {"dist": f.log_cholesky_distance},
        "SPDBuresWasserstein": {"dist": f.bures_wasserstein_distance},
    }


def _of_geomstats(metric: Any) -> Operations:
    return {"exp": lambda x, u: metric.exp(u, x), "log": lambda x, y: metric.log(y, x), "dist": metric.dist}


def geomstats(n: int) -> dict[str, Operations]:
    """Its log-Cholesky metric is given for triangular matrices; `CholeskyMap` carries it over."""
    spd = _import("geomstats.geometry.spd_matrices")
    if spd is None:
        return {}
    lower = _import("geomstats.geometry.positive_lower_triangular_matrices")
    pullback = _import("geomstats.geometry.pullback_metric")
    symmetric, scaled = (
        _import("geomstats.geometry.symmetric_matrices"),
        _import("geomstats.geometry.scalar_product_metric"),
    )
    space = spd.SPDMatrices(n, equip=False)
    triangular = lower.PositiveLowerTriangularMatrices(n, equip=True)
    flat = symmetric.SymmetricMatrices(n, equip=True)
    flat.metric = scaled.ScalarProductMetric(flat, 1 / POWER**2)
    metrics = {
        "SPDAffineInvariant": spd.SPDAffineMetric(space),
        "SPDLogEuclidean": spd.SPDLogEuclideanMetric(space),
        "SPDLogCholesky": pullback.PullbackDiffeoMetric(space, spd.CholeskyMap(), triangular),
        "SPDBuresWasserstein": spd.SPDBuresWassersteinMetric(space),
        "SPDPowerEuclidean": spd.SPDPowerMetric(space, flat),
    }
    return {name: _of_geomstats(metric) for name, metric in metrics.items()}


def pyriemann() -> dict[str, Operations]:
    """By its array interface on torch tensors; spd_learn offers the same functions under its own name.

    Its `exp_map_wasserstein` takes one reference matrix, not a batch: not compared.
    """
    tangent, distance = _import("pyriemann.geometry.tangentspace"), _import("pyriemann.geometry.distance")
    if tangent is None or distance is None:
        return {}
    metrics = {
        "SPDAffineInvariant": {
            "exp": lambda x, u: tangent.exp_map_riemann(u, x, Cm12=True),
            "log": lambda x, y: tangent.log_map_riemann(y, x, C12=True),
            "dist": distance.distance_riemann,
        },
        "SPDPowerEuclidean": {"dist": lambda x, y: distance.distance_poweuclid(x, y, POWER)},
    }
    for name, word in (("LogEuclidean", "logeuclid"), ("LogCholesky", "logchol"), ("BuresWasserstein", "wasserstein")):
        exp, log = getattr(tangent, f"exp_map_{word}"), getattr(tangent, f"log_map_{word}")
        metrics[f"SPD{name}"] = {
            "exp": lambda x, u, exp=exp: exp(u, x),
            "log": lambda x, y, log=log: log(y, x),
            "dist": getattr(distance, f"distance_{word}"),
        }
    del metrics["SPDBuresWasserstein"]["exp"]
    return metrics


def pyriemann_means() -> dict[str, Callable[[Any], Any]]:
    """Metric -> mean of numpy arrays. The iterative ones stop at 1e-8 by themselves; here at 1e-12, as ours do."""
    mean = _import("pyriemann.geometry.mean")
    if mean is None:
        return {}
    return {
        "SPDAffineInvariant": lambda x: mean.mean_riemann(x, tol=1e-12),
        "SPDLogEuclidean": mean.mean_logeuclid,
        "SPDLogCholesky": mean.mean_logchol,
        "SPDBuresWasserstein": lambda x: mean.mean_wasserstein(x, tol=1e-12),
        "SPDPowerEuclidean": lambda x: mean.mean_poweuclid(x, POWER),
    }


def peers(n: int) -> dict[str, dict[str, Operations]]:
    """Library -> metric -> operation, for matrices n x n."""
    return {"geoopt": geoopt(), "spd_learn": spd_learn(), "geomstats": geomstats(n), "pyriemann": pyriemann()}


def versions() -> dict[str, str]:
    """Of the peers that are installed, geoopt apart, which every benchmark states."""
    found = {}
    for name in ("spd_learn", "geomstats", "pyriemann"):
        if _import(name) is not None:
            found[name] = version(name)
    return found
