"""What geomstats calls the operations of the metrics of correlation matrices, in our order of arguments.

geomstats reads its backend when it is imported: `GEOMSTATS_BACKEND` has to stand in the environment, "numpy" or
"pytorch", and decides what its functions take.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from torch import Tensor

METRICS = {
    "CorrelationEuclideanCholesky": "EuclideanCholeskyMetric",
    "CorrelationLogEuclideanCholesky": "LogEuclideanCholeskyMetric",
    "CorrelationOffLog": "OffLogMetric",
    "CorrelationLogScaled": "LogScaledMetric",
    "CorrelationPolyHyperbolic": "PolyHyperbolicCholeskyMetric",
}
# For n > 3, what makes the image flat with the Frobenius norm.
FROBENIUS = {
    "CorrelationOffLog": {"alpha": 1.0, "beta": 0.0, "gamma": 0.0},
    "CorrelationLogScaled": {"alpha": 1.0, "delta": 0.0, "zeta": 0.0},
}
# Its derivative of the way back is four nested loops over the rows in Python: seconds at 16, a minute at 32.
TOO_SLOW = {("CorrelationOffLog", "log", 32)}


def _import(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def to_peer(x: Tensor) -> Any:
    """What its functions take."""
    return x.numpy() if os.environ["GEOMSTATS_BACKEND"] == "numpy" else x


def operations(name: str, n: int) -> dict[str, Callable[..., Any]]:
    """Of one metric. It has no means of flat metrics in closed form: what stands here is two of its functions, one
    after the other, and for the hyperbolic one its estimator."""
    correlations = _import("geomstats.geometry.full_rank_correlation_matrices")
    space = correlations.FullRankCorrelationMatrices(n, equip=False)
    metric = getattr(correlations, METRICS[name])(space, **FROBENIUS.get(name, {}))
    space.metric = metric
    estimator = _import("geomstats.learning.frechet_mean").FrechetMean(space)

    def mean(x: Any) -> Any:
        if name == "CorrelationPolyHyperbolic":
            return estimator.fit(x).estimate_
        return metric.diffeo.inverse(metric.diffeo(x).mean(0))

    return {
        "exp": lambda x, u: metric.exp(u, x),
        "log": lambda x, y: metric.log(y, x),
        "dist": metric.dist,
        "mean": mean,
    }


def versions() -> dict[str, str]:
    """Of the peer."""
    return {"geomstats": version("geomstats")}
