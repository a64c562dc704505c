"""What a metric of positive definite matrices does: interpolation, means and swelling of diffusion tensors.

Seven metrics, none of them tuned. Between two tensors: how far the determinant grows beyond both ends (the swelling of
Arsigny, Fillard, Pennec and Ayache 2006, doi 10.1002/mrm.20965), how round the middle of the way is, and how far its
axis lies from the middle of both axes. In a generated field of two crossing bundles, scanned with noise: every other
tensor is dropped and interpolated from its four neighbours, and the field is smoothed; errors are those against the
field without noise, in four measures that belong to no metric. Then what leaves the distance as it is, and what an
operation costs beside what it loses in float32.

Metrics that never swell turn the determinant of a mean into the geometric mean, and pay for it: noise and the edge of a
bundle bring single small eigenvalues, which geometric means weigh more. The table has the losses beside the wins.

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
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm, Normalize
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
COLOURS = dict(zip(METRICS, ("#000000", "#E69F00", "#D55E00", "#CC79A7", "#56B4E9", "#009E73", "#0072B2"), strict=True))
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
    condition 1000; the means are an eighth as many, of 8 matrices each."""
    generator = torch.Generator().manual_seed(3)
    x = SPDLogEuclidean().random_spectrum(8, count, 16, 16, condition=1e3, generator=generator)
    u = 0.5 * m.logmap(x[0].double(), x[1].double()).float()
    given = {"dist": [x[0], x[1]], "exp": [x[0], u], "log": [x[0], x[1]], "mean": [x[:, : count // 8]]}
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
            table("ms (float64), error", rows("costs", lambda v: f"{v[0]:.2g} ({v[1]:.2g}), {v[2]:.0e}"), 22),
        ]
    )


# %% The figure

TURN = math.radians(75)


def ends() -> tuple[Tensor, Tensor]:
    """Two ellipses of one shape, turned by 75 degrees."""
    shape = torch.diag(torch.tensor([1.0, 0.06], dtype=torch.float64))
    c, s = math.cos(TURN), math.sin(TURN)
    turn = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    return shape, turn @ shape @ turn.mT


def outlines(x: Tensor, scale: float) -> Tensor:
    """The ellipses of one standard deviation: any root of x carries the circle there. ``*B,2,2 -> *B,72,2``."""
    a = torch.linspace(0, 2 * math.pi, 72, dtype=x.dtype)
    return scale * (torch.linalg.cholesky(x) @ torch.stack([a.cos(), a.sin()])).mT


def show_strips(axes, count: int = 9) -> PolyCollection:
    """A row a metric: the geodesic between the ends, coloured by determinant."""
    x, y = ends()
    t = torch.linspace(0, 1, count, dtype=torch.float64)
    paths = torch.stack([m.geodesic(x, y, t) for m in METRICS.values()])
    rows, columns = torch.meshgrid(torch.arange(len(METRICS)), torch.arange(count), indexing="ij")
    shapes = outlines(paths, 0.47) + torch.stack([columns, -rows], -1).unsqueeze(-2)
    ratio = paths.det() / x.det()
    drawn = PolyCollection(list(shapes.flatten(0, 1).numpy()), cmap="YlOrRd", norm=LogNorm(1, 4.6), edgecolors="0.2")
    drawn.set_array(ratio.flatten().numpy())
    axes.add_collection(drawn)
    axes.set(xlim=(-0.6, count - 0.4), ylim=(0.45 - len(METRICS), 0.6), aspect="equal", xticks=[])
    axes.set_yticks([-i for i in range(len(METRICS))], list(METRICS))
    axes.tick_params(length=0, labelsize=13)
    for label, colour in zip(axes.get_yticklabels(), COLOURS.values(), strict=True):
        label.set(color=colour, fontweight="bold")
    axes.spines[:].set_visible(False)
    axes.set_title("Geodesics between an ellipse and itself, turned by 75 degrees")
    return drawn


def show_curves(panels) -> None:
    """Determinant, anisotropy and axis along the same geodesics."""
    x, y = ends()
    t = torch.linspace(0, 1, 201, dtype=torch.float64)
    for i, (name, m) in enumerate(METRICS.items()):
        path = m.geodesic(x, y, t)
        axis = principal_axis(path)
        turned = torch.atan2(axis[:, 1], axis[:, 0]).rad2deg() % 180
        # One over another: the later are thinner, so that those below show.
        style = {"color": COLOURS[name], "lw": 5.5 - 0.7 * i, "label": name}
        for axes, values in zip(panels, (path.det() / x.det(), fractional_anisotropy(path), turned), strict=True):
            axes.plot(t, values, **style)
    panels[0].set(yscale="log", title="determinant / that of the ends")
    panels[0].set_yticks([1, 2, 4], ["1", "2", "4"])
    panels[0].minorticks_off()
    panels[1].set(title="anisotropy", ylim=(0, 1))
    panels[2].set(title="turned by, degrees", xlabel="t", yticks=[0, 25, 50, 75])
    for axes in panels:
        axes.set_xlim(0, 1)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)


def show_field(axes, x: Tensor, shown: Tensor, colours: Any) -> None:
    """Ellipsoids as they are seen from above, their axes as long as the eigenvalues."""
    i, j = shown.nonzero().T
    seen = (x @ x)[i, j, :2, :2]
    shapes = outlines(seen, 0.33) + torch.stack([j, -i], -1).unsqueeze(-2)
    side = len(x)
    axes.add_collection(PolyCollection(list(shapes.numpy()), facecolors=colours[i, j], edgecolors="0.25", lw=0.4))
    axes.set(xlim=(-0.8, side - 0.2), ylim=(0.8 - side, 0.8), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_color("0.8")


def direction_colours(x: Tensor) -> Any:
    """Red, green and blue for the parts of the principal axis, as bright as it is anisotropic."""
    a = fractional_anisotropy(x).unsqueeze(-1).clamp(max=1)
    return (0.82 * (1 - a) + a * principal_axis(x).abs()).clamp(0, 1).numpy()


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
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.75, 1))
    left, right = top.subfigures(1, 2, width_ratios=(2.5, 1))
    strips = left.subplots()
    bar = left.colorbar(show_strips(strips), ax=strips, label="determinant / that of the ends", shrink=0.5)
    bar.set_ticks([1, 2, 4], labels=["1", "2", "4"])
    bar.minorticks_off()
    show_curves(right.subplots(3, 1, sharex=True))
    show_fields(bottom, bottom.subplots(1, 5), field)
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
    jobs = Parallel(n_jobs=1 if quick else 2, return_as="generator")(delayed(measure)(name, quick) for name in METRICS)
    results = dict(zip(METRICS, tqdm(jobs, total=len(METRICS), unit="metric"), strict=True))
    for name, m in tqdm(METRICS.items(), desc="time", unit="metric"):
        results[name]["costs"] = costs(m, 8 if quick else 256, 0.0 if quick else 0.3)
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
