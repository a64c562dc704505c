"""Ways of embedding a tree: a geometry, its parameters, an optimizer, and the learning rates to choose from.

All begin at the same places, drawn from a standard normal distribution in normal coordinates, and minimise the mean of
(d / d_tree - 1)^2 over all pairs, full batch, in float64. All have five learning rates; which five, and the rate of the
curvature, was settled on seed 0, which is in no table.
"""

import functools
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from trees import Tree, average_distortion, hops, mean_average_precision, pairs, square, worst_distortion

from torchriemann.manifolds import Lorentz, ManifoldParameter
from torchriemann.optim import RiemannianAdam

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import geoopt
    from geoopt.manifolds.lorentz import math as peer

DIMENSION, STEPS = 5, 600
CURVATURE_RATE = 0.1
OURS, PEER = Lorentz(), geoopt.Lorentz()


# ---- parameters -------------------------------------------------------------------------------------------------


def coordinates(z: Tensor) -> list[nn.Parameter]:
    """Normal coordinates, or Euclidean points."""
    return [nn.Parameter(z)]


def coordinates_and_curvature(z: Tensor) -> list[nn.Parameter]:
    """The same, and log(-K), from K = -1 on."""
    return [nn.Parameter(z), nn.Parameter(z.new_zeros(()))]


def our_points(z: Tensor) -> list[nn.Parameter]:
    """Points of the hyperboloid."""
    return [ManifoldParameter(OURS.from_normal(z), manifold=OURS)]


def peer_points(z: Tensor) -> list[nn.Parameter]:
    """Points for geoopt."""
    x = PEER.expmap0(nn.functional.pad(z, (1, 0)))
    return [geoopt.ManifoldParameter(x, manifold=PEER)]  # type: ignore[call-arg]


# ---- distances of pairs of rows ---------------------------------------------------------------------------------


def euclidean(i: Tensor, j: Tensor, x: Tensor) -> Tensor:
    """The straight line."""
    return torch.linalg.vector_norm(x[i] - x[j], dim=-1)


def ours(i: Tensor, j: Tensor, x: Tensor) -> Tensor:
    """Between points."""
    return OURS.dist(x[i], x[j])


def ours_tangent(i: Tensor, j: Tensor, z: Tensor) -> Tensor:
    """Between points given by normal coordinates."""
    return ours(i, j, OURS.from_normal(z))


def ours_curved(i: Tensor, j: Tensor, z: Tensor, log_curvature: Tensor) -> Tensor:
    """The same under a curvature of its own."""
    manifold = Lorentz(-log_curvature.exp())
    x = manifold.from_normal(z)
    return manifold.dist(x[i], x[j])


def theirs(i: Tensor, j: Tensor, x: Tensor) -> Tensor:
    """Between points, by geoopt."""
    return PEER.dist(x[i], x[j])


def theirs_tangent(i: Tensor, j: Tensor, z: Tensor) -> Tensor:
    """Between points given by tangent vectors at the origin, to which geoopt wants a time."""
    return theirs(i, j, PEER.expmap0(nn.functional.pad(z, (1, 0))))


def theirs_curved(i: Tensor, j: Tensor, z: Tensor, log_curvature: Tensor) -> Tensor:
    """The same under a curvature of its own; geoopt's k is its negative inverse."""
    k = (-log_curvature).exp()
    x = peer.expmap0(nn.functional.pad(z, (1, 0)), k=k)
    return peer.dist(x[i], x[j], k=k)


# ---- methods ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """`start` makes the parameters from normal coordinates, of which `distances` makes the distances of pairs."""

    start: Callable[[Tensor], list[nn.Parameter]]
    distances: Callable[..., Tensor]
    optimizer: Callable[..., torch.optim.Optimizer]
    learning_rates: tuple[float, ...]


# Adam moves every coordinate by up to the learning rate, Riemannian Adam a whole point, of which the largest part is
# lost on its fast directions: the rates that serve are an order of magnitude apart.
FLAT, POINT = (0.03, 0.1, 0.3, 1.0, 3.0), (0.1, 0.3, 1.0, 3.0, 5.0)
METHODS = {
    "Euclidean": Method(coordinates, euclidean, torch.optim.Adam, FLAT),
    "geoopt, points": Method(peer_points, theirs, geoopt.optim.RiemannianAdam, POINT),
    "geoopt, tangent": Method(coordinates, theirs_tangent, torch.optim.Adam, FLAT),
    "geoopt, tangent, K learned": Method(coordinates_and_curvature, theirs_curved, torch.optim.Adam, FLAT),
    "ours, points": Method(our_points, ours, RiemannianAdam, POINT),
    "ours, tangent": Method(coordinates, ours_tangent, torch.optim.Adam, FLAT),
    "ours, tangent, K learned": Method(coordinates_and_curvature, ours_curved, torch.optim.Adam, FLAT),
}


@functools.cache
def compiled_distances(method: Method) -> Callable[..., Tensor]:
    """One compilation for all learning rates, seeds and trees of a size."""
    return torch.compile(method.distances, fullgraph=True, dynamic=False)


@dataclass
class Result:
    """An embedding and what it is worth. Seconds are those of the steps, without compilation."""

    parameters: list[nn.Parameter]
    loss: float
    distortion: float
    worst: float
    precision: float
    curvature: float
    learning_rate: float = math.nan
    seconds: float = math.nan


def stress(distances: Callable[..., Tensor], i: Tensor, j: Tensor, target: Tensor, parameters) -> Tensor:
    """The loss."""
    return (distances(i, j, *parameters) / target - 1).square().mean()


def descend(method: Method, tree: Tree, parameters, learning_rate: float, steps: int, compiled: bool) -> float:
    """Full-batch descent; the learning rate falls to a tenth after 70 % of the steps. Returns the seconds it took."""
    i, j = pairs(len(tree))
    target = hops(tree)[i, j]
    distances = compiled_distances(method) if compiled else method.distances
    stress(distances, i, j, target, parameters).backward()  # compiles, outside the time
    rates = [CURVATURE_RATE if p.dim() == 0 else learning_rate for p in parameters]
    optimizer = method.optimizer([{"params": [p], "lr": r} for p, r in zip(parameters, rates, strict=True)])
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [int(0.7 * steps)])
    begin = time.perf_counter()
    for _ in range(steps):
        optimizer.zero_grad()
        stress(distances, i, j, target, parameters).backward()
        optimizer.step()
        schedule.step()
    return time.perf_counter() - begin


@torch.no_grad()
def evaluate(method: Method, tree: Tree, parameters, edge: float = 1.0) -> Result:
    """Loss and distortions of an embedding with edges of length `edge`, and whether nearest nodes are neighbours."""
    i, j = pairs(len(tree))
    target = edge * hops(tree)[i, j]
    ratio = method.distances(i, j, *parameters) / target
    return Result(
        parameters,
        float((ratio - 1).square().mean()),
        average_distortion(ratio),
        worst_distortion(ratio),
        mean_average_precision(square(ratio * target, len(tree)), tree),
        -float(parameters[1].exp()) if len(parameters) > 1 else -1.0,
    )


def fit(
    method: Method, tree: Tree, learning_rate: float, seed: int, steps: int = STEPS, compiled: bool = True
) -> Result:
    """One run from a random start."""
    z = torch.randn(len(tree), DIMENSION, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    parameters = method.start(z)
    seconds = descend(method, tree, parameters, learning_rate, steps, compiled)
    return replace(evaluate(method, tree, parameters), learning_rate=learning_rate, seconds=seconds)


def best(results: list[Result]) -> Result:
    """The run with the lowest loss; a NaN is the worst."""
    return min(results, key=lambda r: math.inf if math.isnan(r.loss) else r.loss)


def run(method: Method, tree: Tree, seed: int, steps: int = STEPS, compiled: bool = True) -> Result:
    """The best of the method's learning rates."""
    return best([fit(method, tree, lr, seed, steps, compiled) for lr in method.learning_rates])
