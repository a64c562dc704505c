"""A learned chart: an invertible network in which curved data lies straight, and its geodesics.

Points near a curve in the plane, of which no method is told. An invertible network of affine coupling layers is fitted
by maximum likelihood to carry them to a normal law (Dinh, Sohl-Dickstein and Bengio 2017, arXiv 1605.08803). Flat space
seen through it, `Pullback(Euclidean(), chart)`, is a vector space (arXiv 2510.08570). Its straight lines stay where the
normal law is dense, and so do the geodesics, their pre-images: near the data (arXiv 2403.06612, 2410.01950).

The table has distances from the curve that the data was made of, in units of its noise: along straight lines and along
geodesics between the same data points, on average and at the worst place of a path, and of means of nine tenths of the
curve. Four networks a curve, each with its own data. The data itself is 0.8 away on average. Where a curve has to be
cut and unrolled, as at the ends of the spiral, coordinate lines leave the data, and paths make detours.

    python examples/08_learned_chart.py [--quick]
"""

# %%
import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from joblib import Parallel, delayed
from matplotlib.collections import LineCollection
from torch import Tensor, nn
from tqdm import tqdm

from torchriemann.manifolds import Chart, Euclidean, Manifold, Pullback

FIGURE = Path(__file__).parent / "figures" / "08_learned_chart.png"
NOISE, POINTS, PAIRS, LAYERS, WIDTH, SEEDS = 0.05, 2000, 200, 12, 48, 4


def ring(s: Tensor) -> Tensor:
    """Three quarters of a circle."""
    angle = 1.5 * math.pi * (s - 0.5) + 0.5 * math.pi
    return torch.stack([angle.cos(), angle.sin()], -1)


def wave(s: Tensor) -> Tensor:
    """A period and a half of a sine."""
    return torch.stack([3 * s - 1.5, 0.8 * (3 * math.pi * s).sin()], -1)


def spiral(s: Tensor) -> Tensor:
    """One turn and a quarter, opening."""
    angle, radius = 2.5 * math.pi * s, 0.35 + 1.05 * s
    return radius.unsqueeze(-1) * torch.stack([angle.cos(), angle.sin()], -1)


CURVES: dict[str, Callable[[Tensor], Tensor]] = {"ring": ring, "wave": wave, "spiral": spiral}


def sample(curve: str, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positions in [0, 1] on the curve, and points beside them."""
    s = torch.rand(count, generator=generator)
    return s, CURVES[curve](s) + NOISE * torch.randn(count, 2, generator=generator)


def distance(curve: str, x: Tensor) -> Tensor:
    """From the curve, in units of the noise."""
    return torch.cdist(x, CURVES[curve](torch.linspace(0, 1, 2000))).amin(-1) / NOISE


# %% The chart


class Coupling(nn.Module):
    """The second coordinate scaled and moved by functions of the first, in turned coordinates."""

    turn: Tensor

    def __init__(self, angle: float) -> None:
        super().__init__()
        last = nn.Linear(WIDTH, 2)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.Linear(1, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), last)
        c, s = math.cos(angle), math.sin(angle)
        self.register_buffer("turn", torch.tensor([[c, -s], [s, c]]))

    def parts(self, first: Tensor) -> tuple[Tensor, Tensor]:
        """The logarithm of the factor, and the shift."""
        log_factor, shift = self.net(first).chunk(2, -1)
        return 2 * torch.tanh(log_factor / 2), shift

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The image, and the logarithm of the determinant of the derivative."""
        first, second = (x @ self.turn).chunk(2, -1)
        log_factor, shift = self.parts(first)
        return torch.cat([first, second * log_factor.exp() + shift], -1), log_factor.squeeze(-1)

    def inverse(self, y: Tensor) -> Tensor:
        """The point with the image `y`."""
        first, second = y.chunk(2, -1)
        log_factor, shift = self.parts(first)
        return torch.cat([first, (second - shift) * (-log_factor).exp()], -1) @ self.turn.mT


class Flow(nn.Module):
    """Couplings one after another."""

    couplings: Any

    def __init__(self) -> None:
        super().__init__()
        golden = math.pi * (math.sqrt(5) - 1)
        self.couplings = nn.ModuleList([Coupling(golden * i) for i in range(LAYERS)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The image, and the logarithm of the determinant of the derivative."""
        volume = torch.zeros_like(x[..., 0])
        for coupling in self.couplings:
            x, log_factor = coupling(x)
            volume = volume + log_factor
        return x, volume

    def log_likelihood(self, x: Tensor) -> Tensor:
        """Of points, under the law whose image is standard normal."""
        y, volume = self(x)
        return volume - 0.5 * y.square().sum(-1) - math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)
class FlowChart(Chart):
    """The plane seen through a flow."""

    flow: Flow

    def forward(self, x: Tensor) -> Tensor:
        return self.flow(x)[0]

    def inverse(self, y: Tensor) -> Tensor:
        for coupling in reversed(self.flow.couplings):
            y = coupling.inverse(y)
        return y


def fit(x: Tensor, steps: int) -> Flow:
    """The flow of largest likelihood, or near it."""
    flow = Flow()
    optimizer = torch.optim.Adam(flow.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (500,))]
        optimizer.zero_grad()
        (-flow.log_likelihood(batch).mean()).backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return flow.eval().requires_grad_(False)


# %% Paths and means


@dataclass
class Run:
    """What one network found on one curve; distances are ``pairs,steps``."""

    curve: str
    x: Tensor
    flow: Flow
    along: dict[str, Tensor]
    means: dict[str, float]
    likelihood: float


def paths(space: Manifold, x: Tensor, y: Tensor, steps: int = 101) -> Tensor:
    """Geodesics, ``pairs,steps,2``."""
    t = torch.linspace(0, 1, steps)
    return space.geodesic(x.unsqueeze(-2), y.unsqueeze(-2), t.expand(len(x), steps))


def attempt(curve: str, seed: int, steps: int) -> Run:
    """One network, in a process of its own."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    x = sample(curve, POINTS, generator)[1]
    flow = fit(x, steps)
    ends = sample(curve, 2 * PAIRS, generator)[1].reshape(2, PAIRS, 2)  # not those of the training
    along, means = {}, {}
    for name, space in (("straight lines", Euclidean()), ("geodesics", Pullback(Euclidean(), FlowChart(flow)))):
        along[name] = distance(curve, paths(space, ends[0], ends[1]))
        centres = torch.stack([space.frechet_mean(part) for part in stretches(curve)])
        means[name] = float(distance(curve, centres).mean())
    return Run(curve, x, flow, along, means, float(flow.log_likelihood(ends.flatten(0, 1)).mean()))


def stretches(curve: str, count: int = 11) -> list[Tensor]:
    """Points of nine tenths of the curve, from one end to the other."""
    s, x = sample(curve, 2000, torch.Generator().manual_seed(99))
    return [x[(s >= low) & (s <= low + 0.9)] for low in torch.linspace(0, 0.1, count).tolist()]


def table(runs: list[Run]) -> str:
    """A row a curve and a kind of path: means and standard deviations over the networks."""
    lines = [f"{'distance / noise':28}{'along paths':>16}{'worst of a path':>18}{'of means':>16}"]
    for curve in CURVES:
        mine = [run for run in runs if run.curve == curve]
        for name in mine[0].along:
            columns = (
                [float(run.along[name].mean()) for run in mine],
                [float(run.along[name].amax(-1).mean()) for run in mine],
                [run.means[name] for run in mine],
            )
            cells = [f"{torch.tensor(c).mean():.2f} ± {torch.tensor(c).std(correction=0):.2f}" for c in columns]
            lines.append(f"{curve + ', ' + name:28}{cells[0]:>16}{cells[1]:>18}{cells[2]:>16}")
    return "\n".join(lines)


# %% The figure

COLOURS = {"straight lines": "#D55E00", "geodesics": "#0072B2"}  # Okabe and Ito's


def grid_lines(flow: Flow) -> list[Any]:
    """The coordinate lines of the normal law, as they lie in the plane."""
    ticks, fine = torch.linspace(-2, 2, 9), torch.linspace(-2, 2, 2000)
    across = torch.stack(torch.meshgrid(ticks, fine, indexing="ij"), -1)
    return list(FlowChart(flow).inverse(torch.cat([across, across.flip(-1)])).numpy())


def show_plane(axes, run: Run) -> None:
    """The data, the chart's coordinate lines, and both kinds of path between a few points."""
    s = torch.tensor([[0.03, 0.97], [0.12, 0.62], [0.45, 0.93]])
    ends = CURVES[run.curve](s)
    axes.add_collection(LineCollection(grid_lines(run.flow), colors="0.7", linewidths=0.7))
    axes.scatter(*run.x[:700].T, s=5, color="#009E73", linewidths=0, alpha=0.6)
    for name, space in (("straight lines", Euclidean()), ("geodesics", Pullback(Euclidean(), FlowChart(run.flow)))):
        for i, path in enumerate(paths(space, ends[:, 0], ends[:, 1], 2000)):
            axes.plot(
                *path.T,
                color=COLOURS[name],
                lw=2.2,
                ls="--" if name == "straight lines" else "-",
                zorder=3,
                label=name if i == 0 else None,
            )
    axes.scatter(*ends.flatten(0, 1).T, s=26, color="black", zorder=4)
    low, high = run.x.amin(0), run.x.amax(0)
    centre, half = (low + high) / 2, 0.5 * float((high - low).max()) + 0.1
    axes.set(xlim=(centre[0] - half, centre[0] + half), ylim=(centre[1] - half, centre[1] + half))
    axes.set(aspect="equal", xticks=[], yticks=[], title=run.curve)


def show_distances(axes, runs: list[Run]) -> None:
    """Distance from the curve along the paths: the median, and the band of nine tenths of all pairs and networks."""
    t = torch.linspace(0, 1, 101)
    for name, colour in COLOURS.items():
        d = torch.cat([run.along[name] for run in runs])
        low, middle, high = torch.quantile(d, torch.tensor([0.05, 0.5, 0.95]), dim=0)
        axes.fill_between(t, low, high, color=colour, alpha=0.2, lw=0)
        axes.plot(t, middle, color=colour, lw=2)
    axes.axhline(1, color="black", lw=0.8, ls=":")
    axes.set(xlabel="t along the path", ylim=(0, None), xlim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)


def draw(runs: list[Run]):
    """The figure of the page."""
    figure, axes = plt.subplots(2, len(CURVES), figsize=(13, 7.4), layout="constrained", height_ratios=(1.9, 1))
    for column, curve in enumerate(CURVES):
        mine = [run for run in runs if run.curve == curve]
        show_plane(axes[0, column], typical(mine))
        show_distances(axes[1, column], mine)
    axes[0, 0].set_ylabel("data, and the chart's coordinate lines")
    axes[1, 0].set_ylabel("distance from the curve / noise")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def typical(runs: list[Run]) -> Run:
    """The run that is shown: of middling likelihood, neither the best nor the worst."""
    return sorted(runs, key=lambda run: run.likelihood)[len(runs) // 2]


def main(quick: bool = False) -> dict[str, dict[str, float]]:
    """Run, print the table, save the figure; returns mean distances. `quick` takes few steps and proves nothing."""
    start = time.perf_counter()
    seeds, steps = (1, 20) if quick else (SEEDS, 800)
    calls = [delayed(attempt)(curve, seed, steps) for seed in range(seeds) for curve in CURVES]
    jobs = Parallel(n_jobs=1 if quick else 2, return_as="generator")(calls)
    runs: list[Any] = list(tqdm(jobs, total=len(calls), unit="network"))
    print(table(runs))
    figure = draw(runs)
    if quick:
        figure.canvas.draw()
    else:
        FIGURE.parent.mkdir(exist_ok=True)
        figure.savefig(FIGURE, dpi=110)
    plt.close(figure)
    print(f"{time.perf_counter() - start:.0f} s" + ("" if quick else f"; figure: examples/figures/{FIGURE.name}"))
    return {
        curve: {
            name: sum(float(run.along[name].mean()) for run in runs if run.curve == curve) / seeds for name in COLOURS
        }
        for curve in CURVES
    }


# %%
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="few steps, one network a curve, no file written")
    main(**vars(parser.parse_args()))
