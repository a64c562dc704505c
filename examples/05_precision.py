"""How far out a hyperbolic space can be used: errors against radius, for every model, dtype and peer.

Distance, exponential, logarithm and parallel transport of points in floating point are held against the same computed
from the same numbers with 80 digits. Then two consequences: Sarkar's construction, which embeds a tree almost without
distortion if only its leaves may lie far enough out, and Riemannian Adam in float32 from radius 10.

Curvature is -1. In float64 and below radius 5 every library will do, and stability wins nothing.

    python examples/05_precision.py [--quick]
"""

# %%
import argparse
import itertools
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geoopt
import matplotlib.pyplot as plt
import torch
from exact import Ball
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from tqdm import tqdm
from trees import average_distortion, balanced, hops, pairs, sarkar, worst_distortion
from trials import BALL, LORENTZ, MODELS, OPERATIONS, PEER_BALL, PEER_LORENTZ, worst_error

from torchriemann.manifolds import ManifoldParameter, convert
from torchriemann.optim import RiemannianAdam

FIGURE = Path(__file__).parent / "figures" / "05_precision.png"
DTYPES = (torch.float64, torch.float32)


# %% Errors

Curve = dict[float, float]


def error_curves(radii: dict[torch.dtype, list[float]], count: int) -> dict[tuple[str, torch.dtype, str], Curve]:
    """(operation, dtype, model) -> radius -> error."""
    curves: dict[tuple[str, torch.dtype, str], Curve] = {}
    cells = [(*key, r) for key in itertools.product(OPERATIONS, DTYPES, MODELS) for r in radii[key[1]]]
    for operation, dtype, name, radius in tqdm(cells, desc="errors", unit="cell"):
        error = worst_error(operation, MODELS[name], dtype, radius, count)
        if error is not None:
            curves.setdefault((operation, dtype, name), {})[radius] = error
    return curves


OPTIMIZERS = {  # the models that have one, and what a parameter of them is
    "Lorentz": (LORENTZ, ManifoldParameter, RiemannianAdam),
    "Poincaré ball": (BALL, ManifoldParameter, RiemannianAdam),
    "geoopt Lorentz": (PEER_LORENTZ, geoopt.ManifoldParameter, geoopt.optim.RiemannianAdam),
    "geoopt ball": (PEER_BALL, geoopt.ManifoldParameter, geoopt.optim.RiemannianAdam),
}


# %% Sarkar's construction: distances of a tree, drawn in the plane with edges of growing length

TREE = balanced(3, 5)
EDGES = {torch.float64: (2.0, 3.0, 4.0, 5.0, 6.0), torch.float32: (2.0, 2.5, 3.0, 3.5, 4.0)}


@dataclass
class Drawing:
    """Quality of the distances that a library reads off a drawing; the worst ratio is infinite if one is NaN."""

    radius: float
    average: float
    worst: float
    broken: int


def drawing(x: Tensor, manifold, edge: float) -> Drawing:
    """All distances over those of the tree, scaled by the edges."""
    i, j = pairs(len(TREE))
    ratio = manifold.dist(x[i], x[j]).double() / (edge * hops(TREE)[i, j])
    broken = int((~ratio.isfinite()).sum())
    worst = math.inf if broken else worst_distortion(ratio)
    return Drawing(edge * float(hops(TREE)[0].max()), average_distortion(ratio), worst, broken)


def drawings(edges: dict[torch.dtype, tuple[float, ...]]) -> dict[tuple[torch.dtype, str], list[Drawing]]:
    """(dtype, model) -> one drawing an edge length, of the same points rounded to the dtype; and one built in it."""
    found: dict[tuple[torch.dtype, str], list[Drawing]] = {}
    for dtype in DTYPES:
        for edge in edges[dtype]:
            x = sarkar(TREE, LORENTZ, edge)
            ball = convert(x, LORENTZ, BALL)
            for name in OPTIMIZERS:
                points = ball if MODELS[name].chart is Ball else x
                found.setdefault((dtype, name), []).append(drawing(points.to(dtype), MODELS[name].manifold, edge))
    for edge in edges[torch.float32]:
        x = sarkar(TREE, LORENTZ, edge, torch.float32)
        found.setdefault((torch.float32, "Lorentz, built in float32"), []).append(drawing(x, LORENTZ, edge))
    return found


# %% Riemannian Adam from radius 10: every point is drawn to a target of its own


def descend(name: str, dtype: torch.dtype, steps: int, radius: float = 10.0) -> list[float]:
    """Mean squared distance to the targets before every step."""
    manifold, parameter, optimizer = OPTIMIZERS[name]
    generator = torch.Generator().manual_seed(0)
    start, goal = torch.randn(2, 50, 3, generator=generator, dtype=torch.float64)
    start = radius * start / start.norm(dim=-1, keepdim=True)
    x, y = LORENTZ.from_normal(start), LORENTZ.from_normal(goal)
    if MODELS[name].chart is Ball:
        x, y = convert(x, LORENTZ, BALL), convert(y, LORENTZ, BALL)
    p, y = parameter(x.to(dtype), manifold=manifold), y.to(dtype)
    steepest = optimizer([p], lr=0.1)
    losses = []
    for _ in range(steps):
        steepest.zero_grad()
        loss = manifold.dist(p, y).square().mean()
        loss.backward()
        steepest.step()
        losses.append(float(loss.detach()))
    return losses


def descents(steps: int) -> dict[tuple[torch.dtype, str], list[float]]:
    """(dtype, model) -> losses."""
    return {(dtype, name): descend(name, dtype, steps) for dtype in DTYPES for name in OPTIMIZERS}


# %% The tables


def cell(value: float | None, form: str = ".0e") -> str:
    """A number; 'ends' beyond the end of a model, 'fails' for what is not a number."""
    return f"{'ends' if value is None else format(value, form) if math.isfinite(value) else 'fails':>9}"


def short(dtype: torch.dtype) -> str:
    """'float64'."""
    return str(dtype).removeprefix("torch.")


def error_table(curves, radii: dict[torch.dtype, list[float]]) -> str:
    """Errors at some radii."""
    lines = []
    for dtype in DTYPES:
        shown = radii[dtype]
        lines.append(f"{'largest error, ' + short(dtype):44}" + "".join(f"{f'r = {r:g}':>9}" for r in shown))
        for operation, name in itertools.product(OPERATIONS, MODELS):
            curve = curves.get((operation, dtype, name), {})
            lines.append(f"{operation:26}{name:18}" + "".join(cell(curve.get(r)) for r in shown))
    return "\n".join(lines)


def sarkar_table(found) -> str:
    """Worst distortions."""
    lines = []
    for dtype in DTYPES:
        radii = [d.radius for d in found[dtype, "Lorentz"]]
        lines.append(f"{'worst distortion, ' + short(dtype):44}" + "".join(f"{f'r = {r:g}':>9}" for r in radii))
        for (kind, name), row in found.items():
            if kind is dtype:
                lines.append(f"{'Sarkar, 364 nodes':18}{name:26}" + "".join(cell(d.worst, ".4g") for d in row))
    return "\n".join(lines)


def descent_table(losses) -> str:
    """The mean squared distance to the targets, early and late."""
    steps = len(next(iter(losses.values())))
    shown = [n for n in (0, 1, 10, 50, 100, 200) if n < steps]
    lines = [f"{'mean squared distance, from radius 10':44}" + "".join(f"{f'n = {n}':>9}" for n in shown)]
    for (dtype, name), values in losses.items():
        lines.append(f"{'RAdam, ' + short(dtype):18}{name:26}" + "".join(cell(values[n], ".2g") for n in shown))
    return "\n".join(lines)


# %% The figure

STYLES = {  # Okabe and Ito's colours, dashes for the peer; the broader line shows below one that agrees with it
    "Lorentz": ("#0072B2", "-", 3.5),
    "Lorentz, built in float32": ("#56B4E9", "-", 1.5),
    "Poincaré ball": ("#009E73", "-", 1.8),
    "Klein": ("#CC79A7", "-", 1.5),
    "geoopt Lorentz": ("#D55E00", "--", 1.2),
    "geoopt ball": ("#E69F00", "--", 2.2),
}
CEILING = 30.0  # of an error that is shown; what is no number is marked there


def show_errors(axes, curves, operation: str, dtype: torch.dtype) -> None:
    """Error against radius."""
    eps = torch.finfo(dtype).eps
    for name in MODELS:
        curve = curves.get((operation, dtype, name), {})
        colour, line, width = STYLES[name]
        kept = {r: e for r, e in curve.items() if e <= CEILING}
        axes.semilogy(list(kept), [max(e, eps / 8) for e in kept.values()], line, color=colour, lw=width)
        lost = next((r for r, e in curve.items() if not e <= CEILING), None)
        if lost is not None:
            axes.plot(lost, CEILING, "x", color=colour, ms=12 - 2 * width, mew=2.5, clip_on=False, zorder=5)
    axes.set(ylim=(eps / 8, CEILING), xlabel="radius")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(alpha=0.3)


def show_sarkar(axes, found, dtype: torch.dtype) -> None:
    """Worst distortion against the radius of the drawing."""
    for (kind, name), row in found.items():
        if kind is dtype:
            colour, line, width = STYLES[name]
            kept = [d for d in row if d.worst <= 3]
            lost = next((d for d in row if not d.worst <= 3), None)
            axes.plot([d.radius for d in kept], [d.worst for d in kept], line, marker="o", color=colour, lw=width)
            if lost is not None:
                axes.plot(lost.radius, 3, "x", color=colour, ms=12 - 2 * width, mew=2.5, clip_on=False, zorder=5)
    axes.set(ylim=(1, 3), xlabel="radius of the leaves", ylabel="worst distortion")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_title(f"Sarkar's tree, {short(dtype)}", pad=10)
    axes.grid(alpha=0.3)


def show_descents(axes, losses) -> None:
    """Losses in float32 over those in float64."""
    for (dtype, name), values in losses.items():
        colour, line, width = STYLES[name]
        if dtype is torch.float64:
            axes.semilogy(values, color=colour, lw=9, alpha=0.25)
        else:
            axes.semilogy(values, line, color=colour, lw=width)
            lost = next((n for n, v in enumerate(values) if math.isnan(v)), None)
            if lost is not None:
                axes.plot(lost, values[0], "x", color=colour, ms=9, mew=2.5, zorder=5)
    axes.set(xlabel="step", ylabel="mean squared distance to the target", ylim=(1e-4, 300))
    axes.set_title("Riemannian Adam from radius 10, float32\n(broad and pale: float64)")
    axes.grid(alpha=0.3)


def draw(curves, found, losses):
    """The figure of the page."""
    figure = plt.figure(figsize=(19, 13), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    parts: Any = figure.subfigures(3, 1, height_ratios=(1, 1, 1.1))
    for part, dtype in zip(parts[:2], DTYPES, strict=True):
        for axes, operation in zip(part.subplots(1, len(OPERATIONS), sharey=True), OPERATIONS, strict=True):
            show_errors(axes, curves, operation, dtype)
            axes.set_title(f"{operation}, {short(dtype)}", pad=10)
            axes.set_ylabel("largest error" if operation == next(iter(OPERATIONS)) else "")
    left, middle, right, corner = parts[2].subplots(1, 4, width_ratios=(1, 1, 1, 0.5))
    show_sarkar(left, found, torch.float64)
    show_sarkar(middle, found, torch.float32)
    show_descents(right, losses)
    handles = [Line2D([], [], color=c, ls=l, lw=w, label=name) for name, (c, l, w) in STYLES.items()]
    handles.append(Line2D([], [], color="black", marker="x", ls="", mew=2.5, ms=9, label="no number, or useless"))
    corner.legend(handles=handles, loc="center left", frameon=False, fontsize=12, labelspacing=1)
    corner.axis("off")
    return figure


def main(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Run, print the tables, save the figure; returns errors, distortions and losses. `quick` looks at few radii."""
    start = time.perf_counter()
    torch.set_num_threads(1)
    some = {
        torch.float64: [0.001, 1.0, 5.0, 8.0, 12.0, 18.0, 30.0],
        torch.float32: [0.001, 1.0, 3.0, 5.0, 8.0, 12.0, 16.0],
    }
    more = {torch.float64: [0.001, *range(1, 41)], torch.float32: [0.001, *(r / 2 for r in range(1, 37))]}
    radii = some if quick else {dtype: [float(r) for r in rs] for dtype, rs in more.items()}
    curves = error_curves(radii, 4 if quick else 24)
    edges = {dtype: every[-1:] if quick else every for dtype, every in EDGES.items()}
    found, losses = drawings(edges), descents(10 if quick else 300)
    print("\n\n".join([error_table(curves, some), sarkar_table(found), descent_table(losses)]))
    figure = draw(curves, found, losses)
    if quick:
        figure.canvas.draw()
    else:
        FIGURE.parent.mkdir(exist_ok=True)
        figure.savefig(FIGURE, dpi=110)
    plt.close(figure)
    print(f"{time.perf_counter() - start:.0f} s" + ("" if quick else f"; figure: examples/figures/{FIGURE.name}"))
    return {
        "errors": {f"{o}, {short(d)}, {n}": [c.get(r) for r in some[d]] for (o, d, n), c in curves.items()},
        "distortions": {f"{short(d)}, {n}": [row.worst for row in rows] for (d, n), rows in found.items()},
        "losses": {f"{short(d)}, {n}": values for (d, n), values in losses.items()},
    }


# %%
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="few radii, few steps, no file written")
    main(**vars(parser.parse_args()))
