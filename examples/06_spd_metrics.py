"""What a metric of positive definite matrices does: interpolation, means and swelling of diffusion tensors.

Seven metrics, of which none is tuned; both powers are 1/2. Between two tensors: how far the determinant grows beyond
the larger one of the ends (the swelling of Arsigny, Fillard, Pennec and Ayache 2006, doi 10.1002/mrm.20965), the
determinant of means over the geometric mean of determinants, how much anisotropy the middle keeps, and how far its axis
lies from the middle of both axes. Then a generated field of two crossing bundles, scanned with noise: every other
tensor is dropped and interpolated from its four neighbours, and the field is smoothed. Errors are those against the
field without noise, in four measures that belong to no metric, means and deviations over the scans. At last, what
leaves the distance as it is, and what an operation costs beside what it loses in float32: as measured here, on one
thread.

No metric wins everywhere. Volumes of arithmetic means are 5 % too large on this field, and those of the metrics that
never swell 5 % too small; Bures-Wasserstein and the power 1/2 are nearest. In size the Euclidean metric errs least, by
a twentieth; in direction all are alike, the Cholesky metrics a little behind, which depend on the order of coordinates
and cost least. Only the affine-invariant distance is the same in every coordinates, and its middle is the roundest.

    python examples/06_spd_metrics.py [--quick]
"""

# %%
import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from joblib import Parallel, delayed
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from tensor_drawing import direction_colours, show_curves, show_field, show_strips
from tensor_fields import Field, angle, fibre, fractional_anisotropy, principal_axis, scan
from torch import Tensor
from tqdm import tqdm

from torchriemann.manifolds import (
    Manifold,
    SPDAffineInvariant,
    SPDBuresWasserstein,
    SPDLogCholesky,
    SPDLogEuclidean,
    SPDPowerCholesky,
    SPDPowerEuclidean,
)

FIGURE = Path(__file__).parent / "figures" / "06_spd_metrics.png"
METRICS: dict[str, Manifold] = {
    "Euclidean": SPDPowerEuclidean(1),
    "power-Euclidean": SPDPowerEuclidean(0.5),
    "Bures-Wasserstein": SPDBuresWasserstein(),
    "power-Cholesky": SPDPowerCholesky(0.5),
    "log-Cholesky": SPDLogCholesky(),
    "log-Euclidean": SPDLogEuclidean(),
    "affine-invariant": SPDAffineInvariant(),
}
COLOURS: dict[str, str] = dict(
    zip(METRICS, ("#000000", "#E69F00", "#D55E00", "#CC79A7", "#56B4E9", "#009E73", "#0072B2"), strict=True)
)
SIDE, NOISE, SCANS = 16, 0.07, 8
Row = dict[str, float]


# %% Between two tensors, and means of ten


def fibres(*size: int) -> Tensor:
    """Fibres in random directions, of random size."""
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(*size, 3, generator=generator, dtype=torch.float64)
    factor = 2 ** torch.empty(size, dtype=torch.float64).uniform_(-1, 1, generator=generator)
    return factor[..., None, None] * fibre(direction / direction.norm(dim=-1, keepdim=True))


def between(m: Manifold, count: int) -> Row:
    """Along geodesics of `count` pairs, and of as many means."""
    x, y = fibres(2, count)
    t = torch.linspace(0, 1, 21, dtype=torch.float64)
    path = m.geodesic(x.unsqueeze(1), y.unsqueeze(1), t.expand(count, -1))
    swelling = path.det().amax(-1) / torch.maximum(x.det(), y.det())
    middle, a, b = path[:, 10], principal_axis(x), principal_axis(y)
    half = torch.nn.functional.normalize(a + b * (a * b).sum(-1, keepdim=True).sign(), dim=-1)
    ten = fibres(10, count)
    return {
        "swelling, mean": float(swelling.mean()),
        "worst": float(swelling.max()),
        "det of mean": float((m.frechet_mean(ten).logdet() - ten.logdet().mean(0)).mean().exp()),
        "anisotropy": float((fractional_anisotropy(middle) / fractional_anisotropy(x)).mean()),
        "axis": float(angle(principal_axis(middle), half).median()),
    }


# %% The field


def neighbours(x: Tensor, steps: list[tuple[int, int]]) -> Tensor:
    """The tensors that lie `steps` away, for all inside of the rim: ``len(steps),*B,side-2,side-2,3,3``."""
    inner = x.shape[-3] - 2
    return torch.stack([x[..., 1 + i : 1 + i + inner, 1 + j : 1 + j + inner, :, :] for i, j in steps])


def interpolated(m: Manifold, x: Tensor) -> Tensor:
    """From the four neighbours."""
    return m.frechet_mean(neighbours(x, [(-1, 0), (1, 0), (0, -1), (0, 1)]))


def smoothed(m: Manifold, x: Tensor) -> Tensor:
    """Over three voxels a direction, with weights 1, 2, 1."""
    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    weights = torch.tensor([2.0 ** -(abs(i) + abs(j)) for i, j in steps], dtype=x.dtype)
    return m.frechet_mean(neighbours(x, steps), weights.reshape(9, 1, 1, 1))


def dropped(side: int) -> Tensor:
    """Every other voxel, as on a chessboard."""
    i = torch.arange(side)
    return (i.unsqueeze(0) + i.unsqueeze(1)) % 2 == 1


def errors(found: Tensor, field: Field, where: Tensor) -> dict[str, Tensor]:
    """Against the field without noise, one number a scan."""
    rim = (slice(1, -1),) * 2
    clean, bundle = field.clean[rim], (field.bundle[rim] & where)
    off = (found - clean)[..., where, :, :].square().sum((-3, -2, -1)).sqrt()
    return {
        "size, %": 100 * off / clean[where].norm(),
        "axis, deg": angle(principal_axis(found), principal_axis(clean))[..., bundle].mean(-1),
        "anisotropy": (fractional_anisotropy(found) - fractional_anisotropy(clean))[..., where].abs().mean(-1),
        "volume, %": 100 * (found.logdet() - clean.logdet())[..., where].mean(-1).expm1(),
    }


def on_field(m: Manifold, field: Field) -> dict[str, dict[str, Tensor]]:
    """Errors of both tasks."""
    odd = dropped(field.clean.shape[0])[1:-1, 1:-1]
    return {
        "interpolated": errors(interpolated(m, field.noisy), field, odd),
        "smoothed": errors(smoothed(m, field.noisy), field, odd | True),
    }


# %% Invariance, and precision beside time


def changes(m: Manifold, count: int) -> Row:
    """Mean relative change of the distance of two tensors."""
    x, y = fibres(2, count)
    generator = torch.Generator().manual_seed(2)
    a = torch.randn(count, 3, 3, generator=generator, dtype=torch.float64)
    q = torch.linalg.qr(a)[0]
    maps: dict[str, Callable[[Tensor], Tensor]] = {
        "rotation": lambda p: q @ p @ q.mT,
        "scaling by 2": lambda p: 2 * p,
        "inversion": torch.linalg.inv,
        "congruence": lambda p: a @ p @ a.mT,
    }
    d = m.dist(x, y)
    return {name: float((m.dist(f(x), f(y)) / d - 1).abs().mean()) for name, f in maps.items()}


def median_ms(call: Callable[..., Tensor], given: list[Tensor], seconds: float) -> float:
    """Of three calls at least, and as many as take `seconds`."""
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        call(*given)
        times.append(time.perf_counter() - start)
    return 1e3 * float(torch.tensor(times).median())


def costs(m: Manifold, count: int, seconds: float) -> dict[str, tuple[float, float, float]]:
    """Milliseconds in float32 and in float64, and the largest relative error of float32, of `count` 16 x 16 matrices of
    condition 1000; the means are a sixteenth as many, of 8 matrices each."""
    generator = torch.Generator().manual_seed(3)
    x = SPDLogEuclidean().random_spectrum(8, count, 16, 16, condition=1e3, generator=generator)
    u = 0.5 * m.logmap(x[0].double(), x[1].double()).float()
    given = {"dist": [x[0], x[1]], "exp": [x[0], u], "log": [x[0], x[1]], "mean": [x[:, : count // 16]]}
    calls = {"dist": m.dist, "exp": m.expmap, "log": m.logmap, "mean": m.frechet_mean}
    found = {}
    for name, call in calls.items():
        low, high = given[name], [z.double() for z in given[name]]
        truth = call(*high).flatten(1) if name != "dist" else call(*high).unsqueeze(-1)
        error = (call(*low).reshape(truth.shape) - truth).norm(dim=-1) / truth.norm(dim=-1)
        found[name] = (median_ms(call, low, seconds), median_ms(call, high, seconds), float(error.max()))
    return found


# %% The tables


def table(head: str, rows: dict[str, dict[str, str]], width: int) -> str:
    """A row a metric."""
    columns = next(iter(rows.values()))
    lines = [f"{head:22}" + "".join(f"{name:>{width}}" for name in columns)]
    lines += [f"{name:22}" + "".join(f"{cell:>{width}}" for cell in cells.values()) for name, cells in rows.items()]
    return "\n".join(lines)


def spread(values: Tensor) -> str:
    """Mean and standard deviation over the scans."""
    return f"{values.mean():.3g} ± {values.std(correction=0):.2g}"


def ms(value: float) -> str:
    """Two digits at least, no exponent."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def tables(results: dict[str, dict[str, Any]]) -> str:
    """All of them."""

    def rows(part: str, form: Callable[[Any], str]) -> dict[str, dict[str, str]]:
        return {name: {k: form(v) for k, v in found[part].items()} for name, found in results.items()}

    return "\n\n".join(
        [
            table("between two, means", rows("between", lambda v: f"{v:.3f}"), 14),
            table("interpolated", rows("interpolated", spread), 18),
            table("smoothed", rows("smoothed", spread), 18),
            table("change of distance", rows("changes", lambda v: f"{v:.0e}"), 14),
            table("ms (float64), error", rows("costs", lambda v: f"{ms(v[0])} ({ms(v[1])}), {v[2]:.0e}"), 22),
        ]
    )


# %% The figure


def show_fields(figure, panels, field: Field) -> None:
    """Without noise, what is kept of a scan, and volumes that three metrics give the rest."""
    x = field.noisy[0]
    whole, odd = torch.ones_like(field.bundle), dropped(len(x))
    show_field(panels[0], field.clean, whole, direction_colours(field.clean))
    panels[0].set_title("the field without noise")
    show_field(panels[1], x, ~odd, direction_colours(x))
    panels[1].set_title("what is kept of a scan")
    norm, cmap = Normalize(-0.5, 0.5), plt.get_cmap("RdBu_r")
    for axes, name in zip(panels[2:], ("Euclidean", "Bures-Wasserstein", "affine-invariant"), strict=True):
        filled = x.clone()
        filled[1:-1, 1:-1] = interpolated(METRICS[name], x)
        ratio = (filled.logdet() - field.clean.logdet()) / math.log(2)
        inside = odd.clone()
        inside[[0, -1]] = False
        inside[:, [0, -1]] = False
        show_field(axes, filled, inside, cmap(norm(ratio.numpy())))
        axes.set_title(f"interpolated, {name}", color=COLOURS[name])
    figure.colorbar(ScalarMappable(norm, cmap), ax=panels[-1], label="log2 of volume / true volume", shrink=0.8)


def draw(field: Field):
    """The figure of the page."""
    figure = plt.figure(figsize=(17, 12.4), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(1.75, 1))
    left, right = parts[0].subfigures(1, 2, width_ratios=(2.5, 1))
    strips = left.subplots()
    ellipses = show_strips(strips, METRICS, COLOURS)
    bar = left.colorbar(ellipses, ax=strips, label="determinant / that of the ends", shrink=0.5)
    bar.set_ticks([1, 2, 4], labels=["1", "2", "4"])
    bar.minorticks_off()
    show_curves(right.subplots(3, 1, sharex=True), METRICS, COLOURS)
    show_fields(parts[1], parts[1].subplots(1, 5), field)
    return figure


def measure(name: str, quick: bool) -> dict[str, Any]:
    """Of one metric, in a process of its own."""
    torch.set_num_threads(1)
    m, count = METRICS[name], 20 if quick else 1000
    return {"between": between(m, count), **on_field(m, observed(quick)), "changes": changes(m, count)}


def observed(quick: bool) -> Field:
    """The same field in every process."""
    return scan(8, NOISE, 2) if quick else scan(SIDE, NOISE, SCANS)


def main(quick: bool = False) -> dict[str, Any]:
    """Run, print the tables, save the figure; returns what was measured. `quick` takes little and proves nothing."""
    start = time.perf_counter()
    torch.set_num_threads(1)
    jobs: Any = Parallel(n_jobs=1 if quick else 2, return_as="generator")(
        delayed(measure)(name, quick) for name in METRICS
    )
    results: dict[str, Any] = dict(zip(METRICS, tqdm(jobs, total=len(METRICS), unit="metric"), strict=True))
    for name, m in tqdm(METRICS.items(), desc="time", unit="metric"):
        results[name]["costs"] = costs(m, 16 if quick else 256, 0.0 if quick else 0.2)
    print(tables(results))
    figure = draw(observed(quick))
    if quick:
        figure.canvas.draw()
    else:
        FIGURE.parent.mkdir(exist_ok=True)
        figure.savefig(FIGURE, dpi=110)
    plt.close(figure)
    print(f"{time.perf_counter() - start:.0f} s" + ("" if quick else f"; figure: examples/figures/{FIGURE.name}"))
    return {name: {part: plain(values) for part, values in found.items()} for name, found in results.items()}


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Tensors over scans as their means."""
    return {k: float(v.mean()) if isinstance(v, Tensor) else v for k, v in values.items()}


# %%
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="few tensors, no file written")
    main(**vars(parser.parse_args()))
