"""Means and interpolation of correlation matrices under five metrics, beside what is done without them.

Nine ways to average: the entries; covariances, normalised afterwards; correlation matrices as any positive definite
ones, by the log-Euclidean and the affine-invariant metric, normalised afterwards; and the five metrics of correlation
matrices, none of which is tuned. First what a mean keeps: ones on the diagonal; itself, when channels are permuted,
when channels change their signs, when all matrices are inverted (and normalised), when channels change their variances.
Then determinants between two matrices, and of means of ten over their geometric mean.

Gestures, as eight electrodes on a forearm see them (recordings that ship with geomstats; windows of 200 samples), are
told by the nearest mean, and by logistic regression of coordinates at the mean, the same for all and untuned, beside
covariances and variances. The test is another recording; or the other half of one; or that with other gains of the
channels. Generated returns of assets: what a mean of twelve noisy windows says of the matrix behind them: entries,
determinant a row, and the portfolio that it takes for the least varying one. At last the time of a mean.

The five metrics keep the diagonal to the bit. The order of channels counts under the three Cholesky ones, by a sixth
of the mean and more; off-log and log-scaled do not see it, and log-scaled alone keeps inverses, but not signs.
Determinants rise on the way under all, least under the flat Cholesky metrics, where they may also fall below both ends.
Another recording is told by the variances, which correlation matrices drop: 35 to 40 % right, where covariances have 55
to 62 %. In the other half of one it is 66 to 74 % against 84 to 87 %; when gains change the first stay, and the others
fall to 45 to 59 %. Between metrics there is little; positive definite ones of the same correlation matrices, with 36
coordinates in the place of 28, are ahead by two points. Of noisy windows the average of entries and the poly-hyperbolic
mean are the best: determinants are right to 1 % or so a row, where means by logarithms lose 10 % in calm times and 20 %
in a crisis.

    python examples/07_correlation.py [--quick]
"""

# %%
import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from correlation_data import RECORDINGS, TIMES, Windows, load, market, observed, recordings
from correlation_drawing import draw
from correlation_tables import tables
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from tqdm import tqdm

from torchriemann.manifolds import (
    CorrelationEuclideanCholesky,
    CorrelationLogEuclideanCholesky,
    CorrelationLogScaled,
    CorrelationOffLog,
    CorrelationPolyHyperbolic,
    Euclidean,
    GyroManifold,
    Manifold,
    SPDAffineInvariant,
    SPDLogEuclidean,
    SPDPowerEuclidean,
)

FIGURE = Path(__file__).parent / "figures" / "07_correlation.png"
SPACE = CorrelationEuclideanCholesky()
Row = dict[str, float]


@dataclass(frozen=True)
class Way:
    """What is made of covariance matrices, the manifold that it lies on, and its coordinates at a mean."""

    manifold: Manifold
    given: Callable[[Tensor], Tensor] = SPACE.correlation

    def mean(self, x: Tensor) -> Tensor:
        """Along the first dimension, as a correlation matrix."""
        return SPACE.correlation(self.manifold.frechet_mean(self.given(x)))

    def path(self, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """Between two covariance matrices, as correlation matrices."""
        return SPACE.correlation(self.manifold.geodesic(self.given(x), self.given(y), t))

    def coordinates(self, mean: Tensor, x: Tensor) -> Tensor:
        """Orthonormal at the mean, where lengths are distances from it."""
        if isinstance(self.manifold, SPDPowerEuclidean):  # on correlation matrices: the entries
            i, j = torch.tril_indices(x.shape[-1], x.shape[-1])
            return torch.where(i == j, 1.0, 2**0.5) * (x - mean)[..., i, j]
        assert isinstance(self.manifold, GyroManifold | Euclidean)
        return self.manifold.logmap_frame(mean, x)


def covariance(x: Tensor) -> Tensor:
    """As it is."""
    return x


def log_variances(x: Tensor) -> Tensor:
    """All that correlation matrices leave out. ``*B,n,n -> *B,n``."""
    return x.diagonal(dim1=-2, dim2=-1).log()


METRICS: dict[str, Way] = {
    "Euclidean-Cholesky": Way(SPACE),
    "log-Euclidean-Cholesky": Way(CorrelationLogEuclideanCholesky()),
    "off-log": Way(CorrelationOffLog()),
    "log-scaled": Way(CorrelationLogScaled()),
    "poly-hyperbolic": Way(CorrelationPolyHyperbolic()),
}
WAYS: dict[str, Way] = {
    "entries": Way(SPDPowerEuclidean(1)),
    "covariances, normalised": Way(SPDPowerEuclidean(1), covariance),
    "log-Euclid., normalised": Way(SPDLogEuclidean()),
    "affine-inv., normalised": Way(SPDAffineInvariant()),
    **METRICS,
}
# With the variances: what correlation matrices are measured against.
REFERENCES: dict[str, Way] = {
    "log-variances alone": Way(Euclidean(), log_variances),
    "covariances, log-Euclid.": Way(SPDLogEuclidean(), covariance),
    "covariances, affine-inv.": Way(SPDAffineInvariant(), covariance),
}


# %% What is kept


def draws(*size: int, seed: int = 1) -> Tensor:
    """Covariance matrices 8 x 8: correlation matrices, all alike likely, with standard deviations of e^N(0, 1/4)."""
    generator = torch.Generator().manual_seed(seed)
    x = SPACE.random(*size, 8, 8, generator=generator, dtype=torch.float64)
    root = (0.5 * torch.randn(*size, 8, generator=generator, dtype=torch.float64)).exp()
    return x * root.unsqueeze(-1) * root.unsqueeze(-2)


def kept(way: Way, count: int) -> Row:
    """Of means of ten: how far the diagonal is from one, and relative changes where the matrices change."""
    x = draws(10, count)
    generator = torch.Generator().manual_seed(2)
    order = torch.randperm(8, generator=generator)
    sign = torch.where(torch.arange(8) % 2 == 0, 1.0, -1.0).double()
    gain = (0.5 * torch.randn(10, 1, 8, generator=generator, dtype=torch.float64)).exp()
    both: dict[str, Callable[[Tensor], Tensor]] = {
        "permutation": lambda p: p[..., order, :][..., order],
        "signs": lambda p: sign.unsqueeze(-1) * p * sign,
        "inversion": lambda p: SPACE.correlation(torch.linalg.inv(p)),
    }
    mean = way.mean(x)
    raw = way.manifold.frechet_mean(way.given(x))
    found = {"diagonal": float((raw.diagonal(dim1=-2, dim2=-1) - 1).abs().max())}
    for name, change in both.items():
        found[name] = float(((way.mean(change(x)) - change(mean)).norm(dim=(-2, -1)) / mean.norm(dim=(-2, -1))).mean())
    changed = way.mean(gain.unsqueeze(-1) * x * gain.unsqueeze(-2))
    return found | {"variances": float(((changed - mean).norm(dim=(-2, -1)) / mean.norm(dim=(-2, -1))).mean())}


def least(x: Tensor) -> Tensor:
    """The least eigenvalue."""
    return torch.linalg.eigvalsh(x)[..., 0]


def between(way: Way, count: int) -> Row:
    """Along geodesics of `count` pairs, and of as many means of ten."""
    x, y = draws(2, count)
    t = torch.linspace(0, 1, 41, dtype=torch.float64)
    path = way.path(x.unsqueeze(1), y.unsqueeze(1), t.expand(count, -1))
    height = path.logdet()
    top, bottom = height[:, (0, -1)].amax(-1), height[:, (0, -1)].amin(-1)
    ten = draws(10, count)
    mean, points = way.mean(ten), SPACE.correlation(ten)
    low = least(points).log().mean(0)
    return {
        "swelling, median": float((height.amax(-1) - top).exp().median()),
        "most": float((height.amax(-1) - top).exp().max()),
        "dip, least": float((height.amin(-1) - bottom).exp().min()),
        "det of mean": float((mean.logdet() - points.logdet().mean(0)).median().exp()),
        "eigenvalue of mean": float((least(mean).log() - low).median().exp()),
    }


# %% Gestures


def scores(way: Way, train: Tensor, labels: Tensor, test: Tensor, truth: Tensor) -> tuple[float, float]:
    """Percent right by the nearest mean, and by logistic regression of coordinates of spread one."""
    classes = labels.unique()
    means = torch.stack([way.manifold.frechet_mean(train[labels == k]) for k in classes])
    nearest = classes[way.manifold.cdist(test, means).argmin(-1)]
    centre = way.manifold.frechet_mean(train)
    seen, unseen = way.coordinates(centre, train), way.coordinates(centre, test)
    spread = seen.square().mean().sqrt()
    linear = LogisticRegression(max_iter=2000).fit((seen / spread).numpy(), labels.numpy())
    right = linear.score((unseen / spread).numpy(), truth.numpy())
    return 100 * float((nearest == truth).double().mean()), 100 * right


def gestures(way: Way, data: Windows, count: int = RECORDINGS) -> dict[str, list[float]]:
    """`count` recordings left out in turn; every half of each of them, as it is and with other gains."""
    x, label = data.covariance, data.gesture
    generator = torch.Generator().manual_seed(3)
    gain = 2 ** torch.randn(RECORDINGS, 2, 1, x.shape[-1], generator=generator, dtype=torch.float64)
    found: dict[str, list[float]] = {}

    def note(name: str, train: Tensor, test: Tensor, given: Tensor) -> None:
        result = scores(way, way.given(x[train]), label[train], way.given(given), label[test])
        for kind, value in zip(("nearest", "linear"), result, strict=True):
            found.setdefault(f"{name}, {kind}", []).append(value)

    for i in range(count):
        here = data.recording == i
        note("other", ~here, here, x[here])
        for half in range(2):
            train, test = (here & ((data.time < TIMES // 2) == bool(h)) for h in (half, 1 - half))
            g = gain[i, half]
            note("half", train, test, x[test])
            note("gains", train, test, g.unsqueeze(-1) * x[test] * g.unsqueeze(-2))
    return found


# %% Assets


def assets(way: Way, trials: int, days: int = 32) -> Row:
    """The mean of twelve windows of 16 assets beside the matrix that they came from, in a calm and in a crisis: the
    error of its entries, of its determinant a row, and how much more than the least the portfolio varies that it
    takes for the least varying one. In percent, means over `trials`."""
    found: Row = {}
    for name, crisis in (("calm", False), ("crisis", True)):
        truth = market(16, 4, crisis)
        generator = torch.Generator().manual_seed(4)
        x = torch.stack([observed(truth, 12, days, generator) for _ in range(trials)], 1)
        mean, off = way.mean(x), truth - torch.eye(16, dtype=truth.dtype)
        weights = torch.linalg.solve(mean, torch.ones(16, dtype=truth.dtype))
        weights = weights / weights.sum(-1, keepdim=True)
        risk = (weights * (weights @ truth)).sum(-1) * torch.linalg.inv(truth).sum()
        error = (mean - truth).norm(dim=(-2, -1)) / off.norm()
        height = ((mean.logdet() - truth.logdet()) / 16).expm1()
        for what, value in (("entries", error), ("det", height), ("portfolio", risk - 1)):
            found[f"{name}: {what}"] = 100 * float(value.mean())
    return found


# %% Time


def costs(way: Way, seconds: float, many: int = 256) -> Row:
    """Milliseconds of a mean in float64, of matrices of 2n samples."""
    found: Row = {}
    for n, count, sets in ((8, 720, 1), (32, 50, 1), (8, 10, many)):
        generator = torch.Generator().manual_seed(5)
        noise = torch.randn(count, sets, n, 2 * n, generator=generator, dtype=torch.float64)
        x = way.given(noise @ noise.mT / (2 * n))
        times: list[float] = []
        while len(times) < 3 or sum(times) < seconds:
            start = time.perf_counter()
            way.manifold.frechet_mean(x)
            times.append(time.perf_counter() - start)
        title = f"{count} of {n} x {n}" if sets == 1 else f"{sets} means of {count}, {n} x {n}"
        found[title] = 1e3 * float(torch.tensor(times).median())
    return found


# %% All of it


def measure(name: str, data: Windows, quick: bool) -> dict[str, Any]:
    """Of one way, in a process of its own."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="sklearn")
    count = 20 if quick else 300
    way = (WAYS | REFERENCES)[name]
    found: dict[str, Any] = {"gestures": gestures(way, data, 1 if quick else RECORDINGS)}
    if name in WAYS:
        found |= {"kept": kept(way, count), "between": between(way, count), "assets": assets(way, 4 if quick else 50)}
    return found


def thinned(data: Windows, step: int) -> Windows:
    """One of `step` windows."""
    labels = (part[::step] for part in (data.gesture, data.recording, data.time))
    return Windows(data.covariance[::step], *labels, source=data.source)


def main(quick: bool = False) -> dict[str, Any]:
    """Run, print the tables, save the figure; returns what was measured. `quick` takes little and proves nothing."""
    start = time.perf_counter()
    torch.set_num_threads(1)
    data = load(None if quick else recordings())
    small = thinned(data, 20) if quick else data
    names = list(WAYS | REFERENCES)
    jobs: Any = Parallel(n_jobs=1 if quick else 2, return_as="generator")(
        delayed(measure)(name, small, quick) for name in names
    )
    results: dict[str, Any] = dict(zip(names, tqdm(jobs, total=len(names), unit="way"), strict=True))
    for name, way in tqdm(WAYS.items(), desc="time", unit="way"):
        results[name]["costs"] = costs(way, 0.0, 2) if quick else costs(way, 0.3)
    print(tables(results, data.source))
    paths = {name: way.path for name, way in WAYS.items()}
    means = {name: way.mean for name, way in WAYS.items()}
    figure = draw(paths, means, small, {name: found["gestures"] for name, found in results.items()})
    if quick:
        figure.canvas.draw()
    else:
        FIGURE.parent.mkdir(exist_ok=True)
        figure.savefig(FIGURE, dpi=110)
    plt.close(figure)
    print(f"{time.perf_counter() - start:.0f} s" + ("" if quick else f"; figure: examples/figures/{FIGURE.name}"))
    return results


# %%
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="few matrices, no file written")
    main(**vars(parser.parse_args()))
