"""A classifier whose classes are subspaces: accuracy on digits, and features that transfer.

Part A (real data, ships with scikit-learn): 8x8 digits, heads on the pixels and on a small network, beside
methods that train no head. Part B (generated data): a network trained on ten coarse classes; a linear probe asks how
much its features still know of four clusters inside each class, which the training labels do not tell.

Every method has the same tuning budget: four settings, compared on a quarter of the training data; the best one is
trained again on all of it, and the test data are looked at once. Head: arXiv:2308.01547.

    python examples/01_grassmann_classifier.py [--quick]
"""

# %%
import argparse
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from example_data import GeneratedData, digits
from heads import (
    HEADS,
    LEARNING_RATES,
    REFERENCES,
    accuracy,
    mlp_to_head,
    net_accuracy,
    pixels_to_head,
    select,
    train,
)
from joblib import Parallel, delayed
from matplotlib.layout_engine import ConstrainedLayoutEngine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

FIGURE = Path(__file__).parent / "figures" / "01_grassmann_classifier.png"
SEEDS = 5
EPOCHS = 30


def tuned_net(make_net, x, y, epochs: int, seed: int):
    """A net trained at its best learning rate."""

    def fit(lr, x, y):
        return train(make_net, x, y, lr, epochs, seed)

    return fit(select(LEARNING_RATES, fit, net_accuracy, x, y), x, y)


# %% Part A: digits


def digits_head(name: str, body, seed: int, epochs: int) -> float:
    """Test accuracy of a head on `body`, the pixels or the network."""
    x, y, x_test, y_test = digits(seed)
    net = tuned_net(lambda: body(HEADS[name]), x, y, epochs, seed)
    return net_accuracy(net, x_test, y_test)


def digits_reference(name: str, seed: int) -> float:
    """Test accuracy of a method without a trained head."""
    x, y, x_test, y_test = digits(seed)

    def fit(model, x, y):
        return model.fit(x.numpy(), y.numpy())

    def score(model, x, y):
        return accuracy(model.predict(x.numpy()), y)

    return score(fit(select(REFERENCES[name], fit, score, x, y), x, y), x_test, y_test)


# %% Part B: generated data, with classes inside the classes


def probe_accuracy(z, fine, z_test, fine_test) -> float:
    """40-way logistic regression on the features of a trained network, tuned as everything else."""

    def fit(c, z, fine):
        return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=3000)).fit(z, fine)

    def score(probe, z, fine):
        return accuracy(probe.predict(z), fine)

    shuffled = torch.randperm(len(z), generator=torch.Generator().manual_seed(0))
    z, fine = z[shuffled], fine[shuffled]
    return score(fit(select((0.1, 0.3, 1.0, 3.0), fit, score, z, fine), z, fine), z_test, fine_test)


def transfer(name: str, seed: int, epochs: int) -> tuple[float, float]:
    """Coarse test accuracy, and test accuracy of the fine probe."""
    data = GeneratedData(seed)
    net = tuned_net(lambda: mlp_to_head(HEADS[name]), *data.train, epochs, seed)
    (x_probe, _, fine_probe), (x_test, coarse_test, fine_test) = data.probe, data.test
    with torch.no_grad():
        z_probe, z_test = net.backbone(x_probe), net.backbone(x_test)
    return net_accuracy(net, x_test, coarse_test), probe_accuracy(z_probe, fine_probe, z_test, fine_test)


# %% Running everything


def run(seeds: int, epochs: int, jobs: int) -> dict[str, dict[str, np.ndarray]]:
    """Experiment -> method -> results over the seeds."""
    tasks: list[tuple[tuple[str, str, int], Any]] = [
        (("pixels", name, s), delayed(digits_reference)(name, s)) for name in REFERENCES for s in range(seeds)
    ]
    for name in HEADS:
        for s in range(seeds):
            tasks.append((("pixels", name, s), delayed(digits_head)(name, pixels_to_head, s, epochs)))
            tasks.append((("network", name, s), delayed(digits_head)(name, mlp_to_head, s, epochs)))
            tasks.append((("transfer", name, s), delayed(transfer)(name, s, epochs)))
    done = Parallel(n_jobs=jobs, return_as="generator")(call for _, call in tasks)
    results: dict[str, dict[str, list]] = {"pixels": {}, "network": {}, "transfer": {}}
    for ((experiment, name, _), _), value in zip(tasks, tqdm(done, total=len(tasks), unit="run"), strict=True):
        results[experiment].setdefault(name, []).append(value)
    return {e: {name: np.array(values) for name, values in table.items()} for e, table in results.items()}


def deviation(values) -> float:
    """Standard deviation over the seeds (0 for a single one)."""
    return values.std(ddof=1) if len(values) > 1 else 0.0


def cell(values) -> str:
    """Mean and standard deviation; blank where a method does not apply."""
    return f"{'':>13}" if values is None else f"{values.mean():6.2f} ± {deviation(values):4.2f}"


READING = """\
On raw digits class-wise PCA, nearest neighbours and the RBF-SVM match or beat every trained head, and on the network
the heads are level within noise. What the Grassmann head is for: training end to end, and features that transfer."""


def table(results) -> str:
    """All numbers, one line a method."""
    lines = [
        f"{'':24} {'digits, test accuracy %':^28}   {'generated data, %':^28}",
        f"{'':24} {'pixels':>13}  {'network':>13}   {'accuracy':>13}  {'fine probe':>13}",
    ]
    for name in [*REFERENCES, *HEADS]:
        coarse, probe = results["transfer"][name].T if name in HEADS else (None, None)
        network = results["network"].get(name)
        lines.append(
            f"{name:24} {cell(results['pixels'][name])}  {cell(network)}   {cell(coarse)}  {cell(probe)}".rstrip()
        )
    seeds = len(next(iter(results["pixels"].values())))
    lines.append(
        f"Mean ± standard deviation over {seeds} seed(s). Every method chose among {len(LEARNING_RATES)} settings"
    )
    lines.append("on a quarter of its training data.")
    return "\n".join(lines)


# %% The figure

HIGHLIGHT, PLAIN, WARM = "#0072B2", "#7F7F7F", "#D55E00"  # Okabe and Ito's colours: distinct to every eye
CLUSTERS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")


def show_angles(axes, head) -> None:
    """The smallest principal angle between every two classes."""
    subspaces = head.weight.detach()
    angles = head.manifold.principal_angles(subspaces.unsqueeze(1), subspaces.unsqueeze(0))
    shown = np.ma.masked_array(angles[..., 0].rad2deg().numpy(), mask=np.eye(10, dtype=bool))
    image = axes.imshow(shown, cmap="cividis")
    for (i, j), value in np.ndenumerate(shown):
        if i != j:
            colour = "white" if value < (shown.min() + shown.max()) / 2 else "black"
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", size=9, color=colour)
    axes.set(xticks=range(10), yticks=range(10), xlabel="class", ylabel="class")
    axes.set_title("Digits: smallest angle between class subspaces")
    axes.figure.colorbar(image, ax=axes, label="angle (degrees)", shrink=0.75)


def show_features(axes, name: str, epochs: int) -> None:
    """Features of one coarse class, coloured by the fine labels, in the plane where they vary most."""
    data = GeneratedData(seed=0)
    net = train(lambda: mlp_to_head(HEADS[name]), *data.train, 0.1, epochs, seed=0)
    x, coarse, fine = data.test
    with torch.no_grad():
        z = net.backbone(x[coarse == 0])
    z = z - z.mean(0)
    plane = torch.linalg.svd(z, full_matrices=False)[2][:2]
    for j, colour in enumerate(CLUSTERS):
        points = (z[fine[coarse == 0] == j] @ plane.mT).T
        axes.scatter(*points, color=colour, s=16, marker="osD^"[j], alpha=0.75, label=f"cluster {j + 1}")
    axes.set(xlabel="first principal component", ylabel="second principal component")
    axes.set_title(f"One class in feature space: {name}")


def show_accuracy(axes, pixels) -> None:
    """All methods on the pixels."""
    names = sorted(pixels, key=lambda name: pixels[name].mean())
    for row, name in enumerate(names):
        colour = HIGHLIGHT if "Grassmann" in name else PLAIN
        axes.errorbar(pixels[name].mean(), row, xerr=deviation(pixels[name]), fmt="o", color=colour, capsize=3)
    axes.set(yticks=range(len(names)), yticklabels=names)
    axes.set_xlabel("test accuracy (%), mean and standard deviation")
    axes.set_title("Digits, classified from their pixels")
    axes.grid(axis="x", alpha=0.3)


def show_transfer(axes, results) -> None:
    """What was trained, and what the features know beside it."""
    rows = np.arange(len(HEADS))[::-1]
    for column, marker, colour, label in (
        (0, "o", PLAIN, "10 coarse classes (trained)"),
        (1, "D", WARM, "40 fine classes (linear probe)"),
    ):
        mean = [results[name][:, column].mean() for name in HEADS]
        spread = [deviation(results[name][:, column]) for name in HEADS]
        axes.errorbar(mean, rows, xerr=spread, fmt=marker, color=colour, capsize=3, label=label)
    axes.set(yticks=rows, yticklabels=list(HEADS), ylim=(-1.4, len(HEADS) - 0.5))
    axes.set_xlabel("test accuracy (%), mean and standard deviation")
    axes.set_title("Generated data: what the features still know")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower left", ncols=2)


def draw(results, epochs: int):
    """The figure of the page."""
    x, y, *_ = digits(0)
    figure = plt.figure(figsize=(15, 10), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    halves: Any = figure.subfigures(2, 1)
    top, bottom = halves
    angles, left, right = top.subplots(1, 3)
    show_angles(angles, train(lambda: pixels_to_head(HEADS["Grassmann k=8"]), x, y, 0.1, epochs, seed=0).head)
    show_features(left, "softmax", epochs)
    show_features(right, "Grassmann k=8", epochs)
    right.legend(fontsize=9)
    left, right = bottom.subplots(1, 2)
    show_accuracy(left, results["pixels"])
    show_transfer(right, results["transfer"])
    return figure


def main(quick: bool = False) -> dict[str, dict[str, float]]:
    """Run, print the table, save the figure; returns the mean results. `quick` takes seconds and proves nothing."""
    start = time.perf_counter()
    torch.set_num_threads(1)  # the nets are small: two processes use two cores better than two threads do
    seeds, epochs, jobs = (1, 2, 1) if quick else (SEEDS, EPOCHS, 2)
    results = run(seeds, epochs, jobs)
    print(table(results))
    if not quick:
        print(READING)
    figure = draw(results, epochs)
    if quick:
        figure.canvas.draw()
    else:
        FIGURE.parent.mkdir(exist_ok=True)
        figure.savefig(FIGURE, dpi=130)
    plt.close(figure)
    print(f"{time.perf_counter() - start:.0f} s" + ("" if quick else f"; figure: examples/figures/{FIGURE.name}"))
    means = {e: {name: float(v.mean()) for name, v in results[e].items()} for e in ("pixels", "network")}
    for column, name in enumerate(("coarse", "probe")):
        means[name] = {head: float(v[:, column].mean()) for head, v in results["transfer"].items()}
    return means


# %%
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one seed, two epochs, no file written")
    main(**vars(parser.parse_args()))
